"""Users, permissions and virtual hosts of a running broker: commands, what survives, slow passwords, the audit log."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from rabbitish.core.access import logins
from rabbitish.core.access.passwords import SCRYPT, SHA256, Hashed, hash_as_rabbitmq
from rabbitish.core.access.roster import Roster
from rabbitish.server.control import ControlError, ControlSocket
from rabbitish.server.keeper import JournalError
from rabbitish.store.access_file import ACCESS_FILE
from rabbitish.wire import methods
from rabbitish.wire.frames import PROTOCOL_HEADER

from .crash import Peer, Process
from .support import Client, Running, broker, converse, until

CHEAP = {"password_cost": 4}


class Operator:
    """Sends commands to a control socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def line(self, data: bytes, end: bytes = b"\n") -> Any:
        """Send a line, and the answer to it."""
        await self.stream.send_all(data + end)
        while b"\n" not in self._rest:
            more = await self.stream.receive_some()
            assert more, "the broker hung up"
            self._rest += more
        answer, _, self._rest = self._rest.partition(b"\n")
        return json.loads(answer)

    async def send_file(self, command: str, content: bytes, **arguments: object) -> Any:
        """The answer to a command that comes with a file."""
        asked = {"command": command, "arguments": arguments, "content_bytes": len(content)}
        return await self.line(json.dumps(asked).encode() + b"\n" + content, end=b"")

    async def fetch_file(self, command: str, **arguments: object) -> bytes:
        """The file that a command answers with."""
        answer = await self.line(json.dumps({"command": command, "arguments": arguments}).encode())
        assert answer["ok"], answer
        while len(self._rest) < answer["content_bytes"]:
            self._rest += await self.stream.receive_some()
        content, self._rest = self._rest[: answer["content_bytes"]], self._rest[answer["content_bytes"] :]
        return content

    async def ask(self, command: str, **arguments: object) -> Any:
        """What a command returns, which must be possible."""
        answer = await self.line(json.dumps({"command": command, "arguments": arguments}).encode())
        assert answer["ok"], answer
        return answer["result"]

    async def refused(self, command: str, **arguments: object) -> str:
        """Why a command is refused."""
        answer = await self.line(json.dumps({"command": command, "arguments": arguments}).encode())
        assert not answer["ok"], answer
        return str(answer["error"])


@asynccontextmanager
async def operated(tmp_path: Path, **settings: object) -> AsyncIterator[tuple[Running, Operator]]:
    """A broker with a data directory, and an operator of it."""
    async with (
        broker(data_dir=str(tmp_path), **{**CHEAP, **settings}) as running,
        await operator(tmp_path / "control.sock") as stream,
    ):
        yield running, Operator(stream)


