"""A client without a socket: a Session, and in front of it a tiny peer that encodes methods and decodes answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rabbitish.errors import ConnectionFailure
from rabbitish.session.connection import Session
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.frames import PROTOCOL_HEADER, FrameParser, content_frames
from rabbitish.wire.method import IDS, Method
from rabbitish.wire.properties import Properties, decode_properties

if TYPE_CHECKING:
    from .harness import World

CAPABILITIES: Table = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class Said(NamedTuple):
    """Something that the broker said: a method with its content, or a heartbeat (no method)."""

    channel: int
    method: Method | None
    properties: bytes = b""
    body: bytes = b""
    sizes: tuple[int, ...] = ()
    """The body's frames."""

    @property
    def props(self) -> Properties:
        return decode_properties(self.properties)


class Client:
    """A peer, and the session that it talks to."""

    def __init__(self, world: World, session: Session) -> None:
        self.world = world
        self.session = session
        self.reading = True
        self.received = bytearray()  # everything the broker ever sent
        self.hung_up = False  # by the broker
        self._sent = b""  # what the broker has not read yet
        self._in_flight = b""  # what the broker sent while we did not read
        self._parser = FrameParser(0)
        self._inbox: list[Said] = []
        self._content: list[bytes] = []
        self._head: Said | None = None
        self._left = 0

    # ---- to the broker

    def raw(self, data: bytes) -> None:
        """Send bytes, in one piece; they wait while the broker does not read."""
        self._sent += data
        self.feed()

    def feed(self) -> bool:
        """Let the broker read what was sent, if it does."""
        session = self.session
        full = session.outbox.size > 4 * session.outbox.high  # as in server/link.py
        if not self._sent or not session.reading or session.ended or full:
            return False
        data, self._sent = self._sent, b""
        session.receive_data(data, self.world.now)
        return True

    def send(self, *said: Method, channel: int = 1) -> None:
        """Send methods, in one piece."""
        self.raw(b"".join([method.frame(channel) for method in said]))

    def publish(self, routing_key: str, *bodies: bytes, channel: int = 1, **how: object) -> None:
        """Publish, in one piece. `how`: exchange, mandatory, frame_max, properties (or those by their names)."""
        self.raw(b"".join([publication(routing_key, body, channel=channel, **how) for body in bodies or (b"",)]))  # type: ignore[arg-type]

    def hang_up(self) -> None:
        """Close the socket."""
        self.session.receive_eof(self.world.now)
        self.world.settle()

    # ---- from the broker

    def collect(self) -> None:
        """The broker has bytes for us, or closed the socket."""
        self._fetch()
        if self.reading:
            self.read(len(self._in_flight))
        self.hung_up = self.session.ended

    def _fetch(self) -> None:
        """As server/link.py: what is in flight first, and nothing that must wait for the journal."""
        outbox = self.session.outbox
        if not self._in_flight and outbox.parts and outbox.held_until <= self.session.hub.durable:
            self._in_flight = outbox.take()

    def read(self, count: int) -> None:
        """Read that many bytes of what the broker has sent."""
        data, self._in_flight = self._in_flight[:count], self._in_flight[count:]
        if data:
            self.received += data
            if not self.received.startswith(b"AMQP"):
                self._take(data)
            self.session.outbox.sent(len(data), self.world.now)
        self._fetch()
        if self._in_flight and self.reading:
            self.read(len(self._in_flight))

    def read_on(self) -> None:
        """Read everything from now on."""
        self.reading = True
        self.read(len(self._in_flight))
        self.world.settle()

    def _take(self, data: bytes) -> None:
        for kind, channel, payload in self._parser.feed(data):
            if kind == 8:
                self._inbox.append(Said(channel, None))
            elif kind == 1:
                method = _decoded(payload)
                assert self._head is None, "a method in the middle of a content"
                self._head = Said(channel, method)
            elif kind == 2:
                assert self._head is not None and self._head.channel == channel
                self._left = int.from_bytes(payload[4:12], "big")
                self._head = self._head._replace(properties=payload[12:])
                self._content = []
            else:
                assert self._head is not None and self._head.channel == channel
                self._content.append(payload)
                self._left -= len(payload)
            self._finish()

    def _finish(self) -> None:
        head = self._head
        if head is None or (head.method is not None and head.method.has_content and not head.properties) or self._left:
            return
        body, sizes = b"".join(self._content), tuple(map(len, self._content))
        self._inbox.append(head._replace(body=body, sizes=sizes))
        self._head, self._content = None, []

    def answers(self) -> list[Said]:
        """What the broker has said since the last call, now that it has settled."""
        self.world.settle()
        said, self._inbox = self._inbox, []
        return said

    def methods(self) -> list[Method | None]:
        """The methods among the answers."""
        return [said.method for said in self.answers()]

    def expect(self, *expected: Method, channel: int = 1) -> list[Said]:
        """Assert that just these are the answers, on this channel."""
        said = self.answers()
        assert [(one.channel, one.method) for one in said] == [(channel, method) for method in expected]
        return said

    def ask(self, method: Method, channel: int = 1) -> Method:
        """Send a method, and the one answer to it."""
        self.send(method, channel=channel)
        (said,) = self.answers()
        assert said.channel == channel and said.method is not None
        return said.method

    def deliveries(self) -> list[tuple[str, int, bytes]]:
        """Consumer tag, delivery tag and body of each delivery; the answers must be nothing else."""
        result = []
        for said in self.answers():
            assert isinstance(said.method, methods.BasicDeliver)
            result.append((said.method.consumer_tag, said.method.delivery_tag, said.body))
        return result

    def bodies(self) -> list[bytes]:
        """The bodies of what was delivered; the answers must be nothing else."""
        return [body for _, _, body in self.deliveries()]

    def expect_channel_close(self, code: int, text: str, culprit: type[Method], channel: int = 1) -> None:
        """Assert that the one answer closes this channel, and agree."""
        self.expect(close_of(methods.ChannelClose, code, text, culprit), channel=channel)
        self.send(methods.ChannelCloseOk(), channel=channel)

    def expect_connection_close(self, code: int, text: str, culprit: type[Method] | None = None) -> None:
        """Assert that the one answer closes the connection, and agree: the broker hangs up."""
        self.expect(close_of(methods.ConnectionClose, code, text, culprit), channel=0)
        self.send(methods.ConnectionCloseOk(), channel=0)
        assert self.answers() == []
        assert self.hung_up

    # ---- what every conversation begins with

    def handshake(
        self,
        *,
        user: str = "guest",
        password: str = "guest",
        vhost: str = "/",
        capabilities: Table | None = None,
        properties: Table | None = None,
        channel_max: int = 2047,
        frame_max: int = 131_072,
        heartbeat: int = 0,
    ) -> None:
        """From the protocol header to connection.open-ok."""
        limits = {"channel_max": channel_max, "frame_max": frame_max, "heartbeat": heartbeat}
        self.begin(user=user, password=password, capabilities=capabilities, properties=properties, **limits)
        self.send(methods.ConnectionOpen(virtual_host=vhost), channel=0)
        self.expect(methods.ConnectionOpenOk(), channel=0)

    def begin(
        self,
        *,
        user: str = "guest",
        password: str = "guest",
        capabilities: Table | None = None,
        properties: Table | None = None,
        channel_max: int = 2047,
        frame_max: int = 131_072,
        heartbeat: int = 0,
    ) -> None:
        """From the protocol header to connection.tune-ok."""
        self.raw(PROTOCOL_HEADER)
        (start,) = self.answers()
        assert isinstance(start.method, methods.ConnectionStart)
        about = {"capabilities": CAPABILITIES if capabilities is None else capabilities, **(properties or {})}
        self.send(start_ok(user, password, about), channel=0)
        (tune,) = self.answers()
        assert isinstance(tune.method, methods.ConnectionTune)
        limits = methods.ConnectionTuneOk(channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat)
        self.send(limits, channel=0)

    def open(self, channel: int = 1) -> None:
        """Open a channel."""
        self.send(methods.ChannelOpen(), channel=channel)
        self.expect(methods.ChannelOpenOk(), channel=channel)

    def declare(self, name: str = "", *, channel: int = 1, arguments: Table | None = None, **flags: bool) -> str:
        """Declare a queue; its name."""
        answer = self.ask(methods.QueueDeclare(queue=name, arguments=arguments or {}, **flags), channel)
        assert isinstance(answer, methods.QueueDeclareOk)
        return answer.queue

    def consume(
        self, queue: str, tag: str = "t", *, channel: int = 1, arguments: Table | None = None, **flags: bool
    ) -> None:
        """Start a consumer; whatever else comes is left to be seen."""
        method = methods.BasicConsume(queue=queue, consumer_tag=tag, arguments=arguments or {}, **flags)
        self.send(method, channel=channel)
        self.world.settle()
        self._inbox.remove(Said(channel, methods.BasicConsumeOk(consumer_tag=tag)))

    def get(self, queue: str, *, no_ack: bool = True, channel: int = 1) -> Said | None:
        """basic.get; None when there was nothing."""
        self.send(methods.BasicGet(queue=queue, no_ack=no_ack), channel=channel)
        (said,) = self.answers()
        assert isinstance(said.method, methods.BasicGetOk | methods.BasicGetEmpty)
        return said if isinstance(said.method, methods.BasicGetOk) else None

    def drain(self, queue: str) -> list[bytes]:
        """Take everything that is ready in a queue."""
        return [said.body for said in iter(lambda: self.get(queue), None)]


