"""Nodes of a cluster in this very program, with a real etcd: who leads comes and goes, and what was confirmed stays."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from rabbitish.cluster.etcd import Etcd
from rabbitish.cluster.membership import Names, NotThere, join_journal, now_ms
from rabbitish.config import Settings
from rabbitish.server.cluster_place import cluster_place
from rabbitish.server.clustered import Clustered
from rabbitish.server.joining import join
from rabbitish.server.keeper import JournalError
from rabbitish.server.listener import ListenError
from rabbitish.server.log import get_log
from rabbitish.server.node import Node
from rabbitish.store.record import Type
from rabbitish.wire import methods
from rabbitish.wire.frames import content_frames
from rabbitish.wire.properties import Properties
from tests.cluster.etcd_server import EtcdCluster, free_ports, served
from tests.server.test_cluster_commands import Refused, Trio, client_of, cluster, play


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    yield from served(tmp_path_factory.mktemp("etcd"))


async def confirmed(node: Clustered, body: bytes) -> None:
    """A message that must survive is in the queue."""
    async with client_of(node) as client:
        await client.ask(methods.QueueDeclare(queue="q", durable=True), methods.QueueDeclareOk)
        await client.ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)
        frames = methods.BasicPublish(routing_key="q").frame(1)
        await client.stream.send_all(frames + content_frames(1, 60, Properties(delivery_mode=2).encode(), body, 131072))
        await client.expect(methods.BasicAck)


async def count(node: Clustered) -> int:
    async with client_of(node) as client:
        said = await client.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)
        return said.message_count


def serving(node: Clustered) -> Node:
    assert node.front.node is not None
    return node.front.node


async def stop(nodes: Trio, name: str) -> None:
    node = nodes.nodes.pop(name)
    node.stopping.set()
    await nodes._ended[name].wait()


class Slow:
    """A compaction that waits for what the journal never reaches."""

    bytes = 0
    lsn = 1 << 60
    installed = False

    def __init__(self) -> None:
        self.written = trio.Event()

    def write(self, breathe: Callable[[], None]) -> None:
        trio.from_thread.run_sync(self.written.set)

    def install(self) -> None:
        self.installed = True


def test_what_was_confirmed_through_a_mirror_is_there_on_the_next_leader(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster(etcd, tmp_path) as nodes:
            await nodes.leads("a", "b", "c")
            await confirmed(nodes.nodes["b"], b"one")
            await stop(nodes, "a")
            heir = (await nodes.until("b", lambda said: said["leader"] in ("b", "c")))["leader"]
            await nodes.leads(heir, "b", "c")
            for name in "bc":
                assert await count(nodes.nodes[name]) == 1

    play(scene)


def test_a_takeover_reads_what_was_not_read_before(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        async with cluster(etcd, tmp_path, "ab", journal_segment_bytes=64 * 1024) as nodes:
            await nodes.leads("a", "b")
            for _ in range(8):
                await confirmed(nodes.nodes["a"], b"." * 30_000)
            await nodes.whole(2, by="a")
            standby = nodes.nodes["b"]._standby
            while not standby._ahead.scanner.segments:  # what is committed is heard of with what follows
                await confirmed(nodes.nodes["a"], b"one more")
                await standby.look()
            await stop(nodes, "a")
            await nodes.leads("b")
            keeper = serving(nodes.nodes["b"]).keeper
            assert keeper is not None and 0 < keeper.recovered.ahead < len(keeper.journal.segments.all)
            assert await count(nodes.nodes["b"]) > 8

    play(scene)


def test_who_is_deposed_in_the_middle_of_everything_is_a_mirror_and_can_lead_again(
    etcd: EtcdCluster, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with cluster(etcd, tmp_path) as nodes:
            await nodes.leads("a", "b", "c")
            a, b = nodes.nodes["a"], nodes.nodes["b"]
            await confirmed(a, b"one")
            node, slow, said = serving(a), Slow(), list[str]()
            assert node.keeper is not None

            async def change() -> None:
                try:
                    await nodes.ask("a", "add_vhost", name="v")
                except Refused as refused:
                    said.append(str(refused))

            async with trio.open_nursery() as nursery:
                node.nursery.start_soon(node.keeper._rewrite, slow)
                await slow.written.wait()
                place, a.place = a.place, a.place._replace(min_in_sync=9)  # nothing is confirmed
                nursery.start_soon(change)
                while not node.registrar._one_at_a_time.locked():  # noqa: ASYNC110  (it has no event)
                    await trio.sleep(0.01)
                b.part.replica.take_over(now_ms())
            assert said and "not known" in said[0]
            await nodes.leads("b", "a", "c")
            assert a.front.node is None and not slow.installed
            a.place = place
            await nodes.whole(3, by="b")
            a.part.replica.take_over(now_ms())
            await nodes.leads("a", "b", "c")
            assert await count(a) == 1

    play(scene)


def test_who_was_in_doubt_serves_anew_in_the_same_epoch(etcd: EtcdCluster, tmp_path: Path) -> None:
    """And what still goes on of the broker before writes nothing behind its back."""

    async def scene() -> None:
        async with cluster(etcd, tmp_path, "a") as nodes:
            await nodes.leads("a")
            a = nodes.nodes["a"]
            await confirmed(a, b"one")
            before, replica = serving(a), a.part.replica
            epoch, sure = replica.log.epoch, replica.may_deliver
            replica.may_deliver = lambda now: False  # type: ignore[method-assign]
            await nodes.until("a", lambda said: not said["serves"])
            replica.may_deliver = sure  # type: ignore[method-assign]
            await nodes.leads("a")
            assert serving(a) is not before and replica.log.epoch == epoch
            last = replica.log.last
            assert before.keeper is not None
            before.keeper.journal.append(Type.EPOCH)
            before.keeper.kick(more=False)
            before.pump(before.now())
            assert replica.log.last == last
            assert await count(a) == 1
            await confirmed(a, b"two")
            assert await count(a) == 2

    play(scene)


def settings(url: str, folder: Path, **more: object) -> Settings:
    return Settings(
        listen=("amqp://127.0.0.1:0",),
        cluster=url,
        node_name="a",
        cluster_listen="127.0.0.1:0",
        cluster_ttl_s=2,
        data_dir=str(folder),
        password_cost=4,
        **more,
    )


def test_who_waits_for_etcd_takes_clients_in_and_stops_when_told_to(tmp_path: Path) -> None:
    async def scene() -> None:
        made = settings(f"etcd://127.0.0.1:{free_ports(1)[0]}/x", tmp_path / "a")
        node = Clustered(made, cluster_place(made), get_log())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, lambda urls: None)
            while not node.front.urls:  # noqa: ASYNC110  (it has no event)
                await trio.sleep(0.01)
            where = urlsplit(node.front.urls[0])
            stream = await trio.open_tcp_stream(where.hostname or "", where.port or 0)
            while not node.front.relays:  # noqa: ASYNC110
                await trio.sleep(0.01)
            node.stopping.set()
            async with stream:
                with suppress(trio.BrokenResourceError):
                    assert await stream.receive_some() == b""
        await node.etcd.aclose()

    play(scene)


def test_a_leader_with_too_few_in_sync_stops_when_told_to(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        made = settings(f"etcd://127.0.0.1:{etcd.members[0].port}/few", tmp_path / "a", cluster_min_in_sync=2)
        node = Clustered(made, cluster_place(made), get_log())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, lambda urls: None)
            while not hasattr(node, "part") or node.part.lead is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            node.stopping.set()
        await node.etcd.aclose()

    play(scene)


def test_who_cannot_be_reached_by_other_nodes_is_not_counted_on(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            mine = replace(settings(f"etcd://127.0.0.1:{etcd.members[0].port}/taken", tmp_path), cluster_listen=where)
            node = Clustered(mine, cluster_place(mine), get_log())
            with pytest.raises(ExceptionGroup) as refused:
                await node.run(lambda urls: None)
            assert refused.group_contains(ListenError, match="in use")
            assert not (await node.etcd.range(node.names.prefix, prefix=True)).kvs
            await node.etcd.aclose()

    play(scene)


def test_who_has_a_part_of_another_journal_or_anothers_name_is_refused(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def scene() -> None:
        client = Etcd(etcd.endpoints)
        names = Names("refusing")
        await join_journal(client, names, "main", "a#1", empty=True)
        with pytest.raises(NotThere, match="is in epoch 0, and the data directory has seen epoch 3"):
            await join_journal(client, names, "main", "b#2", empty=False, epoch=3)
        with pytest.raises(NotThere, match="that of node a"):
            await join_journal(client, names, "main", "b#1", empty=False)
        await client.aclose()
        async with cluster(etcd, tmp_path, "a") as nodes:
            await nodes.leads("a")
            a = nodes.nodes["a"]

            class Other:
                storage, last, epoch = "another", 0, 0

            with pytest.raises(JournalError, match="there is a node a already"):
                await join(a.etcd, a.names, a.place._replace(ttl_s=0), Other(), get_log())  # type: ignore[arg-type]

    play(scene)
