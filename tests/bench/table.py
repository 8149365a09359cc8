"""Side by side with RabbitMQ: rates and latencies of both brokers over profiles of use, in turns on the same machine.

Rates: higher is better, the ratio is ours by theirs. Latencies: lower is better, the ratio is theirs by ours. So
above 1 is always good for us. Rounds alternate, so that a drift of the machine meets both; medians count.
"""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from .outside import Unavailable, load, ours, rabbitmq


class Profile(NamedTuple):
    """A way of use."""

    what: str
    options: str  # of amqpload
    figure: str


_LATENCY = "-s 256 -p -c 1000 -b 1 -P 500 -a 10 -r 5000"
_BACKLOG = "-s 1024 -p -c 1000 -P 1000 -a 200 -C 300000 --drain"
_TOPIC = "-s 256 -e load.top --type topic --binding k.# -k k.a.b -K 10000 -c 1000 -P 500 -a 100"
_PRIORITY = "-s 256 --priority 10 -K 10 -e load.pri --type topic --binding # -k p -c 1000 -P 500 -a 100"
_FANOUT = "-s 256 -e load.fan --type fanout -Q 10 -y 10 -P 500 -a 100 -p -c 200"
_WORK = "-s 1024 -p -c 500 -P 200 -a 50"
PROFILES = {
    "flood-16B": Profile("transient, no confirms, automatic ack, 16 bytes", "-s 16", "consume_rate"),
    "flood-1K": Profile("the same with 1 KiB", "-s 1024", "consume_rate"),
    "work-queue": Profile("durable, persistent 1 KiB, 500 confirms outstanding, prefetch 200", _WORK, "consume_rate"),
    "work-2x2": Profile("the same from 2 publishers to 2 consumers", f"{_WORK} -x 2 -y 2", "consume_rate"),
    "fair-dispatch": Profile("8 consumers, prefetch 1, ack each", "-s 256 -p -c 200 -P 1 -a 1 -y 8", "consume_rate"),
    "sync": Profile("one at a time: publish, wait for its confirm", "-s 256 -p -c 1 -b 1 -P 1 -a 1", "confirm_rate"),
    "fanout-10": Profile("one publisher to 10 durable queues", _FANOUT, "consume_rate"),
    "topic-10k": Profile("10,000 routing keys in turn, a topic exchange", _TOPIC, "consume_rate"),
    "priority": Profile("x-max-priority 10, priorities in turn", _PRIORITY, "consume_rate"),
    "backlog-in": Profile("300,000 persistent of 1 KiB, confirmed, nobody consumes", _BACKLOG, "publish_rate"),
    "backlog-out": Profile("then they are consumed", _BACKLOG, "consume_rate"),
    "latency-p50": Profile("5,000/s, publish to delivery, microseconds", _LATENCY, "p50"),
    "latency-p99": Profile("the same", _LATENCY, "p99"),
    "large-1M": Profile("1 MiB, confirmed", "-s 1048576 -p -c 16 -b 1 -P 16 -a 4", "consume_rate"),
    "many-conns": Profile(
        "100 publishers, 100 consumers, 100 queues", "-s 256 -p -c 50 -P 50 -a 10 -x 100 -y 100 -Q 100", "consume_rate"
    ),
}


def figure(result: dict[str, Any], name: str) -> float:
    """One of amqpload's figures."""
    return float(result["latency_us"][name] if name in ("p50", "p99") else result[name])


def ratio(name: str, mine: float, theirs: float) -> float:
    """How much better we are."""
    return theirs / mine if name in ("p50", "p99") else mine / theirs


def run(*, rounds: int = 3, seconds: float = 4, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Medians of both brokers by profile; without RabbitMQ only ours."""
    names = only or tuple(PROFILES)
    options = list(dict.fromkeys(PROFILES[name].options for name in names))
    results: dict[str, list[list[dict[str, Any]]]] = {each: [[], []] for each in options}
    with ours() as mine:
        try:
            with rabbitmq() as theirs:
                _measure(results, (mine.port, theirs.port), rounds, seconds)
        except Unavailable as missing:
            print(missing)
            _measure(results, (mine.port,), rounds, seconds)
    rows: dict[str, Any] = {}
    for name in names:
        profile = PROFILES[name]
        found = [
            statistics.median(figure(result, profile.figure) for result in side) if side else None
            for side in results[profile.options]
        ]
        rows[name] = {"ours": found[0], "rabbitmq": found[1]}
    return {"rounds": rounds, "seconds": seconds, "rows": rows}


def _measure(
    results: dict[str, list[list[dict[str, Any]]]], ports: tuple[int, ...], rounds: int, seconds: float
) -> None:
    for number, (options, sides) in enumerate(results.items()):
        for turn in range(rounds):
            for port, side in zip(ports, sides, strict=False):
                side.append(load(port, f"-q load-{number}-{turn} {options}", seconds=seconds))
        print(options, [[round(result["consume_rate"]) for result in side] for side in sides], flush=True)
