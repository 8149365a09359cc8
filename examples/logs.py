"""Log aggregation: programs log as always, and lines are gathered, kept and watched by topic.

    python examples/logs.py shop [URL]                    a program that logs a little
    python examples/logs.py collect [URL]                 keeps every line in logs.db (or LOGS_DB)
    python examples/logs.py watch "*.error" [URL]         shows lines as they come: PROGRAM.LEVEL

A logging handler must neither block nor fail: it puts lines into a buffer, a task publishes them, and when the buffer
is full lines are dropped and counted. The collector takes hundreds at a time, writes them in one transaction, and only
then acknowledges; a line that comes again is known by its id.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import trio

from rabbitish.client import Batch, Channel, Connection, Exchange, Message, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
DATABASE = Path(os.environ.get("LOGS_DB", "logs.db"))
LOGS, COLLECTED = "program-logs", "program-logs.collected"
KEEP = "INSERT OR IGNORE INTO logs VALUES (?, ?, ?, ?)"


async def declare(channel: Channel) -> Exchange:
    """The exchange, and the collector's queue, so that lines are kept even if no collector has run yet."""
    logs = await channel.declare_exchange(LOGS, "topic", durable=True)
    await (await channel.declare_queue(COLLECTED, durable=True)).bind(logs, "#")
    return logs


class BrokerHandler(logging.Handler):
    """Sends records to the broker; from any thread. `dropped` counts those for which there was no room."""

    def __init__(self, program: str, buffer: int = 10_000) -> None:
        super().__init__()
        self.program = program
        self.dropped = 0
        self._in, self._out = trio.open_memory_channel[Message](buffer)
        self._trio = trio.lowlevel.current_trio_token()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        line = {"time": record.created, "logger": record.name, "text": self.format(record)}
        key = f"{self.program}.{record.levelname.lower()}"
        try:
            self._trio.run_sync_soon(self._put, Message(line, routing_key=key, message_id=str(uuid4())))
        except trio.RunFinishedError:
            self.dropped += 1

    def close(self) -> None:
        """See logging.Handler; `publish` ends when all is out that was emitted before."""
        super().close()
        self._trio.run_sync_soon(self._in.close)

    def _put(self, message: Message) -> None:
        try:
            self._in.send_nowait(message)
        except trio.WouldBlock:
            self.dropped += 1

    async def publish(self, connection: Connection) -> None:
        """Publish what is in the buffer, with many on their way at a time, until it is closed."""
        async with connection.channel() as channel:
            logs = await declare(channel)
            await channel.publish_many(self._out, exchange=logs.exchange)


@asynccontextmanager
async def logging_to(connection: Connection, program: str, buffer: int = 10_000) -> AsyncIterator[BrokerHandler]:
    """A block whose log goes to the broker; at its end what is left is published."""
    handler, root = BrokerHandler(program, buffer), logging.getLogger()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handler.publish, connection)
        root.addHandler(handler)
        try:
            yield handler
        finally:
            root.removeHandler(handler)
            handler.close()


async def collect(connection: Connection, path: Path = DATABASE, *, size: int = 500, seconds: float = 1) -> None:
    """Keep all lines, until cancelled."""
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("CREATE TABLE IF NOT EXISTS logs (id TEXT PRIMARY KEY, key TEXT, time REAL, text TEXT)")
    async with connection.channel() as channel:
        await declare(channel)
        async with channel.queue(COLLECTED).consume(prefetch=2 * size) as messages:
            async for batch in messages.batches(size, seconds):
                async with batch.process(requeue=True):
                    await trio.to_thread.run_sync(keep, database, batch)


def keep(database: sqlite3.Connection, batch: Batch) -> None:
    """Write some lines, in one transaction."""
    lines = [(message.message_id, message.routing_key, message.value()) for message in batch]
    with database:
        database.executemany(KEEP, [(each_id, key, line["time"], line["text"]) for each_id, key, line in lines])


async def watch(
    connection: Connection,
    pattern: str,
    show: Callable[[str, str], None] = print,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Show lines as they come, until cancelled."""
    async with connection.channel() as channel:
        logs = await declare(channel)
        async with logs.subscribe(pattern, no_ack=True) as messages:
            task_status.started()
            print("watching")
            async for message in messages:
                show(message.routing_key, message.value()["text"])


async def shop(connection: Connection) -> None:
    """A program that logs."""
    logging.basicConfig(level=logging.INFO)
    async with logging_to(connection, "shop"):
        logging.getLogger("orders").info("order %d placed", 42)
        logging.getLogger("payments").error("card of %s refused", "alice")


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["shop", *url]:
            trio.run(main, shop, *url)
        case ["collect", *url]:
            trio.run(main, collect, *url)
        case ["watch", pattern, *url]:
            trio.run(main, partial(watch, pattern=pattern), *url)
        case _:
            sys.exit(__doc__)
