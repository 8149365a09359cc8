"""Policies as values: read from RabbitMQ's JSON and written as it, and refused in RabbitMQ's words."""

from __future__ import annotations

from typing import Any

import pytest

from rabbitish.core.access.document import from_document, to_document
from rabbitish.core.access.policies import Policy, read_policy
from rabbitish.core.access.records import AccessError, VhostRecord
from rabbitish.core.access.roster import Roster

LENGTH = {"max-length": 3}
UNKNOWN = " are not recognised policy settings"


def value(definition: object = LENGTH, **others: object) -> dict[str, object]:
    return {"pattern": "^a", "definition": definition, **others}


def faults(given: dict[str, object], *, operator: bool = False) -> str:
    with pytest.raises(AccessError) as caught:
        read_policy("p", given, operator=operator)
    text = str(caught.value)
    assert text.startswith("Validation failed\n\n")
    return text.removeprefix("Validation failed\n\n")


def test_read_and_written() -> None:
    given = {"pattern": "^a", "definition": LENGTH, "priority": 7, "apply-to": "queues"}
    policy = read_policy("p", given)
    assert policy == Policy("p", "^a", LENGTH, 7, "queues")
    assert policy.value == given


@pytest.mark.parametrize("priority", [10**400, -(10**400), 2.5])
def test_a_priority_is_any_number(priority: float) -> None:
    assert read_policy("p", {"pattern": "^a", "definition": LENGTH, "priority": priority}).priority == priority


def test_priority_and_apply_to_may_be_missing() -> None:
    assert read_policy("p", value()) == Policy("p", "^a", LENGTH, 0, "all")


GOOD: list[tuple[str, list[object], list[object]]] = [
    # key, values that are good, values that are not
    ("alternate-exchange", ["", "x", "ö" * 127], [1, None, ["x"], "ö" * 128, "\ud800"]),
    ("consumer-timeout", [0, 1], [-1, "1", 1.0, True]),
    ("dead-letter-exchange", ["", "x"], [1, True, "x" * 256]),
    ("dead-letter-routing-key", ["", "x"], [1, {}, "x" * 256]),
    ("dead-letter-strategy", ["at-most-once", "at-least-once"], ["", 1, []]),
    ("delivery-limit", [0, 3], [-1, "3", 0.5]),
    ("expires", [1, 10**15], [0, -1, "1", True]),
    ("initial-cluster-size", [0, 3], [-1, "3"]),
    ("max-age", ["1Y", "20M", "3D", "7h", "09m", "1s"], ["0s", "1", "s", "1x", 5, "1s ", "٣s", None]),
    ("max-in-memory-bytes", [0], [-1, None]),
    ("max-in-memory-length", [0], [-1, None]),
    ("max-length", [0, 1 << 70], [-1, 1.5, "x", False]),
    ("max-length-bytes", [0], [-1, "x"]),
    ("message-ttl", [0, 60_000], [-1, "x"]),
    ("overflow", ["drop-head", "reject-publish", "reject-publish-dlx"], ["drop", 1, [], {}]),
    ("queue-leader-locator", ["client-local", "balanced", "random", "least-leaders"], ["", 1, []]),
    ("queue-master-locator", ["min-masters", "client-local", "random"], ["", 1, []]),
    ("queue-mode", ["default", "lazy"], ["", 1, None]),
    ("queue-version", [1, 2], [0, 3, "1", True]),
    ("stream-filter-size-bytes", [16, 255], [15, 256, "x"]),
    ("stream-max-segment-size-bytes", [0, 3_000_000_000], [-1, 3_000_000_001]),
    ("target-group-size", [0, 5], [-1, "x"]),
]


@pytest.mark.parametrize(("key", "good", "bad"), GOOD, ids=[key for key, *_ in GOOD])
def test_the_values_of_each_key(key: str, good: list[object], bad: list[object]) -> None:
    for each in good:
        assert read_policy("p", value({key: each})).definition == {key: each}
    for each in bad:
        assert "valid" in faults(value({key: each})), each


