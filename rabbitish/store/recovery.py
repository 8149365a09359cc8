"""From a journal back to a broker: what was declared is declared again, what was queued is queued again.

The records are read in order into what they add up to, which then goes through the core's own methods while nobody
records: there is no second way for a queue to come into being or a message to come into it. A message keeps the time of
its publish, so time that passed while the broker was down counts for its TTL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rabbitish.core.broker import Broker
from rabbitish.core.exchange import Exchange
from rabbitish.core.queue import Queue
from rabbitish.core.vhost import Vhost
from rabbitish.store.bodies import (
    Bound,
    Codec,
    DeclaredExchange,
    DeclaredQueue,
    Named,
    Published,
    decode_removed,
    decode_returned,
)
from rabbitish.store.files import Disk
from rabbitish.store.journal import Journal
from rabbitish.store.record import Record, Type
from rabbitish.store.recorder import JournalRecorder
from rabbitish.store.scan import Cut, scan


class Recovered(NamedTuple):
    """What came back."""

    journal: Journal
    recorder: JournalRecorder
    queues: int
    messages: int
    cut: Cut | None


class Declared(NamedTuple):
    """What is declared at some point of the journal."""

    vhosts: dict[str, None]
    exchanges: dict[tuple[str, str], DeclaredExchange]
    queues: dict[int, DeclaredQueue]
    bindings: dict[bytes, Bound]


class Replay:
    """What the records so far add up to."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.declared = Declared({}, {}, {}, {})
        # What was declared before the snapshot that is being read, which may turn out to have no end.
        self._before: Declared | None = None
        self.published: dict[int, bytes] = {}  # bodies of PUBLISH by their record's number
        self.copies: dict[int, int] = {}  # in how many queues that message still is
        self.contents: dict[int, dict[int, None]] = {}  # the messages that each queue still holds
        self.returns: dict[tuple[int, int], int] = {}  # by queue and message
        self._handlers: dict[Type, Callable[[int, bytes], None]] = {
            Type.SNAPSHOT: self._snapshot,
            Type.SNAPSHOT_END: self._snapshot_end,
            Type.VHOST_NEW: self._vhost_new,
            Type.VHOST_GONE: self._vhost_gone,
            Type.EXCHANGE_NEW: self._exchange_new,
            Type.EXCHANGE_GONE: self._exchange_gone,
            Type.QUEUE_NEW: self._queue_new,
            Type.QUEUE_GONE: self._queue_gone,
            Type.BOUND: self._bound,
            Type.UNBOUND: self._unbound,
            Type.PUBLISH: self._publish,
            Type.REMOVE: self._remove,
            Type.RETURNED: self._returned,
        }

    def visit(self, sequence: int, record: Record) -> None:
        """Take the next record."""
        handler = self._handlers.get(record.type)
        if handler is not None:
            handler(record.lsn, record.body)

    def finish(self) -> None:
        """There are no more records: a snapshot that the end of the journal cuts short does not count."""
        if self._before is not None:
            self.declared, self._before = self._before, None

    def _snapshot(self, lsn: int, body: bytes) -> None:
        if self._before is None:
            self._before = self.declared
        self.declared = Declared({}, {}, {}, {})

    def _snapshot_end(self, lsn: int, body: bytes) -> None:
        self._before = None

    def _vhost_new(self, lsn: int, body: bytes) -> None:
        self.declared.vhosts[Named.decode(body, self._codec).vhost] = None

    def _vhost_gone(self, lsn: int, body: bytes) -> None:
        self.declared.vhosts.pop(Named.decode(body, self._codec).vhost, None)

    def _exchange_new(self, lsn: int, body: bytes) -> None:
        exchange = DeclaredExchange.decode(body, self._codec)
        self.declared.exchanges[exchange.vhost, exchange.name] = exchange

    def _exchange_gone(self, lsn: int, body: bytes) -> None:
        vhost, name = Named.decode(body, self._codec)
        self.declared.exchanges.pop((vhost, name), None)
        bindings = self.declared.bindings
        for key in [key for key, bound in bindings.items() if (bound.vhost, bound.source) == (vhost, name)]:
            del bindings[key]
        self._drop_bindings(vhost, name, to_exchange=True)

    def _queue_new(self, lsn: int, body: bytes) -> None:
        queue = DeclaredQueue.decode(body, self._codec)
        self.declared.queues[queue.number] = queue

    def _queue_gone(self, lsn: int, body: bytes) -> None:
        number = int.from_bytes(body, "big")
        queue = self.declared.queues.pop(number, None)
        if queue is not None:
            self._drop_bindings(queue.vhost, queue.name, to_exchange=False)
        for message in list(self.contents.get(number, ())):
            self._drop(message, number)

    def _drop_bindings(self, vhost: str, destination: str, *, to_exchange: bool) -> None:
        bindings, gone = self.declared.bindings, (vhost, to_exchange, destination)
        for key, bound in list(bindings.items()):
            if (bound.vhost, bound.to_exchange, bound.destination) == gone:
                del bindings[key]

    def _bound(self, lsn: int, body: bytes) -> None:
        self.declared.bindings[body] = Bound.decode(body, self._codec)

    def _unbound(self, lsn: int, body: bytes) -> None:
        self.declared.bindings.pop(body, None)

    def _publish(self, lsn: int, body: bytes) -> None:
        numbers = Published.queues_of(body)
        self.published[lsn] = body
        self.copies[lsn] = len(numbers)
        for number in numbers:
            self.contents.setdefault(number, {})[lsn] = None

    def _remove(self, lsn: int, body: bytes) -> None:
        number, messages = decode_removed(body)
        for message in messages:
            self._drop(message, number)

    def _drop(self, message: int, number: int) -> None:
        if message not in self.contents.get(number, ()):
            return
        del self.contents[number][message]
        self.returns.pop((number, message), None)
        self.copies[message] -= 1
        if not self.copies[message]:
            del self.copies[message], self.published[message]

    def _returned(self, lsn: int, body: bytes) -> None:
        number, message, returns = decode_returned(body)
        if message in self.contents.get(number, ()):
            self.returns[number, message] = returns


