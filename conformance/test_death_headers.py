"""What dead-lettering writes into the headers: x-death entry by entry, x-first-death-*, and what it takes away.

A fresh entry has RabbitMQ's order of keys; one that has grown comes back sorted. The headers themselves are sorted.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.compat import long

from conformance.clients import Message, drain, must_get, publish
from conformance.rawpeer import RawPeer, headers_property, longstr, shortstr, table
from conformance.support import Names, differs, eventually

FRESH = ["count", "reason", "queue", "time", "exchange", "routing-keys"]
FIRST = ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"]


@pytest.fixture
def dead(channel: BlockingChannel, name: Names) -> str:
    """The queue for dead letters."""
    return str(channel.queue_declare(name("dead")).method.queue)


def _source(channel: BlockingChannel, name: Names, dead: str, **more: Any) -> str:
    """A queue whose dead letters go to `dead` through the default exchange; x- arguments without their x-."""
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    arguments |= {f"x-{key.replace('_', '-')}": value for key, value in more.items()}
    return str(channel.queue_declare(name(), arguments=arguments).method.queue)


def _reject(channel: BlockingChannel, queue: str) -> None:
    channel.basic_reject(must_get(channel, queue, auto_ack=False).method.delivery_tag, requeue=False)


def _keys(message: Message) -> list[str]:
    """The names of the headers, without those that only newer brokers write."""
    return [key for key in message.headers if not key.startswith("x-last-death-")]


def _death_by_reject(channel: BlockingChannel, name: Names, dead: str, headers: dict[str, Any] | None) -> Message:
    """The message with these headers after one rejection."""
    queue = _source(channel, name, dead)
    publish(channel, queue, "m", headers=headers)
    _reject(channel, queue)
    return must_get(channel, dead)


# --- one death -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [("rejected", {}), ("expired", {"message_ttl": 10}), ("maxlen", {"max_length": 0})],
)
def test_first_entry(channel: BlockingChannel, name: Names, dead: str, reason: str, arguments: dict[str, int]) -> None:
    queue = _source(channel, name, dead, **arguments)
    before = datetime.now(UTC).replace(microsecond=0)
    publish(channel, queue, "m")
    if reason == "rejected":
        _reject(channel, queue)
    got = must_get(channel, dead)
    (death,) = got.headers["x-death"]
    assert list(death) == FRESH
    time = death.pop("time")
    assert before <= time <= datetime.now(UTC) + timedelta(seconds=1)
    assert death == {"count": 1, "reason": reason, "queue": queue, "exchange": "", "routing-keys": [queue]}
    assert isinstance(death["count"], long)
    assert _keys(got) == ["x-death", *FIRST]
    assert [got.headers[key] for key in FIRST] == ["", queue, reason]


def test_exchange_and_keys_are_those_of_the_publish(channel: BlockingChannel, name: Names, dead: str) -> None:
    exchange, queue = name("x"), _source(channel, name, dead)
    channel.exchange_declare(exchange, "topic")
    channel.queue_bind(queue, exchange, "a.#")
    publish(channel, "a.b", "m", exchange=exchange, headers={"CC": ["c", "d"], "BCC": ["e"]})
    _reject(channel, queue)
    headers = must_get(channel, dead).headers
    (death,) = headers["x-death"]
    assert (death["exchange"], death["routing-keys"]) == (exchange, ["a.b", "c", "d"])
    assert headers["x-first-death-exchange"] == exchange


@pytest.mark.parametrize("by", ["expiry", "reject"])
def test_expiration_becomes_original_expiration(channel: BlockingChannel, name: Names, dead: str, by: str) -> None:
    queue = _source(channel, name, dead)
    expiration = "15" if by == "expiry" else "60000"
    publish(channel, queue, "m", expiration=expiration, headers={"h": 1})
    if by == "reject":
        _reject(channel, queue)
    got = must_get(channel, dead)
    assert got.properties.expiration is None
    (death,) = got.headers["x-death"]
    assert list(death) == [*FRESH, "original-expiration"]
    assert death["original-expiration"] == expiration


def test_other_properties_stay(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead)
    properties: dict[str, Any] = {
        "content_type": "a/b",
        "content_encoding": "c",
        "delivery_mode": 2,
        "priority": 4,
        "correlation_id": "d",
        "reply_to": "e",
        "message_id": "f",
        "timestamp": 7,
        "type": "g",
        "app_id": "h",
        "cluster_id": "i",
    }
    publish(channel, queue, "body", **properties)
    _reject(channel, queue)
    got = must_get(channel, dead)
    assert {key: getattr(got.properties, key) for key in properties} == properties
    assert got.body == b"body"


# --- what happens to other headers -----------------------------------------------------------------------------------


def test_headers_are_sorted(channel: BlockingChannel, name: Names, dead: str) -> None:
    got = _death_by_reject(channel, name, dead, {"z": 1, "a": {"z": 1, "a": 2}, "x-e": 3, "x-a": 4, "A": 5, "": 6})
    assert _keys(got) == ["", "A", "a", "x-a", "x-death", "x-e", *FIRST, "z"]
    assert list(got.headers["a"]) == ["z", "a"]


def test_values_keep_their_python_type(channel: BlockingChannel, name: Names, dead: str) -> None:
    headers: dict[str, Any] = {
        "text": "☃",
        "bytes": b"\x00\xff",
        "true": True,
        "int": -5,
        "long": long(5),
        "void": None,
        "decimal": Decimal("1.25"),
        "time": datetime(2024, 2, 3, tzinfo=UTC),
        "array": [1, "two", [3], {"four": 4}, None],
        "table": {"a": {"b": []}},
    }
    got = _death_by_reject(channel, name, dead, headers).headers
    assert {key: got[key] for key in headers} == headers


ENCODED = {
    "b": b"b\xfb",
    "B": b"B\xfb",
    "s": b"s\xff\xfb",
    "u": b"u\xff\xfb",
    "I": b"I\xff\xff\xff\xfb",
    "i": b"i\xff\xff\xff\xfb",
    "l": b"l\xff\xff\xff\xff\xff\xff\xff\xfb",
    "f": b"f\x3f\x80\x00\x00",
    "d": b"d\x3f\xf8\x00\x00\x00\x00\x00\x00",
    "D": b"D\x02\x00\x00\x00\x7d",
    "T": b"T\x00\x00\x00\x00\x5f\x00\x00\x00",
    "t": b"t\x01",
    "V": b"V",
    "S": b"S" + longstr("☃"),
    "x": b"x" + longstr(b"\x00\xff"),
    "A": b"A" + longstr(b"b\x01I\x00\x00\x00\x02V"),
    "F": b"F" + table(("z", b"s\x00\x01"), ("a", b"d\x3f\xf8\x00\x00\x00\x00\x00\x00")),
}


@pytest.mark.parametrize("tag", list(ENCODED))
def test_values_keep_their_type_on_the_wire(peer: RawPeer, name: Names, tag: str) -> None:
    dead = peer.declare(1, name())
    arguments = {"x-max-length": 0, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    queue = peer.declare(1, name(), arguments)
    peer.publish(1, "", queue, b"m", headers_property(table(("the key", ENCODED[tag]))))
    got = eventually(lambda: peer.get(1, dead))
    assert got
    assert shortstr("the key") + ENCODED[tag] in got.properties


# --- several deaths --------------------------------------------------------------------------------------------------


def _deaths(message: Message) -> list[tuple[str, str, int]]:
    return [(death["queue"], death["reason"], death["count"]) for death in message.headers["x-death"]]


def test_the_newest_comes_first(channel: BlockingChannel, name: Names, dead: str) -> None:
    second = _source(channel, name, dead, message_ttl=10)
    first = _source(channel, name, second)
    publish(channel, first, "m")
    _reject(channel, first)
    got = must_get(channel, dead)
    assert _deaths(got) == [(second, "expired", 1), (first, "rejected", 1)]
    assert [death["routing-keys"] for death in got.headers["x-death"]] == [[second], [first]]
    assert [got.headers[key] for key in FIRST] == ["", first, "rejected"]
    assert all(death["exchange"] == "" for death in got.headers["x-death"])


NEWEST_FIRST = "newest first, as documented; RabbitMQ 3.10 turns the older entries round at each death"


@differs(rabbitmq=[3, 1, 0, 2], rabbitish=[3, 2, 1, 0], reason=NEWEST_FIRST)
def test_order_of_the_older_entries(channel: BlockingChannel, name: Names, dead: str, expected: list[int]) -> None:
    queues = [dead]
    for _ in range(4):
        queues.insert(0, _source(channel, name, queues[0]))
    publish(channel, queues[0], "m")
    for queue in queues[:4]:
        _reject(channel, queue)
    assert [queues.index(queue) for queue, _, _ in _deaths(must_get(channel, dead))] == expected


@differs(
    rabbitmq={},
    rabbitish={"x-last-death-exchange": "", "x-last-death-queue": 1, "x-last-death-reason": "rejected"},
    reason="RabbitMQ has x-last-death-* since 3.13, which is the version we claim",
)
def test_last_death(channel: BlockingChannel, name: Names, dead: str, expected: dict[str, Any]) -> None:
    second = _source(channel, name, dead)
    first = _source(channel, name, second, message_ttl=10)
    publish(channel, first, "m")
    _reject(channel, second)
    got = must_get(channel, dead).headers
    last = {key: value for key, value in got.items() if key.startswith("x-last-death-")}
    assert last == {key: second if value == 1 else value for key, value in expected.items()}


def test_keys_of_a_second_entry_are_sorted(channel: BlockingChannel, name: Names, dead: str) -> None:
    second = _source(channel, name, dead)
    first = _source(channel, name, second)
    publish(channel, first, "m", expiration="60000")
    for queue in (first, second):
        _reject(channel, queue)
    newest, oldest = must_get(channel, dead).headers["x-death"]
    assert list(newest) == sorted(FRESH)
    assert list(oldest) == [*FRESH, "original-expiration"]


def test_the_same_death_again_counts_up(channel: BlockingChannel, name: Names) -> None:
    queue = name()
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": ""})
    publish(channel, queue, "m")
    times = []
    for count in (1, 2, 3, 4):
        _reject(channel, queue)
        got = must_get(channel, queue, auto_ack=False)
        (death,) = got.headers["x-death"]
        assert death["count"] == count
        times.append(death["time"])
        channel.basic_nack(got.method.delivery_tag)
    assert list(death) == sorted(FRESH)
    assert len(set(times)) == 1


def test_a_death_for_another_reason_is_another_entry(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead)
    publish(channel, queue, "m")
    _reject(channel, queue)
    publish(channel, queue, "m", headers=must_get(channel, dead).headers, expiration="10")
    assert _deaths(must_get(channel, dead)) == [(queue, "expired", 1), (queue, "rejected", 1)]


def test_a_death_moves_its_entry_to_the_front(channel: BlockingChannel, name: Names) -> None:
    one, two = name(), name()
    for queue, other in ((one, two), (two, one)):
        channel.queue_declare(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": other})
    publish(channel, one, "m")
    for queue in (one, two, one):
        _reject(channel, queue)
    got = must_get(channel, two)
    assert _deaths(got) == [(one, "rejected", 2), (two, "rejected", 1)]
    assert got.headers["x-first-death-queue"] == one


def test_first_death_is_never_changed(channel: BlockingChannel, name: Names, dead: str) -> None:
    second = _source(channel, name, dead)
    first = _source(channel, name, second, message_ttl=10)
    publish(channel, first, "m")
    _reject(channel, second)
    got = must_get(channel, dead)
    assert [got.headers[key] for key in FIRST] == ["", first, "expired"]


# --- x-death that clients send ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["text", 5, {"a": 1}, True, None, b"x"])
def test_x_death_that_is_no_array_is_replaced(channel: BlockingChannel, name: Names, dead: str, sent: Any) -> None:
    got = _death_by_reject(channel, name, dead, {"x-death": sent})
    (death,) = got.headers["x-death"]
    assert list(death) == FRESH
    assert death["count"] == 1
    assert not any(key.startswith("x-first-death") for key in got.headers)


def test_an_empty_x_death_is_filled(channel: BlockingChannel, name: Names, dead: str) -> None:
    got = _death_by_reject(channel, name, dead, {"x-death": []})
    (death,) = got.headers["x-death"]
    assert list(death) == sorted(FRESH)
    assert not any(key.startswith("x-first-death") for key in got.headers)


def test_entries_of_other_queues_stay(channel: BlockingChannel, name: Names, dead: str) -> None:
    sent = [{"queue": "elsewhere", "reason": "expired", "count": 7, "extra": "kept"}]
    got = _death_by_reject(channel, name, dead, {"x-death": sent, "x-first-death-queue": "mine"})
    newest, oldest = got.headers["x-death"]
    assert newest["reason"] == "rejected"
    assert oldest == sent[0]
    assert got.headers["x-first-death-queue"] == "mine"


@differs(rabbitmq=["expired", "rejected"], rabbitish=["rejected", "expired"], reason=NEWEST_FIRST)
def test_entry_of_this_queue_goes_on_counting(
    channel: BlockingChannel, name: Names, dead: str, expected: list[str]
) -> None:
    queue = _source(channel, name, dead)
    sent = [
        {"queue": "elsewhere", "reason": "rejected", "count": 7},
        {"queue": queue, "reason": "rejected", "count": 41, "extra": "kept"},
        {"queue": queue, "reason": "expired", "count": 3},
    ]
    publish(channel, queue, "m", headers={"x-death": sent})
    _reject(channel, queue)
    grown, *others = must_get(channel, dead).headers["x-death"]
    assert grown == sent[1] | {"count": 42}
    assert [death["reason"] for death in others] == expected
    assert sorted(death["count"] for death in others) == [3, 7]


def test_legacy_entries_are_folded_into_a_count(channel: BlockingChannel, name: Names, dead: str) -> None:
    """Before RabbitMQ 3.5.2 every death had an entry of its own and no count."""
    queue = _source(channel, name, dead)
    sent: list[dict[str, Any]] = [{"queue": queue, "reason": "rejected"} for _ in range(3)]
    sent += [{"queue": "elsewhere", "reason": "expired"} for _ in range(2)]
    publish(channel, queue, "m", headers={"x-death": sent})
    _reject(channel, queue)
    assert _deaths(must_get(channel, dead)) == [(queue, "rejected", 4), ("elsewhere", "expired", 2)]


def test_two_copies_die_separately(channel: BlockingChannel, name: Names, dead: str) -> None:
    exchange, queues = name("x"), [_source(channel, name, dead) for _ in range(2)]
    channel.exchange_declare(exchange, "fanout")
    for queue in queues:
        channel.queue_bind(queue, exchange)
    publish(channel, "k", "m", exchange=exchange, headers={"h": 1})
    for queue in queues:
        _reject(channel, queue)
    assert [_deaths(must_get(channel, dead)) for _ in queues] == [[(queue, "rejected", 1)] for queue in queues]


def test_the_client_may_publish_again_what_died(channel: BlockingChannel, name: Names, dead: str) -> None:
    queue = _source(channel, name, dead)
    publish(channel, queue, "m")
    for count in (1, 2, 3):
        _reject(channel, queue)
        got = must_get(channel, dead)
        assert _deaths(got) == [(queue, "rejected", count)]
        publish(channel, queue, "m", headers=got.headers)
    assert drain(channel, queue) == ["m"]
