"""The pure half in conversations: logging in, channels, confirms, returns, acknowledgements, and every kind of end."""

from __future__ import annotations

import pytest

from rabbitish.client import (
    AlreadySettled,
    AuthenticationFailed,
    ChannelClosed,
    ConnectionClosed,
    ConnectionLost,
    ConsumerCancelled,
    NotFound,
    Parameters,
    ProtocolError,
    PublishNacked,
    PublishReturned,
    PublishUnconfirmed,
)
from rabbitish.client.protocol.channel import ChannelState
from rabbitish.client.protocol.confirms import Publish
from rabbitish.client.protocol.delivery import ConsumerState
from rabbitish.client.protocol.heartbeat import Heartbeats
from rabbitish.wire import methods
from rabbitish.wire.frames import HEARTBEAT
from rabbitish.wire.method import Method
from rabbitish.wire.table import decode_table_body

from .peer import RAW, Broker, content


def publish(
    state: ChannelState, body: bytes = b"x", key: str = "q", *, retry: bool = False, raw: bytes = RAW
) -> Publish:
    sent = Publish("", key, True, raw, body, retry)
    state.publish(sent)
    return sent


def consume(broker: Broker, state: ChannelState, tag: str = "c", *, no_ack: bool = False) -> ConsumerState:
    consumer, started = state.consume(methods.BasicConsume(queue="q", consumer_tag=tag, no_ack=no_ack))
    broker.said()
    broker.say(methods.BasicConsumeOk(consumer_tag=tag), channel=state.number)
    assert started.done
    return consumer


def deliver(broker: Broker, *tags: int, consumer: str = "c", body: bytes = b"x") -> None:
    data = [content(1, methods.BasicDeliver(consumer_tag=consumer, delivery_tag=tag), body) for tag in tags]
    broker.protocol.receive(b"".join(data))


# --- Logging in -------------------------------------------------------------------------------------------------------


def test_the_login_and_what_both_agree_on() -> None:
    broker = Broker(Parameters(user="u", password="p", vhost="v", channel_max=5), properties={"connection_name": "n"})
    start_ok = broker.start()
    assert (start_ok.mechanism, start_ok.response) == ("PLAIN", b"\0u\0p")
    assert start_ok.client_properties["connection_name"] == "n"
    assert start_ok.client_properties["capabilities"]["publisher_confirms"] is True  # type: ignore[index,call-overload]
    broker.say(methods.ConnectionTune(channel_max=100, frame_max=8192, heartbeat=60))
    assert broker.said() == [
        methods.ConnectionTuneOk(channel_max=5, frame_max=8192, heartbeat=60),
        methods.ConnectionOpen(virtual_host="v"),
    ]
    assert not broker.protocol.opened.done
    broker.say(methods.ConnectionOpenOk())
    assert broker.protocol.opened.done
    assert broker.protocol.server_properties == {"product": "x"}


@pytest.mark.parametrize(("wish", "offer", "agreed"), [(None, 60, 60), (0, 60, 0), (7, 60, 7), (7, 0, 7), (None, 0, 0)])
def test_the_heartbeat_is_the_programs_choice(wish: int | None, offer: int, agreed: int) -> None:
    broker = Broker(Parameters(heartbeat=wish))
    (limits, _) = broker.open(heartbeat=offer)
    assert isinstance(limits, methods.ConnectionTuneOk)
    assert limits.heartbeat == broker.protocol.heartbeat == agreed


def test_no_limit_of_the_brokers_is_ours() -> None:
    broker = Broker()
    assert broker.open(frame_max=0, channel_max=0)[0] == methods.ConnectionTuneOk(2047, 131_072, 60)


def test_external_and_amqplain() -> None:
    broker = Broker(Parameters(auth_mechanisms=("EXTERNAL", "PLAIN")))
    assert (broker.start(b"EXTERNAL PLAIN").mechanism) == "EXTERNAL"
    broker = Broker(Parameters(auth_mechanisms=("EXTERNAL", "AMQPLAIN"), user="u", password="p"))
    start_ok = broker.start(b"PLAIN AMQPLAIN")
    assert start_ok.mechanism == "AMQPLAIN"
    response = start_ok.response
    assert decode_table_body(response, 0, len(response)) == {"LOGIN": "u", "PASSWORD": "p"}
    broker = Broker(Parameters(auth_mechanisms=("EXTERNAL",)))
    broker.say(methods.ConnectionStart(mechanisms=b"PLAIN"))
    assert isinstance(broker.protocol.error, AuthenticationFailed)
    assert "EXTERNAL" in str(broker.protocol.error)


