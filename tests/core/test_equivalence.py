"""Declaring what exists again; the texts are those of RabbitMQ 3.10.8, taken from its answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.core.equivalence import check_exchange, check_queue, resource_locked
from rabbitish.core.exchange import Exchange
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.values import Float32, Int8, Int16, Int64, Table, Timestamp, UInt8, UInt16, UInt32, Value


@dataclass
class FakeQueue:
    """A queue as far as equivalence knows queues."""

    name: str = "q"
    durable: bool = False
    auto_delete: bool = False
    owner: object | None = None
    arguments: Table = field(default_factory=dict)


def redeclare(queue: FakeQueue, **changes: Any) -> str:
    """Declare the queue again with something else; the error, or nothing."""
    again: dict[str, Any] = {
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "owner": queue.owner,
        "arguments": queue.arguments,
    }
    try:
        check_queue(queue, "/", **{**again, **changes})
    except ChannelError as refused:
        return refused.text
    return ""


def compare(current: Table, received: Table) -> str:
    """What a declare with `received` says where there is `current`, from the argument's name on."""
    text = redeclare(FakeQueue(arguments=current), arguments=received)
    before, _, after = text.partition(" for queue 'q' in vhost '/': ")
    return f"{before.removeprefix('PRECONDITION_FAILED - inequivalent arg ')}: {after}" if text else ""


# ---- queues


def test_the_same_again_is_equivalent() -> None:
    assert redeclare(FakeQueue()) == ""
    assert redeclare(FakeQueue("q", True, True, object(), {"x-max-length": 5})) == ""


def test_flags() -> None:
    where = "for queue 'q' in vhost '/'"
    assert redeclare(FakeQueue(), durable=True) == (
        f"PRECONDITION_FAILED - inequivalent arg 'durable' {where}: received 'true' but current is 'false'"
    )
    assert redeclare(FakeQueue(durable=True), durable=False) == (
        f"PRECONDITION_FAILED - inequivalent arg 'durable' {where}: received 'false' but current is 'true'"
    )
    assert redeclare(FakeQueue(auto_delete=True), auto_delete=False) == (
        f"PRECONDITION_FAILED - inequivalent arg 'auto_delete' {where}: received 'false' but current is 'true'"
    )


def test_ownership_must_be_the_same() -> None:
    me, other = object(), object()
    locked = (
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally "
        "declared on another connection or the exclusive property value does not match that of the original "
        "declaration."
    )
    assert redeclare(FakeQueue(owner=me), owner=other) == locked
    assert redeclare(FakeQueue(owner=me), owner=None) == locked
    assert redeclare(FakeQueue(owner=None), owner=me) == locked
    assert resource_locked("q", "/").text == locked
    assert resource_locked("q", "/").code is ReplyCode.RESOURCE_LOCKED


def test_of_several_differences_rabbitmqs_first_is_told() -> None:
    everything: dict[str, Any] = {
        "owner": object(),
        "durable": True,
        "auto_delete": True,
        "arguments": {"x-max-length": 1, "x-expires": 1},
    }
    told = []
    for key in ("owner", "durable", "auto_delete", "arguments"):
        told.append(redeclare(FakeQueue(), **everything))
        del everything[key]
    assert ["RESOURCE_LOCKED" in told[0], *(text.split("'")[1] for text in told[1:])] == [
        True,
        "durable",
        "auto_delete",
        "x-expires",
    ]


def test_the_arguments_that_are_compared_and_their_order() -> None:
    order = [
        "x-expires",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-overflow",
        "x-queue-mode",
        "x-queue-version",
        "x-single-active-consumer",
        "x-queue-type",
        "x-queue-master-locator",
        # RabbitMQ leaves these to quorum queues; here they work on every queue
        "x-delivery-limit",
        "x-consumer-timeout",
    ]
    received: Table = {"x-nonsense": "zz", "x-max-age": "zz", **dict.fromkeys(reversed(order), "zz")}
    for key in order:
        assert compare({}, received) == f"'{key}': received the value 'zz' of type 'longstr' but current is none"
        del received[key]
    assert compare({}, received) == ""


@pytest.mark.parametrize(
    ("current", "received", "text"),
    [
        ({}, {"x-message-ttl": 5}, "received the value '5' of type 'signedint' but current is none"),
        ({"x-message-ttl": 5}, {}, "received none but current is the value '5' of type 'signedint'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": 6}, "received '6' but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": "5"}, "received '5' but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": b"5"}, "received '5' but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": 5.0}, "received '5.0' but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": True}, "received 'true' but current is '5'"),
        ({"x-message-ttl": 1}, {"x-message-ttl": True}, "received 'true' but current is '1'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": None}, "received none but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": [5]}, "received '[{signedint,5}]' but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": {"a": 5}}, "received '[{<<\"a\">>,signedint,5}]' but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": Decimal(5)}, "received '{0,5}' but current is '5'"),
        ({"x-message-ttl": 5}, {"x-message-ttl": Int64(7)}, "received '7' but current is '5'"),
        ({}, {"x-message-ttl": None}, "received the value 'undefined' of type 'void' but current is none"),
        ({}, {"x-message-ttl": True}, "received the value 'true' of type 'bool' but current is none"),
        ({}, {"x-message-ttl": 5.0}, "received the value '5.0' of type 'double' but current is none"),
        ({}, {"x-message-ttl": Float32(5)}, "received the value '5.0' of type 'float' but current is none"),
        ({}, {"x-message-ttl": b"5"}, "received the value '5' of type 'binary' but current is none"),
        ({}, {"x-message-ttl": []}, "received the value '[]' of type 'array' but current is none"),
        ({}, {"x-message-ttl": Decimal(5)}, "received the value '{0,5}' of type 'decimal' but current is none"),
        ({}, {"x-message-ttl": Timestamp(5)}, "received the value '5' of type 'timestamp' but current is none"),
        ({}, {"x-message-ttl": UInt8(5)}, "received the value '5' of type 'unsignedbyte' but current is none"),
        ({}, {"x-overflow": 'a"b'}, "received the value 'a\"b' of type 'longstr' but current is none"),
        ({}, {"x-queue-type": "quorum"}, "received the value 'quorum' of type 'longstr' but current is none"),
        ({"x-queue-type": "classic"}, {"x-queue-type": "quorum"}, "received 'quorum' but current is 'classic'"),
        ({}, {"x-queue-type": b"classic"}, "received the value 'classic' of type 'binary' but current is none"),
        (
            {"x-single-active-consumer": True},
            {"x-single-active-consumer": False},
            "received 'false' but current is 'true'",
        ),
    ],
)
def test_how_different_arguments_are_told(current: Table, received: Table, text: str) -> None:
    key = next(iter({**current, **received}))
    assert compare(current, received) == f"'{key}': {text}"


