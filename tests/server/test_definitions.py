"""Definitions in a running broker: over the control socket, at the start, in pieces, and after a kill."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from rabbitish.server.definitions import DefinitionsError
from rabbitish.wire import methods

from .crash import Peer, Process
from .support import Client, broker, converse
from .test_access import CHEAP, Operator, login, operated, operator

CHEAPLY = ("--set", "password_cost=4")
USER = {"name": "joe", "password": "secret", "tags": []}
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
SMALL: dict[str, Any] = {
    "vhosts": [{"name": "team"}],
    "users": [USER],
    "permissions": [{"user": "joe", "vhost": "team", **EVERYTHING}],
    "policies": [{"vhost": "team", "name": "p", "pattern": ".", "definition": {"max-length": 2}, "apply-to": "queues"}],
    "queues": [{"vhost": "team", "name": "q"}],
    "exchanges": [{"vhost": "team", "name": "e", "type": "topic"}],
    "bindings": [
        {"vhost": "team", "source": "e", "destination": "q", "destination_type": "queue", "routing_key": "k.*"}
    ],
}


def many(queues: int) -> bytes:
    """Queues of the first virtual host, each with three bindings."""
    rows = [{"vhost": "/", "name": f"q{number}"} for number in range(queues)]
    bindings = [
        {"vhost": "/", "source": "amq.topic", "destination": row["name"], "destination_type": "queue", "routing_key": k}
        for row in rows
        for k in "abc"
    ]
    return json.dumps({"vhosts": [{"name": "/"}], "queues": rows, "bindings": bindings}).encode()


async def exported(ask: Operator, **arguments: object) -> Any:
    return json.loads(await ask.fetch_file("export_definitions", **arguments))


def test_in_and_out_of_a_running_broker(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path, audit_log=str(tmp_path / "audit")) as (running, ask):
            answer = await ask.send_file("import_definitions", json.dumps(SMALL).encode())
            assert answer["result"] == {
                "objects": dict.fromkeys(answer["result"]["objects"], 1),
                "made": {"exchanges": 1, "queues": 1, "bindings": 1},
                "notes": [],
            }
            assert answer["result"]["objects"].keys() == SMALL.keys()
            joe = await login(running, "joe", "secret", "team")
            assert isinstance(joe, Client)
            for _ in range(5):
                await joe.send(methods.BasicPublish(exchange="e", routing_key="k.x"))
                await joe.stream.send_all(b"\2\0\1\0\0\0\x0e\0\x3c" + bytes(12) + b"\xce")
            got = await joe.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)
            assert got.message_count == 2, "the policy"
            everything = await exported(ask)
            assert everything["queues"][0]["name"] == "q"
            assert everything["policies"][0]["definition"] == {"max-length": 2}
            assert [row["name"] for row in everything["users"]] == ["guest", "joe"]
            assert "users" not in await exported(ask, vhost="team")
            assert await ask.refused("export_definitions", vhost="x") == "Virtual host 'x' does not exist"
        lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
        (line,) = [line for line in lines if line["event"] == "definitions imported"]
        assert (line["queues"], line["users"]) == (1, 1)
        assert "secret" not in (tmp_path / "audit").read_text()

    converse(conversation)


def test_nothing_of_what_is_wrong_anywhere(tmp_path: Path) -> None:
    """A fault in the very last object: nothing has changed, in memory or on disk."""

    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask):
            before = await ask.fetch_file("export_definitions")
            on_disk = (tmp_path / "access.json").read_bytes()
            wrong = {**SMALL, "bindings": [{**SMALL["bindings"][0], "destination_type": "x"}]}
            answer = await ask.send_file("import_definitions", json.dumps(wrong).encode())
            assert answer == {
                "ok": False,
                "error": "binding from exchange 'e' to x 'q' in vhost 'team' with routing key 'k.*': "
                "destination_type must be queue or exchange, not 'x'",
            }
            assert await ask.fetch_file("export_definitions") == before
            assert (tmp_path / "access.json").read_bytes() == on_disk
            assert set(running.node.broker.vhosts) == {"/"}
            missing = await ask.send_file("import_definitions", b"{}", vhost="x")
            assert missing["error"] == 'Please create virtual host "x" prior to importing definitions.'

    converse(conversation)


@pytest.mark.parametrize("size", [-1, True, "7", 1.5, []])
def test_a_size_that_is_none(tmp_path: Path, size: object) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (_, ask):
            line = json.dumps({"command": "import_definitions", "content_bytes": size}).encode()
            assert await ask.line(line) == {"ok": False, "error": "content_bytes must be a number"}
            assert len(await ask.ask("list_users")) == 1

    converse(conversation)


def test_more_than_there_may_be(tmp_path: Path) -> None:
    """It is read past, and the conversation goes on."""

    async def conversation() -> None:
        async with operated(tmp_path, definitions_max_bytes=100_000) as (_, ask):
            answer = await ask.send_file("import_definitions", b" " * 300_000)
            assert answer["error"] == "it has 300000 bytes, and 100000 are the most (definitions_max_bytes)"
            assert (await ask.send_file("import_definitions", b"{}" + b" " * 99_998))["ok"]
            assert (await ask.send_file("list_users", b"{}"))["error"] == "there is no argument 'content'"
            assert await ask.refused("import_definitions", content="x") == "argument 'content' must be bytes"
            assert await ask.refused("import_definitions") == "argument 'content' is missing"
            await ask.stream.send_all(b'{"command": "import_definitions", "content_bytes": 9}\n{"use')

    converse(conversation)


def test_others_are_served_meanwhile(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask):
            client = await running.connect()
            served, over = 0, False

            async def work() -> None:
                nonlocal over
                answer = await ask.send_file("import_definitions", many(2000))
                assert answer["result"]["made"] == {"exchanges": 0, "queues": 2000, "bindings": 6000}
                await ask.fetch_file("export_definitions")
                over = True

            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                while not over:
                    await client.ask(methods.QueueDeclare(queue="mine"), methods.QueueDeclareOk)
                    served += 1
            assert served > 20

    converse(conversation)


def test_changes_of_users_wait_for_an_import(tmp_path: Path) -> None:
    """So that none is lost, and no virtual host goes under an import's feet."""

    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask), await operator(tmp_path / "control.sock") as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask.send_file, "import_definitions", many(1000))
                nursery.start_soon(partial(Operator(stream).ask, "delete_vhost", name="/"))
            roster, vhosts = running.node.hub.access.roster, running.node.broker.vhosts
            assert roster.vhosts.keys() == vhosts.keys()
            assert "/" not in vhosts or len(vhosts["/"].queues) == 1000

    converse(conversation)


