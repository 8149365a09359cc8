"""The histogram against the numbers themselves, and intervals against totals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.perf.stats import Histogram, Stats, bucket_of, highest_in

NUMBERS = st.integers(0, 2**50) | st.integers(0, 300)
SHARES = (0.0, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)


def histogram(numbers: list[int]) -> Histogram:
    made = Histogram()
    for number in numbers:
        made.record(number)
    return made


@given(NUMBERS)
def test_a_bucket_is_narrow(number: int) -> None:
    highest = highest_in(bucket_of(number))
    assert number <= highest <= number + number / 64
    assert bucket_of(highest) == bucket_of(number)
    assert bucket_of(highest + 1) == bucket_of(number) + 1


def test_small_numbers_are_exact() -> None:
    assert [highest_in(bucket_of(number)) for number in range(128)] == list(range(128))


def test_there_are_not_many_buckets() -> None:
    assert bucket_of(2**64) < 4000


@given(st.lists(NUMBERS, min_size=1))
def test_quantiles(numbers: list[int]) -> None:
    numbers.sort()
    found = histogram(numbers).quantiles(SHARES)
    for share, value in zip(SHARES, found, strict=True):
        exact = numbers[max(0, math.ceil(share * len(numbers)) - 1)]
        assert exact <= value <= exact + exact / 64
    assert found[-1] == numbers[-1]


def test_of_nothing() -> None:
    empty = Histogram()
    assert (empty.quantiles(SHARES), empty.mean, empty.count) == ([0] * len(SHARES), 0.0, 0)


def test_what_is_recorded() -> None:
    made = Histogram()
    made.record(100, 3)
    made.record(40)
    made.record(-5)
    assert (made.lowest, made.highest, made.count, made.mean) == (0, 100, 5, 68.0)


@given(st.lists(NUMBERS), st.lists(NUMBERS))
def test_adding(some: list[int], others: list[int]) -> None:
    added = histogram(some)
    added.add(histogram(others))
    both = histogram(some + others)
    assert added.quantiles(SHARES) == both.quantiles(SHARES)
    assert (added.lowest, added.highest, added.count, added.total) == (
        both.lowest,
        both.highest,
        both.count,
        both.total,
    )


@pytest.mark.parametrize("name", ["published", "confirmed", "nacked", "returned", "consumed"])
def test_intervals_add_up(name: str) -> None:
    stats = Stats()
    setattr(stats, name, 5)
    first = stats.turn()
    setattr(stats, name, 7)
    second = stats.turn()
    names = ("published", "confirmed", "nacked", "returned", "consumed")
    assert {each: getattr(first, each) for each in names} == {**dict.fromkeys(names, 0), name: 5}
    assert {each: getattr(second, each) for each in names} == {**dict.fromkeys(names, 0), name: 2}


def test_latencies_of_intervals_add_up() -> None:
    stats = Stats()
    stats.latency.record(10)
    stats.confirm_latency.record(30)
    first = stats.turn()
    stats.latency.record(20)
    second = stats.turn()
    assert (first.latency.highest, first.confirm_latency.highest) == (10, 30)
    assert (second.latency.highest, second.confirm_latency.count) == (20, 0)
    assert (stats.latency_total.count, stats.latency_total.highest) == (2, 20)
    assert (stats.confirm_latency_total.count, stats.confirm_latency_total.highest) == (1, 30)
