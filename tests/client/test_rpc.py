"""Calls and replies: many at once, errors, timeouts, late replies; what a server does at its end."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from rabbitish.client import CallTimeout, PublishReturned, RemoteError, RpcClient, RpcServer

from .support import connected, count, name, run


@pytest.mark.parametrize("reply_queue", [False, True])
def test_many_calls_are_on_their_way_and_each_gets_its_reply(reply_queue: bool) -> None:
    async def conversation() -> None:
        async with (
            connected() as connection,
            RpcServer(connection, concurrency=3) as server,
            RpcClient(connection, reply_queue=reply_queue) as rpc,
        ):
            double, most = name(), 0
            working = 0

            async def handler(value: int) -> int:
                nonlocal working, most
                working += 1
                most = max(most, working)
                await trio.lowlevel.checkpoint()
                working -= 1
                return value * 2

            await server.register(double, handler, auto_delete=True)
            results = {}

            async def call(number: int) -> None:
                results[number] = await rpc.call(double, number)

            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(call, number)
            assert results == {number: number * 2 for number in range(50)}
            assert 1 < most <= 3
        assert all(not name.startswith("amq.gen") for name in connection.topology.queues)

    run(conversation)


def test_an_error_comes_back_as_an_error() -> None:
    async def conversation() -> None:
        async with connected() as connection, RpcServer(connection) as server, RpcClient(connection) as rpc:
            fails = name()

            def handler(value: object) -> object:
                raise KeyError(value)

            await server.register(fails, handler, auto_delete=True)
            with pytest.raises(RemoteError) as failed:
                await rpc.call(fails, "k")
            assert (failed.value.kind, failed.value.message) == ("KeyError", "'k'")
            with pytest.raises(RemoteError) as unreadable:
                await rpc.call(fails, b"{", content_type="application/json")
            assert unreadable.value.kind == "JSONDecodeError"
            with pytest.raises(PublishReturned):
                await rpc.call(name())

    run(conversation)


def test_the_message_is_there_for_who_asks() -> None:
    async def conversation() -> None:
        async with connected() as connection, RpcServer(connection) as server, RpcClient(connection) as rpc:
            function = name()
            await server.register(
                function, lambda value, message: [value, message.headers["h"]], pass_message=True, auto_delete=True
            )
            assert await rpc.call(function, "v", headers={"h": 1}) == ["v", 1]

    run(conversation)


def test_a_late_reply_and_a_second_one_are_dropped() -> None:
    async def conversation() -> None:
        async with connected() as connection, connection.channel() as opened, RpcClient(connection) as rpc:
            queue = await opened.declare_queue(name(), exclusive=True)
            with pytest.raises(CallTimeout, match=r"within 0\.05 seconds"):
                await rpc.call(queue.queue, "slow", timeout=0.05, expiration=None)
            slow = await queue.get(no_ack=True)
            assert slow is not None

            async def reply(correlation_id: str | None, reply_to: str | None, value: str) -> None:
                await opened.publish(value, routing_key=reply_to or "", correlation_id=correlation_id)

            async with trio.open_nursery() as nursery:
                results = []

                @nursery.start_soon
                async def call() -> None:
                    results.append(await rpc.call(queue.queue, "quick"))

                async for request in queue.consume():
                    await reply(slow.correlation_id, slow.reply_to, "late")
                    await reply(request.correlation_id, request.reply_to, "first")
                    await reply(request.correlation_id, request.reply_to, "second")
                    break
            while rpc.dropped < 2:  # noqa: ASYNC110 (there is no event for it)
                await trio.sleep(0.001)
            assert results == ["first"]

    run(conversation)


def test_the_broker_drops_what_nobody_took_in_time() -> None:
    async def conversation() -> None:
        async with connected() as connection, connection.channel() as opened, RpcClient(connection) as rpc:
            queue = await opened.declare_queue(name(), exclusive=True)
            with pytest.raises(CallTimeout):
                await rpc.call(queue.queue, "x", timeout=0.03)
            await trio.sleep(0.03)
            assert await count(opened, queue.queue) == 0

    run(conversation)


def test_at_its_end_a_server_answers_what_it_has_and_takes_no_more() -> None:
    async def conversation() -> None:
        async with connected() as connection, connection.channel() as opened, RpcClient(connection) as rpc:
            queue = opened.queue(name())
            started, go_on = trio.Event(), trio.Event()
            results = []

            async def handler(value: str) -> str:
                started.set()
                await go_on.wait()
                return value

            async def call(value: str) -> None:
                results.append(await rpc.call(queue.queue, value))

            async with trio.open_nursery() as nursery:
                async with RpcServer(connection, concurrency=1) as server:
                    # Neither the task nor the scope of a registration matters for how long it lasts.
                    with trio.fail_after(5):
                        await server.register(queue.queue, handler)
                    nursery.start_soon(call, "in work")
                    await started.wait()
                    nursery.start_soon(call, "too late")
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    nursery.start_soon(_after_a_while, go_on)
                assert await count(opened, queue.queue) == 1
                late = await queue.get()
                assert late
                assert late.value() == "too late"
                late.ack()
                await opened.publish("x", routing_key=late.reply_to or "", correlation_id=late.correlation_id)
            assert sorted(results) == ["in work", "x"]
            await queue.delete()

    run(conversation)


async def _after_a_while(event: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked(0.02)
    event.set()
