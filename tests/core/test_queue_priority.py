"""Priority queues: the highest first, in order within, nobody forgotten."""

from __future__ import annotations

import random

import pytest

from .fakes import World


def test_higher_first_and_in_order_within() -> None:
    world = World()
    world.queue(max_priority=5)
    with world.batch():
        for body, priority in (("a", 1), ("b", 5), ("c", 0), ("d", 5), ("e", 1), ("f", 3)):
            world.publish(body, priority=priority)
    assert world.ready() == "bdfaec"
    assert world.get_all() == "bdfaec"


def test_above_the_maximum_counts_as_the_maximum_and_none_as_zero() -> None:
    world = World()
    world.queue(max_priority=3)
    for body, priority in (("a", 3), ("b", 255), ("c", 4), ("d", 0)):
        world.publish(body, priority=priority)
    world.publish("e")
    assert world.get_all() == "abcde"


@pytest.mark.parametrize("arguments", [{}, {"max_priority": 0}])
def test_without_priorities_all_are_alike(arguments: dict[str, int]) -> None:
    world = World()
    world.queue(**arguments)
    for body, priority in (("a", 0), ("b", 9), ("c", 255)):
        world.publish(body, priority=priority)
    assert world.get_all() == "abc"


def test_all_255_levels() -> None:
    world = World()
    world.queue(max_priority=255)
    order = list(range(256))
    random.Random(1).shuffle(order)
    with world.batch():
        for priority in order:
            world.publish(f"{priority},", priority=priority)
    assert world.ready() == "".join(f"{priority}," for priority in range(255, -1, -1))
    assert "".join(world.consume(no_ack=True).got) == "".join(f"{priority}," for priority in range(255, -1, -1))


def test_requeued_messages_go_to_their_places_among_their_equals() -> None:
    world = World()
    world.queue(max_priority=2)
    for body, priority in (("a", 2), ("b", 1), ("c", 2), ("d", 1)):
        world.publish(body, priority=priority)
    assert world.get_all() == "acbd"
    world.publish("e", priority=1)
    world.requeue("d", "c")
    assert world.ready() == "cde"
    world.requeue("b", "a")
    assert world.ready() == "acbde"


def test_a_level_that_was_empty_is_seen_again() -> None:
    world = World()
    world.queue(max_priority=9)
    world.publish("a", priority=7)
    assert world.get_all() == "a"
    world.publish("b", priority=2)
    world.requeue("a")
    assert world.get_all() == "ab"
    world.publish("c", priority=7)
    world.publish("d", priority=0)
    assert world.get_all() == "cd"


def test_consumers_get_the_highest_whenever_they_have_room() -> None:
    world = World()
    world.queue(max_priority=9)
    consumer = world.consume(prefetch=1)
    with world.batch():
        for body, priority in (("a", 0), ("b", 9), ("c", 5)):
            world.publish(body, priority=priority)
    assert consumer.got == ["b"]
    world.publish("d", priority=7)
    for _ in range(3):
        world.ack_by(consumer)
    assert consumer.got == ["b", "d", "c", "a"]


def test_a_consumer_with_room_gets_all_levels() -> None:
    world = World()
    world.queue(max_priority=3)
    for number in range(300):
        world.publish(str(number), priority=number % 4)
    consumer = world.consume()
    assert consumer.got == [str(number) for level in (3, 2, 1, 0) for number in range(level, 300, 4)]


def test_what_expired_in_a_level_makes_place_for_the_next() -> None:
    world = World()
    world.queue(max_priority=3)
    world.publish("a", priority=3, expiration=10)
    world.publish("b", priority=1)
    world.wait(10)
    assert world.get_all() == "b"
