"""pika's BlockingConnection: publishing, consuming and the rest of its tutorial, with the answers its users rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exchange_type import ExchangeType

from .support import DEADLINE, LARGE_SIZES, UNICODE, large_body


@pytest.fixture
def connection(broker_url: str) -> Iterator[pika.BlockingConnection]:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        yield connection


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> BlockingChannel:
    return connection.channel()


def take(channel: BlockingChannel, queue: str, count: int, **consume: Any) -> list[tuple[Any, Any, bytes]]:
    """`count` deliveries (method, properties, body), unacknowledged; the consumer is cancelled after them."""
    taken: list[tuple[Any, Any, bytes]] = []
    for delivery in channel.consume(queue, inactivity_timeout=DEADLINE, **consume):
        assert delivery[0] is not None, f"{len(taken)} of {count} messages within {DEADLINE} s"
        taken.append(delivery)
        if len(taken) == count:
            return taken
    raise AssertionError(f"consumer cancelled after {len(taken)} of {count} messages")


def wait_until(connection: pika.BlockingConnection, happened: Callable[[], object]) -> None:
    """Process events until `happened`, which must be before the deadline."""
    late: list[bool] = []
    timer = connection.call_later(DEADLINE, lambda: late.append(True))
    while not happened():
        assert not late, f"not within {DEADLINE} s"
        connection.process_data_events(time_limit=DEADLINE)
    connection.remove_timeout(timer)


def test_hello_world(channel: BlockingChannel, name: str) -> None:
    declared = channel.queue_declare(name).method
    assert (declared.queue, declared.message_count, declared.consumer_count) == (name, 0, 0)
    channel.basic_publish("", name, b"Hello World!")
    got: list[bytes] = []

    def on_message(channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        assert (method.exchange, method.routing_key, method.delivery_tag, method.redelivered) == ("", name, 1, False)
        got.append(body)
        channel.basic_ack(method.delivery_tag)
        channel.stop_consuming()

    channel.basic_consume(name, on_message)
    channel.start_consuming()
    assert got == [b"Hello World!"]


def test_confirmed_publishing_and_counts(channel: BlockingChannel, name: str) -> None:
    channel.queue_declare(name, durable=True)
    channel.confirm_delivery()
    for number in range(20):
        channel.basic_publish("", name, b"%d" % number, pika.BasicProperties(delivery_mode=2), mandatory=True)
    assert channel.queue_declare(name, passive=True).method.message_count == 20
    assert channel.queue_purge(name).method.message_count == 20
    assert channel.queue_delete(name).method.message_count == 0


def test_unroutable_raises_with_the_message_when_confirming(channel: BlockingChannel, name: str) -> None:
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError) as raised:
        channel.basic_publish("", name, b"lost", mandatory=True)
    [returned] = raised.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.method.routing_key, returned.body) == ("", name, b"lost")
    channel.basic_publish("", name, b"unroutable without mandatory is confirmed")


def test_return_callback_without_confirms(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: str
) -> None:
    returned: list[Any] = []
    channel.add_on_return_callback(lambda *returning: returned.append(returning[1:]))
    channel.basic_publish("amq.topic", name, b"", pika.BasicProperties(message_id="m1"), mandatory=True)
    wait_until(connection, lambda: returned)
    [(method, properties, body)] = returned
    assert (method.reply_text, method.exchange, properties.message_id, body) == ("NO_ROUTE", "amq.topic", "m1", b"")


def test_rejected_publish_raises_nack(channel: BlockingChannel, name: str) -> None:
    channel.queue_declare(name, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    channel.basic_publish("", name, b"fits")
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish("", name, b"does not")


def test_every_property_round_trips(channel: BlockingChannel, name: str) -> None:
    headers = {
        "text": UNICODE,
        UNICODE: "key",
        "flag": True,
        "small": 7,
        "negative": -1,
        "wide": 1 << 40,
        "decimal": Decimal("3.14"),
        "when": datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
        "none": None,
        "raw": b"\x00\xff",
        "list": [1, "two", [3], {"four": 4}],
        "table": {"inner": {"deep": [True, None]}},
    }
    sent = pika.BasicProperties(
        content_type="text/plain; charset=utf-8",
        content_encoding="identity",
        headers=headers,
        delivery_mode=2,
        priority=9,
        correlation_id=UNICODE,
        reply_to="answers",
        expiration="60000",
        message_id="message-1",
        timestamp=1_700_000_000,
        type="kind",
        user_id="guest",
        app_id="pika tests",
        cluster_id="cluster",
    )
    channel.queue_declare(name)
    channel.basic_publish("", name, UNICODE.encode(), sent)
    [(_, received, body)] = take(channel, name, 1, auto_ack=True)
    assert vars(received) == vars(sent)
    assert body.decode() == UNICODE


@LARGE_SIZES
def test_large_message(channel: BlockingChannel, name: str, size: int) -> None:
    body = large_body(size)
    channel.queue_declare(name)
    channel.confirm_delivery()
    channel.basic_publish("", name, body)
    [(_, _, received)] = take(channel, name, 1, auto_ack=True)
    assert received == body


def test_work_queue_gives_a_message_each_with_prefetch_one(broker_url: str, name: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        first, second = connection.channel(), connection.channel()
        first.queue_declare(name)
        got: dict[str, list[tuple[int, bytes]]] = {"first": [], "second": []}
        for label, worker in (("first", first), ("second", second)):
            worker.basic_qos(prefetch_count=1)
            worker.basic_consume(
                name, lambda _, method, __, body, label=label: got[label].append((method.delivery_tag, body))
            )
        for number in range(3):
            first.basic_publish("", name, b"%d" % number)
        wait_until(connection, lambda: got["first"] and got["second"])
        assert (got["first"], got["second"]) == ([(1, b"0")], [(1, b"1")])
        second.basic_ack(1)
        wait_until(connection, lambda: len(got["second"]) == 2)
        assert got["second"][1] == (2, b"2")
        assert len(got["first"]) == 1


def test_nack_requeue_comes_back_in_place_and_redelivered(channel: BlockingChannel, name: str) -> None:
    channel.queue_declare(name)
    for body in (b"a", b"b", b"c"):
        channel.basic_publish("", name, body)
    method, _, body = channel.basic_get(name)
    assert (body, method.redelivered, method.message_count) == (b"a", False, 2)
    channel.basic_nack(method.delivery_tag, requeue=True)
    method, _, body = channel.basic_get(name)
    assert (body, method.redelivered) == (b"a", True)
    channel.basic_reject(method.delivery_tag, requeue=False)
    last = [channel.basic_get(name) for _ in range(2)][-1]
    assert last[2] == b"c"
    channel.basic_ack(last[0].delivery_tag, multiple=True)
    assert channel.basic_get(name) == (None, None, None)


def test_closing_the_channel_requeues_in_order(connection: pika.BlockingConnection, name: str) -> None:
    first = connection.channel()
    first.queue_declare(name)
    for body in (b"a", b"b", b"c"):
        first.basic_publish("", name, body)
    assert [first.basic_get(name)[2] for _ in range(2)] == [b"a", b"b"]
    first.close()
    redelivered = take(connection.channel(), name, 3, auto_ack=True)
    assert [(body, method.redelivered) for method, _, body in redelivered] == [
        (b"a", True),
        (b"b", True),
        (b"c", False),
    ]


@pytest.mark.parametrize(
    ("kind", "binding", "routing_key"),
    [
        (ExchangeType.topic, {"routing_key": "*.critical.#"}, "kern.critical.disk.full"),
        (ExchangeType.direct, {"routing_key": "error"}, "error"),
        (ExchangeType.fanout, {"routing_key": ""}, "anything"),
        (ExchangeType.headers, {"routing_key": "", "arguments": {"x-match": "any", "one": 1, "two": 2}}, ""),
    ],
    ids=lambda value: value.name if isinstance(value, ExchangeType) else "",
)
def test_exchange_types(
    channel: BlockingChannel, name: str, kind: ExchangeType, binding: dict[str, Any], routing_key: str
) -> None:
    channel.exchange_declare(name, kind)
    queue = channel.queue_declare("", exclusive=True).method.queue
    assert queue.startswith("amq.gen-")
    channel.queue_bind(queue, name, **binding)
    if kind not in (ExchangeType.fanout, ExchangeType.headers):
        channel.basic_publish(name, "no match", b"not this")
    if kind is ExchangeType.headers:
        channel.basic_publish(name, "", b"not this", pika.BasicProperties(headers={"one": 2}))
    properties = pika.BasicProperties(headers={"two": 2, "one": "other"})
    channel.basic_publish(name, routing_key, b"this", properties)
    [(method, _, body)] = take(channel, queue, 1, auto_ack=True)
    assert (method.exchange, method.routing_key, body) == (name, routing_key, b"this")
    channel.queue_unbind(queue, name, **binding)
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish(name, routing_key, b"nobody", properties, mandatory=True)
    channel.exchange_delete(name)


def test_exchange_to_exchange(channel: BlockingChannel, new_name: Callable[[], str]) -> None:
    source, destination, queue = new_name(), new_name(), new_name()
    channel.exchange_declare(source, "topic")
    channel.exchange_declare(destination, "fanout")
    channel.queue_declare(queue)
    channel.queue_bind(queue, destination)
    channel.exchange_bind(destination, source, "a.#")
    channel.basic_publish(source, "a.b", b"through both")
    [(method, _, _)] = take(channel, queue, 1, auto_ack=True)
    assert method.exchange == source
    channel.exchange_unbind(destination, source, "a.#")
    channel.basic_publish(source, "a.b", b"no more")
    assert channel.basic_get(queue)[0] is None


def test_rpc_over_an_exclusive_reply_queue(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: str
) -> None:
    channel.queue_declare(name)

    def serve(channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, b"%d" % (int(body) ** 2), reply)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(name, serve)
    client = connection.channel()
    replies = client.queue_declare("", exclusive=True).method.queue
    answers: dict[str, bytes] = {}
    client.basic_consume(replies, lambda _, __, p, body: answers.update({p.correlation_id: body}), auto_ack=True)
    wanted = {str(uuid4()): number for number in range(5)}
    for correlation_id, number in wanted.items():
        properties = pika.BasicProperties(reply_to=replies, correlation_id=correlation_id)
        client.basic_publish("", name, b"%d" % number, properties)
    wait_until(connection, lambda: len(answers) == 5)
    assert answers == {correlation_id: b"%d" % number**2 for correlation_id, number in wanted.items()}


def test_direct_reply_to(connection: pika.BlockingConnection, channel: BlockingChannel, name: str) -> None:
    channel.queue_declare(name)
    client = connection.channel()
    answers: list[tuple[str, bytes]] = []
    client.basic_consume(
        "amq.rabbitmq.reply-to", lambda _, method, __, body: answers.append((method.exchange, body)), auto_ack=True
    )
    client.basic_publish("", name, b"ping", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    [(_, properties, body)] = take(channel, name, 1, auto_ack=True)
    assert body == b"ping"
    assert properties.reply_to.startswith("amq.rabbitmq.reply-to.")
    assert channel.queue_declare(properties.reply_to, passive=True).method.consumer_count == 1
    channel.basic_publish("", properties.reply_to, b"pong")
    wait_until(connection, lambda: answers)
    assert answers == [("", b"pong")]


def test_transactions(connection: pika.BlockingConnection, channel: BlockingChannel, name: str) -> None:
    channel.queue_declare(name)
    transacted = connection.channel()
    transacted.tx_select()
    transacted.basic_publish("", name, b"rolled back")
    transacted.tx_rollback()
    transacted.basic_publish("", name, b"committed")
    assert channel.queue_declare(name, passive=True).method.message_count == 0
    transacted.tx_commit()
    assert channel.queue_declare(name, passive=True).method.message_count == 1
    method, _, body = transacted.basic_get(name)
    assert body == b"committed"
    transacted.basic_ack(method.delivery_tag)
    transacted.tx_commit()
    transacted.close()
    assert channel.basic_get(name)[0] is None


def test_priority_queue(channel: BlockingChannel, name: str) -> None:
    channel.queue_declare(name, arguments={"x-max-priority": 10})
    for priority in (None, 1, 10, 5, 200):
        channel.basic_publish("", name, str(priority).encode(), pika.BasicProperties(priority=priority))
    assert [channel.basic_get(name, auto_ack=True)[2] for _ in range(5)] == [b"10", b"200", b"5", b"1", b"None"]


def test_expired_message_is_dead_lettered(channel: BlockingChannel, new_name: Callable[[], str]) -> None:
    waiting, dead = new_name(), new_name()
    channel.queue_declare(dead)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    channel.queue_declare(waiting, arguments=arguments)
    channel.basic_publish("", waiting, b"old", pika.BasicProperties(expiration="20"))
    [(method, properties, body)] = take(channel, dead, 1, auto_ack=True)
    [death] = properties.headers["x-death"]
    assert (body, method.routing_key, properties.expiration) == (b"old", dead, None)
    assert (death["queue"], death["reason"], death["count"]) == (waiting, "expired", 1)
    assert (death["original-expiration"], death["routing-keys"]) == ("20", [waiting])
