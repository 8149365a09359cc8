"""Where in content properties the values stand, so that headers can be compared without what each has of its own.

A publisher's messages have properties of one form: the same ones, with the same names and types in their headers, and
mostly values of the same lengths. `value_spans` tells which bytes of properties that decode may be replaced by any
others without making them undecodable; everything else (flags, lengths, names, types) is the form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from struct import Struct

from rabbitish.wire.properties import Properties

_read_flags = Struct(">H").unpack_from
_read_long = Struct(">I").unpack_from
_FLAGS = [(field.name, 0x8000 >> bit) for bit, field in enumerate(fields(Properties))]
_OCTETS = ("delivery_mode", "priority")
# Bytes of a value by its type; the others have a length before them.
_FIXED = {ord(kind): size for kind, size in zip("tbBsuIilLDTV", (1, 1, 1, 2, 2, 4, 4, 8, 8, 5, 8, 0), strict=True)}
_FLOATS = {ord("f"): 4, ord("d"): 8}
_TEXTS = b"Sx"
_ARRAY, _TABLE = b"AF"
_NOT_FINITE = 0x7F


def value_spans(raw: bytes) -> Iterator[tuple[str, int, int]]:
    """Where values start and end in properties that decode, with the names of the properties that they belong to."""
    flags: int = _read_flags(raw)[0]
    pos = 2
    for name, flag in _FLAGS:
        if not flags & flag:
            continue
        if name == "headers":
            end = pos + 4 + _read_long(raw, pos)[0]
            for start, stop in _in_table(raw, pos + 4, end):
                yield name, start, stop
        elif name == "timestamp":
            end = pos + 8
            yield name, pos, end
        elif name in _OCTETS:
            end = pos + 1
            yield name, pos, end
        else:
            end = pos + 1 + raw[pos]
            yield name, pos + 1, end
        pos = end


def _in_table(raw: bytes, pos: int, end: int) -> Iterator[tuple[int, int]]:
    while pos < end:
        pos += 1 + raw[pos]
        kind, pos = raw[pos], pos + 1
        size = _size(raw, kind, pos)
        yield from _in_value(raw, kind, pos, pos + size)
        pos += size


def _in_array(raw: bytes, pos: int, end: int) -> Iterator[tuple[int, int]]:
    while pos < end:
        kind, pos = raw[pos], pos + 1
        size = _size(raw, kind, pos)
        yield from _in_value(raw, kind, pos, pos + size)
        pos += size


def _size(raw: bytes, kind: int, pos: int) -> int:
    size = _FIXED.get(kind) or _FLOATS.get(kind)
    if size is None:
        size = 0 if kind in _FIXED else 4 + int(_read_long(raw, pos)[0])
    return size


def _in_value(raw: bytes, kind: int, pos: int, end: int) -> Iterator[tuple[int, int]]:
    if kind == _TABLE:
        yield from _in_table(raw, pos + 4, end)
    elif kind == _ARRAY:
        yield from _in_array(raw, pos + 4, end)
    elif kind in _TEXTS:
        yield pos + 4, end
    elif kind in _FIXED:
        yield pos, end
    elif raw[pos] & _NOT_FINITE != _NOT_FINITE:  # the high bits of the exponent: with others than these none is finite
        yield pos + 1, end
