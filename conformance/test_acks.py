"""Acks, nacks and rejects: single and multiple, tag 0, the errors, and what counts as settled."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, closes, drain, get, must_get, publish, ready, settle, sync
from conformance.support import Names, eventually


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """A queue with the messages a to e."""
    made = str(channel.queue_declare(name()).method.queue)
    publish(channel, made, *"abcde")
    return made


@pytest.fixture
def consumer(channel: BlockingChannel) -> BlockingChannel:
    """A second channel, whose end gives back what is not acked."""
    return channel.connection.channel()


def _take_all(consumer: BlockingChannel, queue: str) -> None:
    """Get the five messages as delivery tags 1 to 5."""
    for tag in range(1, 6):
        assert must_get(consumer, queue, auto_ack=False).method.delivery_tag == tag


def _check_left(channel: BlockingChannel, consumer: BlockingChannel, queue: str, left: str) -> None:
    """Just these messages come back when the consumer's channel is closed."""
    consumer.close()
    assert drain(channel, queue, len(left)) == list(left)


UNKNOWN = "PRECONDITION_FAILED - unknown delivery tag {}"


# --- what is settled -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "multiple", "left"),
    [
        (1, False, "bcde"),
        (3, False, "abde"),
        (5, False, "abcd"),
        (1, True, "bcde"),
        (3, True, "de"),
        (5, True, ""),
        (0, True, ""),
    ],
)
@pytest.mark.parametrize("how", ["basic_ack", "basic_nack"])
def test_ack_and_nack_settle_the_same(
    channel: BlockingChannel, consumer: BlockingChannel, queue: str, how: str, tag: int, multiple: bool, left: str
) -> None:
    _take_all(consumer, queue)
    options = {} if how == "basic_ack" else {"requeue": False}
    getattr(consumer, how)(tag, multiple=multiple, **options)
    _check_left(channel, consumer, queue, left)


@pytest.mark.parametrize(("tag", "multiple", "back"), [(3, False, "c"), (3, True, "abc"), (0, True, "abcde")])
def test_nack_with_requeue(
    channel: BlockingChannel, consumer: BlockingChannel, queue: str, tag: int, multiple: bool, back: str
) -> None:
    _take_all(consumer, queue)
    consumer.basic_nack(tag, multiple=multiple, requeue=True)
    assert eventually(lambda: ready(channel, queue) == len(back))
    assert drain(channel, queue) == list(back)
    _check_left(channel, consumer, queue, "".join(body for body in "abcde" if body not in back))


@pytest.mark.parametrize("requeue", [True, False])
def test_reject(channel: BlockingChannel, consumer: BlockingChannel, queue: str, requeue: bool) -> None:
    _take_all(consumer, queue)
    consumer.basic_reject(2, requeue=requeue)
    sync(consumer)
    assert drain(channel, queue) == (["b"] if requeue else [])
    _check_left(channel, consumer, queue, "acde")


def test_in_any_order(channel: BlockingChannel, consumer: BlockingChannel, queue: str) -> None:
    _take_all(consumer, queue)
    for tag in (4, 1, 5, 2):
        consumer.basic_ack(tag)
    _check_left(channel, consumer, queue, "c")


def test_multiple_after_single(channel: BlockingChannel, consumer: BlockingChannel, queue: str) -> None:
    _take_all(consumer, queue)
    consumer.basic_ack(2)
    consumer.basic_ack(4, multiple=True)
    consumer.basic_ack(5)
    _check_left(channel, consumer, queue, "")


def test_multiple_goes_over_several_queues(
    channel: BlockingChannel, consumer: BlockingChannel, queue: str, name: Names
) -> None:
    other = name()
    channel.queue_declare(other)
    publish(channel, other, "x")
    must_get(consumer, queue, auto_ack=False)
    must_get(consumer, other, auto_ack=False)
    must_get(consumer, queue, auto_ack=False)
    consumer.basic_ack(2, multiple=True)
    _check_left(channel, consumer, queue, "bcde")
    assert drain(channel, other) == []


def test_multiple_leaves_other_channels_alone(channel: BlockingChannel, consumer: BlockingChannel, queue: str) -> None:
    must_get(consumer, queue, auto_ack=False)
    other = channel.connection.channel()
    must_get(other, queue, auto_ack=False)
    other.basic_ack(0, multiple=True)
    other.close()
    _check_left(channel, consumer, queue, "acde")


