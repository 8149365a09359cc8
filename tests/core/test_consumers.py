"""Whose turn it is: round robin, room, priorities, exclusive use, single active consumers, and the end of consumers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rabbitish.core.consumer import Consumers
from rabbitish.core.lane import Lane
from rabbitish.core.message import Message
from rabbitish.errors import ChannelError, ReplyCode

from .fakes import ListConsumer, World, bodies


def letters(count: int) -> list[str]:
    """The bodies "0", "1", ..."""
    return [str(number) for number in range(count)]


# ---- round robin


def test_one_each_in_turn() -> None:
    world = World()
    world.queue()
    consumers = [world.consume() for _ in range(3)]
    world.publish_all(letters(9))
    assert [consumer.got for consumer in consumers] == [["0", "3", "6"], ["1", "4", "7"], ["2", "5", "8"]]


def test_turns_go_on_from_batch_to_batch() -> None:
    world = World()
    world.queue()
    consumers = [world.consume() for _ in range(3)]
    for number in letters(7):
        world.publish(number)
    assert [consumer.got for consumer in consumers] == [["0", "3", "6"], ["1", "4"], ["2", "5"]]


def test_each_is_dealt_its_share_at_once_and_turns_go_on_after_it() -> None:
    world = World()
    world.queue()
    shares: list[int] = []

    class Noting(ListConsumer):
        def deliver(self, lane: Lane, first: int, messages: Sequence[Message], returns: int, step: int = 1) -> int:
            shares.append(len(messages))
            return super().deliver(lane, first, messages, returns, step)

    consumers = [world.consume(prefetch=room) for room in (10, 2, 10)]
    for consumer in consumers:
        consumer.__class__ = Noting
    world.publish_all(letters(11))
    assert [consumer.got for consumer in consumers] == [["0", "3", "6", "8", "10"], ["1", "4"], ["2", "5", "7", "9"]]
    assert shares == [2, 2, 2, 2, 2, 1]


def test_what_was_dealt_goes_back_to_its_old_places() -> None:
    world = World()
    world.queue()
    one, two = world.consume(prefetch=3), world.consume(prefetch=3)
    world.publish_all("abcdefghi")
    assert (one.got, two.got) == (list("ace"), list("bdf"))
    world.die(one)
    assert world.ready() == "aceghi"
    world.die(two)
    assert world.ready() == "abcdefghi"


def test_on_one_channel_order_is_kept() -> None:
    world = World()
    world.queue()
    order: list[str] = []

    class Noting(ListConsumer):
        def deliver(self, lane: Lane, first: int, messages: Sequence[Message], returns: int, step: int = 1) -> int:
            order.extend(bodies(messages))
            return super().deliver(lane, first, messages, returns, step)

    consumers = [world.consume() for _ in range(3)]
    consumers[2].channel = consumers[0].channel
    for consumer in consumers:
        consumer.__class__ = Noting
    world.publish_all(letters(9))
    assert order == letters(9)
    assert [consumer.got for consumer in consumers] == [["0", "3", "6"], ["1", "4", "7"], ["2", "5", "8"]]


def test_fair_also_when_each_batch_is_not_a_multiple() -> None:
    world = World()
    world.queue()
    consumers = [world.consume() for _ in range(4)]
    for _ in range(20):
        world.publish_all("abcdef")
    assert {len(consumer.got) for consumer in consumers} == {30}


def test_a_new_consumer_comes_after_those_that_are_there() -> None:
    world = World()
    world.queue()
    first = world.consume()
    world.publish("a")
    second = world.consume()
    world.publish("b")
    world.publish("c")
    assert (first.got, second.got) == (["a", "b"], ["c"])


def test_who_has_no_room_is_passed_over() -> None:
    world = World()
    world.queue()
    small, large = world.consume(prefetch=1), world.consume(prefetch=4)
    world.publish_all("abcdefg")
    assert (small.got, large.got, world.ready()) == (["a"], ["b", "c", "d", "e"], "fg")
    assert (small.waiting, large.waiting) == (True, True)
    world.ack_by(small)
    assert (small.got, world.ready()) == (["a", "f"], "g")


def test_who_made_room_gets_turns_again() -> None:
    world = World()
    world.queue()
    one, two = world.consume(prefetch=1), world.consume(prefetch=1)
    world.publish_all("abcdef")
    for _ in range(2):
        world.ack_by(two)
    assert (one.got, two.got) == (["a"], ["b", "c", "d"])
    world.ack_by(one)
    assert one.got == ["a", "e"]


def test_waking_one_that_does_not_wait_changes_nothing() -> None:
    world = World()
    world.queue()
    consumer = world.consume()
    world.wake(consumer)
    world.publish_all("ab")
    assert consumer.got == ["a", "b"]
    world.broker.check()


def test_waking_without_having_room() -> None:
    world = World()
    world.queue()
    consumer = world.consume(prefetch=1)
    world.publish_all("ab")
    world.wake(consumer)
    world.settle()
    assert (consumer.got, consumer.waiting) == (["a"], True)


def test_a_consumer_with_no_room_at_all() -> None:
    world = World()
    world.queue()
    none, some = world.consume(prefetch=0), world.consume()
    world.publish_all("ab")
    assert (none.got, some.got) == ([], ["a", "b"])
    none.prefetch = 5
    world.wake(none)
    world.settle()
    world.publish_all("cd")
    assert (none.got, some.got) == (["d"], ["a", "b", "c"])


def test_hundreds_of_idle_consumers() -> None:
    world = World()
    world.queue()
    full = [world.consume(prefetch=1) for _ in range(300)]
    world.publish_all(letters(300))
    asked = 0

    class Asked(ListConsumer):
        def room(self) -> int:
            nonlocal asked
            asked += 1
            return super().room()

    for consumer in full:
        consumer.__class__ = Asked
    busy = world.consume(no_ack=True)
    assert asked <= 300
    for number in letters(100):
        world.publish(number)
    assert len(busy.got) == 100
    assert asked <= 300


# ---- priorities


def test_the_highest_priority_first_until_it_is_full() -> None:
    world = World()
    world.queue()
    low = world.consume(priority=-5)
    plain = world.consume(prefetch=2)
    high = world.consume(prefetch=2, priority=10)
    world.publish_all("abcdefg")
    assert (high.got, plain.got, low.got) == (["a", "b"], ["c", "d"], ["e", "f", "g"])
    world.ack_by(plain, 1)
    world.ack_by(high, 1)
    world.publish_all("hij")
    assert (high.got[2:], plain.got[2:], low.got[3:]) == (["h"], ["i"], ["j"])


def test_round_robin_among_equals() -> None:
    world = World()
    world.queue()
    others = [world.consume() for _ in range(2)]
    high = [world.consume(priority=1, prefetch=2) for _ in range(2)]
    world.publish_all("abcdef")
    assert [consumer.got for consumer in high + others] == [["a", "c"], ["b", "d"], ["e"], ["f"]]


def test_the_last_of_a_priority_leaves_its_place_to_the_next() -> None:
    world = World()
    world.queue()
    low, high = world.consume(), world.consume(priority=1)
    world.cancel(high)
    world.publish("a")
    assert low.got == ["a"]
    world.consume(priority=1, no_ack=True)
    world.publish("b")
    assert low.got == ["a"]


# ---- cancelling


def test_nothing_comes_after_cancel_and_what_is_held_stays() -> None:
    world = World()
    world.queue()
    consumer = world.consume()
    world.publish_all("ab")
    world.cancel(consumer)
    world.publish("c")
    assert (consumer.got, world.ready()) == (["a", "b"], "c")
    assert world.vhost.queues["q"].unacked == 2
    world.ack_by(consumer, 1)
    world.requeue_by(consumer)
    assert (world.ready(), world.vhost.queues["q"].unacked) == ("bc", 0)


def test_a_cancelled_consumer_does_not_come_back_when_it_has_room() -> None:
    world = World()
    world.queue()
    consumer = world.consume(prefetch=1)
    world.publish_all("ab")
    assert consumer.waiting
    world.cancel(consumer)
    world.ack_by(consumer)
    assert (consumer.got, world.ready()) == (["a"], "b")
    assert len(world.vhost.queues["q"].consumers) == 0


def test_cancelling_the_one_whose_turn_it_is() -> None:
    world = World()
    world.queue()
    consumers = [world.consume() for _ in range(3)]
    world.publish("a")
    world.cancel(consumers[1])
    world.publish_all("bc")
    assert [consumer.got for consumer in consumers] == [["a", "c"], [], ["b"]]


def test_consumers_are_listed_in_order_of_registration() -> None:
    world = World()
    queue = world.queue()
    consumers = [world.consume(priority=priority) for priority in (0, 5, -1, 5)]
    assert list(queue.consumers) == consumers
    assert len(queue.consumers) == 4
    world.cancel(consumers[1])
    assert list(queue.consumers) == [consumers[0], *consumers[2:]]


# ---- exclusive


def refused(world: World, **options: bool) -> None:
    """Consuming is refused."""
    with pytest.raises(ChannelError) as error:
        world.consume(**options)  # type: ignore[arg-type]
    assert error.value.code is ReplyCode.ACCESS_REFUSED
    assert error.value.text == "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"


def test_an_exclusive_consumer_is_alone() -> None:
    world = World()
    world.queue()
    consumer = world.consume(exclusive=True)
    refused(world)
    refused(world, exclusive=True)
    world.publish("a")
    assert consumer.got == ["a"]
    world.cancel(consumer)
    other = world.consume()
    refused(world, exclusive=True)
    world.cancel(other)
    world.consume(exclusive=True)


def test_get_is_not_shut_out_by_an_exclusive_consumer() -> None:
    world = World()
    world.queue()
    world.consume(exclusive=True, prefetch=0)
    world.publish("a")
    assert world.get() is not None


def test_nobody_is_exclusive_where_one_is_active_anyway() -> None:
    world = World()
    world.queue(single_active_consumer=True)
    refused(world, exclusive=True)
    world.consume()
    refused(world, exclusive=True)


# ---- single active consumer


def test_one_gets_everything_until_it_goes() -> None:
    world = World()
    queue = world.queue(single_active_consumer=True)
    first, second, third = (world.consume() for _ in range(3))
    world.publish_all("ab")
    assert (first.got, queue.consumers.active) == (["a", "b"], first)
    world.cancel(second)
    world.publish("c")
    world.cancel(first)
    world.publish("d")
    assert (first.got, second.got, third.got) == (["a", "b", "c"], [], ["d"])
    world.cancel(third)
    world.publish("e")
    assert (world.ready(), queue.consumers.active) == ("e", None)
    assert world.consume().got == ["e"]


def test_a_full_active_one_is_not_helped_out() -> None:
    world = World()
    world.queue(single_active_consumer=True)
    first, second = world.consume(prefetch=1), world.consume()
    world.publish_all("ab")
    assert (first.got, second.got, world.ready()) == (["a"], [], "b")
    world.ack_by(first)
    assert first.got == ["a", "b"]


def test_what_the_active_one_held_goes_to_its_successor_in_order() -> None:
    world = World()
    world.queue(single_active_consumer=True)
    first, second = world.consume(prefetch=2), world.consume()
    world.publish_all("abcd")
    world.die(first)
    assert (second.got, second.redelivered) == (["a", "b", "c", "d"], ["a", "b"])


def test_the_next_of_the_highest_priority_takes_over() -> None:
    world = World()
    queue = world.queue(single_active_consumer=True)
    first, _low, high, _late = (world.consume(priority=priority) for priority in (0, 1, 2, 2))
    assert queue.consumers.active is first
    world.cancel(first)
    assert queue.consumers.active is high


def test_a_passive_one_is_not_woken_into_a_turn() -> None:
    world = World()
    world.queue(single_active_consumer=True)
    first, second = world.consume(prefetch=1), world.consume(prefetch=1)
    world.publish_all("ab")
    world.wake(second)
    world.settle()
    assert (first.got, second.got) == (["a"], [])


# ---- queues that go with their consumers


def test_an_auto_delete_queue_goes_with_its_last_consumer() -> None:
    world = World()
    queue = world.queue(auto_delete=True)
    first, second = world.consume(), world.consume()
    world.publish("a")
    world.cancel(first)
    assert not queue.deleted
    world.cancel(second)
    assert queue.deleted
    assert world.vhost.queues == {}
    assert (first.told, second.told) == (0, 0)


def test_an_auto_delete_queue_that_nobody_consumed_stays() -> None:
    world = World()
    queue = world.queue(auto_delete=True)
    world.publish("a")
    world.get()
    world.ack("a")
    world.wait(10**9)
    assert not queue.deleted


def test_a_queue_that_is_not_auto_delete_stays() -> None:
    world = World()
    queue = world.queue()
    world.cancel(world.consume())
    assert not queue.deleted


# ---- being told that the queue has gone


def test_consumers_are_told_once_and_not_before_the_batch_is_done() -> None:
    world = World()
    world.queue()
    consumers = [world.consume() for _ in range(2)]
    with world.batch():
        world.delete()
        assert [consumer.told for consumer in consumers] == [0, 0]
    assert [consumer.told for consumer in consumers] == [1, 1]
    world.settle()
    world.cancel(consumers[0])  # in vain, as when both happen at once
    assert [consumer.told for consumer in consumers] == [1, 1]


def test_a_consumer_that_deletes_another_queue_when_told() -> None:
    world = World()
    world.queue("q")
    world.queue("r")
    other = world.consume("r")
    first = world.consume("q")

    class Deleting(ListConsumer):
        def queue_gone(self) -> None:
            super().queue_gone()
            world.vhost.drop_queue(world.vhost.queues["r"])

    first.__class__ = Deleting
    world.delete("q")
    assert (first.told, other.told) == (1, 1)


def test_consumers_by_themselves() -> None:
    consumers = Consumers(single_active=False)
    assert consumers.next() is None
    full = ListConsumer(prefetch=0)
    consumers.add(full)
    assert consumers.next() is None
    assert full.waiting
    consumers.remove(full)
    assert not consumers.ready(full)
    consumers.check()