@pytest.mark.parametrize("in_words", [True, False])
def test_a_refused_login(in_words: bool) -> None:
    broker = Broker()
    broker.start()
    if in_words:
        broker.say(methods.ConnectionClose(reply_code=403, reply_text="ACCESS_REFUSED"))
        assert broker.said() == [methods.ConnectionCloseOk()]
    else:
        broker.protocol.receive_eof()
    with pytest.raises(AuthenticationFailed if in_words else ConnectionLost):
        broker.protocol.opened.result()


def test_a_virtual_host_that_is_not_for_us() -> None:
    broker = Broker()
    broker.start()
    broker.say(methods.ConnectionTune())
    broker.say(methods.ConnectionClose(reply_code=530, reply_text="NOT_ALLOWED"))
    assert isinstance(broker.protocol.error, AuthenticationFailed)
    assert broker.protocol.error.code == 530


def test_another_answer_than_is_due() -> None:
    broker = Broker()
    broker.say(methods.ConnectionTune())
    assert isinstance(broker.protocol.error, ProtocolError)
    assert "connection.tune" in str(broker.protocol.error)
    broker = Broker()
    broker.start()
    broker.say(methods.ConnectionTune())
    broker.say(methods.ConnectionClose(reply_code=541, reply_text="INTERNAL_ERROR"))
    assert isinstance(broker.protocol.error, ConnectionClosed)
    assert not isinstance(broker.protocol.error, AuthenticationFailed)


def test_something_else_than_amqp_answers() -> None:
    broker = Broker()
    broker.protocol.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert isinstance(broker.protocol.error, ProtocolError)
    assert isinstance(broker.said()[0], methods.ConnectionClose)
    broker.protocol.receive(b"more")


def test_a_close_before_it_is_open_says_nothing() -> None:
    broker = Broker()
    assert broker.protocol.close().done
    assert broker.protocol.take() == b""


# --- Channels ---------------------------------------------------------------------------------------------------------


def test_answers_are_for_the_requests_in_their_order() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    one = state.request(methods.QueueDeclare(queue="1"), methods.QueueDeclareOk)
    two = state.request(methods.QueueDeclare(queue="2"), methods.QueueDeclareOk)
    three = state.request(methods.QueuePurge(queue="2"), methods.QueuePurgeOk)
    broker.say(methods.QueueDeclareOk(queue="1"), methods.QueueDeclareOk(queue="2"), channel=1)
    assert (one.result().queue, two.result().queue, three.done) == ("1", "2", False)
    broker.say(methods.QueueDeclareOk(), channel=1)
    assert isinstance(broker.protocol.error, ProtocolError)
    with pytest.raises(ProtocolError):
        three.result()


def test_queues_answer_for_their_consumers_at_any_time() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    consumer, started = state.consume(methods.BasicConsume(consumer_tag="c"))
    cancelled = state.cancel(consumer)
    purged = state.request(methods.QueuePurge(queue="q"), methods.QueuePurgeOk)
    broker.say(methods.QueuePurgeOk(), methods.BasicConsumeOk(consumer_tag="c"), channel=1)
    assert (started.done, cancelled.done, purged.done) == (True, False, True)
    broker.say(methods.BasicCancelOk(consumer_tag="c"), channel=1)
    assert cancelled.done
    _, never = state.consume(methods.BasicConsume(consumer_tag="d"))
    broker.protocol.receive_eof()
    assert isinstance(never.error, ConnectionLost)


@pytest.mark.parametrize(
    "unasked",
    [
        methods.QueuePurgeOk(),
        methods.BasicCancelOk(consumer_tag="c"),
        methods.BasicAck(delivery_tag=1),
        methods.BasicGetEmpty(),
        methods.ChannelCloseOk(),
    ],
)
def test_what_was_not_asked_for_ends_the_connection(unasked: Method) -> None:
    broker = Broker()
    broker.open()
    broker.channel()
    broker.say(unasked, channel=1)
    assert isinstance(broker.protocol.error, ProtocolError)
    close = broker.said()[-1]
    assert isinstance(close, methods.ConnectionClose)
    assert close.reply_code == 505


