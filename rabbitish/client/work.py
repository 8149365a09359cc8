"""Work queues: jobs that are done at least once, tried again with growing pauses, and parked when they never work.

Around the queue `jobs` there are `jobs.retry.1000` and so on, one for each pause in milliseconds, in which failed jobs
wait for their time to live and then fall back into `jobs` as dead letters; and `jobs.parked`, where those end that
failed too often. A job moves by being published to the next queue and, once that is confirmed, acknowledged in the one
before: in a crash it may be there twice, never not at all.

The header x-retries counts how often it was tried again, x-error says why it failed last.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, Unpack

import trio

from rabbitish.client.channel import Channel
from rabbitish.client.connection import Connection
from rabbitish.client.errors import Poison, PublishUnconfirmed
from rabbitish.client.message import IncomingMessage
from rabbitish.client.pool import Pool, pool
from rabbitish.client.protocol.arguments import queue_arguments
from rabbitish.client.protocol.confirms import Publish
from rabbitish.client.protocol.content import MessageProperties
from rabbitish.client.queue import Queue
from rabbitish.client.waiting import wait
from rabbitish.values import Table

RETRIES = "x-retries"
ERROR = "x-error"
_LONGEST_ERROR = 1000


@dataclass(frozen=True)
class Backoff:
    """Pauses between tries, in seconds: `first`, then `factor` times the one before, up to `longest`; `retries` times.

    retries=0: what fails once is parked.
    """

    first: float = 1.0
    factor: float = 2.0
    longest: float = 3600.0
    retries: int = 5

    def milliseconds(self) -> list[int]:
        """The pauses, in order."""
        return [
            max(1, round(1000 * min(self.first * self.factor**number, self.longest))) for number in range(self.retries)
        ]


class WorkQueue:
    """A block with a work queue: `async with WorkQueue(connection, "jobs") as jobs`.

    All programs that use a queue must agree on `arguments`, which are for the queue itself (see `queue_arguments`); the
    backoff is the matter of the workers alone.
    """

    def __init__(
        self, connection: Connection, queue: str, *, backoff: Backoff | None = None, arguments: Table | None = None
    ) -> None:
        self.name = queue
        self.parked_name = f"{queue}.parked"
        self._connection = connection
        self._pauses = (backoff or Backoff()).milliseconds()
        self._arguments = arguments
        self._stack = contextlib.AsyncExitStack()
        self._channel: Channel

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._channel = await stack.enter_async_context(self._connection.channel())
            await self._channel.declare_queue(self.name, durable=True, arguments=self._arguments)
            await self._channel.declare_queue(self.parked_name, durable=True)
            for pause in set(self._pauses):
                back = queue_arguments(message_ttl=pause, dead_letter_exchange="", dead_letter_routing_key=self.name)
                await self._channel.declare_queue(self.retry_name(pause), durable=True, arguments=back)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    def retry_name(self, milliseconds: int) -> str:
        """The queue in which jobs wait so long."""
        return f"{self.name}.retry.{milliseconds}"

    @property
    def queue(self) -> Queue:
        """The queue itself, on the block's own channel."""
        return self._channel.queue(self.name)

    @property
    def parked(self) -> Queue:
        """Where jobs are that failed too often."""
        return self._channel.queue(self.parked_name)

    async def put(self, job: Any, **properties: Unpack[MessageProperties]) -> None:
        """Add a job, which is a body or a `Message`; it is safe with the broker when this returns.

        Raises as `Channel.publish`.
        """
        await self._channel.publish(job, routing_key=self.name, **properties)

    async def put_many(self, jobs: Iterable[Any] | AsyncIterable[Any], **properties: Unpack[MessageProperties]) -> int:
        """Add many; returns how many there were. Raises as `Channel.publish_many`."""
        return await self._channel.publish_many(jobs, routing_key=self.name, **properties)

    @contextlib.asynccontextmanager
    async def workers(
        self,
        handler: Callable[..., Any],
        *,
        count: int = 1,
        prefetch: int | None = None,
        pass_message: bool = False,
        drain_seconds: float = 30.0,
    ) -> AsyncIterator[Pool]:
        """A block during which `handler(job)` is called for each job, `count` at the same time.

        With `pass_message` it is `handler(job, message)`. It may be asynchronous. An exception has the job tried again
        later, or parked when that was often enough or it is `Poison`. `prefetch`: jobs that are fetched ahead, `count`
        unless given, so that they go to whichever program has a hand free. At the end of the block no more jobs are
        taken, and those in work have `drain_seconds` to end; others, and those of a cancelled block, go back. What the
        block is given says how many are in work: `working`.
        """

        async def handle(message: IncomingMessage) -> None:
            async with message.process(requeue=True, ignore_settled=True):
                try:
                    result = handler(message.value(), message) if pass_message else handler(message.value())
                    if inspect.isawaitable(result):
                        await result
                except Exception as error:  # noqa: BLE001 (whatever it is, it is about the job)
                    try:
                        await self._failed(message, error)
                    except PublishUnconfirmed:
                        message.reject(requeue=True)  # it comes again, and so may its copy

        async with (
            self._connection.channel() as channel,
            pool(
                channel.queue(self.name),
                handle,
                limiter=trio.CapacityLimiter(count),
                prefetch=count if prefetch is None else prefetch,
                drain_seconds=drain_seconds,
            ) as working,
        ):
            yield working

    async def _failed(self, message: IncomingMessage, error: Exception) -> None:
        """Have a job tried again later, or park it."""
        count = message.headers.get(RETRIES)
        retries = count if isinstance(count, int) else 0
        text = f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
        if isinstance(error, Poison) or retries >= len(self._pauses):
            await self._move(message, self.parked_name, {ERROR: text, RETRIES: retries})
        else:
            await self._move(message, self.retry_name(self._pauses[retries]), {ERROR: text, RETRIES: retries + 1})

    async def _move(self, message: IncomingMessage, queue: str, headers: Table) -> None:
        """Publish a copy to another queue of ours, and wait until it is safe there."""
        # Its own time to live would cut the pause short, and only who wrote it may say so in user_id.
        properties = replace(message.properties, headers={**message.headers, **headers}, expiration=None, user_id=None)
        state = await self._channel.sendable()
        publish = Publish("", queue, True, properties.encode(), message.body, retry=True)
        state.publish(publish)
        await wait(publish)

    async def redrive(self, limit: int | None = None) -> int:
        """Have parked jobs done again, with all their retries; returns how many. `limit`: so many at the most."""
        there = (await self._channel.declare_queue(self.parked_name, passive=True)).message_count
        most = there if limit is None else min(limit, there)
        count = 0
        while count < most and (message := await self.parked.get()) is not None:
            async with message.process(requeue=True):
                kept = {key: value for key, value in message.headers.items() if key not in (RETRIES, ERROR)}
                message.properties.headers = kept or None
                await self._move(message, self.name, {})
            count += 1
        return count
