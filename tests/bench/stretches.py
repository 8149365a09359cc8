"""For how long long work holds the event loop at a stretch: nobody else is served meanwhile.

Each operation concerns very many messages. Measured is the longest single call of everything that it makes the broker
do (`Inside.stretches`), with and without the journal, on the wall clock; of some runs the
least counts, since whatever else the machine does only makes it longer.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rabbitish.session.connection import Session
from rabbitish.wire import methods as m

from .inside import Inside, fill, message

LIMIT_MS = 20.0
MANY = 100_000
VERY_MANY = 1_000_000
Operation: TypeAlias = "tuple[str, int, Callable[[], None]]"


class Held(NamedTuple):
    """What an operation took."""

    operation: str
    messages: int
    journal: bool
    total_ms: float
    longest_ms: float


class Scene:
    """A publisher with confirms and a consumer, and a durable queue between them."""

    def __init__(self, inside: Inside, scale: float) -> None:
        self.inside = inside
        self.many, self.very_many = int(MANY * scale), int(VERY_MANY * scale)
        self.publisher = inside.session()
        inside.ask(self.publisher, m.ConfirmSelect(), m.QueueDeclare(queue="q", durable=True))

    def fill(self, queue: str, count: int) -> None:
        """Publish so many persistent messages."""
        fill(self.inside, self.publisher, message(queue, persistent=True), count)

    def holding(self, count: int) -> Session:
        """A consumer that holds so many unacknowledged."""
        consumer = self.inside.session()
        self.fill("q", count)
        self.inside.ask(consumer, m.BasicConsume(queue="q"))
        return consumer

    def operations(self) -> Iterator[Operation]:
        """Each operation when its scene is set: its name, of how many messages, and what does it."""
        inside, many, very_many = self.inside, self.many, self.very_many
        consumer = self.holding(many)
        yield "ack multiple", many, lambda: inside.ask(consumer, m.BasicAck(delivery_tag=0, multiple=True))
        self.fill("q", many)
        nack = m.BasicNack(delivery_tag=0, multiple=True, requeue=True)
        yield "nack multiple, requeue, delivered again", many, lambda: inside.ask(consumer, nack)
        drop = m.BasicNack(delivery_tag=0, multiple=True, requeue=False)
        yield "nack multiple, dropped", many, lambda: inside.ask(consumer, drop)
        inside.hang_up(consumer)
        other = self.holding(many)
        yield "connection lost with unacknowledged", many, lambda: inside.hang_up(other)
        inside.ask(self.publisher, m.QueuePurge(queue="q"))
        yield "publish", very_many, lambda: self.fill("q", very_many)
        yield "purge", very_many, lambda: inside.ask(self.publisher, m.QueuePurge(queue="q"))
        self.fill("q", very_many)
        yield "delete the queue", very_many, lambda: inside.ask(self.publisher, m.QueueDelete(queue="q"))
        inside.ask(self.publisher, m.QueueDeclare(queue="short", durable=True, arguments={"x-message-ttl": 600_000}))
        self.fill("short", very_many)
        yield "expiry", very_many, lambda: self._expire(600_001)
        inside.ask(self.publisher, m.QueueDeclare(queue="q", durable=True))
        self.fill("q", very_many)
        last = inside.session()
        yield "drain", very_many, lambda: inside.ask(last, m.BasicConsume(queue="q", no_ack=True))

    def _expire(self, ms: int) -> None:
        self.inside.now += ms
        self.inside.settle()


def measure(*, journal: bool, scale: float = 1.0) -> list[Held]:
    """Every operation once."""
    with tempfile.TemporaryDirectory() as folder:
        inside = Inside(Path(folder) if journal else None)
        held = []
        gc.collect()
        gc.disable()  # as in the broker: see server/collector.py
        try:
            for name, count, work in Scene(inside, scale).operations():
                inside.stretches.clear()
                work()
                stretches = inside.stretches
                held.append(Held(name, count, journal, sum(stretches) * 1e3, max(stretches) * 1e3))
        finally:
            gc.enable()
        return held


def run(*, rounds: int = 2, scale: float = 1.0) -> list[Held]:
    """Every operation, without and with the journal: the least of some rounds."""
    best: dict[tuple[str, bool], Held] = {}
    for _ in range(rounds):
        for journal in (False, True):
            for held in measure(journal=journal, scale=scale):
                key = held.operation, journal
                if key not in best or held.longest_ms < best[key].longest_ms:
                    best[key] = held
    return sorted(best.values(), key=lambda held: held.journal)
