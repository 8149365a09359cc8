"""The same payments with three guarantees: at most once, at least once, effectively once.

    python examples/payments.py pay alice 30 [URL]
    python examples/payments.py at_most_once [URL]        a crash may lose a payment, none is booked twice
    python examples/payments.py at_least_once [URL]       a crash may book a payment twice, none is lost
    python examples/payments.py effectively_once [URL]    neither: what comes again is known by its id

Bookings are in payments.db, or the file that PAYMENTS_DB names. A broker delivers again what was not acknowledged, for
it cannot know how far the consumer came. So the third way keeps the ids of payments in the database in which it books
them, in the same transaction: either both are there or neither is.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from rabbitish.client import Channel, Connection, Consumer, IncomingMessage, Queue, SQLiteStore, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
DATABASE = Path(os.environ.get("PAYMENTS_DB", "payments.db"))
PAYMENTS = "payments"
Show = Callable[[str], None]


def book(database: sqlite3.Connection, payment: Any) -> str:
    """The effect that must be there once: a row. In a transaction of the caller's."""
    database.execute("CREATE TABLE IF NOT EXISTS bookings (account TEXT NOT NULL, amount INTEGER NOT NULL)")
    database.execute("INSERT INTO bookings VALUES (?, ?)", (payment["account"], payment["amount"]))
    return f"booked: {payment['account']} {payment['amount']}"


def book_in(path: Path, payment: Any) -> str:
    """Book in a transaction of its own; the database takes it as often as it is told."""
    with closing(sqlite3.connect(path)) as database, database:
        return book(database, payment)


async def declare(channel: Channel) -> Queue:
    """The queue of payments; whoever comes first makes it."""
    return await channel.declare_queue(PAYMENTS, durable=True)


async def pay(connection: Connection, account: str, amount: int, payment_id: str | None = None) -> str:
    """Order a payment; its id. When this returns the broker has it; who hears nothing may order again with that id."""
    payment_id = payment_id or str(uuid4())
    async with connection.channel() as channel:
        queue = await declare(channel)
        await queue.publish({"account": account, "amount": amount}, message_id=payment_id)
    return payment_id


@asynccontextmanager
async def consuming(connection: Connection, *, no_ack: bool = False) -> AsyncIterator[Consumer]:
    """The payments, as they come."""
    async with connection.channel() as channel:
        queue = await declare(channel)
        async with queue.consume(prefetch=10, no_ack=no_ack) as messages:
            yield messages


async def at_most_once(connection: Connection, path: Path = DATABASE, show: Show = print) -> None:
    """The broker forgets a payment when it has sent it (no_ack). Whatever happens then, it does not come again."""
    async with consuming(connection, no_ack=True) as messages:
        async for message in messages:
            show(await trio.to_thread.run_sync(book_in, path, message.value()))


async def at_least_once(connection: Connection, path: Path = DATABASE, show: Show = print) -> None:
    """A payment is acknowledged when it is booked. After a crash in between it comes again, and is booked again."""
    async with consuming(connection) as messages:
        async for message in messages:
            async with message.process(requeue=True):
                show(await trio.to_thread.run_sync(book_in, path, message.value()))


async def effectively_once(connection: Connection, path: Path = DATABASE, show: Show = print) -> None:
    """As before, but what was booked already, by this program or another one with this database, is only skipped."""
    async with SQLiteStore(path, table="booked_ids") as store, consuming(connection) as messages:
        async for message in messages:
            async with message.process(requeue=True):
                show(await book_once(store, message))


async def book_once(store: SQLiteStore, message: IncomingMessage) -> str:
    """Book a payment unless that was done, in one transaction with its id."""
    if message.message_id is None:
        return f"refused, since it has no id: {message.value()}"
    booked = await store.once(message.message_id, partial(book, payment=message.value()))
    return booked or f"skipped, since it was booked before: {message.message_id}"


async def main(half: Callable[[Connection], Awaitable[object]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    ways = {"at_most_once": at_most_once, "at_least_once": at_least_once, "effectively_once": effectively_once}
    match sys.argv[1:]:
        case ["pay", account, amount, *url]:
            trio.run(main, partial(pay, account=account, amount=int(amount)), *url)
        case [way, *url] if way in ways:
            trio.run(main, ways[way], *url)
        case _:
            sys.exit(__doc__)
