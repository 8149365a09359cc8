"""What a test sees of a broker: virtual hosts, queues, exchanges, messages, connections.

A `Vhost`, `Queue` or `Exchange` is a name, looked up whenever it is asked for something, so that it can be had before
the thing is declared and kept after it is gone. What it gives (`Message`, `Binding`, `Connection`) is a copy that no
longer changes. Nothing here consumes, and nothing marks a message as delivered.

`Reach` says how to get at the bench: straight, for a test in the broker's own event loop, or from another thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import quote

from rabbitish.core import exchange as core_exchange
from rabbitish.core import queue as core_queue
from rabbitish.core.message import Message as CoreMessage
from rabbitish.core.paging import Shelf
from rabbitish.session.connection import Session
from rabbitish.session.content import WireMessage
from rabbitish.testing.bench import Bench
from rabbitish.testing.faults import Fault, How
from rabbitish.testing.publish import properties_of, publish
from rabbitish.values import Table
from rabbitish.wire.properties import Properties

T = TypeVar("T")


class Reach(Protocol):
    """Has a function of the bench run in the broker's event loop, after the broker took what its peers had sent."""

    host: str
    port: int
    user: str
    password: str

    def __call__(self, what: Callable[[Bench], T]) -> T: ...


@dataclass(frozen=True, slots=True)
class Message:
    """A copy of a message in a queue, or of one that was published."""

    body: bytes
    properties: Properties
    exchange: str
    """What it was published to; for a dead letter, the dead-letter exchange."""
    routing_key: str
    redelivered: bool = False
    """Whether it was with a consumer before."""
    expires_in: float | None = None
    """Seconds until it expires; None: it does not."""

    @property
    def headers(self) -> Table:
        """The headers; {} where it has none."""
        return self.properties.headers or {}

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding from an exchange to a queue or to another exchange."""

    source: str
    destination: str
    routing_key: str
    arguments: Table


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection of a client."""

    name: str
    """"127.0.0.1:50412 -> 127.0.0.1:5672", as RabbitMQ names it."""
    user: str
    vhost: str
    client_properties: Table
    channels: int
    blocked: bool
    """Whether it is held back, since it published while publishers are."""


class Queue:
    """A queue by its name, whether it exists or not; looking at it consumes nothing. Made by `Vhost.queue`.

    Whatever but `exists` is asked of it raises LookupError if it does not exist.
    """

    def __init__(self, reach: Reach, vhost: str, name: str) -> None:
        self._reach = reach
        self.vhost = vhost
        self.name = name

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} in {self.vhost!r}>"

    def _ask(self, what: Callable[[core_queue.Queue, Bench], T]) -> T:
        def ask(bench: Bench) -> T:
            queues = bench.vhost(self.vhost).queues
            queue = queues.get(self.name)
            if queue is None:
                raise LookupError(f"there is no queue {self.name!r} in {self.vhost!r}, only {sorted(queues)}")
            return what(queue, bench)

        return self._reach(ask)

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return self._reach(lambda bench: self.name in bench.vhost(self.vhost).queues)

    @property
    def messages(self) -> list[Message]:
        """What is ready, in the order in which it would be delivered."""
        return self._ask(lambda queue, bench: list(_ready(queue, bench.node.broker.usage.shelf, bench.node.now())))

    @property
    def ready(self) -> int:
        """How many messages wait for a consumer."""
        return self._ask(lambda queue, _: queue.ready)

    @property
    def unacked(self) -> int:
        """How many messages consumers have and did not acknowledge."""
        return self._ask(lambda queue, _: queue.unacked)

    @property
    def consumers(self) -> int:
        """How many consumers it has."""
        return self._ask(lambda queue, _: len(queue.consumers))

    @property
    def durable(self) -> bool:
        """Whether it is declared to survive the broker."""
        return self._ask(lambda queue, _: queue.durable)

    @property
    def arguments(self) -> Table:
        """Its arguments (`x-…`), as declared."""
        return self._ask(lambda queue, _: dict(queue.arguments))

    @property
    def bindings(self) -> list[Binding]:
        """The bindings to it; that by its name, which every queue has, is not among them."""
        return self._ask(
            lambda queue, bench: [
                _binding(binding)
                for source in bench.vhost(self.vhost).sources(queue)
                for binding in source.bindings()
                if binding.destination is queue
            ]
        )

    def purge(self) -> int:
        """Drop what is ready; returns how many that were."""
        return self._ask(lambda queue, bench: _settled(queue.purge(), bench))

    def delete(self) -> int:
        """Delete it, as when somebody else does: its consumers are told. Returns how many messages were ready."""
        return self._ask(lambda queue, bench: _settled(bench.vhost(self.vhost).drop_queue(queue), bench))


