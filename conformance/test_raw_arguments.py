"""Arguments of methods, as bytes: what does not decode, what is read over, tickets, tables of every type."""

from __future__ import annotations

import re
import struct
from typing import Any

import pytest
from pamqp import base, commands

from conformance.rawpeer import Raw, RawPeer, decode, header, longstr, raw_method, short, shortstr, table
from conformance.support import Names, differs

NOT_UTF8 = shortstr(b"\xff\xfe")


def declare(queue: str | bytes, bits: int = 0, arguments: bytes = table(), ticket: int = 0) -> bytes:
    """queue.declare with any bytes for its arguments."""
    return raw_method(1, 50, 10, short(ticket) + shortstr(queue) + bytes([bits]) + arguments)


# --- not decodable ---------------------------------------------------------------------------------------------------

UNDECODABLE = {
    "queue.declare without arguments": (1, 50, 10, b"", "<<>>"),
    "queue.declare, name cut off": (1, 50, 10, b"\0\0\x05ab", "<<0,0,5,97,98>>"),
    "queue.declare, no table": (1, 50, 10, b"\0\0\x01q\0", "<<0,0,1,113,0>>"),
    "queue.declare, table shorter than it says": (1, 50, 10, b"\0\0\x01q\0\0\0\0\x09", "<<0,0,1,113,0,0,0,0,9>>"),
    "queue.declare, one byte more": (1, 50, 10, b"\0\0\x01q\0\0\0\0\0z", "<<0,0,1,113,0,0,0,0,0,122>>"),
    "exchange.declare cut off": (1, 40, 10, b"\0\0\x01x\x06dir", "<<0,0,1,120,6,100,105,114>>"),
    "basic.publish cut off": (1, 60, 40, b"\0\0\0", "<<0,0,0>>"),
    "basic.qos cut off": (1, 60, 10, bytes(5), "<<0,0,0,0,0>>"),
    "basic.qos, one byte more": (1, 60, 10, bytes(8), "<<0,0,0,0,0,0,0,0>>"),
    "basic.ack cut off": (1, 60, 80, bytes(3), "<<0,0,0>>"),
    "basic.consume without arguments": (1, 60, 20, b"", "<<>>"),
    "channel.open without arguments": (2, 20, 10, b"", "<<>>"),
    "channel.close without arguments": (1, 20, 40, b"", "<<>>"),
    "channel.close-ok with arguments": (1, 20, 41, b"a", "<<97>>"),
    "channel.flow without arguments": (1, 20, 20, b"", "<<>>"),
    "channel.flow with two bytes": (1, 20, 20, b"\1\1", "<<1,1>>"),
    "tx.select with arguments": (1, 90, 10, b"hi", "<<104,105>>"),
    "confirm.select without arguments": (1, 85, 10, b"", "<<>>"),
    "on an unopened channel": (9, 50, 10, b"", "<<>>"),
    "of a method for clients": (1, 50, 11, b"", "<<>>"),
}


@pytest.mark.parametrize(
    ("channel", "class_id", "method_id", "data", "shown"), UNDECODABLE.values(), ids=UNDECODABLE.keys()
)
def test_undecodable(peer: RawPeer, channel: int, class_id: int, method_id: int, data: bytes, shown: str) -> None:
    peer.send(raw_method(channel, class_id, method_id, data))
    peer.expect_close(501, f"FRAME_ERROR - cannot decode {shown}", class_id, method_id)
    peer.expect_eof()


def test_long_text_of_a_close_is_cut_to_255_bytes(peer: RawPeer) -> None:
    peer.send(raw_method(1, 20, 20, bytes(range(100, 220))))
    text = "FRAME_ERROR - cannot decode <<" + ",".join(str(n) for n in range(100, 220))
    peer.expect_close(501, text[:252] + "...", 20, 20)


@pytest.mark.parametrize("method_id", [50, 70], ids=["close", "update-secret"])
@pytest.mark.parametrize("data", [b"", b"\0\0"], ids=["no arguments", "cut off"])
def test_undecodable_on_channel_0(peer: RawPeer, method_id: int, data: bytes) -> None:
    peer.send(raw_method(0, 10, method_id, data))
    peer.expect_close(541, "INTERNAL_ERROR")


def test_close_with_more_after_it(peer: RawPeer) -> None:
    peer.send(raw_method(0, 10, 50, b"\0\xc8\0\0\0\0\0z"))
    peer.expect_close(541, "INTERNAL_ERROR")


