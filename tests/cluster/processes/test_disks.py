"""What becomes of nodes' disks, on clusters of real processes: with RABBITISH_DRILL=1 and etcd."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from rabbitish.client import Channel, connect

from ..etcd_server import find_etcd
from .clients import WORK
from .nodes import Cluster, cluster
from .patience import until
from .test_mishaps import SETTINGS, TTL_SECONDS

pytestmark = pytest.mark.skipif(os.environ.get("RABBITISH_DRILL") != "1", reason="RABBITISH_DRILL=1 for clusters")

LARGE_BYTES = 20_000


@pytest.fixture(autouse=True)
def _etcd() -> None:
    find_etcd()


def occupied(nodes: Cluster) -> dict[str, int]:
    """Bytes of each node's log."""
    found = dict.fromkeys(nodes.nodes, 0)
    for name, node in nodes.nodes.items():
        for path in node.segments():
            with suppress(FileNotFoundError):  # it has gone meanwhile
                found[name] += path.stat().st_size
    return found


async def publish(channel: Channel, queue: str, count: int) -> None:
    """So many large messages, all confirmed."""
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(partial(channel.publish, b"%08d" % number + bytes(LARGE_BYTES), routing_key=queue))


def test_nobodys_folder_grows_with_what_has_come_and_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings=SETTINGS) as nodes:
            async with connect(nodes.uris[0]) as connection, connection.channel() as channel:
                await channel.declare_queue("old", durable=True)
                await channel.publish(b"kept", routing_key="old")
                queue = await channel.declare_queue(WORK, durable=True)
                async with queue.consume(prefetch=50) as messages:
                    for _ in range(20):
                        await publish(channel, WORK, 100)
                        for _ in range(100):
                            (await anext(messages)).ack()
                await until("all have made room", lambda: max(occupied(nodes).values()) < 2_000_000, seconds=120)
                got = await channel.queue("old").get()
                assert got is not None and got.body == b"kept"
            assert nodes.tracebacks() == []

    trio.run(main)


def test_who_alone_was_in_sync_and_is_damaged_says_what_to_do(tmp_path: Path) -> None:
    async def main() -> None:
        options = ["--cluster-min-in-sync", "1"]
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings=SETTINGS, options=options) as nodes:
            last = await nodes.leader()
            for name in await nodes.mirrors():
                nodes.kill(name)
                await nodes.in_sync()
            async with connect(nodes.nodes[last].uri) as connection, connection.channel() as channel:
                await channel.declare_queue(WORK, durable=True)
                await publish(channel, WORK, 20)
            nodes.kill(last)
            nodes.nodes[last].flip_a_bit(random.Random(1))
            await nodes.start()

            def told() -> bool:
                return all(f"came_back_without_their_disks={last} " in node.said() for node in nodes.nodes.values())

            await until("all tell that nobody may lead, and what to do", told)
            heir, other = sorted(set(nodes.names) - {last})
            assert "rabbitish cluster force-leader" in nodes.nodes[heir].said()
            for name in (last, heir):  # as they are told
                await nodes.stop(name)
            words = ["cluster", "force-leader", "--yes", "--node-name", heir]

            async def forced() -> bool:  # not before etcd takes the other for dead
                done = await nodes.asked(heir, *words, "--cluster", nodes.nodes[heir].option("--cluster"))
                return done.returncode == 0

            await until("a leader may be forced", forced)
            await nodes.start(heir)
            assert await nodes.leader() == heir
            await nodes.in_sync(heir, other)
            await nodes.start(last)
            await nodes.whole()
            assert nodes.tracebacks() == []

    trio.run(main)
