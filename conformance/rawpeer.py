"""A blocking AMQP peer on a plain socket that says exactly what a case tells it to, right or wrong.

It sends bytes and frames, reads frames with a deadline and compares. It never answers anything by itself, except for
what a case asks by name (`handshake`, `expect_close` sends the close-ok). Methods that are well formed are encoded and
decoded with pamqp; everything else is made by hand with the functions below, since no library builds wrong frames.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pamqp import base, commands, encode

from conformance.support import DEADLINE

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"
METHODS: dict[int, Any] = dict(commands.INDEX_MAPPING)
"""Class id << 16 | method id -> pamqp's class."""
NO_PROPERTIES = b"\x00\x00"

CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class Frame(NamedTuple):
    """One frame as it came: type, channel and payload, without the end octet."""

    type: int
    channel: int
    payload: bytes


class Content(NamedTuple):
    """What follows a method that carries content: raw properties (flags and list), announced size, the body frames."""

    properties: bytes
    size: int
    parts: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class ConnectionEnded(AssertionError):
    """The broker closed the socket where a frame was due."""


# --- bytes -----------------------------------------------------------------------------------------------------------


def frame(kind: int, channel: int, payload: bytes, end: bytes = FRAME_END) -> bytes:
    """A frame of any type, with any end octet."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def raw_method(channel: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    """A method frame whose arguments are given as bytes."""
    return frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)


def method(channel: int, command: base.Frame) -> bytes:
    """A well-formed method frame, encoded by pamqp."""
    return frame(METHOD, channel, struct.pack(">I", command.index) + command.marshal())


def header(channel: int, size: int, properties: bytes = NO_PROPERTIES, class_id: int = 60, weight: int = 0) -> bytes:
    """A content header frame; `properties` is the raw flags and property list."""
    return frame(HEADER, channel, struct.pack(">HHQ", class_id, weight, size) + properties)


def body(channel: int, data: bytes) -> bytes:
    """A body frame."""
    return frame(BODY, channel, data)


def content(channel: int, data: bytes, properties: bytes = NO_PROPERTIES, frame_max: int = 131072) -> bytes:
    """Header and body frames of a message, the body split so that each frame has `frame_max` bytes at most."""
    step = frame_max - 8
    parts = [body(channel, data[i : i + step]) for i in range(0, len(data), step)]
    return header(channel, len(data), properties) + b"".join(parts)


def short(value: int) -> bytes:
    return struct.pack(">H", value)


def shortstr(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return bytes([len(raw)]) + raw


def longstr(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(raw)) + raw


def table(*fields: tuple[str, bytes]) -> bytes:
    """A field table, with its length, of (name, tag and value as bytes) in the given order, repeats and all."""
    return longstr(b"".join(shortstr(name) + value for name, value in fields))


def headers_property(encoded_table: bytes) -> bytes:
    """Raw properties that hold nothing but the headers table."""
    return b"\x20\x00" + encoded_table


def queue_declare(channel: int, queue: str | bytes, arguments: bytes | None = None, **flags: bool) -> bytes:
    """queue.declare with any name and any bytes for a table."""
    names = ("passive", "durable", "exclusive", "auto_delete", "nowait")
    bits = sum(flags.pop(name, False) << position for position, name in enumerate(names))
    assert not flags, flags
    head = short(0) + shortstr(queue) + bytes([bits])
    return raw_method(channel, 50, 10, head + (table() if arguments is None else arguments))


def publish_method(channel: int, exchange: str, routing_key: str, **flags: bool) -> bytes:
    """basic.publish alone, without content."""
    return method(channel, commands.Basic.Publish(exchange=exchange, routing_key=routing_key, **flags))


# --- the peer --------------------------------------------------------------------------------------------------------


class RawPeer:
    """One TCP connection to the broker."""

    def __init__(self, host: str, port: int, user: str = "guest", password: str = "guest", vhost: str = "/") -> None:
        self.user, self.password, self.vhost = user, password, vhost
        self.frame_max = 131072
        self.is_open = False
        self.started: Any = None  # connection.start, once handshake() has read it
        self._buffer = bytearray()
        self._socket = socket.create_connection((host, port), timeout=DEADLINE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # -- sending

    def send(self, *chunks: bytes) -> None:
        """Send bytes, all chunks in one write."""
        self._socket.settimeout(DEADLINE)
        self._socket.sendall(b"".join(chunks))

    def send_apart(self, data: bytes, step: int = 1) -> None:
        """Send bytes in separate writes of `step` bytes (Nagle is off, so that they go out one by one)."""
        for i in range(0, len(data), step):
            self.send(data[i : i + step])

    def send_method(self, channel: int, command: base.Frame) -> None:
        self.send(method(channel, command))

    def publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        data: bytes = b"",
        properties: bytes = NO_PROPERTIES,
        **flags: bool,
    ) -> None:
        """basic.publish with its content; an empty body is a header frame alone."""
        start = publish_method(channel, exchange, routing_key, **flags)
        self.send(start, content(channel, data, properties, self.frame_max))

    def shutdown_write(self) -> None:
        """Send FIN but go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    # -- reading

    def _fill(self, deadline: float) -> bool:
        """Read what there is; False at the end of the stream. A reset counts as the end: RabbitMQ lingers for 0 s."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            return False
        self._buffer += data
        return bool(data)

    def read_bytes(self, count: int, timeout: float = DEADLINE) -> bytes:
        """Exactly `count` bytes."""
        deadline = time.monotonic() + timeout
        while len(self._buffer) < count:
            try:
                alive = self._fill(deadline)
            except TimeoutError:
                raise AssertionError(f"no {count} bytes within {timeout} s, only {bytes(self._buffer)!r}") from None
            if not alive:
                raise ConnectionEnded(f"end of stream after {bytes(self._buffer)!r}")
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def read(self, timeout: float = DEADLINE) -> Frame:
        """The next frame, of any type."""
        deadline = time.monotonic() + timeout
        kind, channel, size = struct.unpack(">BHI", self.read_bytes(7, timeout))
        payload = self.read_bytes(size + 1, max(deadline - time.monotonic(), 0.5))
        assert payload[-1:] == FRAME_END, f"frame of type {kind} ends in {payload[-1]:#x}"
        return Frame(kind, channel, payload[:-1])

    def expect(self, class_id: int, method_id: int, channel: int | None = None, timeout: float = DEADLINE) -> Any:
        """The next frame must be this method (heartbeats are passed over); returns its arguments, decoded by pamqp."""
        got = self.read(timeout)
        while got.type == HEARTBEAT:
            got = self.read(timeout)
        command = decode(got)
        wanted = METHODS[class_id << 16 | method_id].name
        assert command is not None and command.name == wanted, f"wanted {wanted}, got {describe(got)}"
        if channel is not None:
            assert got.channel == channel, f"wanted {wanted} on channel {channel}, got it on {got.channel}"
        return command

    def expect_content(self, channel: int | None = None) -> Content:
        """The header frame and all body frames of a message."""
        got = self.read()
        assert got.type == HEADER, f"wanted a content header, got {describe(got)}"
        assert channel is None or got.channel == channel, f"wanted channel {channel}, got {describe(got)}"
        class_id, weight, size = struct.unpack(">HHQ", got.payload[:12])
        assert (class_id, weight) == (60, 0)
        parts: list[bytes] = []
        while sum(map(len, parts)) < size:
            part = self.read()
            assert part.type == BODY and part.channel == got.channel, f"wanted a body frame, got {describe(part)}"
            parts.append(part.payload)
        return Content(got.payload[12:], size, parts)

    def expect_close(
        self, code: int, text: str | re.Pattern[str], class_id: int = 0, method_id: int = 0, *, channel: int = 0
    ) -> None:
        """connection.close (or, with a channel, channel.close) with exactly this; it is answered with close-ok."""
        close = self.expect(20, 40, channel) if channel else self.expect(10, 50, 0)
        got = (close.reply_code, close.reply_text, close.class_id, close.method_id)
        if isinstance(text, re.Pattern):
            assert text.fullmatch(close.reply_text), f"wanted {text.pattern!r}, got {got}"
            text = close.reply_text
        assert got == (code, text, class_id, method_id), f"wanted {(code, text, class_id, method_id)}, got {got}"
        if channel:
            self.send_method(channel, commands.Channel.CloseOk())
            return
        self.is_open = False
        self._send_anyway(method(0, commands.Connection.CloseOk()))

    def expect_refusal(self, *codes: int) -> None:
        """The broker closes the socket, at once or after a connection.close with one of the codes."""
        try:
            first = self.read()
        except ConnectionEnded:
            self.is_open = False
            return
        close = decode(first)
        assert isinstance(close, commands.Connection.Close), f"wanted a refusal, got {describe(first)}"
        assert close.reply_code in codes, f"wanted one of {codes}, got {describe(first)}"
        self._send_anyway(method(0, commands.Connection.CloseOk()))
        self.expect_eof()

    def expect_eof(self, timeout: float = DEADLINE) -> None:
        """The broker closes the socket and sends nothing before that."""
        deadline = time.monotonic() + timeout
        try:
            alive = True
            while alive and not self._buffer:
                alive = self._fill(deadline)
        except TimeoutError:
            raise AssertionError(f"the socket is still open after {timeout} s") from None
        assert not self._buffer, f"wanted the end of the stream, got {bytes(self._buffer)!r}"
        self.is_open = False

    def expect_nothing(self, ms: int = 100) -> None:
        """For `ms` milliseconds the broker neither sends anything nor closes the socket."""
        deadline = time.monotonic() + ms / 1000
        try:
            alive = True
            while alive and not self._buffer:
                alive = self._fill(deadline)
        except TimeoutError:
            return
        assert alive, "the broker closed the socket"
        raise AssertionError(f"wanted silence, got {bytes(self._buffer)!r}")

    # -- whole steps

    def ask(self, channel: int, command: base.Frame) -> Any:
        """Send a synchronous method and return its reply."""
        self.send_method(channel, command)
        replies = [known.index for known in METHODS.values() if known.name in command.valid_responses]
        return self.expect(replies[0] >> 16, replies[0] & 0xFFFF, channel)

    def handshake(
        self,
        until: str = "open",
        *,
        mechanism: str = "PLAIN",
        response: str | bytes | None = None,
        properties: dict[str, Any] | None = None,
        locale: str = "en_US",
        channel_max: int = 2047,
        frame_max: int = 131072,
        heartbeat: int = 0,
        vhost: str | None = None,
    ) -> Any:
        """Go through the handshake up to the broker's answer called `until`: "start", "tune" or "open".

        Returns that answer. `properties` are the client's; by default they declare all capabilities.
        """
        self.send(PROTOCOL_HEADER)
        self.started = self.expect(10, 10, 0)
        if until == "start":
            return self.started
        tune = self.start_ok(mechanism=mechanism, response=response, properties=properties, locale=locale)
        if until == "tune":
            return tune
        return self.tune_ok(channel_max, frame_max, heartbeat, vhost)

    def start_ok(
        self,
        *,
        mechanism: str = "PLAIN",
        response: str | bytes | None = None,
        properties: dict[str, Any] | None = None,
        locale: str = "en_US",
    ) -> Any:
        """Answer connection.start and read connection.tune."""
        self.send(self.start_ok_frame(mechanism, response, properties, locale))
        return self.expect(10, 30, 0)

    def start_ok_frame(
        self,
        mechanism: str = "PLAIN",
        response: str | bytes | None = None,
        properties: dict[str, Any] | None = None,
        locale: str = "en_US",
    ) -> bytes:
        if response is None:
            response = f"\0{self.user}\0{self.password}"
        if properties is None:
            properties = {"capabilities": CAPABILITIES}
        encoded = commands.Connection.StartOk(properties, mechanism, "", locale).marshal()
        head = encoded[: -4 - len(shortstr(locale))]  # pamqp takes no bytes for the response: it is put in by hand
        return raw_method(0, 10, 11, head + longstr(response) + shortstr(locale))

    def tune_ok(
        self, channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 0, vhost: str | None = None
    ) -> Any:
        """Answer connection.tune, open the vhost and read connection.open-ok."""
        self.send_method(0, commands.Connection.TuneOk(channel_max, frame_max, heartbeat))
        self.send_method(0, commands.Connection.Open(self.vhost if vhost is None else vhost))
        opened = self.expect(10, 41, 0)
        self.frame_max = frame_max or self.frame_max
        self.is_open = True
        return opened

    def channel(self, number: int = 1) -> int:
        """Open a channel."""
        self.send_method(number, commands.Channel.Open())
        self.expect(20, 11, number)
        return number

    def declare(self, channel: int, queue: str, arguments: dict[str, Any] | None = None, **flags: bool) -> str:
        """Declare a queue, of any name, and return what it is called."""
        self.send(queue_declare(channel, queue, encode.field_table(arguments or {}), **flags))
        return str(self.expect(50, 11, channel).queue)

    def get(self, channel: int, queue: str, no_ack: bool = True) -> Content | None:
        """basic.get: the content of the message, or None when the queue is empty."""
        self.send(raw_method(channel, 60, 70, short(0) + shortstr(queue) + bytes([no_ack])))
        got = self.read()
        command = decode(got)
        if isinstance(command, commands.Basic.GetEmpty):
            return None
        assert isinstance(command, commands.Basic.GetOk), f"wanted get-ok or get-empty, got {describe(got)}"
        return self.expect_content(channel)

    def consume(self, channel: int, queue: str, consumer_tag: str = "", **options: Any) -> str:
        """Start a consumer and return its tag."""
        ok = self.ask(channel, commands.Basic.Consume(queue=queue, consumer_tag=consumer_tag, **options))
        return str(ok.consumer_tag)

    def sync(self, channel: int = 1) -> None:
        """A round trip that changes nothing: everything sent before has been handled, and the channel is alive."""
        assert self.ask(channel, commands.Channel.Flow(active=True)).active is True

    def close(self) -> None:
        """End the connection, politely where it is open (so that its exclusive queues are gone afterwards)."""
        if self.is_open:
            with contextlib.suppress(AssertionError, OSError):
                self.send_method(0, commands.Connection.Close(200, "bye", 0, 0))
                while not isinstance(decode(self.read(1.0)), commands.Connection.CloseOk):
                    pass
        self.drop()

    def drop(self) -> None:
        """End the TCP connection without a word."""
        self.is_open = False
        self._socket.close()

    def _send_anyway(self, data: bytes) -> None:
        """Send to a broker that may have gone already."""
        with contextlib.suppress(OSError):
            self.send(data)


Raw = Callable[..., RawPeer]
"""Type of the fixture `raw`."""


def decode(got: Frame) -> base.Frame | None:
    """The method in a frame, or None when it holds none that pamqp knows."""
    if got.type != METHOD:
        return None
    (index,) = struct.unpack(">I", got.payload[:4])
    known = METHODS.get(index)
    if known is None:
        return None
    command: base.Frame = known()
    command.unmarshal(got.payload[4:])
    return command


def describe(got: Frame) -> str:
    """A frame in words, for failure messages."""
    command = decode(got)
    if command is None:
        return f"frame type {got.type} on channel {got.channel}: {got.payload[:200]!r}"
    return f"{command.name}({dict(command)}) on channel {got.channel}"
