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
        by_lane: dict[Lane, list[Live]] = {}
        for live in self._replay.live(number):
            by_lane.setdefault(queue.lane_of(live.stamp), []).append(live)
            weight = live.length * (live.stamp.size + WEIGHT_BYTES)
            self.segments.of(live.first).live(number, live.length, weight)
        returns = self._replay.returns(number)
        for lane, messages in by_lane.items():
            # What was handed out before comes before everything that was not.
            handed_out, never = _split(messages, sorted(returns))
            stretches = Stretches(reader)
            for live in never:
                deadline = queue.deadline_of(live.stamp, live.now)
                stretches.add(live.first, live.length, live.length * live.stamp.size, deadline)
            yield Line(lane, self._returned(handed_out, returns), stretches.pages)

    def _returned(self, messages: list[Live], returns: dict[int, int]) -> Iterator[tuple[Message, int, int]]:
        for live in messages:
            for lsn in range(live.first, live.first + live.length):
                yield self._codec.husk(live.stamp, lsn), live.now, returns.get(lsn, 0)


def _split(messages: list[Live], returned: list[int]) -> tuple[list[Live], list[Live]]:
    """Messages up to the last of those `returned`, and those behind it."""
    for index in reversed(range(len(messages))):
        live = messages[index]
        at = bisect_left(returned, live.first + live.length) - 1
        if at >= 0 and returned[at] >= live.first:
            count = returned[at] + 1 - live.first
            rest = live._replace(first=live.first + count, length=live.length - count)
            return [*messages[:index], live._replace(length=count)], [
                *([rest] if rest.length else []),
                *messages[index + 1 :],
            ]
    return [], messages
