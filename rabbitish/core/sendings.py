"""Which publishes of sessions that nodes of a cluster carry are in the journal, and so need not be sent again.

A node sends again what was not confirmed when it brings a session to another leader. It numbers the publishes of each
channel from 1, whoever leads; the leader has here which of them its journal has. What is not known here may be there
all the same, and then comes twice; what is known is there, or was until a consumer was done with it.

So nothing need be kept for ever: what is known of a session is forgotten when it ends, or some time after it has gone
without a word, and where there is too much of it the oldest, or what is known of those who have most.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

Range = tuple[int, int]
"""The first and the last of them."""

_MOST_RANGES = 256
MOST_CHANNELS = 256
"""Of a session."""
_CLOSED_CHANNELS = 16  # of a session: their node may not have heard yet that they are
_MOST_GONE = 10_000
_MOST_RANGES_GONE = 100_000  # of all of those
# No node looks longer for another leader (gateway_patience_s).
_GONE_MS = 3_600_000


class Numbers:
    """Numbers of publishes, as ranges in ascending order between which there is something missing."""

    __slots__ = ("ranges",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self.ranges: list[Range] = []
        for first, last in ranges:
            self.add(first, last)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.ranges, number, key=_first) - 1
        return at >= 0 and number <= self.ranges[at][1]

    @property
    def last(self) -> int:
        """The highest; 0: there is none."""
        return self.ranges[-1][1] if self.ranges else 0

    def add(self, first: int, last: int) -> None:
        """These too."""
        ranges = self.ranges
        begin = bisect_left(ranges, first - 1, key=_last)
        end = bisect_right(ranges, last + 1, key=_first)
        if begin < end:
            first, last = min(first, ranges[begin][0]), max(last, ranges[end - 1][1])
        ranges[begin:end] = [(first, last)]
        if len(ranges) > _MOST_RANGES:
            del ranges[0]

    def above(self, number: int) -> Numbers:
        """Those that are higher."""
        return Numbers((max(first, number + 1), last) for first, last in self.ranges if last > number)


def _first(each: Range) -> int:
    return each[0]


def _last(each: Range) -> int:
    return each[1]


Found = Mapping[bytes, Mapping[int, Numbers]]
"""What a journal knew, by session and channel; of channels those come last that it was told of last."""


class Sendings:
    """See the module. `clock` is the broker's, in wall milliseconds."""

    def __init__(self, clock: Callable[[], int] = lambda: 0, found: Found | None = None) -> None:
        """`found`: of sessions that were another leader's."""
        self._clock = clock
        self._of: dict[bytes, dict[int, Numbers]] = {}
        self._closed: dict[bytes, list[int]] = {}
        self._gone: dict[bytes, tuple[int, int]] = {}  # those that are not here: since when, and with how many ranges
        self._ranges_gone = 0
        for session, channels in (found or {}).items():
            self._of[session] = dict(islice(channels.items(), max(0, len(channels) - MOST_CHANNELS), None))
            self._is_gone(session)
        self._forget_some()

    def add(self, session: bytes, channel: int, first: int, last: int) -> None:
        """The journal has these."""
        channels = self._of.setdefault(session, {})
        numbers = channels.get(channel)
        if numbers is None:
            numbers = channels[channel] = Numbers()
            if len(channels) > MOST_CHANNELS:
                del channels[next(iter(channels))]
        numbers.add(first, last)

    def of(self, session: bytes, channel: int, above: int) -> Numbers:
        """Those of a channel with higher numbers that the journal has; the others will not come again."""
        channels = self._of.get(session, {})
        known = channels.get(channel)
        if channel in self._closed.get(session, ()):
            self._closed[session].remove(channel)
        if known is None:
            return Numbers()
        channels[channel] = known.above(above)
        return known.above(above)

    def closed(self, session: bytes, channel: int) -> None:
        """A channel will have no more of them."""
        channels = self._of.get(session, {})
        if channel in channels:
            closed = self._closed.setdefault(session, [])
            closed.append(channel)
            if len(closed) > _CLOSED_CHANNELS:
                channels.pop(closed.pop(0), None)

    # ---- sessions

    def came(self, session: bytes) -> None:
        """A session is here."""
        if session in self._gone:
            self._ranges_gone -= self._gone.pop(session)[1]

    def went(self, session: bytes) -> None:
        """It is gone, and may come back."""
        if session in self._of and session not in self._gone:
            self._is_gone(session)
            self._forget_some()

    def _is_gone(self, session: bytes) -> None:
        ranges = sum(len(numbers.ranges) for numbers in self._of[session].values())
        self._gone[session] = self._clock(), ranges
        self._ranges_gone += ranges

    def ended(self, session: bytes) -> bool:
        """It is over. Whether anything was known of it."""
        self.came(session)
        self._closed.pop(session, None)
        return self._of.pop(session, None) is not None

    def _forget_some(self) -> None:
        gone, before = self._gone, self._clock() - _GONE_MS
        while gone:
            session = next(iter(gone))  # in this order
            if gone[session][0] >= before and len(gone) <= _MOST_GONE:
                break
            self.ended(session)
        if self._ranges_gone > _MOST_RANGES_GONE:  # which those pay for who have most
            for session in sorted(gone, key=lambda session: gone[session][1], reverse=True):
                self.ended(session)
                if self._ranges_gone <= _MOST_RANGES_GONE:
                    break

    def all(self) -> Iterator[tuple[bytes, int, Numbers]]:
        """What is known, by session and channel."""
        self._forget_some()
        for session, channels in self._of.items():
            for channel, numbers in channels.items():
                if numbers.ranges:
                    yield session, channel, numbers
