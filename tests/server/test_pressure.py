"""Peers that do not read, publishers faster than consumers: memory keeps its marks, and others notice nothing."""

from __future__ import annotations

import trio

from rabbitish.wire import methods
from tests.server.support import Client, Running, broker, converse

KIB = 1024
MARKS = {"outbox_bytes_high": 64 * KIB, "outbox_bytes_low": 16 * KIB}


async def consume(running: Running, client: Client, queue: str) -> None:
    await client.ask(methods.QueueDeclare(queue=queue), methods.QueueDeclareOk)
    await client.ask(methods.BasicConsume(queue=queue, no_ack=True), methods.BasicConsumeOk)


def outboxes(running: Running) -> int:
    return max(link.session.outbox.size for link in running.node.links.values())


def test_consumer_that_does_not_read() -> None:
    async def conversation() -> None:
        async with broker(**MARKS) as running:
            deaf, publisher, other = [await running.connect() for _ in range(3)]
            await consume(running, deaf, "q")
            await consume(running, other, "other")
            for _ in range(64):
                await publisher.publish("q", b"x" * KIB, times=256)
            await publisher.publish("other", b"m")
            await other.expect(methods.BasicDeliver)
            queue = running.node.broker.vhosts["/"].queues["q"]
            assert queue.ready > 1000, "what it does not take stays in the queue"
            assert outboxes(running) < 256 * KIB
            assert await deaf.count_bodies(64 * 256) == 64 * 256, "and all of it comes once it reads"
            assert queue.ready == 0

    converse(conversation)


def test_client_that_asks_and_asks_and_does_not_read() -> None:
    async def conversation() -> None:
        async with broker(**MARKS) as running:
            deaf, other = await running.connect(), await running.connect()
            flood = methods.QueueDeclare(queue="q" * 200).frame(1) * 500
            with trio.move_on_after(2) as stuck:
                while True:
                    await deaf.stream.send_all(flood)
            assert stuck.cancelled_caught, "it is not read from any more"
            assert outboxes(running) < 2 * 1024 * KIB
            await other.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)

    converse(conversation, faster=10)


def test_memory_alarm_holds_publishers_back_until_it_is_over() -> None:
    async def conversation() -> None:
        async with broker(memory_high_watermark_bytes=256 * KIB) as running:
            publisher = await running.connect(capabilities=("connection.blocked",))
            consumer = await running.connect()
            await publisher.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await publisher.publish("q", b"x" * KIB, times=300)
            while not running.node.hub.alarm:
                await trio.lowlevel.checkpoint()
            await publisher.publish("q", b"one too many")
            blocked = await publisher.expect(methods.ConnectionBlocked)
            assert blocked.reason == "low on memory"
            await publisher.send(methods.QueueDeclare(queue="later"))
            await consumer.ask(methods.QueueDeclare(queue="mine"), methods.QueueDeclareOk)
            assert "later" not in running.node.broker.vhosts["/"].queues, "a held publisher is not read from"
            await consumer.ask(methods.BasicConsume(queue="q", no_ack=True), methods.BasicConsumeOk)
            await consumer.count_bodies(301)
            await publisher.expect(methods.ConnectionUnblocked)
            await publisher.expect(methods.QueueDeclareOk)

    converse(conversation)


def test_backlog_is_handed_out_in_slices() -> None:
    """While one consumer drains a long queue, another client gets its answers."""

    async def conversation() -> None:
        async with broker(settle_budget_messages=50) as running:
            publisher, consumer, other = [await running.connect() for _ in range(3)]
            await publisher.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await publisher.publish("q", b"m", times=20_000)
            while (queue := running.node.broker.vhosts["/"].queues["q"]).ready < 20_000:
                await trio.lowlevel.checkpoint()
            await consumer.ask(methods.BasicConsume(queue="q", no_ack=True), methods.BasicConsumeOk)
            await other.ask(methods.QueueDeclare(queue="mine"), methods.QueueDeclareOk)
            assert queue.ready > 0
            await consumer.count_bodies(20_000)

    converse(conversation)


def test_large_message_to_a_slow_reader() -> None:
    async def conversation() -> None:
        async with broker() as running:
            publisher, consumer = await running.connect(), await running.connect()
            await consume(running, consumer, "q")
            body = bytes(range(256)) * 4 * KIB * 8
            await publisher.publish("q", body, times=3)
            await consumer.count_bodies(3)

    converse(conversation)
