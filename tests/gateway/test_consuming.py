"""Consumers through a change of leader: tags that go on, acknowledgements that reach who delivered, limits."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_METHOD, HEAD
from tests.session.harness import World

from .carried import Carried, carried, confirming, deliveries, successor


def holding_one() -> tuple[Carried, World]:
    """A client that was handed a message of `q` and has not acknowledged it, and who leads next."""
    world = World()
    client = confirming(world)
    client.consume("q", "t")
    client.publish("q", b"1")
    assert len(deliveries(client)) == 1
    return client, successor(world)


def test_delivery_tags_go_on_and_acks_reach_who_delivered() -> None:
    world = World()
    client = confirming(world)
    client.consume("q", "t")
    client.publish("q", b"1", b"2", b"3")
    assert [tag for _, tag, _ in deliveries(client)] == [1, 2, 3]
    client.send(methods.BasicAck(delivery_tag=1))
    new = successor(world)
    client.move(new)
    assert deliveries(client) == [("t", 4, b"2"), ("t", 5, b"3")]
    client.send(methods.BasicAck(delivery_tag=3))  # of what the last leader delivered
    client.send(methods.BasicAck(delivery_tag=2, multiple=True))
    assert client.answers() == []
    assert new.queue("q").unacked == 2
    client.send(methods.BasicAck(delivery_tag=5))
    new.settle()
    assert new.queue("q").unacked == 1
    client.send(methods.BasicNack(delivery_tag=4, requeue=True))
    assert deliveries(client) == [("t", 6, b"2")]
    client.send(methods.BasicReject(delivery_tag=6, requeue=False))
    new.settle()
    assert (new.queue("q").ready, new.queue("q").unacked) == (0, 0)


def test_an_ack_of_everything_passes_and_one_of_an_unknown_tag_is_an_error() -> None:
    client, new = holding_one()
    client.move(new)
    assert len(deliveries(client)) == 1
    client.send(methods.BasicAck(delivery_tag=0, multiple=True))
    new.settle()
    assert new.queue("q").unacked == 0
    client.send(methods.BasicAck(delivery_tag=9))
    client.expect_channel_close(406, "PRECONDITION_FAILED - unknown delivery tag 8", methods.BasicAck)
    client.open()


@pytest.mark.parametrize("kind", [methods.BasicAck, methods.BasicNack, methods.BasicReject])
@pytest.mark.parametrize("missing", [1, 5, 9])
def test_an_ack_that_is_cut_short_is_the_leaders_business(kind: type[methods.BasicAck], missing: int) -> None:
    client, new = holding_one()
    client.move(new)
    assert len(deliveries(client)) == 1
    payload = kind(delivery_tag=2).encode()[:-missing]
    client.raw(HEAD.pack(FRAME_METHOD, 1, len(payload)) + payload + b"\xce")
    (said,) = client.answers()
    assert isinstance(said.method, methods.ConnectionClose) and said.method.reply_code in (501, 502)
    assert not client.gateway.resumable


def test_an_ack_of_everything_is_of_nothing_as_long_as_the_client_has_seen_nothing() -> None:
    """It was said of what the last leader had delivered; the next one may have something else out with it by now."""
    client, new = holding_one()
    new.queue("q").purge()
    client.move(new)
    client.sent_up.clear()
    client.send(methods.BasicAck(delivery_tag=0, multiple=True))
    assert not client.sent_up
    client.publish("q", b"2")
    assert len(deliveries(client)) == 1
    client.send(methods.BasicAck(delivery_tag=0, multiple=True))
    new.settle()
    assert new.queue("q").unacked == 0


def test_a_delivery_that_was_cut_off_is_never_half_heard() -> None:
    world = World()
    client = confirming(world)
    client.publish("q", b"x" * 300_000)
    client.answers()
    client.consume("q", "t")
    assert len(deliveries(client)) == 1
    for cut in (3, 30, 60, 200_000):
        new = successor(client.world)
        client.move(new)
        client.slow = True
        client.answers()
        client.down(cut)
        client.slow = False
    (last,) = deliveries(client) or deliveries_after_move(client)
    assert last[2] == b"x" * 300_000


def deliveries_after_move(client: Carried) -> list[tuple[str, int, bytes]]:
    """The same at one more leader."""
    client.move(successor(client.world))
    return deliveries(client)


def test_limits_are_those_that_held_for_each_consumer() -> None:
    world = World()
    client = confirming(world)
    client.ask(methods.BasicQos(prefetch_count=2))
    client.consume("q", "two")
    client.ask(methods.BasicQos(prefetch_count=1))
    client.declare("r", durable=True)
    client.consume("r", "one")
    client.ask(methods.BasicQos(prefetch_count=7))
    new = successor(world)
    client.move(new)
    (channel,) = client.session.channels.values()
    assert {tag: consumer.prefetch for tag, consumer in channel.consumers.items()} == {"two": 2, "one": 1}
    assert (channel.consumer_prefetch, channel.global_prefetch) == (7, 0)
    client.ask(methods.BasicQos(prefetch_count=9, global_=True))
    client.move(successor(new))
    (channel,) = client.session.channels.values()
    assert (channel.consumer_prefetch, channel.global_prefetch) == (7, 9)
    client.ask(methods.BasicQos(prefetch_count=4))
    client.move(successor(client.world))
    (channel,) = client.session.channels.values()
    assert (channel.consumer_prefetch, channel.global_prefetch) == (4, 0)
    client.expect()


def test_the_limit_of_a_channel_holds_before_its_consumers_are_back() -> None:
    client = confirming(World())
    client.publish("q", b"1", b"2", b"3", b"4")
    client.answers()
    client.ask(methods.BasicQos(prefetch_count=3))
    client.ask(methods.BasicQos(prefetch_count=2, global_=True))
    for tag in ("t", "u"):
        client.consume("q", tag)
        client.answers()
    cut = 0
    while True:
        client.slow = True
        client.lose_leader()
        client.go_on(successor(client.world))
        if cut >= len(client.waiting_up):
            break
        client.up(cut)
        client.world.settle()
        client.up(len(client.waiting_up))
        client.world.settle()
        assert client.world.queue("q").unacked == 2
        cut += 1
    assert cut > 100


def test_a_consumer_that_was_cancelled_does_not_come_back() -> None:
    world = World()
    client = confirming(world)
    client.consume("q", "gone")
    client.consume("q", "stays")
    client.ask(methods.BasicCancel(consumer_tag="gone"))
    client.move(successor(world))
    (channel,) = client.session.channels.values()
    assert list(channel.consumers) == ["stays"]


def test_a_consumer_whose_queue_is_gone_is_cancelled() -> None:
    world = World()
    other = world.client(1)
    other.declare("passing")
    client = confirming(world)
    client.consume("passing", "p")
    client.consume("q", "t")
    client.publish("q", b"1")
    assert len(deliveries(client)) == 1
    new = successor(world)
    client.move(new)
    said = client.answers()
    assert methods.BasicCancel(consumer_tag="p", nowait=True) in [each.method for each in said]
    assert [each.method.delivery_tag for each in said if isinstance(each.method, methods.BasicDeliver)] == [2]
    client.publish("q", b"2")
    assert methods.BasicAck(delivery_tag=2) in [each.method for each in client.answers()]


def test_or_its_channel_is_closed_if_the_client_does_not_understand_that() -> None:
    world = World()
    other = world.client(1)
    other.declare("passing")
    client = carried(world, 1, 2, capabilities={})
    client.consume("passing", "p")
    client.move(successor(world))
    client.expect_channel_close(404, "NOT_FOUND - no queue 'passing' in vhost '/'", methods.BasicConsume)
    client.declare("q", channel=2)
    client.open()


def test_a_channel_that_the_client_was_closing_when_a_consumer_cannot_come_back() -> None:
    world = World()
    world.client(1).declare("passing")
    client = confirming(world)
    client.publish("q", b"1")
    client.answers()
    client.consume("q", "t")
    client.consume("passing", "p")
    deliveries(client)
    client.slow = True
    client.send(methods.ChannelClose())
    new = successor(world)
    client.move(new)
    last = methods.BasicConsume(queue="passing", consumer_tag="p").frame(1)
    client.up(len(client.waiting_up) - len(last))
    new.settle()  # there is a delivery before the refusal
    client.up(len(last))
    new.settle()
    client.slow = False
    client.collect()
    said = [type(each.method) for each in client.answers()]
    assert said == [methods.BasicDeliver, methods.ChannelCloseOk]
    client.open()
    assert new.queue("q").ready == 1


def test_a_consumer_that_wants_to_know_is_cancelled() -> None:
    world = World()
    client = confirming(world)
    client.consume("q", "t", arguments={"x-cancel-on-ha-failover": True})
    client.move(successor(world))
    client.expect(methods.BasicCancel(consumer_tag="t", nowait=True))
    assert not client.session.channels[1].consumers
