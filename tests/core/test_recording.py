"""What is told to whoever keeps the changes, and how what was kept comes back.

That the books are right is compared after every step of every conversation in this folder (`World.compare`); these are
the cases that no conversation comes upon.
"""

from __future__ import annotations

import pytest

from rabbitish.core.changes import Reason
from rabbitish.core.message import Message
from rabbitish.core.queue import Queue

from .fakes import PlainMessage, World
from .ledger import Ledger


def numbers(world: World, name: str = "q") -> list[int]:
    """The numbers of the messages that are on record as in a queue."""
    return list(world.ledger.contents[world.vhost.queues[name]])


# ---- what is told


def test_only_persistent_messages_in_durable_queues_are_told_of() -> None:
    world = World()
    world.queue("durable")
    world.queue("transient", durable=False)
    world.queue("exclusive", exclusive=True)
    for name in ("durable", "transient", "exclusive"):
        world.bind("amq.fanout", name)
    world.publish("a", exchange="amq.fanout")
    world.publish("b", exchange="amq.fanout", persistent=False)
    world.publish("c", "transient")
    world.publish("d", "exclusive")
    assert numbers(world, "durable") == [1]
    assert set(world.ledger.queues) == {("/", "durable")}
    assert world.get_all("transient", no_ack=True) == "abc"
    assert world.get_all("exclusive", no_ack=True) == "abd"
    assert world.get_all("durable", no_ack=True) == "ab"
    assert numbers(world, "durable") == []


def test_a_message_in_several_queues_has_one_number_and_leaves_each_by_itself() -> None:
    world = World()
    for name in ("q", "r"):
        world.queue(name)
        world.bind("amq.fanout", name)
    world.publish("a", exchange="amq.fanout")
    assert numbers(world, "q") == numbers(world, "r") == [1]
    world.get("q", no_ack=True)
    assert (numbers(world, "q"), numbers(world, "r")) == ([], [1])


def test_declarations() -> None:
    world = World()
    queue = world.queue()
    world.queue("t", durable=False)
    for name, durable in (("e", True), ("f", False)):
        world.exchange(name, "topic", durable=durable)
        for destination in ("q", "t"):
            world.bind(name, destination, "k")
    world.bind("amq.topic", "q", "k")
    world.bind("amq.topic", "e", "k", exchange=True)
    world.bind("amq.topic", "f", "k", exchange=True)
    assert set(world.ledger.exchanges) == {("/", "e")}
    bound = {(binding.source.name, binding.destination.name) for binding in world.ledger.bindings}
    assert bound == {("e", "q"), ("amq.topic", "q"), ("amq.topic", "e")}
    world.vhost.unbind("amq.topic", queue, "k", {})
    world.vhost.unbind("f", queue, "k", {})
    world.compare()
    world.vhost.delete_exchange("f", if_unused=False)
    world.vhost.delete_exchange("e", if_unused=False)
    world.compare()
    assert (world.ledger.exchanges, world.ledger.bindings) == ({}, set())


def test_an_auto_delete_exchange_that_goes_with_another_is_told_of() -> None:
    world = World()
    world.queue()
    for name in "abc":
        world.exchange(name, "fanout", auto_delete=True)
    world.bind("a", "b", exchange=True)
    world.bind("b", "c", exchange=True)
    world.bind("c", "q")
    world.compare()
    assert len(world.ledger.exchanges) == 3
    world.delete()
    world.compare()
    assert world.ledger.exchanges == {}


def test_a_virtual_host_that_comes_later_is_recorded_as_well() -> None:
    world = World()
    other = world.broker.add_vhost("other")
    other.declare_queue("q", durable=True, exclusive=False, auto_delete=False, arguments={}, owner=None, now=world.now)
    assert set(world.ledger.queues) == {("other", "q")}
    assert world.ledger.vhosts == {"other"}
    assert world.broker.add_vhost("other") is other  # and told of once


