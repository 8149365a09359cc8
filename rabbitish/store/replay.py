"""What the records of a journal add up to: what is declared, and which messages each queue still holds.

Kept small, since a journal may hold many millions of messages: what lives and what left are ranges of numbers in
arrays, and of a PUBLISH only its number, time and stamp stay; the bodies are read again when they are wanted.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rabbitish.core.message import Address, Stamp, Traits
from rabbitish.core.paging import NEVER
from rabbitish.store.bodies import Codec, Route, decode_of_queue, decode_returned
from rabbitish.store.declared import Declarations, Declared
from rabbitish.store.mixed import Mixed
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import PUBLISHES, SEGMENT_HEAD_BYTES, Record, SegmentHead, Type
from rabbitish.store.runs import KINDS_KEPT, RunReader
from rabbitish.store.segments import WEIGHT_BYTES, Segment, Segments

_ANY = Address("", "")
_LOOKED_AT = 1024  # so many records at a time


class Live(NamedTuple):
    """Messages that are still in a queue, alike and with consecutive numbers."""

    first: int
    length: int
    now: int
    """When they were published."""
    stamp: Stamp
    """What its place and its end in a queue depend on; nothing else of it unless `stamped`."""
    stamped: bool


class Alike(NamedTuple):
    """Messages that are still in a queue, with consecutive numbers: columns of the records that have them."""

    firsts: array[int]
    length: int
    nows: array[int]
    sizes: array[int]
    expirations: array[int]
    """-1: none."""

    @property
    def lengths(self) -> list[int]:
        """How many messages of each record."""
        ends = [*self.firsts[1:], self.firsts[0] + self.length]
        return [end - first for first, end in zip(self.firsts, ends, strict=True)]

    def deadlines(self, ttl: int | None) -> array[int] | None:
        """When each record's expire in a queue with this TTL; None: none of them does."""
        if ttl is not None:
            return array("q", [now + (ttl if own < 0 else min(ttl, own)) for now, own in self._times])
        if self.expirations.count(-1) == len(self.expirations):
            return None
        return array("q", [NEVER if own < 0 else now + own for now, own in self._times])

    @property
    def _times(self) -> Iterator[tuple[int, int]]:
        return zip(self.nows, self.expirations, strict=True)