@pytest.mark.parametrize(
    "data",
    [
        methods.QueueDeclareOk().frame(7),
        methods.BasicDeliver(consumer_tag="c").frame(1) + methods.BasicDeliver().frame(1),
        content(1, methods.BasicDeliver(consumer_tag="c"), b"x")[:-9] + b"\x03\x00\x01\x00\x00\x00\x02xx\xce",
        content(1, methods.BasicDeliver(consumer_tag="other"), b"x"),
        content(1, methods.BasicGetOk(), b"x")[len(methods.BasicGetOk().frame(1)) :],
        content(0, methods.BasicDeliver(), b"x")[len(methods.BasicDeliver().frame(0)) :],
        methods.ChannelOpenOk().frame(0),
        b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x3c\x00",
    ],
)
def test_what_makes_no_sense_ends_the_connection(data: bytes) -> None:
    broker = Broker()
    broker.open()
    consume(broker, broker.channel())
    broker.protocol.receive(data)
    assert isinstance(broker.protocol.error, ProtocolError)


def test_a_channel_that_the_broker_closes_tells_everybody() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel(confirms=True)
    consumer = consume(broker, state)
    deliver(broker, 1)
    asked = state.request(methods.QueuePurge(queue="q"), methods.QueuePurgeOk)
    got = state.get(methods.BasicGet(queue="q"))
    sent = publish(state, retry=True)
    broker.said()
    broker.say(methods.ChannelClose(reply_code=404, reply_text="NOT_FOUND - no"), channel=1)
    assert broker.said() == [methods.ChannelCloseOk()]
    for promise in (asked, got, sent):
        with pytest.raises(NotFound, match="404 NOT_FOUND - no"):
            promise.result()
    assert isinstance(consumer.error, NotFound)
    assert not consumer.buffer  # it comes again
    assert broker.protocol.error is None
    with pytest.raises(NotFound):
        state.request(methods.QueuePurge(), methods.QueuePurgeOk).result()
    assert broker.protocol.channel().number == 1


def test_a_channel_that_the_program_closes_has_a_number_until_the_broker_agrees() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    consumer = consume(broker, state)
    closed = state.close()
    assert state.close() is closed
    assert [type(method) for method in broker.said()] == [methods.ChannelClose]
    assert isinstance(consumer.error, ChannelClosed)
    deliver(broker, 1)  # was on its way
    assert broker.protocol.channel().number == 2
    assert not closed.done
    broker.say(methods.ChannelCloseOk(), channel=1)
    assert closed.done
    assert broker.protocol.channel().number == 1


def test_both_close_a_channel_at_the_same_time() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    closed = state.close()
    broker.say(methods.ChannelClose(reply_code=406, reply_text="x"), channel=1)
    assert closed.done
    assert isinstance(broker.said()[-1], methods.ChannelCloseOk)


def test_all_channels_are_in_use() -> None:
    broker = Broker()
    broker.open(channel_max=2)
    broker.channel()
    broker.channel()
    with pytest.raises(ConnectionClosed, match="2 channels"):
        broker.protocol.channel()


def test_flow_and_blocked() -> None:
    broker = Broker()
    broker.open()
    changes: list[None] = []
    broker.protocol.on_change = lambda: changes.append(None)
    state = broker.channel()
    broker.say(methods.ChannelFlow(active=False), channel=1)
    assert (state.flow, broker.said()) == (False, [methods.ChannelFlowOk(active=False)])
    broker.say(methods.ConnectionBlocked(reason="low on memory"))
    assert broker.protocol.blocked == "low on memory"
    broker.say(methods.ConnectionUnblocked())
    assert broker.protocol.blocked is None
    assert len(changes) == 3


def test_a_fresh_secret() -> None:
    broker = Broker()
    broker.open()
    promise = broker.protocol.update_secret("s", "r")
    assert broker.said() == [methods.ConnectionUpdateSecret(new_secret=b"s", reason="r")]
    broker.say(methods.ConnectionUpdateSecretOk())
    assert promise.done
    unanswered = broker.protocol.update_secret("s", "r")
    broker.protocol.receive_eof()
    with pytest.raises(ConnectionLost):
        unanswered.result()
    with pytest.raises(ConnectionLost):
        broker.protocol.update_secret("s", "r").result()


# --- Publishing -------------------------------------------------------------------------------------------------------


def test_confirms_for_one_and_for_many_in_any_order() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel(confirms=True)
    sent = [publish(state) for _ in range(6)]
    broker.say(methods.BasicAck(delivery_tag=3), channel=1)
    assert [each.done for each in sent] == [False, False, True, False, False, False]
    broker.say(methods.BasicAck(delivery_tag=2, multiple=True), methods.BasicAck(delivery_tag=2), channel=1)
    assert [each.done for each in sent] == [True, True, True, False, False, False]
    broker.say(methods.BasicNack(delivery_tag=4), channel=1)
    with pytest.raises(PublishNacked):
        sent[3].result()
    broker.say(methods.BasicAck(delivery_tag=0, multiple=True), methods.BasicAck(delivery_tag=99), channel=1)
    assert all(each.done for each in sent)
    assert not state.confirms.unconfirmed  # type: ignore[union-attr]


