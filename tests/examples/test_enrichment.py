"""examples/enrichment.py: orders go on complete, wait for a customer that is not known yet, and are never lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from examples import enrichment
from rabbitish.client import Backoff
from tests.examples.support import Box, World

ALICE = {"id": 7, "name": "Alice", "region": "eu"}


@pytest.fixture
def customers(tmp_path: Path) -> enrichment.Customers:
    return enrichment.Customers(tmp_path / "customers.db")


async def test_an_order_goes_on_with_its_customer_and_its_id(world: World, customers: enrichment.Customers) -> None:
    complete = Box()
    async with world.connect() as connection, connection.channel() as channel, trio.open_nursery() as nursery:
        customers.learn({**ALICE, "name": "Alicia"})
        customers.learn(ALICE)
        await enrichment.order(connection, 7, "3 books")
        taken = await channel.queue(enrichment.ORDERS).get()
        assert taken is not None
        taken.reject(requeue=True)
        nursery.start_soon(enrichment.enrich, connection, customers)
        await world.ready(enrichment.ORDERS, 0)
        queue = await channel.declare_queue(enrichment.COMPLETE, durable=True)
        message = await anext(queue.consume())
        assert message.message_id == taken.message_id
        message.reject(requeue=True)
        nursery.start_soon(enrichment.ship, connection, complete)
        assert await complete.next() == {"customer": ALICE, "text": "3 books"}
        nursery.cancel_scope.cancel()


async def test_an_order_waits_until_its_customer_is_known(world: World, customers: enrichment.Customers) -> None:
    complete = Box()
    backoff = Backoff(first=world.seconds(60), factor=1, retries=50)
    async with world.connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(enrichment.enrich, connection, customers, backoff)
        nursery.start_soon(enrichment.ship, connection, complete)
        await enrichment.order(connection, 7, "3 books", backoff)
        if world.broker is not None:
            waiting = world.broker.queue(f"{enrichment.ORDERS}.retry.60000")
            await world.broker.wait_until(lambda: waiting.ready)
        await enrichment.tell(connection, 7, "Alice", "eu")
        await world.ready(enrichment.CUSTOMERS, 0)
        while not knows(customers):  # noqa: ASYNC110 (there is no event for it)
            await trio.sleep(0.005)
        await world.later(60)
        assert await complete.next() == {"customer": ALICE, "text": "3 books"}
        nursery.cancel_scope.cancel()


def knows(customers: enrichment.Customers) -> bool:
    try:
        return bool(customers.find(7))
    except LookupError:
        return False


async def test_an_order_of_nobody_is_parked(world: World, customers: enrichment.Customers) -> None:
    none = Backoff(retries=0)
    async with world.connect() as connection, connection.channel() as channel, trio.open_nursery() as nursery:
        nursery.start_soon(enrichment.enrich, connection, customers, none)
        await enrichment.order(connection, 8, "a pen", none)
        await world.until(lambda: has_parked(channel))
        parked: Any = await channel.queue(f"{enrichment.ORDERS}.parked").get()
        assert parked.headers["x-error"] == "LookupError: customer 8 is not known"
        parked.ack()
        nursery.cancel_scope.cancel()


async def has_parked(channel: Any) -> bool:
    found = await channel.declare_queue(f"{enrichment.ORDERS}.parked", durable=True)
    return bool(found.message_count)


async def test_an_order_that_cannot_go_on_is_not_lost(world: World, customers: enrichment.Customers) -> None:
    if world.broker is None:
        pytest.skip("only our broker refuses a publish when told to")
    complete = Box()
    backoff = Backoff(first=60, factor=1, retries=1)
    customers.learn(ALICE)
    world.broker.fail_next_publish(routing_key=enrichment.COMPLETE)
    async with world.connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(enrichment.enrich, connection, customers, backoff)
        nursery.start_soon(enrichment.ship, connection, complete)
        await enrichment.order(connection, 7, "3 books", backoff)
        waiting = world.broker.queue(f"{enrichment.ORDERS}.retry.60000")
        await world.broker.wait_until(lambda: waiting.ready)
        await world.later(60)
        assert await complete.next() == {"customer": ALICE, "text": "3 books"}
        nursery.cancel_scope.cancel()
