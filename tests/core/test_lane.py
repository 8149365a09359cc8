"""Lanes: positions, returns, holes and deadlines, told by hand and then against a list that is searched end to end."""

from __future__ import annotations

from weakref import WeakSet

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rabbitish.core.lane import Lane
from rabbitish.core.message import Message

from .fakes import PlainMessage, bodies
from .shelf import MemoryShelf

MANY = 1000


class Watched(PlainMessage):
    """A message whose end can be seen."""

    # no __slots__, so that there can be weak references to it


def message(body: str = "", deadline: int | None = None) -> PlainMessage:
    made = PlainMessage(body)
    made.deadline = deadline
    return made


def lane_of(*deadlines: int | None) -> Lane:
    """A lane of messages "0", "1", ... with these deadlines."""
    lane = Lane()
    for number, deadline in enumerate(deadlines):
        lane.append(message(str(number), deadline))
    lane.check()
    return lane


def expired(lane: Lane, before: int) -> list[str]:
    """Take everything that has a deadline before this."""
    found: list[Message] = []
    while (one := lane.take_expired(before)) is not None:
        found.append(one)
        lane.check()
    return bodies(found)


def drained(lane: Lane) -> list[str]:
    """Take everything, in order."""
    found: list[Message] = []
    while len(lane):
        found.append(lane.take()[1])
        lane.check()
    return bodies(found)


# ---- order


def test_first_in_first_out_with_positions() -> None:
    lane = lane_of(None, None, None)
    assert (len(lane), bodies(lane)) == (3, ["0", "1", "2"])
    assert [(position, returns) for position, _, returns in (lane.take(), lane.take(), lane.take())] == [
        (0, 0),
        (1, 0),
        (2, 0),
    ]
    assert len(lane) == 0


def test_an_empty_lane_has_nothing_to_take() -> None:
    lane = Lane()
    with pytest.raises(IndexError):
        lane.take()
    assert lane.take_fresh(10) == (0, [])
    assert (lane.take_expired(1 << 60), lane.next_deadline(), list(lane.empty()), lane.plain) == (None, None, [], True)


def test_many_at_once() -> None:
    lane = lane_of(*[None] * 5)
    first, taken = lane.take_fresh(2)
    assert (first, bodies(taken)) == (0, ["0", "1"])
    first, taken = lane.take_fresh(3)
    assert (first, bodies(taken)) == (2, ["2", "3", "4"])
    lane.append(message("5"))
    first, taken = lane.take_fresh(99)
    assert (first, bodies(taken)) == (5, ["5"])


def test_what_comes_back_goes_to_its_old_place() -> None:
    lane = lane_of(*[None] * 5)
    taken = [lane.take() for _ in range(4)]
    for position, one, returns in (taken[2], taken[0], taken[3]):
        lane.give_back(position, one, returns + 1)
        assert not lane.plain
    assert (len(lane), bodies(lane)) == (4, ["0", "2", "3", "4"])
    assert lane.take() == (0, taken[0][1], 1)
    assert lane.take() == (2, taken[2][1], 1)
    assert lane.take() == (3, taken[3][1], 1)
    assert lane.plain
    position, last, returns = lane.take()
    assert (position, bodies([last]), returns) == (4, ["4"], 0)


def test_returns_are_counted_by_whoever_gives_back() -> None:
    lane = lane_of(None)
    for returns in range(5):
        position, one, known = lane.take()
        assert (position, known) == (0, returns)
        lane.give_back(position, one, returns + 1)


def test_a_message_cannot_be_given_back_twice() -> None:
    lane = lane_of(None, None)
    position, one, _ = lane.take()
    lane.give_back(position, one, 1)
    with pytest.raises(AssertionError):
        lane.give_back(position, one, 1)
    with pytest.raises(AssertionError):
        lane.give_back(1, one, 1)  # nobody took that


def test_clear_takes_everything_and_positions_go_on() -> None:
    lane = lane_of(None, 5, 3, None)
    position, one, _ = lane.take()
    lane.give_back(position, one, 1)
    assert expired(lane, 4) == ["2"]
    rest = lane.empty()
    assert (bodies(rest), bodies(rest.in_memory())) == (["0", "1", "3"], ["0", "1", "3"])
    lane.check()
    rest.check()
    assert (len(lane), lane.next_deadline(), lane.expiring, lane.plain) == (0, None, False, True)
    lane.append(message("x"))
    assert lane.take()[0] == 4


