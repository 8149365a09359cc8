"""What is in each segment of the journal: where records are, what still lives, so what may go or is worth rewriting.

Kept in memory for every segment: the numbers of its PUBLISH records with their offsets (a body is found again by its
number), how many messages of which queue live in it, and what has left it since it was written. All of it is in arrays,
a few bytes a record. A mirror's segments may begin between two messages with consecutive numbers. A message's weight is
about what it takes on disk; the share of weight that lives says how much of a segment's file is worth its space.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence

from rabbitish.store.bodies import Ranges
from rabbitish.store.record import SegmentHead

# What a message takes on disk beside its body, about.
WEIGHT_BYTES = 100
# A segment with less than this share alive is worth rewriting together with its neighbours.
_SPARSE = 0.6
# So many neighbours that are small by now are worth being one file.
_SMALL_FILES = 8


class Segment:
    """One segment. `size` counts what was appended, written or not."""

    __slots__ = (
        "busy",
        "counts",
        "head",
        "lsns",
        "offsets",
        "other_bytes",
        "removed",
        "size",
        "spans",
        "told_bytes",
        "total_weight",
        "weights",
    )

    def __init__(self, head: SegmentHead) -> None:
        self.head = head
        self.size = 0
        self.other_bytes = 0  # of `size`, what is not messages
        self.told_bytes = 0  # of that, what had to be kept when it was written anew; 0 when that may have changed
        self.busy = False  # being written anew: not to go
        self.lsns = array("Q")  # of the PUBLISH records in it, ascending
        self.offsets = array("I")  # where each of them begins
        self.spans = array("I")  # how many messages it has
        self.counts: dict[int, int] = {}  # how many messages of each queue live here; no zeroes
        self.weights: dict[int, int] = {}  # and what they weigh
        self.total_weight = 0  # of all messages here, dead or alive, once for each queue they were in
        self.removed = array("Q")  # queue, first, count ... of those that have left a queue

    def note(self, lsn: int, offset: int, span: int) -> None:
        """A PUBLISH record of so many messages stands there."""
        self.lsns.append(lsn)
        self.offsets.append(offset)
        self.spans.append(span)

    def leave_out(self, lsn: int, size: int, weight: int) -> None:
        """The record of one message that has left all queues, of such a weight in all, is shorter by so much."""
        index = self.find(lsn)
        del self.lsns[index], self.offsets[index], self.spans[index]
        for later in range(index, len(self.offsets)):
            self.offsets[later] -= size
        self.size -= size
        self.total_weight -= weight

    def add(self, queue: int, count: int, weight: int) -> None:
        """So many messages come into a queue."""
        self.live(queue, count, weight)
        self.total_weight += weight

    def live(self, queue: int, count: int, weight: int) -> None:
        """So many messages, whose weight is known, live in a queue."""
        self.counts[queue] = self.counts.get(queue, 0) + count
        self.weights[queue] = self.weights.get(queue, 0) + weight

    def remove(self, queue: int, first: int, count: int, weight: int) -> None:
        """Messages from `first` on have left a queue; they weighed about so much."""
        left = self.counts[queue] - count
        if left:
            self.counts[queue] = left
            self.weights[queue] = max(self.weights[queue] - weight, left * WEIGHT_BYTES)
        else:
            del self.counts[queue], self.weights[queue]
        self.removed.extend((queue, first, count))

    def remove_queue(self, queue: int) -> None:
        """A queue has gone with all that it held."""
        if self.counts.pop(queue, 0):
            del self.weights[queue]

    def find(self, lsn: int) -> int:
        """Which of its PUBLISH records has this message, by index in `lsns`."""
        return bisect_right(self.lsns, lsn) - 1

    def has(self, index: int, lsn: int) -> bool:
        """Whether that one of its PUBLISH records has this message."""
        return 0 <= index < len(self.lsns) and 0 <= lsn - self.lsns[index] < self.spans[index]

    @property
    def live_bytes(self) -> int:
        """How much of the file is alive, about."""
        if not self.counts:
            return self.told_bytes
        messages = self.size - self.other_bytes
        return min(messages, messages * sum(self.weights.values()) // max(1, self.total_weight)) + self.told_bytes


class Segments:
    """All segments, oldest first. The last one is being written, unless there is none at all."""

    def __init__(self) -> None:
        self.all: list[Segment] = []
        self._first_lsns: list[int] = []

    def begin(self, head: SegmentHead) -> Segment:
        """A segment begins."""
        return self.adopt(Segment(head))

    def adopt(self, segment: Segment) -> Segment:
        """Take in the next segment."""
        self.all.append(segment)
        self._first_lsns.append(segment.head.first_lsn)
        return segment

    def of(self, lsn: int) -> Segment:
        """The segment that has a record."""
        return self.all[bisect_right(self._first_lsns, lsn) - 1]

    def removed(self, queue: int, ranges: Ranges, weight: int) -> None:
        """Messages have left a queue."""
        segment, end = self._span_of(ranges[0])
        if len(ranges) == 2 and sum(ranges) <= end:
            segment.remove(queue, ranges[0], ranges[1], weight)
            return
        each = weight // sum(ranges[1::2])
        for first, count in zip(ranges[::2], ranges[1::2], strict=True):
            while count:
                if not segment.head.first_lsn <= first < end:
                    segment, end = self._span_of(first)
                some = min(count, end - first)
                segment.remove(queue, first, some, each * some)
                first, count = first + some, count - some

    def _span_of(self, lsn: int) -> tuple[Segment, int]:
        """The segment that has a record, and where the next one begins."""
        index = bisect_right(self._first_lsns, lsn)
        end = self._first_lsns[index] if index < len(self._first_lsns) else 1 << 63
        return self.all[index - 1], end

    def left(self, queue: int, ranges: Ranges, sizes: Sequence[int]) -> None:
        """Messages have left a queue whose bodies had these sizes."""
        start = 0
        for index in range(0, len(ranges), 2):
            first, count = ranges[index], ranges[index + 1]
            while count:
                segment, end = self._span_of(first)
                some = min(count, end - first)
                weight = sum(sizes[start : start + some]) + WEIGHT_BYTES * some
                segment.remove(queue, first, some, weight)
                start, first, count = start + some, first + some, count - some

    def remove_queue(self, queue: int) -> None:
        """A queue has gone with all that it held."""
        for segment in self.all:
            segment.remove_queue(queue)

    @property
    def disk_bytes(self) -> int:
        """What all files take, or will when they are written."""
        return sum(segment.size for segment in self.all)

    @property
    def live_bytes(self) -> int:
        """How much of that is alive, about."""
        return sum(segment.live_bytes for segment in self.all)

    def take_dead(self, most: int = 1 << 63) -> list[Segment]:
        """The oldest segments up to the first in which something lives, at most so many, never all; forgotten here."""
        dead, most = 0, min(most, len(self.all) - 1)
        while dead < most and not self.all[dead].counts and not self.all[dead].busy:
            dead += 1
        gone = self.all[:dead]
        if gone:
            del self.all[:dead], self._first_lsns[:dead]
            self._look_again(0)
        return gone

    def _look_again(self, index: int) -> None:
        """What segments from this one on tell of older ones may not be needed any more."""
        for segment in self.all[index:]:
            segment.told_bytes = 0

    def drop(self, segment: Segment) -> None:
        """Forget a segment."""
        index = self.all.index(segment)
        del self.all[index], self._first_lsns[index]

    def sparse(self, segment_bytes: int, written_lsn: int = 1 << 63) -> list[Segment]:
        """Neighbours that are worth being written anew as one, without what is dead in them; [] when none are.

        They are when what is dead takes half as much as what lives and a segment more, so that the files together stay
        under twice what lives and two segments. Only those count that are written (up to `written_lsn`) to their end.
        """
        sealed = self.all[: max(0, bisect_right(self._first_lsns, written_lsn + 1) - 1)]
        if not sealed:
            return []
        live = [segment.live_bytes for segment in sealed]
        size = [segment.size for segment in sealed]
        wasteful = sum(size) - sum(live) > sum(live) // 2 + segment_bytes
        crowded = sum(1 for bytes_ in size if bytes_ < segment_bytes // _SMALL_FILES) >= _SMALL_FILES
        if not wasteful and not crowded:
            return []
        if wasteful:
            best = min(range(len(sealed)), key=lambda i: live[i] / max(1, size[i]))
            if live[best] <= _SPARSE * size[best]:
                return self._with_neighbours(best, live, size, segment_bytes)
        for index in sorted(range(len(sealed)), key=size.__getitem__) if crowded else ():
            found = self._with_neighbours(index, live, size, segment_bytes)
            if len(found) > 1:  # one alone would only be written as it is
                return found
        return []

    def _with_neighbours(
        self, index: int, live: Sequence[int], size: Sequence[int], segment_bytes: int
    ) -> list[Segment]:
        """The segment at `index` and those around it that are sparse or small too, as far as one file has room."""
        first = last = index
        room = segment_bytes - live[index]

        def fits(i: int) -> bool:
            return live[i] <= room and (live[i] <= _SPARSE * size[i] or size[i] < segment_bytes // 2)

        while last + 1 < len(live) and fits(last + 1):
            last += 1
            room -= live[last]
        while first > 0 and fits(first - 1):
            first -= 1
            room -= live[first]
        return self.all[first : last + 1]

    def replace(self, old: Sequence[Segment], new: Segment) -> None:
        """Neighbours were written anew as one."""
        index = self.all.index(old[0])
        self.all[index : index + len(old)] = [new]
        self._first_lsns[index : index + len(old)] = [new.head.first_lsn]
        if sum(new.spans) < sum(sum(segment.spans) for segment in old):
            self._look_again(index + 1)
