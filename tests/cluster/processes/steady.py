"""Clients that must not be disconnected: one connection each, which publishes and consumes until it is told to stop.

Whatever ends the connection ends the run. On each there is a queue of all, with confirms and acknowledgements, and an
exclusive one under a name that a leader made up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from rabbitish.client import Channel, Queue, connect

from .clients import WORK
from .ledger import Ledger
from .patience import until

_HEARTBEAT_SECONDS = 2  # well below what it takes to replace a leader that is frozen


class Steady:
    """One client, connected to one node for good."""

    def __init__(self, name: str, uri: str, ledger: Ledger) -> None:
        self.name = name
        self.ledger = ledger
        self.confirmed = 0
        self.own = 0
        """What came through the exclusive queue."""
        self.longest = 0.0
        """That a publish took, in seconds."""
        self._uri = uri
        self._stop = trio.Event()

    def stop(self) -> None:
        """Publish no more, and hang up when what was published has come."""
        self._stop.set()

    async def run(self) -> None:
        """Until it is stopped. ClientError: it was disconnected."""
        async with (
            connect(f"{self._uri}?heartbeat={_HEARTBEAT_SECONDS}") as connection,
            connection.channel() as channel,
        ):
            own = await channel.declare_queue("", exclusive=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._consume, channel.queue(WORK))
                nursery.start_soon(self._consume_own, own)
                await self._publish(channel, own.queue)
                nursery.cancel_scope.cancel()

    async def _publish(self, channel: Channel, own: str) -> None:
        while not self._stop.is_set():
            message, body = self.ledger.attempt(self.name)
            began = trio.current_time()
            await channel.publish(body, routing_key=WORK, mandatory=True)
            took = trio.current_time() - began
            self.ledger.confirm(message, trio.current_time(), took)
            self.confirmed += 1
            self.longest = max(self.longest, took)
            await channel.publish(b"own", routing_key=own, mandatory=True)
            await trio.sleep(0.005)

    async def _consume(self, queue: Queue) -> None:
        async with queue.consume(prefetch=10) as messages:
            async for message in messages:
                self.ledger.receive(message.body, redelivered=message.redelivered)
                message.ack()

    async def _consume_own(self, queue: Queue) -> None:
        async with queue.consume() as messages:
            async for message in messages:
                self.own += 1
                message.ack()


async def go_on(clients: list[Steady], since: int = 30) -> None:
    """Wait until all have published and got so many more."""
    wanted = [(client, client.confirmed + since, client.own + since) for client in clients]
    await until(
        "all go on", lambda: all(client.confirmed >= confirms and client.own >= own for client, confirms, own in wanted)
    )


@asynccontextmanager
async def steady(uris: dict[str, str], ledger: Ledger) -> AsyncIterator[list[Steady]]:
    """A block with a client at each of these nodes, at work from the beginning to the end of it."""
    clients = [Steady(f"s-{name}", uri, ledger) for name, uri in uris.items()]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.run)
        await go_on(clients)
        yield clients
        for client in clients:
            client.stop()
