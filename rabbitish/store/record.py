"""The records of the journal as bytes, and the frame around each: length, checksum, number, epoch, type.

A record is `length u32 | crc u32 | lsn u64 | epoch u32 | type u8 | flags u8 | body`, big endian; the length is that of
the body, the checksum (CRC-32 as in zlib, the only fast one in the standard library) covers everything behind it. The
log sequence number (lsn) counts what happened over the life of the journal: each record takes one number, one of many
messages one a message. The epoch counts leaderships: on a single node the times that the broker was started.
Nothing but zeroes from where a record would begin to the end of the file is room that was to be written to.

To change the format: give the changed record a new type number and keep reading the old one; raise VERSION only when
old readers must not even try; add a journal written by the last release to tests/store/journals/, which a test reads
for ever. Numbers are never used again. Version 1 was never in a release.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

VERSION = 2

HEAD = Struct(">IIQIBB")
_CHECKED = Struct(">QIBB")  # the part of the head that the checksum covers
CHECKED_AT = HEAD.size - _CHECKED.size
PUBLISH_HEAD = Struct(">IQII")  # size of the route that follows, when, how many messages, bytes of each one's content

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
    ACCESS = 18  # users, permissions, virtual hosts, policies, where the journal keeps them
    PUBLISH = 20
    REMOVE = 21
    RETURNED = 22
    DELIVERED = 23
    PUBLISH_MIXED = 24  # as PUBLISH, but each message with a content and a body of its own size; see mixed.py
    SENT = 25  # which publishes of a session that another node carries are here; behind them


PUBLISHES = (Type.PUBLISH, Type.PUBLISH_MIXED)
"""Those that have messages; their bodies begin alike up to how many there are."""

_TYPES: dict[int, Type] = {int(kind): kind for kind in Type}


class Record(NamedTuple):
    """One record, found in the bytes of a segment."""

    lsn: int
    type: Type
    start: int
    """Offset of its head."""
    body: int
    """Offset of its body."""
    end: int
    """Offset of the first byte behind it."""
    epoch: int
    span: int
    """How many numbers it takes."""


class Damage(Exception):
    """Bytes that are no record: at `offset`, for `reason`. `torn`: a write that was cut short may have left them."""

    def __init__(self, offset: int, reason: str, *, torn: bool = True) -> None:
        super().__init__(f"{reason} at offset {offset}")
        self.offset = offset
        self.reason = reason
        self.torn = torn


class JournalDamaged(Exception):
    """The journal cannot be read as it must have been written; the message names file and offset."""

    def __init__(self, name: str, offset: int, reason: str) -> None:
        super().__init__(f"{name}: {reason} at offset {offset}")
        self.name = name
        self.offset = offset
        self.reason = reason


def encode(lsn: int, epoch: int, kind: Type, *body: bytes) -> tuple[bytes, ...]:
    """A record as pieces, which are not copied together."""
    checked = _CHECKED.pack(lsn, epoch, kind, 0)
    crc = zlib.crc32(checked)
    size = 0
    for piece in body:
        crc = zlib.crc32(piece, crc)
        size += len(piece)
    return (HEAD.pack(size, crc, lsn, epoch, kind, 0), *body)


_MARK = Struct(">8sQ")
MARK_MAGIC = b"durable:"  # so that a mark is found in what cannot be read from its start


def encode_mark(durable_lsn: int) -> bytes:
    """MARK: up to where the journal was on disk."""
    return _MARK.pack(MARK_MAGIC, durable_lsn)


_MARK_RECORD = Struct(">QIBB8sQ")  # all of it but length and checksum, which are a good part of what little is written
_LENGTH_AND_CRC = Struct(">II")


def encode_mark_record(lsn: int, epoch: int, durable_lsn: int) -> bytes:
    """The whole record."""
    checked = _MARK_RECORD.pack(lsn, epoch, Type.MARK, 0, MARK_MAGIC, durable_lsn)
    return _LENGTH_AND_CRC.pack(_MARK.size, zlib.crc32(checked)) + checked


def decode_mark(data: bytes, body: int) -> int:
    """The other way."""
    lsn: int = _MARK.unpack_from(data, body)[1]
    return lsn


def decode_all(data: bytes, offset: int) -> Iterator[Record]:
    """The records from `offset` on, up to the end or to where only zeroes follow.

    Damage: something there is no whole, undamaged record; nothing after it is read.
    """
    view = memoryview(data)
    have, unpack, crc32 = len(data), HEAD.unpack_from, zlib.crc32
    while offset < have:
        if have - offset < HEAD.size:
            # Be it zeroes: a head that was torn early looks like that too.
            raise Damage(offset, "the file ends within a record's head")
        size, crc, lsn, epoch, kind, _ = unpack(data, offset)
        start = offset + HEAD.size
        end = start + size
        if size > MAX_BODY_BYTES or end > have:
            raise Damage(offset, "the file ends within a record")
        if crc32(view[offset + CHECKED_AT : end]) != crc:
            if not size and _only_zeroes(data, offset):  # whose checksum is none
                return
            raise Damage(offset, "checksum does not match")
        type_ = _TYPES.get(kind)
        if type_ is None:
            raise Damage(offset, f"unknown record type {kind}", torn=False)
        span = PUBLISH_HEAD.unpack_from(data, start)[2] if type_ in PUBLISHES else 1
        yield Record(lsn, type_, offset, start, end, epoch, span)
        offset = end


def _only_zeroes(data: bytes, offset: int) -> bool:
    return data.count(0, offset) == len(data) - offset


# ---- segments


class SegmentHead(NamedTuple):
    """How a segment file begins.

    A segment that was written anew without what was dead in it (compacted) stands for all of those from `sequence` to
    `last`; its `generation` is higher than theirs, and `next_lsn` says which number comes after the last it stood for.
    """

    sequence: int
    last: int
    generation: int
    first_lsn: int
    next_lsn: int
    """0 in a segment as it was first written: that is up to the records in it."""

    @property
    def name(self) -> str:
        """Its file's name."""
        return segment_name(self.sequence, self.last, self.generation)


