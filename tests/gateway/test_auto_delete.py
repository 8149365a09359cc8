"""What is durable and deletes itself: it does not because a session is carried on, and is declared again if it did."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from tests.session.harness import World

from .carried import Carried, carried, deliveries, successor

EXCHANGE = methods.ExchangeDeclare(exchange="e", type="fanout", durable=True, auto_delete=True)


def using(world: World) -> Carried:
    """A client with a consumer of the queue `r`, and a queue of its own that is bound to the exchange `e`."""
    client = carried(world)
    client.ask(methods.QueueDeclare(queue="own", exclusive=True))
    client.ask(EXCHANGE)
    client.ask(methods.QueueBind(queue="own", exchange="e"))
    client.ask(methods.QueueDeclare(queue="r", durable=True, auto_delete=True))
    client.consume("r", "t")
    return client


def sound(client: Carried, number: int) -> None:
    """All of it works; so much was delivered to it so far."""
    client.publish("r", b"2")
    assert deliveries(client) == [("t", number + 1, b"2")]
    client.publish("", b"3", exchange="e")
    client.world.settle()
    assert client.world.queue("own").ready == 1


def test_it_is_there_with_its_messages_when_the_session_comes_back_to_the_same_leader() -> None:
    world = World()
    client = using(world)
    client.publish("r", b"1")
    assert len(deliveries(client)) == 1
    old = client.session
    client.lose_leader()
    world.clients[old] = client  # it is there still, and hears of nothing
    client.go_on(world)
    assert old.ended
    assert deliveries(client) == [("t", 2, b"1")]
    sound(client, 2)


@pytest.mark.parametrize("next_leader", [False, True])
def test_it_is_declared_again_if_a_leader_took_the_session_for_gone(next_leader: bool) -> None:
    world = World()
    client = using(world)
    client.session.receive_eof(world.now)
    world.settle()
    client.lose_leader()
    assert not {"r", "own"} & world.vhost.queues.keys() and "e" not in world.vhost.exchanges
    client.go_on(successor(world) if next_leader else world)
    sound(client, 0)
    assert client.world.queue("r").durable and client.world.queue("r").auto_delete
    client.ask(methods.BasicCancel(consumer_tag="t"))
    assert "r" not in client.world.vhost.queues
