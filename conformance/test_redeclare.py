"""Declaring a queue again: what counts as the same queue, and the text for what does not.

The order is RabbitMQ's: the exclusive owner, then durable, auto_delete, then the arguments. Integers compare by value
across their widths. With a value on both sides the text gives the bare values, otherwise value and type.
"""

from __future__ import annotations

from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.compat import long

from conformance.clients import closes, counts, locked, publish
from conformance.rawpeer import RawPeer, raw_method, shortstr, table
from conformance.support import Names


def _inequivalent(argument: str, queue: str, difference: str) -> str:
    return f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{queue}' in vhost '/': {difference}"


@pytest.mark.parametrize(
    ("first", "again", "argument", "difference"),
    [
        ({}, {"durable": True}, "durable", "received 'true' but current is 'false'"),
        ({"durable": True}, {}, "durable", "received 'false' but current is 'true'"),
        ({}, {"auto_delete": True}, "auto_delete", "received 'true' but current is 'false'"),
        ({"auto_delete": True}, {}, "auto_delete", "received 'false' but current is 'true'"),
        ({}, {"durable": True, "auto_delete": True}, "durable", "received 'true' but current is 'false'"),
        (
            {},
            {"auto_delete": True, "arguments": {"x-max-length": 1}},
            "auto_delete",
            "received 'true' but current is 'false'",
        ),
    ],
)
def test_other_flags(
    channel: BlockingChannel,
    name: Names,
    first: dict[str, bool],
    again: dict[str, bool],
    argument: str,
    difference: str,
) -> None:
    queue = name()
    channel.queue_declare(queue, **first)
    with closes(channel, 406, _inequivalent(argument, queue, difference)):
        channel.queue_declare(queue, **again)


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({}, {"exclusive": True}),
        ({"exclusive": True}, {}),
        ({"durable": True}, {"exclusive": True, "durable": True}),
        ({}, {"exclusive": True, "durable": True, "arguments": {"x-max-length": 1}}),
    ],
)
def test_another_exclusive_flag(
    channel: BlockingChannel, name: Names, first: dict[str, bool], again: dict[str, bool]
) -> None:
    queue = name()
    channel.queue_declare(queue, **first)
    with closes(channel, 405, locked(queue)):
        channel.queue_declare(queue, **again)


def test_an_exclusive_queue_is_never_durable(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue, exclusive=True, durable=True)
    channel.queue_declare(queue, exclusive=True, durable=False)
    channel.queue_declare(queue, exclusive=True, durable=True)


VALUES = [
    ("x-message-ttl", 60000, 60001, "signedint"),
    ("x-expires", 60000, 60001, "signedint"),
    ("x-max-length", 5, 6, "signedint"),
    ("x-max-length-bytes", 5, 6, "signedint"),
    ("x-max-priority", 5, 6, "signedint"),
    ("x-dead-letter-exchange", "a", "b", "longstr"),
    ("x-overflow", "drop-head", "reject-publish", "longstr"),
    ("x-single-active-consumer", True, False, "bool"),
    ("x-queue-mode", "lazy", "default", "longstr"),
    ("x-queue-version", 1, 2, "signedint"),
    ("x-queue-master-locator", "min-masters", "client-local", "longstr"),
]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(("argument", "old", "new", "kind"), VALUES)
def test_argument_with_another_value(
    channel: BlockingChannel, name: Names, argument: str, old: Any, new: Any, kind: str
) -> None:
    queue = name()
    channel.queue_declare(queue, arguments={argument: old})
    difference = f"received '{_shown(new)}' but current is '{_shown(old)}'"
    with closes(channel, 406, _inequivalent(argument, queue, difference)):
        channel.queue_declare(queue, arguments={argument: new})


@pytest.mark.parametrize(("argument", "old", "new", "kind"), VALUES)
def test_argument_that_is_new(
    channel: BlockingChannel, name: Names, argument: str, old: Any, new: Any, kind: str
) -> None:
    queue = name()
    channel.queue_declare(queue)
    difference = f"received the value '{_shown(new)}' of type '{kind}' but current is none"
    with closes(channel, 406, _inequivalent(argument, queue, difference)):
        channel.queue_declare(queue, arguments={argument: new})


