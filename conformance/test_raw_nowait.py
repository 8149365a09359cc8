"""nowait: no reply, the same effect, and errors all the same."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import base, commands

from conformance.rawpeer import Raw, RawPeer
from conformance.support import Names

Basic, Channel, Exchange, Queue = commands.Basic, commands.Channel, commands.Exchange, commands.Queue


def quietly(peer: RawPeer, command: base.Frame, channel: int = 1) -> None:
    """Send it; the next thing from the broker is the answer to a later question."""
    peer.send_method(channel, command)
    peer.sync(channel)


def exists(peer: RawPeer, queue: str) -> bool:
    """Ask on a channel of its own."""
    peer.channel(99)
    peer.send_method(99, Queue.Declare(queue=queue, passive=True))
    got = peer.read()
    if got.payload[:4] == bytes.fromhex("0032000b"):
        peer.ask(99, Channel.Close(200, "", 0, 0))
        return True
    peer.send_method(99, Channel.CloseOk())
    return False


# --- queues ----------------------------------------------------------------------------------------------------------


def test_queue_declare(peer: RawPeer, name: Names) -> None:
    queue = name()
    quietly(peer, Queue.Declare(queue=queue, nowait=True))
    assert exists(peer, queue)


def test_queue_declare_again(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    quietly(peer, Queue.Declare(queue=queue, nowait=True))


def test_queue_declare_passive(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    quietly(peer, Queue.Declare(queue=queue, passive=True, nowait=True))


def test_queue_declare_with_a_name_from_the_broker(peer: RawPeer, name: Names) -> None:
    quietly(peer, Queue.Declare(queue="", exclusive=True, nowait=True))
    peer.ask(1, Queue.Bind(queue="", exchange="amq.fanout"))
    assert peer.ask(1, Queue.Delete(queue="")).message_count == 0


def test_queue_bind(peer: RawPeer, name: Names) -> None:
    queue, key = peer.declare(1, name()), name("key")
    quietly(peer, Queue.Bind(queue=queue, exchange="amq.direct", routing_key=key, nowait=True))
    peer.publish(1, "amq.direct", key, b"m")
    got = peer.get(1, queue)
    assert got is not None and got.body == b"m"


def test_queue_purge(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"m")
    quietly(peer, Queue.Purge(queue=queue, nowait=True))
    assert peer.get(1, queue) is None


def test_queue_delete(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    quietly(peer, Queue.Delete(queue=queue, nowait=True))
    assert not exists(peer, queue)


def test_queue_delete_of_a_missing_one(peer: RawPeer, name: Names) -> None:
    quietly(peer, Queue.Delete(queue=name(), nowait=True))


# --- exchanges -------------------------------------------------------------------------------------------------------


def test_exchange_declare_and_delete(peer: RawPeer, name: Names) -> None:
    exchange, queue = name("x"), peer.declare(1, name())
    quietly(peer, Exchange.Declare(exchange=exchange, exchange_type="fanout", nowait=True))
    quietly(peer, Exchange.Declare(exchange=exchange, exchange_type="fanout", passive=True, nowait=True))
    peer.ask(1, Queue.Bind(queue=queue, exchange=exchange))
    quietly(peer, Exchange.Delete(exchange=exchange, nowait=True))
    peer.send_method(1, Exchange.Declare(exchange=exchange, passive=True))
    peer.expect_close(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'", 40, 10, channel=1)


def test_exchange_delete_of_a_missing_one(peer: RawPeer, name: Names) -> None:
    quietly(peer, Exchange.Delete(exchange=name("x"), nowait=True))


def test_exchange_bind_and_unbind(peer: RawPeer, name: Names) -> None:
    exchange, queue, key = name("x"), peer.declare(1, name()), name("key")
    peer.ask(1, Exchange.Declare(exchange=exchange, exchange_type="fanout"))
    peer.ask(1, Queue.Bind(queue=queue, exchange=exchange))
    names: dict[str, Any] = {"destination": exchange, "source": "amq.direct", "routing_key": key}
    quietly(peer, Exchange.Bind(**names, nowait=True))
    peer.publish(1, "amq.direct", key, b"m")
    got = peer.get(1, queue)
    assert got is not None and got.body == b"m"
    quietly(peer, Exchange.Unbind(**names, nowait=True))
    peer.publish(1, "amq.direct", key, b"m")
    assert peer.get(1, queue) is None


# --- consumers -------------------------------------------------------------------------------------------------------


def test_consume_and_cancel(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    quietly(peer, Basic.Consume(queue=queue, consumer_tag="t", no_ack=True, nowait=True))
    peer.publish(1, "", queue, b"m")
    assert peer.expect(60, 60, 1).consumer_tag == "t"
    peer.expect_content(1)
    quietly(peer, Basic.Cancel(consumer_tag="t", nowait=True))
    peer.publish(1, "", queue, b"m")
    peer.sync(1)
    assert peer.get(1, queue) is not None


def test_consume_with_a_tag_from_the_broker(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"m")
    peer.send_method(1, Basic.Consume(queue=queue, no_ack=True, nowait=True))
    tag = peer.expect(60, 60, 1).consumer_tag
    peer.expect_content(1)
    assert tag.startswith("amq.ctag-") and len(tag) == len("amq.ctag-") + 22


def test_cancel_of_an_unknown_tag(peer: RawPeer) -> None:
    quietly(peer, Basic.Cancel(consumer_tag="nobody", nowait=True))


def test_confirm_select(peer: RawPeer) -> None:
    quietly(peer, commands.Confirm.Select(nowait=True))
    peer.publish(1, "", "nosuch", b"m")
    assert peer.expect(60, 80, 1).delivery_tag == 1


def test_confirm_select_again(peer: RawPeer) -> None:
    peer.ask(1, commands.Confirm.Select())
    peer.publish(1, "", "nosuch", b"m")
    assert peer.expect(60, 80, 1).delivery_tag == 1
    quietly(peer, commands.Confirm.Select(nowait=True))
    peer.publish(1, "", "nosuch", b"m")
    assert peer.expect(60, 80, 1).delivery_tag == 2


def test_many_at_once(peer: RawPeer, name: Names) -> None:
    queues = [name() for _ in range(20)]
    for queue in queues:
        peer.send_method(1, Queue.Declare(queue=queue, nowait=True))
        peer.send_method(1, Queue.Bind(queue=queue, exchange="amq.fanout", nowait=True))
        peer.send_method(1, Basic.Consume(queue=queue, consumer_tag=queue, no_ack=True, nowait=True))
    for queue in queues:
        peer.publish(1, "", queue, b"m")
    tags = []
    for _ in queues:
        tags.append(peer.expect(60, 60, 1).consumer_tag)
        peer.expect_content(1)
    assert sorted(tags) == sorted(queues)
    for queue in queues:
        peer.send_method(1, Basic.Cancel(consumer_tag=queue, nowait=True))
        peer.send_method(1, Queue.Delete(queue=queue, nowait=True))
    peer.sync(1)


# --- errors come all the same ----------------------------------------------------------------------------------------

NO_QUEUE = "NOT_FOUND - no queue '{missing}' in vhost '/'"
NO_EXCHANGE = "NOT_FOUND - no exchange '{missing}' in vhost '/'"
DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"

ERRORS: list[tuple[Any, dict[str, Any], int, str]] = [
    (Queue.Declare, {"queue": "{missing}", "passive": True}, 404, NO_QUEUE),
    (
        Queue.Declare,
        {"queue": "{queue}", "durable": True},
        406,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/': "
        "received 'true' but current is 'false'",
    ),
    (
        Queue.Declare,
        {"queue": "amq.foo"},
        403,
        "ACCESS_REFUSED - queue name 'amq.foo' contains reserved prefix 'amq.*'",
    ),
    (Queue.Bind, {"queue": "{missing}", "exchange": "amq.direct"}, 404, NO_QUEUE),
    (Queue.Bind, {"queue": "{queue}", "exchange": "{missing}"}, 404, NO_EXCHANGE),
    (Queue.Bind, {"queue": "{queue}", "exchange": ""}, 403, DEFAULT),
    (Queue.Purge, {"queue": "{missing}"}, 404, NO_QUEUE),
    (
        Queue.Delete,
        {"queue": "{queue}", "if_empty": True},
        406,
        "PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty",
    ),
    (Exchange.Declare, {"exchange": "{missing}", "passive": True}, 404, NO_EXCHANGE),
    (
        Exchange.Declare,
        {"exchange": "amq.direct", "exchange_type": "fanout", "durable": True},
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': "
        "received 'fanout' but current is 'direct'",
    ),
    (
        Exchange.Delete,
        {"exchange": "amq.direct"},
        403,
        "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed",
    ),
    (Exchange.Bind, {"destination": "{missing}", "source": "amq.direct"}, 404, NO_EXCHANGE),
    (Exchange.Bind, {"destination": "amq.fanout", "source": "{missing}"}, 404, NO_EXCHANGE),
    (Basic.Consume, {"queue": "{missing}"}, 404, NO_QUEUE),
    (
        Basic.Consume,
        {"queue": "{queue}", "exclusive": True},
        403,
        "ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use",
    ),
]


@pytest.mark.parametrize(
    ("kind", "arguments", "code", "text"),
    ERRORS,
    ids=[f"{e[0].name} {' '.join(map(str, e[1]))} {e[2]}" for e in ERRORS],
)
def test_error(
    peer: RawPeer, raw: Raw, name: Names, kind: Any, arguments: dict[str, Any], code: int, text: str
) -> None:
    other = raw()
    names = {"queue": other.declare(other.channel(1), name()), "missing": name("missing")}
    other.publish(1, "", names["queue"], b"m")
    other.sync(1)
    if "exclusive" in arguments:
        other.consume(1, names["queue"], "t")
    filled = {key: value.format(**names) if isinstance(value, str) else value for key, value in arguments.items()}
    command = kind(**filled, nowait=True)
    peer.send_method(1, command)
    peer.expect_close(code, text.format(**names), command.index >> 16, command.index & 0xFFFF, channel=1)


def test_duplicate_consumer_tag(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.consume(1, queue, "t")
    peer.send_method(1, Basic.Consume(queue=queue, consumer_tag="t", nowait=True))
    peer.expect_close(530, "NOT_ALLOWED - attempt to reuse consumer tag 't'", 60, 20)


def test_confirm_select_on_a_transactional_channel(peer: RawPeer) -> None:
    peer.ask(1, commands.Tx.Select())
    peer.send_method(1, commands.Confirm.Select(nowait=True))
    peer.expect_close(406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", 85, 10, channel=1)
