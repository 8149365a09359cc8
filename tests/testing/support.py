"""Clients of few words for a broker that runs in the test's own trio program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from rabbitish import testing
from tests.server.support import PATIENCE_SECONDS, Client


@asynccontextmanager
async def unspoken(broker: testing.Broker) -> AsyncIterator[Client]:
    """A client that has connected, and said nothing yet."""
    links = broker.bench.node.links
    before = len(links)
    async with await trio.open_tcp_stream(broker.host, broker.port) as stream:
        await broker.wait_until(lambda: len(links) > before)
        yield Client(stream)


@asynccontextmanager
async def connected(
    broker: testing.Broker, heartbeat: int = 0, capabilities: tuple[str, ...] = ()
) -> AsyncIterator[Client]:
    """A client whose connection and channel 1 are open."""
    async with await trio.open_tcp_stream(broker.host, broker.port) as stream:
        client = Client(stream)
        await client.handshake(heartbeat, capabilities)
        yield client


def converse(conversation: Callable[[], Awaitable[None]]) -> None:
    """Run a conversation, but not for ever."""

    async def with_patience() -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            await conversation()

    trio.run(with_patience)