def test_what_was_out_while_the_lane_was_cleared_comes_back_to_its_place() -> None:
    lane = lane_of(None, None)
    position, one, _ = lane.take()
    lane.empty()
    lane.append(message("later"))
    lane.give_back(position, one, 1)
    assert drained(lane) == ["0", "later"]


# ---- deadlines


def test_deadlines_in_order_expire_at_the_head() -> None:
    lane = lane_of(10, 20, 20, 30)
    assert lane.next_deadline() == 10
    assert expired(lane, 10) == []
    assert expired(lane, 11) == ["0"]
    assert lane.next_deadline() == 20
    assert expired(lane, 21) == ["1", "2"]
    assert bodies(lane) == ["3"]
    assert expired(lane, 1 << 60) == ["3"]
    assert lane.next_deadline() is None
    assert not lane.expiring


def test_deadlines_out_of_order_expire_behind_the_head() -> None:
    lane = lane_of(50, 10, 40, 10, 60, 30)
    assert lane.next_deadline() == 10
    assert expired(lane, 11) == ["1", "3"]
    assert (len(lane), bodies(lane), lane.plain) == (4, ["0", "2", "4", "5"], False)
    assert lane.next_deadline() == 30
    assert expired(lane, 51) == ["5", "2", "0"]
    assert drained(lane) == ["4"]


def test_holes_are_passed_over() -> None:
    lane = lane_of(None, 10, None, 10, None)
    assert expired(lane, 11) == ["1", "3"]
    assert [lane.take()[0] for _ in range(3)] == [0, 2, 4]
    lane.append(message("5"))
    assert lane.take()[0] == 5


def test_behind_messages_without_a_deadline() -> None:
    lane = Lane()
    lane.last.append(message("0"))  # as the queue does it while the lane is not expiring
    lane.append(message("1", 10))
    lane.append(message("2"))
    lane.append(message("3", 20))
    assert lane.next_deadline() == 10
    assert expired(lane, 1 << 60) == ["1", "3"]
    assert lane.next_deadline() is None
    assert lane.expiring  # it still holds messages, and cannot know
    assert drained(lane) == ["0", "2"]
    assert lane.next_deadline() is None
    assert not lane.expiring


def test_a_returned_message_keeps_its_deadline() -> None:
    lane = lane_of(10, 20)
    position, one, _ = lane.take()
    assert lane.next_deadline() == 20
    lane.give_back(position, one, 1)
    assert lane.next_deadline() == 10
    assert expired(lane, 11) == ["0"]
    assert expired(lane, 21) == ["1"]


def test_a_message_that_is_out_does_not_expire() -> None:
    lane = lane_of(10)
    position, one, _ = lane.take()
    assert expired(lane, 1 << 60) == []
    lane.give_back(position, one, 1)
    assert expired(lane, 1 << 60) == ["0"]


def test_of_the_same_deadline_the_first_in_line_expires_first() -> None:
    lane = lane_of(20, 10, 10, 10)
    position, one, _ = lane.take()
    lane.give_back(position, one, 1)
    again, two, _ = lane.take()
    position, other, _ = lane.take()
    lane.give_back(position, other, 1)
    lane.give_back(again, two, 1)
    assert expired(lane, 11) == ["1", "2", "3"]
    assert expired(lane, 21) == ["0"]
    one_by_one = lane_of(10, 10, 10)
    position, one, _ = one_by_one.take()
    one_by_one.give_back(position, one, 1)
    assert expired(one_by_one, 11) == ["0", "1", "2"]


def test_a_message_may_come_back_as_another_object_with_the_same_deadline() -> None:
    """As one does whose delivery count shows in its headers; the latest counts."""
    lane = lane_of(None, 10)
    lane.take()
    position, one, returns = lane.take()
    for _ in range(5):
        returns += 1
        lane.give_back(position, message(f"return {returns}", 10), returns)
        if returns < 5:
            position, one, returns = lane.take()
    assert bodies([one]) == ["return 4"]
    assert expired(lane, 11) == ["return 5"]


