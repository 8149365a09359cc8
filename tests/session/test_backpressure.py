"""Back pressure: who does not read gets nothing more until it has read nearly everything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.session.outbox import Outbox
from rabbitish.wire import methods

from .client import Client
from .harness import World

KIB = 1024
HIGH, LOW = 64 * KIB, 16 * KIB


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world with small outboxes."""
    return make_world(outbox_bytes_high=HIGH, outbox_bytes_low=LOW)


@pytest.fixture
def deaf(world: World) -> Client:
    """A client that consumes q without acknowledgements and does not read."""
    client = world.client()
    client.declare("q")
    client.consume("q", no_ack=True)
    client.reading = False
    return client


def flood(client: Client, name: str = "q", count: int = 1000) -> None:
    client.publish(name, *[b"x" * KIB] * count)
    client.world.settle()


def test_over_the_high_mark_there_are_no_deliveries(deaf: Client, other: Client) -> None:
    flood(other)
    outbox, queue = deaf.session.outbox, deaf.world.queue("q")
    assert HIGH <= outbox.size < 4 * HIGH
    assert queue.ready > 700
    ready, size = queue.ready, outbox.size
    flood(other, count=100)
    assert (queue.ready, outbox.size) == (ready + 100, size)


def test_at_the_low_mark_they_go_on(deaf: Client, other: Client) -> None:
    flood(other)
    outbox, queue = deaf.session.outbox, deaf.world.queue("q")
    ready = queue.ready
    deaf.read(outbox.size - LOW - 1)
    deaf.world.settle()
    assert queue.ready == ready, "one byte too many is still waiting"
    deaf.read(1)
    deaf.world.settle()
    assert queue.ready < ready
    assert outbox.size >= HIGH


def test_everything_comes_in_the_end_and_in_order(deaf: Client, other: Client) -> None:
    bodies = [b"%d" % number + bytes(KIB) for number in range(2000)]
    other.publish("q", *bodies)
    deaf.world.settle()
    deaf.read_on()
    assert deaf.bodies() == bodies


def test_several_consumers_go_on(deaf: Client, other: Client) -> None:
    for number in range(5):
        deaf.reading = True
        deaf.declare(f"q{number}")
        deaf.consume(f"q{number}", f"t{number}")
        deaf.reading = False
    for number in range(5):
        flood(other, f"q{number}", 100)
    deaf.read_on()
    tags = [tag for tag, _, _ in deaf.deliveries()]
    assert sorted(set(tags)) == [f"t{number}" for number in range(5)] and len(tags) == 500


def test_others_get_what_one_does_not_take(world: World, deaf: Client, other: Client) -> None:
    good = world.client()
    good.consume("q", no_ack=True)
    flood(other)
    assert world.queue("q").ready == 0
    got = len(good.bodies())
    assert got > 800
    deaf.read_on()
    assert len(deaf.bodies()) == 1000 - got


def test_one_queue_does_not_wait_for_anothers_consumer(world: World, deaf: Client, other: Client) -> None:
    good = world.client()
    good.declare("p")
    good.consume("p", no_ack=True)
    flood(other)
    flood(other, "p", 10)
    assert len(good.bodies()) == 10


def test_a_cancelled_consumer_is_not_woken(world: World, deaf: Client, other: Client) -> None:
    flood(other)
    deaf.send(methods.BasicCancel(consumer_tag="t"))
    world.settle()
    ready = world.queue("q").ready
    deaf.read_on()
    assert world.queue("q").ready == ready > 700
    assert len(deaf.answers()) == 1000 - ready + 1


def test_one_that_hangs_up(world: World, deaf: Client, other: Client) -> None:
    deaf.reading = True
    deaf.consume("q", "acks")
    deaf.reading = False
    flood(other)
    deaf.hang_up()
    queue = world.queue("q")
    assert (queue.unacked, len(queue.consumers)) == (0, 0)
    assert deaf.session.outbox.waiters == []
    assert queue.ready > 700