def recover(disk: Disk, broker: Broker, codec: Codec, now: int, *, segment_bytes: int) -> Recovered:
    """Read the journal on `disk` into `broker`, which has nothing yet, and record its changes from now on.

    JournalDamaged: it cannot be read; nothing was changed on disk.
    """
    replay = Replay(codec)
    scanned = scan(disk, replay.visit)
    replay.finish()
    recorder = JournalRecorder(codec, broker.vhosts.values(), max(replay.contents, default=0))
    queues = _declare(replay, broker, recorder, now)
    journal = Journal(
        disk,
        segment_bytes=segment_bytes,
        next_sequence=scanned.last_sequence + 1,
        next_lsn=scanned.last_lsn + 1,
        snapshot=recorder.snapshot,
    )
    for sequence, first_lsn in scanned.segments:
        journal.segments.begin(sequence, first_lsn)
    messages = _fill(replay, queues, codec, journal)
    recorder.attach(journal)
    journal.begin()
    broker.record(recorder)
    return Recovered(journal, recorder, len(queues), messages, scanned.cut)


def _declare(replay: Replay, broker: Broker, recorder: JournalRecorder, now: int) -> dict[int, Queue]:
    for name in replay.declared.vhosts:
        broker.add_vhost(name)
    for exchange in replay.declared.exchanges.values():
        broker.add_vhost(exchange.vhost).add_exchange(
            exchange.name,
            exchange.type,
            durable=True,
            auto_delete=exchange.auto_delete,
            internal=exchange.internal,
            arguments=exchange.arguments,
        )
    queues: dict[int, Queue] = {}
    for number, declared in replay.declared.queues.items():
        queues[number] = broker.add_vhost(declared.vhost).add_queue(
            declared.name,
            durable=True,
            auto_delete=declared.auto_delete,
            arguments=declared.arguments,
            owner=None,
            now=now,
        )
        recorder.know(queues[number], number)
    for bound in replay.declared.bindings.values():
        vhost = broker.add_vhost(bound.vhost)
        destination = _destination(vhost, bound)
        if destination is not None and bound.source in vhost.exchanges:
            vhost.bind(bound.source, destination, bound.routing_key, bound.arguments)
    return queues


def _destination(vhost: Vhost, bound: Bound) -> Queue | Exchange | None:
    return vhost.exchanges.get(bound.destination) if bound.to_exchange else vhost.queues.get(bound.destination)


def _fill(replay: Replay, queues: dict[int, Queue], codec: Codec, journal: Journal) -> int:
    """Put the messages back, oldest first; how many there are."""
    count = 0
    for lsn, body in replay.published.items():
        published = Published.decode(body, codec)
        holders = [number for number in published.queues if number in queues and lsn in replay.contents[number]]
        if not holders:
            continue
        message = codec.message(published.address, published.channel, published.content)
        message.lsn = lsn
        for number in holders:
            journal.segments.add(lsn, number, 1)
            queues[number].restore(message, published.now, replay.returns.get((number, lsn), 0))
        count += 1
    return count
