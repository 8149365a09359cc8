"""Bindings of queues: what makes one the same as another, binding and unbinding what is missing, the shorthands."""

from __future__ import annotations

from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import closes, drain, no_exchange, no_queue, publish
from conformance.support import Names


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """An empty queue."""
    return str(channel.queue_declare(name()).method.queue)


@pytest.fixture
def exchange(channel: BlockingChannel, name: Names) -> str:
    """A direct exchange without bindings."""
    channel.exchange_declare(made := name("x"), "direct")
    return made


def test_direct_wants_the_very_key(channel: BlockingChannel, exchange: str, queue: str) -> None:
    channel.queue_bind(queue, exchange, "key")
    for key in ("key", "KEY", "key ", "ke", "key.a", "", "*", "#"):
        publish(channel, key, repr(key), exchange=exchange)
    assert drain(channel, queue) == ["'key'"]


@pytest.mark.parametrize("key", ["", "#", "*", "a b", "ünï☃", "k" * 255, "a\r\nb", "\x00"])
def test_direct_takes_any_key_literally(channel: BlockingChannel, exchange: str, queue: str, key: str) -> None:
    channel.queue_bind(queue, exchange, key)
    publish(channel, key, "m", exchange=exchange)
    publish(channel, "x", "n", exchange=exchange)
    assert drain(channel, queue) == ["m"]


def test_fanout_ignores_the_key(channel: BlockingChannel, name: Names, queue: str) -> None:
    channel.exchange_declare(fan := name("x"), "fanout")
    channel.queue_bind(queue, fan, "some key")
    for key in ("", "a", "some key"):
        publish(channel, key, repr(key), exchange=fan)
    assert drain(channel, queue) == ["''", "'a'", "'some key'"]


def test_binding_twice_is_binding_once(channel: BlockingChannel, exchange: str, queue: str) -> None:
    for _ in range(2):
        channel.queue_bind(queue, exchange, "k")
    publish(channel, "k", "m", exchange=exchange)
    assert drain(channel, queue) == ["m"]
    channel.queue_unbind(queue, exchange, "k")
    publish(channel, "k", "n", exchange=exchange)
    assert drain(channel, queue) == []


def test_a_queue_bound_by_many_keys_gets_one_copy(channel: BlockingChannel, name: Names, queue: str) -> None:
    channel.exchange_declare(topic := name("x"), "topic")
    for key in ("a.b", "a.*", "#", "*.b"):
        channel.queue_bind(queue, topic, key)
    publish(channel, "a.b", "m", exchange=topic)
    assert drain(channel, queue) == ["m"]


@pytest.mark.parametrize("arguments", [{"a": 1}, {"x-anything": [1, None]}, {}])
def test_arguments_tell_bindings_apart(
    channel: BlockingChannel, exchange: str, queue: str, arguments: dict[str, Any]
) -> None:
    channel.queue_bind(queue, exchange, "k", arguments={"other": True})
    channel.queue_bind(queue, exchange, "k", arguments=arguments)
    channel.queue_unbind(queue, exchange, "k", arguments={"neither": 1})
    channel.queue_unbind(queue, exchange, "k", arguments={"other": True})
    publish(channel, "k", "still bound", exchange=exchange)
    channel.queue_unbind(queue, exchange, "k", arguments=arguments)
    publish(channel, "k", "not bound", exchange=exchange)
    assert drain(channel, queue) == ["still bound"]


def test_the_order_of_arguments_does_not_matter(channel: BlockingChannel, exchange: str, queue: str) -> None:
    channel.queue_bind(queue, exchange, "k", arguments={"a": 1, "b": "2"})
    channel.queue_bind(queue, exchange, "k", arguments={"b": "2", "a": 1})
    channel.queue_unbind(queue, exchange, "k", arguments={"b": "2", "a": 1})
    publish(channel, "k", "m", exchange=exchange)
    assert drain(channel, queue) == []


