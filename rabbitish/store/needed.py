"""Which messages that are not on disk yet are still needed: what consumers are done with needs no disk.

A confirm promises that a message is not lost. It is not once it is on disk, and neither once everybody it was for has
acknowledged it, as with RabbitMQ. So as long as little is not on disk it is counted here, by runs of messages that were
recorded together, what of it has been acknowledged. Errs to one side alone: a message that nobody counts is needed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Protocol

# Where more than so many wait for the disk it is asked for all of them, and nobody looks at each.
_COUNTED_AT_MOST = 256


class Numbered(Protocol):
    """A message, as far as records name it."""

    lsn: int


class _Run:
    """Messages that follow each other, each in the same queues."""

    __slots__ = ("first", "last", "left", "queued")

    def __init__(self, first: int, last: int, places: int) -> None:
        self.first = first
        self.last = last
        self.left = places  # how many of their places in queues they have not left for good
        self.queued = places  # in how many of these they have not been handed out


class Needed:
    """Of one journal. A message that comes back is one that was handed out, and is waited for as such."""

    __slots__ = ("_blocked", "_count", "_lasts", "_queued", "_runs", "done")

    def __init__(self, synced: int, last: int) -> None:
        """Up to `synced` everything is on disk; nobody counts what is behind that up to `last`."""
        self.done = synced
        """Up to this number nothing is needed that is not on disk."""
        self._runs: list[_Run] = []
        self._lasts: list[int] = []  # the last number of each
        self._count = 0  # messages in these
        self._queued = 0  # how many of their places are those of messages that nobody was handed
        self._blocked = last if last > synced else 0  # up to here nobody counts: it takes the disk

    @property
    def with_consumers(self) -> bool:
        """Whether all that is needed is with consumers, so that it takes no more than their word."""
        return not self._queued and not self._blocked

    def published(self, first: int, count: int, queues: int) -> None:
        """Messages from this number on are recorded, each in so many queues."""
        last = first + count - 1
        if self._blocked or self._count + count > _COUNTED_AT_MOST:
            self._forget()
            self._blocked = last
            return
        self._runs.append(_Run(first, last, count * queues))
        self._lasts.append(last)
        self._count += count
        self._queued += count * queues

    def _forget(self) -> None:
        self._runs.clear()
        self._lasts.clear()
        self._count = self._queued = 0

    def handed_out(self, messages: Sequence[Numbered]) -> None:
        """A consumer of a queue was handed these."""
        if self._runs:
            for run in self._runs_of(messages):
                if run.queued:
                    run.queued -= 1
                    self._queued -= 1

    def acknowledged(self, messages: Sequence[Numbered]) -> None:
        """These have left a queue since consumers acknowledged them."""
        if self._runs:
            for run in self._runs_of(messages):
                run.left -= 1
            self._advance()

    def _runs_of(self, messages: Sequence[Numbered]) -> Iterator[_Run]:
        """Of each message that is counted, its run. Mostly that is the last one's, or all of them are older."""
        runs, lasts = self._runs, self._lasts
        oldest, run = runs[0].first, runs[0]
        for message in messages:
            lsn = message.lsn
            if lsn < oldest:
                continue
            if not run.first <= lsn <= run.last:
                index = bisect_left(lasts, lsn)
                if index == len(lasts) or lsn < runs[index].first:
                    continue
                run = runs[index]
            yield run

    def _advance(self) -> None:
        over = 0
        for run in self._runs:
            if run.left:
                break
            over += 1
        if over:
            self.done = self._lasts[over - 1]
            self._drop(over)

    def _drop(self, over: int) -> None:
        for run in self._runs[:over]:
            self._count -= run.last - run.first + 1
            self._queued -= run.queued
        del self._runs[:over], self._lasts[:over]

    def synced(self, lsn: int) -> None:
        """Everything up to this number is on disk."""
        self.done = max(self.done, lsn)
        if self._blocked <= lsn:
            self._blocked = 0
        if self._lasts:
            self._drop(bisect_left(self._lasts, lsn + 1))
            self._advance()
