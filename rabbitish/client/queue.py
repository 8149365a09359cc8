"""Queues and exchanges as a program holds them: names on a channel, with what can be done to them.

They are cheap and own nothing: a queue is not deleted when its object is gone.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Unpack

from rabbitish.client.consumer import Consumer
from rabbitish.client.message import IncomingMessage
from rabbitish.client.protocol.arguments import consumer_arguments
from rabbitish.client.protocol.content import MessageProperties
from rabbitish.client.protocol.delivery import Delivery
from rabbitish.client.protocol.promise import Promise
from rabbitish.client.waiting import wait
from rabbitish.values import Table
from rabbitish.wire import methods

if TYPE_CHECKING:
    from rabbitish.client.channel import Channel
    from rabbitish.client.connection import Connection
    from rabbitish.client.topics import SubscribeOptions

PREFETCH = 100
_followers: weakref.WeakKeyDictionary[Connection, weakref.WeakSet[Queue]] = weakref.WeakKeyDictionary()


class Queue:
    """A queue by its name, `queue`. Made by `Channel.declare_queue`, or `Channel.queue` for one that is there.

    `message_count` and `consumer_count` are what it had when it was declared. The object owns nothing: when it is gone,
    the queue is not.
    """

    def __init__(self, channel: Channel, queue: str, message_count: int = 0, consumer_count: int = 0) -> None:
        self.channel = channel
        self.queue = queue
        self.message_count = message_count
        self.consumer_count = consumer_count

    def __repr__(self) -> str:
        return f"<Queue {self.queue!r}>"

    def follow_name(self) -> None:
        """The broker chose the name, and will choose another if it is declared again on the next connection."""
        _followers.setdefault(self.channel.connection, weakref.WeakSet()).add(self)

    @staticmethod
    def renamed(connection: Connection, old: str, new: str) -> None:
        """The broker chose another name."""
        for queue in _followers.get(connection, ()):
            if queue.queue == old:
                queue.queue = new

    async def bind(self, exchange: Exchange | str, routing_key: str = "", *, arguments: Table | None = None) -> None:
        """Have it get what reaches the exchange and fits. NotFound: one of the two is not there."""
        method = methods.QueueBind(
            queue=self.queue, exchange=name_of(exchange), routing_key=routing_key, arguments=arguments or {}
        )
        await self.channel.change(method, methods.QueueBindOk)

    async def unbind(self, exchange: Exchange | str, routing_key: str = "", *, arguments: Table | None = None) -> None:
        """Remove the binding with this routing key and these arguments; it is no error if there is no such binding."""
        method = methods.QueueUnbind(
            queue=self.queue, exchange=name_of(exchange), routing_key=routing_key, arguments=arguments or {}
        )
        await self.channel.change(method, methods.QueueUnbindOk)

    async def purge(self) -> int:
        """Drop all messages that are ready; returns how many there were. NotFound: there is no such queue."""
        return (await self.channel.ask(methods.QueuePurge(queue=self.queue), methods.QueuePurgeOk)).message_count

    async def delete(self, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete it; returns how many messages went with it. It is no error if there is none.

        `if_unused`, `if_empty`: PreconditionFailed, if it has consumers or messages. ResourceLocked: it is exclusive to
        another connection.
        """
        method = methods.QueueDelete(queue=self.queue, if_unused=if_unused, if_empty=if_empty)
        return (await self.channel.change(method, methods.QueueDeleteOk)).message_count

    def delete_soon(self) -> None:
        """Delete it without waiting for the broker to have done so: also where the program is being cancelled."""
        method = methods.QueueDelete(queue=self.queue)
        self.channel.connection.topology.note(method)
        self.channel.state.request(method, methods.QueueDeleteOk)

    async def publish(self, body: Any, **properties: Unpack[MessageProperties]) -> None:
        """Publish straight to it, through the default exchange; see `Channel.publish`."""
        await self.channel.publish(body, routing_key=self.queue, **properties)

    async def get(self, *, no_ack: bool = False) -> IncomingMessage | None:
        """Take one message, to be settled unless `no_ack`; None: it is empty. NotFound: there is no such queue.

        Each call is a round trip to the broker. To get all messages, consume.
        """
        state = await self.channel.ready()
        promise = state.get(methods.BasicGet(queue=self.queue, no_ack=no_ack))
        delivery = await wait(promise, _give_back)
        assert delivery is None or isinstance(delivery, IncomingMessage)
        return delivery

    def consume(
        self,
        *,
        prefetch: int = PREFETCH,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int | None = None,
        consumer_tag: str = "",
        arguments: Table | None = None,
    ) -> Consumer:
        """The queue's messages, to iterate over: `async with queue.consume() as messages`, `async for message in …`.

        `prefetch`: how many may be here unsettled; 0: any number. `no_ack`: the broker forgets a message when it has
        sent it. `exclusive`: nobody else may consume. `priority`: consumers with a higher one get messages first.
        `consumer_tag`: its name, made up unless given. Nothing is asked of the broker before the block, or the loop,
        begins; then NotFound: there is no such queue; AccessRefused: somebody consumes it exclusively.
        """
        arguments = consumer_arguments(priority=priority, more=arguments)
        consume = methods.BasicConsume(
            queue=self.queue, consumer_tag=consumer_tag, no_ack=no_ack, exclusive=exclusive, arguments=arguments
        )
        return Consumer(self.channel, self, prefetch, consume)


