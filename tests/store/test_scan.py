"""What a start makes of files: torn tails are cut, anything else stops it with file and offset."""

from __future__ import annotations

from struct import pack

import pytest

from rabbitish.store.journal import Journal
from rabbitish.store.record import (
    SEGMENT_HEAD_BYTES,
    JournalDamaged,
    Record,
    SegmentHead,
    Type,
    decode_all,
    decode_mark,
    encode,
    encode_mark,
    encode_segment_head,
    segment_name,
)
from rabbitish.store.scan import Cut, Scanned, scan, tidy

from .fake_disk import Contents, FakeDisk
from .made import journal_on, publish, records, write

Visited = list[tuple[SegmentHead, Record, bytes]]


def opened(disk: FakeDisk, *, next_lsn: int = 1, next_sequence: int = 1, segment_bytes: int = 300) -> Journal:
    return journal_on(disk, segment_bytes=segment_bytes, next_sequence=next_sequence, next_lsn=next_lsn)


def grown(batches: int, segment_bytes: int = 300) -> FakeDisk:
    """A journal of so many writes of two records each, the first of which has two messages."""
    disk = FakeDisk()
    journal = opened(disk, segment_bytes=segment_bytes)
    for number in range(batches):
        publish(journal, count=2, content=b"%10d" % number)
        journal.append(Type.REMOVE, b"%d" % number)  # of what, nobody asks here
        write(journal)
    return disk


def found(disk: FakeDisk) -> tuple[Scanned, Visited]:
    """What a scan finds, which changes nothing."""
    visited: Visited = []
    before = files(disk)
    scanned = scan(disk, lambda head, data, record: visited.append((head, record, data[record.body : record.end])))
    assert files(disk) == before
    return scanned, visited


def read(disk: FakeDisk) -> tuple[Scanned, Visited]:
    """What is found at a start, which tidies up."""
    scanned, visited = found(disk)
    tidy(disk, scanned)
    return scanned, visited


def files(disk: FakeDisk) -> dict[str, bytes]:
    return {name: disk.read(name) for name in disk.names()}


def starts(data: bytes) -> list[int]:
    """Where each record of a segment begins."""
    return [record.start for record in records(data)]


def numbers(visited: Visited) -> list[int]:
    """All numbers that were taken."""
    return [lsn for _, record, _ in visited for lsn in range(record.lsn, record.lsn + record.span)]


def test_nothing_there() -> None:
    assert read(FakeDisk()) == (Scanned([], 0, 0, 0, None, []), [])


def test_everything_is_read_in_order_and_again() -> None:
    disk = grown(12)
    assert len(disk.names()) > 2
    before = files(disk)
    scanned, visited = read(disk)
    assert numbers(visited) == list(range(1, scanned.last_lsn + 1))
    assert [body for _, record, body in visited if record.type is Type.REMOVE][:3] == [b"0", b"1", b"2"]
    firsts = {head: record.lsn for head, record, _ in reversed(visited)}
    assert [head for head, _ in scanned.segments] == sorted(firsts)
    assert all(head.first_lsn == lsn for head, lsn in firsts.items())
    assert [(head.name, size) for head, size in scanned.segments] == [
        (name, len(disk.read(name))) for name in sorted(disk.names())
    ]
    assert (scanned.last_sequence, scanned.last_epoch) == (len(disk.names()), 1)
    assert (scanned.cut, scanned.left_over) == (None, [])
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
            assert scanned.segments == [*everything.segments[:-1], (everything.segments[-1][0], kept)]
            assert scanned.last_lsn == numbers(visited)[-1]
            cut = scanned.cut
            assert (cut is None) == (size == kept)
            assert cut is None or (cut.name, cut.offset, cut.bytes) == (last, kept, size - kept)
        else:
            assert scanned.cut == Cut(last, 0, size, "the file ends within the segment's head")
            assert last not in disk.names()
            assert scanned.segments == everything.segments[:-1]
            assert scanned.left_over == [last]
        again, revisited = read(disk)
        assert (again, revisited) == (scanned._replace(cut=None, left_over=[]), visited)
        # and it goes on from there
        sequence, lsn = scanned.last_sequence + 1, scanned.last_lsn + 1
        write(opened(disk, next_lsn=lsn, next_sequence=sequence))
        assert [head for head, _ in read(disk)[0].segments] == [
            *[head for head, _ in scanned.segments],
            SegmentHead(sequence, sequence, 0, lsn, 0),
        ]


