"""The books of the segments, against books in which every message has an entry that is looked for each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from rabbitish.session.content import PropertyCache, WireCodec
from rabbitish.store.compaction import Compaction
from rabbitish.store.record import SegmentHead, Type
from rabbitish.store.segments import WEIGHT_BYTES, Segment, Segments
from tests.thorough import seeds

from .fake_disk import FakeDisk
from .made import journal_on, publish, remove, write


def head(sequence: int, first_lsn: int) -> SegmentHead:
    return SegmentHead(sequence, sequence, 0, first_lsn, 0)


@dataclass
class Naive:
    """A segment as a list of messages: number, queue, weight, and whether it is still there."""

    segment: Segment
    messages: dict[tuple[int, int], int] = field(default_factory=dict)  # by queue and number: its weight
    gone: dict[tuple[int, int], int] = field(default_factory=dict)

    def count(self, queue: int) -> int:
        return sum(1 for of, _ in self.messages if of == queue)

    def weight(self, queue: int) -> int:
        return sum(weight for (of, _), weight in self.messages.items() if of == queue)


class Books:
    """Segments, and the same in plain. `exact`: the weight of every range that leaves is told by itself."""

    def __init__(self, seed: int, *, exact: bool) -> None:
        self.random = Random(seed)
        self.exact = exact
        self.segments = Segments()
        self.naive: list[Naive] = []
        self.records: dict[int, tuple[int, int, Naive]] = {}  # by number of the first: how many, where, in which
        self.next_lsn = self.sequence = 1
        self.queues = [1, 2, 3]
        self.next_queue = 4
        self.begin()

    def begin(self) -> None:
        segment = self.segments.begin(head(self.sequence, self.next_lsn))
        segment.size = 100
        self.next_lsn += 1  # a segment begins with a mark
        self.sequence += 1
        self.naive.append(Naive(segment))

    def publish(self) -> None:
        here, random = self.naive[-1], self.random
        count, body = random.choice((1, 1, 5, 40)), random.choice((0, 10, 3000))
        queues = random.sample(self.queues, random.randint(1, len(self.queues)))
        here.segment.note(self.next_lsn, here.segment.size, count)
        self.records[self.next_lsn] = (count, here.segment.size, here)
        for queue in queues:
            here.segment.add(queue, count, count * (body + WEIGHT_BYTES))
            for lsn in range(self.next_lsn, self.next_lsn + count):
                here.messages[queue, lsn] = body + WEIGHT_BYTES
        here.segment.size += 60 + count * (body + 30)
        self.next_lsn += count + random.choice((0, 0, 1, 7))  # other records

    def remove(self) -> None:
        queue = self.random.choice(self.queues)
        living = sorted(lsn for one in self.naive for of, lsn in one.messages if of == queue)
        if not living:
            return
        start = self.random.choice((0, 0, self.random.randrange(len(living))))
        chosen = living[start : start + self.random.choice((1, 3, 50))]
        if self.random.random() < 0.3:
            chosen = chosen[:: self.random.choice((1, 2))]
        ranges: list[int] = []
        weights: list[int] = []
        for lsn in chosen:
            one = self.of(lsn)
            weight = one.gone[queue, lsn] = one.messages.pop((queue, lsn))
            if ranges and ranges[-2] + ranges[-1] == lsn:
                ranges[-1] += 1
                weights[-1] += weight
            else:
                ranges += [lsn, 1]
                weights.append(weight)
        if not self.exact:
            self.segments.removed(queue, ranges, sum(weights))
            return
        for first, count, weight in zip(ranges[::2], ranges[1::2], weights, strict=True):
            self.segments.removed(queue, (first, count), weight)

    def of(self, lsn: int) -> Naive:
        return next(one for one in reversed(self.naive) if one.segment.head.first_lsn <= lsn)

    def remove_queue(self) -> None:
        queue = self.random.choice(self.queues)
        self.queues.remove(queue)
        self.queues.append(self.next_queue)
        self.next_queue += 1
        self.segments.remove_queue(queue)
        for one in self.naive:
            for key in [key for key in one.messages if key[0] == queue]:
                del one.messages[key]

    def take_dead(self) -> None:
        dead = self.segments.take_dead()
        expected = []
        while len(self.naive) > 1 and not self.naive[0].messages:
            expected.append(self.naive.pop(0).segment)
        assert dead == expected
        self.records = {lsn: record for lsn, record in self.records.items() if record[2] in self.naive}

    def check(self) -> None:
        segments = self.segments
        assert segments.all == [one.segment for one in self.naive]
        assert segments.disk_bytes == sum(one.segment.size for one in self.naive)
        for one in self.naive:
            found, of_queues = one.segment, {queue for queue, _ in one.messages}
            assert found.counts == {queue: one.count(queue) for queue in of_queues}
            assert found.weights.keys() == of_queues
            assert 0 <= found.live_bytes <= (found.size if one.messages else 0)
            if self.exact:
                assert found.weights == {queue: one.weight(queue) for queue in of_queues}
            removed = list(zip(found.removed[::3], found.removed[1::3], found.removed[2::3], strict=True))
            listed = [(queue, lsn) for queue, first, count in removed for lsn in range(first, first + count)]
            assert sorted(listed) == sorted(one.gone)
        for first, (count, offset, one) in self.records.items():
            for lsn in {first, first + count // 2, first + count - 1}:
                assert segments.of(lsn) is one.segment
                index = one.segment.find(lsn)
                known = one.segment
                assert (known.lsns[index], known.offsets[index], known.spans[index]) == (first, offset, count)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("seed", seeds(8, 20))
def test_whatever_comes_and_goes(seed: int, exact: bool) -> None:
    books = Books(seed, exact=exact)
    acts = [books.publish] * 8 + [books.remove] * 8 + [books.begin] * 2 + [books.take_dead, books.remove_queue]
    for _ in range(200):
        books.random.choice(acts)()
        books.check()
    for queue in books.queues:
        books.segments.remove_queue(queue)
    assert len(books.segments.take_dead()) == len(books.naive) - 1
    assert books.segments.live_bytes == 0


def filled(segments: Segments, sequence: int, *, live: int, size: int = 1000) -> Segment:
    """A segment of one queue of ten messages, so many of which live."""
    lsn = sequence * 100
    segment = segments.begin(head(sequence, lsn))
    segment.note(lsn + 1, 50, 10)
    segment.add(1, 10, 10 * 500)
    segment.size = size
    if live < 10:
        segments.removed(1, (lsn + 1, 10 - live), (10 - live) * 500)
    return segment


def test_weights_of_messages_alike_are_exact() -> None:
    segments = Segments()
    segment = filled(segments, 1, live=4)
    assert (segment.counts, segment.weights, segment.total_weight) == ({1: 4}, {1: 2000}, 5000)
    assert (segment.live_bytes, segments.live_bytes, segments.disk_bytes) == (400, 400, 1000)


def test_what_leaves_at_once_is_taken_to_weigh_the_same() -> None:
    """Over several ranges; and what is left never weighs less than messages of no size."""
    segments = Segments()
    segment = segments.begin(head(1, 1))
    segment.add(1, 1, 100)
    segment.add(1, 1, 900)
    segment.add(1, 1, 500)
    segment.size = 3000
    segments.removed(1, (2, 1), 300)
    assert segment.weights == {1: 1200}
    segments.removed(1, (4, 1), 10_000)
    assert segment.weights == {1: WEIGHT_BYTES}
    assert segment.live_bytes == 3000 * WEIGHT_BYTES // 1500
    segments.removed(1, (3, 1), 10_000)
    assert (segment.counts, segment.weights, segment.live_bytes) == ({}, {}, 0)
    segment.add(1, 4, 4000)
    segments.removed(1, (5, 1, 7, 1), 1000)
    assert segment.weights == {1: 3000}


def test_a_message_in_two_queues_counts_for_both() -> None:
    segments = Segments()
    segment = segments.begin(head(1, 1))
    for queue in (1, 2):
        segment.add(queue, 10, 1000)
    segment.size = 1500
    segments.removed(1, (2, 10), 1000)
    assert segment.live_bytes == 750
    segments.remove_queue(2)
    assert segment.live_bytes == 0
    segments.remove_queue(2)  # it has nothing here any more
    assert segment.counts == {}


def test_what_is_known_to_live_is_no_more_than_was_read() -> None:
    """After a start: the weight of all that was ever written is known first, and then what lives of it."""
    segment = Segments().begin(head(1, 1))
    segment.size, segment.total_weight = 1000, 5000
    segment.live(1, 2, 1000)
    segment.live(1, 1, 500)
    segment.live(2, 1, 500)
    assert (segment.counts, segment.live_bytes) == ({1: 3, 2: 1}, 400)


def test_only_the_oldest_go() -> None:
    segments = Segments()
    made = [filled(segments, number, live=live) for number, live in ((1, 0), (2, 0), (3, 1), (4, 0), (5, 0))]
    assert segments.take_dead() == made[:2]
    assert segments.take_dead() == []
    segments.removed(1, (310, 1), 500)
    assert segments.take_dead() == made[2:4]  # the last one is being written
    assert segments.all == made[4:]
    assert segments.of(501) is made[4]


def test_what_is_being_written_anew_does_not_go() -> None:
    segments = Segments()
    made = [filled(segments, number, live=0) for number in (1, 2, 3)]
    made[1].busy = True
    assert segments.take_dead() == made[:1]
    assert segments.take_dead() == []
    made[1].busy = False
    assert segments.take_dead() == made[1:2]


def test_a_segment_may_be_forgotten_out_of_turn() -> None:
    segments = Segments()
    made = [filled(segments, number, live=1) for number in (1, 2, 3)]
    segments.drop(made[1])
    assert segments.all == [made[0], made[2]]
    assert [segments.of(lsn) for lsn in (100, 199, 300, 1000)] == [made[0], made[0], made[2], made[2]]


# ---- what is worth being written anew

ONE = 10_000  # bytes of a segment
BODY = 900


class Disk:
    """Segments that fill up, empty, and are written anew whenever that is worth it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.segments = Segments()
        self.living: list[int] = []  # numbers of messages of queue 1, ascending
        self.next_lsn = self.sequence = 1
        self.rewritten = self.written = 0

    def publish(self) -> None:
        if not self.segments.all or self.segments.all[-1].size >= ONE:
            self.segments.begin(head(self.sequence, self.next_lsn))
            self.sequence += 1
            self.next_lsn += 1
        segment = self.segments.all[-1]
        segment.note(self.next_lsn, segment.size, 1)
        segment.add(1, 1, BODY + WEIGHT_BYTES)
        segment.size += BODY + WEIGHT_BYTES
        self.written += BODY + WEIGHT_BYTES
        self.living.append(self.next_lsn)
        self.next_lsn += 1

    def remove(self, lsn: int) -> None:
        self.living.remove(lsn)
        self.segments.removed(1, (lsn, 1), BODY + WEIGHT_BYTES)
        self.segments.all[-1].size += 20  # the record of it
        self.written += 20

    def tidy(self) -> None:
        """Delete what may go, and write anew what is worth it."""
        self.segments.take_dead()
        rounds = 0
        while old := self.segments.sparse(ONE):
            rounds += 1
            assert rounds < 1000
            everything = self.segments.all
            index = everything.index(old[0])
            assert everything[index : index + len(old)] == old
            assert everything[-1] not in old
            new = Segment(SegmentHead(old[0].head.sequence, old[-1].head.last, rounds, old[0].head.first_lsn, 1))
            new.size = new.other_bytes = new.told_bytes = 50
            lsns = [lsn for lsn in self.living if any(self.segments.of(lsn) is one for one in old)]
            for lsn in lsns:
                new.note(lsn, new.size, 1)
                new.add(1, 1, BODY + WEIGHT_BYTES)
                new.size += BODY + WEIGHT_BYTES
            assert new.size <= 50 + ONE + BODY + WEIGHT_BYTES
            self.rewritten += new.size
            self.segments.replace(old, new)
            self.segments.take_dead()

    def check(self) -> None:
        live = len(self.living) * (BODY + WEIGHT_BYTES)
        assert self.segments.disk_bytes <= 2 * live + 2 * ONE + 2 * (BODY + WEIGHT_BYTES)


