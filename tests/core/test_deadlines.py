"""Deadlines: who is called when, and that nothing is kept for those who no longer wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rabbitish.core.deadlines import Deadlines


class Owner:
    """Notes when it is called; `then` are moments that it asks for when it is."""

    def __init__(self, deadlines: Deadlines, name: str = "", *then: int) -> None:
        self.deadlines = deadlines
        self.name = name
        self.then = list(then)
        self.due_at: int | None = None
        self.called: list[int] = []

    def due(self, now: int) -> None:
        """See Due."""
        self.called.append(now)
        if self.then:
            self.deadlines.ask(self, self.then.pop(0))


def test_nobody_waits() -> None:
    deadlines = Deadlines()
    assert deadlines.next_due() is None
    deadlines.fire(1 << 60)


def test_an_owner_is_called_once_at_its_moment() -> None:
    deadlines = Deadlines()
    owner = Owner(deadlines)
    deadlines.ask(owner, 10)
    assert deadlines.next_due() == 10
    deadlines.fire(9)
    assert owner.called == []
    deadlines.fire(10)
    assert (owner.called, owner.due_at, deadlines.next_due()) == ([10], None, None)
    deadlines.fire(20)
    assert owner.called == [10]


def test_late_is_better_than_never() -> None:
    deadlines = Deadlines()
    owner = Owner(deadlines)
    deadlines.ask(owner, 10)
    deadlines.fire(1000)
    assert owner.called == [1000]


def test_an_earlier_moment_replaces_a_later_one() -> None:
    deadlines = Deadlines()
    owner = Owner(deadlines)
    deadlines.ask(owner, 100)
    deadlines.ask(owner, 10)
    assert deadlines.next_due() == 10
    deadlines.fire(10)
    assert deadlines.next_due() is None
    deadlines.fire(100)
    assert owner.called == [10]


def test_an_earlier_moment_stands_when_a_later_one_is_asked_for() -> None:
    deadlines = Deadlines()
    owner = Owner(deadlines, "", 50)
    deadlines.ask(owner, 10)
    deadlines.ask(owner, 50)
    deadlines.fire(10)  # early for what it wants now: it looks at the clock and asks again
    assert (owner.called, deadlines.next_due()) == ([10], 50)
    deadlines.fire(50)
    assert owner.called == [10, 50]


def test_owners_are_called_in_order_of_their_moments_then_of_asking() -> None:
    deadlines = Deadlines()
    called: list[str] = []

    class Noting(Owner):
        def due(self, now: int) -> None:
            called.append(self.name)

    for name, when in (("c", 30), ("a", 10), ("b", 20), ("b2", 20), ("later", 41)):
        deadlines.ask(Noting(deadlines, name), when)
    deadlines.fire(40)
    assert called == ["a", "b", "b2", "c"]
    assert deadlines.next_due() == 41


def test_one_that_asks_for_a_moment_already_past_is_called_in_the_same_breath() -> None:
    deadlines = Deadlines()
    owner = Owner(deadlines, "", 12, 15, 21)
    deadlines.ask(owner, 10)
    deadlines.fire(20)
    assert owner.called == [20, 20, 20]
    assert deadlines.next_due() == 21


def test_forgotten() -> None:
    deadlines = Deadlines()
    owner, other = Owner(deadlines), Owner(deadlines)
    deadlines.ask(owner, 10)
    deadlines.ask(other, 20)
    deadlines.forget(owner)
    deadlines.forget(owner)
    assert deadlines.next_due() == 20
    deadlines.ask(owner, 30)
    deadlines.fire(25)
    assert (owner.called, other.called) == ([], [25])
    deadlines.fire(30)
    assert owner.called == [30]


def test_an_owner_may_forget_another_that_is_due() -> None:
    deadlines = Deadlines()
    victim = Owner(deadlines)

    class Killer(Owner):
        def due(self, now: int) -> None:
            deadlines.forget(victim)

    deadlines.ask(Killer(deadlines), 10)
    deadlines.ask(victim, 10)
    deadlines.fire(10)
    assert victim.called == []


def test_nothing_is_kept_for_the_forgotten() -> None:
    """As of queues with an x-expires of a year that are deleted after a second."""
    deadlines = Deadlines()
    keeper = Owner(deadlines)
    deadlines.ask(keeper, 5_000_000)
    for moment in range(5000):
        owner = Owner(deadlines)
        deadlines.ask(owner, 1_000_000 + moment)
        deadlines.forget(owner)
        assert len(deadlines._heap) < 100
    assert deadlines.next_due() == 5_000_000


def test_nothing_is_kept_for_one_that_changes_its_mind() -> None:
    deadlines = Deadlines()
    earlier, same = Owner(deadlines), Owner(deadlines)
    for step in range(5000):
        deadlines.ask(earlier, 1_000_000 - step)
        deadlines.ask(same, 500)
        deadlines.forget(same)
        deadlines.ask(same, 500)
        assert len(deadlines._heap) < 100
    deadlines.fire(500)
    deadlines.fire(1_000_000 - 4999)
    assert (len(earlier.called), len(same.called)) == (1, 1)
    assert deadlines.next_due() is None


_steps = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 4), st.integers(0, 50)),
    st.tuples(st.just("forget"), st.integers(0, 4), st.just(0)),
    st.tuples(st.just("pass"), st.just(0), st.integers(0, 10)),
)


@given(st.lists(_steps, max_size=300))
def test_against_a_table_of_moments(steps: list[tuple[str, int, int]]) -> None:
    deadlines = Deadlines()
    owners = [Owner(deadlines, str(number)) for number in range(5)]
    asked: dict[int, int] = {}
    expected: list[list[int]] = [[] for _ in owners]
    now = 0
    for what, number, value in steps:
        if what == "ask":
            deadlines.ask(owners[number], now + value)
            asked[number] = min(asked.get(number, now + value), now + value)
        elif what == "forget":
            deadlines.forget(owners[number])
            asked.pop(number, None)
        else:
            now += value
            deadlines.fire(now)
            for due in [number for number, when in asked.items() if when <= now]:
                del asked[due]
                expected[due].append(now)
        assert deadlines.next_due() == min(asked.values(), default=None)
        assert [owner.called for owner in owners] == expected
