"""examples/autoscaling.py: more workers at once, fewer one by one, and no job is torn."""

from __future__ import annotations

import trio

from examples import autoscaling
from examples.autoscaling import Scale
from rabbitish.client import Channel
from tests.examples.support import Box, World


def test_how_many_are_wanted() -> None:
    scale = Scale(least=1, most=10, jobs_per_worker=10)
    assert [scale.wanted(0, depth) for depth in (0, 1, 10, 11, 95, 1000)] == [1, 1, 1, 2, 10, 10]
    assert [scale.wanted(5, depth) for depth in (0, 39, 50, 51)] == [4, 4, 5, 6]
    assert scale.wanted(1, 0) == 1


async def test_workers_come_with_the_jobs_and_go_after_them(world: World) -> None:
    looks, started, done = Box(), Box(), Box()
    go_on = trio.Semaphore(0)

    async def do(job: int) -> None:
        started(job)
        await go_on.acquire()
        done(job)

    scale = Scale(least=1, most=4, jobs_per_worker=2, every=world.seconds(60))
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await autoscaling.send(connection, 20)
        nursery.start_soon(autoscaling.scale, connection, do, scale, looks)
        assert await looks.next() == "20 jobs wait, 4 workers"
        assert sorted(await started.take(4)) == [0, 1, 2, 3]
        await world.later(60)
        assert await looks.next() == "16 jobs wait, 4 workers"
        for _ in range(12):
            go_on.release()
        await done.take(12)
        await started.take(12)
        for _ in range(8):  # the last four, and none of them is lost when workers are stopped below
            go_on.release()
        await done.take(8)
        workers = [4]
        while workers[-1] > 1:
            await world.later(60)
            workers.append(int((await looks.next()).split()[3]))
        assert list(dict.fromkeys(workers)) == [4, 3, 2, 1]
        nursery.cancel_scope.cancel()


async def test_a_worker_that_is_stopped_ends_its_job(world: World) -> None:
    looks, started, done = Box(), Box(), Box()
    go_on = trio.Event()

    async def do(job: int) -> None:
        started(job)
        await go_on.wait()
        done(job)

    scale = Scale(least=0, most=2, jobs_per_worker=1, every=world.seconds(60))
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await autoscaling.send(connection, 2)
        nursery.start_soon(autoscaling.scale, connection, do, scale, looks)
        await started.take(2)
        while await looks.next() != "0 jobs wait, 0 workers":
            await world.later(60)
        assert not done.waiting
        go_on.set()
        assert sorted(await done.take(2)) == [0, 1]
        async with connection.channel() as channel:
            await world.until(lambda: has_no_consumers(channel))
        await autoscaling.send(connection, 1)
        await world.later(60)
        assert await done.next() == 0
        nursery.cancel_scope.cancel()


async def has_no_consumers(channel: Channel) -> bool:
    return (await channel.declare_queue(autoscaling.JOBS, passive=True)).consumer_count == 0