# --- missing things --------------------------------------------------------------------------------------------------


def test_bind_to_a_missing_exchange(channel: BlockingChannel, queue: str, name: Names) -> None:
    missing = name("x")
    with closes(channel, 404, no_exchange(missing)):
        channel.queue_bind(queue, missing, "k")


def test_bind_of_a_missing_queue(channel: BlockingChannel, exchange: str, name: Names) -> None:
    missing = name()
    with closes(channel, 404, no_queue(missing)):
        channel.queue_bind(missing, exchange, "k")


def test_bind_with_both_missing_names_the_exchange(channel: BlockingChannel, name: Names) -> None:
    missing = name("x")
    with closes(channel, 404, no_exchange(missing)):
        channel.queue_bind(name(), missing, "k")


@pytest.mark.parametrize("missing", ["binding", "queue", "exchange", "both"])
def test_unbind_of_anything_missing_succeeds(
    channel: BlockingChannel, exchange: str, queue: str, name: Names, missing: str
) -> None:
    channel.queue_unbind(
        name() if missing in ("queue", "both") else queue,
        name("x") if missing in ("exchange", "both") else exchange,
        "k",
    )
    channel.queue_bind(queue, exchange, "k")


# --- shorthands ------------------------------------------------------------------------------------------------------


def test_no_queue_and_no_key_mean_the_queue_declared_last(channel: BlockingChannel, exchange: str, queue: str) -> None:
    channel.queue_bind("", exchange)
    publish(channel, queue, "its name is the key", exchange=exchange)
    publish(channel, "", "no key", exchange=exchange)
    assert drain(channel, queue) == ["its name is the key"]
    channel.queue_unbind("", exchange)
    publish(channel, queue, "unbound", exchange=exchange)
    assert drain(channel, queue) == []


def test_with_a_key_only_the_queue_is_filled_in(channel: BlockingChannel, exchange: str, queue: str) -> None:
    channel.queue_bind("", exchange, "k")
    publish(channel, queue, "not bound", exchange=exchange)
    publish(channel, "k", "bound", exchange=exchange)
    assert drain(channel, queue) == ["bound"]


def test_with_a_queue_the_key_stays_empty(channel: BlockingChannel, exchange: str, queue: str) -> None:
    channel.exchange_bind(exchange, "amq.direct", queue)
    channel.queue_bind(queue, exchange, "")
    publish(channel, queue, "not bound", exchange=exchange)
    publish(channel, "", "bound", exchange=exchange)
    assert drain(channel, queue) == ["bound"]


# --- what goes with what ---------------------------------------------------------------------------------------------


def test_bindings_go_with_the_queue(channel: BlockingChannel, exchange: str, queue: str) -> None:
    channel.queue_bind(queue, exchange, "k")
    channel.queue_delete(queue)
    channel.queue_declare(queue)
    publish(channel, "k", "m", exchange=exchange)
    assert drain(channel, queue) == []


@pytest.mark.parametrize(("queue_durable", "exchange_durable"), [(True, False), (False, True), (True, True)])
def test_durable_and_transient_can_be_bound(
    channel: BlockingChannel, name: Names, queue_durable: bool, exchange_durable: bool
) -> None:
    exchange, queue = name("x"), name()
    channel.exchange_declare(exchange, durable=exchange_durable)
    channel.queue_declare(queue, durable=queue_durable)
    channel.queue_bind(queue, exchange, "k")
    publish(channel, "k", "m", exchange=exchange)
    assert drain(channel, queue) == ["m"]


def test_a_binding_made_after_publishing_gets_nothing(channel: BlockingChannel, exchange: str, queue: str) -> None:
    publish(channel, "k", "before", exchange=exchange)
    channel.queue_bind(queue, exchange, "k")
    publish(channel, "k", "after", exchange=exchange)
    assert drain(channel, queue) == ["after"]
