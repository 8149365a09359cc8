"""examples/priorities.py: the urgent first, the older first among equals, and nothing that is printed is stopped."""

from __future__ import annotations

import trio

from examples import priorities
from tests.examples.support import Box, World


async def test_the_urgent_go_first_but_interrupt_nothing(world: World) -> None:
    printed, go_on = Box(), trio.Semaphore(0)

    async def do(document: str) -> None:
        printed(document)
        await go_on.acquire()

    async with world.connect() as connection, trio.open_nursery() as nursery:
        await priorities.submit(connection, "low", "at the printer")
        nursery.start_soon(priorities.print_all, connection, do)
        assert await printed.next() == "at the printer"
        for priority in ("normal", "low", "urgent", "normal", "high"):
            await priorities.submit(connection, priority, priority)
        await priorities.submit(connection, "normal", "the last")
        for _ in range(7):
            go_on.release()
        assert await printed.take(6) == ["urgent", "high", "normal", "normal", "the last", "low"]
        nursery.cancel_scope.cancel()


async def test_a_document_whose_printer_died_keeps_its_place(world: World) -> None:
    printed = Box()

    async def die(document: str) -> None:
        dying.cancel()
        await trio.lowlevel.checkpoint()

    async def do(document: str) -> None:
        printed(document)

    async with world.connect() as connection, trio.open_nursery() as nursery:
        await priorities.submit(connection, "urgent", "urgent")
        with trio.CancelScope() as dying:
            await priorities.print_all(connection, die)
        await priorities.submit(connection, "normal", "normal")
        await world.ready(priorities.JOBS, 2)
        nursery.start_soon(priorities.print_all, connection, do)
        assert await printed.take(2) == ["urgent", "normal"]
        nursery.cancel_scope.cancel()
