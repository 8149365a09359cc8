"""Verifying a journal: a sound one is sound, and of a damaged one every damaged place is found, and nothing else.

"Sound" is what a broker would start on; both are asked in every test.
"""

from __future__ import annotations

from random import Random

import pytest

from rabbitish.store.record import HEAD, MAX_BODY_BYTES, PUBLISHES, SEGMENT_HEAD_BYTES, Type
from rabbitish.store.resync import Place
from rabbitish.store.verify import Verified, verify
from tests.thorough import part_of, seeds

from .wreck import (
    FRAMES,
    QUEUE_1,
    ROUTE,
    Journaled,
    MemoryDisk,
    codec,
    flip_some,
    grow,
    grown,
    hit,
    is_refused,
    journal_of,
    name,
    publish,
    records,
    state_of,
)

SEEDS = seeds(6, 12)


def verified(disk: MemoryDisk) -> Verified:
    """What is found; nothing is changed, and a broker agrees."""
    before = {name: bytes(data) for name, data in disk.files.items()}
    found = verify(disk, codec())
    assert {name: bytes(data) for name, data in disk.files.items()} == before
    assert is_refused(disk) == bool(found.damage)
    return found


def places(disk: MemoryDisk) -> list[Place]:
    found = verified(disk)
    return found.damage + found.torn


def small(*, restarts: int = 0) -> MemoryDisk:
    """A short journal of a few segments."""
    return grown(3, steps=14, segment_bytes=900, restarts=restarts)


def the_one(disk: MemoryDisk) -> Place:
    """The one damaged place."""
    (place,) = verified(disk).damage
    return place


# --- Sound journals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sound_journal_is_sound(seed: int) -> None:
    world = grow(seed)
    found = verified(world.disk)
    assert (found.damage, found.torn) == ([], [])
    assert all(note.startswith("not needed any more") for note in found.notes)
    state = state_of(world.broker)
    assert found.queues == len(state)
    assert found.messages == sum(map(len, state.values()))
    assert found.last_lsn == world.journal.last_lsn
    assert found.epoch == max(one.record.epoch for one in records(world.disk))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_in_each_segment(seed: int) -> None:
    disk = grown(seed)
    found = {report.file: report for report in verified(disk).segments}
    assert list(found) == disk.segments()
    for file, report in found.items():
        there = [one.record for one in records(disk) if one.file == file]
        assert report.bytes == len(disk.files[file])
        assert report.records == len(there)
        assert report.messages == sum(record.span for record in there if record.type in PUBLISHES)
        assert 0 <= report.live_bytes <= report.bytes
        assert report.places == 0


def test_how_much_of_a_segment_lives() -> None:
    disk = MemoryDisk()
    world = Journaled(disk)
    client = world.client()
    client.declare("q", durable=True)
    client.publish("q", *[b"x" * 1000] * 4, delivery_mode=2)
    world.settle()
    whole = verified(disk).segments[0].live_bytes
    assert 4 * 1000 < whole < len(disk.files[disk.segments()[0]])  # but for what is declared at its beginning
    for _ in range(3):
        assert client.get("q")
    assert verified(disk).segments[0].live_bytes == pytest.approx(whole / 4, abs=1)


def test_an_empty_journal_is_sound() -> None:
    assert verified(MemoryDisk()).segments == []


def test_files_that_do_not_count_are_no_damage() -> None:
    world = grow(4, restarts=0)
    name = world.compact(0, 1)
    found = verified(world.disk)
    assert found.damage == []
    assert name in [report.file for report in found.segments]
    (note,) = found.notes
    assert note.startswith("not needed any more")
    world.disk.create("journal-000000000009.log.new").write(b"half a segm")
    assert "journal-000000000009.log.new" in verified(world.disk).notes[0]


# --- Flipped bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", seeds(10, 25))
def test_every_flipped_bit_is_found_and_nothing_else(seed: int) -> None:
    random = Random(seed)
    disk = grown(seed % len(SEEDS))
    flipped = flip_some(disk, random, random.choice((1, 2, 5, 20)))
    found = places(disk)
    for file, offset in flipped:
        assert any(place.file == file and place.start <= offset < place.end for place in found), (file, offset)
    for place in found:
        assert any(place.file == file and place.start <= offset < place.end for file, offset in flipped), place


def test_each_byte_is_watched_over() -> None:
    sound = small(restarts=2)
    for file in sound.segments():
        for offset in part_of(range(0, len(sound.files[file]), 13), 5):
            disk = sound.copy()
            disk.flip(file, offset, offset % 8)
            (place,) = places(disk)
            assert place.file == file
            assert place.start <= offset < place.end


@pytest.mark.parametrize("seed", SEEDS)
def test_damage_takes_no_more_than_its_record(seed: int) -> None:
    disk = grown(seed)
    whole = len(records(disk))
    last = disk.segments()[-1]
    some = Random(seed).sample([one for one in records(disk) if one.file != last], 5)
    hit(disk, *some)
    found = verified(disk)
    assert {(place.file, place.start, place.end) for place in found.damage} == {
        (one.file, one.record.start, one.record.end) for one in some
    }
    assert sum(report.records for report in found.segments) == whole - 5
    assert sum(report.places for report in found.segments) == 5


