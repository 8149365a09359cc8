"""Measure this broker, and write what docs/PERFORMANCE.md shows: `python -m tests.bench all --out docs/performance`.

Each measurement leaves a JSON file in the folder, and `report` makes the charts and docs/PERFORMANCE.md's tables from
what is there; each command but `report` does its measurement and then that. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import clients, growth, live, report, stretches, table
from .outside import REPOSITORY, Unavailable

Options = argparse.Namespace


def _table(options: Options) -> Any:
    only = tuple(options.only.split(",")) if options.only else ()
    return table.run(rounds=options.rounds, seconds=options.seconds or 4, only=only)


def _growth(options: Options) -> Any:
    before = options.out / "growth.json"
    found = json.loads(before.read_text())["found"] if options.only and before.exists() else {}
    for name in options.only.split(",") if options.only else growth.AXES:
        axis = growth.AXES[name]
        points = [(size, axis.measure(size)) for size in axis.sizes]
        found[name] = points
        print(f"{name:20}", *[f"{size:,}: {cost:.2f}" for size, cost in points], flush=True)
    return found


def _stretches(options: Options) -> Any:
    held = stretches.run(rounds=options.rounds)
    for each in held:
        print(f"{each.operation:42} {each.messages:9,} {'journal' if each.journal else '':8} {each.longest_ms:6.1f} ms")
    return [each._asdict() for each in held]


def _said(found: Any) -> Any:
    print(json.dumps(found, indent=1))
    return found


COMMANDS: dict[str, Callable[[Options], Any]] = {
    "table": _table,
    "growth": _growth,
    "stretches": _stretches,
    "tail": lambda options: _said(live.tail(seconds=options.seconds or 300)),
    "fairness": lambda options: _said(live.fairness(seconds=options.seconds or 30)),
    "footprint": lambda options: _said(live.footprint()),
    "clients": lambda options: _said(clients.run(rounds=options.rounds)),
}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=[*COMMANDS, "all", "report"])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs/performance", help="folder for the results")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median or the best counts")
    parser.add_argument("--seconds", type=float, help="how long a run takes, instead of what is usual")
    parser.add_argument("--only", help="profiles of the table or axes of growth, separated by commas")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = list(COMMANDS) if options.command == "all" else [options.command] if options.command in COMMANDS else []
    for name in names:
        print(f"== {name}", flush=True)
        try:
            found = COMMANDS[name](options)
        except Unavailable as missing:
            raise SystemExit(f"{name}: {missing}") from None
        kept = {"when": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "found": found}
        (options.out / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    report.write(options.out)


if __name__ == "__main__":
    main()
