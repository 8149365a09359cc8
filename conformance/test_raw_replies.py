"""What the broker sends, to the byte: replies of every method, deliveries, get, confirms, cuts to frame_max."""

from __future__ import annotations

import struct

import pytest
from pamqp import base, commands

from conformance.rawpeer import Raw, RawPeer, longstr, publish_method, shortstr
from conformance.support import Names

Basic, Channel, Exchange, Queue = commands.Basic, commands.Channel, commands.Exchange, commands.Queue


def answer(peer: RawPeer, command: base.Frame) -> bytes:
    """Class, method and arguments of the reply."""
    peer.send_method(1, command)
    got = peer.read()
    assert (got.type, got.channel) == (1, 1)
    return got.payload


# --- replies ---------------------------------------------------------------------------------------------------------


def test_queue_declare_ok(peer: RawPeer, name: Names) -> None:
    queue = name()
    wanted = bytes.fromhex("0032000b") + shortstr(queue)
    assert answer(peer, Queue.Declare(queue=queue)) == wanted + struct.pack(">II", 0, 0)
    peer.publish(1, "", queue, b"m")
    peer.publish(1, "", queue, b"m")
    peer.sync(1)
    assert answer(peer, Queue.Declare(queue=queue)) == wanted + struct.pack(">II", 2, 0)
    assert answer(peer, Queue.Declare(queue=queue, passive=True)) == wanted + struct.pack(">II", 2, 0)