# --- strings ---------------------------------------------------------------------------------------------------------

NO_TABLE = table()
STRINGS = {
    "queue.declare": (50, 10, b"\0\0" + NOT_UTF8 + b"\0" + NO_TABLE),
    "queue.bind, queue": (50, 20, b"\0\0" + NOT_UTF8 + shortstr("amq.direct") + b"\0\0" + NO_TABLE),
    "queue.bind, exchange": (50, 20, b"\0\0" + shortstr("q") + NOT_UTF8 + b"\0\0" + NO_TABLE),
    "queue.bind, routing key": (50, 20, b"\0\0" + shortstr("q") + shortstr("amq.direct") + NOT_UTF8 + b"\0" + NO_TABLE),
    "queue.purge": (50, 30, b"\0\0" + NOT_UTF8 + b"\0"),
    "queue.delete": (50, 40, b"\0\0" + NOT_UTF8 + b"\0"),
    "exchange.declare, name": (40, 10, b"\0\0" + NOT_UTF8 + shortstr("direct") + b"\0" + NO_TABLE),
    "exchange.declare, type": (40, 10, b"\0\0" + shortstr("x") + NOT_UTF8 + b"\0" + NO_TABLE),
    "exchange.delete": (40, 20, b"\0\0" + NOT_UTF8 + b"\0"),
    "basic.consume, tag": (60, 20, b"\0\0" + shortstr("q") + NOT_UTF8 + b"\0" + NO_TABLE),
    "basic.cancel": (60, 30, NOT_UTF8 + b"\0"),
    "basic.get": (60, 70, b"\0\0" + NOT_UTF8 + b"\0"),
    "channel.close": (20, 40, b"\0\0" + NOT_UTF8 + b"\0\0\0\0"),
}


@pytest.mark.parametrize(("class_id", "method_id", "data"), STRINGS.values(), ids=STRINGS.keys())
def test_short_string_must_be_utf8(peer: RawPeer, class_id: int, method_id: int, data: bytes) -> None:
    peer.send(raw_method(1, class_id, method_id, data))
    peer.expect_close(501, "FRAME_ERROR - Malformed UTF-8 in shortstr")


def test_short_string_on_channel_0_must_be_utf8(peer: RawPeer) -> None:
    peer.send(raw_method(0, 10, 50, b"\0\xc8" + NOT_UTF8 + b"\0\0\0\0"))
    peer.expect_close(501, "FRAME_ERROR - Malformed UTF-8 in shortstr", 10, 50)


def test_routing_key_of_a_publish_is_any_bytes(peer: RawPeer) -> None:
    peer.send(raw_method(1, 60, 40, b"\0\0\0" + NOT_UTF8 + b"\x01"), header(1, 0))
    assert peer.read().payload == bytes.fromhex("003c0032 0138") + shortstr("NO_ROUTE") + b"\0" + NOT_UTF8
    peer.expect_content(1)


def test_exchange_of_a_publish_is_any_bytes(peer: RawPeer) -> None:
    peer.send(raw_method(1, 60, 40, b"\0\0" + NOT_UTF8 + b"\0\0"), header(1, 0))
    text = b"NOT_FOUND - no exchange '\xff\xfe' in vhost '/'"
    assert peer.read().payload == bytes.fromhex("00140028 0194") + shortstr(text) + bytes.fromhex("003c0028")


@pytest.mark.parametrize("queue", ["ünïcödé", "日本語", "a b\tc", "\x01\x7f", "x" * 200], ids=repr)
def test_names_may_hold_any_utf8(peer: RawPeer, name: Names, queue: str) -> None:
    queue = name()[:12] + queue
    name.adopt(queue)
    assert peer.declare(1, queue) == queue


def test_name_of_255_bytes(peer: RawPeer, name: Names) -> None:
    queue = (name() + "x" * 255)[:255]
    name.adopt(queue)
    peer.send(declare(queue))
    assert peer.expect(50, 11, 1).queue == queue


# --- read over -------------------------------------------------------------------------------------------------------


def test_bits_beyond_the_last_are_ignored(peer: RawPeer, name: Names) -> None:
    queue = name()
    peer.send(declare(queue, bits=0xE0))
    assert peer.expect(50, 11, 1).queue == queue
    peer.send(declare(queue))
    assert peer.expect(50, 11, 1).queue == queue


