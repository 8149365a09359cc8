"""Definitions without a disk: what comes out goes in again, what RabbitMQ wrote does, and what cannot be is named."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitish.core.access.passwords import hash_as_rabbitmq, matches
from rabbitish.core.access.records import AccessError
from rabbitish.core.access.roster import Roster
from rabbitish.core.broker import Broker
from rabbitish.core.definitions import decode, export
from rabbitish.core.definitions.access import passwords, read_access
from rabbitish.core.definitions.tables import from_json, to_json
from rabbitish.core.definitions.topology import make, read_topology
from rabbitish.values import Int64, Table, Timestamp

T = TypeVar("T")

FROM_RABBITMQ = Path(__file__).with_name("data") / "rabbitmq-3.10.8.json"
HEADER = export.Header("3.13.7", "rabbitish", "1")
ALL: dict[str, Any] = {
    "users": [
        {
            "name": "joe",
            "password_hash": hash_as_rabbitmq(b"secret", b"salt").encoded(),
            "tags": "monitoring, management",
            "limits": {"max-channels": 7},
            "permissions": {"team": {"configure": "a", "write": "b", "read": "c"}},
        },
        {"name": "ann", "password": "plain", "tags": ["administrator"]},
        {"name": "old", "administrator": "true"},
    ],
    "vhosts": [
        {"name": "/", "tracing": True, "limits": {"max-queues": 9}},
        {"name": "team", "metadata": {"description": "ours", "tags": ["x"], "default_queue_type": "classic"}},
    ],
    "permissions": [{"user": "ann", "vhost": "/", "configure": ".*", "write": "", "read": "^(?!a)"}],
    "topic_permissions": [{"user": "ann", "vhost": "/", "exchange": "amq.topic", "write": "a", "read": "b"}],
    "parameters": [
        {"vhost": "team", "component": "vhost-limits", "name": "limits", "value": {"max-connections": 5}},
        {
            "vhost": "team",
            "component": "operator_policy",
            "name": "cap",
            "value": {"pattern": ".", "definition": {"max-length": 5}, "priority": 1, "apply-to": "queues"},
        },
        {"vhost": "team", "component": "shovel", "name": "s", "value": {"src": ["a", 1]}},
    ],
    "global_parameters": [{"name": "cluster_name", "value": "bunny"}, {"name": "internal_id", "value": "x"}],
    "policies": [{"vhost": "/", "name": "ttl", "pattern": "^a", "definition": {"message-ttl": 5}, "priority": 0}],
    "exchanges": [
        {"vhost": "/", "name": "e", "type": "topic", "arguments": {"alternate-exchange": "f"}},
        {"vhost": "/", "name": "f", "type": "headers", "durable": False, "auto_delete": True, "internal": True},
    ],
    "queues": [
        {"vhost": "/", "name": "q", "arguments": {"x-max-length": 5, "x-dead-letter-exchange": "e"}},
        {"vhost": "/", "name": "ö 'x' \"y\" \\ \t\0", "durable": False, "auto_delete": True},
        {"vhost": "team", "name": "q"},
    ],
    "bindings": [
        {"vhost": "/", "source": "e", "destination": "q", "destination_type": "queue", "routing_key": "a.#"},
        {"vhost": "/", "source": "e", "destination": "f", "destination_type": "exchange", "routing_key": ""},
        {
            "vhost": "/",
            "source": "f",
            "destination": "q",
            "destination_type": "queue",
            "routing_key": "",
            "arguments": {"x-match": "any", "n": 5, "f": 1.5, "there": None, "t": {"a": [1, "x", True]}},
        },
        {"vhost": "team", "source": "amq.topic", "destination": "q", "destination_type": "queue", "routing_key": "k"},
    ],
}


def done(work: Generator[None, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


class Store:
    """A broker and its users, without a server."""

    def __init__(self) -> None:
        self.broker = Broker(token=lambda: "x" * 22, settle_budget=10)
        self.roster = Roster()
        self.notes: list[str] = []

    def load(self, document: object, vhost: str | None = None, steps: int | None = None) -> None:
        """Import; of what is made only the first `steps`."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        read = done(decode.read(data))
        draft = self.roster.draft()
        hashes = {name: hash_as_rabbitmq(password, b"salt") for name, password in passwords(read).items()}
        self.notes = done(read_access(read, draft, hashes, vhost))
        topology = done(read_topology(read, draft, self.broker, vhost))
        self.notes += topology.notes
        self.roster = draft
        for name, record in draft.vhosts.items():
            self.broker.add_vhost(name).record = record
        work = make(topology, self.broker, lambda: 0)
        if steps is None:
            self.made = done(work)
        else:
            for _ in zip(range(steps), work, strict=False):
                pass

    def text(self, vhost: str | None = None) -> str:
        return "".join(export.write(self.roster, self.broker, HEADER, vhost))


