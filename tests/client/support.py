"""A broker for the client to talk to: ours, in the same trio program, or with RABBITISH_CLIENT_BROKER the one there.

Names of queues and exchanges carry a prefix of their own test, so that a broker that others use too will do.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from rabbitish.client import Channel, Connection, IncomingMessage, Queue, connect
from tests.server.support import broker as in_process

PATIENCE_SECONDS = 20
OUTSIDE = os.environ.get("RABBITISH_CLIENT_BROKER")
"""The URI of a broker to run the tests against; without it each test has one of ours."""
ours_only = pytest.mark.skipif(OUTSIDE is not None, reason="time that goes faster is for a broker in the same program")
_names = itertools.count(1)


@asynccontextmanager
async def broker() -> AsyncIterator[str]:
    """The URI of a broker."""
    if OUTSIDE is not None:
        yield OUTSIDE
        return
    async with in_process(ephemeral=True) as running:
        yield f"amqp://guest:guest@{running.host}:{running.port}/"


@asynccontextmanager
async def connected() -> AsyncIterator[Connection]:
    """A connection to a broker."""
    async with broker() as uri, connect(uri) as connection:
        yield connection


@asynccontextmanager
async def channel() -> AsyncIterator[Channel]:
    """A channel to a broker."""
    async with connected() as connection, connection.channel() as opened:
        yield opened


def name() -> str:
    """A name that no other test uses."""
    return f"test-client-{os.getpid()}-{next(_names)}"


async def new_queue(opened: Channel, *bodies: bytes, **options: object) -> Queue:
    """A queue for this test, with these messages in it."""
    queue = await opened.declare_queue(name(), exclusive=True, **options)  # type: ignore[arg-type]
    if bodies:
        await opened.publish_many(bodies, routing_key=queue.queue)
    return queue


def run(conversation: Callable[[], Awaitable[None]], faster: int = 1) -> None:
    """Run a conversation; time goes `faster` times as fast as on the wall."""

    async def with_patience() -> None:
        with trio.fail_after(PATIENCE_SECONDS * faster):
            await conversation()

    trio.run(with_patience, clock=trio.testing.MockClock(rate=faster) if faster > 1 else None)


async def soon(queue: Queue, *, no_ack: bool = False) -> IncomingMessage:
    """A message from a queue, which comes back to it in a moment: RabbitMQ takes its time with that."""
    while (message := await queue.get(no_ack=no_ack)) is None:  # noqa: ASYNC110 (there is no event for it)
        await trio.sleep(0.01)
    return message


async def count(opened: Channel, queue: str) -> int:
    """How many messages are ready in a queue."""
    return (await opened.declare_queue(queue, passive=True)).message_count
