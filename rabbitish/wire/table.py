"""Field tables: bytes <-> the values of rabbitish/values.py.

Owns RabbitMQ's type tags (t b B s u I i l L f d D S A T F V x), which are not quite the specification's: s is a signed
16-bit integer, and L is read as l. What is decoded and encoded again gives the same bytes, except that of duplicate
keys the first stays (the one RabbitMQ looks up), that L becomes l and that a true bool becomes 1.

Never knows what a table is for. A table whose inside makes no sense is the peer's fault: 541, without a text, as from
RabbitMQ; what is wrong with it is in the exception's notes. A value that cannot be encoded is the caller's fault:
ValueError, or TypeError for a type that AMQP does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from math import isfinite
from struct import Struct
from struct import error as struct_error
from typing import Any

from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.values import Float32, Int8, Int16, Int64, Table, Timestamp, UInt8, UInt16, UInt32, Value

MAX_DEPTH = 100
"""Tables and arrays inside each other. Two Python frames a level: 100 stays far below the interpreter's 1000 whatever
the caller's own depth, and no real client nests deeper than a handful."""

_LONG = Struct(">I")
_read_long = _LONG.unpack_from
_write_long = _LONG.pack


def decode_table(buf: bytes, pos: int) -> tuple[Table, int]:
    """The table whose 4-byte length starts at `pos`, and the position after it.

    ConnectionFailure: 501 if the length does not fit into `buf`, else as `decode_table_body`.
    """
    start = pos + 4
    if start > len(buf) or (end := start + _read_long(buf, pos)[0]) > len(buf):
        raise ConnectionFailure(ReplyCode.FRAME_ERROR, "table is longer than what holds it")
    return decode_table_body(buf, start, end), end


def decode_table_body(buf: bytes, pos: int, end: int) -> Table:
    """The table whose entries fill `buf` from `pos` to `end`: without a length, as in AMQPLAIN's response.

    ConnectionFailure: 541 for an unknown type tag, an entry that does not end where the table does, or a float that is
    not a number (RabbitMQ's reader crashes on each, with that code); 502 for a table deeper than MAX_DEPTH.
    """
    try:
        return _decode_entries(buf, pos, end, MAX_DEPTH)
    except KeyError as unknown:
        raise _undecodable(f"unknown field type {chr(unknown.args[0])!r} in a table") from None
    except (IndexError, struct_error):
        raise _undecodable("an entry of a table is cut off") from None


def encode_table(table: Table) -> bytes:
    """The table with its 4-byte length. ValueError, TypeError: a value or key that has no encoding."""
    try:
        return _encode_table(table, MAX_DEPTH)
    except (struct_error, OverflowError) as unfit:
        raise ValueError(f"value does not fit its field type: {unfit}") from None


def _undecodable(reason: str) -> ConnectionFailure:
    failure = ConnectionFailure(ReplyCode.INTERNAL_ERROR, "")
    failure.add_note(reason)
    return failure


# Decoding. Every decoder takes (buf, position after the tag, levels left) and returns the value and the next position.
# None checks for the end of its table: positions only grow, so the comparison after the last entry finds every overrun,
# and an entry cut off by the end of `buf` itself is an IndexError or a struct.error.

_Decoder = Callable[[bytes, int, int], tuple[Any, int]]


def _decode_entries(buf: bytes, pos: int, end: int, levels: int) -> Table:
    table: Table = {}
    decoders = _DECODERS
    while pos < end:
        stop = pos + 1 + buf[pos]
        key = buf[pos + 1 : stop].decode("utf-8", "surrogateescape")
        value, pos = decoders[buf[stop]](buf, stop + 1, levels)
        table.setdefault(key, value)
    if pos != end:
        raise IndexError
    return table


def _decode_nested_table(buf: bytes, pos: int, levels: int) -> tuple[Table, int]:
    if not levels:
        raise _too_deep()
    start = pos + 4
    end = start + _read_long(buf, pos)[0]
    return _decode_entries(buf, start, end, levels - 1), end


def _decode_array(buf: bytes, pos: int, levels: int) -> tuple[list[Value], int]:
    if not levels:
        raise _too_deep()
    items: list[Value] = []
    decoders = _DECODERS
    end = pos + 4 + _read_long(buf, pos)[0]
    pos += 4
    while pos < end:
        value, pos = decoders[buf[pos]](buf, pos + 1, levels - 1)
        items.append(value)
    if pos != end:
        raise IndexError
    return items, end


def _too_deep() -> ConnectionFailure:
    return ConnectionFailure(ReplyCode.SYNTAX_ERROR, f"table nested deeper than {MAX_DEPTH} levels")


def _decode_longstr(buf: bytes, pos: int, levels: int) -> tuple[str, int]:
    end = pos + 4 + _read_long(buf, pos)[0]
    return buf[pos + 4 : end].decode("utf-8", "surrogateescape"), end


def _decode_binary(buf: bytes, pos: int, levels: int) -> tuple[bytes, int]:
    end = pos + 4 + _read_long(buf, pos)[0]
    return buf[pos + 4 : end], end


def _decode_bool(buf: bytes, pos: int, levels: int) -> tuple[bool, int]:
    return buf[pos] != 0, pos + 1


def _decode_void(buf: bytes, pos: int, levels: int) -> tuple[None, int]:
    return None, pos


def _decode_decimal(buf: bytes, pos: int, levels: int) -> tuple[Decimal, int]:
    scale, unscaled = _DECIMAL.unpack_from(buf, pos)
    # From a tuple and not by scaleb(): the result must not depend on the thread's decimal context.
    digits = tuple(map(int, str(abs(unscaled))))
    return Decimal((1 if unscaled < 0 else 0, digits, -scale)), pos + 5


