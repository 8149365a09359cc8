"""The core's changes as records: implements core.changes.Recorder over a journal.

Knows the number by which records name each queue, and tells the journal's segments which messages live in them. Nothing
here waits: a record is in the journal's buffer when a call returns, and on disk when `Journal.durable_lsn` says so.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from rabbitish.core.changes import Reason
from rabbitish.core.exchange import Binding, Destination, Exchange
from rabbitish.core.message import Address, Message
from rabbitish.core.paging import Page
from rabbitish.core.queue import Queue
from rabbitish.core.sendings import Range, Sendings
from rabbitish.store.bodies import (
    REASONS,
    Bound,
    Codec,
    DeclaredExchange,
    DeclaredQueue,
    Named,
    Route,
    encode_returned,
    encode_sent,
)
from rabbitish.store.journal import LARGE_BYTES, Journal
from rabbitish.store.mixed import Mixed
from rabbitish.store.record import Type
from rabbitish.store.segments import WEIGHT_BYTES

_PREDECLARED = "amq."
# Routes whose bytes are remembered: publishers mostly repeat theirs.
_ROUTES_KNOWN = 1024
_REASON_NUMBERS = {reason: number for number, reason in enumerate(REASONS)}
_DONE_WITH = (Reason.ACKNOWLEDGED, Reason.TAKEN, Reason.COMMITTED)
_REASON_NUMBERS.update((reason, _REASON_NUMBERS[Reason.ACKNOWLEDGED]) for reason in _DONE_WITH)


def _mixed(messages: Sequence[Message], contents: Sequence[bytes]) -> Mixed | None:
    """What messages have of their own; None: for the journal they are alike."""
    stamp = messages[0].stamp
    expirations = None
    if stamp.expiration_ms is not None:
        expirations = [message.stamp.expiration_ms or 0 for message in messages]
    mixed = Mixed.of(stamp.traits.priority, contents, [message.size for message in messages], expirations)
    return None if mixed.alike and len(set(mixed.contents)) == 1 else mixed


class Declared(Protocol):
    """A virtual host, for a snapshot of what is declared in it."""

    name: str
    exchanges: dict[str, Exchange]
    queues: dict[str, Queue]


class Sink(Protocol):
    """Where a snapshot goes."""

    def append_snapshot(self, kind: Type, *body: bytes) -> None:
        """Append a record."""


class JournalRecorder:
    """Records changes. `vhosts` are read when a snapshot is due; queues up to number `used` have been."""

    def __init__(self, codec: Codec, vhosts: Iterable[Declared], used: int = 0) -> None:
        self._codec = codec
        self._vhosts = vhosts
        self._journal: Journal
        self._numbers: dict[Queue, int] = {}
        self._routes: dict[tuple[Address, int, tuple[Queue, ...]], tuple[tuple[int, ...], bytes]] = {}
        self._next_number = used + 1
        self.declared = 0  # see Recorder
        self.sendings = Sendings()  # see Recorder
        self.access = b""  # the document of users and permissions, where the journal keeps it

    def attach(self, journal: Journal) -> None:
        """Record into this journal."""
        self._journal = journal

    def know(self, queue: Queue, number: int) -> None:
        """A recovered queue's number."""
        self._numbers[queue] = number
        self._next_number = max(self._next_number, number + 1)

    @property
    def queues(self) -> Mapping[Queue, int]:
        """The numbers of all queues that are recorded."""
        return self._numbers

    @property
    def highest_queue(self) -> int:
        """No queue has had a higher number."""
        return self._next_number - 1

    @property
    def position(self) -> int:
        """See Recorder."""
        self._journal.close_gathering()
        return self._journal.last_lsn

    @property
    def oldest(self) -> int:
        """See Recorder."""
        return self._journal.segments.all[0].head.first_lsn

    # ---- declarations

    def vhost_added(self, vhost: str) -> None:
        """See Recorder."""
        self.declared = self._journal.append(Type.VHOST_NEW, Named(vhost, "").encode())

    def vhost_removed(self, vhost: str) -> None:
        """See Recorder."""
        self.declared = self._journal.append(Type.VHOST_GONE, Named(vhost, "").encode())

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None:
        """See Recorder."""
        self.declared = self._journal.append(Type.EXCHANGE_NEW, self._exchange(vhost, exchange))

    def exchange_deleted(self, vhost: str, exchange: Exchange) -> None:
        """See Recorder."""
        self.declared = self._journal.append(Type.EXCHANGE_GONE, Named(vhost, exchange.name).encode())

    def queue_declared(self, vhost: str, queue: Queue) -> None:
        """See Recorder."""
        self.know(queue, self._next_number)
        self.declared = self._journal.append(Type.QUEUE_NEW, self._queue(vhost, queue))

    def queue_changed(self, vhost: str, queue: Queue) -> None:
        """See Recorder."""
        self.declared = self._journal.append(Type.QUEUE_NEW, self._queue(vhost, queue))

    def queue_deleted(self, queue: Queue) -> None:
        """See Recorder."""
        number = self._numbers.pop(queue)
        self._routes.clear()
        self.declared = self._journal.append(Type.QUEUE_GONE, number.to_bytes(4, "big"))
        self._journal.segments.remove_queue(number)

    def bound(self, vhost: str, binding: Binding) -> None:
        """See Recorder."""
        self.declared = self._journal.append(Type.BOUND, self._binding(vhost, binding))

    def unbound(self, vhost: str, binding: Binding) -> None:
        """See Recorder."""
        self.declared = self._journal.append(Type.UNBOUND, self._binding(vhost, binding))

    def access_changed(self, document: bytes) -> int:
        """Keep users, permissions and policies as this document says; the number of the record."""
        self.access = document
        self.declared = self._journal.append(Type.ACCESS, document)
        return self.declared

    def _exchange(self, vhost: str, exchange: Exchange) -> bytes:
        return DeclaredExchange(
            vhost, exchange.name, exchange.type, exchange.auto_delete, exchange.internal, exchange.arguments
        ).encode(self._codec)

    def _queue(self, vhost: str, queue: Queue) -> bytes:
        number = self._numbers[queue]
        return DeclaredQueue(number, vhost, queue.name, queue.auto_delete, queue.arguments, queue.ttls).encode(
            self._codec
        )

    def _binding(self, vhost: str, binding: Binding) -> bytes:
        to = binding.destination
        return Bound(
            vhost, binding.source.name, isinstance(to, Exchange), to.name, binding.routing_key, binding.arguments
        ).encode(self._codec)

    def snapshot(self, sink: Sink) -> None:
        """Tell everything that is declared, at the beginning of a segment or in a checkpoint, and who sent what."""
        append = sink.append_snapshot
        if self.access:
            append(Type.ACCESS, self.access)
        for vhost in self._vhosts:
            append(Type.VHOST_NEW, Named(vhost.name, "").encode())
            for exchange in vhost.exchanges.values():
                if exchange.durable and exchange.name and not exchange.name.startswith(_PREDECLARED):
                    append(Type.EXCHANGE_NEW, self._exchange(vhost.name, exchange))
            for queue in vhost.queues.values():
                if queue.durable:
                    append(Type.QUEUE_NEW, self._queue(vhost.name, queue))
            for exchange in vhost.exchanges.values():
                for binding in exchange.bindings():
                    if exchange.durable and self._stands(vhost, binding.destination):
                        append(Type.BOUND, self._binding(vhost.name, binding))
        for session, channel, numbers in self.sendings.all():
            append(Type.SENT, encode_sent(session, channel, numbers.ranges))

    def _stands(self, vhost: Declared, destination: Destination) -> bool:
        """Whether it is durable and there: what is being deleted loses its bindings only after that was recorded."""
        if isinstance(destination, Exchange):
            return destination.durable and vhost.exchanges.get(destination.name) is destination
        return destination in self._numbers

    # ---- messages

    def published(self, queues: Sequence[Queue], messages: Sequence[Message], now: int, *, alike: bool = True) -> None:
        """See Recorder."""
        first = messages[0]
        numbers, route = self._route(first.address, self._codec.channel_of(first), tuple(queues))
        contents = self._codec.contents_of(messages)
        if not alike and max(map(len, contents)) >= LARGE_BYTES:
            for message, content in zip(messages, contents, strict=True):  # each may be done with before it is written
                message.lsn = self._journal.publish(route, numbers, now, [content], message.size)
            return
        if alike or (mixed := _mixed(messages, contents)) is None:
            number = self._journal.publish(route, numbers, now, contents, first.size)
        else:
            number = self._journal.publish_mixed(route, numbers, now, contents, mixed)
        for lsn, message in enumerate(messages, number):
            message.lsn = lsn

    def _route(self, address: Address, channel: int, queues: tuple[Queue, ...]) -> tuple[tuple[int, ...], bytes]:
        key = (address, channel, queues)
        known = self._routes.get(key)
        if known is None:
            numbers = tuple(self._numbers[queue] for queue in queues)
            known = numbers, Route(channel, numbers, address).encode()
            if len(self._routes) >= _ROUTES_KNOWN:
                self._routes.clear()
            self._routes[key] = known
        return known

    def sent(self, session: bytes, channel: int, ranges: Sequence[Range]) -> None:
        """See Recorder."""
        for first, last in ranges:
            self.sendings.add(session, channel, first, last)
        self._journal.append(Type.SENT, encode_sent(session, channel, ranges), behind_all=False)

    def removed(self, queue: Queue, messages: Sequence[Message], reason: Reason) -> None:
        """See Recorder."""
        journal = self._journal
        journal.removed(self._numbers[queue], _REASON_NUMBERS[reason], messages)
        if reason is Reason.ACKNOWLEDGED:
            journal.needed.acknowledged(messages)
        if journal.holds_large and reason in _DONE_WITH:
            for message in messages:
                journal.done_with(message.lsn)

    def pages_removed(self, queue: Queue, pages: Sequence[Page], reason: Reason) -> None:
        """See Recorder."""
        number, segments, gone = self._numbers[queue], self._journal.segments, array("Q")
        for page in pages:
            segments.removed(number, page.ranges, page.bytes + WEIGHT_BYTES * page.count)
            gone.extend(page.ranges)
        self._journal.append_ranges(Type.REMOVE, number, _REASON_NUMBERS[reason], gone)

    def delivered(self, queue: Queue, messages: Sequence[Message]) -> None:
        """See Recorder."""
        self._journal.delivered(self._numbers[queue], messages)

    def returned(self, queue: Queue, message: Message, returns: int) -> None:
        """See Recorder."""
        self._journal.append(Type.RETURNED, encode_returned(self._numbers[queue], message.lsn, returns))
