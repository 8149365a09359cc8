"""The records of the journal as bytes, and the frame around each: length, checksum, number, epoch, type.

A record is `length u32 | crc u32 | lsn u64 | epoch u32 | type u8 | flags u8 | body`, big endian; the length is that of
the body, the checksum (CRC-32 as in zlib, the only fast one in the standard library) covers everything behind it. The
log sequence number counts records over the life of the journal; the epoch counts leaderships, and is 1 on a single
node.

To change the format: give the changed record a new type number and keep reading the old one; raise VERSION only when
old readers must not even try; add a journal written by the last release to tests/store/journals/, which a test reads
for ever. Numbers are never used again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

VERSION = 1

HEAD = Struct(">IIQIBB")
_CHECKED = Struct(">QIBB")  # the part of the head that the checksum covers
_CHECKED_AT = HEAD.size - _CHECKED.size

MAX_BODY_BYTES = 1 << 31  # a length beyond it is damage, not a record


class Type(IntEnum):
    """What a record tells."""

    MARK = 1  # begins what is written at once: up to where the journal is known to be on disk
    EPOCH = 2  # a leadership begins
    SNAPSHOT = 3  # all vhosts, exchanges, queues and bindings follow anew
    SNAPSHOT_END = 4  # they are complete: forget those that were told of before
    VHOST_NEW = 10
    VHOST_GONE = 11
    EXCHANGE_NEW = 12
    EXCHANGE_GONE = 13
    QUEUE_NEW = 14
    QUEUE_GONE = 15
    BOUND = 16
    UNBOUND = 17
    PUBLISH = 20
    REMOVE = 21
    RETURNED = 22


class Record(NamedTuple):
    """One record, read."""

    lsn: int
    epoch: int
    type: Type
    body: bytes
    end: int
    """Offset of the first byte behind it."""


class Damage(Exception):
    """Bytes that are no record: at `offset`, for `reason`. `torn`: a write that was cut short may have left them."""

    def __init__(self, offset: int, reason: str, *, torn: bool = True) -> None:
        super().__init__(f"{reason} at offset {offset}")
        self.offset = offset
        self.reason = reason
        self.torn = torn


def encode(lsn: int, epoch: int, kind: Type, *body: bytes) -> tuple[bytes, ...]:
    """A record as pieces, which are not copied together."""
    checked = _CHECKED.pack(lsn, epoch, kind, 0)
    crc = zlib.crc32(checked)
    size = 0
    for piece in body:
        crc = zlib.crc32(piece, crc)
        size += len(piece)
    return (HEAD.pack(size, crc, lsn, epoch, kind, 0), *body)


def decode_all(data: bytes, offset: int) -> Iterator[Record]:
    """The records from `offset` on. Damage: something there is no whole, undamaged record; nothing after it is read."""
    view = memoryview(data)
    while offset < len(data):
        if len(data) - offset < HEAD.size:
            raise Damage(offset, "the file ends within a record's head")
        size, crc, lsn, epoch, kind, _ = HEAD.unpack_from(data, offset)
        start = offset + HEAD.size
        end = start + size
        if size > MAX_BODY_BYTES or end > len(data):
            raise Damage(offset, "the file ends within a record")
        if zlib.crc32(view[offset + _CHECKED_AT : end]) != crc:
            raise Damage(offset, "checksum does not match")
        try:
            type_ = Type(kind)
        except ValueError:
            raise Damage(offset, f"unknown record type {kind}", torn=False) from None
        yield Record(lsn, epoch, type_, data[start:end], end)
        offset = end


# ---- segments


class SegmentHead(NamedTuple):
    """How a segment file begins."""

    version: int
    sequence: int
    first_lsn: int


_SEGMENT = Struct(">8sHQQI")
_MAGIC = b"RABBTISH"
SEGMENT_HEAD_BYTES = _SEGMENT.size


def encode_segment_head(sequence: int, first_lsn: int) -> bytes:
    """The first bytes of a segment."""
    crc = zlib.crc32(_SEGMENT.pack(_MAGIC, VERSION, sequence, first_lsn, 0)[:-4])
    return _SEGMENT.pack(_MAGIC, VERSION, sequence, first_lsn, crc)


def decode_segment_head(data: bytes) -> SegmentHead:
    """Read the first bytes of a segment. Damage: they are something else, or of a format that is not ours."""
    if len(data) < _SEGMENT.size:
        raise Damage(0, "the file ends within the segment's head")
    magic, version, sequence, first_lsn, crc = _SEGMENT.unpack_from(data)
    if magic != _MAGIC:
        raise Damage(0, "not a segment of a journal")
    if version != VERSION:
        raise Damage(0, f"format version {version}; this is a reader of version {VERSION}")
    if zlib.crc32(data[: _SEGMENT.size - 4]) != crc:
        raise Damage(0, "checksum of the segment's head does not match")
    return SegmentHead(version, sequence, first_lsn)


def segment_name(sequence: int) -> str:
    """The file name of a segment; names sort as the segments do."""
    return f"journal-{sequence:012d}.log"


def segment_sequence(name: str) -> int | None:
    """The number in a segment's file name, None for another file."""
    if name.startswith("journal-") and name.endswith(".log") and name[8:-4].isdigit():
        return int(name[8:-4])
    return None
