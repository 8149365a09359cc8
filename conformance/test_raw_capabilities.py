"""What a client declares in connection.start-ok and what the broker does differently for it."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands

from conformance.rawpeer import Raw, RawPeer, shortstr
from conformance.support import Names

Basic, Queue = commands.Basic, commands.Queue

WANTS: dict[str, Any] = {"capabilities": {"consumer_cancel_notify": True}}
DOES_NOT: dict[str, dict[str, Any]] = {
    "no properties": {},
    "no capabilities": {"product": "old"},
    "other capabilities": {"capabilities": {"basic.nack": True}},
    "false": {"capabilities": {"consumer_cancel_notify": False}},
    "a number": {"capabilities": {"consumer_cancel_notify": 1}},
    "outside the capabilities": {"consumer_cancel_notify": True},
}


def consumer(raw: Raw, queue: str, properties: dict[str, Any]) -> RawPeer:
    peer = raw(properties=properties)
    peer.consume(peer.channel(1), queue, "tag")
    return peer


def test_cancel_to_the_byte(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = peer.declare(1, name())
    listener = consumer(raw, queue, WANTS)
    peer.ask(1, Queue.Delete(queue=queue))
    assert listener.read() == (1, 1, bytes.fromhex("003c001e") + shortstr("tag") + b"\x01")
    listener.sync(1)


@pytest.mark.parametrize("properties", DOES_NOT.values(), ids=DOES_NOT.keys())
def test_no_cancel_unless_asked_for(peer: RawPeer, raw: Raw, name: Names, properties: dict[str, Any]) -> None:
    queue = peer.declare(1, name())
    listener, witness = consumer(raw, queue, properties), consumer(raw, queue, WANTS)
    peer.ask(1, Queue.Delete(queue=queue))
    witness.expect(60, 30, 1)
    listener.expect_nothing(30)
    listener.sync(1)


def test_delete_ok_comes_before_the_cancel_on_one_channel(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    for tag in ["one", "two"]:
        peer.consume(1, queue, tag)
    peer.ask(1, Queue.Delete(queue=queue))
    assert {peer.expect(60, 30, 1).consumer_tag for _ in range(2)} == {"one", "two"}
    peer.sync(1)


def test_cancelled_consumer_may_cancel_and_its_tag_is_free(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue, other = peer.declare(1, name()), peer.declare(1, name())
    listener = consumer(raw, queue, WANTS)
    peer.ask(1, Queue.Delete(queue=queue))
    listener.expect(60, 30, 1)
    assert listener.ask(1, Basic.Cancel(consumer_tag="tag")).consumer_tag == "tag"
    assert listener.consume(1, other, "tag") == "tag"


def test_no_cancel_when_the_client_cancels(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name(), auto_delete=True)
    peer.consume(1, queue, "tag")
    peer.ask(1, Basic.Cancel(consumer_tag="tag"))
    peer.expect_nothing(30)
    peer.sync(1)


def test_old_client_gets_nacks_and_confirms_as_well(raw: Raw, name: Names) -> None:
    peer = raw(properties={})
    queue = peer.declare(peer.channel(1), name(), {"x-max-length": 1, "x-overflow": "reject-publish"})
    peer.ask(1, commands.Confirm.Select())
    peer.publish(1, "", queue, b"m")
    assert peer.expect(60, 80, 1).delivery_tag == 1
    peer.publish(1, "", queue, b"m")
    assert peer.expect(60, 120, 1).delivery_tag == 2
