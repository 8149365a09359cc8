"""What goes wrong when a test wants it to, seen by pika and by a client of few words."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelClosedByBroker,
    ConnectionBlockedTimeout,
    ConnectionClosedByBroker,
    NackError,
    StreamLostError,
)

from rabbitish import testing
from rabbitish.testing.faults import Fault, How
from rabbitish.wire import methods
from tests.testing.support import connected, converse


def parameters(vhost: testing.Vhost, **more: object) -> pika.URLParameters:
    parameters = pika.URLParameters(vhost.url)
    for name, value in more.items():
        setattr(parameters, name, value)
    return parameters


@pytest.fixture
def channel(rabbitish_vhost: testing.Vhost) -> Iterator[BlockingChannel]:
    """A channel in confirm mode, and a queue "q"."""
    connection = pika.BlockingConnection(parameters(rabbitish_vhost))
    channel = connection.channel()
    channel.queue_declare("q")
    channel.confirm_delivery()
    yield channel
    with suppress(AMQPError):  # what a test broke
        connection.close()


def bodies(vhost: testing.Vhost, queue: str = "q") -> list[bytes]:
    return [message.body for message in vhost.queue(queue).messages]


# --- publishes --------------------------------------------------------------------------------------------------------


def test_a_publish_is_nacked_and_the_next_is_not(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    channel.basic_publish("", "q", b"before")
    rabbitish_vhost.fail_next_publish()
    with pytest.raises(NackError):
        channel.basic_publish("", "q", b"lost")
    channel.basic_publish("", "q", b"after")
    assert bodies(rabbitish_vhost) == [b"before", b"after"]


def test_several_publishes_are_nacked(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    rabbitish_vhost.fail_next_publish(times=2)
    rabbitish_vhost.fail_next_publish()
    for _ in range(3):
        with pytest.raises(NackError):
            channel.basic_publish("", "q", b"lost")
    channel.basic_publish("", "q", b"kept")
    assert bodies(rabbitish_vhost) == [b"kept"]


def test_only_publishes_that_fit_fail(
    rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    channel.exchange_declare("e", "fanout")
    channel.queue_bind("q", "e")
    rabbitish_vhost.fail_next_publish(exchange="e", routing_key="bad")
    with rabbitish_broker.fresh_vhost() as other:
        other.fail_next_publish()
    channel.basic_publish("", "q", b"1")
    channel.basic_publish("e", "good", b"2")
    with pytest.raises(NackError):
        channel.basic_publish("e", "bad", b"3")
    channel.basic_publish("e", "bad", b"4")
    assert bodies(rabbitish_vhost) == [b"1", b"2", b"4"]


def test_a_flood_that_took_the_fast_lane_is_stopped_too() -> None:
    """Messages that begin alike are not looked at one by one, unless one of them is to fail."""

    async def conversation() -> None:
        async with testing.broker() as broker, connected(broker) as client:
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await client.ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)
            await client.publish("q", b"m", times=50)
            while (await client.expect(methods.BasicAck)).delivery_tag < 50:
                pass
            assert broker.bench.node.hub.on_publish is None
            broker.fail_next_publish()
            await client.publish("q", b"m", times=3)
            assert (await client.expect(methods.BasicNack)).delivery_tag == 51
            assert (await client.expect(methods.BasicAck)).delivery_tag == 53
            assert broker.queue("q").ready == 52
            assert broker.bench.node.hub.on_publish is None
            broker.fail_next_publish()
            async with connected(broker) as late:  # for whom the routes that others found are good
                await late.ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)
                await late.publish("q", b"m")
                await late.expect(methods.BasicNack)

    converse(conversation)


def test_faults_go_with_their_virtual_host(rabbitish_broker: testing.RunningBroker) -> None:
    with rabbitish_broker.fresh_vhost() as vhost:
        vhost.fail_next_publish()
    again = rabbitish_broker.add_vhost(vhost.name)
    with pika.BlockingConnection(parameters(again)) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        channel.confirm_delivery()
        channel.basic_publish("", "q", b"m")
    assert bodies(again) == [b"m"]
    again.delete()


def test_a_publish_without_confirms_is_lost(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    rabbitish_vhost.fail_next_publish()
    silent = channel.connection.channel()
    silent.basic_publish("", "q", b"lost")
    silent.basic_publish("", "q", b"kept")
    assert bodies(rabbitish_vhost) == [b"kept"]


def test_a_transaction_fails_at_its_commit(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    transactional = channel.connection.channel()
    transactional.tx_select()
    rabbitish_vhost.fail_next_publish()
    transactional.basic_publish("", "q", b"lost")
    with pytest.raises(ChannelClosedByBroker) as caught:
        transactional.tx_commit()
    assert caught.value.reply_text == "PRECONDITION_FAILED - partial tx completion"


def test_a_channel_is_closed_for_a_publish(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    rabbitish_vhost.fail_next_publish("close-channel", reply_code=403, reply_text="not today")
    with pytest.raises(ChannelClosedByBroker) as caught:
        channel.basic_publish("", "q", b"lost")
    assert (caught.value.reply_code, caught.value.reply_text) == (403, "ACCESS_REFUSED - not today")
    assert channel.connection.is_open
    assert bodies(rabbitish_vhost) == []


@pytest.mark.parametrize(("how", "kept"), [("drop-connection", []), ("lose-confirm", [b"1", b"m"])])
def test_the_connection_breaks_at_a_publish(
    rabbitish_vhost: testing.Vhost, channel: BlockingChannel, how: How, kept: list[bytes]
) -> None:
    """Before or after the message was safe: its publisher cannot tell."""
    if kept:
        channel.basic_publish("", "q", b"1")
    rabbitish_vhost.fail_next_publish(how)
    with pytest.raises(StreamLostError):
        channel.basic_publish("", "q", b"m")
    assert bodies(rabbitish_vhost) == kept
    assert rabbitish_vhost.connections == []


def test_faults_of_the_whole_broker_and_their_end(
    rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    rabbitish_broker.fail_next_publish()
    with pytest.raises(NackError):
        channel.basic_publish("", "q", b"lost")
    rabbitish_broker.fail_next_publish()
    rabbitish_broker.restore()
    channel.basic_publish("", "q", b"kept")
    assert bodies(rabbitish_vhost) == [b"kept"]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"how": "explode"}, "how must be one of nack, close-channel, drop-connection, lose-confirm, not 'explode'"),
        ({"times": 0}, "times must be at least 1"),
        ({"how": "close-channel", "reply_code": 541}, "not with 541"),
    ],
)
def test_faults_that_cannot_be(wrong: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Fault(**wrong)  # type: ignore[arg-type]


# --- connections ------------------------------------------------------------------------------------------------------


def test_connections_break_without_a_word(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    """What a consumer had not acknowledged is back by the time that the call returns."""
    channel.basic_publish("", "q", b"m")
    assert next(channel.consume("q", inactivity_timeout=5))[2] == b"m"
    assert rabbitish_vhost.queue("q").unacked == 1
    assert rabbitish_vhost.drop_connections() == 1
    assert rabbitish_vhost.connections == []
    assert [message.redelivered for message in rabbitish_vhost.queue("q").messages] == [True]
    with pytest.raises(StreamLostError):
        channel.connection.channel()


def test_connections_are_closed_with_a_reason(rabbitish_vhost: testing.Vhost, channel: BlockingChannel) -> None:
    assert rabbitish_vhost.drop_connections("maintenance") == 1
    with pytest.raises(ConnectionClosedByBroker) as caught:
        channel.connection.process_data_events(5)
    assert (caught.value.reply_code, caught.value.reply_text) == (320, "CONNECTION_FORCED - maintenance")


def test_connections_of_other_virtual_hosts_stay(
    rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    with rabbitish_broker.fresh_vhost() as other, pika.BlockingConnection(parameters(other)) as stays:
        assert rabbitish_vhost.drop_connections() == 1
        stays.channel().queue_declare("q")
        assert [connection.vhost for connection in rabbitish_broker.connections] == [other.name]
        assert rabbitish_broker.drop_connections() == 1
        with pytest.raises(StreamLostError):
            stays.channel()


def test_connections_are_refused(
    rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    """As by a broker that is down; those that are there stay, and the port is the same afterwards."""
    for _ in range(2):
        rabbitish_broker.refuse_connections()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((rabbitish_broker.host, rabbitish_broker.port))
        with pytest.raises(AMQPConnectionError):
            pika.BlockingConnection(parameters(rabbitish_vhost))
        channel.basic_publish("", "q", b"m")
    rabbitish_broker.accept_connections()
    rabbitish_broker.accept_connections()
    with pika.BlockingConnection(parameters(rabbitish_vhost)) as connection:
        connection.channel().queue_declare("q", passive=True)


# --- connection.blocked -----------------------------------------------------------------------------------------------


def test_publishers_are_blocked_when_they_publish(
    rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    reasons: list[str] = []
    connection = channel.connection
    connection.add_on_connection_blocked_callback(lambda _, frame: reasons.append(frame.method.reason))
    connection.add_on_connection_unblocked_callback(lambda _, frame: reasons.append("go on"))
    rabbitish_broker.block("low on carrots")
    assert not rabbitish_vhost.connections[0].blocked
    channel.basic_publish("", "q", b"1")
    rabbitish_broker.wait_until(lambda: connection.process_data_events(0) or reasons)
    assert reasons == ["low on carrots"]
    assert rabbitish_vhost.connections[0].blocked
    rabbitish_broker.unblock()
    channel.basic_publish("", "q", b"2")
    rabbitish_broker.wait_until(lambda: connection.process_data_events(0) or len(reasons) == 2)
    assert reasons == ["low on carrots", "go on"]
    assert bodies(rabbitish_vhost) == [b"1", b"2"]


def test_a_publisher_gives_up_waiting(
    rabbitish_broker: testing.RunningBroker, rabbitish_vhost: testing.Vhost, channel: BlockingChannel
) -> None:
    rabbitish_broker.block()
    impatient = pika.BlockingConnection(parameters(rabbitish_vhost, blocked_connection_timeout=0.05)).channel()
    impatient.confirm_delivery()
    impatient.basic_publish("", "q", b"1")
    with pytest.raises(ConnectionBlockedTimeout):
        impatient.basic_publish("", "q", b"2")
    assert bodies(rabbitish_vhost) == [b"1"]


def test_a_block_has_a_reason(rabbitish_broker: testing.RunningBroker) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        rabbitish_broker.block("")


def test_a_real_alarm_outlives_a_block() -> None:
    """Who is held back for want of memory stays so when the test's own reason is gone."""

    async def conversation() -> None:
        capable = ("connection.blocked",)
        async with (
            testing.broker(memory_high_watermark_bytes=10_000) as broker,
            connected(broker, capabilities=capable) as client,
        ):
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            broker.block("a test")
            await client.publish("q", b"x" * 20_000)
            assert (await client.expect(methods.ConnectionBlocked)).reason == "a test"
            assert "memory alarm" in broker.log[-1]
            broker.unblock()
            assert broker.connections[0].blocked
            assert broker.queue("q").purge() == 1
            await client.expect(methods.ConnectionUnblocked)

    converse(conversation)
