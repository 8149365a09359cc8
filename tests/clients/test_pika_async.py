"""pika's callback adapters: SelectConnection with its own loop, AsyncioConnection on an asyncio loop.

Both run the same conversation, a chain of callbacks as pika's asynchronous examples are written: each answer from the
broker starts the next step, and the last closes the connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pika
import pytest
from pika.adapters.asyncio_connection import AsyncioConnection

from .support import DEADLINE, Broker, Proxy

MESSAGES = 10


class Conversation:
    """Publishes with confirms, consumes with prefetch, acknowledges, cancels and closes; `said` is the record."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.connection: Any = None
        self.channel: Any = None
        self.consumer_tag = ""
        self.said: list[str] = []
        self.confirmed = 0
        self.bodies: list[bytes] = []
        self.closed_with: BaseException | None = None

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_open_callback": self.on_open,
            "on_open_error_callback": self.on_closed,
            "on_close_callback": self.on_closed,
        }

    def on_open(self, connection: Any) -> None:
        self.connection = connection
        self.said.append("open")
        connection.channel(on_open_callback=self.on_channel)

    def on_channel(self, channel: Any) -> None:
        self.channel = channel
        self.said.append("channel")
        channel.add_on_cancel_callback(lambda frame: self.said.append("cancelled by broker"))
        channel.queue_declare(self.queue, callback=self.on_declared)

    def on_declared(self, frame: Any) -> None:
        assert frame.method.queue == self.queue
        self.said.append("declared")
        self.channel.confirm_delivery(self.on_confirm, callback=self.on_confirming)

    def on_confirming(self, frame: Any) -> None:
        self.said.append("confirming")
        for number in range(MESSAGES):
            self.channel.basic_publish("", self.queue, b"%d" % number, mandatory=True)

    def on_confirm(self, frame: Any) -> None:
        assert isinstance(frame.method, pika.spec.Basic.Ack)
        self.confirmed = frame.method.delivery_tag if frame.method.multiple else self.confirmed + 1
        if self.confirmed == MESSAGES:
            self.said.append("confirmed")
            self.channel.basic_qos(prefetch_count=3, callback=self.on_qos)

    def on_qos(self, frame: Any) -> None:
        self.consumer_tag = self.channel.basic_consume(self.queue, self.on_message)

    def on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.bodies.append(body)
        channel.basic_ack(method.delivery_tag)
        if len(self.bodies) == MESSAGES:
            self.said.append("consumed")
            channel.basic_cancel(self.consumer_tag, callback=self.on_cancelled)

    def on_cancelled(self, frame: Any) -> None:
        assert frame.method.consumer_tag == self.consumer_tag
        self.said.append("cancelled")
        self.connection.close()

    def on_closed(self, connection: Any, reason: BaseException) -> None:
        self.closed_with = reason


EVERYTHING = ["open", "channel", "declared", "confirming", "confirmed", "consumed", "cancelled"]


def run_select(conversation: Conversation, url: str) -> None:
    connection = pika.SelectConnection(pika.URLParameters(url), **conversation.callbacks())
    conversation_closed, late = conversation.on_closed, []

    def stop(connection: Any, reason: BaseException) -> None:
        conversation_closed(connection, reason)
        connection.ioloop.stop()

    conversation.on_closed = stop  # type: ignore[method-assign]
    connection.add_on_close_callback(stop)
    connection.add_on_open_error_callback(stop)
    connection.ioloop.call_later(DEADLINE, lambda: (late.append(True), connection.ioloop.stop()))
    connection.ioloop.start()
    connection.ioloop.close()
    assert not late, f"after {DEADLINE} s only {conversation.said}"


def run_asyncio(conversation: Conversation, url: str) -> None:
    async def main() -> None:
        closed = asyncio.Event()
        connection = AsyncioConnection(pika.URLParameters(url), **conversation.callbacks())
        connection.add_on_close_callback(lambda *_: closed.set())
        connection.add_on_open_error_callback(lambda *_: closed.set(), remove_default=False)
        async with asyncio.timeout(DEADLINE):
            await closed.wait()

    asyncio.run(main())


ADAPTERS = pytest.mark.parametrize("run", [run_select, run_asyncio], ids=["select", "asyncio"])


@ADAPTERS
def test_whole_conversation(broker_url: str, name: str, run: Any) -> None:
    conversation = Conversation(name)
    run(conversation, broker_url)
    assert conversation.said == EVERYTHING
    assert conversation.bodies == [b"%d" % number for number in range(MESSAGES)]
    assert isinstance(conversation.closed_with, pika.exceptions.ConnectionClosedByClient)


class DeletedUnderneath(Conversation):
    """The queue is deleted while it is consumed: the broker cancels, and the client takes that for the end."""

    def on_confirming(self, frame: Any) -> None:
        self.channel.add_on_cancel_callback(lambda frame: self.connection.close())
        self.channel.basic_consume(self.queue, self.on_message, callback=self.on_consuming)

    def on_consuming(self, frame: Any) -> None:
        self.said.append("consuming")
        self.channel.queue_delete(self.queue, callback=lambda _: self.said.append("deleted"))


@ADAPTERS
def test_consumer_cancelled_after_its_own_channel_deletes_the_queue(broker_url: str, name: str, run: Any) -> None:
    conversation = DeletedUnderneath(name)
    run(conversation, broker_url)
    assert conversation.said[-3:] == ["consuming", "deleted", "cancelled by broker"]


class ChannelReopened(Conversation):
    """The broker closes a channel with 404; the client opens another on the same connection and goes through."""

    def on_channel(self, channel: Any) -> None:
        if self.channel is None:
            self.channel = channel
            channel.add_on_close_callback(self.on_channel_closed)
            channel.queue_declare(self.queue, passive=True)
        else:
            super().on_channel(channel)

    def on_channel_closed(self, channel: Any, reason: Any) -> None:
        self.said.append(f"{reason.reply_code} {reason.reply_text}")
        self.connection.channel(on_open_callback=self.on_channel)


@ADAPTERS
def test_channel_closed_by_the_broker_is_opened_again(broker_url: str, name: str, run: Any) -> None:
    conversation = ChannelReopened(name)
    run(conversation, broker_url)
    error = f"404 NOT_FOUND - no queue '{name}' in vhost '/'"
    assert conversation.said == ["open", error, *EVERYTHING[1:]]


class Cut(Conversation):
    """The network breaks once the consumer has everything."""

    proxy: Proxy

    def on_cancelled(self, frame: Any) -> None:
        self.said.append("cancelled")
        self.proxy.cut()


@ADAPTERS
def test_lost_connection_is_told_and_a_second_one_goes_through(
    broker: Broker, proxy: Proxy, name: str, run: Any
) -> None:
    url = broker.at(proxy.port).url
    first = Cut(name)
    first.proxy = proxy
    run(first, url)
    assert isinstance(first.closed_with, pika.exceptions.StreamLostError)
    second = Conversation(name)
    run(second, url)
    assert second.said == EVERYTHING
