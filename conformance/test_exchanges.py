"""Exchanges: declaring (again), passive, the predeclared and the default one, internal, auto-delete, delete.

Texts are those of RabbitMQ 3.10.8. Declaring again is judged property by property in RabbitMQ's order: type, durable,
auto_delete, internal, then the one argument that counts, alternate-exchange.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import closes, drain, ends_connection, no_exchange, publish, ready, sync
from conformance.support import Names, differs

PREDECLARED = [
    ("amq.direct", "direct", False),
    ("amq.fanout", "fanout", False),
    ("amq.topic", "topic", False),
    ("amq.headers", "headers", False),
    ("amq.match", "headers", False),
    ("amq.rabbitmq.trace", "topic", True),
]
DEFAULT_EXCHANGE = "ACCESS_REFUSED - operation not permitted on the default exchange"


def _inequivalent(argument: str, exchange: str, difference: str) -> str:
    return f"PRECONDITION_FAILED - inequivalent arg '{argument}' for exchange '{exchange}' in vhost '/': {difference}"


# --- declaring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
@pytest.mark.parametrize("flags", [{}, {"durable": True}, {"auto_delete": True}, {"internal": True}])
def test_declare_twice_the_same(channel: BlockingChannel, name: Names, kind: str, flags: dict[str, Any]) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange, kind, **flags)
    channel.exchange_declare(exchange, kind, **flags)
    channel.exchange_declare(exchange, kind, passive=True)


@pytest.mark.parametrize(
    ("first", "again", "argument", "difference"),
    [
        ({}, {"exchange_type": "fanout"}, "type", "received 'fanout' but current is 'direct'"),
        ({}, {"durable": True}, "durable", "received 'true' but current is 'false'"),
        ({"durable": True}, {"durable": False}, "durable", "received 'false' but current is 'true'"),
        ({}, {"auto_delete": True}, "auto_delete", "received 'true' but current is 'false'"),
        ({}, {"internal": True}, "internal", "received 'true' but current is 'false'"),
        (
            {},
            {"exchange_type": "topic", "durable": True, "auto_delete": True, "internal": True},
            "type",
            "received 'topic' but current is 'direct'",
        ),
        ({}, {"durable": True, "auto_delete": True}, "durable", "received 'true' but current is 'false'"),
        (
            {},
            {"arguments": {"alternate-exchange": "a"}},
            "alternate-exchange",
            "received the value 'a' of type 'longstr' but current is none",
        ),
        (
            {"arguments": {"alternate-exchange": "a"}},
            {"arguments": {}},
            "alternate-exchange",
            "received none but current is the value 'a' of type 'longstr'",
        ),
        (
            {"arguments": {"alternate-exchange": "a"}},
            {"arguments": {"alternate-exchange": "b"}},
            "alternate-exchange",
            "received 'b' but current is 'a'",
        ),
        (
            {"arguments": {"alternate-exchange": "a"}},
            {"arguments": {"alternate-exchange": 1}},
            "alternate-exchange",
            "received '1' but current is 'a'",
        ),
    ],
)
def test_declare_again_with_another(
    channel: BlockingChannel,
    name: Names,
    first: dict[str, Any],
    again: dict[str, Any],
    argument: str,
    difference: str,
) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange, **first)
    with closes(channel, 406, _inequivalent(argument, exchange, difference)):
        channel.exchange_declare(exchange, **(first | again))


@pytest.mark.parametrize("arguments", [{"x-anything": 1}, {"x-anything": 2}, {}, {"other": [True, {"a": None}]}])
def test_arguments_that_mean_nothing_are_not_compared(
    channel: BlockingChannel, name: Names, arguments: dict[str, Any]
) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange, arguments={"x-anything": 1})
    channel.exchange_declare(exchange, arguments=arguments)


@pytest.mark.parametrize(("value", "kind"), [(1, "signedint"), (True, "bool"), ([], "array"), (None, "void")])
def test_alternate_exchange_must_be_a_string(channel: BlockingChannel, name: Names, value: Any, kind: str) -> None:
    exchange = name("x")
    text = f"PRECONDITION_FAILED - invalid type '{kind}' for arg 'alternate-exchange' in exchange '{exchange}' "
    with closes(channel, 406, text + "in vhost '/'"):
        channel.exchange_declare(exchange, arguments={"alternate-exchange": value})


@differs(
    rabbitmq=(503, "COMMAND_INVALID - unknown exchange type 'zzz'"),
    rabbitish=(406, "PRECONDITION_FAILED - unknown exchange type 'zzz'"),
    reason="newer RabbitMQ closes only the channel, with 406, and so do we",
)
def test_unknown_type(channel: BlockingChannel, name: Names, expected: tuple[int, str]) -> None:
    broken = ends_connection if expected[0] == 503 else closes
    with broken(channel, *expected):
        channel.exchange_declare(name("x"), "zzz")


@pytest.mark.parametrize("exchange", ["amq.", "amq.new", "amq.direct2"])
def test_names_with_the_reserved_prefix(channel: BlockingChannel, exchange: str) -> None:
    text = f"ACCESS_REFUSED - exchange name '{exchange}' contains reserved prefix 'amq.*'"
    with closes(channel, 403, text):
        channel.exchange_declare(exchange)


@pytest.mark.parametrize("prefix", ["amq", "AMQ.x", "x.amq."])
def test_names_that_only_look_reserved(channel: BlockingChannel, name: Names, prefix: str) -> None:
    exchange = name.adopt(prefix if prefix == "amq" else prefix + name("x"))
    channel.exchange_declare(exchange)
    channel.exchange_declare(exchange, passive=True)


def test_cr_and_lf_are_stripped_from_names(channel: BlockingChannel, name: Names) -> None:
    exchange = name("x")
    channel.exchange_declare(f"\r\n{exchange}\r\n")
    channel.exchange_declare(exchange, passive=True)
    channel.exchange_declare(exchange[:3] + "\n" + exchange[3:], passive=True)
    channel.exchange_delete("\r" + exchange)
    with closes(channel, 404, no_exchange(exchange)):
        channel.exchange_declare(exchange, passive=True)


def test_cr_and_lf_are_not_stripped_by_publish(channel: BlockingChannel) -> None:
    with closes(channel, 404, no_exchange("amq.\ndirect")):
        publish(channel, "k", "m", exchange="amq.\ndirect")


@pytest.mark.parametrize("middle", ["☃ ünï", "~p ~s %s {0}", "'\"\\", "\t\x00\x7f", "a.b.#.*"])
def test_odd_names(channel: BlockingChannel, name: Names, middle: str) -> None:
    exchange = name("x") + middle
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.exchange_declare(exchange, "fanout", auto_delete=True)  # goes with the exclusive queue
    channel.queue_bind(queue, exchange)
    publish(channel, "k", "m", exchange=exchange)
    assert drain(channel, queue) == ["m"]


# --- passive ---------------------------------------------------------------------------------------------------------


def test_passive_declare_of_a_missing_exchange(channel: BlockingChannel, name: Names) -> None:
    exchange = name("x")
    with closes(channel, 404, no_exchange(exchange)):
        channel.exchange_declare(exchange, passive=True)


def test_passive_declare_of_a_missing_reserved_name(channel: BlockingChannel) -> None:
    with closes(channel, 404, no_exchange("amq.nosuch")):
        channel.exchange_declare("amq.nosuch", passive=True)


@pytest.mark.parametrize(
    "properties",
    [
        {"exchange_type": "fanout"},
        {"exchange_type": "zzz"},
        {"durable": False, "auto_delete": True, "internal": True},
        {"arguments": {"alternate-exchange": "a"}},
    ],
)
def test_passive_declare_compares_nothing(channel: BlockingChannel, properties: dict[str, Any]) -> None:
    channel.exchange_declare("amq.direct", passive=True, **properties)


# --- predeclared and default -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exchange", "kind", "internal"), PREDECLARED)
def test_predeclared(channel: BlockingChannel, exchange: str, kind: str, internal: bool) -> None:
    channel.exchange_declare(exchange, kind, durable=True, internal=internal)


@pytest.mark.parametrize(("exchange", "kind", "internal"), PREDECLARED)
def test_predeclared_ones_are_compared(channel: BlockingChannel, exchange: str, kind: str, internal: bool) -> None:
    text = _inequivalent("durable", exchange, "received 'false' but current is 'true'")
    with closes(channel, 406, text):
        channel.exchange_declare(exchange, kind, internal=internal)


@pytest.mark.parametrize("exchange", [row[0] for row in PREDECLARED] + ["amq.nosuch"])
def test_predeclared_ones_cannot_be_deleted(channel: BlockingChannel, exchange: str) -> None:
    text = f"ACCESS_REFUSED - deletion of system exchange '{exchange}' in vhost '/' not allowed"
    with closes(channel, 403, text):
        channel.exchange_delete(exchange)


def test_trace_exchange_is_internal(channel: BlockingChannel) -> None:
    text = "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'"
    with closes(channel, 403, text):
        publish(channel, "k", "m", exchange="amq.rabbitmq.trace")


@pytest.mark.parametrize("passive", [False, True])
def test_default_exchange_cannot_be_declared(channel: BlockingChannel, passive: bool) -> None:
    with closes(channel, 403, DEFAULT_EXCHANGE):
        channel.exchange_declare("", "direct", durable=True, passive=passive)


def test_a_name_of_cr_and_lf_alone_is_the_default_exchange(channel: BlockingChannel) -> None:
    with closes(channel, 403, DEFAULT_EXCHANGE):
        channel.exchange_declare("\r\n")


def test_default_exchange_cannot_be_deleted(channel: BlockingChannel) -> None:
    with closes(channel, 403, DEFAULT_EXCHANGE):
        channel.exchange_delete("")


@pytest.mark.parametrize("action", ["queue_bind", "queue_unbind"])
def test_queues_cannot_be_bound_to_the_default_exchange(channel: BlockingChannel, action: str) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    with closes(channel, 403, DEFAULT_EXCHANGE):
        getattr(channel, action)(queue, "", "k")


@pytest.mark.parametrize("action", ["exchange_bind", "exchange_unbind"])
@pytest.mark.parametrize(("destination", "source"), [("", "amq.fanout"), ("amq.fanout", ""), ("", "")])
def test_exchanges_cannot_be_bound_to_the_default_exchange(
    channel: BlockingChannel, action: str, destination: str, source: str
) -> None:
    with closes(channel, 403, DEFAULT_EXCHANGE):
        getattr(channel, action)(destination, source, "k")


def test_default_exchange_routes_by_queue_name(channel: BlockingChannel, name: Names) -> None:
    one, two = name(), name()
    channel.queue_declare(one)
    channel.queue_declare(two)
    publish(channel, one, "for one")
    publish(channel, two, "for two")
    publish(channel, one + "x", "for nobody")
    assert (drain(channel, one), drain(channel, two)) == (["for one"], ["for two"])


# --- internal, auto-delete, delete -----------------------------------------------------------------------------------


def test_nobody_publishes_to_an_internal_exchange(channel: BlockingChannel, name: Names) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange, internal=True)
    text = f"ACCESS_REFUSED - cannot publish to internal exchange '{exchange}' in vhost '/'"
    with closes(channel, 403, text):
        publish(channel, "k", "m", exchange=exchange)


def test_internal_exchange_routes_what_other_exchanges_send(channel: BlockingChannel, name: Names) -> None:
    source, inside, queue = name("x"), name("x"), name()
    channel.exchange_declare(source, "fanout")
    channel.exchange_declare(inside, "direct", internal=True)
    channel.queue_declare(queue)
    channel.exchange_bind(inside, source)
    channel.queue_bind(queue, inside, "k")
    publish(channel, "k", "m", exchange=source)
    publish(channel, "other", "n", exchange=source)
    assert drain(channel, queue) == ["m"]


def test_auto_delete_exchange_stays_until_it_was_bound_once(channel: BlockingChannel, name: Names) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange, auto_delete=True)
    publish(channel, "k", "m", exchange=exchange)
    channel.exchange_declare(exchange, passive=True)


@pytest.mark.parametrize("how", ["unbind", "delete queue"])
def test_auto_delete_exchange_goes_with_its_last_binding(channel: BlockingChannel, name: Names, how: str) -> None:
    exchange, queue = name("x"), name()
    channel.exchange_declare(exchange, auto_delete=True)
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "one")
    channel.queue_bind(queue, exchange, "two")
    channel.queue_unbind(queue, exchange, "one")
    channel.exchange_declare(exchange, passive=True)
    if how == "unbind":
        channel.queue_unbind(queue, exchange, "two")
    else:
        channel.queue_delete(queue)
    with closes(channel, 404, no_exchange(exchange)):
        channel.exchange_declare(exchange, passive=True)


def test_auto_delete_exchange_is_not_kept_by_bindings_to_it(channel: BlockingChannel, name: Names) -> None:
    source, exchange, queue = name("x"), name("x"), name()
    channel.exchange_declare(source)
    channel.exchange_declare(exchange, auto_delete=True)
    channel.queue_declare(queue)
    channel.exchange_bind(exchange, source, "k")
    channel.queue_bind(queue, exchange, "k")
    channel.queue_unbind(queue, exchange, "k")
    with closes(channel, 404, no_exchange(exchange)):
        channel.exchange_declare(exchange, passive=True)


def test_auto_delete_cascades_through_exchange_bindings(channel: BlockingChannel, name: Names) -> None:
    exchanges = [name("x") for _ in range(4)]
    for exchange in exchanges:
        channel.exchange_declare(exchange, "fanout", auto_delete=True)
    for source, destination in pairwise(exchanges):
        channel.exchange_bind(destination, source)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchanges[-1])
    channel.queue_delete(queue)
    for exchange in exchanges:
        one = channel.connection.channel()
        with closes(one, 404, no_exchange(exchange)):
            one.exchange_declare(exchange, passive=True)


def test_delete_of_a_missing_exchange_succeeds(channel: BlockingChannel, name: Names) -> None:
    channel.exchange_delete(name("x"))
    channel.exchange_delete(name("x"), if_unused=True)


def test_delete_takes_the_bindings_along(channel: BlockingChannel, name: Names) -> None:
    exchange, queue = name("x"), name()
    channel.queue_declare(queue)
    channel.exchange_declare(exchange, "fanout")
    channel.queue_bind(queue, exchange)
    channel.exchange_delete(exchange)
    channel.exchange_declare(exchange, "fanout")
    publish(channel, "k", "m", exchange=exchange)
    assert ready(channel, queue) == 0


def test_delete_if_unused(channel: BlockingChannel, name: Names) -> None:
    exchange = name("x")
    channel.exchange_declare(exchange)
    channel.exchange_delete(exchange, if_unused=True)
    with closes(channel, 404, no_exchange(exchange)):
        channel.exchange_declare(exchange, passive=True)


def test_delete_if_unused_of_one_with_a_binding(channel: BlockingChannel, name: Names) -> None:
    exchange, queue = name("x"), name()
    channel.exchange_declare(exchange)
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "k")
    with closes(channel, 406, f"PRECONDITION_FAILED - exchange '{exchange}' in vhost '/' in use"):
        channel.exchange_delete(exchange, if_unused=True)


def test_a_destination_of_bindings_is_not_in_use(channel: BlockingChannel, name: Names) -> None:
    source, exchange = name("x"), name("x")
    channel.exchange_declare(source)
    channel.exchange_declare(exchange)
    channel.exchange_bind(exchange, source, "k")
    channel.exchange_delete(exchange, if_unused=True)
    sync(channel)
