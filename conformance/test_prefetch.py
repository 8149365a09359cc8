"""basic.qos: per consumer, per channel, changed live; what it does not limit."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, counts, ends_connection, must_get, publish, ready, settle
from conformance.support import Names, eventually


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """A queue with the messages 0 to 9."""
    made = str(channel.queue_declare(name()).method.queue)
    publish(channel, made, *map(str, range(10)))
    return made


def _sizes(*inboxes: Inbox) -> list[int]:
    """How many messages each inbox has, once all that was due is there."""
    settle(*{id(inbox.channel): inbox.channel for inbox in inboxes}.values())
    return [len(inbox.messages) for inbox in inboxes]


# --- per consumer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefetch", "sent"), [(1, 1), (3, 3), (10, 10), (11, 10), (65535, 10), (0, 10)])
def test_limit(channel: BlockingChannel, queue: str, prefetch: int, sent: int) -> None:
    channel.basic_qos(prefetch_count=prefetch)
    inbox = Inbox(channel, queue)
    inbox.take(sent)
    assert _sizes(inbox) == [0]
    assert counts(channel, queue) == (10 - sent, 1)


def test_no_limit_by_default(channel: BlockingChannel, queue: str) -> None:
    assert Inbox(channel, queue).take_bodies(10) == [str(i) for i in range(10)]


@pytest.mark.parametrize("how", ["ack", "nack", "reject", "requeue"])
def test_settling_makes_room(channel: BlockingChannel, queue: str, how: str) -> None:
    channel.basic_qos(prefetch_count=2)
    inbox = Inbox(channel, queue)
    tag = inbox.take(2)[0].method.delivery_tag
    assert _sizes(inbox) == [0]
    if how == "ack":
        channel.basic_ack(tag)
    elif how == "reject":
        channel.basic_reject(tag, requeue=False)
    else:
        channel.basic_nack(tag, requeue=how == "requeue")
    assert inbox.take_bodies(1) == ["0" if how == "requeue" else "2"]
    assert _sizes(inbox) == [0]


def test_each_consumer_has_its_own(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=2)
    first = Inbox(channel, queue)
    channel.basic_qos(prefetch_count=3)
    second = Inbox(channel, queue)
    first.take(2)
    second.take(3)
    assert _sizes(first, second) == [0, 0]
    assert ready(channel, queue) == 5


def test_only_later_consumers_feel_a_change(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=2)
    first = Inbox(channel, queue)
    first.take(2)
    channel.basic_qos(prefetch_count=5)
    assert _sizes(first) == [0]
    channel.basic_qos(prefetch_count=0)
    second = Inbox(channel, queue)
    assert second.take_bodies(8) == [str(i) for i in range(2, 10)]


def test_other_channels_do_not_feel_it(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=1)
    channel.basic_qos(prefetch_count=1, global_qos=True)
    assert len(Inbox(channel.connection.channel(), queue).take(10)) == 10


def test_consumers_of_several_queues(channel: BlockingChannel, queue: str, name: Names) -> None:
    other = name()
    channel.queue_declare(other)
    publish(channel, other, "x", "y", "z")
    channel.basic_qos(prefetch_count=2)
    first, second = Inbox(channel, queue), Inbox(channel, other)
    assert first.take_bodies(2) == ["0", "1"]
    assert second.take_bodies(2) == ["x", "y"]
    assert _sizes(first, second) == [0, 0]


def test_no_ack_consumers_ignore_it(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=1)
    assert len(Inbox(channel, queue, auto_ack=True).take(10)) == 10


def test_get_is_not_limited_and_does_not_count(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=2)
    for _ in range(4):
        must_get(channel, queue, auto_ack=False)
    inbox = Inbox(channel, queue)
    assert inbox.take_bodies(2) == ["4", "5"]
    assert _sizes(inbox) == [0]
    assert must_get(channel, queue, auto_ack=False).body == b"6"
    channel.basic_ack(1)
    assert _sizes(inbox) == [0]


def test_unacked_of_a_cancelled_consumer_do_not_count_for_the_next(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=2)
    first = Inbox(channel, queue)
    first.take(2)
    channel.basic_cancel(first.tag)
    second = Inbox(channel, queue)
    assert second.take_bodies(2) == ["2", "3"]


@pytest.mark.parametrize("size", [1, 2**32 - 1])
def test_prefetch_size_is_not_there(channel: BlockingChannel, size: int) -> None:
    with ends_connection(channel, 540, f"NOT_IMPLEMENTED - prefetch_size!=0 ({size})"):
        channel.basic_qos(prefetch_size=size)


# --- per channel -----------------------------------------------------------------------------------------------------


def test_consumers_share_the_global_limit(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=3, global_qos=True)
    first, second = Inbox(channel, queue), Inbox(channel, queue)
    assert sum(_sizes(first, second)) == 3
    assert ready(channel, queue) == 7
    for inbox in (first, second):
        for message in inbox.take(len(inbox.messages)):
            channel.basic_ack(message.method.delivery_tag)
    first.channel.connection.process_data_events(0)
    assert eventually(lambda: sum(_sizes(first, second)) == 3)


def test_queues_share_the_global_limit(channel: BlockingChannel, queue: str, name: Names) -> None:
    other = name()
    channel.queue_declare(other)
    publish(channel, other, *"abcde")
    channel.basic_qos(prefetch_count=4, global_qos=True)
    first, second = Inbox(channel, queue), Inbox(channel, other)
    assert sum(_sizes(first, second)) == 4


def test_both_limits_hold(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=3)
    channel.basic_qos(prefetch_count=5, global_qos=True)
    first = Inbox(channel, queue)
    first.take(3)
    assert _sizes(first) == [0]
    second = Inbox(channel, queue)
    second.take(2)
    assert _sizes(first, second) == [0, 0]


def test_a_consumer_limit_lifts_the_global_one(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=2, global_qos=True)
    channel.basic_qos(prefetch_count=3)
    first, second = Inbox(channel, queue), Inbox(channel, queue)
    assert (len(first.take(3)), len(second.take(3))) == (3, 3)
    assert _sizes(first, second) == [0, 0]


def test_a_global_limit_can_be_set_while_consuming(channel: BlockingChannel, queue: str) -> None:
    inbox = Inbox(channel, queue)
    inbox.take(10)
    channel.basic_qos(prefetch_count=5, global_qos=True)
    publish(channel, queue, "late")
    assert _sizes(inbox) == [0]
    channel.basic_ack(5, multiple=True)
    assert _sizes(inbox) == [0]
    channel.basic_ack(6)
    assert inbox.take_bodies(1) == ["late"]


def test_a_global_limit_can_be_raised(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=2, global_qos=True)
    inbox = Inbox(channel, queue)
    inbox.take(2)
    assert _sizes(inbox) == [0]
    channel.basic_qos(prefetch_count=5, global_qos=True)
    inbox.take(3)
    assert _sizes(inbox) == [0]


def test_a_global_limit_can_be_lifted(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=2, global_qos=True)
    inbox = Inbox(channel, queue)
    inbox.take(2)
    assert _sizes(inbox) == [0]
    channel.basic_qos(prefetch_count=0, global_qos=True)
    assert len(inbox.take(8)) == 8


def test_gets_count_for_the_global_limit_only_when_acked(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=2, global_qos=True)
    for _ in range(3):
        must_get(channel, queue, auto_ack=False)
    inbox = Inbox(channel, queue)
    assert inbox.take_bodies(2) == ["3", "4"]
    assert _sizes(inbox) == [0]


def test_no_ack_consumers_ignore_the_global_limit(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=1, global_qos=True)
    assert len(Inbox(channel, queue, auto_ack=True).take(10)) == 10


def test_unacked_of_a_cancelled_consumer_count_globally(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=2, global_qos=True)
    first = Inbox(channel, queue)
    first.take(2)
    channel.basic_cancel(first.tag)
    second = Inbox(channel, queue)
    assert _sizes(second) == [0]
    channel.basic_ack(1)
    assert second.take_bodies(1) == ["2"]


# --- how it looks from outside ---------------------------------------------------------------------------------------


def test_waiting_messages_are_ready(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=4)
    Inbox(channel, queue).take(4)
    assert counts(channel.connection.channel(), queue) == (6, 1)


def test_a_window_refills(channel: BlockingChannel, queue: str) -> None:
    channel.basic_qos(prefetch_count=4)
    inbox = Inbox(channel, queue)
    inbox.take(4)
    channel.basic_ack(4, multiple=True)
    assert inbox.take_bodies(4) == ["4", "5", "6", "7"]
    assert _sizes(inbox) == [0]