class Exchange:
    """An exchange by its name, whether it exists or not. Made by `Vhost.exchange`.

    Whatever but `exists` is asked of it raises LookupError if it does not exist.
    """

    def __init__(self, reach: Reach, vhost: str, name: str) -> None:
        self._reach = reach
        self.vhost = vhost
        self.name = name

    def __repr__(self) -> str:
        return f"<Exchange {self.name!r} in {self.vhost!r}>"

    def _ask(self, what: Callable[[core_exchange.Exchange], T]) -> T:
        def ask(bench: Bench) -> T:
            exchanges = bench.vhost(self.vhost).exchanges
            exchange = exchanges.get(self.name)
            if exchange is None:
                raise LookupError(f"there is no exchange {self.name!r} in {self.vhost!r}, only {sorted(exchanges)}")
            return what(exchange)

        return self._reach(ask)

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return self._reach(lambda bench: self.name in bench.vhost(self.vhost).exchanges)

    @property
    def type(self) -> str:
        """ "direct", "fanout", "topic", "headers"."""
        return self._ask(lambda exchange: exchange.type)

    @property
    def durable(self) -> bool:
        """Whether it is declared to survive the broker."""
        return self._ask(lambda exchange: exchange.durable)

    @property
    def arguments(self) -> Table:
        """Its arguments (`x-…`), as declared."""
        return self._ask(lambda exchange: dict(exchange.arguments))

    @property
    def bindings(self) -> list[Binding]:
        """The bindings from it, in the order they were made."""
        return self._ask(lambda exchange: [_binding(binding) for binding in exchange.bindings()])

    @contextmanager
    def published(self) -> Iterator[list[Message]]:
        """A list of what is published to it from now on, wherever that goes; complete at the end of the block."""
        seen: list[Message] = []

        def watch(vhost: str, message: WireMessage) -> None:
            if (vhost, message.address.exchange) == (self.vhost, self.name):
                seen.append(_message(message, 0, None))

        self._reach(lambda bench: bench.publishes.add(watch))
        try:
            yield seen
        finally:
            self._reach(lambda bench: bench.publishes.remove(watch))


