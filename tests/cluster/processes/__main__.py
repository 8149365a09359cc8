"""Long runs with clusters of real processes, by hand: see the package, and `--help`.

    python -m tests.cluster.processes drill --rounds 3          every mishap in turn, each in a cluster of its own
    python -m tests.cluster.processes soak --seconds 600        mishaps drawn by a seed, in one cluster
    python -m tests.cluster.processes matrix --only "halves 10" partitions
    python -m tests.cluster.processes matrix --network namespaces
    python -m tests.cluster.processes figures --only leader_killed,hand_over
    python -m tests.cluster.processes report                    what the figures say, into docs/PERFORMANCE.md

Each run prints a line of JSON; the last line says how many there were and how many kept all promises. The exit code is
1 if one did not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import figures, matrix, namespaces, report
from .mishaps import possible


def _drill(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    names = options.only.split(",") if options.only else possible(options.network)
    for turn in range(options.rounds):
        for name in names:
            seed = options.seed + turn
            yield matrix.soak(network=options.network, seconds=0.01, seed=seed, only=(name,), keep=options.keep)


def _soak(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    only = tuple(options.only.split(",")) if options.only else ()
    for turn in range(options.rounds):
        seconds, seed = options.seconds or 300, options.seed + turn
        yield matrix.soak(network=options.network, seconds=seconds, seed=seed, only=only, keep=options.keep)


def _matrix(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    part, _, parts = options.part.partition("/")
    for turn in range(options.rounds):
        for number, run in enumerate(matrix.runs(options.only)):
            if number % int(parts) == int(part) - 1:
                size = max(options.nodes, 5) if run.shape == "majorities-ring" else options.nodes
                seconds, seed = options.seconds or 60, options.seed + turn
                yield matrix.play(
                    run, network=options.network, size=size, seconds=seconds, seed=seed, keep=options.keep
                )


def _figures(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in options.only.split(",") if options.only else figures.FIGURES:
        found = figures.FIGURES[name](options.rounds, options.seconds or 4)
        report.keep(name, found, options.out)
        yield {"figure": name, "valid": not (found.get("lost") or found.get("unexpected")), **found}


COMMANDS = {"drill": _drill, "soak": _soak, "matrix": _matrix, "figures": _figures}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.processes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=[*COMMANDS, "report"])
    parser.add_argument("--rounds", type=int, help="1, of figures 20")
    parser.add_argument("--seconds", type=float, help="of a soak (300), of a run of the matrix (60), of a load (4)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="names of mishaps or figures, or words of the matrix")
    parser.add_argument("--part", default="1/1", metavar="N/M", help="the Nth of M slices of the matrix")
    parser.add_argument("--nodes", type=int, default=3, help="of the matrix; a ring has five at least")
    parser.add_argument("--network", choices=["relays", "namespaces"], default="relays", help="but of figures")
    parser.add_argument("--keep", type=Path, help="folder for the logs and data of all runs, instead of /tmp")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="file for figures")
    options = parser.parse_args()
    if options.command == "report":
        print(report.section(options.out))
        report.write(options.out)
        return
    if options.network == "namespaces" and (reason := namespaces.refused()):
        parser.error(reason)
    options.rounds = options.rounds or (20 if options.command == "figures" else 1)
    results = []
    for told in COMMANDS[options.command](options):
        print(json.dumps(told), flush=True)
        results.append(told)
    kept = sum(bool(told["valid"]) for told in results)
    confirmed = sum(told.get("confirmed", 0) for told in results)
    lost = sum(told.get("lost", 0) for told in results)
    invented = sum(told.get("unexpected", 0) for told in results)
    print(f"{len(results)} runs, {kept} kept all promises: {confirmed:,} confirmed, {lost} lost, {invented} invented")
    raise SystemExit(kept != len(results))


if __name__ == "__main__":
    main()
