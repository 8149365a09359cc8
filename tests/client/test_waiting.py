"""What comes out of a block with tasks in its background, and the bell that wakes one task."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import trio
import trio.testing

from rabbitish.client.protocol.promise import Promise
from rabbitish.client.waiting import Bell, background, sleep_until_woken, wait

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


def test_ctrl_c_does_not_tear_out_whoever_has_just_said_how_to_wake_it() -> None:
    """Or it would be woken when it is gone."""

    class Interrupting:
        wake_: Callable[[], None] | None = None

        @property
        def wake(self) -> Callable[[], None] | None:
            return self.wake_

        @wake.setter
        def wake(self, wake: Callable[[], None] | None) -> None:
            self.wake_ = wake
            if wake is not None:
                signal.raise_signal(signal.SIGINT)

    woken: list[Interrupting] = []

    async def waiting(sleeper: Interrupting) -> None:
        await sleep_until_woken(sleeper)
        woken.append(sleeper)

    async def main() -> None:
        sleeper = Interrupting()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting, sleeper)
            with pytest.raises(KeyboardInterrupt):
                await trio.sleep_forever()
            assert sleeper.wake is not None
            sleeper.wake()
        assert woken == [sleeper]

    trio.run(main)
