"""Runs of deliveries against a dictionary of tags."""

from __future__ import annotations

import random
from typing import cast

import pytest

from rabbitish.core.handle import QueueHandle
from rabbitish.core.lane import Lane
from rabbitish.core.message import Message
from rabbitish.session.consumer import ChannelConsumer
from rabbitish.session.unacked import Run, Unacked

QUEUE = cast("QueueHandle", object())
CONSUMERS = [cast("ChannelConsumer", object()) for _ in range(2)]
LANE = Lane()


class Book:
    """The same, simply: by tag the position, the message and whose it is."""

    def __init__(self, step: int) -> None:
        self.unacked = Unacked()
        self.step = step
        self.known: dict[int, tuple[int, object, object]] = {}
        self.last = 0

    def deliver(self, count: int, consumer: ChannelConsumer | None = None, position: int = 1000) -> None:
        messages = [cast("Message", object()) for _ in range(count)]
        self.unacked.add(Run(self.last + 1, QUEUE, LANE, position, list(messages), 0, consumer, 0, self.step))
        for offset, message in enumerate(messages):
            self.last += 1
            self.known[self.last] = (position + offset * self.step, message, consumer)

    def took(self, runs: list[Run]) -> list[int]:
        """Check what was taken, and forget it; its tags."""
        tags = []
        for run in runs:
            assert run.count == len(run.held()) > 0
            for tag in run.tags():
                index = tag - run.first
                assert self.known.pop(tag) == (run.position + index * run.step, run.messages[index], run.consumer)
                tags.append(tag)
        assert self.unacked.tags() == sorted(self.known)
        return tags

    def take(self, tag: int) -> bool:
        run = self.unacked.take(tag)
        if run is None:
            assert tag not in self.known
            return False
        assert self.took([run]) == [tag]
        return True

    def take_through(self, tag: int) -> list[int] | None:
        expected = [known for known in self.known if known <= tag] if tag in self.known else None
        runs = self.unacked.take_through(tag)
        tags = None if runs is None else self.took(runs)
        assert tags == expected
        return tags


@pytest.fixture(params=[1, 3])
def book(request: pytest.FixtureRequest) -> Book:
    """What a consumer was handed alone, or in turns with two others."""
    return Book(request.param)


def test_one_by_one(book: Book) -> None:
    book.deliver(3)
    book.deliver(2)
    assert not book.take(0) and not book.take(6)
    assert [book.take(tag) for tag in (2, 2, 1, 5, 4, 3, 3)] == [True, False, True, True, True, True, False]


def test_many_with_gaps(book: Book) -> None:
    book.deliver(4)
    book.deliver(4)
    assert book.take(2) and book.take(6)
    assert book.take_through(2) is None
    assert book.take_through(7) == [1, 3, 4, 5, 7]
    assert book.take_through(8) == [8]
    assert book.take_through(8) is None


def test_the_rest_of_a_run_that_was_all_settled(book: Book) -> None:
    book.deliver(3)
    book.deliver(1)
    assert book.take(2) and book.take(3)
    assert book.take_through(1) == [1]
    assert book.take_through(4) == [4]


def test_everything_and_that_of_one_consumer(book: Book) -> None:
    for consumer in (*CONSUMERS, None, CONSUMERS[0]):
        book.deliver(2, consumer)
    assert book.take(1)
    assert book.took(book.unacked.take_of(CONSUMERS[0])) == [2, 7, 8]
    assert book.took(book.unacked.take_all()) == [3, 4, 5, 6]
    assert book.unacked.take_all() == []


def test_back_into_gaps(book: Book) -> None:
    book.deliver(5)
    known = dict(book.known)
    taken = [book.unacked.take(tag) for tag in (3, 5)]
    assert book.unacked.tags() == [1, 2, 4]
    book.unacked.put_back([run for run in taken if run is not None])
    assert book.known == known and book.unacked.tags() == [1, 2, 3, 4, 5]
    assert book.take(4) and book.take_through(5) == [1, 2, 3, 5]


def test_little_room_for_what_is_gone(book: Book) -> None:
    book.deliver(1)
    for tag in range(2, 2000):
        book.deliver(1)
        assert book.take(tag)
        assert book.unacked.places <= 70
    for tag in range(2000, 4000):
        book.deliver(1)
        assert book.take_through(tag) is not None
        assert book.unacked.places <= 70


@pytest.mark.parametrize("seed", range(20))
def test_at_random(seed: int, book: Book) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        what = chance.random()
        tag = chance.randint(max(0, book.last - 30), book.last + 1)
        if what < 0.4:
            book.deliver(chance.choice((1, 1, 2, 5, 12)), chance.choice((None, *CONSUMERS)))
        elif what < 0.8:
            book.take(tag)
        elif what < 0.95:
            book.take_through(tag)
        elif what < 0.97:
            book.took(book.unacked.take_of(CONSUMERS[0]))
        else:
            taken = [run for run in (book.unacked.take(tag), book.unacked.take(tag - 3)) if run is not None]
            book.unacked.put_back(taken)
            assert book.unacked.tags() == sorted(book.known)
