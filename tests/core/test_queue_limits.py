"""Length and byte limits with their three overflow modes, and delivery limits."""

from __future__ import annotations

import pytest

from rabbitish.core.holdings import MESSAGE_OVERHEAD_BYTES

from .fakes import Held, World


def world_with_dead(**arguments: int | str) -> World:
    """A world with a queue whose dead letters go to the queue "dead"."""
    world = World()
    world.queue("dead")
    world.queue(dead_letter_exchange="", dead_letter_routing_key="dead", **arguments)
    return world


def reasons(world: World, name: str = "dead") -> list[tuple[str, object]]:
    """Take what is in a queue: each body, and what it last died of."""
    found: list[tuple[str, object]] = []
    while (held := world.get(name, no_ack=True)) is not None:
        found.append((held.body, held.headers()["x-last-death-reason"]))
    return found


# ---- drop-head


def test_the_oldest_goes() -> None:
    world = world_with_dead(max_length=3)
    for body in "abcde":
        assert world.publish(body)
    assert world.ready() == "cde"
    assert reasons(world) == [("a", "maxlen"), ("b", "maxlen")]


def test_the_oldest_go_in_a_flood() -> None:
    world = world_with_dead(max_length=2, overflow="drop-head")
    world.publish_all("abcdef")
    assert (world.ready(), world.ready("dead")) == ("ef", "abcd")


def test_dropped_without_a_dead_letter_exchange_is_gone() -> None:
    world = World()
    world.queue(max_length=1)
    world.publish_all("abc")
    assert world.ready() == "c"
    assert world.broker.usage.bytes == 1 + MESSAGE_OVERHEAD_BYTES


def test_only_what_is_ready_counts() -> None:
    world = world_with_dead(max_length=2)
    world.publish_all("ab")
    world.get()
    world.get()
    world.publish_all("cd")
    assert (world.ready(), world.ready("dead")) == ("cd", "")


def test_what_comes_back_over_the_limit_is_dropped_from_the_head() -> None:
    world = world_with_dead(max_length=2)
    world.publish_all("ab")
    world.get()
    world.get()
    world.publish_all("cd")
    world.requeue("b")
    assert (world.ready(), world.ready("dead")) == ("cd", "b")
    world.requeue("a")
    assert (world.ready(), world.ready("dead")) == ("cd", "ba")


@pytest.mark.parametrize("arguments", [{"max_length": 0}, {"max_length_bytes": 0}])
def test_a_limit_of_zero_keeps_nothing_that_no_consumer_takes_at_once(arguments: dict[str, int]) -> None:
    world = world_with_dead(**arguments)
    assert world.publish("a")
    assert (world.ready(), world.ready("dead")) == ("", "a")
    consumer = world.consume(prefetch=2)
    world.publish_all("bcd")
    assert (consumer.got, world.ready("dead")) == (["b", "c"], "ad")
    world.die(consumer)
    assert world.ready("dead") == "adbc"


def test_bytes() -> None:
    world = world_with_dead(max_length_bytes=10)
    world.publish("a", size=4)
    world.publish("b", size=6)
    assert world.ready() == "ab"
    world.publish("c", size=1)
    assert (world.ready(), world.ready("dead")) == ("bc", "a")
    world.publish("d", size=10)
    assert (world.ready(), world.ready("dead")) == ("d", "abc")
    world.publish("e", size=11)
    assert (world.ready(), world.ready("dead")) == ("", "abcde")


def test_empty_bodies_weigh_nothing() -> None:
    world = world_with_dead(max_length_bytes=0)
    for body in "abc":
        world.publish(body, size=0)
    assert world.ready() == "abc"


def test_length_and_bytes_each_count() -> None:
    world = world_with_dead(max_length=2, max_length_bytes=10)
    world.publish("a", size=1)
    world.publish("b", size=1)
    world.publish("c", size=1)
    assert world.ready() == "bc"
    world.publish("d", size=10)
    assert (world.ready(), world.ready("dead")) == ("d", "abc")


def test_bytes_of_unacknowledged_messages_do_not_count() -> None:
    world = world_with_dead(max_length_bytes=10)
    world.publish("a", size=9)
    world.get()
    world.publish("b", size=9)
    assert (world.ready(), world.ready("dead")) == ("b", "")
    world.requeue("a")
    assert (world.ready(), world.ready("dead")) == ("b", "a")


