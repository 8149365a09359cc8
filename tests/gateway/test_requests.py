"""Requests that a leader did not answer, and what it had in its memory alone."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from tests.session.client import publication
from tests.session.harness import World

from .carried import carried, confirming, deliveries, drained, successor

REQUESTS = [
    (methods.QueueDeclare(queue="new", durable=True), methods.QueueDeclareOk(queue="new")),
    (methods.QueuePurge(queue="q"), methods.QueuePurgeOk(message_count=1)),
    (methods.QueueBind(queue="q", exchange="amq.topic", routing_key="#"), methods.QueueBindOk()),
    (methods.ExchangeDeclare(exchange="e", durable=True), methods.ExchangeDeclareOk()),
    (methods.BasicQos(prefetch_count=3), methods.BasicQosOk()),
    (methods.BasicConsume(queue="r", consumer_tag="c"), methods.BasicConsumeOk(consumer_tag="c")),
    (methods.BasicCancel(consumer_tag="none"), methods.BasicCancelOk(consumer_tag="none")),
    (methods.BasicGet(queue="r"), methods.BasicGetEmpty()),
    (methods.ConfirmSelect(), methods.ConfirmSelectOk()),
    (methods.ChannelFlow(active=True), methods.ChannelFlowOk(active=True)),
    (methods.BasicRecover(requeue=True), methods.BasicRecoverOk()),
    (methods.ChannelClose(), methods.ChannelCloseOk()),
    (methods.QueueDelete(queue="r"), methods.QueueDeleteOk()),
]


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize(("request_", "answer"), REQUESTS, ids=lambda value: type(value).__name__)
def test_a_request_without_an_answer_is_answered_by_the_next_leader(
    request_: methods.Method, answer: methods.Method, heard: bool
) -> None:
    world = World()
    client = confirming(world)
    client.declare("r", durable=True)
    client.publish("q", b"1")
    client.answers()
    client.slow = True
    client.send(request_)
    if heard and type(request_) is not methods.QueuePurge:
        client.up(10_000)
        world.settle()
    client.slow = False
    client.move(successor(world))
    client.expect(answer)


def test_a_channel_that_is_being_opened() -> None:
    world = World()
    client = carried(world)
    client.slow = True
    client.raw(methods.ChannelOpen().frame(2) + methods.ConfirmSelect().frame(2) + publication("q", b"1", channel=2))
    client.slow = False
    client.move(successor(world))
    client.expect(methods.ChannelOpenOk(), methods.ConfirmSelectOk(), methods.BasicAck(delivery_tag=1), channel=2)


def test_publishes_and_requests_are_sent_again_in_their_order() -> None:
    world = World()
    client = confirming(world)
    client.slow = True
    client.publish("q", b"1")
    client.send(methods.QueueDeclare(queue="later", durable=True))
    client.publish("later", b"2")
    client.send(methods.QueuePurge(queue="q"))
    client.publish("q", b"3")
    client.slow = False
    client.move(successor(world))
    assert drained(client.world, "q") == [b"3"]
    assert drained(client.world, "later") == [b"2"]


def test_a_name_that_stands_for_the_last_queue() -> None:
    world = World()
    client = carried(world)
    client.declare("q", durable=True)
    client.move(successor(world))
    client.send(methods.QueueBind(exchange="amq.direct"))
    client.expect(methods.QueueBindOk())
    client.publish("q", b"1", exchange="amq.direct")
    got = client.get("")
    assert got is not None and got.body == b"1"
    client.slow = True
    client.send(methods.QueueDeclare(queue="r", durable=True), methods.QueueBind(exchange="amq.direct"))
    client.up(10_000)
    client.world.settle()
    client.down(len(methods.QueueDeclareOk(queue="r").frame(1)))
    client.slow = False
    client.move(successor(client.world))
    client.expect(methods.QueueDeclareOk(queue="r"), methods.QueueBindOk())
    client.publish("r", b"2", exchange="amq.direct")
    assert drained(client.world, "r") == [b"2"]


def test_what_was_asked_without_wanting_an_answer() -> None:
    world = World()
    client = carried(world)
    client.slow = True
    client.send(methods.QueueDeclare(queue="q", durable=True, nowait=True))
    client.slow = False
    client.move(successor(world))
    assert client.answers() == []
    assert "q" in client.world.vhost.queues
    client.world.vhost.drop_queue(client.world.queue("q"))
    client.move(successor(client.world))
    assert "q" not in client.world.vhost.queues  # it had been heard


def test_exclusive_queues_and_their_bindings_are_declared_again() -> None:
    world = World()
    client = carried(world)
    name = client.declare("", exclusive=True)
    client.ask(methods.QueueBind(exchange="amq.topic", routing_key="a.*"))
    client.ask(methods.QueueBind(exchange="amq.topic", routing_key="b"))
    client.ask(methods.QueueUnbind(queue=name, exchange="amq.topic", routing_key="b"))
    client.consume(name, "t")
    for _ in range(2):
        client.move(successor(client.world))
        client.publish("a.b", b"1", exchange="amq.topic")
        client.publish("b", b"2", exchange="amq.topic")
        assert [body for _, _, body in deliveries(client)] == [b"1"]
    client.send(methods.QueueDelete(queue=name))
    client.answers()
    client.move(successor(client.world))
    assert not client.world.vhost.queues


def test_nobody_else_may_use_a_reserved_name() -> None:
    world = World()
    client = carried(world)
    name = client.declare("", exclusive=True)
    client.move(successor(world))
    stranger = client.world.client()
    stranger.send(methods.QueueDeclare(queue=f"{name}x"))
    text = f"ACCESS_REFUSED - queue name '{name}x' contains reserved prefix 'amq.*'"
    stranger.expect_channel_close(403, text, methods.QueueDeclare)
    client.send(methods.QueueDeclare(queue=f"{name}x"))
    client.expect_channel_close(403, text, methods.QueueDeclare)


def test_what_cannot_be_declared_again_is_left_out() -> None:
    world = World()
    world.client().ask(methods.ExchangeDeclare(exchange="theirs"))
    client = carried(world)
    client.ask(methods.ExchangeDeclare(exchange="mine"))
    client.declare("a", exclusive=True)
    for exchange in ("theirs", "mine", "amq.fanout"):
        client.ask(methods.QueueBind(queue="a", exchange=exchange, routing_key="k"))
    client.consume("a", "t")
    client.move(successor(world))
    assert client.answers() == []
    client.publish("k", b"1", exchange="mine")
    client.publish("k", b"2", exchange="amq.fanout")
    assert [body for _, _, body in deliveries(client)] == [b"1", b"2"]


def test_a_queue_that_went_with_its_last_consumer_does_not_come_back() -> None:
    world = World()
    client = carried(world)
    client.declare("a", auto_delete=True)
    client.consume("a", "t")
    client.ask(methods.BasicCancel(consumer_tag="t"))
    client.move(successor(world))
    assert not client.world.vhost.queues


def test_answers_to_requests_come_back_at_the_next_leader() -> None:
    world = World()
    client = carried(world)
    client.consume("amq.rabbitmq.reply-to", "replies", no_ack=True)
    client.declare("service", durable=True)
    for _ in range(2):
        client.move(successor(client.world))
        client.publish("service", b"?", reply_to="amq.rabbitmq.reply-to")
        got = client.get("service")
        assert got is not None and got.props.reply_to is not None
        client.publish(got.props.reply_to, b"!")
        assert [(tag, body) for tag, _, body in deliveries(client)] == [("replies", b"!")]


def test_an_empty_name_behind_a_declare_means_what_that_declares() -> None:
    client = carried(World())
    client.declare("q", durable=True)
    client.move(successor(client.world))
    client.send(methods.QueueDeclare(queue="r", durable=True), methods.QueueBind(exchange="amq.direct"))
    client.answers()
    client.publish("r", b"1", exchange="amq.direct")
    assert drained(client.world, "r") == [b"1"]


def test_more_than_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitish.gateway.topology._MOST", 2)
    client = carried(World())
    for number in range(3):
        assert client.gateway.resumable
        client.declare(f"e{number}", exclusive=True)
    assert client.gateway.why_not == "it has declared too much"
