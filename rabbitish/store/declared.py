"""What is declared: the records that tell of virtual hosts, exchanges, queues and bindings, added up.

Snapshots begin each segment of a journal; one that the end of the journal cuts short does not count. A checkpoint keeps
the records of one snapshot alone. What carried sessions have sent is told in the same way, and so is here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rabbitish.core.sendings import MOST_CHANNELS, Numbers
from rabbitish.store.bodies import Bound, Codec, DeclaredExchange, DeclaredQueue, Named, decode_sent
from rabbitish.store.record import Type


class Declared(NamedTuple):
    """What is declared at some point of the journal."""

    vhosts: dict[str, None]
    exchanges: dict[tuple[str, str], DeclaredExchange]
    queues: dict[int, DeclaredQueue]
    bindings: dict[bytes, Bound]
    sent: dict[bytes, dict[int, Numbers]]
    """By session and channel; those come last that it was told of last."""
    access: bytes = b""
    """The document of users, permissions and policies, where the journal keeps it."""


class Declarations:
    """Takes records in order; `declared` is what they add up to."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.declared = Declared({}, {}, {}, {}, {})
        # What was declared before the snapshot that is being read, which may turn out to have no end.
        self._before: Declared | None = None
        # Snapshots mostly tell what the one before told.
        self._queues_known: dict[bytes, DeclaredQueue] = {}
        # The keys of bindings by what they lead to, once that was asked; some may be there no more.
        self._leading_to: dict[tuple[str, bool, str], dict[bytes, None]] = {}
        self._lead_of: dict[bytes, Bound] | None = None  # these bindings
        self.highest_queue = 0
        self._handlers: dict[Type, Callable[[bytes], None]] = {
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
            Type.ACCESS: self._access,
            Type.SENT: self._sent,
        }

    def take(self, kind: Type, body: bytes) -> None:
        """Take the next record; those of other types tell nothing here."""
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(body)

    def finish(self) -> None:
        """There are no more records."""
        if self._before is not None:
            self.declared, self._before = self._before, None

    def _snapshot(self, body: bytes) -> None:
        if self._before is None:
            self._before = self.declared
        self.declared = Declared({}, {}, {}, {}, {})

    def _snapshot_end(self, body: bytes) -> None:
        self._before = None

    def _vhost_new(self, body: bytes) -> None:
        self.declared.vhosts[Named.decode(body, self._codec).vhost] = None

    def _vhost_gone(self, body: bytes) -> None:
        self.declared.vhosts.pop(Named.decode(body, self._codec).vhost, None)

    def _exchange_new(self, body: bytes) -> None:
        exchange = DeclaredExchange.decode(body, self._codec)
        self.declared.exchanges[exchange.vhost, exchange.name] = exchange

    def _exchange_gone(self, body: bytes) -> None:
        self._drop_exchange(*Named.decode(body, self._codec))

    def _drop_exchange(self, vhost: str, name: str) -> None:
        self.declared.exchanges.pop((vhost, name), None)
        bindings = self.declared.bindings
        for key in [key for key, bound in bindings.items() if (bound.vhost, bound.source) == (vhost, name)]:
            del bindings[key]
        self._drop_bindings(vhost, name, to_exchange=True)

    def _queue_new(self, body: bytes) -> None:
        queue = self._queues_known.get(body)
        if queue is None:
            queue = self._queues_known[body] = DeclaredQueue.decode(body, self._codec)
        self.declared.queues[queue.number] = queue
        self.highest_queue = max(self.highest_queue, queue.number)

    def _queue_gone(self, body: bytes) -> None:
        self._drop_queue(int.from_bytes(body, "big"))

    def _drop_queue(self, number: int) -> None:
        queue = self.declared.queues.pop(number, None)
        if queue is not None:
            self._drop_bindings(queue.vhost, queue.name, to_exchange=False)

    def _drop_bindings(self, vhost: str, destination: str, *, to_exchange: bool) -> None:
        bindings = self.declared.bindings
        if self._lead_of is not bindings:
            self._lead_of = bindings
            self._leading_to.clear()
            for key, bound in bindings.items():
                self._leads(key, bound)
        for key in self._leading_to.pop((vhost, to_exchange, destination), ()):
            bindings.pop(key, None)

    def _leads(self, key: bytes, bound: Bound) -> None:
        self._leading_to.setdefault((bound.vhost, bound.to_exchange, bound.destination), {})[key] = None

    def _bound(self, body: bytes) -> None:
        known = self._before.bindings.get(body) if self._before is not None else None
        bindings = self.declared.bindings
        bound = bindings[body] = known or Bound.decode(body, self._codec)
        if self._lead_of is bindings:
            self._leads(body, bound)

    def _unbound(self, body: bytes) -> None:
        self.declared.bindings.pop(body, None)

    def _access(self, body: bytes) -> None:
        self.declared = self.declared._replace(access=body)

    def _sent(self, body: bytes) -> None:
        session, channel, ranges = decode_sent(body)
        if not (channel or ranges):  # it is over
            self.declared.sent.pop(session, None)
            return
        channels = self.declared.sent.setdefault(session, {})
        numbers = channels[channel] = channels.pop(channel, Numbers())  # the last, since it is told of last
        for first, last in ranges:
            numbers.add(first, last)
        if len(channels) > MOST_CHANNELS:
            del channels[next(iter(channels))]
