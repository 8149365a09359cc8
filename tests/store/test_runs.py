"""Records of a message each, which a start reads many at a time: what comes of them is what comes of one at a time."""

from __future__ import annotations

from random import Random

import pytest

from rabbitish.core.message import Address
from rabbitish.core.paging import NEVER
from rabbitish.session.content import PropertyCache, WireCodec, framed_content
from rabbitish.store import runs
from rabbitish.store.bodies import DeclaredQueue, Route, encode_name, encode_of_queue
from rabbitish.store.journal import Journal
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import HEAD, JournalDamaged, Type
from rabbitish.store.replay import Replay
from rabbitish.store.scan import Scanned, scan
from rabbitish.store.shelf import Stretches
from rabbitish.wire.properties import Properties
from tests.thorough import seeds

from .bench import Bench, ranges
from .fake_disk import FakeDisk
from .made import journal_on, remove, write


def codec() -> WireCodec:
    return WireCodec(PropertyCache(100))


def declared(journal: Journal) -> None:
    for number in (1, 2):
        journal.append_snapshot(Type.QUEUE_NEW, DeclaredQueue(number, "/", f"q{number}", False, {}).encode(codec()))


def grown(seed: int, times: int = 300) -> FakeDisk:
    """A journal of publishers who seldom repeat their properties, and of what else happens between."""
    random, disk = Random(seed), FakeDisk()
    segment_bytes = random.choice((1000, 10_000, 1 << 20))
    journal = journal_on(disk, segment_bytes=segment_bytes, snapshot=declared)
    now = 100
    for turn in range(times):
        now += random.randint(0, 2)
        queues = random.choice(((1,), (1,), (1,), (2,), (1, 2)))
        size = random.choice((0, 10, 10, 10, 500))
        properties = Properties(
            delivery_mode=2,
            content_type=random.choice((None, "text/plain")),
            headers=random.choice((None, None, {"n": turn})),
            priority=random.choice((None, None, 3, 255)),
            correlation_id=random.choice((None, "c")),
            reply_to=random.choice((None, "r")),
            expiration=random.choice((None, None, "0", "+70", str(turn), "5 minutes", "9" * 20)),
            message_id=random.choice((None, f"m{turn}")),
        )
        content = framed_content(1, properties.encode(), size, [b"x" * size] if size else [], 4096)
        route = Route(1, queues, Address("e", random.choice(("k", "k", "a longer key")))).encode()
        count = random.choice((1,) * 20 + (3,))
        lsn = journal.publish(route, queues, now, [content] * count, size)
        if random.random() < 0.2:
            remove(journal, lsn, queues[0], size=size)
        if random.random() < 0.1:
            write(journal)
    journal.append(Type.VHOST_NEW, encode_name("v") * 2)
    write(journal)
    return disk


def both(disk: FakeDisk) -> tuple[tuple[Replay, Scanned], tuple[Replay, Scanned]]:
    """Read record by record, and in runs."""
    replays = Replay(codec(), PublishReader(codec())), Replay(codec(), PublishReader(codec()))
    scanned = scan(disk, replays[0].visit), scan(disk, replays[1].visit, replays[1].run)
    for replay, one in zip(replays, scanned, strict=True):
        replay.finish(one.segments)
    return (replays[0], scanned[0]), (replays[1], scanned[1])


def lives(replay: Replay, number: int) -> list[tuple[object, ...]]:
    return [
        (live.first, live.length, live.now, live.stamp.size, tuple(live.stamp.traits), live.stamped)
        for live in replay.live(number)
    ]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_they_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:  # more than are kept
        monkeypatch.setattr(runs, "KINDS_KEPT", 20)
        monkeypatch.setattr("rabbitish.store.replay.KINDS_KEPT", 20)
    disk = grown(seed)
    (slow, expected), (fast, found) = both(disk)
    assert found == expected
    for mine, theirs in zip(fast.segments.all, slow.segments.all, strict=True):
        for name in mine.__slots__:
            if name != "head":
                assert getattr(mine, name) == getattr(theirs, name), name
    for number in (1, 2):
        assert lives(fast, number) == lives(slow, number)


def test_most_are_read_in_runs() -> None:
    """Or nothing here would show anything."""
    disk = grown(1, times=500)
    singly: list[Type] = []
    replay = Replay(codec(), PublishReader(codec()))
    scan(disk, lambda head, data, record: (singly.append(record.type), replay.visit(head, data, record))[0], replay.run)
    assert sum(map(len, (segment.lsns for segment in replay.segments.all))) == 500
    assert singly.count(Type.PUBLISH) < 200


