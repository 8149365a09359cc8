"""Length limits: by messages and by bytes, what each overflow mode does, what counts."""

from __future__ import annotations

from typing import Any

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError

from conformance.clients import Inbox, counts, drain, get, must_get, publish, ready, settle
from conformance.support import Names, eventually


def _queue(channel: BlockingChannel, name: Names, **arguments: Any) -> str:
    """A queue with these arguments, written without their x-."""
    wire = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return str(channel.queue_declare(name(), arguments=wire).method.queue)


def _try(channel: BlockingChannel, queue: str, *bodies: str) -> list[str]:
    """Publish; the bodies that were confirmed."""
    confirmed = []
    for body in bodies:
        try:
            publish(channel, queue, body)
            confirmed.append(body)
        except NackError:
            pass
    return confirmed


# --- dropping from the head ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"max_length": 3}, ["3333", "4444", "5555"]),
        ({"max_length": 1}, ["5555"]),
        ({"max_length": 0}, []),
        ({"max_length": 5}, ["1111", "2222", "3333", "4444", "5555"]),
        ({"max_length_bytes": 8}, ["4444", "5555"]),
        ({"max_length_bytes": 11}, ["4444", "5555"]),
        ({"max_length_bytes": 3}, []),
        ({"max_length_bytes": 0}, []),
        ({"max_length": 3, "max_length_bytes": 8}, ["4444", "5555"]),
        ({"max_length": 1, "max_length_bytes": 8}, ["5555"]),
    ],
)
@pytest.mark.parametrize("overflow", [{}, {"overflow": "drop-head"}])
def test_drop_head(
    channel: BlockingChannel, name: Names, arguments: dict[str, int], left: list[str], overflow: dict[str, str]
) -> None:
    queue = _queue(channel, name, **arguments, **overflow)
    bodies = ["1111", "2222", "3333", "4444", "5555"]
    assert _try(channel, queue, *bodies) == bodies
    assert ready(channel, queue) == len(left)
    assert drain(channel, queue) == left


def test_a_big_message_pushes_out_many(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, max_length_bytes=10)
    publish(channel, queue, "1", "22", "333", "4444")
    publish(channel, queue, "55555")
    assert drain(channel, queue) == ["4444", "55555"]
    publish(channel, queue, "1", "22")
    publish(channel, queue, "x" * 11)
    assert drain(channel, queue) == []


def test_empty_bodies_weigh_nothing(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, max_length_bytes=0)
    for _ in range(5):
        publish(channel, queue, b"", headers={"headers": "do not count"})
    assert ready(channel, queue) == 5


def test_a_waiting_consumer_takes_before_the_limit(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, max_length=0)
    inbox = Inbox(channel, queue)
    publish(channel, queue, *"abc")
    assert inbox.take_bodies(3) == ["a", "b", "c"]


@pytest.mark.parametrize("arguments", [{"max_length": 2}, {"max_length_bytes": 2}])
def test_unacked_messages_do_not_count(channel: BlockingChannel, name: Names, arguments: dict[str, int]) -> None:
    queue = _queue(channel, name, **arguments)
    publish(channel, queue, "a", "b")
    for _ in range(2):
        must_get(channel, queue, auto_ack=False)
    publish(channel, queue, "c", "d")
    assert ready(channel, queue) == 2
    channel.basic_ack(0, multiple=True)
    assert drain(channel, queue) == ["c", "d"]


@pytest.mark.parametrize("back", [1, 2])
def test_requeue_over_the_limit_drops_from_the_head(channel: BlockingChannel, name: Names, back: int) -> None:
    queue = _queue(channel, name, max_length=2)
    publish(channel, queue, "a", "b")
    for _ in range(2):
        must_get(channel, queue, auto_ack=False)
    publish(channel, queue, "c")
    channel.basic_nack(back, multiple=True)
    assert drain(channel, queue) == (["a", "c"] if back == 1 else ["b", "c"])


