"""A broker in this very trio program, and a client of few words to talk to it with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import trio
import trio.testing

from rabbitish.config import Settings
from rabbitish.server.node import Node, run
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_HEARTBEAT, FRAME_METHOD, PROTOCOL_HEADER, FrameParser, content_frames
from rabbitish.wire.method import Method
from rabbitish.wire.properties import Properties

M = TypeVar("M", bound=Method)

PATIENCE_SECONDS = 20
GUEST = b"\0guest\0guest"


class Running:
    """A broker, where it listens, and the event that stops it."""

    def __init__(self, node: Node, urls: list[str], stop: trio.Event) -> None:
        self.node = node
        self.host = urlsplit(urls[0]).hostname or ""
        self.ports = [urlsplit(url).port or 0 for url in urls]
        self.port = self.ports[0]
        self.stop = stop
        self.clients: list[Client] = []

    async def connect(self, **properties: object) -> Client:
        """A client whose connection and channel 1 are open."""
        client = await self.open()
        await client.handshake(**properties)
        return client

    async def open(self) -> Client:
        """A client that has not said anything yet."""
        client = Client(await trio.open_tcp_stream(self.host, self.port))
        self.clients.append(client)
        return client


class Client:
    """Sends methods, and takes what comes one frame at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._parser = FrameParser(0)

    async def handshake(self, heartbeat: int = 0, capabilities: tuple[str, ...] = ()) -> None:
        await self.stream.send_all(PROTOCOL_HEADER)
        await self.expect(methods.ConnectionStart)
        table = {"capabilities": dict.fromkeys(capabilities, True)}
        start = methods.ConnectionStartOk(client_properties=table, mechanism="PLAIN", response=GUEST, locale="en_US")
        await self.send(start, 0)
        tune = await self.expect(methods.ConnectionTune)
        limits = methods.ConnectionTuneOk(channel_max=tune.channel_max, frame_max=tune.frame_max, heartbeat=heartbeat)
        await self.send(limits, 0)
        await self.send(methods.ConnectionOpen(virtual_host="/"), 0)
        await self.expect(methods.ConnectionOpenOk)
        await self.ask(methods.ChannelOpen(), methods.ChannelOpenOk)

    async def send(self, method: Method, channel: int = 1) -> None:
        await self.stream.send_all(method.frame(channel))

    async def publish(self, queue: str, body: bytes, times: int = 1) -> None:
        frames = methods.BasicPublish(routing_key=queue).frame(1)
        frames += content_frames(1, 60, Properties().encode(), body, 131072)
        await self.stream.send_all(frames * times)

    async def frame(self) -> tuple[int, int, bytes] | None:
        """The next frame, None at the end of the stream."""
        while (frame := self._parser.next_frame()) is None:
            try:
                data = await self.stream.receive_some(1 << 20)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._parser.push(data)
        return frame

    async def expect(self, kind: type[M]) -> M:
        """The next method must be of this kind; content is passed over."""
        while True:
            frame = await self.frame()
            assert frame is not None, f"the connection ended before {kind.__name__}"
            if frame[0] == FRAME_METHOD:
                method = methods.decode_method(frame[2])
                assert isinstance(method, kind), f"wanted {kind.__name__}, got {method}"
                return method

    async def ask(self, method: Method, kind: type[M]) -> M:
        await self.send(method, 1)
        return await self.expect(kind)

    async def count_bodies(self, wanted: int) -> int:
        """Read until so many deliveries have come."""
        count = 0
        while count < wanted:
            frame = await self.frame()
            assert frame is not None, f"the connection ended after {count} of {wanted} deliveries"
            if frame[0] == FRAME_METHOD:
                assert isinstance(methods.decode_method(frame[2]), methods.BasicDeliver)
                count += 1
        return count

    async def ended(self) -> bool:
        """Nothing but heartbeats comes before the end of the stream."""
        while (frame := await self.frame()) is not None:
            if frame[0] != FRAME_HEARTBEAT:
                return False
        return True


@asynccontextmanager
async def broker(**settings: object) -> AsyncIterator[Running]:
    """A broker on a free port of the loopback."""
    stop = trio.Event()
    started: list[tuple[Node, list[str]]] = []
    listening = trio.Event()

    def ready(node: Node, urls: list[str]) -> None:
        started.append((node, urls))
        listening.set()

    # On a clock that runs a hundred times as fast a busy machine is slow at shaking hands.
    patience = {"shutdown_grace_ms": 100, "handshake_timeout_ms": 3_600_000}
    values = {"listen": ("amqp://127.0.0.1:0",), **patience, **settings}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, Settings(**values), ready, stop)  # type: ignore[arg-type]
        await listening.wait()
        node, urls = started[0]
        running = Running(node, urls, stop)
        yield running
        for client in running.clients:
            await client.stream.aclose()
        stop.set()


async def until(true: Callable[[], bool]) -> None:
    """Let the others go on until this is true."""
    while not true():  # noqa: ASYNC110 (there is no event for it)
        await trio.sleep(0.01)


def converse(conversation: Callable[[], Awaitable[None]], faster: int = 1) -> None:
    """Run a conversation; time goes `faster` times as fast as on the wall."""

    async def with_patience() -> None:
        with trio.fail_after(PATIENCE_SECONDS * faster):
            await conversation()

    clock = trio.testing.MockClock(rate=faster) if faster > 1 else None
    trio.run(with_patience, clock=clock)