def test_neighbours_that_are_damaged_are_told_apart() -> None:
    disk = small()
    two = records(disk)[10:12]
    assert two[0].record.end == two[1].record.start
    hit(disk, *two)
    assert [(place.start, place.end) for place in verified(disk).damage] == [
        (one.record.start, one.record.end) for one in two
    ]


@pytest.mark.parametrize("size", [0, MAX_BODY_BYTES + 1])
def test_a_length_that_leads_nowhere(size: int) -> None:
    disk = small()
    one = records(disk)[10]
    disk.files[one.file][one.record.start : one.record.start + 4] = size.to_bytes(4, "big")
    place = the_one(disk)
    assert (place.start, place.end) == (one.record.start, one.record.end)


def test_a_length_that_leads_to_another_record() -> None:
    disk = small()
    one, other = records(disk)[10], records(disk)[12]
    assert one.file == other.file
    size = other.record.start - one.record.body
    disk.files[one.file][one.record.start : one.record.start + 4] = size.to_bytes(4, "big")
    place = the_one(disk)
    assert (place.start, place.end) == (one.record.start, one.record.end)


# --- Other damage -----------------------------------------------------------------------------------------------------


def test_every_end_that_a_cut_leaves_is_judged_as_a_broker_would() -> None:
    sound = small()
    last = sound.segments()[-1]
    sizes = part_of(range(0, len(sound.files[last]), 3), 5)
    torn = 0
    for size in sizes:
        disk = sound.copy()
        disk.truncate(last, size)
        found = verified(disk)
        assert found.damage == []
        for place in found.torn:
            assert (place.file, place.end) == (last, size)
        torn += bool(found.torn)
    assert len(sizes) * 4 // 5 < torn < len(sizes)


def test_a_segment_that_was_cut_short_in_the_middle_of_the_journal() -> None:
    disk = small()
    first = disk.segments()[0]
    disk.truncate(first, len(disk.files[first]) - 5)
    assert the_one(disk).reason == "the file ends within a record"


def test_a_segment_that_is_missing() -> None:
    disk = small()
    gone = disk.segments()[1]
    disk.unlink(gone)
    assert the_one(disk) == Place(gone, 0, 0, "the segment is missing")


def test_records_that_were_cut_out() -> None:
    disk = small()
    one, other = records(disk)[10], records(disk)[12]
    del disk.files[one.file][one.record.start : other.record.start]
    place = the_one(disk)
    assert (place.file, place.start, place.end) == (one.file, one.record.start, one.record.start)
    assert place.reason == f"record {other.record.lsn} where {one.record.lsn} is due"


def test_the_end_of_a_segment_that_was_cut_off_between_records() -> None:
    disk = small()
    first = disk.segments()[0]
    last = [one for one in records(disk) if one.file == first][-1]
    disk.truncate(first, last.record.start)
    place = the_one(disk)
    assert place.file == disk.segments()[1]
    assert place.reason.startswith("the segment begins with record")


def test_zeroes_behind_the_last_segment_were_written_ahead_and_behind_another_are_damage() -> None:
    whole = small()
    *_, sealed, last = whole.segments()
    size, before = len(whole.files[last]), verified(whole)
    whole.files[last] += bytes(500)
    found = verified(whole)
    assert (found.damage, found.torn, found.notes) == ([], [], [])
    assert found.segments[-1] == before.segments[-1]._replace(bytes=size + 500)
    disk = small()
    size = len(disk.files[sealed])
    disk.files[sealed] += bytes(500)
    place = the_one(disk)
    assert (place.file, place.start, place.end) == (sealed, size, size + 500)
    assert place.reason.startswith("zeroes")


def test_a_record_that_stands_twice() -> None:
    disk = small()
    one = records(disk)[10]
    disk.files[one.file][one.record.end : one.record.end] = one.raw
    place = the_one(disk)
    assert place.end - place.start == len(one.raw)
    assert place.reason == f"record {one.record.lsn} where {one.record.lsn + one.record.span} is due"


def test_bytes_that_are_missing_in_the_head_of_a_segment_hide_no_record() -> None:
    disk = small()
    file = disk.segments()[1]
    count = len([one for one in records(disk) if one.file == file])
    del disk.files[file][20]
    found = verified(disk)
    assert [(place.file, place.start, place.end) for place in found.damage] == [(file, 0, SEGMENT_HEAD_BYTES - 1)]
    assert found.segments[1].records == count


def test_a_file_under_another_name() -> None:
    disk = small()
    first, second = disk.segments()[:2]
    disk.files[first], disk.files[second] = disk.files[second], disk.files[first]
    found = verified(disk)
    assert {place.reason for place in found.damage} >= {
        f"the file is {second} by its head",
        f"the file is {first} by its head",
    }


