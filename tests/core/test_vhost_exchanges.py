"""Exchanges and bindings of a virtual host: names, equivalence, deletion, cascades, and remembered routes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.core.vhost import Vhost
from rabbitish.errors import ChannelError
from rabbitish.values import Table

from .fakes import World

DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"
PREDECLARED = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.rabbitmq.trace": "topic",
}


def refusal(call: Callable[[], object]) -> str:
    """The text of the error that a call is answered with."""
    with pytest.raises(ChannelError) as error:
        call()
    return error.value.text


def declare(
    world: World,
    name: str,
    kind: str = "direct",
    *,
    durable: bool = True,
    auto_delete: bool = False,
    internal: bool = False,
    arguments: Table | None = None,
) -> object:
    """Declare an exchange with all its flags."""
    return world.vhost.declare_exchange(
        name, kind, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments or {}
    )


def names(world: World) -> set[str]:
    """The exchanges that were declared."""
    return set(world.vhost.exchanges) - PREDECLARED.keys() - {""}


# ---- declaring and deleting


def test_what_is_there_from_the_start() -> None:
    world = World()
    exchanges = world.vhost.exchanges
    assert {name: exchange.type for name, exchange in exchanges.items()} == {"": "direct", **PREDECLARED}
    assert all(exchange.durable and not exchange.auto_delete for exchange in exchanges.values())
    assert [name for name, exchange in exchanges.items() if exchange.internal] == ["amq.rabbitmq.trace"]


@pytest.mark.parametrize(("name", "kind"), PREDECLARED.items())
def test_predeclared_ones_may_be_declared_as_they_are(name: str, kind: str) -> None:
    world = World()
    internal = name == "amq.rabbitmq.trace"
    assert declare(world, name, kind, internal=internal) is world.vhost.exchange(name)
    assert "inequivalent arg 'durable'" in refusal(lambda: declare(world, name, kind, durable=False, internal=internal))


def test_again_is_the_same_exchange() -> None:
    world = World()
    exchange = declare(world, "e", "topic", arguments={"alternate-exchange": "a"})
    assert declare(world, "e", "topic", arguments={"alternate-exchange": "a"}) is exchange


def test_another_declaration_is_refused() -> None:
    world = World()
    declare(world, "e", "topic")
    assert refusal(lambda: declare(world, "e", "direct")) == (
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost '/': received 'direct' but current is "
        "'topic'"
    )
    assert "'durable'" in refusal(lambda: declare(world, "e", "topic", durable=False))
    assert "'auto_delete'" in refusal(lambda: declare(world, "e", "topic", auto_delete=True))
    assert "'internal'" in refusal(lambda: declare(world, "e", "topic", internal=True))
    assert "'alternate-exchange'" in refusal(
        lambda: declare(world, "e", "topic", arguments={"alternate-exchange": "a"})
    )


def test_names_and_types_that_cannot_be() -> None:
    world = World()
    assert refusal(lambda: declare(world, "")) == DEFAULT
    assert refusal(lambda: declare(world, "amq.mine")) == (
        "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'"
    )
    assert "zzz" in refusal(lambda: declare(world, "e", "zzz"))
    assert refusal(lambda: declare(world, "e", arguments={"alternate-exchange": 5})) == (
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'e' in vhost '/'"
    )
    assert names(world) == set()


def test_deleting() -> None:
    world = World()
    world.vhost.delete_exchange("nosuch", if_unused=True)
    declare(world, "e")
    world.queue()
    world.bind("e", "q", "k")
    assert refusal(lambda: world.vhost.delete_exchange("e", if_unused=True)) == (
        "PRECONDITION_FAILED - exchange 'e' in vhost '/' in use"
    )
    world.vhost.unbind("e", world.vhost.queues["q"], "k", {})
    world.vhost.delete_exchange("e", if_unused=True)
    assert refusal(lambda: world.vhost.exchange("e")) == "NOT_FOUND - no exchange 'e' in vhost '/'"
    assert refusal(lambda: world.vhost.delete_exchange("", if_unused=False)) == DEFAULT
    assert refusal(lambda: world.vhost.delete_exchange("amq.direct", if_unused=False)) == (
        "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"
    )


def test_deleting_takes_the_bindings_to_and_from_it_along() -> None:
    world = World()
    queue = world.queue()
    for name in ("source", "middle"):
        world.exchange(name, "fanout")
    world.bind("source", "middle", exchange=True)
    world.bind("middle", "q")
    world.bind("middle", "q", "again")
    assert world.publish("a", exchange="source")
    world.vhost.delete_exchange("middle", if_unused=False)
    assert world.publish("b", exchange="source") is None
    assert not world.vhost.exchange("source").bound
    assert world.vhost.sources(queue) == []
    world.exchange("middle", "fanout")
    assert world.publish("c", exchange="source") is None


# ---- binding


def test_bindings_and_their_sources() -> None:
    world = World()
    queue = world.queue()
    world.bind("amq.direct", "q", "k")
    world.bind("amq.direct", "q", "k")
    world.bind("amq.direct", "q", "l")
    assert world.vhost.is_bound("amq.direct", queue, "k", {})
    assert not world.vhost.is_bound("amq.direct", queue, "m", {})
    direct = world.vhost.exchange("amq.direct")
    assert (len(direct.bindings()), world.vhost.sources(queue)) == (2, [direct])
    world.vhost.unbind("amq.direct", queue, "k", {})
    world.vhost.unbind("amq.direct", queue, "k", {})
    assert world.vhost.sources(queue) == [direct]
    world.vhost.unbind("amq.direct", queue, "l", {})
    assert (direct.bound, world.vhost.sources(queue)) == (False, [])


def test_binding_to_and_from_what_is_not_there() -> None:
    world = World()
    queue = world.queue()
    expected = "NOT_FOUND - no exchange 'nosuch' in vhost '/'"
    assert refusal(lambda: world.vhost.bind("nosuch", queue, "", {})) == expected
    assert refusal(lambda: world.vhost.unbind("nosuch", queue, "", {})) == expected
    assert refusal(lambda: world.vhost.is_bound("nosuch", queue, "", {})) == expected


def test_a_binding_that_its_exchange_refuses_leaves_no_trace() -> None:
    world = World()
    queue = world.queue()
    assert "x-match" in refusal(lambda: world.vhost.bind("amq.headers", queue, "", {"x-match": "zzz"}))
    assert (world.vhost.sources(queue), world.vhost.exchange("amq.headers").bound) == ([], False)


# ---- auto-delete exchanges


def test_an_auto_delete_exchange_goes_with_its_last_binding() -> None:
    world = World()
    queue = world.queue()
    world.exchange("e", auto_delete=True)
    world.bind("e", "q", "k")
    world.bind("e", "q", "l")
    world.vhost.unbind("e", queue, "k", {})
    assert names(world) == {"e"}
    world.vhost.unbind("e", queue, "nosuch", {})
    assert names(world) == {"e"}
    world.vhost.unbind("e", queue, "l", {})
    assert names(world) == set()


def test_an_auto_delete_exchange_that_was_never_bound_stays() -> None:
    world = World()
    queue = world.queue()
    world.exchange("e", auto_delete=True)
    world.vhost.unbind("e", queue, "k", {})
    world.delete()
    assert names(world) == {"e"}


def test_an_auto_delete_exchange_goes_with_its_last_queue() -> None:
    world = World()
    for name in ("q", "r"):
        world.queue(name)
        world.exchange("e", "topic", auto_delete=True)
        world.bind("e", name, "a.*")
        world.bind("e", name, "#")
    world.delete("q")
    assert names(world) == {"e"}
    world.delete("r")
    assert names(world) == set()


def test_deletion_goes_up_through_exchanges() -> None:
    world = World()
    world.queue()
    for name, auto_delete in (("top", False), ("a", True), ("b", True), ("side", True), ("kept", True)):
        world.exchange(name, "fanout", auto_delete=auto_delete)
    world.bind("b", "q")
    world.bind("a", "b", exchange=True)
    world.bind("top", "a", exchange=True)
    world.bind("side", "b", exchange=True)
    world.bind("kept", "b", exchange=True)
    world.bind("kept", "a", exchange=True)
    world.queue("other")
    world.bind("kept", "other")
    world.delete("q")
    assert names(world) == {"top", "kept"}
    assert not world.vhost.exchange("top").bound
    assert [binding.destination.name for binding in world.vhost.exchange("kept").bindings()] == ["other"]
    world.delete("other")
    assert names(world) == {"top"}


def test_deletion_goes_up_a_long_chain() -> None:
    world = World()
    world.queue()
    last = 2000
    for number in range(last):
        world.exchange(str(number), "fanout", auto_delete=True)
    for number in range(last - 1):
        world.bind(str(number), str(number + 1), exchange=True)
    world.bind(str(last - 1), "q")
    assert world.publish("a", exchange="0")
    world.delete()
    assert names(world) == set()


def test_deletion_around_a_circle() -> None:
    world = World()
    world.queue()
    for name in "abc":
        world.exchange(name, "fanout", auto_delete=True)
    for source, destination in ("ab", "bc", "ca", "aa"):
        world.bind(source, destination, exchange=True)
    world.bind("c", "q")
    world.delete()
    assert names(world) == {"a", "b", "c"}  # each still has a binding
    world.vhost.delete_exchange("b", if_unused=False)
    assert names(world) == {"a", "c"}
    world.vhost.unbind("a", world.vhost.exchange("a"), "", {})
    assert names(world) == set()


def test_an_exchange_bound_to_itself_can_be_deleted() -> None:
    world = World()
    world.exchange("e", auto_delete=True)
    world.bind("e", "e", exchange=True)
    world.vhost.delete_exchange("e", if_unused=False)
    assert names(world) == set()
    world.exchange("e", auto_delete=True)
    assert not world.vhost.exchange("e").bound


def test_a_name_that_is_free_again_is_another_exchange() -> None:
    """Nothing that went before is deleted with it, or deletes it."""
    world = World()
    world.queue()
    for name in ("up", "e"):
        world.exchange(name, "fanout", auto_delete=True)
    world.bind("e", "q")
    world.bind("up", "e", exchange=True)
    old = world.vhost.exchange("e")
    world.vhost.delete_exchange("e", if_unused=False)
    assert names(world) == set()
    world.exchange("e", "fanout", auto_delete=True)
    world.delete()
    assert names(world) == {"e"}
    assert world.vhost.exchange("e") is not old


# ---- what sessions remember of routes


class Memory:
    """Counts how often it was told to forget."""

    def __init__(self) -> None:
        self.cleared = 0

    def clear(self) -> None:
        """See RouteMemory."""
        self.cleared += 1


def _with_reply(vhost: Vhost, *, there: bool) -> None:
    class Reply:
        name = "amq.rabbitmq.reply-to.x"

    if there:
        vhost.replies[Reply.name] = Reply()  # type: ignore[assignment]
        vhost.remove_reply_target(Reply())  # type: ignore[arg-type]
    else:
        vhost.add_reply_target(Reply())  # type: ignore[arg-type]


CHANGES: dict[str, Callable[[World], object]] = {
    "queue declared": lambda world: world.queue("new"),
    "queue deleted": lambda world: world.delete("q"),
    "queue expired": lambda world: world.wait(1000),
    "queue gone with its owner": lambda world: world.vhost.release_owner("owner"),
    "queue gone with its consumer": lambda world: world.cancel(world.consumers[0]),
    "exchange declared": lambda world: world.exchange("new"),
    "exchange deleted": lambda world: world.vhost.delete_exchange("e", if_unused=False),
    "bound": lambda world: world.bind("e", "q", "new"),
    "unbound": lambda world: world.vhost.unbind("e", world.vhost.queues["q"], "k", {}),
    "exchange bound": lambda world: world.bind("e", "f", "new", exchange=True),
    "exchange unbound": lambda world: world.vhost.unbind("e", world.vhost.exchange("f"), "k", {}),
    "requester came": lambda world: _with_reply(world.vhost, there=False),
    "requester went": lambda world: _with_reply(world.vhost, there=True),
}
NO_CHANGES: dict[str, Callable[[World], object]] = {
    "queue declared again": lambda world: world.queue("q"),
    "exchange declared again": lambda world: world.exchange("e"),
    "bound again": lambda world: world.bind("e", "q", "k"),
    "unbound what was not": lambda world: world.vhost.unbind("e", world.vhost.queues["q"], "nosuch", {}),
    "deleted what was not": lambda world: world.delete("nosuch"),
    "published": lambda world: world.publish("a", "k", exchange="e"),
    "consumed": lambda world: world.consume("q"),
    "time passed": lambda world: world.wait(999),
}


def remembering() -> tuple[World, list[Memory]]:
    """A world with something of everything, and the memories of two users."""
    world = World()
    world.queue("q")
    world.queue("idle", expires=1000)
    world.queue("shared", auto_delete=True)
    world.consume("shared")
    world.queue("owned", exclusive=True, owner="owner")
    world.exchange("e")
    world.exchange("f")
    world.bind("e", "q", "k")
    world.bind("e", "f", "k", exchange=True)
    memories = [Memory(), Memory()]
    world.vhost.route_memories.update(zip(("joe", "jane"), memories, strict=True))
    return world, memories


@pytest.mark.parametrize("change", CHANGES)
def test_routes_are_forgotten_when(change: str) -> None:
    world, memories = remembering()
    CHANGES[change](world)
    assert all(memory.cleared for memory in memories)


@pytest.mark.parametrize("change", NO_CHANGES)
def test_routes_are_kept_when(change: str) -> None:
    world, memories = remembering()
    NO_CHANGES[change](world)
    assert not any(memory.cleared for memory in memories)
