"""examples/ordering.py: a key's events in order, whoever dies; keys beside each other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import trio
import trio.testing

from examples import ordering
from tests.examples.support import Box, World


def test_keys_are_spread_and_stay_where_they_are() -> None:
    spread = Counter(ordering.queue_of(f"customer {number}") for number in range(800))
    assert set(spread) == set(ordering.QUEUES)
    assert min(spread.values()) > 50
    assert [ordering.queue_of(key) for key in ("alice", "bob")] == ["customers.1", "customers.2"]


async def test_a_keys_events_are_handled_in_order_and_never_two_at_a_time(world: World) -> None:
    handled, at_work = Box(), Counter[str]()

    async def handle(key: str, event: Any) -> None:
        at_work[key] += 1
        assert at_work[key] == 1
        await trio.testing.wait_all_tasks_blocked(0.001)
        at_work[key] -= 1
        handled(key, event)

    keys = [f"customer {number}" for number in range(6)]
    async with world.connect() as connection, world.connect() as other, trio.open_nursery() as nursery:
        for each in (connection, other):
            nursery.start_soon(ordering.consume, each, handle)

        async def publish(key: str) -> None:
            for number in range(5):
                await ordering.publish(connection, key, number)

        for key in keys:
            nursery.start_soon(publish, key)
        seen = await handled.take(30)
        nursery.cancel_scope.cancel()
    assert {key: [event for each, event in seen if each == key] for key in keys} == {
        key: [0, 1, 2, 3, 4] for key in keys
    }


async def test_a_slow_key_holds_back_only_its_queue(world: World) -> None:
    handled = Box()

    async def handle(key: str, event: Any) -> None:
        if key == "alice":
            await trio.sleep_forever()
        handled(key, event)

    async with world.connect() as connection, trio.open_nursery() as nursery:
        for key in ("alice", "bob"):
            await ordering.publish(connection, key, 1)
        nursery.start_soon(ordering.consume, connection, handle)
        assert await handled.next() == ("bob", 1)
        nursery.cancel_scope.cancel()


async def test_another_program_takes_over_where_one_died(world: World) -> None:
    started, handled = Box(), Box()

    async def hang(key: str, event: Any) -> None:
        started(event)
        await trio.sleep_forever()

    async def handle(key: str, event: Any) -> None:
        handled(event)

    async with world.connect() as connection, trio.open_nursery() as nursery:
        async with world.connect() as dying, trio.open_nursery() as inner:
            inner.start_soon(ordering.consume, dying, hang)
            for number in range(3):
                await ordering.publish(connection, "alice", number)
            assert await started.next() == 0
            nursery.start_soon(ordering.consume, connection, handle)
            inner.cancel_scope.cancel()
        assert await handled.take(3) == [0, 1, 2]
        nursery.cancel_scope.cancel()