@pytest.mark.parametrize(
    ("class_id", "method_id", "data", "reply"),
    [
        (20, 20, b"\xff", (20, 21)),
        (60, 10, bytes(6) + b"\xfe", (60, 11)),
        (60, 110, b"\xff", (60, 111)),
        (85, 10, b"\xfe", (85, 11)),
        (60, 30, shortstr("t") + b"\xfe", (60, 31)),
    ],
    ids=["channel.flow", "basic.qos", "basic.recover", "confirm.select", "basic.cancel"],
)
def test_bits_beyond_in(peer: RawPeer, class_id: int, method_id: int, data: bytes, reply: tuple[int, int]) -> None:
    peer.send(raw_method(1, class_id, method_id, data))
    peer.expect(*reply, 1)


def test_bits_beyond_in_a_publish(peer: RawPeer) -> None:
    peer.send(raw_method(1, 60, 40, b"\0\0\0" + shortstr("x") + b"\xfc"), header(1, 0))
    peer.sync(1)


@pytest.mark.parametrize("reserved", ["", "reserved", "x" * 255], ids=["empty", "word", "long"])
def test_reserved_string_of_channel_open(peer: RawPeer, reserved: str) -> None:
    peer.send(raw_method(2, 20, 10, shortstr(reserved)))
    peer.expect(20, 11, 2)


def with_ticket(name: str, ticket: int) -> dict[str, tuple[bytes, tuple[int, int]]]:
    head, tail = short(ticket) + shortstr(name), shortstr("amq.direct") + shortstr("k")
    return {
        "queue.declare": (raw_method(1, 50, 10, head + b"\0" + NO_TABLE), (50, 11)),
        "queue.bind": (raw_method(1, 50, 20, head + tail + b"\0" + NO_TABLE), (50, 21)),
        "queue.unbind": (raw_method(1, 50, 50, head + tail + NO_TABLE), (50, 51)),
        "queue.purge": (raw_method(1, 50, 30, head + b"\0"), (50, 31)),
        "exchange.declare": (raw_method(1, 40, 10, head + shortstr("fanout") + b"\0" + NO_TABLE), (40, 11)),
        "exchange.bind": (raw_method(1, 40, 30, head + tail + b"\0" + NO_TABLE), (40, 31)),
        "exchange.unbind": (raw_method(1, 40, 40, head + tail + b"\0" + NO_TABLE), (40, 51)),
        "exchange.delete": (raw_method(1, 40, 20, head + b"\0"), (40, 21)),
        "basic.get": (raw_method(1, 60, 70, head + b"\0"), (60, 72)),
        "basic.consume": (raw_method(1, 60, 20, head + shortstr("t") + b"\0" + NO_TABLE), (60, 21)),
        "basic.cancel": (raw_method(1, 60, 30, shortstr("t") + b"\0"), (60, 31)),
        "queue.delete": (raw_method(1, 50, 40, head + b"\0"), (50, 41)),
    }


@pytest.mark.parametrize("ticket", [1, 0x8000, 0xFFFF])
def test_ticket_is_ignored_by_every_method_that_has_one(peer: RawPeer, name: Names, ticket: int) -> None:
    for data, reply in with_ticket(name(), ticket).values():
        peer.send(data)
        peer.expect(*reply, 1)
    peer.send(raw_method(1, 60, 40, short(ticket) + b"\0" + shortstr("x") + b"\0"), header(1, 0))
    peer.sync(1)


def test_access_request_gets_a_ticket(peer: RawPeer) -> None:
    """A class that AMQP 0-9-1 dropped, but old clients begin with it."""
    peer.send(raw_method(1, 30, 10, shortstr("/data") + b"\x1f"))
    assert peer.read().payload == bytes.fromhex("001e000b 0001")


# --- tables in arguments ---------------------------------------------------------------------------------------------

UNREADABLE_TABLES = {
    "unknown type": table(("a", b"Z1")),
    "unknown type in an array": table(("a", b"A" + longstr(b"Z"))),
    "unknown type in a table": table(("a", b"F" + table(("b", b"?")))),
    "value cut off": longstr(b"\x01aI\0\0"),
    "name alone": longstr(b"\x05abcde"),
    "name cut off": longstr(b"\x05a"),
    "array cut off": table(("a", b"A" + longstr(b"I\0"))),
    "inner table too long": table(("a", b"F\0\0\0\x09")),
}


