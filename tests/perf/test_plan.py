"""Who publishes where, who consumes from what, and how many copies that makes."""

from __future__ import annotations

import pytest

from rabbitish.wire.properties import Properties
from tests.perf.support import plan

MANY = {"queue_pattern": "q%d", "queue_pattern_from": 2, "queue_pattern_to": 4}


@pytest.mark.parametrize(
    ("options", "exchange", "declares"),
    [
        ({}, "direct", True),
        ({"exchange_type": "fanout"}, "fanout", True),
        ({"exchange": "e", "exchange_type": "topic"}, "e", True),
        ({"exchange": ""}, "", False),
        ({"exchange": "amq.default"}, "", False),
        ({"exchange": "amq.topic", "exchange_type": "topic"}, "amq.topic", False),
        ({"exchange": "e", "queue": "q", "predeclared": True}, "e", False),
    ],
)
def test_the_exchange(options: dict[str, object], exchange: str, declares: bool) -> None:
    made = plan(**options)
    assert (made.exchange, made.declares_exchange) == (exchange, declares)


@pytest.mark.parametrize(
    ("options", "queues"),
    [
        ({}, [""]),
        ({"consumers": 3}, ["", "", ""]),
        ({"consumers": 0}, []),
        ({"queue": "q", "consumers": 3}, ["q"]),
        ({"queue": "q", "consumers": 0}, ["q"]),
        (MANY, ["q2", "q3", "q4"]),
        ({"queue_pattern": "a%%b-%02d", "queue_pattern_to": 1}, ["a%b-01"]),
    ],
)
def test_the_queues(options: dict[str, object], queues: list[str]) -> None:
    assert plan(**options).queues == queues


@pytest.mark.parametrize(
    ("options", "leaves"),
    [
        ({}, False),
        ({"auto_delete": False}, True),
        ({"queue": "q", "consumers": 0}, True),
        ({"queue": "q", "consumers": 2}, False),
        ({**MANY, "consumers": 2}, True),
        ({**MANY, "consumers": 3}, False),
    ],
)
def test_which_leave_queues_behind(options: dict[str, object], leaves: bool) -> None:
    assert plan(**options).leaves_queues is leaves


@pytest.mark.parametrize(
    ("options", "bindings", "keys", "consumed", "copies"),
    [
        ({"producers": 2, "consumers": 2}, ["token", "token"], ["token", "token"], ["a", "b"], 2),
        ({"queue": "a", "producers": 2, "consumers": 2}, ["a", "b"], ["a", "b"], ["a", "b"], 1),
        ({"queue": "a", "routing_key": "k"}, ["k", "k"], ["k"], ["a"], 2),
        ({"queue_pattern": "q%d", "queue_pattern_to": 2, "producers": 3}, ["a", "b"], ["a", "b", "a"], ["a"], 1),
        ({"exchange_type": "fanout"}, ["token", "token"], ["token"], ["a"], 2),
        ({"exchange_type": "fanout", "queue": "a"}, ["a", "b"], ["a"], ["a"], 2),
        ({"exchange_type": "headers", "queue": "a"}, ["a", "b"], ["a"], ["a"], 2),
        ({"exchange_type": "topic", "queue": "a"}, ["a", "b"], ["a"], ["a"], 1),
        ({"exchange_type": "x-random", "queue": "a"}, ["a", "b"], ["a"], ["a"], None),
        ({"exchange": "", "consumers": 3}, ["a", "b"], ["a"], ["a", "b", "a"], 1),
        ({"exchange": "", "routing_key": "elsewhere"}, ["elsewhere"] * 2, ["elsewhere"], ["a"], 0),
        ({"queue": "a", "predeclared": True}, ["a", "b"], ["a"], ["a"], None),
    ],
)
def test_who_goes_where(
    options: dict[str, int], bindings: list[str], keys: list[str], consumed: list[str], copies: int | None
) -> None:
    """As if the broker had two queues, a and b, whatever they were declared as."""
    made, names = plan(**options), ["a", "b"]
    assert [made.binding_key(name) for name in names] == bindings
    assert [made.producer_key(number, names) for number in range(options.get("producers", 1))] == keys
    assert [made.consumer_queue(number, names) for number in range(options.get("consumers", 1))] == consumed
    assert made.copies(names) == copies


def test_without_queues_messages_go_nowhere() -> None:
    made = plan(consumers=0)
    assert made.producer_key(0, []) == "token"
    assert made.copies([]) == 0


def test_queue_arguments() -> None:
    assert plan(queue_args={"x-max-length": 1}).queue_arguments == {"x-max-length": 1}
    assert plan(queue_args={"x-max-length": 1}, priority=3).queue_arguments == {"x-max-length": 1, "x-max-priority": 3}


def test_properties() -> None:
    assert plan().properties == [Properties(delivery_mode=1)]
    assert plan(persistent=True).properties == [Properties(delivery_mode=2)]
    given = Properties(delivery_mode=1, type="t")
    assert plan(persistent=True, properties=given).properties == [given]
    assert [each.priority for each in plan(priority=3).properties] == [0, 1, 2, 3]
    assert {each.delivery_mode for each in plan(priority=3, persistent=True).properties} == {2}
