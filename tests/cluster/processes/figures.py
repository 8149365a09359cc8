"""How long a cluster pauses for what happens to it, and what it costs while nothing does; for docs/PERFORMANCE.md.

A pause is the longest time between two confirms, of all publishers together, around a mishap; and, where a leader goes,
the time from the mishap to the first confirm of something that was sent after it. Publishers are at all three nodes and
have one message in flight each. Nodes have the lease that they have by default. The machine should be idle.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.bench.outside import Unavailable, load, ours

from . import rabbitmq
from .clients import Load, at_work, confirms_again
from .ledger import Ledger
from .nodes import Cluster, cluster

_SETTINGS: dict[str, object] = {"log_level": "info"}
_CALM_SECONDS = 1.0
Happening = Callable[[Cluster], Awaitable[None]]


def spread(values: list[float]) -> dict[str, float | int]:
    """Median, 95th percentile and the most, of seconds."""
    ordered = sorted(values)
    return {
        "rounds": len(ordered),
        "p50": round(statistics.median(ordered), 3),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 3),
        "max": round(ordered[-1], 3),
    }


async def _rounds(
    happen: Happening,
    rounds: int,
    *,
    network: str = "loopback",
    leader_goes: bool = True,
    watch_seconds: float = 2.0,
    backlog: int = 0,
) -> dict[str, Any]:
    """The same mishap again and again in one cluster with clients at work, each time mended.

    `backlog`: so many messages of 1 KiB wait in another queue.
    """
    firsts: list[float] = []
    gaps: list[float] = []
    with tempfile.TemporaryDirectory(prefix="rabbitish-figures-") as folder:
        async with cluster(Path(folder), network=network, settings=_SETTINGS) as nodes:
            if backlog:
                fill = f"-q backlog --keep -y 0 -s 1024 -p -c 1000 -C {backlog}"
                port = nodes.nodes[await nodes.leader()].port
                await trio.to_thread.run_sync(partial(load, port, fill, seconds=300))
                await nodes.in_sync()
            work = Load(Ledger(), nodes.uris, streams=1, pause=0.005)
            async with at_work(work):
                for _ in range(rounds):
                    await confirms_again(work)
                    await trio.sleep(_CALM_SECONDS)
                    before = await nodes.leader()
                    began = trio.current_time()
                    await happen(nodes)
                    if leader_goes:
                        await nodes.other_leader(before)
                        firsts.append(await confirms_again(work, began))
                    else:
                        await confirms_again(work)
                        await trio.sleep(watch_seconds)
                    gaps.append(work.ledger.longest_gap(began - 0.5))
                    nodes.mend()
                    down = [name for name, node in nodes.nodes.items() if node.pid is None]
                    if down:
                        await nodes.start(*down)
                    await nodes.whole()
            verdict = work.ledger.verdict()
    found: dict[str, Any] = {"gap_s": spread(gaps), "lost": verdict.lost, "unexpected": verdict.unexpected}
    found |= {"confirmed": verdict.confirmed, "duplicates": verdict.duplicates, "refused": verdict.refused}
    return found | ({"first_confirm_s": spread(firsts)} if leader_goes else {})


async def _kill_leader(nodes: Cluster) -> None:
    nodes.kill(await nodes.leader())


async def _freeze_leader(nodes: Cluster) -> None:
    nodes.nodes[await nodes.leader()].freeze()


async def _cut_off_leader(nodes: Cluster) -> None:
    leader = await nodes.leader()
    nodes.network.isolate(leader, [name for name in nodes.names if name != leader])


async def _hand_over(nodes: Cluster) -> None:
    await nodes.stop(await nodes.leader())


async def _kill_mirror(nodes: Cluster) -> None:
    nodes.kill((await nodes.mirrors())[0])


async def _freeze_mirror(nodes: Cluster) -> None:
    nodes.nodes[(await nodes.mirrors())[0]].freeze()


# ---- etcd away


async def _etcd_down(seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rabbitish-figures-") as folder:
        async with cluster(Path(folder), settings=_SETTINGS) as nodes:
            work = Load(Ledger(), nodes.uris, streams=1, pause=0.005)
            async with at_work(work):
                await trio.sleep(_CALM_SECONDS)
                failures, confirmed, began = work.ledger.failures, work.ledger.confirmed, trio.current_time()
                nodes.etcd.stop()
                await trio.sleep(seconds)
                failed = work.ledger.failures - failures
                confirmed = work.ledger.confirmed - confirmed
                gap = work.ledger.longest_gap(began - 0.5)
                nodes.etcd.start()
                await nodes.etcd.ready()
                await nodes.whole()
            verdict = work.ledger.verdict()
    return {
        "seconds": seconds,
        "failed": failed,
        "confirmed_meanwhile": confirmed,
        "gap_s": round(gap, 3),
        "lost": verdict.lost,
        "unexpected": verdict.unexpected,
    }


# ---- a mirror comes back


async def _resync(megabytes: int) -> dict[str, Any]:
    size = 16_384
    with tempfile.TemporaryDirectory(prefix="rabbitish-figures-") as folder:
        async with cluster(Path(folder), network="relays", settings=_SETTINGS) as nodes:
            leader = await nodes.leader()
            fill = f"-q backlog --keep -y 0 -s {size} -p -c 500"

            async def publish(count: int) -> None:
                run = partial(load, nodes.nodes[leader].port, f"{fill} -C {count}", seconds=300)
                assert (await trio.to_thread.run_sync(run))["confirmed"] == count

            many = megabytes * 1_000_000 // size
            await publish(many)
            await nodes.in_sync()
            mirror = next(name for name in nodes.names if name != leader)
            await nodes.stop(mirror)
            await nodes.in_sync()
            await publish(max(1, many // 100))
            before = nodes.network.passed[(leader, mirror)]
            began = trio.current_time()
            await nodes.start(mirror)
            listening = trio.current_time() - began
            await nodes.in_sync(seconds=300)
            return {
                "journal_mb": round(sum(path.stat().st_size for path in nodes.nodes[leader].segments()) / 1e6),
                "missing_mb": round(max(1, many // 100) * size / 1e6, 1),
                "resent_mb": round((nodes.network.passed[(leader, mirror)] - before) / 1e6, 1),
                "seconds": round(trio.current_time() - began, 2),
                "of_these_until_it_listens": round(listening, 2),
            }


# ---- what mirrors cost

_LONE = "-s 256 -p -c 1 -b 1"  # one at a time
_SYNC = f"{_LONE} -P 1 -a 1"
_STORED = f"{_LONE} -y 0"
_WORK = "-s 1024 -p -c 500 -P 200 -a 50"
_QUORUM = "--queue-type quorum"


async def _measured(port: int, options: str, seconds: float) -> dict[str, Any]:
    name = f"-q load-{random.getrandbits(40)}"
    return await trio.to_thread.run_sync(partial(load, port, f"{name} {options}", seconds=seconds))


async def _cost(rounds: int, seconds: float) -> dict[str, Any]:
    """One message at a time, and a work queue: a single node, a cluster's leader, and a mirror, in turn.

    With a consumer that acknowledges at once mirrors need not be waited for; `stored` has none.
    """
    sync: dict[str, list[float]] = {"single": [], "leader": [], "mirror": []}
    stored: dict[str, list[float]] = {"single": [], "leader": [], "mirror": []}
    work: dict[str, list[float]] = {"single": [], "leader": [], "mirror": []}
    with tempfile.TemporaryDirectory(prefix="rabbitish-figures-") as folder, ours() as single:
        async with cluster(Path(folder), settings=_SETTINGS) as nodes:
            leader = await nodes.leader()
            mirror = next(name for name in nodes.names if name != leader)
            ports = {"single": single.port, "leader": nodes.nodes[leader].port, "mirror": nodes.nodes[mirror].port}
            for _ in range(rounds):
                for options, found in ((_SYNC, sync), (_STORED, stored)):
                    for where, port in ports.items():
                        found[where].append(1e6 / (await _measured(port, options, seconds))["confirm_rate"])
                for where, port in ports.items():
                    work[where].append((await _measured(port, _WORK, seconds))["consume_rate"])
            assert await nodes.leader() == leader, "the leader changed under load"
    return {
        "confirm_us": {where: round(statistics.median(each)) for where, each in sync.items()},
        "stored_us": {where: round(statistics.median(each)) for where, each in stored.items()},
        "work_queue_rate": {where: round(statistics.median(each)) for where, each in work.items()},
    }


async def _beside_rabbitmq(rounds: int, seconds: float, ports: list[int]) -> dict[str, Any]:
    ours_, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="rabbitish-figures-") as folder:
        async with cluster(Path(folder), settings=_SETTINGS) as nodes:
            leader = await nodes.leader()
            for _ in range(rounds):
                ours_.append(await _measured(nodes.nodes[leader].port, f"{_WORK} {_QUORUM}", seconds))
                theirs.append(await _measured(ports[0], f"{_WORK} {_QUORUM}", seconds))
    rates = [statistics.median(each["consume_rate"] for each in side) for side in (ours_, theirs)]
    return {"rabbitish": round(rates[0]), "rabbitmq": round(rates[1]), "ratio": round(rates[0] / rates[1], 2)}


# ---- by name


def _figure(happen: Happening, most: int = 10_000, **options: Any) -> Callable[[int, float], dict[str, Any]]:
    return lambda rounds, _: trio.run(partial(_rounds, happen, min(rounds, most), **options))


def _throughput(rounds: int, seconds: float) -> dict[str, Any]:
    try:
        with rabbitmq.three() as ports:
            return trio.run(_beside_rabbitmq, min(rounds, 5), seconds, ports)
    except Unavailable as missing:
        return {"left out": str(missing)}


FIGURES: dict[str, Callable[[int, float], dict[str, Any]]] = {
    "leader_killed": _figure(_kill_leader),
    "leader_killed_with_200_000": _figure(_kill_leader, 5, backlog=200_000),
    "leader_killed_with_1_000_000": _figure(_kill_leader, 3, backlog=1_000_000),
    "leader_frozen": _figure(_freeze_leader, 5),
    "leader_cut_off": _figure(_cut_off_leader, 5, network="relays"),
    "hand_over": _figure(_hand_over),
    "mirror_killed": _figure(_kill_mirror, leader_goes=False),
    "mirror_frozen": _figure(_freeze_mirror, 5, leader_goes=False, watch_seconds=5.0),
    "etcd_down": lambda _, seconds: trio.run(_etcd_down, 15 * seconds),
    "resync": lambda _, __: trio.run(_resync, 1_000),
    "cost": lambda rounds, seconds: trio.run(_cost, min(rounds, 5), seconds),
    "throughput": _throughput,
}
"""By name: what measures it, given rounds and the seconds of a load (a quarter of a minute of it is etcd's outage)."""
