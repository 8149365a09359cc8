"""How long consumers are waited for instead of the disk, by a clock that moves when it is told to."""

from __future__ import annotations

import pytest

from rabbitish.server.prompt import Prompt


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def prompt(clock: Clock) -> Prompt:
    return Prompt(clock)


def test_they_have_a_moment(prompt: Prompt, clock: Clock) -> None:
    for number in range(3):
        assert prompt.worth_waiting(number)
        clock.now += 0.004
        assert prompt.worth_waiting(number + 1)
        prompt.came(number)
    assert prompt.worth_waiting(1)
    clock.now += 0.006
    assert not prompt.worth_waiting(1)


def test_in_vain_it_is_tried_again_after_longer_and_longer(prompt: Prompt, clock: Clock) -> None:
    waited = []
    for _ in range(7):
        assert prompt.worth_waiting(1)
        prompt.in_vain()
        began = clock.now
        while not prompt.worth_waiting(1):
            clock.now += 0.001
        waited.append(round(clock.now - began, 3))
    assert waited == [0.005, 0.01, 0.02, 0.04, 0.064, 0.064, 0.064]


def test_once_they_come_all_is_forgotten(prompt: Prompt, clock: Clock) -> None:
    for _ in range(4):
        assert prompt.worth_waiting(1)
        prompt.in_vain()
        clock.now += 1
    assert prompt.worth_waiting(1)
    prompt.came(1)
    assert prompt.worth_waiting(1)
    prompt.in_vain()
    clock.now += 0.006
    assert prompt.worth_waiting(1)


def test_who_was_not_waited_for_was_not_waited_for_in_vain(prompt: Prompt, clock: Clock) -> None:
    prompt.in_vain()
    assert prompt.worth_waiting(1)


def test_a_moment_does_not_begin_anew_for_who_is_waiting_already(prompt: Prompt, clock: Clock) -> None:
    """Where one comes every four milliseconds the last would wait for all others."""
    assert prompt.worth_waiting(10)
    clock.now += 0.004
    prompt.came(1)
    assert prompt.worth_waiting(11)
    clock.now += 0.002
    assert not prompt.worth_waiting(11)


def test_a_moment_that_ended_otherwise_was_not_in_vain(prompt: Prompt, clock: Clock) -> None:
    assert prompt.worth_waiting(1)
    prompt.over()
    clock.now += 1
    assert prompt.worth_waiting(2)
