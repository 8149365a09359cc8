"""What a test sees of queues, exchanges, messages and connections; nothing of it is consumed or changed by looking."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from rabbitish import testing
from rabbitish.errors import ChannelError
from rabbitish.wire import methods
from tests.testing.support import connected, converse


@pytest.fixture
def channel(rabbitish_vhost: testing.Vhost) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(rabbitish_vhost.url)) as connection:
        yield connection.channel()


def test_messages_are_seen_whole_and_stay(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    channel.exchange_declare("e", "topic")
    channel.queue_declare("q")
    channel.queue_bind("q", "e", "a.*")
    properties = pika.BasicProperties(
        content_type="application/json", headers={"n": 1, "deep": {"list": [True, None]}}, message_id="id", priority=3
    )
    channel.basic_publish("e", "a.b", b'{"x": "\xc3\xbc"}', properties)
    channel.basic_publish("", "q", b"")
    queue = rabbitish_vhost.queue("q")
    for _ in range(2):
        first, second = queue.messages
        assert (first.exchange, first.routing_key, first.redelivered) == ("e", "a.b", False)
        assert (first.text, first.json()) == ('{"x": "ü"}', {"x": "ü"})
        assert first.headers == {"n": 1, "deep": {"list": [True, None]}}
        assert (first.properties.content_type, first.properties.message_id) == ("application/json", "id")
        assert (second.body, second.headers, second.properties.message_id) == (b"", {}, None)
        assert (second.exchange, second.routing_key, second.expires_in) == ("", "q", None)
    assert channel.basic_get("q", auto_ack=True)[0].message_count == 1


def test_large_messages_are_seen_whole(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    body = bytes(range(256)) * 2000  # several frames
    channel.queue_declare("q")
    channel.basic_publish("", "q", body)
    rabbitish_vhost.publish(body, "q")
    assert [message.body for message in rabbitish_vhost.queue("q").messages] == [body, body]
    assert [channel.basic_get("q", auto_ack=True)[2] for _ in range(2)] == [body, body]


def test_what_a_client_has_sent_is_there_without_waiting(
    rabbitish_vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    """No confirm, no answer: nothing but `send` has returned."""
    channel.queue_declare("q")
    for count in range(1, 200):
        channel.basic_publish("", "q", b"m")
        assert rabbitish_vhost.queue("q").ready == count


def test_counts_follow_what_consumers_do(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    queue = rabbitish_vhost.queue("q")
    channel.queue_declare("q")
    channel.basic_qos(prefetch_count=2)
    for number in range(5):
        channel.basic_publish("", "q", str(number).encode())
    assert (queue.ready, queue.unacked, queue.consumers) == (5, 0, 0)
    taken = channel.consume("q", inactivity_timeout=5)
    first, _, _ = next(taken)
    assert (queue.ready, queue.unacked, queue.consumers) == (3, 2, 1)
    assert [message.text for message in queue.messages] == ["2", "3", "4"]
    channel.basic_nack(first.delivery_tag)
    assert (queue.ready, queue.unacked) == (3, 2)
    channel.close()
    assert (queue.ready, queue.unacked, queue.consumers) == (5, 0, 0)
    assert [(message.text, message.redelivered) for message in queue.messages] == [
        ("0", True),
        ("1", True),
        ("2", False),
        ("3", False),
        ("4", False),
    ]


def test_messages_come_in_order_of_delivery(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    channel.queue_declare("q", arguments={"x-max-priority": 5})
    for priority in (1, 4, None, 4):
        channel.basic_publish("", "q", str(priority).encode(), pika.BasicProperties(priority=priority))
    assert [message.text for message in rabbitish_vhost.queue("q").messages] == ["4", "4", "1", "None"]


def test_how_things_were_declared(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    queue, exchange = rabbitish_vhost.queue("q"), rabbitish_vhost.exchange("e")
    assert (queue.exists, exchange.exists) == (False, False)
    channel.exchange_declare("e", "headers", durable=True, arguments={"alternate-exchange": "amq.fanout"})
    channel.exchange_declare("f", "fanout")
    channel.queue_declare("q", durable=True, arguments={"x-max-length": 3})
    channel.queue_bind("q", "e", "k", {"x-match": "any", "a": 1})
    channel.exchange_bind("f", "e", "to f")
    channel.queue_bind("q", "f")  # pika takes the queue's name for the key
    assert (queue.exists, queue.durable, queue.arguments) == (True, True, {"x-max-length": 3})
    assert (exchange.exists, exchange.type, exchange.durable) == (True, "headers", True)
    assert exchange.arguments == {"alternate-exchange": "amq.fanout"}
    to_queue = testing.Binding("e", "q", "k", {"x-match": "any", "a": 1})
    assert exchange.bindings == [to_queue, testing.Binding("e", "f", "to f", {})]
    assert queue.bindings == [to_queue, testing.Binding("f", "q", "q", {})]
    assert [each.name for each in rabbitish_vhost.queues] == ["q"]
    assert [each.name for each in rabbitish_vhost.exchanges] == ["e", "f"]
    assert rabbitish_vhost.exchange("").type == "direct"


def test_publishes_to_an_exchange_are_seen_wherever_they_go(
    rabbitish_vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    channel.exchange_declare("e", "fanout")
    channel.exchange_declare("other", "fanout")
    channel.basic_publish("e", "before", b"")
    with rabbitish_vhost.exchange("e").published() as published:
        for number in range(3):
            channel.basic_publish("e", f"to nobody {number}", b"m", pika.BasicProperties(type="event"))
        channel.basic_publish("other", "k", b"m")
    channel.basic_publish("e", "after", b"")
    channel.queue_declare("q")  # all of it has been handled
    assert [message.routing_key for message in published] == ["to nobody 0", "to nobody 1", "to nobody 2"]
    assert {message.properties.type for message in published} == {"event"}


def test_a_test_publishes_by_itself(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    channel.queue_declare("q")
    channel.queue_bind("q", "amq.topic", "a.#")
    received: list[tuple[Any, ...]] = []
    channel.basic_consume("q", lambda _, *what: received.append(what))
    assert rabbitish_vhost.publish("grüße", "a.b", "amq.topic", headers={"n": 1}, delivery_mode=2) == 1
    assert rabbitish_vhost.publish(b"", "q") == 1
    assert rabbitish_vhost.publish(b"m", "nowhere") == 0
    assert rabbitish_vhost.queue("q").unacked == 2
    channel.connection.process_data_events(5)
    (method, properties, body), (_, _, empty) = received
    assert (method.routing_key, body.decode(), empty) == ("a.b", "grüße", b"")
    assert (properties.headers, properties.delivery_mode) == ({"n": 1}, 2)


def test_publishes_that_cannot_be(rabbitish_vhost: testing.Vhost) -> None:
    with pytest.raises(LookupError, match="there is no exchange 'e'"):
        rabbitish_vhost.publish(b"m", "k", "e")
    with pytest.raises(TypeError, match="there is no property 'colour'"):
        rabbitish_vhost.publish(b"m", "k", colour="red")
    with pytest.raises(ChannelError, match="invalid expiration"):
        rabbitish_vhost.publish(b"m", "k", expiration="soon")


def test_a_queue_is_purged_and_deleted_under_its_consumer(
    rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    channel.queue_declare("q")
    channel.basic_qos(prefetch_count=1)
    cancelled: list[object] = []
    channel.add_on_cancel_callback(cancelled.append)
    rabbitish_vhost.publish(b"1", "q")
    rabbitish_vhost.publish(b"2", "q")
    channel.basic_consume("q", lambda *_: None)
    queue = rabbitish_vhost.queue("q")
    assert queue.purge() == 1
    rabbitish_vhost.publish(b"3", "q")
    assert queue.delete() == 1
    assert not queue.exists
    rabbitish_broker.wait_until(lambda: channel.connection.process_data_events(0) or cancelled)


def test_connections_are_listed(rabbitish_vhost: testing.Vhost) -> None:
    parameters = pika.URLParameters(rabbitish_vhost.url)
    parameters.client_properties = {"connection_name": "billing"}
    with pika.BlockingConnection(parameters) as connection:
        connection.channel()
        connection.channel()
        [seen] = rabbitish_vhost.connections
        assert (seen.user, seen.vhost, seen.channels, seen.blocked) == ("guest", rabbitish_vhost.name, 2, False)
        assert seen.client_properties["connection_name"] == "billing"
    assert rabbitish_vhost.connections == []


def test_virtual_hosts_are_worlds_of_their_own(rabbitish_broker: testing.RunningBroker) -> None:
    with rabbitish_broker.fresh_vhost() as one, rabbitish_broker.fresh_vhost() as other:
        assert one.name != other.name
        with pika.BlockingConnection(pika.URLParameters(one.url)) as connection:
            channel = connection.channel()
            channel.queue_declare("q", durable=True)
            channel.exchange_declare("e", auto_delete=True)
            channel.queue_bind("q", "e")
        assert (one.queue("q").exists, other.queue("q").exists) == (True, False)
        left = pika.BlockingConnection(pika.URLParameters(one.url))
    with pytest.raises(LookupError, match=f"there is no virtual host '{one.name}'"):
        _ = one.queues
    with pytest.raises(pika.exceptions.AMQPError):
        left.channel()
    again = rabbitish_broker.add_vhost(one.name)
    assert again.queues == again.exchanges == []
    with pytest.raises(ValueError, match="already"):
        rabbitish_broker.add_vhost(one.name)
    again.delete()


def test_a_virtual_host_may_have_any_name(rabbitish_broker: testing.RunningBroker) -> None:
    vhost = rabbitish_broker.add_vhost("a/b c%")
    with pika.BlockingConnection(pika.URLParameters(vhost.url)):
        assert len(vhost.connections) == 1
    vhost.delete()


def test_the_log_is_kept_and_not_printed(
    rabbitish_broker: testing.RunningBroker,
    rabbitish_vhost: testing.Vhost,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pika.BlockingConnection(pika.URLParameters(rabbitish_vhost.url)):
        pass
    ours = [line for line in rabbitish_broker.log if f"vhost={rabbitish_vhost.name}" in line]
    assert [line.split()[1:4] for line in ours] == [["info", "connection", "opened"], ["info", "connection", "closed"]]
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("rabbitish")]


def test_a_trio_program_sees_the_same_of_a_broker_of_its_own() -> None:
    async def conversation() -> None:
        async with testing.broker() as broker, connected(broker) as client:
            assert broker.url == f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F"
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await client.publish("q", b"m", times=3)
            assert [message.body for message in broker.queue("q").messages] == [b"m"] * 3
            assert broker.publish(b"own", "q") == 1
            assert [queue.ready for queue in broker.queues] == [4]
            assert broker.exchange("amq.topic").type == "topic"
            assert len(broker.connections) == 1
            await broker.wait_until(lambda: broker.queue("q").ready == 4)
            with pytest.raises(AssertionError, match=r"did not come true within 0\.01 s"):
                await broker.wait_until(lambda: broker.queue("q").ready == 5, within=0.01)

    converse(conversation)


def test_what_the_block_raises_comes_out_as_it_is() -> None:
    """Not in a group, and the broker is gone then."""

    async def conversation() -> None:
        brokers: list[testing.Broker] = []

        async def fail() -> None:
            async with testing.broker() as broker:
                brokers.append(broker)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((brokers[0].host, brokers[0].port))

    converse(conversation)


def test_a_skip_in_the_block_is_a_skip() -> None:
    async def conversation() -> None:
        with pytest.raises(pytest.skip.Exception):
            async with testing.broker():
                pytest.skip("not today")

    converse(conversation)


def test_settings_are_the_brokers() -> None:
    async def conversation() -> None:
        async with testing.broker(default_user="ann", default_pass="p@ss", default_vhost="app") as broker:
            assert broker.url == f"amqp://ann:p%40ss@127.0.0.1:{broker.port}/app"
            port = broker.port
        async with testing.broker(port=port) as broker:
            assert broker.port == port
        with pytest.raises(TypeError, match="colour"):
            async with testing.broker(colour="red"):
                raise AssertionError

    converse(conversation)