@pytest.mark.parametrize("seed", range(4))
def test_damage_in_a_run_is_where_it_is(seed: int) -> None:
    whole = grown(seed, times=40)
    random = Random(seed)
    for name in sorted(whole.names()):
        for _ in seeds(10, 40):
            disk = whole.killed()
            disk.flip(name, random.randrange(len(whole.read(name))), random.randrange(8))
            outcomes = []
            for runs_too in (False, True):
                replay = Replay(codec(), PublishReader(codec()))
                try:
                    outcomes.append(str(scan(disk, replay.visit, replay.run if runs_too else None)))
                except JournalDamaged as damage:
                    outcomes.append(str(damage))
            assert outcomes[0] == outcomes[1]


def test_a_run_ends_where_the_file_ends() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20, snapshot=declared)
    content = framed_content(1, Properties(delivery_mode=2).encode(), 4, [b"four"], 4096)
    for _ in range(3):
        journal.publish(Route(1, (1,), Address("", "q")).encode(), (1,), 5, [content], 4)
    write(journal)
    (name,) = disk.names()
    whole = disk.read(name)
    for size in range(len(whole) - 3 * (HEAD.size + 30), len(whole)):
        cut = disk.killed()
        cut.files[name].synced[:] = whole[:size]
        cut.files[name].unsynced.clear()
        (_, expected), (_, found) = both(cut)
        assert found == expected


# ---- into pages


@pytest.mark.parametrize("seed", seeds(5, 12))
def test_pages_of_many_at_a_time_are_those_of_one_at_a_time(seed: int) -> None:
    random = Random(seed)
    replay, _ = both(grown(seed, times=1500 if seed < 2 else 200))[1]
    ttl = random.choice((None, None, 40))
    after = random.choice((0, 0, 37, 300))
    bench = Bench()
    many, single = Stretches(bench.reader), Stretches(bench.reader)
    total = sum(many.extend(alike, ttl) for alike in replay.alike(1, after))
    for live in replay.live(1):
        for lsn in range(max(live.first, after + 1), live.first + live.length):
            own = live.stamp.expiration_ms
            least = ttl if own is None else own if ttl is None else min(own, ttl)
            single.add(lsn, 1, live.stamp.size, None if least is None else live.now + least)
    assert total == sum(page.bytes for page in many.pages) == sum(page.bytes for page in single.pages)
    plain = [
        [(lsn, deadline, size if deadline != NEVER else 0) for page in pages for lsn, deadline, size in expanded(page)]
        for pages in (many.pages, single.pages)
    ]
    assert plain[0] == plain[1]
    for page in many.pages:
        deadlines = [deadline for _, deadline, _ in expanded(page)]
        assert page.count == len(deadlines) <= 1024
        assert page.earliest == min(deadlines) and page.ordered is (deadlines == sorted(deadlines))
        assert page.latest == max(deadlines)


def expanded(page: object) -> list[tuple[int, int, int]]:
    """Number, deadline and size of each message."""
    found: list[tuple[int, int, int]] = []
    deadlines, sizes = page.deadlines, page.sizes  # type: ignore[attr-defined]
    for at, (first, count) in enumerate(ranges(page)):  # type: ignore[arg-type]
        deadline, size = (NEVER, 0) if deadlines is None else (deadlines[at], sizes[at])
        found += [(lsn, deadline, size) for lsn in range(first, first + count)]
    return found


def test_what_has_no_deadline_and_what_has_one_after_the_other() -> None:
    """In records of several messages too."""
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20, snapshot=declared)
    route = Route(1, (1,), Address("", "q")).encode()
    for count, expiration in ((2, None), (1, "5"), (3, "7"), (1, "5"), (1, "5")):
        raw = Properties(delivery_mode=2, expiration=expiration).encode()
        journal.publish(route, (1,), 10, [framed_content(1, raw, 4, [b"four"], 4096)] * count, 4)
    journal.append(Type.REMOVE, encode_of_queue(1, 0, (journal.last_lsn - 4, 1)))
    write(journal)
    (replay, _), _ = both(disk)
    stretches = Stretches(Bench().reader)
    for alike in replay.alike(1, 0):
        stretches.extend(alike, None)
    (page,) = stretches.pages
    assert [deadline for _, deadline, _ in expanded(page)] == [NEVER, NEVER, 15, 17, 17, 15, 15]
    assert (page.count, page.bytes, page.earliest, page.latest, page.ordered) == (7, 28, 15, NEVER, False)
