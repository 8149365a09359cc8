"""Message enrichment: orders come in with a customer's number, and go on with all that is known about the customer.

    python examples/enrichment.py customer 7 Alice eu [URL]    tell the enricher about a customer
    python examples/enrichment.py order 7 "3 books" [URL]
    python examples/enrichment.py enrich [URL]                 run as many of these as there are orders for
    python examples/enrichment.py ship [URL]                   takes the complete orders

An order goes on before it is taken off the queue it came from, so none is lost; its id goes on with it, so that one
that is there twice after a crash can be known. A customer may be heard of later than the order: the order waits and is
tried again, and is parked (orders.parked) when nobody tells. Customers are in customers.db, or CUSTOMERS_DB.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from rabbitish.client import Backoff, Connection, IncomingMessage, WorkQueue, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
DATABASE = Path(os.environ.get("CUSTOMERS_DB", "customers.db"))
ORDERS, CUSTOMERS, COMPLETE = "orders", "customers", "orders.complete"
BACKOFF = Backoff(first=1, factor=10, retries=4)


class Customers:
    """What the enricher knows: a table of its own, so that no order waits for another service."""

    def __init__(self, path: Path = DATABASE) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS customers (id INTEGER PRIMARY KEY, name TEXT, region TEXT)")

    def learn(self, customer: Any) -> None:
        """A customer is new, or has changed. Twice is as good as once."""
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute("REPLACE INTO customers VALUES (:id, :name, :region)", customer)

    def find(self, number: int) -> dict[str, Any]:
        """What is known about a customer. LookupError: nothing, so far."""
        with closing(sqlite3.connect(self.path)) as database:
            query = "SELECT id, name, region FROM customers WHERE id = ?"
            if row := database.execute(query, (number,)).fetchone():
                return dict(zip(("id", "name", "region"), row, strict=True))
        raise LookupError(f"customer {number} is not known")


async def enrich(connection: Connection, customers: Customers, backoff: Backoff = BACKOFF) -> None:
    """Learn about customers and complete orders, until cancelled."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(connection.channel())
        complete = await channel.declare_queue(COMPLETE, durable=True)
        news = await channel.declare_queue(CUSTOMERS, durable=True)
        orders = await stack.enter_async_context(WorkQueue(connection, ORDERS, backoff=backoff))

        async def complete_order(order: Any, message: IncomingMessage) -> None:
            customer = await trio.to_thread.run_sync(customers.find, order["customer"])
            await complete.publish({**order, "customer": customer}, message_id=message.message_id)

        await stack.enter_async_context(orders.workers(complete_order, count=10, pass_message=True))
        async for message in news.consume():
            async with message.process(requeue=True):
                await trio.to_thread.run_sync(customers.learn, message.value())


async def tell(connection: Connection, number: int, name: str, region: str) -> None:
    """Tell the enricher about a customer."""
    async with connection.channel() as channel:
        news = await channel.declare_queue(CUSTOMERS, durable=True)
        await news.publish({"id": number, "name": name, "region": region})


async def order(connection: Connection, customer: int, text: str, backoff: Backoff = BACKOFF) -> None:
    """Order something."""
    async with WorkQueue(connection, ORDERS, backoff=backoff) as orders:
        await orders.put({"customer": customer, "text": text}, message_id=str(uuid4()))


async def ship(connection: Connection, show: Callable[[Any], None] = print) -> None:
    """Take complete orders, until cancelled."""
    async with connection.channel() as channel:
        queue = await channel.declare_queue(COMPLETE, durable=True)
        async for message in queue.consume():
            async with message.process():
                show(message.value())


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["customer", number, name, region, *url]:
            trio.run(main, partial(tell, number=int(number), name=name, region=region), *url)
        case ["order", customer, text, *url]:
            trio.run(main, partial(order, customer=int(customer), text=text), *url)
        case ["enrich", *url]:
            trio.run(main, partial(enrich, customers=Customers()), *url)
        case ["ship", *url]:
            trio.run(main, ship, *url)
        case _:
            sys.exit(__doc__)
