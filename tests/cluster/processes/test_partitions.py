"""Partitions in the kernel: each node in a network namespace of its own, with RABBITISH_DRILL=1, etcd, ip and root."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from ..etcd_server import find_etcd
from . import namespaces
from .clients import Load, at_work, confirms_again
from .ledger import Ledger
from .matrix import partition
from .mishaps import live_through
from .nodes import Cluster, cluster
from .relays import ETCD
from .test_mishaps import SETTINGS, TTL_SECONDS

pytestmark = pytest.mark.skipif(os.environ.get("RABBITISH_DRILL") != "1", reason="RABBITISH_DRILL=1 for clusters")


@pytest.fixture(autouse=True)
def _possible() -> None:
    find_etcd()
    if reason := namespaces.refused():
        if namespaces.find_ip() is None and os.environ.get("RABBITISH_REQUIRE_ALL") == "1":
            pytest.fail(f"{reason}, and RABBITISH_REQUIRE_ALL=1 lets nothing be missing")
        pytest.skip(reason)


def check(nodes: Cluster, load: Load) -> None:
    verdict = load.ledger.verdict()
    assert verdict.valid, verdict
    assert not verdict.refused, load.ledger.refused
    assert nodes.tracebacks() == []


@pytest.mark.parametrize(
    "name",
    ["leader_cut_off", "leader_hears_nothing", "mirror_hears_nothing_of_the_leader", "leader_unplugged"],
)
def test_cut(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with cluster(tmp_path, network="namespaces", ttl=TTL_SECONDS, settings=SETTINGS) as nodes:
            load = Load(Ledger(), nodes.uris, kind="mixed")
            async with at_work(load):
                await live_through(nodes, load, name)
            check(nodes, load)

    trio.run(main)


async def halves(nodes: Cluster) -> None:
    """The leader and another one here, three and etcd there."""
    leader, (mirror, *others) = await nodes.leader(), await nodes.mirrors()
    nodes.network.cut([leader, mirror], [*others, ETCD])
    await nodes.other_leader(leader)


async def ring(nodes: Cluster) -> None:
    """Each reaches two others, no two of them the same ones, and etcd."""
    partition(nodes, "majorities-ring", random.Random(1))


@pytest.mark.parametrize("cut", [halves, ring], ids=lambda cut: cut.__name__)
def test_five_in(tmp_path: Path, cut: Callable[[Cluster], Awaitable[None]]) -> None:
    """Three of five go on."""

    async def main() -> None:
        async with cluster(tmp_path, 5, network="namespaces", ttl=TTL_SECONDS, settings=SETTINGS) as nodes:
            load = Load(Ledger(), nodes.uris, pause=0.03)
            async with at_work(load):
                await cut(nodes)
                await confirms_again(load)
                nodes.mend()
                await nodes.whole()
                await confirms_again(load)
            check(nodes, load)

    trio.run(main)
