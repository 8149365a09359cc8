"""What a clean stop leaves for the next start, so that it need not read the journal: the file `checkpoint`.

It says all that reading every record would find: what is declared, which messages are where in which segment, which of
them live, and what each queue holds. It is good as long as the journal stays as it was, so it is deleted before
anything is appended. It is believed if its checksum is right and the segments are just those it knows, each of its
size. With other ones, or a longer one, it is stale; one that is shorter or missing is damage, for all was on disk.

What is damaged within a segment is found when a message is read back, if ever. So that it is found at once where that
costs little, a small journal is read at the start all the same (recovery.py); its checkpoint serves the sizes alone.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from rabbitish.core.lane import Lane
from rabbitish.core.message import Message
from rabbitish.core.queue import Queue
from rabbitish.store.bodies import Codec
from rabbitish.store.columns import Columns, Unusable, read_columns, write_columns
from rabbitish.store.declared import Declarations
from rabbitish.store.files import Disk
from rabbitish.store.journal import Journal
from rabbitish.store.lines import Line
from rabbitish.store.reader import Reader
from rabbitish.store.record import JournalDamaged, SegmentHead, Type, decode_all, encode, parse_segment_name
from rabbitish.store.recorder import JournalRecorder
from rabbitish.store.scan import NEW_SUFFIX, Scanned, unfinished
from rabbitish.store.segments import Segment, Segments
from rabbitish.store.shelf import JournalShelf, Stretch

NAME = "checkpoint"
VERSION = 2


class _SegmentRow(NamedTuple):
    sequence: int
    last: int
    generation: int
    first_lsn: int
    next_lsn: int
    size: int
    other_bytes: int
    total_weight: int
    records: int
    queues: int
    removed: int


class _LaneRow(NamedTuple):
    queue: int
    level: int
    returned: int
    pages: int


class _PageRow(NamedTuple):
    ranges: int
    messages: int
    bytes: int
    timed: int


_COLUMNS = {
    "declared": "B",  # records
    "segments": "Q",  # rows; then what they have, one segment's behind the other's
    "lsns": "Q",
    "offsets": "I",
    "spans": "I",
    "removed": "Q",
    "counts": "Q",  # queue and number of messages
    "weights": "q",
    "lanes": "Q",  # rows; then what they have
    "returned": "Q",  # number of the message, how often
    "pages": "Q",  # rows; then what they have
    "ranges": "Q",
    "deadlines": "q",
    "sizes": "I",
}


# ---- at a clean stop


def write_checkpoint(journal: Journal, recorder: JournalRecorder, shelf: JournalShelf) -> None:
    """Write a checkpoint of a journal that is on disk and to which nothing is appended any more.

    Files of the journal that nobody needs are deleted first. Unusable: something is not as it should be at a clean
    stop. OSError: it could not be written. There is none then.
    """
    if journal.waiting:
        raise Unusable("the journal is not all on disk")
    journal.delete(journal.synced(journal.last_lsn))  # whoever wrote it may not have come to say so
    for name in unfinished(journal.disk.names()):  # whoever was writing segments anew has been stopped
        journal.disk.unlink(name)
    writer = _Writer()
    writer.declared(recorder)
    for segment in journal.segments.all:
        writer.segment(segment)
    for queue, number in recorder.queues.items():
        if queue.unacked:
            raise Unusable(f"messages of the queue '{queue.name}' are unacknowledged")
        for level, lane in queue.lanes.items():
            writer.lane(number, level, lane, shelf)
    if writer.living != writer.held:
        raise Unusable("the queues do not hold what lives in the segments")
    facts = {
        "last_lsn": journal.last_lsn,
        "last_sequence": journal.last_sequence,
        "last_epoch": journal.epoch,
        "highest_queue": recorder.highest_queue,
    }
    write_columns(journal.disk, NAME, VERSION, Columns(facts, writer.columns))


class _Writer:
    def __init__(self) -> None:
        self.columns = {name: array(typecode) for name, typecode in _COLUMNS.items()}
        self.living: Counter[int] = Counter()  # messages of each queue, by the segments
        self.held: Counter[int] = Counter()  # and by the queues

    def declared(self, recorder: JournalRecorder) -> None:
        recorder.snapshot(self)

    def append_snapshot(self, kind: Type, *body: bytes) -> None:
        """See recorder.Sink."""
        for piece in encode(0, 0, kind, *body):
            self.columns["declared"].frombytes(piece)

    def segment(self, segment: Segment) -> None:
        columns, counts = self.columns, segment.counts
        sizes = len(segment.lsns), len(counts), len(segment.removed)
        columns["segments"].extend(
            _SegmentRow(*segment.head, segment.size, segment.other_bytes, segment.total_weight, *sizes)
        )
        for name in ("lsns", "offsets", "spans", "removed"):
            columns[name].extend(getattr(segment, name))
        for queue, count in counts.items():
            columns["counts"].extend((queue, count))
            columns["weights"].append(segment.weights[queue])
        self.living.update(counts)

    def lane(self, number: int, level: int, lane: Lane, shelf: JournalShelf) -> None:
        columns = self.columns
        returned = [(message.lsn, returns) for message, returns in lane.returned() if message.lsn]
        pages = shelf.pages_of(lane.never_taken())
        count = len(returned) + sum(page.count for page in pages)
        if not count:
            return
        self.held[number] += count
        columns["lanes"].extend(_LaneRow(number, level, len(returned), len(pages)))
        for row in returned:
            columns["returned"].extend(row)
        for page in pages:
            ranges, deadlines, sizes = page.ranges, page.deadlines, page.sizes
            columns["pages"].extend(_PageRow(len(ranges), page.count, page.bytes, deadlines is not None))
            columns["ranges"].extend(ranges)
            if deadlines is not None:
                columns["deadlines"].extend(deadlines)
                columns["sizes"].extend(sizes)


# ---- at the next start


def find_checkpoint(disk: Disk, codec: Codec) -> Checkpoint | None:
    """The checkpoint that is there, if there is one.

    Unusable: it is damaged, or stale. JournalDamaged: it is good, and the journal is not as it was.
    """
    if NAME not in disk.names():
        return None
    try:
        data = disk.read(NAME)
    except OSError as error:  # all that it says can be found in another way
        raise Unusable(f"it cannot be read: {error}") from error
    checkpoint = Checkpoint(read_columns(data, VERSION), codec)
    checkpoint.compare(disk)
    return checkpoint


def forget_checkpoint(disk: Disk) -> None:
    """Delete the checkpoint: the journal will be another from now on. OSError: that failed."""
    for name in (NAME, NAME + NEW_SUFFIX):
        if name in disk.names():
            disk.unlink(name)


class _Cursor:
    """Takes from columns what comes next."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns.columns
        self._at = dict.fromkeys(_COLUMNS, 0)

    def take(self, name: str, count: int) -> array[int]:
        start = self._at[name]
        self._at[name] = end = start + count
        return self._columns[name][start:end]


