"""From what was measured to the section of docs/PERFORMANCE.md: each figure beside what it was meant to be.

The results are in one JSON file, an entry for each figure with the day it was measured. The section stands between
`<!-- cluster -->` and `<!-- end -->`; without those nothing is written, and the section is only printed.
"""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.outside import REPOSITORY

RESULTS = REPOSITORY / "docs/performance/cluster.json"
PAGE = REPOSITORY / "docs/PERFORMANCE.md"


def keep(name: str, found: dict[str, Any], file: Path = RESULTS) -> None:
    """Enter a result in place of the last one."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    kept[name] = {"when": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "found": found}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def section(file: Path = RESULTS) -> str:
    """The table."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    rows = [row for name, entry in kept.items() for row in _ROWS.get(name, _nothing)(entry["found"])]
    days = sorted({entry["when"] for entry in kept.values()})
    lines = ["| what | measured | aim |", "| --- | ---: | ---: |", *(f"| {row} |" for row in rows)]
    return "\n".join([*lines, "", f"Measured {days[-1]}, Python {platform.python_version()}."])


def write(file: Path = RESULTS, page: Path = PAGE) -> bool:
    """Put it into the page; False: the page has no place for it."""
    text = page.read_text(encoding="utf-8")
    said = section(file)
    new, count = re.subn(
        r"(<!-- cluster -->\n).*?(<!-- end -->)", lambda found: f"{found[1]}{said}\n{found[2]}", text, flags=re.DOTALL
    )
    if count:
        page.write_text(new, encoding="utf-8")
    return bool(count)


def _nothing(_: dict[str, Any]) -> Iterator[str]:
    yield from ()


def _spread(found: dict[str, float]) -> str:
    return f"{found['p50']:.2f}, {found['p95']:.2f}, {found['max']:.2f}"


def _leader(what: str, aim: str) -> Any:
    def rows(found: dict[str, Any]) -> Iterator[str]:
        first = found["first_confirm_s"]
        yield f"{what}: s to the first confirm (median, p95, most of {first['rounds']}) | {_spread(first)} | {aim}"

    return rows


def _mirror(what: str, aim: str) -> Any:
    def rows(found: dict[str, Any]) -> Iterator[str]:
        gap = found["gap_s"]
        yield f"{what}: s without a confirm (median, p95, most of {gap['rounds']}) | {_spread(gap)} | {aim}"

    return rows


def _etcd(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"etcd gone for {found['seconds']:.0f} s: failed publishes, of {found['confirmed_meanwhile']:,} "
        f"| {found['failed']} | 0"
    )
    yield f"longest time without a confirm meanwhile, s | {found['gap_s']:.2f} | -"


def _resync(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"a mirror with {found['journal_mb']:,} MB comes back, {found['missing_mb']} MB are new: s until it is in sync "
        f"| {found['seconds']:.1f} | 5"
    )
    yield f"MB that it is sent | {found['resent_mb']} | {found['missing_mb']}"


def _cost(found: dict[str, Any]) -> Iterator[str]:
    rates = found["work_queue_rate"]
    for key, what in (("confirm_us", "acknowledged at once"), ("stored_us", "no consumers")):
        if key in found:
            micros = found[key]
            yield f"µs for a publish and its confirm, one at a time, {what}: a single node | {micros['single']:,} | -"
            for where in ("leader", "mirror"):
                ratio = micros[where] / micros["single"]
                yield f"with two mirrors, at the {where} | {micros[where]:,} ({ratio:.1f}x) | 2x"
    yield f"`work-queue`, messages a second: a single node | {rates['single']:,} | -"
    for where in ("leader", "mirror"):
        yield f"with two mirrors, at the {where} | {rates[where]:,} | -"


def _throughput(found: dict[str, Any]) -> Iterator[str]:
    if "ratio" in found:
        yield (
            f"`work-queue` with two mirrors, by RabbitMQ's quorum queue on three nodes "
            f"| {found['rabbitish']:,} by {found['rabbitmq']:,}: {found['ratio']:.2f}x | 1x"
        )


_ROWS = {
    "leader_killed": _leader("leader killed", "p95 1, most 2"),
    "leader_killed_with_200_000": _leader("leader killed, 200,000 messages in the journal", "-"),
    "leader_killed_with_1_000_000": _leader("leader killed, 1,000,000 messages in the journal", "-"),
    "leader_frozen": _leader("leader frozen", "6.5"),
    "leader_cut_off": _leader("leader cut off", "6.5"),
    "hand_over": _leader("leader stopped (SIGTERM)", "0.3"),
    "mirror_killed": _mirror("mirror killed", "0.2"),
    "mirror_frozen": _mirror("mirror frozen", "3.2"),
    "etcd_down": _etcd,
    "resync": _resync,
    "cost": _cost,
    "throughput": _throughput,
}
