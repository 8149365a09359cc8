"""Event sourcing: accounts are the sum of their events; snapshots save reading, versions keep writers apart.

    python examples/event_sourcing.py server [URL]                  run as many of these as you like
    python examples/event_sourcing.py deposit alice 30 [URL]        or withdraw
    python examples/event_sourcing.py watch [URL]                   every event, for whoever keeps a view of their own

Events are in accounts.db (or ACCOUNTS_DB). Whoever writes says which version it has read; if another writer was faster
the write is refused, and the decision is taken anew. Events are published from the same table, so each goes out, in its
account's order, after a crash perhaps twice, with "alice/7" as its id.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from rabbitish.client import Connection, Exchange, Message, RpcClient, RpcServer, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
DATABASE = Path(os.environ.get("ACCOUNTS_DB", "accounts.db"))
COMMANDS, EVENTS, SNAPSHOT_EVERY = "accounts", "accounts.events", 100
SCHEMA = """
    CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY, account TEXT NOT NULL, version INTEGER NOT NULL,
        event TEXT NOT NULL, published INTEGER NOT NULL DEFAULT 0, UNIQUE (account, version));
    CREATE INDEX IF NOT EXISTS unpublished ON events (position) WHERE NOT published;
    CREATE TABLE IF NOT EXISTS snapshots (account TEXT PRIMARY KEY, version INTEGER NOT NULL, balance INTEGER NOT NULL);
"""


class Conflict(Exception):
    """Somebody else has written since the account was read."""


@dataclass
class Account:
    """The state after `version` events."""

    name: str
    version: int = 0
    balance: int = 0

    def apply(self, event: Any) -> None:
        """What an event changes; nothing else changes an account."""
        self.version += 1
        self.balance += event["amount"] if event["type"] == "deposited" else -event["amount"]

    def decide(self, command: Any) -> Any:
        """The event that a command leads to. ValueError: the account does not allow it."""
        if command["what"] == "withdraw" and command["amount"] > self.balance:
            raise ValueError(f"{self.name} has only {self.balance}")
        return {"type": {"deposit": "deposited", "withdraw": "withdrawn"}[command["what"]], "amount": command["amount"]}


class EventStore:
    """Events of accounts in SQLite; one of these per thread or program."""

    def __init__(self, path: Path = DATABASE) -> None:
        self.database = sqlite3.connect(path, check_same_thread=False)
        self.database.executescript(SCHEMA)

    def load(self, name: str) -> Account:
        """An account: from its last snapshot, and the events since."""
        query = "SELECT account, version, balance FROM snapshots WHERE account = ?"
        account = Account(*(self.database.execute(query, (name,)).fetchone() or (name,)))
        query = "SELECT event FROM events WHERE account = ? AND version > ? ORDER BY version"
        for (event,) in self.database.execute(query, (name, account.version)):
            account.apply(json.loads(event))
        return account

    def append(self, account: Account, event: Any) -> None:
        """Add an event to what was read, and a snapshot now and then. Conflict: there is a newer version."""
        row = (account.name, account.version + 1, json.dumps(event))
        try:
            with self.database:
                self.database.execute("INSERT INTO events (account, version, event) VALUES (?, ?, ?)", row)
                account.apply(event)
                if account.version % SNAPSHOT_EVERY == 0:
                    snapshot = (account.name, account.version, account.balance)
                    self.database.execute("REPLACE INTO snapshots VALUES (?, ?, ?)", snapshot)
        except sqlite3.IntegrityError:
            raise Conflict(account.name) from None

    def execute(self, command: Any) -> int:
        """Do a command; the balance after it. ValueError: it is refused."""
        while True:
            account = self.load(command["account"])
            try:
                self.append(account, account.decide(command))
                return account.balance
            except Conflict:
                continue  # decide again, on what is so now

    def unpublished(self) -> list[tuple[int, str, int, str]]:
        """The oldest events that may not have been published: position, account, version, event."""
        query = "SELECT position, account, version, event FROM events WHERE NOT published ORDER BY position LIMIT 100"
        return self.database.execute(query).fetchall()

    def mark_published(self, last: int) -> None:
        """Note that all up to this position were published."""
        with self.database:
            self.database.execute("UPDATE events SET published = 1 WHERE NOT published AND position <= ?", (last,))


async def publish_new(store: EventStore, events: Exchange) -> None:
    """Publish what was not published, in order; whoever is first does it for all."""
    while rows := store.unpublished():
        messages = [
            Message(json.loads(event), routing_key=account, message_id=f"{account}/{version}")
            for _, account, version, event in rows
        ]
        await events.channel.publish_many(messages, exchange=events.exchange)
        store.mark_published(rows[-1][0])


async def serve(
    connection: Connection,
    path: Path = DATABASE,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Do commands until cancelled."""
    store, published = EventStore(path), trio.Lock()
    async with connection.channel() as channel, RpcServer(connection) as server:
        events = await channel.declare_exchange(EVENTS, "topic", durable=True)

        async def execute(command: Any) -> int:
            balance = store.execute(command)  # a millisecond or two; what takes longer belongs in a thread
            async with published:
                await publish_new(store, events)
            return balance

        await publish_new(store, events)  # what a crash has left
        await server.register(COMMANDS, execute)
        task_status.started()
        print("serving")
        await trio.sleep_forever()


async def command(connection: Connection, what: str, account: str, amount: int) -> int:
    """Have a command done; the balance after it. RemoteError: it is refused."""
    async with RpcClient(connection) as rpc:
        balance: int = await rpc.call(COMMANDS, {"what": what, "account": account, "amount": amount})
        print(f"{account} has {balance}")
        return balance


async def watch(
    connection: Connection,
    show: Callable[[str, Any], None] = print,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Show events as they happen, with their ids."""
    async with connection.channel() as channel:
        events = await channel.declare_exchange(EVENTS, "topic", durable=True)
        async with events.subscribe("#", no_ack=True) as messages:
            task_status.started()
            print("watching")
            async for message in messages:
                show(message.message_id or "", message.value())


async def main(half: Callable[[Connection], Awaitable[object]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", *url]:
            trio.run(main, serve, *url)
        case [("deposit" | "withdraw") as what, account, amount, *url]:
            trio.run(main, partial(command, what=what, account=account, amount=int(amount)), *url)
        case ["watch", *url]:
            trio.run(main, watch, *url)
        case _:
            sys.exit(__doc__)