def _fixed(layout: str, kind: Callable[[Any], Any] | None = None) -> _Decoder:
    """A decoder of one number of fixed width; `kind` is the type that remembers the width."""
    struct = Struct(layout)
    unpack, size = struct.unpack_from, struct.size

    if kind is None:

        def decode_plain(buf: bytes, pos: int, levels: int) -> tuple[Any, int]:
            return unpack(buf, pos)[0], pos + size

        return decode_plain

    def decode(buf: bytes, pos: int, levels: int) -> tuple[Any, int]:
        return kind(unpack(buf, pos)[0]), pos + size

    return decode


def _finite(number: float) -> float:
    if not isfinite(number):
        raise _undecodable("a floating point number in a table is not finite")
    return number


# RabbitMQ reads the unscaled value of a decimal as unsigned; the specification (4.2.5.5) and its clients, as signed.
_DECIMAL = Struct(">Bi")

_DECODERS: dict[int, _Decoder] = {
    ord("t"): _decode_bool,
    ord("b"): _fixed(">b", Int8),
    ord("B"): _fixed(">B", UInt8),
    ord("s"): _fixed(">h", Int16),
    ord("u"): _fixed(">H", UInt16),
    ord("I"): _fixed(">i"),
    ord("i"): _fixed(">I", UInt32),
    ord("l"): _fixed(">q", Int64),
    ord("L"): _fixed(">q", Int64),
    ord("f"): _fixed(">f", lambda number: Float32(_finite(number))),
    ord("d"): _fixed(">d", _finite),
    ord("D"): _decode_decimal,
    ord("S"): _decode_longstr,
    ord("A"): _decode_array,
    ord("T"): _fixed(">Q", Timestamp),
    ord("F"): _decode_nested_table,
    ord("V"): _decode_void,
    ord("x"): _decode_binary,
}


# Encoding. Every encoder takes (value, levels left) and returns tag and value.

_Encoder = Callable[[Any, int], bytes]


def _encode_table(table: Table, levels: int) -> bytes:
    parts: list[bytes] = []
    for key, value in table.items():
        name = key.encode("utf-8", "surrogateescape")
        if len(name) > 255:
            raise ValueError(f"table key of {len(name)} bytes; 255 are the most")
        parts += (_OCTETS[len(name)], name, _encode_value(value, levels))
    body = b"".join(parts)
    return _write_long(len(body)) + body


def _encode_value(value: Value, levels: int) -> bytes:
    encoder = _ENCODERS.get(type(value)) or _encoder_for_subclass(value)
    return encoder(value, levels)


def _encoder_for_subclass(value: Value) -> _Encoder:
    for kind in type(value).__mro__:
        if kind in _ENCODERS:
            return _ENCODERS[kind]
    raise TypeError(f"{type(value).__name__} has no encoding in a field table")


def _encode_nested_table(table: Table, levels: int) -> bytes:
    if not levels:
        raise ValueError(f"table nested deeper than {MAX_DEPTH} levels")
    return b"F" + _encode_table(table, levels - 1)


def _encode_array(items: list[Value], levels: int) -> bytes:
    if not levels:
        raise ValueError(f"table nested deeper than {MAX_DEPTH} levels")
    body = b"".join([_encode_value(item, levels - 1) for item in items])
    return b"A" + _write_long(len(body)) + body


def _encode_longstr(text: str, levels: int) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return b"S" + _write_long(len(raw)) + raw


def _encode_binary(raw: bytes, levels: int) -> bytes:
    return b"x" + _write_long(len(raw)) + raw


def _encode_bool(flag: bool, levels: int) -> bytes:
    return b"t\x01" if flag else b"t\x00"


def _encode_void(nothing: None, levels: int) -> bytes:
    return b"V"


def _encode_int(number: int, levels: int) -> bytes:
    return (
        _encode_signed_32(number, levels) if -0x80000000 <= number <= 0x7FFFFFFF else _encode_signed_64(number, levels)
    )


def _encode_decimal(number: Decimal, levels: int) -> bytes:
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{number} has no encoding in a field table")
    unscaled = int("".join(map(str, digits)) + "0" * min(max(exponent, 0), 10))
    return b"D" + _DECIMAL.pack(max(-exponent, 0), -unscaled if sign else unscaled)


def _number(tag: bytes, layout: str) -> _Encoder:
    pack = Struct(layout).pack

    def encode(number: Any, levels: int) -> bytes:
        return tag + pack(number)

    return encode


def _real(tag: bytes, layout: str) -> _Encoder:
    pack = Struct(layout).pack

    def encode(number: float, levels: int) -> bytes:
        if not isfinite(number):
            raise ValueError(f"{number} has no encoding in a field table: RabbitMQ refuses it")
        return tag + pack(number)

    return encode


_OCTETS = [bytes((n,)) for n in range(256)]
_encode_signed_32 = _number(b"I", ">i")
_encode_signed_64 = _number(b"l", ">q")

_ENCODERS: dict[type, _Encoder] = {
    bool: _encode_bool,
    Int8: _number(b"b", ">b"),
    UInt8: _number(b"B", ">B"),
    Int16: _number(b"s", ">h"),
    UInt16: _number(b"u", ">H"),
    int: _encode_int,
    UInt32: _number(b"i", ">I"),
    Int64: _encode_signed_64,
    Timestamp: _number(b"T", ">Q"),
    Float32: _real(b"f", ">f"),
    float: _real(b"d", ">d"),
    Decimal: _encode_decimal,
    str: _encode_longstr,
    bytes: _encode_binary,
    list: _encode_array,
    dict: _encode_nested_table,
    type(None): _encode_void,
}
