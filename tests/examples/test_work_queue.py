"""examples/work_queue.py: who gets which task, and that none is lost."""

from __future__ import annotations

import trio
import trio.testing

from examples import work_queue
from tests.examples.support import Box, World, get


async def test_a_slow_task_keeps_no_others_waiting(world: World) -> None:
    slow_one, others = trio.Event(), Box()

    async def do(task: str) -> None:
        if task == "slow":
            slow_one.set()
            await trio.sleep_forever()
        others(task)

    async with world.connect() as connection, trio.open_nursery() as nursery:
        await work_queue.send(connection, ["slow"])
        for _ in range(2):
            nursery.start_soon(work_queue.work, connection, do, trio.Event())
        await slow_one.wait()
        await work_queue.send(connection, ["1", "2", "3", "4"])
        assert await others.take(4) == ["1", "2", "3", "4"]
        nursery.cancel_scope.cancel()


async def test_the_task_of_a_worker_that_dies_goes_to_another(world: World) -> None:
    died, done = trio.Event(), Box()

    async def die(task: str) -> None:
        died.set()
        await trio.sleep_forever()

    async def do(task: str) -> None:
        done(task)

    async with world.connect() as connection, trio.open_nursery() as nursery:
        await work_queue.send(connection, ["task"])
        async with world.connect() as other, trio.open_nursery() as inner:
            inner.start_soon(work_queue.work, other, die, trio.Event())
            await died.wait()
            inner.cancel_scope.cancel()
        nursery.start_soon(work_queue.work, connection, do, trio.Event())
        assert await done.next() == "task"
        nursery.cancel_scope.cancel()


async def test_a_task_that_fails_stops_nobody(world: World) -> None:
    done = Box()

    async def do(task: str) -> None:
        if task == "bad":
            raise ValueError(task)
        done(task)

    async with world.connect() as connection, trio.open_nursery() as nursery:
        await work_queue.send(connection, ["bad", "good"])
        nursery.start_soon(work_queue.work, connection, do, trio.Event())
        assert await done.next() == "good"
        nursery.cancel_scope.cancel()


async def test_a_stopped_worker_ends_its_task_and_takes_no_more(world: World) -> None:
    stop, done = trio.Event(), Box()

    async def do(task: str) -> None:
        stop.set()
        await trio.testing.wait_all_tasks_blocked()
        done(task)

    async with world.connect() as connection, connection.channel() as channel:
        await work_queue.send(connection, ["first", "second"])
        await work_queue.work(connection, do, stop)
        assert await done.take(1) == ["first"]
        left = await get(channel, work_queue.TASKS)
        assert left.value() == "second"
        left.ack()
