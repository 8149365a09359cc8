"""What a queue asks of whoever keeps messages for it outside of memory, and when it does.

A long queue keeps its first messages at hand, and its last until they are many; what lies between is put away as
`Page`s, each a stretch of consecutive messages that costs some dozen bytes however many they are. A page is read back
when everything before it has been taken. Of what consumers hold unacknowledged only husks stay in memory when that is
much, since it is rarely wanted again. Where there is no `Shelf` everything stays in memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Protocol

from rabbitish.core.message import Message

# A page ends at so many messages or so many bytes of bodies: what is read back at a time.
PAGE_MESSAGES = 1024
PAGE_BYTES = 1024 * 1024
# A page's own cost in memory, about.
PAGE_OVERHEAD_BYTES = 400


class Page(ABC):
    """Consecutive messages of a lane that are not in memory."""

    __slots__ = ("bytes", "count", "first_deadline", "last_deadline")

    count: int
    bytes: int  # of the bodies
    first_deadline: int | None  # when the first of them expires, wall milliseconds
    last_deadline: int | None

    @property
    @abstractmethod
    def ranges(self) -> Sequence[int]:
        """The messages' numbers in the journal as first, count, first, count ...; empty if they have none."""

    @abstractmethod
    def load(self) -> list[Message]:
        """Read the messages; the page stays good."""

    @abstractmethod
    def let_go(self) -> None:
        """The page is not read any more."""


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