@pytest.mark.parametrize("size", [SEGMENT_HEAD_BYTES, SEGMENT_HEAD_BYTES - 1, 9, 1])
@pytest.mark.parametrize("zeroes", [(0, SEGMENT_HEAD_BYTES), (0, 20), (9, 41), (40, SEGMENT_HEAD_BYTES)])
def test_a_head_that_was_never_synced_is_torn(size: int, zeroes: tuple[int, int]) -> None:
    """Nothing is written behind it before it is on disk."""
    disk = grown(3)
    expected = read(disk)[0]
    lsn, name = expected.last_lsn + 1, segment_name(expected.last_sequence + 1)
    head = bytearray(
        encode_segment_head(SegmentHead(expected.last_sequence + 1, expected.last_sequence + 1, 0, lsn, 0))
    )
    head[slice(*zeroes)] = bytes(zeroes[1] - zeroes[0])
    disk.create(name).write(bytes(head[:size]))
    scanned, _ = read(disk)
    assert scanned.cut is not None and scanned.cut[:3] == (name, 0, size)
    assert scanned.segments == expected.segments
    assert name not in disk.names()


def test_a_head_that_is_missing_before_records_is_damage() -> None:
    disk = grown(3)
    last = sorted(disk.names())[-1]
    disk.files[last].synced[:SEGMENT_HEAD_BYTES] = bytes(SEGMENT_HEAD_BYTES)
    with pytest.raises(JournalDamaged, match="not a segment of a journal at offset 0"):
        read(disk)


def test_the_first_records_of_a_segment_may_be_missing() -> None:
    """Two writes to a new segment, of which only the second is there: neither was synced."""
    disk = grown(3)
    expected = read(disk)[0]
    journal = opened(disk, next_lsn=expected.last_lsn + 1, next_sequence=expected.last_sequence + 1)
    first = journal.take()
    journal.write(first)
    publish(journal)
    journal.write(journal.take())
    name = segment_name(expected.last_sequence + 1)
    hole = len(first[0].data) - SEGMENT_HEAD_BYTES
    data = bytearray(disk.read(name))
    data[SEGMENT_HEAD_BYTES : SEGMENT_HEAD_BYTES + hole] = bytes(hole)
    disk.files[name] = Contents(data)
    scanned, _ = read(disk)
    assert scanned.cut is not None and scanned.cut[:2] == (name, SEGMENT_HEAD_BYTES)
    assert scanned.last_lsn == expected.last_lsn


def test_rubbish_at_the_end_is_cut() -> None:
    disk = grown(1)
    (name,) = disk.names()
    whole = disk.read(name)
    for rubbish in (b"\0" * 4096 + b"\1", b"\xff" * 100, whole[SEGMENT_HEAD_BYTES + 4 :]):
        disk.files[name].synced[:] = whole + rubbish
        assert read(disk)[0].cut == Cut(name, len(whole), len(rubbish), read_reason(whole + rubbish))
        assert disk.read(name) == whole


@pytest.mark.parametrize("size", [22, 23, 400, 70_000])
def test_zeroes_at_the_end_were_written_ahead(size: int) -> None:
    disk = grown(5)
    before = files(disk)
    *_, name = sorted(before)
    disk.files[name].synced += bytes(size)
    scanned, _ = read(disk)
    assert scanned.cut is None
    assert scanned == read(disk)[0]
    assert files(disk) == before


def test_zeroes_behind_a_torn_write_go_with_it() -> None:
    disk = grown(5)
    *_, name = sorted(disk.names())
    whole = disk.read(name)
    start = starts(whole)[-1]
    disk.files[name].synced[-3:] = bytes(3 + 400)
    cut = read(disk)[0].cut
    assert cut is not None and cut[:3] == (name, start, len(whole) + 400 - start)
    assert disk.read(name) == whole[:start]


def test_zeroes_behind_a_segment_that_is_not_the_last_are_damage() -> None:
    """That was cut to its length before the next one began."""
    whole = grown(5)
    for name in sorted(whole.names())[:-1]:
        disk = whole.killed()
        end = len(whole.read(name))
        disk.files[name].synced += bytes(100)
        with pytest.raises(JournalDamaged, match="zeroes where the segment should have ended") as raised:
            read(disk)
        assert (raised.value.name, raised.value.offset) == (name, end)


