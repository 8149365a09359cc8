"""Writing sparse neighbouring segments anew as one, without what is dead in them, while everything else goes on.

Numbers stay as they are; so a message is found again by its number before and after. What is kept: messages that are
in some queue (for those queues alone), and what was told of messages that are still on disk, here or in older segments,
unless something later here makes it void.
Declarations are not, since a newer segment begins with all of them. Nothing is replaced before everything that was
known when it was planned is on disk: a message that was dropped here may have moved on by a record that is not there
yet.

    plan (the core's thread)  ->  write (any thread)  ->  all durable  ->  install (any thread)  ->  finish (the core's)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from rabbitish.store.bodies import RETURNED_BYTES, Codec, Route, decode_of_queue, decode_returned, encode_of_queue
from rabbitish.store.files import Disk
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import (
    HEAD,
    PUBLISHES,
    SEGMENT_HEAD_BYTES,
    Damage,
    JournalDamaged,
    Record,
    SegmentHead,
    Type,
    decode_all,
    encode,
    encode_segment_head,
)
from rabbitish.store.scan import NEW_SUFFIX
from rabbitish.store.segments import Segment, Segments

_WRITE_BYTES = 1024 * 1024


class Owner(Protocol):
    """Whose segments they are: a journal, or what stands for one."""

    @property
    def disk(self) -> Disk: ...

    @property
    def segments(self) -> Segments: ...

    @property
    def last_lsn(self) -> int:
        """Up to here it is known what lives."""

    @property
    def dead(self) -> list[Segment]:
        """Segments that nobody needs and whose files may still be there."""

    def dies(self, segments: list[Segment]) -> None:
        """Nobody needs these segments any more."""


Span = tuple[int, int]
"""First number, and the one behind the last."""


class Compaction:
    """One rewriting. `lsn`: the record up to which the journal must be on disk before `install`."""

    def __init__(self, journal: Owner, codec: Codec, segments: Sequence[Segment]) -> None:
        """Plan it; the segments are not to be deleted or planned for again before `finish`."""
        self._journal = journal
        self._disk: Disk = journal.disk
        self._publishes = PublishReader(codec)
        self._segments = list(segments)
        self.lsn = journal.last_lsn
        everything = journal.segments.all
        index = everything.index(segments[0])
        following = everything[index + len(segments)]
        self.head = SegmentHead(
            segments[0].head.sequence,
            segments[-1].head.last,
            1 + max(segment.head.generation for segment in segments),
            segments[0].head.first_lsn,
            following.head.first_lsn,
        )
        # Those that nobody needs as well, as long as the next start may find them.
        self._older = [_Numbers(segment) for segment in (*journal.dead, *everything[:index])]
        self._books = [_Books(segment) for segment in segments]
        self._known = [len(segment.removed) for segment in segments]
        self.bytes = sum(segment.live_bytes for segment in segments)  # what it will write, about
        self._weight = sum(sum(segment.weights.values()) for segment in segments)
        self._new = Segment(self.head)
        self._returned: dict[int, dict[int, int]] = {}  # by queue and message: the record of its last return
        for segment in segments:
            segment.busy = True

    # ---- any thread

    def write(self, breathe: Callable[[], None] = lambda: None) -> None:
        """Write the new segment under another name; calls `breathe` now and then. OSError, JournalDamaged: failed."""
        self.discard()
        file = self._disk.create(self.head.name + NEW_SUFFIX)
        try:
            pieces: list[bytes] = [encode_segment_head(self.head)]
            self._new.size = self._new.other_bytes = size = len(pieces[0])
            self._find_returns(breathe)
            for piece in self._pieces(breathe):
                pieces.append(piece)
                size += len(piece)
                self._new.size += len(piece)
                if size >= _WRITE_BYTES:
                    file.write(b"".join(pieces))
                    pieces.clear()
                    size = 0
            file.write(b"".join(pieces))
            file.sync()
        finally:
            file.close()

    def discard(self) -> None:
        """Delete what was written of a new segment that could not be finished. OSError: that failed."""
        name = self.head.name + NEW_SUFFIX
        if name in self._disk.names():
            self._disk.unlink(name)

    def install(self) -> None:
        """Give the new segment its name: from then on it counts, and those it stands for do not. OSError: it failed."""
        self._disk.rename(self.head.name + NEW_SUFFIX, self.head.name)

    def _find_returns(self, breathe: Callable[[], None]) -> None:
        for segment in self._segments:
            data = self._disk.read(segment.head.name)
            offset = SEGMENT_HEAD_BYTES
            while offset + HEAD.size <= len(data):  # what is damaged is found when it is read for good
                breathe()
                size, _, number, _, kind, _ = HEAD.unpack_from(data, offset)
                body = offset + HEAD.size
                offset = body + size
                if kind == Type.RETURNED and size == RETURNED_BYTES:
                    queue, lsn, _ = decode_returned(data[body:offset])
                    self._returned.setdefault(queue, {})[lsn] = number

    def _pieces(self, breathe: Callable[[], None]) -> Iterator[bytes]:
        for segment, books in zip(self._segments, self._books, strict=True):
            data = self._disk.read(segment.head.name)
            try:
                for record in decode_all(data, SEGMENT_HEAD_BYTES):
                    breathe()
                    if record.type in PUBLISHES:
                        yield from self._publish(data, record, books)
                        continue
                    for piece in self._told(data, record):
                        self._new.other_bytes += len(piece)
                        yield piece
            except Damage as damage:
                raise JournalDamaged(segment.head.name, damage.offset, damage.reason) from None

    def _told(self, data: bytes, record: Record) -> Iterator[bytes]:
        """What is kept of a record of anything but messages."""
        if record.type in (Type.REMOVE, Type.DELIVERED):
            queue, flags, ranges = decode_of_queue(data[record.body : record.end])
            returned = self._returned.get(queue) if record.type is Type.DELIVERED else None
            kept: list[int] = []
            for first, count in zip(ranges[::2], ranges[1::2], strict=True):
                for span in self._told_of(record.type, queue, first, first + count):
                    for start, end in _still_out(span, record.lsn, returned) if returned else (span,):
                        kept += (start, end - start)
            if kept:
                yield from encode(record.lsn, record.epoch, record.type, encode_of_queue(queue, flags, kept))
        elif record.type is Type.RETURNED:
            queue, lsn, _ = decode_returned(data[record.body : record.end])
            if self._returned[queue][lsn] == record.lsn and self._told_of(record.type, queue, lsn, lsn + 1):
                yield data[record.start : record.end]
        elif record.type is Type.EPOCH:
            yield data[record.start : record.end]

    def _told_of(self, kind: Type, queue: int, first: int, end: int) -> list[Span]:
        """For which of these messages it still matters what was told of them."""
        if first >= self.head.first_lsn:
            if kind is Type.REMOVE:
                return []  # they are not in the new segment, for this queue
            return [span for books in self._books for span in books.live(queue, first, end)]
        return [(first, end)] if any(numbers.has(first, end) for numbers in self._older) else []

    def _publish(self, data: bytes, record: Record, books: _Books) -> Iterator[bytes]:
        publish = self._publishes.head(data, record.body, record.type)
        first, end = record.lsn, record.lsn + publish.length
        live = {queue: books.live(queue, first, end) for queue in publish.route.queues}
        if all(spans == [(first, end)] for spans in live.values()):
            self._new.note(first, self._new.size, publish.length)
            yield data[record.start : record.end]
            return
        cuts = sorted({at for spans in live.values() for span in spans for at in span})
        for start, stop in pairwise(cuts):
            queues = tuple(
                queue for queue, spans in live.items() if any(low <= start and stop <= high for low, high in spans)
            )
            if not queues:
                continue
            route = Route(publish.route.channel, queues, publish.route.address).encode()
            kind, head = publish.part(start - first, stop - first, route)
            contents = data[publish.start(start - first) : publish.start(stop - first)]
            self._new.note(start, self._new.size, stop - start)
            yield b"".join(encode(start, record.epoch, kind, head, contents))

    # ---- the core's thread

    def give_up(self) -> None:
        """The segments stay as they are."""
        for segment in self._segments:
            segment.busy = False

    def finish(self) -> None:
        """Use the new segment in place of the old ones, which may be deleted."""
        new = self._new
        for segment, known in zip(self._segments, self._known, strict=True):
            segment.busy = False
            for queue, count in segment.counts.items():
                new.counts[queue] = new.counts.get(queue, 0) + count
                new.weights[queue] = new.weights.get(queue, 0) + segment.weights[queue]
            new.removed.extend(segment.removed[known:])
        new.total_weight = self._weight
        new.told_bytes = new.other_bytes
        self._journal.segments.replace(self._segments, new)
        self._journal.dies(self._segments)

    @property
    def replaced(self) -> list[SegmentHead]:
        """The segments that the new one stands for."""
        return [segment.head for segment in self._segments]

    @property
    def new_bytes(self) -> int:
        """The size of the new one."""
        return self._new.size

    def report(self) -> dict[str, object]:
        """What was done, for the log."""
        before = sum(segment.size for segment in self._segments)
        return {"segments": len(self._segments), "bytes": before, "left": self._new.size, "file": self.head.name}


def _still_out(span: Span, delivered: int, returned: Mapping[int, int]) -> Iterator[Span]:
    """Of messages that the record `delivered` told of, those that no later one says have come back."""
    first, end = span
    for lsn in range(first, end):
        if returned.get(lsn, 0) > delivered:
            if first < lsn:
                yield first, lsn
            first = lsn + 1
    if first < end:
        yield first, end


class _Books:
    """What lived in a segment when it was planned to be written anew."""

    def __init__(self, segment: Segment) -> None:
        self._first = segment.head.first_lsn
        self._end = segment.lsns[-1] + segment.spans[-1] if segment.lsns else self._first
        self._removed: dict[int, list[Span]] = {queue: [] for queue in segment.counts}
        removed = segment.removed
        for queue, first, count in zip(removed[::3], removed[1::3], removed[2::3], strict=True):
            if queue in self._removed:
                self._removed[queue].append((first, first + count))
        for spans in self._removed.values():
            spans.sort()

    def live(self, queue: int, first: int, end: int) -> list[Span]:
        """Which of these messages, if they are in this segment, are in the queue."""
        removed = self._removed.get(queue)
        first, end = max(first, self._first), min(end, self._end)
        if removed is None or first >= end:
            return []
        spans: list[Span] = []
        index = max(0, bisect_right(removed, (first, 1 << 64)) - 1)
        while index < len(removed) and removed[index][0] < end:
            low, high = removed[index]
            if high > first:
                if low > first:
                    spans.append((first, low))
                first = high
            index += 1
        if first < end:
            spans.append((first, end))
        return spans


class _Numbers:
    """Which numbers an older segment has messages of."""

    def __init__(self, segment: Segment) -> None:
        self._lsns = segment.lsns
        self._spans = segment.spans

    def has(self, first: int, end: int) -> bool:
        """Whether any of these."""
        index = bisect_left(self._lsns, end) - 1
        return index >= 0 and self._lsns[index] + self._spans[index] > first
