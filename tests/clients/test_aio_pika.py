"""aio-pika on a plain connection: declaring, publishing, consuming, acknowledging and errors, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import aio_pika
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import (
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
    QueueEmpty,
)
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ConnectionNotImplemented,
)

from .support import DEADLINE, LARGE_SIZES, UNICODE, Broker, in_asyncio, large_body


@in_asyncio
async def test_hello_world(broker_url: str, name: str) -> None:
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(name)
        await channel.default_exchange.publish(Message(b"Hello", content_type="text/plain"), routing_key=name)
        message = await queue.get(timeout=DEADLINE)
        assert (message.body, message.content_type, message.routing_key) == (b"Hello", "text/plain", name)
        assert (message.exchange, message.redelivered, message.message_count) == ("", False, 0)
        await message.ack()
        with pytest.raises(QueueEmpty):
            await queue.get(timeout=DEADLINE)
        assert await queue.get(fail=False) is None


@in_asyncio
async def test_publisher_confirms_many_at_once(broker_url: str, name: str) -> None:
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(name, durable=True)
        publish = channel.default_exchange.publish
        message = Message(b"persistent", delivery_mode=DeliveryMode.PERSISTENT)
        await asyncio.gather(*(publish(message, name, timeout=DEADLINE) for _ in range(200)))
        assert (await channel.declare_queue(name, passive=True)).declaration_result.message_count == 200
        assert (await queue.purge()).message_count == 200


@in_asyncio
async def test_returned_and_refused_publishes(broker_url: str, name: str) -> None:
    async with await aio_pika.connect(broker_url) as connection:
        channel = await connection.channel(on_return_raises=True)
        with pytest.raises(PublishError) as raised:
            await channel.default_exchange.publish(Message(b"lost"), routing_key=name)
        assert "NO_ROUTE" in str(raised.value)
        await channel.declare_queue(name, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        await channel.default_exchange.publish(Message(b"fits"), routing_key=name)
        with pytest.raises(DeliveryError):
            await channel.default_exchange.publish(Message(b"does not"), routing_key=name)


@in_asyncio
async def test_return_callback(broker_url: str, name: str) -> None:
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        returned: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()
        channel.return_callbacks.add(lambda _, message: returned.set_result(message))
        await channel.default_exchange.publish(Message(b"lost", message_id="m1"), routing_key=name, mandatory=True)
        message = await returned
        assert (message.body, message.message_id, message.routing_key) == (b"lost", "m1", name)


@in_asyncio
async def test_every_property_round_trips(broker_url: str, name: str) -> None:
    headers = {
        "text": UNICODE,
        UNICODE: "key",
        "flag": True,
        "small": 7,
        "negative": -300,
        "wide": 1 << 40,
        "float": 0.5,
        "decimal": Decimal("3.14"),
        "when": datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
        "none": None,
        "raw": bytearray(b"\x00\xff"),
        "list": [1, "two", [3], {"four": True}],
        "table": {"inner": {"deep": [None]}},
    }
    sent = Message(
        UNICODE.encode(),
        headers=headers,
        content_type="text/plain",
        content_encoding="utf-8",
        delivery_mode=DeliveryMode.PERSISTENT,
        priority=4,
        correlation_id=UNICODE,
        reply_to="answers",
        expiration=60.5,
        message_id="message-1",
        timestamp=datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
        type="kind",
        user_id="guest",
        app_id="aio-pika tests",
    )
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(name)
        await channel.default_exchange.publish(sent, routing_key=name)
        received = await queue.get(no_ack=True, timeout=DEADLINE)
    facts = {fact for fact, value in sent.info().items() if value is not None}  # what only deliveries have is None
    assert {fact: received.info()[fact] for fact in facts} == {fact: sent.info()[fact] for fact in facts}
    assert received.headers == headers
    assert facts >= {"app_id", "headers", "priority", "expiration", "timestamp", "type", "user_id"}
    assert received.body.decode() == UNICODE


@LARGE_SIZES
@in_asyncio
async def test_large_message(broker_url: str, name: str, size: int) -> None:
    body = large_body(size)
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(name)
        await channel.default_exchange.publish(Message(body), routing_key=name)
        assert (await queue.get(no_ack=True, timeout=DEADLINE)).body == body


@in_asyncio
async def test_queue_iterator_processes_and_requeues_on_error(broker_url: str, name: str) -> None:
    seen: list[tuple[bytes, bool | None]] = []
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue(name)
        for body in (b"a", b"b", b"c"):
            await channel.default_exchange.publish(Message(body), routing_key=name)
        async with queue.iterator(timeout=DEADLINE) as messages:
            async for message in messages:
                seen.append((message.body, message.redelivered))
                try:
                    async with message.process(requeue=True):
                        assert message.redelivered or message.body != b"b"
                except AssertionError:
                    continue
                if message.body == b"c":
                    break
        assert seen == [(b"a", False), (b"b", False), (b"b", True), (b"c", False)]
        assert await queue.get(fail=False) is None


@in_asyncio
async def test_consumers_share_a_queue(broker_url: str, name: str) -> None:
    async with await aio_pika.connect(broker_url) as connection:
        channels = [await connection.channel() for _ in range(3)]
        got: list[list[bytes]] = [[] for _ in channels]
        done = asyncio.Event()
        for channel, mine in zip(channels, got, strict=True):
            await channel.set_qos(prefetch_count=2)
            queue = await channel.declare_queue(name)

            async def on_message(message: AbstractIncomingMessage, mine: list[bytes] = mine) -> None:
                mine.append(message.body)
                if sum(map(len, got)) == 6:
                    done.set()

            await queue.consume(on_message)
        for number in range(7):
            await channels[0].default_exchange.publish(Message(b"%d" % number), routing_key=name)
        await done.wait()
        assert got == [[b"0", b"3"], [b"1", b"4"], [b"2", b"5"]]
        state = (await channels[0].declare_queue(name, passive=True)).declaration_result
        assert (state.message_count, state.consumer_count) == (1, 3)


@in_asyncio
async def test_topic_exchange_and_exchange_binding(broker_url: str, new_name: Callable[[], str]) -> None:
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        logs = await channel.declare_exchange(new_name(), ExchangeType.TOPIC)
        errors = await channel.declare_exchange(new_name(), ExchangeType.FANOUT)
        await errors.bind(logs, "*.error")
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(errors)
        for key in ("web.info", "web.error", "db.error", "error"):
            await logs.publish(Message(key.encode()), routing_key=key)
        assert [(await queue.get(no_ack=True)).body for _ in range(2)] == [b"web.error", b"db.error"]
        assert await queue.get(fail=False) is None
        await errors.unbind(logs, "*.error")
        await queue.unbind(errors)


@in_asyncio
async def test_direct_reply_to(broker_url: str, name: str) -> None:
    async with await aio_pika.connect(broker_url) as connection:
        server, client = await connection.channel(), await connection.channel()

        async def serve(message: AbstractIncomingMessage) -> None:
            async with message.process():
                assert message.reply_to is not None
                answer = Message(message.body[::-1], correlation_id=message.correlation_id)
                await server.default_exchange.publish(answer, routing_key=message.reply_to)

        await (await server.declare_queue(name)).consume(serve)
        replies = await client.get_queue("amq.rabbitmq.reply-to", ensure=False)
        answered: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await replies.consume(answered.put, no_ack=True)
        correlation_id = str(uuid4())
        question = Message(b"abc", reply_to="amq.rabbitmq.reply-to", correlation_id=correlation_id)
        await client.default_exchange.publish(question, routing_key=name)
        answer = await answered.get()
        assert (answer.body, answer.correlation_id) == (b"cba", correlation_id)


@in_asyncio
async def test_transaction_commits_or_rolls_back(broker_url: str, name: str) -> None:
    async with await aio_pika.connect(broker_url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue(name)
        async with channel.transaction():
            await channel.default_exchange.publish(Message(b"in"), routing_key=name)
        transaction = channel.transaction()
        await transaction.select()
        await channel.default_exchange.publish(Message(b"back"), routing_key=name)
        await transaction.rollback()
        assert (await queue.get(no_ack=True)).body == b"in"
        assert await queue.get(fail=False) is None


@in_asyncio
async def test_channel_errors_have_their_types(broker_url: str, new_name: Callable[[], str]) -> None:
    queue, missing = new_name(), new_name()
    async with await aio_pika.connect(broker_url) as connection, await aio_pika.connect(broker_url) as other:
        owned = await (await connection.channel()).declare_queue(exclusive=True)
        await (await connection.channel()).declare_queue(queue)
        attempts = [
            (
                connection,
                ChannelNotFoundEntity,
                "no queue",
                lambda channel: channel.declare_queue(missing, passive=True),
            ),
            (connection, ChannelNotFoundEntity, "no exchange", lambda channel: channel.get_exchange(missing)),
            (
                connection,
                ChannelPreconditionFailed,
                "inequivalent arg 'durable'",
                lambda channel: channel.declare_queue(queue, durable=True),
            ),
            (
                connection,
                ChannelAccessRefused,
                "operation not permitted on the default exchange",
                lambda channel: channel.exchange_delete(""),
            ),
            (
                other,
                ChannelLockedResource,
                "cannot obtain exclusive access to locked queue",
                lambda channel: channel.declare_queue(owned.name, passive=True),
            ),
        ]
        for asked, error, text, attempt in attempts:
            channel = await asked.channel()
            with pytest.raises(error, match=text):
                await attempt(channel)
            assert channel.is_closed
        assert not connection.is_closed
        channel = await connection.channel()
        with pytest.raises(ChannelClosed, match=f"no exchange '{missing}' in vhost '/'"):
            await (await channel.get_exchange(missing, ensure=False)).publish(Message(b""), routing_key="")


@in_asyncio
async def test_hard_error_closes_the_connection(broker_url: str) -> None:
    closed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    async with await aio_pika.connect(broker_url) as connection:
        connection.close_callbacks.add(lambda _, reason: closed.set_result(reason))
        channel = await connection.channel()
        with pytest.raises(ConnectionNotImplemented, match=r"NOT_IMPLEMENTED - prefetch_size!=0 \(1\)"):
            await channel.set_qos(prefetch_size=1)
        assert isinstance(await closed, ConnectionNotImplemented)


@in_asyncio
async def test_refused_logins(broker: Broker) -> None:
    login = {"host": broker.host, "port": broker.port, "login": broker.user}
    with pytest.raises(ProbableAuthenticationError):
        await aio_pika.connect(**login, password="wrong")
    with pytest.raises(InvalidFrameError, match=r"Connection\.Close"):  # all that aiormq says of a refused vhost
        await aio_pika.connect(**login, password=broker.password, virtualhost="nowhere")
