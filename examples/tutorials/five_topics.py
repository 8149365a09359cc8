"""Tutorial five: log lines by patterns, of facility and severity at once.

    python examples/tutorials/five_topics.py receive_logs "kern.*" [URL]
    python examples/tutorials/five_topics.py emit_log kern.critical "A critical kernel error" [URL]

A topic exchange compares words: in a pattern * stands for one and # for any number of them. Here a subscription of the
client stands for the queue, its bindings and the consumer of tutorial four.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Connection, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
LOGS = "topic_logs"


async def emit_log(connection: Connection, key: str, line: str) -> None:
    """Send a line; the key is FACILITY.SEVERITY."""
    async with connection.channel() as channel:
        logs = await channel.declare_exchange(LOGS, "topic")
        await logs.publish(line, key)
    print(f"sent: {key}: {line}")


async def receive_logs(
    connection: Connection,
    patterns: list[str],
    show: Callable[[str], None] = print,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Show lines that fit one of the patterns, until cancelled."""
    async with connection.channel() as channel:
        logs = await channel.declare_exchange(LOGS, "topic")
        async with logs.subscribe(*patterns, no_ack=True) as messages:
            task_status.started()
            print("waiting for logs; Ctrl-C ends")
            async for message in messages:
                show(f"{message.routing_key}: {message.value()}")


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C."""
    try:
        async with connect(url or URL) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["receive_logs", patterns, *url]:
            trio.run(main, partial(receive_logs, patterns=patterns.split(",")), *url)
        case ["emit_log", key, line, *url]:
            trio.run(main, partial(emit_log, key=key, line=line), *url)
        case _:
            sys.exit(__doc__)
