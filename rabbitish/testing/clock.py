"""A clock that can be moved on, and can be made to stand still.

It counts whole milliseconds, as the broker does, so that what is due after a minute is due exactly when it was moved on
by a minute. It never goes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rabbitish.server.clock import WallClock


class MovableClock:
    """Wall milliseconds. A `frozen` one moves only when it is told to."""

    __slots__ = ("_ahead_ms", "_stands_at", "_wall")

    def __init__(self, *, frozen: bool) -> None:
        self._wall = WallClock()
        self._ahead_ms = 0
        self._stands_at = self._wall() if frozen else None

    def __call__(self) -> int:
        return self._wall() + self._ahead_ms if self._stands_at is None else self._stands_at

    def move(self, ms: int) -> None:
        """Be this much later from now on."""
        if self._stands_at is None:
            self._ahead_ms += ms
        else:
            self._stands_at += ms

    @contextmanager
    def held(self) -> Iterator[None]:
        """No time passes inside unless it is moved, and what passed outside meanwhile never did."""
        if self._stands_at is not None:
            yield
            return
        self._stands_at = self()
        try:
            yield
        finally:
            self._ahead_ms = self._stands_at - self._wall()
            self._stands_at = None


def milliseconds(time: float | timedelta) -> int:
    """Seconds, or a timedelta, as whole milliseconds. ValueError: it is less than nothing, or not a number."""
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"time goes forward only, and not for ever, so by {seconds} seconds it does not")
    return round(seconds * 1000)
