"""Time to live: of messages by queue and by message, and of queues. Times are milliseconds, mostly 30.

RabbitMQ lets a message expire only at the head of its queue, so one behind a lasting message is still counted and is
not dead-lettered yet; rabbitish lets it go in time. Either way nobody ever gets it.
"""

from __future__ import annotations

from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, UnroutableError

from conformance.clients import (
    Inbox,
    closes,
    counts,
    drain,
    get,
    let_pass,
    must_get,
    no_queue,
    publish,
    ready,
    settle,
)
from conformance.support import Names, differs, eventually

LONG = 60_000


def _queue(channel: BlockingChannel, name: Names, arguments: dict[str, Any] | None = None) -> str:
    return str(channel.queue_declare(name(), arguments=arguments or {}).method.queue)


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "properties"),
    [
        ({"x-message-ttl": 30}, {}),
        ({}, {"expiration": "30"}),
        ({"x-message-ttl": 30}, {"expiration": str(LONG)}),
        ({"x-message-ttl": LONG}, {"expiration": "30"}),
        ({"x-message-ttl": 30, "x-max-priority": 3}, {"priority": 2}),
    ],
    ids=["queue", "message", "queue's is lower", "message's is lower", "priority queue"],
)
def test_a_message_goes_when_its_time_is_over(
    channel: BlockingChannel, name: Names, arguments: dict[str, Any], properties: dict[str, Any]
) -> None:
    queue = _queue(channel, name, arguments)
    publish(channel, queue, "a", "b", **properties)
    assert eventually(lambda: ready(channel, queue) == 0)
    assert get(channel, queue) is None


def test_a_message_is_there_until_then(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, {"x-message-ttl": LONG})
    publish(channel, queue, "a", expiration="40000")
    let_pass(channel, 30)
    assert drain(channel, queue) == ["a"]


@pytest.mark.parametrize(
    ("arguments", "properties"), [({"x-message-ttl": 0}, {}), ({}, {"expiration": "0"}), ({}, {"expiration": "-0"})]
)
def test_zero_means_at_once_or_never(
    channel: BlockingChannel, name: Names, arguments: dict[str, Any], properties: dict[str, Any]
) -> None:
    queue = _queue(channel, name, arguments)
    publish(channel, queue, "nobody waits", **properties)
    assert get(channel, queue) is None
    consumer = channel.connection.channel()
    consumer.basic_qos(prefetch_count=1)
    inbox = Inbox(consumer, queue)
    publish(channel, queue, "taken", **properties)
    assert inbox.take_bodies(1) == ["taken"]
    publish(channel, queue, "prefetch is full", **properties)
    consumer.basic_ack(1)
    settle(consumer)
    publish(channel, queue, "taken again", **properties)
    assert inbox.take_bodies(1) == ["taken again"]


def test_unacked_messages_do_not_expire(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, {"x-message-ttl": 60, "x-dead-letter-exchange": ""})
    publish(channel, queue, "a")
    got = must_get(channel, queue, auto_ack=False)
    let_pass(channel, 70)
    channel.basic_ack(got.method.delivery_tag)
    assert counts(channel, queue) == (0, 0)


@pytest.mark.parametrize("properties", [{}, {"expiration": "60"}])
def test_a_requeued_message_keeps_its_expiry(channel: BlockingChannel, name: Names, properties: dict[str, Any]) -> None:
    queue = _queue(channel, name, {} if properties else {"x-message-ttl": 60})
    publish(channel, queue, "a", **properties)
    got = must_get(channel, queue, auto_ack=False)
    let_pass(channel, 70)
    channel.basic_nack(got.method.delivery_tag)
    assert get(channel, queue) is None


def test_requeueing_does_not_extend(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, {"x-message-ttl": 60})
    publish(channel, queue, "a")
    deliveries = 0
    while (got := get(channel, queue, auto_ack=False)) is not None:
        deliveries += 1
        channel.basic_nack(got.method.delivery_tag)
        channel.connection.sleep(0.002)
    assert deliveries >= 1
    assert ready(channel, queue) == 0


def test_a_requeued_message_that_is_late_goes_to_no_other_consumer(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, {"x-message-ttl": 30})
    holder = channel.connection.channel()
    held = Inbox(holder, queue)
    publish(channel, queue, "a")
    held.take(1)
    other = Inbox(channel, queue)
    let_pass(channel, 40)
    holder.close()
    assert eventually(lambda: counts(channel, queue) == (0, 1))
    publish(channel, queue, "b")
    assert other.take_bodies(1) == ["b"]


def test_each_message_has_its_own_time(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name)
    publish(channel, queue, "a", expiration="20")
    publish(channel, queue, "b", expiration=str(LONG))
    publish(channel, queue, "c")
    assert eventually(lambda: ready(channel, queue) == 2)
    assert drain(channel, queue) == ["b", "c"]


