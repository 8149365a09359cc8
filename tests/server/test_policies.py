"""Policies in a running broker: commands, the audit log, what a kill leaves, and very many queues."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rabbitish.store.access_file import ACCESS_FILE
from rabbitish.wire import methods

from .crash import Peer, Process
from .support import converse
from .test_access import Operator, login, operated, operator

LENGTH = {"max-length": 2}


def test_a_policy_by_commands(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path, audit_log=str(tmp_path / "audit")) as (running, ask):
            guest = await login(running, "guest", "guest", "/")
            await guest.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)  # type: ignore[union-attr]
            await ask.ask("set_policy", name="p", pattern="^q", definition=LENGTH, priority=3, apply_to="queues")
            await ask.ask("set_operator_policy", name="o", pattern="", definition={"max-length": 1})
            (row,) = await ask.ask("list_queues")
            assert (row["policy"], row["operator_policy"]) == ("p", "o")
            assert row["effective_policy_definition"] == {"max-length": 1}
            assert await ask.ask("list_policies") == [
                {
                    "vhost": "/",
                    "name": "p",
                    "pattern": "^q",
                    "definition": LENGTH,
                    "priority": 3,
                    "apply-to": "queues",
                }
            ]
            assert [row["name"] for row in await ask.ask("list_operator_policies")] == ["o"]
            rows = {row["name"]: row for row in await ask.ask("list_exchanges")}
            assert (rows["amq.topic"]["policy"], rows["amq.topic"]["operator_policy"]) == ("", "o")
            assert rows[""]["operator_policy"] == ""
            await ask.ask("clear_policy", name="p")
            await ask.ask("clear_operator_policy", name="o")
            (row,) = await ask.ask("list_queues")
            assert (row["policy"], row["operator_policy"], row["effective_policy_definition"]) == ("", "", {})
            assert await ask.refused("clear_policy", name="p") == "Parameter does not exist"
            assert await ask.refused("set_policy", name="p", pattern="(", definition=[]) == (
                "Validation failed\n\nno policy provided\n"
                'pattern should be regular expression but is invalid: {"missing )",1}'
            )
            assert "nested too deeply" in await ask.refused(
                "set_policy", name="p", pattern="", definition={"a": json.loads("[" * 900 + "]" * 900)}
            )
            assert await ask.refused("set_policy", name="p", pattern="", definition=LENGTH, vhost="v") == (
                "Virtual host 'v' does not exist"
            )

    converse(conversation)
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    made = [(line["event"], line["policy"]) for line in lines if "policy" in line]
    assert made == [
        ("policy set", "p"),
        ("operator policy set", "o"),
        ("policy cleared", "p"),
        ("operator policy cleared", "o"),
        ("policy cleared: refused", "p"),
        ("policy set: refused", "p"),
    ]
    assert lines[[line["event"] for line in lines].index("policy set")]["definition"] == LENGTH


def test_a_command_returns_when_all_queues_have_it(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask):
            vhost = running.node.broker.vhosts["/"]
            for number in range(2000):
                vhost.declare_queue(
                    f"q{number}", durable=False, exclusive=False, auto_delete=False, arguments={}, owner=None, now=0
                )
            await ask.ask("set_policy", name="p", pattern="^q", definition=LENGTH)
            assert all(queue.options.max_length == 2 for queue in vhost.queues.values())

    converse(conversation)


def test_a_pattern_that_takes_too_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask):
            vhost = running.node.broker.vhosts["/"]
            for name in ("a" * 255, "b" * 255):
                vhost.declare_queue(
                    name, durable=False, exclusive=False, auto_delete=False, arguments={}, owner=None, now=0
                )
            why = 'invalid regular expression "^(a?){900}b": it takes too many steps to match with a name'
            for command in ("set_policy", "set_operator_policy"):
                assert await ask.refused(command, name="p", pattern="^(a?){900}b", definition=LENGTH) == why
            patterns = {"write": "^(a?){900}b", "read": ""}
            assert await ask.refused("set_permissions", user="guest", configure="", **patterns) == why
            assert await ask.refused("set_topic_permissions", user="guest", exchange="x", **patterns) == why
            await ask.ask("set_policy", name="p", pattern="([ab]?){90}c", definition=LENGTH)
            assert [row["policy"] for row in await ask.ask("list_queues")] == ["", ""]

    caplog.set_level("WARNING")
    converse(conversation)
    (record,) = [record for record in caplog.records if "passed over" in record.getMessage()]
    assert vars(record)["fields"] == {"vhost": "/", "policy": "p", "pattern": "([ab]?){90}c", "name": "a" * 255}


def test_what_was_accepted_once_is_read_again(tmp_path: Path) -> None:
    """However long it takes: a broker must start."""

    async def conversation() -> None:
        async with operated(tmp_path) as (_, ask):
            await ask.ask("set_policy", name="p", pattern="(b?){9}c", definition=LENGTH)
        file = tmp_path / ACCESS_FILE
        file.write_text(file.read_text().replace("(b?){9}c", "(b?){900}c"))
        async with operated(tmp_path) as (_, ask):
            (policy,) = await ask.ask("list_policies")
            assert policy["pattern"] == "(b?){900}c"
            await ask.ask("clear_policy", name="p")

    converse(conversation)


def test_policies_survive_a_kill(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    cheap = ("--set", "password_cost=4")

    async def change() -> None:
        async with await operator(data_dir / "control.sock") as stream:
            ask = Operator(stream)
            await ask.ask("set_policy", name="p", pattern="^q", definition=LENGTH)
            await ask.ask("set_policy", name="t", pattern="^t", definition={"message-ttl": 1})
            await ask.ask("set_operator_policy", name="o", pattern="^q", definition={"max-length": 3})

    async def change_again() -> None:
        async with await operator(data_dir / "control.sock") as stream:
            ask = Operator(stream)
            assert [row["policy"] for row in await ask.ask("list_queues")] == ["p", "t"]
            await ask.ask("clear_policy", name="p")
            await ask.ask("clear_policy", name="t")

    process = Process(data_dir, *cheap)
    peer = Peer(process.port)
    peer.ask(methods.ConfirmSelect())
    for name in ("q", "t"):
        peer.declare(name)
        peer.confirm(name, b"1", b"2", b"3", b"4", b"5")
    converse(change)
    peer.close()
    process.kill()
    process = Process(data_dir, *cheap)
    peer = Peer(process.port)
    assert list(peer.drain("t")) == [b"1", b"2", b"3", b"4", b"5"]  # they were there before
    assert list(peer.drain("q")) == [b"4", b"5"]
    converse(change_again)
    peer.ask(methods.ConfirmSelect())
    for name in ("q", "t"):
        peer.confirm(name, b"1", b"2", b"3", b"4", b"5")
    peer.close()
    process.kill()
    process = Process(data_dir, *cheap)
    peer = Peer(process.port)
    assert list(peer.drain("q")) == [b"3", b"4", b"5"]
    assert list(peer.drain("t")) == [b"1", b"2", b"3", b"4", b"5"]
    peer.close()
    process.stop(after_a_kill=True)
