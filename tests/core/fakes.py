"""What stands in for sessions in the core's tests: messages over dictionaries, consumers over lists, and a world.

`World` is a broker with one virtual host, a clock that only moves when told to, and an abbreviation for everything that
a client may do. After whatever it does it settles, as the server does after a batch of input, and has the broker check
itself; `batch` holds that back, for what arrives together. Queues are durable and messages persistent unless a test
says otherwise, and a `Ledger` keeps the books of what would be on disk, which are compared each time too. With a
`window_bytes` queues put what they hold on a shelf.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple, Self

from rabbitish.core.broker import Broker
from rabbitish.core.exchange import Exchange
from rabbitish.core.lane import Lane
from rabbitish.core.message import Address, Message, Stamp, Traits
from rabbitish.core.queue import Queue
from rabbitish.core.vhost import Vhost
from rabbitish.values import Table, Value

from .ledger import Ledger
from .shelf import MemoryShelf

_serials = count(1)
YEAR = 365 * 24 * 3600 * 1000
START = 1_700_000_000_000  # a moment in wall milliseconds at which the worlds begin


class PlainMessage(Message):
    """A message over plain values; tests know it by its body.

    `serial` is the same for all objects that are the same message: twins, and what comes back from a shelf.
    """

    __slots__ = ("_expiration", "_headers", "body", "origin", "serial", "whole")

    def __init__(
        self,
        body: str = "",
        *,
        address: Address | None = None,
        headers: Table | None = None,
        priority: int = 0,
        expiration: int | None = None,
        size: int | None = None,
        persistent: bool = False,
    ) -> None:
        self.body = body
        self.serial = next(_serials)
        self.lsn = 0
        self.origin = 0  # the number of the message that it was derived from
        self.size = len(body) if size is None else size
        traits = Traits(persistent=persistent, priority=priority, expiration_ms=expiration)
        self.stamp = Stamp(address or Address("", ""), traits, self.size)
        self.deadline = None
        self._headers: Table = headers or {}
        self.whole: PlainMessage | None = None  # of a husk: what it is the husk of
        self._expiration = None if expiration is None else str(expiration)

    def __repr__(self) -> str:
        return f"<{self.body} until {self.deadline}>"

    @property
    def away(self) -> bool:
        """See Message."""
        return self.whole is not None

    def husk(self) -> PlainMessage:
        """See Message. It keeps its body, so that tests know it, and nothing else."""
        husk = self.twin()
        husk.deadline, husk.whole = self.deadline, self
        return husk

    def headers(self) -> Table:
        """See Message."""
        assert not self.away, "a husk has no headers"
        return self._headers

    def expiration(self) -> str | None:
        """See Message."""
        return self._expiration

    def derived(self, address: Address, headers: Table, *, keep_expiration: bool) -> PlainMessage:
        """See Message."""
        message = self.twin()
        message.serial = next(_serials)
        message._headers, message.lsn, message.origin = headers, 0, self.lsn
        traits = self.traits
        if not keep_expiration:
            message._expiration = None
            traits = traits._replace(expiration_ms=None)
        message.stamp = Stamp(address, traits, self.size)
        return message

    def twin(self) -> Self:
        """See Message."""
        twin = type(self)(self.body, headers=self._headers)
        twin.stamp, twin.size, twin._expiration = self.stamp, self.size, self._expiration
        twin.lsn, twin.origin, twin.serial = self.lsn, self.origin, self.serial
        return twin


def bodies(messages: Iterable[Message]) -> list[str]:
    """The bodies of messages, in order."""
    return [message.body for message in messages if isinstance(message, PlainMessage)]


class Held(NamedTuple):
    """A delivery that nobody has acknowledged yet."""

    queue: Queue
    lane: Lane
    position: int
    message: Message
    returns: int

    @property
    def body(self) -> str:
        """Which message it is."""
        return bodies([self.message])[0]

    def headers(self) -> Table:
        """Its headers."""
        return self.message.headers()


_tags = count(1)


class ListConsumer:
    """A consumer that keeps what it gets in a list, and has room for `prefetch` unacknowledged messages."""

    def __init__(
        self, *, prefetch: int = 1 << 30, no_ack: bool = False, exclusive: bool = False, priority: int = 0
    ) -> None:
        self.tag = f"c{next(_tags)}"
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.waiting = False
        self.channel: object = self
        self.prefetch = prefetch
        self.held: list[Held] = []
        self.got: list[str] = []  # the bodies of everything that ever came
        self.redelivered: list[str] = []
        self.queue: Queue | None = None
        self.told = 0  # how often it was told that its queue has gone

    def __repr__(self) -> str:
        return f"<{self.tag} {self.got}>"

    def room(self) -> int:
        """See Consumer."""
        return self.prefetch - len(self.held)

    def deliver(self, lane: Lane, first: int, messages: Sequence[Message], returns: int, step: int = 1) -> int:
        """See Consumer."""
        assert self.queue is not None
        assert 0 < len(messages) <= self.room()
        assert not any(message.away for message in messages), "a consumer gets whole messages"
        self.got += bodies(messages)
        if returns:
            self.redelivered += bodies(messages)
        if not self.no_ack:
            if self.queue.crowded:
                messages = self.queue.take_husks(messages)
            self.held += [
                Held(self.queue, lane, first + step * index, message, returns) for index, message in enumerate(messages)
            ]
        return sum(message.size for message in messages)

    def options_changed(self, now: int) -> None:
        """See Consumer."""

    def queue_gone(self) -> None:
        """See Consumer."""
        self.told += 1


class World:
    """A broker with one virtual host, and what clients do to it."""

    def __init__(self, *, settle_budget: int = 1000, window_bytes: int = 0) -> None:
        tokens = count(1)
        self.broker = Broker(token=lambda: f"{next(tokens):022}", settle_budget=settle_budget)
        self.vhost: Vhost = self.broker.add_vhost("/")
        self.shelf = MemoryShelf()
        if window_bytes:
            self.broker.usage.shelf, self.broker.usage.window_bytes = self.shelf, window_bytes
        self.ledger = Ledger()
        self.broker.record(self.ledger)
        self.now = START
        self.me: object = "me"
        self.got: list[Held] = []  # what was fetched with `get` and not acknowledged
        self.consumers: list[ListConsumer] = []
        self._held_back = 0
        self._steps = 0

    # ---- time

    @property
    def elapsed(self) -> int:
        """Milliseconds since the world began."""
        return self.now - START

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What happens in here arrives in one batch of input, and is settled together."""
        self._held_back += 1
        yield
        self._held_back -= 1
        self.settle()

    def settle(self) -> int | None:
        """Let the broker do what there is to do now; the moment at which it wants to be called again."""
        if self._held_back:
            return None
        while (due := self.broker.settle(self.now)) is not None and due <= self.now:
            self.broker.check()
        self.broker.check()
        assert not self.broker.restless
        self._steps += 1
        if self._steps % 64 == 0 or sum(queue.ready + queue.unacked for queue in self.vhost.queues.values()) < 64:
            self.compare()
        return due

    def compare(self) -> None:
        """Assert that what is on disk is what there is."""
        held = [*self.got, *(held for consumer in self.consumers for held in consumer.held)]
        self.ledger.compare(self.vhost, held)

    def wait(self, ms: int) -> None:
        """Let time pass as it does for a server: it is called at every deadline that it asks for."""
        until = self.now + ms
        while (due := self.settle()) is not None and due <= until:
            self.now = due
        self.now = until
        self.settle()

    def jump(self, ms: int) -> None:
        """Let time pass with the server asleep until the end of it."""
        self.now += ms
        self.settle()

    # ---- topology

    def queue(
        self,
        name: str = "q",
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        owner: object = None,
        **arguments: Value,
    ) -> Queue:
        """Declare a queue; `max_length=1` stands for the argument x-max-length."""
        queue = self.vhost.declare_queue(
            name,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments={f"x-{key.replace('_', '-')}": value for key, value in arguments.items()},
            owner=owner or self.me,
            now=self.now,
        )
        self.settle()
        return queue

    def exchange(
        self, name: str, kind: str = "direct", *, durable: bool = True, auto_delete: bool = False, **arguments: Value
    ) -> Exchange:
        """Declare an exchange; `alternate_exchange="e"` stands for that argument."""
        table = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.vhost.declare_exchange(
            name, kind, durable=durable, auto_delete=auto_delete, internal=False, arguments=table
        )

    def bind(self, source: str, destination: str, key: str = "", *, exchange: bool = False) -> None:
        """Bind a queue, or an exchange."""
        target = self.vhost.exchange(destination) if exchange else self.vhost.queue(destination, self.me)
        self.vhost.bind(source, target, key, {})

    def delete(self, name: str = "q", *, if_unused: bool = False, if_empty: bool = False, owner: object = None) -> int:
        """Delete a queue; how many messages were ready."""
        count = self.vhost.delete_queue(name, owner or self.me, self.now, if_unused=if_unused, if_empty=if_empty)
        self.settle()
        return count

    # ---- messages

    def publish(
        self,
        body: str,
        key: str = "q",
        *,
        exchange: str = "",
        cc: tuple[str, ...] = (),
        headers: Table | None = None,
        priority: int = 0,
        expiration: int | None = None,
        size: int | None = None,
        persistent: bool = True,
    ) -> bool | None:
        """Publish a message: whether all queues took it, or None when there was no queue for it."""
        message = PlainMessage(
            body,
            address=Address(exchange, key, cc),
            headers={**(headers or {}), **({"CC": list(cc)} if cc else {})},
            priority=priority,
            expiration=expiration,
            size=size,
            persistent=persistent,
        )
        targets = self.vhost.route(self.vhost.exchange(exchange), message.address.routing_keys, message.headers())
        self.vhost.record_published(targets, message, self.now)
        accepted = [target.enqueue(message, self.now) for target in targets]
        self.settle()
        return all(accepted) if accepted else None

    def publish_all(self, texts: Iterable[str], key: str = "q", *, expiration: int | None = None) -> None:
        """Publish messages in one batch, one for each letter or item."""
        with self.batch():
            for body in texts:
                self.publish(body, key, expiration=expiration)

    def ready(self, name: str = "q") -> str:
        """What is ready in a queue, in order, without taking it: "abc" for three messages."""
        return "".join(bodies(self.vhost.queues[name]))

    def get(self, name: str = "q", *, no_ack: bool = False) -> Held | None:
        """Fetch one message."""
        queue = self.vhost.queue(name, self.me)
        taken = queue.take(self.now, no_ack=no_ack)
        queue.touch(self.now)
        held = Held(queue, *taken) if taken is not None else None
        if held is not None and not no_ack:
            self.got.append(held)
        self.settle()
        return held

    def _fetched(self, body: str) -> Held:
        held = next(held for held in self.got if held.body == body)
        self.got.remove(held)
        return held

    def get_all(self, name: str = "q", *, no_ack: bool = False) -> str:
        """Fetch what there is, in order."""
        found = ""
        while (held := self.get(name, no_ack=no_ack)) is not None:
            found += held.body
        return found

    def ack(self, *fetched: str) -> None:
        """Acknowledge what was fetched, by body."""
        for body in fetched:
            self._done(self._fetched(body))
        self.settle()

    def requeue(self, *fetched: str) -> None:
        """Give back what was fetched, by body."""
        for body in fetched:
            self._give_back(self._fetched(body))
        self.settle()

    def reject(self, *fetched: str) -> None:
        """Reject what was fetched, by body, for the dead-letter exchange."""
        for body in fetched:
            held = self._fetched(body)
            held.queue.reject([held.message], self.now)
        self.settle()

    def _done(self, held: Held) -> None:
        held.queue.acknowledge([held.message])

    def _give_back(self, held: Held) -> None:
        held.queue.requeue(held.lane, held.position, [held.message], held.returns + 1, self.now)

    # ---- consumers

    def consume(
        self,
        name: str = "q",
        *,
        prefetch: int = 1 << 30,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int = 0,
    ) -> ListConsumer:
        """Start a consumer."""
        consumer = ListConsumer(prefetch=prefetch, no_ack=no_ack, exclusive=exclusive, priority=priority)
        consumer.queue = self.vhost.queue(name, self.me)
        self.vhost.consume(consumer.queue, consumer)
        self.consumers.append(consumer)
        self.settle()
        return consumer

    def cancel(self, consumer: ListConsumer) -> None:
        """Cancel a consumer; it keeps what it has unacknowledged."""
        assert consumer.queue is not None
        self.vhost.cancel(consumer.queue, consumer, self.now)
        self.settle()

    def die(self, consumer: ListConsumer) -> None:
        """A consumer's channel is closed: it is cancelled and what it has unacknowledged goes back."""
        with self.batch():
            self.cancel(consumer)
            for held in self._settled(consumer, len(consumer.held)):
                self._give_back(held)

    def ack_by(self, consumer: ListConsumer, most: int = 1 << 30) -> None:
        """A consumer acknowledges its oldest messages."""
        for held in self._settled(consumer, most):
            self._done(held)
        self.settle()

    def requeue_by(self, consumer: ListConsumer, most: int = 1 << 30) -> None:
        """A consumer gives back its oldest messages."""
        with self.batch():
            for held in self._settled(consumer, most):
                self._give_back(held)

    def reject_by(self, consumer: ListConsumer, most: int = 1 << 30) -> None:
        """A consumer rejects its oldest messages."""
        for held in self._settled(consumer, most):
            held.queue.reject([held.message], self.now)
        self.settle()

    def _settled(self, consumer: ListConsumer, most: int) -> list[Held]:
        settled, consumer.held = consumer.held[:most], consumer.held[most:]
        self.wake(consumer)
        return settled

    def wake(self, consumer: ListConsumer) -> None:
        """A consumer may have room again."""
        if consumer.queue is not None:
            consumer.queue.wake(consumer)
