"""The bridge between promises and tasks: the one place that puts a task to sleep for something in the pure half."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio

from rabbitish.client.protocol.promise import Promise

T = TypeVar("T")


async def wait(promise: Promise[T], unwanted: Callable[[Promise[T]], None] | None = None) -> T:
    """Wait for a promise; its error is raised. A checkpoint in any case.

    `unwanted` is called with the promise if it is settled after whoever waited was cancelled.
    """
    if promise.done:
        await trio.lowlevel.checkpoint()
        return promise.result()
    task = trio.lowlevel.current_task()

    def settled(_: Promise[T]) -> None:
        promise.callback = None
        trio.lowlevel.reschedule(task)

    def abort(_: Any) -> trio.lowlevel.Abort:
        promise.callback = unwanted
        return trio.lowlevel.Abort.SUCCEEDED

    promise.callback = settled
    await trio.lowlevel.wait_task_rescheduled(abort)
    return promise.result()


class Bell:
    """Wakes one task. Ringing before it waits is not lost; ringing twice is ringing once."""

    __slots__ = ("_rung", "_task")

    def __init__(self) -> None:
        self._rung = False
        self._task: trio.lowlevel.Task | None = None

    def ring(self) -> None:
        """Let whoever waits, or waits next, go on."""
        if self._task is None:
            self._rung = True
        else:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        """Wait until it is rung. One task at a time."""
        if self._rung:
            self._rung = False
            await trio.lowlevel.checkpoint()
            return
        assert self._task is None, "two tasks wait for one bell"

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
