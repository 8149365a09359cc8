"""Programs as people write them, on the fixtures as people use them: pika, aio-pika, kombu, Celery."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import aio_pika
import kombu
import pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from celery import Celery
from celery.contrib.testing.worker import start_worker

from rabbitish import testing

PATIENCE_SECONDS = 10


# --- pika -------------------------------------------------------------------------------------------------------------


def charge(url: str, order: str) -> None:
    """A program under test: a confirmed, persistent publish, tried again where it is refused or the broker goes."""
    while True:
        try:
            with pika.BlockingConnection(pika.URLParameters(url)) as connection:
                channel = connection.channel()
                channel.queue_declare("payments", durable=True)
                channel.confirm_delivery()
                channel.basic_publish("", "payments", order.encode(), pika.BasicProperties(delivery_mode=2))
            return
        except (pika.exceptions.NackError, pika.exceptions.AMQPConnectionError):
            continue


@pytest.mark.parametrize(("how", "times"), [("nack", 1), ("drop-connection", 1), ("lose-confirm", 2)])
def test_pika_retries_a_publish(rabbitish_vhost: testing.Vhost, how: Any, times: int) -> None:
    """With at least once: when the confirm is lost the message is there twice."""
    rabbitish_vhost.fail_next_publish(how)
    charge(rabbitish_vhost.url, "order 1")
    messages = rabbitish_vhost.queue("payments").messages
    assert [message.text for message in messages] == ["order 1"] * times
    assert messages[0].properties.delivery_mode == 2


# --- aio-pika ---------------------------------------------------------------------------------------------------------


def test_aio_pika_reconnects_and_consumes_on(
    rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost
) -> None:
    async def program() -> None:
        connection = await aio_pika.connect_robust(rabbitish_vhost.url, reconnect_interval=0.01)
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q", durable=True)
            received: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            await queue.consume(received.put)
            rabbitish_vhost.publish(b"1", "q")
            assert (await received.get()).body == b"1"  # and is not acknowledged
            rabbitish_broker.refuse_connections()
            assert rabbitish_vhost.drop_connections() == 1
            assert rabbitish_vhost.queue("q").messages[0].redelivered
            rabbitish_broker.accept_connections()
            again = await received.get()
            assert (again.body, again.redelivered) == (b"1", True)
            await again.ack()
            assert rabbitish_vhost.queue("q").unacked == 0

    asyncio.run(asyncio.wait_for(program(), PATIENCE_SECONDS))


def test_aio_pika_hears_of_a_nack(rabbitish_vhost: testing.Vhost) -> None:
    async def program() -> None:
        async with await aio_pika.connect(rabbitish_vhost.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("q")
            rabbitish_vhost.fail_next_publish()
            with pytest.raises(aio_pika.exceptions.DeliveryError):
                await channel.default_exchange.publish(aio_pika.Message(b"m"), "q")
            await channel.default_exchange.publish(aio_pika.Message(b"m"), "q")
            assert rabbitish_vhost.queue("q").ready == 1

    asyncio.run(asyncio.wait_for(program(), PATIENCE_SECONDS))


def test_aio_pika_waits_for_a_delayed_message(
    rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost
) -> None:
    async def program() -> None:
        async with await aio_pika.connect(rabbitish_vhost.url) as connection:
            channel = await connection.channel()
            due = await channel.declare_queue("due")
            to_due = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "due"}
            await channel.declare_queue("later", arguments=to_due)
            received: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            await due.consume(received.put, no_ack=True)
            message = aio_pika.Message(b"remind me", expiration=24 * 3600)
            await channel.default_exchange.publish(message, "later")
            rabbitish_broker.advance(24 * 3600)
            reminder = await received.get()
            assert reminder.headers["x-death"][0]["reason"] == "expired"

    asyncio.run(asyncio.wait_for(program(), PATIENCE_SECONDS))


# --- kombu ------------------------------------------------------------------------------------------------------------


def test_kombu_publishes_and_consumes(rabbitish_vhost: testing.Vhost) -> None:
    news = kombu.Exchange("news", "topic")
    queue = kombu.Queue("sport", news, routing_key="sport.#")
    received: list[Any] = []
    with kombu.Connection(rabbitish_vhost.url) as connection:
        producer = connection.Producer(serializer="json")
        producer.publish({"score": [2, 1]}, exchange=news, routing_key="sport.football", declare=[news, queue])
        [message] = rabbitish_vhost.queue("sport").messages
        assert (message.json(), message.properties.content_type) == ({"score": [2, 1]}, "application/json")
        with connection.Consumer(queue, callbacks=[lambda body, message: (received.append(body), message.ack())]):
            connection.drain_events(timeout=PATIENCE_SECONDS)
    assert received == [{"score": [2, 1]}]
    assert rabbitish_vhost.queue("sport").ready == 0


def test_kombu_autoretries_over_a_broken_connection(rabbitish_vhost: testing.Vhost) -> None:
    with kombu.Connection(rabbitish_vhost.url) as connection:
        queue = connection.SimpleQueue("q")
        queue.put("1")
        rabbitish_vhost.drop_connections()
        queue.producer.publish("2", routing_key="q", retry=True, retry_policy={"interval_start": 0, "max_retries": 3})
        assert [message.text for message in rabbitish_vhost.queue("q").messages] == ["1", "2"]


# --- Celery -----------------------------------------------------------------------------------------------------------


def add(x: int, y: int) -> int:
    return x + y


@pytest.fixture
def app(rabbitish_vhost: testing.Vhost) -> Iterator[Celery]:
    """An application whose results are kept in memory.

    A worker in a thread looks whether it is to stop when a timer comes, and without heartbeats that is once a second.
    """
    app = Celery("shop", broker=rabbitish_vhost.url, backend="cache+memory://", set_as_current=False)
    app.conf.update(broker_heartbeat=0, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
    app.conf.worker_cancel_long_running_tasks_on_connection_loss = True  # else it warns
    app.task(add, name="shop.add", shared=False)
    yield app
    app.pool.force_close_all()
    app.close()


def test_celery_sends_what_a_worker_will_find(app: Celery, rabbitish_vhost: testing.Vhost) -> None:
    """Without any worker: what the program under test has asked for lies in the queue."""
    app.tasks["shop.add"].apply_async((1, 2), countdown=60, expires=3600)
    [message] = rabbitish_vhost.queue("celery").messages
    assert message.headers["task"] == "shop.add"
    assert message.headers["eta"]
    assert message.json()[0] == [1, 2]


def test_celery_works(app: Celery, rabbitish_vhost: testing.Vhost) -> None:
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=PATIENCE_SECONDS):
        results = [app.tasks["shop.add"].delay(number, 1) for number in range(5)]
        assert [result.get(timeout=PATIENCE_SECONDS) for result in results] == [1, 2, 3, 4, 5]
    assert rabbitish_vhost.queue("celery").ready == 0


def test_celery_works_again_after_its_connection_broke(
    app: Celery, rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost
) -> None:
    queue = rabbitish_vhost.queue("celery")
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=PATIENCE_SECONDS):
        consumed = partial(lambda: queue.exists and queue.consumers == 1)
        rabbitish_broker.wait_until(consumed, within=PATIENCE_SECONDS)
        rabbitish_vhost.drop_connections()
        rabbitish_broker.wait_until(consumed, within=PATIENCE_SECONDS)
        assert app.tasks["shop.add"].delay(1, 2).get(timeout=PATIENCE_SECONDS) == 3
