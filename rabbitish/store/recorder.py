"""The core's changes as records: implements core.changes.Recorder over a journal.

Knows the number by which records name each queue, and tells the journal's segments which messages live in them. Nothing
here waits: a record is in the journal's buffer when a call returns, and on disk when `Journal.durable_lsn` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from rabbitish.core.exchange import Binding, Destination, Exchange
from rabbitish.core.message import Message
from rabbitish.core.queue import Queue
from rabbitish.store.bodies import (
    Bound,
    Codec,
    DeclaredExchange,
    DeclaredQueue,
    Named,
    encode_publish_head,
    encode_removed,
    encode_returned,
)
from rabbitish.store.journal import Journal
from rabbitish.store.record import Type

_PREDECLARED = "amq."
# At most so many messages in one REMOVE record, so that purging a million makes no record of megabytes.
_REMOVED_AT_ONCE = 4096


class Declared(Protocol):
    """A virtual host, for a snapshot of what is declared in it."""

    name: str
    exchanges: dict[str, Exchange]
    queues: dict[str, Queue]


class JournalRecorder:
    """Records changes. `vhosts` are read when a snapshot is due; queues up to number `used` have been."""

    def __init__(self, codec: Codec, vhosts: Iterable[Declared], used: int = 0) -> None:
        self._codec = codec
        self._vhosts = vhosts
        self._journal: Journal
        self._numbers: dict[Queue, int] = {}
        self._next_number = used + 1

    def attach(self, journal: Journal) -> None:
        """Record into this journal."""
        self._journal = journal

    def know(self, queue: Queue, number: int) -> None:
        """A recovered queue's number."""
        self._numbers[queue] = number
        self._next_number = max(self._next_number, number + 1)

    @property
    def position(self) -> int:
        """See Recorder."""
        return self._journal.last_lsn

    # ---- declarations

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None:
        """See Recorder."""
        self._journal.append(Type.EXCHANGE_NEW, self._exchange(vhost, exchange))

    def exchange_deleted(self, vhost: str, exchange: Exchange) -> None:
        """See Recorder."""
        self._journal.append(Type.EXCHANGE_GONE, Named(vhost, exchange.name).encode())

    def queue_declared(self, vhost: str, queue: Queue) -> None:
        """See Recorder."""
        self.know(queue, self._next_number)
        self._journal.append(Type.QUEUE_NEW, self._queue(vhost, queue))

    def queue_deleted(self, queue: Queue) -> None:
        """See Recorder."""
        number = self._numbers.pop(queue)
        self._journal.segments.remove_queue(number)
        self._journal.append(Type.QUEUE_GONE, number.to_bytes(4, "big"))

    def bound(self, vhost: str, binding: Binding) -> None:
        """See Recorder."""
        self._journal.append(Type.BOUND, self._binding(vhost, binding))

    def unbound(self, vhost: str, binding: Binding) -> None:
        """See Recorder."""
        self._journal.append(Type.UNBOUND, self._binding(vhost, binding))

    def _exchange(self, vhost: str, exchange: Exchange) -> bytes:
        return DeclaredExchange(
            vhost, exchange.name, exchange.type, exchange.auto_delete, exchange.internal, exchange.arguments
        ).encode(self._codec)

    def _queue(self, vhost: str, queue: Queue) -> bytes:
        number = self._numbers[queue]
        return DeclaredQueue(number, vhost, queue.name, queue.auto_delete, queue.arguments).encode(self._codec)

    def _binding(self, vhost: str, binding: Binding) -> bytes:
        to = binding.destination
        return Bound(
            vhost, binding.source.name, isinstance(to, Exchange), to.name, binding.routing_key, binding.arguments
        ).encode(self._codec)

    def snapshot(self, journal: Journal) -> None:
        """Tell everything that is declared, at the beginning of a segment."""
        append = journal.append_snapshot
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

    def _stands(self, vhost: Declared, destination: Destination) -> bool:
        """Whether it is durable and there: what is being deleted loses its bindings only after that was recorded."""
        if isinstance(destination, Exchange):
            return destination.durable and vhost.exchanges.get(destination.name) is destination
        return destination in self._numbers

    # ---- messages

    def published(self, queues: Sequence[Queue], messages: Sequence[Message], now: int) -> None:
        """See Recorder."""
        journal, codec = self._journal, self._codec
        first = messages[0]
        numbers = [self._numbers[queue] for queue in queues]
        head = encode_publish_head(now, codec.channel_of(first), numbers, first.address)
        content_of, append = codec.content_of, journal.append
        for message in messages:
            message.lsn = lsn = append(Type.PUBLISH, head, content_of(message))
            for number in numbers:
                journal.segments.add(lsn, number, 1)

    def removed(self, queue: Queue, messages: Sequence[Message]) -> None:
        """See Recorder."""
        number = self._numbers[queue]
        remove = self._journal.segments.remove
        lsns = [message.lsn for message in messages]
        for lsn in lsns:
            remove(lsn, number)
        for start in range(0, len(lsns), _REMOVED_AT_ONCE):
            self._journal.append(Type.REMOVE, encode_removed(number, lsns[start : start + _REMOVED_AT_ONCE]))

    def returned(self, queue: Queue, message: Message, returns: int) -> None:
        """See Recorder."""
        self._journal.append(Type.RETURNED, encode_returned(self._numbers[queue], message.lsn, returns))
