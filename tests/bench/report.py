"""From the results of measurements to charts and to the tables in docs/PERFORMANCE.md.

Everything between `<!-- NAME -->` and `<!-- end -->` there is written by this; the rest is somebody's words and stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import charts, growth, stretches
from .outside import REPOSITORY
from .table import PROFILES, ratio

PAGE = REPOSITORY / "docs/PERFORMANCE.md"
CHARTS = {
    "growth-queues": ("Cost by the number of queues", ("idle-queues", "busy-queues", "fanout-queues")),
    "growth-bindings": ("Cost by the number of bindings", ("direct", "topic", "headers", "fanout")),
    "growth-messages": ("Cost by the number of messages", ("ready", "ready-journal", "unacked", "unacked-newest")),
    "growth-consumers": ("Cost by the number of consumers", ("consumers", "waiting-consumers")),
}


def write(folder: Path) -> None:
    """Charts into `folder`, and the tables of what is there into docs/PERFORMANCE.md, if that is where it belongs."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    for name, tell in TABLES.items():
        source = folder / f"{name}.json"
        if not source.exists():
            continue
        kept = json.loads(source.read_text(encoding="utf-8"))
        said = f"{tell(kept['found'], folder)}\n\nMeasured {kept['when']}, Python {kept['python']}."
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, said=said: f"{found[1]}{said}\n{found[2]}",
            page,
            flags=re.DOTALL,  # type: ignore[misc]
        )
    if page and folder.resolve() == PAGE.parent / "performance":
        PAGE.write_text(page, encoding="utf-8")


def _lines(head: str, rows: list[str]) -> str:
    cells = head.split(" | ")
    line = "| " + " | ".join(["---", *["---:"] * (len(cells) - 1)]) + " |"
    return "\n".join([f"| {head} |", line, *[f"| {row} |" for row in rows]])


def _table(found: dict[str, Any], folder: Path) -> str:
    rows, drawn = [], []
    for name, sides in found["rows"].items():
        mine, theirs = sides["ours"], sides["rabbitmq"]
        better = ratio(PROFILES[name].figure, mine, theirs) if theirs else None
        shown = f"{better:.2f}x" if better else "-"
        rows.append(f"`{name}` | {PROFILES[name].what} | {mine:,.0f} | {theirs or 0:,.0f} | {shown}")
        if better:
            drawn.append((name, better, shown))
    if drawn:
        (folder / "table.svg").write_text(charts.bars("rabbitish by RabbitMQ", drawn, mark=1.0), encoding="utf-8")
        drawing = "\n\n![rabbitish by RabbitMQ](performance/table.svg)"
    else:
        drawing = ""
    return _lines("profile | what | rabbitish | RabbitMQ 3.10 | ratio", rows) + drawing


def _growth(found: dict[str, Any], folder: Path) -> str:
    for file, (title, names) in CHARTS.items():
        lines = [(growth.AXES[name].title, found[name]) for name in names if name in found]
        if lines:
            chart = charts.curves(title, lines, unit="microseconds a message")
            (folder / f"{file}.svg").write_text(chart, encoding="utf-8")
    rows = []
    for name, points in found.items():
        first, last, worst = points[0], points[-1], max(cost for _, cost in points)
        rows.append(
            f"{growth.AXES[name].title} | {first[0]:,} to {last[0]:,} | {first[1]:.2f} | {last[1]:.2f} "
            f"| {worst / first[1] - 1:+.0%}"
        )
    return _lines("what grows | from, to | µs at the first | µs at the last | worst", rows)


def _stretches(found: list[dict[str, Any]], folder: Path) -> str:
    both: dict[str, dict[bool, stretches.Held]] = {}
    for each in found:
        held = stretches.Held(**each)
        both.setdefault(held.operation, {})[held.journal] = held
    rows = [
        f"{name} | {held[False].messages:,} | {held[False].longest_ms:.1f} | {held[True].longest_ms:.1f} "
        f"| {held[True].total_ms:,.0f}"
        for name, held in both.items()
    ]
    return _lines("operation | messages | longest ms | with the journal | all of it, with the journal", rows)


def _tail(found: dict[str, Any], folder: Path) -> str:
    rows = [f"{name} | {micros / 1000:.2f}" for name, micros in found["latency_us"].items()]
    head = f"at {found['rate']:,}/s for {found['seconds']:.0f} s | ms"
    return _lines(head, [*rows, f"share of a core | {found['busy']:.0%}"])


def _fairness(found: dict[str, Any], folder: Path) -> str:
    flood, slow = found["flood"], found["slow"]
    memory = flood["resident_kib"]
    half = len(memory) // 2
    first, second = (max(part, default=0) / 1024 for part in (memory[:half], memory[half:]))
    one, other = found["shares"]
    rows = [
        f"three publishers flood one consumer for {flood['seconds']:.0f} s: consumed of what was published "
        f"| {flood['consumed'] / flood['published']:.1%}",
        f"memory at most, first half and second half | {first:,.0f} and {second:,.0f} MiB",
        f"two publishers with a queue each: the lesser share | {min(one, other) / (one + other):.1%}",
        f"a flood beside a consumer that never reads, by one without | {slow['with'] / slow['without']:.1%}",
    ]
    return _lines("what | measured", rows)


def _footprint(found: dict[str, Any], folder: Path) -> str:
    rows = [
        f"idle, resident | {found['idle_kib'] / 1024:.1f} MiB",
        f"from the command to the first answer | {found['start_seconds']:.2f} s",
        f"an idle connection, of 1,000 | {found['connection_kib']:.1f} KiB",
        f"with a channel, a queue and a consumer | {found['connection_with_consumer_kib']:.1f} KiB",
        f"connections held at once | {found['connections_held']:,.0f}",
        f"one of these | {found['connections_kib']:.1f} KiB",
    ]
    return _lines("what | measured", rows)


def _clients(found: dict[str, list[tuple[str, str, float]]], folder: Path) -> str:
    rates = {(what, library): [rate] for what, library, rate in found["rabbitish"]}
    for what, library, rate in found.get("RabbitMQ", []):
        rates[what, library].append(rate)
    rows = [
        f"{what} | {library} | " + " | ".join(f"{rate:,.0f}" for rate in (*both, 0)[:2])
        for (what, library), both in rates.items()
    ]
    return _lines("what | library | on rabbitish, a second | on RabbitMQ", rows)


TABLES: dict[str, Callable[[Any, Path], str]] = {
    "table": _table,
    "growth": _growth,
    "stretches": _stretches,
    "tail": _tail,
    "fairness": _fairness,
    "footprint": _footprint,
    "clients": _clients,
}
