"""Pages of messages that are in the journal, or in the spill: read back they are what was put away, in its order."""

from __future__ import annotations

from random import Random

import pytest

from rabbitish.core.message import Address
from rabbitish.core.paging import NEVER, PAGE_BYTES, PAGE_MESSAGES, Page
from rabbitish.session.content import WireMessage
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import JournalDamaged
from rabbitish.store.spill import Spill
from tests.thorough import seeds

from .bench import PERSISTENT, TRANSIENT, Bench, Seen, loaded, ranges, seen
from .fake_disk import UNLINK
from .made import remove, write

# ---- in the journal


def test_what_is_in_the_journal_comes_back_as_it_was() -> None:
    bench = Bench()
    messages = [
        *bench.journaled(b"one", b"two", headers={"n": [1, None]}, priority=3, expiration="50"),
        *bench.journaled(b"", address=Address("", "q")),
        *bench.journaled(b"x" * 300_000, message_id="large"),
    ]
    write(bench.journal)
    pages = bench.shelf.put_away(messages, recorded=True)
    assert loaded(pages) == loaded(pages) == list(map(seen, messages))
    assert bench.spills() == []
    before = bench.disk.names()
    for page in pages:
        page.let_go()
    assert bench.disk.names() == before


def test_consecutive_numbers_are_one_range_whatever_the_records_are() -> None:
    bench = Bench()
    messages = [*bench.journaled(b"a", b"b"), *bench.journaled(b"cc", b"dd", b"ee")]
    bench.journaled(b"of another queue")
    messages += bench.journaled(b"f")
    write(bench.journal)
    (page,) = bench.shelf.put_away(messages, recorded=True)
    first = messages[0].lsn
    assert ranges(page) == [(first, 5), (first + 6, 1)]
    (part,) = bench.shelf.put_away(messages[1:4], recorded=True)  # from and to the middle of a record
    assert loaded([part]) == list(map(seen, messages[1:4]))


def test_a_page_reaches_over_segments() -> None:
    bench = Bench(segment_bytes=300)
    messages = [message for number in range(40) for message in bench.journaled(b"%4d" % number, b"gone")[:1]]
    write(bench.journal)
    assert len(bench.journal.segments.all) > 5
    (page,) = bench.shelf.put_away(messages, recorded=True)
    assert loaded([page]) == list(map(seen, messages))


