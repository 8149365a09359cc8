"""examples/payments.py: what each guarantee makes of a crash before, in, and right after the effect."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from examples import payments
from rabbitish.client import Connection, SQLiteStore
from tests.examples.support import Box, World, get

WAYS = [payments.at_most_once, payments.at_least_once, payments.effectively_once]
Way = Callable[[Connection, Path, Callable[[str], None]], Awaitable[None]]


def bookings(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT account, amount FROM bookings").fetchall()


async def shown(way: Way, connection: Connection, path: Path, number: int) -> list[str]:
    """Have so many payments worked on; what was said."""
    box = Box()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way, connection, path, box)
        said = await box.take(number)
        nursery.cancel_scope.cancel()
    return said


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_books_what_is_paid(world: World, way: Way, tmp_path: Path) -> None:
    path = tmp_path / "payments.db"
    async with world.connect() as connection:
        await payments.pay(connection, "alice", 30)
        await payments.pay(connection, "bob", 20)
        assert await shown(way, connection, path, 2) == ["booked: alice 30", "booked: bob 20"]
        async with connection.channel() as channel:
            assert await channel.queue(payments.PAYMENTS).get() is None
    assert bookings(path) == [("alice", 30), ("bob", 20)]


async def test_a_crash_between_effect_and_acknowledgement_books_twice_at_least_once(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "payments.db"
    async with world.connect() as connection:
        await payments.pay(connection, "alice", 30)
        async with world.channel() as dying:
            message = await get(dying, payments.PAYMENTS)
            payments.book_in(path, message.value())  # and no acknowledgement any more
        assert await shown(payments.at_least_once, connection, path, 1) == ["booked: alice 30"]
    assert bookings(path) == [("alice", 30), ("alice", 30)]


async def test_a_crash_between_effect_and_acknowledgement_books_once_effectively_once(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "payments.db"
    async with world.connect() as connection:
        payment = await payments.pay(connection, "alice", 30)
        async with world.channel() as dying, SQLiteStore(path, table="booked_ids") as store:
            message = await get(dying, payments.PAYMENTS)
            assert await payments.book_once(store, message) == "booked: alice 30"
        await payments.pay(connection, "bob", 20)
        assert sorted(await shown(payments.effectively_once, connection, path, 2)) == [
            "booked: bob 20",
            f"skipped, since it was booked before: {payment}",
        ]
    assert bookings(path) == [("alice", 30), ("bob", 20)]


async def test_a_crash_before_the_effect_loses_at_most_once_only(world: World, tmp_path: Path) -> None:
    async with world.connect() as connection:
        for way in WAYS:
            path = tmp_path / way.__name__
            await payments.pay(connection, "alice", 30)
            async with world.channel() as dying:
                message = await dying.queue(payments.PAYMENTS).get(no_ack=way is payments.at_most_once)
                assert message is not None
            await payments.pay(connection, "bob", 20)
            both = way is not payments.at_most_once
            await shown(way, connection, path, 1 + both)
            assert sorted(bookings(path)) == [("alice", 30)] * both + [("bob", 20)]


async def test_a_crash_in_the_middle_of_the_effect_leaves_nothing(world: World, tmp_path: Path) -> None:
    path = tmp_path / "payments.db"
    payments.book_in(path, {"account": "bob", "amount": 20})
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE booked_ids (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL)")
        dies = "CREATE TRIGGER dies AFTER INSERT ON booked_ids BEGIN SELECT RAISE(ABORT, 'the disk is gone'); END"
        database.execute(dies)
        async with world.connect() as connection:
            await payments.pay(connection, "alice", 30)
            with pytest.raises(sqlite3.IntegrityError, match="the disk is gone"):
                await payments.effectively_once(connection, path)
            assert bookings(path) == [("bob", 20)]
            database.execute("DROP TRIGGER dies")
            assert await shown(payments.effectively_once, connection, path, 1) == ["booked: alice 30"]


async def test_who_pays_again_with_the_same_id_pays_once(world: World, tmp_path: Path) -> None:
    path = tmp_path / "payments.db"
    async with world.connect() as connection:
        await payments.pay(connection, "alice", 30, "one")
        await payments.pay(connection, "alice", 30, "one")
        assert await shown(payments.effectively_once, connection, path, 2) == [
            "booked: alice 30",
            "skipped, since it was booked before: one",
        ]


async def test_a_confirm_that_is_lost_is_published_again_and_booked_once(world: World, tmp_path: Path) -> None:
    if world.broker is None:
        pytest.skip("only our broker loses a confirm when told to")
    path = tmp_path / "payments.db"
    async with world.connect(reconnect=True) as connection:
        world.broker.fail_next_publish("lose-confirm")
        payment = await payments.pay(connection, "alice", 30)
        assert world.broker.queue(payments.PAYMENTS).ready == 2
        assert await shown(payments.effectively_once, connection, path, 2) == [
            "booked: alice 30",
            f"skipped, since it was booked before: {payment}",
        ]
    assert bookings(path) == [("alice", 30)]
