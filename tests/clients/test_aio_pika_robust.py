"""aio-pika's robust connection, which declares and consumes anew after any loss, and its RPC and Master patterns."""

from __future__ import annotations

import asyncio
from typing import Any

import aio_pika
import pytest
from aio_pika import Message
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustConnection
from aio_pika.exceptions import ChannelNotFoundEntity, MessageProcessError
from aio_pika.patterns import RPC, JsonMaster, Master, NackMessage

from .support import DEADLINE, Broker, Proxy, in_asyncio


async def connect(url: str) -> AbstractRobustConnection:
    return await aio_pika.connect_robust(url, reconnect_interval=0.1, timeout=DEADLINE)


@in_asyncio
async def test_everything_comes_back_after_the_connection_is_cut(broker: Broker, proxy: Proxy, name: str) -> None:
    async with await connect(broker.at(proxy.port).url) as connection:
        reconnected = asyncio.Event()
        connection.reconnect_callbacks.add(lambda _: reconnected.set())
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        exchange = await channel.declare_exchange(name, aio_pika.ExchangeType.TOPIC)
        queue = await channel.declare_queue(name)
        await queue.bind(exchange, "#")
        got: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(got.put)
        await exchange.publish(Message(b"before"), routing_key="a")
        assert (await got.get()).body == b"before"
        proxy.cut()
        await reconnected.wait()
        await exchange.publish(Message(b"after"), routing_key="b")
        seen = set()
        for _ in range(2):  # in either order: the broker may notice the loss only after "after" is there
            message = await got.get()
            seen.add((message.body, message.redelivered))
            await message.ack()
        assert seen == {(b"before", True), (b"after", False)}


@in_asyncio
async def test_hard_error_is_recovered_from(broker_url: str, name: str) -> None:
    async with await connect(broker_url) as connection:
        reconnected = asyncio.Event()
        connection.reconnect_callbacks.add(lambda _: reconnected.set())
        channel = await connection.channel()
        queue = await channel.declare_queue(name)
        underlay = await (await connection.channel()).get_underlay_channel()
        with pytest.raises(aio_pika.exceptions.ConnectionClosed):
            await underlay.basic_qos(prefetch_size=1)
        await reconnected.wait()
        await channel.default_exchange.publish(Message(b"goes on"), routing_key=name)
        assert (await queue.get(no_ack=True)).body == b"goes on"


@in_asyncio
async def test_channel_closed_by_the_broker_opens_again(broker_url: str, name: str) -> None:
    async with await connect(broker_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name)
        got: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(got.put)
        reopened = asyncio.Event()
        channel.reopen_callbacks.add(lambda _: reopened.set())
        with pytest.raises(ChannelNotFoundEntity):
            await channel.get_queue(name + ".missing")
        await reopened.wait()
        await channel.default_exchange.publish(Message(b"goes on"), routing_key=name)
        assert (await got.get()).body == b"goes on"


@in_asyncio
async def test_cancelled_consumer_is_restored(broker_url: str, name: str) -> None:
    """The queue is deleted by somebody else; told so by basic.cancel, aio-pika declares it and consumes again."""
    async with await connect(broker_url) as connection, await aio_pika.connect(broker_url) as other:
        channel = await connection.channel()
        queue = await channel.declare_queue(name)
        got: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(got.put)
        stranger = await other.channel(on_return_raises=True)
        await stranger.queue_delete(name)
        while True:
            try:
                await stranger.default_exchange.publish(Message(b"goes on"), routing_key=name)
                break
            except aio_pika.exceptions.PublishError:
                await channel.ready()  # one turn of the loop and a trip to the broker per try
        assert (await got.get()).body == b"goes on"


@in_asyncio
async def test_robust_queue_iterator_reads_on_after_a_cut(broker: Broker, proxy: Proxy, name: str) -> None:
    async with await connect(broker.at(proxy.port).url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name)
        await channel.default_exchange.publish(Message(b"1"), routing_key=name)
        async with queue.iterator() as messages:
            first = await anext(messages)
            await first.ack()
            await queue.declare()  # an ack has no answer; this one's shows that the broker has read both
            proxy.cut()
            async with await aio_pika.connect(broker.url) as other, other.channel() as stranger:
                await stranger.default_exchange.publish(Message(b"2"), routing_key=name)
            second = await anext(messages)
            await second.ack()
        assert (first.body, second.body, second.redelivered) == (b"1", b"2", False)


@in_asyncio
async def test_rpc_pattern(broker_url: str, name: str) -> None:
    async def multiply(*, x: int, y: int) -> int:
        return x * y

    async def fail(*, why: str) -> None:
        raise ValueError(why)

    async with await connect(broker_url) as connection:
        rpc = await RPC.create(await connection.channel())
        await rpc.register(f"{name}.multiply", multiply, auto_delete=True)
        await rpc.register(f"{name}.fail", fail, auto_delete=True)
        products = await asyncio.gather(
            *(rpc.call(f"{name}.multiply", {"x": number, "y": 3}, expiration=int(DEADLINE)) for number in range(10))
        )
        assert products == [number * 3 for number in range(10)]
        with pytest.raises(ValueError, match="because"):
            await rpc.call(f"{name}.fail", {"why": "because"})
        with pytest.raises(MessageProcessError, match="returned"):
            await rpc.call(f"{name}.nowhere")
        await rpc.unregister(multiply)
        await rpc.unregister(fail)
        await rpc.close()


@in_asyncio
async def test_rpc_call_expires_through_the_dead_letter_exchange(broker_url: str, name: str) -> None:
    async with await connect(broker_url) as connection:
        channel = await connection.channel()
        rpc = await RPC.create(channel)
        arguments = {"x-dead-letter-exchange": RPC.DLX_NAME}
        await channel.declare_queue(name, arguments=arguments)  # nobody serves it
        with pytest.raises(asyncio.TimeoutError):
            await rpc.call(name, {}, expiration=0.1)  # type: ignore[arg-type]
        await rpc.close()


@in_asyncio
async def test_master_and_worker_pattern(broker_url: str, name: str) -> None:
    done: asyncio.Queue[Any] = asyncio.Queue()
    refused: list[int] = []

    async def work(*, task_id: int) -> None:
        if task_id == 1 and not refused:
            refused.append(task_id)
            raise NackMessage(requeue=True)
        await done.put(task_id)

    async with await connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        master: Master = JsonMaster(channel)
        worker = await master.create_worker(name, work, auto_delete=True)
        for task_id in range(4):
            await master.create_task(name, {"task_id": task_id})
        assert {await done.get() for _ in range(4)} == {0, 1, 2, 3}
        assert refused == [1]
        await worker.close()