@pytest.fixture
def store() -> Store:
    return Store()


# --- what goes in comes out ------------------------------------------------------------------------------------------


def test_everything_there_and_back(store: Store) -> None:
    store.load(ALL)
    assert store.notes == [
        "parameter 's' of component 'shovel' in vhost 'team': kept, but nothing here knows the component 'shovel'"
    ]
    assert store.made == {"exchanges": 2, "queues": 3, "bindings": 4}
    text = store.text()
    again = Store()
    again.load(text.encode())
    assert again.text() == text
    again.load(text.encode())
    assert again.made == {"exchanges": 0, "queues": 0, "bindings": 0}
    assert again.text() == text
    exported = json.loads(text)
    assert [row["name"] for row in exported["users"]] == ["ann", "joe", "old"]
    assert exported["users"][1]["tags"] == ["management", "monitoring"]
    assert [row["name"] for row in exported["global_parameters"]] == ["cluster_name"], "internal ones stay at home"
    assert exported["bindings"][2]["arguments"] == ALL["bindings"][2]["arguments"]
    roster = store.roster
    assert roster.permissions["joe", "team"].write == "b", "a new user's own permissions"
    assert roster.users["joe"].max_channels == 7
    assert roster.users["old"].tags == {"administrator"}
    assert roster.users["old"].password is None
    hashed = roster.users["ann"].password
    assert hashed is not None
    assert matches(hashed, b"plain")
    assert (roster.vhosts["/"].tracing, roster.vhosts["/"].max_queues) == (True, 9)
    assert (roster.vhosts["team"].max_connections, roster.vhosts["team"].default_queue_type) == (5, "classic")
    assert roster.cluster_name == "bunny"
    assert roster.operator_policies["team", "cap"].definition == {"max-length": 5}


def test_what_rabbitmq_has_written(store: Store) -> None:
    store.load(FROM_RABBITMQ.read_bytes())
    roster, vhost = store.roster, store.broker.vhosts["/"]
    joe = roster.users["joe"]
    assert joe.password is not None
    assert matches(joe.password, b"secret")
    assert (joe.tags, joe.max_connections) == ({"monitoring", "management"}, 3)
    assert roster.users["blank"].password is None
    assert roster.permissions["joe", "team"].read == "^(?!x)"
    assert roster.topic_permissions["joe", "team", "amq.topic"].write == "^{username}\\."
    team = roster.vhosts["team"]
    assert (team.description, team.tags, team.max_queues) == ("Our team", ("a", "b"), 50)
    assert roster.policies["/", "ttl"].definition == {"message-ttl": 30000}
    assert roster.operator_policies["/", "cap"].definition == {"max-length": 5000}, "RabbitMQ wrote a list of pairs"
    assert list(vhost.queues) == ["höflich \"q' \\", "orders.rest", "brief", "orders.new"]
    assert vhost.queues["orders.new"].options.message_ttl_ms == 60_000
    assert vhost.exchanges["orders"].alternate == "unrouted"
    routed = vhost.route(vhost.exchanges["by headers"], ("",), {"n": 5})
    assert routed == [vhost.queues["orders.rest"]]
    assert len(store.notes) == 6, (
        "two server-named queues, a binding of one, an exclusive one's, and two of an internal"
    )
    assert all("left out" in note for note in store.notes)
    again = Store()
    again.load(store.text().encode())
    assert again.text() == store.text()
    assert again.notes == []


def test_one_virtual_host_into_another(store: Store) -> None:
    store.load(ALL)
    text = store.text("/")
    exported = json.loads(text)
    assert exported.keys().isdisjoint({"users", "vhosts", "permissions", "global_parameters"})
    assert all("vhost" not in row for name in ("queues", "bindings", "policies") for row in exported[name])
    store.load({"vhosts": [{"name": "new"}]})
    store.load(text.encode(), vhost="new")
    assert json.loads(store.text("new")) == {**exported, "original_vhost_name": "new"}
    with pytest.raises(AccessError, match=r"^policies\[0\]: vhost is missing$"):
        store.load(text.encode())


