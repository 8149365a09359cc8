"""A leader's journal on its replica's log: what it writes, drops and writes anew is what mirrors and a restart find."""

from __future__ import annotations

import pytest

from rabbitish.cluster.protocol.disk_log import DiskLog
from rabbitish.cluster.protocol.disk_pieces import PIECE_BYTES, Pieces, Place
from rabbitish.store.record import PUBLISH_HEAD, SEGMENT_HEAD_BYTES, SegmentHead, Type, decode_all, encode_mark

from .journaled import SEGMENT_BYTES, Leader, Mirror, SharedDisk, Traffic, opened, started, state_of_folder, synced
from .memory_log import record


def heads(log: DiskLog) -> list[int]:
    return [head.first_lsn for head, _ in log._segments]


@pytest.mark.parametrize("seed", [1])
def test_mirrors_and_restarts_find_what_the_leader_has(seed: int) -> None:
    """One mirror follows closely, one comes now and then, one at last; the leader starts anew in the middle."""
    disk, leader = started()
    close, now_and_then = Mirror(leader.log), Mirror(leader.log)
    for round_ in range(3):
        leader.replicate = close.feed
        traffic = Traffic(leader, seed * 10 + round_)
        for _ in range(6):
            traffic.steps(25)
            leader.compact()
            if traffic.random.random() < 0.5:
                now_and_then.feed(300)
        leader.replicate = lambda: None
        left = SharedDisk()
        left.files = disk.killed().files
        expected = state_of_folder(disk)
        at_last = Mirror(leader.log)
        for mirror in (close, now_and_then, at_last):
            mirror.feed()
            assert mirror.state() == expected
            assert opened(mirror.disk).starts == leader.log.starts
        disk, log = left, opened(left)
        assert log.starts == leader.log.starts and log.last == leader.log.last and log.base <= leader.log.base
        leader = Leader(disk, log, now=leader.now)
        for mirror in (close, now_and_then):
            mirror.leader = leader.log
    assert leader.log.base > 0 and at_last.snapshots == 1 and close.snapshots == 0


def test_a_mirrors_segments_begin_where_the_leaders_do() -> None:
    _, leader = started()
    mirror = Mirror(leader.log)
    leader.replicate = lambda: mirror.feed(700)
    Traffic(leader, 1).steps(150)
    ours, theirs = heads(leader.log), heads(mirror.log)
    assert len(ours) > 5
    assert theirs[-len(ours) :] == ours  # it has dropped none


def test_the_second_beginning_of_an_epoch_is_none() -> None:
    disk, leader = started()
    leader.sync()
    mirror = Mirror(leader.log)
    mirror.feed()
    found = [r.lsn for name in disk.names() if name.startswith("journal-") for r in decode_all_of(disk, name)]
    assert found and 1 not in found  # the journal's is there, and the replica's has gone with its segment
    assert [start.lsn for start in mirror.log.starts] == [1] == [start.lsn for start in opened(mirror.disk).starts]
    at = mirror.log.last + 1
    mirror.log.append(record(at, 1, Type.EPOCH))
    assert len(mirror.log.starts) == 1
    mirror.log.append(record(at + 1, 2, Type.EPOCH) + record(at + 2, 2, Type.EPOCH))
    assert [tuple(start) for start in mirror.log.starts] == [(1, 1), (2, at + 1)]
    synced(mirror.log)
    mirror.log.truncate(at + 1)
    assert len(mirror.log.starts) == 2
    mirror.log.truncate(at)
    assert len(mirror.log.starts) == 1


def decode_all_of(disk: SharedDisk, name: str) -> list[object]:
    return [r for r in decode_all(disk.read(name), SEGMENT_HEAD_BYTES) if r.type is Type.EPOCH]


def test_epochs_are_known_whose_records_went_with_their_segments() -> None:
    """Or else nobody could tell how far two logs are the same, and nothing could be appended in the epoch."""
    disk, leader = started()
    traffic = Traffic(leader, 1)
    while leader.log.base < 60:
        traffic.steps(10)
    assert leader.log._segments[0][0].first_lsn > leader.log.starts[0].lsn
    left = SharedDisk()
    left.files = disk.killed().files
    again = opened(left)
    assert again.starts == leader.log.starts
    mirror = Mirror(again)
    mirror.feed()
    assert mirror.log.starts == leader.log.starts
    assert opened(mirror.disk).starts == leader.log.starts


def test_what_is_sealed_can_be_read_by_others_and_is_not_appended_to() -> None:
    disk = SharedDisk()
    log = opened(disk)
    log.note_epoch(1)
    log.append(record(1, 1, Type.EPOCH))
    log.seal()
    synced(log)
    name = log._segments[-1][0].name
    assert not disk.files[name].zeroes and not disk.files[name].unsynced
    size = disk.size(name)
    log.append(record(2, 1, Type.VHOST_NEW, b"x"))
    synced(log)
    assert disk.size(name) == size and len(log._segments) == 2
    log.seal()
    with pytest.raises(AssertionError):
        log.append_batch([record(3, 1, Type.VHOST_NEW, b"x")], 3)
    log.begin_segment(SegmentHead(3, 3, 0, 3, 0))
    log.append_batch([record(3, 1, Type.VHOST_NEW, b"x")], 3)
    synced(log)
    assert opened(disk.killed()).last == 3


