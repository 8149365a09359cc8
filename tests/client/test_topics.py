"""Topic subscriptions: patterns, queues that stay and queues that do not."""

from __future__ import annotations

import pytest
import trio

from rabbitish.client import Connection, NotFound

from .support import connected, count, name, run


async def publish(connection: Connection, exchange: str, *routing_keys: str) -> None:
    async with connection.channel() as channel:
        for routing_key in routing_keys:
            await channel.publish(routing_key, exchange=exchange, routing_key=routing_key)


def test_what_fits_one_of_the_patterns_comes_once() -> None:
    async def conversation() -> None:
        async with connected() as connection, connection.channel() as channel:
            exchange = await channel.declare_exchange(name(), "topic", auto_delete=True)
            async with exchange.subscribe("orders.*.created", "orders.eu.#") as messages:
                await publish(
                    connection,
                    exchange.exchange,
                    "orders.us.created",
                    "orders.us.paid",
                    "orders.eu.created",
                    "orders.eu",
                )
                seen = []
                async for message in messages:
                    async with message.process():
                        seen.append(message.value())
                    if len(seen) == 3:
                        break
            assert seen == ["orders.us.created", "orders.eu.created", "orders.eu"]
            assert connection.topology.queues == {}

    run(conversation)


def test_a_queue_with_a_name_gathers_what_comes_meanwhile() -> None:
    async def conversation() -> None:
        async with connected() as connection:
            queue, key = name(), name()
            async with connection.subscribe(key, queue=queue):
                pass
            await publish(connection, "amq.topic", key)
            async with connection.subscribe(key, queue=queue, prefetch=1) as messages:
                message = await anext(messages)
                message.ack()
                assert message.routing_key == key
            async with connection.channel() as channel:
                assert await count(channel, queue) == 0
                await channel.queue(queue).delete()

    run(conversation)


def test_a_cancelled_subscription_takes_its_queue_with_it() -> None:
    async def conversation() -> None:
        async with connected() as connection, connection.channel() as channel:
            names = []
            with trio.CancelScope() as scope:
                async with channel.subscribe("#"):
                    names = list(connection.topology.queues)
                    scope.cancel()
                    await trio.sleep_forever()
            assert len(names) == 1
            with pytest.raises(NotFound):
                await channel.declare_queue(names[0], passive=True)

    run(conversation)


def test_an_exchange_that_is_not_there() -> None:
    async def conversation() -> None:
        async with connected() as connection:
            with pytest.raises(NotFound):
                async with connection.subscribe("a", exchange=name()):
                    pass

    run(conversation)
