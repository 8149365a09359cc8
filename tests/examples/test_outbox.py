"""examples/outbox.py: events go out once the order is there, and crashes neither lose nor double them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from examples import outbox
from rabbitish.client import PublishError
from tests.examples.support import Box, World


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[outbox.Orders]:
    orders = outbox.Orders(tmp_path / "orders.db")
    yield orders
    orders.database.close()


def crash_when_marking(orders: outbox.Orders) -> None:
    orders.database.execute(
        "CREATE TRIGGER dies BEFORE UPDATE OF sent ON outbox BEGIN SELECT RAISE(ABORT, 'the power is gone'); END"
    )


async def test_orders_of_before_and_of_now_are_shipped_in_order(
    world: World, orders: outbox.Orders, tmp_path: Path
) -> None:
    shipped = Box()
    shop = outbox.Orders(tmp_path / "orders.db")  # a program of its own, with a connection of its own
    shop.place("before")
    async with world.connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(outbox.ship, connection, tmp_path / "orders.db", shipped)
        nursery.start_soon(outbox.relay, connection, orders, world.seconds(3600))
        assert await shipped.next() == {"number": 1, "text": "before"}
        shop.place("now")
        while not shipped.waiting:  # the relay may have been in a thread, where nobody saw it busy, not asleep
            await world.later(3600)
            await world.moment()
        assert await shipped.next() == {"number": 2, "text": "now"}
        nursery.cancel_scope.cancel()
    shop.database.close()


async def test_a_crash_between_publishing_and_noting_it_publishes_again_and_ships_once(
    world: World, orders: outbox.Orders, tmp_path: Path
) -> None:
    shipped = Box()
    orders.place("a book")
    crash_when_marking(orders)
    async with world.connect() as connection, connection.channel() as channel:
        with pytest.raises(sqlite3.IntegrityError, match="the power is gone"):
            await outbox.relay(connection, orders)
        assert len(orders.unsent()) == 1
        orders.database.execute("DROP TRIGGER dies")
        orders.place("a pen")
        events = await outbox.declare(channel)
        assert await outbox.relay_some(events, orders) == 2
        assert await outbox.relay_some(events, orders) == 0
        assert (await channel.declare_queue(outbox.SHIPPING, passive=True)).message_count == 3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.ship, connection, tmp_path / "orders.db", shipped)
            assert [event["text"] for event in await shipped.take(2)] == ["a book", "a pen"]
            nursery.cancel_scope.cancel()


async def test_what_the_broker_did_not_take_stays_unsent(world: World, orders: outbox.Orders) -> None:
    orders.place("a book")
    async with world.connect() as connection:
        async with connection.channel() as channel:
            events = await outbox.declare(channel)
            await channel.queue(outbox.SHIPPING).delete()  # mandatory: nobody would ever hear of it
            with pytest.raises(PublishError):
                await outbox.relay_some(events, orders)
            assert len(orders.unsent()) == 1
        async with connection.channel() as channel:
            events = await outbox.declare(channel)
            assert await outbox.relay_some(events, orders) == 1
    assert orders.unsent() == []


async def test_a_crash_before_publishing_loses_nothing(world: World, orders: outbox.Orders, tmp_path: Path) -> None:
    shipped = Box()
    orders.place("a book")
    orders.database.close()  # the shop's program is gone
    again = outbox.Orders(tmp_path / "orders.db")
    async with world.connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(outbox.relay, connection, again)
        nursery.start_soon(outbox.ship, connection, tmp_path / "orders.db", shipped)
        assert await shipped.next() == {"number": 1, "text": "a book"}
        nursery.cancel_scope.cancel()
    again.database.close()


def test_no_event_without_its_order(orders: outbox.Orders) -> None:
    orders.database.execute(
        "CREATE TRIGGER dies BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'the power is gone'); END"
    )
    with pytest.raises(sqlite3.IntegrityError):
        orders.place("a book")
    assert orders.database.execute("SELECT COUNT(*) FROM orders").fetchone() == (0,)
