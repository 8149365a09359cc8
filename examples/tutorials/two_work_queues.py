"""Tutorial two: tasks that take time, handed out among workers.

    python examples/tutorials/two_work_queues.py worker [URL]               twice or more
    python examples/tutorials/two_work_queues.py new_task "Hello..." [URL]  each dot is a second of work

The queue is durable and its messages persistent, so that a restart of the broker loses none. A worker gets one task at
a time (prefetch 1) and acknowledges it when it is done: if the worker dies, another one gets the task.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Connection, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
QUEUE = "task_queue"


async def new_task(connection: Connection, task: str) -> None:
    """Add a task. Messages are persistent unless told otherwise."""
    async with connection.channel() as channel:
        queue = await channel.declare_queue(QUEUE, durable=True)
        await queue.publish(task)
    print("sent:", task)


async def take_time(task: str) -> None:
    """A second for each dot."""
    await trio.sleep(task.count("."))


async def worker(
    connection: Connection,
    do: Callable[[str], Awaitable[None]] = take_time,
    show: Callable[[str], None] = print,
) -> None:
    """Do one task after the other, until cancelled."""
    async with connection.channel() as channel:
        queue = await channel.declare_queue(QUEUE, durable=True)
        print("waiting for tasks; Ctrl-C ends")
        async for message in queue.consume(prefetch=1):
            async with message.process():  # acknowledged at the end of the block
                await do(message.value())
                show(f"done: {message.value()}")


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C."""
    try:
        async with connect(url or URL) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["worker", *url]:
            trio.run(main, worker, *url)
        case ["new_task", task, *url]:
            trio.run(main, partial(new_task, task=task), *url)
        case _:
            sys.exit(__doc__)
