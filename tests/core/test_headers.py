"""Matching headers: RabbitMQ's table of what equals what, its x-match modes, and any demand against a plain reading."""

from __future__ import annotations

from decimal import Decimal
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitish.core.headers import demand_of, offer_of, typed_table
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.values import Float32, Int8, Int16, Int64, Table, Timestamp, UInt8, UInt16, UInt32, Value
from tests.thorough import seeds


def met(arguments: Table, headers: Table) -> bool:
    return demand_of(arguments).met_by(offer_of(headers))


ONES: list[Value] = [1, Int8(1), UInt8(1), Int16(1), UInt16(1), UInt32(1), Int64(1), Timestamp(1), 1.0, Float32(1.0)]

# Values are equal when they are in the same class (1,444 pairs of values were compared with RabbitMQ 3.10.8).
CLASSES: list[list[Value]] = [
    ONES,
    [0, 0.0],
    [True],
    [False],
    ["1", b"1"],
    ["true"],
    ["undefined"],
    ["", b""],
    [Decimal(1)],
    [Decimal("0.1")],
    [[1]],
    [[Int64(1)]],
    [[1.0]],
    [["1"]],
    [[b"1"]],
    [[[1]]],
    [{"a": 1}],
    [{"a": Int64(1)}],
    [{"a": 1, "b": 2}],
    [{"b": 2, "a": 1}],
    [[], {}],
    [2**53 + 1],
    [2**53, float(2**53)],
    [1.5, Float32(1.5)],
]


def test_values_equal_those_of_their_class_only() -> None:
    values = [(number, member) for number, members in enumerate(CLASSES) for member in members]
    for (one, asked), (other, there) in product(values, values):
        assert met({"k": asked}, {"k": there}) == (one == other), (asked, there)


def test_void_asks_for_presence_and_equals_nothing_else() -> None:
    for value in (None, 1, "x", False, {}):
        assert met({"k": None}, {"k": value})
    assert not met({"k": None}, {"l": 1})
    assert not met({"k": 1}, {"k": None})


A_B: Table = {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("mode", "arguments", "headers", "expected"),
    [
        (None, A_B, {"a": 1, "b": 2, "c": 3}, True),
        (None, A_B, {"a": 1}, False),
        ("all", A_B, {"a": 1, "b": 3}, False),
        ("all", A_B, A_B, True),
        ("all", {}, {}, True),
        ("all", {}, A_B, True),
        ("all", {"x-c": 3}, {}, True),
        ("all", {"a": 1, "x-c": 3}, {"a": 1, "x-c": 4}, True),
        ("any", A_B, {"a": 1}, True),
        ("any", A_B, {"a": 2, "b": 1}, False),
        ("any", A_B, {}, False),
        ("any", {}, A_B, False),
        ("any", {"x-c": 3}, {"x-c": 3}, False),
        ("any", {"a": None, "b": 2}, {"a": 7}, True),
        ("all-with-x", {"a": 1, "x-c": 3}, {"a": 1, "x-c": 3}, True),
        ("all-with-x", {"a": 1, "x-c": 3}, {"a": 1, "x-c": 4}, False),
        ("all-with-x", {"a": 1, "x-c": 3}, {"a": 1}, False),
        ("all-with-x", {"x-c": None}, {"x-c": "here"}, True),
        ("any-with-x", {"a": 1, "x-c": 3}, {"x-c": 3}, True),
        ("any-with-x", {"a": 1, "x-c": 3}, {"x-c": 4}, False),
        ("any-with-x", {"a": 1}, {"x-match": "any-with-x"}, False),
        ("all", {"X-c": 1}, {}, False),
    ],
)
def test_modes(mode: str | None, arguments: Table, headers: Table, *, expected: bool) -> None:
    assert met({**arguments, **({} if mode is None else {"x-match": mode})}, headers) is expected


names = st.sampled_from(["a", "b", "c", "x-d", "x-e"])
scalars: st.SearchStrategy[Value] = st.sampled_from([0, 1, 1.0, True, False, "1", "", None])


def equal(one: Value, other: Value) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and one == other


@settings(deadline=None, max_examples=len(seeds(66, 200)))
@given(
    st.sampled_from([None, "all", "any", "all-with-x", "any-with-x"]),
    st.dictionaries(names, scalars),
    st.dictionaries(names, scalars),
)
def test_demands_are_met_as_a_plain_reading_says(mode: str | None, asked: Table, headers: Table) -> None:
    counted = {key: value for key, value in asked.items() if not key.startswith("x-") or str(mode).endswith("-with-x")}
    hits = [key in headers and (value is None or equal(value, headers[key])) for key, value in counted.items()]
    expected = any(hits) if str(mode).startswith("any") else all(hits)
    assert met({**asked, **({} if mode is None else {"x-match": mode})}, headers) == expected


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("zzz", 'value <<"zzz">>; expected all, any, all-with-x, or any-with-x'),
        ("", "value <<>>; expected all, any, all-with-x, or any-with-x"),
        ("All", 'value <<"All">>; expected all, any, all-with-x, or any-with-x'),
        ('z"z', 'value <<"z\\"z">>; expected all, any, all-with-x, or any-with-x'),
        ("zü", 'value <<"zü">>; expected all, any, all-with-x, or any-with-x'),
        ("ā", "value <<196,129>>; expected all, any, all-with-x, or any-with-x"),
        (5, "type signedint (value 5); expected longstr"),
        (True, "type bool (value true); expected longstr"),
        (None, "type void (value undefined); expected longstr"),
        (b"all", 'type binary (value <<"all">>); expected longstr'),
        (["all"], 'type array (value [{longstr,<<"all">>}]); expected longstr'),
        ({"a": 1}, 'type table (value [{<<"a">>,signedint,1}]); expected longstr'),
        (1.5, "type double (value 1.5); expected longstr"),
    ],
)
def test_a_meaningless_mode_is_refused(mode: Value, text: str) -> None:
    with pytest.raises(ChannelError) as refused:
        demand_of({"x-match": mode})
    assert refused.value.code is ReplyCode.PRECONDITION_FAILED
    assert refused.value.text == f"PRECONDITION_FAILED - Invalid x-match field {text}"


def test_tables_are_told_apart_by_keys_types_and_values() -> None:
    # Pairs that make one binding or two on RabbitMQ 3.10.8
    assert typed_table({"a": 1, "b": 2}) == typed_table({"b": 2, "a": 1})
    assert typed_table({}) == typed_table({})
    pairs: list[tuple[Table, Table]] = [
        ({"a": 1}, {"a": Int64(1)}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": True}),
        ({"a": "1"}, {"a": b"1"}),
        ({"t": {"a": 1, "b": 2}}, {"t": {"b": 2, "a": 1}}),
        ({"a": None}, {}),
    ]
    for one, other in pairs:
        assert typed_table(one) != typed_table(other)
        assert hash(typed_table(one)) == hash(typed_table(dict(one)))