@pytest.mark.parametrize("arguments", UNREADABLE_TABLES.values(), ids=UNREADABLE_TABLES.keys())
def test_unreadable_table(peer: RawPeer, name: Names, arguments: bytes) -> None:
    """RabbitMQ's reader crashes: the socket closes at once. A close with a code is as good."""
    peer.send(declare(name(), arguments=arguments))
    peer.expect_refusal(501, 502, 541)


VALUES = {
    "t": b"\x01",
    "t, neither 0 nor 1": b"\x02",
    "b": b"\xff",
    "B": b"\xff",
    "s": b"\xff\xff",
    "u": b"\xff\xff",
    "I": b"\xff" * 4,
    "i": b"\xff" * 4,
    "l": b"\xff" * 8,
    "L": b"\xff" * 8,
    "f": struct.pack(">f", 1.5),
    "d": struct.pack(">d", -1.5),
    "D": b"\x02\0\0\x01\0",
    "S": longstr("text"),
    "S, not UTF-8": longstr(b"\xff"),
    "x": longstr(b"\0\xff"),
    "A": longstr(b"t\1I\0\0\0\1V"),
    "F": table(("in", b"V")),
    "T": b"\xff" * 8,
    "V": b"",
}


@pytest.mark.parametrize(("label", "value"), VALUES.items(), ids=VALUES.keys())
def test_any_type_in_an_argument_that_means_nothing(peer: RawPeer, name: Names, label: str, value: bytes) -> None:
    queue = name()
    peer.send(declare(queue, arguments=table(("x-nothing", label[:1].encode() + value), ("", b"V"))))
    assert peer.expect(50, 11, 1).queue == queue


INTEGERS = {
    "b": (b"\x64", "byte"),
    "B": (b"\x64", "unsignedbyte"),
    "s": (b"\0\x64", "short"),
    "u": (b"\0\x64", "unsignedshort"),
    "I": (b"\0\0\0\x64", "signedint"),
    "i": (b"\0\0\0\x64", "unsignedint"),
    "l": (b"\0" * 7 + b"\x64", "long"),
    "L": (b"\0" * 7 + b"\x64", "long"),
}


@pytest.mark.parametrize("tag", INTEGERS)
def test_integers_of_any_width_are_the_same_argument(peer: RawPeer, name: Names, tag: str) -> None:
    queue, value = name(), tag.encode() + INTEGERS[tag][0]
    peer.send(declare(queue, arguments=table(("x-max-length", b"I\0\0\0\x64"))))
    peer.expect(50, 11, 1)
    peer.send(declare(queue, arguments=table(("x-max-length", value))))
    peer.expect(50, 11, 1)


@pytest.mark.parametrize("tag", INTEGERS)
def test_type_of_an_argument_is_named(peer: RawPeer, name: Names, tag: str) -> None:
    queue, (value, word) = peer.declare(1, name()), INTEGERS[tag]
    peer.send(declare(queue, arguments=table(("x-max-length", tag.encode() + value))))
    peer.expect_close(
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '{queue}' in vhost '/': "
        f"received the value '100' of type '{word}' but current is none",
        *(50, 10),
        channel=1,
    )


def test_queue_that_a_refused_method_declares_is_not_there(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = name()
    peer.send(raw_method(1, 50, 10, b"\0\0" + shortstr(queue) + b"\0" + table() + b"z"))
    closed = decode(peer.read())
    assert isinstance(closed, base.Frame) and closed.name == "Connection.Close"
    other = raw()
    other.channel(1)
    other.send_method(1, commands.Queue.Declare(queue=queue, passive=True))
    other.expect_close(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", 50, 10, channel=1)


@differs(
    rabbitmq=(503, "COMMAND_INVALID - unknown exchange type 'zzz'", 0),
    rabbitish=(406, re.compile("PRECONDITION_FAILED - (unknown|invalid) exchange type 'zzz'"), 1),
    reason="newer RabbitMQ closes the channel only",
)
def test_unknown_exchange_type(peer: RawPeer, name: Names, expected: tuple[int, Any, int]) -> None:
    peer.send(raw_method(1, 40, 10, b"\0\0" + shortstr(name()) + shortstr("zzz") + b"\0" + NO_TABLE))
    code, text, channel = expected
    peer.expect_close(code, text, 40, 10, channel=channel)