def read_reason(data: bytes) -> str:
    with pytest.raises(Exception, match="offset") as raised:
        list(decode_all(data, SEGMENT_HEAD_BYTES))
    return str(raised.value).rpartition(" at offset ")[0]


def test_what_was_read_is_on_disk() -> None:
    """The process ended before it synced; the next one builds on what it finds, so that must not go with the power."""
    disk = FakeDisk()
    journal = opened(disk)
    write(journal)
    publish(journal, content=b"not synced")
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
    assert segment_name(3) in disk.names()


def test_the_oldest_segments_may_be_missing() -> None:
    disk = grown(12)
    everything = read(disk)[0]
    for number in (1, 2):
        disk.unlink(segment_name(number))
        assert read(disk)[0] == everything._replace(segments=everything.segments[number:])


def test_damage_to_what_a_mark_calls_safe() -> None:
    """In the last segment all that later writes knew to be on disk is refused, the very last write looks torn."""
    whole = grown(5, segment_bytes=10_000)
    (name,) = whole.names()
    everything = records(whole.read(name))
    last_mark = max(record.lsn for record in everything if record.type is Type.MARK)
    offset = SEGMENT_HEAD_BYTES
    for record in everything:
        disk = whole.killed()
        disk.flip(name, record.end - 1)
        if record.lsn < last_mark:  # which was written when all before was synced
            with pytest.raises(JournalDamaged, match="checksum does not match") as raised:
                read(disk)
            assert (raised.value.name, raised.value.offset) == (name, offset)
        else:
            size = len(disk.read(name))
            scanned, _ = read(disk)
            assert scanned.last_lsn == record.lsn - 1
            assert scanned.cut == Cut(name, offset, size - offset, "checksum does not match")
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
    disk.files[name].synced[8:10] = pack(">H", 1)
    with pytest.raises(JournalDamaged, match=r"format version 1; this is a reader of version 2 at offset 0$"):
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
    with pytest.raises(JournalDamaged, match=f"^{segment_name(2)}: the file is {name} by its head at offset 0$"):
        read(disk)


def test_marks_tell_how_far_it_was_safe() -> None:
    disk = FakeDisk()
    journal = opened(disk)
    write(journal)
    first = journal.last_lsn
    journal.append(Type.SNAPSHOT)
    write(journal)
    data = disk.read(segment_name(1))
    assert [decode_mark(data, record.body) for record in records(data) if record.type is Type.MARK] == [0, first]


def test_a_mark_within_a_message_is_none() -> None:
    """Clients may write what looks like one: it counts only where all of it is a whole record."""
    disk = FakeDisk()
    journal = opened(disk, segment_bytes=10_000)
    write(journal)
    (name,) = disk.names()
    safe = len(disk.read(name))
    publish(journal, content=b"durable:" + b"\xff" * 8 + encode_mark(1 << 40))
    write(journal)
    disk.flip(name, safe + 30)
    scanned, _ = read(disk)
    assert scanned.cut is not None and scanned.cut.offset == safe


def test_epochs() -> None:
    """The highest of all, so that the next one is higher."""
    disk = FakeDisk()
    lsn, sequence = 1, 1
    for epoch in (3, 8, 5):
        journal = journal_on(disk, next_lsn=lsn, next_sequence=sequence, epoch=epoch)
        write(journal)
        lsn, sequence = journal.last_lsn + 1, sequence + 1
    assert read(disk)[0].last_epoch == 8


# ---- segments that were written anew


def anew(disk: FakeDisk, sequence: int, last: int, generation: int, keep: int) -> SegmentHead:
    """Write segments anew as one of which every so many-th record is left; the old ones stay."""
    heads = {head.sequence: head for head, _ in found(disk)[0].segments}
    old = [head for head in heads.values() if sequence <= head.sequence and head.last <= last]
    following = heads.get(last + 1)
    next_lsn = following.first_lsn if following is not None else found(disk)[0].last_lsn + 1
    head = SegmentHead(sequence, last, generation, old[0].first_lsn, next_lsn)
    pieces = [encode_segment_head(head)]
    for name in [one.name for one in old]:
        data = disk.read(name)
        pieces += [data[record.start : record.end] for record in records(data)[::keep]]
    file = disk.create(head.name)
    file.write(b"".join(pieces))
    file.sync()
    return head


