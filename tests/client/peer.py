"""The broker's side of a conversation with the pure half: methods in, methods out, no socket."""

from __future__ import annotations

from rabbitish.client import Parameters
from rabbitish.client.message import IncomingMessage
from rabbitish.client.protocol.channel import ChannelState
from rabbitish.client.protocol.connection import Protocol
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_METHOD, PROTOCOL_HEADER, FrameParser, content_frames
from rabbitish.wire.method import Method
from rabbitish.wire.properties import Properties

RAW = Properties().encode()


class Broker:
    """What the client says comes out of `said`; `say` answers."""

    def __init__(self, parameters: Parameters | None = None, **options: object) -> None:
        self.protocol = Protocol(parameters or Parameters(), delivery_type=IncomingMessage, **options)  # type: ignore[arg-type]
        self._parser = FrameParser(0)
        assert self.protocol.take() == PROTOCOL_HEADER

    def say(self, *said: Method, channel: int = 0) -> None:
        """Send methods, in one piece."""
        self.protocol.receive(b"".join(method.frame(channel) for method in said))

    def frames(self) -> list[tuple[int, int, bytes]]:
        """What the client said since the last time."""
        return list(self._parser.feed(self.protocol.take()))

    def said(self) -> list[Method]:
        """The methods in it."""
        return [methods.decode_method(payload) for kind, _, payload in self.frames() if kind == FRAME_METHOD]

    def start(self, mechanisms: bytes = b"PLAIN AMQPLAIN") -> methods.ConnectionStartOk:
        """Let the client say who it is."""
        self.say(methods.ConnectionStart(server_properties={"product": "x"}, mechanisms=mechanisms))
        (start_ok,) = self.said()
        assert isinstance(start_ok, methods.ConnectionStartOk)
        return start_ok

    def open(self, heartbeat: int = 60, frame_max: int = 131_072, channel_max: int = 2047) -> list[Method]:
        """Log the client in; what it says to the limits."""
        self.start()
        self.say(methods.ConnectionTune(channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat))
        said = self.said()
        self.say(methods.ConnectionOpenOk())
        assert self.protocol.opened.done
        return said

    def channel(self, *, confirms: bool = False) -> ChannelState:
        """An open channel."""
        state = self.protocol.channel()
        opened = state.open(confirms=confirms)
        self.said()
        self.say(methods.ChannelOpenOk(), channel=state.number)
        if confirms:
            self.say(methods.ConfirmSelectOk(), channel=state.number)
        assert opened.done
        return state


def content(channel: int, method: Method, body: bytes, properties: bytes = RAW, frame_max: int = 131_072) -> bytes:
    """A method with its content."""
    return method.frame(channel) + content_frames(channel, 60, properties, body, frame_max)
