"""Time that is moved on: TTLs, retries, expiries and timeouts, to the millisecond, and peers that notice nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from select import select

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from rabbitish import testing
from rabbitish.testing.clock import milliseconds
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_HEARTBEAT
from tests.testing.support import connected, converse, unspoken


@pytest.fixture(scope="module")
def frozen() -> Iterator[testing.RunningBroker]:
    """A broker on which no time passes by itself."""
    with testing.running_broker(frozen=True) as broker:
        yield broker


@pytest.fixture
def vhost(frozen: testing.RunningBroker) -> Iterator[testing.Vhost]:
    with frozen.fresh_vhost() as vhost:
        yield vhost


@pytest.fixture
def channel(vhost: testing.Vhost) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(vhost.url)) as connection:
        yield connection.channel()


def dead_lettered_to(queue: str, **arguments: object) -> dict[str, object]:
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue, **named}


def test_a_message_expires_at_its_millisecond(
    frozen: testing.RunningBroker, vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    channel.queue_declare("q")
    channel.basic_publish("", "q", b"m", pika.BasicProperties(expiration="60000"))
    [message] = vhost.queue("q").messages
    assert message.expires_in == 60
    frozen.advance(59.999)
    assert vhost.queue("q").ready == 1
    frozen.advance(0.001)
    assert vhost.queue("q").ready == 0


def test_a_year_of_one_hour_hops_is_no_work(
    frozen: testing.RunningBroker, vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    """Each hop happens at its own time, not all at the end."""
    hops = [f"hop {number}" for number in range(40)]
    for here, there in pairwise(hops):
        channel.queue_declare(here, arguments=dead_lettered_to(there, x_message_ttl=3_600_000))
    channel.queue_declare(hops[-1])
    channel.basic_publish("", hops[0], b"m")
    frozen.advance(timedelta(hours=20))
    assert [queue.name for queue in vhost.queues if queue.ready] == ["hop 20"]
    frozen.advance(timedelta(days=365))
    [message] = vhost.queue(hops[-1]).messages
    times = [death["time"] for death in reversed(message.headers["x-death"])]
    assert [later - earlier for earlier, later in pairwise(times)] == [3600] * 38


def test_retries_with_backoff(frozen: testing.RunningBroker, vhost: testing.Vhost, channel: BlockingChannel) -> None:
    """A worker that fails; its task comes back after 1, 2 and 4 seconds, and is then put aside."""
    attempts: list[int] = []

    def work(channel: BlockingChannel, method: object, properties: pika.BasicProperties, body: bytes) -> None:
        attempt = int((properties.headers or {}).get("attempt", 0))
        attempts.append(attempt)
        later = pika.BasicProperties(headers={"attempt": attempt + 1}, expiration=str(1000 * 2**attempt))
        channel.basic_publish("", "parked" if attempt == 3 else "wait", body, later if attempt < 3 else None)
        channel.basic_ack(method.delivery_tag)  # type: ignore[attr-defined]

    channel.queue_declare("work")
    channel.queue_declare("parked")
    channel.queue_declare("wait", arguments=dead_lettered_to("work"))
    channel.basic_consume("work", work)
    channel.basic_publish("", "work", b"task")
    for delay in (1, 2, 4):
        frozen.wait_until(lambda: channel.connection.process_data_events(0) or vhost.queue("wait").ready)
        frozen.advance(delay - 0.001)
        assert vhost.queue("wait").ready == 1
        frozen.advance(0.001)
        assert (vhost.queue("wait").ready, vhost.queue("work").unacked) == (0, 1)
    frozen.wait_until(lambda: channel.connection.process_data_events(0) or vhost.queue("parked").ready)
    assert attempts == [0, 1, 2, 3]


def test_an_unused_queue_goes(frozen: testing.RunningBroker, vhost: testing.Vhost, channel: BlockingChannel) -> None:
    channel.queue_declare("q", arguments={"x-expires": 1_800_000})
    frozen.advance(1799)
    assert vhost.queue("q").exists
    frozen.advance(1)
    assert not vhost.queue("q").exists
    with pytest.raises(LookupError, match="there is no queue 'q'"):
        _ = vhost.queue("q").ready


def test_a_consumer_that_takes_too_long_loses_its_message(
    frozen: testing.RunningBroker, vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    channel.queue_declare("q", arguments={"x-consumer-timeout": 900_000})
    channel.basic_publish("", "q", b"m")
    taken = next(channel.consume("q", inactivity_timeout=5))
    assert taken[2] == b"m"
    queue = vhost.queue("q")
    frozen.advance(899.999)
    assert (queue.unacked, queue.consumers) == (1, 1)
    frozen.advance(0.001)
    assert (queue.ready, queue.unacked, queue.consumers) == (1, 0, 0)
    assert queue.messages[0].redelivered


def test_what_expired_has_been_sent_when_advance_returns() -> None:
    """Its consumer need not wait: the delivery lies in its socket."""

    async def conversation() -> None:
        async with testing.broker() as broker, connected(broker) as client:
            arguments = dead_lettered_to("dead", x_message_ttl=5000)
            await client.ask(methods.QueueDeclare(queue="q", arguments=arguments), methods.QueueDeclareOk)
            await client.ask(methods.QueueDeclare(queue="dead"), methods.QueueDeclareOk)
            await client.ask(methods.BasicConsume(queue="dead", no_ack=True), methods.BasicConsumeOk)
            await client.publish("q", b"m")
            await broker.advance(5)
            assert select([client.stream.socket], [], [], 0)[0]
            await client.expect(methods.BasicDeliver)

    converse(conversation)


def test_with_a_journal_what_was_due_is_on_disk(tmp_path: Path) -> None:
    body = b"m" * 100_000  # so much that it is written in a thread

    async def conversation() -> None:
        async with testing.broker(data_dir=str(tmp_path)) as broker, connected(broker) as client:
            for name, arguments in (("q", dead_lettered_to("dead", x_message_ttl=5000)), ("dead", {})):
                declare = methods.QueueDeclare(queue=name, durable=True, arguments=arguments)
                await client.ask(declare, methods.QueueDeclareOk)
            broker.publish(body, "q", delivery_mode=2)
            await broker.advance(5)
            keeper = broker.bench.node.keeper
            assert keeper is not None
            assert broker.bench.node.hub.durable == keeper.journal.last_lsn > 0
        async with testing.broker(data_dir=str(tmp_path)) as broker:
            assert [message.body for message in broker.queue("dead").messages] == [body]

    converse(conversation)


def test_peers_notice_nothing_of_a_day() -> None:
    """Heartbeats are neither missed nor due, nor is a handshake too slow; and afterwards they go on as before."""

    async def conversation() -> None:
        async with testing.broker() as broker, connected(broker, heartbeat=1) as client, unspoken(broker) as silent:
            await broker.advance(timedelta(days=1))
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            assert await client.frame() == (FRAME_HEARTBEAT, 0, b"")
            await silent.handshake()
            assert len(broker.connections) == 2

    converse(conversation)


def test_time_goes_on_from_where_it_was_moved_to() -> None:
    """What is due a moment after the end of an advance comes by itself, without anybody touching the broker."""

    async def conversation() -> None:
        async with testing.broker(handshake_timeout_ms=3_600_000) as broker, connected(broker) as client:
            arguments = dead_lettered_to("dead", x_message_ttl=3_600_000)
            await client.ask(methods.QueueDeclare(queue="q", arguments=arguments), methods.QueueDeclareOk)
            await client.ask(methods.QueueDeclare(queue="dead"), methods.QueueDeclareOk)
            await client.ask(methods.BasicConsume(queue="dead", no_ack=True), methods.BasicConsumeOk)
            await client.publish("q", b"m")
            await broker.advance(3599.8)
            await client.expect(methods.BasicDeliver)

    converse(conversation)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_time_goes_forward(frozen: testing.RunningBroker, seconds: float) -> None:
    with pytest.raises(ValueError, match="time goes forward only"):
        frozen.advance(seconds)


def test_milliseconds_are_whole() -> None:
    assert [milliseconds(time) for time in (0, 1.001, 0.29, timedelta(minutes=1))] == [0, 1001, 290, 60_000]
