"""pika and what can go wrong: closes from the broker, cancelled consumers, lost connections, refused logins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from .support import DEADLINE, Broker, Proxy
from .test_pika_blocking import take, wait_until


@pytest.fixture
def connection(broker_url: str) -> Iterator[pika.BlockingConnection]:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        yield connection


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> BlockingChannel:
    return connection.channel()


def redeclared_durable(channel: BlockingChannel, name: str) -> None:
    channel.queue_declare(name)
    channel.queue_declare(name, durable=True)


ERRORS: list[tuple[Callable[[BlockingChannel, str], Any], int, str]] = [
    (
        lambda channel, name: channel.queue_declare(name, passive=True),
        404,
        "NOT_FOUND - no queue '{}' in vhost '/'",
    ),
    (
        lambda channel, name: channel.exchange_declare(name, passive=True),
        404,
        "NOT_FOUND - no exchange '{}' in vhost '/'",
    ),
    (
        redeclared_durable,
        406,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{}' in vhost '/': "
        "received 'true' but current is 'false'",
    ),
    (
        lambda channel, name: channel.queue_declare("amq." + name),
        403,
        "ACCESS_REFUSED - queue name 'amq.{}' contains reserved prefix 'amq.*'",
    ),
    (
        lambda channel, name: channel.basic_consume(name, print),
        404,
        "NOT_FOUND - no queue '{}' in vhost '/'",
    ),
]
ERROR_IDS = ["missing queue", "missing exchange", "other durable", "reserved name", "consume from nowhere"]


@pytest.mark.parametrize(("action", "code", "text"), ERRORS, ids=ERROR_IDS)
def test_channel_errors_and_the_connection_lives_on(
    connection: pika.BlockingConnection,
    name: str,
    action: Callable[[BlockingChannel, str], Any],
    code: int,
    text: str,
) -> None:
    broken = connection.channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        action(broken, name)
    assert (raised.value.reply_code, raised.value.reply_text) == (code, text.format(name))
    assert broken.is_closed
    assert connection.is_open
    again = connection.channel(channel_number=broken.channel_number)
    again.queue_declare(name)
    again.basic_publish("", name, b"goes on")
    assert again.basic_get(name, auto_ack=True)[2] == b"goes on"


def test_publish_to_a_missing_exchange_closes_the_channel(channel: BlockingChannel, name: str) -> None:
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match=f"no exchange '{name}' in vhost '/'"):
        channel.basic_publish(name, "key", b"")


def test_unknown_delivery_tag(connection: pika.BlockingConnection, channel: BlockingChannel) -> None:
    channel.basic_ack(99)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match=r"406.*unknown delivery tag 99"):
        channel.queue_declare("", exclusive=True)


def test_exclusive_queue_is_locked_to_its_connection(broker_url: str, channel: BlockingChannel) -> None:
    queue = channel.queue_declare("", exclusive=True).method.queue
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as other:
        stranger = other.channel()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
            stranger.queue_declare(queue, passive=True)
    assert raised.value.reply_code == 405
    assert f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}'" in raised.value.reply_text


def test_exclusive_consumer(connection: pika.BlockingConnection, channel: BlockingChannel, name: str) -> None:
    channel.queue_declare(name)
    channel.basic_consume(name, print, exclusive=True)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        connection.channel().basic_consume(name, print)
    assert raised.value.reply_code == 403
    assert raised.value.reply_text == f"ACCESS_REFUSED - queue '{name}' in vhost '/' in exclusive use"


def test_deleting_the_queue_cancels_its_consumer(
    connection: pika.BlockingConnection, channel: BlockingChannel, name: str
) -> None:
    channel.queue_declare(name)
    cancelled: list[str] = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = channel.basic_consume(name, print)
    connection.channel().queue_delete(name)
    wait_until(connection, lambda: cancelled)
    assert cancelled == [tag]
    assert channel.consumer_tags == []


def test_cancel_returns_what_was_not_handed_out(channel: BlockingChannel, name: str) -> None:
    channel.queue_declare(name)
    for body in (b"a", b"b", b"c"):
        channel.basic_publish("", name, body)
    [(method, _, body)] = take(channel, name, 1)
    channel.basic_ack(method.delivery_tag)
    channel.cancel()
    assert body == b"a"
    assert [channel.basic_get(name, auto_ack=True)[2] for _ in range(2)] == [b"b", b"c"]


def test_hard_error_closes_the_connection_and_a_new_one_goes_on(broker_url: str, name: str) -> None:
    parameters = pika.URLParameters(broker_url)
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.queue_declare(name)
    channel.basic_publish("", name, b"kept")
    assert channel.basic_get(name)[2] == b"kept"
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as raised:
        channel.basic_qos(prefetch_size=1)
    assert (raised.value.reply_code, raised.value.reply_text) == (540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)")
    with pika.BlockingConnection(parameters) as again:
        [(method, _, body)] = take(again.channel(), name, 1, auto_ack=True)
    assert (body, method.redelivered) == (b"kept", True)


def test_lost_connection_and_its_unacked_message(broker: Broker, broker_url: str, proxy: Proxy, name: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(broker.at(proxy.port).url))
    channel = connection.channel()
    channel.queue_declare(name)
    channel.basic_publish("", name, b"in flight")
    take(channel, name, 1)
    proxy.cut()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        wait_until(connection, lambda: connection.is_closed)
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as again:
        [(method, _, body)] = take(again.channel(), name, 1, auto_ack=True)
    assert (body, method.redelivered) == (b"in flight", True)


def test_wrong_password(broker: Broker) -> None:
    parameters = pika.ConnectionParameters(
        broker.host, broker.port, broker.vhost, pika.PlainCredentials(broker.user, "wrong")
    )
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="Login was refused using authentication"):
        pika.BlockingConnection(parameters)


def test_missing_vhost(broker: Broker) -> None:
    parameters = pika.ConnectionParameters(
        broker.host, broker.port, "nowhere", pika.PlainCredentials(broker.user, broker.password)
    )
    refused = r"\(530\) 'NOT_ALLOWED - vhost nowhere not found'"
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match=refused):
        pika.BlockingConnection(parameters)


def test_what_the_server_offers(connection: pika.BlockingConnection) -> None:
    assert connection.publisher_confirms_supported
    assert connection.exchange_exchange_bindings_supported
    assert connection.basic_nack_supported
    assert connection.consumer_cancel_notify_supported
    connection.update_secret("guest", "rotation")
    assert connection.is_open


def test_blocked_callbacks_and_a_blocked_timeout_can_be_registered(broker_url: str, name: str) -> None:
    parameters = pika.URLParameters(broker_url)
    parameters.blocked_connection_timeout = DEADLINE
    blocked: list[Any] = []
    with pika.BlockingConnection(parameters) as connection:
        connection.add_on_connection_blocked_callback(lambda *event: blocked.append(event))
        connection.add_on_connection_unblocked_callback(lambda *event: blocked.append(event))
        channel = connection.channel()
        channel.queue_declare(name)
        channel.confirm_delivery()
        channel.basic_publish("", name, b"not blocked")
    assert blocked == []


def test_heartbeats_keep_an_idle_connection(broker_url: str, new_name: Callable[[], str]) -> None:
    """The only message comes by dead-lettering after more than two intervals, so the connection idles until then."""
    parameters = pika.URLParameters(broker_url)
    parameters.heartbeat = 1
    waiting, dead = new_name(), new_name()
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.queue_declare(dead)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead, "x-message-ttl": 2100}
        channel.queue_declare(waiting, arguments=arguments)
        channel.basic_publish("", waiting, b"after heartbeats")
        [(_, properties, body)] = take(channel, dead, 1, auto_ack=True)
        assert (body, properties.headers["x-first-death-reason"]) == (b"after heartbeats", "expired")
        assert connection.is_open


def test_context_managers_and_many_channels(connection: pika.BlockingConnection) -> None:
    channels = [connection.channel() for _ in range(100)]
    assert [channel.channel_number for channel in channels] == list(range(1, 101))
    for channel in channels:
        channel.close()
    with connection.channel() as channel:
        assert channel.channel_number == 1
        channel.flow(True)