def test_without_confirms_a_publish_is_done_when_it_is_written() -> None:
    broker = Broker()
    broker.open()
    assert publish(broker.channel()).done


def test_a_returned_message_fails_the_publish_that_is_alike() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel(confirms=True)
    other = b"\x08\x00\x01\x31"
    sent = [publish(state, b"1"), publish(state, b"2"), publish(state, b"2", raw=other), publish(state, b"2")]
    returned = methods.BasicReturn(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="q")
    broker.protocol.receive(content(1, returned, b"2", other))
    assert [each.returned is not None for each in sent] == [False, False, True, False]
    broker.protocol.receive(content(1, returned, b"2", other))  # as if the broker had changed its properties
    broker.say(methods.BasicAck(delivery_tag=4, multiple=True), channel=1)
    assert [isinstance(each.error, PublishReturned) for each in sent] == [False, True, True, False]
    seen = []
    state.on_return = lambda error, delivery: seen.append((error.routing_key, delivery.body))
    broker.protocol.receive(content(1, returned, b"nobody's"))
    assert seen == [("q", b"nobody's")]


def test_a_lost_connection_keeps_what_is_to_be_tried_again() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel(confirms=True)
    again, not_again = publish(state, retry=True), publish(state)
    broker.protocol.receive_eof()
    assert state.orphans == [again]
    assert not again.done
    with pytest.raises(PublishUnconfirmed) as unconfirmed:
        not_again.result()
    assert isinstance(unconfirmed.value.__cause__, ConnectionLost)
    late = publish(state)
    assert isinstance(late.error, ConnectionLost)


@pytest.mark.parametrize(("size", "frames"), [(0, 2), (1, 3), (4088, 3), (4089, 4), (10_000, 5)])
def test_a_body_is_cut_to_the_frames_that_were_agreed_on(size: int, frames: int) -> None:
    broker = Broker()
    broker.open(frame_max=4096)
    state = broker.channel(confirms=True)
    for _ in range(2):  # the second finds the beginning of the first
        publish(state, bytes(size))
        said = broker.frames()
        assert len(said) == frames
        assert sum(len(payload) for kind, _, payload in said if kind == 3) == size
        assert max(len(payload) for _, _, payload in said) <= 4088
    with pytest.raises(ValueError, match="does not fit"):
        publish(state, raw=bytes(5000))


# --- Deliveries -------------------------------------------------------------------------------------------------------


def acknowledge(tags: list[int], of: int) -> list[Method]:
    """What is written when these of so many deliveries are acknowledged at once."""
    broker = Broker()
    broker.open()
    state = broker.channel()
    consumer = consume(broker, state)
    deliver(broker, *range(1, of + 1))
    for tag in tags:
        consumer.buffer[tag - 1].ack()
    return broker.said()


def test_acknowledgements_of_one_moment_are_one_if_they_can_be() -> None:
    ack = methods.BasicAck
    assert acknowledge([1], 2) == [ack(1, False)]
    assert acknowledge([2], 2) == [ack(2, False)]
    assert acknowledge([3, 1, 2], 4) == [ack(3, True)]
    assert acknowledge([1, 2, 3, 4], 4) == [ack(4, True)]
    assert acknowledge([1, 2, 4, 6], 6) == [ack(2, True), ack(4, False), ack(6, False)]
    assert acknowledge([2, 3], 3) == [ack(2, False), ack(3, False)]


def test_acknowledgements_come_before_what_may_depend_on_them() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    consumer = consume(broker, state)
    deliver(broker, 1, 2, 3)
    one, two, three = consumer.buffer
    one.ack()
    two.reject(requeue=True)
    three.ack()
    state.close()
    assert [type(method).__name__ for method in broker.said()] == [
        "BasicAck",
        "BasicReject",
        "BasicAck",
        "ChannelClose",
    ]


def test_acknowledgements_come_before_a_goodbye() -> None:
    broker = Broker()
    broker.open()
    consumer = consume(broker, broker.channel())
    deliver(broker, 1)
    consumer.buffer[0].ack()
    broker.protocol.close()
    assert [type(method).__name__ for method in broker.said()] == ["BasicAck", "ConnectionClose"]