async def operator(path: Path) -> trio.SocketStream:
    sock = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_RDONLY)  # the path may be too long for the kernel
    sock.connect(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


async def login(running: Running, user: str, password: str, vhost: str = "/") -> Client | str:
    """A client, or the text of the close that it got."""
    client = await running.open()
    await client.stream.send_all(PROTOCOL_HEADER)
    await client.expect(methods.ConnectionStart)
    properties = {"capabilities": {"authentication_failure_close": True}}
    response = f"\0{user}\0{password}".encode()
    start = methods.ConnectionStartOk(client_properties=properties, mechanism="PLAIN", response=response)
    await client.send(start, 0)
    for answer in (
        methods.ConnectionTuneOk(channel_max=10, frame_max=131_072),
        methods.ConnectionOpen(virtual_host=vhost),
        methods.ChannelOpen(),
    ):
        frame = await client.frame() if not isinstance(answer, methods.ConnectionOpen) else (1, 0, b"")
        assert frame is not None
        if frame[2][:4] == b"\0\x0a\0\x32":
            return str(methods.decode_method(frame[2]).reply_text)  # type: ignore[attr-defined]
        await client.send(answer, 1 if isinstance(answer, methods.ChannelOpen) else 0)
    await client.expect(methods.ChannelOpenOk)
    return client


REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_day_of_an_operator(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask):
            await ask.ask("add_vhost", name="team", description="ours", tags=["x"])
            await ask.ask("add_user", name="joe", password="secret")
            await ask.ask("set_user_tags", name="joe", tags=["monitoring"])
            assert await login(running, "joe", "secret", "team") == (
                "NOT_ALLOWED - access to vhost 'team' refused for user 'joe'"
            )
            await ask.ask("set_permissions", user="joe", vhost="team", configure="^j", write="^j", read="^j")
            joe = await login(running, "joe", "secret", "team")
            assert isinstance(joe, Client)
            await joe.ask(methods.QueueDeclare(queue="jobs", durable=True), methods.QueueDeclareOk)
            await joe.ask(methods.BasicConsume(queue="jobs", consumer_tag="t"), methods.BasicConsumeOk)
            assert [row["name"] for row in await ask.ask("list_queues", vhost="team")] == ["jobs"]
            (row,) = await ask.ask("list_consumers", vhost="team")
            assert (row["queue_name"], row["consumer_tag"], row["ack_required"]) == ("jobs", "t", True)
            (row,) = await ask.ask("list_bindings", vhost="team")
            assert (row["source_name"], row["destination_name"], row["routing_key"]) == ("", "jobs", "jobs")
            assert len(await ask.ask("list_exchanges", vhost="team")) == 7
            (row,) = [row for row in await ask.ask("list_connections") if row["state"] == "running"]
            assert (row["user"], row["vhost"], row["channels"], row["peer_host"]) == ("joe", "team", 1, "127.0.0.1")
            (channel,) = await ask.ask("list_channels")
            assert (channel["connection"], channel["consumer_count"]) == (row["name"], 1)
            assert (await ask.ask("status"))["queues"] == 1
            await joe.send(methods.QueueDeclare(queue="other"))
            closed = await joe.expect(methods.ChannelClose)
            assert (
                closed.reply_text == "ACCESS_REFUSED - access to queue 'other' in vhost 'team' refused for user 'joe'"
            )
            await ask.ask("close_connection", connection=row["name"], explanation="enough")
            assert (await joe.expect(methods.ConnectionClose)).reply_text == "CONNECTION_FORCED - enough"
            assert (await ask.refused("close_connection", connection="x", explanation="")).startswith("there is no")

    converse(conversation)


def test_lists_of_users_and_permissions(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (_, ask):
            await ask.ask("add_user", name="joe", password="secret")
            await ask.ask("set_user_limits", name="joe", limits={"max-connections": 3})
            await ask.ask("set_vhost_limits", limits={"max-queues": 3})
            await ask.ask("set_topic_permissions", user="joe", exchange="amq.topic", write="a", read="b")
            assert await ask.ask("list_users") == [
                {"user": "guest", "tags": ["administrator"]},
                {"user": "joe", "tags": []},
            ]
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            assert await ask.ask("list_permissions") == [{"user": "guest", **everything}]
            assert await ask.ask("list_user_permissions", user="guest") == [{"vhost": "/", **everything}]
            topic = {"user": "joe", "exchange": "amq.topic", "write": "a", "read": "b"}
            assert await ask.ask("list_topic_permissions") == [topic]
            assert await ask.ask("list_user_limits") == [{"user": "joe", "limits": {"max-connections": 3}}]
            assert await ask.ask("list_vhost_limits") == [{"vhost": "/", "limits": {"max-queues": 3}}]
            assert [row["name"] for row in await ask.ask("list_vhosts")] == ["/"]
            await ask.ask("clear_user_limits", name="joe")
            await ask.ask("clear_vhost_limits")
            await ask.ask("clear_topic_permissions", user="joe")
            await ask.ask("clear_permissions", user="guest")
            for listed in ("list_user_limits", "list_vhost_limits", "list_topic_permissions", "list_permissions"):
                assert await ask.ask(listed) == []

    converse(conversation)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"command": []}',
        b'{"command": "nosuch"}',
        b'{"command": "list_users", "arguments": []}',
        b'{"command": "list_users", "arguments": {"x": 1}}',
        b'{"command": "delete_user"}',
        b'{"command": "delete_user", "arguments": {"name": 7}}',
        b'{"command": "delete_user", "arguments": {"name": "nobody"}}',
        b'{"command": "add_user", "arguments": {"name": "joe", "password": ""}}',
        b'{"command": "add_user", "arguments": {"name": "joe", "password": "\\udcff"}}',
        b'{"command": "add_user", "arguments": {"name": "\\udcff", "password": "x"}}',
        b'{"command": "list_queues", "arguments": {"vhost": "nosuch"}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_command(tmp_path: Path, line: bytes) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (_, ask):
            answer = await ask.line(line)
            assert answer["ok"] is False and answer["error"] and "internal" not in answer["error"]
            assert len(await ask.ask("list_users")) == 1

    converse(conversation)


def test_a_line_without_end_ends_the_connection(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (_, ask):
            with pytest.raises(trio.BrokenResourceError):
                await ask.stream.send_all(b"x" * (64 << 20))

    converse(conversation)


def test_nobody_else_may_open_the_socket(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path / ("long" * 50)) as (running, _):
            path = tmp_path / ("long" * 50) / "control.sock"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.with_name(ACCESS_FILE).stat().st_mode) == 0o600
            with pytest.raises(ControlError, match="another broker has it"):
                ControlSocket(running.node, path)

    converse(conversation)
    assert not (tmp_path / ("long" * 50) / "control.sock").exists()


# --- what survives ---------------------------------------------------------------------------------------------------


def test_what_was_changed_survives_a_kill(tmp_path: Path) -> None:
    """Also the default user's absence, and that of a virtual host with all that was in it."""
    data_dir = tmp_path / "data"
    cheap = ("--set", "password_cost=4")

    async def change() -> None:
        async with await operator(data_dir / "control.sock") as stream:
            ask = Operator(stream)
            await ask.ask("add_vhost", name="v")
            await ask.ask("add_user", name="joe", password="secret")
            await ask.ask("set_permissions", user="joe", configure=".*", write=".*", read=".*")
            await ask.ask("set_permissions", user="guest", vhost="v", configure=".*", write=".*", read=".*")
            await ask.ask("set_vhost_limits", vhost="/", limits={"max-queues": 1})

    async def look() -> None:
        async with await operator(data_dir / "control.sock") as stream:
            ask = Operator(stream)
            assert [row["user"] for row in await ask.ask("list_permissions")] == ["guest", "joe"]
            assert [row["name"] for row in await ask.ask("list_vhosts")] == ["/", "v"]
            assert await ask.ask("list_vhost_limits") == [{"vhost": "/", "limits": {"max-queues": 1}}]
            await ask.ask("delete_user", name="guest")
            await ask.ask("delete_vhost", name="v")
            await ask.ask("add_vhost", name="v")
            await ask.ask("delete_vhost", name="/")

    async def look_again() -> None:
        async with await operator(data_dir / "control.sock") as stream:
            ask = Operator(stream)
            assert [row["user"] for row in await ask.ask("list_users")] == ["joe"]
            assert [row["name"] for row in await ask.ask("list_vhosts")] == ["v"]
            assert await ask.ask("list_queues", vhost="v") == []

    process = Process(data_dir, *cheap)
    converse(change)
    process.kill()
    process = Process(data_dir, *cheap)
    peer = Peer(process.port, vhost="v")
    peer.ask(methods.QueueDeclare(queue="q", durable=True))
    converse(look)
    peer.close()
    process.kill()
    process = Process(data_dir, *cheap)
    converse(look_again)
    process.stop(after_a_kill=True)


def test_a_vhost_that_was_not_quite_deleted_goes_at_the_start(tmp_path: Path) -> None:
    """The file says what there is; the journal follows it, whichever came to disk last."""

    async def first() -> None:
        async with operated(tmp_path) as (running, ask):
            await ask.ask("add_vhost", name="v")
            running.node.broker.add_vhost("left over").declare_queue(
                "q", durable=True, exclusive=False, auto_delete=False, arguments={}, owner=None, now=0
            )

    async def second() -> None:
        async with operated(tmp_path) as (running, _):
            assert set(running.node.broker.vhosts) == {"/", "v"}

    converse(first)
    converse(second)


def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / ACCESS_FILE).write_text('{"rabbitish_access": 1, "users": 7}')

    async def conversation() -> None:
        async with broker(data_dir=str(tmp_path)):
            raise AssertionError("it started")

    with pytest.raises(BaseExceptionGroup) as failed:
        converse(conversation)
    error: BaseException = failed.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, JournalError) and str(error) == "access.json cannot be used: users is no list"


