"""Work queues: who gets what, retries with growing pauses, parking, and what a stop leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing

from rabbitish.client import Backoff, Connection, ConsumerCancelled, Poison, WorkQueue, queue_arguments

from .support import connected, count, name, ours_only, run, soon

SECONDS = Backoff(first=10, factor=3, longest=60, retries=3)


@asynccontextmanager
async def work(connection: Connection, backoff: Backoff | None = None) -> AsyncIterator[WorkQueue]:
    """A work queue that is not there any more afterwards."""
    async with WorkQueue(connection, name(), backoff=backoff) as jobs:
        yield jobs
        async with connection.channel() as opened:
            names = [jobs.name, jobs.parked_name]
            names += [jobs.retry_name(pause) for pause in (backoff or Backoff()).milliseconds()]
            for each in names:
                await opened.queue(each).delete()


async def parked(jobs: WorkQueue, number: int) -> None:
    """Wait until so many jobs are parked."""
    async with jobs.parked.consume(prefetch=number) as messages:
        taken = [await anext(messages) for _ in range(number)]
    for message in reversed(taken):
        message.reject(requeue=True)


def test_pauses_grow_up_to_the_longest() -> None:
    assert Backoff(first=1, factor=2, longest=5, retries=4).milliseconds() == [1000, 2000, 4000, 5000]
    assert Backoff(retries=0).milliseconds() == []
    assert Backoff(first=0, retries=1).milliseconds() == [1]


def test_jobs_go_to_whoever_has_a_hand_free() -> None:
    async def conversation() -> None:
        async with connected() as connection, work(connection) as jobs:
            done: list[int] = []
            stuck = trio.Event()

            async def slow(job: int) -> None:
                await stuck.wait()
                done.append(-job)

            def quick(job: int) -> None:
                done.append(job)
                if len(done) == 9:
                    stuck.set()

            async with jobs.workers(slow):
                await jobs.put(1)
                async with jobs.workers(quick):
                    assert await jobs.put_many(range(2, 11)) == 9
                    await stuck.wait()
            assert done[:9] == list(range(2, 11))
            assert done[9:] == [-1]

    run(conversation)


def test_so_many_at_a_time() -> None:
    async def conversation() -> None:
        async with connected() as connection, work(connection) as jobs:
            at_work = most = done = 0
            finished = trio.Event()

            async def handler(job: int) -> None:
                nonlocal at_work, most, done
                at_work += 1
                most = max(most, at_work)
                await trio.testing.wait_all_tasks_blocked(0.005)
                at_work -= 1
                done += 1
                if done == 12:
                    finished.set()

            async with jobs.workers(handler, count=4, prefetch=8):
                await jobs.put_many(range(12))
                await finished.wait()
            assert most == 4

    run(conversation)


@ours_only
def test_a_job_that_fails_comes_again_after_growing_pauses_and_is_parked_at_last() -> None:
    async def conversation() -> None:
        async with connected() as connection, work(connection, SECONDS) as jobs:
            tries: list[tuple[str, float]] = []
            began = trio.current_time()

            def handler(job: str) -> None:
                tries.append((job, trio.current_time() - began))
                if job == "poison":
                    raise Poison("never")
                if job == "bad" or len(tries) < 4:
                    raise ValueError("not yet")

            async with jobs.workers(handler):
                await jobs.put("poison")
                await jobs.put("bad", headers={"mine": 1}, message_id="id", expiration=100_000_000)
                await jobs.put("works later")
                await parked(jobs, 2)
            assert [job for job, _ in tries].count("bad") == 4
            assert [job for job, _ in tries].count("works later") == 2
            times = [time for job, time in tries if job == "bad"]
            pauses = [round(later - earlier) for earlier, later in pairwise(times)]
            assert all(pause >= least for pause, least in zip(pauses, (10, 30, 60), strict=True)), pauses
            poison, bad = await jobs.parked.get(), await jobs.parked.get()
            assert poison
            assert bad
            assert (poison.value(), poison.headers["x-error"], poison.headers["x-retries"]) == (
                "poison",
                "Poison: never",
                0,
            )
            assert (bad.value(), bad.headers["x-error"], bad.headers["x-retries"]) == ("bad", "ValueError: not yet", 3)
            assert (bad.headers["mine"], bad.message_id, bad.delivery_mode) == (1, "id", 2)

    run(conversation, faster=100)


def test_what_was_parked_can_be_done_again_from_the_start() -> None:
    async def conversation() -> None:
        async with connected() as connection, work(connection, Backoff(retries=0)) as jobs:
            broken = True
            done: list[str] = []
            finished = trio.Event()

            def handler(job: str) -> None:
                if broken:
                    raise ValueError("broken")
                done.append(job)
                if len(done) == 2:
                    finished.set()

            async with jobs.workers(handler):
                await jobs.put_many(["1", "2", "3"])
                await parked(jobs, 3)
            broken = False
            assert await jobs.redrive(2) == 2
            first = await jobs.queue.get()
            assert first
            assert "x-error" not in first.headers
            first.reject(requeue=True)
            async with jobs.workers(handler):
                await finished.wait()
            assert done == ["1", "2"]
            assert await jobs.redrive() == 1
            assert await jobs.redrive() == 0

    run(conversation)


def test_a_stop_waits_for_what_is_in_work_and_leaves_the_rest() -> None:
    async def conversation() -> None:
        async with connected() as connection, work(connection) as jobs:
            started, done = trio.Event(), []

            async def handler(job: int) -> None:
                started.set()
                await trio.testing.wait_all_tasks_blocked(0.02)
                done.append(job)

            await jobs.put_many([1, 2, 3])
            async with jobs.workers(handler, prefetch=3) as pool:
                await started.wait()
                assert pool.working == 1
            assert done == [1]
            assert await count(jobs.queue.channel, jobs.name) == 2

    run(conversation)


def test_a_stop_does_not_wait_longer_than_it_may() -> None:
    async def conversation() -> None:
        async with connected() as connection, work(connection) as jobs:
            started = trio.Event()

            async def handler(job: int) -> None:
                started.set()
                await trio.sleep_forever()

            await jobs.put("x")
            async with jobs.workers(handler, drain_seconds=0.01):
                await started.wait()
            assert (await soon(jobs.queue, no_ack=True)).redelivered

    run(conversation)


def test_a_cancelled_block_gives_its_jobs_back_at_once() -> None:
    async def conversation() -> None:
        async with connected() as connection, work(connection) as jobs:
            started = trio.Event()

            async def handler(job: int) -> None:
                started.set()
                await trio.sleep_forever()

            await jobs.put_many([1, 2])
            with trio.CancelScope() as scope:
                async with jobs.workers(handler, prefetch=2):
                    await started.wait()
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            bodies = [await soon(jobs.queue, no_ack=True) for _ in range(2)]
            assert sorted(message.value() for message in bodies) == [1, 2]

    run(conversation)


def test_the_block_learns_that_the_queue_is_gone() -> None:
    async def conversation() -> None:
        async with connected() as connection, work(connection) as jobs:

            async def work_on() -> None:
                async with jobs.workers(print):
                    await jobs.queue.delete()
                    await trio.sleep_forever()

            with pytest.raises(ConsumerCancelled):
                await work_on()

    run(conversation)


def test_a_queue_with_priorities() -> None:
    async def conversation() -> None:
        async with (
            connected() as connection,
            WorkQueue(
                connection, name(), backoff=Backoff(retries=0), arguments=queue_arguments(max_priority=2)
            ) as jobs,
        ):
            await jobs.put("low")
            await jobs.put("high", priority=2)
            done: list[str] = []
            finished = trio.Event()

            def handler(job: str, message: object) -> None:
                done.append(job)
                if len(done) == 2:
                    finished.set()

            async with jobs.workers(handler, pass_message=True):
                await finished.wait()
            assert done == ["high", "low"]
            await jobs.queue.delete()
            await jobs.parked.delete()

    run(conversation)
