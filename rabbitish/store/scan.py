"""Reading a journal's segments at the start: what is whole, what was torn, and what is damaged.

A write that the end of the process or of the power cut short leaves a torn tail: the last segment ends in bytes that
are no record. Nothing in it was ever confirmed, so it is cut off, and that is reported. Anything else that is no record
is damage: a journal that was safe once is not any more, and whoever runs the broker must know. The two are told apart
by the marks at the start of every write, which say up to where the journal was on disk by then: nothing torn is below
that. A segment's head is on disk before anything is written behind it, so it is torn only where nothing is.

Nothing here changes the disk: `scan` says what is to be cut and what is left over, `tidy` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from rabbitish.store.files import Disk
from rabbitish.store.record import (
    HEAD,
    MARK_MAGIC,
    SEGMENT_HEAD_BYTES,
    Damage,
    JournalDamaged,
    Record,
    SegmentHead,
    SegmentName,
    Type,
    decode_all,
    decode_mark,
    decode_segment_head,
    parse_segment_name,
    segment_name,
)

Visit = Callable[[SegmentHead, bytes, Record], None]
Run = Callable[[SegmentHead, bytes, int, int, int], tuple[int, int]]
_TYPE_AT = HEAD.size - 2
_PUBLISH = bytes((Type.PUBLISH,))
NEW_SUFFIX = ".new"
"""How the name of a file ends that is being written and does not count yet."""

ZEROES = "zeroes where the segment should have ended"


class Files(Protocol):
    """What is read of a folder. See Disk."""

    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...


class Cut(NamedTuple):
    """A torn tail."""

    name: str
    offset: int
    bytes: int
    reason: str


class Scanned(NamedTuple):
    """What a journal was found to be."""

    segments: list[tuple[SegmentHead, int]]
    """Every segment that counts, and how many bytes of it."""
    last_lsn: int
    last_sequence: int
    last_epoch: int
    cut: Cut | None
    left_over: list[str]
    """Files that do not count: rewritten segments took their place, or they were never finished."""


def scan(disk: Files, visit: Visit, run: Run | None = None) -> Scanned:
    """Read all in order and call `visit(head, data, record)`. JournalDamaged: it cannot be read.

    `run(head, data, offset, due, epoch)` may take records from `offset` on that it finds right and begin with number
    `due`, of epochs up to that: it says where it stopped, and how many numbers those took.
    """
    return scan_on(disk, Scanner(visit, run))


def scan_on(disk: Files, scanner: Scanner) -> Scanned:
    """The same where some of the oldest segments have been read already, and are as they were. See there."""
    names, left_over = that_count(disk.names())
    for before, name in pairwise(names):
        if name.sequence != before.last + 1:
            raise JournalDamaged(segment_name(before.last + 1), 0, "the segment is missing")
    for name in names[len(scanner.segments) :]:
        scanner.segment(name, disk.read(segment_name(*name)), is_last=name is names[-1])
    if scanner.cut is not None and scanner.cut.offset == 0:
        left_over.append(scanner.cut.name)
    last_sequence = 0
    if scanner.segments:
        head = scanner.segments[-1][0]
        last_sequence = head.last
        if head.generation:  # it was written anew when there was another, which begins with what is declared
            raise JournalDamaged(segment_name(last_sequence + 1), 0, "the segment is missing")
    return Scanned(scanner.segments, scanner.last_lsn, last_sequence, scanner.epoch, scanner.cut, left_over)


def tidy(disk: Disk, scanned: Scanned) -> None:
    """Cut the torn tail and delete what is left over.

    What was read is on disk when this returns, though the process that wrote it may have ended before it was synced.
    """
    if scanned.segments:
        head, size = scanned.segments[-1]
        if not head.generation:
            disk.truncate(head.name, size)
    for name in scanned.left_over:
        disk.unlink(name)


def unfinished(names: Sequence[str]) -> list[str]:
    """The segments that were being written anew when the process ended."""
    return [name for name in names if name.startswith("journal-") and name.endswith(NEW_SUFFIX)]


def that_count(names: Sequence[str]) -> tuple[list[SegmentName], list[str]]:
    """The segments in order, and the files that a segment written anew has taken the place of."""
    left_over = unfinished(names)
    found = [name for name in map(parse_segment_name, names) if name is not None]
    count: list[SegmentName] = []
    for name in sorted(found, key=lambda name: (name.sequence, -name.generation)):
        if count and name.last <= count[-1].last:
            left_over.append(segment_name(*name))
        else:
            count.append(name)
    return count, left_over


def first_number(disk: Disk, name: str) -> int | None:
    """The number that a segment's records begin with; None: it has no whole head, as one that begins at this moment."""
    try:
        return decode_segment_head(disk.read_at(name, 0, SEGMENT_HEAD_BYTES)).first_lsn
    except Damage:
        return None
    finally:
        disk.forget(name)


