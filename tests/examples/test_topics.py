"""examples/topics.py: who gets what, and what the audit finds when it comes back."""

from __future__ import annotations

from functools import partial

import trio

from examples import topics
from tests.examples.support import Box, World


async def test_events_go_where_a_pattern_fits(world: World) -> None:
    created, all_of_eu = Box(), Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(partial(topics.subscribe, connection, "orders.*.created", show=created))
        await nursery.start(partial(topics.subscribe, connection, "*.eu.#", "orders.#", show=all_of_eu))
        await topics.publish(connection, "orders.eu.created", 1)
        await topics.publish(connection, "orders.eu.paid", 2)
        await topics.publish(connection, "payments.eu.refused.late", 3)
        await topics.publish(connection, "orders.us.created", 4)
        assert await created.take(2) == [("orders.eu.created", 1), ("orders.us.created", 4)]
        assert [event for _, event in await all_of_eu.take(4)] == [1, 2, 3, 4]
        nursery.cancel_scope.cancel()


async def test_the_audit_misses_nothing_others_do(world: World) -> None:
    seen_by_audit, seen_by_others = Box(), Box()
    audit = partial(topics.subscribe, queue=topics.AUDIT, show=seen_by_audit)
    async with world.connect() as connection:
        async with trio.open_nursery() as nursery:
            await nursery.start(audit, connection, "#")
            nursery.cancel_scope.cancel()
        await topics.publish(connection, "a", "while away")
        async with trio.open_nursery() as nursery:
            await nursery.start(audit, connection, "#")
            await nursery.start(partial(topics.subscribe, connection, "#", show=seen_by_others))
            await topics.publish(connection, "a", "while there")
            assert await seen_by_audit.take(2) == [("a", "while away"), ("a", "while there")]
            assert await seen_by_others.next() == ("a", "while there")
            nursery.cancel_scope.cancel()
