"""Queues without limits or deadlines: order, what becomes of deliveries, counters, budgets, purge and deletion."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rabbitish.core.holdings import MESSAGE_OVERHEAD_BYTES
from rabbitish.core.lane import Lane
from rabbitish.core.leaving import BURIED_COST, SWEEP_MESSAGES
from rabbitish.core.message import Message
from rabbitish.core.queue import HANDFUL_BYTES, HANDFUL_MESSAGES, Queue

from .fakes import ListConsumer, PlainMessage, World


def counters(world: World, name: str = "q") -> tuple[int, int, int, int]:
    """Ready and unacknowledged messages, and the bytes of each."""
    queue = world.vhost.queues[name]
    return queue.ready, queue.unacked, queue.ready_bytes, queue.unacked_bytes


# ---- order


def test_first_in_first_out() -> None:
    world = World()
    world.queue()
    world.publish_all("abcde")
    assert world.ready() == "abcde"
    assert world.get_all() == "abcde"
    assert world.get() is None


def test_first_in_first_out_to_a_consumer_before_and_after() -> None:
    world = World()
    world.queue()
    world.publish_all("ab")
    consumer = world.consume()
    world.publish_all("cd")
    world.publish("e")
    assert consumer.got == ["a", "b", "c", "d", "e"]
    assert consumer.redelivered == []
    assert [held.position for held in consumer.held] == [0, 1, 2, 3, 4]


def test_requeued_messages_go_to_their_old_places() -> None:
    world = World()
    world.queue()
    world.publish_all("abcdef")
    for _ in range(4):
        world.get()
    world.requeue("c")
    assert world.ready() == "cef"
    world.requeue("a")
    assert world.ready() == "acef"
    world.publish("g")
    world.requeue("d", "b")
    assert world.ready() == "abcdefg"
    returns = []
    while (held := world.get()) is not None:
        returns.append((held.body, held.returns))
    assert returns == [("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 0), ("f", 0), ("g", 0)]


def test_what_a_dead_consumer_held_goes_to_others_in_order() -> None:
    world = World()
    world.queue()
    world.publish_all("abcdef")
    dying = world.consume(prefetch=3)
    other = world.consume(prefetch=1)
    assert (dying.got, other.got) == (["a", "b", "c"], ["d"])
    world.die(dying)
    assert world.ready() == "abcef"
    other.prefetch = 10
    world.ack_by(other)
    assert other.got == ["d", "a", "b", "c", "e", "f"]
    assert other.redelivered == ["a", "b", "c"]


def test_a_message_may_come_back_without_end() -> None:
    world = World()
    world.queue()
    world.publish_all("ab")
    for returns in range(100):
        held = world.get()
        assert held is not None
        assert (held.body, held.returns) == ("a", returns)
        world.requeue("a")
    assert world.ready() == "ab"
    assert "x-delivery-count" not in held.headers()


def test_a_consumer_that_gives_back_gets_it_again() -> None:
    world = World()
    world.queue()
    consumer = world.consume(prefetch=2)
    world.publish_all("abc")
    world.requeue_by(consumer)
    assert consumer.got == ["a", "b", "a", "b"]
    assert consumer.redelivered == ["a", "b"]
    assert [held.returns for held in consumer.held] == [1, 1]


def test_one_message_in_several_queues_is_in_each_by_itself() -> None:
    world = World()
    for name in ("q", "r"):
        world.queue(name)
        world.bind("amq.fanout", name)
    world.publish("a", "", exchange="amq.fanout")
    first = world.get("q")
    assert world.ready("r") == "a"
    second = world.get("r")
    assert first is not None
    assert second is not None
    assert first.message is second.message  # nothing makes them differ
    world.requeue("a")
    assert (world.ready("q"), world.ready("r")) == ("a", "")
    world.requeue("a")
    assert (world.ready("q"), world.ready("r")) == ("a", "a")


# ---- acknowledging


def test_acknowledged_messages_are_gone() -> None:
    world = World()
    world.queue()
    world.publish_all("abc")
    for _ in range(3):
        world.get()
    world.ack("b")
    assert counters(world) == (0, 2, 0, 2)
    world.ack("c", "a")
    assert counters(world) == (0, 0, 0, 0)
    assert world.broker.usage.bytes == 0


def test_no_ack_messages_are_gone_when_they_leave() -> None:
    world = World()
    world.queue()
    world.publish_all("abc")
    world.get(no_ack=True)
    assert counters(world) == (2, 0, 2, 0)
    consumer = world.consume(no_ack=True)
    assert (consumer.got, consumer.held) == (["b", "c"], [])
    assert counters(world) == (0, 0, 0, 0)
    assert world.broker.usage.bytes == 0


def test_rejected_messages_are_gone_where_there_is_no_dead_letter_exchange() -> None:
    world = World()
    world.queue()
    world.publish_all("ab")
    world.get()
    world.reject("a")
    assert counters(world) == (1, 0, 1, 0)


def test_counters_and_usage() -> None:
    world = World()
    world.queue()
    world.publish("a", size=1000)
    world.publish("b", size=20)
    world.publish("c", size=3)
    assert counters(world) == (3, 0, 1023, 0)
    assert world.broker.usage.bytes == 1023 + 3 * MESSAGE_OVERHEAD_BYTES
    world.get()
    world.get(no_ack=True)
    assert counters(world) == (1, 1, 3, 1000)
    assert world.broker.usage.bytes == 1003 + 2 * MESSAGE_OVERHEAD_BYTES
    world.requeue("a")
    assert counters(world) == (2, 0, 1003, 0)
    assert world.broker.usage.bytes == 1003 + 2 * MESSAGE_OVERHEAD_BYTES
    world.get()
    world.reject("a")
    assert counters(world) == (1, 0, 3, 0)
    assert world.broker.usage.bytes == 3 + MESSAGE_OVERHEAD_BYTES


def test_messages_published_alike_come_in_together() -> None:
    world = World()
    queue = world.queue()
    messages = [PlainMessage("abc"), PlainMessage("def")]
    with world.batch():
        world.publish("first")
        queue.enqueue_alike(list(messages), 6, world.now)
        world.publish("last")
    assert counters(world) == (4, 0, 15, 0)
    queue.enqueue_alike([PlainMessage("ghi")], 3, world.now)
    world.settle()
    assert world.get_all() == "firstabcdeflastghi"


@pytest.mark.parametrize("arguments", [{}, {"max_priority": 5}, {"message_ttl": 20}])
def test_messages_published_alike_with_an_expiration_each_have_it(arguments: dict[str, int]) -> None:
    world = World()
    queue = world.queue(**arguments)
    assert queue.holds
    queue.enqueue_alike([PlainMessage(body, expiration=10) for body in "ab"], 2, world.now)
    queue.enqueue_alike([PlainMessage(body) for body in "cd"], 2, world.now)
    assert world.ready() == "abcd"
    world.wait(10)
    assert world.ready() == "cd"


# ---- get


def test_get_marks_redelivered_messages() -> None:
    world = World()
    world.queue()
    world.publish("a")
    first = world.get()
    world.requeue("a")
    second = world.get()
    assert first is not None
    assert second is not None
    assert (first.returns, second.returns) == (0, 1)


def test_consumers_come_before_get() -> None:
    world = World()
    world.queue()
    consumer = world.consume(prefetch=1)
    with world.batch():
        world.publish_all("ab")
        held = world.get()
    assert held is not None
    assert (consumer.got, held.body) == (["a"], "b")


def test_get_is_not_counted_for_a_consumers_prefetch() -> None:
    world = World()
    world.queue()
    world.publish_all("abc")
    world.get()
    consumer = world.consume(prefetch=1)
    assert consumer.got == ["b"]


# ---- budgets


def test_settle_hands_out_a_budget_and_says_that_more_is_left() -> None:
    world = World(settle_budget=10)
    queue = world.queue()
    consumer = world.consume(no_ack=True)
    with world.batch():
        world.publish_all([str(number) for number in range(25)])
        assert world.broker.settle(world.now) == world.now
        assert (len(consumer.got), queue.ready) == (10, 15)
        assert world.broker.restless
        assert world.broker.settle(world.now) == world.now
        assert (len(consumer.got), queue.ready) == (20, 5)
        assert world.broker.settle(world.now) is None
        assert not world.broker.restless
    assert consumer.got == [str(number) for number in range(25)]


def test_a_budget_that_is_just_enough_leaves_nothing() -> None:
    world = World(settle_budget=10)
    world.queue()
    consumer = world.consume()
    with world.batch():
        world.publish_all([str(number) for number in range(10)])
        assert world.broker.settle(world.now) is None
    assert len(consumer.got) == 10


def test_a_flooded_queue_leaves_others_their_turn() -> None:
    world = World(settle_budget=10)
    for name in ("flood", "q"):
        world.queue(name)
    flooded, consumer = world.consume("flood"), world.consume("q")
    with world.batch():
        world.publish_all(["x"] * 1000, "flood")
        world.publish("a", "q")
        world.broker.settle(world.now)
        assert (len(flooded.got), consumer.got) == (10, ["a"])


@pytest.mark.parametrize(("size", "most"), [(10, HANDFUL_MESSAGES), (HANDFUL_BYTES // 10, 10), (3 * HANDFUL_BYTES, 1)])
def test_a_consumer_is_asked_for_its_room_again_after_a_handful(size: int, most: int) -> None:
    world = World()
    world.queue()
    handfuls: list[int] = []

    class Noting(ListConsumer):
        def deliver(self, lane: Lane, first: int, messages: Sequence[Message], returns: int, step: int = 1) -> int:
            handfuls.append(len(messages))
            return super().deliver(lane, first, messages, returns, step)

    consumer = world.consume()
    consumer.__class__ = Noting
    with world.batch():
        for number in range(300):
            world.publish(str(number), size=size)
    assert consumer.got == [str(number) for number in range(300)]
    assert max(handfuls) == handfuls[0] == most


def test_a_budget_is_not_used_up_by_consumers_without_room() -> None:
    world = World(settle_budget=10)
    world.queue()
    full = [world.consume(prefetch=1) for _ in range(50)]
    world.publish_all(["x"] * 50)
    consumer = world.consume(prefetch=7)
    with world.batch():
        world.publish_all("abcdefghij")
        assert world.broker.settle(world.now) is None
    assert (len(consumer.got), world.ready()) == (7, "hij")
    assert all(len(other.got) == 1 for other in full)


def test_an_expiring_backlog_is_swept_in_pieces() -> None:
    world = World()
    queue = world.queue(message_ttl=10)
    world.publish_all(["x"] * (2 * SWEEP_MESSAGES + 5))
    world.now += 11
    world.broker.settle(world.now)
    assert 0 < queue.ready < 2 * SWEEP_MESSAGES
    world.settle()
    assert queue.ready == 0


def test_nothing_expired_is_delivered_however_much_there_is_of_it() -> None:
    world = World()
    world.queue(message_ttl=10)
    world.publish_all(["x"] * (2 * SWEEP_MESSAGES + 5))
    world.now += 9
    world.publish_all("ab")
    world.now += 2
    with world.batch():
        consumer = world.consume()
        world.broker.settle(world.now)
        assert consumer.got == []
    assert consumer.got == ["a", "b"]


def test_get_passes_over_all_that_has_expired() -> None:
    world = World()
    world.queue(message_ttl=10)
    world.publish_all(["x"] * (4 * SWEEP_MESSAGES + 5))
    world.now += 9
    world.publish_all("ab")
    world.now += 2
    assert world.get_all() == "ab"


def test_a_queue_far_over_its_limit_is_cut_in_pieces() -> None:
    world = World()
    queue = world.queue(max_length=3)
    with world.batch():
        world.publish_all([*["x"] * (2 * SWEEP_MESSAGES), *"abc"])
        assert world.broker.settle(world.now) == world.now
        assert 3 < queue.ready <= SWEEP_MESSAGES + 3
    assert world.ready() == "abc"


def test_what_is_dead_lettered_goes_in_smaller_pieces() -> None:
    for limit in ({"message_ttl": 10}, {"max_length": 0}):
        world = World()
        dead = world.queue("dead")
        queue = world.queue("q", **limit, dead_letter_exchange="", dead_letter_routing_key="dead")
        with world.batch():
            world.publish_all(["x"] * 500)
            world.now += 11
            world.broker.settle(world.now)
            assert queue.ready > 0 and 0 < dead.ready <= 2 * SWEEP_MESSAGES // BURIED_COST
        assert (queue.ready, dead.ready) == (0, 500)


# ---- purge and deletion


def test_purge_takes_what_is_ready_and_tells_how_many() -> None:
    world = World()
    queue = world.queue()
    world.publish_all("abcde")
    for _ in range(3):
        world.get()
    world.requeue("b")
    assert queue.purge() == 3
    world.settle()
    assert counters(world) == (0, 2, 0, 2)
    assert queue.purge() == 0
    world.publish("x")
    world.requeue("a", "c")
    assert world.ready() == "acx"


def test_purge_of_all_priorities() -> None:
    world = World()
    queue = world.queue(max_priority=3)
    for priority in range(4):
        world.publish(str(priority), priority=priority)
    assert queue.purge() == 4
    world.settle()
    assert (world.ready(), world.broker.usage.bytes) == ("", 0)
    world.publish("a", priority=2)
    assert world.get_all() == "a"


def test_purged_messages_do_not_expire_later() -> None:
    world = World()
    world.queue("dead")
    queue = world.queue(message_ttl=100, dead_letter_exchange="", dead_letter_routing_key="dead")
    world.publish_all("abc")
    world.get()
    assert queue.purge() == 2
    world.settle()
    world.wait(200)
    assert world.ready("dead") == ""
    world.requeue("a")
    assert world.ready("dead") == "a"


def test_delete_tells_how_many_were_ready_and_frees_their_memory() -> None:
    world = World()
    queue = world.queue()
    world.publish_all("abc")
    world.get()
    assert world.delete() == 2
    assert queue.deleted
    assert world.broker.usage.bytes == 0


def test_deliveries_of_a_deleted_queue_end_in_nothing() -> None:
    world = World()
    world.queue("dead")
    world.queue(dead_letter_exchange="", dead_letter_routing_key="dead", delivery_limit=0)
    consumer = world.consume(prefetch=5)
    world.publish_all("abcdefgh")
    world.delete()
    world.queue()  # another one of the same name
    world.ack_by(consumer, 1)
    world.requeue_by(consumer, 2)
    world.reject_by(consumer)
    world.cancel(consumer)
    assert (world.ready("q"), world.ready("dead"), world.broker.usage.bytes) == ("", "", 0)
    assert world.broker.deadlines.next_due() is None


@pytest.mark.parametrize("arguments", [{}, {"message_ttl": 5}, {"max_priority": 5}])
def test_a_deleted_queue_takes_nothing_and_refuses_nothing(arguments: dict[str, int]) -> None:
    """As when a transaction routed to it before it went: the publisher gets its confirm."""
    world = World()
    queue = world.queue(**arguments)
    world.delete()
    assert queue.enqueue(PlainMessage("a"), world.now)
    queue.enqueue_alike([PlainMessage("b")], 1, world.now)
    world.settle()
    assert (queue.ready, world.broker.usage.bytes) == (0, 0)


def test_a_queue_that_is_marked_while_it_is_deleted_is_not_settled() -> None:
    world = World()
    queue = world.queue()
    with world.batch():
        world.publish("a")
        world.delete()
        assert world.broker.restless
    assert not queue.ready
    assert not world.broker.restless


def test_acks_of_a_batch_are_taken_together_and_with_what_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    queue = world.queue()
    first, second = world.consume(prefetch=1), world.consume(prefetch=1)
    world.publish_all("abcd")
    settled: list[str] = []
    settle = Queue.settle

    def count(self: Queue, now: int, budget: int = HANDFUL_MESSAGES) -> bool:
        settled.append(self.name)
        return settle(self, now, budget)

    monkeypatch.setattr(Queue, "settle", count)
    with world.batch():
        for consumer in (first, second):
            (held,) = consumer.held
            consumer.held.clear()
            queue.acknowledge_soon([held.message])
            queue.wake(consumer)
        assert queue.unacked == 2 and not settled
    assert settled == ["q"]
    assert (first.got, second.got) == (["a", "c"], ["b", "d"])
    assert counters(world) == (0, 2, 0, 2)


def test_acks_behind_the_deletion_of_their_queue_keep_nothing() -> None:
    world = World()
    queue = world.queue()
    consumer = world.consume()
    world.publish("a")
    world.delete()
    queue.acknowledge_soon([consumer.held.pop().message])
    assert not queue.acknowledged and not world.broker.restless