class Checkpoint:
    """A source that was read from a checkpoint (see lines.Source)."""

    def __init__(self, content: Columns, codec: Codec) -> None:
        self._facts = content.facts
        self.highest_queue = self._facts["highest_queue"]
        declarations, records = Declarations(codec), content.columns["declared"].tobytes()
        for record in decode_all(records, 0):
            declarations.take(record.type, records[record.body : record.end])
        self.declared = declarations.declared
        cursor = _Cursor(content)
        self.segments = Segments()
        for row in map(_SegmentRow._make, _rows(content.columns["segments"], len(_SegmentRow._fields))):
            self.segments.adopt(_segment(row, cursor))
        self._lanes: dict[int, list[_Held]] = {}
        for lane in map(_LaneRow._make, _rows(content.columns["lanes"], len(_LaneRow._fields))):
            self._lanes.setdefault(lane.queue, []).append(_held(lane, cursor))
        self.scanned = self._scanned([])

    def _scanned(self, left_over: list[str]) -> Scanned:
        facts, segments = self._facts, [(segment.head, segment.size) for segment in self.segments.all]
        return Scanned(segments, facts["last_lsn"], facts["last_sequence"], facts["last_epoch"], None, left_over)

    def compare(self, disk: Disk) -> None:
        """See `find_checkpoint`."""
        names = disk.names()
        there = {name for name in names if parse_segment_name(name) is not None}
        known = {segment.head.name: segment.size for segment in self.segments.all}
        if not there <= known.keys():
            raise Unusable("the journal has other segments by now")
        longer = False
        for name, size in known.items():
            if name not in there:
                raise JournalDamaged(name, 0, "the file, which was there at the last clean stop, is missing")
            found = disk.size(name)
            if found < size:
                raise JournalDamaged(name, found, f"the file, which ended at {size} at the last clean stop, ends")
            longer |= found > size
        if longer:
            raise Unusable("the journal is longer by now")
        self.scanned = self._scanned(unfinished(names))

    def lines(self, number: int, queue: Queue, reader: Reader) -> Iterator[Line]:
        """See Source."""
        for held in self._lanes.pop(number, ()):
            pages = [Stretch.of(reader, *page) for page in held.pages]
            yield Line(queue.lane_at(held.level), _returned(held.returned, reader), pages)


class _Held(NamedTuple):
    """What a lane held."""

    level: int
    returned: array[int]
    pages: list[tuple[array[int], array[int] | None, array[int], int, int]]
    """Ranges, deadlines and sizes, messages and bytes."""


def _rows(column: array[int], width: int) -> Iterator[tuple[int, ...]]:
    return zip(*[iter(column)] * width, strict=True)


def _segment(row: _SegmentRow, cursor: _Cursor) -> Segment:
    segment = Segment(SegmentHead(*row[: len(SegmentHead._fields)]))
    segment.size, segment.other_bytes, segment.total_weight = row.size, row.other_bytes, row.total_weight
    segment.lsns = cursor.take("lsns", row.records)
    segment.offsets = cursor.take("offsets", row.records)
    segment.spans = cursor.take("spans", row.records)
    segment.removed = cursor.take("removed", row.removed)
    counts = cursor.take("counts", 2 * row.queues)
    segment.counts = dict(zip(counts[::2], counts[1::2], strict=True))
    segment.weights = dict(zip(counts[::2], cursor.take("weights", row.queues), strict=True))
    return segment


def _held(lane: _LaneRow, cursor: _Cursor) -> _Held:
    returned = cursor.take("returned", 2 * lane.returned)
    pages: list[tuple[array[int], array[int] | None, array[int], int, int]] = []
    width = len(_PageRow._fields)
    for page in map(_PageRow._make, _rows(cursor.take("pages", width * lane.pages), width)):
        ranges = cursor.take("ranges", page.ranges)
        timed = page.ranges // 2 if page.timed else 0
        deadlines = cursor.take("deadlines", timed) if timed else None
        pages.append((ranges, deadlines, cursor.take("sizes", timed), page.messages, page.bytes))
    return _Held(lane.level, returned, pages)


def _returned(column: array[int], reader: Reader) -> Iterator[tuple[Message, int, int]]:
    ranges = array("Q")
    for lsn in column[::2]:
        if ranges and ranges[-2] + ranges[-1] == lsn:
            ranges[-1] += 1
        else:
            ranges.extend((lsn, 1))
    for (husk, now), returns in zip(reader.husks(ranges), column[1::2], strict=True):
        yield husk, now, returns
