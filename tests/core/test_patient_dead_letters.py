"""Dead letters that are to arrive at least once wait until a queue takes them."""

from __future__ import annotations

import pytest

from rabbitish.core.burials import AGAIN_MS, AGAIN_MS_MAX

from .fakes import World

PATIENT = {
    "queue_type": "quorum",
    "dead_letter_strategy": "at-least-once",
    "overflow": "reject-publish",
    "dead_letter_exchange": "dlx",
}


@pytest.fixture
def world() -> World:
    made = World()
    made.queue("q", **PATIENT)
    return made


def reject(world: World, *bodies: str) -> None:
    for body in bodies:
        world.publish(body)
        world.get()
        world.reject(body)


def waiting(world: World) -> tuple[int, int, int]:
    queue = world.vhost.queues["q"]
    return queue.ready, queue.unacked, queue.waiting


def test_until_there_is_an_exchange_and_a_binding(world: World) -> None:
    reject(world, "a", "b")
    assert waiting(world) == (0, 2, 2)
    world.vhost.declare_exchange("dlx", "fanout", durable=True, auto_delete=False, internal=False, arguments={})
    world.settle()
    assert waiting(world) == (0, 2, 2)
    world.queue("dead")
    world.bind("dlx", "dead")
    world.settle()
    assert (world.ready("dead"), waiting(world)) == ("ab", (0, 0, 0))


def test_until_there_is_room(world: World) -> None:
    world.vhost.declare_exchange("dlx", "fanout", durable=True, auto_delete=False, internal=False, arguments={})
    for name, limits in (("dead", {"max_length": 1, "overflow": "reject-publish"}), ("all", {})):
        world.queue(name, **limits)
        world.bind("dlx", name)
    reject(world, "a", "b")
    assert (world.ready("dead"), world.ready("all"), waiting(world)) == ("a", "ab", (0, 1, 1))
    world.jump(AGAIN_MS)
    assert waiting(world) == (0, 1, 1)
    assert world.get_all("dead", no_ack=True) == "a"
    world.jump(2 * AGAIN_MS)
    assert (world.ready("dead"), world.ready("all"), waiting(world)) == ("b", "ab", (0, 0, 0))


def test_those_that_wait_count_for_the_limit(world: World) -> None:
    world.queue("short", **{**PATIENT, "max_length": 2})
    for body in "ab":
        assert world.publish(body, "short")
        world.get("short")
        world.reject(body)
    assert world.publish("c", "short") is False


def test_they_are_tried_ever_more_rarely_and_at_once_when_routes_change(world: World) -> None:
    reject(world, "a")
    for _ in range(10):
        world.jump(AGAIN_MS_MAX)
    burials = world.vhost._burials
    assert burials.due_at is not None and burials.due_at - world.now > AGAIN_MS_MAX // 2
    world.vhost.declare_exchange("dlx", "fanout", durable=True, auto_delete=False, internal=False, arguments={})
    world.queue("dead")
    world.bind("dlx", "dead")
    world.settle()
    assert world.ready("dead") == "a"


def test_what_expired_waits_too() -> None:
    world = World()
    world.queue("q", **PATIENT, message_ttl=10)
    world.publish("a")
    world.jump(10)
    assert waiting(world) == (0, 1, 1)
    assert world.vhost.queues["q"].purge() == 0
    world.vhost.declare_exchange("dlx", "fanout", durable=True, auto_delete=False, internal=False, arguments={})
    world.queue("dead")
    world.bind("dlx", "dead")
    world.settle()
    assert (world.ready("dead"), waiting(world)) == ("a", (0, 0, 0))


def test_a_queue_that_is_deleted_takes_them_along(world: World) -> None:
    reject(world, "a")
    world.delete("q")
    world.queue("dead")
    world.jump(AGAIN_MS_MAX)
    assert not world.vhost._burials._waiting


@pytest.mark.parametrize("but", ["queue_type", "dead_letter_strategy", "overflow"])
def test_other_queues_do_not_wait(but: str) -> None:
    world = World()
    given = {key: value for key, value in PATIENT.items() if key != but}
    if but == "queue_type":
        given.pop("dead_letter_strategy")
    world.queue("q", **given)
    reject(world, "a")
    assert waiting(world) == (0, 0, 0)
