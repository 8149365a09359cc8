"""Whether consumers acknowledge so soon that it is worth waiting for that, and not for the disk.

What everybody has acknowledged needs no disk, so where each message is acknowledged at once a publisher may hear of it
without any sync. Nobody knows beforehand: it is tried, for a moment each time, and where it was in vain not again for
some time, so that a publisher whose consumers are slow loses little.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_MOMENT_SECONDS = 0.005
# After it was in vain nobody waits for as long; and each time that follows, for twice as long as the last time, up to:
_LONGEST_SECONDS = 0.064


class Prompt:
    """How consumers of one broker are."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._until: float | None = None  # how long they are waited for, if they are
        self._for = 0  # up to which number it is that they are
        self._trusted_from = 0.0
        self._distrust = _MOMENT_SECONDS

    def worth_waiting(self, wanted: int) -> bool:
        """Whether to wait now, or to go on waiting. A moment is for all up to the number `wanted` when it begins."""
        now = self._clock()
        if self._until is None:
            if now < self._trusted_from:
                return False
            self._until, self._for = now + _MOMENT_SECONDS, wanted
        elif now >= self._until:
            self.in_vain()
        return self._until is not None

    def came(self, done: int) -> None:
        """Everything up to this number has been acknowledged by all. If it is all that was waited for they are trusted.

        What comes one by one does not have the rest wait for ever.
        """
        if self._until is not None and done >= self._for:
            self._until = None
            self._distrust = _MOMENT_SECONDS

    def over(self) -> None:
        """Nobody waits any more, whatever for."""
        self._until = None

    def in_vain(self) -> None:
        """It has not been, and the disk is asked instead."""
        if self._until is not None:
            self._until = None
            self._trusted_from = self._clock() + self._distrust
            self._distrust = min(_LONGEST_SECONDS, 2 * self._distrust)
