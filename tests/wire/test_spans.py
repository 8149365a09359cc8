"""Values in properties may be replaced by any others: what comes of it decodes, and has the same form."""

from __future__ import annotations

from decimal import Decimal
from random import Random

import pytest

from rabbitish.values import Float32, Int8, Int64, Table, Timestamp, UInt16, Value
from rabbitish.wire.properties import Properties, decode_properties
from rabbitish.wire.spans import value_spans

VALUES: list[Value] = [
    *("", "text", b"", b"bytes", True, None, 1, Int8(-1), UInt16(7), Int64(2**40), Timestamp(9), Decimal("1.5")),
    *(0.0, -1.5, 1.7e9, 1.7e308, -1.7e308, 2**0.5, Float32(0), Float32(3e38), Float32(-1.5)),
    *([], [1, "x", [None, 2.5]], {}, {"": {"deep": [{"a": "b"}]}}),
]


def properties(random: Random) -> Properties:
    table: Table = {f"name {number}": random.choice(VALUES) for number in range(random.randrange(6))}
    text = random.choice([None, "", "some text"])
    return Properties(
        content_type=text,
        content_encoding=random.choice([None, "x"]),
        headers=random.choice([None, table, table, table]),
        delivery_mode=random.choice([None, 2]),
        priority=random.choice([None, 3]),
        correlation_id=random.choice([None, "some"]),
        reply_to=text,
        expiration=random.choice([None, "100"]),
        message_id=random.choice([None, "one"]),
        timestamp=random.choice([None, 12]),
        type=text,
        user_id=random.choice([None, "me"]),
        app_id=text,
        cluster_id=random.choice([None, "it"]),
    )


def kinds(value: object) -> object:
    """The form of a value: names, types and lengths."""
    if isinstance(value, dict):
        return {name: kinds(each) for name, each in value.items()}
    if isinstance(value, list):
        return [kinds(each) for each in value]
    return type(value)


@pytest.mark.parametrize("seed", range(20))
def test_any_other_values(seed: int) -> None:
    random = Random(seed)
    for _ in range(30):
        before = properties(random)
        raw = before.encode()
        spans = list(value_spans(raw))
        for filler in (b"\0", b"\xff", b"\x7f", b"CC", None):
            other = bytearray(raw)
            for _, start, end in spans:
                size = end - start
                other[start:end] = random.randbytes(size) if filler is None else (filler * size)[:size]
            after = decode_properties(bytes(other))
            assert kinds(after.headers) == kinds(before.headers)
            assert list(value_spans(bytes(other))) == spans


def test_all_values_are_found_by_name() -> None:
    raw = Properties(
        headers={"a": "xy", "b": [1, {"c": 2.5}], "d": None}, priority=3, timestamp=1, user_id="z"
    ).encode()
    found = [(name, raw[start:end]) for name, start, end in value_spans(raw)]
    assert [name for name, _ in found] == ["headers"] * 4 + ["priority", "timestamp", "user_id"]
    assert [value for _, value in found] == [
        *(b"xy", b"\0\0\0\1", b"\4" + bytes(6), b""),  # of a float all but what says that it is finite
        *(b"\3", b"\0\0\0\0\0\0\0\1", b"z"),
    ]