def test_a_whole_file_is_no_virtual_hosts(store: Store) -> None:
    store.load(ALL)
    with pytest.raises(AccessError, match="objects of several virtual hosts"):
        store.load({**ALL, "parameters": [], "policies": []}, vhost="team")
    store.load({"users": [{"name": "x", "tags": ""}], "queues": [{"name": "n", "vhost": "elsewhere"}]}, vhost="team")
    assert store.notes == ["users: left out, the file is for one virtual host"]
    assert "n" in store.broker.vhosts["team"].queues
    assert "x" not in store.roster.users


def test_what_is_there_stays_and_what_has_changed_is_replaced(store: Store) -> None:
    store.load(ALL)
    other = {
        "vhosts": [{"name": "/", "description": "new"}],
        "users": [{"name": "joe", "tags": [], "password_hash": ""}],
        "queues": [{"vhost": "/", "name": "q", "durable": False, "arguments": {"x-max-length": 6}}],
        "exchanges": [{"vhost": "/", "name": "e", "type": "fanout"}],
    }
    store.load(other)
    here = store.broker.vhosts["/"]
    assert here.queues["q"].options.max_length == 5
    assert here.exchanges["e"].type == "topic"
    assert store.roster.users["joe"].password is None
    assert store.roster.users["joe"].tags == frozenset()
    record = store.roster.vhosts["/"]
    assert (record.description, record.tracing, record.max_queues) == ("new", True, 9)
    assert store.roster.users.keys() == {"joe", "ann", "old"}


def test_a_binding_is_the_same_whatever_the_width_of_its_numbers(store: Store) -> None:
    store.load(ALL)
    here = store.broker.vhosts["/"]
    arguments: Table = {"n": 5, "when": Timestamp(7)}
    here.bind("e", here.queues["q"], "k", arguments)
    count = len(here.exchanges["e"].bindings())
    store.load(store.text().encode())
    assert len(here.exchanges["e"].bindings()) == count


@pytest.mark.parametrize("steps", range(10))
def test_an_import_that_ended_in_the_middle_is_completed_by_the_next(store: Store, steps: int) -> None:
    store.load(ALL)
    halfway = Store()
    halfway.load(ALL, steps=steps)
    assert sum(len(vhost.queues) for vhost in halfway.broker.vhosts.values()) == min(max(steps - 2, 0), 3)
    halfway.load(ALL)
    assert halfway.text() == store.text()


def test_what_somebody_deletes_meanwhile_is_not_missed(store: Store) -> None:
    read = done(decode.read(json.dumps(ALL).encode()))
    draft = store.roster.draft()
    done(read_access(read, draft, {"ann": hash_as_rabbitmq(b"x", b"salt")}))
    topology = done(read_topology(read, draft, store.broker))
    for name in draft.vhosts:
        store.broker.add_vhost(name)
    work = make(topology, store.broker, lambda: 0)
    for _ in range(5):
        next(work)
    here = store.broker.vhosts["/"]
    here.delete_exchange("e", if_unused=False)
    here.delete_exchange("f", if_unused=False)
    here.declare_exchange("f", "headers", durable=True, auto_delete=False, internal=False, arguments={})
    store.broker.delete_vhost("team")
    assert done(work) == {"exchanges": 2, "queues": 3, "bindings": 1}


def test_what_somebody_declares_meanwhile_stays(store: Store) -> None:
    here = store.broker.add_vhost("/")
    read = done(decode.read(json.dumps({**ALL, "vhosts": [{"name": "/"}, {"name": "team"}]}).encode()))
    draft = store.roster.draft()
    done(read_access(read, draft, {}))
    work = make(done(read_topology(read, draft, store.broker)), store.broker, lambda: 0)
    flags = {"durable": False, "auto_delete": False, "arguments": {}}
    queue = here.declare_queue("q", exclusive=False, owner=None, now=0, **flags)
    exchange = here.declare_exchange("e", "fanout", internal=False, **flags)
    assert done(work) == {"exchanges": 1, "queues": 1, "bindings": 3}
    assert (here.queues["q"], here.exchanges["e"]) == (queue, exchange)


