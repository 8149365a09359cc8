"""Reading a journal's segments at the start: what is whole, what was torn, and what is damaged.

A write that the end of the process or of the power cut short leaves a torn tail: the last segment ends in bytes that
are no record. Nothing in it was ever confirmed, so it is cut off, and that is reported. Anything else that is no record
is damage: a journal that was safe once is not any more, and whoever runs the broker must know. The two are told apart
by the marks at the start of every write, which say up to where the journal was on disk by then: nothing torn is below
that.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from rabbitish.store.files import Disk
from rabbitish.store.record import (
    SEGMENT_HEAD_BYTES,
    Damage,
    Record,
    Type,
    decode_all,
    decode_segment_head,
    segment_name,
    segment_sequence,
)

_LSN = Struct(">Q")
# In a mark's head: epoch 1, type, flags. Where it is found a mark may begin 16 bytes before.
_MARK_PATTERN = Struct(">IBB").pack(1, Type.MARK, 0)
_MARK_PATTERN_AT = 16


class JournalDamaged(Exception):
    """The journal cannot be read as it must have been written; the message names file and offset."""

    def __init__(self, name: str, offset: int, reason: str) -> None:
        super().__init__(f"{name}: {reason} at offset {offset}")
        self.name = name
        self.offset = offset
        self.reason = reason


class Cut(NamedTuple):
    """A torn tail that was cut off."""

    name: str
    offset: int
    bytes: int
    reason: str


class Scanned(NamedTuple):
    """What a journal was found to be."""

    segments: list[tuple[int, int]]
    """Sequence and first record number of each segment that is left."""
    last_lsn: int
    last_sequence: int
    cut: Cut | None


def scan(disk: Disk, visit: Callable[[int, Record], None]) -> Scanned:
    """Read all in order and call `visit(sequence, record)`; cut a torn tail. JournalDamaged: it cannot be read.

    What was read is on disk when this returns, though the process that wrote it may have ended before it was synced.
    """
    sequences = sorted(sequence for sequence in map(segment_sequence, disk.names()) if sequence is not None)
    segments: list[tuple[int, int]] = []
    last_lsn = 0
    cut = None
    for sequence in sequences:
        name = segment_name(sequence)
        is_last = sequence == sequences[-1]
        if segments and sequence != segments[-1][0] + 1:
            raise JournalDamaged(segment_name(segments[-1][0] + 1), 0, "the segment is missing")
        data = disk.read(name)
        try:
            head = decode_segment_head(data)
        except Damage as damage:
            if not is_last or len(data) >= SEGMENT_HEAD_BYTES + 64:
                raise JournalDamaged(name, damage.offset, damage.reason) from None
            cut = Cut(name, 0, len(data), damage.reason)
            disk.unlink(name)
            break
        if head.sequence != sequence:
            raise JournalDamaged(name, 0, f"the file is segment {head.sequence} by its head")
        if segments and head.first_lsn != last_lsn + 1:
            raise JournalDamaged(name, 0, f"the segment begins with record {head.first_lsn}, not {last_lsn + 1}")
        segments.append((sequence, head.first_lsn))
        last_lsn = head.first_lsn - 1
        offset = SEGMENT_HEAD_BYTES
        try:
            for record in decode_all(data, offset):
                if record.lsn != last_lsn + 1:
                    raise Damage(offset, f"record {record.lsn} where {last_lsn + 1} is due", torn=False)
                visit(sequence, record)
                last_lsn, offset = record.lsn, record.end
        except Damage as damage:
            if not is_last or not damage.torn or _known_safe(data, damage.offset) > last_lsn:
                raise JournalDamaged(name, damage.offset, damage.reason) from None
            cut = Cut(name, damage.offset, len(data) - damage.offset, damage.reason)
        if is_last:
            disk.truncate(name, offset)
    return Scanned(segments, last_lsn, segments[-1][0] if segments else 0, cut)


def _known_safe(data: bytes, offset: int) -> int:
    """The highest record number that a mark behind `offset` says was on disk; 0 when there is none."""
    safe = 0
    found = data.find(_MARK_PATTERN, offset)
    while found >= 0:
        start = found - _MARK_PATTERN_AT
        try:
            record = next(decode_all(data, start)) if start >= offset else None
        except Damage:
            record = None
        if record is not None and record.type is Type.MARK:
            safe = max(safe, _LSN.unpack(record.body)[0])
        found = data.find(_MARK_PATTERN, found + 1)
    return safe
