"""Publishes through a change of leader: each is confirmed once, by the client's number, and none is lost."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from tests.session.client import publication
from tests.session.harness import World

from .carried import Carried, carried, confirming, drained, frames, successor


def test_nothing_is_changed_on_its_way_before_the_first_change_of_leader() -> None:
    world, beside = World(), World()
    through, straight = carried(world), beside.client()
    for client in (through, straight):
        client.raw(methods.ConfirmSelect().frame(1) + publication("nowhere", b"1", mandatory=True))
        client.answers()
        client.declare("q")
        client.consume("q", "t")
        client.publish("q", b"a" * 300_000, b"b")
        client.send(methods.BasicAck(delivery_tag=2, multiple=True))
        client.send(methods.BasicAck(delivery_tag=7))
        client.world.settle()
    assert through.received == straight.received


def test_confirms_go_on_with_the_clients_numbers() -> None:
    world = World()
    client = confirming(world)
    client.publish("q", b"1", b"2")
    client.expect(methods.BasicAck(delivery_tag=2, multiple=True))
    client.move(successor(world))
    client.publish("q", b"3", b"4")
    client.expect(methods.BasicAck(delivery_tag=4, multiple=True))
    client.publish("q", b"5")
    client.expect(methods.BasicAck(delivery_tag=5))
    assert drained(client.world, "q") == [b"1", b"2", b"3", b"4", b"5"]


def test_what_was_not_confirmed_is_sent_again_once_in_order_before_anything_newer() -> None:
    world = World()
    client = confirming(world)
    client.publish("q", b"1")
    client.expect(methods.BasicAck(delivery_tag=1))
    client.slow = True
    client.publish("q", b"2", b"3" * 200_000, b"4")
    client.lose_leader()
    client.raw(publication("q", b"5"))
    new = successor(world)
    client.slow = False
    client.go_on(new)
    client.expect(methods.BasicAck(delivery_tag=5, multiple=True))
    assert drained(new, "q") == [b"1", b"2", b"3" * 200_000, b"4", b"5"]
    assert client.gateway.kept_bytes == 0


def test_a_publish_that_the_client_is_in_the_middle_of_goes_to_the_next_leader_whole() -> None:
    world = World()
    client = confirming(world)
    data = publication("q", b"x" * 300_000)
    for cut in (1, 20, 60, 140_000, len(data) - 1):
        client.raw(data[:cut])
        client.world.settle()
        new = successor(client.world)
        client.move(new)
        assert client.answers() == []
        client.raw(data[cut:])
        (said,) = client.answers()
        assert isinstance(said.method, methods.BasicAck)
        assert drained(new, "q") == [b"x" * 300_000]


def test_confirms_of_two_channels_are_their_own() -> None:
    world = World()
    client = confirming(world, 1, 2)
    client.publish("q", b"1", b"2", channel=1)
    client.answers()
    client.move(successor(world))
    client.publish("q", b"3", channel=2)
    client.expect(methods.BasicAck(delivery_tag=1), channel=2)
    client.publish("q", b"4", channel=1)
    client.expect(methods.BasicAck(delivery_tag=3), channel=1)


@pytest.mark.parametrize("order", ["122112", "121212", "112122", "221112", "212211", "121122", "221121", "112212"])
@pytest.mark.parametrize("cut", range(1, 6))
def test_contents_of_two_channels_that_are_mixed_frame_by_frame(order: str, cut: int) -> None:
    client = confirming(World(), 1, 2)
    bodies = {"1": b"a" * 20, "2": b"b" * 20}
    said = {number: iter(frames(publication("q", body, channel=int(number)))) for number, body in bodies.items()}
    mixed = [next(said[number]) for number in order]
    client.raw(b"".join(mixed[:cut]))
    new = successor(client.world)
    client.move(new)
    client.raw(b"".join(mixed[cut:]))
    client.answers()
    assert client.gateway.kept_bytes == 0
    assert set(drained(client.world, "q")) == set(bodies.values())


def test_a_refused_publish_is_refused_under_the_clients_number() -> None:
    world = World()
    client = confirming(world)
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    client.declare("small", durable=True, arguments=arguments)
    client.publish("q", b"1")
    client.answers()
    client.move(successor(world))
    client.publish("small", b"2", b"3")
    client.expect(methods.BasicAck(delivery_tag=2), methods.BasicNack(delivery_tag=3, requeue=True))
    assert client.gateway.kept_bytes == 0


def test_the_client_is_not_heard_while_too_much_is_not_confirmed() -> None:
    world = World()
    world.keep_journal()
    client = Carried(world, most=10_000)
    client.handshake()
    client.open()
    client.send(methods.ConfirmSelect())
    client.answers()
    client.send(methods.QueueDeclare(queue="q", durable=True))
    world.synced()
    client.answers()
    for number in range(9):
        client.publish("q", bytes([number]) * 2_000, delivery_mode=2)
    assert client.answers() == []
    assert not client.gateway.hears_client
    assert 10_000 <= client.gateway.kept_bytes < 13_000
    for _ in range(3):
        world.synced()
    assert client.gateway.hears_client
    assert client.gateway.kept_bytes == 0
    assert world.queue("q").ready == 9
