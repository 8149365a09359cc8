"""Messages that come again are done once: with ids in memory, in SQLite, and in one transaction with the work."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio
import trio.testing

from rabbitish.client import MemoryStore, Message, Once, SQLiteStore

from .support import channel, count, new_queue, run


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_message_that_comes_again_is_skipped(kind: str, tmp_path: Path) -> None:
    async def conversation() -> None:
        async with channel() as opened, SQLiteStore(tmp_path / "seen.db") as database:
            once = Once(MemoryStore() if kind == "memory" else database)
            queue = await new_queue(opened)
            await opened.publish_many(
                [Message(key, message_id=key or None) for key in ("a", "b", "a", "", "", "a")], routing_key=queue.queue
            )
            done = []
            async with queue.consume() as messages:
                for _ in range(6):
                    message = await anext(messages)
                    async with once.process(message) as first:
                        if first:
                            done.append(message.value())
            assert done == ["a", "b", "", ""]
            assert once.skipped == 2
            assert await count(opened, queue.queue) == 0

    run(conversation)


def test_what_failed_was_not_done() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            once = Once(MemoryStore())
            queue = await new_queue(opened)
            await queue.publish("x", message_id="1")
            tries = []
            async with queue.consume() as messages:
                for _ in range(2):
                    message = await anext(messages)
                    try:
                        async with once.process(message, requeue=True) as first:
                            tries.append((first, message.redelivered))
                            if not message.redelivered:
                                raise ValueError
                    except ValueError:
                        pass
            assert tries == [(True, False), (True, True)]
            assert await count(opened, queue.queue) == 0

    run(conversation)


def test_the_same_id_at_the_same_time_waits() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            once = Once(MemoryStore(), key=lambda message: message.value())
            queue = await new_queue(opened)
            for _ in range(2):
                await queue.publish("x")
            firsts = []

            async def work(message: object) -> None:
                async with once.process(message) as first:  # type: ignore[arg-type]
                    await trio.testing.wait_all_tasks_blocked()
                    firsts.append(first)

            async with queue.consume() as messages, trio.open_nursery() as nursery:
                nursery.start_soon(work, await anext(messages))
                nursery.start_soon(work, await anext(messages))
            assert firsts == [True, False]

    run(conversation)


def test_memory_forgets_the_oldest() -> None:
    async def conversation() -> None:
        store = MemoryStore(2)
        for key in "abc":
            await store.add(key)
        assert [await store.seen(key) for key in "abc"] == [False, True, True]
        assert len(store) == 2

    run(conversation)


def test_sqlite_remembers_after_a_restart_and_forgets_what_is_old(tmp_path: Path) -> None:
    async def conversation() -> None:
        path = tmp_path / "seen.db"
        async with SQLiteStore(path) as store:
            await store.add("a")
            await store.add("a")
        async with SQLiteStore(path, keep=3) as store:
            assert await store.seen("a")
            for number in range(101):
                await store.add(str(number))
            assert not await store.seen("a")
            assert [await store.seen(str(number)) for number in (96, 97, 98, 100)] == [False, False, True, True]
        with pytest.raises(ValueError):
            SQLiteStore(path, table="a; DROP TABLE seen")

    run(conversation)


def test_work_and_id_are_one_transaction(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with SQLiteStore(tmp_path / "bank.db") as store:

            def pay(database: sqlite3.Connection) -> str:
                database.execute("CREATE TABLE IF NOT EXISTS paid (amount INTEGER)")
                database.execute("INSERT INTO paid VALUES (1)")
                return "paid"

            def fail(database: sqlite3.Connection) -> None:
                pay(database)
                raise ValueError("no")

            with pytest.raises(ValueError, match="no"):
                await store.once("1", fail)
            assert not await store.seen("1")
            assert await store.once("1", pay) == "paid"
            assert await store.once("1", pay) is None
        with sqlite3.connect(tmp_path / "bank.db") as database:
            assert database.execute("SELECT COUNT(*) FROM paid").fetchone() == (1,)
        database.close()

    run(conversation)
