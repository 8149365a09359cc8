"""Headers exchanges: x-match in its four modes, values compared by value, void as "is there".

A binding argument matches a header of the same name and an equal value, where numbers of any width and kind are equal
when their values are; text and bytes are the same too, but text is never a number.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.compat import long

from conformance.clients import closes, get, publish, ready
from conformance.rawpeer import NO_PROPERTIES, RawPeer, headers_property, longstr, raw_method, shortstr, table
from conformance.support import Names


def _routes(
    channel: BlockingChannel, name: Names, arguments: dict[str, Any], properties: BasicProperties | None
) -> bool:
    """Whether a headers exchange with one binding routes a message with these properties."""
    exchange, queue = name("x"), name()
    channel.exchange_declare(exchange, "headers")
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "ignored", arguments=arguments)
    channel.basic_publish(exchange, "any key", b"m", properties)
    return get(channel, queue) is not None


ALL, ANY, ALL_X, ANY_X = ({"x-match": mode} for mode in ("all", "any", "all-with-x", "any-with-x"))


@pytest.mark.parametrize(
    ("arguments", "headers", "routed"),
    [
        (ALL | {"a": 1, "b": "x"}, {"a": 1, "b": "x"}, True),
        (ALL | {"a": 1, "b": "x"}, {"b": "x", "c": None, "a": 1}, True),
        (ALL | {"a": 1, "b": "x"}, {"a": 1}, False),
        (ALL | {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, False),
        (ALL | {"a": 1, "b": "x"}, {}, False),
        (ALL, {}, True),
        (ALL, {"a": 1}, True),
        ({}, {}, True),
        ({}, {"a": 1}, True),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        (ANY | {"a": 1, "b": "x"}, {"a": 1}, True),
        (ANY | {"a": 1, "b": "x"}, {"b": "x", "a": 2}, True),
        (ANY | {"a": 1, "b": "x"}, {"a": 2, "b": "y"}, False),
        (ANY | {"a": 1, "b": "x"}, {"c": 1}, False),
        (ANY | {"a": 1, "b": "x"}, {}, False),
        (ANY, {}, False),
        (ANY, {"a": 1}, False),
        (ALL | {"x-a": 1, "b": 2}, {"b": 2}, True),
        (ALL | {"x-a": 1, "b": 2}, {"x-a": 2, "b": 2}, True),
        (ALL | {"x-a": 1}, {}, True),
        (ANY | {"x-a": 1, "b": 2}, {"x-a": 1}, False),
        (ANY | {"x-a": 1, "b": 2}, {"b": 2}, True),
        (ALL_X | {"x-a": 1, "b": 2}, {"b": 2}, False),
        (ALL_X | {"x-a": 1, "b": 2}, {"x-a": 1, "b": 2}, True),
        (ALL_X | {"x-a": 1}, {"x-a": 2}, False),
        (ALL_X, {}, True),
        (ANY_X | {"x-a": 1, "b": 2}, {"x-a": 1}, True),
        (ANY_X | {"x-a": 1, "b": 2}, {"x-a": 2, "b": 3}, False),
        (ANY_X | {"x-a": 1, "b": 2}, {"b": 2}, True),
        (ANY_X, {"x-match": "any-with-x"}, False),
        (ALL_X | {"a": 1}, {"a": 1, "x-match": "other"}, True),
        (ALL | {"X-a": 1}, {}, False),
        (ALL | {"a": 1}, {"A": 1}, False),
        (ALL | {"": 1}, {"": 1}, True),
    ],
)
def test_match(
    channel: BlockingChannel, name: Names, arguments: dict[str, Any], headers: dict[str, Any], routed: bool
) -> None:
    assert _routes(channel, name, arguments, BasicProperties(headers=headers)) is routed


@pytest.mark.parametrize(
    ("arguments", "routed"),
    [({}, True), (ALL, True), (ALL | {"a": None}, False), (ANY | {"a": 1}, False), (ANY, False), (ALL_X, True)],
)
@pytest.mark.parametrize("properties", [None, BasicProperties(content_type="text/plain")])
def test_a_message_without_headers(
    channel: BlockingChannel, name: Names, arguments: dict[str, Any], routed: bool, properties: BasicProperties | None
) -> None:
    assert _routes(channel, name, arguments, properties) is routed


T0 = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wanted", "sent", "routed"),
    [
        (None, "anything", True),
        (None, 0, True),
        (None, None, True),
        (None, {}, True),
        ("", "", True),
        ("", None, False),
        ("x", "x", True),
        ("x", "X", False),
        ("☃", "☃", True),
        ("x", b"x", True),
        (b"x", "x", True),
        ("1", 1, False),
        (1, "1", False),
        (1, 1, True),
        (1, long(1), True),
        (long(2**40), long(2**40), True),
        (1, True, False),
        (True, True, True),
        (True, False, False),
        (True, "true", False),
        (False, None, False),
        (0, False, False),
        (T0, T0, True),
        (T0, int(T0.timestamp()), True),
        (Decimal("1.5"), Decimal("1.5"), True),
        (Decimal("1.5"), Decimal("1.6"), False),
        ([1, "a"], [1, "a"], True),
        ([1, "a"], ["a", 1], False),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ([], [], True),
    ],
)
def test_values(channel: BlockingChannel, name: Names, wanted: Any, sent: Any, routed: bool) -> None:
    assert _routes(channel, name, {"k": wanted}, BasicProperties(headers={"k": sent})) is routed


ONE = {
    "b": b"b\x01",
    "B": b"B\x01",
    "s": b"s\x00\x01",
    "u": b"u\x00\x01",
    "I": b"I\x00\x00\x00\x01",
    "i": b"i\x00\x00\x00\x01",
    "l": b"l" + bytes(7) + b"\x01",
    "T": b"T" + bytes(7) + b"\x01",
    "f": b"f\x3f\x80\x00\x00",
    "d": b"d\x3f\xf0" + bytes(6),
}


@pytest.mark.parametrize("sent", list(ONE))
@pytest.mark.parametrize("bound", ["I", "d"])
def test_numbers_of_any_width_are_compared_by_value(peer: RawPeer, name: Names, bound: str, sent: str) -> None:
    queue = peer.declare(1, name())
    bind = b"\0\0" + shortstr(queue) + shortstr("amq.headers") + shortstr("") + b"\0"
    peer.send(raw_method(1, 50, 20, bind + table((queue, ONE[bound]))))
    peer.expect(50, 21)
    peer.publish(1, "amq.headers", "", b"one", headers_property(table((queue, ONE[sent]))))
    peer.publish(1, "amq.headers", "", b"none", NO_PROPERTIES)
    peer.publish(1, "amq.headers", "", b"text", headers_property(table((queue, b"S" + longstr("1")))))
    got = peer.get(1, queue)
    assert got is not None and got.body == b"one"
    assert peer.get(1, queue) is None


# --- bad x-match -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"), [("zzz", '<<"zzz">>'), ("", "<<>>"), ("ALL", '<<"ALL">>'), ("all ", '<<"all ">>')]
)
def test_unknown_x_match(channel: BlockingChannel, name: Names, value: str, shown: str) -> None:
    queue = name()
    channel.queue_declare(queue)
    text = f"Invalid x-match field value {shown}; expected all, any, all-with-x, or any-with-x"
    with closes(channel, 406, f"PRECONDITION_FAILED - {text}"):
        channel.queue_bind(queue, "amq.headers", arguments={"x-match": value})


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [(1, "signedint", "1"), (True, "bool", "true"), (None, "void", "undefined"), (b"all", "binary", '<<"all">>')],
)
def test_x_match_must_be_a_string(channel: BlockingChannel, name: Names, value: Any, kind: str, shown: str) -> None:
    queue = name()
    channel.queue_declare(queue)
    text = f"PRECONDITION_FAILED - Invalid x-match field type {kind} (value {shown}); expected longstr"
    with closes(channel, 406, text):
        channel.queue_bind(queue, "amq.headers", arguments={"x-match": value})


def test_x_match_means_nothing_to_other_exchanges(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    for exchange in ("amq.direct", "amq.topic", "amq.fanout"):
        channel.queue_bind(queue, exchange, queue, arguments={"x-match": "zzz"})
    publish(channel, queue, "m", exchange="amq.direct")
    assert ready(channel, queue) == 1


def test_several_bindings_of_one_queue(channel: BlockingChannel, name: Names) -> None:
    exchange, queue = name("x"), name()
    channel.exchange_declare(exchange, "headers")
    channel.queue_declare(queue)
    for arguments in ({"a": 1}, ANY | {"a": 1, "b": 2}, ALL | {"c": 3}):
        channel.queue_bind(queue, exchange, arguments=arguments)
    for headers in ({"a": 1, "b": 2, "c": 3}, {"c": 3}, {"d": 4}):
        publish(channel, "", "m", exchange=exchange, headers=headers)
    assert ready(channel, queue) == 2
    channel.queue_unbind(queue, exchange, arguments=ALL | {"c": 3})
    publish(channel, "", "m", exchange=exchange, headers={"c": 3})
    assert ready(channel, queue) == 2
