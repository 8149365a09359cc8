"""One connection to a broker, as a state machine: bytes come in, bytes to send go out. No socket, no clock.

What goes question by question (logging in, declaring) is a script: a generator that yields bytes to send and is sent
the method that answers. After its script a peer is `ready`, and what comes then is its subclass's matter. Whatever ends
a peer against its will is a `PeerError` with one line for the user.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from rabbitish import __version__
from rabbitish.errors import ConnectionFailure
from rabbitish.perf.options import Login
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_METHOD, PROTOCOL_HEADER, FrameParser
from rabbitish.wire.method import Method

M = TypeVar("M", bound=Method)
T = TypeVar("T")
Script: TypeAlias = Generator[bytes, Method, T]

CHANNEL = 1
FRAME_MAX = 131_072
"""The largest frame that a peer takes; what RabbitMQ offers by default."""
_REFUSED = (methods.ConnectionClose, methods.ChannelClose)
_CAPABILITIES = ("authentication_failure_close", "connection.blocked", "consumer_cancel_notify", "publisher_confirms")


class PeerError(Exception):
    """A peer cannot go on; its text is for the user."""


class Refused(PeerError):
    """The broker closed the channel or the connection, with a code and a text."""

    def __init__(self, close: methods.ConnectionClose | methods.ChannelClose) -> None:
        super().__init__(f"{close.reply_code} {close.reply_text}")
        self.code = close.reply_code


def ask(method: Method, answer: type[M], channel: int = CHANNEL) -> Script[M]:
    """Send a method, and take its answer. Refused: that was a close instead."""
    return (yield from say(method.frame(channel), answer))


def say(data: bytes, answer: type[M]) -> Script[M]:
    """Send bytes, and take the method that answers. Refused: that was a close instead."""
    reply = yield data
    if isinstance(reply, answer):
        return reply
    if isinstance(reply, _REFUSED):
        raise Refused(reply)
    raise PeerError(f"the broker answered with {reply.name} where {answer.name} was due")


class Peer:
    """A connection with one channel. `login` says who it is; `data` to `receive`, `take` for what is to be sent."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.frame_max = FRAME_MAX
        self.blocked = False
        """Whether the broker has said that it does not read from this connection for now."""
        self.ready = False
        """The script is through."""
        self.ended = False
        """The broker has confirmed the close: nothing more comes."""
        self.closing = False
        self._parser = FrameParser(FRAME_MAX)
        self._outgoing: list[bytes] = []
        self._logging_in = False
        self._script: Script[None] | None = self._open()
        self._outgoing.append(next(self._script))

    def script(self) -> Script[None]:
        """What is to be said once the channel is open, before the peer is ready."""
        yield from ()

    def run_script(self, script: Script[None]) -> None:
        """Have a conversation; `ready` is false until it is over."""
        self.ready = False
        self._script = script
        try:
            self._outgoing.append(next(script))
        except StopIteration:
            self._script, self.ready = None, True

    def _open(self) -> Script[None]:
        login = self.login
        yield from say(PROTOCOL_HEADER, methods.ConnectionStart)
        self._logging_in = True
        start = methods.ConnectionStartOk(
            client_properties={
                "product": "rabbitish perf",
                "version": __version__,
                "capabilities": dict.fromkeys(_CAPABILITIES, True),
            },
            mechanism="PLAIN",
            response=f"\0{login.user}\0{login.password}".encode(),
        )
        tune = yield from ask(start, methods.ConnectionTune, 0)
        self._logging_in = False
        self.frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
        # No heartbeats: a stalled broker is what a load test may well be about.
        limits = methods.ConnectionTuneOk(channel_max=tune.channel_max, frame_max=self.frame_max, heartbeat=0)
        opening = limits.frame(0) + methods.ConnectionOpen(virtual_host=login.vhost).frame(0)
        yield from say(opening, methods.ConnectionOpenOk)
        yield from ask(methods.ChannelOpen(), methods.ChannelOpenOk)
        yield from self.script()

    # ---- in

    def receive(self, data: bytes, now: int) -> None:
        """Take what has come, at `now` (nanoseconds). PeerError: it ends the peer, or makes no sense."""
        self._parser.push(data)
        try:
            while True:
                if self.ready and not self.closing:
                    self.skim(now)
                frame = self._parser.next_frame()
                if frame is None:
                    return
                self._frame(*frame, now)
        except ConnectionFailure as failure:
            raise PeerError(f"what it sends is not AMQP 0-9-1 ({failure.detail})") from None

    def receive_eof(self) -> None:
        """The broker has ended the stream. PeerError: that was too early."""
        if self.closing:
            self.ended = True
        elif self._logging_in:
            raise PeerError("the broker closed the connection at the login; a wrong user or password?")
        else:
            raise PeerError("the broker closed the connection")

    def _frame(self, kind: int, channel: int, payload: bytes, now: int) -> None:
        if kind != FRAME_METHOD:
            if self.ready and not self.closing:
                self.on_content(kind, payload, now)
            return
        method = methods.decode_method(payload)
        if self.closing:
            self.ended = self.ended or isinstance(method, methods.ConnectionCloseOk | methods.ConnectionClose)
        elif isinstance(method, methods.ConnectionBlocked | methods.ConnectionUnblocked):
            self.blocked = isinstance(method, methods.ConnectionBlocked)
        elif self._script is not None:
            self._answer(method)
        elif isinstance(method, _REFUSED):
            raise Refused(method)
        else:
            self.on_method(method, payload, now)

    def _answer(self, method: Method) -> None:
        assert self._script is not None
        try:
            self._outgoing.append(self._script.send(method))
        except StopIteration:
            self._script, self.ready = None, True

    def skim(self, now: int) -> None:
        """Read frames that are known well straight from the parser. Called when it is between two frames."""

    def on_method(self, method: Method, payload: bytes, now: int) -> None:
        """A method that came when the peer was ready, and its frame's payload."""

    def on_content(self, kind: int, payload: bytes, now: int) -> None:
        """A header or body frame, when the peer was ready."""

    # ---- out

    def take(self, now: int) -> bytes:
        """What is to be sent now; empty for nothing."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def due(self, now: int) -> int | None:
        """When `take` will next have something by itself: now, later (nanoseconds), or None for not by itself."""
        return now if self._outgoing else None

    def close(self) -> None:
        """Say goodbye; `ended` is set when the broker has, too."""
        if not self.closing:
            self.closing = True
            close = methods.ConnectionClose(reply_code=200, reply_text="bye")
            self._outgoing.append(close.frame(0))
