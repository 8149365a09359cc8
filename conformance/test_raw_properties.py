"""Properties and headers: passed through byte for byte, whatever order, types and depth; refused if unreadable."""

from __future__ import annotations

import struct

import pytest
from pamqp import commands

from conformance.rawpeer import (
    NO_PROPERTIES,
    Raw,
    RawPeer,
    frame,
    headers_property,
    longstr,
    method,
    publish_method,
    shortstr,
    table,
)
from conformance.support import Names

FLOW = method(1, commands.Channel.Flow(True))


def header_frame(size: int, properties: bytes) -> bytes:
    return frame(2, 1, struct.pack(">HHQ", 60, 0, size) + properties)


def assert_kept(peer: RawPeer, name: Names, properties: bytes, data: bytes = b"m") -> None:
    """Through a queue and out again, by basic.get and by delivery, nothing changes."""
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, data, properties)
    peer.publish(1, "", queue, data, properties)
    got = peer.get(1, queue)
    assert got is not None and (got.properties, got.body) == (properties, data)
    peer.consume(1, queue, "t", no_ack=True)
    peer.expect(60, 60, 1)
    delivered = peer.expect_content(1)
    assert (delivered.properties, delivered.body) == (properties, data)


# --- properties ------------------------------------------------------------------------------------------------------

PROPERTIES: dict[str, tuple[int, bytes]] = {
    "content_type": (15, shortstr("text/plain")),
    "content_encoding": (14, shortstr("utf-8")),
    "headers": (13, table(("k", b"S" + longstr("v")))),
    "delivery_mode": (12, b"\x02"),
    "priority": (11, b"\x05"),
    "correlation_id": (10, shortstr("c-1")),
    "reply_to": (9, shortstr("answers")),
    "expiration": (8, shortstr("60000")),
    "message_id": (7, shortstr("m-1")),
    "timestamp": (6, b"\0\0\0\0\x65\0\0\0"),
    "type": (5, shortstr("order")),
    "user_id": (4, shortstr("guest")),
    "app_id": (3, shortstr("app")),
    "cluster_id": (2, shortstr("cluster")),
}


def only(*names: str) -> bytes:
    """These properties, in the order of their flags."""
    flags = sum(1 << PROPERTIES[name][0] for name in names)
    return struct.pack(">H", flags) + b"".join(PROPERTIES[name][1] for name in PROPERTIES if name in names)


@pytest.mark.parametrize("which", PROPERTIES)
def test_one_property(peer: RawPeer, name: Names, which: str) -> None:
    assert_kept(peer, name, only(which))


def test_no_properties(peer: RawPeer, name: Names) -> None:
    assert_kept(peer, name, NO_PROPERTIES)


def test_all_properties(peer: RawPeer, name: Names) -> None:
    assert_kept(peer, name, only(*PROPERTIES))


def test_all_properties_of_an_empty_message(peer: RawPeer, name: Names) -> None:
    assert_kept(peer, name, only(*PROPERTIES), b"")


ODD_VALUES = {
    "delivery_mode 1": b"\x10\x00\x01",
    "priority 255": b"\x08\x00\xff",
    "timestamp of 64 bits": b"\x00\x40" + b"\xff" * 8,
    "timestamp 0": b"\x00\x40" + bytes(8),
    "empty strings": b"\xc6\xac" + bytes(8),
    "strings of 255 bytes": b"\xc0\x00" + shortstr("x" * 255) * 2,
    "strings not UTF-8": b"\xc0\x00" + shortstr(b"\xff\xfe") * 2,
    "expiration with a leading zero": b"\x01\x00" + shortstr("060000"),
    "expiration of more than 32 bits": b"\x01\x00" + shortstr("4294967296"),
    "empty headers": headers_property(table()),
    "a flag that means nothing": b"\x00\x02",
}


@pytest.mark.parametrize("properties", ODD_VALUES.values(), ids=ODD_VALUES.keys())
def test_odd_value_is_kept(peer: RawPeer, name: Names, properties: bytes) -> None:
    assert_kept(peer, name, properties)


UNREADABLE = {
    "no flags": b"",
    "half of the flags": b"\x80",
    "flags without values": b"\xff\xfc",
    "flags that go on": b"\x00\x01\x00\x00",
    "more after the last": b"\x00\x00zzz",
    "string cut off": b"\x80\x00\x05ab",
    "delivery_mode missing": b"\x10\x00",
    "timestamp cut off": b"\x00\x40" + bytes(7),
    "headers cut off": b"\x20\x00\x00\x00\x00\x09a",
    "header of unknown type": headers_property(table(("a", b"Z1"))),
    "header of unknown type in an array": headers_property(table(("a", b"A" + longstr(b"Z")))),
    "header of unknown type in a table": headers_property(table(("a", b"F" + table(("b", b"?"))))),
    "header cut off": headers_property(longstr(b"\x01aI\0\0")),
    "header name alone": headers_property(longstr(b"\x05abcde")),
    "header name cut off": headers_property(longstr(b"\x05a")),
    "not a number, double": headers_property(table(("a", b"d" + struct.pack(">d", float("nan"))))),
    "infinity, float": headers_property(table(("a", b"f" + struct.pack(">f", float("inf"))))),
}