def test_not_exported(store: Store) -> None:
    store.load(ALL)
    text = store.text()
    here = store.broker.vhosts["/"]
    for name, owner in (("mine", object()), ("", None)):
        queue = here.declare_queue(
            name, durable=False, exclusive=bool(owner), auto_delete=False, arguments={}, owner=owner, now=0
        )
        here.bind("e", queue, "k", {})
    assert store.text() == text


def test_the_order_is_the_contents_and_the_text_comes_in_pieces(store: Store) -> None:
    names = [f"q{number}" for number in range(1500)]
    rows = [{"vhost": "/", "name": name} for name in names]
    bindings = [
        {"vhost": "/", "source": "amq.topic", "destination": name, "destination_type": "queue", "routing_key": key}
        for name in names
        for key in ("b", "a")
    ]
    document = {"vhosts": [{"name": "/"}], "queues": rows, "bindings": bindings}
    store.load(document)
    other = Store()
    other.load({**document, "queues": rows[::-1], "bindings": bindings[::-1]})
    assert store.text() == other.text()
    exported = json.loads(store.text())
    assert [row["name"] for row in exported["queues"]] == sorted(names)
    assert [(row["destination"], row["routing_key"]) for row in exported["bindings"]] == sorted(
        (name, key) for name in names for key in "ab"
    )
    assert len(list(export.write(store.roster, store.broker, HEADER))) > 4500


# --- what cannot be --------------------------------------------------------------------------------------------------

VHOST = {"vhosts": [{"name": "/"}]}
BINDING = {"vhost": "/", "source": "amq.topic", "destination": "q", "destination_type": "queue", "routing_key": ""}
HASH = hash_as_rabbitmq(b"secret", b"salt").encoded()


def queue(**fields: object) -> dict[str, object]:
    return {**VHOST, "queues": [{"vhost": "/", "name": "q", **fields}]}


def exchange(**fields: object) -> dict[str, object]:
    return {**VHOST, "exchanges": [{"vhost": "/", "name": "e", "type": "direct", **fields}]}


def user(**fields: object) -> dict[str, object]:
    return {"users": [{"name": "u", "tags": [], **fields}]}


def policy(**fields: object) -> dict[str, object]:
    return {**VHOST, "policies": [{"vhost": "/", "name": "p", "pattern": "", "definition": {"expires": 1}, **fields}]}


def parameter(component: str, value: object, **fields: object) -> dict[str, object]:
    return {**VHOST, "parameters": [{"vhost": "/", "component": component, "name": "p", "value": value, **fields}]}