def test_recording_may_begin_later() -> None:
    world = World()
    fresh = Ledger()
    world.broker.record(fresh)
    world.ledger = fresh
    world.queue()
    world.publish("a")
    assert numbers(world) == [1]


def test_a_queue_that_went_before_a_transaction_committed() -> None:
    """It was routed to while it was there."""
    world = World()
    gone = world.queue("gone")
    world.queue("there")
    world.delete("gone")
    message = PlainMessage("a", persistent=True)
    targets = [gone, world.vhost.queues["there"]]
    world.vhost.record_published(targets, message, world.now)
    for queue in targets:
        assert queue.enqueue(message, world.now)
    world.settle()
    assert numbers(world, "there") == [1]
    alone = PlainMessage("b", persistent=True)
    world.vhost.record_published([gone], alone, world.now)
    assert alone.lsn == 0


@pytest.mark.parametrize("mode", ["reject-publish", "reject-publish-dlx"])
def test_a_refused_message_leaves_again(mode: str) -> None:
    world = World()
    world.queue(max_length=1, overflow=mode)
    world.queue("dead")
    world.queue("r", max_length=0, overflow=mode, dead_letter_exchange="", dead_letter_routing_key="dead")
    world.publish("a")
    assert not world.publish("b")
    assert not world.publish("c", "r")
    assert (len(numbers(world)), numbers(world, "r")) == (1, [])
    assert len(numbers(world, "dead")) == (mode == "reject-publish-dlx")


def test_a_dead_letter_is_in_its_new_queue_before_it_leaves_the_old() -> None:
    world = World()
    order: list[str] = []

    class Noting(Ledger):
        def published(self, queues: list[Queue], messages: list[Message], now: int) -> None:  # type: ignore[override]
            super().published(queues, messages, now)
            order.append(f"into {queues[0].name}")

        def removed(self, queue: Queue, messages: list[Message], reason: Reason) -> None:  # type: ignore[override]
            super().removed(queue, messages, reason)
            order.append(f"out of {queue.name}")

    world.ledger = Noting()
    world.broker.record(world.ledger)
    world.queue("dead")
    world.queue(dead_letter_exchange="", dead_letter_routing_key="dead", max_length=0)
    world.publish("a")
    assert order == ["into q", "into dead", "out of q"]


def test_each_message_leaves_for_a_reason() -> None:
    world = World()
    left = world.ledger.left
    world.queue("q", delivery_limit=0)
    world.publish_all("abcdefg")
    world.get()
    world.ack("a")
    assert left == {Reason.ACKNOWLEDGED: 1}
    world.get(no_ack=True)
    assert left == {Reason.ACKNOWLEDGED: 1, Reason.TAKEN: 1}
    world.get()
    world.reject("c")
    assert left[Reason.REJECTED] == 1
    world.get()
    world.requeue("d")
    assert left[Reason.DELIVERY_LIMIT] == 1
    world.vhost.queues["q"].purge()
    assert left[Reason.PURGED] == 3
    consumer = world.consume(no_ack=True)
    world.publish("h")
    assert (consumer.got, left[Reason.TAKEN]) == (["h"], 2)
    world.queue("short", max_length=1, message_ttl=10)
    world.publish_all("ab", "short")
    assert left[Reason.MAXLEN] == 1
    world.wait(10)
    assert left[Reason.EXPIRED] == 1
    world.queue("full", max_length=0, overflow="reject-publish")
    world.publish("a", "full")
    assert left[Reason.REFUSED] == 1
    assert set(left) == set(Reason) - {Reason.COMMITTED}  # which takes a transaction


def test_dead_letters_leave_for_what_they_died_of() -> None:
    world = World()
    world.queue("dead")
    world.queue(dead_letter_exchange="", dead_letter_routing_key="dead", delivery_limit=0, max_length=3, message_ttl=9)
    world.publish_all("abcd")
    world.get()
    world.reject("b")
    world.get()
    world.requeue("c")
    world.wait(9)
    expected = (Reason.MAXLEN, Reason.REJECTED, Reason.DELIVERY_LIMIT, Reason.EXPIRED)
    assert world.ledger.left == dict.fromkeys(expected, 1)