@pytest.mark.parametrize("properties", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_properties(peer: RawPeer, properties: bytes) -> None:
    peer.send(publish_method(1, "", "nosuch"), header_frame(0, properties), FLOW)
    peer.expect_close(541, "INTERNAL_ERROR")
    peer.expect_eof()


def test_unreadable_properties_are_seen_when_the_content_is_complete(peer: RawPeer) -> None:
    peer.send(publish_method(1, "", "nosuch"), header_frame(1, b"\xff\xfc"))
    peer.expect_nothing(50)
    peer.send(frame(3, 1, b"x"))
    peer.expect_close(541, "INTERNAL_ERROR")


REFUSED = {
    "delivery_mode 0": (b"\x10\x00\x00", "invalid message: {delivery_mode_unknown,0}"),
    "delivery_mode 3": (b"\x10\x00\x03", "invalid message: {delivery_mode_unknown,3}"),
    "expiration in words": (b"\x01\x00" + shortstr("abc"), "invalid expiration 'abc': no_integer"),
    "expiration empty": (b"\x01\x00" + shortstr(""), "invalid expiration '': no_integer"),
    "expiration negative": (b"\x01\x00" + shortstr("-1"), "invalid expiration '-1': {value_negative,-1}"),
    "expiration with a unit": (b"\x01\x00" + shortstr("10s"), "invalid expiration '10s': {leftover_string,\"s\"}"),
    "expiration with a fraction": (b"\x01\x00" + shortstr("1.5"), "invalid expiration '1.5': {leftover_string,\".5\"}"),
    "expiration with a space": (b"\x01\x00" + shortstr(" 1"), "invalid expiration ' 1': no_integer"),
    "user_id of somebody else": (
        b"\x00\x10" + shortstr("joe"),
        "user_id property set to 'joe' but authenticated user was 'guest'",
    ),
    "user_id empty": (b"\x00\x10\x00", "user_id property set to '' but authenticated user was 'guest'"),
    **{
        f"{key} is {word}": (
            headers_property(table((key, value))),
            f'invalid message: {{unacceptable_type_in_header,"{key}",{word}}}',
        )
        for key in ["CC", "BCC"]
        for word, value in [
            ("longstr", b"S" + longstr("k")),
            ("signedint", b"I\0\0\0\x01"),
            ("table", b"F" + table()),
            ("void", b"V"),
        ]
    },
}


@pytest.mark.parametrize(("properties", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_property(peer: RawPeer, properties: bytes, text: str) -> None:
    peer.publish(1, "", "nosuch", b"m", properties)
    peer.expect_close(406, f"PRECONDITION_FAILED - {text}", 60, 40, channel=1)
    peer.channel(1)


@pytest.mark.parametrize("key", ["CC", "BCC"])
def test_copies_that_are_not_strings_are_passed_over(peer: RawPeer, name: Names, key: str) -> None:
    queue = peer.declare(1, name())
    items = b"I\0\0\0\x01" + b"S" + longstr(queue) + b"V"
    peer.publish(1, "", "nosuch", b"m", headers_property(table((key, b"A" + longstr(items)))))
    got = peer.get(1, queue)
    assert got is not None and got.body == b"m"


# --- headers ---------------------------------------------------------------------------------------------------------

VALUES: dict[str, bytes] = {
    "t, true": b"t\x01",
    "t, false": b"t\x00",
    "t, neither": b"t\x07",
    "b": b"b\x80",
    "B": b"B\xff",
    "s": b"s\x80\x00",
    "u": b"u\xff\xff",
    "I": b"I\x80\x00\x00\x00",
    "i": b"i\xff\xff\xff\xff",
    "l": b"l\x80" + bytes(7),
    "L": b"L\x80" + bytes(7),
    "f": b"f" + struct.pack(">f", 1.1),
    "f, minus zero": b"f" + struct.pack(">f", -0.0),
    "d": b"d" + struct.pack(">d", 1.1),
    "d, smallest": b"d" + struct.pack(">d", 5e-324),
    "D": b"D\x02\x00\x00\x01\x3a",
    "D, odd": b"D\xff\xff\xff\xff\xff",
    "S": b"S" + longstr("text"),
    "S, empty": b"S" + longstr(""),
    "S, not UTF-8": b"S" + longstr(b"\xff\x00"),
    "x": b"x" + longstr(bytes(range(256))),
    "x, empty": b"x" + longstr(b""),
    "T": b"T" + struct.pack(">Q", 1_700_000_000),
    "T, 64 bits": b"T" + b"\xff" * 8,
    "V": b"V",
    "F": b"F" + table(("z", b"V"), ("a", b"t\x01")),
    "F, empty": b"F" + table(),
    "A": b"A" + longstr(b"t\x01S" + longstr("x") + b"V"),
    "A, empty": b"A" + longstr(b""),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_header_of_every_type(peer: RawPeer, name: Names, value: bytes) -> None:
    assert_kept(peer, name, headers_property(table(("k", value))))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_every_type_inside_an_array_inside_a_table(peer: RawPeer, name: Names, value: bytes) -> None:
    inner = table(("in", b"A" + longstr(value + value)))
    assert_kept(peer, name, headers_property(table(("k", b"F" + inner))))


def deep(levels: int, kind: bytes) -> bytes:
    value = b"V"
    for _ in range(levels):
        value = kind + (table(("d", value)) if kind == b"F" else longstr(value))
    return value


SHAPES = {
    "all types at once": table(*((f"k{n}", value) for n, value in enumerate(VALUES.values()))),
    "not sorted": table(("z", b"V"), ("a", b"V"), ("m", b"V")),
    "one name twice": table(("k", b"I\0\0\0\x01"), ("k", b"I\0\0\0\x02")),
    "one name twice, other types": table(("k", b"V"), ("k", b"S" + longstr("x")), ("a", b"V"), ("k", b"t\x01")),
    "empty name": table(("", b"V")),
    "name of 255 bytes": table(("n" * 255, b"V")),
    "name not UTF-8": longstr(b"\x02\xff\xfeV"),
    "names beginning with x-": table(("x-death", b"V"), ("x-match", b"S" + longstr("any"))),
    "CC and other things": table(("CC", b"A" + longstr(b"")), ("k", b"V")),
    "100 tables deep": table(("deep", deep(100, b"F"))),
    "100 arrays deep": table(("deep", deep(100, b"A"))),
    "1000 headers": table(*((f"key-{n}", b"l" + struct.pack(">q", n)) for n in range(1000))),
    "a header of 60 kB": table(("big", b"S" + longstr("x" * 60_000))),
    "120 kB": table(*((f"key-{n}", b"S" + longstr("x" * 1000)) for n in range(118))),
}


@pytest.mark.parametrize("encoded", SHAPES.values(), ids=SHAPES.keys())
def test_headers_of_any_shape(peer: RawPeer, name: Names, encoded: bytes) -> None:
    assert_kept(peer, name, headers_property(encoded))


@pytest.mark.parametrize("encoded", SHAPES.values(), ids=SHAPES.keys())
def test_returned_headers_are_kept_too(peer: RawPeer, encoded: bytes) -> None:
    peer.publish(1, "", "nosuch", b"m", headers_property(encoded), mandatory=True)
    peer.expect(60, 50, 1)
    returned = peer.expect_content(1)
    assert (returned.properties, returned.body) == (headers_property(encoded), b"m")


def filled(size: int) -> bytes:
    """Properties that make a header frame's payload exactly this many bytes."""
    bare = 12 + len(headers_property(table(("k", b"S" + longstr("")))))
    return headers_property(table(("k", b"S" + longstr("x" * (size - bare)))))


@pytest.mark.parametrize("size", [131063, 131064])
def test_headers_up_to_frame_max(peer: RawPeer, name: Names, size: int) -> None:
    assert_kept(peer, name, filled(size))


def test_headers_beyond_frame_max(peer: RawPeer) -> None:
    peer.send(publish_method(1, "", "nosuch"), header_frame(0, filled(131073)))
    peer.expect_close(501, "FRAME_ERROR - type 2, all octets = <<>>: {frame_too_large,131073,131064}")


def test_headers_do_not_fit_the_consumers_frame_max(peer: RawPeer, raw: Raw, name: Names) -> None:
    """A header frame cannot be split: RabbitMQ sends it whole, whatever was negotiated."""
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"m", filled(10_000))
    small = raw(frame_max=4096)
    small.channel(1)
    got = small.get(1, queue)
    assert got is not None and got.properties == filled(10_000)


@pytest.mark.parametrize("redelivered", [False, True])
def test_headers_survive_a_requeue(peer: RawPeer, name: Names, redelivered: bool) -> None:
    queue, properties = peer.declare(1, name()), headers_property(SHAPES["all types at once"])
    peer.publish(1, "", queue, b"m", properties)
    if redelivered:
        assert peer.get(1, queue, no_ack=False) is not None
        peer.ask(1, commands.Basic.Recover(True))
    got = peer.get(1, queue)
    assert got is not None and got.properties == properties


def test_headers_survive_every_kind_of_exchange(peer: RawPeer, name: Names) -> None:
    queue, properties = peer.declare(1, name()), headers_property(SHAPES["not sorted"])
    for kind in ["direct", "fanout", "topic", "headers"]:
        exchange = name(kind)
        peer.ask(1, commands.Exchange.Declare(exchange=exchange, exchange_type=kind))
        peer.ask(1, commands.Queue.Bind(queue=queue, exchange=exchange, routing_key="k"))
        peer.publish(1, exchange, "k", b"m", properties)
        got = peer.get(1, queue)
        assert got is not None and got.properties == properties
