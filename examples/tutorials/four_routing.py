"""Tutorial four: log lines for those who want their severity.

    python examples/tutorials/four_routing.py receive_logs warning,error [URL]
    python examples/tutorials/four_routing.py emit_log error "Run. Run. Or it will explode." [URL]

A direct exchange gives a message to the queues that are bound with exactly its routing key. A queue may be bound more
than once, and several queues with the same key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Channel, Connection, Queue, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
LOGS = "direct_logs"


async def emit_log(connection: Connection, severity: str, line: str) -> None:
    """Send a line, with its severity as the routing key."""
    async with connection.channel() as channel:
        logs = await channel.declare_exchange(LOGS, "direct")
        await logs.publish(line, severity)
    print(f"sent: {severity}: {line}")


async def subscribe(channel: Channel, severities: list[str]) -> Queue:
    """A queue of our own that gets lines of these severities from now on."""
    logs = await channel.declare_exchange(LOGS, "direct")
    queue = await channel.declare_queue(exclusive=True)
    for severity in severities:
        await queue.bind(logs, severity)
    return queue


async def show_all(queue: Queue, show: Callable[[str], None] = print) -> None:
    """Show what comes, until cancelled."""
    async for message in queue.consume(no_ack=True):
        show(f"{message.routing_key}: {message.value()}")


async def receive_logs(connection: Connection, severities: list[str]) -> None:
    """Subscribe and show."""
    async with connection.channel() as channel:
        queue = await subscribe(channel, severities)
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
        case ["receive_logs", severities, *url]:
            trio.run(main, partial(receive_logs, severities=severities.split(",")), *url)
        case ["emit_log", severity, line, *url]:
            trio.run(main, partial(emit_log, severity=severity, line=line), *url)
        case _:
            sys.exit(__doc__)
