"""What records add up to, against books in which every message of every queue has an entry of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import pytest

from rabbitish.core.message import Address
from rabbitish.session.content import PropertyCache, WireCodec, framed_content
from rabbitish.store.bodies import DeclaredQueue, Route, encode_of_queue, encode_returned, ranges_of
from rabbitish.store.journal import Journal
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import Type
from rabbitish.store.replay import Contents, Replay
from rabbitish.store.scan import scan
from rabbitish.store.segments import WEIGHT_BYTES
from rabbitish.wire.properties import Properties
from tests.thorough import seeds

from .fake_disk import FakeDisk
from .made import journal_on, write

SEEDS = seeds(25, 60)


@dataclass
class Entry:
    """A message in a queue."""

    now: int = 0
    size: int = 0
    returns: int = 0
    out: bool = False
    ever_out: bool = False


def expanded(ranges: Iterable[tuple[int, int]]) -> list[int]:
    return [lsn for first, count in ranges for lsn in range(first, first + count)]


def expected_returns(living: dict[int, Entry]) -> dict[int, int]:
    """Whoever has a message at the end loses it."""
    return {lsn: entry.returns + entry.out for lsn, entry in living.items() if entry.ever_out}


# ---- one queue


class OneQueue:
    """Ranges that are told of one queue, and the same in plain."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.contents = Contents()
        self.lsn = 1
        self.living: dict[int, Entry] = {}
        self.gone: list[int] = []

    def publish(self) -> None:
        self.lsn += self.random.choice((0, 0, 1, 5))
        count = self.random.choice((1, 1, 3, 30))
        published = self.contents.published
        if published and published[-2] + published[-1] == self.lsn:
            published[-1] += count
        else:
            published.extend((self.lsn, count))
        for lsn in range(self.lsn, self.lsn + count):
            self.living[lsn] = Entry()
        self.lsn += count

    def some(self, lsns: list[int]) -> list[int]:
        """Some of these, neighbours or not, and not always in their order."""
        if not lsns:
            return []
        start = self.random.randrange(len(lsns)) if self.random.random() < 0.5 else 0
        chosen = lsns[start : start + self.random.choice((1, 2, 10, 40))]
        if self.random.random() < 0.3:
            chosen = chosen[::2]
        if self.random.random() < 0.2:
            self.random.shuffle(chosen)
        return chosen

    def remove(self) -> None:
        chosen = self.some(sorted(self.living))
        if chosen:
            self.contents.removed.extend(ranges_of(chosen))
            for lsn in chosen:
                del self.living[lsn]
            self.gone += chosen

    def deliver(self) -> None:
        chosen = self.some([lsn for lsn in sorted(self.living) if not self.living[lsn].out])
        if chosen:
            ranges = ranges_of(chosen)
            self.contents.delivered.extend(ranges)
            self.contents.delivered_at.extend([self.lsn] * (len(ranges) // 2))
            self.lsn += 1
            for lsn in chosen:
                self.living[lsn].out = self.living[lsn].ever_out = True

    def give_back(self) -> None:
        for lsn in self.some([lsn for lsn in sorted(self.living) if self.living[lsn].out]):
            entry = self.living[lsn]
            entry.out = False
            entry.returns += 1
            self.contents.returned[lsn] = entry.returns, self.lsn
            self.lsn += 1

    def check(self) -> None:
        live, dead = self.contents.live()
        assert expanded(live) == sorted(self.living)
        assert sorted(expanded(dead)) == sorted(self.gone)
        assert all(count > 0 for _, count in [*live, *dead])
        found = self.contents.returns(live)
        assert {lsn: returns for lsn, returns in found.items() if lsn in self.living} == expected_returns(self.living)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_told_of_a_queue(seed: int) -> None:
    queue = OneQueue(seed)
    queue.check()
    acts = [queue.publish] * 4 + [queue.remove] * 3 + [queue.deliver] * 3 + [queue.give_back] * 2
    for _ in range(80):
        queue.random.choice(acts)()
        queue.check()


def test_nothing_was_told() -> None:
    contents = Contents()
    assert contents.live() == ([], [])
    assert contents.returns([]) == {}


def test_by_hand() -> None:
    contents = Contents()
    contents.published.extend((10, 5, 20, 1))
    contents.removed.extend((11, 2, 20, 1))
    contents.delivered.extend((10, 3))
    contents.delivered_at.append(30)
    contents.delivered.extend((13, 1))
    contents.delivered_at.append(33)
    contents.returned[10] = 1, 31
    assert contents.live() == ([(10, 1), (13, 2)], [(11, 2), (20, 1)])
    assert contents.returns([(10, 1), (13, 2)]) == {10: 1, 13: 1}
    contents.delivered.extend((10, 1))
    contents.delivered_at.append(40)
    assert contents.returns([(10, 1), (13, 2)]) == {10: 2, 13: 1}


# ---- a journal


CODEC = WireCodec(PropertyCache(100))


class Books:
    """A journal that is written by hand, and what is in each queue."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = FakeDisk()
        self.queues: dict[int, dict[int, Entry]] = {}
        segment_bytes = self.random.choice((300, 2000, 100_000))
        self.journal = journal_on(self.disk, segment_bytes=segment_bytes, snapshot=self.snapshot)
        self.next_queue = 1
        self.now = 100
        for _ in range(3):
            self.declare()

    def snapshot(self, journal: Journal) -> None:
        for number in self.queues:
            journal.append_snapshot(Type.QUEUE_NEW, self.declaration(number))

    def declaration(self, number: int) -> bytes:
        return DeclaredQueue(number, "/", f"q{number}", False, {}).encode(CODEC)

    def declare(self) -> None:
        self.queues[self.next_queue] = {}
        self.journal.append(Type.QUEUE_NEW, self.declaration(self.next_queue))
        self.next_queue += 1

    def delete(self) -> None:
        if len(self.queues) > 1:
            number = self.random.choice(list(self.queues))
            del self.queues[number]
            self.journal.segments.remove_queue(number)
            self.journal.append(Type.QUEUE_GONE, number.to_bytes(4, "big"))

    def publish(self) -> None:
        random = self.random
        self.now += random.randint(0, 3)
        numbers = tuple(random.sample(list(self.queues), random.randint(1, len(self.queues))))
        size, count = random.choice((0, 1, 100)), random.choice((1, 1, 4, 20))
        content = framed_content(1, Properties(delivery_mode=2).encode(), size, [b"x" * size], 4096)
        route = Route(1, numbers, Address("", f"key {random.randint(0, 3)}")).encode()
        first = self.journal.publish(route, numbers, self.now, [content] * count, size)
        for number in numbers:
            for lsn in range(first, first + count):
                self.queues[number][lsn] = Entry(self.now, size)

    def chosen(self, *, out: bool | None) -> tuple[int, list[int]]:
        """Some messages of some queue."""
        number = self.random.choice(list(self.queues))
        entries = self.queues[number]
        lsns = [lsn for lsn, entry in entries.items() if out is None or entry.out is out]
        start = self.random.randrange(len(lsns)) if lsns and self.random.random() < 0.5 else 0
        return number, lsns[start : start + self.random.choice((1, 5, 60))]

    def remove(self) -> None:
        number, lsns = self.chosen(out=None)
        for start in range(0, len(lsns), 50):
            part = lsns[start : start + 50]
            ranges = ranges_of(part)
            for first, count in zip(ranges[::2], ranges[1::2], strict=True):
                entries = [self.queues[number].pop(lsn) for lsn in range(first, first + count)]
                weight = sum(entry.size + WEIGHT_BYTES for entry in entries)
                self.journal.segments.removed(number, (first, count), weight)
            self.journal.append(Type.REMOVE, encode_of_queue(number, 0, ranges))

    def deliver(self) -> None:
        number, lsns = self.chosen(out=False)
        if lsns:
            self.journal.append(Type.DELIVERED, encode_of_queue(number, 0, ranges_of(lsns)))
            for lsn in lsns:
                entry = self.queues[number][lsn]
                entry.out = entry.ever_out = True

    def give_back(self) -> None:
        number, lsns = self.chosen(out=True)
        for lsn in lsns:
            entry = self.queues[number][lsn]
            entry.returns, entry.out = entry.returns + 1, False
            self.journal.append(Type.RETURNED, encode_returned(number, lsn, entry.returns))

    def write(self) -> None:
        if self.journal.waiting:
            write(self.journal)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_in_a_journal(seed: int) -> None:
    """Though the oldest segments may have gone by then."""
    books = Books(seed)
    acts = [books.publish] * 6 + [books.remove] * 4 + [books.deliver] * 4 + [books.give_back] * 2 + [books.write] * 2
    acts += [books.declare, books.delete] if seed % 2 else []
    for _ in range(150):
        books.random.choice(acts)()
    books.write()
    replay = Replay(CODEC, PublishReader(CODEC))
    scanned = scan(books.disk, replay.visit, replay.run if seed % 4 else None)
    replay.finish(scanned.segments)
    check_queues(books, replay)
    check_segments(books, replay)


def check_queues(books: Books, replay: Replay) -> None:
    assert list(replay.declared.queues) == list(books.queues)
    assert replay.highest_queue < books.next_queue
    for number in replay.declared.queues:
        entries = books.queues[number]
        found = [
            (lsn, live.now, live.stamp.size)
            for live in replay.live(number)
            for lsn in range(live.first, live.first + live.length)
        ]
        assert found == [(lsn, entry.now, entry.size) for lsn, entry in entries.items()]
        for live in replay.live(number):
            segment = replay.segments.of(live.first)
            assert segment is replay.segments.of(live.first + live.length - 1)
        returns = replay.returns(number)
        assert {lsn: count for lsn, count in returns.items() if lsn in entries} == expected_returns(entries)


def check_segments(books: Books, replay: Replay) -> None:
    there = books.journal.segments.all
    assert [segment.head for segment in replay.segments.all] == [segment.head for segment in there]
    removed: dict[int, set[int]] = defaultdict(set)
    for mine, theirs in zip(replay.segments.all, there, strict=True):
        assert (mine.lsns, mine.offsets, mine.spans) == (theirs.lsns, theirs.offsets, theirs.spans)
        assert (mine.size, mine.total_weight) == (theirs.size, theirs.total_weight)
        for number, first, count in zip(mine.removed[::3], mine.removed[1::3], mine.removed[2::3], strict=True):
            removed[number] |= set(range(first, first + count))
    for number in replay.declared.queues:
        told = zip(*(iter([n for segment in there for n in segment.removed]),) * 3, strict=True)
        expected = {lsn for of, first, count in told if of == number for lsn in range(first, first + count)}
        assert removed[number] == expected


def test_a_queue_that_was_deleted_leaves_nothing() -> None:
    """Not even in memory, since there may be many and much that was in them."""
    books = Books(0)
    for _ in range(5):
        books.publish()
        books.deliver()
    books.delete()
    books.write()
    replay = Replay(CODEC, PublishReader(CODEC))
    replay.finish(scan(books.disk, replay.visit).segments)
    (gone,) = {1, 2, 3} - set(books.queues)
    assert gone not in replay.declared.queues and gone not in replay._contents
    assert replay.highest_queue == 3


def test_the_number_of_a_queue_is_known_from_its_messages_alone() -> None:
    """Its declaration was in a segment that is gone."""
    disk = FakeDisk()
    journal = journal_on(disk)
    route = Route(1, (9,), Address("", "q")).encode()
    content = framed_content(1, Properties(delivery_mode=2).encode(), 0, [], 4096)
    journal.publish(route, (9,), 5, [content], 0)
    write(journal)
    replay = Replay(CODEC, PublishReader(CODEC))
    replay.finish(scan(disk, replay.visit).segments)
    assert (replay.highest_queue, replay.declared.queues) == (9, {})
