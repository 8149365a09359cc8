"""The one place where time makes things happen: owners and the moment each next wants to be called.

Everything that waits for a moment (a queue's TTLs, an idle queue's expiry, heartbeats, a handshake's limit) is an owner
in this one heap; the server sleeps until `next_due` and calls `fire`. An owner may be called early and must look at the
clock itself and ask again; that makes a deadline that moves later on every message (a heartbeat's) cost nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol


class Due(Protocol):
    """Something that wants to be called at a moment."""

    due_at: int | None

    def due(self, now: int) -> None:
        """The moment has come (or an earlier one that was asked for); ask again with `Deadlines.ask` if need be."""


class Deadlines:
    """Owners by the moment (wall milliseconds) that each wants to be called at; one pending moment an owner."""

    __slots__ = ("_asked", "_heap", "_pending")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Due]] = []
        self._asked = 0
        self._pending = 0  # owners that wait for their moment

    def ask(self, owner: Due, when: int) -> None:
        """Have `owner` called at `when` at the latest; an earlier moment already asked for stands."""
        if owner.due_at is None:
            self._pending += 1
        elif owner.due_at <= when:
            return
        owner.due_at = when
        self._asked += 1
        heapq.heappush(self._heap, (when, self._asked, owner))
        if len(self._heap) > 2 * self._pending + 64:
            self._tidy()

    def forget(self, owner: Due) -> None:
        """Do not call `owner` any more; its place in the heap is dropped when it comes up, or when there are many."""
        if owner.due_at is not None:
            owner.due_at = None
            self._pending -= 1

    def _tidy(self) -> None:
        self._heap = list({id(entry[2]): entry for entry in self._heap if entry[2].due_at == entry[0]}.values())
        heapq.heapify(self._heap)

    def next_due(self) -> int | None:
        """The earliest moment anybody asked for, or None."""
        heap = self._heap
        while heap and heap[0][2].due_at != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def fire(self, now: int, on_fault: Callable[[Exception], None] | None = None) -> None:
        """Call every owner whose moment has come, in order of their moments; tell `on_fault` of what one raises."""
        while (when := self.next_due()) is not None and when <= now:
            owner = heapq.heappop(self._heap)[2]
            self.forget(owner)
            try:
                owner.due(now)
            except Exception as fault:
                if on_fault is None:
                    raise
                on_fault(fault)
