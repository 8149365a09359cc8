"""docs/CLUSTERING.md is what happens: its commands, line by line in one shell, make so what stands beside them.

With RABBITISH_DRILL=1 and etcd. Ports are others than the page's, and nothing else of a line is changed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from rabbitish.client import ClientError, connect

from ..etcd_server import find_etcd, free_ports
from .brokers import REPOSITORY, environment
from .patience import until

pytestmark = pytest.mark.skipif(os.environ.get("RABBITISH_DRILL") != "1", reason="RABBITISH_DRILL=1 for clusters")

GUIDE = (REPOSITORY / "docs/CLUSTERING.md").read_text()
PORTS = ["2379", "5672", "5673", "5674", "25672", "25673", "25674"]
NODES = ["a", "b", "c"]
LINE_SECONDS = 60
LONGER_THAN_LEASES_SECONDS = 7
QUEUE = "drill"


def block(title: str) -> str:
    """The commands of a section."""
    (found,) = re.findall(rf"^## {title}$.*?^```sh\n(.*?)^```$", GUIDE, re.M | re.S)
    return str(found)


def statements(text: str) -> Iterator[tuple[str, str]]:
    """What a shell is given at once, and what stands beside it."""
    for statement in re.findall(r"^\S.*\n(?:(?:[ }]).*\n)*", text, re.M):
        yield statement, statement.split(" # ", 1)[1].split("\n")[0].strip() if " # " in statement else ""


class Shell:
    """A bash in a folder of its own, which is told one thing after the other."""

    def __init__(self, process: trio.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._heard = b""

    async def do(self, statement: str) -> None:
        """Have it done. AssertionError: it failed."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        self._heard = b""
        await stdin.send_all(f'{statement}\necho "did: $?"\n'.encode())
        with trio.fail_after(LINE_SECONDS):
            while (done := re.search(rb"^did: (\d+)\n", self._heard, re.M)) is None:
                self._heard += await stdout.receive_some()
        errors = (self._folder / "errors").read_text()
        assert done[1] == b"0" and "rabbitish: " not in errors, f"{statement}{self._heard.decode()}{errors}"


@asynccontextmanager
async def shell(folder: Path, etcd_ports: list[int]) -> AsyncIterator[Shell]:
    """A block with a shell, for which `rabbitish` is this code; nothing that it starts outlives the block."""
    command = folder / ".venv/bin/rabbitish"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rabbitish "$@"\n')
    command.chmod(0o755)
    client, peer = (f"http://127.0.0.1:{port}" for port in etcd_ports)
    etcd = {
        "ETCD_LISTEN_CLIENT_URLS": client,
        "ETCD_ADVERTISE_CLIENT_URLS": client,
        "ETCD_LISTEN_PEER_URLS": peer,
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
        "ETCD_INITIAL_CLUSTER": f"default={peer}",
    }
    with (folder / "errors").open("wb") as errors:
        process = await trio.lowlevel.open_process(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={**environment(), **etcd},
            start_new_session=True,
        )
        try:
            yield Shell(process, folder)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()


class Watched:
    """The cluster of the page, as its nodes see it."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self._folder = folder
        self._ports = ports
        self.before: dict[str, Any] = {}  # the leader's pid among it, before what is being done
        self.confirmed: list[bytes] = []

    async def _ask(self, node: str, *words: str) -> dict[str, Any] | None:
        """None: it does not answer."""
        command = [sys.executable, "-m", "rabbitish", *words, "--json", "--data-dir", str(self._folder / node)]
        with trio.move_on_after(5):
            done = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False, env=environment()
            )
            if not done.returncode:
                found: dict[str, Any] = json.loads(done.stdout)
                return found
        return None

    async def seen(self) -> dict[str, Any]:
        """What the node says that knows of the newest epoch, the leader's before the others'."""
        said = [found for node in NODES if (found := await self._ask(node, "cluster", "status")) is not None]
        return max(said, key=lambda each: (each["epoch"], each["serves"]), default={})

    async def remember(self) -> None:
        """How it is, before something is done."""
        self.before = await self.seen()
        if self.before:
            self.before["pid"] = (await self._ask(self.before["leader"], "status") or {})["pid"]

    async def publish(self, port: str) -> None:
        """A message more that is confirmed, by whoever leads then."""
        body = b"%d" % len(self.confirmed)

        async def confirmed() -> bool:
            with suppress(ClientError):
                uri = f"amqp://127.0.0.1:{self._ports[port]}"
                async with connect(uri) as connection, connection.channel() as channel:
                    await channel.declare_queue(QUEUE, durable=True)
                    await channel.publish(body, routing_key=QUEUE)
                return True
            return False

        await until(f"{body.decode()} is confirmed", confirmed)
        self.confirmed.append(body)

    async def consume(self, port: str) -> list[bytes]:
        """All that there is, once each."""
        found = set()
        async with connect(f"amqp://127.0.0.1:{self._ports[port]}") as connection, connection.channel() as channel:
            while (got := await channel.queue(QUEUE).get()) is not None:
                found.add(got.body)
                got.ack()
        return sorted(found, key=int)


async def becomes(cluster: Watched, what: str, true: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until what the cluster says of itself is so."""

    async def so() -> bool:
        seen = await cluster.seen()
        return bool(seen) and true(seen)

    await until(what, so)


