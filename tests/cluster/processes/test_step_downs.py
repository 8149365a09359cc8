"""A leader that is replaced in the middle of something that takes long: with RABBITISH_DRILL=1 and etcd."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio

from rabbitish.client import connect

from ..etcd_server import find_etcd
from .clients import WORK
from .nodes import Cluster, cluster
from .patience import until
from .test_disks import occupied, publish
from .test_mishaps import SETTINGS, TTL_SECONDS

pytestmark = pytest.mark.skipif(os.environ.get("RABBITISH_DRILL") != "1", reason="RABBITISH_DRILL=1 for clusters")
QUEUES = 12_000
ROUNDS = 4


@pytest.fixture(autouse=True)
def _etcd() -> None:
    find_etcd()


def definitions() -> str:
    """Of many queues, each with a binding, and a user."""
    queues = [{"name": f"q{number:05}", "vhost": "/", "durable": True, "arguments": {}} for number in range(QUEUES)]
    more = {"source": "amq.topic", "vhost": "/", "destination_type": "queue", "arguments": {}}
    bindings = [{**more, "destination": queue["name"], "routing_key": f"key.{queue['name']}"} for queue in queues]
    users = [{"name": "joe", "password": "secret", "tags": "monitoring"}]
    return json.dumps({"users": users, "queues": queues, "bindings": bindings})


def test_definitions_are_imported(tmp_path: Path) -> None:
    """Whoever imports is told that not all of it was made; the same again makes the rest."""

    async def main() -> None:
        (tmp_path / "all.json").write_text(definitions())
        settings: dict[str, object] = {"log_level": "info", "password_cost": 4}
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings=settings) as nodes:
            leader, (heir, other) = await nodes.leader(), await nodes.mirrors()
            words = ["import_definitions", str(tmp_path / "all.json")]
            size = occupied(nodes)[leader]
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def importing() -> None:
                    done = await nodes.asked(leader, *words)
                    assert done.returncode != 0 and b"another node leads" in done.stderr, done

                await until("it is under way", lambda: occupied(nodes)[leader] > size + 300_000)
                await nodes.depose(heir)
            await nodes.whole()
            assert await nodes.leader() == heir
            assert 0 < len(json.loads(await nodes.ctl(heir, "list_queues", "--json"))) < QUEUES
            await nodes.ctl(heir, *words)
            nodes.kill(heir)
            await nodes.in_sync(leader, other)
            second = await nodes.leader()
            await nodes.answers(second)
            queues = json.loads(await nodes.ctl(second, "list_queues", "--json"))
            bindings = json.loads(await nodes.ctl(second, "list_bindings", "--json"))
            assert len(queues) == len([each for each in bindings if each["source_name"]]) == QUEUES
            await nodes.start(heir)
            await nodes.whole()
            assert nodes.tracebacks() == []
            assert await nodes.unsound() == []

    trio.run(main)


async def purged(nodes: Cluster) -> None:
    """Many files go, and meanwhile the leader does."""
    leader, (heir, _) = await nodes.leader(), await nodes.mirrors()
    node = nodes.nodes[leader]
    async with connect(node.uri) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(WORK, durable=True)
        await publish(channel, WORK, 600)
        before = len(node.segments())
        await queue.purge()
        await until("files go", lambda: len(node.segments()) < before)
        await nodes.depose(heir)
    assert await nodes.other_leader(leader) == heir
    await nodes.whole()


def test_files_are_deleted(tmp_path: Path) -> None:
    """Its log is cut, and filled again, whatever of it was about to be deleted."""

    async def main() -> None:
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings=SETTINGS) as nodes:
            for _ in range(ROUNDS):
                await purged(nodes)
            await until("all have made room", lambda: max(occupied(nodes).values()) < 2_000_000, seconds=120)
            assert nodes.tracebacks() == []
            assert await nodes.unsound() == []

    trio.run(main)
