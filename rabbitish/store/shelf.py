"""Keeps the middle of long queues outside of memory: implements core.paging.Shelf over the journal and the spill.

A message that is in the journal has been written already, so that putting it away is to remember its number. One that
need not survive goes to the spill. A page remembers ranges of numbers and, where they have any, deadlines; the rest is
read back with the bodies.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import groupby

from rabbitish.core.message import Message, Stamp
from rabbitish.core.paging import PAGE_BYTES, PAGE_MESSAGES, Page
from rabbitish.store.journal import Journal
from rabbitish.store.reader import Reader
from rabbitish.store.spill import Spill


class Stretch(Page):
    """Consecutive messages by their numbers."""

    __slots__ = ("_deadlines", "_ranges", "_reader")

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ranges = array("Q")
        self._deadlines: array[int] | None = None  # one a range; None: there are none
        self.count = 0
        self.bytes = 0
        self.first_deadline = None
        self.last_deadline = None

    @classmethod
    def of(cls, reader: Reader, ranges: array[int], deadlines: array[int] | None, count: int, size: int) -> Stretch:
        """The stretch that had these `ranges` and `deadlines`, of so many messages and bytes of bodies."""
        page = cls(reader)
        page._ranges, page._deadlines = ranges, deadlines
        page.count, page.bytes = count, size
        if deadlines is not None:
            page.first_deadline, page.last_deadline = deadlines[0], deadlines[-1]
        return page

    @property
    def ranges(self) -> array[int]:
        """See Page."""
        return self._ranges

    @property
    def deadlines(self) -> array[int] | None:
        """When they expire, one moment a range; None: never."""
        return self._deadlines

    def add(self, lsn: int, count: int, size: int, deadline: int | None) -> None:
        """Take messages in whose bodies are `size` bytes together. Either all ranges have deadlines or none has."""
        ranges = self._ranges
        if not self.count:
            self.first_deadline = deadline
            if deadline is not None:
                self._deadlines = array("q")
        if ranges and ranges[-2] + ranges[-1] == lsn and deadline == self.last_deadline:
            ranges[-1] += count
        else:
            ranges.extend((lsn, count))
            if self._deadlines is not None:
                assert deadline is not None
                self._deadlines.append(deadline)
        self.last_deadline = deadline
        self.count += count
        self.bytes += size

    def takes(self, deadline: int | None) -> bool:
        """Whether messages with this deadline may be added behind those it has."""
        if not self.count:
            return True
        if self.count >= PAGE_MESSAGES or self.bytes >= PAGE_BYTES:
            return False
        if deadline is None or self.last_deadline is None:
            return deadline is self.last_deadline
        return deadline >= self.last_deadline

    def load(self) -> list[Message]:
        """See Page."""
        messages: list[Message] = []
        for index, found in enumerate(self._reader.read(self._ranges, numbered=self._numbered)):
            if self._deadlines is not None:
                deadline = self._deadlines[index]
                for message in found:
                    message.deadline = deadline
            messages += found
        return messages

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

    def let_go(self) -> None:
        """See Page."""
        self._spill.free(self._ranges, self.bytes)


class Stretches:
    """Makes stretches, as long as a page may be, of messages that come in their order."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.pages: list[Stretch] = []

    def add(self, lsn: int, count: int, size: int, deadline: int | None) -> None:
        """See Stretch."""
        if not self.pages or not self.pages[-1].takes(deadline):
            self.pages.append(Stretch(self._reader))
        self.pages[-1].add(lsn, count, size, deadline)


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
                if not page.takes(deadline):
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
