"""Errors of methods on a channel: code, text, and the class and method that they name, which clients look at."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from pamqp import commands

from conformance.rawpeer import (
    Raw,
    RawPeer,
    content,
    headers_property,
    longstr,
    method,
    publish_method,
    queue_declare,
    raw_method,
    shortstr,
    table,
)
from conformance.support import Names

Basic, Channel, Exchange, Queue, Tx = (
    commands.Basic,
    commands.Channel,
    commands.Exchange,
    commands.Queue,
    commands.Tx,
)

Row = tuple[Any, dict[str, Any], int, str]

NO_QUEUE = "NOT_FOUND - no queue '{missing}' in vhost '/'"
NO_EXCHANGE = "NOT_FOUND - no exchange '{missing}' in vhost '/'"
NONE_DECLARED = "NOT_FOUND - no previously declared queue"
DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"
SYSTEM = "ACCESS_REFUSED - deletion of system exchange '{x}' in vhost '/' not allowed"


def different(arg: str, kind: str, name: str, got: str, now: str) -> str:
    which = f"inequivalent arg '{arg}' for {kind} '{name}' in vhost '/'"
    return f"PRECONDITION_FAILED - {which}: received '{got}' but current is '{now}'"


ROWS: list[Row] = [
    # missing
    (Queue.Declare, {"queue": "{missing}", "passive": True}, 404, NO_QUEUE),
    (Queue.Bind, {"queue": "{missing}", "exchange": "amq.direct"}, 404, NO_QUEUE),
    (Queue.Bind, {"queue": "{queue}", "exchange": "{missing}"}, 404, NO_EXCHANGE),
    (Queue.Purge, {"queue": "{missing}"}, 404, NO_QUEUE),
    (Basic.Get, {"queue": "{missing}"}, 404, NO_QUEUE),
    (Basic.Consume, {"queue": "{missing}"}, 404, NO_QUEUE),
    (Exchange.Declare, {"exchange": "{missing}", "passive": True}, 404, NO_EXCHANGE),
    (Exchange.Bind, {"destination": "{missing}", "source": "amq.direct"}, 404, NO_EXCHANGE),
    (Exchange.Bind, {"destination": "amq.direct", "source": "{missing}"}, 404, NO_EXCHANGE),
    (Basic.Publish, {"exchange": "{missing}", "routing_key": "k"}, 404, NO_EXCHANGE),
    # no name and none declared on the channel
    (Queue.Declare, {"queue": "", "passive": True}, 404, "NOT_FOUND - no queue '' in vhost '/'"),
    (Queue.Bind, {"queue": "", "exchange": "amq.direct"}, 404, NONE_DECLARED),
    (Queue.Unbind, {"queue": "", "exchange": "amq.direct"}, 404, NONE_DECLARED),
    (Queue.Purge, {"queue": ""}, 404, NONE_DECLARED),
    (Queue.Delete, {"queue": ""}, 404, NONE_DECLARED),
    (Basic.Get, {"queue": ""}, 404, NONE_DECLARED),
    (Basic.Consume, {"queue": ""}, 404, NONE_DECLARED),
    # the default exchange
    (Exchange.Declare, {"exchange": "", "exchange_type": "direct"}, 403, DEFAULT),
    (Exchange.Declare, {"exchange": "", "passive": True}, 403, DEFAULT),
    (Exchange.Delete, {"exchange": ""}, 403, DEFAULT),
    (Queue.Bind, {"queue": "{queue}", "exchange": ""}, 403, DEFAULT),
    (Queue.Unbind, {"queue": "{queue}", "exchange": ""}, 403, DEFAULT),
    (Exchange.Bind, {"destination": "", "source": "amq.direct"}, 403, DEFAULT),
    (Exchange.Bind, {"destination": "amq.direct", "source": ""}, 403, DEFAULT),
    (Exchange.Unbind, {"destination": "", "source": "amq.direct"}, 403, DEFAULT),
    (Exchange.Unbind, {"destination": "amq.direct", "source": ""}, 403, DEFAULT),
    # reserved names
    (Queue.Declare, {"queue": "amq.q"}, 403, "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'"),
    (Queue.Declare, {"queue": "amq."}, 403, "ACCESS_REFUSED - queue name 'amq.' contains reserved prefix 'amq.*'"),
    (
        Exchange.Declare,
        {"exchange": "amq.x", "exchange_type": "direct"},
        403,
        "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'",
    ),
    *(
        (Exchange.Delete, {"exchange": system}, 403, SYSTEM.replace("{x}", system))
        for system in ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match", "amq.rabbitmq.trace"]
    ),
    (
        Basic.Publish,
        {"exchange": "amq.rabbitmq.trace", "routing_key": "k"},
        403,
        "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'",
    ),
    # declared otherwise
    *(
        (
            Queue.Declare,
            {"queue": "{queue}", flag: True},
            406,
            different(flag, "queue", "{queue}", "true", "false"),
        )
        for flag in ["durable", "auto_delete"]
    ),
    *(
        (
            Exchange.Declare,
            {"exchange": "{exchange}", "exchange_type": "direct", flag: True},
            406,
            different(flag, "exchange", "{exchange}", "true", "false"),
        )
        for flag in ["durable", "auto_delete", "internal"]
    ),
    (
        Exchange.Declare,
        {"exchange": "{exchange}", "exchange_type": "topic"},
        406,
        different("type", "exchange", "{exchange}", "topic", "direct"),
    ),
    # conditions
    (
        Queue.Delete,
        {"queue": "{queue}", "if_empty": True},
        406,
        "PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty",
    ),
    (
        Queue.Delete,
        {"queue": "{consumed}", "if_unused": True},
        406,
        "PRECONDITION_FAILED - queue '{consumed}' in vhost '/' in use",
    ),
    (
        Queue.Delete,
        {"queue": "{consumed}", "if_unused": True, "if_empty": True},
        406,
        "PRECONDITION_FAILED - queue '{consumed}' in vhost '/' in use",
    ),
    (
        Exchange.Delete,
        {"exchange": "{exchange}", "if_unused": True},
        406,
        "PRECONDITION_FAILED - exchange '{exchange}' in vhost '/' in use",
    ),
    (
        Basic.Consume,
        {"queue": "{consumed}", "exclusive": True},
        403,
        "ACCESS_REFUSED - queue '{consumed}' in vhost '/' in exclusive use",
    ),
    (
        Basic.Consume,
        {"queue": "{taken}"},
        403,
        "ACCESS_REFUSED - queue '{taken}' in vhost '/' in exclusive use",
    ),
    # transactions
    (Tx.Commit, {}, 406, "PRECONDITION_FAILED - channel is not transactional"),
    (Tx.Rollback, {}, 406, "PRECONDITION_FAILED - channel is not transactional"),
]


def label(row: Row) -> str:
    arguments = " ".join(f"{key}={value}".replace("=True", "") for key, value in row[1].items())
    return f"{row[0].name} {arguments}"


@pytest.fixture
def names(raw: Raw, name: Names) -> dict[str, str]:
    """What another connection has: a queue with a message, one consumed, one consumed exclusively, an exchange."""
    other = raw()
    other.channel(1)
    made = {key: name(key) for key in ["queue", "consumed", "taken", "exchange", "missing"]}
    for key in ["queue", "consumed", "taken"]:
        other.declare(1, made[key])
    other.ask(1, Exchange.Declare(exchange=made["exchange"], exchange_type="direct"))
    other.ask(1, Queue.Bind(queue=made["queue"], exchange=made["exchange"], routing_key="k"))
    other.publish(1, "", made["queue"], b"m")
    other.consume(1, made["consumed"], "one")
    other.consume(1, made["taken"], "two", exclusive=True)
    return made


@pytest.mark.parametrize(("kind", "arguments", "code", "text"), ROWS, ids=map(label, ROWS))
def test_error(
    peer: RawPeer, names: dict[str, str], kind: Any, arguments: dict[str, Any], code: int, text: str
) -> None:
    command = kind(**{k: v.format(**names) if isinstance(v, str) else v for k, v in arguments.items()})
    peer.send(method(1, command), content(1, b"m") if kind is Basic.Publish else b"")
    peer.expect_close(code, text.format(**names), command.index >> 16, command.index & 0xFFFF, channel=1)
    peer.channel(1)
    peer.sync(1)


FINE: list[tuple[Any, dict[str, Any]]] = [
    (Queue.Delete, {"queue": "{missing}"}),
    (Queue.Delete, {"queue": "{missing}", "if_empty": True, "if_unused": True}),
    (Queue.Delete, {"queue": "{consumed}", "if_empty": True}),
    (Exchange.Delete, {"exchange": "{missing}"}),
    (Exchange.Delete, {"exchange": "{missing}", "if_unused": True}),
    (Queue.Unbind, {"queue": "{queue}", "exchange": "{exchange}", "routing_key": "other"}),
    (Queue.Unbind, {"queue": "{missing}", "exchange": "{exchange}"}),
    (Queue.Unbind, {"queue": "{queue}", "exchange": "{missing}"}),
    (Exchange.Unbind, {"destination": "{missing}", "source": "amq.direct"}),
    (Exchange.Unbind, {"destination": "amq.direct", "source": "{missing}"}),
    (Basic.Cancel, {"consumer_tag": "nobody"}),
    (Queue.Bind, {"queue": "{queue}", "exchange": "{exchange}", "routing_key": "k"}),
    (Exchange.Declare, {"exchange": "amq.direct", "exchange_type": "direct", "durable": True}),
    (Exchange.Declare, {"exchange": "amq.rabbitmq.trace", "exchange_type": "topic", "durable": True, "internal": True}),
    (Exchange.Declare, {"exchange": "{exchange}", "exchange_type": "zzz", "passive": True, "durable": True}),
    (Queue.Declare, {"queue": "{queue}", "passive": True, "durable": True, "auto_delete": True}),
]


@pytest.mark.parametrize(("kind", "arguments"), FINE, ids=[label((*row, 0, "")) for row in FINE])
def test_no_error(peer: RawPeer, names: dict[str, str], kind: Any, arguments: dict[str, Any]) -> None:
    peer.ask(1, kind(**{k: v.format(**names) if isinstance(v, str) else v for k, v in arguments.items()}))
    peer.sync(1)


# --- acknowledgements ------------------------------------------------------------------------------------------------

ACK, NACK, REJECT = (60, 80), (60, 120), (60, 90)


def settle(which: tuple[int, int], tag: int, bits: int = 0) -> bytes:
    return raw_method(1, *which, struct.pack(">QB", tag, bits))


@pytest.mark.parametrize("tag", [0, 1, 99, 2**64 - 1])
@pytest.mark.parametrize("which", [ACK, NACK, REJECT], ids=["ack", "nack", "reject"])
def test_unknown_tag(peer: RawPeer, which: tuple[int, int], tag: int) -> None:
    peer.send(settle(which, tag))
    peer.expect_close(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}", *which, channel=1)


@pytest.mark.parametrize("tag", [1, 99])
@pytest.mark.parametrize("which", [ACK, NACK], ids=["ack", "nack"])
def test_unknown_tag_multiple(peer: RawPeer, which: tuple[int, int], tag: int) -> None:
    peer.send(settle(which, tag, 1))
    peer.expect_close(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}", *which, channel=1)


@pytest.mark.parametrize("which", [ACK, NACK], ids=["ack", "nack"])
def test_everything_of_nothing(peer: RawPeer, which: tuple[int, int]) -> None:
    peer.send(settle(which, 0, 1))
    peer.sync(1)


@pytest.mark.parametrize("which", [ACK, NACK, REJECT], ids=["ack", "nack", "reject"])
def test_second_settlement(peer: RawPeer, name: Names, which: tuple[int, int]) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"m")
    assert peer.get(1, queue, no_ack=False) is not None
    peer.send(settle(ACK, 1), settle(which, 1))
    peer.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", *which, channel=1)


def test_settlement_of_what_needs_none(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"m")
    assert peer.get(1, queue, no_ack=True) is not None
    peer.send(settle(ACK, 1))
    peer.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", *ACK, channel=1)


def test_settlement_on_another_channel(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"m")
    peer.channel(2)
    assert peer.get(2, queue, no_ack=False) is not None
    peer.send(settle(ACK, 1))
    peer.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", *ACK, channel=1)


# --- locked queues ---------------------------------------------------------------------------------------------------


def locked(queue: str) -> str:
    """The text, cut as every text is that does not fit a short string."""
    text = (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be "
        "originally declared on another connection or the exclusive property value does not match that of the "
        "original declaration."
    )
    return text if len(text) <= 255 else text[:252] + "..."


ON_A_LOCKED_QUEUE: list[tuple[Any, dict[str, Any]]] = [
    (Queue.Declare, {}),
    (Queue.Declare, {"exclusive": True}),
    (Queue.Declare, {"passive": True}),
    (Queue.Declare, {"nowait": True}),
    (Queue.Bind, {"exchange": "amq.direct"}),
    (Queue.Unbind, {"exchange": "amq.direct"}),
    (Queue.Purge, {}),
    (Queue.Delete, {}),
    (Basic.Get, {}),
    (Basic.Consume, {}),
]


@pytest.mark.parametrize(
    ("kind", "arguments"), ON_A_LOCKED_QUEUE, ids=[label((*row, 0, "")) for row in ON_A_LOCKED_QUEUE]
)
def test_queue_of_another_connection(
    peer: RawPeer, raw: Raw, name: Names, kind: Any, arguments: dict[str, Any]
) -> None:
    other = raw()
    queue = other.declare(other.channel(1), name(), exclusive=True)
    other.ask(1, Queue.Bind(queue=queue, exchange="amq.direct"))
    command = kind(queue=queue, **arguments)
    peer.send_method(1, command)
    peer.expect_close(405, locked(queue), command.index >> 16, command.index & 0xFFFF, channel=1)
    other.sync(1)


def test_missing_binding_of_another_connections_queue(peer: RawPeer, raw: Raw, name: Names) -> None:
    """The binding is looked for first, and there is no error in its not being there."""
    other = raw()
    queue = other.declare(other.channel(1), name(), exclusive=True)
    peer.ask(1, Queue.Unbind(queue=queue, exchange="amq.direct", routing_key="none"))


def test_queue_that_is_not_exclusive_declared_so(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.send(queue_declare(1, queue, exclusive=True))
    peer.expect_close(405, locked(queue), 50, 10, channel=1)


# --- one by one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nowait", [False, True])
def test_duplicate_consumer_tag_ends_the_connection(peer: RawPeer, name: Names, nowait: bool) -> None:
    one, two = peer.declare(1, name()), peer.declare(1, name())
    peer.consume(1, one, "t")
    peer.send_method(1, Basic.Consume(queue=two, consumer_tag="t", nowait=nowait))
    peer.expect_close(530, "NOT_ALLOWED - attempt to reuse consumer tag 't'", 60, 20)


def test_one_consumer_tag_on_two_channels(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    assert peer.consume(1, queue, "t") == peer.consume(peer.channel(2), queue, "t") == "t"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b"S" + longstr("zzz"), '<<"zzz">>'), (b"S" + longstr(""), "<<>>"), (b"S" + longstr("ALL"), '<<"ALL">>')],
    ids=["zzz", "empty", "upper case"],
)
def test_x_match(peer: RawPeer, name: Names, value: bytes, shown: str) -> None:
    queue = peer.declare(1, name())
    head = b"\0\0" + shortstr(queue) + shortstr("amq.headers") + b"\0\0"
    peer.send(raw_method(1, 50, 20, head + table(("x-match", value))))
    text = f"Invalid x-match field value {shown}; expected all, any, all-with-x, or any-with-x"
    peer.expect_close(406, f"PRECONDITION_FAILED - {text}", 50, 20, channel=1)


def test_error_in_the_middle_of_many_publishes(peer: RawPeer, name: Names) -> None:
    missing = name("missing")
    peer.send(*(publish_method(1, missing, "k") + content(1, b"m", headers_property(table())) for _ in range(100)))
    peer.expect_close(404, NO_EXCHANGE.format(missing=missing), 60, 40, channel=1)
    peer.channel(1)
    peer.sync(1)


def test_publish_to_an_internal_exchange(peer: RawPeer, name: Names) -> None:
    exchange = name("x")
    peer.ask(1, Exchange.Declare(exchange=exchange, exchange_type="direct", internal=True))
    peer.publish(1, exchange, "k", b"m")
    text = f"ACCESS_REFUSED - cannot publish to internal exchange '{exchange}' in vhost '/'"
    peer.expect_close(403, text, 60, 40, channel=1)


@pytest.mark.parametrize("first", [commands.Confirm, Tx], ids=["confirm first", "tx first"])
def test_confirms_and_transactions_do_not_mix(peer: RawPeer, first: Any) -> None:
    peer.ask(1, first.Select())
    if first is Tx:
        peer.send_method(1, commands.Confirm.Select())
        peer.expect_close(406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", 85, 10, channel=1)
    else:
        peer.send_method(1, Tx.Select())
        peer.expect_close(406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", 90, 10, channel=1)


def test_missing_exchange_inside_a_transaction_is_seen_at_the_publish(peer: RawPeer, name: Names) -> None:
    missing = name("missing")
    peer.ask(1, Tx.Select())
    peer.publish(1, missing, "k", b"m")
    peer.expect_close(404, NO_EXCHANGE.format(missing=missing), 60, 40, channel=1)


def test_long_text_of_a_channel_close_is_cut_to_255_bytes(peer: RawPeer, name: Names) -> None:
    queue = (name("missing") + "x" * 255)[:250]
    peer.send(queue_declare(1, queue, passive=True))
    text = f"NOT_FOUND - no queue '{queue}' in vhost '/'"
    peer.expect_close(404, text[:252] + "...", 50, 10, channel=1)
