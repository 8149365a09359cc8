"""Requeue: to the old place, marked redelivered, whoever gives the message back and however."""

from __future__ import annotations

from collections.abc import Callable

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, drain, ends_connection, get, must_get, publish, ready, settle
from conformance.rawpeer import RawPeer
from conformance.support import Names, eventually

Connect = Callable[..., pika.BlockingConnection]


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """A queue with the messages a to e."""
    made = str(channel.queue_declare(name()).method.queue)
    publish(channel, made, *"abcde")
    return made


def _get_tags(channel: BlockingChannel, queue: str, count: int) -> list[int]:
    return [must_get(channel, queue, auto_ack=False).method.delivery_tag for _ in range(count)]


def _drain_flags(channel: BlockingChannel, queue: str) -> list[tuple[str, bool]]:
    flags = []
    while (message := get(channel, queue)) is not None:
        flags.append((message.body.decode(), message.method.redelivered))
    return flags


ALL_AGAIN = [(body, True) for body in "abcde"]


# --- by the client ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[1, 2, 3], [3, 2, 1], [2, 3, 1], [2]])
@pytest.mark.parametrize("how", ["basic_nack", "basic_reject"])
def test_requeue_to_the_old_place(channel: BlockingChannel, queue: str, order: list[int], how: str) -> None:
    _get_tags(channel, queue, 3)
    for tag in order:
        getattr(channel, how)(tag, requeue=True)
    expected = [(body, True) for i, body in enumerate("abc", 1) if i in order] + [("d", False), ("e", False)]
    assert _drain_flags(channel, queue) == expected


def test_requeue_from_the_middle(channel: BlockingChannel, queue: str) -> None:
    tags = _get_tags(channel, queue, 5)
    channel.basic_nack(tags[1])
    channel.basic_nack(tags[3])
    publish(channel, queue, "f")
    assert _drain_flags(channel, queue) == [("b", True), ("d", True), ("f", False)]
    channel.basic_nack(0, multiple=True)
    assert _drain_flags(channel, queue) == [("a", True), ("c", True), ("e", True)]


def test_requeue_among_others(channel: BlockingChannel, queue: str) -> None:
    """What comes back finds its place although others have gone meanwhile."""
    tags = _get_tags(channel, queue, 2)
    other = channel.connection.channel()
    assert must_get(other, queue).body == b"c"
    channel.basic_nack(tags[0])
    assert eventually(lambda: ready(channel, queue) == 3)
    assert drain(other, queue) == ["a", "d", "e"]


def test_nack_multiple(channel: BlockingChannel, queue: str) -> None:
    tags = _get_tags(channel, queue, 4)
    channel.basic_nack(tags[2], multiple=True)
    assert _drain_flags(channel, queue) == [("a", True), ("b", True), ("c", True), ("e", False)]


def test_again_and_again(channel: BlockingChannel, queue: str) -> None:
    for attempt in range(20):
        got = must_get(channel, queue, auto_ack=False)
        assert (got.body, got.method.redelivered, got.method.delivery_tag) == (b"a", attempt > 0, attempt + 1)
        channel.basic_nack(got.method.delivery_tag)


def test_to_the_same_consumer(channel: BlockingChannel, queue: str) -> None:
    inbox = Inbox(channel, queue)
    inbox.take(5)
    channel.basic_nack(2)
    (again,) = inbox.take(1)
    assert (again.body, again.method.redelivered, again.method.delivery_tag) == (b"b", True, 6)


def test_to_another_consumer(channel: BlockingChannel, queue: str) -> None:
    first, second = channel.connection.channel(), channel.connection.channel()
    one = Inbox(first, queue)
    one.take(5)
    two = Inbox(second, queue)
    first.basic_cancel(one.tag)
    first.basic_nack(0, multiple=True)
    got = two.take(5)
    assert [(message.body.decode(), message.method.redelivered) for message in got] == ALL_AGAIN


