"""A saga by orchestration: one program tells services what to do, and has it undone in reverse order when one refuses.

    python examples/saga_orchestration.py services [URL]         flight, hotel and payment
    python examples/saga_orchestration.py orchestrator [URL]     works on trips that are wanted
    python examples/saga_orchestration.py book alice [URL]       ask for a trip

The orchestrator notes each step that was done in its database (trips.db, or TRIPS_DB). When it dies, the trip comes to
the next one, which reads how far it was. A service that refuses turns the saga round; one that is silent is asked again
later. So services may be told the same twice, and do it once.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from rabbitish.client import Backoff, Connection, RemoteError, RpcClient, RpcServer, WorkQueue, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
DATABASE = Path(os.environ.get("TRIPS_DB", "trips.db"))
TRIPS, STEPS = "trips", ("flight", "hotel", "payment")
STOCK = {"flight": 10, "hotel": 8, "payment": 5}
SOON = Backoff(first=1, factor=4, retries=6)


class Service:
    """Seats, rooms or money: so many, given to trips and taken back. Each may be told the same again."""

    def __init__(self, name: str, stock: int) -> None:
        self.name = name
        self.stock = stock
        self.trips: set[str] = set()

    def take(self, trip: str) -> None:
        """Reserve for a trip. LookupError: there is nothing left, and the saga turns round."""
        if trip not in self.trips and len(self.trips) >= self.stock:
            raise LookupError(f"no {self.name} left")
        self.trips.add(trip)

    def give_back(self, trip: str) -> None:
        """Undo it, if it was done."""
        self.trips.discard(trip)


async def serve(
    connection: Connection,
    services: list[Service],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Let the services be called, until cancelled."""
    async with RpcServer(connection) as server:
        for service in services:
            await server.register(f"{service.name}.take", service.take)
            await server.register(f"{service.name}.give_back", service.give_back)
        task_status.started()
        print("serving")
        await trio.sleep_forever()


class Orchestrator:
    """Takes trips through their steps, or back. Its journal knows which calls have been answered, for each trip."""

    def __init__(self, rpc: RpcClient, path: Path = DATABASE, show: Callable[[str], None] = print) -> None:
        self.rpc = rpc
        self.show = show
        self.database = sqlite3.connect(path)
        self.database.execute("CREATE TABLE IF NOT EXISTS journal (trip TEXT NOT NULL, entry TEXT NOT NULL)")

    def journal(self, trip: str) -> list[str]:
        """What there is about a trip, in order."""
        query = "SELECT entry FROM journal WHERE trip = ? ORDER BY rowid"
        return [entry for (entry,) in self.database.execute(query, (trip,))]

    async def tell(self, service: str, trip: str) -> None:
        """Have a service do something unless it has; RemoteError: it refuses; CallTimeout, PublishReturned: silence."""
        if service not in self.journal(trip):
            await self.rpc.call(service, trip)
            self.write(trip, service)

    def write(self, trip: str, entry: str) -> None:
        """Add an entry; it is on disk when this returns. A few milliseconds; what takes longer belongs in a thread."""
        with self.database:
            self.database.execute("INSERT INTO journal VALUES (?, ?)", (trip, entry))

    async def run(self, job: Any) -> None:
        """Do one trip, from where it was. What it raises has the work queue try again later."""
        trip, outcome = job["id"], "booked"
        try:
            if "refused" not in self.journal(trip):
                for step in STEPS:
                    await self.tell(f"{step}.take", trip)
        except RemoteError as error:
            self.show(f"{job['who']}: {error.message}")
            self.write(trip, "refused")
        if "refused" in self.journal(trip):
            outcome = "cancelled"
            for step in reversed(STEPS):
                if f"{step}.take" in self.journal(trip):
                    await self.tell(f"{step}.give_back", trip)
        self.show(f"{job['who']}: {outcome}")


async def orchestrate(
    connection: Connection,
    path: Path = DATABASE,
    show: Callable[[str], None] = print,
    *,
    patience: float = 10,
    backoff: Backoff = SOON,
) -> None:
    """Work on trips until cancelled. A step may take `patience` seconds; a trip that fails is tried again later."""
    async with (
        RpcClient(connection, timeout=patience) as rpc,
        WorkQueue(connection, TRIPS, backoff=backoff) as trips,
        trips.workers(Orchestrator(rpc, path, show).run, count=10),
    ):
        await trio.sleep_forever()


async def book(connection: Connection, who: str, *, backoff: Backoff = SOON) -> None:
    """Ask for a trip."""
    async with WorkQueue(connection, TRIPS, backoff=backoff) as trips:
        await trips.put({"id": str(uuid4()), "who": who})


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["services", *url]:
            trio.run(main, partial(serve, services=[Service(name, STOCK[name]) for name in STEPS]), *url)
        case ["orchestrator", *url]:
            trio.run(main, orchestrate, *url)
        case ["book", who, *url]:
            trio.run(main, partial(book, who=who), *url)
        case _:
            sys.exit(__doc__)
