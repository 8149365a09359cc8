"""What a queue asks of whoever keeps messages for it outside of memory, and when it does.

A long queue keeps its first messages at hand, and its last until they are many; what lies between is put away as
`Page`s, each a stretch of consecutive messages that costs some dozen bytes however many they are. A page is read back
when everything before it has been taken. Of what consumers hold unacknowledged only husks stay in memory when that is
much, since it is rarely wanted again. Where there is no `Shelf` everything stays in memory.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from rabbitish.core.message import Message

# A page ends at so many messages or so many bytes of bodies: what is read back at a time.
PAGE_MESSAGES = 1024
PAGE_BYTES = 1024 * 1024
# A page's own cost in memory, about.
PAGE_OVERHEAD_BYTES = 400
# A deadline for messages that have none, later than all others.
NEVER = 1 << 62


class Page(ABC):
    """Consecutive messages of a lane that are not in memory."""

    __slots__ = ("bytes", "count", "earliest", "latest", "ordered")

    count: int
    bytes: int  # of the bodies
    earliest: int  # when the first of them to expire does, wall milliseconds; NEVER: none does
    latest: int  # when the last of them does
    ordered: bool  # whether none expires before one that comes before it

    @property
    @abstractmethod
    def ranges(self) -> Sequence[int]:
        """The messages' numbers in the journal as first, count, first, count ...; empty if they have none."""

    @abstractmethod
    def load(self) -> list[Message]:
        """Read the messages; the page stays good."""

    @abstractmethod
    def take_earliest(self, *, whole: bool) -> Message:
        """Take out the first message of those that expire at `earliest`, which moves on to the next one's.

        Not `whole`: number and size are enough, so that it need not be read.
        """

    @abstractmethod
    def let_go(self) -> None:
        """The page is not read any more."""


class Pages(deque[Page]):
    """The pages of a lane in their order, and when something in any of them expires."""

    __slots__ = ("_added", "_moments", "bytes", "messages")

    def __init__(self) -> None:
        super().__init__()
        self.messages = 0
        self.bytes = 0  # of their bodies
        self._added = 0
        # Heap: `earliest`, a number that ascends in their order, the page. What a page says no more is skipped.
        self._moments: list[tuple[int, int, Page]] = []

    def add(self, page: Page) -> None:
        """Put a page at the end."""
        self.append(page)
        self.messages += page.count
        self.bytes += page.bytes
        if page.earliest != NEVER:
            if len(self._moments) > 2 * len(self) + 64:
                self._moments = [moment for moment in self._moments if moment[0] == moment[2].earliest]
                heapq.heapify(self._moments)
            self._added += 1
            heapq.heappush(self._moments, (page.earliest, self._added, page))

    def take_first(self) -> Page:
        """Take the first page: its messages do not expire here any more."""
        page = self.popleft()
        self.messages -= page.count
        self.bytes -= page.bytes
        page.earliest = NEVER
        return page

    def next_deadline(self) -> int:
        """When the first message to expire does; NEVER: none does."""
        moments = self._moments
        while moments and moments[0][0] != moments[0][2].earliest:
            heapq.heappop(moments)
        return moments[0][0] if moments else NEVER

    def take_earliest(self, *, whole: bool) -> Message:
        """Take the first message of those that expire at `next_deadline`, which is not NEVER. `whole`: see Page."""
        _, number, page = self._moments[0]
        message = page.take_earliest(whole=whole)
        self.messages -= 1
        self.bytes -= message.size
        if page.earliest == NEVER:
            heapq.heappop(self._moments)
        else:
            heapq.heapreplace(self._moments, (page.earliest, number, page))
        if not page.count:
            self.remove(page)
            page.let_go()
        return message

    def clear(self) -> None:
        """Forget all pages."""
        super().clear()
        self._moments.clear()
        self.messages = self.bytes = 0


class Shelf(Protocol):
    """Keeps messages outside of memory."""

    def put_away(self, messages: Iterable[Message], *, recorded: bool) -> list[Page]:
        """Keep the first of these, as many as can be by now, in pages: their counts say how many that is.

        `recorded`: those with numbers were told of as being in this queue, so that the numbers stay good while they
        are. In a queue that is not durable a number is that of the same message in another queue.
        """

    def remember(self, messages: Sequence[Message]) -> None:
        """Only husks stay of these, which have numbers: see that they can be recalled from now on."""

    def recall(self, husk: Message) -> Message:
        """The whole message."""