def test_a_disk_that_cannot_read_some_of_a_file() -> None:
    disk = grown(1, restarts=0)
    file = disk.segments()[1]
    disk.bad[file] = 5000
    found = verify(disk, codec())
    assert found.damage
    assert all(place.file == file and 0 < place.start < 8192 for place in found.damage)
    assert found.damage[0].start <= 5000 < found.damage[-1].end


def test_another_format_is_not_read_but_a_flipped_number_is_no_other_format() -> None:
    sound = small()
    file = sound.segments()[0]
    disk = sound.copy()
    disk.flip(file, 9, 3)
    place = the_one(disk)
    assert (place.start, place.end) == (0, SEGMENT_HEAD_BYTES)
    assert place.reason.startswith("format version 10")
    disk = sound.copy()
    disk.flip(file, 9, 3)
    disk.files[file][12:16] = b"else"
    place = verified(disk).damage[0]
    assert (place.start, place.end) == (0, len(sound.files[file]))


# --- Records that make no sense ---------------------------------------------------------------------------------------


GOOD = [
    (Type.QUEUE_NEW, QUEUE_1 + name(b"/") + name(b"q") + bytes(4)),
    (Type.PUBLISH, publish(ROUTE, 1, FRAMES)),
    (Type.REMOVE, QUEUE_1 + (2).to_bytes(8, "big") + (1).to_bytes(4, "big")),
]


def test_records_that_make_sense() -> None:
    found = verified(journal_of(*GOOD))
    assert found.damage == []
    assert (found.queues, found.messages) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Type.QUEUE_NEW, QUEUE_1 + name(b"/") + name(b"q")),  # no table
        (Type.QUEUE_NEW, QUEUE_1 + name(b"/") + name(b"q") + (3).to_bytes(4, "big") + b"\1k?"),  # of no type
        (Type.QUEUE_NEW, QUEUE_1 + name(b"/") + name(b"q") + bytes(4) + b"more"),
        (Type.QUEUE_GONE, b"\0\0\1"),
        (Type.EXCHANGE_GONE, name(b"/") + b"\0\0\0\7x"),  # a name that is longer than what is there
        (Type.BOUND, b"\0" + name(b"/")),
        (Type.REMOVE, QUEUE_1 + bytes(11)),
        (Type.REMOVE, b"\0\0\0\1\x63" + bytes(12)),  # for no reason that is known
        (Type.RETURNED, bytes(15)),
        (Type.MARK, b"durably:" + bytes(8)),
        (Type.PUBLISH, publish(ROUTE, 0, FRAMES)),
        (Type.PUBLISH, publish(ROUTE, 1, FRAMES, 40)),
        (Type.PUBLISH, publish(ROUTE + b"x", 1, FRAMES)),
        (Type.PUBLISH, publish(ROUTE, 1, FRAMES[:-1] + b"\0")),  # a frame without its end
        (Type.PUBLISH, publish(ROUTE, 1, FRAMES[:-1])),
        (Type.PUBLISH, publish(ROUTE, 1, FRAMES[:22] + FRAMES[:22])),  # no body
        (Type.PUBLISH, publish(b"\0\2" + ROUTE[2:], 1, FRAMES)),  # on another channel
        (Type.PUBLISH, publish(ROUTE, 1, FRAMES[:19] + b"\x80\0" + FRAMES[21:])),  # a content type that is not there
    ],
)
def test_records_that_make_no_sense(kind: Type, body: bytes) -> None:
    disk = journal_of(*GOOD, (kind, body), (Type.EPOCH, b""))
    found = verify(disk, codec())
    (place,) = found.damage
    assert place.reason.startswith(f"{kind.name} record 4 cannot be decoded (")
    assert place.end - place.start == HEAD.size + len(body)
    assert found.segments[0].records == 4


def test_messages_of_one_record_that_are_not_alike() -> None:
    alike = FRAMES[:6] + b"\x0f" + FRAMES[7:19] + b"\x10\0\2" + FRAMES[21:]
    other = alike.replace(b"\x10\0\2", b"\x10\0\1")
    body = publish(ROUTE, 2, alike)
    assert verify(journal_of(*GOOD, (Type.PUBLISH, body)), codec()).damage == []
    body = body.removesuffix(alike) + other
    assert len(verify(journal_of(*GOOD, (Type.PUBLISH, body)), codec()).damage) == 1


# --- Beside the journal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"storage_id": "x", "epoch": null}', b"\xff"])
def test_what_the_data_directory_knows_of_itself_can_be_damaged(text: bytes) -> None:
    disk = small()
    disk.files["node.json"] = bytearray(text)
    place = the_one(disk)
    assert place.file == "node.json"
    assert place.reason.startswith("it cannot be read")


def test_newest_segments_that_are_missing_can_be_noticed() -> None:
    disk = small(restarts=0)
    assert verified(disk).notes == []
    Journaled(disk)
    disk.unlink(disk.segments()[-1])
    found = verified(disk)
    assert found.damage == []
    assert "the newest segments are missing" in found.notes[0]
