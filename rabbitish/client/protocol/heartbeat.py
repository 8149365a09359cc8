"""When to send a heartbeat, and when to take the other side for dead. Times are seconds of any clock.

We send one after half the interval without sending anything, and hold the connection for lost after two intervals
without anything coming, as the specification asks for. A program that was busy has not looked for what came meanwhile,
so the front reads once more before it believes in silence.
"""

from __future__ import annotations


class Heartbeats:
    """The two clocks of one connection; `interval` is what was agreed on, in seconds, and not 0."""

    __slots__ = ("interval", "received", "sent")

    def __init__(self, interval: int, now: float) -> None:
        self.interval = interval
        self.sent = now
        self.received = now

    def due(self, now: float) -> bool:
        """Whether a heartbeat should be sent."""
        return now - self.sent >= self.interval / 2

    def silent(self, now: float) -> bool:
        """Whether nothing came for so long that the connection is lost."""
        return now - self.received >= 2 * self.interval

    def next(self) -> float:
        """When to look again."""
        return min(self.sent + self.interval / 2, self.received + 2 * self.interval)
