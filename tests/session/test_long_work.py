"""Settling very much at once: in pieces, others are served between, and the peer is not heard before it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from rabbitish.wire import methods

from .client import Client
from .harness import World

MANY = 9_000  # deliveries, in runs of a hundred or so

ALL = {
    "ack": methods.BasicAck(delivery_tag=0, multiple=True),
    "ack of a tag": methods.BasicAck(delivery_tag=MANY, multiple=True),
    "drop": methods.BasicNack(delivery_tag=0, multiple=True, requeue=False),
}


def filled(client: Client) -> Client:
    client.declare("q")
    client.publish("q", *[b"m"] * MANY)
    client.consume("q")
    assert len(client.deliveries()) == MANY
    return client


def stretches(client: Client) -> int:
    """Let the broker finish, one settle after the other; how many times something was done about `q`."""
    queue, seen = client.world.queue("q"), []
    while client.world.broker.chores:
        seen.append(queue.unacked)
        client.world.broker.settle(client.world.now)
    assert seen == sorted(set(seen), reverse=True), "every stretch does something"
    assert all(before - after <= 8192 + 128 for before, after in pairwise(seen))
    return len(seen)


@pytest.mark.parametrize("settlement", ALL.values(), ids=ALL)
def test_in_pieces(client: Client, settlement: methods.BasicAck | methods.BasicNack) -> None:
    filled(client).send(settlement, methods.QueueDeclare(queue="q", passive=True))
    assert client.session.outbox.size == 0, "the question waits for its turn"
    assert stretches(client) > 1 and client.world.queue("q").unacked == 0
    client.expect(methods.QueueDeclareOk(queue="q", message_count=0, consumer_count=1))


def test_what_was_buffered_is_heard_afterwards_in_order(client: Client) -> None:
    filled(client)
    client.send(ALL["ack"], methods.BasicCancel(consumer_tag="t"))
    client.send(methods.QueuePurge(queue="q"))
    client.publish("q", b"last")
    client.expect(methods.BasicCancelOk(consumer_tag="t"), methods.QueuePurgeOk(message_count=0))
    assert (client.world.queue("q").ready, client.world.queue("q").unacked) == (1, 0)


def test_all_back_in_order(client: Client) -> None:
    client.declare("q")
    bodies = [b"%d" % number for number in range(MANY)]
    client.publish("q", *bodies)
    client.consume("q")
    assert client.bodies() == bodies
    client.send(methods.BasicCancel(consumer_tag="t"), methods.BasicNack(delivery_tag=0, multiple=True, requeue=True))
    assert stretches(client) > 1
    client.expect(methods.BasicCancelOk(consumer_tag="t"))
    other = client.world.client()
    other.consume("q")
    assert other.bodies() == bodies


def close_channel(client: Client) -> None:
    client.send(methods.ChannelClose(reply_code=200))


def hang_up(client: Client) -> None:
    client.session.receive_eof(client.world.now)


@pytest.mark.parametrize("leave", [close_channel, hang_up])
def test_a_consumer_with_very_much_goes(client: Client, leave: Callable[[Client], None]) -> None:
    leave(filled(client))
    queue = client.world.queue("q")
    assert queue.ready < MANY
    assert stretches(client) > 1
    assert (queue.ready, queue.unacked) == (MANY, 0)


def test_a_peer_that_goes_in_the_middle(client: Client) -> None:
    filled(client).send(ALL["ack"])
    client.world.broker.settle(client.world.now)
    queue = client.world.queue("q")
    assert client.world.broker.chores and 0 < queue.unacked < MANY
    client.hang_up()
    assert (queue.ready, queue.unacked) == (0, 0), "it was acknowledged, whoever has gone"


def test_it_is_not_given_up_meanwhile(world: World) -> None:
    """A peer that is not heard for a while sends heartbeats nobody reads."""
    client = world.client(heartbeat=10)
    filled(client).send(ALL["ack"])
    assert client.session.busy
    client.session.patience.due(world.now + 25_000)
    assert not client.session.ended
    world.settle()
    assert not client.session.busy
    client.session.patience.due(client.session.heard + 20_001)
    assert client.session.ended


def test_a_fault_of_ours_in_the_middle_costs_the_connection(client: Client) -> None:
    def faulty() -> Iterator[None]:
        yield
        raise ValueError("a bug")

    client.session.occupy(faulty())
    client.expect_connection_close(541, "INTERNAL_ERROR")
    assert [str(record.fields["error"]) for record in client.world.exceptions] == ["a bug"]
    client.world.records.clear()


def test_a_transaction_is_one_piece(client: Client) -> None:
    filled(client).send(methods.TxSelect(), ALL["ack"])
    client.expect(methods.TxSelectOk())
    assert client.world.queue("q").unacked == MANY
    client.send(methods.TxCommit())
    assert client.world.queue("q").unacked == 0 and not client.world.broker.chores
    client.expect(methods.TxCommitOk())
