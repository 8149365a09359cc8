"""Quorum queues as their users see them: what a declare may say, what is refused, returns and their count, limits.

That everything in them survives is not for one connection to see: tests/store/test_quorum_queues.py kills the broker.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError

from conformance.clients import (
    Inbox,
    closes,
    counts,
    drain,
    ends_connection,
    get,
    let_pass,
    must_get,
    publish,
    ready,
    settle,
)
from conformance.operating import Operator
from conformance.support import Names, differs, eventually

Connect = Callable[..., pika.BlockingConnection]
TYPE = {"x-queue-type": "quorum"}


def _named(**arguments: Any) -> dict[str, Any]:
    return {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}


def _declare(channel: BlockingChannel, name: Names, **arguments: Any) -> str:
    """A quorum queue."""
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=TYPE | _named(**arguments))
    return queue


def _told(message: Any) -> tuple[str, bool, int | None]:
    """Body, redelivered flag and x-delivery-count of a message."""
    return message.body.decode(), message.method.redelivered, message.headers.get("x-delivery-count")


def _nack(channel: BlockingChannel, message: Any, *, requeue: bool = True) -> None:
    channel.basic_nack(message.method.delivery_tag, requeue=requeue)


def _where(queue: str) -> str:
    return f"queue '{queue}' in vhost '/'"


# --- declaring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "property_"),
    [
        ({"durable": False}, "non-durable"),
        ({"exclusive": True}, "exclusive-owner"),
        ({"auto_delete": True}, "auto-delete"),
        ({"auto_delete": True, "exclusive": True, "durable": False}, "auto-delete"),
        ({"exclusive": True, "durable": False}, "exclusive-owner"),
    ],
)
def test_what_it_cannot_be(channel: BlockingChannel, name: Names, flags: dict[str, bool], property_: str) -> None:
    queue = name()
    with closes(channel, 406, f"PRECONDITION_FAILED - invalid property '{property_}' for {_where(queue)}"):
        channel.queue_declare(queue, arguments=TYPE, **({"durable": True} | flags))


def test_it_needs_a_name(channel: BlockingChannel) -> None:
    text = "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue"
    with closes(channel, 406, text):
        channel.queue_declare("", durable=True, arguments=TYPE)


@pytest.mark.parametrize(
    "arguments",
    [
        {"x-quorum-initial-group-size": 1},
        {"x-quorum-initial-group-size": 7},
        {"x-queue-leader-locator": "client-local"},
        {"x-queue-leader-locator": "balanced"},
        {"x-queue-leader-locator": "random"},
        {"x-queue-leader-locator": "least-leaders"},
        {"x-max-in-memory-length": 0},
        {"x-max-in-memory-bytes": 1000},
        {"x-dead-letter-strategy": "at-most-once"},
        {"x-dead-letter-strategy": "at-least-once"},
        {"x-delivery-limit": 0},
        {"x-message-ttl": 60_000, "x-expires": 60_000},
        {"x-max-length": 1, "x-max-length-bytes": 1, "x-overflow": "reject-publish"},
        {"x-overflow": "reject-publish-dlx"},
        {"x-single-active-consumer": True},
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "k"},
        {"x-nobody-knows": 1},
    ],
    ids=lambda arguments: "-".join(f"{key[2:]}={value}" for key, value in arguments.items()),
)
def test_arguments_that_are_taken(channel: BlockingChannel, name: Names, arguments: dict[str, Any]) -> None:
    queue = name()
    for _ in range(2):
        channel.queue_declare(queue, durable=True, arguments=TYPE | arguments)
    assert counts(channel, queue) == (0, 0)


@pytest.mark.parametrize(
    "argument",
    [
        "x-max-priority",
        "x-queue-mode",
        "x-queue-version",
        "x-queue-master-locator",
        "x-max-age",
        "x-stream-max-segment-size-bytes",
        "x-initial-cluster-size",
    ],
)
def test_arguments_of_other_types(channel: BlockingChannel, name: Names, argument: str) -> None:
    queue = name()
    text = f"PRECONDITION_FAILED - invalid arg '{argument}' for {_where(queue)} of queue type rabbit_quorum_queue"
    with closes(channel, 406, text):  # whatever its value, and before anything is said of the flags
        channel.queue_declare(queue, durable=False, arguments=TYPE | {argument: -1})


@pytest.mark.parametrize(
    ("argument", "value", "problem"),
    [
        ("x-quorum-initial-group-size", 0, "{value_zero,0}"),
        ("x-quorum-initial-group-size", -1, "{value_negative,-1}"),
        ("x-quorum-initial-group-size", "3", '"expected integer, got longstr"'),
        ("x-queue-leader-locator", "zzz", "invalid_queue_locator_arg"),
        ("x-queue-leader-locator", 1, "{unacceptable_type,signedint}"),
        ("x-dead-letter-strategy", "zzz", "invalid_dlx_strategy"),
        ("x-dead-letter-strategy", True, "{unacceptable_type,bool}"),
        ("x-max-in-memory-length", -1, "{value_negative,-1}"),
        ("x-max-in-memory-length", datetime(2020, 1, 1, tzinfo=UTC), '"expected integer, got timestamp"'),
        ("x-max-in-memory-bytes", "1", '"expected integer, got longstr"'),
        ("x-overflow", "zzz", "invalid_overflow"),
        ("x-message-ttl", -1, "{value_negative,-1}"),
        ("x-expires", 0, "{value_zero,0}"),
        ("x-dead-letter-routing-key", "k", "routing_key_but_no_dlx_defined"),
        ("x-single-active-consumer", 1, "{unacceptable_type,signedint}"),
    ],
)
def test_values_that_are_refused(
    channel: BlockingChannel, name: Names, argument: str, value: Any, problem: str
) -> None:
    queue = name()
    with closes(channel, 406, f"PRECONDITION_FAILED - invalid arg '{argument}' for {_where(queue)}: {problem}"):
        channel.queue_declare(queue, durable=False, arguments=TYPE | {argument: value})


@differs(
    rabbitmq=None,
    rabbitish="invalid arg 'x-delivery-limit' for queue '{}' in vhost '/': {{value_negative,-1}}",
    reason="RabbitMQ 3.10 does not look at the value, and drops at the first return",
)
def test_a_negative_delivery_limit(channel: BlockingChannel, name: Names, expected: str | None) -> None:
    if expected is None:
        _declare(channel, name, delivery_limit=-1)
        return
    queue = name()
    with closes(channel, 406, "PRECONDITION_FAILED - " + expected.format(queue)):
        channel.queue_declare(queue, durable=True, arguments=TYPE | {"x-delivery-limit": -1})


INEQUIVALENT = [
    ("x-queue-type", TYPE, {}, "received none but current is the value 'quorum' of type 'longstr'"),
    ("x-queue-type", {}, TYPE, "received the value 'quorum' of type 'longstr' but current is none"),
    ("x-queue-type", TYPE, {"x-queue-type": "classic"}, "received 'classic' but current is 'quorum'"),
    ("x-queue-type", {"x-queue-type": "classic"}, TYPE, "received 'quorum' but current is 'classic'"),
    (
        "x-quorum-initial-group-size",
        TYPE,
        TYPE | {"x-quorum-initial-group-size": 3},
        "received the value '3' of type 'signedint' but current is none",
    ),
    (
        "x-delivery-limit",
        TYPE | {"x-delivery-limit": 3},
        TYPE | {"x-delivery-limit": 4},
        "received '4' but current is '3'",
    ),
    (
        "x-dead-letter-strategy",
        TYPE | {"x-dead-letter-strategy": "at-most-once"},
        TYPE,
        "received none but current is the value 'at-most-once' of type 'longstr'",
    ),
    (
        "x-max-in-memory-length",
        TYPE | {"x-max-in-memory-length": 1},
        TYPE | {"x-max-in-memory-length": 2},
        "received '2' but current is '1'",
    ),
    (
        "x-queue-leader-locator",
        TYPE | {"x-queue-leader-locator": "balanced"},
        TYPE | {"x-queue-leader-locator": "random"},
        "received 'random' but current is 'balanced'",
    ),
]


@pytest.mark.parametrize(("argument", "first", "then", "told"), INEQUIVALENT)
def test_declared_again_otherwise(
    channel: BlockingChannel, name: Names, argument: str, first: dict[str, Any], then: dict[str, Any], told: str
) -> None:
    queue = name()
    channel.queue_declare(queue, durable=True, arguments=first)
    with closes(channel, 406, f"PRECONDITION_FAILED - inequivalent arg '{argument}' for {_where(queue)}: {told}"):
        channel.queue_declare(queue, durable=True, arguments=then)


def test_declared_again_and_passively(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name, delivery_limit=5)
    publish(channel, queue, "a", "b")
    channel.queue_declare(queue, durable=True, arguments=TYPE | {"x-delivery-limit": 5})
    assert eventually(lambda: ready(channel, queue) == 2)


# --- what other queues can -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["if_unused", "if_empty"])
def test_deleting_has_no_conditions(channel: BlockingChannel, name: Names, condition: str) -> None:
    queue = _declare(channel, name)
    flag = condition.replace("_", "-")
    text = f"NOT_IMPLEMENTED - cannot delete {_where(queue)}. queue.delete operations with {flag} flag set are not "
    with ends_connection(channel, 540, text + "supported by quorum queues"):
        channel.queue_delete(queue, **{condition: True})


def test_deleting_what_is_not_there_under_conditions(channel: BlockingChannel, name: Names) -> None:
    assert channel.queue_delete(name(), if_unused=True, if_empty=True).method.message_count == 0


def test_deleting(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    publish(channel, queue, "a", "b", "c")
    eventually(lambda: ready(channel, queue) == 3)
    assert channel.queue_delete(queue).method.message_count == 3


def test_a_limit_for_the_whole_channel(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    channel.basic_qos(prefetch_count=1, global_qos=True)
    with ends_connection(channel, 540, f"NOT_IMPLEMENTED - {_where(queue)} does not support global qos"):
        channel.basic_consume(queue, lambda *_: None)


def test_a_limit_for_the_whole_channel_that_was_taken_back(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    channel.basic_qos(prefetch_count=1, global_qos=True)
    channel.basic_qos(prefetch_count=0, global_qos=True)
    inbox = Inbox(channel, queue)
    publish(channel, queue, "a", "b")
    assert inbox.take_bodies(2) == ["a", "b"]


def test_a_limit_for_the_whole_channel_that_comes_later(connect: Connect, name: Names) -> None:
    """It is for consumers of classic queues alone."""
    consuming, publishing = connect().channel(), connect().channel()
    queue = _declare(consuming, name)
    inbox = Inbox(consuming, queue)
    consuming.basic_qos(prefetch_count=1, global_qos=True)
    publish(publishing, queue, "a", "b", "c")
    assert inbox.take_bodies(3) == ["a", "b", "c"]


@pytest.mark.parametrize("argument", ["x-cancel-on-ha-failover", "x-stream-offset"])
def test_consumer_arguments_of_other_types(channel: BlockingChannel, name: Names, argument: str) -> None:
    queue = _declare(channel, name)
    text = f"PRECONDITION_FAILED - invalid arg '{argument}' for {_where(queue)} of queue type rabbit_quorum_queue"
    with closes(channel, 406, text):
        channel.basic_consume(queue, lambda *_: None, arguments={argument: True})


@pytest.mark.parametrize("first", [True, False], ids=["the-first", "the-second"])
def test_nobody_is_an_exclusive_consumer(channel: BlockingChannel, name: Names, first: bool) -> None:
    queue = _declare(channel, name)
    Inbox(channel, queue, exclusive=first)
    Inbox(channel, queue, exclusive=not first)
    settle(channel)
    assert eventually(lambda: counts(channel, queue) == (0, 2), timeout=8)


def test_priorities_are_not_looked_at(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    for priority in (1, 9, 5):
        publish(channel, queue, str(priority), priority=priority)
    assert [must_get(channel, queue).body for _ in range(3)] == [b"1", b"9", b"5"]


# --- a single active consumer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("no_ack", [True, False])
def test_get_passes_by_no_single_active_consumer(channel: BlockingChannel, name: Names, no_ack: bool) -> None:
    queue = _declare(channel, name, single_active_consumer=True)
    text = f"RESOURCE_LOCKED - cannot obtain access to locked {_where(queue)}. basic.get operations are not supported "
    with closes(channel, 405, text + "by quorum queues with single active consumer"):
        get(channel, queue, auto_ack=no_ack)


def test_a_single_active_consumer(connect: Connect, name: Names) -> None:
    channel, other = connect().channel(), connect().channel()
    queue = _declare(channel, name, single_active_consumer=True)
    first, second = Inbox(channel, queue, auto_ack=True), Inbox(other, queue, auto_ack=True)
    settle(channel, other)
    publish(channel, queue, "a", "b")
    assert first.take_bodies(2) == ["a", "b"]
    channel.basic_cancel(first.tag)
    publish(channel, queue, "c")
    assert second.take_bodies(1) == ["c"]


# --- coming back -----------------------------------------------------------------------------------------------------


def test_get_tells_the_count_from_the_first_time(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    publish(channel, queue, "a")
    for count in range(3):
        got = must_get(channel, queue, auto_ack=False)
        assert _told(got) == ("a", count > 0, count)
        _nack(channel, got)


def test_get_without_acknowledgement_tells_it_too(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    publish(channel, queue, "a", headers={"mine": 1})
    got = must_get(channel, queue)
    assert (_told(got), got.headers["mine"]) == (("a", False, 0), 1)


def test_consumers_are_told_the_count_of_what_came_back(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    inbox = Inbox(channel, queue)
    publish(channel, queue, "a")
    for count in (None, 1, 2):
        (message,) = inbox.take(1)
        assert _told(message) == ("a", count is not None, count)
        channel.basic_reject(message.method.delivery_tag, requeue=True)


def test_a_count_that_the_publisher_wrote(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    inbox = Inbox(channel, queue)
    publish(channel, queue, "a", headers={"x-delivery-count": 7})
    (message,) = inbox.take(1)
    assert _told(message) == ("a", False, 7)
    _nack(channel, message)
    assert _told(inbox.take(1)[0]) == ("a", True, 1)


def test_the_properties_stay_as_they_were(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    for mode in (None, 1, 2):
        publish(channel, queue, str(mode), delivery_mode=mode, message_id="m")
        got = must_get(channel, queue, auto_ack=False)
        _nack(channel, got)
        again = must_get(channel, queue)
        assert [one.properties.delivery_mode for one in (got, again)] == [mode, mode]
        assert again.properties.message_id == "m"


def test_a_closed_channel_gives_back_in_order(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    publish(channel, queue, "a", "b", "c")
    holder = channel.connection.channel()
    for _ in range(2):
        must_get(holder, queue, auto_ack=False)
    holder.close()
    eventually(lambda: ready(channel, queue) == 3)
    assert [_told(must_get(channel, queue)) for _ in range(3)] == [("a", True, 1), ("b", True, 1), ("c", False, 0)]


@differs(rabbitmq="bca", rabbitish="abc", reason="what comes back has its old place, as in RabbitMQ's classic queues")
def test_the_place_of_what_comes_back(channel: BlockingChannel, name: Names, expected: str) -> None:
    queue = _declare(channel, name)
    publish(channel, queue, "a", "b", "c")
    _nack(channel, must_get(channel, queue, auto_ack=False))
    eventually(lambda: ready(channel, queue) == 3)
    assert "".join(drain(channel, queue, 3)) == expected


@differs(rabbitmq="cabd", rabbitish="abcd", reason="what comes back has its old place, not that of its return")
def test_the_place_of_what_comes_back_under_a_limit(channel: BlockingChannel, name: Names, expected: str) -> None:
    queue = _declare(channel, name, delivery_limit=5)
    publish(channel, queue, "a", "b", "c", "d")
    got = [must_get(channel, queue, auto_ack=False) for _ in range(3)]
    for index in (2, 0, 1):
        _nack(channel, got[index])
    assert "".join(drain(channel, queue, 4)) == expected


@differs(rabbitmq="cab", rabbitish="abc", reason="what comes back has its old place, as in RabbitMQ's classic queues")
def test_recover(channel: BlockingChannel, name: Names, expected: str) -> None:
    queue = _declare(channel, name)
    publish(channel, queue, "a", "b", "c")
    for _ in range(2):
        must_get(channel, queue, auto_ack=False)
    channel.basic_recover(requeue=True)
    eventually(lambda: ready(channel, queue) == 3)
    assert "".join(drain(channel, queue, 3)) == expected


def test_a_cancelled_consumer_keeps_what_it_has(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    consuming = channel.connection.channel()
    consuming.basic_qos(prefetch_count=1)
    inbox = Inbox(consuming, queue)
    publish(channel, queue, "a", "b")
    (message,) = inbox.take(1)
    consuming.basic_cancel(inbox.tag)
    assert drain(channel, queue, 1) == ["b"]
    consuming.basic_ack(message.method.delivery_tag)
    settle(consuming)
    assert drain(channel, queue) == []


# --- the delivery limit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_dropped_after_the_limit(channel: BlockingChannel, name: Names, limit: int) -> None:
    queue = _declare(channel, name, delivery_limit=limit)
    publish(channel, queue, "a", "b")
    for count in range(limit + 1):
        got = must_get(channel, queue, auto_ack=False)
        assert _told(got) == ("a", count > 0, count)
        _nack(channel, got)
    assert _told(must_get(channel, queue)) == ("b", False, 0)


def test_dead_lettered_after_the_limit(channel: BlockingChannel, name: Names) -> None:
    dead = _declare(channel, name)
    queue = _declare(channel, name, delivery_limit=1, dead_letter_exchange="", dead_letter_routing_key=dead)
    publish(channel, queue, "a", message_id="m")
    for _ in range(2):
        _nack(channel, must_get(channel, queue, auto_ack=False))
    got = must_get(channel, dead)
    (death,) = got.headers["x-death"]
    assert (got.body, death["reason"], death["queue"], death["count"]) == (b"a", "delivery_limit", queue, 1)
    assert (got.headers["x-first-death-reason"], got.properties.message_id) == ("delivery_limit", "m")
    assert _told(got) == ("a", False, 0)  # it has come back to this queue never yet


def test_the_count_is_not_taken_along(channel: BlockingChannel, name: Names) -> None:
    dead = str(channel.queue_declare(name()).method.queue)
    queue = _declare(channel, name, dead_letter_exchange="", dead_letter_routing_key=dead)
    publish(channel, queue, "a")
    _nack(channel, must_get(channel, queue, auto_ack=False))
    got = must_get(channel, queue, auto_ack=False)
    assert _told(got) == ("a", True, 1)
    _nack(channel, got, requeue=False)
    got = must_get(channel, dead)
    assert (got.headers["x-first-death-reason"], _told(got)) == ("rejected", ("a", False, None))


def test_a_closed_channel_counts(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name, delivery_limit=1)
    publish(channel, queue, "a")
    for count in (None, 1):
        holder = channel.connection.channel()
        (message,) = Inbox(holder, queue).take(1)
        assert _told(message) == ("a", count is not None, count)
        holder.close()
    eventually(lambda: ready(channel, queue) == 0)
    assert get(channel, queue) is None


# --- limits ----------------------------------------------------------------------------------------------------------


def test_the_head_is_dropped(channel: BlockingChannel, name: Names) -> None:
    dead = _declare(channel, name)
    queue = _declare(channel, name, max_length=2, dead_letter_exchange="", dead_letter_routing_key=dead)
    publish(channel, queue, "a", "b", "c", "d")
    assert drain(channel, dead, 2) == ["a", "b"]
    assert drain(channel, queue, 2) == ["c", "d"]


def test_bytes_are_limited(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name, max_length_bytes=5)
    publish(channel, queue, "aaa", "bb", "c")
    assert drain(channel, queue, 2) == ["bb", "c"]


def test_no_dead_letters_of_what_is_refused(channel: BlockingChannel, name: Names) -> None:
    """Its head is dropped: it does not know reject-publish-dlx, which is taken all the same."""
    dead = _declare(channel, name)
    arguments = {"overflow": "reject-publish-dlx", "dead_letter_exchange": "", "dead_letter_routing_key": dead}
    queue = _declare(channel, name, max_length=2, **arguments)
    publish(channel, queue, "a", "b", "c")
    assert (drain(channel, dead, 1), drain(channel, queue, 2)) == (["a"], ["b", "c"])


@differs(
    rabbitmq=3,
    rabbitish=2,
    reason="no more is let in than the limit says; RabbitMQ lets in one more, and those on their way",
)
def test_publishers_are_refused(channel: BlockingChannel, name: Names, expected: int) -> None:
    queue = _declare(channel, name, max_length=2, overflow="reject-publish")
    publish(channel, queue, *"abc"[:expected])
    eventually(lambda: ready(channel, queue) == expected)

    def refused() -> bool:
        with pytest.raises(NackError):
            publish(channel, queue, "more")
        return True

    assert refused()
    assert drain(channel, queue, expected) == list("abc"[:expected])
    eventually(lambda: publish(channel, queue, "again") is None)


# --- time ------------------------------------------------------------------------------------------------------------


def test_messages_expire(channel: BlockingChannel, name: Names) -> None:
    dead = _declare(channel, name)
    queue = _declare(channel, name, message_ttl=60, dead_letter_exchange="", dead_letter_routing_key=dead)
    publish(channel, queue, "a")
    got = must_get(channel, dead)
    assert (got.body, got.headers["x-first-death-reason"]) == (b"a", "expired")
    eventually(lambda: ready(channel, queue) == 0)


def test_a_message_with_an_expiration(channel: BlockingChannel, name: Names) -> None:
    dead = _declare(channel, name)
    queue = _declare(channel, name, message_ttl=60_000, dead_letter_exchange="", dead_letter_routing_key=dead)
    publish(channel, queue, "a", expiration="50")
    publish(channel, queue, "b")
    got = must_get(channel, dead)
    assert (got.body, got.properties.expiration) == (b"a", None)
    assert got.headers["x-death"][0]["original-expiration"] == "50"
    assert drain(channel, queue) == ["b"]


def test_what_came_back_keeps_its_time(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name, message_ttl=150)
    publish(channel, queue, "a")
    _nack(channel, must_get(channel, queue, auto_ack=False))
    let_pass(channel, 200)
    assert get(channel, queue) is None


def test_a_waiting_consumer_gets_what_lives_no_time(connect: Connect, name: Names) -> None:
    channel, consuming = connect().channel(), connect().channel()
    queue = _declare(channel, name, message_ttl=0)
    inbox = Inbox(consuming, queue, auto_ack=True)
    settle(consuming)
    eventually(lambda: counts(channel, queue)[1] == 1, timeout=8)
    publish(channel, queue, "a")
    assert inbox.take_bodies(1) == ["a"]


# --- dead letters, purging, consumers --------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["at-most-once", "at-least-once"])
def test_dead_letter_strategies(channel: BlockingChannel, name: Names, strategy: str) -> None:
    dead = _declare(channel, name)
    how = {"dead_letter_strategy": strategy, "overflow": "reject-publish"}
    queue = _declare(channel, name, dead_letter_exchange="", dead_letter_routing_key=dead, **how)
    publish(channel, queue, "a", "b", headers={"mine": 1})
    for _ in range(2):
        _nack(channel, must_get(channel, queue, auto_ack=False), requeue=False)
    for body in ("a", "b"):
        got = must_get(channel, dead)
        assert (got.body.decode(), got.headers["mine"]) == (body, 1)
        assert [death["reason"] for death in got.headers["x-death"]] == ["rejected"]
    eventually(lambda: ready(channel, queue) == 0)


def test_purging(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    publish(channel, queue, "a", "b", "c")
    held = must_get(channel, queue, auto_ack=False)
    assert channel.queue_purge(queue).method.message_count == 2
    _nack(channel, held)
    assert drain(channel, queue, 1) == ["a"]


def test_consumers_with_priorities(connect: Connect, name: Names) -> None:
    channel, low, high = (connect().channel() for _ in range(3))
    queue = _declare(channel, name)
    low_inbox = Inbox(low, queue, auto_ack=True)
    high_inbox = Inbox(high, queue, auto_ack=True, arguments={"x-priority": 5})
    settle(low, high)
    publish(channel, queue, "a", "b")
    assert high_inbox.take_bodies(2) == ["a", "b"]
    high.basic_cancel(high_inbox.tag)
    publish(channel, queue, "c")
    assert low_inbox.take_bodies(1) == ["c"]


def test_prefetch(connect: Connect, name: Names) -> None:
    channel, consuming = connect().channel(), connect().channel()
    queue = _declare(channel, name)
    consuming.basic_qos(prefetch_count=2)
    inbox = Inbox(consuming, queue)
    publish(channel, queue, "a", "b", "c")
    taken = inbox.take(2)
    settle(consuming)
    assert inbox.bodies() == []
    consuming.basic_ack(taken[0].method.delivery_tag)
    assert inbox.take_bodies(1) == ["c"]


def test_mandatory_and_transactions(channel: BlockingChannel, name: Names) -> None:
    queue = _declare(channel, name)
    channel.tx_select()
    channel.basic_publish("", queue, "a", pika.BasicProperties(delivery_mode=1), mandatory=True)
    settle(channel)
    assert ready(channel, queue) == 0
    channel.tx_commit()
    assert drain(channel, queue, 1) == ["a"]
    channel.tx_commit()


def test_a_deleted_queue_cancels_its_consumers(connect: Connect, name: Names) -> None:
    channel, consuming = connect().channel(), connect().channel()
    queue = _declare(channel, name)
    inbox = Inbox(consuming, queue)
    gone: list[str] = []
    consuming.add_on_cancel_callback(lambda frame: gone.append(frame.method.consumer_tag))
    channel.queue_delete(queue)
    deadline = iter(range(100))
    while not gone:
        next(deadline)
        consuming.connection.process_data_events(0.05)
    assert gone == [inbox.tag]


# --- policies --------------------------------------------------------------------------------------------------------


def _listed(operator: Operator, queue: str, column: str) -> str:
    rows = operator.listed("list_queues", "name", column)
    return str(next(row[column] for row in rows if row["name"] == queue))


def test_the_type_is_listed(channel: BlockingChannel, name: Names, operator: Operator) -> None:
    classic = str(channel.queue_declare(name()).method.queue)
    kinds = [_listed(operator, queue, "type") for queue in (classic, _declare(channel, name))]
    assert [kind.removeprefix("rabbit_").removesuffix("_queue") for kind in kinds] == ["classic", "quorum"]


@pytest.mark.parametrize(
    ("apply_to", "definition", "has"),
    [
        ("queues", {"max-length": 5}, True),
        ("queues", {"dead-letter-strategy": "at-least-once"}, True),
        ("queues", {"queue-mode": "lazy", "max-length": 5}, False),
        ("queues", {"ha-mode": "all", "max-length": 5}, False),
        ("queues", {"initial-cluster-size": 3, "max-length": 5}, False),
    ],
)
def test_policies_that_it_has(
    channel: BlockingChannel, name: Names, operator: Operator, apply_to: str, definition: dict[str, Any], has: bool
) -> None:
    queue = _declare(channel, name)
    operator.policy("p", f"^{queue}$", definition, apply_to=apply_to)
    assert eventually(lambda: _listed(operator, queue, "policy") == ("p" if has else ""))


def test_a_policy_with_a_delivery_limit(channel: BlockingChannel, name: Names, operator: Operator) -> None:
    queue = name()
    operator.policy("p", f"^{queue}$", {"delivery-limit": 1}, apply_to="queues")
    channel.queue_declare(queue, durable=True, arguments=TYPE | {"x-delivery-limit": 5})
    publish(channel, queue, "a")
    for _ in range(2):
        _nack(channel, must_get(channel, queue, auto_ack=False))
    eventually(lambda: ready(channel, queue) == 0)
    assert get(channel, queue) is None


def test_a_policy_goes_before_the_overflow_argument(channel: BlockingChannel, name: Names, operator: Operator) -> None:
    """With a classic queue the argument does."""
    queue = name()
    operator.policy("p", f"^{queue}$", {"overflow": "drop-head", "max-length": 2}, apply_to="queues")
    channel.queue_declare(queue, durable=True, arguments=TYPE | {"x-overflow": "reject-publish"})
    publish(channel, queue, *"abcdef")
    assert drain(channel, queue, 2) == ["e", "f"]
