"""Queues with priorities: the highest first, in order within one, anything above the maximum is the maximum."""

from __future__ import annotations

from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, drain, let_pass, must_get, publish, ready
from conformance.support import Names, differs, eventually


def _queue(channel: BlockingChannel, name: Names, maximum: int, **arguments: Any) -> str:
    """A priority queue; further arguments are written without their x-."""
    wire = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return str(channel.queue_declare(name(), arguments=wire | {"x-max-priority": maximum}).method.queue)


def _publish(channel: BlockingChannel, queue: str, *messages: tuple[str, int | None]) -> None:
    for body, priority in messages:
        publish(channel, queue, body, priority=priority)


def test_highest_first(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 5)
    _publish(channel, queue, ("a", 1), ("b", 5), ("c", 3), ("d", 0), ("e", 4), ("f", 2))
    assert drain(channel, queue) == ["b", "e", "c", "f", "a", "d"]


def test_in_order_within_a_priority(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 3)
    _publish(channel, queue, *((f"{i % 3} {i:02}", i % 3) for i in range(30)))
    got = drain(channel, queue)
    assert got == sorted(got, key=lambda body: (-int(body[0]), body))


def test_none_is_zero_and_above_is_the_maximum(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 2)
    _publish(channel, queue, ("none", None), ("zero", 0), ("two", 2), ("nine", 9), ("one", 1), ("none again", None))
    assert drain(channel, queue) == ["two", "nine", "one", "none", "zero", "none again"]


@pytest.mark.parametrize("maximum", [1, 10, 255])
def test_any_maximum(channel: BlockingChannel, name: Names, maximum: int) -> None:
    queue = _queue(channel, name, maximum)
    _publish(channel, queue, ("low", 0), ("below", maximum - 1), ("top", maximum), ("over", min(maximum + 1, 255)))
    assert drain(channel, queue) == ["top", "over", *(["low", "below"] if maximum == 1 else ["below", "low"])]


def test_maximum_zero_is_an_ordinary_queue(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 0)
    _publish(channel, queue, ("a", 0), ("b", 9), ("c", 1))
    assert drain(channel, queue) == ["a", "b", "c"]


def test_an_ordinary_queue_ignores_priority(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    _publish(channel, queue, ("a", 0), ("b", 9), ("c", 1))
    assert drain(channel, queue) == ["a", "b", "c"]


def test_the_property_comes_out_as_it_went_in(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 2)
    _publish(channel, queue, ("a", 200), ("b", None))
    assert [must_get(channel, queue).properties.priority for _ in range(2)] == [200, None]


def test_a_consumer_gets_the_highest_of_what_waits(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 9)
    channel.basic_qos(prefetch_count=1)
    inbox = Inbox(channel, queue)
    _publish(channel, queue, ("first", 1), ("low", 0), ("high", 9), ("middle", 5))
    got = []
    for tag in (1, 2, 3, 4):
        got += inbox.take_bodies(1)
        channel.basic_ack(tag)
    assert got == ["first", "high", "middle", "low"]


def test_requeue_to_the_place_by_priority(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 9)
    _publish(channel, queue, ("a", 1), ("b", 5), ("c", 5), ("d", 9))
    tags = {must_get(channel, queue, auto_ack=False).body: tag for tag in (1, 2)}
    assert tags == {b"d": 1, b"b": 2}
    _publish(channel, queue, ("e", 5), ("f", 9))
    channel.basic_nack(2)
    channel.basic_nack(1)
    assert eventually(lambda: ready(channel, queue) == 6)
    assert drain(channel, queue) == ["d", "f", "b", "c", "e", "a"]


def test_a_length_limit_drops_from_the_head_which_is_the_highest(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 9, max_length=3)
    _publish(channel, queue, ("a", 1), ("b", 9), ("c", 1), ("d", 5))
    assert drain(channel, queue) == ["d", "a", "c"]


def test_a_new_message_may_be_the_one_to_go(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 9, max_length=2)
    _publish(channel, queue, ("a", 5), ("b", 5), ("c", 1), ("d", 9))
    assert drain(channel, queue) == ["b", "c"]


@differs(rabbitmq=2, rabbitish=1, reason="RabbitMQ acts only at the head; ours also expires behind it and counts right")
def test_expiry_behind_a_higher_priority(channel: BlockingChannel, name: Names, expected: int) -> None:
    queue = _queue(channel, name, 9)
    publish(channel, queue, "high", priority=9)
    publish(channel, queue, "low and late", priority=1, expiration="20")
    let_pass(channel, 30)
    assert eventually(lambda: ready(channel, queue) == expected)
    assert drain(channel, queue) == ["high"]


def test_dead_letters_keep_their_priority(channel: BlockingChannel, name: Names) -> None:
    dead = _queue(channel, name, 9)
    queue = _queue(channel, name, 9, dead_letter_exchange="", dead_letter_routing_key=dead)
    _publish(channel, queue, ("low", 1), ("high", 9))
    for _ in range(2):
        must_get(channel, queue, auto_ack=False)
    channel.basic_nack(0, multiple=True, requeue=False)
    assert drain(channel, dead, 2) == ["high", "low"]


def test_counts_and_purge_are_over_all_priorities(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, 9)
    _publish(channel, queue, *(("m", priority) for priority in range(10)))
    assert ready(channel, queue) == 10
    assert must_get(channel, queue, auto_ack=False).method.message_count == 9
    assert channel.queue_purge(queue).method.message_count == 9