def test_a_snapshot_is_what_was_there_when_it_was_asked_for() -> None:
    """Its files stay and so does the base, so that what follows it can be read, until nobody has it any more."""
    disk, leader = started()
    traffic = Traffic(leader, 3)
    for _ in range(8):
        traffic.steps(25)
        leader.compact()
    log = leader.log
    assert log.base
    expected = b"".join(log.snapshot())
    base, slow = log.base, log.snapshot()
    taken = [next(slow)]
    files = set(leader.segments())
    for _ in range(4):
        traffic.steps(25)
        leader.compact()
    assert log.held and log.base == base
    assert files <= set(leader.segments())
    mirror = Mirror(log)
    taken += slow
    assert b"".join(taken) == expected
    mirror.log.note_epoch(log.epoch)
    mirror.log.begin_install(base)
    for piece in taken:
        mirror.log.install(piece)
    mirror.log.end_install()
    mirror.feed()
    assert not mirror.snapshots
    assert mirror.state() == state_of_folder(disk)
    del slow
    assert not log.held
    leader.journal.delete(log.drop())
    assert log.base > base and not files <= set(leader.segments())
    assert mirror.state() == state_of_folder(disk)


def test_who_reads_a_snapshot_too_slowly_does_not_keep_the_log_from_dropping() -> None:
    disk, leader = started()
    traffic, keeper = Traffic(leader, 3), leader.client(1)
    keeper.declare("kept", durable=True)
    for _ in range(6):
        keeper.publish("kept", b"." * 50, delivery_mode=2)
        traffic.steps(25)
        leader.compact()
    log = leader.log
    size, slow = log.size, log.snapshot()
    largest, files = size, {name for name, _ in slow._segments}
    assert files
    while files <= set(leader.segments()):
        traffic.steps(25)
        leader.compact()
        largest = max(largest, log.size)
    assert 2 * size < largest < 2 * size + 20 * SEGMENT_BYTES and log.size < largest
    with pytest.raises((OSError, KeyError)):  # the disk in memory says it so
        list(slow)
    mirror = Mirror(log)
    mirror.feed()
    assert mirror.state() == state_of_folder(disk)


def test_little_batches_take_little_memory() -> None:
    """Neighbours that are written become one piece, of a size that is read at once."""
    disk = SharedDisk()
    log = opened(disk)
    log.note_epoch(1)
    log.append(record(1, 1, Type.EPOCH))
    for lsn in range(2, 5_000):
        log.append_batch([record(lsn, 1, Type.VHOST_NEW, b"x" * 30)], lsn)
        if lsn % 7 == 0:
            synced(log)
    whole, end = log.read(0, 1 << 30)
    synced(log)
    assert len(log._pieces) <= 5_000 * 52 // PIECE_BYTES + 2
    assert log.read(0, 1 << 30) == (whole, end)
    after, parts = 0, []
    while after < log.last:
        part, after = log.read(after, 1_000)
        parts.append(part)
    assert b"".join(parts) == whole


def test_a_large_batch_is_read_in_pieces() -> None:
    """On its way to the disk and afterwards; a large record stays whole."""
    disk = SharedDisk()
    for written in (False, True):
        log = opened(SharedDisk() if written else disk)
        log.note_epoch(1)
        log.append(record(1, 1, Type.EPOCH))
        records = [record(lsn, 1, Type.VHOST_NEW, b"x" * (30 if lsn % 50 else 5_000)) for lsn in range(2, 400)]
        log.append_batch([b"".join(records[:100]), *records[100:102], b"".join(records[102:])], 399)
        if written:
            synced(log)
        after, sizes, parts = 1, [], []
        while after < log.last:
            data, after = log.read(after, 1_000)
            sizes.append(len(data))
            parts.append(data)
        assert b"".join(parts) == b"".join(records)
        assert max(sizes) < 6_500 and len(sizes) > 10
        synced(log)
        assert log.read(1, 1 << 30)[0] == b"".join(records)


def test_what_was_appended_is_written_at_once() -> None:
    disk = SharedDisk()
    log = opened(disk)
    log.note_epoch(1)
    log.append(record(1, 1, Type.EPOCH))
    synced(log)
    steps = len(disk.steps)
    body = b"x" * 100_000
    large = record(2, 1, Type.PUBLISH, PUBLISH_HEAD.pack(0, 0, 1, len(body)), body)
    log.append_batch([large[:-100_000], body], 2)
    log.append_batch([record(3, 1, Type.MARK, encode_mark(1))], 3)
    log.append_batch([record(4, 1, Type.VHOST_NEW, b"x")], 4)
    synced(log)
    assert disk.steps[steps:] == ["write", "sync"]
    assert opened(disk.killed()).last == 4


def test_pieces_that_are_not_neighbours_stay_apart() -> None:
    pieces = Pieces(SharedDisk())
    pieces.add(1, 1, Place("a", 54), 10, (b"x" * 10,))
    pieces.add(2, 2, Place("b", 54), 10, (b"x" * 10,))
    pieces.add(3, 3, Place("b", 64), 10, (b"x" * 10,))
    pieces.written(pieces.serial)
    assert [(piece.first, piece.last, piece.size) for piece in pieces._all] == [(1, 1, 10), (2, 3, 20)]