@pytest.mark.parametrize("how", ["basic_ack", "basic_nack"])
def test_everything_of_nothing(consumer: BlockingChannel, queue: str, how: str) -> None:
    getattr(consumer, how)(0, multiple=True)
    sync(consumer)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["basic_ack", "basic_nack", "basic_reject"])
@pytest.mark.parametrize("tag", [0, 6, 99, 2**63])
def test_unknown_tag(consumer: BlockingChannel, queue: str, how: str, tag: int) -> None:
    _take_all(consumer, queue)
    with closes(consumer, 406, UNKNOWN.format(tag)):
        getattr(consumer, how)(tag)


@pytest.mark.parametrize("how", ["basic_ack", "basic_nack"])
@pytest.mark.parametrize("tag", [6, 99])
def test_unknown_tag_with_multiple(
    channel: BlockingChannel, consumer: BlockingChannel, queue: str, how: str, tag: int
) -> None:
    _take_all(consumer, queue)
    with closes(consumer, 406, UNKNOWN.format(tag)):
        getattr(consumer, how)(tag, multiple=True)
    assert drain(channel, queue, 5) == list("abcde")


def test_single_tag_zero(consumer: BlockingChannel, queue: str) -> None:
    with closes(consumer, 406, UNKNOWN.format(0)):
        consumer.basic_ack(0)


@pytest.mark.parametrize("first", ["basic_ack", "basic_nack", "basic_reject"])
@pytest.mark.parametrize("second", ["basic_ack", "basic_nack", "basic_reject"])
def test_settling_twice(
    channel: BlockingChannel, consumer: BlockingChannel, queue: str, first: str, second: str
) -> None:
    _take_all(consumer, queue)
    getattr(consumer, first)(2)
    with closes(consumer, 406, UNKNOWN.format(2)):
        getattr(consumer, second)(2)
    expected = "acde" if first == "basic_ack" else "abcde"
    assert drain(channel, queue, len(expected)) == list(expected)


def test_a_multiple_below_what_is_outstanding(consumer: BlockingChannel, queue: str) -> None:
    _take_all(consumer, queue)
    consumer.basic_ack(3, multiple=True)
    with closes(consumer, 406, UNKNOWN.format(2)):
        consumer.basic_ack(2, multiple=True)


def test_ack_of_a_no_ack_delivery(consumer: BlockingChannel, queue: str) -> None:
    inbox = Inbox(consumer, queue, auto_ack=True)
    inbox.take(5)
    with closes(consumer, 406, UNKNOWN.format(1)):
        consumer.basic_ack(1)


def test_ack_of_a_no_ack_get(consumer: BlockingChannel, queue: str) -> None:
    must_get(consumer, queue, auto_ack=True)
    with closes(consumer, 406, UNKNOWN.format(1)):
        consumer.basic_ack(1)


def test_ack_on_the_wrong_channel(channel: BlockingChannel, consumer: BlockingChannel, queue: str) -> None:
    _take_all(consumer, queue)
    other = channel.connection.channel()
    with closes(other, 406, UNKNOWN.format(1)):
        other.basic_ack(1)
    assert get(channel, queue) is None


def test_the_error_gives_everything_back(channel: BlockingChannel, consumer: BlockingChannel, queue: str) -> None:
    _take_all(consumer, queue)
    with closes(consumer, 406, UNKNOWN.format(99)):
        consumer.basic_ack(1)
        consumer.basic_ack(99)
        consumer.basic_ack(3)
    got = must_get(channel, queue)
    assert (got.body, got.method.redelivered) == (b"b", True)
    assert drain(channel, queue) == list("cde")


# --- after the consumer ----------------------------------------------------------------------------------------------


def test_ack_after_cancel(channel: BlockingChannel, consumer: BlockingChannel, queue: str) -> None:
    inbox = Inbox(consumer, queue)
    inbox.take(5)
    consumer.basic_cancel(inbox.tag)
    consumer.basic_ack(4, multiple=True)
    _check_left(channel, consumer, queue, "e")


def test_acks_make_room(channel: BlockingChannel, consumer: BlockingChannel, queue: str) -> None:
    consumer.basic_qos(prefetch_count=2)
    inbox = Inbox(consumer, queue)
    assert inbox.take_bodies(2) == ["a", "b"]
    consumer.basic_ack(2, multiple=True)
    assert inbox.take_bodies(2) == ["c", "d"]
    consumer.basic_nack(3, requeue=False)
    assert inbox.take_bodies(1) == ["e"]
    settle(consumer)
    assert inbox.bodies() == []
