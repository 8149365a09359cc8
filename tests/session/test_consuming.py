"""Consumers: tags, whose turn it is, exclusive use, priorities, and how they end."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from rabbitish.wire.method import Method

from .client import Client
from .harness import World

CANCEL = methods.BasicCancel(consumer_tag="t")
IN_USE = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"


@pytest.fixture
def q(client: Client) -> Client:
    """A client with a queue q."""
    client.declare("q")
    return client


def consume(tag: str = "t", **how: object) -> methods.BasicConsume:
    return methods.BasicConsume(queue="q", consumer_tag=tag, **how)  # type: ignore[arg-type]


def by_tag(client: Client) -> dict[str, list[bytes]]:
    got: dict[str, list[bytes]] = {}
    for tag, _, body in client.deliveries():
        got.setdefault(tag, []).append(body)
    return got


# --- deliveries ------------------------------------------------------------------------------------------------------


def test_a_delivery(q: Client) -> None:
    q.consume("q", "my tag")
    q.publish("q", b"body", headers={"a": 1}, delivery_mode=2)
    (said,) = q.answers()
    assert said.method == methods.BasicDeliver(
        consumer_tag="my tag", delivery_tag=1, redelivered=False, exchange="", routing_key="q"
    )
    assert (said.body, said.props.headers, said.props.delivery_mode) == (b"body", {"a": 1}, 2)


def test_what_was_there_before_comes_first(q: Client) -> None:
    q.publish("q", b"1", b"2")
    q.consume("q")
    q.publish("q", b"3")
    assert q.deliveries() == [("t", 1, b"1"), ("t", 2, b"2"), ("t", 3, b"3")]


def test_messages_of_many_addresses(q: Client) -> None:
    """The fixed part of a delivery depends on the length of exchange and routing key."""
    q.send(methods.QueueBind(queue="q", exchange="amq.topic", routing_key="#"))
    q.expect(methods.QueueBindOk())
    q.consume("q")
    keys = ["", "a", "bb", "c" * 255, "a", "bb"]
    for key in keys:
        q.publish(key, b"x", exchange="amq.topic")
    got = [said.method for said in q.answers()]
    assert [(one.exchange, one.routing_key) for one in got] == [("amq.topic", key) for key in keys]  # type: ignore[union-attr]


def test_tags_count_for_the_channel(world: World) -> None:
    client = world.client(1, 2)
    client.declare("q")
    client.consume("q", "a", channel=1)
    client.consume("q", "b", channel=2)
    client.consume("q", "c", channel=1)
    client.publish("q", *[b"x"] * 6)
    got = [(said.channel, said.method.consumer_tag, said.method.delivery_tag) for said in client.answers()]  # type: ignore[union-attr]
    assert got == [(1, "a", 1), (2, "b", 1), (1, "c", 2), (1, "a", 3), (2, "b", 2), (1, "c", 4)]


def test_no_ack(q: Client) -> None:
    q.consume("q", no_ack=True)
    q.publish("q", b"x")
    assert q.bodies() == [b"x"]
    assert (q.world.queue("q").ready, q.world.queue("q").unacked) == (0, 0)
    q.send(methods.BasicAck(delivery_tag=1))
    q.expect_channel_close(406, "PRECONDITION_FAILED - unknown delivery tag 1", methods.BasicAck)


def test_turns_go_round(q: Client) -> None:
    for tag in "abc":
        q.consume("q", tag, no_ack=True)
    q.publish("q", *[str(number).encode() for number in range(7)])
    assert by_tag(q) == {"a": [b"0", b"3", b"6"], "b": [b"1", b"4"], "c": [b"2", b"5"]}


def test_turns_go_on_where_they_stopped(q: Client) -> None:
    for tag in "ab":
        q.consume("q", tag, no_ack=True)
    tags = []
    for _ in range(6):
        q.publish("q", b"x")
        tags += [tag for tag, _, _ in q.deliveries()]
    assert tags == ["a", "b"] * 3


def test_priorities(q: Client) -> None:
    q.send(methods.BasicQos(prefetch_count=2))
    q.expect(methods.BasicQosOk())
    q.consume("q", "low", arguments={"x-priority": -1})
    q.consume("q", "high", arguments={"x-priority": 10})
    q.consume("q", "plain")
    q.publish("q", *[str(number).encode() for number in range(5)])
    assert by_tag(q) == {"high": [b"0", b"1"], "plain": [b"2", b"3"], "low": [b"4"]}


def test_single_active_consumer(world: World, client: Client, other: Client) -> None:
    client.declare("q", arguments={"x-single-active-consumer": True})
    client.consume("q", "first")
    other.consume("q", "second")
    client.publish("q", b"1", b"2")
    assert client.bodies() == [b"1", b"2"] and other.answers() == []
    client.hang_up()
    assert other.bodies() == [b"1", b"2"]


# --- starting --------------------------------------------------------------------------------------------------------


def test_a_tag_from_the_broker(q: Client) -> None:
    answer = q.ask(consume(""))
    assert isinstance(answer, methods.BasicConsumeOk)
    assert answer.consumer_tag.startswith("amq.ctag-") and len(answer.consumer_tag) == 31
    assert q.ask(consume("")) != answer


def test_a_tag_may_be_long_and_odd(q: Client) -> None:
    tag = "é" * 127
    q.consume("q", tag)
    q.publish("q", b"x")
    assert q.deliveries() == [(tag, 1, b"x")]


def test_a_tag_is_used_once_a_channel(world: World) -> None:
    client = world.client(1, 2)
    client.declare("q")
    client.consume("q", "t", channel=1)
    client.consume("q", "t", channel=2)
    client.send(consume("t"), channel=2)
    text = "NOT_ALLOWED - attempt to reuse consumer tag 't'"
    client.expect_connection_close(530, text, methods.BasicConsume)


def test_the_queue_last_declared(q: Client) -> None:
    q.consume("")
    q.publish("q", b"x")
    assert q.bodies() == [b"x"]


def test_nothing_last_declared(client: Client) -> None:
    client.send(methods.BasicConsume())
    client.expect_channel_close(404, "NOT_FOUND - no previously declared queue", methods.BasicConsume)


def test_without_an_answer(q: Client) -> None:
    q.send(consume(nowait=True))
    q.publish("q", b"x")
    assert q.deliveries() == [("t", 1, b"x")]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"x-priority": "high"},
            "invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"",
        ),
        (
            {"x-consumer-timeout": -1},
            "invalid arg 'x-consumer-timeout' for queue 'q' in vhost '/': {value_negative,-1}",
        ),
    ],
)
def test_arguments_are_checked(q: Client, arguments: dict[str, object], text: str) -> None:
    q.send(consume(arguments=arguments))
    q.expect_channel_close(406, f"PRECONDITION_FAILED - {text}", methods.BasicConsume)
    assert len(q.world.queue("q").consumers) == 0


# --- exclusive use ---------------------------------------------------------------------------------------------------


def test_exclusive_use(q: Client, other: Client) -> None:
    q.consume("q", exclusive=True)
    for method in (consume("other"), consume("other", exclusive=True)):
        other.send(method)
        other.expect_channel_close(403, IN_USE, methods.BasicConsume)
        other.open()
    assert q.ask(CANCEL) == methods.BasicCancelOk(consumer_tag="t")
    other.consume("q")


def test_exclusive_use_of_what_is_in_use(q: Client, other: Client) -> None:
    q.consume("q")
    other.send(consume(exclusive=True))
    other.expect_channel_close(403, IN_USE, methods.BasicConsume)


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_cancel(q: Client) -> None:
    q.consume("q")
    q.send(CANCEL)
    q.publish("q", b"x")
    q.expect(methods.BasicCancelOk(consumer_tag="t"))
    assert q.world.queue("q").ready == 1
    q.consume("q")
    assert q.bodies() == [b"x"]


def test_cancel_without_an_answer(q: Client) -> None:
    q.consume("q")
    q.send(methods.BasicCancel(consumer_tag="t", nowait=True))
    q.publish("q", b"x")
    assert q.answers() == []


@pytest.mark.parametrize("nowait", [False, True])
def test_cancel_of_nothing(q: Client, nowait: bool) -> None:
    q.send(methods.BasicCancel(consumer_tag="who", nowait=nowait))
    q.expect(*[] if nowait else [methods.BasicCancelOk(consumer_tag="who")])


def test_what_a_cancelled_consumer_held_stays_with_the_channel(q: Client) -> None:
    q.consume("q")
    q.publish("q", b"1", b"2")
    assert q.bodies() == [b"1", b"2"]
    assert q.ask(CANCEL) == methods.BasicCancelOk(consumer_tag="t")
    q.send(methods.BasicAck(delivery_tag=1), methods.BasicReject(delivery_tag=2))
    assert q.drain("q") == [b"2"]


def test_an_auto_delete_queue_goes_with_its_last_consumer(world: World) -> None:
    client = world.client(1, 2)
    client.declare("q", auto_delete=True)
    client.consume("q", "a", channel=1)
    client.consume("q", "b", channel=2)
    client.send(methods.ChannelClose(), channel=2)
    assert len(client.answers()) == 1 and "q" in world.vhost.queues
    assert client.ask(methods.BasicCancel(consumer_tag="a")) == methods.BasicCancelOk(consumer_tag="a")
    assert world.vhost.queues == {}


def test_a_consumer_that_is_gone_in_the_same_read(q: Client, other: Client) -> None:
    other.consume("q")
    other.raw(consume("again").frame(1) + CANCEL.frame(1) + methods.BasicCancel(consumer_tag="again").frame(1))
    q.publish("q", b"x")
    names = [said.method.name for said in other.answers() if said.method]
    assert names == ["basic.consume-ok", "basic.cancel-ok", "basic.cancel-ok"]
    assert q.drain("q") == [b"x"]


# --- queues that go --------------------------------------------------------------------------------------------------


def test_the_queue_is_deleted(q: Client, other: Client) -> None:
    q.consume("q", "mine")
    other.consume("q", "theirs")
    q.publish("q", b"1", b"2")
    assert (len(q.answers()), len(other.answers())) == (1, 1)
    q.send(methods.QueueDelete(queue="q"))
    q.expect(methods.QueueDeleteOk(), methods.BasicCancel(consumer_tag="mine", nowait=True))
    other.expect(methods.BasicCancel(consumer_tag="theirs", nowait=True))
    q.send(methods.BasicAck(delivery_tag=1))
    other.send(methods.BasicReject(delivery_tag=1, requeue=True))
    assert (q.answers(), other.answers()) == ([], [])
    q.declare("q")
    q.consume("q", "mine")


def test_the_queue_expires(q: Client) -> None:
    q.declare("short", auto_delete=False, arguments={"x-expires": 1000})
    q.consume("short")
    q.world.advance(5000)
    assert q.ask(CANCEL) == methods.BasicCancelOk(consumer_tag="t")
    q.world.advance(999)
    assert "short" in q.world.vhost.queues
    q.world.advance(1)
    assert "short" not in q.world.vhost.queues


@pytest.mark.parametrize("capabilities", [{}, {"consumer_cancel_notify": False}, {"consumer_cancel_notify": 1}])
def test_who_does_not_know_of_it_is_not_told(world: World, client: Client, capabilities: dict[str, object]) -> None:
    old = world.client(capabilities=capabilities)
    client.declare("q")
    old.consume("q")
    assert client.ask(methods.QueueDelete(queue="q")) == methods.QueueDeleteOk()
    assert old.answers() == []
    assert old.ask(CANCEL) == methods.BasicCancelOk(consumer_tag="t")
    client.declare("q")
    old.consume("q", "t")


def test_nobody_is_told_on_a_channel_that_is_closing(q: Client, other: Client) -> None:
    other.consume("q")
    other.send(methods.BasicGet(queue="nosuch"))
    assert len(other.answers()) == 1
    assert q.ask(methods.QueueDelete(queue="q")) == methods.QueueDeleteOk()
    assert other.answers() == []


@pytest.mark.parametrize("end", [CANCEL, methods.ChannelClose(), methods.BasicGet(queue="nosuch")])
def test_a_queue_and_its_consumer_that_end_in_one_read(q: Client, end: Method) -> None:
    q.consume("q")
    q.send(methods.QueueDelete(queue="q", nowait=True), end)
    names = [said.method.name for said in q.answers() if said.method]
    assert names == [
        {"basic.cancel": "basic.cancel-ok", "channel.close": "channel.close-ok"}.get(end.name, "channel.close")
    ]


def test_a_tag_may_be_used_again_after_the_queue_went(q: Client) -> None:
    q.consume("q")
    q.declare("p")
    q.send(methods.QueueDelete(queue="q", nowait=True), CANCEL, methods.BasicConsume(queue="p", consumer_tag="t"))
    q.expect(methods.BasicCancelOk(consumer_tag="t"), methods.BasicConsumeOk(consumer_tag="t"))
    q.publish("p", b"x")
    assert q.deliveries() == [("t", 1, b"x")]
