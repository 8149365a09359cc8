"""examples/rpc.py: answers, errors and silence, each told to who called."""

from __future__ import annotations

import trio

from examples import rpc
from tests.examples.support import World


async def test_all_calls_get_their_own_answer_and_errors_come_back(world: World) -> None:
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(rpc.serve, connection)
        answers = await rpc.call(connection, [10, -1, 90])
        assert answers == {
            10: "55",
            -1: "it failed there: there is no Fibonacci number -1",
            90: "2880067194370816120",
        }
        nursery.cancel_scope.cancel()


async def test_nobody_there_is_known_at_once(world: World) -> None:
    async with world.connect() as connection:
        async with trio.open_nursery() as nursery:
            await nursery.start(rpc.serve, connection)
            nursery.cancel_scope.cancel()
        assert await rpc.call(connection, [1], timeout=1000) == {1: "nobody serves this"}


async def test_a_server_that_does_not_answer(world: World) -> None:
    async with world.connect() as connection, connection.channel() as channel:
        queue = await channel.declare_queue(rpc.FIBONACCI, auto_delete=True)
        answers = {}

        async def call() -> None:
            answers.update(await rpc.call(connection, [1], timeout=world.seconds(60)))

        async with trio.open_nursery() as nursery, queue.consume() as requests:
            nursery.start_soon(call)
            await anext(requests)  # and never answer
            await world.later(60)
        assert answers == {1: "no answer in time"}
