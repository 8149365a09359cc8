"""The long run, as Jepsen did it with RabbitMQ: partitions of three shapes, short and long, for all kinds of consumers.

Each run is a cluster of its own with clients at work. The network is cut and healed in turn for some time; then all
nodes have to be in sync again, the queues are emptied, and the ledger says what it was worth. The same seed draws the
same partitions.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import trio

from .clients import KINDS, Load, at_work, confirms_again
from .ledger import Ledger
from .mishaps import live_through, possible
from .nodes import Cluster, cluster
from .relays import ETCD

SHAPES = ("random-node", "halves", "majorities-ring")
LENGTHS = (10.0, 30.0)
_HEALED_SECONDS = 8.0
_SETTINGS: dict[str, object] = {"log_level": "info", "journal_segment_bytes": 262_144}


class Run(NamedTuple):
    """One of the matrix."""

    shape: str
    cut_seconds: float
    kind: str
    dead_letter: bool

    @property
    def name(self) -> str:
        """As it is chosen on the command line."""
        letters = "dead-letter" if self.dead_letter else "plain"
        return f"{self.shape},{self.cut_seconds:.0f},{self.kind},{letters}"


def runs(only: str = "") -> Iterator[Run]:
    """All, or those whose name has each of these words, separated by spaces."""
    for each in itertools.starmap(Run, itertools.product(SHAPES, LENGTHS, KINDS, (False, True))):
        if all(word in each.name.split(",") for word in only.split()):
            yield each


def partition(nodes: Cluster, shape: str, chance: random.Random) -> str:
    """Cut the network; how. etcd is on the side of the majority, or of the others, or, one time in three, of both."""
    names = chance.sample(nodes.names, len(nodes.names))
    if shape == "majorities-ring":  # each reaches a majority, and no two of them the same one
        reach = len(names) // 4 or 1
        for at, name in enumerate(names):
            near = {names[(at + step) % len(names)] for step in range(-reach, reach + 1)}
            nodes.network.cut([name], [other for other in names if other not in near])
        return f"ring {' '.join(names)}"
    few = 1 if shape == "random-node" else (len(names) - 1) // 2
    sides = [names[few:], names[:few]]
    where = chance.randrange(3)
    for number, side in enumerate(sides):
        if where in (0, 1) and number != where:
            nodes.network.cut(side, [ETCD])
    nodes.network.cut(*sides)
    return f"{' '.join(sides[1])} | {' '.join(sides[0])}, etcd with {('the many', 'the few', 'both')[where]}"


async def _play(run: Run, folder: Path, network: str, size: int, seconds: float, seed: int) -> dict[str, Any]:
    chance = random.Random(f"{seed} {run.name}")
    async with cluster(folder, size, network=network, settings=_SETTINGS) as nodes:
        load = Load(Ledger(), nodes.uris, kind=run.kind, dead_letter=run.dead_letter, publishers=size, consumers=size)
        cuts = []
        began = trio.current_time()
        async with at_work(load):
            while not cuts or trio.current_time() - began < seconds:
                await trio.sleep(_HEALED_SECONDS)
                cuts.append(partition(nodes, run.shape, chance))
                await trio.sleep(run.cut_seconds)
                nodes.network.heal()
            healed = trio.current_time()
            await nodes.in_sync()
            whole = trio.current_time() - healed
            await confirms_again(load)
        state = await nodes.state()
        return await _told(load, nodes) | {
            "cuts": cuts,
            "epochs": state.epoch if state else None,
            "in_sync_after_s": round(whole, 1),
        }


async def _told(load: Load, nodes: Cluster) -> dict[str, Any]:
    verdict = load.ledger.verdict()
    tracebacks = nodes.tracebacks()
    unsound = await nodes.unsound()
    return {
        "valid": verdict.valid and not tracebacks and not unsound,
        **verdict._asdict(),
        "longest_gap_s": round(load.ledger.longest_gap(), 2),
        "troubles": dict(load.ledger.troubles.most_common(5)),
        "refusals": dict(load.ledger.refused.most_common(5)),
        "tracebacks": tracebacks,
        "unsound": unsound,
    }


def play(run: Run, *, network: str, size: int, seconds: float, seed: int, keep: Path | None = None) -> dict[str, Any]:
    """One run in one of WIRINGS; its counts. What went wrong is told as `error`, with the folder that has the logs."""
    folder = Path(tempfile.mkdtemp(prefix="rabbitish-matrix-", dir=keep))
    began = time.monotonic()
    told: dict[str, Any] = {"run": run.name, "network": network, "seed": seed, "nodes": size}
    try:
        told |= trio.run(_play, run, folder, network, size, seconds, seed)
    except Exception as error:  # noqa: BLE001 (one run that fails must not end the others)
        told |= {"valid": False, "error": _said(error)}
    told["seconds"] = round(time.monotonic() - began, 1)
    return told | {"folder": str(folder)}


def _said(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_said(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"


# ---- a soak: everything that can happen, one after the other


async def _soak(
    folder: Path, network: str, seconds: float, seed: int, only: tuple[str, ...], told: dict[str, Any]
) -> None:
    chance = random.Random(seed)
    async with cluster(folder, network=network, settings=_SETTINGS) as nodes:
        load = Load(Ledger(), nodes.uris, kind=chance.choice(KINDS), dead_letter=chance.random() < 0.5)
        began = trio.current_time()
        async with at_work(load):
            while trio.current_time() - began < seconds:
                name = chance.choice(only or possible(network))
                told["mishaps"].append(name)
                await live_through(nodes, load, name)
        told |= await _told(load, nodes)


def soak(
    *, network: str, seconds: float, seed: int, only: tuple[str, ...] = (), keep: Path | None = None
) -> dict[str, Any]:
    """A cluster in one of WIRINGS that lives through mishaps drawn by the seed; its counts, as `play` tells them."""
    folder = Path(tempfile.mkdtemp(prefix="rabbitish-soak-", dir=keep))
    began = time.monotonic()
    told: dict[str, Any] = {"run": "soak", "network": network, "seed": seed, "mishaps": []}
    try:
        trio.run(_soak, folder, network, seconds, seed, only, told)
    except Exception as error:  # noqa: BLE001 (as above)
        told |= {"valid": False, "error": _said(error)}
    told["seconds"] = round(time.monotonic() - began, 1)
    return told | {"folder": str(folder)}
