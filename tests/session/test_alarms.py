"""Alarms: who publishes is no longer read from, is told if it understands, and goes on when it is over."""

from __future__ import annotations

import pytest

from rabbitish.session.hub import Resource
from rabbitish.wire import methods

from .client import Client, publication
from .harness import World

BLOCKED, UNBLOCKED = methods.ConnectionBlocked(reason="low on memory"), methods.ConnectionUnblocked()


@pytest.fixture
def q(client: Client) -> Client:
    """A client with a queue q."""
    client.declare("q")
    return client


def test_blocked_at_the_first_publish(q: Client) -> None:
    q.world.hub.set_alarm("memory")
    assert q.answers() == [] and q.session.reading
    q.publish("q", b"1")
    q.expect(BLOCKED, channel=0)
    assert not q.session.reading
    assert q.world.queue("q").ready == 1, "that one is in already"
    q.publish("q", b"2")
    assert q.answers() == [] and q.world.queue("q").ready == 1
    q.world.hub.clear_alarm("memory")
    q.expect(UNBLOCKED, channel=0)
    assert q.drain("q") == [b"1", b"2"]


def test_one_that_published_before(q: Client) -> None:
    """It may have become a consumer whose acknowledgements are what the broker waits for."""
    q.publish("q", b"1", b"2")
    q.consume("q")
    assert len(q.deliveries()) == 2
    q.world.hub.set_alarm("memory")
    q.send(methods.BasicAck(delivery_tag=2, multiple=True))
    assert q.answers() == [] and q.world.queue("q").unacked == 0
    q.publish("q", b"3")
    assert q.methods()[0] == BLOCKED


def test_only_publishers(q: Client, other: Client) -> None:
    other.consume("q")
    q.world.hub.set_alarm("memory")
    q.publish("q", b"1")
    q.expect(BLOCKED, channel=0)
    assert other.bodies() == [b"1"]
    other.send(methods.BasicAck(delivery_tag=1), methods.QueueDeclare(queue="q", passive=True))
    other.expect(methods.QueueDeclareOk(queue="q", consumer_count=1))
    q.world.hub.clear_alarm("memory")
    q.expect(UNBLOCKED, channel=0)
    assert other.answers() == [], "it was not blocked"


def test_a_blocked_one_is_still_sent_to(q: Client, other: Client) -> None:
    q.consume("q")
    q.world.hub.set_alarm("memory")
    q.publish("q", b"1")
    assert len(q.answers()) == 2
    q.world.hub.clear_alarm("memory")
    q.expect(UNBLOCKED, channel=0)
    q.world.hub.set_alarm("memory")
    q.publish("nowhere")
    q.expect(BLOCKED, channel=0)
    other.publish("q", b"2")
    assert q.bodies() == [b"2"]


def test_what_came_in_the_same_read_still_counts(q: Client) -> None:
    q.world.hub.set_alarm("memory")
    q.publish("q", b"1", b"2", b"3")
    q.expect(BLOCKED, channel=0)
    assert q.world.queue("q").ready == 3


def test_a_publish_by_either_way(q: Client) -> None:
    """Whether or not one like it has been seen before."""
    for _ in range(3):
        q.publish("q", b"x")
    for body in (b"x", b"never seen"):
        q.world.hub.set_alarm("memory")
        q.publish("q", body)
        q.expect(BLOCKED, channel=0)
        q.world.hub.clear_alarm("memory")
        q.expect(UNBLOCKED, channel=0)


def test_in_a_transaction_too(q: Client) -> None:
    q.send(methods.TxSelect())
    q.expect(methods.TxSelectOk())
    q.world.hub.set_alarm("memory")
    q.publish("q", b"x")
    q.expect(BLOCKED, channel=0)


@pytest.mark.parametrize("capabilities", [{}, {"connection.blocked": False}, {"connection.blocked": "yes"}])
def test_not_told_but_held_back(world: World, capabilities: dict[str, object]) -> None:
    client = world.client(capabilities=capabilities)
    world.hub.set_alarm("memory")
    client.publish("nowhere")
    client.send(methods.QueueDeclare(queue="q"))
    assert client.answers() == []
    world.hub.clear_alarm("memory")
    client.expect(methods.QueueDeclareOk(queue="q"))


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        (("memory",), "low on memory"),
        (("disk",), "low on disk"),
        (("disk", "memory"), "low on disk & memory"),
        (("memory", "disk"), "low on disk & memory"),
        (("memory", "memory"), "low on memory"),
    ],
)
def test_reasons(q: Client, resources: tuple[Resource, ...], reason: str) -> None:
    """To the letter of RabbitMQ 3.10."""
    for resource in resources:
        q.world.hub.set_alarm(resource)
    q.publish("q", b"1")
    q.expect(methods.ConnectionBlocked(reason=reason), channel=0)


def test_a_second_reason_is_not_told_and_the_last_one_counts(q: Client) -> None:
    hub = q.world.hub
    hub.set_alarm("memory")
    q.publish("q", b"1")
    q.expect(BLOCKED, channel=0)
    hub.set_alarm("disk")
    hub.clear_alarm("memory")
    q.publish("q", b"2")
    assert q.answers() == [] and not q.session.reading
    hub.set_alarm("memory")
    hub.clear_alarm("disk")
    hub.clear_alarm("disk")
    assert q.answers() == [] and not q.session.reading
    hub.clear_alarm("memory")
    q.expect(UNBLOCKED, channel=0)
    assert q.drain("q") == [b"1", b"2"]


def test_one_that_publishes_after_the_first_reason_is_over(q: Client, other: Client) -> None:
    hub = q.world.hub
    hub.set_alarm("memory")
    q.publish("q", b"1")
    q.expect(BLOCKED, channel=0)
    hub.set_alarm("disk")
    hub.clear_alarm("memory")
    other.publish("q", b"2")
    other.expect(methods.ConnectionBlocked(reason="low on disk"), channel=0)
    hub.clear_alarm("disk")
    for client in (q, other):
        client.expect(UNBLOCKED, channel=0)


def test_one_that_comes_during_an_alarm(world: World) -> None:
    world.hub.set_alarm("memory")
    client = world.client()
    client.declare("q")
    client.publish("q", b"x")
    client.expect(BLOCKED, channel=0)


def test_one_that_goes_during_an_alarm(q: Client) -> None:
    q.world.hub.set_alarm("memory")
    q.publish("q", b"x")
    q.expect(BLOCKED, channel=0)
    q.hang_up()
    q.world.hub.clear_alarm("memory")
    assert q.answers() == [] and q.world.hub.sessions == set()


def test_one_that_closes_in_the_same_read(q: Client) -> None:
    """Its hanging up must be seen, alarm or not."""
    q.world.hub.set_alarm("memory")
    q.raw(publication("q", b"x") + methods.ConnectionClose().frame(0))
    q.expect(BLOCKED, methods.ConnectionCloseOk(), channel=0)
    assert q.session.reading
    q.world.hub.clear_alarm("memory")
    assert q.answers() == []


def test_the_broker_may_still_close_it(q: Client) -> None:
    q.world.hub.set_alarm("memory")
    q.raw(publication("q", b"x") + methods.ChannelOpen().frame(1))
    assert [method.name for method in q.methods() if method] == ["connection.blocked", "connection.close"]
    q.send(methods.ConnectionCloseOk(), channel=0)
    assert q.answers() == [] and q.hung_up
