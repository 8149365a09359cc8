"""What is said about a run: lines, a summary, an object."""

from __future__ import annotations

import json

import pytest

from rabbitish.perf.options import Options
from rabbitish.perf.report import Outcome, as_json, duration, progress_line, summary
from rabbitish.perf.stats import Stats


def stats() -> Stats:
    made = Stats(published=2000, confirmed=1990, nacked=10, returned=7, consumed=4000, consumed_bytes=48_000)
    for latency in (1, 2, 3):
        made.latency.record(latency * 1_000_000)
    made.confirm_latency.record(500_000)
    return made


ALL = {"size": 1000, "confirm": 5, "mandatory": True}


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 µs"),
        (1499, "1 µs"),
        (999_000, "999 µs"),
        (1_000_000, "1.00 ms"),
        (12_340_000, "12.3 ms"),
        (123_400_000, "123 ms"),
        (1_234_000_000, "1.23 s"),
        (123_000_000_000, "123 s"),
    ],
)
def test_durations(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("options", "blocked", "line"),
    [
        ({"producers": 2}, 0, "sent: 1,000 msg/s, received: 2,000 msg/s, {latency}, {confirm}"),
        ({"producers": 2}, 1, "sent: 1,000 msg/s, blocked: 1 of 2, received: 2,000 msg/s, {latency}, {confirm}"),
        (
            ALL,
            0,
            "sent: 1,000 msg/s, returned: 4 msg/s, confirmed: 995 msg/s, nacked: 5 msg/s, received: 2,000 msg/s, "
            "{latency}, {confirm}",
        ),
        ({"consumers": 0}, 0, "sent: 1,000 msg/s, {latency}, {confirm}"),
        ({"producers": 0}, 0, "received: 2,000 msg/s, {latency}, {confirm}"),
    ],
)
def test_progress(options: dict[str, object], blocked: int, line: str) -> None:
    latency = "latency p50/p95/p99/max: 2.02 ms / 3.00 ms / 3.00 ms / 3.00 ms"
    confirm = "confirm latency p50/p95/p99/max: 500 µs / 500 µs / 500 µs / 500 µs"
    text = progress_line(4.04, stats().turn(), 2.0, Options(**options), blocked)  # type: ignore[arg-type]
    assert text == f"time 4.0 s, {line.format(latency=latency, confirm=confirm)}"


def test_progress_of_nothing() -> None:
    text = progress_line(1.0, Stats().turn(), 1.0, Options(confirm=1), 0)
    assert text == "time 1.0 s, sent: 0 msg/s, confirmed: 0 msg/s, received: 0 msg/s"


def outcome(failure: str | None = None, **options: object) -> Outcome:
    counted = stats()
    counted.turn()
    return Outcome(Options(**options), counted, 2.0, 4.0, failure)  # type: ignore[arg-type]


def test_summary() -> None:
    assert summary(outcome(**ALL)) == (
        "published:       2,000 messages in 2.00 s, 1,000 msg/s, 1.0 MB/s\n"
        "confirmed:       1,990 messages in 2.00 s, 995 msg/s\n"
        "nacked:          10 messages in 2.00 s, 5 msg/s\n"
        "returned:        7 messages in 2.00 s, 4 msg/s\n"
        "consumed:        4,000 messages in 4.00 s, 1,000 msg/s, 0.0 MB/s\n"
        "latency:         p50 2.02 ms, p75 3.00 ms, p95 3.00 ms, p99 3.00 ms, p99.9 3.00 ms, max 3.00 ms\n"
        "confirm latency: p50 500 µs, p75 500 µs, p95 500 µs, p99 500 µs, p99.9 500 µs, max 500 µs\n"
    )


def test_summary_of_one_side() -> None:
    assert [line.split(":")[0] for line in summary(outcome(consumers=0)).splitlines()][:2] == ["published", "latency"]
    assert [line.split(":")[0] for line in summary(outcome(producers=0)).splitlines()][:2] == ["consumed", "latency"]


def test_json() -> None:
    assert json.loads(json.dumps(as_json(outcome("it broke", **ALL)))) == {
        "published": 2000,
        "confirmed": 1990,
        "nacked": 10,
        "returned": 7,
        "consumed": 4000,
        "consumed_bytes": 48_000,
        "publish_seconds": 2.0,
        "consume_seconds": 4.0,
        "publish_rate": 1000.0,
        "confirm_rate": 995.0,
        "consume_rate": 1000.0,
        "latency_us": {
            "min": 1000.0,
            "mean": 2000.0,
            "p50": 2015.2,
            "p75": 3000.0,
            "p95": 3000.0,
            "p99": 3000.0,
            "p99.9": 3000.0,
            "max": 3000.0,
        },
        "confirm_latency_us": dict.fromkeys(("min", "mean", "p50", "p75", "p95", "p99", "p99.9", "max"), 500.0),
        "error": "it broke",
    }


def test_json_of_nothing() -> None:
    nothing = as_json(Outcome(Options(), Stats(), 0.0, 0.0))
    assert (nothing["latency_us"], nothing["confirm_latency_us"], nothing["error"]) == (None, None, None)
    assert nothing["publish_rate"] == nothing["consume_rate"] == 0.0
