"""Single active consumer: one gets everything, the next in line takes over when it goes."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, closes, counts, must_get, publish, ready, settle
from conformance.support import Names


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """A queue with a single active consumer."""
    made = name()
    channel.queue_declare(made, arguments={"x-single-active-consumer": True})
    return made


def _consumers(channel: BlockingChannel, queue: str, count: int) -> list[Inbox]:
    """Consumers on channels of their own."""
    return [Inbox(channel.connection.channel(), queue) for _ in range(count)]


def test_only_the_first_gets_messages(channel: BlockingChannel, queue: str) -> None:
    first, *others = _consumers(channel, queue, 3)
    publish(channel, queue, *"abcdef")
    assert first.take_bodies(6) == list("abcdef")
    settle(*(inbox.channel for inbox in others))
    assert [inbox.bodies() for inbox in others] == [[], []]
    assert counts(channel, queue) == (0, 3)


@pytest.mark.parametrize("how", ["cancel", "channel"])
def test_the_next_in_line_takes_over(channel: BlockingChannel, queue: str, how: str) -> None:
    inboxes = _consumers(channel, queue, 3)
    for inbox, body in zip(inboxes, "abc", strict=True):
        publish(channel, queue, body)
        (got,) = inbox.take(1)
        assert got.body == body.encode()
        inbox.channel.basic_ack(got.method.delivery_tag)
        if how == "cancel":
            inbox.channel.basic_cancel(inbox.tag)
        else:
            inbox.channel.close()


def test_unacked_messages_go_to_the_next(channel: BlockingChannel, queue: str) -> None:
    first, second = _consumers(channel, queue, 2)
    publish(channel, queue, *"abc")
    first.take(3)
    first.channel.close()
    got = second.take(3)
    assert [(message.body, message.method.redelivered) for message in got] == [(b"a", True), (b"b", True), (b"c", True)]


def test_cancel_leaves_unacked_messages_with_the_channel(channel: BlockingChannel, queue: str) -> None:
    first, second = _consumers(channel, queue, 2)
    publish(channel, queue, "a")
    first.take(1)
    first.channel.basic_cancel(first.tag)
    publish(channel, queue, "b")
    assert second.take_bodies(1) == ["b"]
    first.channel.basic_nack(1)
    assert second.take_bodies(1) == ["a"]


def test_a_full_prefetch_does_not_hand_over(channel: BlockingChannel, queue: str) -> None:
    busy = channel.connection.channel()
    busy.basic_qos(prefetch_count=1)
    first = Inbox(busy, queue)
    (second,) = _consumers(channel, queue, 1)
    publish(channel, queue, "a", "b")
    assert first.take_bodies(1) == ["a"]
    settle(busy, second.channel)
    assert (first.bodies(), second.bodies()) == ([], [])
    assert ready(channel, queue) == 1
    busy.basic_ack(1)
    assert first.take_bodies(1) == ["b"]


def test_requeue_comes_back_to_the_active_one(channel: BlockingChannel, queue: str) -> None:
    first, second = _consumers(channel, queue, 2)
    publish(channel, queue, "a")
    first.take(1)
    first.channel.basic_nack(1)
    assert first.take_bodies(1) == ["a"]
    settle(second.channel)
    assert second.bodies() == []


def test_cancelling_one_that_waits_changes_nothing(channel: BlockingChannel, queue: str) -> None:
    first, second, third = _consumers(channel, queue, 3)
    second.channel.basic_cancel(second.tag)
    publish(channel, queue, "a")
    assert first.take_bodies(1) == ["a"]
    first.channel.basic_cancel(first.tag)
    publish(channel, queue, "b")
    assert third.take_bodies(1) == ["b"]


def test_a_higher_priority_goes_first_when_the_active_one_leaves(channel: BlockingChannel, queue: str) -> None:
    first, low = _consumers(channel, queue, 2)
    high = Inbox(channel.connection.channel(), queue, arguments={"x-priority": 10})
    publish(channel, queue, "a")
    assert first.take_bodies(1) == ["a"]
    first.channel.basic_cancel(first.tag)
    publish(channel, queue, "b")
    assert high.take_bodies(1) == ["b"]
    settle(low.channel)
    assert low.bodies() == []


def test_several_consumers_on_a_channel(channel: BlockingChannel, queue: str) -> None:
    first, second = Inbox(channel, queue), Inbox(channel, queue)
    publish(channel, queue, "a", "b")
    assert first.take_bodies(2) == ["a", "b"]
    channel.basic_cancel(first.tag)
    publish(channel, queue, "c")
    assert second.take_bodies(1) == ["c"]


def test_get_is_still_possible(channel: BlockingChannel, queue: str) -> None:
    busy = channel.connection.channel()
    busy.basic_qos(prefetch_count=1)
    Inbox(busy, queue)
    publish(channel, queue, "a", "b")
    assert must_get(channel, queue).body == b"b"


def test_exclusive_consumers_are_refused(channel: BlockingChannel, queue: str) -> None:
    text = f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
    with closes(channel, 403, text):
        channel.basic_consume(queue, print, exclusive=True)
