"""Time to live of messages and of queues: at the head and behind it, for a moment and for a year."""

from __future__ import annotations

import pytest

from .fakes import START, YEAR, World

HOUR = 3600 * 1000


def world_with_dead(name: str = "q", **arguments: int | str) -> World:
    """A world with a queue whose dead letters go to the queue "dead"."""
    world = World()
    world.queue("dead")
    world.queue(name, dead_letter_exchange="", dead_letter_routing_key="dead", **arguments)
    return world


# ---- messages


@pytest.mark.parametrize("ttl", [1, 1000, YEAR])
def test_the_queues_ttl(ttl: int) -> None:
    world = world_with_dead(message_ttl=ttl)
    world.publish("a")
    world.wait(ttl - 1)
    assert (world.ready(), world.ready("dead")) == ("a", "")
    world.wait(1)
    assert (world.ready(), world.ready("dead")) == ("", "a")


@pytest.mark.parametrize("ttl", [1, 1000, YEAR])
def test_the_messages_own_ttl(ttl: int) -> None:
    world = world_with_dead()
    world.publish("a", expiration=ttl)
    world.publish("b")
    world.wait(ttl - 1)
    assert (world.ready(), world.ready("dead")) == ("ab", "")
    world.wait(1)
    assert (world.ready(), world.ready("dead")) == ("b", "a")


@pytest.mark.parametrize(("queue", "own", "lives"), [(10, 20, 10), (20, 10, 10), (10, 10, 10), (10, 0, 0), (0, 10, 0)])
def test_the_lower_one_wins(queue: int, own: int, lives: int) -> None:
    world = world_with_dead(message_ttl=queue)
    world.publish("a", expiration=own)
    if lives:
        world.wait(lives - 1)
        assert (world.ready(), world.ready("dead")) == ("a", "")
        world.wait(1)
    assert (world.ready(), world.ready("dead")) == ("", "a")


def test_expired_without_a_dead_letter_exchange_is_gone() -> None:
    world = World()
    world.queue(message_ttl=10)
    world.publish("a")
    world.wait(10)
    assert (world.ready(), world.broker.usage.bytes) == ("", 0)


def test_behind_the_head_and_out_of_order() -> None:
    world = world_with_dead()
    for body, expiration in (("a", None), ("b", 30), ("c", 10), ("d", None), ("e", 20)):
        world.publish(body, expiration=expiration)
    world.wait(10)
    assert (world.ready(), world.ready("dead")) == ("abde", "c")
    assert world.vhost.queues["q"].ready == 4
    world.wait(20)
    assert (world.ready(), world.ready("dead")) == ("ad", "ceb")


def test_many_that_expire_behind_a_head_that_stays() -> None:
    world = world_with_dead()
    world.publish("a")
    world.publish_all(["x"] * 1000, expiration=10)
    world.publish("b", expiration=20)
    world.publish("c")
    world.wait(10)
    assert (world.ready(), world.vhost.queues["dead"].ready) == ("abc", 1000)
    world.wait(10)
    assert world.get_all() == "ac"


def test_a_ttl_of_zero_needs_a_consumer_that_waits() -> None:
    world = world_with_dead(message_ttl=0)
    world.publish("a")
    assert world.ready("dead") == "a"
    consumer = world.consume(prefetch=2)
    world.publish_all("bcd")
    assert (consumer.got, world.ready("dead")) == (["b", "c"], "ad")
    world.requeue_by(consumer, 1)  # which gets it again, because it waits
    assert consumer.got == ["b", "c", "b"]
    world.die(consumer)
    assert world.ready("dead") == "adbc"
    assert world.get() is None


def test_a_ttl_of_zero_in_a_flood_to_a_consumer_with_room() -> None:
    """However small a budget: what a consumer waits for is not to expire between two settles."""
    world = World(settle_budget=10)
    queue = world.queue(message_ttl=0)
    consumer = world.consume()
    texts = [str(number) for number in range(500)]
    with world.batch():
        world.publish_all(texts[:300])
        queue.settle(world.now)  # as for the count in a declare-ok
        world.publish_all(texts[300:])
        world.broker.settle(world.now)
        world.now += 5
    assert consumer.got == texts


