"""From the protocol header to connection.open-ok, as far as the broker answers at once.

What it answers with silence and a delayed close (bad logins, raised limits) is in test_raw_slow.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands

from conformance.rawpeer import (
    CAPABILITIES,
    PROTOCOL_HEADER,
    Raw,
    frame,
    longstr,
    method,
    raw_method,
    shortstr,
    table,
)
from conformance.support import Broker, differs

Connection = commands.Connection
TUNE_OK = method(0, Connection.TuneOk(2047, 131072, 0))
OPEN = method(0, Connection.Open("/"))


# --- protocol header -------------------------------------------------------------------------------------------------

WRONG_HEADERS = {
    "0-9-0": b"AMQP\x00\x00\x09\x00",
    "0-9-2": b"AMQP\x00\x00\x09\x02",
    "0-8-0": b"AMQP\x00\x00\x08\x00",
    "0-10": b"AMQP\x00\x00\x0a\x00",
    "1.0": b"AMQP\x00\x01\x00\x00",
    "1.0 TLS": b"AMQP\x02\x01\x00\x00",
    "1.0 SASL": b"AMQP\x03\x01\x00\x00",
    "protocol id 1": b"AMQP\x01\x00\x09\x01",
    "lower case": b"amqp\x00\x00\x09\x01",
    "version in digits": b"AMQP0091",
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS client hello": bytes.fromhex("16030102000100 01fc 0303") + bytes(506),
    "zeros": bytes(8),
    "line ends": b"\r\n\r\n\r\n\r\n",
    "a heartbeat frame": frame(8, 0, b""),
    "longer than a header": b"X" * 5000,
}


@pytest.mark.parametrize("data", WRONG_HEADERS.values(), ids=WRONG_HEADERS.keys())
def test_wrong_header_is_answered_with_the_right_one(raw: Raw, data: bytes) -> None:
    peer = raw(None)
    peer.send(data)
    assert peer.read_bytes(8) == PROTOCOL_HEADER
    peer.expect_eof()


def test_header_of_0_9_is_taken_as_0_9_1(raw: Raw) -> None:
    peer = raw(None)
    peer.send(b"AMQP\x01\x01\x00\x09")
    start = peer.expect(10, 10, 0)
    assert (start.version_major, start.version_minor) == (0, 9)
    peer.start_ok()
    peer.tune_ok()
    peer.channel(1)


@differs(rabbitmq=(8, 0), rabbitish=None, reason="0-8 is another protocol; RabbitMQ 4 refuses it as well")
@pytest.mark.parametrize("data", [b"AMQP\x01\x01\x08\x00", b"AMQP\x01\x01\x09\x01"], ids=["0-8", "0-9-1 the old way"])
def test_header_of_0_8(raw: Raw, data: bytes, expected: tuple[int, int] | None) -> None:
    peer = raw(None)
    peer.send(data)
    if expected is None:
        assert peer.read_bytes(8) == PROTOCOL_HEADER
        peer.expect_eof()
    else:
        start = peer.expect(10, 10, 0)
        assert (start.version_major, start.version_minor) == expected


@pytest.mark.parametrize("data", [b"A", b"AMQP", PROTOCOL_HEADER[:-1]], ids=["1 byte", "4 bytes", "7 bytes"])
def test_part_of_a_header_is_waited_on(raw: Raw, data: bytes) -> None:
    peer = raw(None)
    peer.send(data)
    peer.expect_nothing(50)
    peer.send(PROTOCOL_HEADER[len(data) :])
    peer.expect(10, 10, 0)


def test_header_byte_by_byte(raw: Raw) -> None:
    peer = raw(None)
    peer.send_apart(PROTOCOL_HEADER)
    peer.expect(10, 10, 0)


@pytest.mark.parametrize("data", [b"", b"AMQ"], ids=["nothing", "part of a header"])
def test_end_of_stream_before_the_header(raw: Raw, data: bytes) -> None:
    peer = raw(None)
    peer.send(data)
    peer.shutdown_write()
    peer.expect_eof()


def test_end_of_stream_after_start(raw: Raw) -> None:
    peer = raw("start")
    peer.shutdown_write()
    peer.expect_eof()


# --- connection.start ------------------------------------------------------------------------------------------------


def start_payload(raw: Raw) -> bytes:
    peer = raw(None)
    peer.send(PROTOCOL_HEADER)
    got = peer.read()
    assert (got.type, got.channel) == (1, 0)
    return got.payload


def test_start_speaks_0_9(raw: Raw) -> None:
    assert start_payload(raw)[:6] == b"\x00\x0a\x00\x0a\x00\x09"


def test_start_offers_plain_and_amqplain(raw: Raw) -> None:
    assert set(raw("start").started.mechanisms.split(" ")) == {"PLAIN", "AMQPLAIN"}


def test_start_ends_in_the_locale(raw: Raw) -> None:
    assert start_payload(raw).endswith(longstr("en_US"))


def test_server_properties_are_the_known_ones(raw: Raw, broker: Broker) -> None:
    known = {"capabilities", "cluster_name", "copyright", "information", "platform", "product", "version"}
    assert set(raw("start").started.server_properties) - {"rabbitish_version"} == known


@pytest.mark.parametrize("key", ["cluster_name", "copyright", "information", "platform", "product", "version"])
def test_server_property_is_a_long_string(raw: Raw, key: str) -> None:
    payload = start_payload(raw)
    at = payload.index(shortstr(key))
    assert payload[at + 1 + len(key) : at + 2 + len(key)] == b"S"


def test_product_is_rabbitmq(raw: Raw) -> None:
    assert shortstr("product") + b"S" + longstr("RabbitMQ") in start_payload(raw)


def test_version_is_three_numbers_that_clients_can_compare(raw: Raw) -> None:
    version = raw("start").started.server_properties["version"].split(".")
    assert tuple(map(int, version)) >= (3, 8, 0)
    assert len(version) == 3


OFFERED = {
    *("publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked"),
    *("consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"),
}


@pytest.mark.parametrize("capability", sorted(OFFERED))
def test_capability_is_true(raw: Raw, capability: str) -> None:
    assert shortstr(capability) + b"t\x01" in start_payload(raw)


def test_capabilities_are_a_table_with_no_others(raw: Raw) -> None:
    assert shortstr("capabilities") + b"F" in start_payload(raw)
    assert set(raw("start").started.server_properties["capabilities"]) == OFFERED


# --- connection.start-ok ---------------------------------------------------------------------------------------------


def login_table(*fields: tuple[str, str]) -> bytes:
    return table(*((name, b"S" + longstr(value)) for name, value in fields))


def test_plain(raw: Raw) -> None:
    assert raw("start").start_ok().name == "Connection.Tune"


@pytest.mark.parametrize("order", [1, -1], ids=["login first", "password first"])
def test_amqplain_is_a_table_without_its_length(raw: Raw, broker: Broker, order: int) -> None:
    fields = [("LOGIN", broker.user), ("PASSWORD", broker.password)][::order]
    raw(mechanism="AMQPLAIN", response=login_table(*fields)[4:]).channel(1)


def test_amqplain_with_other_fields(raw: Raw, broker: Broker) -> None:
    fields = [("X", "y"), ("LOGIN", broker.user), ("PASSWORD", broker.password), ("Z", "")]
    raw(mechanism="AMQPLAIN", response=login_table(*fields)[4:]).channel(1)


@pytest.mark.parametrize("locale", ["", "de_DE", "en_US en_GB", "x" * 255], ids=["none", "other", "two", "long"])
def test_any_locale_will_do(raw: Raw, locale: str) -> None:
    raw(locale=locale).channel(1)


@pytest.mark.parametrize(
    "properties",
    [{}, {"capabilities": {}}, {"capabilities": "all"}, {"product": 1, "capabilities": CAPABILITIES}],
    ids=["none", "no capabilities", "capabilities not a table", "odd types"],
)
def test_any_client_properties_will_do(raw: Raw, properties: dict[str, Any]) -> None:
    raw(properties=properties).channel(1)


@pytest.mark.parametrize("size", [4088, 4096])
def test_frame_before_tune_may_have_4096_bytes(raw: Raw, size: int) -> None:
    peer = raw("start")
    bare = len(peer.start_ok_frame(properties={"x": ""})) - 8
    assert peer.start_ok(properties={"x": "y" * (size - bare)}).name == "Connection.Tune"


def test_heartbeats_before_each_step(raw: Raw) -> None:
    peer, beat = raw("start"), frame(8, 0, b"")
    peer.send(beat, beat, peer.start_ok_frame())
    peer.expect(10, 30, 0)
    peer.send(beat, TUNE_OK, beat, OPEN, beat)
    peer.expect(10, 41, 0)


def test_whole_handshake_in_one_write(raw: Raw) -> None:
    peer = raw(None)
    peer.send(PROTOCOL_HEADER, peer.start_ok_frame(), TUNE_OK, OPEN, method(1, commands.Channel.Open()))
    for class_id, method_id in [(10, 10), (10, 30), (10, 41), (20, 11)]:
        peer.expect(class_id, method_id)


def test_whole_handshake_byte_by_byte(raw: Raw) -> None:
    peer = raw(None)
    peer.send_apart(PROTOCOL_HEADER + peer.start_ok_frame() + TUNE_OK + OPEN)
    for class_id, method_id in [(10, 10), (10, 30), (10, 41)]:
        peer.expect(class_id, method_id)


# --- tune and open ---------------------------------------------------------------------------------------------------


def test_tune_to_the_byte(raw: Raw) -> None:
    peer = raw("start")
    peer.send(peer.start_ok_frame())
    assert peer.read().payload == bytes.fromhex("000a001e 07ff 00020000 003c")


@pytest.mark.parametrize(
    ("channel_max", "frame_max", "heartbeat"),
    [
        (2047, 131072, 60),
        (1, 4096, 1),
        (2046, 131071, 59),
        (2047, 131072, 0),
        (2047, 131072, 61),
        (2047, 131072, 65535),
        (2047, 4097, 60),
    ],
)
def test_tune_ok_may_lower_and_choose_any_heartbeat(raw: Raw, channel_max: int, frame_max: int, heartbeat: int) -> None:
    raw(channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat).channel(1)


def test_open_ok_to_the_byte(raw: Raw) -> None:
    peer = raw("tune")
    peer.send(TUNE_OK, OPEN)
    assert peer.read().payload == bytes.fromhex("000a0029 00")


@pytest.mark.parametrize("vhost", ["nosuch", "", "a'b", "//", "ünï", "x" * 200], ids=lambda v: f"<{v[:9]}>")
def test_missing_vhost(raw: Raw, vhost: str) -> None:
    peer = raw("tune")
    peer.send(TUNE_OK, raw_method(0, 10, 40, shortstr(vhost) + b"\x00\x00"))
    peer.expect_close(530, f"NOT_ALLOWED - vhost {vhost} not found", 10, 40)
    peer.expect_eof()


@pytest.mark.parametrize(
    "reserved", [shortstr("caps") + b"\x00", b"\x00\x01", b"\x00\xff"], ids=["capabilities", "insist", "bits beyond"]
)
def test_reserved_fields_of_open_are_ignored(raw: Raw, reserved: bytes) -> None:
    peer = raw("tune")
    peer.send(TUNE_OK, raw_method(0, 10, 40, shortstr("/") + reserved))
    peer.expect(10, 41, 0)


WRONG_BEFORE_OPEN: dict[str, tuple[bytes, tuple[int, str, int, int]]] = {
    "tune-ok again": (TUNE_OK, (504, "CHANNEL_ERROR - unexpected method in connection state opening", 10, 31)),
    "close": (
        method(0, Connection.Close(200, "", 0, 0)),
        (504, "CHANNEL_ERROR - unexpected method in connection state opening", 10, 50),
    ),
    "update-secret": (
        method(0, Connection.UpdateSecret("s", "r")),
        (504, "CHANNEL_ERROR - unexpected method in connection state opening", 10, 70),
    ),
    "channel.open": (
        method(1, commands.Channel.Open()),
        (505, "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,1,48>>", 0, 0),
    ),
    "heartbeat on channel 1": (frame(8, 1, b""), (505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", 0, 0)),
    "unknown frame": (frame(7, 0, b"x"), (501, 'FRAME_ERROR - type 7, all octets = <<"x">>: unknown_frame', 0, 0)),
}


@pytest.mark.parametrize(("data", "close"), WRONG_BEFORE_OPEN.values(), ids=WRONG_BEFORE_OPEN.keys())
def test_wrong_before_open(raw: Raw, data: bytes, close: tuple[int, str, int, int]) -> None:
    peer = raw("tune")
    peer.send(TUNE_OK, data)
    peer.expect_close(*close)
    peer.expect_eof()


@pytest.mark.parametrize("step", ["start", "tune", "open"])
@pytest.mark.parametrize(("class_id", "method_id"), [(10, 99), (77, 10)], ids=["method", "class"])
def test_unknown_method_at_each_step(raw: Raw, step: str, class_id: int, method_id: int) -> None:
    peer = raw(step)
    peer.send(raw_method(0, class_id, method_id))
    peer.expect_refusal(503, 540)
