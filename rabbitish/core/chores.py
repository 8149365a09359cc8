"""Work that is too long for one stretch, done a piece at a time so that nobody waits long for a turn.

To acknowledge a hundred thousand messages or to free a million takes longer than anybody should have to wait for. Such
work is an iterator each step of which takes a few milliseconds at most; every settle of the broker takes one step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator


class Chores(deque[Iterator[None]]):
    """What is left to do. True while there is any, which is asked after every batch of input."""

    __slots__ = ()

    def add(self, chore: Iterator[None]) -> None:
        """Have this done, in turns with the others."""
        self.append(chore)

    def step(self, on_fault: Callable[[Exception], None] | None = None) -> None:
        """Do a piece of the first one. What one raises ends it; `on_fault` is told, without that it is raised."""
        chore = self.popleft()
        try:
            next(chore)
        except StopIteration:
            return
        except Exception as fault:
            if on_fault is None:
                raise
            on_fault(fault)
            return
        self.append(chore)

    def finish(self, on_fault: Callable[[Exception], None] | None = None) -> None:
        """Do all of it now."""
        while self:
            self.step(on_fault)