def test_deliveries_are_told_of() -> None:
    world = World()
    queue = world.queue()
    transient = world.queue("transient", durable=False)
    world.publish_all("abc")
    world.publish("d", persistent=False)
    out = world.ledger.out
    assert out == {queue: set()}
    world.get()
    assert out == {queue: {1}}
    consumer = world.consume(prefetch=2)
    assert out == {queue: {1, 2, 3}}
    world.ack_by(consumer, 1)
    assert (consumer.held[-1].body, out) == ("d", {queue: {1, 3}})
    world.die(consumer)
    world.requeue("a")
    assert out == {queue: set()}
    world.bind("amq.fanout", "q")
    world.bind("amq.fanout", "transient")
    world.publish("e", exchange="amq.fanout")
    world.get("transient")
    assert transient.unacked == 1
    assert out == {queue: set()}


def test_many_deliveries_are_told_of_at_once() -> None:
    world = World()
    world.queue()
    world.publish_all(map(str, range(300)))
    before = world.ledger.position
    world.consume()
    assert world.ledger.position - before == 3  # handfuls


def test_returns_are_told_of() -> None:
    world = World()
    world.queue(delivery_limit=2)
    world.publish("a")
    for returns in (1, 2):
        world.get()
        world.requeue("a")
        assert world.ledger.contents[world.vhost.queues["q"]] == {1: returns}
    world.get()
    world.requeue("a")
    assert numbers(world) == []


# ---- coming back


def restored(message: PlainMessage, returns: int = 0, *, ago: int = 0, **arguments: int) -> World:
    """A world with a queue into which a message was restored that had been enqueued some time ago."""
    world = World()
    queue = world.queue(**arguments)
    queue.restore(PlainMessage("first"), world.now - ago, 0)
    queue.restore(message, world.now - ago, returns)
    world.settle()
    return world


def test_restored_messages_come_first_and_in_order() -> None:
    world = restored(PlainMessage("second"))
    world.publish("third")
    assert world.get_all(no_ack=True) == "firstsecondthird"
    assert world.broker.usage.bytes == 0


def test_restored_messages_were_redelivered_as_often_as_they_were() -> None:
    world = restored(PlainMessage("a"), 3)
    first, second = world.get(), world.get()
    assert first is not None
    assert second is not None
    assert ((first.body, first.returns), (second.body, second.returns)) == (("first", 0), ("a", 3))
    assert "x-delivery-count" not in second.headers()
    world.requeue("a")
    assert world.ready() == "a"


def test_a_delivery_limit_goes_on_counting() -> None:
    world = restored(PlainMessage("a"), 3, delivery_limit=3)
    world.get()
    held = world.get()
    assert held is not None
    assert held.headers()["x-delivery-count"] == 3
    world.requeue("a")
    assert world.ready() == ""


def test_the_time_the_broker_was_away_counts() -> None:
    world = restored(PlainMessage("a", expiration=100), ago=60, message_ttl=150)
    world.wait(39)
    assert world.ready() == "firsta"
    world.wait(1)
    assert world.ready() == "first"
    world.wait(50)
    assert world.ready() == ""


def test_what_is_overdue_expires_at_once() -> None:
    world = restored(PlainMessage("a", expiration=100), ago=5000)
    assert world.ready() == "first"


def test_restored_into_their_priorities() -> None:
    world = restored(PlainMessage("a", priority=7), max_priority=5)
    world.publish("b", priority=5)
    world.publish("c", priority=3)
    assert world.get_all() == "abcfirst"


def test_nothing_is_restored_behind_what_came_since() -> None:
    world = World()
    queue = world.queue()
    world.publish("a")
    with pytest.raises(AssertionError):
        queue.restore(PlainMessage("b"), world.now, 0)
