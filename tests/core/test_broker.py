"""The broker as a whole: settling what was touched, and the moment of the next call."""

from __future__ import annotations

import pytest

from rabbitish.core.broker import Broker

from .fakes import START, ListConsumer, PlainMessage, World


class Alarm:
    """An owner of a deadline that is not a queue, as a session is."""

    def __init__(self) -> None:
        self.due_at: int | None = None
        self.called: list[int] = []

    def due(self, now: int) -> None:
        """See Due."""
        self.called.append(now)


def test_nothing_to_do() -> None:
    broker = Broker(token=str, settle_budget=1)
    assert broker.settle(START) is None
    assert not broker.restless
    assert broker.now == START


def test_virtual_hosts_are_made_once() -> None:
    broker = Broker(token=str, settle_budget=1)
    vhost = broker.add_vhost("/")
    assert broker.add_vhost("/") is vhost
    assert broker.vhosts == {"/": vhost}
    assert (vhost.deadlines, vhost.usage) == (broker.deadlines, broker.usage)


def test_only_what_was_touched_is_settled_and_once() -> None:
    world = World()
    queue = world.queue("q")
    world.queue("other")
    with world.batch():
        world.publish_all("abc")
        assert world.broker.restless
        assert world.broker._dirty == [queue]
    assert not world.broker.restless


def test_the_next_call_is_for_the_earliest_of_all() -> None:
    world = World()
    alarm = Alarm()
    world.queue("q", message_ttl=500)
    world.queue("idle", expires=700)
    assert world.settle() == START + 700
    world.broker.deadlines.ask(alarm, START + 600)
    assert world.settle() == START + 600
    world.publish("a")
    assert world.settle() == START + 500
    world.wait(500)
    assert world.settle() == START + 600
    world.wait(100)
    assert alarm.called == [START + 600]
    assert world.settle() == START + 700


def test_what_is_due_comes_before_what_is_handed_out() -> None:
    """A consumer that arrives together with a queue's end finds the queue gone, not its messages."""
    world = World()
    world.queue("idle", expires=100)
    world.publish("a", "idle")
    world.now += 100
    world.broker.settle(world.now)
    assert "idle" not in world.vhost.queues


def test_dead_letters_are_settled_in_the_same_call() -> None:
    world = World()
    for name, following in ("ab", "bc", "cd"):
        world.queue(name, dead_letter_exchange="", dead_letter_routing_key=following, max_length=0)
    world.queue("d")
    consumer = world.consume("d")
    with world.batch():
        world.publish("m", "a")
        assert world.broker.settle(world.now) is None
        assert consumer.got == ["m"]


def test_work_that_is_left_asks_for_a_call_now() -> None:
    world = World(settle_budget=1)
    world.queue(message_ttl=1000)
    consumer = world.consume()
    with world.batch():
        world.publish_all("abc")
        assert [world.broker.settle(world.now) for _ in range(3)] == [START, START, START + 1000]
    assert consumer.got == ["a", "b", "c"]


def test_a_queue_that_goes_while_it_has_work_left() -> None:
    world = World(settle_budget=1)
    queue = world.queue()
    consumer = world.consume()
    with world.batch():
        world.publish_all("abc")
        assert world.broker.settle(world.now) == world.now
        world.vhost.drop_queue(queue)
        assert world.broker.settle(world.now) is None
    assert (consumer.got, consumer.told) == (["a"], 1)


def test_usage_is_of_all_virtual_hosts() -> None:
    world = World()
    other = world.broker.add_vhost("other")
    queue = other.declare_queue(
        "q", durable=False, exclusive=False, auto_delete=False, arguments={}, owner=None, now=world.now
    )
    world.queue()
    world.publish("a", size=1000)
    first = world.broker.usage.bytes
    assert first > 1000
    queue.enqueue(world.vhost.queues["q"].lanes[0].fresh[0], world.now)
    world.settle()
    assert world.broker.usage.bytes == 2 * first
    other.drop_queue(queue)
    world.delete()
    assert world.broker.usage.bytes == 0


class Broken(ListConsumer):
    """A consumer with a bug of ours in it."""

    def room(self) -> int:
        raise RuntimeError("a bug")


def test_a_bug_in_one_queue_costs_no_other_anything() -> None:
    world = World()
    faults: list[Exception] = []
    broker = Broker(token=lambda: "t", settle_budget=10, on_fault=faults.append)
    vhost = broker.add_vhost("/")
    queues = [
        vhost.declare_queue(
            name, durable=False, exclusive=False, auto_delete=False, arguments={}, owner=None, now=world.now
        )
        for name in ("one", "two")
    ]
    good = ListConsumer(no_ack=True)
    queues[0].add_consumer(Broken())
    good.queue = queues[1]
    queues[1].add_consumer(good)
    for queue in queues:
        queue.enqueue(PlainMessage("m"), world.now)
    assert broker.settle(world.now) is None
    assert [str(fault) for fault in faults] == ["a bug"]
    assert good.got == ["m"]
    assert not broker.restless


class BrokenOwner:
    """Whoever asked for a deadline, with a bug of ours in it."""

    due_at: int | None = None

    def due(self, now: int) -> None:
        raise RuntimeError("late")


def test_a_bug_in_one_deadline_costs_no_other_anything() -> None:
    world = World()
    faults: list[Exception] = []
    broker = Broker(token=lambda: "t", settle_budget=10, on_fault=faults.append)
    broker.deadlines.ask(BrokenOwner(), world.now)
    queue = broker.add_vhost("/").declare_queue(
        "q", durable=False, exclusive=False, auto_delete=False, arguments={"x-expires": 5}, owner=None, now=world.now
    )
    broker.settle(world.now + 5)
    assert [str(fault) for fault in faults] == ["late"]
    assert queue.deleted


def test_without_anybody_to_tell_a_bug_is_raised() -> None:
    broker = Broker(token=lambda: "t", settle_budget=10)
    broker.deadlines.ask(BrokenOwner(), 1)
    with pytest.raises(RuntimeError, match="late"):
        broker.settle(1)
    queue = broker.add_vhost("/").declare_queue(
        "q", durable=False, exclusive=False, auto_delete=False, arguments={}, owner=None, now=1
    )
    queue.add_consumer(Broken())
    queue.enqueue(PlainMessage("m"), 1)
    with pytest.raises(RuntimeError, match="a bug"):
        broker.settle(1)