_SEGMENT = Struct(">8sHQQIQQI")
_MAGIC = b"RABBTISH"
SEGMENT_HEAD_BYTES = _SEGMENT.size


def encode_segment_head(head: SegmentHead) -> bytes:
    """The first bytes of a segment."""
    crc = zlib.crc32(_SEGMENT.pack(_MAGIC, VERSION, *head, 0)[:-4])
    return _SEGMENT.pack(_MAGIC, VERSION, *head, crc)


def decode_segment_head(data: bytes) -> SegmentHead:
    """Read the first bytes of a segment. Damage: they are something else, or of a format that is not ours."""
    if data[:8] == _MAGIC and len(data) >= 10 and (version := int.from_bytes(data[8:10], "big")) not in (0, VERSION):
        raise Damage(0, f"format version {version}; this is a reader of version {VERSION}", torn=False)
    if len(data) < _SEGMENT.size:
        raise Damage(0, "the file ends within the segment's head")
    magic, _, *fields, crc = _SEGMENT.unpack_from(data)
    if magic != _MAGIC:
        raise Damage(0, "not a segment of a journal")
    if zlib.crc32(data[: _SEGMENT.size - 4]) != crc:
        raise Damage(0, "checksum of the segment's head does not match")
    return SegmentHead(*fields)


class SegmentName(NamedTuple):
    """What a segment's file name says."""

    sequence: int
    last: int
    generation: int


_NAME = re.compile(r"journal-(\d{12})(?:-(\d{12})-(\d+))?\.log")


def segment_name(sequence: int, last: int | None = None, generation: int = 0) -> str:
    """The file name of a segment; names sort as the segments do."""
    if not generation:
        return f"journal-{sequence:012d}.log"
    return f"journal-{sequence:012d}-{last:012d}-{generation}.log"


def parse_segment_name(name: str) -> SegmentName | None:
    """What a segment's file name says, None for another file."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    sequence, last, generation = match.groups()
    return SegmentName(int(sequence), int(last or sequence), int(generation or 0))
