"""Transactions: publishes and acks wait for commit, rollback forgets them, errors do not wait."""

from __future__ import annotations

from collections.abc import Callable

import pika
import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, closes, counts, drain, get, must_get, no_exchange, publish, ready, settle, sync
from conformance.support import Names

Connect = Callable[..., pika.BlockingConnection]


@pytest.fixture
def tx(connection: pika.BlockingConnection) -> BlockingChannel:
    """A channel in a transaction."""
    channel = connection.channel()
    channel.tx_select()
    return channel


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """An empty queue."""
    return str(channel.queue_declare(name()).method.queue)


def _send(channel: BlockingChannel, queue: str, *bodies: str) -> None:
    """Publish without waiting for anything."""
    for body in bodies:
        channel.basic_publish("", queue, body.encode())


@pytest.mark.parametrize("method", ["tx_commit", "tx_rollback"])
def test_without_select(channel: BlockingChannel, method: str) -> None:
    with closes(channel, 406, "PRECONDITION_FAILED - channel is not transactional"):
        getattr(channel, method)()


def test_commit_and_rollback_of_nothing(tx: BlockingChannel) -> None:
    for _ in range(3):
        tx.tx_commit()
        tx.tx_rollback()


# --- publishing ------------------------------------------------------------------------------------------------------


def test_publishes_come_with_the_commit(tx: BlockingChannel, channel: BlockingChannel, queue: str) -> None:
    _send(tx, queue, "a", "b")
    sync(tx)
    assert get(channel, queue) is None
    tx.tx_commit()
    assert ready(channel, queue) == 2
    _send(tx, queue, "c")
    sync(tx)
    assert drain(channel, queue) == ["a", "b"]
    tx.tx_commit()
    assert drain(channel, queue) == ["c"]


def test_rollback_forgets_publishes(tx: BlockingChannel, channel: BlockingChannel, queue: str) -> None:
    _send(tx, queue, "a", "b")
    tx.tx_rollback()
    _send(tx, queue, "c")
    tx.tx_commit()
    assert drain(channel, queue) == ["c"]


@pytest.mark.parametrize("end", ["channel", "connection"])
def test_the_end_forgets_publishes(connect: Connect, channel: BlockingChannel, queue: str, end: str) -> None:
    tx = connect().channel()
    tx.tx_select()
    _send(tx, queue, "a")
    (tx if end == "channel" else tx.connection).close()
    assert get(channel, queue) is None


def test_persistent_publishes_to_a_durable_queue(tx: BlockingChannel, name: Names) -> None:
    queue = name()
    tx.queue_declare(queue, durable=True)
    for i in range(50):
        tx.basic_publish("", queue, str(i).encode(), BasicProperties(delivery_mode=2))
    tx.tx_commit()
    assert ready(tx, queue) == 50


def test_mandatory_is_returned_at_the_commit(tx: BlockingChannel, name: Names) -> None:
    returned: list[bytes] = []
    tx.add_on_return_callback(lambda *args: returned.append(args[3]))
    tx.basic_publish("", name(), b"m", mandatory=True)
    settle(tx)
    assert returned == []
    tx.tx_commit()
    settle(tx)
    assert returned == [b"m"]
    tx.basic_publish("", name(), b"n", mandatory=True)
    tx.tx_rollback()
    tx.tx_commit()
    settle(tx)
    assert returned == [b"m"]


def test_routing_is_done_at_the_publish(tx: BlockingChannel, channel: BlockingChannel, name: Names, queue: str) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange)
    tx.basic_publish(exchange, "k", b"before the binding")
    sync(tx)
    channel.queue_bind(queue, exchange, "k")
    tx.basic_publish(exchange, "k", b"after the binding")
    sync(tx)
    channel.queue_unbind(queue, exchange, "k")
    tx.tx_commit()
    assert drain(channel, queue) == ["after the binding"]


def test_missing_exchange_is_an_error_at_the_publish(tx: BlockingChannel, name: Names, queue: str) -> None:
    missing = name("x")
    _send(tx, queue, "lost with the channel")
    with closes(tx, 404, no_exchange(missing)):
        tx.basic_publish(missing, "k", b"m")
    assert get(tx.connection.channel(), queue) is None


def test_the_queue_is_deleted_before_the_commit(tx: BlockingChannel, channel: BlockingChannel, queue: str) -> None:
    _send(tx, queue, "a")
    sync(tx)
    channel.queue_delete(queue)
    tx.tx_commit()
    channel.queue_declare(queue)
    assert get(channel, queue) is None


