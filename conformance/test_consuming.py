"""Consumers: tags, exclusive, no-ack, priorities, cancelling, being cancelled, fairness."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pika
import pytest
from pamqp import commands
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import (
    Inbox,
    closes,
    counts,
    drain,
    get,
    must_get,
    no_queue,
    publish,
    ready,
    settle,
    sync,
)
from conformance.rawpeer import RawPeer
from conformance.support import DEADLINE, Names, differs, eventually

Connect = Callable[..., pika.BlockingConnection]


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """An empty queue."""
    return str(channel.queue_declare(name()).method.queue)


def _in_use(queue: str) -> str:
    return f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"


# --- deliveries and tags ---------------------------------------------------------------------------------------------


def test_delivery(channel: BlockingChannel, queue: str, name: Names) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange)
    inbox = Inbox(channel, queue, consumer_tag="mine")
    publish(channel, "some.key", "a", exchange=exchange, message_id="id")
    (got,) = inbox.take(1)
    method = got.method
    assert (method.consumer_tag, method.delivery_tag, method.redelivered) == ("mine", 1, False)
    assert (method.exchange, method.routing_key, got.body) == (exchange, "some.key", b"a")
    assert got.properties.message_id == "id"


def test_what_was_there_first_comes_first(channel: BlockingChannel, queue: str) -> None:
    bodies = [str(i) for i in range(100)]
    publish(channel, queue, *bodies[:50])
    inbox = Inbox(channel, queue, auto_ack=True)
    publish(channel, queue, *bodies[50:])
    assert inbox.take_bodies(100) == bodies


def test_consumers_and_gets_share_delivery_tags(channel: BlockingChannel, queue: str, name: Names) -> None:
    other = name()
    channel.queue_declare(other)
    publish(channel, other, "x", "y")
    inbox = Inbox(channel, queue, auto_ack=True)
    publish(channel, queue, "a")
    assert inbox.take(1)[0].method.delivery_tag == 1
    assert must_get(channel, other, auto_ack=True).method.delivery_tag == 2
    assert must_get(channel, other, auto_ack=False).method.delivery_tag == 3
    publish(channel, queue, "b")
    assert inbox.take(1)[0].method.delivery_tag == 4


def test_delivery_tags_are_per_channel(channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, "a", "b")
    other = channel.connection.channel()
    assert must_get(channel, queue).method.delivery_tag == 1
    assert must_get(other, queue).method.delivery_tag == 1


def test_get_tells_what_is_left(channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, *"abc")
    got = [must_get(channel, queue, auto_ack=False) for _ in range(3)]
    assert [message.method.message_count for message in got] == [2, 1, 0]
    assert [message.body for message in got] == [b"a", b"b", b"c"]
    assert all(not message.method.redelivered for message in got)
    assert get(channel, queue) is None


def test_server_named_tag(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    first, second = peer.consume(1, queue), peer.consume(1, queue)
    assert re.fullmatch(r"amq\.ctag-[\w-]{22}", first)
    assert first != second


@pytest.mark.parametrize("tag", ["☃ ü", "t" * 255, "amq.ctag-mine", "a\r\nb", " "])
def test_odd_tags(channel: BlockingChannel, queue: str, tag: str) -> None:
    inbox = Inbox(channel, queue, consumer_tag=tag)
    publish(channel, queue, "a")
    assert inbox.take(1)[0].method.consumer_tag == tag
    channel.basic_cancel(tag)
    assert counts(channel, queue) == (0, 0)


def test_a_tag_twice_on_a_channel(peer: RawPeer, name: Names) -> None:
    queue, other = peer.declare(1, name()), peer.declare(1, name())
    peer.consume(1, queue, "t")
    peer.send_method(1, commands.Basic.Consume(queue=other, consumer_tag="t"))
    peer.expect_close(530, "NOT_ALLOWED - attempt to reuse consumer tag 't'", 60, 20)


def test_a_tag_on_two_channels(channel: BlockingChannel, queue: str) -> None:
    other = channel.connection.channel()
    first, second = Inbox(channel, queue, consumer_tag="t"), Inbox(other, queue, consumer_tag="t")
    publish(channel, queue, "a", "b")
    assert sorted(first.take_bodies(1) + second.take_bodies(1)) == ["a", "b"]


def test_a_tag_can_be_used_again_after_cancel(channel: BlockingChannel, queue: str) -> None:
    for body in "abc":
        inbox = Inbox(channel, queue, consumer_tag="t", auto_ack=True)
        publish(channel, queue, body)
        assert inbox.take_bodies(1) == [body]
        channel.basic_cancel("t")


def test_missing_queue(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    with closes(channel, 404, no_queue(queue)):
        channel.basic_consume(queue, print)


def test_no_local_is_ignored(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.consume(1, queue, "t", no_local=True)
    peer.publish(1, "", queue, b"to myself")
    assert peer.expect(60, 60, 1).consumer_tag == "t"
    assert peer.expect_content(1).body == b"to myself"


@pytest.mark.parametrize("auto_ack", [False, True])
def test_no_ack_forgets_what_it_sends(channel: BlockingChannel, queue: str, auto_ack: bool) -> None:
    consumer = channel.connection.channel()
    inbox = Inbox(consumer, queue, auto_ack=auto_ack)
    publish(channel, queue, "a", "b")
    inbox.take(2)
    consumer.close()
    assert drain(channel, queue, 0 if auto_ack else 2) == ([] if auto_ack else ["a", "b"])


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_cancel_of_an_unknown_tag_succeeds(peer: RawPeer) -> None:
    assert peer.ask(1, commands.Basic.Cancel(consumer_tag="nobody")).consumer_tag == "nobody"


def test_nothing_comes_after_cancel(channel: BlockingChannel, queue: str) -> None:
    inbox = Inbox(channel, queue, auto_ack=True)
    publish(channel, queue, "a")
    inbox.take(1)
    channel.basic_cancel(inbox.tag)
    publish(channel, queue, "b")
    settle(channel)
    assert inbox.bodies() == []
    assert counts(channel, queue) == (1, 0)


def test_unacked_messages_of_a_cancelled_consumer_stay_with_the_channel(channel: BlockingChannel, queue: str) -> None:
    consumer = channel.connection.channel()
    inbox = Inbox(consumer, queue)
    publish(channel, queue, "a", "b")
    tags = [message.method.delivery_tag for message in inbox.take(2)]
    consumer.basic_cancel(inbox.tag)
    assert get(channel, queue) is None
    consumer.basic_ack(tags[0])
    consumer.close()
    got = must_get(channel, queue)
    assert (got.body, got.method.redelivered) == (b"b", True)


@pytest.mark.parametrize("how", ["delete", "delete by another"])
def test_cancel_notify(channel: BlockingChannel, connect: Connect, queue: str, how: str) -> None:
    cancelled: list[str] = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    inboxes = [Inbox(channel, queue), Inbox(channel, queue)]
    deleter = channel if how == "delete" else connect().channel()
    deleter.queue_delete(queue)
    eventually(lambda: channel.connection.process_data_events(0.01) or len(cancelled) == 2)
    assert set(cancelled) == {inbox.tag for inbox in inboxes}
    sync(channel)


def test_a_tag_is_free_after_cancel_notify(channel: BlockingChannel, queue: str) -> None:
    cancelled: list[str] = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    Inbox(channel, queue, consumer_tag="t")
    channel.queue_delete(queue)
    eventually(lambda: channel.connection.process_data_events(0.01) or cancelled == ["t"])
    channel.queue_declare(queue)
    inbox = Inbox(channel, queue, consumer_tag="t")
    publish(channel, queue, "a")
    assert inbox.take_bodies(1) == ["a"]


@pytest.mark.parametrize("capable", [False, True])
def test_cancel_notify_only_for_those_who_know_it(
    raw: Callable[..., RawPeer], channel: BlockingChannel, queue: str, capable: bool
) -> None:
    peer = raw(properties={"capabilities": {"consumer_cancel_notify": capable}})
    peer.channel(1)
    peer.consume(1, queue, "t")
    channel.queue_delete(queue)
    if capable:
        cancel = peer.expect(60, 30, 1)
        assert (cancel.consumer_tag, cancel.nowait) == ("t", True)
        peer.sync()
    else:
        peer.expect_nothing(50)


# --- exclusive consumers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_channel", [False, True])
@pytest.mark.parametrize(("first", "second"), [(True, False), (True, True), (False, True)])
def test_exclusive_consumer(
    channel: BlockingChannel, queue: str, first: bool, second: bool, same_channel: bool
) -> None:
    Inbox(channel, queue, exclusive=first)
    other = channel if same_channel else channel.connection.channel()
    with closes(other, 403, _in_use(queue)):
        other.basic_consume(queue, print, exclusive=second)


@pytest.mark.parametrize("end", ["cancel", "channel"])
def test_exclusive_use_ends(channel: BlockingChannel, queue: str, end: str) -> None:
    holder = channel.connection.channel()
    inbox = Inbox(holder, queue, exclusive=True)
    if end == "cancel":
        holder.basic_cancel(inbox.tag)
    else:
        holder.close()
    for _ in range(2):
        Inbox(channel, queue)
    assert counts(channel, queue) == (0, 2)


def test_exclusive_consumer_does_not_keep_others_from_getting(channel: BlockingChannel, queue: str) -> None:
    holder = channel.connection.channel()
    holder.basic_qos(prefetch_count=1)
    inbox = Inbox(holder, queue, exclusive=True)
    publish(channel, queue, "a", "b")
    inbox.take(1)
    assert must_get(channel, queue).body == b"b"
    assert channel.queue_purge(queue).method.message_count == 0


# --- fairness and priorities -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("consumers", [2, 3, 5])
def test_round_robin(channel: BlockingChannel, queue: str, consumers: int) -> None:
    inboxes = [Inbox(channel, queue, auto_ack=True) for _ in range(consumers)]
    publish(channel, queue, *(str(i) for i in range(consumers * 10)))
    settle(channel)
    for inbox in inboxes:
        assert len(inbox.bodies()) == 10
    firsts = sorted(int(inbox.bodies()[0]) for inbox in inboxes)
    assert firsts == list(range(consumers))
    for inbox in inboxes:
        bodies = [int(body) for body in inbox.bodies()]
        assert bodies == list(range(bodies[0], consumers * 10, consumers))


def test_a_full_consumer_is_passed_over(channel: BlockingChannel, queue: str) -> None:
    slow, fast = channel.connection.channel(), channel.connection.channel()
    slow.basic_qos(prefetch_count=1)
    lazy, eager = Inbox(slow, queue), Inbox(fast, queue, auto_ack=True)
    publish(channel, queue, *(str(i) for i in range(10)))
    assert len(lazy.take(1)) == 1
    assert len(eager.take(9)) == 9
    settle(slow, fast)
    assert lazy.bodies() == []


@differs(
    rabbitmq=0,
    rabbitish=5,
    reason="once in thirty times RabbitMQ lets one queue wait until the other is empty",
)
def test_queues_share_a_channel_fairly(channel: BlockingChannel, name: Names, expected: int) -> None:
    queues = [name(), name()]
    consumer = channel.connection.channel()
    consumer.basic_qos(prefetch_count=1, global_qos=True)
    for queue in queues:
        channel.queue_declare(queue)
        publish(channel, queue, *(str(i) for i in range(20)))
    order: list[str] = []

    def on_message(_: BlockingChannel, method: Any, __: Any, ___: bytes) -> None:
        order.append(method.routing_key)
        consumer.basic_ack(method.delivery_tag)

    for queue in queues:
        consumer.basic_consume(queue, on_message)
    deadline = time.monotonic() + DEADLINE
    while len(order) < 40 and time.monotonic() < deadline:
        consumer.connection.process_data_events(0.1)
    assert len(order) == 40
    assert all(order[:20].count(queue) >= expected for queue in queues), "one queue waited for the other"


def _prioritised(channel: BlockingChannel, queue: str, priority: int | None, **options: Any) -> Inbox:
    arguments = {} if priority is None else {"x-priority": priority}
    return Inbox(channel, queue, arguments=arguments, **options)


@pytest.mark.parametrize("low_first", [False, True])
@pytest.mark.parametrize(("high", "low"), [(1, None), (None, -1), (10, 5), (2**40, 2**31)])
def test_higher_priority_gets_everything(
    channel: BlockingChannel, queue: str, high: int | None, low: int | None, low_first: bool
) -> None:
    order = [low, high] if low_first else [high, low]
    inboxes = {priority: _prioritised(channel, queue, priority, auto_ack=True) for priority in order}
    publish(channel, queue, *"abcde")
    assert inboxes[high].take_bodies(5) == list("abcde")
    assert inboxes[low].bodies() == []


def test_lower_priority_gets_what_the_higher_cannot_take(channel: BlockingChannel, queue: str) -> None:
    channels = [channel.connection.channel() for _ in range(3)]
    for one in channels:
        one.basic_qos(prefetch_count=2)
    low, middle, high = (_prioritised(one, queue, i * 10) for i, one in enumerate(channels))
    publish(channel, queue, *"abcdefg")
    assert (high.take_bodies(2), middle.take_bodies(2), low.take_bodies(2)) == (["a", "b"], ["c", "d"], ["e", "f"])
    settle(*channels)
    assert ready(channel, queue) == 1
    channels[2].basic_ack(1)
    assert high.take_bodies(1) == ["g"]
    publish(channel, queue, "h")
    settle(*channels)
    assert ready(channel, queue) == 1
    channels[0].basic_ack(1)
    assert low.take_bodies(1) == ["h"]


def test_round_robin_among_equal_priorities(channel: BlockingChannel, queue: str) -> None:
    inboxes = [_prioritised(channel, queue, 5, auto_ack=True) for _ in range(3)]
    _prioritised(channel, queue, 1)
    publish(channel, queue, *(str(i) for i in range(9)))
    settle(channel)
    assert [len(inbox.messages) for inbox in inboxes] == [3, 3, 3]


def test_a_consumer_that_fails_leaves_the_others(channel: BlockingChannel, queue: str, name: Names) -> None:
    inbox = Inbox(channel, queue, auto_ack=True)
    missing = name()
    with closes(other := channel.connection.channel(), 404, no_queue(missing)):
        other.basic_consume(missing, print)
    publish(channel, queue, "a")
    assert inbox.take_bodies(1) == ["a"]