def test_a_change_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with operated(tmp_path) as (running, ask):
            (tmp_path / f"{ACCESS_FILE}.new").mkdir()  # where the new file would be
            assert "cannot be written to disk" in await ask.refused("add_user", name="joe", password="x")
            assert list(running.node.hub.access.roster.users) == ["guest"]
            (tmp_path / f"{ACCESS_FILE}.new").rmdir()
            await ask.ask("add_user", name="joe", password="x")

    converse(conversation)


# --- passwords -------------------------------------------------------------------------------------------------------


def test_a_slow_password_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one password is verified in a thread, others log in; and equal ones are verified once."""
    go_on, verified = threading.Event(), []
    matches = logins.matches

    def slowly(hashed: Hashed, password: bytes) -> bool:
        if threading.current_thread() is threading.main_thread():
            return matches(hashed, password)
        assert go_on.wait(20)
        verified.append(password)
        return matches(hashed, password)

    async def first() -> None:
        async with operated(tmp_path) as (_, ask):
            await ask.ask("add_user", name="joe", password="secret")
            await ask.ask("set_permissions", user="joe", configure="", write="", read="")

    async def second() -> None:
        monkeypatch.setattr(logins, "matches", slowly)
        async with operated(tmp_path) as (running, ask):
            outcomes: list[Client | str] = []

            async def one(password: str) -> None:
                outcomes.append(await login(running, "joe", password))

            async with trio.open_nursery() as nursery:
                for password in ("secret", "secret", "wrong", "secret"):
                    nursery.start_soon(one, password)
                states = lambda: sorted(session.state for session in running.node.links)  # noqa: E731
                await until(lambda: states() == ["verifying"] * 4)
                await ask.ask("set_user_tags", name="guest", tags=[])  # the broker goes on
                assert outcomes == []
                go_on.set()
            assert sorted(verified) == [b"secret", b"wrong"]
            assert [one for one in outcomes if isinstance(one, str)] == [REFUSED]
            await one("secret")
            assert len(verified) == 2

    converse(first)
    converse(second)


@pytest.mark.parametrize("migrated", [False, True])
def test_rabbitmqs_hashes_are_migrated_only_if_that_is_wanted(tmp_path: Path, migrated: bool) -> None:
    async def conversation() -> None:
        async with operated(tmp_path, password_migration=migrated) as (running, _):
            access = running.node.hub.access

            def as_rabbitmq(roster: Roster) -> None:
                roster.set_password("guest", hash_as_rabbitmq(b"guest", b"salt"))

            def algorithm() -> str:
                password = access.roster.users["guest"].password
                assert password is not None
                return password.algorithm

            await running.node.registrar.change("test", "imported", as_rabbitmq)
            assert isinstance(await login(running, "guest", "guest"), Client)
            if migrated:
                await until(lambda: algorithm() == SCRYPT)
            assert algorithm() == (SCRYPT if migrated else SHA256)
            assert isinstance(await login(running, "guest", "guest"), Client)

    converse(conversation)


# --- the audit log ---------------------------------------------------------------------------------------------------


def test_the_audit_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def conversation() -> None:
        async with operated(tmp_path / "data", audit_log=str(path)) as (running, ask):
            await ask.ask("add_user", name="joe", password="geheim")
            await ask.refused("add_user", name="joe", password="geheim")
            assert await login(running, "joe", "verraten") == REFUSED
            await ask.ask("set_permissions", user="joe", configure="^$", write="", read="")
            joe = await login(running, "joe", "geheim")
            assert isinstance(joe, Client)
            await joe.send(methods.QueueDeclare(queue="q" * 200))
            await joe.expect(methods.ChannelClose)
            path.rename(tmp_path / "audit.log.1")  # as logrotate does
            await ask.ask("delete_user", name="joe")

    converse(conversation)
    moved = [json.loads(line) for line in (tmp_path / "audit.log.1").read_text().splitlines()]
    assert [(entry["event"], entry["user"]) for entry in moved] == [
        ("user added", "joe"),
        ("user added: refused", "joe"),
        ("login refused", "joe"),
        ("permissions set", "joe"),
        ("login", "joe"),
        ("permission denied", "joe"),
    ]
    assert "actor" in moved[0] and "127.0.0.1" in moved[2]["connection"] and moved[2]["reason"]
    (last,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert last["event"] == "user deleted" and last["time"].endswith("Z")
    everything = (tmp_path / "audit.log.1").read_text() + path.read_text()
    assert "geheim" not in everything and "verraten" not in everything
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_audit_log_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with broker(audit_log=str(tmp_path / "nosuch" / "audit.log")):
            raise AssertionError("it started")

    with pytest.raises(BaseExceptionGroup) as failed:
        converse(conversation)
    assert "cannot write the audit log" in repr(failed.value)
