"""A program that is cancelled after n turns of the scheduler, for n = 0, 1, 2 … until it gets through.

Whenever it is cancelled, no message is lost or done twice, and the connection (where it is not what was cancelled) can
still be used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from rabbitish.client import Channel, Connection, RpcClient, RpcServer, WorkQueue, connect

from .support import broker, name, run

SEEDS = [b"1", b"2", b"3"]


async def after_turns(turns: int, scope: trio.CancelScope) -> None:
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def cancelled(program: Callable[[], Awaitable[None]], turns: int) -> bool:
    """Run it and cancel it; whether it was cancelled before its end."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(after_turns, turns, scope)
            await program()
        nursery.cancel_scope.cancel()
    return scope.cancelled_caught


async def consume_and_publish(channel: Channel, queue: str, done: list[bytes]) -> None:
    """Do the seeds, and publish one."""
    async with channel.queue(queue).consume(prefetch=2) as messages:
        for _ in SEEDS:
            async with (await anext(messages)).process() as message:
                await trio.lowlevel.checkpoint()
                done.append(message.body)
    await channel.publish(b"new", routing_key=queue)
    message_or_none = await channel.queue(queue).get()
    assert message_or_none is not None
    message_or_none.reject(requeue=True)


async def empty(channel: Channel, queue: str) -> list[bytes]:
    """What is in the queue, as soon as nobody holds any of it."""
    found: list[bytes] = []
    while (await channel.declare_queue(queue, passive=True)).consumer_count:  # noqa: ASYNC110 (no event)
        await trio.sleep(0.001)
    while (message := await channel.queue(queue).get(no_ack=True)) is not None:
        found.append(message.body)
    return found


@asynccontextmanager
async def watched(uri: str) -> AsyncIterator[tuple[Channel, str]]:
    """A channel that looks on, and a queue."""
    async with connect(uri) as connection, connection.channel() as watcher:
        queue = await watcher.declare_queue(name())
        yield watcher, queue.queue
        await queue.delete()


@pytest.mark.parametrize("outer", [True, False])
def test_no_message_is_lost_or_done_twice(outer: bool) -> None:
    async def attempt(uri: str, watcher: Channel, queue: str, turns: int) -> bool:
        done: list[bytes] = []
        await watcher.publish_many(SEEDS, routing_key=queue)

        async def whole() -> None:
            async with connect(uri) as connection, connection.channel() as channel:
                await consume_and_publish(channel, queue, done)

        async def inside(connection: Connection) -> None:
            async with connection.channel() as channel:
                await consume_and_publish(channel, queue, done)

        if outer:
            was_cancelled = await cancelled(whole, turns)
        else:
            async with connect(uri) as connection:
                was_cancelled = await cancelled(lambda: inside(connection), turns)
                async with connection.channel() as channel:
                    await channel.declare_queue(queue, passive=True)
        found = await empty(watcher, queue)
        assert sorted([*done, *(body for body in found if body != b"new")]) == SEEDS, turns
        assert found.count(b"new") <= 1
        assert was_cancelled or found == [b"new"]
        return was_cancelled

    async def conversation() -> None:
        async with broker() as uri, watched(uri) as (watcher, queue):
            turns = 0
            while await attempt(uri, watcher, queue, turns):
                turns += 1 + turns // 20
            assert turns > 10

    run(conversation)


def test_calls_and_work_can_be_cancelled_anywhere() -> None:
    async def conversation() -> None:
        async with broker() as uri, connect(uri) as connection, WorkQueue(connection, name()) as jobs:
            function = name()

            async def program() -> None:
                finished = trio.Event()
                async with RpcServer(connection) as server, RpcClient(connection) as rpc:
                    await server.register(function, lambda value: value, auto_delete=True)
                    assert await rpc.call(function, "x") == "x"
                async with jobs.workers(lambda _: finished.set(), count=2):
                    await jobs.put("x")
                    await finished.wait()

            turns = 0
            while await cancelled(program, turns):
                turns += 1 + turns // 20
            assert turns > 10
            await program()

    run(conversation)
