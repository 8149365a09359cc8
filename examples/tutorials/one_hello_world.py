"""Tutorial one: a program that sends a message, and one that receives it.

    python examples/tutorials/one_hello_world.py receive [URL]
    python examples/tutorials/one_hello_world.py send [URL]

A queue holds the message until somebody takes it, so it does not matter which program starts first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable

import trio

from rabbitish.client import Connection, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
QUEUE = "hello"


async def send(connection: Connection) -> None:
    """Put a message into the queue. When `publish` returns, the broker has it."""
    async with connection.channel() as channel:
        queue = await channel.declare_queue(QUEUE)
        await queue.publish("Hello, world!")
    print("sent: Hello, world!")


async def receive(connection: Connection, show: Callable[[str], None] = print) -> None:
    """Show messages as they come, until cancelled."""
    async with connection.channel() as channel:
        queue = await channel.declare_queue(QUEUE)
        print("waiting for messages; Ctrl-C ends")
        async for message in queue.consume():
            show(message.value())
            message.ack()


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C."""
    try:
        async with connect(url or URL) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["receive", *url]:
            trio.run(main, receive, *url)
        case ["send", *url]:
            trio.run(main, send, *url)
        case _:
            sys.exit(__doc__)
