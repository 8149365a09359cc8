"""What time it is for a node: wall milliseconds that never go back.

The wall says when it starts; from there the event loop's clock goes on, which no administrator and no leap second
moves. A node asks whatever it is given for `now`, so that tests can give it a clock of their own.
"""

from __future__ import annotations

import time

import trio


class WallClock:
    """The wall's time at the start, and from there the event loop's clock."""

    __slots__ = ("_current_time", "_started", "_started_wall_ms")

    def __init__(self) -> None:
        self._started_wall_ms = time.time_ns() // 1_000_000
        self._current_time = trio.lowlevel.current_clock().current_time  # trio.current_time, without the way to it
        self._started = self._current_time()

    def __call__(self) -> int:
        return self._started_wall_ms + int((self._current_time() - self._started) * 1000)
