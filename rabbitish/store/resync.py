"""Finding the records of a segment again behind bytes that are none.

Reading goes on where a damaged record ends by its length, if a record with the right number begins there, else with the
first whole one that is found in the bytes that follow. What is found must have the right checksum and the segment's
epoch. Numbers must ascend: of those that do not, the longest chain is taken for the truth. So what a client sent, or
what the disk wrote to the wrong place, cannot easily pass for a record.

What a damaged record held is never guessed; but as long as its head makes sense, `Place.likely` says what it was.
"""

from __future__ import annotations

import re
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from rabbitish.store.record import (
    CHECKED_AT,
    HEAD,
    MAX_BODY_BYTES,
    PUBLISH_HEAD,
    PUBLISHES,
    Damage,
    Record,
    SegmentHead,
    Type,
    decode_all,
)
from rabbitish.store.scan import ZEROES, marks

_TYPE_AT = HEAD.size - 2
_TYPES = frozenset(map(int, Type))
_TYPE_AND_FLAGS = re.compile(b"(?=[" + re.escape(bytes(sorted(_TYPES))) + b"]\\0)")
_LARGEST_FILE = 1 << 32

Check: TypeAlias = Callable[[bytes, Record], None]
"""Raises Damage for a record that is whole and makes no sense."""


class Place(NamedTuple):
    """Bytes of a file that are no record, or a place from which records have gone (`start` is `end`)."""

    file: str
    start: int
    end: int
    reason: str
    torn: bool = False
    """Whether a write that was cut short explains it: the broker would cut the journal off here."""
    bounded: bool = False
    """Whether there are records behind it in the same file."""
    likely: Record | None = None
    """The damaged record, as far as its head fits to what is around it."""


class Rest:
    """What follows in a segment from the first bytes on that are not what they should be.

    `limit`: numbers in it are less. `due`: the number that was to come, None if nobody knows. `epoch`: that of the
    records before in this segment, None if there are none; `last_epoch`: of the last record anywhere.
    """

    def __init__(
        self,
        file: str,
        head: SegmentHead,
        data: bytes,
        *,
        limit: int,
        due: int | None,
        epoch: int | None,
        last_epoch: int,
        may_be_torn: bool,
    ) -> None:
        self._file = file
        self._data = data
        self._gaps = head.generation > 0
        self._low = due or 0
        most = head.first_lsn + _LARGEST_FILE if head.first_lsn else limit  # no number without a byte
        self._limit = min(limit, head.next_lsn or most)
        self._due = due  # of the next record, as far as those before it tell
        self._last = due or 1  # behind the last whole record
        self._epoch = epoch
        self._last_epoch = last_epoch
        self._may_be_torn = may_be_torn and not self._gaps
        self._marks: list[tuple[int, int]] | None = None

    def read(self, offset: int, check: Check | None) -> list[Record | Place]:
        """Records with ascending numbers, and between them the places where there is none."""
        data = self._data
        found: list[Record | Place] = []
        while offset < len(data):
            try:
                for record in decode_all(data, offset):
                    if check is not None:
                        check(data, record)
                    self._due = self._last = record.lsn + record.span
                    self._epoch = record.epoch
                    offset = record.end
                    found.append(record)
                if offset == len(data) or self._may_be_torn:
                    break
                place = self._place(Damage(offset, ZEROES, torn=False))
            except Damage as damage:
                place = self._place(damage)
            except struct.error:
                place = self._place(Damage(offset, "the record is too short", torn=False))
            offset = place.end
            found.append(place)
        return self._in_order(found)

    def _in_order(self, found: Sequence[Record | Place]) -> list[Record | Place]:
        """Turn records that are out of order into places."""
        records = [one for one in found if isinstance(one, Record) and self._low <= one.lsn < self._limit]
        chain = set(_longest_chain(records))
        result: list[Record | Place] = []
        due: int | None = None
        stray = False  # whether the last of the result is a place that was made here
        for one in found:
            if isinstance(one, Place) or one in chain:
                result.append(one)
                stray = False
                if isinstance(one, Record):
                    due = one.lsn + one.span
                continue
            last = result[-1] if stray else None
            if isinstance(last, Place):
                result[-1] = last._replace(end=one.end, bounded=one.end < len(self._data))
            else:
                reason = f"record {one.lsn} where {due or self._low} is due"
                result.append(Place(self._file, one.start, one.end, reason, bounded=one.end < len(self._data)))
                stray = True
        return result

    # ---- places

    def _place(self, damage: Damage) -> Place:
        """The place where this is."""
        start = damage.offset
        end = _end_of_whole(self._data, start)
        if end is not None:  # whole, and of no use
            self._due = None
            return Place(self._file, start, end, damage.reason, bounded=end < len(self._data))
        end, likely = self._go_on(start)
        self._due = likely.lsn + likely.span if likely is not None else None
        torn = self._may_be_torn and damage.torn and self._safe_behind(start) < self._last
        return Place(self._file, start, end, damage.reason, torn, end < len(self._data), likely)

    def _safe_behind(self, offset: int) -> int:
        """As scan.py tells a torn tail from damage."""
        if self._marks is None:
            self._marks = list(marks(self._data, offset))
        return max((safe for start, safe in self._marks if start >= offset), default=0)

    def _fits(self, lsn: int, epoch: int) -> bool:
        """Whether such a record may be in this segment."""
        if not self._low <= lsn < self._limit:
            return False
        return epoch >= self._last_epoch if self._gaps or self._epoch is None else epoch == self._epoch

    def _go_on(self, start: int) -> tuple[int, Record | None]:
        """Where the next record begins, and the damaged one if its head fits."""
        data = self._data
        likely, sure = self._by_length(start)
        if likely is not None and sure:
            return likely.end, likely
        stop = likely.end if likely is not None else len(data)
        for found in _TYPE_AND_FLAGS.finditer(data, start + 1 + _TYPE_AT, stop):
            at = found.start() - _TYPE_AT
            size, _, lsn, epoch, _, _ = HEAD.unpack_from(data, at)
            if size > stop - at - HEAD.size or not self._fits(lsn, epoch):
                continue
            if _end_of_whole(data, at) is None or (likely is not None and not _leads_to(data, at, stop)):
                continue
            return at, None
        return stop, likely

    def _by_length(self, start: int) -> tuple[Record | None, bool]:
        """The damaged record, if its length leads to the end or to what looks like the next; whether that is sure."""
        due = self._due
        record = _looks(self._data, start)
        if record is None or not self._fits(record.lsn, record.epoch):
            return None, False
        if due is not None and not (record.lsn == due or (self._gaps and record.lsn > due)):
            return None, False
        if record.end == len(self._data):
            return record, False
        following = _looks(self._data, record.end)
        if following is None or not self._fits(following.lsn, following.epoch):
            return None, False
        after = record.lsn + record.span
        if self._gaps:
            return (record, False) if following.lsn >= after else (None, False)
        return (record, due is not None) if following.lsn == after else (None, False)


