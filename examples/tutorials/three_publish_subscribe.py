"""Tutorial three: log lines for everybody who listens.

    python examples/tutorials/three_publish_subscribe.py receive_logs [URL]     as many as you like
    python examples/tutorials/three_publish_subscribe.py emit_log "Hello!" [URL]

A fanout exchange copies each message to all queues that are bound to it. Each receiver has a queue of its own, for as
long as it is connected; what is sent while nobody listens is lost.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Channel, Connection, Queue, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
LOGS = "logs"


async def emit_log(connection: Connection, line: str) -> None:
    """Send a line to everybody."""
    async with connection.channel() as channel:
        logs = await channel.declare_exchange(LOGS, "fanout")
        await logs.publish(line)
    print("sent:", line)


async def subscribe(channel: Channel) -> Queue:
    """A queue of our own (exclusive, with a name from the broker) that gets every line from now on."""
    logs = await channel.declare_exchange(LOGS, "fanout")
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(logs)
    return queue


async def show_all(queue: Queue, show: Callable[[str], None] = print) -> None:
    """Show what comes, until cancelled. no_ack: a line that is lost on the way does no harm."""
    async for message in queue.consume(no_ack=True):
        show(message.value())


async def receive_logs(connection: Connection) -> None:
    """Subscribe and show."""
    async with connection.channel() as channel:
        queue = await subscribe(channel)
        print("waiting for logs; Ctrl-C ends")
        await show_all(queue)


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C."""
    try:
        async with connect(url or URL) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["receive_logs", *url]:
            trio.run(main, receive_logs, *url)
        case ["emit_log", line, *url]:
            trio.run(main, partial(emit_log, line=line), *url)
        case _:
            sys.exit(__doc__)
