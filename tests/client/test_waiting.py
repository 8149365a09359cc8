"""What comes out of a block with tasks in its background, and the bell that wakes one task."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from rabbitish.client.protocol.promise import Promise
from rabbitish.client.waiting import Bell, background, wait

from .support import run


async def fail(error: Exception) -> None:
    raise error


def test_an_error_of_the_block_comes_as_it_is() -> None:
    async def block(*tasks: Exception) -> None:
        async with background() as nursery:
            for error in tasks:
                nursery.start_soon(fail, error)
            raise KeyError("block")

    async def conversation() -> None:
        for tasks in ((), (ValueError("task"),)):
            with pytest.raises(KeyError, match="block"):
                await block(*tasks)

    run(conversation)


def test_an_error_of_a_task_comes_as_it_is_unless_there_are_several() -> None:
    async def block(*tasks: Exception) -> None:
        async with background() as nursery, trio.open_nursery():
            for error in tasks:
                nursery.start_soon(fail, error)
            await trio.sleep_forever()

    async def conversation() -> None:
        with pytest.raises(ValueError, match="task"):
            await block(ValueError("task"))
        with pytest.raises(ValueError, match="task"):
            await block(ValueError("task"), ValueError("task"))
        with pytest.raises(ExceptionGroup):
            await block(ValueError("task"), KeyError("other"))

    run(conversation)


def test_a_cancelled_block_is_cancelled() -> None:
    async def conversation() -> None:
        ended = []

        async def task() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(True)

        with trio.CancelScope() as scope:
            async with background() as nursery:
                nursery.start_soon(task)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        async with background() as nursery:
            nursery.start_soon(task)
            await trio.testing.wait_all_tasks_blocked()
        assert ended == [True, True]

    run(conversation)


def test_a_bell_is_not_missed_and_wakes_once() -> None:
    async def conversation() -> None:
        bell = Bell()
        bell.ring()
        bell.ring()
        await bell.wait()
        with trio.move_on_after(0.01) as scope:
            await bell.wait()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bell.wait)
            await trio.testing.wait_all_tasks_blocked()
            bell.ring()

    run(conversation)


def test_a_promise_that_is_kept_too_late_is_unwanted() -> None:
    async def conversation() -> None:
        promise: Promise[int] = Promise()
        unwanted = []
        with trio.move_on_after(0):
            await wait(promise, lambda late: unwanted.append(late.result()))
        promise.keep(7)
        promise.keep(8)
        assert unwanted == [7]
        assert await wait(promise) == 7

    run(conversation)