# --- at the start ----------------------------------------------------------------------------------------------------


def test_a_broker_that_starts_with_definitions(tmp_path: Path) -> None:
    path, data = tmp_path / "definitions.json", tmp_path / "data"
    path.write_text(json.dumps(SMALL))

    async def first() -> None:
        async with operated(data, load_definitions=str(path)) as (running, ask):
            assert list(running.node.hub.access.roster.users) == ["joe"], "no guest"
            assert list(running.node.broker.vhosts) == ["team"]
            assert isinstance(await login(running, "joe", "secret", "team"), Client)
            await ask.ask("add_user", name="ann", password="x")
            await ask.ask("set_user_tags", name="joe", tags=["monitoring"])

    async def again() -> None:
        on_disk = (data / "access.json").read_bytes()
        async with operated(data, load_definitions=str(path)) as (running, _):
            roster = running.node.hub.access.roster
            assert (set(roster.users), roster.users["joe"].tags) == ({"joe", "ann"}, frozenset())
            assert list(running.node.broker.vhosts["team"].queues) == ["q"]
        assert (data / "access.json").read_bytes() != on_disk

    async def unchanged() -> None:
        on_disk = (data / "access.json").stat()
        async with operated(data, load_definitions=str(path)):
            assert (data / "access.json").stat() == on_disk, "a password that is the same keeps its hash"

    async def without() -> None:
        async with operated(data) as (running, _):
            assert set(running.node.hub.access.roster.users) == {"joe", "ann"}
            assert list(running.node.broker.vhosts) == ["team"]

    data.mkdir()
    for conversation in (first, again, unchanged, without):
        converse(conversation)


def test_without_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps(SMALL))

    async def conversation() -> None:
        async with broker(load_definitions=str(path), **CHEAP) as running:
            assert list(running.node.hub.access.roster.users) == ["joe"]
            assert isinstance(await login(running, "joe", "secret", "team"), Client)

    converse(conversation)


