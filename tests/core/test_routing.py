"""Routing through chains and cycles of exchanges; what RabbitMQ 3.10.8 did is what the examples expect."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitish.core.exchange import Binding, DefaultExchange, Destination, Exchange
from rabbitish.core.message import Message
from rabbitish.core.routing import collect, depends_on_headers
from rabbitish.values import Table
from tests.thorough import seeds


class FakeQueue:
    """A queue as far as routing knows queues."""

    def __init__(self, name: str) -> None:
        self.name = name

    def enqueue(self, message: Message, now: int) -> bool:
        raise NotImplementedError


class Net:
    """Exchanges and queues by name."""

    def __init__(self) -> None:
        self.queues: dict[str, FakeQueue] = {}
        self.exchanges: dict[str, Exchange] = {"": DefaultExchange(self.queues.get)}

    def exchange(self, name: str, kind: str = "direct", alternate: str | None = None) -> None:
        arguments: Table = {} if alternate is None else {"alternate-exchange": alternate}
        self.exchanges[name] = Exchange(name, kind, arguments=arguments)

    def queue(self, *names: str) -> None:
        self.queues.update({name: FakeQueue(name) for name in names})

    def bind(self, source: str, destination: str, key: str = "", arguments: Table | None = None) -> None:
        target: Destination = self.queues.get(destination) or self.exchanges[destination]
        self.exchanges[source].bind(Binding(self.exchanges[source], target, key, arguments or {}))

    def publish(self, exchange: str, *keys: str, headers: Table | None = None) -> list[str]:
        found = collect(self.exchanges[exchange], keys, headers or {}, self.exchanges.get)
        return [queue.name for queue in found]

    def by_headers(self, exchange: str) -> bool:
        return depends_on_headers(self.exchanges[exchange], self.exchanges.get)


def test_the_default_exchange_routes_by_queue_name() -> None:
    net = Net()
    net.queue("q", "r")
    assert net.publish("", "q") == ["q"]
    assert net.publish("", "nosuch") == []
    assert net.publish("", "r", "q", "r") == ["r", "q"]


def test_further_keys_add_queues_each_once() -> None:
    net = Net()
    net.exchange("e")
    net.queue("1", "2", "3")
    for name, key in (("1", "a"), ("2", "b"), ("3", "c"), ("1", "c")):
        net.bind("e", name, key)
    assert net.publish("e", "a", "c") == ["1", "3"]
    assert net.publish("e", "z", "b") == ["2"]


def test_a_queue_behind_several_paths_is_named_once() -> None:
    net = Net()
    for name, kind in (("top", "fanout"), ("left", "topic"), ("right", "direct"), ("end", "fanout")):
        net.exchange(name, kind)
    net.queue("q")
    net.bind("top", "left")
    net.bind("top", "right")
    net.bind("left", "end", "#")
    net.bind("right", "end", "k")
    net.bind("left", "q", "k")
    net.bind("end", "q")
    assert net.publish("top", "k") == ["q"]
    assert net.publish("top", "other") == ["q"]
    assert net.publish("right", "other") == []


def test_cycles_are_cut() -> None:
    net = Net()
    for name in "abc":
        net.exchange(name, "fanout")
        net.queue(f"q{name}")
        net.bind(name, f"q{name}")
    for source, destination in ("aa", "ab", "bc", "ca"):
        net.bind(source, destination)
    assert net.publish("a", "k") == ["qa", "qb", "qc"]
    assert net.publish("c", "k") == ["qc", "qa", "qb"]


def test_headers_reach_every_exchange_on_the_way() -> None:
    net = Net()
    net.exchange("f", "fanout")
    net.exchange("h", "headers")
    net.queue("q")
    net.bind("f", "h")
    net.bind("h", "q", "", {"kind": "report"})
    assert net.publish("f", "k", headers={"kind": "report"}) == ["q"]
    assert net.publish("f", "k") == []


# ---- alternates


def test_the_alternate_gets_what_the_exchange_has_no_match_for() -> None:
    net = Net()
    net.exchange("e", "direct", alternate="other")
    net.exchange("other", "fanout")
    net.queue("q", "rest")
    net.bind("e", "q", "k")
    net.bind("other", "rest")
    assert net.publish("e", "k") == ["q"]
    assert net.publish("e", "z") == ["rest"]
    assert net.publish("e", "z", "k") == ["q"]  # one key that matches is enough


def test_a_binding_to_an_exchange_counts_as_a_match_whatever_comes_of_it() -> None:
    net = Net()
    net.exchange("e", "fanout", alternate="other")
    net.exchange("other", "fanout")
    net.exchange("empty", "direct")
    net.queue("rest")
    net.bind("other", "rest")
    net.bind("e", "empty")
    assert net.publish("e", "k") == []


def test_a_binding_to_itself_counts_as_a_match() -> None:
    net = Net()
    net.exchange("e", "fanout", alternate="other")
    net.exchange("other", "fanout")
    net.queue("rest")
    net.bind("other", "rest")
    net.bind("e", "e")
    assert net.publish("e", "k") == []


def test_an_exchange_on_the_way_has_its_own_alternate() -> None:
    net = Net()
    net.exchange("e", "fanout")
    net.exchange("next", "direct", alternate="other")
    net.exchange("other", "fanout")
    net.queue("rest")
    net.bind("e", "next")
    net.bind("other", "rest")
    assert net.publish("e", "k") == ["rest"]


def test_alternates_form_chains_and_cycles() -> None:
    net = Net()
    net.exchange("a", "direct", alternate="b")
    net.exchange("b", "direct", alternate="c")
    net.exchange("c", "direct", alternate="a")
    net.exchange("self", "direct", alternate="self")
    net.queue("q")
    net.bind("c", "q", "k")
    assert net.publish("a", "k") == ["q"]
    assert net.publish("a", "z") == []
    assert net.publish("self", "z") == []


def test_an_alternate_that_is_missing_or_the_default_exchange_routes_nowhere() -> None:
    net = Net()
    net.queue("q")
    net.exchange("e", "direct", alternate="nosuch")
    net.exchange("d", "direct", alternate="")
    assert net.publish("e", "q") == []
    assert net.publish("d", "q") == []
    net.exchange("nosuch", "fanout")  # it may come later
    net.bind("nosuch", "q")
    assert net.publish("e", "z") == ["q"]


def test_an_alternate_that_a_policy_sets_later_is_followed() -> None:
    net = Net()
    net.exchange("e")
    net.exchange("other", "fanout")
    net.queue("q")
    net.bind("other", "q")
    assert net.publish("e", "z") == []
    net.exchanges["e"].alternate = "other"
    assert net.publish("e", "z") == ["q"]


# ---- whether headers matter


def test_headers_matter_when_an_exchange_within_reach_looks_at_them() -> None:
    net = Net()
    for name in "abc":
        net.exchange(name, "fanout")
    net.exchange("h", "headers")
    net.bind("a", "b")
    net.bind("b", "a")
    assert net.by_headers("h")
    assert not net.by_headers("a")
    assert not net.by_headers("")
    net.bind("b", "h")
    assert net.by_headers("a")
    assert not net.by_headers("c")
    net.exchanges["c"].alternate = "nosuch"
    assert not net.by_headers("c")
    net.exchanges["c"].alternate = "a"
    assert net.by_headers("c")


# ---- any net

NAMES = ("e0", "e1", "e2", "e3", "e4")
QUEUES = ("q0", "q1", "q2")
exchange_names = st.sampled_from(NAMES)
kinds = st.sampled_from(["direct", "fanout", "topic", "headers"])
key_words = st.sampled_from(["a", "b", "a.b", "#", "*"])
nets = st.tuples(
    st.lists(st.tuples(kinds, st.none() | st.sampled_from([*NAMES, "nosuch", ""])), min_size=5, max_size=5),
    st.lists(
        st.tuples(exchange_names, st.sampled_from([*NAMES, *QUEUES]), key_words, st.sampled_from(["1", "2", "none"])),
        max_size=14,
    ),
)


def make(net: tuple[list[tuple[str, str | None]], list[tuple[str, str, str, str]]]) -> Net:
    made = Net()
    made.queue(*QUEUES)
    for name, (kind, alternate) in zip(NAMES, net[0], strict=True):
        made.exchange(name, kind, alternate)
    for source, destination, key, wanted in net[1]:
        made.bind(source, destination, key, {} if wanted == "none" else {"h": wanted})
    return made


def fixpoint(net: Net, start: str, keys: list[str], headers: Table) -> set[str]:
    """The queues of all exchanges that can be reached, found by looking again until nothing is new."""
    reached = {start}
    while True:
        found: set[str] = set()
        for name in reached:
            exchange = net.exchanges[name]
            direct = {target.name for key in keys for target in exchange.matches(key, headers)}
            if not direct and exchange.alternate in NAMES:
                direct = {str(exchange.alternate)}
            found |= direct
        if found & set(NAMES) <= reached:
            return found & set(QUEUES)
        reached |= found & set(NAMES)


@settings(deadline=None, max_examples=len(seeds(66, 200)))
@given(nets, exchange_names, st.lists(key_words, min_size=1, max_size=2), st.sampled_from(["1", "2", None]))
def test_any_net_with_cycles_routes_like_the_fixpoint(
    net: tuple[list[tuple[str, str | None]], list[tuple[str, str, str, str]]],
    start: str,
    keys: list[str],
    header: str | None,
) -> None:
    made = make(net)
    headers: Table = {} if header is None else {"h": header}
    found = made.publish(start, *keys, headers=headers)
    assert set(found) == fixpoint(made, start, keys, headers)
    assert len(found) == len(set(found))
    assert found == make(net).publish(start, *keys, headers=headers)
    if not made.by_headers(start):
        assert found == made.publish(start, *keys, headers={"h": "1"}) == made.publish(start, *keys)
