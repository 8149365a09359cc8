"""The client library beside others, on this broker and on RabbitMQ: tests/client/bench.py, run on each."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from .outside import REPOSITORY, Process, Unavailable, ours, rabbitmq


def run(*, rounds: int = 3) -> dict[str, Any]:
    """Rates by broker, operation and library."""
    with ours() as mine:
        found = {"rabbitish": _rates(mine, rounds)}
    try:
        with rabbitmq() as theirs:
            found["RabbitMQ"] = _rates(theirs, rounds)
    except Unavailable as missing:
        print(missing)
    return found


def _rates(broker: Process, rounds: int) -> list[tuple[str, str, float]]:
    uri = f"amqp://guest:guest@127.0.0.1:{broker.port}/"
    command = [sys.executable, "-m", "tests.client.bench", uri, "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(done.stderr)
    rates = []
    for line in done.stdout.splitlines():
        what, library, rate = line[:24].strip(), line[25:43].strip(), line[44:].split()[0]
        rates.append((what, library, float(rate.replace(",", ""))))
    return rates
