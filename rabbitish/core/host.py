"""What a queue asks of the virtual host it lives in, so that it need not know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rabbitish.core.changes import Reason, Recorder
from rabbitish.core.chores import Chores
from rabbitish.core.deadlines import Deadlines
from rabbitish.core.message import Message
from rabbitish.core.paging import Shelf

if TYPE_CHECKING:
    from rabbitish.core.queue import Queue


class Usage:
    """Bytes of memory that queued messages take, over all queues, and what is done about many.

    A queue that takes more than `window_bytes` puts the middle of what it holds on the `shelf`, if there is one.
    """

    __slots__ = ("bytes", "shelf", "window_bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self.shelf: Shelf | None = None
        self.window_bytes = 1 << 62  # no limit, until the server sets one


class Host(Protocol):
    """What a queue asks of the virtual host it lives in."""

    dirty: list[Queue]
    chores: Chores
    deadlines: Deadlines
    usage: Usage
    recorder: Recorder | None

    def bury(self, queue: Queue, message: Message, reason: Reason, now: int) -> None:
        """Dead-letter a message that has just left the queue."""

    def idle(self, queue: Queue) -> None:
        """The queue has been unused for its x-expires: delete it."""