def test_a_return_makes_a_lane_expire_whose_messages_have_no_deadline() -> None:
    lane = lane_of(100)
    position, one, _ = lane.take()
    assert lane.next_deadline() is None
    assert not lane.expiring
    lane.last.append(message("1"))  # as the queue does it now
    lane.give_back(position, one, 1)
    lane.append(message("2", 150))
    lane.append(message("3", 120))
    assert lane.next_deadline() == 100
    assert expired(lane, 101) == ["0"]
    assert lane.next_deadline() == 120
    assert expired(lane, 151) == ["3", "2"]
    assert drained(lane) == ["1"]


@pytest.mark.parametrize("consumed", [0, 1, 64, 65, 66, 67, 68, 100])
def test_short_deadlines_are_kept_in_mind_however_many_were_before(consumed: int) -> None:
    lane = lane_of(MANY, *[10] * consumed)
    lane.take_fresh(consumed + 1)
    lane.append(message("a", MANY))
    lane.append(message("b", 500))
    assert lane.next_deadline() == 500
    assert expired(lane, 501) == ["b"]


def test_nothing_is_kept_for_a_message_that_comes_back_again_and_again() -> None:
    lane = lane_of(MANY, MANY)
    for returns in range(5000):
        position, one, _ = lane.take()
        lane.give_back(position, one, returns + 1)
    assert len(lane._late) < 200
    assert len(lane._order) < 200
    assert expired(lane, MANY + 1) == ["0", "1"]


@pytest.mark.parametrize("at_once", [True, False])
def test_what_was_taken_is_freed_though_its_deadline_is_to_come(at_once: bool) -> None:
    lane = lane_of(*[None] * 500)
    alive: WeakSet[Watched] = WeakSet()
    for number in range(100):
        one = Watched(str(number))
        one.deadline = MANY - number
        alive.add(one)
        lane.append(one)
        del one
    if at_once:
        lane.take_fresh(550)
    else:
        for _ in range(550):
            position, taken, _ = lane.take()
        lane.give_back(position, taken, 1)
        lane.take()
        del taken
    assert (len(lane), len(alive)) == (50, 50)
    assert lane.next_deadline() == MANY - 99
    assert len(expired(lane, MANY)) == 50


def test_what_expires_behind_a_head_that_stays_is_freed() -> None:
    lane = Lane()
    alive: WeakSet[Watched] = WeakSet()
    lane.append(message("head"))
    most = 0
    for moment in range(5000):
        one = Watched(str(moment))
        one.deadline = moment + 10
        alive.add(one)
        lane.append(one)
        del one
        while lane.take_expired(moment) is not None:
            pass
        lane.check()
        most = max(most, len(alive), len(lane.fresh))
    assert len(lane) == 12
    assert most < 200
    assert drained(lane)[0] == "head"


def test_returned_messages_that_expire_behind_a_head_that_stays_are_freed() -> None:
    lane = Lane()
    lane.append(message("head"))
    position, head, _ = lane.take()
    lane.give_back(position, head, 1)
    most = 0
    for moment in range(2000):
        lane.append(message(str(moment), moment))
        position, head, _ = lane.take()
        other, one, _ = lane.take()
        lane.give_back(other, one, 1)
        lane.give_back(position, head, 1)
        assert expired(lane, moment + 1) == [str(moment)]
        most = max(most, len(lane._order), len(lane._late), len(lane._back))
    assert most < 200
    assert drained(lane) == ["head"]


def test_messages_that_expire_while_many_are_back_are_forgotten() -> None:
    lane = lane_of(None, *range(500))
    taken = [lane.take() for _ in range(501)]
    for position, one, _ in taken:
        lane.give_back(position, one, 1)
    assert expired(lane, 499) == [str(number) for number in range(1, 500)]
    assert len(lane._order) < 100
    assert drained(lane) == ["0", "500"]


