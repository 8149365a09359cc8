"""What has happened to messages since the last record: which were handed out, and which have left, by queue.

One record says the same of many. Of a message that was handed out and has left before anything was told of either, it
is only told that it has left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from rabbitish.store.bodies import REASONS, Ranges, ranges_of

_ACKNOWLEDGED = REASONS.index("acknowledged")


class Numbered(Protocol):
    """A message, as far as records name it."""

    lsn: int
    size: int


class Left(NamedTuple):
    """Messages that have left a queue for one reason, in order of their numbers."""

    queue: int
    reason: int
    ranges: Ranges
    sizes: list[int]


class Gathering:
    """By numbers: of queues, reasons and messages."""

    __slots__ = ("_delivered", "_removed", "count", "urgent")

    def __init__(self) -> None:
        self._delivered: dict[int, dict[int, int]] = {}
        self._removed: dict[tuple[int, int], dict[int, int]] = {}
        self.count = 0
        """How much was told; no fewer than are in here."""
        self.urgent = False
        """Whether any has left without being acknowledged: where it went instead may be told already."""

    def deliver(self, queue: int, messages: Sequence[Numbered]) -> None:
        """Consumers were handed these."""
        self.count += len(messages)
        delivered = self._delivered.get(queue)
        if delivered is None:
            delivered = self._delivered[queue] = {}
        for message in messages:
            delivered[message.lsn] = 0

    def remove(self, queue: int, reason: int, messages: Sequence[Numbered]) -> None:
        """These have left."""
        self.count += len(messages)
        self.urgent |= reason != _ACKNOWLEDGED
        removed = self._removed.get((queue, reason))
        if removed is None:
            removed = self._removed[queue, reason] = {}
        for message in messages:
            removed[message.lsn] = message.size
        delivered = self._delivered.get(queue)
        if delivered:
            for message in messages:
                delivered.pop(message.lsn, None)

    def delivered(self) -> Iterator[tuple[int, Ranges]]:
        """What was handed out and is still there, by queue."""
        return ((queue, ranges_of(sorted(lsns))) for queue, lsns in self._delivered.items() if lsns)

    def removed(self) -> Iterator[Left]:
        """What has left."""
        for (queue, reason), sizes in self._removed.items():
            lsns = sorted(sizes)
            yield Left(queue, reason, ranges_of(lsns), [sizes[lsn] for lsn in lsns])