def test_pages_end_at_so_many_messages_or_bytes() -> None:
    bench = Bench()
    small = bench.journaled(*[b"x"] * 2500)
    large = [bench.journaled(b"y" * (PAGE_BYTES // 4 + 1))[0] for _ in range(9)]
    write(bench.journal)
    pages = bench.shelf.put_away(small, recorded=True)
    assert [page.count for page in pages] == [PAGE_MESSAGES, PAGE_MESSAGES, 2500 - 2 * PAGE_MESSAGES]
    assert [page.count for page in bench.shelf.put_away(large, recorded=True)] == [4, 4, 1]


def test_what_is_not_written_yet_stays_and_what_is_behind_it() -> None:
    bench = Bench()
    early = [*bench.journaled(b"1"), *bench.alike(b"2", mode=TRANSIENT), *bench.journaled(b"3")]
    write(bench.journal)
    late = [*bench.journaled(b"4"), *bench.alike(b"5", mode=TRANSIENT)]
    pages = bench.shelf.put_away([*early, *late], recorded=True)
    assert [one.body for one in loaded(pages)] == [b"1", b"2", b"3"]
    assert bench.shelf.put_away(late, recorded=True) == []
    batches = bench.journal.take()
    bench.journal.write(batches)  # that is enough: it need not be synced
    bench.journal.written(batches[-1].last_lsn, 0)
    assert [one.body for one in loaded(bench.shelf.put_away(late, recorded=True))] == [b"4", b"5"]


# ---- in the spill


def test_what_is_not_in_the_journal_goes_to_the_spill() -> None:
    bench = Bench()
    messages = [
        *bench.alike(b"one", b"two", headers={"n": [1, None]}, priority=3, expiration="50"),
        *bench.alike(b"", address=Address("", "q"), mode=TRANSIENT),
        *bench.alike(b"x" * 300_000, mode=TRANSIENT),
    ]
    steps = len(bench.disk.steps)
    pages = bench.shelf.put_away(messages, recorded=True)
    assert "sync" not in bench.disk.steps[steps:]
    assert loaded(pages) == loaded(pages) == list(map(seen, messages))
    assert not any(page.ranges for page in pages)
    assert len(bench.spills()) == 1


def test_numbers_that_are_no_promise_are_lost() -> None:
    """In a queue that is not durable the message in the journal may go any time."""
    bench = Bench()
    messages = bench.journaled(b"a", b"b")
    write(bench.journal)
    pages = bench.shelf.put_away(messages, recorded=False)
    remove(bench.journal, messages[0].lsn, count=2, size=1)
    assert loaded(pages) == [seen(message, numbered=False) for message in messages]
    assert len(bench.spills()) == 1


def test_nor_need_they_be_written() -> None:
    bench = Bench()
    (message,) = bench.journaled(b"a")
    assert loaded(bench.shelf.put_away([message], recorded=False)) == [seen(message, numbered=False)]


def test_mixed_messages_keep_their_order() -> None:
    bench = Bench(segment_bytes=500)
    messages: list[WireMessage] = []
    for number in range(60):
        make = bench.journaled if number % 3 else bench.alike
        messages += make(*[b"%d" % number] * (number % 4 + 1), mode=PERSISTENT if number % 2 else TRANSIENT)
    write(bench.journal)
    pages = bench.shelf.put_away(iter(messages), recorded=True)
    assert loaded(pages) == list(map(seen, messages))
    for page in pages:
        assert {one.lsn > 0 for one in map(seen, page.load())} in ({True}, {False})


def test_spilled_pages_are_about_as_large_as_others() -> None:
    bench = Bench(segment_bytes=1 << 30)
    pages = bench.shelf.put_away(bench.alike(*[b"x"] * 2500), recorded=True)
    assert [page.count for page in pages] == [PAGE_MESSAGES, PAGE_MESSAGES, 2500 - 2 * PAGE_MESSAGES]
    body = b"y" * (PAGE_BYTES // 4 + 1)
    pages = bench.shelf.put_away(bench.alike(*[body] * 10), recorded=True)
    assert sum(page.count for page in pages) == 10
    assert all(page.bytes <= 2 * PAGE_BYTES for page in pages)
    (page,) = bench.shelf.put_away(bench.alike(b"z" * (3 * PAGE_BYTES)), recorded=True)
    assert loaded([page])[0].size == 3 * PAGE_BYTES


def test_messages_that_differ_in_nothing_but_their_frames() -> None:
    """They have one stamp, though the same body takes more frames in one than in the other."""
    bench = Bench()
    body = b"x" * 10_000
    messages = bench.alike(body, body)
    for number, frame_max in enumerate((4096, 131_072, 2000)):
        (other,) = bench.alike(body, frame_max=frame_max)
        messages.insert(number, WireMessage(messages[0].stamp, other.content))
    assert len({len(message.content) for message in messages}) == 3
    assert len({id(message.stamp) for message in messages}) == 1
    assert loaded(bench.shelf.put_away(messages, recorded=True)) == list(map(seen, messages))


def test_spilled_pages_reach_over_files_of_the_spill() -> None:
    bench = Bench(segment_bytes=200)
    pairs = [bench.alike(b"%4d" % number, b"next", priority=number % 5) for number in range(30)]
    messages = [message for pair in pairs for message in pair]
    pages = bench.shelf.put_away(messages, recorded=True)
    assert len(bench.spills()) > 5
    assert loaded(pages) == list(map(seen, messages))
    for page in pages:
        page.let_go()
    assert bench.spills() == [bench.spills()[-1]]


def test_a_file_of_the_spill_goes_when_nothing_in_it_is_needed() -> None:
    bench = Bench(segment_bytes=200)
    pages = [bench.shelf.put_away(bench.alike(b"%d" % number * 150), recorded=True)[0] for number in range(6)]
    files = bench.spills()
    assert len(files) == 6
    loaded(pages)
    assert bench.disk.open == set(files)
    pages[3].let_go()  # in any order
    pages[0].let_go()
    assert bench.spills() == [files[1], files[2], files[4], files[5]]
    pages[5].let_go()
    assert bench.spills() == [files[1], files[2], files[4], files[5]]  # the last one is still written to
    (page,) = bench.shelf.put_away(bench.alike(b"x" * 150), recorded=True)
    assert [one.body[:1] for one in loaded([pages[1], pages[2], pages[4], page])] == [b"1", b"2", b"4", b"x"]
    for one in (pages[1], pages[2], pages[4]):
        one.let_go()
    assert bench.spills() == [f"spill-{7:012d}.tmp"]
    assert bench.spill.disk_bytes == len(bench.disk.read(bench.spills()[0]))


def test_all_of_it_goes_at_the_end_and_at_the_next_start() -> None:
    bench = Bench(segment_bytes=200)
    for _ in range(3):
        bench.shelf.put_away(bench.alike(b"x" * 150), recorded=True)
    assert len(bench.spills()) == 3
    left = bench.disk.killed()
    left.files["journal-x.log"] = left.files[bench.spills()[0]]
    publishes = PublishReader(bench.codec)
    Spill(left, bench.codec, publishes, segment_bytes=200, on_failure=bench.failures.append)
    assert [name for name in left.names() if "spill" in name] == []
    assert "journal-x.log" in left.names()
    bench.spill.close()
    assert bench.spills() == []


@pytest.mark.parametrize("segment_bytes", [100, 10_000])
def test_a_spill_that_cannot_be_written_leaves_messages_in_memory(segment_bytes: int) -> None:
    """In a full file or a new one: what was put away before is good, and when there is room again it goes on."""
    bench = Bench(segment_bytes=segment_bytes)
    before = bench.alike(b"1" * 99, b"2" * 99)
    pages = bench.shelf.put_away(before, recorded=True)
    for _ in range(3):
        bench.disk.refuses = "spill-"
        assert bench.shelf.put_away(bench.alike(b"3" * 99), recorded=True) == []
        assert bench.shelf.put_away(bench.alike(b"4" * 99), recorded=True) == []
        bench.disk.refuses = ""
        more = bench.alike(b"5" * 99, b"6" * 99)
        before += more
        pages += bench.shelf.put_away(more, recorded=True)
    assert loaded(pages) == list(map(seen, before))
    assert bench.failures == []
    for page in pages:
        page.let_go()
    assert len(bench.spills()) <= 1


def test_what_could_be_put_away_before_the_disk_was_full_is() -> None:
    bench = Bench()
    messages = [*bench.journaled(b"1"), *bench.alike(b"2"), *bench.journaled(b"3")]
    write(bench.journal)
    bench.disk.refuses = "spill-"
    assert [one.body for one in loaded(bench.shelf.put_away(messages, recorded=True))] == [b"1"]


def test_a_file_that_cannot_be_deleted_does_no_harm() -> None:
    bench = Bench(segment_bytes=100)
    pages = [bench.shelf.put_away(bench.alike(b"%d" % number * 99), recorded=True)[0] for number in range(3)]
    bench.disk.fail_at = len(bench.disk.steps) + 1
    pages[0].let_go()
    assert bench.disk.failed == UNLINK
    assert [one.body[:1] for one in loaded(pages[1:])] == [b"1", b"2"]
    bench.spill.close()


# ---- deadlines


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("journaled", [True, False])
def test_what_expires_is_taken_out_of_a_page(journaled: bool, whole: bool) -> None:
    bench = Bench()
    make = bench.journaled if journaled else bench.alike
    deadlines = (None, None, 30, 30, 40, 20, 50, None, 60, 20)
    messages = [
        message
        for number, deadline in enumerate(deadlines)
        for message in make(*[b"%d" % number * (number + 1)] * 2, deadline=deadline)
    ]
    write(bench.journal)
    (page,) = pages = bench.shelf.put_away(messages, recorded=True)
    assert loaded(pages) == list(map(seen, messages))
    by_deadline = sorted(
        (message for message in messages if message.deadline is not None), key=lambda message: message.deadline or 0
    )
    for expected in by_deadline:
        assert page.earliest == expected.deadline
        if whole:
            assert seen(page.take_earliest(whole=True)) == seen(expected)
        else:
            reads = len(bench.disk.reads)
            taken = page.take_earliest(whole=False)
            assert (taken.lsn, taken.size, taken.deadline, taken.away) == (
                expected.lsn * journaled,
                expected.size,
                expected.deadline,
                False,
            )
            assert len(bench.disk.reads) == reads
        messages.remove(expected)
        assert [message.lsn for message in page.load()] == [message.lsn * journaled for message in messages]
        assert (page.count, page.bytes) == (len(messages), sum(message.size for message in messages))
        numbers = [lsn for first, count in ranges(page) for lsn in range(first, first + count)]
        assert numbers == [message.lsn for message in messages if journaled]
    assert page.earliest == NEVER
    before = bench.spill.disk_bytes
    page.let_go()
    assert before == bench.spill.disk_bytes  # it is the last file of the spill, which stays
    assert sum(segment.counts.get(0, 0) for segment in bench.spill._segments.all) == 0


def test_what_expired_in_the_spill_frees_it() -> None:
    bench = Bench(segment_bytes=100)
    messages = [message for number in range(9) for message in bench.alike(b"%d" % number * 99, deadline=9 - number)]
    pages = bench.shelf.put_away(messages, recorded=True)
    bench.shelf.put_away(bench.alike(b"another"), recorded=True)
    for left in range(9, 0, -1):
        assert len(bench.spills()) == left + 1
        bench_page = next(page for page in reversed(pages) if page.count)
        assert bench_page.take_earliest(whole=False).size == 99
    assert [page.count for page in pages] == [0] * len(pages)
    for page in pages:
        page.let_go()
    assert len(bench.spills()) == 1


# ---- everything at random


@pytest.mark.parametrize("seed", seeds(10, 30))
def test_at_random(seed: int) -> None:
    """Pages of all kinds, read in any order and more than once, while others come and go."""
    random = Random(seed)
    bench = Bench(segment_bytes=random.choice((150, 1000, 20_000)))
    there: list[tuple[list[Page], list[Seen]]] = []
    for _ in range(60):
        messages: list[WireMessage] = []
        for _ in range(random.randint(1, 8)):
            recorded = random.random() < 0.5
            make = bench.journaled if recorded else bench.alike
            messages += make(
                *[random.randbytes(random.choice((0, 5, 200)))] * random.randint(1, 5),
                deadline=random.choice((None, None, 10, 20)),
                mode=random.choice((PERSISTENT, TRANSIENT)),
                priority=random.randint(0, 2),
            )
        if random.random() < 0.8:
            write(bench.journal) if bench.journal.waiting else None
        durable = random.random() < 0.7
        pages = bench.shelf.put_away(messages, recorded=durable)
        kept = messages[: sum(page.count for page in pages)]
        unwritten = [message for message in messages if durable and message.lsn > bench.journal.written_lsn]
        assert kept == (messages[: messages.index(unwritten[0])] if unwritten else messages)
        there.append((pages, [seen(message, numbered=durable) for message in kept]))
        for pages, expected in random.sample(there, min(3, len(there))):
            assert loaded(pages) == expected
        if random.random() < 0.5:
            pages, _ = there.pop(random.randrange(len(there)))
            for page in pages:
                page.let_go()
    while there:
        pages, expected = there.pop(random.randrange(len(there)))
        assert loaded(pages) == expected
        for page in pages:
            page.let_go()
    assert len(bench.spills()) <= 1
    assert bench.failures == []


def test_a_damaged_page() -> None:
    bench = Bench()
    pages = bench.shelf.put_away([*bench.alike(b"one"), *bench.alike(b"more")], recorded=True)
    (name,) = bench.spills()
    bench.disk.flip(name, 60)
    with pytest.raises(JournalDamaged, match=f"^{name}: checksum does not match at offset 0$"):
        loaded(pages)
    assert [str(failure) for failure in bench.failures] == [f"{name}: checksum does not match at offset 0"]
