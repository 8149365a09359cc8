"""The world of a conversation: a broker, connections to it, its time, and boxes in which callbacks leave what they got.

On our broker time is virtual: an hour passes by `later(3600)`, for the broker and for timers in the program. Another
broker's cannot be moved, so there `seconds(3600)` is a moment, and whoever waits for what comes of it really waits.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio
import trio.testing

from rabbitish import testing
from rabbitish.client import Channel, Connection, IncomingMessage, connect
from rabbitish.client.protocol.topology import Topology

Running = tuple[str, testing.RunningBroker | None]
PATIENCE_SECONDS = 20
_MOMENT_SECONDS = 0.1
_PAUSE_SECONDS = 0.005


class World:
    """See the module."""

    def __init__(self, outside: str | None) -> None:
        self.broker: testing.Broker | None = None
        """Ours, if it is."""
        self.url = outside or ""
        self._outside = outside
        self._clock = trio.testing.MockClock(rate=1)
        self._patience = trio.CancelScope()
        self._topologies: list[Topology] = []

    def run(self, test: Callable[..., Awaitable[None]], arguments: dict[str, Any]) -> None:
        """Run a test in this world, but not for ever, and leave nothing behind."""

        async def conversation() -> None:
            async with AsyncExitStack() as stack:
                if self._outside is None:
                    self.broker = await stack.enter_async_context(testing.broker(frozen=True))
                    self.url = self.broker.url
                stack.push_async_callback(self._tidy_up)
                self._patience.deadline = trio.current_time() + PATIENCE_SECONDS
                with self._patience:
                    await test(**arguments)
                assert not self._patience.cancelled_caught, f"not done after {PATIENCE_SECONDS} s"

        trio.run(conversation, clock=self._clock if self._outside is None else None)

    @asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator[Connection]:
        """A connection; what is declared on it is deleted after the test."""
        async with connect(self.url, **options) as connection:
            self._topologies.append(connection.topology)
            yield connection

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        """A channel on a connection of its own."""
        async with self.connect() as connection, connection.channel() as channel:
            yield channel

    async def _tidy_up(self) -> None:
        if self._outside is not None:
            names = {name for each in self._topologies for name in (*each.queues, *each.exchanges)}
            await delete(self.url, names)

    # ---- time

    def seconds(self, virtual: float) -> float:
        """How long it may take in this world."""
        return virtual if self._outside is None else _MOMENT_SECONDS

    async def later(self, virtual: float) -> None:
        """Let so much time pass, for the broker and for timers here; or nothing, where it passes by itself."""
        if self.broker is not None:
            await trio.testing.wait_all_tasks_blocked()
            self._patience.deadline += virtual
            await self.broker.advance(virtual)
            self._clock.jump(virtual)

    async def moment(self) -> None:
        """Let others go on."""
        await trio.sleep(_PAUSE_SECONDS)

    async def until(self, true: Callable[[], Awaitable[object]]) -> None:
        """Wait for what nobody tells: the state of another broker's queues."""
        while not await true():
            await self.moment()

    async def ready(self, queue: str, number: int) -> None:
        """Wait until so many messages are ready in a queue."""
        async with self.channel() as channel:
            await self.until(lambda: self._has(channel, queue, number))

    async def _has(self, channel: Channel, queue: str, number: int) -> bool:
        return (await channel.declare_queue(queue, passive=True)).message_count == number


class Box:
    """A callback that keeps its arguments (one as it is, more as a tuple), to be taken one after the other."""

    def __init__(self) -> None:
        self._in, self._out = trio.open_memory_channel[Any](math.inf)

    def __call__(self, *arguments: Any) -> None:
        self._in.send_nowait(arguments[0] if len(arguments) == 1 else arguments)

    async def next(self) -> Any:
        """The next one, waited for."""
        return await self._out.receive()

    async def take(self, number: int) -> list[Any]:
        """The next so many."""
        return [await self.next() for _ in range(number)]

    @property
    def waiting(self) -> int:
        """How many nobody has taken."""
        return self._out.statistics().current_buffer_used


async def get(channel: Channel, queue: str) -> IncomingMessage:
    """Take a message that is there, or comes back in a moment; not acknowledged yet."""
    while (message := await channel.queue(queue).get()) is None:  # noqa: ASYNC110 (there is no event for it)
        await trio.sleep(_PAUSE_SECONDS)
    return message


async def delete(url: str, names: Iterable[str]) -> None:
    """Delete queues and exchanges, whichever of the two a name is."""
    async with connect(url) as connection, connection.channel() as channel:
        for name in names:
            if not name.startswith("amq."):
                await channel.queue(name).delete()
                await channel.exchange(name).delete()
