"""When the event loop may sync by itself, by a clock that only a sync moves."""

from __future__ import annotations

from functools import partial

import pytest

from rabbitish.server import pace
from rabbitish.server.pace import Pace


class Clock:
    now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def test_a_disk_is_trusted_until_a_sync_takes_long_and_again_twenty_times_as_long_after(clock: Clock) -> None:
    disk = Pace()

    assert disk.fast
    disk.timed(partial(clock.passes, 0.002))
    assert not disk.fast
    clock.passes(0.03)
    assert not disk.fast
    clock.passes(0.02)
    assert disk.fast  # one slow sync is no slow disk


def test_a_disk_that_kept_others_waiting_is_left_to_a_thread_for_a_while(clock: Clock) -> None:
    disk = Pace()

    disk.crowded()
    clock.passes(0.04)
    assert not disk.fast
    clock.passes(0.02)
    assert disk.fast
    disk.timed(partial(clock.passes, 0.01))
    disk.crowded()
    clock.passes(0.1)
    assert not disk.fast  # for what took long it was to be longer already


def test_a_disk_that_is_slow_on_average_is_trusted_once_it_is_not(clock: Clock) -> None:
    disk = Pace()

    for _ in range(20):
        disk.timed(partial(clock.passes, 0.0008))
    assert not disk.fast
    for _ in range(20):
        disk.timed(partial(clock.passes, 0.0001))
    assert disk.fast


def test_one_that_fails_says_nothing_of_the_pace(clock: Clock) -> None:
    disk = Pace()

    def fail() -> None:
        clock.passes(1)
        raise OSError

    with pytest.raises(OSError):
        disk.timed(fail)
    assert disk.fast
