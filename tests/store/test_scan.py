"""What a start makes of files: torn tails are cut, anything else stops it with file and offset."""

from __future__ import annotations

from struct import pack

import pytest

from rabbitish.store.journal import Journal
from rabbitish.store.record import (
    SEGMENT_HEAD_BYTES,
    Record,
    Type,
    decode_all,
    encode,
    segment_name,
)
from rabbitish.store.scan import Cut, JournalDamaged, Scanned, scan

from .fake_disk import FakeDisk


def write(journal: Journal) -> None:
    journal.synced(journal.write(journal.take()))


def opened(disk: FakeDisk, *, next_lsn: int = 1, next_sequence: int = 1, segment_bytes: int = 300) -> Journal:
    journal = Journal(
        disk,
        segment_bytes=segment_bytes,
        next_sequence=next_sequence,
        next_lsn=next_lsn,
        snapshot=lambda journal: None,
    )
    journal.begin()
    return journal


def grown(batches: int, segment_bytes: int = 300) -> FakeDisk:
    """A journal of so many writes of two records each."""
    disk = FakeDisk()
    journal = opened(disk, segment_bytes=segment_bytes)
    for number in range(batches):
        journal.append(Type.PUBLISH, b"%d" % number, b"-" * 40)
        journal.append(Type.REMOVE, b"%d" % number)
        write(journal)
    return disk


def read(disk: FakeDisk) -> tuple[Scanned, list[tuple[int, Record]]]:
    visited: list[tuple[int, Record]] = []
    scanned = scan(disk, lambda sequence, record: visited.append((sequence, record)))
    return scanned, visited


def files(disk: FakeDisk) -> dict[str, bytes]:
    return {name: disk.read(name) for name in disk.names()}


def starts(data: bytes) -> list[int]:
    """Where each record of a segment begins."""
    return [SEGMENT_HEAD_BYTES, *[record.end for record in decode_all(data, SEGMENT_HEAD_BYTES)]][:-1]


def test_nothing_there() -> None:
    assert read(FakeDisk()) == (Scanned([], 0, 0, None), [])


def test_everything_is_read_in_order_and_again() -> None:
    disk = grown(12)
    assert len(disk.names()) > 2
    before = files(disk)
    scanned, visited = read(disk)
    assert [record.lsn for _, record in visited] == list(range(1, scanned.last_lsn + 1))
    assert [record.body[:1] for _, record in visited if record.type is Type.REMOVE][:3] == [b"0", b"1", b"2"]
    firsts = {sequence: record.lsn for sequence, record in reversed(visited)}
    assert scanned.segments == sorted(firsts.items())
    assert scanned.last_sequence == len(disk.names())
    assert scanned.cut is None
    assert read(disk) == (scanned, visited)
    assert files(disk) == before


def test_other_files_are_let_alone() -> None:
    disk = grown(2)
    disk.create("lock").write(b"1")
    disk.create("journal.txt").write(b"?")
    assert read(disk)[0].cut is None
    assert disk.read("lock") == b"1"


# ---- torn tails


def test_a_last_segment_cut_anywhere() -> None:
    """A power loss may leave any prefix of the last write; what was whole before it is kept."""
    whole = grown(7)
    last = sorted(whole.names())[-1]
    data = whole.read(last)
    ends = [SEGMENT_HEAD_BYTES, *[record.end for record in decode_all(data, SEGMENT_HEAD_BYTES)]]
    (everything, records) = read(whole)
    for size in range(len(data) + 1):
        disk = whole.killed()
        disk.truncate(last, size)
        scanned, visited = read(disk)
        kept = max((end for end in ends if end <= size), default=0)
        assert visited == records[: len(visited)]
        if kept:
            assert disk.read(last) == data[:kept]
            assert scanned.segments == everything.segments
            assert scanned.last_lsn == visited[-1][1].lsn
            cut = scanned.cut
            assert (cut is None) == (size == kept)
            assert cut is None or (cut.name, cut.offset, cut.bytes) == (last, kept, size - kept)
        else:
            assert scanned.cut == Cut(last, 0, size, "the file ends within the segment's head")
            assert last not in disk.names()
            assert scanned.segments == everything.segments[:-1]
        again, revisited = read(disk)
        assert (again, revisited) == (scanned._replace(cut=None), visited)
        # and it goes on from there
        journal = opened(disk, next_lsn=scanned.last_lsn + 1, next_sequence=scanned.last_sequence + 1)
        write(journal)
        assert read(disk)[0].segments == [*scanned.segments, (scanned.last_sequence + 1, scanned.last_lsn + 1)]


