"""What a run has measured, as lines for people and as one object for programs.

Rates are messages a second. Times are for people in the unit that fits, for programs in microseconds. Publishing is
timed from its start to the last publish or confirm, consuming from its start to the last delivery; a run that somebody
or its time limit ends is timed until then.
"""

from __future__ import annotations

from dataclasses import dataclass

from rabbitish.perf.options import Options
from rabbitish.perf.stats import Histogram, Interval, Stats

PERCENTILES = {"p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
_IN_A_LINE = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Outcome:
    """A run that is over. Seconds are of publishing and of consuming; `failure` is what ended it, if that was bad."""

    options: Options
    stats: Stats
    publish_seconds: float
    consume_seconds: float
    failure: str | None = None


def progress_line(elapsed_seconds: float, interval: Interval, seconds: float, options: Options, blocked: int) -> str:
    """What happened in the last `seconds`. `blocked`: producers that the broker does not read from."""
    parts = [f"time {elapsed_seconds:.1f} s"]
    if options.producers:
        parts.append(f"sent: {_rate(interval.published, seconds)}")
        if blocked:
            parts.append(f"blocked: {blocked} of {options.producers}")
        if options.mandatory:
            parts.append(f"returned: {_rate(interval.returned, seconds)}")
        if options.confirm:
            parts.append(f"confirmed: {_rate(interval.confirmed, seconds)}")
            if interval.nacked:
                parts.append(f"nacked: {_rate(interval.nacked, seconds)}")
    if options.consumers:
        parts.append(f"received: {_rate(interval.consumed, seconds)}")
    for name, histogram in (("latency", interval.latency), ("confirm latency", interval.confirm_latency)):
        if histogram.count:
            values = [*histogram.quantiles(_IN_A_LINE.values()), histogram.highest]
            parts.append(f"{name} {'/'.join([*_IN_A_LINE, 'max'])}: {' / '.join(map(duration, values))}")
    return ", ".join(parts)


def summary(outcome: Outcome) -> str:
    """A few lines, each with its end."""
    options, stats = outcome.options, outcome.stats
    rows: list[tuple[str, str]] = []
    if options.producers:
        seconds = outcome.publish_seconds
        rows.append(("published", _counted(stats.published, stats.published * options.size, seconds)))
        if options.confirm:
            rows.append(("confirmed", _counted(stats.confirmed, None, seconds)))
            if stats.nacked:
                rows.append(("nacked", _counted(stats.nacked, None, seconds)))
        if options.mandatory:
            rows.append(("returned", _counted(stats.returned, None, seconds)))
    if options.consumers:
        rows.append(("consumed", _counted(stats.consumed, stats.consumed_bytes, outcome.consume_seconds)))
    for name, histogram in (("latency", stats.latency_total), ("confirm latency", stats.confirm_latency_total)):
        if histogram.count:
            values = zip(PERCENTILES, histogram.quantiles(PERCENTILES.values()), strict=True)
            shown = [f"{percentile} {duration(value)}" for percentile, value in values]
            rows.append((name, ", ".join([*shown, f"max {duration(histogram.highest)}"])))
    return "".join(f"{name + ':':<17}{text}\n" for name, text in rows)


def as_json(outcome: Outcome) -> dict[str, object]:
    """The outcome for programs. Latencies are null where none was measured, "error" where nothing went wrong."""
    stats, publish, consume = outcome.stats, outcome.publish_seconds, outcome.consume_seconds
    return {
        "published": stats.published,
        "confirmed": stats.confirmed,
        "nacked": stats.nacked,
        "returned": stats.returned,
        "consumed": stats.consumed,
        "consumed_bytes": stats.consumed_bytes,
        "publish_seconds": round(publish, 3),
        "consume_seconds": round(consume, 3),
        "publish_rate": round(_per_second(stats.published, publish), 1),
        "confirm_rate": round(_per_second(stats.confirmed, publish), 1),
        "consume_rate": round(_per_second(stats.consumed, consume), 1),
        "latency_us": _latency(stats.latency_total),
        "confirm_latency_us": _latency(stats.confirm_latency_total),
        "error": outcome.failure,
    }


def _latency(histogram: Histogram) -> dict[str, float] | None:
    if not histogram.count:
        return None
    values = dict(zip(PERCENTILES, histogram.quantiles(PERCENTILES.values()), strict=True))
    all_values = {"min": histogram.lowest, "mean": histogram.mean, **values, "max": histogram.highest}
    return {name: round(value / 1000, 1) for name, value in all_values.items()}


def duration(nanoseconds: float) -> str:
    """A time with three digits or more, in the unit that fits."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000)):
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{nanoseconds / 1000:.0f} µs"


def _per_second(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _rate(count: int, seconds: float) -> str:
    return f"{_per_second(count, seconds):,.0f} msg/s"


def _counted(count: int, size: int | None, seconds: float) -> str:
    text = f"{count:,} messages in {seconds:.2f} s, {_rate(count, seconds)}"
    return text if size is None else f"{text}, {_per_second(size, seconds) / 1e6:,.1f} MB/s"