@pytest.mark.parametrize(("argument", "old", "new", "kind"), VALUES)
def test_argument_that_is_left_out(
    channel: BlockingChannel, name: Names, argument: str, old: Any, new: Any, kind: str
) -> None:
    queue = name()
    channel.queue_declare(queue, arguments={argument: old})
    difference = f"received none but current is the value '{_shown(old)}' of type '{kind}'"
    with closes(channel, 406, _inequivalent(argument, queue, difference)):
        channel.queue_declare(queue)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ({"x-message-ttl": 5}, {"x-message-ttl": "5"}, "received '5' but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": 2**40}, f"received '{2**40}' but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": -1}, "received '-1' but current is '5'"),
        ({}, {"x-message-ttl": -1}, "received the value '-1' of type 'signedint' but current is none"),
        ({}, {"x-message-ttl": 2**40}, f"received the value '{2**40}' of type 'long' but current is none"),
        ({}, {"x-message-ttl": True}, "received the value 'true' of type 'bool' but current is none"),
        ({}, {"x-message-ttl": None}, "received the value 'undefined' of type 'void' but current is none"),
        ({}, {"x-message-ttl": b"5"}, "received the value '5' of type 'binary' but current is none"),
    ],
)
def test_equivalence_comes_before_validity(
    channel: BlockingChannel, name: Names, old: dict[str, Any], new: dict[str, Any], difference: str
) -> None:
    queue = name()
    channel.queue_declare(queue, arguments=old)
    with closes(channel, 406, _inequivalent("x-message-ttl", queue, difference)):
        channel.queue_declare(queue, arguments=new)


@pytest.mark.parametrize("value", [{}, {"x-dead-letter-routing-key": "other"}])
def test_dead_letter_routing_key(channel: BlockingChannel, name: Names, value: dict[str, Any]) -> None:
    queue = name()
    dead = {"x-dead-letter-exchange": "a"}
    channel.queue_declare(queue, arguments=dead | {"x-dead-letter-routing-key": "k"})
    difference = (
        "received 'other' but current is 'k'"
        if value
        else ("received none but current is the value 'k' of type 'longstr'")
    )
    with closes(channel, 406, _inequivalent("x-dead-letter-routing-key", queue, difference)):
        channel.queue_declare(queue, arguments=dead | value)


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"x-queue-type": "classic"}, {}),
        ({}, {"x-queue-type": "classic"}),
        ({"x-unheard-of": 1}, {"x-unheard-of": 2}),
        ({"x-unheard-of": 1}, {}),
        ({}, {"x-unheard-of": [1]}),
        ({"x-message-ttl": 60000, "x-max-length": 5}, {"x-max-length": 5, "x-message-ttl": 60000}),
        ({"x-message-ttl": 60000}, {"x-message-ttl": long(60000)}),
        ({"x-max-length": long(5)}, {"x-max-length": 5}),
    ],
)
def test_the_same(channel: BlockingChannel, name: Names, first: dict[str, Any], again: dict[str, Any]) -> None:
    queue = name()
    channel.queue_declare(queue, arguments=first)
    publish(channel, queue, "m")
    assert channel.queue_declare(queue, arguments=again).method.message_count == 1


@pytest.mark.parametrize(
    "encoded", [b"b\x05", b"B\x05", b"s\x00\x05", b"u\x00\x05", b"i\x00\x00\x00\x05", b"l" + bytes(7) + b"\x05"]
)
def test_widths_of_integers_do_not_matter(channel: BlockingChannel, peer: RawPeer, name: Names, encoded: bytes) -> None:
    queue = name()
    channel.queue_declare(queue, arguments={"x-max-length": 5})
    peer.send(raw_method(1, 50, 10, b"\0\0" + shortstr(queue) + b"\0" + table(("x-max-length", encoded))))
    assert peer.expect(50, 11).queue == queue


@pytest.mark.parametrize(("value", "shown"), [("quorum", "quorum"), ("zzz", "zzz")])
def test_another_queue_type(channel: BlockingChannel, name: Names, value: str, shown: str) -> None:
    queue = name()
    channel.queue_declare(queue, durable=True)
    difference = f"received the value '{shown}' of type 'longstr' but current is none"
    with closes(channel, 406, _inequivalent("x-queue-type", queue, difference)):
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": value})


def test_a_queue_survives_a_refused_declare(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue)
    publish(channel, queue, "m")
    with closes(channel, 406, _inequivalent("durable", queue, "received 'true' but current is 'false'")):
        channel.queue_declare(queue, durable=True)
    assert counts(channel.connection.channel(), queue) == (1, 0)
