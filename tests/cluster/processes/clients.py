"""Clients at work on a cluster: publishers with confirms and consumers that acknowledge, which never give up.

Each is connected to one node at a time and goes to the next one when it is disconnected, or when nothing has happened
for longer than it has patience. What they do goes into the ledger. With dead letters the messages go through two
queues: they are rejected in the first, or expire there, and count when they come out of the second.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

from rabbitish.client import (
    Channel,
    ClientError,
    Connection,
    ConnectionClosed,
    IncomingMessage,
    PublishUnconfirmed,
    connect,
    queue_arguments,
)

from .ledger import Ledger
from .patience import Impatient, until

WORK, DEAD = "work", "dead"
KINDS = ("get", "consume", "mixed")
_AGAIN_SECONDS = 0.03
_HELD = 5  # deliveries are acknowledged so many at a time, so that a failover finds some unsettled
_TTL_MS = 1_000
Work = Callable[[str, Connection], Awaitable[None]]
_OPTIONS = "?heartbeat=2&connection_timeout=3000"


class Load:
    """Publishers and consumers; `at_work` makes them."""

    def __init__(
        self,
        ledger: Ledger,
        uris: list[str],
        *,
        kind: str = "consume",
        dead_letter: bool = False,
        publishers: int = 3,
        consumers: int = 3,
        streams: int = 3,
        pause: float = 0.01,
        patience: float = 6.0,
        single_active: bool = False,
        queue_type: str | None = None,
    ) -> None:
        self.ledger = ledger
        self._uris = uris
        self._kind = kind
        self._dead_letter = dead_letter
        self._counts = (publishers, consumers)
        self._streams = streams
        self._pause = pause
        self._patience = patience
        self._single_active = single_active
        self._queue_type = queue_type
        self._publishing = trio.CancelScope()
        self._consuming = trio.CancelScope()
        self._consumed = trio.Event()

    async def declare(self) -> None:
        """Have the queues."""
        more: dict[str, object] = {"x-queue-type": self._queue_type} if self._queue_type else {}
        if self._single_active:
            more["x-single-active-consumer"] = True
        work = queue_arguments(more=more)  # type: ignore[arg-type]
        if self._dead_letter:
            work = queue_arguments(
                message_ttl=_TTL_MS,
                dead_letter_exchange="",
                dead_letter_routing_key=DEAD,
                more=more,  # type: ignore[arg-type]
            )

        async def both(channel: Channel) -> None:
            await channel.declare_queue(WORK, durable=True, arguments=work)
            if self._dead_letter:
                await channel.declare_queue(DEAD, durable=True)

        await self.insist(both)

    async def insist(self, action: Callable[[Channel], Awaitable[None]], seconds: float = 40) -> None:
        """Do something on a channel of any node, again until it has been done."""
        with trio.fail_after(seconds):
            for uri in itertools.cycle(self._uris):
                try:
                    async with connect(uri + _OPTIONS) as connection, connection.channel() as channel:
                        with trio.fail_after(self._patience):
                            await action(channel)
                    return
                except (ClientError, trio.TooSlowError) as error:
                    self.ledger.troubles[type(error).__name__] += 1
                    await trio.sleep(_AGAIN_SECONDS)

    def start(self, nursery: trio.Nursery) -> None:
        """Let them begin."""
        publishers, consumers = self._counts
        publish = [(f"p{number}", number, self._publish) for number in range(publishers)]
        consume = [
            (f"c{number}", number + 1, partial(self._take_from, queue, number))
            for number in range(consumers)
            for queue in self._queues
        ]
        nursery.start_soon(self._crowd, self._publishing, publish, trio.Event())
        nursery.start_soon(self._crowd, self._consuming, consume, self._consumed)

    @property
    def _queues(self) -> tuple[str, ...]:
        return (WORK, DEAD) if self._dead_letter else (WORK,)

    async def _crowd(self, scope: trio.CancelScope, lives: Sequence[tuple[str, int, Work]], over: trio.Event) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for life in lives:
                    nursery.start_soon(self._live, *life)
        over.set()

    async def _live(self, name: str, first: int, work: Work) -> None:
        """Connect, work until something goes wrong, and go on elsewhere."""
        for number in itertools.count():
            try:
                async with connect(self._uris[(first + number) % len(self._uris)] + _OPTIONS) as connection:
                    await work(f"{name}.{number}", connection)
            except (ClientError, trio.TooSlowError) as error:
                self._note(error)
            await trio.sleep(_AGAIN_SECONDS)

    def _note(self, error: Exception) -> None:
        lost = isinstance(error, ConnectionClosed | PublishUnconfirmed | trio.TooSlowError)
        (self.ledger.troubles if lost else self.ledger.refused)[f"{type(error).__name__}: {error}"[:120]] += 1

    # ---- publishing

    async def _publish(self, name: str, connection: Connection) -> None:
        async with connection.channel() as channel, trio.open_nursery() as nursery:
            for number in range(self._streams):
                nursery.start_soon(self._stream, f"{name}.{number}", channel, nursery.cancel_scope)

    async def _stream(self, stream: str, channel: Channel, all_of_them: trio.CancelScope) -> None:
        """One message after the other; the first trouble ends all streams of the connection."""
        try:
            while True:
                message, body = self.ledger.attempt(stream)
                began = trio.current_time()
                with trio.fail_after(self._patience):
                    await channel.publish(body, routing_key=WORK)
                now = trio.current_time()
                self.ledger.confirm(message, now, now - began)
                await trio.sleep(self._pause)
        except (ClientError, trio.TooSlowError) as error:
            self._note(error)
            all_of_them.cancel()

    # ---- consuming

    async def _take_from(self, queue: str, number: int, _: str, connection: Connection) -> None:
        get = self._kind == "get" or (self._kind == "mixed" and number % 2 == 0)
        async with connection.channel() as channel:
            await (self._get(channel, queue) if get else self._consume(channel, queue))

    async def _consume(self, channel: Channel, queue: str) -> None:
        held: list[IncomingMessage] = []
        async with channel.queue(queue).consume(prefetch=20) as messages:
            while True:
                got = None
                with trio.move_on_after(self._patience / 4):
                    got = await anext(messages)
                if got is not None:
                    held.append(got)
                    self._take(got, queue)
                if len(held) >= _HELD or got is None:
                    while held:
                        self._settle(held.pop(0), queue)

    async def _get(self, channel: Channel, queue: str) -> None:
        source = channel.queue(queue)
        while True:
            with trio.fail_after(self._patience):
                got = await source.get()
            if got is None:
                await trio.sleep(0.02)
            else:
                self._take(got, queue)
                self._settle(got, queue)

    def _take(self, message: IncomingMessage, queue: str) -> None:
        if queue == DEAD or not self._dead_letter:
            self.ledger.receive(message.body, redelivered=message.redelivered)

    def _settle(self, message: IncomingMessage, queue: str) -> None:
        if queue == DEAD or not self._dead_letter:
            message.ack()
        else:
            message.reject(requeue=False)

    # ---- the end

    def stop_publishing(self) -> None:
        """Nothing more is sent."""
        self._publishing.cancel()

    async def drain(self, seconds: float = 60) -> None:
        """Stop publishing, let consumers go on until nothing that was confirmed is missing, and take what is left."""
        self.stop_publishing()
        if self._counts[1]:
            with suppress(Impatient):  # the emptying tells what is lost
                await until("nothing is missing", lambda: not self.ledger.missing, seconds / 2)
        self._consuming.cancel()
        await self._consumed.wait()
        await self.insist(self.empty, seconds)

    async def empty(self, channel: Channel) -> None:
        """Take all there is, until for a moment nothing comes."""
        quiet_since = trio.current_time()
        while trio.current_time() - quiet_since < 0.3:
            for queue in self._queues:
                while (got := await channel.queue(queue).get()) is not None:
                    self.ledger.receive(got.body, redelivered=got.redelivered)
                    got.ack()
                    quiet_since = trio.current_time()
            await trio.sleep(0.05)
        for queue in self._queues:
            left = await channel.declare_queue(queue, passive=True)
            assert left.message_count == 0, f"{queue} has {left.message_count} messages that nobody gets"


@asynccontextmanager
async def at_work(load: Load) -> AsyncIterator[Load]:
    """A block during which they work; it begins when something has been confirmed, and ends when all is drained."""
    await load.declare()
    async with trio.open_nursery() as nursery:
        load.start(nursery)
        await until("something is confirmed", lambda: load.ledger.confirmed >= 20)
        yield load
        await load.drain()
        nursery.cancel_scope.cancel()


async def confirms_again(load: Load, since: float | None = None) -> float:
    """Wait until something that was sent after a moment, by default now, has been confirmed; the seconds until then."""
    since = trio.current_time() if since is None else since
    first: list[float] = []

    def confirmed() -> bool:
        for when, _, took in reversed(load.ledger.confirms):
            if when < since:
                break
            if when - took >= since:
                first.append(when)
        return bool(first)

    await until("there are confirms again", confirmed)
    return first[-1] - since
