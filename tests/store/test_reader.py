"""Reading messages back: in few reads, and what is found damaged then is never taken for a message."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rabbitish.core.message import Address
from rabbitish.store.reader import Publish
from rabbitish.store.record import HEAD, JournalDamaged, Type, encode, segment_name

from .bench import Bench, Seen, seen
from .made import records, remove, write

AT_FIRST, AT_ONCE = 16 * 1024, 256 * 1024


def bodies(bench: Bench, *ranges: int) -> list[list[bytes]]:
    return [[seen(message).body for message in some] for some in bench.reader.read(ranges, numbered=True)]


def damage(bench: Bench, ranges: Sequence[int]) -> JournalDamaged:
    """The damage that reading these comes upon, of which the server hears too."""
    bench.read_afresh()
    before = len(bench.failures)
    with pytest.raises(JournalDamaged) as raised:
        list(bench.reader.read(ranges, numbered=True))
    assert bench.failures[before:] == [raised.value]
    assert str(raised.value) == f"{raised.value.name}: {raised.value.reason} at offset {raised.value.offset}"
    return raised.value


def test_ranges_one_by_one() -> None:
    bench = Bench()
    first = bench.journaled(b"a", b"b", b"c")[0].lsn
    second = bench.journaled(b"d", b"e")[0].lsn
    remove(bench.journal, first, size=1)
    third = bench.journaled(b"f")[0].lsn
    write(bench.journal)
    assert second == first + 3
    assert bodies(bench, third, 1, first, 5, second, 1, first + 1, 3) == [
        [b"f"],
        [b"a", b"b", b"c", b"d", b"e"],
        [b"d"],
        [b"b", b"c", b"d"],
    ]
    assert bodies(bench) == []


def test_without_numbers() -> None:
    bench = Bench()
    (message,) = bench.journaled(b"a")
    write(bench.journal)
    for numbered in (True, False):
        ((found,),) = bench.reader.read((message.lsn, 1), numbered=numbered)
        assert seen(found) == seen(message, numbered=numbered)


def test_few_reads() -> None:
    """They grow while one follows the other, and begin anew elsewhere."""
    bench = Bench(segment_bytes=1 << 24)
    lsns = [bench.journaled(b"x" * 1000)[0].lsn for _ in range(2000)]
    write(bench.journal)
    assert [len(some) for some in bodies(bench, lsns[0], 1000)] == [1000]
    growing = [AT_FIRST, 2 * AT_FIRST, 4 * AT_FIRST, 8 * AT_FIRST]
    assert bench.disk.reads[:5] == [*growing, AT_ONCE]
    assert set(bench.disk.reads[4:]) == {AT_ONCE} and len(bench.disk.reads) < 9
    before = len(bench.disk.reads)
    assert bodies(bench, lsns[1900], 2, lsns[3], 1) == [[b"x" * 1000] * 2, [b"x" * 1000]]
    assert bench.disk.reads[before:] == [AT_FIRST, AT_FIRST]


def test_what_was_read_is_not_read_again_for_what_is_near_it() -> None:
    """Nor is it kept for what was written behind it since, or for another file."""
    bench = Bench(segment_bytes=2000)
    first = bench.journaled(b"1" * 100)[0].lsn
    write(bench.journal)
    assert bodies(bench, first, 1) == [[b"1" * 100]]
    assert bodies(bench, first, 1) == [[b"1" * 100]]
    assert len(bench.disk.reads) == 1
    for number in range(2, 30):
        lsn = bench.journaled(b"%d" % (number % 10) * 100)[0].lsn
        write(bench.journal)
        assert bodies(bench, lsn, 1, first, 1, lsn, 1) == [
            [b"%d" % (number % 10) * 100],
            [b"1" * 100],
            [b"%d" % (number % 10) * 100],
        ]
    assert len(bench.journal.segments.all) > 2


def test_a_record_larger_than_a_read() -> None:
    bench = Bench(segment_bytes=1 << 24)
    bench.journaled(b"small")
    large = bench.journaled(b"x" * (3 * AT_ONCE))[0].lsn
    after = bench.journaled(b"after")[0].lsn
    write(bench.journal)
    assert bodies(bench, large - 1, 3) == [[b"small", b"x" * (3 * AT_ONCE), b"after"]]
    assert after == large + 1
    (first, whole, last) = bench.disk.reads
    assert (first, last) == (AT_FIRST, 4 * AT_FIRST) and 3 * AT_ONCE < whole < 3 * AT_ONCE + 200


def test_a_record_is_looked_at_once_for_all_that_is_wanted_of_it() -> None:
    bench = Bench()
    first = bench.journaled(*[b"%3d" % number for number in range(300)])[0].lsn
    second = bench.journaled(*[b"%3d" % number for number in range(300, 600)])[0].lsn
    write(bench.journal)
    looked_at = []
    head = bench.publishes.head

    def counting(data: bytes, body: int, kind: int) -> Publish:
        looked_at.append(body)
        return head(data, body, kind)

    bench.publishes.head = counting  # type: ignore[method-assign]
    wanted = [lsn for lsn in range(first, second + 300) if lsn % 3 == 0]
    found = bodies(bench, *[number for lsn in wanted for number in (lsn, 1)])
    assert found == [[b"%3d" % (lsn - first)] for lsn in wanted]
    assert len(looked_at) == 2


def test_very_many_routes() -> None:
    bench = Bench(segment_bytes=1 << 24)
    messages = [bench.journaled(b"x", address=Address("e", str(number)))[0] for number in range(5000)]
    write(bench.journal)
    for _ in range(2):
        ((*found,),) = bench.reader.read((messages[0].lsn, 5000), numbered=True)
        assert list(map(seen, found)) == list(map(seen, messages))
        assert len(bench.publishes._routes) <= 4096


# ---- damage


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_noticed(bit: int) -> None:
    """In the record that is read; others are read as if nothing were."""
    bench = Bench()
    messages = [bench.journaled(b"one", b"two")[0] for _ in range(3)]
    write(bench.journal)
    name = segment_name(1)
    record = [record for record in records(bench.disk.read(name)) if record.type is Type.PUBLISH][1]
    ranges = [number for message in messages for number in (message.lsn, 2)]
    whole = bodies(bench, *ranges)
    reserved = record.start + HEAD.size - 1  # the flags, of which there are none yet, are checked as well
    assert reserved < record.body
    for offset in range(record.start, record.end):
        bench.disk.flip(name, offset, bit)
        found = damage(bench, ranges[2:4])
        assert (found.name, found.offset) == (name, record.start)
        assert found.reason in ("checksum does not match", "the file ends within a record")
        assert bodies(bench, *ranges[:2], *ranges[4:]) == [whole[0], whole[2]]
        bench.disk.flip(name, offset, bit)
    bench.read_afresh()
    assert bodies(bench, *ranges) == whole
    assert max(bench.disk.reads) <= AT_ONCE  # however long a record says it is


def test_what_comes_before_the_damage_is_read() -> None:
    bench = Bench()
    messages = [bench.journaled(b"%d" % number)[0] for number in range(3)]
    write(bench.journal)
    name = segment_name(1)
    bench.disk.flip(name, len(bench.disk.read(name)) - 1)
    reading = bench.reader.read([number for message in messages for number in (message.lsn, 1)], numbered=True)
    found: list[list[Seen]] = []
    with pytest.raises(JournalDamaged):
        found.extend([seen(message) for message in some] for some in reading)
    assert found == [[seen(message)] for message in messages[:2]]


def test_what_was_read_ahead_before_it_was_written() -> None:
    """Zeroes may follow in a file that is being written, which then becomes records."""
    bench = Bench()
    for number in range(20):
        (message,) = bench.journaled(b"%d" % number)
        write(bench.journal)
        assert bench.disk.files[segment_name(1)].zeroes
        (found,) = bench.reader.read((message.lsn, 1), numbered=True)
        assert [seen(each) for each in found] == [seen(message)]


def test_a_file_that_was_cut() -> None:
    bench = Bench()
    (message,) = bench.journaled(b"one")
    write(bench.journal)
    name = segment_name(1)
    whole = bench.disk.read(name)
    record = records(whole)[-1]
    for size in range(record.start, record.end):
        bench.disk.files[name].synced[:] = whole[:size]
        bench.disk.files[name].zeroes = 0
        found = damage(bench, (message.lsn, 1))
        assert (found.name, found.offset) == (name, record.start)
        assert ("ends within" in found.reason) is (size < record.body)


def test_another_record_than_was_written_there() -> None:
    """Whole, but out of another file, or another place, or of another kind."""
    bench = Bench()
    one, two = bench.journaled(b"one")[0], bench.journaled(b"two")[0]
    remove(bench.journal, one.lsn, size=3)
    write(bench.journal)
    name = segment_name(1)
    whole = bench.disk.read(name)
    first, second, removal = records(whole)[-3:]
    of_that_number = b"".join(encode(one.lsn, 1, Type.REMOVE, b"-"))
    others = [whole[wrong.start : wrong.end] for wrong in (second, removal)]
    for wrong in (*others, of_that_number):
        data = whole[: first.start] + wrong
        bench.disk.files[name].synced[:] = data + bytes(len(whole) - len(data))
        found = damage(bench, (one.lsn, 1))
        assert (found.name, found.offset) == (name, first.start)
        assert found.reason == f"not the record {one.lsn} that was written there"
    assert two.lsn == second.lsn


def test_a_disk_that_cannot_be_read() -> None:
    bench = Bench()
    (message,) = bench.journaled(b"one")
    write(bench.journal)
    bench.disk.unreadable = True
    with pytest.raises(OSError, match="cannot be read") as raised:
        list(bench.reader.read((message.lsn, 1), numbered=True))
    assert bench.failures == [raised.value]


def test_a_large_record_is_not_kept_when_it_was_read() -> None:
    bench = Bench(segment_bytes=1 << 24)
    (large,) = bench.journaled(b"x" * 1_000_000)
    some = [bench.journaled(b"%d" % number * 300)[0].lsn for number in range(3)]
    write(bench.journal)
    assert bodies(bench, large.lsn, 1) == [[b"x" * 1_000_000]]
    assert len(bench.reader._data) <= AT_ONCE
    assert bodies(bench, some[0], 3) == [[b"%d" % number * 300 for number in range(3)]]
    assert bodies(bench, large.lsn, 1, some[1], 1) == [[b"x" * 1_000_000], [b"1" * 300]]
    list(bench.reader.husks((large.lsn, 1)))
    assert len(bench.reader._data) <= AT_ONCE


def test_a_large_record_of_many_messages_is_read_once_for_all_of_them() -> None:
    bench = Bench(segment_bytes=1 << 24)
    first = bench.journaled(*[b"%d" % number * 100_000 for number in range(8)])[0].lsn
    write(bench.journal)
    reads = []
    for number in range(8):
        assert bodies(bench, first + number, 1) == [[b"%d" % number * 100_000]]
        reads.append(len(bench.disk.reads))
    assert set(reads) == {reads[0]}
    assert len(bench.reader._data) <= AT_ONCE
