"""A short round of everything that goes wrong with a cluster of three processes: with RABBITISH_DRILL=1 and etcd.

Nodes have a short lease, so that a leader that is frozen or cut off is missed soon, and small segments, so that there
is more than one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pika
import pytest
import trio
from pika.exceptions import AMQPError

from rabbitish.client import connect, queue_arguments

from ..etcd_server import find_etcd
from .clients import WORK, Load, at_work, confirms_again
from .ledger import Ledger
from .mishaps import MISHAPS, live_through, possible
from .nodes import Cluster, cluster
from .patience import until

pytestmark = pytest.mark.skipif(os.environ.get("RABBITISH_DRILL") != "1", reason="RABBITISH_DRILL=1 for clusters")
SETTINGS: dict[str, object] = {"log_level": "info", "journal_segment_bytes": 65_536}
TTL_SECONDS = 2


@pytest.fixture(autouse=True)
def _etcd() -> None:
    find_etcd()


@pytest.mark.parametrize("name", possible("relays"))
def test_mishap(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        network = MISHAPS[name].networks[0]
        async with cluster(tmp_path, network=network, ttl=TTL_SECONDS, settings=SETTINGS) as nodes:
            ordered = len(name) % 2 == 0  # one consumer at a time, or several
            load = Load(
                Ledger(ordered=ordered), nodes.uris, kind="consume" if ordered else "mixed", single_active=ordered
            )
            async with at_work(load):
                await live_through(nodes, load, name)
            verdict = load.ledger.verdict()
            assert verdict.valid, verdict
            assert not verdict.refused, load.ledger.refused
            assert nodes.tracebacks() == []

    trio.run(main)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("of", ["leader", "mirror"])
def test_a_full_disk(tmp_path: Path, of: str) -> None:
    """Who cannot write goes, whatever it was, and the others go on."""

    async def main() -> None:
        settings = {**SETTINGS, "disk_free_limit_bytes": 0}
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings=settings, start=False) as nodes:
            for node in nodes.nodes.values():
                node.mount(16_000_000)
            await nodes.start()
            await nodes.whole()
            load = Load(Ledger(), nodes.uris, consumers=0)  # who would make room
            async with at_work(load):
                leader = await nodes.leader()
                full = leader if of == "leader" else (await nodes.mirrors())[0]
                filler = nodes.nodes[full].fill()
                await nodes.in_sync(*(name for name in nodes.names if name != full))
                await confirms_again(load)
                filler.unlink()
                nodes.kill(full)
                await nodes.start(full)
                await nodes.whole()
            verdict = load.ledger.verdict()
            assert verdict.valid, verdict

    trio.run(main)


async def declare(nodes: Cluster, through: str) -> None:
    """Something of everything, at a mirror's or a leader's port."""
    async with connect(nodes.nodes[through].uri) as connection, connection.channel() as channel:
        await channel.declare_exchange("events", "topic", durable=True)
        arguments = queue_arguments(max_length=10, overflow="reject-publish")
        queue = await channel.declare_queue("jobs", durable=True, arguments=arguments)
        await queue.bind("events", "#.done")
        await channel.publish(b"one", exchange="events", routing_key="a.done", mandatory=True)


async def operate(nodes: Cluster, leader: str) -> None:
    """Something of everything that operators say."""
    for words in (
        ["add_vhost", "team"],
        ["add_user", "joe", "secret"],
        ["set_permissions", "-p", "team", "joe", ".*", ".*", "^mine"],
        ["set_user_tags", "joe", "monitoring"],
        ["set_policy", "short", "^jobs", '{"message-ttl": 3600000}'],
    ):
        await nodes.ctl(leader, *words)


async def tell(nodes: Cluster, leader: str) -> list[str]:
    """What there is."""
    commands = (
        ["list_queues", "name", "durable", "auto_delete", "arguments", "messages", "policy"],
        ["list_exchanges", "--json"],
        ["list_bindings", "--json"],
        ["list_vhosts"],
        ["list_users"],
        ["list_permissions", "-p", "team"],
        ["list_policies"],
    )
    return [await nodes.ctl(leader, *words) for words in commands]


def same(now: list[str], before: list[str]) -> None:
    for one, other in zip(now, before, strict=True):
        assert one == other, f"{one}\n is not \n{other}"


def test_what_is_declared_survives_a_failover_and_a_restart_of_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings={**SETTINGS, "password_cost": 4}) as nodes:
            leader = await nodes.leader()
            await declare(nodes, (await nodes.mirrors())[0])
            await operate(nodes, leader)
            before = await tell(nodes, leader)
            nodes.kill(leader)
            second = await nodes.other_leader(leader)
            await nodes.answers(second)
            same(await tell(nodes, second), before)
            await nodes.start(leader)
            await nodes.whole()
            nodes.kill(*nodes.names)
            await nodes.start()
            await nodes.whole()
            third = await nodes.leader()
            same(await tell(nodes, third), before)
            for node in nodes.nodes.values():
                async with (
                    connect(f"amqp://joe:secret@127.0.0.1:{node.port}/team") as connection,
                    connection.channel(),
                ):
                    pass
            async with connect(nodes.nodes[leader].uri) as connection, connection.channel() as channel:
                got = await channel.queue("jobs").get()
                assert got is not None and (got.body, got.redelivered) == (b"one", True)  # for all the new leader knows
                got.ack()
            assert nodes.tracebacks() == []

    trio.run(main)


def test_a_leader_is_forced_when_all_others_lost_their_disks(tmp_path: Path) -> None:
    """With what it has, which is all that was confirmed before it fell behind."""

    async def main() -> None:
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings=SETTINGS) as nodes:
            load = Load(Ledger(), nodes.uris, consumers=0)
            async with at_work(load):
                load.stop_publishing()
                last, *_ = await nodes.mirrors()
                nodes.kill(last)
                await nodes.in_sync()
                for name in nodes.names:
                    if name != last:
                        nodes.kill(name)
                        nodes.nodes[name].wipe()
                url = nodes.nodes[last].option("--cluster")

                async def forced() -> bool:  # not before etcd takes the others for dead
                    words = ["cluster", "force-leader", "--yes", "--node-name", last, "--cluster", url]
                    return (await nodes.asked(last, *words)).returncode == 0

                await until("a leader may be forced", forced)
                await nodes.start(last)
                assert await nodes.leader() == last
                await nodes.start(*(name for name in nodes.names if name != last))
                await nodes.whole()
            verdict = load.ledger.verdict()
            assert verdict.valid and verdict.received, verdict
            assert nodes.tracebacks() == []

    trio.run(main)


class Pika:
    """Threads with pika's blocking client, which connect again to whoever answers."""

    def __init__(self, ports: list[int]) -> None:
        self.ledger = Ledger()
        self.stop = threading.Event()
        self._ports = ports
        self._lock = threading.Lock()

    def connection(self, chance: random.Random) -> pika.BlockingConnection:
        port = chance.choice(self._ports)
        return pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", port, heartbeat=2, socket_timeout=3, blocked_connection_timeout=3)
        )

    def publish(self, number: int) -> None:
        chance = random.Random(number)
        for turn in range(10_000):
            if self.stop.is_set():
                return
            try:
                channel = self.connection(chance).channel()
                channel.confirm_delivery()
                while not self.stop.is_set():
                    with self._lock:
                        message, body = self.ledger.attempt(f"p{number}.{turn}")
                    channel.basic_publish("", WORK, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
                    with self._lock:
                        self.ledger.confirm(message, time.monotonic())
                    time.sleep(0.005)
                channel.connection.close()
            except AMQPError:
                time.sleep(0.05)

    def consume(self, number: int) -> None:
        chance = random.Random(number)
        while not self.stop.is_set():
            try:
                channel = self.connection(chance).channel()
                channel.basic_qos(prefetch_count=10)
                for method, _, body in channel.consume(WORK, inactivity_timeout=0.2):
                    if method is not None:
                        with self._lock:
                            self.ledger.receive(body, redelivered=method.redelivered)
                        channel.basic_ack(method.delivery_tag)
                    if self.stop.is_set():
                        break
                channel.connection.close()
            except AMQPError:
                time.sleep(0.05)


async def confirmed_more(clients: Pika, count: int) -> None:
    wanted = clients.ledger.confirmed + count
    await until("pika's confirms come", lambda: clients.ledger.confirmed >= wanted)


def test_pika_through_a_kill_and_a_hand_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings=SETTINGS) as nodes:
            clients = Pika([node.port for node in nodes.nodes.values()])
            emptying = Load(clients.ledger, nodes.uris)
            await emptying.declare()
            threads = [
                threading.Thread(target=target, args=(number,), daemon=True)
                for number, target in enumerate((clients.publish, clients.publish, clients.consume, clients.consume))
            ]
            for thread in threads:
                thread.start()
            try:
                await confirmed_more(clients, 50)
                leader = await nodes.leader()
                nodes.kill(leader)
                await confirmed_more(clients, 50)
                await nodes.start(leader)
                await nodes.whole()
                leader = await nodes.leader()
                await nodes.stop(leader)
                await confirmed_more(clients, 50)
            finally:
                clients.stop.set()
                for thread in threads:
                    await trio.to_thread.run_sync(thread.join, 20)
            assert not any(thread.is_alive() for thread in threads)
            await emptying.insist(emptying.empty)
            verdict = clients.ledger.verdict()
            assert verdict.valid, verdict
            assert nodes.tracebacks() == []

    trio.run(main)
