"""Exchanges bound to exchanges, and alternate exchanges: routing collects one set of queues along any way."""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError

from conformance.clients import closes, drain, must_get, no_exchange, publish, ready
from conformance.support import Names


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """An empty queue."""
    return str(channel.queue_declare(name()).method.queue)


def _exchanges(channel: BlockingChannel, name: Names, *kinds: str) -> list[str]:
    """An exchange of each type."""
    made = [name("x") for _ in kinds]
    for exchange, kind in zip(made, kinds, strict=True):
        channel.exchange_declare(exchange, kind)
    return made


# --- bindings between exchanges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 10])
def test_chain(channel: BlockingChannel, name: Names, queue: str, length: int) -> None:
    chain = _exchanges(channel, name, *["fanout"] * (length + 1))
    for i in range(length):
        channel.exchange_bind(chain[i + 1], chain[i])
    channel.queue_bind(queue, chain[-1])
    publish(channel, "k", "m", exchange=chain[0])
    got = must_get(channel, queue)
    assert (got.method.exchange, got.method.routing_key) == (chain[0], "k")


def test_each_type_applies_its_own_rule(channel: BlockingChannel, name: Names, queue: str) -> None:
    topic, direct, headers, fanout = _exchanges(channel, name, "topic", "direct", "headers", "fanout")
    channel.exchange_bind(direct, topic, "a.#")
    channel.exchange_bind(headers, direct, "a.b")
    channel.exchange_bind(fanout, headers, arguments={"h": 1})
    channel.queue_bind(queue, fanout)
    publish(channel, "a.b", "all fit", exchange=topic, headers={"h": 1})
    publish(channel, "a.c", "not direct", exchange=topic, headers={"h": 1})
    publish(channel, "a.b", "not headers", exchange=topic, headers={"h": 2})
    publish(channel, "b.b", "not topic", exchange=topic, headers={"h": 1})
    assert drain(channel, queue) == ["all fit"]


def test_several_ways_to_a_queue_are_one_copy(channel: BlockingChannel, name: Names, queue: str) -> None:
    top, left, right = _exchanges(channel, name, "fanout", "fanout", "topic")
    channel.exchange_bind(left, top)
    channel.exchange_bind(right, top)
    for exchange in (top, left, right):
        channel.queue_bind(queue, exchange, "#")
    channel.exchange_bind(right, left)
    publish(channel, "k", "m", exchange=top)
    assert drain(channel, queue) == ["m"]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_cycle(channel: BlockingChannel, name: Names, queue: str, length: int) -> None:
    ring = _exchanges(channel, name, *["fanout"] * length)
    for i in range(length):
        channel.exchange_bind(ring[(i + 1) % length], ring[i])
    channel.queue_bind(queue, ring[-1])
    for exchange in ring:
        publish(channel, "k", exchange, exchange=exchange)
    assert drain(channel, queue) == ring


def test_binding_twice_is_binding_once(channel: BlockingChannel, name: Names, queue: str) -> None:
    source, destination = _exchanges(channel, name, "direct", "fanout")
    for _ in range(2):
        channel.exchange_bind(destination, source, "k")
    channel.queue_bind(queue, destination)
    channel.exchange_unbind(destination, source, "k")
    publish(channel, "k", "m", exchange=source)
    assert drain(channel, queue) == []


def test_unbinding_one_key_leaves_the_other(channel: BlockingChannel, name: Names, queue: str) -> None:
    source, destination = _exchanges(channel, name, "direct", "fanout")
    for key in ("one", "two"):
        channel.exchange_bind(destination, source, key)
    channel.queue_bind(queue, destination)
    channel.exchange_unbind(destination, source, "one")
    publish(channel, "one", "m", exchange=source)
    publish(channel, "two", "n", exchange=source)
    assert drain(channel, queue) == ["n"]


