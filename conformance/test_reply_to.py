"""Direct reply-to: requests carry a name that leads straight back to the requester's channel, without a queue."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pika
import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError

from conformance.clients import Inbox, closes, ends_connection, must_get, no_queue, publish, settle, sync
from conformance.support import Names, differs

Connect = Callable[..., pika.BlockingConnection]

REPLY_TO = "amq.rabbitmq.reply-to"
NO_CONSUMER = "PRECONDITION_FAILED - fast reply consumer does not exist"


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """The queue for requests."""
    return str(channel.queue_declare(name()).method.queue)


@pytest.fixture
def server(channel: BlockingChannel) -> BlockingChannel:
    """The channel that answers."""
    return channel.connection.channel()


def _replies(channel: BlockingChannel, **options: Any) -> Inbox:
    return Inbox(channel, REPLY_TO, auto_ack=True, **options)


def _request(channel: BlockingChannel, server: BlockingChannel, queue: str, body: str = "ping") -> str:
    """Send a request and return where its reply goes."""
    channel.basic_publish("", queue, body.encode(), BasicProperties(reply_to=REPLY_TO))
    reply_to = must_get(server, queue).properties.reply_to
    assert isinstance(reply_to, str)
    return reply_to


# --- request and reply -----------------------------------------------------------------------------------------------


def test_request_and_reply(channel: BlockingChannel, server: BlockingChannel, queue: str) -> None:
    inbox = _replies(channel)
    reply_to = _request(channel, server, queue)
    assert re.fullmatch(r"amq\.rabbitmq\.reply-to\.[^.]+\..+", reply_to)
    server.basic_publish("", reply_to, b"pong", BasicProperties(correlation_id="c", headers={"a": 1}))
    (got,) = inbox.take(1)
    method = got.method
    assert (method.consumer_tag, method.exchange, method.routing_key) == (inbox.tag, "", reply_to)
    assert (method.delivery_tag, method.redelivered) == (1, False)
    assert (got.body, got.properties.correlation_id, got.headers) == (b"pong", "c", {"a": 1})


def test_many_replies_to_one_request(channel: BlockingChannel, server: BlockingChannel, queue: str) -> None:
    inbox = _replies(channel)
    reply_to = _request(channel, server, queue)
    for body in "abc":
        server.basic_publish("", reply_to, body.encode())
    assert inbox.take_bodies(3) == ["a", "b", "c"]


def test_requests_of_a_channel_have_the_same_name(
    channel: BlockingChannel, server: BlockingChannel, queue: str
) -> None:
    _replies(channel)
    assert _request(channel, server, queue) == _request(channel, server, queue)


def test_other_channels_have_other_names(
    channel: BlockingChannel, connect: Connect, server: BlockingChannel, queue: str
) -> None:
    channels = [channel, channel.connection.channel(), connect().channel()]
    inboxes = [_replies(one) for one in channels]
    names = [_request(one, server, queue) for one in channels]
    assert len(set(names)) == 3
    for number, reply_to in enumerate(names):
        server.basic_publish("", reply_to, str(number).encode())
    assert [inbox.take_bodies(1) for inbox in inboxes] == [["0"], ["1"], ["2"]]


def test_the_answer_from_another_connection(channel: BlockingChannel, connect: Connect, queue: str) -> None:
    inbox = _replies(channel)
    far = connect().channel()
    reply_to = _request(channel, far, queue)
    publish(far, reply_to, "pong")
    assert inbox.take_bodies(1) == ["pong"]


def test_big_and_empty_replies(channel: BlockingChannel, server: BlockingChannel, queue: str) -> None:
    inbox = _replies(channel)
    reply_to = _request(channel, server, queue)
    for body in (b"", b"x" * 300_000):
        server.basic_publish("", reply_to, body)
        assert inbox.take(1)[0].body == body


def test_replies_use_up_no_delivery_tag(channel: BlockingChannel, server: BlockingChannel, queue: str) -> None:
    """A reply cannot be acked; it carries the tag that the next message will have."""
    inbox = _replies(channel)
    reply_to = _request(channel, server, queue)
    for body in (b"a", b"b"):
        server.basic_publish("", reply_to, body)
    assert [message.method.delivery_tag for message in inbox.take(2)] == [1, 1]
    publish(server, queue, "other")
    assert must_get(channel, queue).method.delivery_tag == 1
    server.basic_publish("", reply_to, b"c")
    assert inbox.take(1)[0].method.delivery_tag == 2


def test_a_chosen_consumer_tag(channel: BlockingChannel, server: BlockingChannel, queue: str) -> None:
    inbox = _replies(channel, consumer_tag="mine")
    server.basic_publish("", _request(channel, server, queue), b"pong")
    assert inbox.take(1)[0].method.consumer_tag == "mine"


def test_mandatory_replies_arrive_and_are_returned(
    channel: BlockingChannel, server: BlockingChannel, queue: str
) -> None:
    """No queue took the reply, so it counts as unroutable all the same."""
    inbox = _replies(channel)
    reply_to = _request(channel, server, queue)
    server.confirm_delivery()
    with pytest.raises(UnroutableError):
        server.basic_publish("", reply_to, b"pong", mandatory=True)
    assert inbox.take_bodies(1) == ["pong"]


def test_requests_through_any_exchange(
    channel: BlockingChannel, server: BlockingChannel, queue: str, name: Names
) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange)
    inbox = _replies(channel)
    channel.basic_publish(exchange, "k", b"ping", BasicProperties(reply_to=REPLY_TO))
    server.basic_publish("", str(must_get(server, queue).properties.reply_to), b"pong")
    assert inbox.take_bodies(1) == ["pong"]


def test_no_prefetch_holds_replies(channel: BlockingChannel, server: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=1)
    inbox = _replies(channel)
    reply_to = _request(channel, server, queue)
    for _ in range(5):
        server.basic_publish("", reply_to, b"pong")
    assert len(inbox.take(5)) == 5


# --- asking whether the requester lives ------------------------------------------------------------------------------


@pytest.mark.parametrize("passive", [True, False])
def test_declare_tells_that_the_requester_lives(
    channel: BlockingChannel, server: BlockingChannel, queue: str, passive: bool
) -> None:
    _replies(channel)
    reply_to = _request(channel, server, queue)
    ok = server.queue_declare(reply_to, passive=passive).method
    assert (ok.queue, ok.message_count, ok.consumer_count) == (reply_to, 0, 1)


@pytest.mark.parametrize("end", ["cancel", "channel", "connection"])
def test_declare_tells_that_the_requester_is_gone(
    channel: BlockingChannel, connect: Connect, server: BlockingChannel, queue: str, end: str
) -> None:
    requester = connect().channel()
    inbox = _replies(requester)
    reply_to = _request(requester, server, queue)
    if end == "cancel":
        requester.basic_cancel(inbox.tag)
    else:
        (requester if end == "channel" else requester.connection).close()
    with closes(server, 404, no_queue(reply_to)):
        server.queue_declare(reply_to, passive=True)


@pytest.mark.parametrize("consuming", [False, True])
def test_declare_of_the_plain_name_succeeds_always(channel: BlockingChannel, consuming: bool) -> None:
    if consuming:
        _replies(channel)
    ok = channel.queue_declare(REPLY_TO, passive=True).method
    assert (ok.queue, ok.message_count, ok.consumer_count) == (REPLY_TO, 0, 1)


@pytest.mark.parametrize("nonsense", [".x", ".", "x"])
def test_declare_of_a_name_nobody_has(channel: BlockingChannel, nonsense: str) -> None:
    with closes(channel, 404, no_queue(REPLY_TO + nonsense)):
        channel.queue_declare(REPLY_TO + nonsense, passive=True)


@differs(
    rabbitmq=(ends_connection, 541, "INTERNAL_ERROR"),
    rabbitish=(closes, 404, no_queue(REPLY_TO + ".x.y")),
    reason="RabbitMQ crashes on a token that it cannot decode; to us it is a name that nobody has",
)
def test_declare_of_a_name_nobody_could_have(connect: Connect, expected: Any) -> None:
    channel = connect().channel()
    broken, code, text = expected
    with broken(channel, code, text):
        channel.queue_declare(REPLY_TO + ".x.y", passive=True)


@differs(
    rabbitmq="INTERNAL_ERROR",
    rabbitish=None,
    reason="RabbitMQ crashes on a token that it cannot decode; to us the requester is gone",
)
def test_reply_to_a_name_nobody_could_have(connect: Connect, expected: str | None) -> None:
    channel = connect().channel()
    if expected is None:
        publish(channel, REPLY_TO + ".x.y", "dropped and confirmed")
        return
    with ends_connection(channel, 541, expected):
        channel.basic_publish("", REPLY_TO + ".x.y", b"m")


@pytest.mark.parametrize("end", ["cancel", "channel"])
def test_replies_to_the_gone_are_dropped(
    channel: BlockingChannel, server: BlockingChannel, queue: str, end: str
) -> None:
    requester = channel.connection.channel()
    inbox = _replies(requester)
    reply_to = _request(requester, server, queue)
    if end == "cancel":
        requester.basic_cancel(inbox.tag)
    else:
        requester.close()
    publish(server, reply_to, "dropped and confirmed")
    with pytest.raises(UnroutableError):
        server.basic_publish("", reply_to, b"returned", mandatory=True)


def test_replies_with_a_wrong_key_are_dropped(channel: BlockingChannel, server: BlockingChannel, queue: str) -> None:
    inbox = _replies(channel)
    start, key = _request(channel, server, queue).rsplit(".", 1)
    false = f"{start}.{'A' * len(key)}"
    publish(server, false, "dropped and confirmed")
    with pytest.raises(UnroutableError):
        server.basic_publish("", false, b"returned", mandatory=True)
    settle(server, channel)
    assert inbox.bodies() == []


# --- misuse ----------------------------------------------------------------------------------------------------------


def test_a_request_without_consumer(channel: BlockingChannel, queue: str) -> None:
    with closes(channel, 406, NO_CONSUMER):
        channel.basic_publish("", queue, b"ping", BasicProperties(reply_to=REPLY_TO))


def test_a_request_from_another_channel(channel: BlockingChannel, queue: str) -> None:
    _replies(channel)
    other = channel.connection.channel()
    with closes(other, 406, NO_CONSUMER):
        other.basic_publish("", queue, b"ping", BasicProperties(reply_to=REPLY_TO))


def test_a_request_after_cancel(channel: BlockingChannel, queue: str) -> None:
    channel.basic_cancel(_replies(channel).tag)
    with closes(channel, 406, NO_CONSUMER):
        channel.basic_publish("", queue, b"ping", BasicProperties(reply_to=REPLY_TO))


def test_the_consumer_must_not_ack(channel: BlockingChannel) -> None:
    with closes(channel, 406, "PRECONDITION_FAILED - reply consumer cannot acknowledge"):
        channel.basic_consume(REPLY_TO, print, auto_ack=False)


def test_only_one_consumer_a_channel(channel: BlockingChannel) -> None:
    _replies(channel)
    with closes(channel, 406, "PRECONDITION_FAILED - reply consumer already set"):
        channel.basic_consume(REPLY_TO, print, auto_ack=True)


def test_a_second_consumer_that_acks_is_told_of_the_ack(channel: BlockingChannel) -> None:
    _replies(channel)
    with closes(channel, 406, "PRECONDITION_FAILED - reply consumer cannot acknowledge"):
        channel.basic_consume(REPLY_TO, print, auto_ack=False)


def test_cancelled_and_consumed_again(channel: BlockingChannel, server: BlockingChannel, queue: str) -> None:
    first = _replies(channel)
    old = _request(channel, server, queue)
    channel.basic_cancel(first.tag)
    second = _replies(channel)
    new = _request(channel, server, queue)
    server.basic_publish("", new, b"pong")
    assert second.take_bodies(1) == ["pong"]
    assert old != new
    publish(server, old, "to the first")
    settle(channel)
    assert (first.bodies(), second.bodies()) == ([], [])


@pytest.mark.parametrize("method", ["basic_get", "queue_purge"])
def test_it_is_no_queue(channel: BlockingChannel, method: str) -> None:
    _replies(channel)
    with closes(channel, 404, no_queue(REPLY_TO)):
        getattr(channel, method)(REPLY_TO)


def test_it_cannot_be_bound(channel: BlockingChannel) -> None:
    _replies(channel)
    with closes(channel, 404, no_queue(REPLY_TO)):
        channel.queue_bind(REPLY_TO, "amq.direct", "k")


def test_other_reply_names_pass_untouched(channel: BlockingChannel, queue: str) -> None:
    for reply_to in ("amq.rabbitmq.reply-to.", "amq.rabbitmq.reply-to.x.y", "AMQ.RABBITMQ.REPLY-TO", "q"):
        publish(channel, queue, "m", reply_to=reply_to)
        assert must_get(channel, queue).properties.reply_to == reply_to


def test_its_tag_can_be_used_again(channel: BlockingChannel) -> None:
    for _ in range(3):
        channel.basic_cancel(_replies(channel, consumer_tag="mine").tag)
    sync(channel)