WRONG = [
    (b"", "line 1: definitions must be a JSON object"),
    (b"[]", "line 1: definitions must be a JSON object"),
    (b"{", "line 1: it is not JSON: there must be a key here"),
    (b'{"users": []', "line 1: it is not JSON: there must be a comma or } here"),
    (b"{}x", "line 1: it is not JSON: something follows the definitions"),
    (b"{1: 2}", "line 1: it is not JSON: there must be a key here"),
    (b'{"users" []}', "line 1: it is not JSON: there must be a colon here"),
    (b'{"users": [}', "line 1: it is not JSON: Expecting value"),
    (b'{"users": [,]}', "line 1: it is not JSON: Expecting value"),
    (b'{"users": [{},]}', "line 1: it is not JSON: Expecting value"),
    (b'{\n"users": [\n{"name": "u" "tags": []}]}', "line 3: it is not JSON: Expecting ',' delimiter"),
    (b'{"users": [\n\xff]}', "line 2: it is not UTF-8 text"),
    (b'{"users": {}}', 'line 1: "users" must be a list'),
    (b'{"users": [7]}', "line 1: users[0] must be an object"),
    (b'{"users": [], "users": []}', 'line 1: "users" stands there twice'),
    (b'{"\x7f": []}', 'line 1: there is no section "\\x7f" in definitions'),
    (b'{"user": []}', 'line 1: there is no section "user" in definitions'),
    (b'{"users": [{"name": "a", "name": "b"}]}', 'line 1: the key "name" stands twice in an object'),
    (b'{"queues": [{"name": NaN}]}', "line 1: it is not JSON: NaN is no number"),
    (b'{"queues": [{"name": ' + b"[" * 100_000, "line 1: it is nested too deeply"),
    (b'{"queues": [{"name": ' + b"9" * 5000, "line 1: Exceeds the limit"),
    # users
    (user(name=7), "users[0]: name must be a string, not 7"),
    ({"users": [{}]}, "users[0]: name is missing"),
    (user(name=""), 'user "": the user\'s name must not be empty'),
    (user(name="x" * 256), "the user's name is longer than 255 bytes"),
    (user(name="\udc80"), 'user "\\udc80": the user\'s name is not valid UTF-8'),
    (user(tags=[1]), 'user "u": tags must be a list of strings, not a list'),
    (user(tags=True), 'user "u": tags must be a list of strings, not true'),
    (user(password="a", password_hash=HASH), 'user "u": both password and password_hash are given'),
    (user(password="\ud800"), 'user "u": password is not valid UTF-8'),
    (user(password=12345678), 'user "u": password must be a string'),
    (user(password_hash="!"), 'user "u": password_hash is not base64'),
    (user(password_hash="AAAA"), 'user "u": password_hash is no hash of rabbit_password_hashing_sha256'),
    (user(password_hash=HASH, hashing_algorithm="rot13"), "user \"u\": hashing_algorithm 'rot13' is not known"),
    (user(limits={"max-queues": 1}), 'user "u": Unrecognised limit "max-queues"'),
    (user(limits=[1]), 'user "u": limits must be an object, not a list'),
    (user(tag=[]), 'users[0]: there is no key "tag"; there are administrator, hashing_algorithm,'),
    ({"users": [{"name": "u", "tags": []}, {"name": "u", "tags": ["x"]}]}, 'user "u": it stands there twice, and not'),
    (
        user(permissions={"/": {"configure": "", "write": "", "read": ""}}),
        "permissions of user \"u\" in vhost '/': Virtual host '/' does not exist",
    ),
    (user(permissions={"/": 7}), "user \"u\": permissions in vhost '/' must be an object"),
    # virtual hosts and permissions
    ({"vhosts": [{"name": "v", "tracing": "yes"}]}, "vhost 'v': tracing must be true or false, not 'yes'"),
    ({"vhosts": [{"name": "v", "default_queue_type": "x"}]}, "vhost 'v': Unsupported default queue type"),
    (
        {"vhosts": [{"name": "v", "metadata": {"tags": 1}}]},
        "vhost 'v': metadata: tags must be a list of strings, not 1",
    ),
    ({"vhosts": [{"name": "v", "limits": {"max-x": 1}}]}, "vhost 'v': Unrecognised limit \"max-x\""),
    (
        {**VHOST, **user(), "permissions": [{"user": "u", "vhost": "/", "configure": "(", "write": "", "read": ""}]},
        'permissions of user "u" in vhost \'/\': invalid regular expression "(": missing )',
    ),
    (
        {**VHOST, "permissions": [{"user": "u", "vhost": "/", "configure": "", "write": "", "read": ""}]},
        'permissions of user "u" in vhost \'/\': User "u" does not exist',
    ),
    (
        {**VHOST, **user(), "topic_permissions": [{"user": "u", "vhost": "/", "exchange": "e", "write": ""}]},
        "topic permissions of user \"u\" for exchange 'e' in vhost '/': read is missing",
    ),
    # policies and parameters
    (policy(priority="x"), "policy 'p' in vhost '/': Validation failed"),
    (policy(definition=7), "policy 'p' in vhost '/': definition must be an object, not 7"),
    (policy(vhost="x"), "policy 'p' in vhost 'x': Virtual host 'x' does not exist"),
    (parameter("policy", {}), "component 'policy' in vhost '/': policies may not be set using this method"),
    (parameter("vhost-limits", {}), 'the component vhost-limits has one parameter, "limits"'),
    (parameter("operator_policy", 7), "an operator policy is an object"),
    (parameter("operator_policy", {}), "parameter 'p' of component 'operator_policy' in vhost '/': Validation failed"),
    (
        {"global_parameters": [{"name": "cluster_name", "value": 7}]},
        "global parameter 'cluster_name': cluster_name must",
    ),
    ({"global_parameters": [{"name": "x"}]}, "global parameter 'x': value is missing"),
    # exchanges
    (exchange(type="x-odd"), "exchange 'e' in vhost '/': unknown exchange type 'x-odd'"),
    (exchange(vhost="x"), "exchange 'e' in vhost 'x': virtual host 'x' does not exist"),
    (
        exchange(arguments={"alternate-exchange": 7}),
        "exchange 'e' in vhost '/': invalid type 'long' for arg 'alternate",
    ),
    (exchange(autodelete=True), 'exchanges[0]: there is no key "autodelete"; there are arguments, auto_delete'),
    (
        {**VHOST, "exchanges": [{"vhost": "/", "name": "e", "type": kind} for kind in ("direct", "fanout")]},
        "exchange 'e' in vhost '/': it stands there twice, and not the same",
    ),
    # queues
    (queue(durable="yes"), "queue 'q' in vhost '/': durable must be true or false, not 'yes'"),
    (queue(name="x" * 256), "queues[0]: name is longer than 255 bytes"),
    (queue(name=""), "queues[0]: name must not be empty"),
    (queue(name="\ud800"), "queues[0]: name: it is not valid UTF-8"),
    (queue(name="\x1b[31m", arguments=7), "queue '\\x1b[31m' in vhost '/': arguments must be an object, not 7"),
    (queue(vhost=None), "queues[0]: vhost must be a string, not null"),
    (queue(arguments={"x-max-length": -1}), "queue 'q' in vhost '/': invalid arg 'x-max-length' for queue 'q'"),
    (queue(arguments={"x-queue-type": "stream"}), "queue type 'stream' is not available on this node"),
    (queue(arguments={"a": 2**63}), "queue 'q' in vhost '/': arguments: a: 9223372036854775808 does not fit"),
    (queue(arguments={"a": [{"b": "\ud800"}]}), "queue 'q' in vhost '/': arguments: a: b: it is not valid UTF-8"),
    (queue(arguments={"a" * 300: 1}), 'arguments: the key "aaaaaaaaaaaaaaaaaaaa..." is longer than 255 bytes'),
    (b'{"vhosts": [{"name": "/"}], "queues": [{"name": "q", "vhost": "/", "arguments": {"a": 1e999}}]}', "too large"),
    (
        {**VHOST, "queues": [{"vhost": "/", "name": "q", "durable": durable} for durable in (True, False)]},
        "queue 'q' in vhost '/': it stands there twice, and not the same",
    ),
    # bindings
    (
        {**VHOST, "bindings": [{**BINDING, "source": "", "destination_type": "queue"}]},
        "nothing can be bound to the def",
    ),
    ({**VHOST, "bindings": [{**BINDING, "destination_type": "x"}]}, "destination_type must be queue or exchange, not"),
    (
        {**queue(), "bindings": [{**BINDING, "routing_key": None}]},
        "bindings[0]: routing_key must be a string, not null",
    ),
    (
        {**queue(), "bindings": [{**BINDING, "source": "amq.headers", "arguments": {"x-match": "some"}}]},
        "binding from exchange 'amq.headers' to queue 'q' in vhost '/' with routing key '': Invalid x-match",
    ),
]