def test_a_lost_access_file_costs_no_queue(tmp_path: Path) -> None:
    """Virtual hosts that the journal knows stay, though the definitions do not name them."""
    data = tmp_path / "data"
    data.mkdir()
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps({"users": [USER]}))

    async def before() -> None:
        async with operated(data) as (_, ask):
            await ask.send_file("import_definitions", json.dumps(SMALL).encode())

    async def after() -> None:
        async with operated(data, load_definitions=str(path)) as (running, _):
            assert list(running.node.broker.vhosts["team"].queues) == ["q"]

    converse(before)
    (data / "access.json").unlink()
    converse(after)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot read the definitions in {}: No such file or directory"),
        ("{", "cannot use the definitions in {}: line 1: it is not JSON: there must be a key here"),
        (" " * 2000, "cannot use the definitions in {}: it has more than 1024 bytes (definitions_max_bytes)"),
        ('{"users": [{"name": ""}]}', 'cannot use the definitions in {}: user "": the user\'s name must not be empty'),
    ],
)
def test_definitions_that_cannot_be_used_stop_the_start(tmp_path: Path, text: str | None, why: str) -> None:
    path, data = tmp_path / "definitions.json", tmp_path / "data"
    data.mkdir()
    if text is not None:
        path.write_text(text)

    async def conversation() -> None:
        async with broker(data_dir=str(data), load_definitions=str(path), definitions_max_bytes=1024, **CHEAP):
            raise AssertionError("it started")

    with pytest.raises(BaseExceptionGroup) as failed:
        converse(conversation)
    error: BaseException = failed.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, DefinitionsError)
    assert str(error) == why.format(path)
    assert not (data / "access.json").exists()


def test_the_process_says_why_it_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "definitions.json"
    path.write_text('{"queues": [{"name": "q", "vhost": "x"}]}')
    process = Process(tmp_path / "data", "--definitions", str(path))
    assert process.ended() == 1
    assert process.said() == [
        f"rabbitish: cannot use the definitions in {path}: queue 'q' in vhost 'x': virtual host 'x' does not exist"
    ]


def test_a_kill_in_the_middle_of_an_import(tmp_path: Path) -> None:
    """Wherever it was: what is there then is a part of the file, and the next start with it completes it."""
    data, path = tmp_path / "data", tmp_path / "definitions.json"
    path.write_bytes(many(3000))
    process = Process(data, *CHEAPLY)

    async def begin() -> None:
        async with await operator(data / "control.sock") as stream:
            content = path.read_bytes()
            asked = {"command": "import_definitions", "content_bytes": len(content)}
            await stream.send_all(json.dumps(asked).encode() + b"\n" + content)
            async with await operator(data / "control.sock") as other:
                while not await Operator(other).ask("list_queues"):
                    pass

    converse(begin)
    process.kill()

    async def look() -> None:
        async with await operator(data / "control.sock") as stream:
            found = await exported(Operator(stream))
            assert (len(found["queues"]), len(found["bindings"])) == (3000, 9000)
            assert [row["name"] for row in found["users"]] == ["guest"]

    process = Process(data, *CHEAPLY, "--definitions", str(path))
    peer = Peer(process.port)
    assert isinstance(peer.ask(methods.QueueDeclare(queue="q7", passive=True)).method, methods.QueueDeclareOk)
    peer.close()
    converse(look)
    process.stop(after_a_kill=True)


# --- parameters, tracing and metadata --------------------------------------------------------------------------------


def test_parameters(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask):
            assert (
                await ask.ask("set_parameter", component="vhost-limits", name="limits", value={"max-queues": 3}) is None
            )
            cap = {"pattern": ".", "definition": {"max-length": 1}, "priority": 0, "apply-to": "queues"}
            assert await ask.ask("set_parameter", component="operator_policy", name="cap", value=cap) is None
            note = await ask.ask("set_parameter", component="shovel", name="s", value=[1])
            assert note == "kept, but nothing here knows the component 'shovel'"
            assert await ask.ask("list_parameters") == [
                {"component": "operator_policy", "name": "cap", "value": cap},
                {"component": "shovel", "name": "s", "value": [1]},
                {"component": "vhost-limits", "name": "limits", "value": {"max-queues": 3}},
            ]
            assert await ask.ask("list_vhost_limits") == [{"vhost": "/", "limits": {"max-queues": 3}}]
            assert (await ask.refused("set_parameter", component="policy", name="p", value={})).startswith(
                "policies may"
            )
            assert (await ask.refused("clear_parameter", component="policy", name="p")).startswith(
                "policies may not be c"
            )
            for component, name in (("vhost-limits", "limits"), ("operator_policy", "cap"), ("shovel", "s")):
                await ask.ask("clear_parameter", component=component, name=name)
                refusal = await ask.refused("clear_parameter", component=component, name=name)
                assert refusal == "Parameter does not exist"
            assert await ask.ask("list_parameters") == []
            await ask.ask("set_global_parameter", name="x", value={"a": None})
            await ask.ask("set_cluster_name", name="bunny")
            assert await ask.ask("list_global_parameters") == [
                {"name": "cluster_name", "value": "bunny"},
                {"name": "x", "value": {"a": None}},
            ]
            assert (await ask.ask("status"))["cluster_name"] == "bunny"
            assert running.node.hub.cluster_name == "bunny"
            await ask.ask("clear_global_parameter", name="x")
            assert await ask.refused("clear_global_parameter", name="x") == "Parameter does not exist"
            assert "cluster_name" in await ask.refused("set_global_parameter", name="cluster_name", value=7)

    converse(conversation)


