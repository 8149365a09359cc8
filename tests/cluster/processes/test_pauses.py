"""Clients of nodes that live keep their connections whatever happens to the leader: with RABBITISH_DRILL=1 and etcd."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from ..etcd_server import find_etcd
from .clients import Load
from .ledger import Ledger
from .nodes import Cluster, cluster
from .steady import go_on, steady
from .test_mishaps import SETTINGS, TTL_SECONDS

pytestmark = pytest.mark.skipif(os.environ.get("RABBITISH_DRILL") != "1", reason="RABBITISH_DRILL=1 for clusters")


@pytest.fixture(autouse=True)
def _etcd() -> None:
    find_etcd()


async def killed(nodes: Cluster, leader: str) -> None:
    """kill -9."""
    nodes.kill(leader)


async def stopped(nodes: Cluster, leader: str) -> None:
    """SIGTERM."""
    await nodes.stop(leader)


async def transferred(nodes: Cluster, leader: str) -> None:
    """An operator's command, and back again: the client's own node leads in between."""
    mirror, other = await nodes.mirrors()
    for source, heir in ((leader, mirror), (mirror, other)):
        await nodes.ctl(source, "cluster", "transfer", heir)
        assert await nodes.other_leader(source) == heir
        await nodes.in_sync()


async def rebalanced(nodes: Cluster, leader: str) -> None:
    """An operator's command, which has one of the nodes lead that have a client."""
    said = await nodes.ctl(leader, "cluster", "rebalance")
    heir = await nodes.other_leader(leader)
    counts = ", ".join(f"{name} {int(name != leader)}" for name in nodes.names)
    assert said == f"{heir} is to lead, since it has more clients than {leader}: {counts}\n"
    await nodes.in_sync()


async def frozen(nodes: Cluster, leader: str) -> None:
    """SIGSTOP."""
    nodes.nodes[leader].freeze()
    await nodes.other_leader(leader)


@pytest.mark.parametrize(
    "happen", [killed, stopped, transferred, rebalanced, frozen], ids=lambda happen: happen.__name__
)
def test_clients_of_mirrors_are_not_disconnected(
    tmp_path: Path, happen: Callable[[Cluster, str], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings=SETTINGS) as nodes:
            load = Load(Ledger(), nodes.uris)
            await load.declare()
            leader = await nodes.leader()
            mirrors = {name: nodes.nodes[name].uri for name in nodes.names if name != leader}
            async with steady(mirrors, load.ledger) as clients:
                await happen(nodes, leader)
                await go_on(clients)
                nodes.mend()
            await load.insist(load.empty)
            verdict = load.ledger.verdict()
            assert verdict.valid, verdict
            assert not load.ledger.refused
            assert nodes.tracebacks() == []
            print(happen.__name__, [round(client.longest, 2) for client in clients])

    trio.run(main)
