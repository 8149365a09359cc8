"""How a thread that computes shares the interpreter, by a clock that moves when it is told to."""

from __future__ import annotations

import pytest

from rabbitish.server.breath import Breath


class Thread:
    """One that computes, beside a loop that lets it wait `late` seconds when it has slept."""

    def __init__(self, late: float) -> None:
        self.now, self.late, self.slept, self.worked = 10.0, late, 0, 0.0
        self.breath = Breath(lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.late
        self.slept += 1

    def work(self) -> None:
        """Until it has slept twenty times."""
        while self.slept < 20:
            self.now += 1e-5
            self.worked += 1e-5
            self.breath()


def test_it_works_for_less_than_a_message_may_be_late_and_sleeps_for_longer() -> None:
    thread = Thread(late=0)
    thread.work()
    assert thread.worked / thread.slept == pytest.approx(0.0003, rel=0.05)
    assert thread.now - 10 > 3 * thread.worked


@pytest.mark.parametrize("late", [0.002, 0.005])
def test_where_it_has_to_wait_for_its_turn_it_works_as_long(late: float) -> None:
    thread = Thread(late)
    thread.work()
    assert thread.worked / thread.slept == pytest.approx(late, rel=0.1)


def test_it_never_works_for_longer_than_the_interpreter_would_let_it() -> None:
    thread = Thread(late=1)
    thread.work()
    assert thread.worked / thread.slept == pytest.approx(0.005, rel=0.1)