def test_at_its_last_millisecond_a_message_goes_to_a_consumer_that_waits_but_not_to_get() -> None:
    world = world_with_dead(message_ttl=10)
    world.publish("a")
    world.now += 10
    assert world.get() is None
    assert world.ready("dead") == "a"
    world.publish("b")
    world.now += 10
    consumer = world.consume()
    assert consumer.got == ["b"]


def test_a_late_call_delivers_nothing_that_is_overdue() -> None:
    world = world_with_dead(message_ttl=10)
    world.publish_all("ab")
    world.now += 11
    consumer = world.consume()
    assert (consumer.got, world.ready("dead")) == ([], "ab")


def test_what_is_out_does_not_expire_but_keeps_its_deadline() -> None:
    world = world_with_dead(message_ttl=100)
    world.publish_all("ab")
    world.get()
    world.wait(50)
    world.requeue("a")
    world.wait(49)
    assert world.ready() == "ab"
    world.get()
    world.wait(1)
    assert world.ready("dead") == "b"
    world.wait(1000)
    assert world.ready("dead") == "b"
    world.requeue("a")
    assert (world.ready(), world.ready("dead")) == ("", "ba")


def test_returned_messages_expire_in_order_with_the_others() -> None:
    world = world_with_dead(message_ttl=100)
    world.publish_all("abcd")
    for _ in range(3):
        world.get()
    world.requeue("c", "a")
    world.wait(100)
    assert world.ready("dead") == "acd"


def test_each_queue_gives_a_message_a_time_of_its_own() -> None:
    world = World()
    for name, ttl in (("short", 10), ("long", 1000)):
        world.queue(name, message_ttl=ttl)
        world.bind("amq.fanout", name)
    world.queue("ever")
    world.bind("amq.fanout", "ever")
    world.publish("a", exchange="amq.fanout")
    world.publish("b", exchange="amq.fanout", expiration=20)
    world.wait(10)
    assert (world.ready("short"), world.ready("long"), world.ready("ever")) == ("", "ab", "ab")
    world.wait(10)
    assert (world.ready("long"), world.ready("ever")) == ("a", "a")
    world.wait(980)
    assert (world.ready("long"), world.ready("ever")) == ("", "a")


def test_the_broker_sleeps_until_the_first_deadline() -> None:
    world = World()
    world.queue(message_ttl=1000)
    assert world.settle() is None
    world.publish("a")
    assert world.settle() == START + 1000
    world.wait(400)
    world.publish("b")
    assert world.settle() == START + 1000
    world.wait(600)
    assert world.settle() == START + 1400
    world.wait(400)
    assert world.settle() is None


def test_a_deadline_that_came_for_nothing_is_no_harm() -> None:
    world = World()
    world.queue(message_ttl=1000)
    world.publish("a")
    assert world.get_all(no_ack=True) == "a"
    world.wait(500)
    world.publish("b")
    world.wait(999)
    assert world.ready() == "b"
    world.wait(1)
    assert world.ready() == ""


def test_ttl_in_a_priority_queue_is_seen_in_every_level() -> None:
    world = world_with_dead(max_priority=9)
    world.publish("a", priority=9)
    world.publish("b", priority=5, expiration=20)
    world.publish("c", expiration=10)
    world.publish("d")
    world.publish("e", priority=3, expiration=0)
    assert world.ready("dead") == "e"
    world.wait(10)
    assert (world.ready(), world.ready("dead")) == ("abd", "ec")
    world.wait(10)
    assert (world.ready(), world.ready("dead")) == ("ad", "ecb")


