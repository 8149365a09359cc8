"""A shelf in memory: pages over lists, small ones, which count what is done with them, and how they tell of deadlines.

What is read back are other objects than those that were put away, as it is with a disk. `room` is how many messages may
be put away at a time, since a journal cannot do it with what it has not written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from rabbitish.core.message import Message
from rabbitish.core.paging import NEVER, Page

PAGE = 3


class Broken(Exception):
    """A page cannot be read."""


class MemoryPage(Page):
    """Some messages."""

    __slots__ = ("_messages", "_recorded", "_shelf")

    def __init__(self, shelf: MemoryShelf, messages: list[Message], *, recorded: bool) -> None:
        self._shelf = shelf
        self._messages = messages
        self._recorded = recorded
        self.count = len(messages)
        self.bytes = sum(message.size for message in messages)
        deadlines = self._deadlines()
        self.earliest, self.latest = min(deadlines), max(deadlines)
        self.ordered = deadlines == sorted(deadlines)
        shelf.there.add(self)

    def _deadlines(self) -> list[int]:
        return [NEVER if message.deadline is None else message.deadline for message in self._messages]

    @property
    def ranges(self) -> Sequence[int]:
        """See Page."""
        assert self in self._shelf.there
        return [number for message in self._messages if self._recorded for number in (message.lsn, 1)]

    def load(self) -> list[Message]:
        """See Page."""
        assert self in self._shelf.there
        if self._shelf.broken:
            raise Broken
        self._shelf.counts["loaded"] += 1
        return [again(message, numbered=self._recorded) for message in self._messages]

    def take_earliest(self, *, whole: bool) -> Message:
        """See Page."""
        assert self in self._shelf.there
        if self._shelf.broken:
            raise Broken
        assert self.earliest == min(self._deadlines())
        message = self._messages.pop(self._deadlines().index(self.earliest))
        self._shelf.counts["taken"] += 1
        self.count -= 1
        self.bytes -= message.size
        self.earliest = min(self._deadlines(), default=NEVER)
        return again(message, numbered=self._recorded)

    def let_go(self) -> None:
        """See Page."""
        self._shelf.there.remove(self)
        self._shelf.counts["let go"] += 1


class MemoryShelf:
    """Pages of consecutive messages, with numbers or without."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.broken = False  # whether pages cannot be read
        self.there: set[MemoryPage] = set()
        self.counts: Counter[str] = Counter()

    def put_away(self, messages: Iterable[Message], *, recorded: bool = True) -> list[Page]:
        """See Shelf. Those that are not recorded come back without a number."""
        self.counts["asked"] += 1
        pages: list[Page] = []
        part: list[Message] = []
        for message in islice(messages, self.room):
            if part and not (len(part) < PAGE and (part[-1].lsn > 0) is (message.lsn > 0)):
                pages.append(self._page(part, recorded))
                part = []
            part.append(message)
        if part:
            pages.append(self._page(part, recorded))
        self.counts["put away"] += sum(page.count for page in pages)
        return pages

    def remember(self, messages: Sequence[Message]) -> None:
        """See Shelf. A husk knows the whole message (PlainMessage)."""

    def recall(self, husk: Message) -> Message:
        """See Shelf."""
        whole: Message = husk.whole  # type: ignore[attr-defined]  # of PlainMessage
        self.counts["recalled"] += 1
        message = again(whole, numbered=True)
        message.deadline = husk.deadline
        return message

    def _page(self, messages: list[Message], recorded: bool) -> MemoryPage:
        return MemoryPage(self, messages, recorded=recorded and messages[0].lsn > 0)


def again(message: Message, *, numbered: bool) -> Message:
    """The same message as another object, as it is read back."""
    twin = message.twin()
    twin.deadline = message.deadline
    twin.lsn = message.lsn if numbered else 0
    return twin
