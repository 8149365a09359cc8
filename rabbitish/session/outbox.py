"""What waits to be sent to a peer, with two marks: over the high one its consumers get nothing until the low one.

Handlers and consumers append; the server takes everything at once, sends it, and says how far it came. `size` counts
deliveries when they are appended by their content alone (a guess that costs nothing) and is exact from `take` on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Waiter(Protocol):
    """A consumer that found the outbox full."""

    def resume(self) -> None:
        """There is room again."""


def _touch_nobody() -> None:
    pass


class Outbox:
    """Bytes on their way to one peer."""

    __slots__ = ("_low", "_touch", "held_until", "high", "last_sent", "parts", "size", "waiters")

    def __init__(self, high: int, low: int, touch: Callable[[], None]) -> None:
        self.high = high
        self._low = low
        self._touch = touch
        self.parts: list[bytes] = []
        self.size = 0  # bytes appended and not yet sent, about
        self.waiters: list[Waiter] = []
        self.held_until = 0  # nothing goes out before the journal is on disk up to here
        self.last_sent = 0  # when bytes last went out, wall milliseconds: heartbeats are due only on an idle line

    def end(self) -> None:
        """The session is over, and the server knows. Without this the two would hold each other in memory."""
        self._touch = _touch_nobody
        self.waiters.clear()

    def write(self, data: bytes) -> None:
        """Append bytes that go out with this batch."""
        if not self.parts:
            self._touch()
        self.parts.append(data)
        self.size += len(data)

    def take(self) -> bytes:
        """Everything appended so far; the caller sends it and tells `sent`."""
        data = b"".join(self.parts)
        self.parts.clear()
        self.size = len(data)
        return data

    def take_parts(self) -> list[bytes]:
        """The same, not joined."""
        parts, self.parts = self.parts, []
        self.size = sum(map(len, parts))
        return parts

    def sent(self, count: int, now: int) -> None:
        """`count` bytes of what was taken went out."""
        self.size -= count
        self.last_sent = now
        if self.waiters and self.size <= self._low:
            waiters, self.waiters = self.waiters, []
            for waiter in waiters:
                waiter.resume()