@pytest.mark.parametrize("seed", range(12))
def test_files_stay_under_twice_what_lives_and_two_segments(seed: int) -> None:
    """Whatever stays: the newest, the oldest, every so many-th or any; and little is written twice for that."""
    disk = Disk(seed)
    random = disk.random
    which = (
        lambda living: random.choice(living),
        lambda living: living[0],
        lambda living: living[-1],
        lambda living: living[len(living) // 2],
    )[seed % 4]
    for _ in range(3):
        for _ in range(150):
            disk.publish()
            disk.tidy()
            disk.check()
        for _ in range(random.choice((100, 140, 149))):
            disk.remove(which(disk.living))
            disk.tidy()
            disk.check()
    for _ in range(200):
        disk.publish()
        disk.remove(which(disk.living))
        disk.tidy()
        disk.check()
    assert disk.rewritten <= 2 * disk.written


def test_nothing_is_worth_it_while_all_of_it_lives() -> None:
    segments = Segments()
    assert segments.sparse(1000) == []
    for number in range(1, 6):
        filled(segments, number, live=10)
    assert segments.sparse(1000) == []


def test_the_one_that_is_written_to_is_let_alone() -> None:
    segments = Segments()
    filled(segments, 1, live=1, size=100_000)
    assert segments.sparse(1000) == []
    filled(segments, 2, live=10)
    assert segments.sparse(1000) == segments.all[:1]


def test_many_small_ones_become_one() -> None:
    segments = Segments()
    made = [filled(segments, number, live=10, size=100) for number in range(1, 9)]
    assert segments.sparse(1000) == []  # seven, and the one that is written to
    made.append(filled(segments, 9, live=10, size=100))
    assert segments.sparse(1000) == made[:8]


def test_small_ones_that_are_far_from_each_other_stay() -> None:
    segments = Segments()
    for number in range(1, 40, 2):
        filled(segments, number, live=10, size=100)
        filled(segments, number + 1, live=10, size=1000)
    assert segments.sparse(1000) == []


def test_what_could_not_be_dropped_is_not_tried_again() -> None:
    """What is told in it of older messages must stay while they are on disk: others have more to give."""
    segments = Segments()
    filled(segments, 1, live=10)
    told = filled(segments, 2, live=0)
    wasteful = filled(segments, 3, live=1, size=10_000)
    filled(segments, 4, live=10)
    assert segments.sparse(10) == [told]
    told.other_bytes = told.told_bytes = told.size
    wasteful.other_bytes = wasteful.told_bytes = 100
    assert (told.live_bytes, wasteful.live_bytes) == (1000, 100 + 9900 // 10)
    assert segments.sparse(10) == [wasteful]


def test_writing_anew_comes_to_an_end() -> None:
    """With messages that are all gone between some that stay, and the records of it in segments of their own."""
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1000)
    lsns = [publish(journal, size=200) for _ in range(200)]
    begun = journal.segments.all
    stay = [lsn for lsn in lsns if begun.index(journal.segments.of(lsn)) % 6 < 3]
    for lsn in lsns:
        if lsn not in stay:
            remove(journal, lsn, size=200)
    write(journal)
    rounds = 0
    while segments := journal.segments.sparse(1000):
        rounds += 1
        assert rounds < 100
        compaction = Compaction(journal, WireCodec(PropertyCache(10)), segments)
        compaction.write()
        if journal.waiting:
            write(journal)
        compaction.install()
        compaction.finish()
        journal.append(Type.EPOCH)
        write(journal)
    live = len(stay) * (200 + WEIGHT_BYTES)
    assert rounds > 2
    assert sum(len(disk.read(name)) for name in disk.names()) <= 2 * live + 2 * 1000
    left = [lsn for one in journal.segments.all for lsn in one.lsns]
    assert left == sorted(left) and set(stay) <= set(left)


def test_what_only_waits_to_be_deleted_is_not_written_anew() -> None:
    """Its files go once that it is empty is on disk, which may be some time after it is."""
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1000)
    lsns = [publish(journal, size=200) for _ in range(20)]
    write(journal)
    for lsn in lsns:
        remove(journal, lsn, size=200)
    batches = journal.take()
    journal.write(batches)
    journal.written(batches[-1].last_lsn, sum(batch.size for batch in batches))
    assert not any(segment.counts for segment in journal.segments.all)
    assert journal.sparse() == []
    gone = journal.synced(journal.last_lsn)
    assert len(gone) > 2


def test_writing_anew_lets_others_have_their_turn_with_every_record() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=10_000)
    lsns = [publish(journal, size=200) for _ in range(60)]
    write(journal)
    for lsn in lsns[::2]:
        remove(journal, lsn, size=200)
    write(journal)
    breaths: list[int] = []
    Compaction(journal, WireCodec(PropertyCache(10)), journal.segments.all[:1]).write(lambda: breaths.append(1))
    assert len(breaths) >= 2 * len(journal.segments.all[0].lsns) > 50  # it is looked through twice
