"""How a thread that computes for long shares the interpreter with the event loop.

Only one thread runs at a time, and one that wants its turn gets it after five milliseconds. The event loop lets go with
each call of the system, so beside a thread that only computes each message would take several turns of five
milliseconds. So such a thread works for less than a message may be late, and then sleeps for longer, during which the
loop has the interpreter for itself. Where it then has to wait for its own turn the loop has no pause either, and is as
far behind as it gets: there it works for as long as it had to wait, so that it is done some time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_WORK_SECONDS = 0.0003
_SLEEP_SECONDS = 0.0007
_LONGEST_SECONDS = 0.005


class Breath:
    """One thread's. Call it all the time."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._until = clock() + _WORK_SECONDS

    def __call__(self) -> None:
        """Sleep, if it is time to."""
        began = self._clock()
        if began < self._until:
            return
        self._sleep(_SLEEP_SECONDS)
        now = self._clock()
        waited = now - began - _SLEEP_SECONDS
        self._until = now + min(max(_WORK_SECONDS, waited), _LONGEST_SECONDS)
