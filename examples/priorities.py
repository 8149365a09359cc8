"""Priorities: what is urgent goes in front of what has waited longer.

    python examples/priorities.py print [URL]                       a printer
    python examples/priorities.py submit normal report.pdf [URL]    low, normal, high or urgent

A queue with `x-max-priority` hands out the highest priority first, and the oldest first within one. It only orders what
waits in the broker: a printer therefore takes one job at a time (prefetch 1), for what it has, it has.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Channel, Connection, Queue, connect, queue_arguments

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
JOBS = "print-jobs"
PRIORITIES = {"low": 0, "normal": 1, "high": 2, "urgent": 3}
"""Few: each costs the broker a queue inside the queue."""


async def declare(channel: Channel) -> Queue:
    """The queue; its highest priority is fixed when it is made."""
    arguments = queue_arguments(max_priority=max(PRIORITIES.values()))
    return await channel.declare_queue(JOBS, durable=True, arguments=arguments)


async def submit(connection: Connection, priority: str, document: str) -> None:
    """Have a document printed. KeyError: there is no such priority."""
    async with connection.channel() as channel:
        queue = await declare(channel)
        await queue.publish(document, priority=PRIORITIES[priority])


async def take_time(document: str) -> None:
    """Print a document."""
    print("printing", document)
    await trio.sleep(1)
    print("printed", document)


async def print_all(connection: Connection, do: Callable[[str], Awaitable[None]] = take_time) -> None:
    """Print one document after the other, until cancelled."""
    async with connection.channel() as channel:
        queue = await declare(channel)
        async for message in queue.consume(prefetch=1):
            async with message.process(requeue=True):
                await do(message.value())


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["print", *url]:
            trio.run(main, print_all, *url)
        case ["submit", priority, document, *url] if priority in PRIORITIES:
            trio.run(main, partial(submit, priority=priority, document=document), *url)
        case _:
            sys.exit(__doc__)
