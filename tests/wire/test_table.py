"""Field tables: every type tag as literal bytes, round trips to the byte, and each way that a table can be broken."""

from __future__ import annotations

import struct
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.values import Float32, Int8, Int16, Int64, Table, Timestamp, UInt8, UInt16, UInt32
from rabbitish.wire.table import MAX_DEPTH, decode_table, decode_table_body, encode_table

from .helpers import exact, relaxed, tables


def sized(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def entry(value: bytes) -> bytes:
    """A table with the one key k."""
    return sized(b"\x01k" + value)


TAGS = [
    (b"t\x00", False),
    (b"t\x01", True),
    (b"b\x80", Int8(-128)),
    (b"B\xff", UInt8(255)),
    (b"s\x80\x00", Int16(-32768)),
    (b"u\xff\xff", UInt16(65535)),
    (b"I\x80\x00\x00\x00", -(2**31)),
    (b"I\x7f\xff\xff\xff", 2**31 - 1),
    (b"i\xff\xff\xff\xff", UInt32(2**32 - 1)),
    (b"l\x80" + bytes(7), Int64(-(2**63))),
    (b"l" + bytes(7) + b"\x01", Int64(1)),
    (b"f\x3f\xc0\x00\x00", Float32(1.5)),
    (b"d\x3f\xf8" + bytes(6), 1.5),
    (b"d\x80" + bytes(7), -0.0),
    (b"D\x02\x00\x00\x30\x39", Decimal("123.45")),
    (b"D\x02\xff\xff\xcf\xc7", Decimal("-123.45")),
    (b"D\x03\x00\x00\x00\x00", Decimal("0.000")),
    (b"D\x00\x00\x00\x00\x64", Decimal("100")),
    (b"D\xff\x7f\xff\xff\xff", Decimal((0, (2, 1, 4, 7, 4, 8, 3, 6, 4, 7), -255))),
    (b"S\x00\x00\x00\x00", ""),
    (b"S\x00\x00\x00\x03\xc3\xa9!", "é!"),
    (b"S\x00\x00\x00\x02\xe9!", "\udce9!"),
    (b"A\x00\x00\x00\x00", []),
    (b"A\x00\x00\x00\x08I\x00\x00\x00\x01Vt\x01", [1, None, True]),
    (b"A\x00\x00\x00\x0aA\x00\x00\x00\x00F\x00\x00\x00\x00", [[], {}]),
    (b"T\xff" + bytes(7), Timestamp(255 << 56)),
    (b"F\x00\x00\x00\x00", {}),
    (b"F\x00\x00\x00\x04\x01ab\xff", {"a": Int8(-1)}),
    (b"V", None),
    (b"x\x00\x00\x00\x02\x00\xff", b"\x00\xff"),
]


@pytest.mark.parametrize(("raw", "value"), TAGS)
def test_a_value_of_each_type_both_ways(raw: bytes, value: Any) -> None:
    assert exact(decode_table(entry(raw), 0)) == exact(({"k": value}, 6 + len(raw)))
    assert encode_table({"k": value}) == entry(raw)


@pytest.mark.parametrize(("raw", "value"), TAGS)
def test_what_surrounds_a_table_does_not_matter(raw: bytes, value: Any) -> None:
    buf = b"\xff\xff" + entry(raw) + b"I\x01"
    table, pos = decode_table(buf, 2)
    assert (exact(table), pos) == (exact({"k": value}), len(buf) - 2)
    assert exact(decode_table_body(buf, 6, pos)) == exact(table)


@pytest.mark.parametrize(("raw", "value"), TAGS)
def test_a_table_cut_anywhere_is_refused(raw: bytes, value: Any) -> None:
    whole = entry(raw)
    for size in range(len(whole)):
        with pytest.raises(ConnectionFailure) as failure:
            decode_table(whole[:size], 0)
        assert failure.value.code is ReplyCode.FRAME_ERROR
    for size in range(1, len(whole) - 4):
        with pytest.raises(ConnectionFailure) as failure:
            decode_table(sized(whole[4 : 4 + size]), 0)
        assert failure.value.code is ReplyCode.INTERNAL_ERROR
        with pytest.raises(ConnectionFailure):
            decode_table_body(whole, 4, 4 + size)  # the rest lies behind the end, in reach but not the table's


def test_uppercase_l_is_read_as_l() -> None:
    table, _ = decode_table(entry(b"L" + b"\xff" * 8), 0)
    assert exact(table) == exact({"k": Int64(-1)})
    assert encode_table(table) == entry(b"l" + b"\xff" * 8)


def test_any_octet_but_0_is_true_and_becomes_1() -> None:
    table, _ = decode_table(entry(b"t\x02"), 0)
    assert exact(table) == exact({"k": True})
    assert encode_table(table) == entry(b"t\x01")


def test_of_duplicate_keys_the_first_stays() -> None:
    table, _ = decode_table(sized(b"\x01kb\x01" + b"\x01jV" + b"\x01kb\x02"), 0)
    assert exact(table) == exact({"k": Int8(1), "j": None})


def test_keys_of_any_bytes() -> None:
    raw = sized(b"\x00V" + b"\x02\xff\x00V" + b"\xff" + b"k" * 255 + b"V")
    table, _ = decode_table(raw, 0)
    assert list(table) == ["", "\udcff\x00", "k" * 255]
    assert encode_table(table) == raw


@relaxed
@given(tables, st.binary(max_size=3), st.binary(max_size=3))
def test_round_trip(table: Table, before: bytes, after: bytes) -> None:
    raw = encode_table(table)
    decoded, pos = decode_table(before + raw + after, len(before))
    assert exact(decoded) == exact(table)
    assert pos == len(before) + len(raw)
    assert encode_table(decoded) == raw


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (entry(b"Z"), "unknown field type 'Z'"),
        (entry(b"\x00"), "unknown field type '\\x00'"),
        (entry(b"A\x00\x00\x00\x01Z"), "unknown field type 'Z'"),
        (entry(b"U\x00\x01"), "unknown field type 'U'"),  # in the specification, but not in RabbitMQ
        (entry(b"S\xff\xff\xff\xffabc"), "cut off"),
        (entry(b"F\x00\x00\x00\x09"), "cut off"),
        (entry(b"A\x00\x00\x00\x05I\x00\x00"), "cut off"),
        (entry(b"A\x00\x00\x00\x02I\x00\x00\x00\x01"), "cut off"),  # the array ends inside its item
        (entry(b"F\x00\x00\x00\x05\x01aI\x00\x00\x00\x01"), "cut off"),  # and the table inside its
        (sized(b"\x05ab"), "cut off"),
        (sized(b"\x01k"), "cut off"),
        (entry(b"d\x7f\xf0" + bytes(6)), "not finite"),
        (entry(b"d\x7f\xf8" + bytes(6)), "not finite"),
        (entry(b"f\xff\x80\x00\x00"), "not finite"),
    ],
)
def test_a_table_that_makes_no_sense_is_541(raw: bytes, reason: str) -> None:
    with pytest.raises(ConnectionFailure) as failure:
        decode_table(raw, 0)
    assert (failure.value.code, failure.value.text) == (ReplyCode.INTERNAL_ERROR, "INTERNAL_ERROR")
    assert reason in failure.value.__notes__[0]