def test_consumers_come_before_the_limit() -> None:
    world = World(settle_budget=10)
    world.queue(max_length=1)
    consumer = world.consume()
    world.publish_all("abcdefghijklmnopqrstuvwxyz")
    assert "".join(consumer.got) == "abcdefghijklmnopqrstuvwxyz"


def test_the_expired_do_not_push_out_the_living() -> None:
    world = world_with_dead(max_length=2)
    world.publish("a")
    world.publish("b", expiration=10)
    world.jump(20)
    world.publish("c")
    assert (world.ready(), reasons(world)) == ("ac", [("b", "expired")])


def test_in_a_priority_queue_the_head_is_the_highest() -> None:
    """As with RabbitMQ, whose documentation warns of it."""
    world = world_with_dead(max_length=2, max_priority=5)
    for body, priority in (("a", 0), ("b", 5), ("c", 0)):
        world.publish(body, priority=priority)
    assert (world.ready(), world.ready("dead")) == ("ac", "b")


# ---- reject-publish and reject-publish-dlx


@pytest.mark.parametrize(
    "arguments", [{"max_length": 2}, {"max_length_bytes": 2}, {"max_length": 2, "max_priority": 3}]
)
@pytest.mark.parametrize("mode", ["reject-publish", "reject-publish-dlx"])
def test_the_newest_is_refused(mode: str, arguments: dict[str, int]) -> None:
    world = world_with_dead(overflow=mode, **arguments)
    assert [world.publish(body) for body in "abcd"] == [True, True, False, False]
    assert world.ready() == "ab"
    assert reasons(world) == ([("c", "maxlen"), ("d", "maxlen")] if mode == "reject-publish-dlx" else [])
    world.get()
    assert world.publish("e")
    assert not world.publish("f")
    assert world.ready() == "be"


@pytest.mark.parametrize("mode", ["reject-publish", "reject-publish-dlx"])
def test_what_was_never_in_the_queue_leaves_its_counters_alone(mode: str) -> None:
    world = World()
    world.queue(max_length=1, overflow=mode)
    world.publish("a")
    assert not world.publish("b")
    queue = world.vhost.queues["q"]
    assert (queue.ready, queue.bytes, world.broker.usage.bytes) == (1, 1, 1 + MESSAGE_OVERHEAD_BYTES)


def test_room_is_made_by_consumers_within_a_batch() -> None:
    world = World()
    world.queue(max_length=1, overflow="reject-publish")
    consumer = world.consume(prefetch=3)
    with world.batch():
        assert [world.publish(body) for body in "abcde"] == [True, True, True, True, False]
    assert (consumer.got, world.ready()) == (["a", "b", "c"], "d")


def test_room_is_made_by_expiry() -> None:
    world = World()
    world.queue(max_length=1, overflow="reject-publish", message_ttl=10)
    assert world.publish("a")
    assert not world.publish("b")
    world.now += 10
    assert world.publish("c")
    assert world.ready() == "c"


def test_a_limit_of_zero_refuses_all_even_with_a_consumer() -> None:
    world = World()
    world.queue(max_length=0, overflow="reject-publish")
    consumer = world.consume()
    assert not world.publish("a")
    assert consumer.got == []


@pytest.mark.parametrize("mode", ["reject-publish", "reject-publish-dlx"])
def test_what_comes_back_over_the_limit_is_kept(mode: str) -> None:
    """Nobody could be told of a refusal any more; RabbitMQ 3.10 keeps it too."""
    world = world_with_dead(max_length=2, overflow=mode)
    world.publish_all("ab")
    world.get()
    world.get()
    world.publish_all("cd")
    world.requeue("b", "a")
    assert (world.ready(), world.ready("dead")) == ("abcd", "")
    assert not world.publish("e")
    world.get()
    world.get()
    assert not world.publish("f")
    assert world.ready() == "cd"


def test_an_overflow_mode_without_a_limit_refuses_nothing() -> None:
    world = World()
    queue = world.queue(overflow="reject-publish")
    assert not queue.may_refuse
    world.publish_all("abc")
    assert world.ready() == "abc"
    assert World().queue(max_length=1, overflow="reject-publish").may_refuse
    assert not World().queue(max_length=1).may_refuse