OPERATORS = ["expires", "message-ttl", "max-length", "max-length-bytes", "delivery-limit"]
OPERATORS += ["max-in-memory-length", "max-in-memory-bytes"]


@pytest.mark.parametrize(("key", "good", "bad"), GOOD, ids=[key for key, *_ in GOOD])
def test_operator_policies_are_limits(key: str, good: list[object], bad: list[object]) -> None:
    if key in OPERATORS:
        assert read_policy("p", value({key: 5}), operator=True).definition == {key: 5}
        assert "valid" in faults(value({key: bad[0]}), operator=True)
    else:
        assert faults(value({key: good[0]}), operator=True).endswith(UNKNOWN)


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        ({"max-length": -3}, "-3 is not a valid maximum length"),
        ({"max-length": "x", "foo": 1}, '<<"x">> is not a valid maximum length'),
        ({"foo": [1, "a"], "bar": None}, '[{<<"bar">>,null},{<<"foo">>,[1,<<"a">>]}]' + UNKNOWN),
        ({"foo": {"b": True, "a": 1.5}}, '[{<<"foo">>,#{<<"a">> => 1.5,<<"b">> => true}}]' + UNKNOWN),
        ({}, "no policy provided"),
        ([], "no policy provided"),
        ([1], "definition must be a dictionary: [1]"),
        (3, "definition must be a dictionary: 3"),
        ({"ha-params": 1}, "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown"),
        ({"ha-mode": "some"}, '<<"some">> is not a valid ha-mode value'),
        ({"ha-mode": "all", "ha-params": 1}, 'ha-mode="all" does not take parameters'),
        ({"ha-mode": "exactly"}, 'ha-mode="exactly" takes an integer, none given'),
        ({"ha-mode": "exactly", "ha-params": "x"}, 'ha-mode="exactly" takes an integer, <<"x">> given'),
        ({"ha-mode": "nodes", "ha-params": "x"}, 'ha-mode="nodes" takes a list, <<"x">> given'),
        ({"ha-mode": "nodes", "ha-params": []}, 'ha-mode="nodes" list must be non-empty'),
        ({"ha-mode": "nodes", "ha-params": ["x", 1]}, 'ha-mode="nodes" takes a list of strings, [1] was not a string'),
        (
            {"ha-mode": "all", "ha-sync-mode": "x"},
            'ha-sync-mode must be "manual" or "automatic", got <<"x">>',
        ),
        (
            {"ha-mode": "all", "ha-sync-batch-size": 0},
            "ha-sync-batch-size takes an integer greater than 0, 0 given",
        ),
        (
            {"ha-mode": "all", "ha-promote-on-failure": "x"},
            'ha-promote-on-failure must be "always" or "when-synced", got <<"x">>',
        ),
    ],
)
def test_definitions_that_cannot_be(definition: object, text: str) -> None:
    assert faults(value(definition)) == text


@pytest.mark.parametrize(
    "definition",
    [
        {"ha-mode": "all", "ha-sync-mode": "automatic", "ha-sync-batch-size": 5, "ha-promote-on-shutdown": "always"},
        {"ha-mode": "exactly", "ha-params": 2, "ha-promote-on-failure": "when-synced"},
        {"ha-mode": "nodes", "ha-params": ["rabbit@a"], "max-length": 1},
    ],
)
def test_mirrors_are_taken(definition: dict[str, object]) -> None:
    assert read_policy("p", value(definition)).definition == definition


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ({"pattern": "("}, 'pattern should be regular expression but is invalid: {"missing )",1}'),
        ({"pattern": 1}, "pattern should be a binary but was 1"),
        ({"priority": "1"}, 'priority should be a number, actually was <<"1">>'),
        ({"priority": True}, "priority should be a number, actually was true"),
        ({"priority": float("nan")}, "priority should be a number, actually was nan"),
        ({"apply-to": "foo"}, "apply-to 'foo' unrecognised; should be 'queues', 'exchanges' or 'all'"),
        ({"apply-to": None}, "apply-to 'null' unrecognised; should be 'queues', 'exchanges' or 'all'"),
        ({"foo": 1}, 'Unrecognised terms [{<<"foo">>,1}] in p'),
    ],
)
def test_other_parts_that_cannot_be(others: dict[str, object], text: str) -> None:
    assert faults(value(**others)) == text