def nested(levels: int, tag: bytes) -> bytes:
    """The body of a table with `levels` tables or arrays inside each other."""
    inner = b""
    for _ in range(levels - 1):
        inner = (b"\x01k" if tag == b"F" else b"") + tag + sized(inner)
    return b"\x01k" + tag + sized(inner)


@pytest.mark.parametrize("tag", [b"F", b"A"])
def test_depth_is_limited(tag: bytes) -> None:
    deepest = sized(nested(MAX_DEPTH, tag))
    table, _ = decode_table(deepest, 0)
    assert encode_table(table) == deepest
    for levels in (MAX_DEPTH + 1, 20_000):
        with pytest.raises(ConnectionFailure, match=f"deeper than {MAX_DEPTH}") as failure:
            decode_table(sized(nested(levels, tag)), 0)
        assert failure.value.code is ReplyCode.SYNTAX_ERROR
    with pytest.raises(ValueError, match=f"deeper than {MAX_DEPTH}"):
        encode_table({"k": table if tag == b"F" else [table["k"]]})


def test_a_table_inside_itself_is_refused() -> None:
    table: Table = {}
    table["self"] = table
    with pytest.raises(ValueError, match="deeper"):
        encode_table(table)


@pytest.mark.parametrize(
    ("number", "raw"),
    [
        (0, b"I" + bytes(4)),
        (2**31 - 1, b"I\x7f\xff\xff\xff"),
        (2**31, b"l\x00\x00\x00\x00\x80\x00\x00\x00"),
        (-(2**31), b"I\x80\x00\x00\x00"),
        (-(2**31) - 1, b"l\xff\xff\xff\xff\x7f\xff\xff\xff"),
        (2**63 - 1, b"l\x7f" + b"\xff" * 7),
        (-(2**63), b"l\x80" + bytes(7)),
    ],
)
def test_a_plain_int_takes_32_bits_where_it_fits_and_64_where_not(number: int, raw: bytes) -> None:
    assert encode_table({"k": number}) == entry(raw)


@pytest.mark.parametrize(
    ("number", "raw"),
    [("1E+3", b"D\x00\x00\x00\x03\xe8"), ("0E+50", b"D\x00" + bytes(4)), ("-0.0", b"D\x01" + bytes(4))],
)
def test_a_decimal_of_any_exponent_is_written_with_a_scale(number: str, raw: bytes) -> None:
    assert encode_table({"k": Decimal(number)}) == entry(raw)


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        -(2**63) - 1,
        Int8(128),
        UInt8(-1),
        Int16(2**15),
        UInt16(2**16),
        UInt32(2**32),
        Int64(2**63),
        Timestamp(-1),
        Float32(1e300),
        float("nan"),
        float("inf"),
        Float32("-inf"),
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal(2**31),
        Decimal("1E+10"),
        Decimal("1E+999999"),
        Decimal("1E-256"),
        "\ud800",
    ],
)
def test_a_value_that_fits_no_field_is_a_value_error(value: Any) -> None:
    for table in ({"k": value}, {"k": [value]}, {"k": {"k": value}}):
        with pytest.raises(ValueError):
            encode_table(table)


def test_a_key_over_255_bytes_is_a_value_error() -> None:
    assert len(encode_table({"k" * 255: None})) == 4 + 1 + 255 + 1
    with pytest.raises(ValueError, match="256 bytes"):
        encode_table({"é" * 128: None})


@pytest.mark.parametrize("value", [object(), {1}, 1j, (1,), bytearray(b"x")])
def test_a_type_that_amqp_does_not_have_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        encode_table({"k": value})


def test_subclasses_go_as_what_they_are() -> None:
    class Name(str):
        __slots__ = ()

    class Level(IntEnum):
        HIGH = 7

    class Names(dict[str, Any]):
        pass

    assert encode_table({"a": Name("x"), "b": Level.HIGH, "c": Names(d=None)}) == encode_table(
        {"a": "x", "b": 7, "c": {"d": None}}
    )
