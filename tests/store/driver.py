"""Worlds with a journal: what server/ does between sessions, journal and disk, one step after the other.

`Durable` is the world of tests/session with a journal under it. Whatever settles is written at once, and synced if
somebody waits for it, unless `lazy`: then the test says when (`sync`, which is also the moment after which the server
syncs what nobody waits for). As in the server, dead segments go before the next write, a session that waits for the
disk is not heard before, and what everybody has acknowledged is confirmed without the disk. Queues keep `window_bytes`
in memory: by default next to nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from rabbitish.core.broker import Broker
from rabbitish.core.exchange import Exchange
from rabbitish.session.content import WireCodec, WireMessage
from rabbitish.store.compaction import Compaction
from rabbitish.store.coordinator import Coordinator, LocalCoordinator
from rabbitish.store.record import parse_segment_name
from rabbitish.store.recovery import Recovered, recover
from tests.session.harness import START, World
from tests.wire.helpers import exact

from .fake_disk import FakeDisk

SEGMENT_BYTES = 1 << 20
WINDOW_BYTES = 900  # two messages
IN_MEMORY = 1 << 40


class Durable(World):
    """A broker, its clients, and its journal."""

    def __init__(
        self,
        disk: FakeDisk,
        *,
        now: int = START,
        segment_bytes: int = SEGMENT_BYTES,
        window_bytes: int = WINDOW_BYTES,
        lazy: bool = False,
        coordinator: Coordinator | None = None,
    ) -> None:
        super().__init__()
        self.disk = disk
        self.now = now
        self.lazy = lazy
        self.failures: list[Exception] = []  # reading back failed
        self.codec = WireCodec(self.hub.properties)
        self.recovered: Recovered = recover(
            disk,
            self.broker,
            self.codec,
            coordinator or LocalCoordinator(disk, lambda: "this very disk"),
            now,
            segment_bytes=segment_bytes,
            on_failure=self.failures.append,
        )
        self.journal = self.recovered.journal
        self.hub.durable = self.hub.safe = self.journal.durable_lsn
        self.broker.narrow_windows(window_bytes)
        self._dead: list[str] = []

    def settle(self) -> None:
        """See World. OSError: the disk failed; the broker would stop."""
        while True:
            self._settle()
            if self.lazy or not self._step():
                return

    def _settle(self) -> None:
        while True:
            self.broker.settle(self.now)
            if self.journal.needed.done > self.hub.safe:
                self.hub.now_safe(self.journal.needed.done)
            self.look_through()
            touched, self.hub.touched = self.hub.touched, []
            for session in touched:
                session.listed = False
            for session, client in self.clients.items():
                if session.outbox.held_until <= self.hub.durable:
                    client.collect()
            fed = [client for client in self.clients.values() if client.feed()]
            if not (fed or self.broker.restless):
                return

    def _step(self, *, at_once: bool = False) -> bool:
        """What the syncer does when it is told; False: there is nothing to do."""
        journal = self.journal
        waited_for = self.hub.wanted > journal.durable_lsn
        batches = journal.take(everything=at_once or not waited_for)
        at_once |= waited_for
        dead, self._dead = self._dead, []
        if not (batches or dead or (at_once and journal.written_lsn > journal.durable_lsn)):
            return False
        journal.delete(dead)
        if batches:
            journal.write(batches)
            journal.written(batches[-1].last_lsn, sum(batch.size for batch in batches))
        if at_once:
            journal.sync()
            self._dead += journal.synced(journal.written_lsn)
            self.hub.now_durable(journal.durable_lsn)
        return True

    def sync(self) -> None:
        """Write and sync what there is, and let those hear of it who waited."""
        while self._step(at_once=True):
            self._settle()

    def compact(self) -> int:
        """Write segments anew while that is worth it; how often. OSError: the disk failed; the broker would stop."""
        rounds = 0
        while sparse := self.journal.sparse():
            compaction = Compaction(self.journal, self.codec, sparse)
            compaction.write()
            self.sync()
            compaction.install()
            compaction.finish()
            self._dead += self.journal.take_gone()
            rounds += 1
            assert rounds < 100
        self.sync()
        return rounds

    def whole(self, message: WireMessage) -> WireMessage:
        """A message with its content, which may not be in memory."""
        return whole_of(message, self.broker)

    def segments(self) -> list[str]:
        """The files of the journal, oldest first."""
        return sorted(name for name in self.disk.names() if parse_segment_name(name))


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
                        _message_state(whole_of(message, broker), back.get(id(message), 0))
                        for message in lane
                        if (message.stamp.persistent or message.lsn) and isinstance(message, WireMessage)
                    ]
                state.queues[vhost.name, queue.name] = QueueState(
                    repr(exact(queue.arguments)), queue.auto_delete, messages
                )
    return state


def whole_of(message: WireMessage, broker: Broker) -> WireMessage:
    """A message with its content, which may not be in memory."""
    if message.away:
        assert broker.usage.shelf is not None
        whole = broker.usage.shelf.recall(message)
        assert isinstance(whole, WireMessage)
        return whole
    return message


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
