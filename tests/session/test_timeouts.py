"""Deliveries that are held for too long: x-consumer-timeout of a queue or a consumer, or the setting."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.wire import methods

from .client import Client
from .harness import World

GONE = methods.BasicCancel(consumer_tag="t", nowait=True)
HOUR = 3_600_000


@pytest.fixture
def q(client: Client) -> Client:
    """A client with a queue q on which deliveries may be held for a second."""
    client.declare("q", arguments={"x-consumer-timeout": 1000})
    return client


def test_a_delivery_held_for_too_long(q: Client, other: Client) -> None:
    q.consume("q")
    q.publish("q", b"a", b"b")
    assert q.deliveries() == [("t", 1, b"a"), ("t", 2, b"b")]
    q.world.advance(999)
    assert q.answers() == []
    q.world.advance(1)
    q.expect(GONE)
    assert [other.get("q").method.redelivered for _ in range(2)] == [True, True]  # type: ignore[union-attr]
    assert len(q.world.logged("consumer timed out")) == 1
    q.world.advance(HOUR)
    assert q.answers() == [] and not q.hung_up


def test_the_channel_lives_on(q: Client) -> None:
    q.declare("p")
    q.consume("p", "p")
    q.consume("q", "t")
    q.publish("p", b"1")
    q.publish("q", b"2")
    assert len(q.deliveries()) == 2
    q.world.advance(1000)
    q.expect(GONE)
    q.send(methods.BasicAck(delivery_tag=1))
    assert q.answers() == []
    q.send(methods.BasicAck(delivery_tag=2))
    q.expect_channel_close(406, "PRECONDITION_FAILED - unknown delivery tag 2", methods.BasicAck)


def test_the_oldest_counts(q: Client) -> None:
    q.consume("q")
    for tag in range(1, 30):
        q.publish("q", b"x")
        q.world.advance(400)
        assert q.deliveries() == [("t", tag, b"x")]
        if tag > 1:
            q.send(methods.BasicAck(delivery_tag=tag - 1))
    q.world.advance(600)
    q.expect(GONE)


def test_acknowledged_in_time(q: Client) -> None:
    q.consume("q")
    for tag in range(1, 200):
        q.publish("q", b"x")
        assert q.deliveries() == [("t", tag, b"x")]
        q.world.advance(900)
        q.send(methods.BasicAck(delivery_tag=tag))
    q.world.advance(HOUR)
    assert q.answers() == []


def test_a_consumer_that_has_waited_for_long(q: Client, other: Client) -> None:
    """Its time begins when it gets something, though nobody has heard of it for an hour."""
    q.consume("q")
    q.world.advance(HOUR)
    other.publish("q", b"x")
    assert q.bodies() == [b"x"]
    q.world.advance(999)
    assert q.answers() == []
    q.world.advance(1)
    q.expect(GONE)


def test_no_ack_holds_nothing(q: Client) -> None:
    q.consume("q", no_ack=True)
    q.publish("q", b"x")
    q.world.advance(HOUR)
    assert q.bodies() == [b"x"]


def test_get_is_not_a_consumer(q: Client) -> None:
    q.publish("q", b"x")
    assert q.get("q", no_ack=False) is not None
    q.world.advance(HOUR)
    assert q.answers() == [] and q.world.queue("q").unacked == 1


def test_a_cancelled_consumer_is_left_alone(q: Client) -> None:
    q.consume("q")
    q.publish("q", b"x")
    assert q.bodies() == [b"x"]
    assert q.ask(methods.BasicCancel(consumer_tag="t")) == methods.BasicCancelOk(consumer_tag="t")
    q.world.advance(HOUR)
    assert q.answers() == [] and q.world.queue("q").unacked == 1


@pytest.mark.parametrize(
    ("setting", "of_queue", "of_consumer", "limit"),
    [
        (None, 1000, None, 1000),
        (None, None, 500, 500),
        (None, 1000, 500, 500),
        (None, 1000, 5000, 5000),
        (2000, None, None, 2000),
        (2000, 1000, None, 1000),
        (2000, None, 500, 500),
        (2000, 0, 0, 2000),
    ],
)
def test_whose_limit_it_is(
    make_world: Callable[..., World], setting: int | None, of_queue: int | None, of_consumer: int | None, limit: int
) -> None:
    client = make_world(default_consumer_timeout_ms=setting).client()
    client.declare("q", arguments={} if of_queue is None else {"x-consumer-timeout": of_queue})
    client.consume("q", arguments={} if of_consumer is None else {"x-consumer-timeout": of_consumer})
    client.publish("q", b"x")
    assert client.bodies() == [b"x"]
    client.world.advance(limit - 1)
    assert client.answers() == []
    client.world.advance(1)
    client.expect(GONE)


def test_none_by_default(client: Client) -> None:
    client.declare("q")
    client.consume("q")
    client.publish("q", b"x")
    client.world.advance(365 * 24 * HOUR)
    assert client.bodies() == [b"x"]


def test_an_auto_delete_queue_goes_with_it(client: Client) -> None:
    client.declare("q", auto_delete=True, arguments={"x-consumer-timeout": 1000})
    client.consume("q")
    client.publish("q", b"x")
    assert client.bodies() == [b"x"]
    client.world.advance(1000)
    client.expect(GONE)
    assert client.world.vhost.queues == {}


def test_the_next_consumer_gets_it(q: Client, other: Client) -> None:
    q.consume("q")
    q.publish("q", b"x")
    assert q.bodies() == [b"x"]
    other.consume("q")
    q.world.advance(1000)
    q.expect(GONE)
    (said,) = other.answers()
    assert said.method.redelivered  # type: ignore[union-attr]


def test_the_queues_own_clock_goes_on(client: Client, other: Client) -> None:
    """A queue that loses its consumer like that has been used until then."""
    client.declare("q", arguments={"x-consumer-timeout": 1000, "x-expires": 5000})
    client.consume("q")
    client.world.advance(HOUR)
    other.publish("q", b"x")
    assert client.bodies() == [b"x"]
    client.world.advance(1000)
    client.expect(GONE)
    client.world.advance(4999)
    assert "q" in client.world.vhost.queues
    client.world.advance(1)
    assert "q" not in client.world.vhost.queues
