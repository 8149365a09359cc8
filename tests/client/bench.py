"""Our client beside aio-pika and pika, on the same broker: `python -m tests.client.bench URI [--count N]`.

No test, but a measurement: confirmed publishes with a window and one at a time, and deliveries that are acknowledged
one by one. Libraries take turns, and of each figure the best of the rounds counts. Messages of 100 bytes, persistent,
in a durable queue.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable

import aio_pika
import pika
import trio

from rabbitish.client import connect

QUEUE = "rabbitish-client-bench"
BODY = bytes(100)
WINDOW = 1000
Report = Callable[[str, int, float], None]


async def ours(uri: str, count: int, report: Report) -> None:
    async with connect(uri) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(QUEUE, durable=True)
        await queue.purge()
        began = time.perf_counter()
        await channel.publish_many((BODY for _ in range(count)), routing_key=QUEUE, window=WINDOW)
        report("publish, window 1000", count, began)
        began = time.perf_counter()
        async with queue.consume(prefetch=WINDOW) as messages:
            for _ in range(count):
                async with (await anext(messages)).process():
                    pass
        report("consume, prefetch 1000", count, began)
        few = max(1, count // 20)
        began = time.perf_counter()
        for _ in range(few):
            await queue.publish(BODY)
        report("publish one at a time", few, began)
        await queue.delete()


async def aio(uri: str, count: int, report: Report) -> None:
    async with await aio_pika.connect(uri) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.set_qos(WINDOW)
        queue = await channel.declare_queue(QUEUE, durable=True)
        await queue.purge()
        exchange = channel.default_exchange
        window = asyncio.Semaphore(WINDOW)

        async def publish() -> None:
            async with window:
                await exchange.publish(aio_pika.Message(BODY, delivery_mode=2), QUEUE)

        began = time.perf_counter()
        await asyncio.gather(*[publish() for _ in range(count)])
        report("publish, window 1000", count, began)
        began = time.perf_counter()
        async with queue.iterator() as messages:
            for _ in range(count):
                async with (await anext(messages)).process():
                    pass
        report("consume, prefetch 1000", count, began)
        few = max(1, count // 20)
        began = time.perf_counter()
        for _ in range(few):
            await exchange.publish(aio_pika.Message(BODY, delivery_mode=2), QUEUE)
        report("publish one at a time", few, began)
        await queue.delete(if_unused=False, if_empty=False)


def blocking(uri: str, count: int, report: Report) -> None:
    """pika's blocking adapter, which has no window: it waits for each confirm."""
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_qos(prefetch_count=WINDOW)
        channel.queue_declare(QUEUE, durable=True)
        channel.queue_purge(QUEUE)
        few = max(1, count // 20)
        properties = pika.BasicProperties(delivery_mode=2)
        began = time.perf_counter()
        for _ in range(few):
            channel.basic_publish("", QUEUE, BODY, properties)
        report("publish one at a time", few, began)
        unconfirmed = connection.channel()
        for _ in range(count - few):
            unconfirmed.basic_publish("", QUEUE, BODY, properties)
        began = time.perf_counter()
        for done, (method, _, _) in enumerate(channel.consume(QUEUE), 1):
            channel.basic_ack(method.delivery_tag)
            if done == count:
                break
        report("consume, prefetch 1000", count, began)
        channel.cancel()
        channel.queue_delete(QUEUE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("--count", type=int, default=100_000, help="messages for ours; the others get a tenth")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    best: dict[tuple[str, str], float] = {}

    def reporter(library: str) -> Report:
        def report(what: str, count: int, began: float) -> None:
            rate = count / (time.perf_counter() - began)
            best[what, library] = max(rate, best.get((what, library), 0))

        return report

    for _ in range(options.rounds):
        trio.run(ours, options.uri, options.count, reporter("rabbitish.client"))
        asyncio.run(aio(options.uri, options.count // 10, reporter("aio-pika")))
        blocking(options.uri, options.count // 10, reporter("pika"))
    for (what, library), rate in sorted(best.items()):
        print(f"{what:24} {library:18} {rate:10,.0f} a second")


if __name__ == "__main__":
    main()
