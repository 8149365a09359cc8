"""Which publishes of carried sessions are known to be in the journal, and when that is forgotten."""

from __future__ import annotations

from random import Random

from rabbitish.core.sendings import Numbers, Sendings

HOUR = 3_600_000


def known(sendings: Sendings) -> dict[tuple[bytes, int], list[tuple[int, int]]]:
    return {(session, channel): numbers.ranges for session, channel, numbers in sendings.all()}


def test_numbers_are_those_that_were_added() -> None:
    for seed in range(50):
        random, numbers, expected = Random(seed), Numbers(), set[int]()
        for _ in range(random.randrange(40)):
            first = random.randrange(1, 100)
            last = first + random.choice((0, 0, 1, 2, 10))
            numbers.add(first, last)
            expected.update(range(first, last + 1))
            assert {number for number in range(120) if number in numbers} == expected
            assert numbers.ranges == sorted(numbers.ranges)
            assert all(low[1] + 1 < high[0] for low, high in zip(numbers.ranges, numbers.ranges[1:], strict=False))
            assert numbers.last == max(expected)
        above = numbers.above(50)
        assert {number for number in range(120) if number in above} == {each for each in expected if each > 50}
    assert Numbers().last == 0


def test_the_lowest_are_forgotten_where_there_are_too_many_ranges() -> None:
    numbers = Numbers((number, number) for number in range(1, 10_000, 2))
    assert len(numbers.ranges) <= 256
    assert 9_999 in numbers and 9_999 - 2 * 255 in numbers and 1 not in numbers


def test_what_was_confirmed_is_asked_for_no_more() -> None:
    sendings = Sendings()
    sendings.add(b"a", 1, 1, 10)
    assert sendings.of(b"a", 1, 7).ranges == [(8, 10)]
    assert known(sendings) == {(b"a", 1): [(8, 10)]}
    assert sendings.of(b"a", 2, 0).ranges == sendings.of(b"b", 1, 0).ranges == []


def test_of_what_was_confirmed_whole_there_is_nothing_to_tell() -> None:
    sendings = Sendings()
    sendings.add(b"a", 1, 1, 10)
    sendings.add(b"a", 2, 1, 5)
    assert sendings.of(b"a", 1, 10).ranges == []
    assert known(sendings) == {(b"a", 2): [(1, 5)]}


def test_what_was_found_is_not_changed_by_what_comes() -> None:
    sendings = Sendings()
    sendings.add(b"a", 1, 1, 3)
    found = sendings.of(b"a", 1, 0)
    sendings.add(b"a", 1, 4, 9)
    assert found.ranges == [(1, 3)]


def test_a_session_is_forgotten_when_it_ends_or_an_hour_after_it_was_lost() -> None:
    now = 0
    sendings = Sendings(lambda: now, {b"old": {1: Numbers([(1, 5)])}})
    for session in (b"ends", b"goes", b"stays", b"returns"):
        sendings.add(session, 1, 1, 1)
    sendings.ended(b"ends")
    sendings.went(b"goes")
    sendings.went(b"returns")
    sendings.went(b"nobody")
    sendings.came(b"returns")
    assert {session for session, _ in known(sendings)} == {b"old", b"goes", b"stays", b"returns"}
    now = HOUR
    assert {session for session, _ in known(sendings)} == {b"old", b"goes", b"stays", b"returns"}
    now = HOUR + 1
    assert {session for session, _ in known(sendings)} == {b"stays", b"returns"}


def test_of_too_many_that_were_lost_the_oldest_are_forgotten() -> None:
    sendings = Sendings()
    marks = [number.to_bytes(16, "big") for number in range(10_005)]
    for mark in marks:
        sendings.add(mark, 1, 1, 1)
        sendings.went(mark)
    assert [session for session, _ in known(sendings)] == marks[5:]


def test_channels_that_were_closed_are_forgotten_after_some_more() -> None:
    sendings = Sendings()
    for channel in range(1, 40):
        sendings.add(b"a", channel, 1, 1)
        if channel > 1:
            sendings.closed(b"a", channel)
    assert [channel for _, channel in known(sendings)] == [1, *range(24, 40)]


def test_of_too_many_channels_the_first_are_forgotten() -> None:
    sendings = Sendings()
    for channel in range(1, 260):
        sendings.add(b"a", channel, 1, 1)
    assert [channel for _, channel in known(sendings)] == [*range(4, 260)]


def test_too_many_that_were_found_are_forgotten_too() -> None:
    marks = [number.to_bytes(16, "big") for number in range(10_005)]
    sendings = Sendings(found={mark: {1: Numbers([(1, 1)])} for mark in marks})
    assert [session for session, _ in known(sendings)] == marks[5:]


def test_of_those_that_know_much_fewer_are_kept() -> None:
    sendings = Sendings()
    for session in (b"a", b"b", b"c"):
        for channel in range(200):
            for number in range(1, 401, 2):
                sendings.add(session, channel, number, number)
        sendings.went(session)
    assert {session for session, _ in known(sendings)} == {b"b", b"c"}
    sendings.came(b"c")
    sendings.add(b"d", 1, 1, 1)
    sendings.went(b"d")
    assert {session for session, _ in known(sendings)} == {b"b", b"c", b"d"}


def test_a_channel_that_comes_back_is_not_one_of_those_that_were_closed() -> None:
    sendings = Sendings()
    for channel in range(1, 40):
        sendings.add(b"a", channel, 1, 1)
        sendings.closed(b"a", channel)
        if channel == 1:
            sendings.of(b"a", channel, 0)
    assert (b"a", 1) in known(sendings)


def test_who_opens_channel_after_channel_does_not_push_out_what_others_have_sent() -> None:
    churner = {channel: Numbers([(1, 1)]) for channel in range(1, 100_002)}
    sendings = Sendings(found={b"victim": {7: Numbers([(1, 5)])}, b"churner": churner})
    assert known(sendings).pop((b"victim", 7)) == [(1, 5)]
    assert [channel for mark, channel in known(sendings) if mark == b"churner"] == [*range(99_746, 100_002)]


def test_where_there_is_too_much_those_pay_who_have_most() -> None:
    large = {channel: Numbers((number, number) for number in range(1, 401, 2)) for channel in range(200)}
    sendings = Sendings(found={b"small": {1: Numbers([(1, 1)])}, b"a": large, b"b": large, b"c": large})
    assert {session for session, _ in known(sendings)} == {b"small", b"b", b"c"}
