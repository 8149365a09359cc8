"""Worlds with a journal: what server/ does between sessions, journal and disk, one step after the other.

`Durable` is the world of tests/session with a journal under it. Whatever settles is written and synced at once, unless
`lazy`: then the test says when (`sync`). As in the server, dead segments go before the next write, and a session that
waits for the disk is not heard before.
"""

from __future__ import annotations

from typing import NamedTuple

from rabbitish.core.broker import Broker
from rabbitish.core.exchange import Exchange
from rabbitish.session.content import WireCodec, WireMessage
from rabbitish.store.recovery import Recovered, recover
from tests.session.harness import START, World
from tests.wire.helpers import exact

from .fake_disk import FakeDisk

SEGMENT_BYTES = 1 << 20


class Durable(World):
    """A broker, its clients, and its journal."""

    def __init__(
        self, disk: FakeDisk, *, now: int = START, segment_bytes: int = SEGMENT_BYTES, lazy: bool = False
    ) -> None:
        super().__init__()
        self.disk = disk
        self.now = now
        self.lazy = lazy
        codec = WireCodec(self.hub.properties)
        self.recovered: Recovered = recover(disk, self.broker, codec, now, segment_bytes=segment_bytes)
        self.journal = self.recovered.journal
        self.hub.durable = self.journal.durable_lsn
        self._dead: list[int] = []

    def settle(self) -> None:
        """See World. OSError: the disk failed; the broker would stop."""
        while True:
            self._settle()
            if self.lazy or not (self.journal.waiting or self._dead):
                return
            self._sync()

    def _settle(self) -> None:
        while True:
            self.broker.settle(self.now)
            self.broker.check()
            touched, self.hub.touched = self.hub.touched, []
            for session in touched:
                session.listed = False
            for session, client in self.clients.items():
                if session.outbox.held_until <= self.hub.durable:
                    client.collect()
            fed = [client for client in self.clients.values() if client.feed()]
            if not (fed or self.broker.restless):
                return

    def _sync(self) -> None:
        batches = self.journal.take()
        dead, self._dead = self._dead, []
        self.journal.delete(dead)
        if not batches:
            return
        lsn = self.journal.write(batches)
        self._dead += self.journal.synced(lsn)
        self.hub.now_durable(lsn)

    def sync(self) -> None:
        """Write and sync what waits, and let those hear of it who waited."""
        self._sync()
        self._settle()

    def segments(self) -> list[str]:
        """The files of the journal, oldest first."""
        return sorted(self.disk.names())


class MessageState(NamedTuple):
    """Everything of a message that must survive."""

    body: bytes
    properties: str
    exchange: str
    routing_keys: tuple[str, ...]
    deadline: int | None
    returns: int


class QueueState(NamedTuple):
    """Everything of a queue that must survive."""

    arguments: str
    auto_delete: bool
    messages: list[MessageState]


class State(NamedTuple):
    """Everything of a broker that must survive."""

    exchanges: dict[tuple[str, str], tuple[str, bool, bool, str]]
    queues: dict[tuple[str, str], QueueState]
    bindings: set[tuple[str, str, str, bool, str, str]]


def state_of(broker: Broker) -> State:
    """What must survive of this broker as it is; what is unacknowledged must have been given back before."""
    state = State({}, {}, set())
    for vhost in broker.vhosts.values():
        for exchange in vhost.exchanges.values():
            if not exchange.durable:
                continue
            state.exchanges[vhost.name, exchange.name] = (
                exchange.type,
                exchange.auto_delete,
                exchange.internal,
                repr(exact(exchange.arguments)),
            )
            for binding in exchange.bindings():
                to = binding.destination
                if to.durable:
                    names = (vhost.name, exchange.name, to.name)
                    state.bindings.add(
                        (*names, isinstance(to, Exchange), binding.routing_key, repr(exact(binding.arguments)))
                    )
        for queue in vhost.queues.values():
            if queue.durable:
                assert not queue.unacked
                messages: list[MessageState] = []
                for level in sorted(queue.lanes, reverse=True):
                    lane = queue.lanes[level]
                    back = {id(message): returns for message, returns in lane._back.values()}
                    messages += [
                        _message_state(message, back.get(id(message), 0))
                        for message in lane
                        if message.stamp.persistent and isinstance(message, WireMessage)
                    ]
                state.queues[vhost.name, queue.name] = QueueState(
                    repr(exact(queue.arguments)), queue.auto_delete, messages
                )
    return state


def _message_state(message: WireMessage, returns: int) -> MessageState:
    address = message.address
    return MessageState(
        message.body(),
        repr(message.properties()) + repr(exact(message.headers())),
        address.exchange,
        address.routing_keys,
        message.deadline,
        returns,
    )