def test_closing_ranks_keeps_order_and_deadlines() -> None:
    """Nine of ten messages expire behind a head that stays: the others still come in order and in time."""
    numbers = range(1000)
    lane = lane_of(*[2000 - number if number % 10 == 0 else 10 for number in numbers])
    assert expired(lane, 11) == [str(number) for number in numbers if number % 10]
    assert len(lane.fresh) < 200
    assert bodies(lane) == [str(number) for number in numbers[::10]]
    assert lane.next_deadline() == 1010
    assert expired(lane, 1501) == [str(number) for number in range(990, 490, -10)]
    lane.append(message("x", 1505))
    assert expired(lane, 1511) == ["x", "490"]
    assert drained(lane) == [str(number) for number in numbers[:490:10]]


# ---- against a list


def known(message: Message) -> tuple[int, int | None]:
    """What a message is known by, though it may be another object by now."""
    assert isinstance(message, PlainMessage)
    return message.serial, message.deadline


class LaneAgainstList(RuleBasedStateMachine):
    """Whatever is done to a lane, it tells the same as a list of (place, deadline) that is searched each time.

    A lane says a message's position when it is taken: before that it may move up when others leave from the middle.
    """

    deadlines = st.none() | st.integers(0, 40)

    @initialize()
    def start(self) -> None:
        self.lane = Lane()
        self.shelf = MemoryShelf()
        self.next_place = 0
        self.inside: dict[int, tuple[Message, int]] = {}  # by place: message, returns
        self.outside: dict[int, tuple[Message, int]] = {}
        self.positions: dict[int, int] = {}  # by place, of what was ever taken

    def _add(self, deadline: int | None) -> None:
        one = message(str(self.next_place), deadline)
        if deadline is None and not self.lane.expiring:
            self.lane.last.append(one)
        else:
            self.lane.append(one)
        self.inside[self.next_place] = (one, 0)
        self.next_place += 1

    def _taken(self, position: int, one: Message, returns: int) -> int:
        place = min(self.inside)
        expected, times = self.inside.pop(place)
        assert (known(one), returns) == (known(expected), times)
        if place in self.positions:
            assert self.positions[place] == position
        else:
            assert position > max((at for its, at in self.positions.items() if its < place), default=-1)
            self.positions[place] = position
        self.outside[place] = (one, returns)
        return place

    def _take(self) -> int:
        return self._taken(*self.lane.take())

    def _give_back(self, place: int, *, copied: bool) -> None:
        one, returns = self.outside.pop(place)
        if copied:
            one = message(f"{place} again", one.deadline)
        self.lane.give_back(self.positions[place], one, returns + 1)
        self.inside[place] = (one, returns + 1)

    @rule(deadline=deadlines)
    def append(self, deadline: int | None) -> None:
        self._add(deadline)

    @rule(some=st.lists(deadlines, min_size=1, max_size=5), times=st.integers(1, 30))
    def append_many(self, some: list[int | None], times: int) -> None:
        for deadline in some * times:
            self._add(deadline)

    @precondition(lambda self: self.inside)
    @rule(count=st.integers(1, 3) | st.integers(50, 150))
    def take(self, count: int) -> None:
        for _ in range(min(count, len(self.inside))):
            self._take()

    @precondition(lambda self: self.lane.plain)
    @rule(most=st.integers(1, 5) | st.integers(50, 150))
    def take_fresh(self, most: int) -> None:
        """All that was asked for, or all that is at hand."""
        at_hand = len(self.lane.fresh)
        first, taken = self.lane.take_fresh(most)
        assert len(taken) == min(most, at_hand)
        for position, one in enumerate(taken, first):
            self._taken(position, one, 0)

    @precondition(lambda self: self.outside)
    @rule(data=st.data(), copied=st.booleans())
    def give_back(self, data: st.DataObject, copied: bool) -> None:
        self._give_back(data.draw(st.sampled_from(sorted(self.outside))), copied=copied)

    @precondition(lambda self: self.outside)
    @rule(backwards=st.booleans())
    def give_all_back(self, backwards: bool) -> None:
        for place in sorted(self.outside, reverse=backwards):
            self._give_back(place, copied=False)

    @precondition(lambda self: self.inside)
    @rule(times=st.integers(2, 100), copied=st.booleans())
    def to_and_fro(self, times: int, copied: bool) -> None:
        for _ in range(times):
            self._give_back(self._take(), copied=copied)

    @precondition(lambda self: self.outside)
    @rule()
    def acknowledge(self) -> None:
        self.outside.clear()

    @rule(before=st.integers(0, 42))
    def expire(self, before: int) -> None:
        due = sorted(
            (one.deadline, place)
            for place, (one, _) in self.inside.items()
            if one.deadline is not None and one.deadline < before
        )
        expected = [known(self.inside.pop(place)[0]) for _, place in due]
        taken = []
        while (one := self.lane.take_expired(before)) is not None:
            taken.append(known(one))
        assert taken == expected

    @precondition(lambda self: self.inside)
    @rule()
    def clear(self) -> None:
        rest = self.lane.empty()
        at_hand = [known(one) for one in rest.in_memory()]
        put_away = [known(one) for page in rest.pages for one in page.load()]
        for page in rest.pages:
            page.let_go()
        for _ in rest.free():
            pass
        assert not (rest.fresh or rest.last)
        everything = [known(self.inside[place][0]) for place in sorted(self.inside)]
        assert sorted(at_hand + put_away) == sorted(everything)
        assert [one for one in everything if one in set(at_hand)] == at_hand
        assert [one for one in everything if one in set(put_away)] == put_away
        self.inside.clear()

    @invariant()
    def the_same(self) -> None:
        lane = self.lane
        lane.check()
        assert len(lane) == len(self.inside)
        assert list(map(known, lane)) == [known(self.inside[place][0]) for place in sorted(self.inside)]
        deadlines = [one.deadline for one, _ in self.inside.values() if one.deadline is not None]
        assert lane.next_deadline() == min(deadlines, default=None)

    @invariant()
    def nothing_is_hoarded(self) -> None:
        lane, size = self.lane, len(self.inside)
        assert len(lane._late) <= 3 * size + 300
        assert len(lane._order) <= 3 * size + 300
        assert len(lane.fresh) + (len(lane.last) if lane.pages else 0) <= 3 * size + 300
        assert self.shelf.there == set(lane.pages)


