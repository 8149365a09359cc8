"""Autoscaling: as many workers as the queue's depth asks for.

    python examples/autoscaling.py work [URL]
    python examples/autoscaling.py send 200 [URL]       so many jobs of a tenth of a second

A look at the queue each second: one worker for each ten jobs that wait, between one and ten. More are started at once;
fewer are stopped one at a time, so that a short lull does not throw away what is needed again in a moment. A worker
that is stopped ends its job first. Here workers are tasks; where they are containers, `wanted` stays what it is.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import trio

from rabbitish.client import Connection, Consumer, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
JOBS = "scaled-jobs"
Do = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Scale:
    """How many workers there should be."""

    least: int = 1
    most: int = 10
    jobs_per_worker: int = 10
    every: float = 1
    """Seconds between two looks."""

    def wanted(self, now: int, depth: int) -> int:
        """How many workers it should be, with `now` of them and so many jobs waiting."""
        needed = min(max(math.ceil(depth / self.jobs_per_worker), self.least), self.most)
        return needed if needed >= now else now - 1


async def send(connection: Connection, count: int) -> None:
    """Add so many jobs."""
    async with connection.channel() as channel:
        queue = await channel.declare_queue(JOBS, durable=True)
        await channel.publish_many(range(count), routing_key=queue.queue)


async def work(consumer: Consumer, do: Do) -> None:
    """Be one worker, until the consumer is closed."""
    async for message in consumer:
        async with message.process(requeue=True):
            await do(message.value())


async def take_time(job: int) -> None:
    """A job."""
    await trio.sleep(0.1)


async def scale(
    connection: Connection, do: Do = take_time, scale: Scale = Scale(), show: Callable[[str], None] = print
) -> None:
    """Look and start or stop workers, until cancelled."""
    consumers: list[Consumer] = []
    async with connection.channel() as channel, trio.open_nursery() as nursery:
        queue = await channel.declare_queue(JOBS, durable=True)
        while True:
            depth = (await channel.declare_queue(JOBS, passive=True)).message_count
            wanted = scale.wanted(len(consumers), depth)
            while len(consumers) < wanted:
                consumers.append(queue.consume(prefetch=1))
                nursery.start_soon(work, consumers[-1], do)
            while len(consumers) > wanted:
                consumers.pop().close()  # its job ends in peace, and then its loop
            show(f"{depth} jobs wait, {wanted} workers")
            await trio.sleep(scale.every)


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work", *url]:
            trio.run(main, scale, *url)
        case ["send", count, *url]:
            trio.run(main, partial(send, count=int(count)), *url)
        case _:
            sys.exit(__doc__)
