"""Lost connections: what a program without reconnect sees, and how one with it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from rabbitish.client import (
    AuthenticationFailed,
    Channel,
    ConnectFailed,
    Connection,
    ConnectionClosed,
    ConnectionLost,
    PublishUnconfirmed,
    Reconnect,
    RpcClient,
    RpcServer,
    connect,
)
from rabbitish.wire import methods

from .proxy import Proxy, proxied
from .support import count, name, new_queue, ours_only, run, soon

ACK = methods.BasicAck().encode()[:4]
QUICK = Reconnect(pause=0.02, longest=0.02)
RAISING = Reconnect(pause=0.02, longest=0.02, publishes="raise")


@asynccontextmanager
async def behind_a_proxy(reconnect: Reconnect = QUICK) -> AsyncIterator[tuple[Proxy, Connection, Channel]]:
    """A connection that comes back, through a proxy that can break it, and a channel."""
    async with (
        proxied() as proxy,
        connect(proxy.uri, reconnect=reconnect) as connection,
        connection.channel() as opened,
    ):
        yield proxy, connection, opened


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 (there is no event for it)
        await trio.sleep(0.005)


async def half_close(proxy: Proxy) -> None:
    await proxy.half_close()


async def cut(proxy: Proxy) -> None:
    await proxy.cut()


@pytest.mark.parametrize("break_", [cut, half_close])
def test_without_reconnect_whoever_waits_learns_of_it(break_: Callable[[Proxy], object]) -> None:
    async def conversation() -> None:
        async with proxied() as proxy, connect(proxy.uri) as connection, connection.channel() as opened:
            queue = await new_queue(opened)
            lost = []

            async def publish() -> None:
                try:
                    await queue.publish("never confirmed")
                except PublishUnconfirmed as error:
                    lost.append(error)
                    assert isinstance(error.__cause__, ConnectionLost)

            async def consume() -> None:
                try:
                    async for _ in queue.consume():
                        pass
                except ConnectionLost as error:
                    lost.append(error)

            async with trio.open_nursery() as nursery:
                async with queue.consume():
                    pass
                nursery.start_soon(consume)
                await trio.testing.wait_all_tasks_blocked(0.01)
                proxy.hold_up()
                nursery.start_soon(publish)
                await trio.testing.wait_all_tasks_blocked(0.01)
                await break_(proxy)  # type: ignore[misc]
            assert len(lost) == 2
            with pytest.raises(ConnectionLost):
                await queue.publish("x")
            assert isinstance(await connection.wait_closed(), ConnectionLost)

    run(conversation)


def test_a_slow_network_that_cuts_everything_to_pieces() -> None:
    async def conversation() -> None:
        async with proxied() as proxy:
            proxy.delay, proxy.pieces = 0.001, 7
            async with connect(proxy.uri) as connection, connection.channel() as opened:
                queue = await new_queue(opened)
                bodies = [bytes([number % 256]) * (number * 7 % 300) for number in range(200)]
                assert await opened.publish_many(bodies, routing_key=queue.queue, window=50) == 200
                async with queue.consume(prefetch=30) as messages:
                    for body in bodies:
                        async with (await anext(messages)).process() as message:
                            assert message.body == body

    run(conversation)


@pytest.mark.parametrize("break_", [cut, half_close])
def test_calls_without_reconnect_fail_where_they_wait(break_: Callable[[Proxy], object]) -> None:
    async def conversation() -> None:
        async with proxied() as proxy, connect(proxy.uri) as connection, connection.channel() as opened:
            queue = await new_queue(opened)
            async with RpcClient(connection) as rpc, trio.open_nursery() as nursery:

                @nursery.start_soon
                async def call() -> None:
                    with pytest.raises(ConnectionLost):
                        await rpc.call(queue.queue)

                while await count(opened, queue.queue) == 0:  # noqa: ASYNC110 (no event)
                    await trio.sleep(0.001)
                await break_(proxy)  # type: ignore[misc]
            with pytest.raises(ConnectionLost):
                await RpcClient(connection).__aenter__()

    run(conversation)


@pytest.mark.parametrize("break_", [cut, half_close])
def test_topology_and_consumers_are_there_again(break_: Callable[[Proxy], object]) -> None:
    async def conversation() -> None:
        async with behind_a_proxy() as (proxy, connection, opened):
            exchange = await opened.declare_exchange(name(), "topic")
            gone = await opened.declare_queue(exclusive=True)
            await gone.bind(exchange, "#")
            await gone.delete()
            queue = await opened.declare_queue(exclusive=True)
            await queue.bind(exchange, "a.*")
            first_name = queue.queue
            async with queue.consume(prefetch=1) as messages:
                await exchange.publish("before", "a.b", mandatory=True)
                message = await anext(messages)
                await break_(proxy)  # type: ignore[misc]
                await until(lambda: connection.connections == 2)
                assert message.stale
                message.ack()
                assert queue.queue != first_name
                await exchange.publish("after", "a.b", mandatory=True)
                assert (await anext(messages)).value() == "after"
            assert connection.topology.bindings.keys() == {("queue", queue.queue, exchange.exchange, "a.*", bytes(4))}
            await exchange.delete()

    run(conversation)


def test_what_waits_goes_on_and_what_was_not_settled_comes_again() -> None:
    async def conversation() -> None:
        async with behind_a_proxy() as (proxy, connection, opened):
            queue = await opened.declare_queue(name(), durable=True)
            bodies: list[bytes] = []

            async def consume() -> None:
                async for message in queue.consume(prefetch=10):
                    async with message.process():
                        bodies.append(message.body)
                    if message.body == b"end":
                        return

            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume)
                for number in range(4):
                    await queue.publish(b"%d" % number)
                    if number % 2:
                        proxy.refusing = True
                        await proxy.cut()
                        await until(lambda: not connection.connected)
                        with trio.move_on_after(0.01) as scope:
                            await queue.publish(b"not sent")
                        assert scope.cancelled_caught
                        proxy.refusing = False
                await queue.publish(b"end")
            assert set(bodies) == {b"0", b"1", b"2", b"3", b"end"}
            await queue.delete()

    run(conversation)


def test_an_unconfirmed_publish_is_retried_once() -> None:
    async def conversation() -> None:
        async with behind_a_proxy() as (proxy, _, opened):
            queue = await opened.declare_queue(name(), durable=True)
            proxy.hold_down()
            outcomes: list[object] = []

            async def publish() -> None:
                try:
                    await queue.publish("1")
                    outcomes.append("confirmed")
                except PublishUnconfirmed as error:
                    outcomes.append(error)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                await trio.testing.wait_all_tasks_blocked(0.05)
                await proxy.cut()
                proxy.pass_down.set()
            assert outcomes == ["confirmed"]
            assert await count(opened, queue.queue) == 2  # the broker had it, and nobody could know

            proxy.swallow = ACK
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                for _ in range(2):
                    await until(lambda: proxy.swallowed > 0)
                    proxy.swallowed = 0
                    await proxy.cut()
            proxy.swallow = None
            assert isinstance(outcomes[1], PublishUnconfirmed)
            await queue.delete()

    run(conversation)


def test_an_unconfirmed_publish_is_reported_where_that_was_chosen() -> None:
    async def conversation() -> None:
        async with behind_a_proxy(RAISING) as (proxy, _, opened):
            queue = await opened.declare_queue(name(), durable=True)
            proxy.hold_down()
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def publish() -> None:
                    with pytest.raises(PublishUnconfirmed):
                        await queue.publish("1")

                await trio.testing.wait_all_tasks_blocked(0.05)
                await proxy.cut()
                proxy.pass_down.set()
            await queue.publish("2")
            assert await count(opened, queue.queue) == 2
            await queue.delete()

    run(conversation)


def test_a_cancelled_publish_is_not_retried() -> None:
    async def conversation() -> None:
        async with behind_a_proxy() as (proxy, connection, opened):
            queue = await opened.declare_queue(name(), durable=True)
            proxy.swallow = ACK
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(queue.publish, "once")
                    await until(lambda: proxy.swallowed > 0)
                    scope.cancel()
            proxy.swallow = None
            await proxy.cut()
            await until(lambda: connection.connections == 2)
            assert await count(opened, queue.queue) == 1
            await queue.delete()

    run(conversation)


def test_the_limit_of_a_channel_holds_again() -> None:
    async def conversation() -> None:
        async with behind_a_proxy() as (proxy, connection, opened):
            await opened.qos(1)
            queue = await opened.declare_queue(name(), durable=True)
            await opened.publish_many([b"1", b"2"], routing_key=queue.queue)
            async with queue.consume(prefetch=0) as messages:
                await proxy.cut()
                await until(lambda: connection.connections == 2)
                await until(lambda: messages.waiting == 1)
                await opened.declare_queue(queue.queue, passive=True)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert messages.waiting == 1
            await queue.delete()

    run(conversation)


def test_many_in_a_window_get_through_a_cut() -> None:
    async def conversation() -> None:
        async with behind_a_proxy() as (proxy, connection, opened):
            queue = await opened.declare_queue(name(), durable=True)
            before = connection.connections

            async def numbers() -> object:
                for number in range(3000):
                    if number == 1500:
                        await proxy.cut()
                    yield b"%d" % number

            assert await opened.publish_many(numbers(), routing_key=queue.queue, window=100) == 3000  # type: ignore[arg-type]
            assert connection.connections == before + 1
            async with queue.consume(no_ack=True, prefetch=0) as messages:
                seen = set()
                while len(seen) < 3000:
                    seen.add(int((await anext(messages)).body))
            assert seen == set(range(3000))
            await queue.delete()

    run(conversation)


def test_what_is_exclusive_waits_until_the_broker_has_let_go() -> None:
    async def conversation() -> None:
        async with behind_a_proxy() as (proxy, connection, opened):
            queue = await opened.declare_queue(name(), durable=True)
            async with queue.consume(exclusive=True) as messages:
                proxy.keep_upper = True
                await proxy.cut()
                await trio.sleep(0.1)
                assert not connection.connected
                proxy.keep_upper = False
                await proxy.cut()
                await queue.publish("x")
                async with (await anext(messages)).process() as message:
                    assert message.value() == "x"
            await queue.delete()

    run(conversation)


def test_what_needs_no_acknowledgement_is_not_lost_with_its_connection() -> None:
    async def conversation() -> None:
        async with behind_a_proxy() as (proxy, connection, opened):
            queue = await opened.declare_queue(name(), durable=True)
            await opened.publish_many([b"1", b"2"], routing_key=queue.queue)
            async with queue.consume(no_ack=True) as messages:
                await until(lambda: messages.waiting == 2)
                await proxy.cut()
                await until(lambda: connection.connections == 2)
                await queue.publish(b"3")
                assert [(await anext(messages)).body for _ in range(3)] == [b"1", b"2", b"3"]
            await queue.delete()

    run(conversation)


def test_an_error_of_ours_does_not_come_back() -> None:
    async def conversation() -> None:
        async with behind_a_proxy() as (_, connection, opened):
            with pytest.raises(ConnectionClosed) as closed:
                await opened.ask(methods.BasicQos(prefetch_size=1), methods.BasicQosOk)
            assert closed.value.code == 540
            assert isinstance(await connection.wait_closed(), ConnectionClosed)
            assert connection.connections == 1

    run(conversation)


def test_a_consumer_that_was_cancelled_while_it_started_is_none() -> None:
    async def conversation() -> None:
        async with proxied() as proxy, connect(proxy.uri) as connection, connection.channel() as opened:
            queue = await new_queue(opened, b"m")
            proxy.hold_down()
            with trio.move_on_after(0.02) as scope:
                async with queue.consume():
                    pass
            assert scope.cancelled_caught
            proxy.pass_down.set()
            assert (await soon(queue)).body == b"m"
            assert (await opened.declare_queue(queue.queue, passive=True)).consumer_count == 0

    run(conversation)


def test_a_message_for_a_get_that_was_cancelled_goes_back() -> None:
    async def conversation() -> None:
        async with proxied() as proxy, connect(proxy.uri) as connection, connection.channel() as opened:
            queue = await new_queue(opened, b"m")
            proxy.hold_down()
            with trio.move_on_after(0.02) as scope:
                await queue.get()
            assert scope.cancelled_caught
            proxy.pass_down.set()
            assert (await soon(queue)).redelivered

    run(conversation)


def test_it_gives_up_after_so_many_attempts() -> None:
    async def conversation() -> None:
        quick = Reconnect(pause=0.01, longest=0.01, attempts=2)
        async with (
            proxied() as proxy,
            connect(proxy.uri, reconnect=quick) as connection,
            connection.channel() as opened,
        ):
            queue = await new_queue(opened)
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def consume() -> None:
                    with pytest.raises(ConnectFailed):
                        async for _ in queue.consume():
                            pass

                await trio.testing.wait_all_tasks_blocked(0.01)
                proxy.refusing = True
                await proxy.cut()
            with pytest.raises(ConnectFailed):
                await queue.publish("x")
            assert isinstance(connection.closed, ConnectFailed)

    run(conversation)


def test_the_next_of_several_hosts_is_tried() -> None:
    async def conversation() -> None:
        async with proxied() as proxy:
            listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            nobody = f"amqp://127.0.0.1:{listener.socket.getsockname()[1]}"
            await listener.aclose()
            async with connect([nobody, proxy.uri], reconnect=QUICK) as connection, connection.channel() as opened:
                await proxy.cut()
                await (await new_queue(opened)).publish("x")
                assert connection.connections == 2

    run(conversation)


def test_a_wrong_password_is_not_tried_again() -> None:
    async def conversation() -> None:
        async with proxied() as proxy:
            wrong = proxy.uri.replace("guest:guest", "guest:wrong")
            patient = Reconnect(initially=True)
            with pytest.raises(AuthenticationFailed):
                async with connect(wrong, reconnect=patient):
                    pass

    run(conversation)


def test_a_host_that_says_nothing_is_given_up() -> None:
    async def conversation() -> None:
        async with proxied() as proxy:
            proxy.hold_down()
            with pytest.raises(ConnectFailed, match=r"no answer within 0\.05 seconds"):
                async with connect(f"{proxy.uri}?connection_timeout=50"):
                    pass

    run(conversation)


def test_calls_on_their_way_fail_and_later_ones_work() -> None:
    async def conversation() -> None:
        async with proxied() as proxy, connect(proxy.uri, reconnect=QUICK) as connection:
            function = name()
            started = trio.Event()

            async def handler(value: object) -> object:
                if value == "wait":
                    started.set()
                    await trio.sleep_forever()
                return value

            async with RpcServer(connection, drain_seconds=0) as server, RpcClient(connection) as rpc:
                await server.register(function, handler, auto_delete=True)
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def call() -> None:
                        with pytest.raises(ConnectionLost):
                            await rpc.call(function, "wait")

                    await started.wait()
                    await proxy.cut()
                assert await rpc.call(function, "x") == "x"

    run(conversation)


@ours_only
def test_silence_is_the_end_and_a_busy_program_is_not() -> None:
    async def conversation() -> None:
        async with proxied() as proxy, connect(f"{proxy.uri}?heartbeat=10") as connection:
            await trio.sleep(45)
            assert connection.connected
            proxy.hold_down()
            proxy.hold_up()
            before = trio.current_time()
            error = await connection.wait_closed()
            assert "heartbeat" in str(error)
            assert 14 < trio.current_time() - before < 40

    run(conversation, faster=40)


def test_the_block_ends_although_the_broker_says_nothing() -> None:
    async def conversation() -> None:
        async with proxied() as proxy:
            before = trio.current_time()
            with trio.CancelScope() as scope:
                async with connect(proxy.uri) as connection, connection.channel():
                    before = trio.current_time()
                    proxy.hold_down()
                    scope.cancel()
                    await trio.sleep_forever()
            assert trio.current_time() - before < 10

    run(conversation, faster=50)