def first_record(data: bytes, due: int) -> int:
    """Where the first record of a segment begins whose head is damaged: at `due`, unless bytes before have gone."""
    for at in range(1, due):
        if _looks(data, at) is not None and _end_of_whole(data, at) is not None:
            return at
    return due


def _longest_chain(records: Sequence[Record]) -> list[Record]:
    """As many of these as can be, in their order, with numbers that ascend."""
    tails: list[int] = []  # the least number that a chain of length 1, 2 ... may end with
    ends: list[int] = []  # the record that it is
    before: list[int] = []
    for index, record in enumerate(records):
        length = bisect_left(tails, record.lsn)
        before.append(ends[length - 1] if length else -1)
        tails[length : length + 1] = [record.lsn]
        ends[length : length + 1] = [index]
    chain: list[Record] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        if not chain or records[at].lsn + records[at].span <= chain[-1].lsn:
            chain.append(records[at])
        at = before[at]
    return chain


def _looks(data: bytes, at: int) -> Record | None:
    """The record there by its head, right or not, if that makes sense."""
    if at + HEAD.size > len(data):
        return None
    size, _, lsn, epoch, kind, flags = HEAD.unpack_from(data, at)
    body = at + HEAD.size
    end = body + size
    if size > MAX_BODY_BYTES or end > len(data) or flags or kind not in _TYPES:
        return None
    span = 1
    if kind in PUBLISHES:
        if size < PUBLISH_HEAD.size:
            return None
        span = PUBLISH_HEAD.unpack_from(data, body)[2]
    return Record(lsn, Type(kind), at, body, end, epoch, span)


def _end_of_whole(data: bytes, at: int) -> int | None:
    """The end of the record there if its checksum is right."""
    if at + HEAD.size > len(data):
        return None
    size, crc, *_ = HEAD.unpack_from(data, at)
    end = at + HEAD.size + size
    if size > MAX_BODY_BYTES or end > len(data) or zlib.crc32(memoryview(data)[at + CHECKED_AT : end]) != crc:
        return None
    return int(end)


def _leads_to(data: bytes, at: int, stop: int) -> bool:
    """Whether whole records with ascending numbers fill the bytes up to `stop`."""
    due = 0
    while at < stop:
        end = _end_of_whole(data, at)
        if end is None:
            return False
        lsn = HEAD.unpack_from(data, at)[2]
        if lsn < due:
            return False
        at, due = end, lsn + 1
    return at == stop
