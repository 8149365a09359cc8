"""Commands about a cluster, on all of its nodes: three in this program, with a real etcd and control sockets."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from click.testing import CliRunner, Result

from rabbitish.cli import main
from rabbitish.cluster.membership import change_state
from rabbitish.cluster.protocol.operating import forget
from rabbitish.cluster.protocol.state import GroupState, View, node_of
from rabbitish.config import Settings
from rabbitish.server.cluster_place import JOURNAL, cluster_place
from rabbitish.server.clustered import Clustered
from rabbitish.server.log import get_log
from rabbitish.wire import methods
from tests.cluster.etcd_server import EtcdCluster, served
from tests.server.support import Client

_clusters = count(1)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    yield from served(tmp_path_factory.mktemp("etcd"))


class Refused(Exception):
    """What a node said instead of an answer."""


class Trio:
    """Nodes a, b and c, as many as were started."""

    def __init__(self, etcd: EtcdCluster, folder: Path, settings: dict[str, Any]) -> None:
        self._settings = settings
        self.url = f"etcd://127.0.0.1:{etcd.members[0].port}/commands-{next(_clusters)}"
        self.folder = folder
        self.nodes: dict[str, Clustered] = {}
        self.nursery: trio.Nursery
        self._scopes: dict[str, trio.CancelScope] = {}
        self._ended: dict[str, trio.Event] = {}

    def settings(self, name: str) -> Settings:
        return Settings(
            listen=("amqp://127.0.0.1:0",),
            cluster=self.url,
            node_name=name,
            cluster_listen="127.0.0.1:0",
            cluster_ttl_s=2,
            data_dir=str(self.folder / name),
            password_cost=4,
            shutdown_grace_ms=100,
            **self._settings,
        )

    async def start(self, name: str) -> None:
        settings = self.settings(name)
        self.nodes[name] = node = Clustered(settings, cluster_place(settings), get_log())
        self._scopes[name], self._ended[name] = trio.CancelScope(), trio.Event()
        began = trio.Event()

        async def run() -> None:
            with self._scopes[name]:
                await node.run(lambda urls: began.set())
            await node.etcd.aclose()
            self._ended[name].set()

        self.nursery.start_soon(run)
        await began.wait()

    async def kill(self, *names: str) -> None:
        """At once, and their leases go on."""
        for name in names:
            self._scopes[name].cancel()
            await self._ended[name].wait()
            del self.nodes[name]

    async def ask(self, at: str, command: str, **arguments: object) -> Any:
        async with await trio.open_unix_socket(str(self.folder / at / "control.sock")) as stream:
            await stream.send_all(json.dumps({"command": command, "arguments": arguments}).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n"):
                data += await stream.receive_some()
        answer = json.loads(data)
        if not answer["ok"]:
            raise Refused(answer["error"])
        return answer["result"]

    async def until(self, node: str, true: Callable[[Any], bool]) -> Any:
        """What a node says of the cluster, when that is true of it."""
        said: object = None
        while True:
            try:
                said = await self.ask(node, "cluster_status")
                if true(said):
                    return said
            except Refused as refused:
                said = refused
            await trio.sleep(0.02)

    async def whole(self, in_sync: int, by: str = "a") -> Any:
        return await self.until(by, lambda said: sum(r["in_sync"] for r in said["replicas"]) == in_sync)

    async def leads(self, name: str, *told: str) -> None:
        for each in (name, *told):
            await self.until(each, lambda said: said["leader"] == name)
        await self.until(name, lambda said: said["serves"])


@asynccontextmanager
async def cluster(etcd: EtcdCluster, folder: Path, names: str = "abc", **settings: Any) -> AsyncIterator[Trio]:
    nodes = Trio(etcd, folder, settings)
    async with trio.open_nursery() as nodes.nursery:
        for name in names:
            await nodes.start(name)
            await nodes.whole(len(nodes.nodes))
        yield nodes
        await nodes.kill(*nodes.nodes)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def patiently() -> None:
        with trio.fail_after(60):
            await scene()

    trio.run(patiently)


@asynccontextmanager
async def client_of(node: Clustered) -> AsyncIterator[Client]:
    where = urlsplit(node.front.urls[0])
    async with await trio.open_tcp_stream(where.hostname or "", where.port or 0) as stream:
        client = Client(stream)
        await client.handshake()
        yield client


async def typed(*arguments: str) -> Result:
    """A command as it is typed, while the nodes go on."""
    return await trio.to_thread.run_sync(lambda: CliRunner().invoke(main, arguments))


async def refusal(nodes: Trio, at: str, command: str, **arguments: object) -> str:
    with pytest.raises(Refused) as refused:
        await nodes.ask(at, command, **arguments)
    return str(refused.value)


def test_every_node_answers_and_the_leader_is_named(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster(etcd, tmp_path) as nodes:
            await nodes.leads("a", "b", "c")
            async with client_of(nodes.nodes["b"]) as client:
                for name, durable in (("kept", True), ("gone", False)):
                    await client.ask(methods.QueueDeclare(queue=name, durable=durable), methods.QueueDeclareOk)
                here, there = await nodes.ask("a", "status"), await nodes.ask("b", "status")
                assert (here["node"], here["role"], here["leader"], here["connections"]) == ("a", "leader", "a", 1)
                assert here["listeners"] == nodes.nodes["a"].front.urls
                assert (there["node"], there["role"], there["leader"], there["relayed_connections"]) == (
                    "b",
                    "mirror",
                    "a",
                    1,
                )
                assert "connections" not in there
            rows = {row["name"]: row for row in await nodes.ask("a", "list_queues")}
            assert [(q["leader"], q["members"], q["in_sync"]) for q in (rows["kept"], rows["gone"])] == [
                ("a", ["a", "b", "c"], ["a", "b", "c"]),
                ("a", ["a"], ["a"]),
            ]
            for command in ("list_queues", "list_users", "export_definitions"):
                assert await refusal(nodes, "b", command) == (
                    "this node does not lead its cluster: give the command on node a"
                )
            seen = await nodes.until("a", lambda said: [r["lag"] for r in said["replicas"]] == [0, 0, 0])
            assert (seen["role"], seen["epoch"], seen["leader"]) == ("leader", 1, "a")
            said = await typed("cluster", "status", "--data-dir", str(tmp_path / "b"))
            assert said.output.splitlines()[:2] == [
                f"cluster {nodes.url}, epoch 1, led by a",
                f"this is b (mirror): its log ends at {seen['last']}",
            ]
            assert [line.split()[:5] for line in said.output.splitlines()[-3:]] == [
                ["a", "leader", "yes", "yes", "?"],
                ["b", "mirror", "yes", "yes", "?"],
                ["c", "mirror", "yes", "yes", "?"],
            ]
            said = await typed("cluster", "status", "--json", "--data-dir", str(tmp_path / "b"))
            assert json.loads(said.output)["node"] == "b"

    play(scene)


def test_leadership_is_handed_over_and_a_lost_node_forgotten(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster(etcd, tmp_path) as nodes:
            await nodes.leads("a", "b")
            assert await refusal(nodes, "b", "transfer_leadership") == (
                "this node does not lead: give the command on node a"
            )
            assert await refusal(nodes, "a", "transfer_leadership", node="d") == (
                "there is no node d; there are a, b, c"
            )
            said = await typed("cluster", "transfer", "c", "--data-dir", str(tmp_path / "a"))
            assert said.output == "c is to lead\n"
            await nodes.leads("c", "a", "b")
            assert await refusal(nodes, "a", "forget_cluster_node", node="c") == (
                "c leads; another must first ('rabbitish cluster transfer', or stop it)"
            )
            assert await refusal(nodes, "a", "forget_cluster_node", node="b") == (
                "b is running, or its lease in etcd has not ended yet: stop it first"
            )
            await nodes.kill("b")
            await nodes.until("c", lambda said: [row["live"] for row in said["replicas"]] == [True, False, True])
            said = await typed("cluster", "forget", "b", "--data-dir", str(tmp_path / "a"))
            assert (said.output, said.exit_code) == ("", 0)
            left = await nodes.until("c", lambda said: len(said["replicas"]) == 2)
            assert [row["node"] for row in left["replicas"]] == ["a", "c"]
            await nodes.start("b")  # which joins anew
            await nodes.whole(3, by="c")

    play(scene)


def test_the_node_leads_where_most_clients_are(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster(etcd, tmp_path) as nodes:
            await nodes.leads("a", "b", "c")
            rebalance = ["cluster", "rebalance", "--data-dir"]
            assert await refusal(nodes, "b", "rebalance_leadership") == (
                "this node does not lead: give the command on node a"
            )
            async with client_of(nodes.nodes["a"]), client_of(nodes.nodes["b"]) as first:
                said = await typed(*rebalance, str(tmp_path / "a"))
                assert said.output == "a leads, and no node that could has more clients: a 1, b 1, c 0\n"
                async with client_of(nodes.nodes["b"]) as second:
                    said = await typed(*rebalance, str(tmp_path / "a"))
                    assert said.output == "b is to lead, since it has more clients than a: a 1, b 2, c 0\n"
                    await nodes.leads("b", "a", "c")
                    for client in (first, second):  # which were brought to a, and go on
                        await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
                    async with client_of(nodes.nodes["c"]), client_of(nodes.nodes["c"]):
                        said = await typed(*rebalance, str(tmp_path / "b"))
                        assert said.output == "b leads, and no node that could has more clients: a 0, b 2, c 2\n"

    play(scene)


def test_a_node_that_was_left_out_while_it_runs_joins_again(
    etcd: EtcdCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def without_b(view: View | None) -> GroupState:
        assert view is not None
        return forget(view._replace(live=frozenset()), "b")

    async def scene() -> None:
        async with cluster(etcd, tmp_path) as nodes:
            await nodes.leads("a", "b", "c")
            a = nodes.nodes["a"]
            state = await change_state(a.etcd, a.names, JOURNAL, without_b, "test")
            assert [node_of(each) for each in state.replicas] == ["a", "c"]
            whole = [("a", True), ("c", True), ("b", True)]
            await nodes.until("a", lambda said: [(row["node"], row["in_sync"]) for row in said["replicas"]] == whole)
            assert [line.partition(" (")[0] for line in caplog.messages if "does not count on it" in line] == [
                "this node runs, and the cluster does not count on it"
            ]

    play(scene)


def test_a_leader_is_forced_where_none_is_left(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster(etcd, tmp_path, "ab") as nodes:
            force = ["cluster", "force-leader", "--cluster", nodes.url, "--node-name", "b"]
            force += ["--data-dir", str(tmp_path / "b")]
            said = await typed(*force)
            assert said.exit_code == 1 and said.output.endswith("another broker; stop that broker first\n")
            await nodes.kill("b")
            await nodes.whole(1)
            said = await typed(*force)
            assert said.output == "rabbitish: a is in sync and alive, and can lead: stop it first\n"
            await nodes.kill("a")
            said = await typed(*force)
            while "alive" in said.output:  # until its lease has ended
                await trio.sleep(0.1)
                said = await typed(*force)
            assert said.exit_code == 1
            assert "in sync is a, not this node" in said.output
            assert said.output.endswith("this may lose what was confirmed; give --yes to have this node lead\n")
            said = await typed(*force, "--yes")
            assert said.exit_code == 0 and "it leads when it is started; the cluster is b, " in said.output
            await nodes.start("b")
            await nodes.leads("b")
            await nodes.start("a")
            await nodes.whole(2, by="b")

    play(scene)


def test_a_leader_that_is_not_there_is_said_to_be_so(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster(etcd, tmp_path, "ab") as nodes:
            await nodes.kill("b")
            await nodes.whole(1)
            await nodes.kill("a")
            await nodes.start("b")  # which may not lead
            await nodes.until("b", lambda said: [row["live"] for row in said["replicas"]] == [False, True])
            said = (await typed("cluster", "status", "--data-dir", str(tmp_path / "b"))).output.splitlines()
            assert said[0].endswith(", led by a, which is not live")
            assert said[1].startswith("this is b (mirror, not connected to a leader): its log ends at ")

    play(scene)


def test_a_nodes_folder_is_not_taken_by_a_broker_of_its_own(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster(etcd, tmp_path, "ab") as nodes:
            before = {path.name for path in (tmp_path / "b").iterdir()} - {"control.sock"}
            serve = [sys.executable, "-m", "rabbitish", "serve", "--listen", "amqp://127.0.0.1:0"]
            serve += ["--log-level", "error", "--data-dir", str(tmp_path / "b")]
            said = await trio.run_process([*serve, "--cluster", nodes.url], check=False, capture_stderr=True)
            assert (said.returncode, said.stderr.decode()) == (
                1,
                f"rabbitish: {tmp_path}/b is in use by another broker; name another folder with --data-dir\n",
            )
            await nodes.kill("b")
            said = await trio.run_process(serve, check=False, capture_stderr=True)
            assert (said.returncode, said.stderr.decode()) == (
                1,
                f"rabbitish: {tmp_path}/b is the data directory of a node in a cluster: start it with --cluster\n",
            )
            assert {path.name for path in (tmp_path / "b").iterdir()} - {"control.sock"} == before
            await nodes.start("b")
            await nodes.whole(2)

    play(scene)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EtcdCluster]:
    yield from served(tmp_path)


def test_the_way_out_when_etcd_was_restored_from_a_backup(
    own: EtcdCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> bool:
        return ("ERROR", "cluster: etcd went back") in [(each.levelname, each.getMessage()) for each in caplog.records]

    async def scene(etcd: EtcdCluster) -> None:
        async with cluster(etcd, tmp_path, "ab") as nodes:
            await nodes.leads("a", "b")
            etcd.stop()
            etcd.back_up(tmp_path / "backup")
            etcd.start()
            await etcd.ready()
            a = nodes.nodes["a"]
            revision = await etcd.change(a.names.prefix + b"else", 50)

            def knows(node: Clustered) -> bool:
                view = node.part.replica.view
                return view is not None and view.at >= revision

            while not all(map(knows, nodes.nodes.values())):  # noqa: ASYNC110  (as below)
                await trio.sleep(0.02)
            await nodes.ask("a", "add_vhost", name="late")
            assert not told()
            etcd.stop()
            etcd.restore(tmp_path / "backup")
            etcd.start()
            while not told():  # noqa: ASYNC110  (what is waited for has no event)
                await trio.sleep(0.02)
            await nodes.ask("a", "add_vhost", name="later")
            await nodes.kill("b", "a")
            force = ["cluster", "force-leader", "--cluster", nodes.url, "--node-name", "a", "--yes"]
            force += ["--data-dir", str(tmp_path / "a")]
            said = await typed(*force)
            while "alive" in said.output:  # until the lease of the other has ended
                await trio.sleep(0.1)
                said = await typed(*force)
            assert said.exit_code == 0
            await nodes.start("a")
            await nodes.leads("a")
            await nodes.start("b")
            await nodes.whole(2)
            assert sorted(row["name"] for row in await nodes.ask("a", "list_vhosts")) == ["/", "late", "later"]

    play(partial(scene, own))


def test_where_there_is_nothing_to_force(tmp_path: Path) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["cluster", "force-leader", *arguments], env={"RABBITISH_CLUSTER": None})
        return result.exit_code, result.output

    here = ["--data-dir", str(tmp_path), "--cluster", "etcd://127.0.0.1:1"]
    assert said("--data-dir", str(tmp_path)) == (
        2,
        "rabbitish: which cluster is not said: --cluster, or RABBITISH_CLUSTER\n",
    )
    assert said("--cluster", "etcd://a") == (2, "rabbitish: --cluster: cluster needs a data_dir, one for each node\n")
    assert said(*here) == (1, f"rabbitish: {tmp_path} is no data directory of a node in a cluster\n")
    here[1] += "/none"
    assert said(*here) == (1, f"rabbitish: there is no data directory {tmp_path}/none\n")
