"""What the cases driven by pika share: closes with their exact text, an inbox of deliveries, proof of silence.

Nothing here sleeps. That something happens is waited for with a deadline. That nothing happens is proven by order:
`publish` waits for the confirm, so the queue has handled the message and sent out what was due; a round trip on the
consumer's channel (`settle`) then comes behind any delivery. A passive declare proves nothing by itself: RabbitMQ lets
it overtake messages and requeues that wait in the queue's mailbox, so a count after an ack or nack needs `eventually`.
Cases are written for vhost "/", whose name is part of most texts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakSet

from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from conformance.support import DEADLINE, eventually

_confirming: WeakSet[BlockingChannel] = WeakSet()


class Message(NamedTuple):
    """A message as it came out of a queue: the arguments of its deliver or get-ok, its properties, its body."""

    method: Any
    properties: BasicProperties
    body: bytes

    @property
    def headers(self) -> dict[str, Any]:
        return dict(self.properties.headers or {})


# --- errors ----------------------------------------------------------------------------------------------------------


@contextmanager
def closes(channel: BlockingChannel, code: int, text: str) -> Iterator[None]:
    """What is done inside makes the broker close this channel with exactly this, and leave the connection alone."""
    with _closed_by_broker(channel, ChannelClosedByBroker, code, text):
        yield
    assert channel.connection.is_open, "the whole connection was closed"


@contextmanager
def ends_connection(channel: BlockingChannel, code: int, text: str) -> Iterator[None]:
    """What is done inside makes the broker close the whole connection with exactly this."""
    with _closed_by_broker(channel, ConnectionClosedByBroker, code, text):
        yield


@contextmanager
def _closed_by_broker(channel: BlockingChannel, kind: type[Any], code: int, text: str) -> Iterator[None]:
    try:
        yield
        sync(channel)
    except kind as close:
        got = (close.reply_code, close.reply_text)
        assert got == (code, text), f"wanted {code} {text!r}, got {got}"
    else:
        raise AssertionError(f"wanted {code} {text!r}, but nothing was closed")


def locked(queue: str) -> str:
    """The text for a queue that is exclusive to another connection, or not declared exclusive both times."""
    return (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. "
        "It could be originally declared on another connection or the exclusive property value does not match that of "
        "the original declaration."
    )


def no_queue(queue: str) -> str:
    """The text for a queue that is not there."""
    return f"NOT_FOUND - no queue '{queue}' in vhost '/'"


def no_exchange(exchange: str) -> str:
    """The text for an exchange that is not there."""
    return f"NOT_FOUND - no exchange '{exchange}' in vhost '/'"


# --- round trips -----------------------------------------------------------------------------------------------------


def sync(channel: BlockingChannel) -> None:
    """A round trip that changes nothing: the broker has handled what this channel sent, and the channel lives."""
    channel.flow(True)


def settle(*channels: BlockingChannel) -> None:
    """A round trip on each channel; deliveries the broker had sent out before are in their inboxes after this."""
    for channel in channels:
        sync(channel)
        channel.connection.process_data_events(0)


# --- publishing and getting ------------------------------------------------------------------------------------------


def publish(channel: BlockingChannel, key: str, *bodies: str | bytes, exchange: str = "", **properties: Any) -> None:
    """Publish each body and wait for its confirm; keyword arguments are message properties.

    Puts the channel into confirm mode.
    """
    if channel not in _confirming:
        channel.confirm_delivery()
        _confirming.add(channel)
    for body in bodies:
        channel.basic_publish(exchange, key, body, BasicProperties(**properties))


def get(channel: BlockingChannel, queue: str, auto_ack: bool = True) -> Message | None:
    """basic.get: a message or None."""
    method, properties, body = channel.basic_get(queue, auto_ack)
    return None if method is None else Message(method, properties, body)


def must_get(channel: BlockingChannel, queue: str, auto_ack: bool = True) -> Message:
    """basic.get, again and again until there is a message."""
    deadline = time.monotonic() + DEADLINE
    while (message := get(channel, queue, auto_ack)) is None:
        assert time.monotonic() < deadline, f"nothing came to {queue}"
        channel.connection.sleep(0.005)
    return message


def drain(channel: BlockingChannel, queue: str, count: int = 0) -> list[str]:
    """The bodies of all ready messages, in the order they come out, once there are at least `count`.

    A count is for what a closed channel gives back: RabbitMQ requeues what it got by basic.get only after close-ok.
    """
    if count:
        eventually(lambda: ready(channel, queue) >= count)
    bodies: list[str] = []
    while (message := get(channel, queue)) is not None:
        bodies.append(message.body.decode())
    return bodies


def counts(channel: BlockingChannel, queue: str) -> tuple[int, int]:
    """(ready messages, consumers) by a passive declare."""
    ok = channel.queue_declare(queue, passive=True).method
    return ok.message_count, ok.consumer_count


def ready(channel: BlockingChannel, queue: str) -> int:
    """The number of ready messages by a passive declare."""
    return counts(channel, queue)[0]


def let_pass(channel: BlockingChannel, ms: int) -> None:
    """Wait until the broker itself has let so many milliseconds pass: until a message with that expiration is gone."""
    marker = channel.queue_declare("", exclusive=True).method.queue
    publish(channel, marker, "m", expiration=str(ms))
    eventually(lambda: ready(channel, marker) == 0, every=0.002)
    channel.queue_delete(marker)


# --- consuming -------------------------------------------------------------------------------------------------------


class Inbox:
    """A consumer and what it was sent."""

    def __init__(self, channel: BlockingChannel, queue: str, **options: Any) -> None:
        self.channel = channel
        self.messages: list[Message] = []
        self.tag: str = channel.basic_consume(queue, self._on_message, **options)

    def _on_message(self, _: BlockingChannel, method: Any, properties: BasicProperties, body: bytes) -> None:
        self.messages.append(Message(method, properties, body))

    def take(self, count: int) -> list[Message]:
        """Wait for `count` messages, remove them from the inbox and return them."""
        deadline = time.monotonic() + DEADLINE
        while len(self.messages) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"wanted {count} messages, only {self.bodies()} came"
            self.channel.connection.process_data_events(left)
        taken, self.messages[:] = self.messages[:count], self.messages[count:]
        return taken

    def take_bodies(self, count: int) -> list[str]:
        """The bodies of the next `count` messages."""
        return [message.body.decode() for message in self.take(count)]

    def bodies(self) -> list[str]:
        """The bodies of what has come and was not taken, without waiting."""
        return [message.body.decode() for message in self.messages]
