"""Order within a key, work in parallel: each customer's events one after the other, many customers at a time.

    python examples/ordering.py publish alice "changed her address" [URL]
    python examples/ordering.py consume [URL]                          run as many of these as you like

The publisher hashes the key to one of eight queues, so what belongs together stays together. Each queue has a single
active consumer: one program at a time reads it, and another takes over when that one is gone. A program reads each of
its queues with prefetch 1. With N queues there are at most N events in work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import blake2b
from typing import Any

import trio

from rabbitish.client import Channel, Connection, Queue, connect, queue_arguments

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
QUEUES = [f"customers.{number}" for number in range(8)]
"""To change their number, stop the publishers, let consumers empty them all, and start anew."""
Handle = Callable[[str, Any], Awaitable[None]]


def queue_of(key: str) -> str:
    """The queue for a key: the same one in every program, today and tomorrow (as Python's own hash() is not)."""
    number = int.from_bytes(blake2b(key.encode(), digest_size=8).digest())
    return QUEUES[number % len(QUEUES)]


async def declare(channel: Channel, name: str) -> Queue:
    """One of the queues."""
    return await channel.declare_queue(name, durable=True, arguments=queue_arguments(single_active_consumer=True))


async def publish(connection: Connection, key: str, event: Any) -> None:
    """Publish an event. To keep a key's order, wait for one before the next, in one program for each key."""
    async with connection.channel() as channel:
        queue = await declare(channel, queue_of(key))
        await queue.publish(event, type=key)


async def show(key: str, event: Any) -> None:
    """What is done with an event."""
    print(f"{key}: {event}")


async def consume(connection: Connection, handle: Handle = show) -> None:
    """Handle the events of whichever queues we are the active consumer of, until cancelled."""
    async with trio.open_nursery() as nursery:
        for name in QUEUES:
            nursery.start_soon(consume_one, connection, name, handle)


async def consume_one(connection: Connection, name: str, handle: Handle) -> None:
    """Handle one queue's events, one after the other. One that fails goes back to its place, and the program ends."""
    async with connection.channel() as channel:
        queue = await declare(channel, name)
        async for message in queue.consume(prefetch=1):
            async with message.process(requeue=True):
                await handle(message.type or "", message.value())


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["publish", key, event, *url]:
            trio.run(main, partial(publish, key=key, event=event), *url)
        case ["consume", *url]:
            trio.run(main, consume, *url)
        case _:
            sys.exit(__doc__)
