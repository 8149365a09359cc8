"""What several wire tests share: hypothesis strategies for AMQP values, and comparison down to the wire type."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from rabbitish.values import Float32, Int8, Int16, Int64, Timestamp, UInt8, UInt16, UInt32
from rabbitish.wire.methods import METHODS, Method
from tests.thorough import THOROUGH

relaxed = settings(deadline=None, max_examples=100 if THOROUGH else 40)
"""For tests whose single examples may be slow on a busy machine."""

any_text = st.binary(max_size=255).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
utf8_text = st.text(max_size=60)


def integers(kind: type[int], low: int, high: int) -> st.SearchStrategy[Any]:
    return st.integers(low, high).map(kind)


decimals = st.builds(
    lambda unscaled, scale: Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -scale)),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 255),
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    integers(Int8, -(2**7), 2**7 - 1),
    integers(UInt8, 0, 2**8 - 1),
    integers(Int16, -(2**15), 2**15 - 1),
    integers(UInt16, 0, 2**16 - 1),
    st.integers(-(2**31), 2**31 - 1),
    integers(UInt32, 0, 2**32 - 1),
    integers(Int64, -(2**63), 2**63 - 1),
    integers(Timestamp, 0, 2**64 - 1),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(Float32),
    st.floats(allow_nan=False, allow_infinity=False),
    decimals,
    any_text,
    st.binary(max_size=40),
)

keys = st.binary(max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
tables = st.dictionaries(keys, values, max_size=5)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "bit": st.booleans(),
    "octet": st.integers(0, 2**8 - 1),
    "short": st.integers(0, 2**16 - 1),
    "long": st.integers(0, 2**32 - 1),
    "longlong": st.integers(0, 2**64 - 1),
    "shortstr": utf8_text,
    "longstr": st.binary(max_size=300),
    "table": tables,
}

every_method = sorted(METHODS.values(), key=lambda cls: (cls.class_id, cls.method_id))


def arguments_of(cls: type[Method]) -> st.SearchStrategy[Method]:
    return st.builds(cls, **{name: FIELDS[kind] for name, kind in cls.fields.items()})


any_method = st.sampled_from(every_method).flatmap(arguments_of)


def exact(value: Any) -> Any:
    """`value` with every type beside it, so that Int64(1), 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    if isinstance(value, dict):
        return [(key, exact(item)) for key, item in value.items()]
    if isinstance(value, list):
        return list, [exact(item) for item in value]
    return type(value), repr(value)