class Scanner:
    """Reads one segment after the other."""

    def __init__(self, visit: Visit, run: Run | None) -> None:
        self._visit = visit
        self._run = run
        self.segments: list[tuple[SegmentHead, int]] = []
        """What was read, and how many bytes of it count."""
        self.last_lsn = 0
        self.epoch = 0
        self.cut: Cut | None = None

    def segment(self, name: SegmentName, data: bytes, *, is_last: bool) -> None:
        """Read the next one. JournalDamaged: it cannot be read."""
        file = segment_name(*name)
        try:
            head = decode_segment_head(data)
        except Damage as damage:
            torn = damage.torn and is_last and not name.generation and len(data) <= SEGMENT_HEAD_BYTES
            if not torn:
                raise JournalDamaged(file, damage.offset, damage.reason) from None
            self.cut = Cut(file, 0, len(data), damage.reason)
            return
        if head.name != file:
            raise JournalDamaged(file, 0, f"the file is {head.name} by its head")
        if self.segments and head.first_lsn != self.last_lsn + 1:
            raise JournalDamaged(file, 0, f"the segment begins with record {head.first_lsn}, not {self.last_lsn + 1}")
        self.last_lsn = head.first_lsn - 1
        offset = SEGMENT_HEAD_BYTES
        try:
            offset = self._records(head, data)
            if offset < len(data) and (head.generation or not is_last):
                raise Damage(offset, ZEROES, torn=False)
        except Damage as damage:
            torn = is_last and not name.generation and damage.torn and _known_safe(data, damage.offset) <= self.last_lsn
            if not torn:
                raise JournalDamaged(file, damage.offset, damage.reason) from None
            offset = damage.offset
            self.cut = Cut(file, offset, len(data) - offset, damage.reason)
        if head.generation:
            if self.last_lsn >= head.next_lsn:
                raise JournalDamaged(file, 0, f"record {self.last_lsn} in a segment that ends before {head.next_lsn}")
            self.last_lsn = head.next_lsn - 1
        self.segments.append((head, offset))

    def _records(self, head: SegmentHead, data: bytes) -> int:
        """Read records; where they end."""
        offset, run = SEGMENT_HEAD_BYTES, self._run
        while True:
            if run is not None and data[offset + _TYPE_AT : offset + _TYPE_AT + 1] == _PUBLISH:
                offset, count = run(head, data, offset, self.last_lsn + 1, self.epoch)
                self.last_lsn += count
            start = offset
            offset = self._some_records(head, data, offset)
            if offset == start:
                return offset

    def _some_records(self, head: SegmentHead, data: bytes, offset: int) -> int:
        """Read records up to where a run may begin; where that is."""
        visit, last, gaps = self._visit, self.last_lsn, head.generation > 0
        may_run = self._run is not None
        for record in decode_all(data, offset):
            lsn = record.lsn
            if lsn != last + 1 and not (gaps and lsn > last):
                raise Damage(record.start, f"record {lsn} where {last + 1} is due", torn=False)
            visit(head, data, record)
            self.last_lsn = last = lsn + record.span - 1
            offset = record.end
            if record.epoch > self.epoch:
                self.epoch = record.epoch
            if may_run and data[offset + _TYPE_AT : offset + _TYPE_AT + 1] == _PUBLISH:
                break
        return offset


def _known_safe(data: bytes, offset: int) -> int:
    """The highest record number that a mark behind `offset` says was on disk; 0 when there is none."""
    return max((safe for _, safe in marks(data, offset)), default=0)


def marks(data: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """The whole marks from `offset` on, whatever is between them: where each begins, and what was on disk by then."""
    found = data.find(MARK_MAGIC, offset)
    while found >= 0:
        start = found - HEAD.size
        try:
            record = next(decode_all(data, start)) if start >= offset else None
        except Damage:
            record = None
        if record is not None and record.type is Type.MARK:
            yield start, decode_mark(data, record.body)
        found = data.find(MARK_MAGIC, found + 1)
