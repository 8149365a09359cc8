"""What is counted while a run lasts: totals, and how long things took, in bounded memory.

A `Histogram` keeps numbers by their leading seven bits, so a quantile is right to within 1.6 % whatever the number is,
and it never has more than some thousand entries. Times are integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

_BITS = 7
_EXACT = 1 << _BITS  # below this each number has a bucket of its own
_HALF = _EXACT >> 1


def bucket_of(value: int) -> int:
    """The bucket that a number from 0 on falls into; buckets are in the order of their numbers."""
    if value < _EXACT:
        return value
    shift = value.bit_length() - _BITS
    return shift * _HALF + (value >> shift)


def highest_in(bucket: int) -> int:
    """The largest number that falls into a bucket."""
    if bucket < _EXACT:
        return bucket
    shift = bucket // _HALF - 1
    return ((bucket - shift * _HALF + 1) << shift) - 1


class Histogram:
    """How often which number was recorded."""

    __slots__ = ("_buckets", "count", "highest", "lowest", "total")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.lowest = 0
        self.highest = 0

    def record(self, value: int, times: int = 1) -> None:
        """Count a number, `times` times over. Below 0 is 0: clocks of two machines differ."""
        if value < 0:
            value = 0
        bucket = bucket_of(value)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + times
        if value > self.highest:
            self.highest = value
        if value < self.lowest or not self.count:
            self.lowest = value
        self.count += times
        self.total += value * times

    def add(self, other: Histogram) -> None:
        """Count everything that another one has counted."""
        if not other.count:
            return
        for bucket, times in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + times
        self.highest = max(self.highest, other.highest)
        self.lowest = min(self.lowest, other.lowest) if self.count else other.lowest
        self.count += other.count
        self.total += other.total

    @property
    def mean(self) -> float:
        """The mean, 0 of nothing."""
        return self.total / self.count if self.count else 0.0

    def quantiles(self, shares: Iterable[float]) -> list[int]:
        """For each share (0 to 1, ascending) a number that this share of all is not above; 0 of nothing."""
        results: list[int] = []
        buckets = iter(sorted(self._buckets.items()))
        reached = value = 0
        for share in shares:
            wanted = share * self.count
            while reached < wanted:
                bucket, times = next(buckets)
                reached += times
                value = highest_in(bucket)
            results.append(max(self.lowest, min(value, self.highest)))
        return results


@dataclass(frozen=True)
class Interval:
    """What happened between two turns."""

    published: int
    confirmed: int
    nacked: int
    returned: int
    consumed: int
    latency: Histogram
    confirm_latency: Histogram


@dataclass
class Stats:
    """What all peers of a run have counted. The histograms hold what came since `turn`; the totals, all until then."""

    published: int = 0
    confirmed: int = 0
    nacked: int = 0
    returned: int = 0
    consumed: int = 0
    consumed_bytes: int = 0
    last_published: int = 0
    """When the last message was published or confirmed: nanoseconds of the run's clock, 0 for never."""
    last_consumed: int = 0
    latency: Histogram = field(default_factory=Histogram)
    confirm_latency: Histogram = field(default_factory=Histogram)
    latency_total: Histogram = field(default_factory=Histogram)
    confirm_latency_total: Histogram = field(default_factory=Histogram)
    _before: tuple[int, ...] = (0, 0, 0, 0, 0)

    def turn(self) -> Interval:
        """What happened since the last turn."""
        counts = (self.published, self.confirmed, self.nacked, self.returned, self.consumed)
        before = self._before
        interval = Interval(
            published=self.published - before[0],
            confirmed=self.confirmed - before[1],
            nacked=self.nacked - before[2],
            returned=self.returned - before[3],
            consumed=self.consumed - before[4],
            latency=self.latency,
            confirm_latency=self.confirm_latency,
        )
        self._before = counts
        self.latency_total.add(self.latency)
        self.confirm_latency_total.add(self.confirm_latency)
        self.latency, self.confirm_latency = Histogram(), Histogram()
        return interval
