"""What the peer of a channel was handed and has not settled, as runs of deliveries.

What a consumer was handed at once is one `Run`: consecutive delivery tags, and positions of one lane that are equally
far apart (of several consumers who take turns each is dealt every second, third … message). So a delivery costs no more
than its share of a run, and an acknowledgement of many takes whole runs. Runs are in order of their tags; one tag is
found by bisection, and leaves a gap (None) in its run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from rabbitish.core.handle import QueueHandle
from rabbitish.core.lane import Lane
from rabbitish.core.message import Message

if TYPE_CHECKING:
    from rabbitish.session.consumer import ChannelConsumer

# So many places of runs that are gone are kept before the rest moves up.
_PLACES_TO_SPARE = 64


class Run:
    """Deliveries that were made together. `consumer` is None for basic.get."""

    __slots__ = ("consumer", "count", "first", "lane", "messages", "position", "queue", "returns", "step", "when")

    def __init__(
        self,
        first: int,
        queue: QueueHandle,
        lane: Lane,
        position: int,
        messages: list[Message | None],
        returns: int,
        consumer: ChannelConsumer | None,
        when: int,
        step: int = 1,
    ) -> None:
        self.first = first  # the delivery tag of the first
        self.queue = queue
        self.lane = lane
        self.position = position  # of the first, in the lane
        self.step = step  # from one position to the next
        self.messages = messages  # None where one was settled by itself
        self.count = len(messages)  # of those that are not settled
        self.returns = returns  # how often they had come back before
        self.consumer = consumer
        self.when = when  # of the delivery, in wall milliseconds, if somebody wants to know

    def held(self) -> list[Message]:
        """The messages that are not settled."""
        if self.count == len(self.messages):
            return cast("list[Message]", self.messages)
        return [message for message in self.messages if message is not None]

    def tags(self) -> Iterator[int]:
        """Their delivery tags."""
        return (tag for tag, message in enumerate(self.messages, self.first) if message is not None)

    def part(self, start: int, end: int) -> Run:
        """The deliveries from the index `start` to before `end`, as a run of its own."""
        part = Run(
            self.first + start,
            self.queue,
            self.lane,
            self.position + start * self.step,
            self.messages[start:end],
            self.returns,
            self.consumer,
            self.when,
            self.step,
        )
        if self.count != len(self.messages):
            part.count -= part.messages.count(None)
        return part

    def cut(self, size: int) -> Run:
        """Give up the first deliveries, so many with their gaps, which are a run of their own then."""
        part = self.part(0, size)
        del self.messages[:size]
        self.first += size
        self.position += size * self.step
        self.count -= part.count
        return part


class Unacked:
    """Runs in order of their tags."""

    __slots__ = ("_begin", "_firsts", "_gone", "_runs")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._runs: list[Run | None] = []  # one for each of these; None for those that are gone
        self._begin = 0  # those before are gone
        self._gone = 0  # others that are

    def __iter__(self) -> Iterator[Run]:
        return (run for run in self._runs if run is not None)

    def tags(self) -> list[int]:
        """Every delivery tag that is not settled, in order."""
        return [tag for run in self for tag in run.tags()]

    @property
    def places(self) -> int:
        """How much room is taken by runs and by where runs were."""
        return len(self._runs)

    def add(self, run: Run) -> None:
        """What has just been delivered."""
        self._firsts.append(run.first)
        self._runs.append(run)

    def take(self, tag: int) -> Run | None:
        """Take one delivery out; None: there is no such one."""
        if len(self._runs) == 1 and self._firsts[0] == tag:  # the only one that a peer with a prefetch of 1 has
            only = self._runs[0]
            if only is not None and len(only.messages) == 1:
                self._runs.clear()
                self._firsts.clear()
                self._begin = self._gone = 0
                return only
        place = bisect_right(self._firsts, tag, self._begin) - 1
        run = self._runs[place] if place >= self._begin else None
        if run is None:
            return None
        index = tag - run.first
        messages = run.messages
        if index >= len(messages) or messages[index] is None:
            return None
        if run.count == 1:
            self._drop(place)
            return run if len(messages) == 1 else run.part(index, index + 1)
        taken = run.part(index, index + 1)
        messages[index] = None
        run.count -= 1
        return taken

    def take_through(self, tag: int) -> list[Run] | None:
        """Take everything up to `tag`; None: that itself is not here."""
        place = bisect_right(self._firsts, tag, self._begin) - 1
        last = self._runs[place] if place >= self._begin else None
        if last is None:
            return None
        size = tag - last.first + 1
        if size > len(last.messages) or last.messages[size - 1] is None:
            return None
        begin, end = self._begin, place + 1
        taken = [run for run in self._runs[begin:end] if run is not None]
        self._gone -= end - begin - len(taken)
        if size < len(last.messages):
            taken[-1] = last.cut(size)
            if last.count:
                end = place
                self._firsts[place] = last.first
        self._runs[begin:end] = [None] * (end - begin)
        self._begin = end
        self._skip()
        return taken

    def take_all(self) -> list[Run]:
        """Take everything."""
        taken = list(self)
        self._set(())
        return taken

    def take_of(self, consumer: ChannelConsumer) -> list[Run]:
        """Take everything that one consumer was handed."""
        taken = [run for run in self if run.consumer is consumer]
        self._set(run for run in list(self) if run.consumer is not consumer)
        return taken

    def put_back(self, taken: Iterable[Run]) -> None:
        """Undo `take` and the like."""
        runs = [*self, *taken]
        # One may fill the gap of another, so each delivery gets a run of its own.
        single = [run.part(tag - run.first, tag - run.first + 1) for run in runs for tag in run.tags()]
        self._set(sorted(single, key=lambda run: run.first))

    def _set(self, runs: Iterable[Run]) -> None:
        self._runs = list(runs)
        self._firsts = [run.first for run in self]
        self._begin = self._gone = 0

    def _drop(self, place: int) -> None:
        self._runs[place] = None
        if place == self._begin:
            self._begin += 1
        else:
            self._gone += 1
        self._skip()

    def _skip(self) -> None:
        """Begin with a run that is there, and keep no more places than twice those of what is held, and some."""
        runs, begin, end = self._runs, self._begin, len(self._runs)
        while begin < end and runs[begin] is None:
            begin += 1
            self._gone -= 1
        self._begin = begin
        if begin == end:
            runs.clear()
            self._firsts.clear()
            self._begin = 0
        elif 2 * (begin + self._gone) > end + _PLACES_TO_SPARE:
            self._set(list(self))
