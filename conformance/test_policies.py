"""Policies: what each key does to queues and exchanges that are there, which of several holds, what is refused.

Every case has its own names and policies for those alone. RabbitMQ's queues hear of policies a moment after the command
has returned, so whatever follows from one is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError, UnroutableError

from conformance.clients import closes, drain, get, let_pass, must_get, no_queue, publish, ready
from conformance.operating import Operator, Refused
from conformance.support import Names, differs, eventually

LONG = 60_000
Make = Callable[..., str]


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> Make:
    """Factory of queues with arguments."""

    def make(prefix: str = "p", **arguments: Any) -> str:
        table = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        return str(channel.queue_declare(name(prefix), arguments=table).method.queue)

    return make


def only(name: str) -> str:
    """The expression for just this name."""
    return f"^{name.replace('.', chr(92) + '.')}$"


def filled(channel: BlockingChannel, queue: str, bodies: str = "abcde") -> None:
    publish(channel, queue, *bodies)
    assert ready(channel, queue) == len(bodies)


def becomes(channel: BlockingChannel, queue: str, bodies: str) -> None:
    """The queue comes to hold just these, which are taken out."""
    eventually(lambda: ready(channel, queue) == len(bodies))
    assert drain(channel, queue) == list(bodies)


def refuses(channel: BlockingChannel, queue: str) -> bool:
    """Whether a publish is refused."""
    try:
        publish(channel, queue, "refused?")
    except NackError:
        return True
    return False


# --- each key --------------------------------------------------------------------------------------------------------


def test_message_ttl_is_for_what_comes_later(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    q = queue()
    filled(channel, q, "ab")
    operator.policy("cf.p", only(q), {"message-ttl": 20})
    let_pass(channel, 50)
    assert drain(channel, q) == ["a", "b"]

    def goes() -> bool:
        publish(channel, q, "c")
        let_pass(channel, 50)
        return get(channel, q) is None

    assert eventually(goes)
    operator.clear("cf.p")

    def stays() -> bool:
        publish(channel, q, "d")
        let_pass(channel, 50)
        return get(channel, q) is not None

    assert eventually(stays)


def test_message_ttl_and_the_argument(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    lower, higher = queue(message_ttl=20), queue(message_ttl=LONG)
    operator.policy("cf.p", only(lower), {"message-ttl": LONG})
    operator.policy("cf.q", only(higher), {"message-ttl": 20})
    for q in (lower, higher):

        def goes(q: str = q) -> bool:
            publish(channel, q, "c")
            let_pass(channel, 50)
            return get(channel, q) is None

        assert eventually(goes)


def test_what_has_a_ttl_keeps_it_when_it_comes_back(
    channel: BlockingChannel, connect: Any, queue: Make, name: Names, operator: Operator
) -> None:
    q = name()
    operator.policy("cf.p", only(q), {"message-ttl": 100})
    channel.queue_declare(q)
    publish(channel, q, "a")
    tag = must_get(channel, q, auto_ack=False).method.delivery_tag
    operator.clear("cf.p")
    let_pass(channel, 150)
    channel.basic_nack(tag, requeue=True)
    eventually(lambda: ready(channel, q) == 0)
    assert get(channel, q) is None


def test_expires_deletes_a_queue_that_is_there(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    q, other = queue(), queue()
    operator.policy("cf.p", only(q), {"expires": 50})
    let_pass(channel, 200)
    with closes(channel, 404, no_queue(q)):
        eventually(lambda: channel.queue_declare(q, passive=True) is None, timeout=2, every=0.3)
    assert other


def test_expires_waits_while_there_is_a_consumer(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    q = queue()
    tag = channel.basic_consume(q, lambda *_: None)
    operator.policy("cf.p", only(q), {"expires": 50})
    let_pass(channel, 200)
    channel.queue_declare(q, passive=True)
    operator.clear("cf.p")
    channel.basic_cancel(tag)
    let_pass(channel, 200)
    channel.queue_declare(q, passive=True)


@pytest.mark.parametrize(
    ("definition", "left"),
    [({"max-length": 2}, "de"), ({"max-length-bytes": 3}, "cde"), ({"max-length": 0}, "")],
    ids=["length", "bytes", "none"],
)
def test_a_queue_that_is_too_long_is_shortened(
    channel: BlockingChannel, queue: Make, operator: Operator, definition: dict[str, Any], left: str
) -> None:
    dead = queue("dead")
    q = queue(dead_letter_exchange="", dead_letter_routing_key=dead)
    filled(channel, q)
    operator.policy("cf.p", only(q), definition)
    becomes(channel, q, left)
    eventually(lambda: ready(channel, dead) == 5 - len(left))
    message = must_get(channel, dead)
    assert message.body == b"a"
    assert message.headers["x-death"][0]["reason"] == "maxlen"
    operator.clear("cf.p")

    def undone() -> bool:
        drain(channel, q)
        publish(channel, q, *"vwxyz")
        return ready(channel, q) == 5

    assert eventually(undone)


@pytest.mark.parametrize("key", ["max-length", "max-length-bytes"])
def test_of_lengths_the_smaller_holds(channel: BlockingChannel, queue: Make, operator: Operator, key: str) -> None:
    argument = key.replace("-", "_")
    short, long, none = queue(**{argument: 2}), queue(**{argument: 4}), queue()
    for q in (short, long, none):
        publish(channel, q, *"abcde")
    operator.policy("cf.p", f"{only(short)}|{only(long)}|{only(none)}", {key: 3})
    becomes(channel, long, "cde")
    becomes(channel, none, "cde")
    becomes(channel, short, "de")


@differs(rabbitmq="bc", rabbitish="abc", reason="RabbitMQ shortens the queue before it looks at overflow")
def test_overflow(channel: BlockingChannel, queue: Make, operator: Operator, expected: str) -> None:
    q = queue()
    filled(channel, q, "abc")
    operator.policy("cf.p", only(q), {"max-length": 2, "overflow": "reject-publish"})
    eventually(lambda: refuses(channel, q))
    found = drain(channel, q)
    assert "".join(body for body in found if body != "refused?") == expected
    publish(channel, q, "x", "y")
    assert refuses(channel, q)
    operator.policy("cf.p", only(q), {"max-length": 1})
    becomes(channel, q, "y")


def test_overflow_reject_publish_dlx(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    dead = queue("dead")
    q = queue(max_length=1, dead_letter_exchange="", dead_letter_routing_key=dead)
    publish(channel, q, "a")
    operator.policy("cf.p", only(q), {"overflow": "reject-publish-dlx"})
    eventually(lambda: refuses(channel, q))
    assert must_get(channel, dead) and ready(channel, q) == 1


def test_the_argument_overflow_holds(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    head, reject = queue(overflow="drop-head"), queue(overflow="reject-publish")
    for q in (head, reject):
        publish(channel, q, "a")
    operator.policy("cf.p", only(head), {"max-length": 1, "overflow": "reject-publish"})
    operator.policy("cf.q", only(reject), {"max-length": 1, "overflow": "drop-head"})
    eventually(lambda: refuses(channel, reject))
    publish(channel, head, "b")
    becomes(channel, head, "b")


def test_dead_letters_go_where_the_policy_says(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    one, other, q = queue("one"), queue("other"), queue()

    def rejected() -> None:
        publish(channel, q, "a")
        channel.basic_nack(must_get(channel, q, auto_ack=False).method.delivery_tag, requeue=False)

    def arrives(at: str) -> bool:
        rejected()
        let_pass(channel, 10)
        return bool(drain(channel, at))

    operator.policy("cf.p", only(q), {"dead-letter-exchange": "", "dead-letter-routing-key": one})
    assert eventually(lambda: arrives(one))
    operator.policy("cf.p", only(q), {"dead-letter-exchange": "", "dead-letter-routing-key": other})
    assert eventually(lambda: arrives(other))
    operator.clear("cf.p")
    assert eventually(lambda: not arrives(other))
    drain(channel, one)
    rejected()
    let_pass(channel, 20)
    assert (ready(channel, one), ready(channel, other)) == (0, 0)


def test_dead_letter_arguments_hold(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    mine, other = queue("mine"), queue("other")
    q = queue(dead_letter_exchange="", dead_letter_routing_key=mine)
    publish(channel, q, *"abc")
    operator.policy(
        "cf.p", only(q), {"max-length": 1, "dead-letter-exchange": "amq.fanout", "dead-letter-routing-key": other}
    )
    becomes(channel, mine, "ab")
    assert ready(channel, other) == 0


def test_a_dead_letter_key_alone_joins_the_argument(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    other = queue("other")
    q = queue(dead_letter_exchange="")
    publish(channel, q, *"ab")
    operator.policy("cf.p", only(q), {"max-length": 1, "dead-letter-routing-key": other})
    becomes(channel, other, "a")


def routed(channel: BlockingChannel, exchange: str) -> bool:
    """Whether a mandatory message to nowhere finds a queue."""
    channel.confirm_delivery()
    try:
        channel.basic_publish(exchange, "nowhere", b"m", BasicProperties(), mandatory=True)
    except UnroutableError:
        return False
    return True


def test_alternate_exchange(channel: BlockingChannel, queue: Make, name: Names, operator: Operator) -> None:
    x, fall, q = name("x"), name("fall"), queue()
    channel.exchange_declare(x)
    channel.exchange_declare(fall, "fanout")
    channel.queue_bind(q, fall)
    assert not routed(channel, x)
    operator.policy("cf.p", only(x), {"alternate-exchange": fall}, apply_to="exchanges")
    assert eventually(lambda: routed(channel, x))
    operator.policy("cf.p", only(x), {"alternate-exchange": "cf.nosuch"})
    assert eventually(lambda: not routed(channel, x))
    operator.clear("cf.p")
    assert not routed(channel, x)


def test_the_argument_alternate_exchange_holds(
    channel: BlockingChannel, queue: Make, name: Names, operator: Operator
) -> None:
    x, other, fall, q = name("x"), name("x"), name("fall"), queue()
    channel.exchange_declare(x, arguments={"alternate-exchange": "cf.nosuch"})
    channel.exchange_declare(other)
    channel.exchange_declare(fall, "fanout")
    channel.queue_bind(q, fall)
    operator.policy("cf.p", f"{only(x)}|{only(other)}", {"alternate-exchange": fall})
    assert eventually(lambda: routed(channel, other))
    assert not routed(channel, x)


def test_predeclared_exchanges_have_policies_and_the_default_one_has_not(
    channel: BlockingChannel, queue: Make, name: Names, operator: Operator
) -> None:
    fall, q = name("fall"), queue()
    channel.exchange_declare(fall, "fanout")
    channel.queue_bind(q, fall)
    operator.policy("cf.p", "^(amq\\.direct)?$", {"alternate-exchange": fall}, apply_to="exchanges")
    assert eventually(lambda: routed(channel, "amq.direct"))
    assert not routed(channel, "")


@differs(rabbitmq=False, rabbitish=True, reason="a delivery limit works on every queue")
def test_delivery_limit(channel: BlockingChannel, queue: Make, operator: Operator, expected: bool) -> None:
    q = queue()
    publish(channel, q, "a")
    operator.policy("cf.p", only(q), {"delivery-limit": 2})
    for _ in range(3):
        channel.basic_nack(must_get(channel, q, auto_ack=False).method.delivery_tag, requeue=True)
    let_pass(channel, 20)
    assert (ready(channel, q) == 0) is expected


@pytest.mark.parametrize(
    "definition",
    [
        {"queue-mode": "lazy"},
        {"queue-version": 2},
        {"queue-master-locator": "random"},
        {"max-in-memory-length": 1},
        {"ha-mode": "all"},
    ],
    ids=lambda definition: next(iter(definition)),
)
def test_what_changes_nothing_that_clients_see(
    channel: BlockingChannel, queue: Make, operator: Operator, definition: dict[str, Any]
) -> None:
    q = queue()
    publish(channel, q, *"ab")
    operator.policy("cf.p", only(q), definition)
    publish(channel, q, *"cd")
    becomes(channel, q, "abcd")


@pytest.mark.parametrize(
    "definition",
    [
        {"max-age": "1h"},
        {"stream-max-segment-size-bytes": 1000},
        {"queue-leader-locator": "balanced"},
        {"initial-cluster-size": 3},
        {"dead-letter-strategy": "at-least-once"},
    ],
    ids=lambda definition: next(iter(definition)),
)
def test_a_policy_for_other_types_of_queues_is_passed_over(
    channel: BlockingChannel, queue: Make, operator: Operator, definition: dict[str, Any]
) -> None:
    """As a whole; another that matches holds instead."""
    q = queue()
    publish(channel, q, *"abcde")
    operator.policy("cf.p", only(q), {**definition, "max-length": 1}, priority=5)
    operator.policy("cf.q", only(q), {"max-length": 3})
    becomes(channel, q, "cde")


# --- which of several holds ------------------------------------------------------------------------------------------


def test_the_highest_priority_holds_alone(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    q = queue()
    publish(channel, q, *"abcdefgh")
    operator.policy("cf.low", only(q), {"max-length": 1}, priority=-1)
    eventually(lambda: ready(channel, q) == 1)
    operator.policy("cf.high", only(q), {"max-length-bytes": 5}, priority=3)

    def holds(length: int) -> bool:
        publish(channel, q, *"abcdefgh")
        return ready(channel, q) == length

    assert eventually(lambda: holds(5))
    operator.policy("cf.low", only(q), {"max-length": 2}, priority=4)
    assert eventually(lambda: holds(2))
    operator.clear("cf.low")
    assert eventually(lambda: holds(5))


def test_what_a_policy_is_for(channel: BlockingChannel, queue: Make, name: Names, operator: Operator) -> None:
    q = queue()
    publish(channel, q, *"abc")
    operator.policy("cf.p", only(q), {"max-length": 1}, apply_to="exchanges")
    operator.policy("cf.q", only(q), {"max-length": 2}, apply_to="queues", priority=-1)
    becomes(channel, q, "bc")


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("mitte.{}", True),
        ("^mitte.{}", False),
        ("MITTE.{}", False),
        ("(?i)MITTE.{}", True),
        ("{}-.$", False),  # names are bytes
        ("{}-..$", True),
        ("^(?!x).*{}", True),
        ("(x|{}|y)-ö?$", True),
    ],
)
def test_expressions(channel: BlockingChannel, name: Names, operator: Operator, pattern: str, matches: bool) -> None:
    unique = name("anfang-mitte")
    q = name.adopt(unique + "-ö")
    channel.queue_declare(q)
    publish(channel, q, *"abc")
    operator.policy("cf.p", only(q), {"max-length": 2}, priority=1)
    operator.policy("cf.q", pattern.format(unique.split(".")[2]), {"max-length": 1}, priority=2)
    becomes(channel, q, "c" if matches else "bc")


def test_what_is_declared_later(channel: BlockingChannel, name: Names, operator: Operator) -> None:
    q = name()
    operator.policy("cf.p", only(q), {"max-length": 1})
    channel.queue_declare(q)
    publish(channel, q, *"ab")
    becomes(channel, q, "b")


def test_exclusive_and_server_named_queues(channel: BlockingChannel, operator: Operator) -> None:
    q = channel.queue_declare("", exclusive=True).method.queue
    publish(channel, q, *"ab")
    operator.policy("cf.p", only(q), {"max-length": 1})
    becomes(channel, q, "b")


def test_a_redeclare_does_not_see_policies(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    q = queue()
    publish(channel, q, *"ab")
    operator.policy("cf.p", only(q), {"max-length": 1})
    eventually(lambda: ready(channel, q) == 1)
    channel.queue_declare(q)
    text = (
        f"PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '{q}' in vhost '/': "
        "received the value '1' of type 'signedint' but current is none"
    )
    with closes(channel, 406, text):
        channel.queue_declare(q, arguments={"x-max-length": 1})


# --- operator policies -----------------------------------------------------------------------------------------------


def test_an_operator_policy_alone(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    q = queue(max_length=4)
    publish(channel, q, *"abcde")
    operator.policy("cf.o", only(q), {"max-length": 2}, operator=True)
    eventually(lambda: ready(channel, q) == 2)
    operator.clear("cf.o", operator=True)

    def undone() -> bool:
        publish(channel, q, *"abcde")
        return ready(channel, q) == 4

    assert eventually(undone)


@pytest.mark.parametrize(("policy", "limit", "left"), [(3, 2, "de"), (2, 3, "de"), (0, 2, "")])
def test_of_both_the_smaller_holds(
    channel: BlockingChannel, queue: Make, operator: Operator, policy: int, limit: int, left: str
) -> None:
    q = queue()
    publish(channel, q, *"abcde")
    operator.policy("cf.o", only(q), {"max-length": limit}, operator=True, priority=-5)
    operator.policy("cf.p", only(q), {"max-length": policy, "max-length-bytes": 100}, priority=5)
    becomes(channel, q, left)


def test_both_hold_in_what_one_of_them_says(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    q = queue()
    operator.policy("cf.p", only(q), {"overflow": "reject-publish"})
    operator.policy("cf.o", only(q), {"max-length": 1}, operator=True)
    assert eventually(lambda: refuses(channel, q))
    drain(channel, q)
    publish(channel, q, "a")
    assert refuses(channel, q)


# --- looking ---------------------------------------------------------------------------------------------------------


def test_which_policy_an_object_has(channel: BlockingChannel, queue: Make, name: Names, operator: Operator) -> None:
    q, x = queue(), name("x")
    channel.exchange_declare(x)
    operator.policy("cf.p", f"{only(q)}|{only(x)}", {"max-length": 5})

    def policy_of(command: str, thing: str) -> str:
        return str({row["name"]: row["policy"] for row in operator.listed(command, "name", "policy")}[thing])

    assert eventually(lambda: policy_of("list_queues", q) == "cf.p")
    assert policy_of("list_exchanges", x) == "cf.p"
    operator.clear("cf.p")
    assert eventually(lambda: policy_of("list_queues", q) == "")
    assert policy_of("list_exchanges", x) == ""


@pytest.mark.parametrize("limits", [False, True], ids=["policies", "operator policies"])
def test_lists(operator: Operator, limits: bool) -> None:
    """What goes before others comes last."""
    operator.policy("cf.p", "^cf.none", {"max-length": 5, "expires": 7}, priority=-2, operator=limits)
    operator.policy("cf.q", "^cf.none", {"message-ttl": 7}, priority=3, apply_to="queues", operator=limits)
    operator.policy("cf.p", "^cf.other", {"max-length": 6}, priority=4, apply_to="exchanges", operator=limits)
    rows = operator.listed("list_operator_policies" if limits else "list_policies")
    assert [row for row in rows if row["name"].startswith("cf.")] == [
        {
            "vhost": "/",
            "name": "cf.q",
            "pattern": "^cf.none",
            "apply-to": "queues",
            "definition": {"message-ttl": 7},
            "priority": 3,
        },
        {
            "vhost": "/",
            "name": "cf.p",
            "pattern": "^cf.other",
            "apply-to": "exchanges",
            "definition": {"max-length": 6},
            "priority": 4,
        },
    ]


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"alternate-exchange": 1}, "1 is not a valid alternate exchange name"),
    ({"dead-letter-exchange": 1}, "1 is not a valid dead letter exchange name"),
    ({"dead-letter-routing-key": True}, "true is not a valid dead letter routing key"),
    ({"dead-letter-strategy": "x"}, '<<"x">> is not a valid dead letter strategy'),
    ({"delivery-limit": -1}, "-1 is not a valid delivery limit"),
    ({"expires": 0}, "0 is not a valid queue expiry"),
    ({"expires": None}, "null is not a valid queue expiry"),
    ({"initial-cluster-size": "3"}, '<<"3">> is not a valid cluster size'),
    ({"max-age": "1x"}, '<<"1x">> is not a valid max age'),
    ({"max-in-memory-bytes": -1}, "-1 is not a valid maximum memory in bytes"),
    ({"max-in-memory-length": -1}, "-1 is not a valid maximum memory in bytes"),
    ({"max-length": 1.5}, "1.5 is not a valid maximum length"),
    ({"max-length": -3, "nonsense": 1}, "-3 is not a valid maximum length"),
    ({"max-length-bytes": {"a": [1, "b"]}}, '#{<<"a">> => [1,<<"b">>]} is not a valid maximum length in bytes'),
    ({"message-ttl": "x"}, '<<"x">> is not a valid message TTL'),
    ({"overflow": "drop"}, '<<"drop">> is not a valid overflow value'),
    ({"queue-leader-locator": ""}, "<<>> is not a valid queue leader locator value"),
    ({"queue-master-locator": "x"}, '<<"x">> invalid queue-master-locator value'),
    ({"queue-mode": "x"}, '<<"x">> is not a valid queue-mode value'),
    ({"queue-version": 3}, "3 is not a valid queue-version value"),
    ({"stream-max-segment-size-bytes": -1}, "-1 is not a valid segment size"),
    ({"nonsense": 1, "b": [1, "a"]}, '[{<<"b">>,[1,<<"a">>]},{<<"nonsense">>,1}] are not recognised policy settings'),
    ({}, "no policy provided"),
    ({"ha-sync-mode": "x"}, "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown"),
    ({"ha-mode": "x"}, '<<"x">> is not a valid ha-mode value'),
    ({"ha-mode": "all", "ha-params": 1}, 'ha-mode="all" does not take parameters'),
    ({"ha-mode": "exactly", "ha-params": 0}, 'ha-mode="exactly" takes an integer, 0 given'),
    ({"ha-mode": "nodes", "ha-params": []}, 'ha-mode="nodes" list must be non-empty'),
    ({"ha-mode": "all", "ha-sync-mode": "x"}, 'ha-sync-mode must be "manual" or "automatic", got <<"x">>'),
]


@pytest.mark.parametrize(("definition", "text"), REFUSED, ids=[",".join(definition) for definition, _ in REFUSED])
def test_definitions_that_are_refused(operator: Operator, definition: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused) as caught:
        operator.policy("cf.p", "^cf.none", definition)
    assert str(caught.value) == f"Validation failed\n\n{text}"


@pytest.mark.parametrize(
    "definition",
    [{"overflow": "drop-head"}, {"dead-letter-exchange": "x"}, {"queue-mode": "lazy"}, {"alternate-exchange": "x"}],
    ids=lambda definition: next(iter(definition)),
)
def test_operator_policies_that_are_refused(operator: Operator, definition: dict[str, Any]) -> None:
    ((key, value),) = definition.items()
    with pytest.raises(Refused) as caught:
        operator.policy("cf.o", "^cf.none", definition, operator=True)
    text = f'[{{<<"{key}">>,<<"{value}">>}}] are not recognised policy settings'
    assert str(caught.value) == f"Validation failed\n\n{text}"


@pytest.mark.parametrize(
    ("pattern", "options", "text"),
    [
        ("(", {}, 'Validation failed\n\npattern should be regular expression but is invalid: {"missing )",1}'),
        (
            "a",
            {"apply_to": "foo"},
            "Validation failed\n\napply-to 'foo' unrecognised; should be 'queues', 'exchanges' or 'all'",
        ),
        ("a", {"vhost": "cf.nosuch"}, "Virtual host 'cf.nosuch' does not exist"),
        (
            ")",
            {"apply_to": "foo"},
            "Validation failed\n\napply-to 'foo' unrecognised; should be 'queues', 'exchanges' or 'all'\n"
            'pattern should be regular expression but is invalid: {"unmatched parentheses",0}',
        ),
    ],
    ids=["pattern", "apply-to", "vhost", "both"],
)
def test_other_refusals(operator: Operator, pattern: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused) as caught:
        operator.policy("cf.p", pattern, {"max-length": 1}, **options)
    assert "".join(str(caught.value).split()) == "".join(text.split())  # RabbitMQ breaks long lines


def test_a_refused_change_leaves_what_was(channel: BlockingChannel, queue: Make, operator: Operator) -> None:
    q = queue()
    operator.policy("cf.p", only(q), {"max-length": 2})
    with pytest.raises(Refused):
        operator.policy("cf.p", only(q), {"max-length": -2})
    publish(channel, q, *"abc")
    becomes(channel, q, "bc")


@pytest.mark.parametrize("limits", [False, True], ids=["policy", "operator policy"])
@pytest.mark.parametrize("vhost", ["/", "cf.nosuch"])
def test_what_is_not_there_cannot_be_cleared(operator: Operator, limits: bool, vhost: str) -> None:
    with pytest.raises(Refused, match=r"^Parameter does not exist$"):
        operator.clear("cf.nosuch", operator=limits, vhost=vhost)


@pytest.mark.parametrize("command", ["list_policies", "list_operator_policies"])
def test_a_missing_vhost_has_no_list(operator: Operator, command: str) -> None:
    with pytest.raises(Refused, match=r"Virtual host 'cf.nosuch' does not exist"):
        operator.listed(command, vhost="cf.nosuch")