class Contents:
    """What is known of the messages of one queue: ranges of numbers, as first, count, first, count ..."""

    __slots__ = ("delivered", "delivered_at", "published", "removed", "returned")

    def __init__(self) -> None:
        self.published = array("Q")
        self.removed = array("Q")
        self.delivered = array("Q")
        self.delivered_at = array("Q")  # the records that said so, one a range
        self.returned: dict[int, tuple[int, int]] = {}  # how often, and the record that said so

    def live(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The ranges that are still there, and those that were and have left."""
        gone = sorted(zip(self.removed[::2], self.removed[1::2], strict=True))
        left: list[tuple[int, int]] = []
        dead: list[tuple[int, int]] = []
        at = 0
        for first, count in zip(self.published[::2], self.published[1::2], strict=True):
            end = first + count
            while at < len(gone) and gone[at][0] + gone[at][1] <= first:
                at += 1
            index = at
            while index < len(gone) and gone[index][0] < end:
                start, stop = max(first, gone[index][0]), min(end, sum(gone[index]))
                if start > first:
                    left.append((first, start - first))
                if stop > start:
                    dead.append((start, stop - start))
                first = max(first, stop)
                index += 1
            if first < end:
                left.append((first, end - first))
        return left, dead

    def returns(self, live: Sequence[tuple[int, int]]) -> dict[int, int]:
        """How often those of `live` have come back that were handed out.

        Whoever had one at the end of a process lost it, so each delivery counts that nothing was told of afterwards.
        """
        firsts = [first for first, _ in live]
        told = self.returned
        returns = {lsn: times for lsn, (times, _) in told.items()}
        delivered = zip(self.delivered[::2], self.delivered[1::2], self.delivered_at, strict=True)
        for first, count, at in delivered:
            if not live or first + count <= firsts[0]:
                continue
            index = max(0, bisect_right(firsts, first) - 1)
            while index < len(live) and live[index][0] < first + count:
                start, stop = max(first, live[index][0]), min(first + count, sum(live[index]))
                for lsn in range(start, stop):
                    if lsn not in told or told[lsn][1] < at:
                        returns[lsn] = returns.get(lsn, 0) + 1
                index += 1
        return returns


class Replay:
    """Takes records in order; after `finish` says what they add up to."""

    def __init__(
        self,
        codec: Codec,
        publishes: PublishReader,
        declarations: Declarations | None = None,
        *,
        run_bytes: int = 1 << 63,
    ) -> None:
        """At most `run_bytes` are taken by one call of `run`."""
        self._publishes = publishes
        self._runs = RunReader(publishes, run_bytes)
        self._declarations = declarations or Declarations(codec)
        self.segments = Segments()
        self._segment: Segment | None = None
        self._lsns = array("Q")  # of all records of messages, or of messages that are not alike, ascending
        self._nows = array("Q")
        self._stamps: dict[Stamp, int] = {}  # the first ones, numbered from 1
        self._stamped = array("H")  # 0: by none of these
        self._sizes = array("I")
        self._priorities = array("B")
        self._expirations = array("q")  # -1: none
        self._contents: dict[int, Contents] = {}
        self._ranges: dict[int, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {}
        self._highest = 0
        self._handlers: dict[Type, Callable[[int, bytes], None]] = {
            Type.QUEUE_GONE: self._queue_gone,
            Type.REMOVE: self._remove,
            Type.DELIVERED: self._delivered,
            Type.RETURNED: self._returned,
        }

    @property
    def declared(self) -> Declared:
        """What is declared."""
        return self._declarations.declared

    @property
    def highest_queue(self) -> int:
        """No queue has had a higher number."""
        return max(self._highest, self._declarations.highest_queue)

    def visit(self, head: SegmentHead, data: bytes, record: Record) -> None:
        """Take the next record."""
        segment = self._in(head)
        if record.type in PUBLISHES:
            self._publish(segment, data, record)
            return
        segment.other_bytes += record.end - record.start
        body = data[record.body : record.end]
        handler = self._handlers.get(record.type)
        if handler is not None:
            handler(record.lsn, body)
        self._declarations.take(record.type, body)

    def run(self, head: SegmentHead, data: bytes, offset: int, due: int, epoch: int) -> tuple[int, int]:
        """Take the next records if they are a run (see scan): where that ends, and how many messages it has."""
        run = self._runs.read(data, offset, due, epoch, self._stamps)
        if run is None:
            return offset, 0
        segment, count, numbers = self._in(head), len(run.offsets), range(due, due + len(run.offsets))
        segment.lsns.extend(numbers)
        segment.offsets.extend(run.offsets)
        segment.spans.extend([1] * count)
        stamped, sizes, priorities, expirations = zip(*run.kinds, strict=True)
        segment.total_weight += len(run.route.queues) * (sum(sizes) + count * WEIGHT_BYTES)
        self._lsns.extend(numbers)
        self._nows.extend(run.nows)
        self._stamped.extend(stamped)
        self._sizes.extend(sizes)
        self._priorities.extend(priorities)
        self._expirations.extend(expirations)
        self._came(run.route, due, count)
        return run.end, count

    def _in(self, head: SegmentHead) -> Segment:
        """The segment that is read."""
        segment = self._segment
        if segment is None or segment.head is not head:
            segment = self._segment = self.segments.begin(head)
            segment.other_bytes = SEGMENT_HEAD_BYTES
        return segment

    def finish(self, segments: Sequence[tuple[SegmentHead, int]]) -> None:
        """There are no more records, and these are the segments that count, with their sizes."""
        self._declarations.finish()
        known = {segment.head: segment for segment in self.segments.all}
        self.segments = Segments()
        for head, size in segments:  # some may have no record at all
            segment = self.segments.adopt(known.get(head) or Segment(head))
            segment.size = size
        for number in self.declared.queues:
            contents = self._contents.get(number)
            live, dead = contents.live() if contents is not None else ([], [])
            self._ranges[number] = live, dead
            for first, count in dead:
                self.segments.of(first).removed.extend((number, first, count))

    def live(self, number: int) -> Iterator[Live]:
        """The messages that a queue still holds, in order."""
        index, known, lsns, stamps = 0, (-1, 0, 0), self._lsns, list(self._stamps)
        for first, count in self._ranges[number][0]:
            while count:
                if not (index + 1 < len(lsns) and lsns[index] <= first < lsns[index + 1]):
                    index = bisect_right(lsns, first, index) - 1
                end = lsns[index + 1] if index + 1 < len(lsns) else first + count
                some = min(count, end - first)
                like = self._sizes[index], self._priorities[index], self._expirations[index]
                if like != known:
                    known, (size, priority, expiration) = like, like
                    stamp = Stamp(_ANY, Traits(True, priority, None if expiration < 0 else expiration), size)
                at = self._stamped[index]
                yield Live(first, some, self._nows[index], stamps[at - 1] if at else stamp, at > 0)
                first += some
                count -= some

    def alike(self, number: int, after: int) -> Iterator[Alike]:
        """The messages behind number `after` that a queue still holds, in order, as many as are easily looked at."""
        lsns = self._lsns
        for first, count in self._ranges[number][0]:
            end = first + count
            if end <= after + 1:
                continue
            first = max(first, after + 1)
            start = bisect_right(lsns, first) - 1
            stop = bisect_right(lsns, end - 1, start)
            for at in range(start, stop, _LOOKED_AT):
                to = min(at + _LOOKED_AT, stop)
                firsts = lsns[at:to]
                firsts[0] = max(first, firsts[0])
                part = slice(at, to)
                length = (lsns[to] if to < stop else end) - firsts[0]
                yield Alike(firsts, length, self._nows[part], self._sizes[part], self._expirations[part])

    def holds(self, number: int, lsn: int) -> bool:
        """Whether a queue still holds a message."""
        ranges = self._ranges[number][0]
        at = bisect_right(ranges, (lsn, 1 << 64)) - 1
        return at >= 0 and lsn < sum(ranges[at])

    def returns(self, number: int) -> dict[int, int]:
        """How often messages that a queue still holds have come back, where they ever left."""
        contents = self._contents.get(number)
        return contents.returns(self._ranges[number][0]) if contents is not None else {}

    def weigh(self) -> int:
        """After `finish`: tell the segments what lives in them; how many messages that are, in all queues together."""
        total = 0
        for number in self.declared.queues:
            for live in self.live(number):
                weight = live.length * (live.stamp.size + WEIGHT_BYTES)
                self.segments.of(live.first).live(number, live.length, weight)
                total += live.length
        return total

    # ---- messages

    def _of(self, number: int) -> Contents:
        contents = self._contents.get(number)
        if contents is None:
            contents = self._contents[number] = Contents()
            self._highest = max(self._highest, number)
        return contents

    def _publish(self, segment: Segment, data: bytes, record: Record) -> None:
        publish = self._publishes.head(data, record.body, record.type)
        lsn, mixed = record.lsn, publish.mixed
        segment.note(lsn, record.start, publish.length)
        self._came(publish.route, lsn, publish.length)
        if mixed is not None and not mixed.alike:
            self._mixed(lsn, publish.now, mixed)
            segment.total_weight += len(publish.route.queues) * (sum(mixed.bodies) + publish.length * WEIGHT_BYTES)
            return
        stamp = self._publishes.stamp(data, publish)
        segment.total_weight += len(publish.route.queues) * publish.length * (stamp.size + WEIGHT_BYTES)
        self._lsns.append(lsn)
        self._nows.append(publish.now)
        stamped = self._stamps.get(stamp, 0)
        if not stamped and len(self._stamps) < KINDS_KEPT:
            stamped = self._stamps[stamp] = len(self._stamps) + 1
        self._stamped.append(stamped)
        self._sizes.append(stamp.size)
        self._priorities.append(stamp.traits.priority)
        self._expirations.append(-1 if stamp.expiration_ms is None else stamp.expiration_ms)

    def _mixed(self, lsn: int, now: int, mixed: Mixed) -> None:
        """Messages that are not alike: what is known of records is known of each of them."""
        count = len(mixed.bodies)
        self._lsns.extend(range(lsn, lsn + count))
        self._nows.extend(array("Q", [now]) * count)
        self._stamped.extend(array("H", [0]) * count)
        self._sizes.extend(mixed.bodies)
        self._priorities.extend(array("B", [mixed.priority]) * count)
        self._expirations.extend(mixed.expirations or array("q", [-1]) * count)

    def _came(self, route: Route, lsn: int, count: int) -> None:
        assert self._segment is not None
        begins = self._segment.head.first_lsn  # no range reaches over that
        for number in route.queues:
            published = self._of(number).published
            if published and published[-2] + published[-1] == lsn != begins:
                published[-1] += count
            else:
                published.extend((lsn, count))

    def _queue_gone(self, lsn: int, body: bytes) -> None:
        self._contents.pop(int.from_bytes(body, "big"), None)

    def _remove(self, lsn: int, body: bytes) -> None:
        number, _, ranges = decode_of_queue(body)
        self._of(number).removed.extend(ranges)

    def _delivered(self, lsn: int, body: bytes) -> None:
        number, _, ranges = decode_of_queue(body)
        contents = self._of(number)
        contents.delivered.extend(ranges)
        contents.delivered_at.extend([lsn] * (len(ranges) // 2))

    def _returned(self, lsn: int, body: bytes) -> None:
        number, message, returns = decode_returned(body)
        self._of(number).returned[message] = returns, lsn
