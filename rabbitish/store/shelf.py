"""Keeps the middle of long queues outside of memory: implements core.paging.Shelf over the journal and the spill.

A message that is in the journal has been written already, so that putting it away is to remember its number. One that
need not survive goes to the spill. A page remembers ranges of numbers and, where they have any, deadlines; the rest is
read back with the bodies.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain, compress, groupby, islice
from operator import le
from typing import Self

from rabbitish.core.message import Address, Message, Stamp
from rabbitish.core.paging import NEVER, PAGE_BYTES, PAGE_MESSAGES, Page
from rabbitish.store.journal import Journal
from rabbitish.store.reader import Reader
from rabbitish.store.replay import Alike
from rabbitish.store.spill import Spill
from rabbitish.values import Table


class Unread(Message):
    """A message that expired in a page: nobody asks for more than its number and its size."""

    __slots__ = ()

    def __init__(self, lsn: int, size: int, deadline: int) -> None:
        self.lsn = lsn
        self.size = size
        self.deadline = deadline

    @property
    def away(self) -> bool:
        """See Message. Nobody may recall it."""
        return False

    def headers(self) -> Table:
        """See Message."""
        raise AssertionError

    def expiration(self) -> str | None:
        """See Message."""
        raise AssertionError

    def derived(self, address: Address, headers: Table, *, keep_expiration: bool) -> Message:
        """See Message."""
        raise AssertionError

    def husk(self) -> Message:
        """See Message."""
        raise AssertionError

    def twin(self) -> Self:
        """See Message."""
        raise AssertionError


class Stretch(Page):
    """Consecutive messages by their numbers. What expires leaves an empty range behind."""

    __slots__ = ("_deadlines", "_expired", "_order", "_ranges", "_reader", "_sizes")

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ranges = array("Q")
        self._deadlines: array[int] | None = None  # one a range; None: there are none
        self._sizes = array("I")  # where there are deadlines: of the bodies in each range
        self._order: array[int] | None = None  # ranges by their deadlines, once one was wanted
        self._expired = 0  # so many of these are empty
        self.count = 0
        self.bytes = 0
        self.earliest = NEVER
        self.latest = -1
        self.ordered = True

    @classmethod
    def of(
        cls,
        reader: Reader,
        ranges: array[int],
        deadlines: array[int] | None,
        sizes: array[int],
        count: int,
        size: int,
    ) -> Stretch:
        """The stretch that had these, of so many messages and bytes of bodies."""
        page = cls(reader)
        page._ranges, page._deadlines = ranges, deadlines
        page.count, page.bytes = count, size
        page.latest = NEVER
        if deadlines is not None:
            page._sizes = sizes
            page.earliest, page.latest = min(deadlines), max(deadlines)
            page.ordered = all(map(le, deadlines, islice(deadlines, 1, None)))
        return page

    @property
    def ranges(self) -> array[int]:
        """See Page."""
        if not self._expired:
            return self._ranges
        left = [span for span in zip(self._ranges[::2], self._ranges[1::2], strict=True) if span[1]]
        return array("Q", chain.from_iterable(left))

    @property
    def deadlines(self) -> array[int] | None:
        """When they expire, one moment a range, or NEVER; None: none of them does."""
        return None if self._deadlines is None else self._left(self._deadlines)

    @property
    def sizes(self) -> array[int]:
        """Where there are deadlines, the bytes of a body in each range."""
        return self._left(self._sizes)

    def _left(self, column: array[int]) -> array[int]:
        """What there is for each range, without the empty ones."""
        if not self._expired:
            return column
        return array(column.typecode, compress(column, self._ranges[1::2]))

    def add(self, lsn: int, count: int, size: int, deadline: int | None) -> None:
        """Take messages in whose bodies are `size` bytes together."""
        ranges, deadlines, sizes, each = self._ranges, self._deadlines, self._sizes, size // count
        if deadline is None:
            deadline = NEVER
        elif deadlines is None:
            deadlines = self._begin_deadlines()
        follows = ranges and ranges[-2] + ranges[-1] == lsn
        if follows and (deadlines is None or (deadline == deadlines[-1] and each == sizes[-1])):
            ranges[-1] += count
        else:
            ranges.extend((lsn, count))
            if deadlines is not None:
                deadlines.append(deadline)
                sizes.append(each)
        if deadline < self.earliest:
            self.earliest = deadline
        if deadline < self.latest:
            self.ordered = False
        else:
            self.latest = deadline
        self.count += count
        self.bytes += size

    def extend(self, first: int, sizes: array[int], deadlines: array[int] | None) -> None:
        """Take in messages with consecutive numbers and bodies of these sizes."""
        count = len(sizes)
        if deadlines is None or deadlines.count(deadlines[0]) == count:
            deadline = NEVER if deadlines is None else deadlines[0]
            if deadline == NEVER or sizes.count(sizes[0]) == count:
                self.add(first, count, sum(sizes), None if deadline == NEVER else deadline)
                return
        assert deadlines is not None
        own = self._begin_deadlines() if self._deadlines is None else self._deadlines
        ranges = array("Q", bytes(16 * count))
        ranges[::2] = array("Q", range(first, first + count))
        ranges[1::2] = array("Q", [1]) * count
        self._ranges.extend(ranges)
        own.extend(deadlines)
        self._sizes.extend(sizes)
        self.ordered &= self.latest <= deadlines[0] and all(map(le, deadlines, islice(deadlines, 1, None)))
        self.earliest, self.latest = min(self.earliest, *deadlines), max(self.latest, *deadlines)
        self.count += count
        self.bytes += sum(sizes)

    def _begin_deadlines(self) -> array[int]:
        """What is there by now has none, and what comes may."""
        deadlines = self._deadlines = array("q", [NEVER]) * (len(self._ranges) // 2)
        self._sizes.extend([0] * len(deadlines))  # which nobody asks for
        return deadlines

    @property
    def full(self) -> bool:
        """Whether it is as long as a page may be."""
        return self.count >= PAGE_MESSAGES or self.bytes >= PAGE_BYTES

    def load(self) -> list[Message]:
        """See Page."""
        messages: list[Message] = []
        for index, found in enumerate(self._reader.read(self._ranges, numbered=self._numbered)):
            if self._deadlines is not None and (deadline := self._deadlines[index]) != NEVER:
                for message in found:
                    message.deadline = deadline
            messages += found
        return messages

    def take_earliest(self, *, whole: bool) -> Message:
        """See Page."""
        ranges, deadlines = self._ranges, self._deadlines
        assert deadlines is not None
        if self._order is None:
            self._order = array("I", sorted(range(len(deadlines)), key=deadlines.__getitem__))
        index = self._order[self._expired]
        at = 2 * index
        lsn = ranges[at]
        message: Message
        if whole:
            ((message,),) = self._reader.read((lsn, 1), numbered=self._numbered)
            message.deadline = self.earliest
        else:
            message = Unread(lsn if self._numbered else 0, self._sizes[index], self.earliest)
        self._took(lsn, message.size)
        ranges[at], ranges[at + 1] = lsn + 1, ranges[at + 1] - 1
        self.count -= 1
        self.bytes -= message.size
        if not ranges[at + 1]:
            self._expired += 1
            self.earliest = deadlines[self._order[self._expired]] if self.count else NEVER
        return message

    def _took(self, lsn: int, size: int) -> None:
        """A message was taken out."""

    @property
    def _numbered(self) -> bool:
        return True

    def let_go(self) -> None:
        """See Page."""


class SpilledStretch(Stretch):
    """Messages that are in the spill alone: nobody knows their numbers there."""

    __slots__ = ("_spill",)

    def __init__(self, spill: Spill) -> None:
        super().__init__(spill.reader)
        self._spill = spill

    @property
    def ranges(self) -> array[int]:
        """See Page."""
        return array("Q")

    @property
    def _numbered(self) -> bool:
        return False

    def _took(self, lsn: int, size: int) -> None:
        self._spill.free((lsn, 1), size)

    def let_go(self) -> None:
        """See Page."""
        if self.count:
            self._spill.free(super().ranges, self.bytes)


class Stretches:
    """Makes stretches, as long as a page may be, of messages that come in their order."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.pages: list[Stretch] = []

    def add(self, lsn: int, count: int, size: int, deadline: int | None) -> None:
        """See Stretch."""
        if not self.pages or self.pages[-1].full:
            self.pages.append(Stretch(self._reader))
        self.pages[-1].add(lsn, count, size, deadline)

    def extend(self, alike: Alike, ttl: int | None) -> int:
        """Take in what a journal's records hold, for a queue with this TTL; the bytes of the bodies."""
        firsts, sizes, deadlines = alike.firsts, alike.sizes, alike.deadlines(ttl)
        if alike.length > len(firsts):  # some records have several messages
            total = 0
            for at, (first, length) in enumerate(zip(firsts, alike.lengths, strict=True)):
                self.add(first, length, length * sizes[at], None if deadlines is None else deadlines[at])
                total += length * sizes[at]
            return total
        at, most = 0, max(1, max(sizes))
        while at < len(firsts):
            if not self.pages or self.pages[-1].full:
                self.pages.append(Stretch(self._reader))
            page = self.pages[-1]
            to = at + min(PAGE_MESSAGES - page.count, max(1, (PAGE_BYTES - page.bytes) // most))
            page.extend(firsts[at], sizes[at:to], None if deadlines is None else deadlines[at:to])
            at = to
        return sum(sizes)


class JournalShelf:
    """Puts messages away."""

    def __init__(self, journal: Journal, reader: Reader, spill: Spill) -> None:
        self._journal = journal
        self._reader = reader
        self._spill = spill
        # Of what only husks are left, what the journal may not have written yet: by number and, since a message that
        # was counted has the same, by stamp.
        self._unwritten: dict[tuple[int, Stamp], Message] = {}

    def close(self) -> None:
        """Nothing is read any more."""
        self._spill.close()

    def remember(self, messages: Sequence[Message]) -> None:
        """See Shelf. What is not written yet cannot be read back."""
        written, unwritten = self._journal.written_lsn, self._unwritten
        while unwritten and (first := next(iter(unwritten)))[0] <= written:
            del unwritten[first]
        for message in messages:
            if message.lsn > written:
                unwritten[message.lsn, message.stamp] = message

    def recall(self, husk: Message) -> Message:
        """See Shelf."""
        unwritten = self._unwritten.get((husk.lsn, husk.stamp))
        if unwritten is not None:
            twin = unwritten.twin()
            twin.deadline = husk.deadline
            return twin
        (found,) = self._reader.read((husk.lsn, 1), numbered=True)
        message = found[0]
        message.deadline = husk.deadline
        return message

    def put_away(self, messages: Iterable[Message], *, recorded: bool) -> list[Page]:
        """See Shelf. What the journal has not written yet, and what is behind that, cannot be put away."""
        pages: list[Page] = []
        for journaled, group in groupby(messages, lambda message: recorded and message.lsn > 0):
            kept = self._journaled if journaled else self._spilled
            if not kept(group, pages):
                break
        return pages

    def pages_of(self, kept: Iterable[Message | Page]) -> list[Stretch]:
        """All of a lane that is in the journal as stretches: its messages, and the pages it has. None is put away."""
        stretches = Stretches(self._reader)
        pages: list[Stretch] = []
        for one in kept:
            if isinstance(one, Message):
                if one.lsn:
                    stretches.add(one.lsn, 1, one.size, one.deadline)
            elif isinstance(one, Stretch) and one.ranges:
                pages += stretches.pages
                pages.append(one)
                stretches = Stretches(self._reader)
        return pages + stretches.pages

    def _journaled(self, messages: Iterable[Message], pages: list[Page]) -> bool:
        """False: not all of them could be put away."""
        written = self._journal.written_lsn
        stretches = Stretches(self._reader)
        whole = True
        for message in messages:
            if message.lsn > written:
                whole = False
                break
            stretches.add(message.lsn, 1, message.size, message.deadline)
        pages += stretches.pages
        return whole

    def _spilled(self, messages: Iterable[Message], pages: list[Page]) -> bool:
        """Messages of one stamp go to the spill together. False: not all of them could be put away."""
        page = SpilledStretch(self._spill)
        for (_, deadline), group in groupby(messages, lambda message: (id(message.stamp), message.deadline)):
            alike = list(group)
            most = min(PAGE_MESSAGES, max(1, PAGE_BYTES // max(1, alike[0].size)))
            for start in range(0, len(alike), most):
                part = alike[start : start + most]
                if page.full:
                    pages.append(page)
                    page = SpilledStretch(self._spill)
                try:
                    lsn = self._spill.write(part)
                except OSError:  # they stay in memory, whose limit holds publishers back
                    if page.count:
                        pages.append(page)
                    return False
                page.add(lsn, len(part), len(part) * part[0].size, deadline)
        if page.count:
            pages.append(page)
        return True
