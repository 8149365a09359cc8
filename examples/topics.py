"""Topic subscriptions: everybody gets the events whose routing key fits a pattern of theirs.

    python examples/topics.py subscribe "orders.*.created" [URL]      * is one word, # any number of them
    python examples/topics.py audit [URL]                             every event, also what was sent while away
    python examples/topics.py publish orders.eu.created "order 42" [URL]

Publishers do not know who listens. A subscriber's queue is there as long as the subscriber; the audit's has a name, so
it stays and gathers what comes while nobody reads it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from rabbitish.client import Connection, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
EVENTS, AUDIT = "events", "audit"


async def publish(connection: Connection, key: str, event: Any) -> None:
    """Publish an event; when this returns it is in the queue of everybody whom it concerns."""
    async with connection.channel() as channel:
        events = await channel.declare_exchange(EVENTS, "topic", durable=True)
        await events.publish(event, key)


async def subscribe(
    connection: Connection,
    *patterns: str,
    queue: str = "",
    show: Callable[[str, Any], None] = print,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Show events that fit one of the patterns, each once, until cancelled; with `queue`, those of before as well."""
    async with connection.channel() as channel:
        events = await channel.declare_exchange(EVENTS, "topic", durable=True)
        async with events.subscribe(*patterns, queue=queue) as messages:
            task_status.started()
            print("listening")
            async for message in messages:
                async with message.process():
                    show(message.routing_key, message.value())


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["subscribe", pattern, *url]:
            trio.run(main, lambda connection: subscribe(connection, pattern), *url)
        case ["audit", *url]:
            trio.run(main, lambda connection: subscribe(connection, "#", queue=AUDIT), *url)
        case ["publish", key, text, *url]:
            trio.run(main, partial(publish, key=key, event=text), *url)
        case _:
            sys.exit(__doc__)