def test_a_segment_written_anew_takes_the_place_of_the_old() -> None:
    disk = grown(12)
    before, everything = found(disk)
    head = anew(disk, 2, 3, 1, keep=2)
    scanned, visited = read(disk)
    assert [one for one, _ in scanned.segments] == [
        before.segments[0][0],
        head,
        *[one for one, _ in before.segments[3:]],
    ]
    assert sorted(scanned.left_over) == [segment_name(2), segment_name(3)]
    assert scanned[1:5] == before[1:5]
    assert set(numbers(visited)) < set(numbers(everything))
    assert [one for one in visited if one[0] is not head and one[0].sequence > 3] == [
        one for one in everything if one[0].sequence > 3
    ]
    assert segment_name(2) not in disk.names() and segment_name(3) not in disk.names()
    assert read(disk) == (scanned._replace(left_over=[]), visited)


def test_and_may_be_written_anew_itself() -> None:
    disk = grown(12)
    before = found(disk)[0]
    anew(disk, 2, 3, 1, keep=2)
    head = anew(disk, 1, 3, 2, keep=1)
    scanned, _ = read(disk)
    assert [one for one, _ in scanned.segments][:2] == [head, before.segments[3][0]]
    assert sorted(scanned.left_over) == sorted([*map(segment_name, (1, 2, 3)), segment_name(2, 3, 1)])


def test_all_but_the_newest_written_anew_and_nothing_left_of_it() -> None:
    disk = grown(12)
    before = found(disk)[0]
    last = before.last_sequence - 1
    head = anew(disk, 1, last, 1, keep=1000)
    scanned, visited = read(disk)
    assert [one for one, _ in scanned.segments] == [head, before.segments[-1][0]]
    assert scanned.last_lsn == before.last_lsn
    assert len([one for one in visited if one[0] == head]) == last


def test_a_file_that_was_not_finished_does_not_count() -> None:
    disk = grown(12)
    before = found(disk)
    disk.create(segment_name(2, 3, 1) + ".new").write(b"half a file")
    scanned, visited = read(disk)
    assert (scanned._replace(left_over=[]), visited) == before
    assert scanned.left_over == [segment_name(2, 3, 1) + ".new"]
    assert not any(name.endswith(".new") for name in disk.names())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("cut", "the file ends within a record"),
        ("flipped", "checksum does not match"),
        ("headless", "the file ends within the segment's head"),
        ("order", "record 1 where [0-9]+ is due"),
        ("beyond", "record [0-9]+ in a segment that ends before"),
        ("gap", "the segment begins with record"),
    ],
)
def test_a_segment_written_anew_is_never_torn(bad: str, reason: str) -> None:
    """It got its name when all of it was on disk. Nor can its numbers be others than those it stands for."""
    disk = grown(12)
    last = found(disk)[0].last_sequence
    assert last >= 3
    if bad == "gap":
        head = anew(disk, 1, last - 1, 1, keep=1)
        wrong = head._replace(next_lsn=head.next_lsn - 1, generation=1)
        data = encode_segment_head(wrong) + disk.read(head.name)[SEGMENT_HEAD_BYTES:]
        stop = next(r for r in reversed(records(data)) if r.lsn + r.span <= wrong.next_lsn)
        disk.files[head.name].synced[:] = data[: stop.end]
    else:
        head = anew(disk, 1, last, 1, keep=2)
        contents = disk.files[head.name].synced
        if bad == "cut":
            del contents[-3:]
        elif bad == "flipped":
            contents[-1] ^= 1
        elif bad == "headless":
            del contents[10:]
        elif bad == "order":
            first = records(bytes(contents))[0]
            contents += contents[first.start : first.end]
        else:
            contents += b"".join(encode(head.next_lsn, 1, Type.SNAPSHOT))
    before = files(disk)
    with pytest.raises(JournalDamaged, match=reason):
        read(disk)
    assert files(disk) == before


def test_segments_that_overlap_are_damage() -> None:
    disk = grown(12)
    anew(disk, 1, 2, 1, keep=1)
    anew_head = anew(disk, 3, 4, 1, keep=1)
    contents = disk.files.pop(anew_head.name)
    for number in (3, 4):
        disk.files.pop(segment_name(number))
    disk.files[segment_name(2, 4, 1)] = contents
    with pytest.raises(JournalDamaged, match="the segment is missing"):
        read(disk)
