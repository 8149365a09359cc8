"""How fast a disk syncs, to know whether the event loop may do so itself.

To wake a thread and to hear of it costs more than a fast disk takes. A disk that once took long is left to a thread for
a while, so that nobody else waits for it: less than a twentieth of the time in all. So is one that kept others waiting
who publish; who publishes and waits for the confirm each time is served best without a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# So little is written without a thread, and synced too while syncs take no longer than this on average.
LITTLE_BYTES = 16 * 1024
_FAST_SECONDS = 0.0005
# After one that took longer than this a thread syncs for so many times as long.
_SLOW_SECONDS = 0.001
_DISTRUST = 20
# After others had to wait a thread syncs for so long.
_CROWDED_SECONDS = 0.05


class Pace:
    """Of one disk. Who would pay more for a thread says so by a `patience` above 1: so many times as long is fast."""

    def __init__(self, patience: float = 1.0) -> None:
        self._fast_seconds = _FAST_SECONDS * patience
        self._slow_seconds = _SLOW_SECONDS * patience
        self._average = 0.0
        self._trusted_from = 0.0  # when a slow one is long enough ago, by the performance counter

    @property
    def fast(self) -> bool:
        """Whether whoever has something else to do may sync a little by himself."""
        return self._average < self._fast_seconds and time.perf_counter() >= self._trusted_from

    def crowded(self) -> None:
        """Others were kept waiting."""
        self._trusted_from = max(self._trusted_from, time.perf_counter() + _CROWDED_SECONDS)

    def timed(self, sync: Callable[[], None]) -> None:
        """Sync, wherever this runs, and remember how long it took. OSError: it failed, and says nothing of the pace."""
        began = time.perf_counter()
        sync()
        now = time.perf_counter()
        self._average += (now - began - self._average) / 8
        if now - began > self._slow_seconds:
            self._trusted_from = now + (now - began) * _DISTRUST