@differs(rabbitmq=2, rabbitish=1, reason="RabbitMQ acts only at the head; ours also expires behind it and counts right")
def test_count_of_messages_that_expired_behind_the_head(channel: BlockingChannel, name: Names, expected: int) -> None:
    queue = _queue(channel, name)
    publish(channel, queue, "lasting")
    publish(channel, queue, "late", expiration="30")
    let_pass(channel, 40)
    assert eventually(lambda: ready(channel, queue) == expected)
    assert drain(channel, queue) == ["lasting"]


@differs(rabbitmq=[], rabbitish=["late"], reason="RabbitMQ acts only at the head; ours dead-letters behind it in time")
def test_dead_lettering_of_messages_that_expired_behind_the_head(
    channel: BlockingChannel, name: Names, expected: list[str]
) -> None:
    dead = _queue(channel, name)
    queue = _queue(channel, name, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    publish(channel, queue, "lasting")
    publish(channel, queue, "late", expiration="30")
    let_pass(channel, 40)
    assert drain(channel, dead, len(expected)) == expected
    assert must_get(channel, queue).body == b"lasting"
    assert drain(channel, dead, 1 - len(expected)) == [body for body in ["late"] if body not in expected]


@differs(rabbitmq=3, rabbitish=1, reason="RabbitMQ acts only at the head, and the head of a priority is what counts")
def test_count_of_expired_messages_behind_several_heads(channel: BlockingChannel, name: Names, expected: int) -> None:
    queue = _queue(channel, name)
    publish(channel, queue, "late", expiration="30")
    publish(channel, queue, "lasting")
    publish(channel, queue, "late", "late", expiration="30")
    let_pass(channel, 40)
    assert eventually(lambda: ready(channel, queue) == expected)
    assert drain(channel, queue) == ["lasting"]


def test_a_consumer_never_gets_a_late_message(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name)
    channel.basic_qos(prefetch_count=1)
    publish(channel, queue, "a")
    for _ in range(3):
        publish(channel, queue, "late", expiration="20")
        publish(channel, queue, "b", expiration=str(LONG))
    inbox = Inbox(channel, queue)
    inbox.take(1)
    let_pass(channel, 30)
    channel.basic_qos(prefetch_count=0)
    channel.basic_ack(1)
    for tag in (2, 3, 4):
        assert inbox.take_bodies(1) == ["b"]
        channel.basic_ack(tag)
    settle(channel)
    assert inbox.bodies() == []


def test_expired_messages_leave_room(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, {"x-max-length": 1, "x-overflow": "reject-publish"})
    publish(channel, queue, "a", expiration="20")
    assert eventually(lambda: ready(channel, queue) == 0)
    publish(channel, queue, "b")
    assert drain(channel, queue) == ["b"]


# --- queues ----------------------------------------------------------------------------------------------------------


def _is_gone(channel: BlockingChannel, queue: str) -> bool:
    """Whether the queue is not there; asked by a publish, since anything else would extend its lease."""
    channel.confirm_delivery()
    try:
        channel.basic_publish("", queue, b"m", mandatory=True)
    except UnroutableError:
        return True
    return False


def test_an_unused_queue_goes(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, {"x-expires": 30})
    assert eventually(lambda: _is_gone(channel, queue))
    with closes(channel, 404, no_queue(queue)):
        channel.queue_declare(queue, passive=True)


@pytest.mark.parametrize("use", ["passive declare", "declare", "get"])
def test_using_a_queue_extends_its_lease(channel: BlockingChannel, name: Names, use: str) -> None:
    arguments = {"x-expires": 250}
    queue = _queue(channel, name, arguments)
    for _ in range(12):
        let_pass(channel, 30)
        if use == "get":
            assert get(channel, queue) is None
        else:
            channel.queue_declare(queue, passive=use == "passive declare", arguments=arguments)
    assert ready(channel, queue) == 0


def test_binding_does_not_extend_it(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, {"x-expires": 60})

    def is_gone() -> bool:
        try:
            channel.queue_bind(queue, "amq.direct", queue)
        except ChannelClosedByBroker:
            return True
        return False

    assert eventually(is_gone)


def test_a_consumer_keeps_a_queue_alive(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, {"x-expires": 50})
    inbox = Inbox(channel, queue)
    let_pass(channel, 90)
    publish(channel, queue, "a")
    assert inbox.take_bodies(1) == ["a"]
    channel.basic_cancel(inbox.tag)
    assert eventually(lambda: _is_gone(channel, queue))


def test_messages_of_an_expired_queue_are_not_dead_lettered(channel: BlockingChannel, name: Names) -> None:
    dead = _queue(channel, name)
    queue = _queue(channel, name, {"x-expires": 30, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    publish(channel, queue, "a")
    assert eventually(lambda: _is_gone(channel, queue))
    assert get(channel, dead) is None