def test_one_refusal_of_several_queues_is_a_refusal() -> None:
    world = World()
    world.queue("full", max_length=0, overflow="reject-publish")
    world.queue("free")
    for name in ("full", "free"):
        world.bind("amq.fanout", name)
    assert world.publish("a", exchange="amq.fanout") is False
    assert world.ready("free") == "a"


# ---- delivery limits


def returned(world: World, times: int, body: str = "a") -> list[Held]:
    """Fetch a message and give it back so often; the deliveries."""
    deliveries = []
    for _ in range(times):
        held = world.get()
        assert held is not None
        deliveries.append(held)
        world.requeue(body)
    return deliveries


@pytest.mark.parametrize("limit", [0, 1, 2, 5])
def test_over_the_limit_a_message_is_dead_lettered(limit: int) -> None:
    world = world_with_dead(delivery_limit=limit)
    world.publish("a", headers={"k": 1})
    deliveries = returned(world, limit)
    assert world.ready() == "a"
    last = world.get()
    assert last is not None
    counts = [held.headers().get("x-delivery-count") for held in [*deliveries, last]]
    assert counts == [None, *range(1, limit + 1)]
    assert all(held.headers()["k"] == 1 for held in deliveries)
    world.requeue("a")
    assert (world.ready(), world.ready("dead")) == ("", "a")
    assert world.vhost.queues["q"].bytes == 0


def test_the_count_stays_with_the_queue_that_counted() -> None:
    world = world_with_dead(delivery_limit=1)
    world.publish("a")
    returned(world, 2)
    dead = world.get("dead")
    assert dead is not None
    assert "x-delivery-count" not in dead.headers()
    assert dead.headers()["x-last-death-reason"] == "delivery_limit"


def test_a_header_of_that_name_is_passed_on_by_a_queue_that_does_not_count() -> None:
    world = world_with_dead()
    world.publish("a", headers={"x-delivery-count": 7})
    world.get()
    world.reject("a")
    dead = world.get("dead")
    assert dead is not None
    assert dead.headers()["x-delivery-count"] == 7


def test_over_the_limit_without_a_dead_letter_exchange_it_is_gone() -> None:
    world = World()
    world.queue(delivery_limit=1)
    world.publish("a")
    returned(world, 2)
    assert (world.ready(), world.broker.usage.bytes) == ("", 0)


def test_each_message_is_counted_by_itself_and_keeps_its_place() -> None:
    world = world_with_dead(delivery_limit=2)
    world.publish_all("abc")
    returned(world, 2)
    assert world.ready() == "abc"
    for _ in range(3):
        world.get()
    world.requeue("b", "a", "c")
    assert (world.ready(), world.ready("dead")) == ("bc", "a")


def test_a_dead_consumer_counts_as_a_return() -> None:
    world = world_with_dead(delivery_limit=1)
    world.publish_all("ab")
    for _ in range(2):
        world.die(world.consume(prefetch=1))
    assert (world.ready(), world.ready("dead")) == ("b", "a")


def test_acknowledging_and_rejecting_are_no_returns() -> None:
    world = world_with_dead(delivery_limit=0)
    world.publish_all("ab")
    assert world.get() is not None
    world.ack("a")
    world.get()
    world.reject("b")
    assert reasons(world) == [("b", "rejected")]


def test_a_counted_message_keeps_its_deadline_and_its_expiration() -> None:
    world = world_with_dead(delivery_limit=5, message_ttl=100)
    world.publish("x", expiration=500)
    world.publish("a", expiration=50)
    world.get()
    world.requeue("x")
    for _ in range(4):
        world.get()
        world.get()
        world.requeue("a")
        world.requeue("x")
    world.wait(49)
    assert world.ready() == "xa"
    world.wait(1)
    assert world.ready() == "x"
    dead = world.get("dead", no_ack=True)
    assert dead is not None
    assert dead.headers()["x-death"][0]["original-expiration"] == "50"  # type: ignore[index, call-overload]
    world.wait(50)
    assert reasons(world) == [("x", "expired")]


def test_counted_in_a_priority_queue() -> None:
    world = world_with_dead(delivery_limit=1, max_priority=5)
    world.publish("b", priority=1)
    world.publish("a", priority=5)
    returned(world, 1)
    assert world.ready() == "ab"
    returned(world, 1)
    assert (world.ready(), world.ready("dead")) == ("b", "a")
