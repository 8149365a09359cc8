"""A delivery limit on classic queues, which RabbitMQ refuses and rabbitish has.

A message that comes back more often than x-delivery-limit allows is dead-lettered with the reason delivery_limit, or
dropped. On the way x-delivery-count says how often it has come back. RabbitMQ has this for quorum queues only, so there
each case ends with the declare.
"""

from __future__ import annotations

from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, closes, drain, get, must_get, publish
from conformance.support import Names, differs, eventually

REFUSED = "PRECONDITION_FAILED - invalid arg 'x-delivery-limit' for queue '{}' in vhost '/' of queue type "
REFUSED += "rabbit_classic_queue"

limited = differs(rabbitmq=REFUSED, rabbitish=None, reason="a delivery limit works on every type of queue here")


def _queue(channel: BlockingChannel, name: Names, refusal: str | None, limit: int, **more: Any) -> str | None:
    """A queue with a delivery limit, or None after checking that the broker refuses it."""
    queue = name()
    arguments = {"x-delivery-limit": limit} | {f"x-{key.replace('_', '-')}": value for key, value in more.items()}
    if refusal is None:
        return str(channel.queue_declare(queue, arguments=arguments).method.queue)
    with closes(channel, 406, refusal.format(queue)):
        channel.queue_declare(queue, arguments=arguments)
    return None


@limited
@pytest.mark.parametrize("limit", [1, 3])
def test_dropped_after_the_limit(channel: BlockingChannel, name: Names, expected: str | None, limit: int) -> None:
    queue = _queue(channel, name, expected, limit)
    if queue is None:
        return
    publish(channel, queue, "a")
    for count in range(limit + 1):
        got = must_get(channel, queue, auto_ack=False)
        assert (got.method.redelivered, got.headers.get("x-delivery-count", 0)) == (count > 0, count)
        channel.basic_nack(got.method.delivery_tag)
    assert get(channel, queue) is None


@limited
def test_dead_lettered_after_the_limit(channel: BlockingChannel, name: Names, expected: str | None) -> None:
    dead = str(channel.queue_declare(name()).method.queue)
    queue = _queue(channel, name, expected, 1, dead_letter_exchange="", dead_letter_routing_key=dead)
    if queue is None:
        return
    publish(channel, queue, "a", "b")
    for _ in range(2):
        channel.basic_nack(must_get(channel, queue, auto_ack=False).method.delivery_tag)
    got = must_get(channel, dead)
    (death,) = got.headers["x-death"]
    assert (got.body, death["reason"], death["queue"], death["count"]) == (b"a", "delivery_limit", queue, 1)
    assert got.headers["x-first-death-reason"] == "delivery_limit"
    assert drain(channel, queue) == ["b"]


@limited
def test_messages_given_back_by_a_closed_channel_count(
    channel: BlockingChannel, name: Names, expected: str | None
) -> None:
    queue = _queue(channel, name, expected, 1)
    if queue is None:
        return
    publish(channel, queue, "a")
    for _ in range(2):
        holder = channel.connection.channel()
        Inbox(holder, queue).take(1)
        holder.close()
    assert eventually(lambda: channel.queue_declare(queue, passive=True).method.message_count == 0)
    assert get(channel, queue) is None
