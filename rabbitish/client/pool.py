"""Handlers at work on the messages of a queue, so many at a time, and how they stop.

At the end of the block no more messages come; those that handlers have in their hands are waited for, for some seconds
at the most. When the block is left by an error or cancelled, handlers are cancelled, and their messages go back.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from rabbitish.client.consumer import Consumer
from rabbitish.client.message import IncomingMessage
from rabbitish.client.queue import Queue
from rabbitish.client.waiting import background

Handle = Callable[[IncomingMessage], Awaitable[None]]


class Pool:
    """What is at work; `working` says how many messages are."""

    def __init__(self, handle: Handle, limiter: trio.CapacityLimiter) -> None:
        self.working = 0
        self._handle = handle
        self._limiter = limiter
        self._idle = trio.lowlevel.ParkingLot()

    async def run(self, messages: Consumer, nursery: trio.Nursery) -> None:
        """Give messages to handlers until there are no more. Raises as the consumer does."""
        async for message in messages:
            borrower = object()
            await self._limiter.acquire_on_behalf_of(borrower)
            if messages.closed:  # while this one waited for its turn
                self._limiter.release_on_behalf_of(borrower)
                message.reject(requeue=True)
                break
            self.working += 1
            nursery.start_soon(self._work, message, borrower)

    async def _work(self, message: IncomingMessage, borrower: object) -> None:
        try:
            await self._handle(message)
        finally:
            self._limiter.release_on_behalf_of(borrower)
            self.working -= 1
            if not self.working:
                self._idle.unpark_all()

    async def idle(self) -> None:
        """Wait until no handler is at work."""
        while self.working:
            await self._idle.park()


@contextlib.asynccontextmanager
async def pool(
    queue: Queue, handle: Handle, *, limiter: trio.CapacityLimiter, prefetch: int, drain_seconds: float
) -> AsyncIterator[Pool]:
    """A block during which handlers work on the queue's messages, as many at a time as the limiter lets.

    `handle` settles its message, and an exception of its own ends the block. Raises as a consumer does.
    """
    async with background() as nursery:
        working = Pool(handle, limiter)
        async with queue.consume(prefetch=prefetch) as messages:
            nursery.start_soon(working.run, messages, nursery)
            yield working
        with trio.move_on_after(drain_seconds):
            await working.idle()
