"""A work queue with fair dispatch: each task goes to a worker that has nothing else to do.

    python examples/work_queue.py worker [URL]              run as many of these as there is work for
    python examples/work_queue.py send "three dots..." [URL]

A worker has one task in its hands (prefetch 1) and acknowledges it when it is done, so a slow task keeps no others
waiting behind it, and the tasks of a worker that dies go to another one. A stopped worker ends the task it has.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Channel, Connection, IncomingMessage, Queue, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
TASKS = "tasks"


async def declare(channel: Channel) -> Queue:
    """The queue; both halves declare it, so that either may come first."""
    return await channel.declare_queue(TASKS, durable=True)


async def send(connection: Connection, tasks: list[str]) -> None:
    """Put tasks into the queue; when this returns they are safe with the broker."""
    async with connection.channel() as channel:
        await declare(channel)
        await channel.publish_many(tasks, routing_key=TASKS)


async def work(connection: Connection, do: Callable[[str], Awaitable[None]], stop: trio.Event) -> None:
    """Do tasks one after the other until `stop`, and end the one at hand first."""
    async with connection.channel() as channel, (await declare(channel)).consume(prefetch=1) as tasks:

        async def end() -> None:
            await stop.wait()
            tasks.close()  # the loop below ends, and what it has not seen goes back into the queue

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            async for message in tasks:
                await settle(message, do)
            nursery.cancel_scope.cancel()


async def settle(message: IncomingMessage, do: Callable[[str], Awaitable[None]]) -> None:
    """Do one task. Acknowledged if that went well; else it is dropped, for retries.py is another example."""
    try:
        async with message.process():
            await do(message.value())
    except Exception as error:  # noqa: BLE001 (a task that fails must not stop the worker)
        print(f"failed: {message.value()} ({error})")


async def take_time(task: str) -> None:
    """What a task is here: a second for each dot."""
    print("working on:", task)
    await trio.sleep(task.count("."))
    print("done:", task)


async def work_until_stopped(connection: Connection) -> None:
    """Be a worker until Ctrl-C or SIGTERM, and stop in good order."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            nursery.start_soon(work, connection, take_time, stop)
            await anext(aiter(signals))
            stop.set()


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half; a worker's connection comes back when it is lost."""
    async with connect(url or URL, reconnect=True) as connection:
        await half(connection)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["worker", *url]:
            trio.run(main, work_until_stopped, *url)
        case ["send", task, *url]:
            trio.run(main, partial(send, tasks=[task]), *url)
        case _:
            sys.exit(__doc__)
