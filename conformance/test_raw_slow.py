"""Conversations in which the broker itself waits: refused logins, lingering closes, heartbeats, the handshake's limit.

RabbitMQ drops a client that it does not trust without a word, 3 seconds later. All these conversations run at once, in
threads, from the first case of the session on (conformance/slow.py); the cases here only ask how they ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from pamqp import commands

from conformance.rawpeer import (
    CAPABILITIES,
    HEARTBEAT,
    PROTOCOL_HEADER,
    ConnectionEnded,
    RawPeer,
    frame,
    longstr,
    method,
    raw_method,
    shortstr,
    table,
)
from conformance.slow import SCRIPTS, Script

pytestmark = pytest.mark.slow

Connection = commands.Connection
TUNE_OK = method(0, Connection.TuneOk(2047, 131072, 0))
LINGER = 6.0
"""Seconds within which a broker has to drop a client that it refused (RabbitMQ: 3)."""


def script(name: str, until: str | None) -> Callable[[Script], Script]:
    def add(function: Script) -> Script:
        SCRIPTS[name] = until, function
        return function

    return add


def dropped(name: str, until: str | None, data: bytes) -> None:
    """A conversation in which the client sends something and is dropped without an answer."""

    def run(peer: RawPeer) -> None:
        peer.send(data)
        peer.expect_eof(LINGER)

    SCRIPTS[name] = until, run


def login_dropped(name: str, mechanism: str, response: bytes | None, properties: dict[str, Any] | None = None) -> None:
    """A conversation in which start-ok is not answered."""

    def run(peer: RawPeer) -> None:
        peer.send(peer.start_ok_frame(mechanism, response, properties))
        peer.expect_eof(LINGER)

    SCRIPTS[name] = "start", run


# --- logins ----------------------------------------------------------------------------------------------------------

MALFORMED_PLAIN = {
    "empty": b"",
    "no NUL": b"guest",
    "one NUL": b"\0guest",
    "NUL alone": b"\0",
    "user NUL password": b"guest\0guest",
    "authorization identity": b"guest\0guest\0guest",
    "NUL at the end": b"\0guest\0guest\0",
    "more after a NUL": b"\0guest\0guest\0x",
}
for label, malformed in MALFORMED_PLAIN.items():
    login_dropped(f"PLAIN, {label}", "PLAIN", malformed)

REFUSED_PLAIN = {
    "wrong password": b"\0guest\0nope",
    "unknown user": b"\0nobody\0guest",
    "empty password": b"\0guest\0",
    "empty user": b"\0\0guest",
    "both empty": b"\0\0",
    "space after the password": b"\0guest\0guest ",
    "user not UTF-8": b"\0\xff\xfe\0guest",
}


def credentials(login: str, password: str) -> bytes:
    return table(("LOGIN", b"S" + longstr(login)), ("PASSWORD", b"S" + longstr(password)))[4:]


REFUSED_AMQPLAIN = {
    "wrong password": credentials("guest", "nope"),
    "empty password": credentials("guest", ""),
    "password not a string": table(("LOGIN", b"S" + longstr("guest")), ("PASSWORD", b"I\0\0\0\1"))[4:],
}
MALFORMED_AMQPLAIN = {
    "empty": b"",
    "with the table's length": longstr(credentials("guest", "guest")),
    "names in lower case": table(("login", b"S" + longstr("guest")), ("password", b"S" + longstr("guest")))[4:],
    "no password": table(("LOGIN", b"S" + longstr("guest")))[4:],
    "not a table": b"\xff\xfe\xfd",
}
for label, malformed in MALFORMED_AMQPLAIN.items():
    login_dropped(f"AMQPLAIN, {label}", "AMQPLAIN", malformed)


def refused(mechanism: str, label: str, response: bytes) -> None:
    """A refused login is told so if the client can take it, else it is dropped like a malformed one."""
    text = f"ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. "
    text += "For details see the broker logfile."

    def told(peer: RawPeer) -> None:
        peer.send(peer.start_ok_frame(mechanism, response, {"capabilities": CAPABILITIES}))
        close = peer.expect(10, 50, 0)
        assert (close.reply_code, close.reply_text, close.class_id, close.method_id) == (403, text, 0, 0)
        peer.expect_eof(LINGER)

    SCRIPTS[f"{mechanism}, {label}, told"] = "start", told
    login_dropped(f"{mechanism}, {label}, not told", mechanism, response, {})


for label, response in REFUSED_PLAIN.items():
    refused("PLAIN", label, response)
for label, response in REFUSED_AMQPLAIN.items():
    refused("AMQPLAIN", label, response)

for label, value in {"false": False, "a number": 1, "a string": "true"}.items():
    properties = {"capabilities": {"authentication_failure_close": value}}
    login_dropped(f"authentication_failure_close is {label}", "PLAIN", b"\0guest\0nope", properties)

for mechanism in ["EXTERNAL", "ANONYMOUS", "SCRAM-SHA-256", "plain", "PLAIN AMQPLAIN", ""]:
    login_dropped(f"mechanism <{mechanism}>", mechanism, None)


@script("a refused login waits", "start")
def _(peer: RawPeer) -> None:
    since = time.monotonic()
    peer.send(peer.start_ok_frame("PLAIN", "\0guest\0nope", {}))
    peer.expect_eof(LINGER)
    assert time.monotonic() - since > 2.5


@script("close-ok after a refused login ends the wait", "start")
def _(peer: RawPeer) -> None:
    peer.send(peer.start_ok_frame("PLAIN", "\0guest\0nope"))
    peer.expect(10, 50)
    peer.send_method(0, Connection.CloseOk())
    peer.expect_eof(1.0)


# --- wrong in the handshake ------------------------------------------------------------------------------------------


def start_ok(properties: bytes, mechanism: bytes = b"PLAIN", locale: bytes = b"en_US", more: bytes = b"") -> bytes:
    response = longstr("\0guest\0guest")
    return raw_method(0, 10, 11, properties + shortstr(mechanism) + response + shortstr(locale) + more)


WRONG_AT_START = {
    "close": method(0, Connection.Close(200, "", 0, 0)),
    "tune-ok": TUNE_OK,
    "open": method(0, Connection.Open("/")),
    "start": raw_method(0, 10, 10, b"\x00\x09" + table() + longstr("") + longstr("")),
    "channel.open": method(1, commands.Channel.Open()),
    "start-ok on channel 1": b"\x01\x00\x01" + start_ok(table())[3:],
    "heartbeat with a payload": frame(8, 0, b"x"),
    "unknown frame": frame(0, 0, b""),
    "start-ok without arguments": raw_method(0, 10, 11),
    "start-ok with more after it": start_ok(table(), more=b"zz"),
    "table of unknown type": start_ok(table(("a", b"Z1"))),
    "table cut off": raw_method(0, 10, 11, b"\0\0\0\x09\x01aS"),
    "mechanism not UTF-8": start_ok(table(), mechanism=b"\xff"),
    "locale not UTF-8": start_ok(table(), locale=b"\xff"),
    "frame of 4097 bytes": start_ok(table(("x", b"S" + longstr("y" * 4054)))),
}
assert len(WRONG_AT_START["frame of 4097 bytes"]) == 4097 + 8
for label, data in WRONG_AT_START.items():
    dropped(f"at start: {label}", "start", data)

WRONG_AT_TUNE = {
    "open": method(0, Connection.Open("/")),
    "start-ok again": start_ok(table()),
    "close": method(0, Connection.Close(200, "", 0, 0)),
    "close-ok": method(0, Connection.CloseOk()),
    "secure-ok": method(0, Connection.SecureOk("x")),
    "update-secret": method(0, Connection.UpdateSecret("s", "r")),
    "channel.open": method(1, commands.Channel.Open()),
    "heartbeat on channel 1": frame(8, 1, b""),
    "unknown frame": frame(7, 0, b"x"),
    "bad frame end": frame(1, 0, b"\0\0\0\0", b"\0"),
    "frame of 5000 bytes": raw_method(0, 10, 31, bytes(4996)),
    "tune-ok cut off": raw_method(0, 10, 31, bytes(6)),
    "tune-ok with more after it": raw_method(0, 10, 31, bytes.fromhex("07ff 00020000 0000 7a")),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "channel_max 0": method(0, Connection.TuneOk(0, 131072, 0)),
    "channel_max 2048": method(0, Connection.TuneOk(2048, 131072, 0)),
    "channel_max 65535": method(0, Connection.TuneOk(65535, 131072, 0)),
    "frame_max 0": method(0, Connection.TuneOk(2047, 0, 0)),
    "frame_max 1": method(0, Connection.TuneOk(2047, 1, 0)),
    "frame_max 4095": method(0, Connection.TuneOk(2047, 4095, 0)),
    "frame_max 131073": method(0, Connection.TuneOk(2047, 131073, 0)),
    "frame_max 4294967295": method(0, Connection.TuneOk(2047, 4294967295, 0)),
    "open without its reserved fields": TUNE_OK + raw_method(0, 10, 40, shortstr("/")),
    "open without arguments": TUNE_OK + raw_method(0, 10, 40),
    "open with more after it": TUNE_OK + raw_method(0, 10, 40, shortstr("/") + b"\0\0z"),
}
for label, data in WRONG_AT_TUNE.items():
    dropped(f"at tune: {label}", "tune", data)


# --- closes that linger ----------------------------------------------------------------------------------------------


@script("after a lost frame boundary close-ok is not read, the socket closes later", "open")
def _(peer: RawPeer) -> None:
    peer.send(frame(1, 0, b"\0\0\0\0", b"\0"))
    peer.expect_close(501, "FRAME_ERROR - type 1, all octets = <<0,0,0,0>>: {invalid_frame_end_marker,0}")
    peer.expect_eof(LINGER)


@script("after a frame that is too large the socket closes by itself", "open")
def _(peer: RawPeer) -> None:
    peer.send(bytes.fromhex("01 0000 00030d40"))
    close = peer.expect(10, 50, 0)
    assert close.reply_text == "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,200000,131064}"
    peer.expect_eof(LINGER)


@script("after a client's close the socket stays for the client to end", "open")
def _(peer: RawPeer) -> None:
    peer.ask(0, Connection.Close(200, "bye", 0, 0))
    peer.is_open = False
    peer.expect_nothing(3500)


@script("a broker that closed waits for close-ok", "open")
def _(peer: RawPeer) -> None:
    peer.send(frame(7, 0, b"x"))
    peer.expect(10, 50, 0)
    peer.expect_nothing(3500)
    peer.send_method(0, Connection.CloseOk())
    peer.expect_eof()


# --- heartbeats ------------------------------------------------------------------------------------------------------


def open_with_heartbeat(peer: RawPeer, seconds: int) -> None:
    peer.start_ok()
    peer.tune_ok(heartbeat=seconds)


@script("heartbeat 1: the broker sends them, and drops a client that does not", "start")
def _(peer: RawPeer) -> None:
    open_with_heartbeat(peer, 1)
    since, beats = time.monotonic(), 0
    try:
        while True:
            got = peer.read(3.0)
            assert (got.type, got.channel, got.payload) == (HEARTBEAT, 0, b"")
            beats += 1
    except ConnectionEnded:
        peer.is_open = False
    assert 1.5 < time.monotonic() - since < 4.5
    assert 2 <= beats <= 10


def stay_alive(peer: RawPeer, data: bytes) -> None:
    """Sending `data` twice in a second is enough for 4 s."""
    open_with_heartbeat(peer, 1)
    peer.channel(1)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        peer.send(data)
        time.sleep(0.5)
    peer.sync(1)


@script("heartbeat 1: a client that sends heartbeats lives", "start")
def _(peer: RawPeer) -> None:
    stay_alive(peer, frame(8, 0, b""))


@script("heartbeat 1: any other traffic counts", "start")
def _(peer: RawPeer) -> None:
    stay_alive(peer, method(1, commands.Basic.Ack(0, True)))


@script("heartbeat 1: part of a frame counts", "start")
def _(peer: RawPeer) -> None:
    open_with_heartbeat(peer, 1)
    peer.channel(1)
    for byte in method(1, commands.Channel.Flow(True))[:10]:
        peer.send(bytes([byte]))
        time.sleep(0.4)
    peer.send(method(1, commands.Channel.Flow(True))[10:])
    peer.expect(20, 21, 1)


@script("heartbeat 0: none is sent, silence is fine", "start")
def _(peer: RawPeer) -> None:
    open_with_heartbeat(peer, 0)
    peer.expect_nothing(4500)
    peer.channel(1)


# --- the handshake's time limit --------------------------------------------------------------------------------------


def stuck(name: str, until: str | None, data: bytes) -> None:
    def run(peer: RawPeer) -> None:
        peer.send(data)
        peer.expect_eof(13.0)

    SCRIPTS[f"stuck {name}"] = until, run


stuck("before the header", None, b"")
stuck("in the header", None, PROTOCOL_HEADER[:5])
stuck("at start", "start", b"")
stuck("in start-ok", "start", start_ok(table())[:20])
stuck("at tune", "tune", b"")
stuck("before open", "tune", TUNE_OK)


@script("heartbeats do not lengthen the handshake's time limit", "start")
def _(peer: RawPeer) -> None:
    for _ in range(4):
        peer.send(frame(8, 0, b""))
        time.sleep(2)
    peer.expect_eof(5.0)


# --- the cases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_slow_conversation(outcomes: dict[str, Future[None]], name: str) -> None:
    outcomes[name].result()