def test_properties_survive(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    publish(channel, queue, "m", headers={"a": 1}, message_id="id", expiration="60000")
    for _ in range(3):
        got = must_get(channel, queue, auto_ack=False)
        assert (got.headers, got.properties.message_id, got.properties.expiration) == ({"a": 1}, "id", "60000")
        channel.basic_nack(got.method.delivery_tag)


# --- by the end of something -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", ["get", "consume"])
@pytest.mark.parametrize("end", ["channel", "connection"])
def test_the_end_gives_back_in_order(
    connect: Connect, channel: BlockingChannel, queue: str, taken: str, end: str
) -> None:
    holder = connect().channel()
    if taken == "get":
        _get_tags(holder, queue, 5)
    else:
        Inbox(holder, queue).take(5)
    publish(channel, queue, "f")
    (holder if end == "channel" else holder.connection).close()
    assert eventually(lambda: ready(channel, queue) == 6)
    flags = _drain_flags(channel, queue)
    assert flags[:5] == ALL_AGAIN
    assert flags[5][0] == "f"


def test_a_lost_connection_gives_back(raw: Callable[..., RawPeer], channel: BlockingChannel, queue: str) -> None:
    peer = raw()
    peer.channel(1)
    peer.consume(1, queue, "t")
    for _ in range(5):
        peer.expect(60, 60, 1)
        peer.expect_content(1)
    peer.drop()
    assert eventually(lambda: ready(channel, queue) == 5)
    assert _drain_flags(channel, queue) == ALL_AGAIN


def test_a_channel_error_gives_back(channel: BlockingChannel, queue: str) -> None:
    holder = channel.connection.channel()
    _get_tags(holder, queue, 5)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        holder.queue_declare(queue + ".missing", passive=True)
    assert eventually(lambda: ready(channel, queue) == 5)
    assert _drain_flags(channel, queue) == ALL_AGAIN


def test_several_channels_give_back_in_order(channel: BlockingChannel, queue: str) -> None:
    holders = [channel.connection.channel() for _ in range(5)]
    for holder in holders:
        _get_tags(holder, queue, 1)
    for i in (3, 0, 4, 1, 2):
        holders[i].close()
    assert eventually(lambda: ready(channel, queue) == 5)
    assert _drain_flags(channel, queue) == ALL_AGAIN


def test_an_undelivered_message_is_not_redelivered(channel: BlockingChannel, queue: str) -> None:
    """Behind a prefetch of one only the first has been out."""
    holder = channel.connection.channel()
    holder.basic_qos(prefetch_count=1)
    Inbox(holder, queue).take(1)
    holder.close()
    assert eventually(lambda: ready(channel, queue) == 5)
    assert _drain_flags(channel, queue) == [("a", True), *((body, False) for body in "bcde")]


def test_deleted_queue_gets_nothing_back(channel: BlockingChannel, queue: str) -> None:
    holder = channel.connection.channel()
    _get_tags(holder, queue, 5)
    channel.queue_delete(queue)
    channel.queue_declare(queue)
    holder.close()
    assert get(channel, queue) is None


# --- basic.recover ---------------------------------------------------------------------------------------------------


def test_recover_requeues_everything_of_the_channel(channel: BlockingChannel, queue: str) -> None:
    holder = channel.connection.channel()
    _get_tags(channel, queue, 1)
    _get_tags(holder, queue, 4)
    holder.basic_recover(requeue=True)
    assert _drain_flags(holder, queue) == [(body, True) for body in "bcde"]
    channel.basic_recover(requeue=True)
    assert _drain_flags(channel, queue) == [("a", True)]


def test_recover_to_a_consumer(channel: BlockingChannel, queue: str) -> None:
    inbox = Inbox(channel, queue)
    inbox.take(5)
    channel.basic_ack(2)
    channel.basic_recover(requeue=True)
    again = inbox.take(4)
    assert [message.body for message in again] == [b"a", b"c", b"d", b"e"]
    assert [message.method.delivery_tag for message in again] == [6, 7, 8, 9]
    assert all(message.method.redelivered for message in again)
    settle(channel)
    assert inbox.bodies() == []


def test_recover_of_nothing(channel: BlockingChannel, queue: str) -> None:
    channel.basic_recover(requeue=True)
    assert ready(channel, queue) == 5


def test_recover_without_requeue(connect: Connect) -> None:
    channel = connect().channel()
    with ends_connection(channel, 540, "NOT_IMPLEMENTED - requeue=false"):
        channel.basic_recover(requeue=False)
