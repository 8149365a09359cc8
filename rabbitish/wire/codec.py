"""How a method's arguments are laid out: field types, and the codec compiled from a dataclass's annotations.

A method class is declared as data (see methods/): its annotations name AMQP's argument types, and `Layout` turns them
once, at import, into a list of steps. Neighbouring numbers become one Struct and neighbouring bits one octet with a
lookup table, so that a method costs one call per step and not one per argument.

Owns the rule that arguments fill a method frame exactly. Never knows which methods exist.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as struct_error
from typing import Any, TypeAlias

from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.values import Table
from rabbitish.wire.table import decode_table_body, encode_table

Bit: TypeAlias = bool
Octet: TypeAlias = int
Short: TypeAlias = int
Long: TypeAlias = int
LongLong: TypeAlias = int
ShortStr: TypeAlias = str
LongStr: TypeAlias = bytes
"""Bytes and not str: outside of tables AMQP uses it for SASL data, which is not text."""
TableField: TypeAlias = Table

FieldType: TypeAlias = str
"""AMQP's name of an argument type: a value of FIELD_TYPES."""
FIELD_TYPES: dict[str, FieldType] = {
    "Bit": "bit",
    "Octet": "octet",
    "Short": "short",
    "Long": "long",
    "LongLong": "longlong",
    "ShortStr": "shortstr",
    "LongStr": "longstr",
    "TableField": "table",
}
"""By the name that the annotation uses, since that is what tells Short from Long."""

IDS = Struct(">HH")
"""Class and method id, which a method frame's payload starts with."""

_Reader = Callable[[bytes, int, list[Any]], int]
_Writer = Callable[[list[Any]], bytes]

_NUMBERS: dict[FieldType, str] = {"octet": "B", "short": "H", "long": "I", "longlong": "Q"}
_read_long = Struct(">I").unpack_from
_write_long = Struct(">I").pack
_BITS_OF_OCTET = [tuple(bool(octet >> bit & 1) for bit in range(8)) for octet in range(256)]


def field_types(cls: type) -> dict[str, FieldType]:
    """The arguments that `cls` declares, in order: name -> AMQP type."""
    return {name: FIELD_TYPES[annotation] for name, annotation in cls.__annotations__.items()}


class Layout:
    """The compiled codec of one list of arguments.

    `strict_text`: refuse a short string that is not UTF-8. Where it is off, any bytes survive, as surrogate escapes.
    """

    __slots__ = ("_reads", "_writes")

    def __init__(self, types: dict[str, FieldType], *, strict_text: bool) -> None:
        self._reads: list[_Reader] = []
        self._writes: list[tuple[int, int, _Writer]] = []
        kinds = list(types.values())
        start = 0
        while start < len(kinds):
            stop = start + _run_length(kinds, start)
            reader, writer = _step(kinds[start:stop], strict_text)
            self._reads.append(reader)
            self._writes.append((start, stop, writer))
            start = stop

    def decode(self, payload: bytes) -> list[Any]:
        """The arguments, which must fill `payload` from byte 4 (after class and method id) to its end.

        ConnectionFailure: 501 in RabbitMQ's words, and blamed on the method, when they do not; 501 if a short string is
        not UTF-8, and whatever a table inside raises, blamed on none.
        """
        values: list[Any] = []
        pos = IDS.size
        try:
            for read in self._reads:
                pos = read(payload, pos, values)
        except (IndexError, struct_error):
            raise _cannot_decode(payload) from None
        except UnicodeDecodeError:
            raise ConnectionFailure(ReplyCode.FRAME_ERROR, "Malformed UTF-8 in shortstr") from None
        if pos != len(payload):
            raise _cannot_decode(payload)
        return values

    def encode(self, head: bytes, values: list[Any]) -> bytes:
        """`head` and the arguments. ValueError: one does not fit its type."""
        parts = [head]
        try:
            for start, stop, write in self._writes:
                parts.append(write(values[start:stop]))
        except struct_error as unfit:
            raise ValueError(f"argument does not fit its type: {unfit}") from None
        return b"".join(parts)


def _cannot_decode(payload: bytes) -> ConnectionFailure:
    octets = ",".join(map(str, payload[IDS.size :]))
    failure = ConnectionFailure(ReplyCode.FRAME_ERROR, f"cannot decode <<{octets}>>")
    failure.class_id, failure.method_id = IDS.unpack_from(payload)
    return failure


def _run_length(kinds: list[FieldType], start: int) -> int:
    """How many arguments from `start` on go into one step."""
    members = ("bit",) if kinds[start] == "bit" else tuple(_NUMBERS)
    if kinds[start] not in members:
        return 1
    stop = start
    while stop < len(kinds) and kinds[stop] in members:
        stop += 1
    return stop - start


def _step(kinds: list[FieldType], strict_text: bool) -> tuple[_Reader, _Writer]:
    first = kinds[0]
    if first == "bit":
        return _bits(len(kinds))
    if first in _NUMBERS:
        return _numbers(Struct(">" + "".join(_NUMBERS[kind] for kind in kinds)))
    if first == "shortstr":
        return (_read_strict_shortstr if strict_text else _read_shortstr), _write_shortstr
    return {"longstr": (_read_longstr, _write_longstr), "table": (_read_table, _write_table)}[first]


def _numbers(struct: Struct) -> tuple[_Reader, _Writer]:
    unpack, pack, size = struct.unpack_from, struct.pack, struct.size

    def read(buf: bytes, pos: int, values: list[Any]) -> int:
        values += unpack(buf, pos)
        return pos + size

    def write(values: list[Any]) -> bytes:
        return pack(*values)

    return read, write


def _bits(count: int) -> tuple[_Reader, _Writer]:
    assert count <= 8, "no AMQP method has more than one octet of bits"
    table = [bits[:count] for bits in _BITS_OF_OCTET]

    def read(buf: bytes, pos: int, values: list[Any]) -> int:
        values += table[buf[pos]]
        return pos + 1

    def write(values: list[Any]) -> bytes:
        return bytes((sum(1 << bit for bit, value in enumerate(values) if value),))

    return read, write


def _read_shortstr(buf: bytes, pos: int, values: list[Any]) -> int:
    end = pos + 1 + buf[pos]
    values.append(buf[pos + 1 : end].decode("utf-8", "surrogateescape"))
    return end


def _read_strict_shortstr(buf: bytes, pos: int, values: list[Any]) -> int:
    end = pos + 1 + buf[pos]
    if end > len(buf):
        raise IndexError
    values.append(buf[pos + 1 : end].decode("utf-8"))
    return end


def _write_shortstr(values: list[Any]) -> bytes:
    return encode_shortstr(values[0])


def encode_shortstr(text: str) -> bytes:
    """A short string with its length octet. ValueError: over 255 bytes."""
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) > 255:
        raise ValueError(f"short string of {len(raw)} bytes; 255 are the most")
    return bytes((len(raw),)) + raw


def _read_longstr(buf: bytes, pos: int, values: list[Any]) -> int:
    end = pos + 4 + _read_long(buf, pos)[0]
    values.append(buf[pos + 4 : end])
    return end  # type: ignore[no-any-return]


def _write_longstr(values: list[Any]) -> bytes:
    raw: bytes = values[0]
    return _write_long(len(raw)) + raw


def _read_table(buf: bytes, pos: int, values: list[Any]) -> int:
    start = pos + 4
    end: int = start + _read_long(buf, pos)[0]
    if end > len(buf):
        raise IndexError
    values.append(decode_table_body(buf, start, end))
    return end


def _write_table(values: list[Any]) -> bytes:
    return encode_table(values[0])
