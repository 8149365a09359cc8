"""A channel: declaring, publishing, and the way to queues and exchanges. Made by `Connection.channel`.

The object outlives connections: `restore` gives it a new channel on the next one. Every operation therefore starts with
asking for the state that is current (`ready`), which waits while the connection is away. An error of the broker's over
an operation closes the channel for good, as AMQP has it; a new one is another block.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import trio

from rabbitish.client.consumer import Consumer
from rabbitish.client.errors import ChannelClosed, ClientError, ConnectionLost, PublishReturned, PublishUnconfirmed
from rabbitish.client.message import IncomingMessage
from rabbitish.client.protocol.channel import ChannelState
from rabbitish.client.protocol.confirms import Publish
from rabbitish.client.protocol.connection import Protocol
from rabbitish.client.protocol.content import Message, MessageProperties
from rabbitish.client.protocol.delivery import Delivery
from rabbitish.client.publishing import OUT_BYTES_HIGH, WINDOW, Many, encode
from rabbitish.client.queue import Exchange, Queue
from rabbitish.client.topics import SubscribeOptions, subscription
from rabbitish.client.waiting import wait
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.method import Method

if TYPE_CHECKING:
    from rabbitish.client.connection import Connection

M = TypeVar("M", bound=Method)
_REPLY_TO = "amq.rabbitmq.reply-to"
_TRIES = 3  # of an operation during which the connection was lost


class Channel:
    """A channel: where a program declares, publishes and consumes. Made by `Connection.channel`.

    A connection has as many as it likes; they are cheap, and what goes wrong on one leaves the others alone. An
    operation that the broker refuses raises and closes its channel for good, as AMQP has it: go on with another one.
    Any number of tasks may use one channel.
    """

    def __init__(self, connection: Connection, state: ChannelState, *, confirms: bool) -> None:
        self.connection = connection
        self.confirms = confirms
        self.state = state
        self.consumers: weakref.WeakSet[Consumer] = weakref.WeakSet()
        self.on_return: Callable[[PublishReturned, IncomingMessage], None] | None = None
        """Called with the error and the message when one comes back that nobody waits for: without confirms."""
        self.on_restored: Callable[[], None] | None = None
        """Called when it is there again on another connection; what was on its way on the old one is lost."""
        self._tags = itertools.count(1)
        self.limit: methods.BasicQos | None = None
        """What `qos` has set."""
        self._orphans: list[Publish] = []
        self._error: ClientError | None = None
        self._watch(state)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, connection: Connection, *, confirms: bool) -> AsyncIterator[Channel]:
        """See `Connection.channel`."""
        while connection.closed is None and not connection.connected:
            await connection.wait_change()
        channel = cls(connection, connection.protocol().channel(), confirms=confirms)
        connection.channels.append(channel)
        try:
            opened = channel.state.open(confirms=confirms)
            try:
                await wait(opened)
            except ConnectionLost as error:
                if not connection.comes_back(error):
                    raise
                await channel.ready()
            yield channel
        finally:
            connection.channels.remove(channel)
            closed = channel.close()
        if closed is not None:
            await wait(closed)

    # ---- what becomes of it

    @property
    def closed(self) -> ClientError | None:
        """Why it cannot be used any more; None: it can, or the connection is coming back."""
        if self._error is not None:
            return self._error
        error = self.state.error
        return None if error is None or self.connection.comes_back(error) else error

    def close(self) -> Any:
        """Close it at once, without waiting for the broker; what it held unsettled goes back into the queues."""
        before, error = self.state.error, ChannelClosed(200, "the program closed the channel")
        closed = self.state.close()
        self.lose(error)
        return closed if before is None else None

    def lose(self, error: ClientError) -> None:
        """It is gone for good."""
        if self._error is None:
            self._error = self.state.error if isinstance(self.state.error, ChannelClosed) else error
        orphans = [*self._orphans, *self.state.orphans]
        self._orphans, self.state.orphans = [], []
        for publish in orphans:
            unknown = PublishUnconfirmed()
            unknown.__cause__ = error
            publish.fail(unknown)

    async def ready(self) -> ChannelState:
        """The state that is current, as soon as there is one. ClientError: there will not be one any more."""
        while True:
            state = self.state
            if self._error is not None:
                raise self._error.again()
            if state.error is None and self.connection.connected:
                return state
            if state.error is not None and not self.connection.comes_back(state.error):
                raise state.error.again()
            await self.connection.wait_change()

    async def restore(self, protocol: Protocol) -> None:
        """Be there on another connection, with all that it was. ClientError: that did not work."""
        self._orphans += self.state.orphans
        self.state.orphans = []
        state = protocol.channel()
        self._watch(state)
        await wait(state.open(confirms=self.confirms))
        if self.limit is not None:
            await wait(state.request(self.limit, methods.BasicQosOk))
        for consumer in list(self.consumers):
            await consumer.restore(state)
        self.state = state
        if self.on_restored is not None:
            self.on_restored()
        orphans, self._orphans = self._orphans, []
        for publish in orphans:
            publish.retry = False
            state.publish(publish)

    def _watch(self, state: ChannelState) -> None:
        state.on_return = self._returned

    def _returned(self, error: PublishReturned, delivery: Delivery) -> None:
        if self.on_return is not None and isinstance(delivery, IncomingMessage):
            self.on_return(error, delivery)

    async def ask(self, method: Method, answer: type[M]) -> M:
        """Have one of AMQP's questions answered, again if the connection was lost meanwhile. ClientError: no."""
        for last in (*[False] * (_TRIES - 1), True):
            state = await self.ready()
            try:
                return await wait(state.request(method, answer))
            except ConnectionLost as error:
                if last or not self.connection.comes_back(error):
                    raise
        raise AssertionError

    # ---- exchanges and queues

    def queue(self, queue: str) -> Queue:
        """A queue that is there already; nothing is asked of the broker."""
        return Queue(self, queue)

    def exchange(self, exchange: str, type: str = "direct") -> Exchange:  # noqa: A002 (AMQP's word)
        """An exchange that is there already; nothing is asked of the broker. "" is the default exchange."""
        return Exchange(self, exchange, type)

    async def declare_queue(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Table | None = None,
    ) -> Queue:
        """Create a queue, or check that it is as described; an empty name has the broker choose one.

        `passive`: only look whether it is there (NotFound). `durable`: it survives the broker. `exclusive`: for this
        connection alone, and gone with it. `auto_delete`: gone with its last consumer. See `queue_arguments`.
        PreconditionFailed: it is there and different; ResourceLocked: it is another connection's.
        """
        method = methods.QueueDeclare(
            queue=queue,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments or {},
        )
        answer = await self.ask(method, methods.QueueDeclareOk)
        self.connection.topology.note(method, answer.queue)
        declared = Queue(self, answer.queue, answer.message_count, answer.consumer_count)
        if not queue:
            declared.follow_name()
        return declared

    async def declare_exchange(
        self,
        exchange: str,
        type: str = "direct",  # noqa: A002 (AMQP's word)
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table | None = None,
    ) -> Exchange:
        """Create an exchange, or check that it is as described.

        `passive`: only look whether it is there (NotFound). `durable`: it survives the broker. `auto_delete`: gone with
        its last binding. `internal`: only other exchanges send to it. See `exchange_arguments`. PreconditionFailed: it
        is there and different.
        """
        method = methods.ExchangeDeclare(
            exchange=exchange,
            type=type,
            passive=passive,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            arguments=arguments or {},
        )
        await self.ask(method, methods.ExchangeDeclareOk)
        self.connection.topology.note(method)
        return Exchange(self, exchange, type)

    @contextlib.asynccontextmanager
    async def subscribe(self, *routing_keys: str, **options: Unpack[SubscribeOptions]) -> AsyncIterator[Consumer]:
        """A block with the messages that a topic exchange gets for these patterns: `orders.*.created`, `logs.#`.

        `exchange`: "amq.topic" unless given. `queue`: the name of a durable queue that stays and gathers messages
        while nobody is there; without it there is a queue only during the block. The other options are
        `Queue.consume`'s. NotFound: there is no such exchange.
        """
        async with subscription(self, routing_keys, options) as messages:
            yield messages

    async def change(self, method: Method, answer: type[M]) -> M:
        """Ask for something that changes what is declared, and remember it."""
        result = await self.ask(method, answer)
        self.connection.topology.note(method)
        return result

    async def qos(self, prefetch_count: int) -> None:
        """Limit how many messages all consumers of the channel together hold unsettled; 0: no limit.

        Each consumer has a limit of its own besides, the `prefetch` of `Queue.consume`.
        """
        method = methods.BasicQos(prefetch_count=prefetch_count, global_=True)
        await self.ask(method, methods.BasicQosOk)
        self.limit = method

    def next_tag(self) -> str:
        """A consumer tag that is not used on the channel."""
        return f"ctag-{next(self._tags)}"

    # ---- publishing

    async def publish(
        self,
        body: Any,
        *,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool | None = None,
        **properties: Unpack[MessageProperties],
    ) -> None:
        """Publish a message, and wait until the broker has confirmed it.

        `body`: bytes, text, anything that the serialiser takes, or a `Message`. Persistent unless `delivery_mode` is 1.
        `mandatory`: it is an error if no queue takes it; by default that holds for the default exchange, where the
        routing key names a queue, and not for others, where nobody may be listening.

        Waits while the broker blocks, and while too much is waiting to be sent. PublishReturned: no queue takes it;
        PublishNacked: a queue refused it; PublishUnconfirmed: the connection was lost, so nobody knows; ChannelClosed:
        the broker refused it otherwise, NotFound for an exchange that is not there. Cancelled before it was sent, the
        message is not sent; afterwards it is, and nobody knows more.
        """
        publish = self.prepare(body, exchange, routing_key, mandatory, properties)
        state = self.state
        if self.must_wait():
            state = await self.sendable()
        state.publish(publish)
        if publish.done:  # no confirms
            await trio.lowlevel.checkpoint_if_cancelled()
            publish.result()
            return
        try:
            await wait(publish)
        except trio.Cancelled:
            publish.retry = False
            raise

    async def publish_many(
        self,
        messages: Iterable[Any] | AsyncIterable[Any],
        *,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool | None = None,
        window: int = WINDOW,
        **properties: Unpack[MessageProperties],
    ) -> int:
        """Publish bodies or `Message`s, with up to `window` of them not confirmed; returns how many there were.

        A `Message` may have an exchange and a routing key of its own. Returns when all are confirmed. After a message
        that failed no more are sent, the others in the window are waited for, and PublishManyFailed tells which failed.
        `mandatory` and the properties are those of `publish`. ValueError: `window` is less than 1.
        """
        return await Many(self, exchange, routing_key, mandatory, window, properties).publish(messages)

    def prepare(
        self, body: Any, exchange: str, routing_key: str, mandatory: bool | None, properties: MessageProperties
    ) -> Publish:
        """A message, ready to be sent. What the serialiser raises; ValueError, TypeError: a property AMQP lacks."""
        if isinstance(body, Message):
            exchange = exchange if body.exchange is None else body.exchange
            routing_key = routing_key if body.routing_key is None else body.routing_key
        raw, content = encode(body, properties, self.connection.serialisers)
        if mandatory is None:
            # A reply to a direct reply-to is delivered and returned at the same time.
            mandatory = not exchange and not routing_key.startswith(_REPLY_TO)
        reconnect = self.connection.reconnect
        retry = reconnect is not None and reconnect.publishes == "retry"
        return Publish(exchange, routing_key, mandatory, raw, content, retry)

    def must_wait(self) -> bool:
        """Whether nothing can be published this moment."""
        state = self.state
        protocol = state.protocol
        return (
            state.error is not None
            or protocol.blocked is not None
            or protocol.out_bytes > OUT_BYTES_HIGH
            or not state.flow
            or not self.connection.connected
        )

    async def sendable(self) -> ChannelState:
        """The state that is current, as soon as something can be published. ClientError: never again."""
        while True:
            state = await self.ready()
            if not self.must_wait():
                return state
            await self.connection.wait_change()
