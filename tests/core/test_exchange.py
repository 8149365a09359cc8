"""Exchanges and bindings, against a list of bindings searched from end to end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitish.core.exchange import KINDS, Binding, DefaultExchange, Destination, Exchange
from rabbitish.core.message import Message
from rabbitish.errors import ChannelError
from rabbitish.values import Int64, Table
from tests.thorough import seeds


class FakeQueue:
    """A queue as far as routing knows queues."""

    def __init__(self, name: str) -> None:
        self.name = name

    def enqueue(self, message: Message, now: int) -> bool:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.name}>"


def bind(source: Exchange, destination: Destination, key: str = "", arguments: Table | None = None) -> bool:
    return source.bind(Binding(source, destination, key, arguments or {}))


def once(destinations: object) -> list[Destination]:
    return list(dict.fromkeys(destinations))  # type: ignore[call-overload]


# ---- the flags


def test_what_an_exchange_is_declared_with() -> None:
    plain = Exchange("e", "topic")
    assert (plain.name, plain.type) == ("e", "topic")
    assert not (plain.durable or plain.auto_delete or plain.internal or plain.ever_bound or plain.bound)
    assert (plain.arguments, plain.alternate) == ({}, None)
    full = Exchange(
        "f", "headers", durable=True, auto_delete=True, internal=True, arguments={"alternate-exchange": "a", "x": 1}
    )
    assert full.durable
    assert full.auto_delete
    assert full.internal
    assert full.alternate == "a"
    assert full.arguments == {"alternate-exchange": "a", "x": 1}
    assert repr(full) == "<Exchange 'f' headers>"


def test_only_headers_exchanges_use_headers() -> None:
    assert {kind for kind in KINDS if Exchange("e", kind).uses_headers} == {"headers"}


def test_the_types() -> None:
    assert sorted(KINDS) == ["direct", "fanout", "headers", "topic"]


def test_the_default_exchange_finds_queues_by_name() -> None:
    queues = {"q": FakeQueue("q")}
    default = DefaultExchange(queues.get)
    assert list(default.matches("q", {})) == [queues["q"]]
    assert list(default.matches("nosuch", {})) == []
    assert (default.name, default.type, default.durable, default.uses_headers) == ("", "direct", True, False)


# ---- binding and unbinding


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_binding_is_there_once(kind: str) -> None:
    exchange, queue = Exchange("e", kind), FakeQueue("q")
    assert bind(exchange, queue, "k", {"a": 1, "b": 2})
    assert not bind(exchange, queue, "k", {"b": 2, "a": 1})
    assert [binding.destination for binding in exchange.bindings()] == [queue]
    assert list(exchange.matches("k", {"a": 1, "b": 2})) == [queue]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_destination_key_and_arguments_tell_bindings_apart(kind: str) -> None:
    exchange, one, other = Exchange("e", kind), FakeQueue("1"), FakeQueue("2")
    assert bind(exchange, one, "k")
    assert bind(exchange, other, "k")
    assert bind(exchange, one, "l")
    assert bind(exchange, one, "k", {"a": 1})
    assert bind(exchange, one, "k", {"a": Int64(1)})  # as with RabbitMQ, types count here
    assert len(exchange.bindings()) == 5
    assert exchange.unbind(one, "k", {"a": Int64(1)}) is not None
    assert exchange.unbind(one, "k", {"a": Int64(1)}) is None
    assert exchange.unbind(one, "nosuch", {}) is None
    assert exchange.unbind(FakeQueue("1"), "k", {}) is None
    assert [(binding.destination, binding.routing_key, binding.arguments) for binding in exchange.bindings()] == [
        (one, "k", {}),
        (other, "k", {}),
        (one, "l", {}),
        (one, "k", {"a": 1}),
    ]


def test_unbind_returns_the_binding_that_was_made() -> None:
    exchange, queue = Exchange("e", "direct"), FakeQueue("q")
    binding = Binding(exchange, queue, "k", {})
    exchange.bind(binding)
    assert exchange.unbind(queue, "k", {}) is binding
    assert binding.source is exchange


def test_a_binding_is_found_by_what_identifies_it() -> None:
    exchange, queue = Exchange("e", "direct"), FakeQueue("q")
    binding = Binding(exchange, queue, "k", {"a": 1})
    exchange.bind(binding)
    assert exchange.find(queue, "k", {"a": 1}) is binding
    assert exchange.find(queue, "k", {"a": Int64(1)}) is None
    assert exchange.find(queue, "l", {"a": 1}) is None
    assert exchange.find(FakeQueue("q"), "k", {"a": 1}) is None


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_once_bound_is_remembered(kind: str) -> None:
    exchange, queue = Exchange("e", kind), FakeQueue("q")
    assert (exchange.bound, exchange.ever_bound) == (False, False)
    bind(exchange, queue, "k")
    assert (exchange.bound, exchange.ever_bound) == (True, True)
    exchange.unbind(queue, "k", {})
    assert (exchange.bound, exchange.ever_bound) == (False, True)
    assert list(exchange.matches("k", {})) == []


def test_a_destination_that_goes_takes_all_its_bindings() -> None:
    exchange, one, other = Exchange("e", "topic"), FakeQueue("1"), FakeQueue("2")
    for key in ("a", "#", "a.*"):
        bind(exchange, one, key)
        bind(exchange, other, key)
    gone = exchange.unbind_destination(one)
    assert [binding.routing_key for binding in gone] == ["a", "#", "a.*"]
    assert {binding.destination for binding in gone} == {one}
    assert exchange.unbind_destination(one) == []
    assert set(exchange.matches("a", {})) == {other}
    assert {binding.destination for binding in exchange.bindings()} == {other}


def test_the_exchanges_it_leads_to() -> None:
    source, one, other = (Exchange(name, "fanout") for name in "sab")
    bind(source, FakeQueue("q"))
    bind(source, one, "1")
    bind(source, one, "2")
    bind(source, other)
    assert list(source.exchanges()) == [one, other]
    source.unbind(one, "1", {})
    assert list(source.exchanges()) == [one, other]
    source.unbind(one, "2", {})
    assert list(source.exchanges()) == [other]
    source.unbind_destination(other)
    assert list(source.exchanges()) == []


def test_a_refused_binding_leaves_nothing() -> None:
    exchange, queue = Exchange("h", "headers"), FakeQueue("q")
    with pytest.raises(ChannelError, match="Invalid x-match field value"):
        bind(exchange, queue, "", {"x-match": "zzz"})
    assert not exchange.bound
    assert not exchange.ever_bound
    assert exchange.unbind(queue, "", {"x-match": "zzz"}) is None


def test_other_types_do_not_look_at_x_match() -> None:
    for kind in ("direct", "fanout", "topic"):
        assert bind(Exchange("e", kind), FakeQueue("q"), "", {"x-match": "zzz"})


# ---- matching


def test_matches_come_in_the_order_of_the_bindings() -> None:
    queues = [FakeQueue(str(number)) for number in range(5)]
    topic = Exchange("t", "topic")
    for queue, pattern in zip(queues, ("#", "a.b", "*.b", "a.#", "a.b"), strict=True):
        bind(topic, queue, pattern)
    assert list(topic.matches("a.b", {})) == queues
    headers = Exchange("h", "headers")
    demands: list[Table] = [{"b": None}, {}, {"x-match": "any", "a": 1, "b": 2}, {"a": 1, "b": 2}, {"b": 2}]
    for queue, demand in zip(queues, demands, strict=True):
        bind(headers, queue, "", demand)
    assert list(headers.matches("", {"a": 1, "b": 2})) == queues


def test_headers_bindings_share_places_without_disturbing_each_other() -> None:
    exchange = Exchange("h", "headers")
    queues = [FakeQueue(str(number)) for number in range(30)]
    for number, queue in enumerate(queues):
        bind(exchange, queue, "", {"type": "report", "number": number % 10})
    assert list(exchange.matches("", {"type": "report", "number": 3})) == [queues[3], queues[13], queues[23]]
    assert list(exchange.matches("", {"type": "other", "number": 3})) == []
    assert list(exchange.matches("", {"number": 3})) == []
    exchange.unbind_destination(queues[13])
    assert list(exchange.matches("", {"type": "report", "number": 3.0})) == [queues[3], queues[23]]


class Counted(str):
    """A text that counts how often it is compared."""

    __slots__ = ()
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)


def test_a_message_is_compared_with_few_of_the_bindings() -> None:
    exchange = Exchange("h", "headers")
    for number in range(1000):
        bind(exchange, FakeQueue(str(number)), "", {"type": Counted("report"), "number": number})
    Counted.compared = 0
    found = [queue.name for queue in exchange.matches("", {"type": "report", "number": 7})]
    assert found == ["7"]
    assert Counted.compared < 10


PATTERN_WORDS = ("a", "b", "*", "#")
pattern_keys = st.lists(st.sampled_from(PATTERN_WORDS), max_size=3).map(".".join)
tables: st.SearchStrategy[Table] = st.dictionaries(
    st.sampled_from(["a", "b", "x-c"]), st.sampled_from([1, 2.0, "1", None, True]), max_size=3
)
modes = st.sampled_from([None, "all", "any", "all-with-x", "any-with-x"])
arguments_ = st.builds(lambda table, mode: table if mode is None else {**table, "x-match": mode}, tables, modes)


def topic_matches(pattern: list[str], key: list[str]) -> bool:
    if not pattern:
        return not key
    if pattern[0] == "#":
        return topic_matches(pattern[1:], key) or (bool(key) and topic_matches(pattern, key[1:]))
    return bool(key) and pattern[0] in ("*", key[0]) and topic_matches(pattern[1:], key[1:])


def headers_match(arguments: Table, headers: Table) -> bool:
    mode = str(arguments.get("x-match", "all"))
    hits = [
        key in headers and (value is None or (type(value) is type(headers[key]) and value == headers[key]))
        for key, value in arguments.items()
        if key != "x-match" and (mode.endswith("-with-x") or not key.startswith("x-"))
    ]
    return any(hits) if mode.startswith("any") else all(hits)


def split(key: str) -> list[str]:
    return key.split(".") if key else []


NAIVE: dict[str, Callable[[Binding, str, Table], bool]] = {
    "direct": lambda binding, key, headers: binding.routing_key == key,
    "fanout": lambda binding, key, headers: True,
    "topic": lambda binding, key, headers: topic_matches(split(binding.routing_key), split(key)),
    "headers": lambda binding, key, headers: headers_match(binding.arguments, headers),
}

steps = st.lists(
    st.tuples(st.sampled_from(["bind", "bind", "bind", "unbind", "drop"]), st.integers(0, 4), pattern_keys, arguments_),
    max_size=30,
)


@settings(deadline=None, max_examples=len(seeds(50, 150)))
@given(st.sampled_from(sorted(KINDS)), steps, pattern_keys, tables)
def test_any_history_routes_like_a_list_of_bindings(
    kind: str, history: list[tuple[str, int, str, Table]], key: str, headers: Table
) -> None:
    exchange = Exchange("e", kind)
    destinations: list[Destination] = [
        FakeQueue("0"),
        FakeQueue("1"),
        FakeQueue("2"),
        Exchange("3", "fanout"),
        exchange,
    ]
    model: list[Binding] = []
    for step, number, routing_key, arguments in history:
        binding = Binding(exchange, destinations[number], routing_key, arguments)
        same = [old for old in model if (old.destination, old.identity) == (binding.destination, binding.identity)]
        if step == "bind":
            assert exchange.bind(binding) == (not same)
            model += [] if same else [binding]
        elif step == "unbind":
            assert exchange.unbind(binding.destination, routing_key, arguments) is (same[0] if same else None)
            model = [old for old in model if old not in same]
        else:
            gone = [old for old in model if old.destination is binding.destination]
            assert exchange.unbind_destination(binding.destination) == gone
            model = [old for old in model if old not in gone]
        assert exchange.bindings() == model
        assert exchange.bound == bool(model)
        assert set(exchange.exchanges()) == {old.destination for old in model if old.destination in destinations[3:]}
    expected = [binding.destination for binding in model if NAIVE[kind](binding, key, headers)]
    assert once(exchange.matches(key, headers)) == once(expected)
    for destination in destinations:
        exchange.unbind_destination(destination)
    assert not exchange.bound
    assert list(exchange.matches(key, headers)) == []
