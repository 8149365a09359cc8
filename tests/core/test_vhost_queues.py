"""Declaring, finding and deleting queues: names, owners, conditions, and what goes with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.core.vhost import Vhost
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.values import Int64

from .fakes import PlainMessage, World

LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally "
    "declared on another connection or the exclusive property value does not match that of the original declaration."
)


def refusal(call: Callable[[], object]) -> str:
    """The text of the error that a call is answered with."""
    with pytest.raises(ChannelError) as error:
        call()
    return error.value.text


def declare(vhost: Vhost, name: str, owner: object = "me", *, exclusive: bool = False) -> str:
    """Declare a queue and return its name."""
    return vhost.declare_queue(
        name, durable=True, exclusive=exclusive, auto_delete=False, arguments={}, owner=owner, now=0
    ).name


# ---- declaring


def test_what_a_queue_is_declared_with() -> None:
    world = World()
    queue = world.queue("q", durable=True, auto_delete=True, max_length=5, queue_mode="lazy")
    assert (queue.name, queue.durable, queue.auto_delete) == ("q", True, True)
    assert (queue.exclusive, queue.owner) == (False, None)
    assert (queue.options.max_length, queue.arguments) == (5, {"x-max-length": 5, "x-queue-mode": "lazy"})
    assert world.vhost.queue("q", "anybody") is queue


def test_again_is_the_same_queue() -> None:
    world = World()
    queue = world.queue(max_length=5)
    world.publish("a")
    assert world.queue(max_length=Int64(5)) is queue
    assert world.ready() == "a"


def test_another_declaration_is_refused_and_changes_nothing() -> None:
    world = World()
    queue = world.queue(max_length=5)
    assert refusal(lambda: world.queue(durable=False, max_length=5)) == (
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is "
        "'true'"
    )
    assert refusal(lambda: world.queue(max_length=6)) == (
        "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '6' but current is "
        "'5'"
    )
    assert refusal(lambda: world.queue(auto_delete=True, max_length=5)).startswith(
        "PRECONDITION_FAILED - inequivalent arg 'auto_delete'"
    )
    assert world.vhost.queues == {"q": queue}
    assert queue.options.max_length == 5


def test_bad_arguments_make_no_queue() -> None:
    world = World()
    assert refusal(lambda: world.queue(max_length=-1)) == (
        "PRECONDITION_FAILED - invalid arg 'x-max-length' for queue 'q' in vhost '/': {value_negative,-1}"
    )
    assert world.vhost.queues == {}


def test_the_broker_makes_up_names() -> None:
    world = World()
    names = [declare(world.vhost, "") for _ in range(3)]
    assert names == [f"amq.gen-{number:022}" for number in (1, 2, 3)]
    assert set(world.vhost.queues) == set(names)


def test_a_made_up_name_is_not_for_every_type() -> None:
    world = World()
    assert refusal(lambda: world.queue("", queue_type="quorum")) == (
        "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue"
    )


@pytest.mark.parametrize("name", ["amq.", "amq.mine", "amq.gen-x"])
def test_reserved_names(name: str) -> None:
    world = World()
    assert refusal(lambda: world.queue(name)) == (
        f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'"
    )
    made_up = declare(world.vhost, "")
    assert refusal(lambda: declare(world.vhost, made_up)).startswith("ACCESS_REFUSED - queue name")


def test_passively_and_not_found() -> None:
    world = World()
    queue = world.queue()
    assert world.vhost.passive_queue("q", world.me, world.now) is queue
    expected = "NOT_FOUND - no queue 'nosuch' in vhost '/'"
    assert refusal(lambda: world.vhost.passive_queue("nosuch", world.me, world.now)) == expected
    assert refusal(lambda: world.vhost.queue("nosuch", world.me)) == expected


# ---- exclusive owners


def test_an_exclusive_queue_is_its_owners_alone() -> None:
    world = World()
    mine, other = object(), object()
    queue = world.queue(exclusive=True, owner=mine)
    assert (queue.exclusive, queue.owner, queue.durable) == (True, mine, False)
    assert world.queue(exclusive=True, owner=mine) is queue
    for call in (
        lambda: world.queue(exclusive=True, owner=other),
        lambda: world.queue(owner=other),
        lambda: world.queue(owner=mine),  # not exclusive: the property does not match
        lambda: world.vhost.queue("q", other),
        lambda: world.vhost.passive_queue("q", other, world.now),
        lambda: world.delete(owner=other),
    ):
        assert refusal(call) == LOCKED
    assert world.delete(owner=mine) == 0


def test_anybody_may_publish_to_an_exclusive_queue() -> None:
    world = World()
    world.queue(exclusive=True, owner=object())
    world.publish("a")
    assert world.ready() == "a"


def test_a_shared_queue_cannot_become_exclusive() -> None:
    world = World()
    world.queue()
    assert refusal(lambda: world.queue(exclusive=True)) == LOCKED


def test_exclusive_queues_go_with_their_owner() -> None:
    world = World()
    mine, other = object(), object()
    names = [declare(world.vhost, name, mine, exclusive=True) for name in ("a", "b", "")]
    declare(world.vhost, "c", other, exclusive=True)
    declare(world.vhost, "d", mine)
    world.publish("x", "a")
    world.delete("b", owner=mine)
    world.vhost.release_owner(mine)
    world.settle()
    assert set(world.vhost.queues) == {"c", "d"}
    assert names[0] not in world.vhost.queues
    assert world.broker.usage.bytes == 0
    world.vhost.release_owner(mine)
    world.vhost.release_owner(object())
    assert set(world.vhost.queues) == {"c", "d"}


def test_the_consumers_of_an_exclusive_queue_are_told_when_its_owner_goes() -> None:
    world = World()
    world.queue(exclusive=True)
    consumer = world.consume()
    world.vhost.release_owner(world.me)
    world.settle()
    assert consumer.told == 1


# ---- deleting


def test_delete_of_what_is_not_there() -> None:
    assert World().delete("nosuch") == 0
    assert World().delete("nosuch", if_unused=True, if_empty=True) == 0


def test_delete_if_empty() -> None:
    world = World()
    world.queue()
    world.publish("a")
    expected = "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"
    assert refusal(lambda: world.delete(if_empty=True)) == expected
    assert world.ready() == "a"
    world.get()
    assert world.delete(if_empty=True) == 0  # what is unacknowledged does not count
    assert "q" not in world.vhost.queues


def test_delete_if_empty_sees_what_has_just_expired_or_been_taken() -> None:
    world = World()
    world.queue(message_ttl=10)
    world.publish("a")
    world.now += 10
    assert world.delete(if_empty=True) == 0
    world.queue()
    consumer = world.consume()
    with world.batch():
        world.publish("b")
        assert world.delete(if_empty=True) == 0
    assert consumer.got == ["b"]


def test_delete_if_unused() -> None:
    world = World()
    world.queue()
    consumer = world.consume(prefetch=0)
    world.publish("a")
    assert refusal(lambda: world.delete(if_unused=True)) == "PRECONDITION_FAILED - queue 'q' in vhost '/' in use"
    assert refusal(lambda: world.delete(if_unused=True, if_empty=True)).endswith("not empty")  # RabbitMQ's order
    world.cancel(consumer)
    assert world.delete(if_unused=True) == 1


def test_a_deleted_queue_takes_its_bindings_along() -> None:
    world = World()
    queue = world.queue()
    world.exchange("e", "topic")
    for key in ("a", "b.*", "#"):
        world.bind("e", "q", key)
    world.bind("amq.fanout", "q")
    assert {exchange.name for exchange in world.vhost.sources(queue)} == {"e", "amq.fanout"}
    world.delete()
    world.queue()
    assert world.publish("x", "a", exchange="e") is None
    assert not world.vhost.exchange("e").bound
    assert world.vhost.sources(queue) == []


def test_dropping_twice_is_dropping_once() -> None:
    world = World()
    queue = world.queue()
    world.delete()
    other = world.queue()
    world.publish("a")
    assert world.vhost.drop_queue(queue) == 0
    assert world.vhost.queues["q"] is other
    assert world.ready() == "a"


# ---- direct reply-to


class Requester:
    """One that waits for answers."""

    durable = False
    holds = False
    may_refuse = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.answers: list[str] = []

    def enqueue(self, message: object, now: int) -> bool:
        """See Target."""
        assert isinstance(message, PlainMessage)
        self.answers.append(message.body)
        return True

    def enqueue_alike(self, messages: list[object], size: int, now: int) -> None:
        """See Target."""
        for message in messages:
            self.enqueue(message, now)


def test_answers_find_the_requester_while_it_waits() -> None:
    world = World()
    requester = Requester("amq.rabbitmq.reply-to.xyz")
    world.vhost.add_reply_target(requester)  # type: ignore[arg-type]
    assert world.publish("a", requester.name)
    assert world.publish("b", "amq.rabbitmq.reply-to.other") is None
    world.vhost.remove_reply_target(requester)  # type: ignore[arg-type]
    assert world.publish("c", requester.name) is None
    assert requester.answers == ["a"]


def test_a_dead_letter_may_be_an_answer() -> None:
    world = World()
    requester = Requester("amq.rabbitmq.reply-to.xyz")
    world.vhost.add_reply_target(requester)  # type: ignore[arg-type]
    world.queue(dead_letter_exchange="", dead_letter_routing_key=requester.name, max_length=0)
    world.publish("a")
    assert requester.answers == ["a"]


# ---- several virtual hosts


def test_virtual_hosts_know_nothing_of_each_other() -> None:
    world = World()
    other = world.broker.add_vhost("other")
    assert world.broker.add_vhost("other") is other
    world.queue()
    declare(other, "q")
    world.publish("a")
    assert other.queues["q"].ready == 0
    world.vhost.release_owner("me")
    assert refusal(lambda: other.queue("nosuch", None)) == "NOT_FOUND - no queue 'nosuch' in vhost 'other'"
    assert refusal(lambda: other.exchange("nosuch")) == "NOT_FOUND - no exchange 'nosuch' in vhost 'other'"


def test_codes() -> None:
    world = World()
    with pytest.raises(ChannelError) as error:
        world.vhost.queue("nosuch", None)
    assert error.value.code is ReplyCode.NOT_FOUND