def _give_back(promise: Promise[Delivery | None]) -> None:
    """Whoever asked for a message was cancelled before it came."""
    if promise.value is not None and not promise.value.settled:
        promise.value.reject(requeue=True)


class Exchange:
    """An exchange by its name, `exchange`. Made by `Channel.declare_exchange`, or by `Channel.exchange`."""

    def __init__(self, channel: Channel, exchange: str, type: str = "direct") -> None:  # noqa: A002 (AMQP's word)
        self.channel = channel
        self.exchange = exchange
        self.type = type

    def __repr__(self) -> str:
        return f"<Exchange {self.exchange!r} {self.type}>"

    async def publish(
        self,
        body: Any,
        routing_key: str = "",
        *,
        mandatory: bool | None = None,
        **properties: Unpack[MessageProperties],
    ) -> None:
        """Publish to it; see `Channel.publish`."""
        await self.channel.publish(
            body, exchange=self.exchange, routing_key=routing_key, mandatory=mandatory, **properties
        )

    @contextlib.asynccontextmanager
    async def subscribe(self, *routing_keys: str, **options: Unpack[SubscribeOptions]) -> AsyncIterator[Consumer]:
        """`Channel.subscribe`, to this exchange."""
        here: SubscribeOptions = {**options, "exchange": self.exchange}
        async with self.channel.subscribe(*routing_keys, **here) as messages:
            yield messages

    async def bind(self, source: Exchange | str, routing_key: str = "", *, arguments: Table | None = None) -> None:
        """Have it get what reaches another exchange and fits (RabbitMQ's). NotFound: one of the two is not there."""
        method = methods.ExchangeBind(
            destination=self.exchange, source=name_of(source), routing_key=routing_key, arguments=arguments or {}
        )
        await self.channel.change(method, methods.ExchangeBindOk)

    async def unbind(self, source: Exchange | str, routing_key: str = "", *, arguments: Table | None = None) -> None:
        """Remove the binding with this routing key and these arguments; it is no error if there is none."""
        method = methods.ExchangeUnbind(
            destination=self.exchange, source=name_of(source), routing_key=routing_key, arguments=arguments or {}
        )
        await self.channel.change(method, methods.ExchangeUnbindOk)

    async def delete(self, *, if_unused: bool = False) -> None:
        """Delete it, with its bindings; it is no error if there is none.

        `if_unused`: PreconditionFailed, if anything is bound to it.
        """
        method = methods.ExchangeDelete(exchange=self.exchange, if_unused=if_unused)
        await self.channel.change(method, methods.ExchangeDeleteOk)


def name_of(exchange: Exchange | str) -> str:
    """An exchange's name, for either way to say which."""
    return exchange if isinstance(exchange, str) else exchange.exchange