def test_a_year_of_ttls_runs_in_a_second() -> None:
    """Eight messages a day; each lives for a day or as long as it says itself, and they die in that order."""
    day = 24 * HOUR
    world = world_with_dead(message_ttl=day)
    undertaker = world.consume("dead", no_ack=True)
    own = [None, HOUR, 1000, 30 * day]
    expected = []
    for number in range(365 * 8):
        expiration = own[number % 4]
        world.publish(str(number), expiration=expiration)
        expected.append((number * 3 * HOUR + min(expiration or day, day), number))
        world.wait(3 * HOUR)
    assert world.elapsed == YEAR
    assert world.vhost.queues["q"].ready == 3  # two of four in the last day, but for the one that just went
    world.wait(day)
    assert undertaker.got == [str(number) for _, number in sorted(expected)]


# ---- queues


def test_an_idle_queue_expires() -> None:
    world = World()
    queue = world.queue(expires=1000)
    world.publish("a")
    world.wait(999)
    assert not queue.deleted
    world.wait(1)
    assert queue.deleted
    assert (world.vhost.queues, world.broker.usage.bytes) == ({}, 0)


def test_an_expired_queue_does_not_dead_letter() -> None:
    world = world_with_dead(expires=1000)
    world.publish("a")
    world.wait(1000)
    assert world.ready("dead") == ""
    assert "q" not in world.vhost.queues


@pytest.mark.parametrize("use", ["declare", "passive", "get", "get of a message"])
def test_use_begins_the_time_anew(use: str) -> None:
    world = World()
    queue = world.queue(expires=1000)
    for _ in range(5):
        world.wait(900)
        if use == "declare":
            assert world.queue(expires=1000) is queue
        elif use == "passive":
            assert world.vhost.passive_queue("q", world.me, world.now) is queue
        else:
            if use == "get of a message":
                world.publish("a")
            world.get(no_ack=True)
    world.wait(999)
    assert not queue.deleted
    world.wait(1)
    assert queue.deleted


@pytest.mark.parametrize("use", ["publish", "purge", "bind", "ack", "requeue"])
def test_what_is_no_use(use: str) -> None:
    world = World()
    queue = world.queue(expires=1000)
    world.publish("z")
    world.get()
    world.wait(900)
    if use == "publish":
        world.publish("a")
    elif use == "purge":
        queue.purge()
    elif use == "bind":
        world.bind("amq.direct", "q", "k")
    elif use == "ack":
        world.ack("z")
    else:
        world.requeue("z")
    world.wait(100)
    assert queue.deleted


def test_a_consumer_keeps_a_queue() -> None:
    world = World()
    queue = world.queue(expires=1000)
    consumer = world.consume()
    world.wait(YEAR)
    other = world.consume()
    world.cancel(consumer)
    world.wait(YEAR)
    assert not queue.deleted
    world.cancel(other)
    world.wait(999)
    assert not queue.deleted
    world.wait(1)
    assert queue.deleted
    assert (consumer.told, other.told) == (0, 0)


def test_a_consumer_that_comes_late_enough_to_be_early() -> None:
    world = World()
    queue = world.queue(expires=1000)
    world.wait(999)
    consumer = world.consume()
    world.wait(5000)
    world.cancel(consumer)
    world.wait(500)
    consumer = world.consume()
    world.wait(5000)
    assert not queue.deleted


def test_expiry_of_messages_and_queue_do_not_get_into_each_others_way() -> None:
    world = World()
    queue = world.queue(expires=1000, message_ttl=300)
    world.publish("a")
    world.wait(300)
    assert (queue.ready, queue.deleted) == (0, False)
    world.wait(600)
    world.publish("b")
    world.wait(99)
    assert (queue.ready, queue.deleted) == (1, False)
    world.wait(1)
    assert queue.deleted
    assert world.settle() is None


def test_a_deleted_queue_does_not_expire() -> None:
    world = World()
    world.queue(expires=1000)
    world.wait(500)
    world.delete()
    queue = world.queue(expires=1000)
    world.wait(999)
    assert not queue.deleted
    world.wait(1)
    assert queue.deleted


def test_after_a_long_sleep_everything_overdue_happens() -> None:
    world = world_with_dead(message_ttl=10)
    queue = world.queue("idle", expires=1000)
    world.publish_all("abc")
    world.publish_all("xyz", "idle")
    world.jump(YEAR)
    assert queue.deleted
    assert world.ready("dead") == "abc"