def test_queue_declare_ok_counts_consumers(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.consume(1, queue, "one")
    peer.consume(1, queue, "two")
    assert answer(peer, Queue.Declare(queue=queue)).endswith(struct.pack(">II", 0, 2))


def test_queue_declare_ok_with_a_name_from_the_broker(peer: RawPeer) -> None:
    queue = peer.declare(1, "", exclusive=True)
    assert queue.startswith("amq.gen-") and len(queue) == len("amq.gen-") + 22


def test_queue_bind_and_unbind_ok(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    for _ in range(2):
        assert answer(peer, Queue.Bind(queue=queue, exchange="amq.topic", routing_key="k")) == bytes.fromhex("00320015")
    for _ in range(2):
        command = Queue.Unbind(queue=queue, exchange="amq.topic", routing_key="k")
        assert answer(peer, command) == bytes.fromhex("00320033")


def test_queue_purge_ok(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    for _ in range(3):
        peer.publish(1, "", queue, b"m")
    assert peer.get(1, queue, no_ack=False) is not None
    assert answer(peer, Queue.Purge(queue=queue)) == bytes.fromhex("0032001f 00000002")
    assert answer(peer, Queue.Purge(queue=queue)) == bytes.fromhex("0032001f 00000000")


def test_queue_delete_ok(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    for _ in range(3):
        peer.publish(1, "", queue, b"m")
    assert peer.get(1, queue, no_ack=False) is not None
    assert answer(peer, Queue.Delete(queue=queue)) == bytes.fromhex("00320029 00000002")
    assert answer(peer, Queue.Delete(queue=queue)) == bytes.fromhex("00320029 00000000")


def test_exchange_replies(peer: RawPeer, name: Names) -> None:
    exchange = name("x")
    assert answer(peer, Exchange.Declare(exchange=exchange, exchange_type="topic")) == bytes.fromhex("0028000b")
    assert answer(peer, Exchange.Bind(destination=exchange, source="amq.topic")) == bytes.fromhex("0028001f")
    assert answer(peer, Exchange.Unbind(destination=exchange, source="amq.topic")) == bytes.fromhex("00280033")
    assert answer(peer, Exchange.Unbind(destination=exchange, source="amq.topic")) == bytes.fromhex("00280033")
    assert answer(peer, Exchange.Delete(exchange=exchange)) == bytes.fromhex("00280015")
    assert answer(peer, Exchange.Delete(exchange=exchange)) == bytes.fromhex("00280015")


def test_consume_and_cancel_ok(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    assert answer(peer, Basic.Consume(queue=queue, consumer_tag="tag")) == bytes.fromhex("003c0015") + shortstr("tag")
    assert answer(peer, Basic.Cancel(consumer_tag="tag")) == bytes.fromhex("003c001f") + shortstr("tag")
    assert answer(peer, Basic.Cancel(consumer_tag="tag")) == bytes.fromhex("003c001f") + shortstr("tag")


def test_consume_ok_with_a_tag_from_the_broker(peer: RawPeer, name: Names) -> None:
    tag = peer.consume(1, peer.declare(1, name()))
    assert tag.startswith("amq.ctag-") and len(tag) == len("amq.ctag-") + 22


@pytest.mark.parametrize(
    ("select", "reply"),
    [(commands.Confirm.Select(), "0055000b"), (commands.Tx.Select(), "005a000b")],
    ids=["confirm", "tx"],
)
def test_select_ok_however_often(peer: RawPeer, select: base.Frame, reply: str) -> None:
    for _ in range(3):
        assert answer(peer, select) == bytes.fromhex(reply)


def test_commit_and_rollback_ok(peer: RawPeer) -> None:
    peer.ask(1, commands.Tx.Select())
    assert answer(peer, commands.Tx.Commit()) == bytes.fromhex("005a0015")
    assert answer(peer, commands.Tx.Rollback()) == bytes.fromhex("005a001f")


# --- get and deliver -------------------------------------------------------------------------------------------------


def test_get_empty(peer: RawPeer, name: Names) -> None:
    assert answer(peer, Basic.Get(queue=peer.declare(1, name()))) == bytes.fromhex("003c0048 00")


def test_get_ok(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    for _ in range(3):
        peer.publish(1, "", queue, b"m")
    for tag in [1, 2, 3]:
        wanted = bytes.fromhex("003c0047") + struct.pack(">QB", tag, 0) + shortstr("") + shortstr(queue)
        assert answer(peer, Basic.Get(queue=queue)) == wanted + struct.pack(">I", 3 - tag)
        assert peer.expect_content(1).body == b"m"


def test_get_ok_redelivered(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.ask(1, Queue.Bind(queue=queue, exchange="amq.direct", routing_key=queue))
    peer.publish(1, "amq.direct", queue, b"m")
    assert peer.get(1, queue, no_ack=False) is not None
    peer.send_method(1, Basic.Reject(1, requeue=True))
    wanted = bytes.fromhex("003c0047 0000000000000002 01") + shortstr("amq.direct") + shortstr(queue)
    assert answer(peer, Basic.Get(queue=queue)) == wanted + bytes(4)
    peer.expect_content(1)


def test_deliver(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.ask(1, Queue.Bind(queue=queue, exchange="amq.topic", routing_key=f"{queue}.#"))
    peer.consume(1, queue, "tag", no_ack=True)
    peer.publish(1, "amq.topic", f"{queue}.a.b", b"m")
    got = peer.read()
    wanted = bytes.fromhex("003c003c") + shortstr("tag") + struct.pack(">QB", 1, 0)
    assert got == (1, 1, wanted + shortstr("amq.topic") + shortstr(f"{queue}.a.b"))
    assert peer.read() == (2, 1, bytes.fromhex("003c0000 0000000000000001 0000"))
    assert peer.read() == (3, 1, b"m")


def test_empty_message_is_a_header_alone(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.consume(1, queue, "tag", no_ack=True)
    peer.publish(1, "", queue)
    peer.expect(60, 60, 1)
    assert peer.read() == (2, 1, bytes.fromhex("003c0000 0000000000000000 0000"))
    peer.sync(1)


def test_empty_message_from_get_is_a_header_alone(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue)
    peer.ask(1, Channel.Flow(True))
    peer.send_method(1, Basic.Get(queue=queue, no_ack=True))
    peer.expect(60, 71, 1)
    assert peer.read() == (2, 1, bytes.fromhex("003c0000 0000000000000000 0000"))
    peer.sync(1)


def test_delivery_goes_to_the_consumers_channel(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.consume(peer.channel(300), queue, "tag", no_ack=True)
    peer.publish(1, "", queue, b"m")
    assert [peer.read().channel for _ in range(3)] == [300, 300, 300]


def test_get_and_deliver_count_tags_together(peer: RawPeer, name: Names) -> None:
    one, two = peer.declare(1, name()), peer.declare(1, name())
    peer.consume(1, two, "tag")
    for tag in [1, 3, 5]:
        peer.publish(1, "", one, b"m")
        peer.send_method(1, Basic.Get(queue=one))
        assert peer.expect(60, 71, 1).delivery_tag == tag
        peer.expect_content(1)
        peer.publish(1, "", two, b"m")
        assert peer.expect(60, 60, 1).delivery_tag == tag + 1
        peer.expect_content(1)


@pytest.mark.parametrize("routing_key", [b"\xff\xfe\x00", b"", b"k" * 255], ids=["not UTF-8", "empty", "long"])
def test_routing_key_comes_back_as_it_was(peer: RawPeer, name: Names, routing_key: bytes) -> None:
    queue, exchange = peer.declare(1, name()), name("x")
    peer.ask(1, Exchange.Declare(exchange=exchange, exchange_type="fanout"))
    peer.ask(1, Queue.Bind(queue=queue, exchange=exchange))
    start = publish_method(1, exchange, "KEY")
    arguments = start[7:-1].replace(shortstr("KEY"), shortstr(routing_key))
    peer.send(
        b"\x01\x00\x01" + longstr(arguments) + b"\xce", bytes.fromhex("02 0001 0000000e 003c0000") + bytes(10) + b"\xce"
    )
    payload = answer(peer, Basic.Get(queue=queue, no_ack=True))
    assert payload[13:-4] == shortstr(exchange) + shortstr(routing_key)
    peer.expect_content(1)


# --- confirms --------------------------------------------------------------------------------------------------------


def test_confirms_cover_every_publish(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.ask(1, commands.Confirm.Select())
    for _ in range(100):
        peer.publish(1, "", queue, b"m")
    confirmed: set[int] = set()
    while len(confirmed) < 100:
        ack = peer.expect(60, 80, 1)
        covered = range(1, ack.delivery_tag + 1) if ack.multiple else [ack.delivery_tag]
        confirmed |= set(covered)
    assert confirmed == set(range(1, 101))
    peer.sync(1)


def test_confirm_ends_the_publish_of_an_empty_body(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.ask(1, commands.Confirm.Select())
    peer.publish(1, "", queue)
    assert peer.read() == (1, 1, bytes.fromhex("003c0050 0000000000000001 00"))


def test_nack_of_a_full_queue(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name(), {"x-max-length": 1, "x-overflow": "reject-publish"})
    peer.ask(1, commands.Confirm.Select())
    peer.publish(1, "", queue, b"m")
    peer.expect(60, 80, 1)
    peer.publish(1, "", queue, b"m")
    assert peer.expect(60, 120, 1).delivery_tag == 2


# --- cut to frame_max ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame_max", [4096, 4097, 10_000, 131072])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_body_is_cut_to_the_consumers_frame_max(
    peer: RawPeer, raw: Raw, name: Names, frame_max: int, extra: int
) -> None:
    queue, step = peer.declare(1, name()), frame_max - 8
    whole = bytes(n % 251 for n in range(3 * step + extra))
    peer.publish(1, "", queue, whole)
    peer.publish(1, "", queue, whole)
    peer.sync(1)
    small = raw(frame_max=frame_max)
    got = small.get(small.channel(1), queue)
    small.consume(1, queue, "t", no_ack=True)
    small.expect(60, 60, 1)
    for cut in [got, small.expect_content(1)]:
        assert cut is not None and cut.body == whole
        assert [len(part) for part in cut.parts] == {
            -1: [step, step, step - 1],
            0: [step, step, step],
            1: [step, step, step, 1],
        }[extra]


def test_returned_body_is_cut_to_frame_max(raw: Raw) -> None:
    peer = raw(frame_max=4096)
    peer.channel(1)
    peer.publish(1, "", "nosuch", b"x" * 10_000, mandatory=True)
    peer.expect(60, 50, 1)
    assert [len(part) for part in peer.expect_content(1).parts] == [4088, 4088, 1824]


def test_small_frames_of_the_publisher_do_not_reach_the_consumer(peer: RawPeer, raw: Raw, name: Names) -> None:
    small = raw(frame_max=4096)
    queue = small.declare(small.channel(1), name())
    small.publish(1, "", queue, b"x" * 50_000)
    small.sync(1)
    got = peer.get(1, queue)
    assert got is not None and [len(part) for part in got.parts] == [50_000]


def test_megabytes_through_small_frames(raw: Raw, name: Names) -> None:
    peer = raw(frame_max=4096)
    queue, whole = peer.declare(peer.channel(1), name()), bytes(range(256)) * 4096
    peer.publish(1, "", queue, whole)
    got = peer.get(1, queue)
    assert got is not None and got.body == whole