def test_names_and_values_need_not_be_text() -> None:
    queue = FakeQueue(name="q\udcff", arguments={"x-overflow": "drop-head"})
    text = redeclare(queue, arguments={"x-overflow": b"\xff\x00"})
    assert text == (
        "PRECONDITION_FAILED - inequivalent arg 'x-overflow' for queue 'q\udcff' in vhost '/': "
        "received '\udcff\x00' but current is 'drop-head'"
    )


@pytest.mark.parametrize(
    ("current", "received"),
    [
        *[({"x-max-length": 5}, {"x-max-length": kind(5)}) for kind in (Int8, UInt8, Int16, UInt16, UInt32, Int64)],
        ({"x-max-length": Int8(5)}, {"x-max-length": Timestamp(5)}),
        ({"x-overflow": "drop-head"}, {"x-overflow": b"drop-head"}),
        ({"x-queue-type": "classic"}, {}),
        ({}, {"x-queue-type": "classic"}),
        ({"x-queue-type": "classic"}, {"x-queue-type": b"classic"}),
        ({}, {"x-nonsense": 1}),
        ({"x-nonsense": 1}, {"x-nonsense": 2}),
        ({"x-max-length": 5, "x-expires": 6}, {"x-expires": 6, "x-max-length": 5}),
        ({}, {"x-max-age": "1D"}),
    ],
)
def test_equivalent_arguments(current: Table, received: Table) -> None:
    assert compare(current, received) == ""


values: st.SearchStrategy[Value] = st.sampled_from(
    [1, Int64(1), 1.0, Float32(1), True, "1", b"1", None, 2, [1], {"a": 1}, Decimal(1)]
)
some_arguments = st.dictionaries(st.sampled_from(["x-expires", "x-max-length", "x-overflow", "other"]), values)


@given(some_arguments, some_arguments)
def test_equivalence_is_the_same_both_ways(one: Table, other: Table) -> None:
    assert compare(one, one) == ""
    there, back = compare(one, other), compare(other, one)
    assert (there == "") == (back == "")
    if there:
        received, current = there.partition(": received ")[2].split(" but current is ")
        assert back.endswith(f": received {current} but current is {received}")


# ---- exchanges


def exchange(**changes: Any) -> str:
    """Declare a plain direct exchange again with something else; the error, or nothing."""
    again: dict[str, Any] = {
        "type_": "direct",
        "durable": False,
        "auto_delete": False,
        "internal": False,
        "arguments": {"alternate-exchange": "a"},
    }
    current = Exchange("e", "direct", arguments={"alternate-exchange": "a"})
    try:
        check_exchange(current, "/", **{**again, **changes})
    except ChannelError as refused:
        return refused.text
    return ""


def test_the_same_exchange_again_is_equivalent() -> None:
    assert exchange() == ""
    assert exchange(arguments={"alternate-exchange": b"a", "nonsense": 5}) == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"type_": "topic"}, "'type' for exchange 'e' in vhost '/': received 'topic' but current is 'direct'"),
        ({"durable": True}, "'durable' for exchange 'e' in vhost '/': received 'true' but current is 'false'"),
        ({"auto_delete": True}, "'auto_delete' for exchange 'e' in vhost '/': received 'true' but current is 'false'"),
        ({"internal": True}, "'internal' for exchange 'e' in vhost '/': received 'true' but current is 'false'"),
        (
            {"arguments": {}},
            "'alternate-exchange' for exchange 'e' in vhost '/': "
            "received none but current is the value 'a' of type 'longstr'",
        ),
        (
            {"arguments": {"alternate-exchange": 5}},
            "'alternate-exchange' for exchange 'e' in vhost '/': received '5' but current is 'a'",
        ),
    ],
)
def test_how_different_exchanges_are_told(changes: dict[str, Any], text: str) -> None:
    assert exchange(**changes) == f"PRECONDITION_FAILED - inequivalent arg {text}"


def test_of_several_differences_between_exchanges_rabbitmqs_first_is_told() -> None:
    everything: dict[str, Any] = {
        "type_": "topic",
        "durable": True,
        "auto_delete": True,
        "internal": True,
        "arguments": {},
    }
    told = []
    for key in list(everything):
        told.append(exchange(**everything).split("'")[1])
        del everything[key]
    assert told == ["type", "durable", "auto_delete", "internal", "alternate-exchange"]
