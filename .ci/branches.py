"""Fail unless the tests take enough of the branches: python .ci/branches.py COVERAGE_JSON PERCENT PACKAGE...

coverage's own fail_under mixes lines with branches and packages with each other; this asks it of each package by
itself, in branches.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(report: str, percent: str, *packages: str) -> int:
    files = json.loads(Path(report).read_text())["files"]
    short = 0
    for package in packages:
        of_package = {name: entry["summary"] for name, entry in files.items() if name.startswith(f"{package}/")}
        taken = sum(summary["covered_branches"] for summary in of_package.values())
        there = sum(summary["num_branches"] for summary in of_package.values())
        lines = sum(summary["covered_lines"] for summary in of_package.values())
        statements = sum(summary["num_statements"] for summary in of_package.values())
        enough = there > 0 and 100 * taken >= float(percent) * there
        short += not enough
        share = 100 * taken / there if there else 0.0
        verdict = "" if enough else f"  TOO FEW, {percent}% are asked for"
        print(f"{package}: {taken} of {there} branches ({share:.1f}%), {lines} of {statements} lines{verdict}")
        for name, summary in sorted(of_package.items()):
            if not enough and summary["missing_branches"]:
                print(f"  {name}: {summary['missing_branches']} missing")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
