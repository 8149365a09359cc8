"""Doing once what comes more than once: ids of what is done, in a store, looked up before a message is worked on.

A broker delivers at least once, so a consumer whose effects must not be there twice remembers what it has done. The id
is the message's `message_id` unless told otherwise. It is remembered when the block was left well and before the
message is acknowledged: a crash in between has the message come again, and then be skipped. A crash between the effect
and the store is what the SQLite store can close: effects written through its connection are in one transaction with
the id.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol, Self, TypeVar

import trio

from rabbitish.client.message import IncomingMessage

T = TypeVar("T")


class SeenStore(Protocol):
    """Where the ids of what is done are kept. A store of your own has these two methods; what they raise goes on."""

    async def seen(self, message_id: str) -> bool:
        """Whether the id was added, and not forgotten since."""
        ...

    async def add(self, message_id: str) -> None:
        """Remember an id; when this returns it is as safe as the store promises."""
        ...


class MemoryStore:
    """A `SeenStore` in memory: the last `size` ids, forgotten with the process."""

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    async def seen(self, message_id: str) -> bool:
        """See SeenStore."""
        return message_id in self._ids

    async def add(self, message_id: str) -> None:
        """See SeenStore."""
        self._ids[message_id] = None
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)


class SQLiteStore:
    """Ids in a table of a SQLite database, used in a thread; a block: `async with SQLiteStore("seen.db") as store`.

    `keep`: ids that are kept at least; older ones are deleted now and then. None: all. sqlite3.Error: what SQLite says.
    """

    def __init__(self, path: str | Path, *, table: str = "seen", keep: int | None = None) -> None:
        if not table.isidentifier():
            raise ValueError(f"{table!r} is no name for a table")
        self._path = path
        self._table = table
        self._keep = keep
        self._added = 0
        self._lock = trio.Lock()
        self._database: sqlite3.Connection

    async def __aenter__(self) -> Self:
        await trio.to_thread.run_sync(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            async with self._lock:
                await trio.to_thread.run_sync(self._database.close)

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        self._database.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL)"
        )

    async def seen(self, message_id: str) -> bool:
        """See SeenStore."""
        return await self._run(lambda database: self._is_there(database, message_id))

    async def add(self, message_id: str) -> None:
        """See SeenStore."""
        await self._run(lambda database: self._insert(database, message_id))

    async def once(self, message_id: str, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do `work(database)`, in a thread, in one transaction with remembering the id; what it returned.

        None: that was done before, so let `work` return something else. What it raises undoes all of it.
        """

        def transaction(database: sqlite3.Connection) -> T | None:
            database.execute("BEGIN IMMEDIATE")
            try:
                result = None
                if not self._is_there(database, message_id):
                    result = work(database)
                    self._insert(database, message_id)
                database.execute("COMMIT")
            except BaseException:
                database.execute("ROLLBACK")
                raise
            return result

        return await self._run(transaction)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._lock:
            return await trio.to_thread.run_sync(work, self._database)

    def _is_there(self, database: sqlite3.Connection, message_id: str) -> bool:
        query = f"SELECT 1 FROM {self._table} WHERE id = ?"
        return database.execute(query, (message_id,)).fetchone() is not None

    def _insert(self, database: sqlite3.Connection, message_id: str) -> None:
        database.execute(f"INSERT OR IGNORE INTO {self._table} (id) VALUES (?)", (message_id,))
        self._added += 1
        if self._keep is not None and self._added % 100 == 1:
            oldest = f"SELECT MAX(number) - ? FROM {self._table}"
            database.execute(f"DELETE FROM {self._table} WHERE number <= ({oldest})", (self._keep,))


class Once:
    """Lets each message be done once: `async with once.process(message) as first: if first: …`.

    `key` gives a message's id; one without an id (None) is always the first. Two messages with one id that are worked
    on at the same time in this program wait for each other; programs that share a store must take care of that
    themselves, for instance with a queue that has a single active consumer.
    """

    def __init__(
        self, store: SeenStore, key: Callable[[IncomingMessage], str | None] = lambda message: message.message_id
    ) -> None:
        self.skipped = 0
        """Messages that had been done before."""
        self._store = store
        self._key = key
        self._working: dict[str, trio.Event] = {}

    @contextlib.asynccontextmanager
    async def process(
        self, message: IncomingMessage, *, requeue: bool = False, reject_on_error: bool = True
    ) -> AsyncIterator[bool]:
        """`message.process(...)`, with whether it is the first time. The id is remembered if the block ends well."""
        async with message.process(requeue=requeue, reject_on_error=reject_on_error):
            key = self._key(message)
            if key is None:
                yield True
                return
            while key in self._working:
                await self._working[key].wait()
            done = self._working[key] = trio.Event()
            try:
                first = not await self._store.seen(key)
                self.skipped += not first
                yield first
                if first:
                    with trio.CancelScope(shield=True):  # it is done, whatever happens now
                        await self._store.add(key)
            finally:
                del self._working[key]
                done.set()