def _decoded(payload: bytes) -> Method:
    """The method, even if it is a close whose text quotes a name that is not UTF-8."""
    try:
        return methods.decode_method(payload)
    except ConnectionFailure:
        kind = {b"\0\x0a": methods.ConnectionClose, b"\0\x14": methods.ChannelClose}[payload[:2]]
        text = payload[7:-4].decode("utf-8", "surrogateescape")
        class_id, method_id = IDS.unpack(payload[-4:])
        return kind(int.from_bytes(payload[4:6], "big"), text, class_id, method_id)


def start_ok(user: str, password: str, properties: Table | None = None) -> methods.ConnectionStartOk:
    """A login by PLAIN."""
    response = f"\0{user}\0{password}".encode()
    return methods.ConnectionStartOk(client_properties=properties or {}, mechanism="PLAIN", response=response)


def publication(
    routing_key: str,
    body: bytes = b"",
    *,
    exchange: str = "",
    channel: int = 1,
    mandatory: bool = False,
    frame_max: int = 131_072,
    properties: bytes | None = None,
    **named: object,
) -> bytes:
    """The frames of a publish."""
    method = methods.BasicPublish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    raw = Properties(**named).encode() if properties is None else properties  # type: ignore[arg-type]
    return method.frame(channel) + content_frames(channel, 60, raw, body, frame_max)


def close_of(kind: Callable[..., Method], code: int, text: str, culprit: type[Method] | None) -> Method:
    """The close with this code and text that blames this method."""
    class_id, method_id = (culprit.class_id, culprit.method_id) if culprit is not None else (0, 0)
    return kind(reply_code=code, reply_text=text, class_id_=class_id, method_id_=method_id)