@pytest.mark.parametrize(("document", "why"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_be_is_named(store: Store, document: object, why: str) -> None:
    with pytest.raises(AccessError) as refused:
        store.load(document)
    assert why in str(refused.value)
    assert "12345678" not in str(refused.value), "a password"
    assert str(refused.value).isprintable()
    assert store.broker.vhosts == {}


def test_more_queues_than_there_may_be(store: Store) -> None:
    store.load({"vhosts": [{"name": "v", "limits": {"max-queues": 2}}], "queues": [{"name": "a", "vhost": "v"}]})
    rows = [{"name": name, "vhost": "v"} for name in "abc"]
    with pytest.raises(AccessError, match=r"vhost 'v': adding 2 queue\(s\) would exceed the limit of 2 queue\(s\)"):
        store.load({"queues": rows})
    store.load({"queues": rows[:2]})
    assert list(store.broker.vhosts["v"].queues) == ["a", "b"]


def test_left_out_and_told(store: Store) -> None:
    store.load(
        {
            **VHOST,
            "exchanges": [{"vhost": "/", "name": name, "type": "direct"} for name in ("", "amq.direct", "amq.new")],
            "queues": [{"vhost": "/", "name": "amq.gen-x"}, {"vhost": "/", "name": "mine", "exclusive": True}],
            "bindings": [
                BINDING,
                {**BINDING, "source": "nosuch"},
                {**BINDING, "source": "", "destination": "q", "routing_key": "q"},
            ],
        }
    )
    assert [note.partition(": ")[0] for note in store.notes] == [
        "exchange '' in vhost '/'",
        "exchange 'amq.direct' in vhost '/'",
        "exchange 'amq.new' in vhost '/'",
        "queue 'amq.gen-x' in vhost '/'",
        "queue 'mine' in vhost '/'",
        "binding from exchange 'amq.topic' to queue 'q' in vhost '/' with routing key ''",
        "binding from exchange 'nosuch' to queue 'q' in vhost '/' with routing key ''",
    ]
    assert store.made == {"exchanges": 0, "queues": 0, "bindings": 0}


@pytest.mark.parametrize(
    ("version", "algorithm"),
    [("3.5.7", "rabbit_password_hashing_md5"), ("3.6.0", "rabbit_password_hashing_sha256"), ("", None)],
)
def test_hashes_without_an_algorithm_are_those_of_their_version(
    store: Store, version: str, algorithm: str | None
) -> None:
    algorithm = algorithm or "rabbit_password_hashing_sha256"
    hashed = hash_as_rabbitmq(b"secret", b"salt", algorithm)
    store.load({"rabbit_version": version, **user(password_hash=hashed.encoded())})
    assert store.roster.users["u"].password == hashed


ODD = [
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    "",
    "x",
    "\ud800",
    "a" * 300,
    [],
    [1],
    [["a", 1]],
    [["a", 1], ["a", 2]],
    {},
    {"": None},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document where there could be something else."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], other)
    return copy


PLACES = list(places(ALL))


@pytest.mark.parametrize("number", range(len(ODD)))
def test_anything_anywhere_is_taken_or_refused(number: int) -> None:
    """Whatever stands somewhere in a good file, nothing happens but an import or a refusal that changes nothing."""
    refusals = 0
    for path in PLACES[number::4]:
        store = Store()
        try:
            store.load(replaced(ALL, path, ODD[number]))
        except AccessError:
            refusals += 1
            assert (store.broker.vhosts, store.roster.same_as(Roster())) == ({}, True)
        else:
            again = Store()
            again.load(store.text().encode())
            assert again.text() == store.text()
    assert refusals


def test_anything_cut_off_or_garbled_is_refused(store: Store) -> None:
    data = json.dumps(ALL).encode()
    for size in range(0, len(data), 7):
        with pytest.raises(AccessError):
            store.load(data[:size])
        with pytest.raises(AccessError):
            store.load(data[:size] + b"\xff" + data[size:])


# --- arguments and names ---------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES |= NAMES


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return inner | st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.dictionaries(NAMES, nested(nested(LEAVES)), max_size=4))
def test_tables_there_and_back(fields: dict[str, object]) -> None:
    table = from_json(json.loads(json.dumps(fields)))
    assert to_json(table) == fields
    assert from_json(to_json(table)) == table


def test_what_json_has_no_words_for(store: Store) -> None:
    table: Table = {"bytes": b"a\xff", "time": Timestamp(5), "text": "\udcff"}
    assert to_json(table) == {"bytes": "a\udcff", "time": 5, "text": "\udcff"}
    assert type(from_json({"n": 1})["n"]) is Int64
    with pytest.raises(ValueError, match="nested deeper than 100"):
        from_json(_deep(102))
    from_json(_deep(100))


def _deep(levels: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for _ in range(levels):
        fields = {"a": fields}
    return fields


def odd_names() -> Iterator[str]:
    yield from ("\0", "\n\r\t", "{username}", "a" * 255, "ö" * 127, "𝄞", "\udcff\udc80", "'\"\\%s{}", "-", "..", "/")


def test_odd_names_there_and_back(store: Store) -> None:
    names = list(odd_names())
    store.load(
        {
            **VHOST,
            "queues": [{"vhost": "/", "name": name} for name in names],
            "exchanges": [{"vhost": "/", "name": name, "type": "topic"} for name in names],
            "bindings": [
                {**BINDING, "source": name, "destination": name, "routing_key": name, "arguments": {name: name}}
                for name in names
            ],
        }
    )
    assert store.broker.vhosts["/"].queues.keys() == set(names)
    again = Store()
    again.load(store.text().encode())
    assert again.text() == store.text()
