"""Nodes of a cluster as far as clients meet them: fronts on real sockets, links between them, a broker that leads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from rabbitish.cluster.links import Links
from rabbitish.cluster.protocol.frames import Relay
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.cluster.relay import open_relay
from rabbitish.config import Settings
from rabbitish.server.certificates import Certificates
from rabbitish.server.front import Front, Leader
from rabbitish.server.link_tls import LinkTls
from rabbitish.server.listener import open_listeners
from rabbitish.server.node import Node
from tests.server.support import Client

SECRET = b"the secret of the links"


class FrontNode:
    """A front that listens, and the links that it shares."""

    def __init__(self, name: str, secret: bytes = SECRET, **settings: object) -> None:
        values = {"listen": ("amqp://127.0.0.1:0",), **settings}
        self.settings = Settings(**values)  # type: ignore[arg-type]
        self.name = name
        self.certificates = Certificates(self.settings) if self.settings.uses_tls else None
        self.secure = LinkTls(self.settings) if self.settings.secures_links else None
        self.front = Front(
            self.settings,
            lambda address, relay: open_relay(address, secret, relay, self.secure),
            certificates=self.certificates,
        )
        self.noted: list[tuple[str, dict[str, object]]] = []
        self.ports: list[int] = []
        self.asked = 0
        self.links: tuple[str, int] = ("", 0)
        self._secret = secret
        self._clients: list[Client] = []

    def leader(self, epoch: int = 1) -> Leader:
        """What others know of this node when it leads."""
        return Leader(self.name, self.links, epoch)

    async def open(self, at: int = 0) -> Client:
        """A client of one of the listeners, which has not said anything."""
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.ports[at]))
        self._clients.append(client)
        return client

    async def connect(self) -> Client:
        client = await self.open()
        await client.handshake()
        return client

    async def _relayed(self, stream: trio.abc.Stream, relay: Relay) -> None:
        self.asked += 1
        await self.front.relayed(stream, relay)

    def _note(self, event: str, details: dict[str, object]) -> None:
        self.noted.append((event, details))

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        shared = Links(self._secret, Timing(), lambda replica: None, self._relayed, self._note, self.secure)
        (links,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.links = links.socket.getsockname()[:2]
        listeners = open_listeners(self.settings)
        self.ports = [opened.address.port for opened in listeners]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, shared.accept, [links]))
            nursery.start_soon(self.front.run, listeners)
            task_status.started()

    async def close(self) -> None:
        for client in self._clients:
            await client.stream.aclose()


@asynccontextmanager
async def fronts(*nodes: FrontNode) -> AsyncIterator[None]:
    """Have them run."""
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
        yield
        for node in nodes:
            await node.close()
        nursery.cancel_scope.cancel()


def leads(node: FrontNode, broker: Node, *mirrors: FrontNode, epoch: int = 1) -> None:
    """A node leads with a broker, and these know it."""
    node.front.serve(broker)
    for mirror in mirrors:
        mirror.front.follow(node.leader(epoch))
