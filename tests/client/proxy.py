"""A proxy between client and broker: it passes bytes on until told to hold them back, to cut, or to half-close."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio

from .support import broker


class Proxy:
    """What listens on `port` and leads to the broker."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.connections = 0
        self.refusing = False
        """New connections are closed at once."""
        self.pass_up = trio.Event()
        """Set while what the client says is passed on."""
        self.pass_down = trio.Event()
        """Set while what the broker says is passed on."""
        self.pass_up.set()
        self.pass_down.set()
        self.pieces: int | None = None
        """What is passed on comes in pieces of so many bytes."""
        self.delay = 0.0
        """Seconds that everything takes longer."""
        self.swallow: bytes | None = None
        """What the broker says at once with these bytes in it is not passed on."""
        self.swallowed = 0
        self._target = (host, port)
        self.keep_upper = False
        """A cut leaves the broker's side open, as if the broker had not noticed."""
        self._open: set[trio.SocketStream] = set()
        self._upper: set[trio.SocketStream] = set()

    @property
    def uri(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    async def cut(self) -> None:
        """Close all connections on both sides, and pass on no more of them."""
        for stream in [*self._open, *([] if self.keep_upper else self._upper)]:
            await trio.aclose_forcefully(stream)

    async def half_close(self) -> None:
        """End all streams towards clients, and go on passing up what they say."""
        for stream in list(self._open):
            try:
                await stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    def hold_up(self) -> None:
        self.pass_up = trio.Event()

    def hold_down(self) -> None:
        self.pass_down = trio.Event()

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._connection, listeners)

    async def _connection(self, client: trio.SocketStream) -> None:
        if self.refusing:
            return
        self.connections += 1
        async with client, await trio.open_tcp_stream(*self._target) as server:
            self._open.add(client)
            self._upper.add(server)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass, client, server, "pass_up", nursery)
                nursery.start_soon(self._pass, server, client, "pass_down", nursery)
            self._open.remove(client)
            while self.keep_upper:  # noqa: ASYNC110 (no event)
                await trio.sleep(0.005)
            self._upper.remove(server)

    async def _pass(
        self, source: trio.SocketStream, target: trio.SocketStream, gate: str, nursery: trio.Nursery
    ) -> None:
        try:
            while data := await source.receive_some():
                await getattr(self, gate).wait()
                if self.swallow is not None and gate == "pass_down" and self.swallow in data:
                    self.swallowed += 1
                    continue
                await trio.sleep(self.delay)
                pieces = self.pieces or len(data)
                for start in range(0, len(data), pieces):
                    await target.send_all(data[start : start + pieces])
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxy]:
    """A broker behind a proxy."""
    async with broker() as uri:
        parts = urlsplit(uri)
        proxy = Proxy(parts.hostname or "", parts.port or 5672)
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.serve)
            yield proxy
            nursery.cancel_scope.cancel()
