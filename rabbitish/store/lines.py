"""What a start goes on from: what was declared, and line by line what the queues held; from records, or a checkpoint.

Wherever it comes from, it has the same form and goes into the core the same way (recovery.py). A message that had been
handed out and came back is there as a husk, for it is rarely wanted at once, and whatever never was as pages.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from rabbitish.core.lane import Lane
from rabbitish.core.message import Message
from rabbitish.core.paging import Page
from rabbitish.core.queue import Queue
from rabbitish.store.bodies import Codec
from rabbitish.store.declared import Declared
from rabbitish.store.reader import Reader
from rabbitish.store.replay import Live, Replay
from rabbitish.store.scan import Scanned
from rabbitish.store.segments import WEIGHT_BYTES, Segments
from rabbitish.store.shelf import Stretches


class Line(NamedTuple):
    """What a lane held, in order."""

    lane: Lane
    returned: Iterable[tuple[Message, int, int]]
    """First of all: what came back, when it was published, and how often it has come back."""
    pages: Iterable[Page]


class Source(Protocol):
    """What was there when the last process ended."""

    @property
    def scanned(self) -> Scanned:
        """What files there are, and where the journal ends."""

    @property
    def segments(self) -> Segments:
        """What is in them."""

    @property
    def declared(self) -> Declared: ...

    @property
    def highest_queue(self) -> int:
        """No queue has had a higher number."""

    def lines(self, number: int, queue: Queue, reader: Reader) -> Iterable[Line]:
        """What the queue of that number held; asked once. JournalDamaged, OSError: it cannot be read."""


class Replayed:
    """A source that was read from all records."""

    def __init__(self, replay: Replay, scanned: Scanned, codec: Codec) -> None:
        replay.finish(scanned.segments)
        self.scanned = scanned
        self.segments = replay.segments
        self.declared = replay.declared
        self.highest_queue = replay.highest_queue
        self._replay = replay
        self._codec = codec

    def lines(self, number: int, queue: Queue, reader: Reader) -> Iterator[Line]:
        """See Source."""
        returns = self._replay.returns(number)
        last = self._last_returned(number, queue, returns)
        if not queue.options.max_priority and not queue.ttls:  # else each record may have a TTL of its own
            yield self._only_line(number, queue, last[queue.lane_at(0)], returns, reader)
            return
        lanes: dict[Lane, tuple[list[Live], Stretches]] = {}
        for live in self._replay.live(number):
            first, length, size = live.first, live.length, live.stamp.size
            self.segments.of(first).live(number, length, length * (size + WEIGHT_BYTES))
            lane = queue.lane_of(live.stamp)
            if lane not in lanes:
                lanes[lane] = [], Stretches(reader)
            handed_out, never = lanes[lane]
            out = min(length, max(0, last.get(lane, 0) + 1 - first))
            if out:
                handed_out.append(live._replace(length=out) if out < length else live)
                first, length = first + out, length - out
            if length:
                never.add(first, length, length * size, queue.deadline_then(live.stamp, live.now, live.first))
        for lane, (handed_out, never) in lanes.items():
            yield Line(lane, self._returned(handed_out, returns, reader), never.pages)

    def _only_line(self, number: int, queue: Queue, last: int, returns: dict[int, int], reader: Reader) -> Line:
        """That of a queue without priorities, of which nothing behind `last` was handed out."""
        handed_out: list[Live] = []
        for live in self._replay.live(number):
            if live.first > last:
                break
            out = live._replace(length=min(live.length, last + 1 - live.first))
            handed_out.append(out)
            weight = out.length * (out.stamp.size + WEIGHT_BYTES)
            self.segments.of(out.first).live(number, out.length, weight)
        never = Stretches(reader)
        for alike in self._replay.alike(number, last):
            weight = never.extend(alike, queue.declared.message_ttl_ms) + alike.length * WEIGHT_BYTES
            self.segments.of(alike.firsts[0]).live(number, alike.length, weight)
        return Line(queue.lane_at(0), self._returned(handed_out, returns, reader), never.pages)

    def _last_returned(self, number: int, queue: Queue, returns: dict[int, int]) -> dict[Lane, int]:
        """By lane the last message that was handed out: what was comes before everything that was not."""
        last: dict[Lane, int] = {}
        lsns = sorted(returns)
        if not queue.options.max_priority:  # there is one lane
            there = next((lsn for lsn in reversed(lsns) if self._replay.holds(number, lsn)), 0)
            return {queue.lane_at(0): there}
        for live in self._replay.live(number) if lsns else ():
            at = bisect_left(lsns, live.first + live.length) - 1
            if at >= 0 and lsns[at] >= live.first:
                last[queue.lane_of(live.stamp)] = lsns[at]
        return last

    def _returned(
        self, messages: list[Live], returns: dict[int, int], reader: Reader
    ) -> Iterator[tuple[Message, int, int]]:
        for live in messages:
            if live.stamped:
                for lsn in range(live.first, live.first + live.length):
                    yield self._codec.husk(live.stamp, lsn), live.now, returns.get(lsn, 0)
            else:
                for husk, now in reader.husks((live.first, live.length)):
                    yield husk, now, returns.get(husk.lsn, 0)