def test_rubbish_at_the_end_is_cut() -> None:
    disk = grown(1)
    (name,) = disk.names()
    whole = disk.read(name)
    for rubbish in (b"\0" * 4096, b"\xff" * 100, whole[SEGMENT_HEAD_BYTES + 4 :]):
        disk.files[name].synced[:] = whole + rubbish
        assert read(disk)[0].cut == Cut(name, len(whole), len(rubbish), read_reason(whole + rubbish))
        assert disk.read(name) == whole


def read_reason(data: bytes) -> str:
    with pytest.raises(Exception, match="offset") as raised:
        list(decode_all(data, SEGMENT_HEAD_BYTES))
    return str(raised.value).rpartition(" at offset ")[0]


def test_what_was_read_is_on_disk() -> None:
    """The process ended before it synced; the next one builds on what it finds, so that must not go with the power."""
    disk = FakeDisk()
    journal = opened(disk)
    write(journal)
    journal.append(Type.PUBLISH, b"not synced")
    (batch,) = journal.take()
    name = segment_name(1)
    disk.files[name].unsynced += batch.data
    disk = disk.killed()
    scanned, _ = read(disk)
    assert scanned.last_lsn == batch.last_lsn
    journal = opened(disk, next_lsn=scanned.last_lsn + 1, next_sequence=2)
    write(journal)
    for seed in range(5):
        assert read(disk.power_lost(seed))[0].last_lsn == journal.last_lsn


# ---- damage


def test_a_flipped_bit_in_any_record_of_an_older_segment() -> None:
    whole = grown(12)
    for name in sorted(whole.names())[:-1]:
        data = whole.read(name)
        begins = starts(data)
        for start, end in zip(begins, [*begins[1:], len(data)], strict=True):
            for offset in range(start, end, 7):
                disk = whole.killed()
                disk.flip(name, offset, offset % 8)
                before = files(disk)
                with pytest.raises(JournalDamaged) as raised:
                    read(disk)
                assert (raised.value.name, raised.value.offset) == (name, start)
                assert str(raised.value) == f"{name}: {raised.value.reason} at offset {start}"
                assert files(disk) == before


def test_a_flipped_bit_in_any_segments_head() -> None:
    whole = grown(12)
    for name in whole.names():
        disk = whole.killed()
        disk.flip(name, 20)
        with pytest.raises(JournalDamaged, match="checksum of the segment's head does not match") as raised:
            read(disk)
        assert raised.value.name == name


def test_an_older_segment_that_was_cut() -> None:
    whole = grown(12)
    name = sorted(whole.names())[1]
    for offset in starts(whole.read(name)):
        disk = whole.killed()
        disk.truncate(name, offset)
        with pytest.raises(JournalDamaged, match="the segment begins with record") as raised:
            read(disk)
        assert raised.value.name == segment_name(3)
        disk.truncate(name, offset - 1)
        with pytest.raises(JournalDamaged, match="ends within") as raised:
            read(disk)
        assert raised.value.name == name


def test_a_missing_segment() -> None:
    disk = grown(12)
    disk.unlink(segment_name(2))
    with pytest.raises(JournalDamaged, match=r"^journal-000000000002.log: the segment is missing at offset 0$"):
        read(disk)


