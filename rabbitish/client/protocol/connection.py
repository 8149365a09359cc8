"""One connection as a state machine: bytes come in, bytes to send go out; channels live in it until it ends.

Logging in is a script: a generator that yields bytes and is sent the method that answers. After it, frames go to their
channels: deliveries and confirms through skim.py, everything else one by one. Whatever ends the connection ends it
once, in `end`, which tells every channel and everybody who waits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

from rabbitish import __version__
from rabbitish.client.errors import AuthenticationFailed, ClientError, ConnectionClosed, ConnectionLost, ProtocolError
from rabbitish.client.protocol.channel import ChannelState
from rabbitish.client.protocol.content import DEFAULT_SERIALISERS, Serialisers
from rabbitish.client.protocol.delivery import Delivery
from rabbitish.client.protocol.promise import Promise
from rabbitish.client.protocol.settling import Settling
from rabbitish.client.protocol.skim import skim
from rabbitish.client.protocol.uri import Parameters
from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.frames import (
    FRAME_END,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    HEARTBEAT,
    PROTOCOL_HEADER,
    FrameParser,
)
from rabbitish.wire.method import Method
from rabbitish.wire.table import encode_table

M = TypeVar("M", bound=Method)
T = TypeVar("T")
Script: TypeAlias = Generator[bytes, Method, T]

FRAME_MAX = 131_072
"""The largest frame that we take, unless asked for another; what RabbitMQ offers by default."""
_CHANNEL_MAX = 2047
_END = bytes((FRAME_END,))
_CAPABILITIES = (
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "exchange_exchange_bindings",
    "publisher_confirms",
)


def _nothing() -> None:
    pass


class Protocol:
    """The connection. `parameters` say who logs in, `properties` what the broker shows of us."""

    def __init__(
        self,
        parameters: Parameters,
        properties: Table | None = None,
        delivery_type: type[Delivery] = Delivery,
        serialisers: Serialisers = DEFAULT_SERIALISERS,
        frame_max: int = FRAME_MAX,
    ) -> None:
        self.parameters = parameters
        self.delivery_type = delivery_type
        self.serialisers = serialisers
        self.frame_max = frame_max
        self.frame_room = frame_max - FRAME_OVERHEAD
        self.channel_max = _CHANNEL_MAX
        self.heartbeat = 0
        """Seconds, as agreed; 0: none."""
        self.server_properties: Table = {}
        self.opened: Promise[None] = Promise()
        self.closed: Promise[None] = Promise()
        """Kept when the connection is over, for whatever reason; `error` says which."""
        self.error: ClientError | None = None
        self.closing = False
        self.blocked: str | None = None
        """Why the broker does not read from us for now; None: it does."""
        self.channels: dict[int, ChannelState] = {}
        self.addresses: dict[bytes, tuple[bool, str, str]] = {}
        self.parser = FrameParser(frame_max)
        self.on_output: Callable[[], None] = _nothing
        """Called when there is something to `take` again."""
        self.on_change: Callable[[], None] = _nothing
        """Called when a program that waits to send may want to look again: unblocked, flow, a channel's end."""
        self._properties = properties or {}
        self._out: list[bytes] = []
        self.out_bytes = 0
        self._quiet = True  # nothing to take, and on_output not called since
        self._acking: list[Settling] = []
        self._secrets: list[Promise[None]] = []
        self._logging_in = False
        self._script: Script[None] | None = self._open()
        self.write(next(self._script))

    # ---- out

    def write(self, data: bytes) -> None:
        """Send bytes: whole frames."""
        self._out.append(data)
        self.out_bytes += len(data)
        if self._quiet:
            self._quiet = False
            self.on_output()

    def write_content(self, beginning: bytes, body: bytes) -> None:
        """Send a message whose body is in one frame."""
        self._out += (beginning, body, _END)
        self.out_bytes += len(beginning) + len(body) + 1
        if self._quiet:
            self._quiet = False
            self.on_output()

    def will_ack(self, channel: Settling) -> None:
        """A channel has acknowledgements to write before the next bytes are taken."""
        self._acking.append(channel)
        if self._quiet:
            self._quiet = False
            self.on_output()

    def take(self) -> bytes:
        """What is to be sent now; empty for nothing."""
        if self._acking:
            for channel in self._acking:
                channel.flush_acks()
            self._acking.clear()
        out, self._out = self._out, []
        data = b"".join(out)
        self.out_bytes = 0
        self._quiet = True
        return data

    def beat(self) -> None:
        """Send a heartbeat."""
        self.write(HEARTBEAT)

    # ---- channels and the rest of what a program asks for

    def channel(self) -> ChannelState:
        """A channel with a free number, still to be opened. ConnectionClosed: there is none."""
        if self.error is not None:
            raise self.error.again()
        for number in range(1, self.channel_max + 1):
            if number not in self.channels:
                state = self.channels[number] = ChannelState(self, number)
                return state
        raise ConnectionClosed(f"all {self.channel_max} channels of the connection are in use")

    def forget(self, channel: ChannelState) -> None:
        """The number of a channel is free again."""
        if self.channels.get(channel.number) is channel:
            del self.channels[channel.number]

    def update_secret(self, secret: str, reason: str) -> Promise[None]:
        """Give the broker a fresh token."""
        promise: Promise[None] = Promise()
        if self.error is not None:
            promise.fail(self.error)
        else:
            self._secrets.append(promise)
            self.write(methods.ConnectionUpdateSecret(new_secret=secret.encode(), reason=reason).frame(0))
        return promise

    def close(self, code: int = 200, text: str = "bye") -> Promise[None]:
        """Say goodbye; kept when the broker has, too."""
        if self.error is None and not self.closing:
            if self._script is not None:  # nothing to say goodbye to
                self.end(ConnectionClosed("closed while it was being opened"))
                return self.closed
            for channel in self.channels.values():
                channel.flush_acks()
            self.closing = True
            self.write(methods.ConnectionClose(reply_code=code, reply_text=text).frame(0))
        return self.closed

    # ---- logging in

    def _open(self) -> Script[None]:
        start = _due((yield PROTOCOL_HEADER), methods.ConnectionStart)
        self.server_properties = start.server_properties
        self._logging_in = True
        reply = yield self._start_ok(start.mechanisms.decode("utf-8", "replace").split()).frame(0)
        if isinstance(reply, methods.ConnectionClose):
            raise AuthenticationFailed(reply.reply_text, reply.reply_code)
        tune = _due(reply, methods.ConnectionTune)
        self._logging_in = False
        yield from self._tune(tune)

    def _start_ok(self, offered: list[str]) -> methods.ConnectionStartOk:
        parameters = self.parameters
        responses = {
            "EXTERNAL": b"",
            "PLAIN": f"\0{parameters.user}\0{parameters.password}".encode(),
            "AMQPLAIN": encode_table({"LOGIN": parameters.user, "PASSWORD": parameters.password})[4:],
        }
        mechanism = next((name for name in parameters.auth_mechanisms if name in offered), None)
        if mechanism is None:
            wanted, there = ", ".join(parameters.auth_mechanisms), ", ".join(offered)
            raise AuthenticationFailed(f"the broker offers the mechanisms {there}, and not {wanted}")
        properties: Table = {
            "product": "rabbitish.client",
            "version": __version__,
            "platform": "Python, trio",
            "capabilities": dict.fromkeys(_CAPABILITIES, True),
            **self._properties,
        }
        return methods.ConnectionStartOk(
            client_properties=properties, mechanism=mechanism, response=responses[mechanism]
        )

    def _tune(self, tune: methods.ConnectionTune) -> Script[None]:
        parameters = self.parameters
        self.frame_max = min(tune.frame_max or self.frame_max, self.frame_max)
        self.frame_room = self.frame_max - FRAME_OVERHEAD
        self.parser.limit = self.frame_max
        wanted = parameters.channel_max or _CHANNEL_MAX
        self.channel_max = min(tune.channel_max or wanted, wanted)
        self.heartbeat = tune.heartbeat if parameters.heartbeat is None else parameters.heartbeat
        limits = methods.ConnectionTuneOk(
            channel_max=self.channel_max, frame_max=self.frame_max, heartbeat=self.heartbeat
        )
        reply = yield limits.frame(0) + methods.ConnectionOpen(virtual_host=parameters.vhost).frame(0)
        if isinstance(reply, methods.ConnectionClose) and reply.reply_code in (
            ReplyCode.NOT_ALLOWED,
            ReplyCode.ACCESS_REFUSED,
        ):
            raise AuthenticationFailed(reply.reply_text, reply.reply_code)
        _due(reply, methods.ConnectionOpenOk)

    # ---- in

    def receive(self, data: bytes) -> None:
        """Take what has come. Never raises: what makes no sense ends the connection."""
        if self.error is not None:
            return
        self.parser.push(data)
        try:
            while True:
                if not self.closing:
                    skim(self)
                frame = self.parser.next_frame()
                if frame is None or self.error is not None:
                    return
                self._frame(*frame)
        except ConnectionFailure as failure:
            self._refuse(ReplyCode.FRAME_ERROR, f"what the broker sends is not AMQP 0-9-1 ({failure.detail})")
        except ProtocolError as error:
            self._refuse(ReplyCode.UNEXPECTED_FRAME, str(error))

    def receive_eof(self) -> None:
        """The broker has ended the stream."""
        if self.closing:
            self.end(ConnectionClosed("the program closed the connection", 200))
        elif self._logging_in:
            # Old brokers refuse a login so; others say it with a close, which is asked for, so this may be the network.
            self.end(ConnectionLost("the broker ended the connection at the login; a wrong user or password?"))
        else:
            self.end(ConnectionLost("the broker ended the connection without a word"))

    def _refuse(self, code: int, text: str) -> None:
        """What came cannot be understood: say so, and have done with it."""
        self.write(methods.ConnectionClose(reply_code=code, reply_text=text[:255]).frame(0))
        self.end(ProtocolError(text))

    def _frame(self, kind: int, number: int, payload: bytes) -> None:
        if kind == FRAME_HEARTBEAT:
            return
        if number and self.closing:
            return  # was on its way when we said goodbye
        if number:
            channel = self.channels.get(number)
            if channel is None:
                raise ProtocolError(f"a frame came on channel {number}, which is not open")
            if kind != FRAME_METHOD:
                channel.on_content(kind, payload)
            else:
                channel.on_method(methods.decode_method(payload))
        elif kind == FRAME_METHOD:
            self._method(methods.decode_method(payload))
        else:
            raise ProtocolError("content came on channel 0")

    def _method(self, method: Method) -> None:
        if self.closing:
            if isinstance(method, methods.ConnectionCloseOk | methods.ConnectionClose):
                self.end(ConnectionClosed("the program closed the connection", 200))
        elif self._script is not None:
            self._answer(method)
        elif isinstance(method, methods.ConnectionClose):
            self._closed_by_broker(method)
        elif isinstance(method, methods.ConnectionBlocked):
            self.blocked = method.reason
            self.on_change()
        elif isinstance(method, methods.ConnectionUnblocked):
            self.blocked = None
            self.on_change()
        elif isinstance(method, methods.ConnectionUpdateSecretOk) and self._secrets:
            self._secrets.pop(0).keep(None)
        else:
            raise ProtocolError(f"{method.name} came and was not asked for")

    def _answer(self, method: Method) -> None:
        assert self._script is not None
        try:
            self.write(self._script.send(method))
        except StopIteration:
            self._script = None
            self.opened.keep(None)
        except ConnectionClosed as error:
            if isinstance(method, methods.ConnectionClose):
                self.write(methods.ConnectionCloseOk().frame(0))
            self.end(error)

    def _closed_by_broker(self, close: methods.ConnectionClose) -> None:
        self.write(methods.ConnectionCloseOk().frame(0))
        kind = ConnectionLost if close.reply_code == ReplyCode.CONNECTION_FORCED else ConnectionClosed
        self.end(kind(close.reply_text, close.reply_code))

    def end(self, error: ClientError) -> None:
        """The connection is over."""
        if self.error is not None:
            return
        self.error = error
        self._script = None
        self.opened.fail(error)
        for promise in self._secrets:
            promise.fail(error)
        for channel in list(self.channels.values()):
            channel.connection_ended(error)
        self.closed.keep(None)
        self.on_change()


def _due(method: Method, kind: type[M]) -> M:
    if isinstance(method, kind):
        return method
    if isinstance(method, methods.ConnectionClose):
        raise ConnectionClosed(method.reply_text, method.reply_code)
    raise ProtocolError(f"the broker answered with {method.name} where {kind.name} was due")
