"""Publish and subscribe: every service gets its own copy of every message, and shares it among its instances.

    python examples/publish_subscribe.py subscribe SERVICE [URL]     e.g. stock, mails; several of one name share
    python examples/publish_subscribe.py watch [URL]                 only what comes from now on
    python examples/publish_subscribe.py publish "order 42" [URL]

A service has a durable queue of its own, so it misses nothing while it is down, and two instances of it do half each.
A watcher's queue is its connection's, and gone with it. The fanout exchange copies to all of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Channel, Connection, Exchange, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
ORDERS = "orders.placed"


async def declare(channel: Channel) -> Exchange:
    """The exchange that everybody means; whoever comes first makes it."""
    return await channel.declare_exchange(ORDERS, "fanout", durable=True)


async def publish(connection: Connection, order: str) -> None:
    """Tell everybody; when this returns, each service's queue has its copy. Without a service nobody has one."""
    async with connection.channel() as channel:
        await (await declare(channel)).publish(order)


async def subscribe(
    connection: Connection,
    service: str,
    handle: Callable[[str], None] = print,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be an instance of a service, or a watcher with service "", until cancelled."""
    async with connection.channel() as channel:
        orders = await declare(channel)
        name = f"{ORDERS}.{service}" if service else ""
        queue = await channel.declare_queue(name, durable=bool(service), exclusive=not service)
        await queue.bind(orders)
        async with queue.consume(prefetch=10) as messages:
            task_status.started()
            print("listening")
            async for message in messages:
                async with message.process():
                    handle(message.value())


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a subscriber's connection comes back when it is lost."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["subscribe", service, *url]:
            trio.run(main, partial(subscribe, service=service), *url)
        case ["watch", *url]:
            trio.run(main, partial(subscribe, service=""), *url)
        case ["publish", order, *url]:
            trio.run(main, partial(publish, order=order), *url)
        case _:
            sys.exit(__doc__)