def test_parameters_survive(tmp_path: Path) -> None:
    async def first() -> None:
        async with operated(tmp_path) as (_, ask):
            await ask.ask("add_vhost", name="v")
            for vhost in ("/", "v"):
                await ask.ask("set_parameter", vhost=vhost, component="c", name="n", value={"a": [1, None, "x"]})
            await ask.ask("set_global_parameter", name="g", value=1.5)
            await ask.ask("delete_vhost", name="v")

    async def second() -> None:
        async with operated(tmp_path) as (_, ask):
            assert await ask.ask("list_parameters") == [{"component": "c", "name": "n", "value": {"a": [1, None, "x"]}}]
            assert await ask.ask("list_global_parameters") == [{"name": "g", "value": 1.5}]

    converse(first)
    converse(second)


def test_metadata_and_the_default_queue_type(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask):
            client = await running.connect()
            await ask.ask("update_vhost_metadata", name="/", description="d", tags=["a"], default_queue_type="classic")
            await ask.ask("set_vhost_tags", name="/", tags=["b", "c"])
            (row,) = await ask.ask("list_vhosts")
            assert (row["description"], row["tags"], row["default_queue_type"]) == ("d", ["b", "c"], "classic")
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            assert (await ask.ask("list_queues"))[0]["arguments"] == {"x-queue-type": "classic"}
            await ask.ask("update_vhost_metadata", name="/", default_queue_type="quorum")
            await client.ask(methods.QueueDeclare(queue="not durable, so no quorum queue"), methods.QueueDeclareOk)
            await client.ask(methods.QueueDeclare(queue="p", durable=True), methods.QueueDeclareOk)
            rows = await ask.ask("list_queues")
            assert [(row["name"], row["type"]) for row in rows if row["name"] in "pq"] == [
                ("q", "classic"),
                ("p", "quorum"),
            ]
            refusal = await ask.refused("update_vhost_metadata", name="/", default_queue_type="x")
            assert refusal.startswith("Unsupported default queue type")
            assert "does not exist" in await ask.refused("set_vhost_tags", name="nosuch", tags=[])

    converse(conversation)


def test_authenticate_user(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (_, ask):
            assert await ask.ask("authenticate_user", name="guest", password="guest") == "Success"
            for name, password in (("guest", "x"), ("nobody", "guest"), ("guest", "\udcff"), ("guest", "")):
                refusal = await ask.refused("authenticate_user", name=name, password=password)
                assert refusal == f'failed to authenticate user "{name}"'
            await ask.ask("clear_password", name="guest")
            assert "failed" in await ask.refused("authenticate_user", name="guest", password="guest")

    converse(conversation)


def test_topic_permissions_of_a_user(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (_, ask):
            await ask.ask("set_topic_permissions", user="guest", exchange="amq.topic", write="a", read="b")
            row = {"vhost": "/", "exchange": "amq.topic", "write": "a", "read": "b"}
            assert await ask.ask("list_user_topic_permissions", user="guest") == [row]
            assert "does not exist" in await ask.refused("list_user_topic_permissions", user="nobody")

    converse(conversation)


def test_tracing_is_switched(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask):
            client = await running.connect()
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            bind = methods.QueueBind(queue="q", exchange="amq.rabbitmq.trace", routing_key="publish.amq.fanout")
            await client.ask(bind, methods.QueueBindOk)
            assert await ask.ask("trace_on") == "Trace enabled for vhost /"
            assert await ask.ask("trace_on") == "Trace enabled for vhost /"
            publish = methods.BasicPublish(exchange="amq.fanout")
            for expected in (1, 1):
                await client.send(publish)
                await client.stream.send_all(b"\2\0\1\0\0\0\x0e\0\x3c" + bytes(12) + b"\xce")
                found = await client.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)
                assert found.message_count == expected
                assert await ask.ask("trace_off") == "Trace disabled for vhost /"

    converse(conversation)


@pytest.mark.parametrize("module", ["rabbit_password_hashing_sha256", "rabbit_password_hashing_sha512"])
def test_passwords_may_be_hashed_as_rabbitmq_does(tmp_path: Path, module: str) -> None:
    async def conversation() -> None:
        async with operated(tmp_path, password_hashing_module=module, password_migration=True) as (running, ask):
            await ask.ask("add_user", name="joe", password="secret")
            await ask.ask("set_permissions", user="joe", **EVERYTHING)
            assert isinstance(await login(running, "joe", "secret"), Client)
            found = await exported(ask)
            assert {row["hashing_algorithm"] for row in found["users"]} == {module}

    converse(conversation)