def rows(seen: dict[str, Any], what: str) -> list[str]:
    """The nodes of which that is true."""
    return sorted(row["node"] for row in seen["replicas"] if row[what])


def whole(seen: dict[str, Any]) -> bool:
    return rows(seen, "in_sync") == NODES and bool(seen["serves"])


async def all_in_sync(cluster: Watched) -> None:
    await becomes(cluster, "all are in sync", whole)


async def led_by_a(cluster: Watched) -> None:
    await becomes(cluster, "a leads, and all are in sync", lambda seen: seen["leader"] == "a" and whole(seen))


async def without_a(cluster: Watched) -> None:
    def so(seen: dict[str, Any]) -> bool:
        higher = seen["epoch"] > cluster.before["epoch"]
        return higher and rows(seen, "in_sync") == rows(seen, "live") == ["b", "c"] and seen["leader"] in "bc"

    await becomes(cluster, "b or c leads without a", so)


async def another_leads(cluster: Watched) -> None:
    def so(seen: dict[str, Any]) -> bool:
        return bool(seen["leader"] != cluster.before["leader"] and seen["serves"])

    await becomes(cluster, "another leads", so)


async def another_leads_and_a_has_ended(cluster: Watched) -> None:
    def ended() -> bool:
        with suppress(ProcessLookupError):
            os.kill(cluster.before["pid"], 0)
            return False
        return True

    await another_leads(cluster)
    await until("a has ended", ended)


async def without_c(cluster: Watched) -> None:
    await becomes(cluster, "c is not in sync", lambda seen: rows(seen, "in_sync") == ["a", "b"] and seen["serves"])


async def publishing_goes_on(cluster: Watched) -> None:
    end = trio.current_time() + LONGER_THAN_LEASES_SECONDS
    while trio.current_time() < end:
        for port in ("5672", "5673", "5674"):
            await cluster.publish(port)


Promise = Callable[[Watched], Awaitable[None]]
SAID: dict[str, Promise | None] = {
    "": None,
    "NAME, its port for clients, its port for other nodes": None,
    "before the others: the first one leads": None,
    "as that node has it": None,
    "a leads; b and c are in sync": led_by_a,
    "b or c leads, in a higher epoch; a is not in sync, and not live after 5 s": without_a,
    "it cuts off what nobody confirmed, catches up, and is in sync again": all_in_sync,
    "said to who leads: leadership is handed back to a": led_by_a,
    "SIGTERM: the same without saying to whom; a ends when another leads": another_leads_and_a_has_ended,
    "it is in sync again": all_in_sync,
    "after cluster_ttl_s another leads": another_leads,
    "it finds that out, sends its clients away, and is in sync again": all_in_sync,
    "publishing goes on, for as long as you like": publishing_goes_on,
    "all are in sync, as before": all_in_sync,
    "c is not in sync": without_c,
    "an empty disk is another replica: it is filled, and in sync again": all_in_sync,
}


async def follow(bash: Shell, cluster: Watched, text: str, ported: Callable[[str], str]) -> None:
    """Do what a block says, each when what stands beside the one before is so."""
    for statement, said in statements(text):
        promise = SAID[said]
        if promise is not None:
            await cluster.remember()
        await bash.do(ported(statement))
        if promise is not None:
            await promise(cluster)
            await cluster.publish("5673" if "b" in rows(await cluster.seen(), "live") else "5672")


def test_the_page_says_nothing_that_is_not_looked_at() -> None:
    text = block("Three nodes on one machine") + block("A failover drill")
    assert {said for _, said in statements(text)} == set(SAID)
    assert "".join(statement for statement, _ in statements(text)) == text


def test_the_page_is_what_happens(tmp_path: Path) -> None:
    find_etcd()

    async def main() -> None:
        *found, peer = free_ports(len(PORTS) + 1)
        ports = dict(zip(PORTS, found, strict=True))
        ported = partial(re.sub, rf"\b(?:{'|'.join(PORTS)})\b", lambda match: str(ports[match[0]]))
        cluster = Watched(tmp_path, ports)
        async with shell(tmp_path, [ports["2379"], peer]) as bash:
            await follow(bash, cluster, block("Three nodes on one machine"), ported)
            await follow(bash, cluster, block("A failover drill"), ported)
            assert await cluster.consume("5674") == cluster.confirmed
        for log in NODES:
            assert "Traceback" not in (tmp_path / f"{log}.log").read_text()

    trio.run(main)
