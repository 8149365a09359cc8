"""AMQPStorm: threads underneath, one exception per level with the broker's code in it, channels that open again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import amqpstorm
import pytest
from amqpstorm import AMQPChannelError, AMQPConnectionError, Message

from .support import DEADLINE, LARGE_SIZES, UNICODE, Broker, Proxy, large_body


def connect(broker: Broker, **options: Any) -> amqpstorm.Connection:
    options = {"virtual_host": broker.vhost, "timeout": DEADLINE, **options}
    password = options.pop("password", broker.password)
    return amqpstorm.Connection(broker.host, broker.user, password, broker.port, **options)


@pytest.fixture
def connection(broker: Broker) -> Iterator[amqpstorm.Connection]:
    with connect(broker) as connection:
        yield connection


@pytest.fixture
def channel(connection: amqpstorm.Connection) -> amqpstorm.Channel:
    return connection.channel(rpc_timeout=int(DEADLINE))


def take(channel: amqpstorm.Channel, queue: str, count: int, **options: Any) -> list[Message]:
    """Consume until `count` messages are there; a timer stops it at the deadline."""
    taken: list[Message] = []

    def on_message(message: Message) -> None:
        taken.append(message)
        if len(taken) == count:
            channel.stop_consuming()

    channel.basic.consume(on_message, queue, **options)
    timer = threading.Timer(DEADLINE, channel.stop_consuming)
    timer.daemon = True
    timer.start()
    channel.start_consuming()
    timer.cancel()
    assert len(taken) == count
    return taken


def test_uri_connection_and_hello_world(broker_url: str, name: str) -> None:
    with amqpstorm.UriConnection(f"{broker_url}?heartbeat=30&timeout=10") as connection:
        assert connection.server_properties["product"] == "RabbitMQ"
        with connection.channel() as channel:
            assert channel.queue.declare(name) == {"queue": name, "message_count": 0, "consumer_count": 0}
            Message.create(channel, "Hello World!", {"content_type": "text/plain"}).publish(name)
            message = channel.basic.get(name)
            assert message is not None
            assert (message.body, message.properties["content_type"]) == ("Hello World!", "text/plain")
            assert message.method is not None
            assert (message.method["routing_key"], message.method["message_count"]) == (name, 0)
            message.ack()
            assert channel.basic.get(name) is None
            assert channel.queue.delete(name) == {"message_count": 0}


def test_confirms_nacks_and_returns(channel: amqpstorm.Channel, name: str) -> None:
    channel.confirm_deliveries()
    channel.queue.declare(name, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    assert channel.basic.publish("1", name, mandatory=True) is True
    assert channel.basic.publish("2", name) is True
    assert channel.basic.publish("3", name) is False
    with pytest.raises(amqpstorm.AMQPMessageError, match=r"Message not delivered: NO_ROUTE \(312\)") as raised:
        channel.basic.publish("lost", f"{name}.nowhere", mandatory=True)
    assert (raised.value.error_code, raised.value.error_type) == (312, "NO-ROUTE")
    assert channel.queue.purge(name) == {"message_count": 2}


def test_every_property_round_trips(channel: amqpstorm.Channel, name: str) -> None:
    properties = {
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "headers": {
            "text": UNICODE,
            UNICODE: "key",
            "flag": True,
            "number": -7,
            "wide": 1 << 40,
            "none": None,
            "list": [1, "two", False],
            "table": {"inner": {"deep": 1.5}},
        },
        "delivery_mode": 2,
        "priority": 8,
        "correlation_id": UNICODE,
        "reply_to": "answers",
        "expiration": "60000",
        "message_id": "message-1",
        "timestamp": datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
        "message_type": "kind",
        "user_id": "guest",
        "app_id": "amqpstorm tests",
    }
    channel.queue.declare(name)
    channel.basic.publish(UNICODE, name, properties=dict(properties))
    message = channel.basic.get(name, no_ack=True)
    assert message is not None
    assert {key: value for key, value in message.properties.items() if key != "cluster_id"} == properties
    assert message.body == UNICODE


@LARGE_SIZES
def test_large_message(channel: amqpstorm.Channel, name: str, size: int) -> None:
    body = large_body(size)
    channel.confirm_deliveries()
    channel.queue.declare(name)
    assert channel.basic.publish(body, name, properties={"content_type": "application/octet-stream"})
    message = channel.basic.get(name, no_ack=True, auto_decode=False)
    assert message is not None
    assert message.body == body


def test_consume_acknowledge_requeue(channel: amqpstorm.Channel, name: str) -> None:
    channel.queue.declare(name)
    for body in ("a", "b", "c"):
        channel.basic.publish(body, name)
    channel.basic.qos(prefetch_count=10)
    first, second, third = take(channel, name, 3)
    first.ack()
    second.nack(requeue=True)
    third.reject(requeue=False)
    [again] = take(channel, name, 1)
    assert (again.body, again.redelivered) == ("b", True)
    again.ack()
    assert channel.basic.get(name) is None


def test_recover(channel: amqpstorm.Channel, name: str) -> None:
    channel.queue.declare(name)
    channel.basic.publish("again", name)
    assert not channel.basic.get(name).redelivered
    channel.basic.recover(requeue=True)
    assert channel.basic.get(name).redelivered


def test_topic_and_unbind(channel: amqpstorm.Channel, name: str) -> None:
    channel.exchange.declare(name, exchange_type="topic")
    queue = channel.queue.declare(exclusive=True)["queue"]
    channel.queue.bind(queue, name, "*.orange.*")
    channel.queue.bind(queue, name, "lazy.#")
    for key in ("quick.orange.rabbit", "lazy.orange.elephant", "quick.brown.fox", "lazy", "orange"):
        channel.basic.publish(key, key, name)
    assert [message.body for message in take(channel, queue, 3, no_ack=True)] == [
        "quick.orange.rabbit",
        "lazy.orange.elephant",
        "lazy",
    ]
    channel.queue.unbind(queue, name, "lazy.#")
    channel.exchange.delete(name)


def test_rpc_with_a_serving_thread(connection: amqpstorm.Connection, channel: amqpstorm.Channel, name: str) -> None:
    channel.queue.declare(name)
    server = connection.channel()

    def serve(request: Message) -> None:
        answer = Message.create(server, str(int(request.body) * 2), {"correlation_id": request.correlation_id})
        answer.publish(request.reply_to)
        request.ack()

    server.basic.consume(serve, name)
    thread = threading.Thread(target=server.start_consuming, daemon=True)
    thread.start()
    replies = channel.queue.declare(exclusive=True)["queue"]
    requests = [Message.create(channel, str(number), {"reply_to": replies}) for number in range(5)]
    for request in requests:
        request.publish(name)
    answers = {answer.correlation_id: answer.body for answer in take(channel, replies, 5, no_ack=True)}
    assert answers == {request.correlation_id: str(int(request.body) * 2) for request in requests}
    server.close()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_direct_reply_to(connection: amqpstorm.Connection, channel: amqpstorm.Channel, name: str) -> None:
    channel.queue.declare(name)
    answers: list[Message] = []
    channel.basic.consume(answers.append, "amq.rabbitmq.reply-to", no_ack=True)
    channel.basic.publish("ping", name, properties={"reply_to": "amq.rabbitmq.reply-to"})
    server = connection.channel()
    [request] = take(server, name, 1, no_ack=True)
    server.basic.publish("pong", request.reply_to)
    for answer in channel.build_inbound_messages(auto_decode=True):
        assert (answer.body, answer.method["exchange"]) == ("pong", "")
        break


def test_transactions(channel: amqpstorm.Channel, connection: amqpstorm.Connection, name: str) -> None:
    channel.queue.declare(name)
    transacted = connection.channel()
    with transacted.tx:
        transacted.basic.publish("in", name)
        assert channel.basic.get(name) is None
    transacted.tx.select()
    transacted.basic.publish("back", name)
    transacted.tx.rollback()
    assert channel.basic.get(name, no_ack=True).body == "in"
    assert channel.basic.get(name) is None


def test_consumer_cancelled_when_its_queue_goes(
    connection: amqpstorm.Connection, channel: amqpstorm.Channel, name: str
) -> None:
    channel.queue.declare(name)
    channel.basic.consume(print, name)
    assert len(channel.consumer_tags) == 1
    connection.channel().queue.delete(name)
    timer = threading.Timer(DEADLINE, channel.close)
    timer.daemon = True
    timer.start()
    channel.start_consuming()  # returns once no consumer is left
    timer.cancel()
    assert (channel.consumer_tags, channel.is_open) == ([], True)


@pytest.mark.parametrize(
    ("attempt", "code", "kind", "text"),
    [
        (
            lambda channel, name: channel.queue.declare(name, passive=True),
            404,
            "NOT-FOUND",
            "no queue '{}' in vhost '/'",
        ),
        (
            lambda channel, name: channel.exchange.declare(name, passive=True),
            404,
            "NOT-FOUND",
            "no exchange '{}' in vhost '/'",
        ),
        (
            lambda channel, name: channel.exchange.declare("amq.topic", "direct", durable=True),
            406,
            "PRECONDITION-FAILED",
            "inequivalent arg 'type' for exchange 'amq.topic' in vhost '/': received 'direct' but current is 'topic'",
        ),
        (
            lambda channel, name: channel.exchange.delete("amq.topic"),
            403,
            "ACCESS-REFUSED",
            "deletion of system exchange 'amq.topic' in vhost '/' not allowed",
        ),
    ],
    ids=["queue", "exchange", "type", "system"],
)
def test_channel_errors_and_open_again(
    channel: amqpstorm.Channel,
    name: str,
    attempt: Callable[[amqpstorm.Channel, str], Any],
    code: int,
    kind: str,
    text: str,
) -> None:
    with pytest.raises(AMQPChannelError) as raised:
        attempt(channel, name)
    assert (raised.value.error_code, raised.value.error_type) == (code, kind)
    assert str(raised.value).endswith(text.format(name))
    assert channel.is_closed
    channel.open()
    assert channel.queue.declare(name)["queue"] == name


def test_hard_error_and_opening_the_connection_again(broker: Broker, name: str) -> None:
    connection = connect(broker)
    with pytest.raises(AMQPConnectionError, match=r"prefetch_size!=0 \(1\)") as raised:
        connection.channel().basic.qos(prefetch_size=1)
    assert raised.value.error_code == 540
    connection.close()
    connection.open()
    assert connection.channel().queue.declare(name)["queue"] == name
    connection.close()


def test_lost_connection(broker: Broker, proxy: Proxy, connection: amqpstorm.Connection, name: str) -> None:
    """AMQPStorm 3 learns of a socket that closed without a word only by its heartbeat."""
    lost = connect(broker.at(proxy.port), heartbeat=1)
    channel = lost.channel(rpc_timeout=int(DEADLINE))
    channel.queue.declare(name)
    channel.basic.publish("in flight", name)
    assert channel.basic.get(name).body == "in flight"
    proxy.cut()
    with pytest.raises(AMQPConnectionError, match="no heartbeat or data received"):
        channel.queue.declare(name, passive=True)
    [message] = take(connection.channel(), name, 1, no_ack=True)
    assert (message.body, message.redelivered) == ("in flight", True)


def test_heartbeats_keep_an_idle_connection(broker: Broker, new_name: Callable[[], str]) -> None:
    """At an interval of 1 s AMQPStorm gives up after 1 s without a frame, so the broker's come in half that."""
    waiting, dead = new_name(), new_name()
    with connect(broker, heartbeat=1) as connection, connection.channel() as channel:
        channel.queue.declare(dead)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        channel.queue.declare(waiting, arguments=arguments)
        channel.basic.publish("late", waiting, properties={"expiration": "1600"})
        [message] = take(channel, dead, 1, no_ack=True)
        assert message.body == "late"


def test_refused_logins(broker: Broker) -> None:
    with pytest.raises(AMQPConnectionError, match="Login was refused using authentication mechanism PLAIN"):
        connect(broker, password="wrong")
    with pytest.raises(AMQPConnectionError, match="vhost nowhere not found"):
        connect(broker, virtual_host="nowhere")
