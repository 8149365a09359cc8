"""examples/retries.py: pauses that grow, what is parked with its reason, and the way back."""

from __future__ import annotations

import pytest
import trio

from examples import retries
from rabbitish.client import Backoff, Poison
from tests.examples.support import Box, World

PARKED = f"{retries.HOOKS}.parked"


async def test_what_fails_comes_again_after_growing_pauses(world: World) -> None:
    tried = Box()
    pauses = [60, 240, 600]
    backoff = Backoff(first=world.seconds(60), factor=4 if world.broker else 1, longest=600, retries=3)

    async def fail(address: str) -> None:
        tried(address)
        raise TimeoutError("nobody answers")

    async with world.connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(retries.work, connection, fail, backoff)
        await retries.send(connection, "https://example.com")
        await tried.next()
        for pause, milliseconds in zip(pauses, backoff.milliseconds(), strict=True):
            if world.broker is not None:
                waiting = world.broker.queue(f"{retries.HOOKS}.retry.{milliseconds}")
                await world.broker.wait_until(lambda waiting=waiting: waiting.ready)  # type: ignore[misc]
                await world.later(pause - 1)
                assert waiting.ready
                assert not tried.waiting
            await world.later(1)
            assert await tried.next() == "https://example.com"
        await world.ready(PARKED, 1)
        assert await retries.parked(connection) == [("https://example.com", "TimeoutError: nobody answers")]
        assert await retries.parked(connection) == [("https://example.com", "TimeoutError: nobody answers")]
        nursery.cancel_scope.cancel()


async def test_poison_is_parked_at_once(world: World) -> None:
    async with world.connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(retries.work, connection, retries.call)
        await retries.send(connection, "nowhere")
        await world.ready(PARKED, 1)
        nursery.cancel_scope.cancel()
        with pytest.raises(Poison):
            await retries.call("https://")


async def test_what_is_parked_is_done_again_when_told(world: World) -> None:
    done = Box()
    broken = True

    async def do(address: str) -> None:
        if broken:
            raise Poison(address)
        done(address)

    async with world.connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(retries.work, connection, do)
        for number in range(3):
            await retries.send(connection, f"https://{number}")
        await world.ready(PARKED, 3)
        broken = False
        assert await retries.redrive(connection) == 3
        assert sorted(await done.take(3)) == ["https://0", "https://1", "https://2"]
        await world.ready(PARKED, 0)
        nursery.cancel_scope.cancel()


async def test_who_dies_at_work_loses_nothing(world: World) -> None:
    at_work, done = trio.Event(), Box()

    async def hang(address: str) -> None:
        at_work.set()
        await trio.sleep_forever()

    async def do(address: str) -> None:
        done(address)

    async with world.connect() as connection, trio.open_nursery() as nursery:
        await retries.send(connection, "https://example.com")
        async with world.connect() as dying, trio.open_nursery() as inner:
            inner.start_soon(retries.work, dying, hang)
            await at_work.wait()
            inner.cancel_scope.cancel()
        nursery.start_soon(retries.work, connection, do)
        assert await done.next() == "https://example.com"
        nursery.cancel_scope.cancel()