def test_commit_to_a_full_queue(tx: BlockingChannel, channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    _send(tx, queue, "a", "b")
    with closes(tx, 406, "PRECONDITION_FAILED - partial tx completion"):
        tx.tx_commit()
    assert drain(channel, queue) == ["a"]


# --- acks ------------------------------------------------------------------------------------------------------------


def test_acks_come_with_the_commit(tx: BlockingChannel, channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, "a")
    got = must_get(tx, queue, auto_ack=False)
    tx.basic_ack(got.method.delivery_tag)
    tx.tx_commit()
    tx.close()
    assert get(channel, queue) is None


def test_uncommitted_acks_are_none(tx: BlockingChannel, channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, "a")
    got = must_get(tx, queue, auto_ack=False)
    tx.basic_ack(got.method.delivery_tag)
    tx.close()
    again = must_get(channel, queue)
    assert (again.body, again.method.redelivered) == (b"a", True)


def test_rollback_of_acks_leaves_all_unacked(tx: BlockingChannel, channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, "a", "b")
    first, second = must_get(tx, queue, auto_ack=False), must_get(tx, queue, auto_ack=False)
    tx.basic_ack(second.method.delivery_tag, multiple=True)
    tx.tx_rollback()
    assert get(channel, queue) is None
    tx.basic_ack(first.method.delivery_tag)
    tx.tx_commit()
    tx.close()
    assert drain(channel, queue, 1) == ["b"]


@pytest.mark.parametrize("requeue", [False, True])
def test_rejects_come_with_the_commit(tx: BlockingChannel, channel: BlockingChannel, queue: str, requeue: bool) -> None:
    publish(channel, queue, "a")
    got = must_get(tx, queue, auto_ack=False)
    tx.basic_reject(got.method.delivery_tag, requeue=requeue)
    sync(tx)
    assert get(channel, queue) is None
    tx.tx_commit()
    if requeue:
        assert must_get(channel, queue).body == b"a"
    else:
        assert get(channel, queue) is None


def test_an_unknown_tag_is_an_error_at_once(tx: BlockingChannel) -> None:
    with closes(tx, 406, "PRECONDITION_FAILED - unknown delivery tag 99"):
        tx.basic_ack(99)


def test_a_tag_can_be_acked_only_once_before_the_commit(
    tx: BlockingChannel, channel: BlockingChannel, queue: str
) -> None:
    publish(channel, queue, "a")
    tag = must_get(tx, queue, auto_ack=False).method.delivery_tag
    tx.basic_ack(tag)
    with closes(tx, 406, f"PRECONDITION_FAILED - unknown delivery tag {tag}"):
        tx.basic_ack(tag)


def test_prefetch_opens_at_the_commit(tx: BlockingChannel, channel: BlockingChannel, queue: str) -> None:
    tx.basic_qos(prefetch_count=1)
    inbox = Inbox(tx, queue)
    publish(channel, queue, "a", "b")
    tag = inbox.take(1)[0].method.delivery_tag
    tx.basic_ack(tag)
    settle(tx)
    assert inbox.bodies() == []
    tx.tx_commit()
    assert inbox.take_bodies(1) == ["b"]


def test_moving_a_message_is_all_or_nothing(tx: BlockingChannel, channel: BlockingChannel, name: Names) -> None:
    source, target = name(), name()
    for queue in (source, target):
        channel.queue_declare(queue)
    publish(channel, source, "a")
    got = must_get(tx, source, auto_ack=False)
    _send(tx, target, "moved")
    tx.basic_ack(got.method.delivery_tag)
    tx.tx_rollback()
    assert counts(channel, target) == (0, 0)
    _send(tx, target, "moved")
    tx.basic_ack(got.method.delivery_tag)
    tx.tx_commit()
    tx.close()
    assert (drain(channel, source), drain(channel, target)) == ([], ["moved"])


def test_getting_and_declaring_do_not_wait(tx: BlockingChannel, channel: BlockingChannel, name: Names) -> None:
    queue = name()
    tx.queue_declare(queue)
    publish(channel, queue, "a")
    assert must_get(tx, queue).body == b"a"
    tx.tx_rollback()
    assert get(channel, queue) is None


def test_committed_acks_of_a_consumer(tx: BlockingChannel, channel: BlockingChannel, queue: str) -> None:
    inbox = Inbox(tx, queue)
    publish(channel, queue, *"abc")
    tags = [message.method.delivery_tag for message in inbox.take(3)]
    tx.basic_ack(tags[1], multiple=True)
    tx.basic_nack(tags[2], requeue=True)
    tx.tx_commit()
    assert inbox.take_bodies(1) == ["c"]
    tx.close()
    assert drain(channel, queue, 1) == ["c"]
