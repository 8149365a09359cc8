"""examples/publish_subscribe.py: a copy for each service, shared among its instances, kept while it is down."""

from __future__ import annotations

from functools import partial

import trio

from examples import publish_subscribe
from tests.examples.support import Box, World


async def test_each_service_gets_a_copy_and_its_instances_share(world: World) -> None:
    stock, mails, watcher = Box(), Box(), Box()
    boxes = [("stock", stock), ("stock", stock), ("mails", mails), ("", watcher)]
    async with world.connect() as connection, trio.open_nursery() as nursery:
        for service, box in boxes:
            await nursery.start(partial(publish_subscribe.subscribe, connection, service, box))
        orders = [f"order {number}" for number in range(6)]
        for order in orders:
            await publish_subscribe.publish(connection, order)
        assert sorted(await stock.take(6)) == orders
        assert await mails.take(6) == orders
        assert await watcher.take(6) == orders
        assert not stock.waiting
        nursery.cancel_scope.cancel()


async def test_a_service_that_was_down_gets_what_it_missed_and_a_watcher_does_not(world: World) -> None:
    stock, watcher = Box(), Box()
    async with world.connect() as connection:
        async with trio.open_nursery() as nursery:
            await nursery.start(publish_subscribe.subscribe, connection, "stock", stock)
            nursery.cancel_scope.cancel()
        await publish_subscribe.publish(connection, "while down")
        async with trio.open_nursery() as nursery:
            await nursery.start(publish_subscribe.subscribe, connection, "stock", stock)
            await nursery.start(publish_subscribe.subscribe, connection, "", watcher)
            await publish_subscribe.publish(connection, "up")
            assert await stock.take(2) == ["while down", "up"]
            assert await watcher.next() == "up"
            nursery.cancel_scope.cancel()
