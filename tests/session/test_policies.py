"""Policies in conversations: what sessions remember of routes, confirms, and how long consumers may keep messages."""

from __future__ import annotations

import pytest

from rabbitish.core.access.policies import read_policy
from rabbitish.wire import methods

from .client import Client
from .harness import World

GONE = methods.BasicCancel(consumer_tag="t", nowait=True)


def policy(
    world: World,
    definition: dict[str, object],
    *,
    operator: bool = False,
    name: str = "p",
    pattern: str = "^[qe]",
) -> None:
    made = read_policy(name, {"pattern": pattern, "definition": definition}, operator=operator)
    world.change(lambda roster: roster.set_policy("/", made, operator=operator))


def clear(world: World, *, operator: bool = False) -> None:
    world.change(lambda roster: roster.clear_policy("/", "p", operator=operator))


def confirmed(client: Client, body: bytes = b"x", **how: object) -> list[str]:
    """What is said to one more publish, that is like those before."""
    client.publish("q", body, **how)
    client.world.settle()
    return [type(said.method).__name__ for said in client.answers()]


@pytest.fixture
def publisher(world: World) -> Client:
    """A publisher whose publishes are remembered by their beginning; there is a queue q."""
    client = world.client()
    client.declare("q")
    client.ask(methods.ConfirmSelect())
    for _ in range(3):
        assert confirmed(client) == ["BasicAck"]
    assert client.session.templates
    return client


@pytest.mark.parametrize("operator", [False, True])
def test_a_limit_holds_for_publishes_that_are_remembered(publisher: Client, operator: bool) -> None:
    world = publisher.world
    policy(world, {"max-length": 2}, operator=operator)
    assert not publisher.session.templates
    assert world.queue("q").ready == 2
    for _ in range(3):
        assert confirmed(publisher) == ["BasicAck"]
    assert world.queue("q").ready == 2
    clear(world, operator=operator)
    for _ in range(3):
        assert confirmed(publisher) == ["BasicAck"]
    assert world.queue("q").ready == 5


def test_publishes_that_are_remembered_are_refused_and_taken_again(publisher: Client) -> None:
    world = publisher.world
    policy(world, {"max-length": 4, "overflow": "reject-publish"})
    assert [confirmed(publisher) for _ in range(3)] == [["BasicAck"], ["BasicNack"], ["BasicNack"]]
    policy(world, {"max-length": 4})
    assert [confirmed(publisher) for _ in range(2)] == [["BasicAck"]] * 2
    policy(world, {"max-length": 4, "overflow": "reject-publish"})
    assert confirmed(publisher) == ["BasicNack"]
    clear(world)
    assert confirmed(publisher) == ["BasicAck"]


def test_a_ttl_holds_for_publishes_that_are_remembered(publisher: Client) -> None:
    world = publisher.world
    policy(world, {"message-ttl": 100})
    confirmed(publisher, b"short")
    clear(world)
    confirmed(publisher, b"last")
    world.advance(100)
    assert publisher.drain("q") == [b"x", b"x", b"x", b"last"]


def test_an_alternate_exchange_holds_for_publishes_that_are_remembered(client: Client, world: World) -> None:
    client.declare("caught")
    client.ask(methods.ExchangeDeclare(exchange="e"))
    client.ask(methods.ExchangeDeclare(exchange="fall", type="fanout"))
    client.ask(methods.QueueBind(queue="caught", exchange="fall"))

    def caught() -> int:
        for _ in range(3):
            client.publish("nowhere", b"x", exchange="e")
        world.settle()
        return len(client.drain("caught"))

    assert caught() == 0
    policy(world, {"alternate-exchange": "fall"})
    assert caught() == 3
    clear(world)
    assert caught() == 0
    policy(world, {"alternate-exchange": "fall"}, operator=False)
    assert caught() == 3


@pytest.fixture
def held(client: Client) -> Client:
    """A client that has kept a message for a second, from a queue without a timeout."""
    client.declare("q")
    client.consume("q")
    client.publish("q", b"x")
    assert client.bodies() == [b"x"]
    client.world.advance(1000)
    return client


def test_a_consumer_timeout_counts_from_its_policy(held: Client) -> None:
    policy(held.world, {"consumer-timeout": 500})
    held.world.advance(499)
    assert held.answers() == []
    held.world.advance(1)
    held.expect(GONE)
    assert held.world.queue("q").ready == 1


def test_a_consumer_timeout_of_one_queue_is_none_of_another_on_the_channel(held: Client) -> None:
    held.declare("other")
    held.consume("other", "u")
    held.publish("other", b"y")
    assert held.bodies() == [b"y"]
    policy(held.world, {"consumer-timeout": 10_000_000}, name="first", pattern="^q$")
    held.world.advance(2000)
    policy(held.world, {"consumer-timeout": 1000}, name="second", pattern="^other$")
    held.world.advance(999)
    assert held.answers() == [], "it counts from its own policy"
    held.world.advance(1)
    held.expect(methods.BasicCancel(consumer_tag="u", nowait=True))


def test_a_consumer_timeout_is_undone(held: Client) -> None:
    policy(held.world, {"consumer-timeout": 500})
    held.world.advance(400)
    clear(held.world)
    held.world.advance(10_000)
    assert held.answers() == []


def test_another_consumer_timeout_counts_from_the_delivery(held: Client) -> None:
    policy(held.world, {"consumer-timeout": 5000})
    held.publish("q", b"y")
    assert held.bodies() == [b"y"]
    held.send(methods.BasicAck(delivery_tag=1))
    held.world.advance(1000)
    policy(held.world, {"consumer-timeout": 1500})
    held.world.advance(499)
    assert held.answers() == []
    held.world.advance(1)
    held.expect(GONE)


def test_a_consumers_own_timeout_holds(client: Client) -> None:
    client.declare("q")
    client.consume("q", arguments={"x-consumer-timeout": 3000})
    client.publish("q", b"x")
    assert client.bodies() == [b"x"]
    policy(client.world, {"consumer-timeout": 500})
    client.world.advance(2999)
    assert client.answers() == []
    client.world.advance(1)
    client.expect(GONE)


def test_a_shorter_timeout_that_is_over_already(held: Client) -> None:
    policy(held.world, {"consumer-timeout": 50_000})
    held.world.advance(2000)
    policy(held.world, {"consumer-timeout": 1000})
    held.expect(GONE)


def test_a_queue_that_a_policy_lets_go_tells_its_passive_declares(client: Client, world: World) -> None:
    client.declare("q")
    policy(world, {"expires": 1000})
    world.advance(1000)
    client.send(methods.QueueDeclare(queue="q", passive=True))
    client.expect_channel_close(404, "NOT_FOUND - no queue 'q' in vhost '/'", methods.QueueDeclare)