class PagedLaneAgainstList(LaneAgainstList):
    """The same for a lane whose middle is put away all the time, and that is restored from what it held."""

    @rule(keep=st.integers(0, 5), at_once=st.integers(1, 4), room=st.integers(0, 10) | st.just(1000))
    def put_away(self, keep: int, at_once: int, room: int) -> None:
        self.shelf.room = room
        before = len(self.lane)
        self.lane.put_away(self.shelf, keep, at_once, recorded=True)
        assert len(self.lane) == before

    @invariant()
    def nothing_dead_is_put_away(self) -> None:
        """It could not be read back: whoever keeps it keeps what lives."""
        living = {known(one) for one, _ in self.inside.values()}
        assert {known(one) for page in self.lane.pages for one in page.load()} <= living

    @rule()
    def put_away_all(self) -> None:
        """Next to nothing stays that is not wanted soon."""
        self.shelf.room = 1 << 30
        lane = self.lane
        self.lane.put_away(self.shelf, 5, 1, recorded=True)
        assert len(lane.last) <= 5 or lane.last is not lane.fresh
        assert not lane.pages or not lane.last
        assert len(lane._late) <= 3 * (len(lane.fresh) + len(lane._back)) + 64

    @rule()
    def restart(self) -> None:
        """What was handed out comes back first, one at a time; the rest is in pages."""
        lost = {place: (one, returns + 1) for place, (one, returns) in self.outside.items()}
        everything = [kept for _, kept in sorted({**self.inside, **lost}.items())]
        self.outside.clear()
        self.inside.clear()
        self.positions.clear()
        for page in self.lane.empty().pages:
            page.let_go()
        self.lane = Lane()
        never = max((place for place, (_, returns) in enumerate(everything) if returns), default=-1) + 1
        self.shelf.room = 1 << 30
        for place, (one, returns) in enumerate(everything):
            if place < never:
                self.lane.restore(one, returns)
                self.positions[place] = place
            self.inside[place] = (one, returns)
        self.next_place = len(everything)
        for page in self.shelf.put_away(one for one, _ in everything[never:]):
            self.lane.restore_page(page)
            self.lane.check()


TestLaneAgainstList = LaneAgainstList.TestCase
TestLaneAgainstList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPagedLaneAgainstList = PagedLaneAgainstList.TestCase
TestPagedLaneAgainstList.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
