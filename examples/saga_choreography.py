"""A saga by choreography: services react to each other's events, and take back what they did when it was for nothing.

    python examples/saga_choreography.py services [URL]        flight, hotel, payment and trips
    python examples/saga_choreography.py book alice [URL]      ask for a trip and wait for what becomes of it

A trip wants a flight, then a room, then money. Nobody directs: each service knows upon which events it acts. When there
is no room, the flight hears of it and is given back; when there is no money, the room first, and then the flight.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import trio

from rabbitish.client import Channel, Connection, Exchange, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
FOLDER = Path(os.environ.get("SAGA_DB", "saga-databases"))
EVENTS = "saga"
STOCK = {"flight": 10, "hotel": 8, "payment": 5, "trip": 0}
RULES: dict[str, dict[str, tuple[str, ...]]] = {
    # service: {event it hears: (what it says when it has taken one, what when none is left) or (when given back,)}
    "flight": {
        "trip.wanted": ("flight.booked", "flight.full"),
        "hotel.full": ("flight.cancelled",),
        "hotel.cancelled": ("flight.cancelled",),
    },
    "hotel": {"flight.booked": ("hotel.booked", "hotel.full"), "payment.refused": ("hotel.cancelled",)},
    "payment": {"hotel.booked": ("payment.taken", "payment.refused")},
    "trip": {
        "payment.taken": ("trip.booked",),
        "flight.full": ("trip.cancelled",),
        "flight.cancelled": ("trip.cancelled",),
    },
}


class Service:
    """A service with its own database: what is left, and what it said to which event, so that it never acts twice."""

    def __init__(self, name: str, folder: Path, stock: int) -> None:
        self.name = name
        folder.mkdir(exist_ok=True)
        self.database = sqlite3.connect(folder / f"{name}.db", check_same_thread=False)
        with self.database:
            self.database.execute("CREATE TABLE IF NOT EXISTS stock (left INTEGER NOT NULL)")
            self.database.execute("CREATE TABLE IF NOT EXISTS said (trip TEXT, cause TEXT, event TEXT)")
            self.database.execute("INSERT INTO stock SELECT ? WHERE NOT EXISTS (SELECT * FROM stock)", (stock,))

    def left(self) -> int:
        """What is left."""
        return int(self.database.execute("SELECT left FROM stock").fetchone()[0])

    def react(self, cause: str, trip: str) -> str:
        """Act upon an event, in one transaction with noting what was said; the event to publish."""
        with self.database:
            query = "SELECT event FROM said WHERE trip = ? AND cause = ?"
            if said := self.database.execute(query, (trip, cause)).fetchone():
                return str(said[0])  # it came again: say the same again, for perhaps nobody heard it
            event, *otherwise = RULES[self.name][cause]
            if otherwise:
                changed = self.database.execute("UPDATE stock SET left = left - 1 WHERE left > 0")
                event = event if changed.rowcount else otherwise[0]
            else:
                self.database.execute("UPDATE stock SET left = left + 1")
            self.database.execute("INSERT INTO said VALUES (?, ?, ?)", (trip, cause, event))
            return event


async def declare(channel: Channel) -> Exchange:
    """The exchange on which everybody says what happened, and everybody's queue, before anybody says anything."""
    events = await channel.declare_exchange(EVENTS, "topic", durable=True)
    for name, keys in RULES.items():
        queue = await channel.declare_queue(f"saga.{name}", durable=True)
        for key in keys:
            await queue.bind(events, key)
    return events


async def serve(connection: Connection, service: Service) -> None:
    """Be a service: say what comes of each event, and acknowledge the event when that is safe with the broker."""
    async with connection.channel() as channel:
        events = await declare(channel)
        async for message in channel.queue(f"saga.{service.name}").consume():
            async with message.process(requeue=True):
                trip = message.value()
                event = await trio.to_thread.run_sync(service.react, message.routing_key, trip["id"])
                await events.publish(trip, event)
                print(f"{trip['who']}: {event}")


async def serve_all(connection: Connection, folder: Path = FOLDER) -> None:
    """Be all services at once; in earnest they would be programs of their own, of which each may crash alone."""
    async with trio.open_nursery() as nursery:
        for name, stock in STOCK.items():
            nursery.start_soon(serve, connection, Service(name, folder, stock))


async def book(connection: Connection, who: str) -> str:
    """Ask for a trip, and wait until it is booked or everything is taken back."""
    trip = {"id": str(uuid4()), "who": who}
    async with connection.channel() as channel:
        events = await declare(channel)
        async with events.subscribe("trip.booked", "trip.cancelled") as ends:
            await events.publish(trip, "trip.wanted")
            async for message in ends:
                message.ack()
                if message.value()["id"] == trip["id"]:
                    break
        print(f"{who}: {message.routing_key}")
        return message.routing_key


async def main(half: Callable[[Connection], Awaitable[object]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["services", *url]:
            trio.run(main, serve_all, *url)
        case ["book", who, *url]:
            trio.run(main, partial(book, who=who), *url)
        case _:
            sys.exit(__doc__)
