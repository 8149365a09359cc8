"""A file of a few facts and long columns of numbers that is written at once, and either whole or worth nothing.

`magic | version u16 | checksum u32 | bytes of the facts u32 | facts as JSON | columns`; big endian, but the columns are
arrays as they are in memory, and with the facts stands how the machine keeps them. The checksum (CRC-32) covers
everything behind it. It is written under another name and renamed when it is on disk, so that half of one never counts.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Mapping
from struct import Struct
from typing import NamedTuple

from rabbitish.store.files import Disk
from rabbitish.store.scan import NEW_SUFFIX

_HEAD = Struct(">8sHII")
_MAGIC = b"RABBCOLS"
_CHECKED_AT = _HEAD.size - 4

# How this machine keeps numbers in memory.
_MACHINE = array("H", [0x0102]).tobytes().hex() + "".join(f" {kind}{array(kind).itemsize}" for kind in "BIQq")


class Unusable(Exception):
    """There is no such file that could be used; the message says why, for people."""


class Columns(NamedTuple):
    """What stands in such a file."""

    facts: dict[str, int]
    columns: Mapping[str, array[int]]


def write_columns(disk: Disk, name: str, version: int, content: Columns) -> None:
    """Write a file; neither it nor one under its name with NEW_SUFFIX is there yet. OSError: that failed."""
    columns = {key: (column.typecode, len(column)) for key, column in content.columns.items()}
    facts = json.dumps({"machine": _MACHINE, "facts": content.facts, "columns": columns}).encode()
    length = len(facts).to_bytes(4, "big")
    pieces = [length, facts, *(column.tobytes() for column in content.columns.values())]
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    new = name + NEW_SUFFIX
    file = disk.create(new)
    try:
        file.write(b"".join((_HEAD.pack(_MAGIC, version, crc, len(facts))[:_CHECKED_AT], *pieces)))
        file.sync()
    finally:
        file.close()
    disk.rename(new, name)


def read_columns(data: bytes, version: int) -> Columns:
    """What stands in a file. Unusable: it is damaged, or of another version or machine."""
    if len(data) < _HEAD.size or data[: len(_MAGIC)] != _MAGIC:
        raise Unusable("it is something else")
    _, found, crc, size = _HEAD.unpack_from(data)
    if found != version:
        raise Unusable(f"it is of version {found}, not {version}")
    view = memoryview(data)
    if zlib.crc32(view[_CHECKED_AT:]) != crc:
        raise Unusable("its checksum does not match")
    at = _HEAD.size + size
    head = json.loads(data[_HEAD.size : at])
    if head["machine"] != _MACHINE:
        raise Unusable("it was written by a machine of another kind")
    columns: dict[str, array[int]] = {}
    for key, (typecode, count) in head["columns"].items():
        column = columns[key] = array(typecode)
        end = at + count * column.itemsize
        column.frombytes(view[at:end])
        at = end
    return Columns(head["facts"], columns)
