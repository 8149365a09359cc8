"""What clients attempted, were promised and got, and what that says about the broker: Jepsen's total-queue check.

A stream is what one publisher sends on one connection, one message after the other; a message is (stream, number), and
is attempted once. Lost is what was confirmed and never received; unexpected what was received and never attempted, or
differs from what was sent. Both must be none once the queues have been emptied. Messages may come more than once.
"""

from __future__ import annotations

import zlib
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

Id = tuple[str, int]


class Verdict(NamedTuple):
    """Counts, of which the first three must be none."""

    lost: int
    unexpected: int
    disorder: int
    """First deliveries before which a later one of the same stream came; only counted where one at a time consumes."""
    false_first: int
    """Deliveries without `redelivered` of a message that somebody had got before."""
    attempted: int
    confirmed: int
    received: int
    recovered: int
    """Received although not confirmed."""
    duplicates: int
    """Deliveries beyond a message's first."""
    refused: int
    """Publishes that the broker refused: nacks, returned messages."""
    examples: tuple[str, ...]
    """Some of what should not be."""

    @property
    def valid(self) -> bool:
        """Whether the broker kept its promises."""
        return not (self.lost or self.unexpected or self.disorder)


class Ledger:
    """What all clients of a run know together."""

    def __init__(self, *, ordered: bool = False, size: int = 120) -> None:
        self.confirms: list[tuple[float, str, float]] = []
        """When each confirm came, on which stream, and how long it took."""
        self.refused: Counter[str] = Counter()
        """Publishes that failed otherwise than by a lost connection, by their error."""
        self.troubles: Counter[str] = Counter()
        """What ended connections."""
        self._size = size
        self._ordered = ordered
        self._attempted: Counter[str] = Counter()  # the last number of each stream
        self._confirmed: set[Id] = set()
        self._received: Counter[Id] = Counter()
        self._last: dict[str, int] = {}
        self._false_first: list[Id] = []
        self._disorder: list[Id] = []
        self._strange: list[str] = []

    def attempt(self, stream: str) -> tuple[Id, bytes]:
        """The next message of a stream; it is being sent."""
        self._attempted[stream] += 1
        message = (stream, self._attempted[stream])
        return message, self._body(message)

    def _body(self, message: Id) -> bytes:
        text = f"{message[0]} {message[1]} ".encode()
        return text + b"%08x" % zlib.crc32(text) + b"." * (message[1] % self._size)

    def confirm(self, message: Id, now: float, took: float = 0.0) -> None:
        """It was confirmed."""
        self._confirmed.add(message)
        self.confirms.append((now, message[0], took))

    def receive(self, body: bytes, *, redelivered: bool) -> None:
        """It was delivered to somebody."""
        try:
            stream, number, _ = body.split(b" ", 2)
            message = (stream.decode(), int(number))
        except ValueError:
            self._strange.append(f"not one of ours: {body[:60]!r}")
            return
        if message[1] > self._attempted[message[0]] or message[1] < 1 or body != self._body(message):
            self._strange.append(f"never sent so: {body[:60]!r}")
            return
        self._received[message] += 1
        if self._received[message] == 1:
            if self._ordered and message[1] < self._last.get(message[0], 0):
                self._disorder.append(message)
            self._last[message[0]] = message[1]
        elif not redelivered:
            self._false_first.append(message)

    @property
    def missing(self) -> int:
        """How many were confirmed and have not been received yet."""
        return len(self._confirmed - self._received.keys())

    @property
    def confirmed(self) -> int:
        """How many were confirmed."""
        return len(self._confirmed)

    @property
    def failures(self) -> int:
        """Publishes that failed, and connections that ended, whatever the reason."""
        return self.refused.total() + self.troubles.total()

    def longest_gap(self, since: float = 0.0) -> float:
        """Between two confirms, in seconds, of those that came after a moment."""
        times = [when for when, _, _ in self.confirms if when >= since]
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def verdict(self) -> Verdict:
        """When the queues are empty."""
        lost = sorted(self._confirmed - self._received.keys())
        examples = [f"lost {each}" for each in lost[:5]] + self._strange[:5]
        examples += [f"redelivered not set {each}" for each in self._false_first[:5]]
        examples += [f"out of order {each}" for each in self._disorder[:5]]
        return Verdict(
            lost=len(lost),
            unexpected=len(self._strange),
            disorder=len(self._disorder),
            false_first=len(self._false_first),
            attempted=self._attempted.total(),
            confirmed=len(self._confirmed),
            received=len(self._received),
            recovered=len(self._received.keys() - self._confirmed),
            duplicates=self._received.total() - len(self._received),
            refused=self.refused.total(),
            examples=tuple(examples),
        )