def test_the_oldest_segments_may_be_missing() -> None:
    disk = grown(12)
    everything = read(disk)[0]
    disk.unlink(segment_name(1))
    assert read(disk)[0] == everything._replace(segments=everything.segments[1:])


def test_damage_to_what_a_mark_calls_safe() -> None:
    """In the last segment all that later writes knew to be on disk is refused, the very last write looks torn."""
    whole = grown(5, segment_bytes=10_000)
    (name,) = whole.names()
    records = list(decode_all(whole.read(name), SEGMENT_HEAD_BYTES))
    last_mark = max(record.lsn for record in records if record.type is Type.MARK)
    offset = SEGMENT_HEAD_BYTES
    for record in records:
        disk = whole.killed()
        disk.flip(name, record.end - 1)
        if record.lsn < last_mark:
            with pytest.raises(JournalDamaged, match="checksum does not match") as raised:
                read(disk)
            assert (raised.value.name, raised.value.offset) == (name, offset)
        else:
            scanned, _ = read(disk)
            assert scanned.last_lsn == record.lsn - 1
            assert scanned.cut == Cut(name, offset, len(whole.read(name)) - offset, "checksum does not match")
        offset = record.end


def test_a_length_that_was_damaged_hides_no_mark() -> None:
    whole = grown(5, segment_bytes=10_000)
    (name,) = whole.names()
    for offset in starts(whole.read(name))[:-3]:
        disk = whole.killed()
        disk.flip(name, offset, 7)  # the length is beyond the end now
        with pytest.raises(JournalDamaged, match="ends within a record"):
            read(disk)


@pytest.mark.parametrize("last", [True, False])
def test_records_of_the_future_are_never_cut(last: bool) -> None:
    disk = grown(1)
    (name,) = disk.names()
    end = len(disk.read(name))
    lsn = read(disk)[0].last_lsn + 1
    future = b"".join(encode(lsn, 1, 99, b"what is this"))  # type: ignore[arg-type]
    disk.files[name].synced += future
    if not last:
        write(opened(disk, next_lsn=lsn + 1, next_sequence=2))
    with pytest.raises(JournalDamaged, match="unknown record type 99") as raised:
        read(disk)
    assert raised.value.offset == end


def test_a_gap_in_the_numbers() -> None:
    disk = grown(1)
    (name,) = disk.names()
    end = len(disk.read(name))
    lsn = read(disk)[0].last_lsn
    disk.files[name].synced += b"".join(encode(lsn + 2, 1, Type.SNAPSHOT))
    with pytest.raises(JournalDamaged, match=f"record {lsn + 2} where {lsn + 1} is due at offset {end}$"):
        read(disk)


def test_a_segment_of_another_version() -> None:
    disk = grown(12)
    name = sorted(disk.names())[-1]
    disk.files[name].synced[8:10] = pack(">H", 2)
    with pytest.raises(JournalDamaged, match=r"format version 2; this is a reader of version 1 at offset 0$"):
        read(disk)


def test_a_segment_under_anothers_name() -> None:
    disk = grown(1)
    (name,) = disk.names()
    lsn = read(disk)[0].last_lsn + 1
    journal = opened(disk, next_lsn=lsn + 5, next_sequence=2)
    write(journal)
    with pytest.raises(JournalDamaged, match=f"the segment begins with record {lsn + 5}, not {lsn}"):
        read(disk)
    disk.files[segment_name(2)] = disk.files.pop(name)
    with pytest.raises(JournalDamaged, match="the file is segment 1 by its head"):
        read(disk)


def test_marks_tell_how_far_it_was_safe() -> None:
    disk = FakeDisk()
    journal = opened(disk)
    write(journal)
    first = journal.last_lsn
    journal.append(Type.SNAPSHOT)
    write(journal)
    marks = [record for _, record in read(disk)[1] if record.type is Type.MARK]
    assert [record.body for record in marks] == [pack(">Q", 0), pack(">Q", first)]
