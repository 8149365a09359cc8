"""py-amqp, the client under kombu and Celery, used directly: blocking calls, drain_events, typed errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from time import monotonic
from typing import Any

import amqp
import pytest

from .support import DEADLINE, LARGE_SIZES, UNICODE, Broker, Proxy, large_body


def connect(broker: Broker, **options: Any) -> amqp.Connection:
    login = {"userid": broker.user, "password": broker.password, "virtual_host": broker.vhost}
    options = {"heartbeat": 60, "connect_timeout": DEADLINE, **login, **options}
    connection = amqp.Connection(f"{broker.host}:{broker.port}", **options)
    connection.connect()
    return connection


@pytest.fixture
def connection(broker: Broker) -> Iterator[amqp.Connection]:
    with connect(broker) as connection:
        yield connection


@pytest.fixture
def channel(connection: amqp.Connection) -> amqp.Channel:
    return connection.channel()


def drain_until(connection: amqp.Connection, happened: Callable[[], object]) -> None:
    """Dispatch what arrives until `happened`; TimeoutError (py-amqp's own) past the deadline."""
    deadline = monotonic() + DEADLINE
    while not happened():
        connection.drain_events(timeout=max(0.01, deadline - monotonic()))


def take(channel: amqp.Channel, queue: str, count: int, **options: Any) -> list[amqp.Message]:
    taken: list[amqp.Message] = []
    tag = channel.basic_consume(queue, callback=taken.append, **options)
    drain_until(channel.connection, lambda: len(taken) >= count)
    channel.basic_cancel(tag)
    return taken


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_login_and_negotiation(broker: Broker, mechanism: str) -> None:
    with connect(broker, login_method=mechanism, heartbeat=7) as connection:
        assert connection.connected
        assert (connection.heartbeat, connection.frame_max, connection.channel_max) == (7, 131072, 2047)
        assert set(connection.mechanisms) >= {b"PLAIN", b"AMQPLAIN"}
        assert connection.server_properties["product"] == "RabbitMQ"
        version = [int(part) for part in connection.server_properties["version"].split(".")]
        assert (3, 10) <= tuple(version[:2]) < (4, 0), "kombu and Celery decide about QoS by it"
        assert {name for name, offered in connection.server_capabilities.items() if offered} >= {
            "publisher_confirms",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "consumer_priorities",
            "authentication_failure_close",
            "per_consumer_qos",
            "direct_reply_to",
        }


def test_wrong_password(broker: Broker) -> None:
    with pytest.raises(amqp.AccessRefused) as raised:
        connect(broker, password="wrong", login_method="PLAIN")
    assert raised.value.reply_code == 403
    assert "Login was refused using authentication mechanism PLAIN" in raised.value.reply_text


def test_missing_vhost(broker: Broker) -> None:
    with pytest.raises(amqp.NotAllowed, match="vhost nowhere not found"):
        connect(broker, virtual_host="nowhere")


def test_declare_publish_get_ack(channel: amqp.Channel, name: str) -> None:
    assert channel.queue_declare(name, durable=True, auto_delete=False) == (name, 0, 0)
    channel.basic_publish(amqp.Message("text", content_type="text/plain"), routing_key=name)
    message = channel.basic_get(name)
    assert (message.body, message.content_type, message.content_encoding) == ("text", "text/plain", "utf-8")
    assert message.delivery_info == {
        "delivery_tag": 1,
        "redelivered": False,
        "exchange": "",
        "routing_key": name,
        "message_count": 0,
    }
    channel.basic_ack(message.delivery_tag)
    assert channel.basic_get(name) is None
    assert channel.queue_purge(name) == 0
    assert channel.queue_delete(name) == 0


def test_confirmed_publishing(broker: Broker, name: str) -> None:
    with connect(broker, confirm_publish=True) as connection:
        channel = connection.channel()
        channel.queue_declare(name, arguments={"x-max-length": 3, "x-overflow": "reject-publish"}, auto_delete=False)
        for number in range(3):
            channel.basic_publish(amqp.Message(str(number)), routing_key=name, confirm_timeout=DEADLINE)
        with pytest.raises(amqp.exceptions.MessageNacked):
            channel.basic_publish(amqp.Message("refused"), routing_key=name, confirm_timeout=DEADLINE)
        assert channel.queue_declare(name, passive=True).message_count == 3


def test_returned_message(connection: amqp.Connection, channel: amqp.Channel, name: str) -> None:
    returned: list[Any] = []
    channel.events["basic_return"].add(lambda *returning: returned.append(returning))
    channel.basic_publish(amqp.Message("lost"), exchange="amq.direct", routing_key=name, mandatory=True)
    drain_until(connection, lambda: returned)
    [(error, exchange, routing_key, message)] = returned
    assert (error.reply_code, error.reply_text) == (312, "NO_ROUTE")
    assert (exchange, routing_key, message.body) == ("amq.direct", name, "lost")


def test_every_property_round_trips(channel: amqp.Channel, name: str) -> None:
    headers = {
        "text": UNICODE,
        UNICODE: "key",
        "flag": False,
        "small": 7,
        "negative": -7,
        "wide": 1 << 40,
        "float": 2.5,
        "decimal": Decimal("-3.14"),
        "when": datetime(2024, 2, 29, 12, 30),
        "none": None,
        "list": [1, "two", [3], {"four": None}],
        "table": {"inner": {"deep": [True]}},
    }
    properties = {
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "application_headers": headers,
        "delivery_mode": 2,
        "priority": 3,
        "correlation_id": UNICODE,
        "reply_to": "answers",
        "expiration": "60000",
        "message_id": "message-1",
        "timestamp": 1_700_000_000,
        "type": "kind",
        "user_id": "guest",
        "app_id": "py-amqp tests",
        "cluster_id": "cluster",
    }
    channel.queue_declare(name, auto_delete=False)
    channel.basic_publish(amqp.Message(UNICODE, **properties), routing_key=name)
    [message] = take(channel, name, 1, no_ack=True)
    assert message.properties == properties
    assert message.body == UNICODE


@LARGE_SIZES
def test_large_message(channel: amqp.Channel, name: str, size: int) -> None:
    body = large_body(size)
    channel.queue_declare(name, auto_delete=False)
    channel.basic_publish_confirm(amqp.Message(body), routing_key=name, confirm_timeout=DEADLINE)
    [message] = take(channel, name, 1, no_ack=True)
    assert message.body == body


def test_prefetch_and_acknowledging_several(connection: amqp.Connection, channel: amqp.Channel, name: str) -> None:
    channel.queue_declare(name, auto_delete=False)
    for number in range(5):
        channel.basic_publish(amqp.Message(str(number)), routing_key=name)
    channel.basic_qos(0, 2, False)
    got: list[amqp.Message] = []
    channel.basic_consume(name, callback=got.append)
    drain_until(connection, lambda: len(got) == 2)
    assert channel.queue_declare(name, passive=True) == (name, 3, 1)
    channel.basic_ack(got[-1].delivery_tag, multiple=True)
    drain_until(connection, lambda: len(got) == 4)
    channel.basic_reject(got[2].delivery_tag, requeue=True)
    drain_until(connection, lambda: len(got) == 5)
    assert [message.body for message in got] == ["0", "1", "2", "3", "2"]
    assert got[4].delivery_info["redelivered"]


def test_recover_redelivers_what_is_unacked(connection: amqp.Connection, channel: amqp.Channel, name: str) -> None:
    channel.queue_declare(name, auto_delete=False)
    channel.basic_publish(amqp.Message("again"), routing_key=name)
    got: list[amqp.Message] = []
    channel.basic_consume(name, callback=got.append)
    drain_until(connection, lambda: got)
    channel.basic_recover(requeue=True)
    drain_until(connection, lambda: len(got) == 2)
    assert [message.delivery_info["redelivered"] for message in got] == [False, True]


def test_transactions(connection: amqp.Connection, channel: amqp.Channel, name: str) -> None:
    channel.queue_declare(name, auto_delete=False)
    transacted = connection.channel()
    transacted.tx_select()
    transacted.basic_publish(amqp.Message("back"), routing_key=name)
    transacted.tx_rollback()
    transacted.basic_publish(amqp.Message("in"), routing_key=name)
    assert channel.basic_get(name) is None
    transacted.tx_commit()
    assert channel.basic_get(name).body == "in"


def test_topic_and_exchange_bindings(channel: amqp.Channel, new_name: Callable[[], str]) -> None:
    source, destination = new_name(), new_name()
    channel.exchange_declare(source, "topic", auto_delete=False)
    channel.exchange_declare(destination, "topic", auto_delete=False)
    queue = channel.queue_declare(exclusive=True).queue
    channel.queue_bind(queue, destination, "#.error")
    channel.exchange_bind(destination, source, "app.#")
    for key in ("app.web.error", "app.web.info", "db.error", "app.error"):
        channel.basic_publish(amqp.Message(key), exchange=source, routing_key=key)
    assert [message.body for message in take(channel, queue, 2, no_ack=True)] == ["app.web.error", "app.error"]
    channel.exchange_unbind(destination, source, "app.#")
    channel.queue_unbind(queue, destination, "#.error")


def test_rpc_by_direct_reply_to(connection: amqp.Connection, channel: amqp.Channel, name: str) -> None:
    channel.queue_declare(name, auto_delete=False)
    server = connection.channel()

    def serve(message: amqp.Message) -> None:
        answer = amqp.Message(message.body.upper(), correlation_id=message.correlation_id)
        server.basic_publish(answer, routing_key=message.reply_to)
        server.basic_ack(message.delivery_tag)

    server.basic_consume(name, callback=serve)
    answers: list[amqp.Message] = []
    channel.basic_consume("amq.rabbitmq.reply-to", no_ack=True, callback=answers.append)
    question = amqp.Message("shout", reply_to="amq.rabbitmq.reply-to", correlation_id="c1")
    channel.basic_publish(question, routing_key=name)
    drain_until(connection, lambda: answers)
    assert [(answer.body, answer.correlation_id) for answer in answers] == [("SHOUT", "c1")]


def test_cancel_callback_when_the_queue_goes(connection: amqp.Connection, channel: amqp.Channel, name: str) -> None:
    channel.queue_declare(name, auto_delete=False)
    cancelled: list[str] = []
    tag = channel.basic_consume(name, callback=print, on_cancel=cancelled.append)
    connection.channel().queue_delete(name)
    drain_until(connection, lambda: cancelled)
    assert cancelled == [tag]


@pytest.mark.parametrize(
    ("method", "options", "error", "text"),
    [
        ("queue_declare", {"passive": True}, amqp.NotFound, "NOT_FOUND - no queue '{}' in vhost '/'"),
        ("exchange_declare", {"type": "direct", "passive": True}, amqp.NotFound, "NOT_FOUND - no exchange '{}' in"),
        ("basic_get", {}, amqp.NotFound, "NOT_FOUND - no queue '{}' in vhost '/'"),
        (
            "queue_declare",
            {"arguments": {"x-message-ttl": -1}},
            amqp.PreconditionFailed,
            "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue '{}' in vhost '/'",
        ),
    ],
    ids=["queue", "exchange", "get", "argument"],
)
def test_channel_errors_have_their_types(
    connection: amqp.Connection, name: str, method: str, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    channel = connection.channel()
    with pytest.raises(error) as raised:
        getattr(channel, method)(name, **options)
    assert raised.value.reply_text.startswith(text.format(name))
    assert connection.connected
    assert connection.channel(channel.channel_id or 1).queue_declare(exclusive=True).queue


def test_hard_error_and_a_new_connection(broker: Broker) -> None:
    connection = connect(broker)
    with pytest.raises(amqp.AMQPNotImplementedError, match=r"NOT_IMPLEMENTED - prefetch_size!=0 \(1\)"):
        connection.channel().basic_qos(1, 0, False)
    assert not connection.connected
    connect(broker).close()


def test_wide_integers_are_arguments_too(channel: amqp.Channel, name: str) -> None:
    """py-amqp writes integers from 2**31 with the tag 'L', which RabbitMQ reads as a signed 64 bit integer."""
    arguments = {"x-message-ttl": 3_000_000_000, "x-max-length": 10}
    channel.queue_declare(name, arguments=arguments, auto_delete=False)
    assert channel.queue_declare(name, arguments=arguments, auto_delete=False).queue == name


def test_heartbeats_arrive_on_an_idle_connection(broker: Broker) -> None:
    with connect(broker, heartbeat=1, on_blocked=pytest.fail) as connection:
        assert connection.heartbeat == 1
        received = connection.bytes_recv
        deadline = monotonic() + DEADLINE
        while connection.bytes_recv < received + 2:  # py-amqp counts frames; only heartbeats can come
            assert monotonic() < deadline
            connection.blocking_read(timeout=DEADLINE)
            connection.heartbeat_tick()
        assert connection.channel().queue_declare(exclusive=True).message_count == 0


def test_lost_connection_requeues(broker: Broker, proxy: Proxy, connection: amqp.Connection, name: str) -> None:
    lost = connect(broker.at(proxy.port))
    channel = lost.channel()
    channel.queue_declare(name, auto_delete=False)
    channel.basic_publish(amqp.Message("in flight"), routing_key=name)
    assert channel.basic_get(name).body == "in flight"
    proxy.cut()
    with pytest.raises(lost.connection_errors):
        channel.queue_declare(name, passive=True)
    lost.collect()
    [message] = take(connection.channel(), name, 1, no_ack=True)
    assert (message.body, message.delivery_info["redelivered"]) == ("in flight", True)