def test_the_rest_is_given_back_when_a_consumer_ends() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    consumer = consume(broker, state)
    deliver(broker, 1, 2)
    taken = consumer.buffer.popleft()
    cancelled = state.cancel(consumer)
    deliver(broker, 3)  # was on its way
    broker.say(methods.BasicCancelOk(consumer_tag="c"), channel=1)
    assert cancelled.done
    taken.ack()
    assert broker.said() == [
        methods.BasicCancel(consumer_tag="c"),
        methods.BasicReject(delivery_tag=2, requeue=True),
        methods.BasicReject(delivery_tag=3, requeue=True),
        methods.BasicAck(delivery_tag=1),
    ]


def test_a_consumer_that_the_broker_ends_keeps_what_it_has() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    consumer = consume(broker, state)
    deliver(broker, 1)
    broker.say(methods.BasicCancel(consumer_tag="c"), methods.BasicCancel(consumer_tag="?", nowait=True), channel=1)
    assert broker.said() == [methods.BasicCancelOk(consumer_tag="c")]
    assert isinstance(consumer.error, ConsumerCancelled)
    consumer.buffer[0].ack()
    assert broker.said() == [methods.BasicAck(delivery_tag=1)]


def test_messages_that_need_no_acknowledgement() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    consumer = consume(broker, state, no_ack=True)
    deliver(broker, 1)
    message = consumer.buffer[0]
    assert message.settled
    message.ack()
    message.reject()
    message.nack(multiple=True)
    assert broker.said() == []


def test_settling_twice_and_too_late() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    consumer = consume(broker, state)
    deliver(broker, 1, 2)
    one, two = consumer.buffer
    one.reject()
    for settle in (one.ack, one.reject, one.nack):
        with pytest.raises(AlreadySettled):
            settle()
    broker.protocol.receive_eof()
    assert two.stale
    two.ack()
    two.nack(multiple=True)


def test_get() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel()
    empty, full, no_ack = (state.get(methods.BasicGet(queue="q", no_ack=each)) for each in (False, False, True))
    broker.say(methods.BasicGetEmpty(), channel=1)
    assert empty.result() is None
    for tag in (1, 2):
        got = methods.BasicGetOk(delivery_tag=tag, routing_key="q", message_count=3)
        broker.protocol.receive(content(1, got, b"x" * 10_000, frame_max=4096))
    message = full.result()
    assert message
    assert (message.body, message.message_count, message.routing_key) == (b"x" * 10_000, 3, "q")
    assert not message.settled
    assert no_ack.result().settled  # type: ignore[union-attr]


# --- The end ----------------------------------------------------------------------------------------------------------


def test_both_say_goodbye() -> None:
    broker = Broker()
    broker.open()
    state = broker.channel(confirms=True)
    closed = broker.protocol.close()
    broker.protocol.close()
    assert broker.said() == [methods.ConnectionClose(reply_code=200, reply_text="bye")]
    broker.say(methods.QueueDeclareOk(), channel=1)
    assert not closed.done
    broker.say(methods.ConnectionCloseOk())
    assert closed.done
    assert isinstance(state.error, ConnectionClosed)


def test_the_broker_goes_away() -> None:
    broker = Broker()
    broker.open()
    broker.say(methods.ConnectionClose(reply_code=320, reply_text="CONNECTION_FORCED - shutdown"))
    assert broker.said() == [methods.ConnectionCloseOk()]
    assert isinstance(broker.protocol.error, ConnectionLost)
    with pytest.raises(ConnectionLost, match="320 CONNECTION_FORCED"):
        broker.protocol.channel()


def test_an_error_of_ours_is_no_lost_connection() -> None:
    broker = Broker()
    broker.open()
    broker.say(methods.ConnectionClose(reply_code=503, reply_text="COMMAND_INVALID"))
    assert type(broker.protocol.error) is ConnectionClosed


def test_heartbeats() -> None:
    broker = Broker()
    broker.open()
    broker.protocol.beat()
    assert broker.protocol.take() == HEARTBEAT
    broker.protocol.receive(HEARTBEAT)
    assert broker.protocol.error is None
    beats = Heartbeats(10, 100.0)
    assert (beats.due(104.9), beats.silent(104.9), beats.next()) == (False, False, 105)
    assert (beats.due(105), beats.silent(119.9), beats.silent(120)) == (True, False, True)
    beats.sent = beats.received = 118
    assert (beats.due(120), beats.silent(137), beats.next()) == (False, False, 123)
