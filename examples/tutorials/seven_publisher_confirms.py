"""Tutorial seven: three ways to publish many messages and know that the broker has them.

    python examples/tutorials/seven_publisher_confirms.py COUNT [URL]

A publish without a confirm is a hope. To wait for each confirm is safe and slow, since each takes a round trip and, for
a persistent message, a write to the disk. To have many on their way at the same time is as safe, and fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import trio

from rabbitish.client import Connection, PublishManyFailed, Queue, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")


def messages(count: int) -> Iterator[str]:
    """What is published."""
    return (f"message {number}" for number in range(count))


async def one_by_one(queue: Queue, count: int) -> None:
    """Wait for each confirm before the next publish. PublishError: that message is not with the broker."""
    for body in messages(count):
        await queue.publish(body)


async def in_batches(queue: Queue, count: int, size: int = 100) -> None:
    """Publish so many at the same time, and wait for all of them."""
    bodies = list(messages(count))
    for start in range(0, count, size):
        async with trio.open_nursery() as nursery:
            for body in bodies[start : start + size]:
                nursery.start_soon(queue.publish, body)


async def with_a_window(queue: Queue, count: int) -> None:
    """Always have up to 1000 on their way: the one to use. The error says which messages are not with the broker."""
    try:
        await queue.channel.publish_many(messages(count), routing_key=queue.queue, window=1000)
    except PublishManyFailed as failed:
        print("not published:", [number for number, _ in failed.failures])
        raise


async def compare(connection: Connection, count: int) -> dict[str, float]:
    """The seconds that each way takes."""
    seconds = {}
    async with connection.channel() as channel:
        for way in (one_by_one, in_batches, with_a_window):
            queue = await channel.declare_queue(exclusive=True)
            started = trio.current_time()
            await way(queue, count)
            seconds[way.__name__] = trio.current_time() - started
            assert await queue.delete() == count
    return seconds


async def show(connection: Connection, count: int) -> None:
    """Compare, and print what came out."""
    for way, seconds in (await compare(connection, count)).items():
        print(f"{way}: {count} messages in {seconds:.3f} s")


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect and compare."""
    async with connect(url or URL) as connection:
        await half(connection)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [count, *url]:
            trio.run(main, partial(show, count=int(count)), *url)
        case _:
            sys.exit(__doc__)
