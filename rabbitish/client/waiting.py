"""The bridge between promises and tasks, and nurseries out of which exceptions come as they are.

The one place that puts a task to sleep for something in the pure half. Whoever does is not to be torn out by Ctrl-C
after it said how to wake it and before it sleeps: it would be woken when it is gone. So trio has the program's main
task hear of that instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol, TypeVar

import trio

from rabbitish.client.protocol.promise import Promise

T = TypeVar("T")


class Sleeper(Protocol):
    """Something that wakes whoever waits for it; one task at a time."""

    wake: Callable[[], None] | None


@trio.lowlevel.enable_ki_protection
async def sleep_until_woken(sleeper: Sleeper) -> None:
    """Sleep until `wake` is called, which is set meanwhile."""
    task = trio.lowlevel.current_task()

    def wake() -> None:
        sleeper.wake = None
        trio.lowlevel.reschedule(task)

    def abort(_: Any) -> trio.lowlevel.Abort:
        sleeper.wake = None
        return trio.lowlevel.Abort.SUCCEEDED

    assert sleeper.wake is None, "two tasks wait for one thing"
    sleeper.wake = wake
    await trio.lowlevel.wait_task_rescheduled(abort)


@trio.lowlevel.enable_ki_protection
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


def in_trio() -> bool:
    """Whether trio runs in this thread: an object may be collected anywhere."""
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return False
    return True


class Bell:
    """Wakes one task. Ringing before it waits is not lost; ringing twice is ringing once."""

    __slots__ = ("_rung", "wake")

    def __init__(self) -> None:
        self._rung = False
        self.wake: Callable[[], None] | None = None

    def ring(self) -> None:
        """Let whoever waits, or waits next, go on."""
        if self.wake is None:
            self._rung = True
        else:
            self.wake()

    async def wait(self) -> None:
        """Wait until it is rung. One task at a time."""
        if self._rung:
            self._rung = False
            await trio.lowlevel.checkpoint()
        else:
            await sleep_until_woken(self)


@contextlib.asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled at the end of the block.

    An exception of the block leaves it as it is, not in a group. So does the one of a task that failed by itself, and
    when several failed alike (of one lost connection), the first; if they differ, they come as a group.
    """
    inside: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:  # noqa: BLE001 (raised below, when the tasks are gone)
                inside = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if inside is not None and not _only_cancelled(inside):
            raise inside  # noqa: B904 (what the tasks had to say stays its context)
        failures = [each for each in _leaves(group) if not isinstance(each, trio.Cancelled)]
        if len({(type(each), str(each)) for each in failures}) > 1:
            raise
        if failures:
            raise failures[0] from failures[0].__cause__
        if inside is None:
            raise
    if inside is not None:
        raise inside


def _only_cancelled(error: BaseException) -> bool:
    leaves = _leaves(error) if isinstance(error, BaseExceptionGroup) else iter([error])
    return all(isinstance(each, trio.Cancelled) for each in leaves)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each
