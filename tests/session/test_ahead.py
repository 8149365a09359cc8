"""When a publisher is ahead of those who are at work for it."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods

from .client import Client

MANY = 1_500


@pytest.fixture
def worked(client: Client) -> Client:
    """A long queue whose one consumer has just been handed a message."""
    client.declare("q")
    client.ask(methods.BasicQos(prefetch_count=1))
    client.consume("q")
    client.publish("q", *[b"m"] * MANY)
    assert len(client.deliveries()) == 1
    return client


def test_while_its_consumers_are_at_work(worked: Client) -> None:
    assert worked.session.ahead
    worked.world.advance(11)
    assert not worked.session.ahead, "they are slow by themselves"
    worked.send(methods.BasicAck(delivery_tag=1))
    assert len(worked.deliveries()) == 1
    assert worked.session.ahead


def test_not_without_consumers(worked: Client) -> None:
    worked.ask(methods.BasicCancel(consumer_tag="t"))
    assert not worked.session.ahead


def test_not_when_they_keep_up(worked: Client) -> None:
    worked.ask(methods.QueuePurge(queue="q"))
    worked.publish("q", *[b"m"] * 999)
    worked.send(methods.BasicAck(delivery_tag=1))
    assert len(worked.deliveries()) == 1
    assert worked.world.queue("q").ready == 998
    assert not worked.session.ahead


def test_not_who_publishes_nothing_to_it(worked: Client) -> None:
    other = worked.world.client(1)
    assert not other.session.ahead
    other.declare("other")
    other.publish("other", b"m", b"m")
    assert not other.session.ahead
    other.publish("q", b"m", b"m")
    assert other.session.ahead