def test_a_closed_channel_over_the_limit(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, max_length=2)
    holder = channel.connection.channel()
    inbox = Inbox(holder, queue)
    publish(channel, queue, "a", "b", "c")
    inbox.take(3)
    holder.close()
    assert eventually(lambda: counts(channel, queue) == (2, 0))
    assert drain(channel, queue) == ["b", "c"]


# --- rejecting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ({"max_length": 2}, ["1111", "22"]),
        ({"max_length": 0}, []),
        ({"max_length_bytes": 6}, ["1111", "22"]),
        ({"max_length_bytes": 5}, ["1111", "4"]),
        ({"max_length_bytes": 2}, ["22"]),
        ({"max_length": 1, "max_length_bytes": 3}, ["22"]),
    ],
)
def test_reject_publish(
    channel: BlockingChannel, name: Names, overflow: str, arguments: dict[str, int], kept: list[str]
) -> None:
    queue = _queue(channel, name, overflow=overflow, **arguments)
    assert _try(channel, queue, "1111", "22", "333", "4") == kept
    assert drain(channel, queue) == kept


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_rejecting_without_confirms_is_silent(channel: BlockingChannel, name: Names, overflow: str) -> None:
    queue = _queue(channel, name, overflow=overflow, max_length=1)
    for body in (b"a", b"b", b"c"):
        channel.basic_publish("", queue, body, mandatory=True)
    assert drain(channel, queue) == ["a"]


def test_a_full_rejecting_queue_takes_what_a_consumer_waits_for(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, overflow="reject-publish", max_length=1)
    inbox = Inbox(channel, queue)
    assert _try(channel, queue, "a", "b", "c") == ["a", "b", "c"]
    assert inbox.take_bodies(3) == ["a", "b", "c"]


def test_a_queue_of_length_zero_rejects_even_what_a_consumer_waits_for(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, overflow="reject-publish", max_length=0)
    inbox = Inbox(channel, queue)
    assert _try(channel, queue, "a", "b") == []
    settle(channel)
    assert inbox.bodies() == []


def test_room_again(channel: BlockingChannel, name: Names) -> None:
    queue = _queue(channel, name, overflow="reject-publish", max_length=2)
    assert _try(channel, queue, "a", "b", "c") == ["a", "b"]
    tag = must_get(channel, queue, auto_ack=False).method.delivery_tag
    assert _try(channel, queue, "d", "e") == ["d"]
    channel.basic_nack(tag)
    assert eventually(lambda: ready(channel, queue) == 3)
    assert _try(channel, queue, "f") == []
    assert drain(channel, queue) == ["a", "b", "d"]
    channel.queue_purge(queue)
    assert _try(channel, queue, "g") == ["g"]


def test_rejected_messages_go_to_the_dead_letters_when_asked(channel: BlockingChannel, name: Names) -> None:
    dead = _queue(channel, name)
    queue = _queue(
        channel,
        name,
        overflow="reject-publish-dlx",
        max_length=1,
        dead_letter_exchange="",
        dead_letter_routing_key=dead,
    )
    assert _try(channel, queue, "a", "b") == ["a"]
    got = must_get(channel, dead)
    assert got.body == b"b"
    (death,) = got.headers["x-death"]
    assert (death["reason"], death["queue"], death["count"]) == ("maxlen", queue, 1)
    assert drain(channel, queue) == ["a"]


def test_others_get_what_one_queue_rejects(channel: BlockingChannel, name: Names) -> None:
    exchange, full, free = (
        name("x"),
        _queue(channel, name, overflow="reject-publish", max_length=0),
        _queue(channel, name),
    )
    channel.exchange_declare(exchange, "fanout")
    for queue in (full, free):
        channel.queue_bind(queue, exchange)
    channel.basic_publish(exchange, "", b"m", BasicProperties())
    assert must_get(channel, free).body == b"m"
    assert get(channel, full) is None
