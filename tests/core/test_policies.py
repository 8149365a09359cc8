"""What policies do to queues and exchanges that are there, how it is undone, and which of several holds."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from rabbitish.core.access.patterns import STEPS_MAX
from rabbitish.core.access.policies import Definition, Policy, read_policy
from rabbitish.core.access.records import VhostRecord
from rabbitish.core.access.roster import Roster
from rabbitish.core.governor import STEPS_AT_ONCE
from rabbitish.core.leaving import BURIED_COST, SWEEP_MESSAGES
from rabbitish.core.policing import STEPS_PER_NAME, policies_by_vhost
from rabbitish.core.queue import Queue
from rabbitish.values import Value

from .fakes import ListConsumer, World


class Governed(World):
    """A world in which policies are set and cleared."""

    def __init__(self, *, window_bytes: int = 0) -> None:
        super().__init__(window_bytes=window_bytes)
        self.roster = Roster()
        self.roster.add_vhost(VhostRecord("/"))

    def policy(
        self,
        definition: Definition,
        name: str = "p",
        *,
        pattern: str = ".*",
        priority: int = 0,
        apply_to: str = "all",
        operator: bool = False,
    ) -> None:
        """Set a policy."""
        value = {"pattern": pattern, "definition": definition, "priority": priority, "apply-to": apply_to}
        self.roster.set_policy("/", read_policy(name, value, operator=operator), operator=operator)
        self.adopt()

    def clear(self, name: str = "p", *, operator: bool = False) -> None:
        """Clear one."""
        self.roster.clear_policy("/", name, operator=operator)
        self.adopt()

    def adopt(self) -> None:
        self.broker.govern(policies_by_vhost(self.roster), self.now)
        self.settle()

    def with_dead(self, name: str = "q", **arguments: Value) -> Queue:
        """A queue whose dead letters go to the queue "dead"."""
        self.queue("dead")
        return self.queue(name, dead_letter_exchange="", dead_letter_routing_key="dead", **arguments)


@pytest.fixture
def world() -> Governed:
    return Governed()


# --- each key: set on a queue that is there, and undone --------------------------------------------------------------


def test_message_ttl_is_for_what_comes(world: Governed) -> None:
    world.queue()
    world.publish("a")
    world.policy({"message-ttl": 1000})
    world.publish("b")
    world.wait(1000)
    assert world.ready() == "a"
    world.publish("c")
    world.clear()
    world.publish("d")
    assert world.ready() == "acd"
    world.wait(10_000)
    assert world.ready() == "ad"


def test_message_ttl_of_a_returned_message_stays(world: Governed) -> None:
    world.queue()
    world.policy({"message-ttl": 1000})
    world.publish("a")
    world.get()
    world.clear()
    world.wait(2000)
    world.requeue("a")
    assert world.ready() == ""


def test_message_ttl_of_zero(world: Governed) -> None:
    world.queue()
    world.policy({"message-ttl": 0})
    world.publish("a")
    assert world.ready() == ""
    consumer = world.consume()
    world.publish("b")
    assert consumer.got == ["b"]


def test_a_ttl_of_ages_is_one_of_ten_years(world: Governed) -> None:
    world.policy({"message-ttl": 1 << 80, "expires": 1 << 80})
    queue = world.queue()
    world.publish("a")
    assert queue.options.message_ttl_ms == queue.options.expires_ms == 315_360_000_000


def test_expires_counts_from_its_policy(world: Governed) -> None:
    world.queue()
    world.wait(5000)
    world.policy({"expires": 1000})
    world.wait(999)
    assert "q" in world.vhost.queues
    world.wait(1)
    assert "q" not in world.vhost.queues


def test_expires_is_undone(world: Governed) -> None:
    world.queue()
    world.policy({"expires": 1000})
    world.wait(500)
    world.clear()
    world.wait(10_000)
    assert "q" in world.vhost.queues


def test_expires_waits_for_consumers(world: Governed) -> None:
    world.queue()
    consumer = world.consume()
    world.policy({"expires": 1000})
    world.wait(5000)
    world.cancel(consumer)
    world.wait(999)
    assert "q" in world.vhost.queues
    world.wait(1)
    assert "q" not in world.vhost.queues


def test_another_policy_begins_expires_anew_and_another_vhosts_change_does_not(world: Governed) -> None:
    world.queue()
    world.policy({"expires": 1000})
    world.wait(600)
    world.policy({"max-length": 5}, "other", pattern="^x")
    world.wait(300)
    world.policy({"expires": 1000, "max-length": 3})
    world.wait(999)
    assert "q" in world.vhost.queues
    world.wait(1)
    assert "q" not in world.vhost.queues


@pytest.mark.parametrize(
    ("key", "value", "left"), [("max-length", 2, "de"), ("max-length-bytes", 3, "cde"), ("max-length", 0, "")]
)
def test_lengths_drop_from_the_head(world: Governed, key: str, value: int, left: str) -> None:
    world.with_dead()
    world.publish_all("abcde")
    world.policy({key: value}, pattern="^q")
    assert world.ready() == left
    assert world.ready("dead") == "abcde"[: 5 - len(left)]
    deaths = [message.headers()["x-death"][0]["reason"] for message in world.vhost.queues["dead"]]  # type: ignore[index,call-overload]
    assert set(deaths) == {"maxlen"}
    world.publish("f")
    assert world.ready() == (left + "f")[1:] if left else not world.ready()
    world.clear()
    world.publish_all("ghij")
    assert world.ready().endswith("ghij") and len(world.ready()) == len(left) + 4


def test_a_long_queue_is_shortened_in_pieces(world: Governed) -> None:
    queue = world.queue()
    world.publish_all(["x"] * (3 * SWEEP_MESSAGES))
    with world.batch():
        world.policy({"max-length": 1})
        world.broker.settle(world.now)
        assert queue.ready == 2 * SWEEP_MESSAGES
    assert queue.ready == 1


def test_a_long_queue_in_pages_is_shortened() -> None:
    world = Governed(window_bytes=4000)
    queue = world.with_dead()
    world.publish_all(["x" * 100] * 200)
    assert queue.lanes[0].pages
    world.policy({"max-length": 3}, pattern="^q$")
    assert queue.ready == 3 and world.vhost.queues["dead"].ready == 197


@pytest.mark.parametrize("mode", ["reject-publish", "reject-publish-dlx"])
def test_overflow(world: Governed, mode: str) -> None:
    world.with_dead()
    world.publish_all("abc")
    world.policy({"max-length": 2, "overflow": mode}, pattern="^q")
    assert world.ready() == "abc"  # RabbitMQ drops nothing either
    assert world.publish("d") is False
    assert world.ready("dead") == ("d" if mode == "reject-publish-dlx" else "")
    world.policy({"max-length": 2}, pattern="^q")
    assert world.ready() == "bc"
    world.policy({"overflow": mode}, pattern="^q")
    assert world.publish("e") is True
    world.clear()
    assert world.publish("f") is True
    assert world.ready() == "bcef"


def test_dead_letters(world: Governed) -> None:
    world.queue(message_ttl=1000)
    for name in ("dead", "other"):
        world.queue(name)
    world.publish("a")
    world.policy({"dead-letter-exchange": "", "dead-letter-routing-key": "dead"}, pattern="^q")
    world.wait(1000)
    assert world.ready("dead") == "a"
    world.publish("b")
    world.policy({"dead-letter-exchange": "", "dead-letter-routing-key": "other"}, pattern="^q")
    world.wait(1000)
    world.publish("c")
    world.policy({"dead-letter-routing-key": "other"}, pattern="^q")
    world.wait(1000)
    world.publish("d")
    world.clear()
    world.wait(1000)
    assert (world.ready("dead"), world.ready("other")) == ("a", "b")


def test_dead_letters_without_a_key_of_their_own(world: Governed) -> None:
    world.queue("x.y", max_length=0)
    world.exchange("dlx", "topic")
    world.queue("dead")
    world.bind("dlx", "dead", "x.*")
    world.policy({"dead-letter-exchange": "dlx"})
    world.publish("a", "x.y")
    assert world.ready("dead") == "a"


def test_delivery_limit(world: Governed) -> None:
    world.with_dead()
    world.publish("a")
    for _ in range(3):
        world.get()
        world.requeue("a")
    assert world.ready() == "a"
    world.policy({"delivery-limit": 3}, pattern="^q")
    assert world.ready() == "a"
    world.get()
    world.requeue("a")
    assert (world.ready(), world.ready("dead")) == ("", "a")
    world.clear()
    world.publish("b")
    for _ in range(9):
        world.get()
        world.requeue("b")
    assert world.ready() == "b"


def test_a_lower_delivery_limit_buries_what_has_come_back_too_often(world: Governed) -> None:
    world.with_dead(max_priority=2)
    for body, times in (("b", 4), ("d", 3), ("a", 0)):
        world.publish(body, priority=1 if body == "d" else 0)
        for _ in range(times):
            world.get()
            world.requeue(body)
        world.get()
    world.requeue("b", "d", "a")  # once more
    world.publish("c")
    world.policy({"delivery-limit": 4}, pattern="^q")
    assert (world.ready(), world.ready("dead")) == ("dac", "b")
    world.policy({"delivery-limit": 3}, pattern="^q")
    assert (world.ready(), world.ready("dead")) == ("ac", "bd")


PIECE = SWEEP_MESSAGES // BURIED_COST


def test_many_that_came_back_too_often_are_buried_in_pieces(world: Governed) -> None:
    queue = world.with_dead()
    count = 2 * PIECE + 5
    world.publish_all(["x"] * count)
    for _ in range(2):
        world.die(world.consume())
    with world.batch():
        world.policy({"delivery-limit": 1}, pattern="^q")
        world.broker.settle(world.now)
        assert queue.ready == count - PIECE
        world.clear()  # which leaves the rest alone
    assert queue.ready == count - PIECE
    world.policy({"delivery-limit": 1}, pattern="^q")
    assert (queue.ready, world.vhost.queues["dead"].ready) == (0, count)


def test_a_queue_that_goes_while_its_returned_messages_are_buried(world: Governed) -> None:
    queue = world.with_dead()
    world.publish_all(["x"] * (2 * PIECE))
    for _ in range(2):
        world.die(world.consume())
    with world.batch():
        world.policy({"delivery-limit": 1}, pattern="^q")
        world.broker.settle(world.now)
        world.delete()
    assert queue.ready == 0 and world.vhost.queues["dead"].ready == PIECE


def test_consumers_hear_of_another_timeout(world: Governed) -> None:
    changes: list[tuple[int | None, int]] = []

    class Listening(ListConsumer):
        def options_changed(self, now: int) -> None:
            assert self.queue is not None
            changes.append((self.queue.options.consumer_timeout_ms, now))

    world.queue()
    world.consume().__class__ = Listening
    world.policy({"consumer-timeout": 1000})
    world.policy({"consumer-timeout": 1000, "max-length": 1})
    world.wait(5)
    world.policy({"consumer-timeout": 0})
    world.policy({"consumer-timeout": 3})
    world.clear()
    assert [timeout for timeout, _ in changes] == [1000, None, 3, None]
    assert changes[1][1] == changes[0][1] + 5


def test_alternate_exchange(world: Governed) -> None:
    world.exchange("x")
    world.exchange("fall", "fanout")
    world.queue("caught")
    world.bind("fall", "caught")
    assert world.publish("a", "nowhere", exchange="x") is None
    world.policy({"alternate-exchange": "fall"}, pattern="^x$", apply_to="exchanges")
    assert world.publish("b", "nowhere", exchange="x") is True
    world.exchange("x2", alternate_exchange="none")
    world.policy({"alternate-exchange": "fall"}, apply_to="exchanges")
    assert world.publish("c", "nowhere", exchange="x2") is None  # the argument holds
    assert world.publish("d", "nowhere", exchange="amq.direct") is True
    assert world.publish("e", "nowhere") is None  # the default exchange has no alternate
    world.clear()
    assert world.publish("f", "nowhere", exchange="x") is None
    assert world.ready("caught") == "bd"


def test_what_sessions_remember_of_routes_is_emptied(world: Governed) -> None:
    class Memory:
        cleared = 0

        def clear(self) -> None:
            self.cleared += 1

    memory = world.vhost.route_memories["joe"] = Memory()
    world.policy({"max-length": 1, "overflow": "reject-publish"})
    world.clear()
    assert memory.cleared == 2


@pytest.mark.parametrize(
    "definition",
    [
        {"queue-mode": "lazy"},
        {"queue-version": 2},
        {"queue-master-locator": "random"},
        {"max-in-memory-length": 0},
        {"max-in-memory-bytes": 0},
        {"ha-mode": "exactly", "ha-params": 2, "ha-sync-mode": "automatic"},
    ],
)
def test_what_has_no_effect_is_there_all_the_same(world: Governed, definition: Definition) -> None:
    queue = world.queue()
    options = queue.options
    world.publish("a")
    world.policy(definition)
    assert queue.governing.definition == definition and queue.options == options
    assert world.ready() == "a"


# --- which policy holds ----------------------------------------------------------------------------------------------


def lengths(world: Governed, *names: str) -> list[int | None]:
    return [world.vhost.queues[name].options.max_length for name in names or ("q",)]


def test_the_highest_priority_holds_alone(world: Governed) -> None:
    queue = world.queue()
    world.policy({"max-length": 1, "message-ttl": 5}, "low", priority=-1)
    world.policy({"max-length": 2}, "high", priority=3)
    assert (queue.options.max_length, queue.options.message_ttl_ms) == (2, None)
    world.policy({"max-length": 3}, "low", priority=4)
    assert lengths(world) == [3]
    world.clear("low")
    assert lengths(world) == [2]
    world.clear("high")
    assert lengths(world) == [None]


def test_names_decide_between_equal_priorities(world: Governed) -> None:
    world.queue()
    for name, length in (("b", 2), ("a", 1), ("c", 3)):
        world.policy({"max-length": length}, name)
    assert lengths(world) == [1]


def test_expressions_are_found_anywhere(world: Governed) -> None:
    for name in ("jobs", "my.jobs", "jöbs", "other"):
        world.queue(name)
    world.policy({"max-length": 1}, "a", pattern="jobs")
    assert lengths(world, "jobs", "my.jobs", "jöbs", "other") == [1, 1, None, None]
    world.policy({"max-length": 2}, "a", pattern="^j(ob|\xf6b)s$")
    assert lengths(world, "jobs", "my.jobs", "jöbs", "other") == [2, None, 2, None]
    world.policy({"max-length": 3}, "a", pattern="^(?!jobs)")
    assert lengths(world, "jobs", "my.jobs", "jöbs", "other") == [None, 3, 3, 3]


def test_an_expression_that_takes_for_ever_matches_nothing(world: Governed) -> None:
    world.queue("a" * 255)
    world.policy({"max-length": 1}, "a", pattern="(a{0,99}){0,99}b")
    assert lengths(world, "a" * 255) == [None]


def test_what_a_policy_is_for(world: Governed) -> None:
    queue, exchange = world.queue("x"), world.exchange("x")
    for apply_to, on_queues, on_exchanges in (
        ("queues", True, False),
        ("exchanges", False, True),
        ("all", True, True),
        ("classic_queues", True, False),
        ("quorum_queues", False, False),
        ("streams", False, False),
    ):
        world.policy({"max-length": 1, "alternate-exchange": "a"}, apply_to=apply_to)
        assert (queue.governing.policy is not None, exchange.governing.policy is not None) == (on_queues, on_exchanges)
        assert (queue.options.max_length == 1, exchange.alternate == "a") == (on_queues, on_exchanges)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max-age", "1h"),
        ("stream-max-segment-size-bytes", 5),
        ("queue-leader-locator", "balanced"),
        ("initial-cluster-size", 3),
        ("dead-letter-strategy", "at-least-once"),
    ],
)
def test_a_policy_for_other_types_is_passed_over(world: Governed, key: str, value: object) -> None:
    """Another that matches holds in its place."""
    world.queue()
    exchange = world.exchange("x")
    world.policy({"max-length": 5}, "low")
    world.policy({key: value, "max-length": 1}, "high", priority=1)
    assert lengths(world) == [5]
    assert exchange.governing.policy is not None and exchange.governing.policy.name == "high"


def test_what_is_declared_later_has_its_policies_at_once(world: Governed) -> None:
    world.policy({"max-length": 1, "alternate-exchange": "a"}, pattern="^g")
    world.queue("g.1")
    world.queue("h.1")
    made = world.queue("", exclusive=True)
    assert (world.exchange("g").alternate, world.exchange("h").alternate) == ("a", None)
    assert lengths(world, "g.1", "h.1", made.name) == [1, None, None]
    world.policy({"max-length": 2}, pattern="^amq.gen")
    assert made.options.max_length == 2


def test_policies_are_not_compared_when_a_queue_is_declared_again(world: Governed) -> None:
    queue = world.queue()
    world.policy({"max-length": 1, "message-ttl": 5})
    assert world.queue() is queue
    assert queue.arguments == {}


def test_a_virtual_host_that_is_added_has_its_policies(world: Governed) -> None:
    world.roster.add_vhost(VhostRecord("v"))
    world.roster.set_policy("v", Policy("p", "^amq|^q", {"max-length": 7, "alternate-exchange": "a"}))
    world.adopt()
    vhost = world.broker.add_vhost("v")
    assert vhost.exchanges["amq.direct"].alternate == "a"
    assert world.vhost.exchanges["amq.direct"].alternate is None
    queue = vhost.declare_queue(
        "q", durable=True, exclusive=False, auto_delete=False, arguments={}, owner=None, now=world.now
    )
    assert queue.options.max_length == 7


def test_many_queues_are_reached_in_pieces(world: Governed) -> None:
    names = [f"q{number}" for number in range(200)]
    with world.batch():
        for name in names:
            world.queue(name)
    with world.batch():
        world.policy({"max-length": 1})
        assert 0 < lengths(world, *names).count(1) < 200
        assert world.broker.policing
        world.vhost.drop_queue(world.vhost.queues[names[-1]])
        world.queue("new")
        assert lengths(world, "new") == [1]
        world.policy({"max-length": 2})  # before the first has reached everything
        world.policy({"max-length": 3})
    assert not world.broker.policing
    assert set(lengths(world, *names[:-1])) == {3}


HOSTILE = "(.*a){80}c"  # which is decided for short names, as policies are set, but not for long ones


def test_a_costly_expression_holds_nobody_up_and_is_passed_over(world: Governed) -> None:
    told: list[tuple[str, str, str]] = []
    world.broker.on_too_hard = lambda vhost, policy, name: told.append((vhost, policy.name, name))
    names = [f"{number:02}".ljust(255, "a") for number in range(20)]
    with world.batch():
        for name in names:
            world.queue(name)
        world.roster.set_policy("/", Policy("rest", "aaa$", {"max-length": 1}, priority=-1))
        for number in range(5):
            world.roster.set_policy("/", Policy(f"costly {number}", HOSTILE, {"max-length": 2}))
        world.roster.set_policy("/", Policy("limit", "^0", {"max-length-bytes": 3}), operator=True)
        for number in range(5):
            world.roster.set_policy("/", Policy(f"costly {number}", HOSTILE, {"expires": 1}, 1), operator=True)
        world.adopt()
        policies = world.vhost.governor.policies
        while world.broker.policing:
            before = policies.steps
            world.broker.settle(world.now)
            assert policies.steps - before < STEPS_AT_ONCE + 2 * (STEPS_PER_NAME + STEPS_MAX)
    assert set(lengths(world, *names)) == {None}  # nothing was left for the others
    costly = [f"costly {number}" for number in range(5)]
    assert told == [("/", name, names[0]) for name in (*costly, "rest", *costly, "limit")]


def test_a_costly_expression_leaves_something_for_the_next(world: Governed) -> None:
    world.policy({"max-length": 2}, "costly", pattern=HOSTILE, priority=1)
    world.policy({"max-length": 1}, "rest", pattern="^a")
    world.queue("a" * 255)
    assert lengths(world, "a" * 255) == [1]


# --- how it meets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "policy", "operator", "expected"),
    [
        (None, 5, None, 5),
        (3, 5, None, 3),
        (5, 3, None, 3),
        (None, None, 4, 4),
        (3, None, 4, 3),
        (5, None, 4, 4),
        (None, 5, 4, 4),
        (None, 3, 4, 3),
        (9, 8, 7, 7),
        (7, 8, 9, 7),
        (8, 7, 9, 7),
        (0, 1, 1, 0),
        (1, 0, 1, 0),
        (1, 1, 0, 0),
    ],
)
@pytest.mark.parametrize("key", ["message-ttl", "max-length", "max-length-bytes", "delivery-limit"])
def test_of_limits_the_smallest_holds(
    world: Governed, key: str, argument: int | None, policy: int | None, operator: int | None, expected: int
) -> None:
    queue = world.queue(**({} if argument is None else {key.replace("-", "_"): argument}))
    if policy is not None:
        world.policy({key: policy})
    if operator is not None:
        world.policy({key: operator}, operator=True)
    attribute = {"message-ttl": "message_ttl_ms"}.get(key, key.replace("-", "_"))
    assert getattr(queue.options, attribute) == expected
    if policy is not None:
        world.clear()
    if operator is not None:
        world.clear(operator=True)
    assert getattr(queue.options, attribute) == argument


@pytest.mark.parametrize(
    ("key", "argument", "value"),
    [
        ("overflow", "drop-head", "reject-publish"),
        ("dead-letter-exchange", "", "other"),
        ("dead-letter-routing-key", "", "other"),
    ],
)
def test_of_anything_else_the_argument_holds(world: Governed, key: str, argument: str, value: str) -> None:
    attribute = key.replace("-", "_")
    given = {"dead_letter_exchange": "e", attribute: argument}
    queue, other = world.queue(**given), world.queue("r")
    world.policy({key: value})
    assert (getattr(queue.options, attribute), getattr(other.options, attribute)) == (argument, value)


def test_an_operator_policy_holds_beside_another_of_lower_priority(world: Governed) -> None:
    queue = world.queue()
    world.policy({"max-length": 10, "overflow": "reject-publish"}, priority=9)
    world.policy({"max-length": 5, "message-ttl": 7}, "o", operator=True)
    world.policy({"max-length": 1}, "none", pattern="^x", operator=True, priority=3)
    assert queue.governing.definition == {"max-length": 5, "overflow": "reject-publish", "message-ttl": 7}
    assert (queue.options.max_length, queue.options.message_ttl_ms, queue.options.overflow) == (5, 7, "reject-publish")


# --- an oracle -------------------------------------------------------------------------------------------------------

NAMES = ["a", "ab", "b.a", "ba", "x"]
PATTERNS: dict[str, Callable[[str], bool]] = {
    ".*": lambda name: True,
    "^a": lambda name: name.startswith("a"),
    "a$": lambda name: name.endswith("a"),
    "b": lambda name: "b" in name,
    "^(?!x)": lambda name: not name.startswith("x"),
}
NUMBERS = {
    "message-ttl": "message_ttl_ms",
    "expires": "expires_ms",
    "max-length": "max_length",
    "max-length-bytes": "max_length_bytes",
    "delivery-limit": "delivery_limit",
}
TEXTS = {
    "overflow": ("overflow", ["drop-head", "reject-publish", "reject-publish-dlx"]),
    "dead-letter-exchange": ("dead_letter_exchange", ["", "amq.fanout"]),
    "dead-letter-routing-key": ("dead_letter_routing_key", ["", "k"]),
}


def expected_options(
    name: str, arguments: dict[str, Value], policies: list[Policy], operators: list[Policy]
) -> dict[str, object]:
    """What holds for a queue, the plain way: all policies from the least to the greatest, the last one that matches."""

    def found(among: list[Policy]) -> Definition:
        fitting = [p for p in among if PATTERNS[p.pattern](name) and p.apply_to != "exchanges"]
        return max(fitting, key=lambda p: (p.priority, [-ord(c) for c in p.name])).definition if fitting else {}

    policy, operator = found(policies), found(operators)
    expected: dict[str, object] = {}
    for key, attribute in NUMBERS.items():
        given = [source[k] for source, k in ((arguments, f"x-{key}"), (policy, key), (operator, key)) if k in source]
        expected[attribute] = min(given) if given else None  # type: ignore[type-var]
    for key, (attribute, _) in TEXTS.items():
        expected[attribute] = arguments.get(f"x-{key}", policy.get(key))
    return expected


def some(random_: random.Random, *, prefix: str = "", texts: bool = True) -> dict[str, Value]:
    made: dict[str, Value] = {prefix + key: random_.randint(1, 9) * 10**6 for key in NUMBERS if random_.random() < 0.4}
    if texts:
        made |= {prefix + key: random_.choice(each) for key, (_, each) in TEXTS.items() if random_.random() < 0.3}
    if prefix and "x-dead-letter-routing-key" in made:
        made["x-dead-letter-exchange"] = ""
    return made


@pytest.mark.parametrize("seed", range(40))
def test_what_holds_is_what_a_simple_oracle_says(seed: int) -> None:
    random_ = random.Random(seed)
    world = Governed()
    arguments: dict[str, dict[str, Value]] = {}
    for step in range(25):
        choice = random_.random()
        operator = random_.random() < 0.4
        known = [name for _, name in (world.roster.operator_policies if operator else world.roster.policies)]
        if choice < 0.3:
            name = random_.choice(NAMES)
            if name not in arguments:
                arguments[name] = some(random_, prefix="x-")
                world.queue(name, **{key[2:].replace("-", "_"): value for key, value in arguments[name].items()})
        elif choice < 0.5 and known:
            world.clear(random_.choice(known), operator=operator)
        else:
            definition = some(random_, texts=not operator) or {"max-length": step}
            world.policy(
                definition,
                random_.choice("pqrs"),
                pattern=random_.choice(list(PATTERNS)),
                priority=random_.randint(0, 2),
                apply_to=random_.choice(["queues", "all", "all", "exchanges"]),
                operator=operator,
            )
        policies, operators = list(world.roster.policies.values()), list(world.roster.operator_policies.values())
        for name, given in arguments.items():
            options = world.vhost.queues[name].options
            expected = expected_options(name, given, policies, operators)
            assert {attribute: getattr(options, attribute) for attribute in expected} == expected, (name, step)


def test_a_policy_goes_before_some_arguments_of_a_quorum_queue(world: Governed) -> None:
    given: dict[str, Value] = {"overflow": "reject-publish", "expires": 1000, "max_length": 5}
    world.queue("classic", **given)
    world.queue("quorum", queue_type="quorum", **given)
    world.policy({"overflow": "drop-head", "expires": 9000, "max-length": 7, "delivery-limit": 4})
    options = [world.vhost.queues[name].options for name in ("classic", "quorum")]
    assert [(of.overflow, of.expires_ms, of.max_length) for of in options] == [
        ("reject-publish", 1000, 5),
        ("drop-head", 9000, 5),
    ]
    world.policy({"max-length": 7})
    options = [world.vhost.queues[name].options for name in ("classic", "quorum")]
    assert [(of.overflow, of.expires_ms) for of in options] == [("reject-publish", 1000)] * 2


def test_the_dead_letter_strategy_of_a_policy(world: Governed) -> None:
    world.queue("classic", overflow="reject-publish", dead_letter_exchange="x")
    world.queue("quorum", queue_type="quorum", overflow="reject-publish", dead_letter_exchange="x")
    world.policy({"dead-letter-strategy": "at-least-once"})
    assert [world.vhost.queues[name].options.patient for name in ("classic", "quorum")] == [False, True]
