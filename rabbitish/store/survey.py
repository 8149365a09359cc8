"""Reading a journal that may be damaged: every whole record in order, and every place where one should be and is none.

A sound journal, or one with a torn tail, reads here as in scan.py; behind what is damaged reading goes on (resync.py),
and behind a segment that is missing. Whoever reads hears of a `Place` when it is found, and of the numbers that are
missing, a `Hole`, before the next record. One segment at a time is in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from rabbitish.store.files import Disk
from rabbitish.store.record import (
    SEGMENT_HEAD_BYTES,
    VERSION,
    Damage,
    Record,
    SegmentHead,
    SegmentName,
    decode_all,
    decode_segment_head,
    segment_name,
)
from rabbitish.store.resync import Check, Place, Rest, first_record
from rabbitish.store.scan import that_count

_BLOCK_BYTES = 4096
_LOST_BLOCKS = 16_384
_FAR = 1 << 64  # beyond every number


class Part(NamedTuple):
    """A segment is read from here on."""

    file: str
    head: SegmentHead
    """As it stands in the file, or about that where it cannot be read."""
    data: bytes


class Hole(NamedTuple):
    """Numbers of records that are not there, or that nobody can tell; after the places that are the cause."""

    places: tuple[Place, ...]
    first: int | None
    """None: the journal begins in it."""
    next: int | None
    """The first number behind the hole; None: the journal ends in it."""

    @property
    def torn(self) -> bool:
        """Whether all of it is a torn tail."""
        return all(place.torn for place in self.places)


Event: TypeAlias = Record | Part | Place | Hole


def survey(disk: Disk, check: Check | None = None) -> Iterator[Event]:
    """All there is to be read. Records belong to the last `Part`; a `Place` comes when it is found, a `Hole` when the
    next record is.
    """
    names, _ = that_count(disk.names())
    heads = [_peek(disk, name) for name in names]
    surveyor = _Surveyor(check)
    for index, name in enumerate(names):
        if index:
            yield from surveyor.between(names[index - 1], name)
        limit = next((head.first_lsn for head in heads[index + 1 :] if head is not None), _FAR)
        try:
            data = read_all(disk, segment_name(*name))
        except FileNotFoundError:
            yield surveyor.note(Place(segment_name(*name), 0, 0, "the file was deleted while the journal was read"))
            continue
        yield from surveyor.segment(name, data, limit=limit, is_last=name is names[-1])
    if surveyor.pending:
        yield surveyor.hole(None)


def read_all(disk: Disk, file: str) -> bytes:
    """A whole file; what the disk cannot read any more is zeroes. FileNotFoundError: it is not there."""
    try:
        return disk.read(file)
    except FileNotFoundError:
        raise
    except OSError:
        blocks: list[bytes] = []
        lost = 0
        while True:
            try:
                block = disk.read_at(file, len(blocks) * _BLOCK_BYTES, _BLOCK_BYTES)
            except OSError:
                lost += 1
                if lost > _LOST_BLOCKS:  # there may not even be an end
                    raise
                block = bytes(_BLOCK_BYTES)
            blocks.append(block)
            if len(block) < _BLOCK_BYTES:
                disk.forget(file)
                return b"".join(blocks)


def _peek(disk: Disk, name: SegmentName) -> SegmentHead | None:
    """The head of a segment that is to be read later, if that can be read."""
    try:
        head = decode_segment_head(disk.read_at(segment_name(*name), 0, SEGMENT_HEAD_BYTES))
    except (Damage, OSError):
        return None
    finally:
        disk.forget(segment_name(*name))
    return head if head.name == segment_name(*name) else None


class _Surveyor:
    """Knows which number is due, and which places are waiting for the record that ends their hole."""

    def __init__(self, check: Check | None) -> None:
        self._check = check
        self._due: int | None = None  # None: nothing is known yet
        self._loose = False  # the last segment may have ended with any number
        self._epoch = 0  # of the last record
        self.pending: list[Place] = []

    def note(self, place: Place) -> Place:
        """A place was found."""
        self.pending.append(place)
        return place

    def hole(self, next_lsn: int | None) -> Hole:
        """The pending places end here."""
        places, self.pending = tuple(self.pending), []
        return Hole(places, self._due, next_lsn)

    def between(self, before: SegmentName, name: SegmentName) -> Iterator[Event]:
        """The segments that are missing between two."""
        missing = name.sequence - before.last - 1
        if missing < 0:
            yield self.note(Place(segment_name(*name), 0, 0, f"stands for what {segment_name(*before)} stands for"))
        elif missing:
            reason = "the segment is missing" if missing == 1 else f"this segment and {missing - 1} more are missing"
            yield self.note(Place(segment_name(before.last + 1), 0, 0, reason))

    # ---- segments

    def segment(self, name: SegmentName, data: bytes, *, limit: int, is_last: bool) -> Iterator[Event]:
        """Read a segment. Numbers in it are less than `limit`."""
        file = segment_name(*name)
        head, fault, end = _head(name, data)
        if fault is not None:
            short = len(data) <= SEGMENT_HEAD_BYTES
            torn = fault.torn and is_last and not name.generation and short
            yield self.note(Place(file, 0, end, fault.reason, torn=torn))
        known = head is not None
        if head is None:
            head = SegmentHead(*name, self._due or 0, 0)
        part = self._part(file, head, data)
        yield part
        if known:
            yield from self._begin(file, head.first_lsn)
        yield from self._records(part, end, limit, is_last=is_last)
        if head.generation and known:
            if self.pending:
                yield self.hole(head.next_lsn)
            self._due = head.next_lsn
        self._loose = bool(name.generation) and not known

    def _part(self, file: str, head: SegmentHead, data: bytes) -> Part:
        return Part(file, head._replace(first_lsn=max(head.first_lsn, self._due or 0)), data)

    def _begin(self, file: str, first: int) -> Iterator[Event]:
        """A segment begins whose first number is known."""
        due = self._due
        if due is not None and first != due and not self.pending and not (self._loose and first > due):
            yield self.note(Place(file, 0, 0, f"the segment begins with record {first}, not {due}"))
        if due is None or first >= due:
            if self.pending:
                yield self.hole(first)
            self._due = first

    def _records(self, part: Part, offset: int, limit: int, *, is_last: bool) -> Iterator[Event]:
        head, data = part.head, part.data
        end = min(limit, head.next_lsn or limit)
        epoch: int | None = None
        try:
            for record in decode_all(data, offset):
                lsn, due = record.lsn, self._due
                if due is None and offset == SEGMENT_HEAD_BYTES:
                    self._due = lsn
                elif lsn != due and (due is None or not (head.generation and due < lsn < end)):
                    break
                if self._check is not None:
                    self._check(data, record)
                if self.pending:
                    yield self.hole(lsn)
                yield self._passed(record)
                offset, epoch = record.end, record.epoch
            else:
                if offset == len(data) or (is_last and not head.generation):
                    return
        except (Damage, struct.error):
            pass  # it is looked at again
        rest = Rest(
            part.file,
            head,
            data,
            limit=limit,
            due=self._due,
            epoch=epoch,
            last_epoch=self._epoch,
            may_be_torn=is_last,
        )
        for found in rest.read(offset, self._check):
            if isinstance(found, Place):
                yield self.note(found)
                continue
            lsn, due = found.lsn, self._due
            if lsn != due and not head.generation and not self.pending:
                reason = f"record {lsn} where {due} is due"
                yield self.note(Place(part.file, found.start, found.start, reason, bounded=True))
            if self.pending:
                yield self.hole(lsn)
            yield self._passed(found)

    def _passed(self, record: Record) -> Record:
        self._due = record.lsn + record.span
        self._epoch = record.epoch
        return record


def _head(name: SegmentName, data: bytes) -> tuple[SegmentHead | None, Damage | None, int]:
    """A segment's head as far as it can be known, what is wrong with it, and the end of what is.

    One of another format is not read any further; it is told from a damaged number of the format by the checksum.
    """
    fault: Damage | None = None
    try:
        head = decode_segment_head(data)
    except Damage as damage:
        fault = damage
        end = min(SEGMENT_HEAD_BYTES, len(data))
        if damage.reason.startswith("format version"):
            try:
                head = decode_segment_head(data[:8] + VERSION.to_bytes(2, "big") + data[10:])
            except Damage:
                return None, fault, len(data)
        else:
            return None, fault, first_record(data, end)
    if head.name != segment_name(*name):
        fault = Damage(0, f"the file is {head.name} by its head", torn=False)
    return head, fault, SEGMENT_HEAD_BYTES
