"""Queue arguments: what is refused, with RabbitMQ's text for it, what is accepted, and in which order it is checked.

The texts are Erlang terms printed by RabbitMQ: a string in double quotes, an atom bare, a pair in braces.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import closes, counts
from conformance.support import Names, differs

MAX_MS = 315_360_000_000
"""Ten years: the longest time RabbitMQ takes."""

INTEGERS = [
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-queue-version",
]
NOT_INTEGERS = [
    ("5", "longstr"),
    (True, "bool"),
    (None, "void"),
    (Decimal("1.5"), "decimal"),
    ([5], "array"),
    ({"a": 5}, "table"),
    (b"5", "binary"),
    (datetime(2020, 1, 1, tzinfo=UTC), "timestamp"),
]


def _invalid(argument: str, queue: str, problem: str) -> str:
    return f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{queue}' in vhost '/': {problem}"


@pytest.mark.parametrize("argument", INTEGERS)
@pytest.mark.parametrize(("value", "kind"), NOT_INTEGERS, ids=[kind for _, kind in NOT_INTEGERS])
def test_integers_must_be_integers(channel: BlockingChannel, name: Names, argument: str, value: Any, kind: str) -> None:
    queue = name()
    with closes(channel, 406, _invalid(argument, queue, f'"expected integer, got {kind}"')):
        channel.queue_declare(queue, arguments={argument: value})


@pytest.mark.parametrize("argument", INTEGERS)
def test_no_integer_is_negative(channel: BlockingChannel, name: Names, argument: str) -> None:
    queue = name()
    with closes(channel, 406, _invalid(argument, queue, "{value_negative,-1}")):
        channel.queue_declare(queue, arguments={argument: -1})


@pytest.mark.parametrize(
    ("argument", "value", "problem"),
    [
        ("x-expires", 0, "{value_zero,0}"),
        ("x-expires", MAX_MS + 1, f"{{value_too_large,{MAX_MS + 1}}}"),
        ("x-message-ttl", MAX_MS + 1, f"{{value_too_large,{MAX_MS + 1}}}"),
        ("x-message-ttl", -(2**63), f"{{value_negative,-{2**63}}}"),
        ("x-max-priority", 256, "{max_value_exceeded,256}"),
        ("x-max-priority", 2**40, f"{{max_value_exceeded,{2**40}}}"),
        ("x-overflow", "zzz", "invalid_overflow"),
        ("x-overflow", "", "invalid_overflow"),
        ("x-overflow", "Drop-Head", "invalid_overflow"),
        ("x-overflow", 1, "{unacceptable_type,signedint}"),
        ("x-overflow", b"drop-head", "{unacceptable_type,binary}"),
        ("x-dead-letter-routing-key", "k", "routing_key_but_no_dlx_defined"),
        ("x-dead-letter-routing-key", 1, "{unacceptable_type,signedint}"),
        ("x-single-active-consumer", "true", "{unacceptable_type,longstr}"),
        ("x-single-active-consumer", 1, "{unacceptable_type,signedint}"),
        ("x-single-active-consumer", None, "{unacceptable_type,void}"),
        ("x-queue-type", "zzz", "\"unsupported queue type 'zzz'\""),
        ("x-queue-type", "", "\"unsupported queue type ''\""),
        ("x-queue-type", 1, "{unacceptable_type,signedint}"),
    ],
)
def test_refused(channel: BlockingChannel, name: Names, argument: str, value: Any, problem: str) -> None:
    queue = name()
    with closes(channel, 406, _invalid(argument, queue, problem)):
        channel.queue_declare(queue, arguments={argument: value})


@pytest.mark.parametrize(
    ("argument", "value", "problem"),
    [
        ("x-queue-mode", "zzz", "\"unsupported queue mode 'zzz'\""),
        ("x-queue-mode", 1, "{unacceptable_type,signedint}"),
        ("x-queue-version", 0, "\"unsupported queue version '0'\""),
        ("x-queue-version", 3, "\"unsupported queue version '3'\""),
    ],
)
def test_arguments_about_storage_are_checked(
    channel: BlockingChannel, name: Names, argument: str, value: Any, problem: str
) -> None:
    queue = name()
    with closes(channel, 406, _invalid(argument, queue, problem)):
        channel.queue_declare(queue, arguments={argument: value})


@pytest.mark.parametrize(
    ("value", "kind"), [(1, "signedint"), (True, "bool"), (None, "void"), (["x"], "array"), (b"x", "binary")]
)
def test_dead_letter_exchange_must_be_a_string(channel: BlockingChannel, name: Names, value: Any, kind: str) -> None:
    queue = name()
    text = f"PRECONDITION_FAILED - invalid type '{kind}' for arg 'x-dead-letter-exchange' in queue '{queue}' "
    with closes(channel, 406, text + "in vhost '/'"):
        channel.queue_declare(queue, arguments={"x-dead-letter-exchange": value})


@pytest.mark.parametrize(
    "arguments",
    [
        {"x-message-ttl": 0},
        {"x-message-ttl": 2**32},
        {"x-message-ttl": MAX_MS},
        {"x-expires": MAX_MS},
        {"x-max-length": 0},
        {"x-max-length": 2**62},
        {"x-max-length-bytes": 0},
        {"x-max-length-bytes": 2**62},
        {"x-max-priority": 0},
        {"x-max-priority": 1},
        {"x-max-priority": 255},
        {"x-overflow": "drop-head"},
        {"x-overflow": "reject-publish"},
        {"x-overflow": "reject-publish-dlx"},
        {"x-dead-letter-exchange": ""},
        {"x-dead-letter-exchange": "cf.never.declared"},
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": ""},
        {"x-single-active-consumer": True},
        {"x-single-active-consumer": False},
        {"x-queue-type": "classic"},
        {"x-queue-mode": "default"},
        {"x-queue-mode": "lazy"},
        {"x-queue-version": 1},
        {"x-queue-version": 2},
        {"x-queue-master-locator": "min-masters"},
        {"x-consumer-timeout": 60000},
        {"x-unheard-of": {"of": ["any", 1, None, True, Decimal("1.5")]}},
        {"x-message-ttl": 60000, "x-expires": 60000, "x-max-length": 5, "x-max-priority": 3, "x-overflow": "drop-head"},
    ],
)
def test_accepted(channel: BlockingChannel, name: Names, arguments: dict[str, Any]) -> None:
    queue = name()
    channel.queue_declare(queue, arguments=arguments)
    channel.queue_declare(queue, arguments=arguments)
    assert counts(channel, queue) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        ({"x-max-length": -1, "x-message-ttl": -1, "x-expires": -1}, "x-expires"),
        ({"x-max-priority": -1, "x-max-length-bytes": -1, "x-max-length": -1, "x-message-ttl": -1}, "x-message-ttl"),
        ({"x-max-priority": -1, "x-max-length-bytes": -1, "x-max-length": -1}, "x-max-length"),
        ({"x-max-priority": -1, "x-max-length-bytes": -1}, "x-max-length-bytes"),
    ],
)
def test_the_first_bad_argument_is_named(
    channel: BlockingChannel, name: Names, arguments: dict[str, Any], first: str
) -> None:
    queue = name()
    with closes(channel, 406, _invalid(first, queue, "{value_negative,-1}")):
        channel.queue_declare(queue, arguments=arguments)


def test_a_refused_queue_is_not_there(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    with closes(channel, 406, _invalid("x-expires", queue, "{value_zero,0}")):
        channel.queue_declare(queue, arguments={"x-expires": 0})
    again = channel.connection.channel()
    with closes(again, 404, f"NOT_FOUND - no queue '{queue}' in vhost '/'"):
        again.queue_declare(queue, passive=True)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("x-max-age", "1h"),
        ("x-quorum-initial-group-size", 3),
        ("x-initial-cluster-size", 3),
        ("x-max-in-memory-length", 3),
        ("x-max-in-memory-bytes", 3),
        ("x-stream-max-segment-size-bytes", 3),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-queue-leader-locator", "client-local"),
    ],
)
def test_arguments_of_other_queue_types(channel: BlockingChannel, name: Names, argument: str, value: Any) -> None:
    queue = name()
    text = f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{queue}' in vhost '/' of queue type "
    with closes(channel, 406, text + "rabbit_classic_queue"):
        channel.queue_declare(queue, arguments={argument: value})


@differs(
    rabbitmq="PRECONDITION_FAILED - invalid arg 'x-delivery-limit' for queue '{}' in vhost '/' of queue type "
    "rabbit_classic_queue",
    rabbitish=None,
    reason="rabbitish has a delivery limit on every type of queue",
)
def test_delivery_limit_on_a_classic_queue(channel: BlockingChannel, name: Names, expected: str | None) -> None:
    queue = name()
    if expected is None:
        channel.queue_declare(queue, arguments={"x-delivery-limit": 5})
        assert counts(channel, queue) == (0, 0)
        return
    with closes(channel, 406, expected.format(queue)):
        channel.queue_declare(queue, arguments={"x-delivery-limit": 5})


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({}, "non-durable"),
        ({"exclusive": True}, "exclusive-owner"),
        ({"durable": True, "exclusive": True}, "exclusive-owner"),
        ({"durable": True, "auto_delete": True}, "auto-delete"),
    ],
)
def test_quorum_queues_must_be_durable_and_shared(
    channel: BlockingChannel, name: Names, flags: dict[str, Any], problem: str
) -> None:
    queue = name()
    with closes(channel, 406, f"PRECONDITION_FAILED - invalid property '{problem}' for queue '{queue}' in vhost '/'"):
        channel.queue_declare(queue, arguments={"x-queue-type": "quorum"}, **flags)


def test_quorum_queues_have_names(channel: BlockingChannel) -> None:
    text = "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue"
    with closes(channel, 406, text):
        channel.queue_declare("", durable=True, arguments={"x-queue-type": "quorum"})


# --- consumer arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind"), [("5", "longstr"), (True, "bool"), ([], "array"), (None, "void"), (Decimal("1.5"), "decimal")]
)
def test_consumer_priority_must_be_an_integer(channel: BlockingChannel, name: Names, value: Any, kind: str) -> None:
    queue = name()
    channel.queue_declare(queue)
    with closes(channel, 406, _invalid("x-priority", queue, f'"expected integer, got {kind}"')):
        channel.basic_consume(queue, print, arguments={"x-priority": value})


@pytest.mark.parametrize("priority", [-(2**63), -1, 0, 2**40])
def test_consumer_priority_can_be_any_integer(channel: BlockingChannel, name: Names, priority: int) -> None:
    queue = name()
    channel.queue_declare(queue)
    channel.basic_consume(queue, print, arguments={"x-priority": priority, "x-unheard-of": True})
    assert counts(channel, queue) == (0, 1)
