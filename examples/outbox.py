"""A transactional outbox: what is in the database is told to others, although a crash may come at any moment.

    python examples/outbox.py order "3 books"      needs no broker: the order and its event are in orders.db
    python examples/outbox.py relay [URL]          publishes events from orders.db, those of hours ago first
    python examples/outbox.py ship [URL]           gets them, each of them once

A database and a broker have no transaction in common. So the event is written next to the order, in one transaction of
the database, and a relay publishes it later. If the relay dies after publishing and before it has noted that, it will
publish again, with the same id, by which consumers know it. ORDERS_DB names another file.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from rabbitish.client import Channel, Connection, Exchange, Message, Once, SQLiteStore, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
DATABASE = Path(os.environ.get("ORDERS_DB", "orders.db"))
EVENTS, SHIPPING = "order.events", "shipping"
SCHEMA = """
    CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, text TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS outbox (position INTEGER PRIMARY KEY, id TEXT NOT NULL, key TEXT NOT NULL,
        event TEXT NOT NULL, sent INTEGER NOT NULL DEFAULT 0);
    CREATE INDEX IF NOT EXISTS unsent ON outbox (position) WHERE NOT sent;
"""


class Orders:
    """The shop's database."""

    def __init__(self, path: Path = DATABASE) -> None:
        self.database = sqlite3.connect(path, check_same_thread=False)
        self.database.executescript(SCHEMA)

    def place(self, text: str) -> int:
        """Place an order: it and its event, or neither; its number."""
        with self.database:
            number = self.database.execute("INSERT INTO orders (text) VALUES (?)", (text,)).lastrowid or 0
            event = json.dumps({"number": number, "text": text})
            row = (str(uuid4()), "order.placed", event)
            self.database.execute("INSERT INTO outbox (id, key, event) VALUES (?, ?, ?)", row)
        return number

    def unsent(self, limit: int = 100) -> list[tuple[int, str, str, str]]:
        """The oldest events that may not have been published: position, id, key, event."""
        query = "SELECT position, id, key, event FROM outbox WHERE NOT sent ORDER BY position LIMIT ?"
        return self.database.execute(query, (limit,)).fetchall()

    def mark_sent(self, positions: list[int]) -> None:
        """Note that these were published."""
        with self.database:
            self.database.executemany("UPDATE outbox SET sent = 1 WHERE position = ?", [(each,) for each in positions])


async def declare(channel: Channel) -> Exchange:
    """The exchange for events, and the queue that must not miss any: both are there before the first event."""
    events = await channel.declare_exchange(EVENTS, "topic", durable=True)
    shipping = await channel.declare_queue(SHIPPING, durable=True)
    await shipping.bind(events, "order.#")
    return events


async def relay_some(events: Exchange, orders: Orders) -> int:
    """Publish what is unsent and then note it; how many. PublishError: some were not, so all stay unsent."""
    rows = await trio.to_thread.run_sync(orders.unsent)
    messages = [
        Message(json.loads(event), message_id=each_id, routing_key=key, type=key) for _, each_id, key, event in rows
    ]
    await events.channel.publish_many(messages, exchange=events.exchange, mandatory=True)
    await trio.to_thread.run_sync(orders.mark_sent, [position for position, *_ in rows])
    return len(rows)


async def relay(connection: Connection, orders: Orders | None = None, every: float = 1) -> None:
    """Publish events as they come up, looking so often (in seconds), until cancelled. Run one of these per database."""
    orders = orders or Orders()
    async with connection.channel() as channel:
        events = await declare(channel)
        print("relaying")
        while True:
            if not await relay_some(events, orders):
                await trio.sleep(every)


async def ship(connection: Connection, path: Path = DATABASE, show: Callable[[Any], None] = print) -> None:
    """Ship what was ordered: an event that comes again is skipped. Ids are kept in a file next to the database."""
    async with SQLiteStore(path.with_suffix(".shipped")) as store, connection.channel() as channel:
        once = Once(store)
        await declare(channel)
        async for message in channel.queue(SHIPPING).consume():
            async with once.process(message, requeue=True) as first:
                if first:
                    show(message.value())


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["order", text]:
            print("order", Orders().place(text))
        case ["relay", *url]:
            trio.run(main, relay, *url)
        case ["ship", *url]:
            trio.run(main, ship, *url)
        case _:
            sys.exit(__doc__)