class Vhost:
    """A virtual host by its name. Whatever is asked of it raises LookupError if it does not exist."""

    def __init__(self, reach: Reach, name: str) -> None:
        self._reach = reach
        self.name = name

    def __repr__(self) -> str:
        return f"<Vhost {self.name!r}>"

    @property
    def url(self) -> str:
        """Where clients connect; the name is part of it, "/" as %2F."""
        reach = self._reach
        login = f"{quote(reach.user, safe='')}:{quote(reach.password, safe='')}"
        host = f"[{reach.host}]" if ":" in reach.host else reach.host
        return f"amqp://{login}@{host}:{reach.port}/{quote(self.name, safe='')}"

    def queue(self, name: str) -> Queue:
        """A queue, whether it exists or not."""
        return Queue(self._reach, self.name, name)

    def exchange(self, name: str) -> Exchange:
        """An exchange, whether it exists or not."""
        return Exchange(self._reach, self.name, name)

    @property
    def queues(self) -> list[Queue]:
        """All queues, in the order they were declared."""
        names = self._reach(lambda bench: list(bench.vhost(self.name).queues))
        return [self.queue(name) for name in names]

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges that somebody declared, in that order."""
        names = self._reach(lambda bench: list(bench.vhost(self.name).exchanges))
        return [self.exchange(name) for name in names if name and not name.startswith("amq.")]

    @property
    def connections(self) -> list[Connection]:
        """The open connections, oldest first."""
        return self._reach(lambda bench: connections(bench, self.name))

    def publish(self, body: bytes | str, routing_key: str, exchange: str = "", **properties: Any) -> int:
        """Publish a message as if a client did, with AMQP's properties by name; returns how many queues took it.

        LookupError: there is no such exchange. ValueError, TypeError, AMQPError: such properties cannot be.
        """
        data = body.encode() if isinstance(body, str) else body
        given = properties_of(properties)
        return self._reach(lambda bench: publish(bench, self.name, exchange, routing_key, data, given))

    def fail_next_publish(
        self,
        how: How = "nack",
        *,
        times: int = 1,
        exchange: str | None = None,
        routing_key: str | None = None,
        reply_code: int = 406,
        reply_text: str = "a test wants this publish to fail",
    ) -> None:
        """Have the next publish here, or the next `times`, go wrong; only those with this exchange and routing key.

        `how`: "nack", "close-channel" (with `reply_code` and `reply_text`), "drop-connection" or "lose-confirm"; see
        `rabbitish.testing.faults.How`. ValueError: that cannot be.
        """
        fault = Fault(how, times, self.name, exchange, routing_key, reply_code, reply_text)
        self._reach(lambda bench: bench.publishes.plan(fault))

    def drop_connections(self, reason: str | None = None) -> int:
        """Break every connection here without a word, or close it with 320 and this reason; returns how many."""
        return self._reach(lambda bench: drop(bench, bench.sessions(self.name), reason))

    def delete(self) -> None:
        """Delete it with everything in it; its connections break."""
        self._reach(lambda bench: bench.delete_vhost(self.name))


def _settled(result: T, bench: Bench) -> T:
    """What a change gave, once everybody has been told who must know."""
    bench.settle()
    return result


def drop(bench: Bench, sessions: list[Session], reason: str | None) -> int:
    """See Vhost.drop_connections."""
    if reason is None:
        bench.hang_up(sessions)
    else:
        bench.close(sessions, reason)
    return len(sessions)


def connections(bench: Bench, vhost: str | None) -> list[Connection]:
    """The open connections, of one virtual host or of all."""
    return [
        Connection(
            name=session.peer.name,
            user=session.user.name,
            vhost=session.vhost.name,
            client_properties=session.client_properties,
            channels=len(session.channels),
            blocked=session.blocked,
        )
        for session in bench.sessions(vhost)
    ]


def _ready(queue: core_queue.Queue, shelf: Shelf | None, now: int) -> Iterator[Message]:
    for level in sorted(queue.lanes, reverse=True):
        lane = queue.lanes[level]
        for message, returns in lane.returned():
            whole = shelf.recall(message) if message.away and shelf is not None else message
            yield _message(whole, returns, now)
        for kept in lane.never_taken():
            for message in (kept,) if isinstance(kept, CoreMessage) else kept.load():
                yield _message(message, 0, now)


def _message(message: CoreMessage, returns: int, now: int | None) -> Message:
    wire = cast("WireMessage", message)
    return Message(
        body=wire.body(),
        properties=wire.properties(),
        exchange=wire.address.exchange,
        routing_key=wire.address.routing_key,
        redelivered=returns > 0,
        expires_in=None if now is None or wire.deadline is None else (wire.deadline - now) / 1000,
    )


def _binding(binding: core_exchange.Binding) -> Binding:
    return Binding(binding.source.name, binding.destination.name, binding.routing_key, dict(binding.arguments))