def test_a_deleted_queue(world: World, deaf: Client, other: Client) -> None:
    flood(other)
    other.send(methods.QueueDelete(queue="q"))
    assert len(other.answers()) == 1
    deaf.read_on()
    assert deaf.answers()[-1].method == methods.BasicCancel(consumer_tag="t", nowait=True)


def test_who_sends_and_does_not_read_is_not_read_from(world: World) -> None:
    """That is the server's part (server/link.py); here it is told that it had better not read."""
    client = world.client()
    client.reading = False
    for _ in range(100):
        client.send(*[methods.QueueDeclare(queue="q" * 200)] * 100)
        world.settle()
    size = client.session.outbox.size
    assert 4 * HIGH < size < 6 * HIGH
    client.read_on()
    assert len(client.answers()) == 10_000


@pytest.mark.parametrize("first", ["the messages", "the consumer"])
def test_large_messages_go_one_by_one(first: str, make_world: Callable[..., World]) -> None:
    """The marks hold for them too, give or take one."""
    world = make_world(outbox_bytes_high=1024 * KIB, outbox_bytes_low=16 * KIB)
    client, other = world.client(), world.client()
    client.declare("q")
    client.reading = False
    consume = methods.BasicConsume(queue="q", no_ack=True)
    if first == "the consumer":
        client.send(consume)
    other.publish("q", *[bytes(800 * KIB)] * 50)
    if first == "the messages":
        client.send(consume)
    world.settle()
    assert client.session.outbox.size <= 2048 * KIB
    assert world.queue("q").ready >= 47
    client.read_on()
    assert len([said for said in client.answers() if said.body]) == 50


def test_gets_and_returns_are_counted(world: World) -> None:
    client = world.client()
    client.declare("q")
    flood(client, count=2)
    client.reading = False
    client.send(methods.BasicGet(queue="q"))
    client.publish("nowhere", bytes(KIB), mandatory=True)
    world.settle()
    assert 2 * KIB < client.session.outbox.size < 3 * KIB
    client.read_on()
    assert client.session.outbox.size == 0


def test_a_long_backlog_goes_out_in_slices(make_world: Callable[..., World]) -> None:
    world = make_world(settle_budget_messages=10)
    client, other = world.client(), world.client()
    client.declare("q")
    client.publish("q", *[b"%d" % number for number in range(95)])
    client.send(methods.BasicConsume(queue="q", consumer_tag="t", no_ack=True))
    client.world.broker.settle(world.now)
    assert 0 < world.queue("q").ready <= 85 and world.broker.restless
    assert other.ask(methods.ChannelFlow(active=True)) == methods.ChannelFlowOk(active=True)
    assert [said.body for said in client.answers()[-95:]] == [b"%d" % number for number in range(95)]


# --- the outbox by itself --------------------------------------------------------------------------------------------


class Waiting:
    def __init__(self) -> None:
        self.woken = 0

    def resume(self) -> None:
        self.woken += 1


def test_the_outbox_by_itself() -> None:
    touched: list[bool] = []
    outbox, waiter = Outbox(100, 10, lambda: touched.append(True)), Waiting()
    assert outbox.take() == b""
    outbox.write(b"x" * 60)
    outbox.write(b"y" * 60)
    assert (outbox.size, touched) == (120, [True])
    outbox.waiters.append(waiter)
    assert outbox.take() == b"x" * 60 + b"y" * 60
    outbox.write(b"z" * 5)
    assert (outbox.size, touched) == (125, [True, True])
    outbox.sent(110, 7)
    assert (outbox.size, outbox.last_sent, waiter.woken) == (15, 7, 0)
    outbox.sent(5, 8)
    assert (outbox.size, outbox.last_sent, waiter.woken, outbox.waiters) == (10, 8, 1, [])
    outbox.sent(5, 9)
    assert waiter.woken == 1
