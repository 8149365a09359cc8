"""examples/logs.py: lines are kept and watched by topic, once each, and logging never gets in the way."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from examples import logs
from tests.examples.support import Box, World


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    yield
    root.setLevel(level)


def kept(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT key, text FROM logs ORDER BY time").fetchall()


async def collected(world: World, path: Path, number: int) -> list[Any]:
    """Have the collector keep so many lines."""
    async with world.connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(partial(logs.collect, connection, path, size=number))
        async with connection.channel() as channel:
            await world.until(lambda: is_kept(path, number))
            nursery.cancel_scope.cancel()
            await channel.declare_queue(logs.COLLECTED, passive=True)
    return kept(path)


async def is_kept(path: Path, number: int) -> bool:
    try:
        return len(kept(path)) == number
    except sqlite3.OperationalError:
        return False


async def test_lines_are_kept_and_watched(world: World, tmp_path: Path) -> None:
    errors = Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(logs.watch, connection, "*.error", errors)
        async with logs.logging_to(connection, "shop") as handler:
            logging.getLogger("orders").info("order %d placed", 42)
            logging.getLogger("payments").error("refused")
            await trio.to_thread.run_sync(logging.getLogger("a.thread").warning, "late")
        assert handler.dropped == 0
        assert await errors.next() == ("shop.error", "refused")
        nursery.cancel_scope.cancel()
    assert await collected(world, tmp_path / "logs.db", 3) == [
        ("shop.info", "order 42 placed"),
        ("shop.error", "refused"),
        ("shop.warning", "late"),
    ]


async def test_a_crash_between_writing_and_acknowledging_keeps_each_line_once(world: World, tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    async with world.connect() as connection:
        async with logs.logging_to(connection, "shop"):
            logging.getLogger().info("one")
            logging.getLogger().info("two")
        async with world.channel() as dying:
            database = sqlite3.connect(path, check_same_thread=False)
            database.execute("CREATE TABLE logs (id TEXT PRIMARY KEY, key TEXT, time REAL, text TEXT)")
            async for batch in dying.queue(logs.COLLECTED).consume().batches(1):
                logs.keep(database, batch)
                break
            database.close()
        assert len(kept(path)) == 1
    assert [text for _, text in await collected(world, path, 2)] == ["one", "two"]


async def test_a_full_buffer_drops_lines_and_holds_up_nobody(world: World) -> None:
    if world.broker is None:
        pytest.skip("only our broker holds publishers back when told to")
    async with world.connect() as connection, connection.channel() as channel:
        logger = logging.getLogger("shop")
        async with logs.logging_to(connection, "shop", buffer=5) as handler:
            await trio.testing.wait_all_tasks_blocked()
            world.broker.block()
            logger.info("tells us that it is blocked")
            while connection.blocked is None:  # noqa: ASYNC110 (there is no event for it)
                await trio.sleep(0.005)
            for number in range(20):
                logger.info("line %d", number)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert handler.dropped == 14  # five are in the buffer, one in the publisher's hands
            world.broker.unblock()
        there = await channel.declare_queue(logs.COLLECTED, passive=True)
        assert there.message_count == 7