def test_no_key_is_no_shorthand_between_exchanges(channel: BlockingChannel, name: Names, queue: str) -> None:
    source, destination = _exchanges(channel, name, "direct", "fanout")
    channel.exchange_bind(destination, source)
    channel.queue_bind(queue, destination)
    publish(channel, queue, "queue's name", exchange=source)
    publish(channel, "", "empty", exchange=source)
    assert drain(channel, queue) == ["empty"]


@pytest.mark.parametrize("missing", ["source", "destination", "both"])
def test_bind_with_something_missing(channel: BlockingChannel, name: Names, missing: str) -> None:
    (there,) = _exchanges(channel, name, "direct")
    gone = name("x")
    source = there if missing == "destination" else gone
    destination = there if missing == "source" else gone + (".d" if missing == "both" else "")
    with closes(channel, 404, no_exchange(gone)):
        channel.exchange_bind(destination, source, "k")


@pytest.mark.parametrize("missing", ["binding", "source", "destination", "both"])
def test_unbind_with_something_missing_succeeds(channel: BlockingChannel, name: Names, missing: str) -> None:
    source, destination = _exchanges(channel, name, "direct", "direct")
    channel.exchange_unbind(
        name("x") if missing in ("destination", "both") else destination,
        name("x") if missing in ("source", "both") else source,
        "k",
    )
    channel.exchange_bind(destination, source, "k")


@pytest.mark.parametrize("end", ["source", "destination"])
def test_deleting_an_end_ends_the_binding(channel: BlockingChannel, name: Names, queue: str, end: str) -> None:
    source, destination = _exchanges(channel, name, "fanout", "fanout")
    channel.exchange_bind(destination, source)
    channel.queue_bind(queue, source if end == "destination" else destination)
    gone = source if end == "source" else destination
    channel.exchange_delete(gone)
    channel.exchange_declare(gone, "fanout")
    if end == "destination":
        channel.queue_bind(queue, destination)
        channel.queue_unbind(queue, source)
    publish(channel, "k", "m", exchange=source)
    assert drain(channel, queue) == []


def test_an_exchange_can_be_bound_to_itself_and_unbound(channel: BlockingChannel, name: Names, queue: str) -> None:
    (exchange,) = _exchanges(channel, name, "direct")
    channel.exchange_bind(exchange, exchange, "k")
    channel.queue_bind(queue, exchange, "k")
    publish(channel, "k", "m", exchange=exchange)
    channel.exchange_unbind(exchange, exchange, "k")
    publish(channel, "k", "n", exchange=exchange)
    assert drain(channel, queue) == ["m", "n"]


# --- alternate exchanges ---------------------------------------------------------------------------------------------


def _with_alternate(channel: BlockingChannel, name: Names, alternate: str, kind: str = "direct") -> str:
    exchange = name("x")
    channel.exchange_declare(exchange, kind, arguments={"alternate-exchange": alternate})
    return exchange


def test_alternate_gets_what_was_not_routed(channel: BlockingChannel, name: Names, queue: str) -> None:
    (alternate,) = _exchanges(channel, name, "fanout")
    exchange, other = _with_alternate(channel, name, alternate), name()
    channel.queue_declare(other)
    channel.queue_bind(other, exchange, "k")
    channel.queue_bind(queue, alternate)
    publish(channel, "k", "routed", exchange=exchange)
    publish(channel, "other", "not routed", exchange=exchange)
    assert drain(channel, other) == ["routed"]
    got = must_get(channel, queue)
    assert (got.body, got.method.exchange, got.method.routing_key) == (b"not routed", exchange, "other")
    assert ready(channel, queue) == 0