def test_all_faults_are_told_at_once() -> None:
    told = faults({"pattern": ")", "priority": None, "apply-to": "", "definition": {"x": 1}}).split("\n")
    assert [line.split()[0] for line in told] == ['[{<<"x">>,1}]', "apply-to", "pattern", "priority"]
    assert faults({}) == 'Key "definition" not found in p\nKey "pattern" not found in p'


def test_a_pattern_that_takes_for_ever_is_refused() -> None:
    assert "pattern should be regular expression" in faults(value(pattern="(((a{1000}){1000}){1000}){1000}"))


@pytest.mark.parametrize("name", ["", "x" * 256, "\ud800"])
def test_names(name: str) -> None:
    with pytest.raises(AccessError):
        read_policy(name, value())


# --- in a roster -----------------------------------------------------------------------------------------------------


@pytest.fixture
def roster() -> Roster:
    roster = Roster()
    for vhost in ("/", "v"):
        roster.add_vhost(VhostRecord(vhost))
    return roster


@pytest.mark.parametrize("operator", [False, True])
def test_set_and_cleared(roster: Roster, operator: bool) -> None:
    one, other = (read_policy("p", value({"max-length": n}), operator=operator) for n in (1, 2))
    roster.set_policy("v", one, operator=operator)
    roster.set_policy("v", other, operator=operator)
    assert roster.policies_of("v", operator=operator) == [other]
    assert roster.policies_of("v", operator=not operator) == roster.policies_of("/", operator=operator) == []
    draft = roster.draft()
    draft.clear_policy("v", "p", operator=operator)
    assert draft.policies_of("v", operator=operator) == []
    assert roster.policies_of("v", operator=operator) == [other]


@pytest.mark.parametrize("operator", [False, True])
def test_what_cannot_be_cleared(roster: Roster, operator: bool) -> None:
    roster.set_policy("v", read_policy("p", value()), operator=not operator)
    for vhost, name, text in (
        ("v", "p", "Parameter does not exist"),
        ("v", "q", "Parameter does not exist"),
        ("x", "p", "Parameter does not exist"),
    ):
        with pytest.raises(AccessError, match=text):
            roster.clear_policy(vhost, name, operator=operator)
    with pytest.raises(AccessError, match="Virtual host 'x' does not exist"):
        roster.set_policy("x", read_policy("p", value()))


def test_the_highest_priority_comes_first_and_names_decide(roster: Roster) -> None:
    for name, priority in (("b", 1), ("c", 2), ("a", 1), ("d", -1), ("e", 1.5)):
        roster.set_policy("v", read_policy(name, value(priority=priority)))
    assert "".join(policy.name for policy in roster.policies_of("v")) == "ceabd"


def test_policies_go_with_their_virtual_host(roster: Roster) -> None:
    for operator in (False, True):
        for vhost in ("/", "v"):
            roster.set_policy(vhost, read_policy("p", value()), operator=operator)
    roster.delete_vhost("v")
    assert list(roster.policies) == list(roster.operator_policies) == [("/", "p")]


def test_a_document_and_back(roster: Roster) -> None:
    roster.set_policy("v", read_policy("p", value({"queue-mode": "lazy"}, priority=-1)))
    roster.set_policy("/", read_policy("o", value(), operator=True), operator=True)
    document: dict[str, Any] = to_document(roster)
    assert document["policies"] == [
        {
            "vhost": "v",
            "name": "p",
            "pattern": "^a",
            "apply-to": "all",
            "definition": {"queue-mode": "lazy"},
            "priority": -1,
        }
    ]
    again = from_document(document)
    assert (again.policies, again.operator_policies) == (roster.policies, roster.operator_policies)
    document["operator_policies"][0]["definition"] = {"queue-mode": "lazy"}
    with pytest.raises(AccessError, match=r"operator_policies\[0\]: Validation failed"):
        from_document(document)