def test_alternates_of_alternates(channel: BlockingChannel, name: Names, queue: str) -> None:
    (last,) = _exchanges(channel, name, "fanout")
    channel.queue_bind(queue, last)
    first = last
    for _ in range(5):
        first = _with_alternate(channel, name, first)
    publish(channel, "k", "m", exchange=first)
    assert drain(channel, queue) == ["m"]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_cycle_of_alternates(channel: BlockingChannel, name: Names, length: int) -> None:
    ring = [name("x") for _ in range(length)]
    for i, exchange in enumerate(ring):
        channel.exchange_declare(exchange, arguments={"alternate-exchange": ring[(i + 1) % length]})
    publish(channel, "k", "lost", exchange=ring[0])
    with pytest.raises(UnroutableError):
        channel.basic_publish(ring[0], "k", b"m", mandatory=True)


def test_missing_alternate(channel: BlockingChannel, name: Names, queue: str) -> None:
    alternate = name("x")
    exchange = _with_alternate(channel, name, alternate)
    publish(channel, "k", "lost", exchange=exchange)
    with pytest.raises(UnroutableError):
        channel.basic_publish(exchange, "k", b"returned", mandatory=True)
    channel.exchange_declare(alternate, "fanout")
    channel.queue_bind(queue, alternate)
    publish(channel, "k", "found", exchange=exchange)
    assert drain(channel, queue) == ["found"]


def test_routed_by_the_alternate_counts_as_routed(channel: BlockingChannel, name: Names, queue: str) -> None:
    (alternate,) = _exchanges(channel, name, "fanout")
    exchange = _with_alternate(channel, name, alternate)
    channel.confirm_delivery()
    with pytest.raises(UnroutableError):
        channel.basic_publish(exchange, "k", b"m", mandatory=True)
    channel.queue_bind(queue, alternate)
    channel.basic_publish(exchange, "k", b"n", mandatory=True)
    assert drain(channel, queue) == ["n"]


def test_the_default_exchange_routes_nothing_as_an_alternate(channel: BlockingChannel, name: Names, queue: str) -> None:
    exchange = _with_alternate(channel, name, "")
    publish(channel, queue, "lost", exchange=exchange)
    with pytest.raises(UnroutableError):
        channel.basic_publish(exchange, queue, b"returned", mandatory=True)
    assert drain(channel, queue) == []


def test_alternate_of_a_bound_exchange(channel: BlockingChannel, name: Names, queue: str) -> None:
    (alternate,) = _exchanges(channel, name, "fanout")
    source = name("x")
    channel.exchange_declare(source, "fanout")
    inner = _with_alternate(channel, name, alternate)
    channel.exchange_bind(inner, source)
    channel.queue_bind(queue, alternate)
    publish(channel, "k", "m", exchange=source)
    assert drain(channel, queue) == ["m"]


def test_a_route_to_an_exchange_without_bindings_is_still_a_route(
    channel: BlockingChannel, name: Names, queue: str
) -> None:
    alternate, empty = _exchanges(channel, name, "fanout", "fanout")
    exchange = _with_alternate(channel, name, alternate)
    channel.exchange_bind(empty, exchange, "k")
    channel.queue_bind(queue, alternate)
    publish(channel, "k", "m", exchange=exchange)
    publish(channel, "other", "n", exchange=exchange)
    assert drain(channel, queue) == ["n"]


def test_internal_alternate(channel: BlockingChannel, name: Names, queue: str) -> None:
    alternate = name("x")
    channel.exchange_declare(alternate, "fanout", internal=True)
    exchange = _with_alternate(channel, name, alternate)
    channel.queue_bind(queue, alternate)
    publish(channel, "k", "m", exchange=exchange)
    assert drain(channel, queue) == ["m"]


def test_alternate_by_all_its_keys(channel: BlockingChannel, name: Names, queue: str) -> None:
    (alternate,) = _exchanges(channel, name, "direct")
    exchange, other = _with_alternate(channel, name, alternate), name()
    channel.queue_declare(other)
    channel.queue_bind(other, exchange, "cc")
    channel.queue_bind(queue, alternate, "k")
    publish(channel, "k", "routed by CC", exchange=exchange, headers={"CC": ["cc"]})
    assert (drain(channel, other), drain(channel, queue)) == (["routed by CC"], [])
