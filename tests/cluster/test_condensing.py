"""A mirror makes room by itself: whoever leads on what is left finds what it would have found in all of it."""

from __future__ import annotations

import gc
from functools import cache
from itertools import count
from random import Random

import pytest

from rabbitish.cluster.protocol.disk_log import DiskLog
from rabbitish.session.content import PropertyCache, WireCodec
from rabbitish.store.condensing import Condensed, condense
from rabbitish.store.record import SEGMENT_HEAD_BYTES, Type, decode_all
from tests.store.fake_disk import Contents

from .journaled import SEGMENT_BYTES, Mirror, SharedDisk, Traffic, opened, started, state_of_folder, synced
from .memory_log import record

CODEC = WireCodec(PropertyCache(100))


def condensed(disk: SharedDisk, up_to: int) -> Condensed:
    return condense(disk, CODEC, up_to, SEGMENT_BYTES)


def ends(log: DiskLog, after: int) -> list[int]:
    """Where records end behind a number, and that."""
    found = [after]
    while found[-1] < log.last:
        found.append(log.read(found[-1], 1)[1])
    return found


def cut(disk: SharedDisk, lsn: int) -> SharedDisk:
    """The folder, with all cut off behind a number."""
    left = SharedDisk()
    left.files = disk.killed().files
    log = opened(left)
    log.truncate(lsn)
    synced(log)
    assert log.last == lsn
    return left


@pytest.mark.parametrize("seed", range(1, 4))
def test_what_is_recovered_is_the_same(seed: int) -> None:
    """Whatever is cut off behind what was committed when room was made."""
    _, leader = started()
    ours, whole = Mirror(leader.log), Mirror(leader.log)
    traffic, random = Traffic(leader, seed), Random(seed)
    rewritten = dead = 0
    for _ in range(8):
        traffic.steps(30)
        for mirror in (ours, whole):
            mirror.feed(900)
        if random.random() < 0.6:
            committed = random.choice(ends(ours.log, max(ours.log.base, ours.log.last - 60)))
            found = condensed(ours.disk, committed)
            rewritten, dead = rewritten + len(found.rewritten), dead + len(found.dead)
            assert ours.log.condense(found)
            synced(ours.log)
            assert ours.log.base <= committed
            assert ours.log.size == found.left + sum(
                size for head, size in ours.log._segments if head.first_lsn > committed + 1
            ) + (size_behind(ours.log, committed))
            at = random.choice(ends(whole.log, committed)[:40])
            assert state_of_folder(cut(ours.disk, at)) == state_of_folder(cut(whole.disk, at))
    assert rewritten and dead
    assert ours.log.size < whole.log.size
    assert ours.state() == whole.state()
    left = SharedDisk()
    left.files = ours.disk.killed().files
    again = opened(left)
    assert (again.starts, again.base, again.last) == (ours.log.starts, ours.log.base, ours.log.last)
    assert sorted(left.files) == sorted(ours.disk.files), "nothing was left over"
    leader.log = ours.log  # and a third one that gets everything from what is left
    third = Mirror(ours.log)
    third.feed()
    assert third.state() == whole.state()


def size_behind(log: DiskLog, lsn: int) -> int:
    """How many bytes stand behind a number in the segment that it is in."""
    for head, size in log._segments:
        if not head.generation and head.first_lsn <= lsn + 1:
            inside = head, size
    head, size = inside
    end = SEGMENT_HEAD_BYTES
    data = log._disk.read(head.name)[:size]
    for each in decode_all(data, SEGMENT_HEAD_BYTES):
        if each.lsn + each.span - 1 > lsn:
            break
        end = each.end
    return size - end


@cache
def _made(seed: int, late: int) -> dict[str, bytes]:
    _, leader = started()
    mirror = Mirror(leader.log)
    leader.replicate = mirror.feed
    traffic = Traffic(leader, seed)
    keeper = leader.client(1)
    keeper.declare("kept", durable=True)
    for round_ in range(9):
        if round_ > late:
            keeper.publish("kept", b"." * 50, delivery_mode=2)
        traffic.steps(15)
    mirror.log.close()
    return {name: mirror.disk.read(name) for name in mirror.disk.names()}


def made(seed: int, late: int = 0) -> SharedDisk:
    """A mirror's folder with much that is dead; so `late` come the messages that stay."""
    disk = SharedDisk()
    disk.files = {name: Contents(data) for name, data in _made(seed, late).items()}
    return disk


def test_a_fault_at_every_step() -> None:
    """Whatever a crash leaves can be opened, and has lost nothing."""
    before = made(1)
    expected = state_of_folder(before)
    for fail_at in count(1):
        disk = SharedDisk(fail_at=fail_at, seed=fail_at)
        disk.files = before.killed().files
        try:
            log = opened(disk)
            log.condense(condensed(disk, log.last))
            synced(log)
        except OSError:
            assert disk.failed
        for left in (disk.killed(), disk.power_lost(fail_at)):
            shared = SharedDisk()
            shared.files = left.files
            assert state_of_folder(shared) == expected
        if not disk.failed:
            assert len(disk.steps) > 10
            break


def test_removals_are_kept_as_long_as_what_they_removed_may_be_there() -> None:
    """Dead files are deleted last: when a crash comes before that, what was in them does not come back."""
    disk = made(1, late=3)
    expected = state_of_folder(disk)
    log = opened(disk)
    found = condensed(disk, log.last)
    assert len(found.dead) > 1 and found.rewritten
    assert log.condense(found)
    ticket = log.begin_sync()
    ticket.run()
    assert set(found.dead) <= set(disk.names())
    assert state_of_folder(disk) == expected


def test_the_log_goes_on_meanwhile() -> None:
    """What is appended, or cut off, while room is looked for does not matter."""
    disk = made(1)
    log = opened(disk)
    found = condensed(disk, log.last)
    assert found.rewritten
    end = log.last
    log.append(record(end + 1, log.starts[-1].epoch, Type.VHOST_NEW, b"\0\0\0\1v\0\0\0\0"))
    log.append(record(end + 2, log.starts[-1].epoch, Type.VHOST_NEW, b"\0\0\0\1w\0\0\0\0"))
    synced(log)
    log.truncate(end + 1)
    assert log.condense(found)
    assert not log.condense(found), "one at a time"
    log.append(record(end + 2, log.starts[-1].epoch, Type.VHOST_NEW, b"\0\0\0\1x\0\0\0\0"))
    ticket = log.begin_sync()
    log.append(record(end + 3, log.starts[-1].epoch, Type.VHOST_NEW, b"\0\0\0\1y\0\0\0\0"))
    ticket.run()
    log.end_sync(ticket)
    synced(log)
    again = opened(disk.killed())
    assert (again.last, again.base) == (end + 3, log.base)
    assert not log.condense(found), "its segments are there no more"


def test_a_snapshot_that_comes_takes_the_place_of_all() -> None:
    disk, other = made(1), made(1)
    log, source = opened(disk), opened(other)
    found = condensed(disk, log.last)
    base = source.last
    for early in (True, False):
        if early:
            assert log.condense(found)
        log.begin_install(base)
        assert log._coming_head.generation > max((each.head.generation for each in found.rewritten), default=0)
        for head, size in source._segments:
            log.install(other.read(head.name)[SEGMENT_HEAD_BYTES:size])
        if not early:
            assert not log.condense(condensed(disk, log.last))
        log.end_install()
        synced(log)
        assert (log.base, log.last) == (base, base)
        names = [name for name in disk.names() if name.startswith("journal-")]
        assert len(names) == 2, names
        again = opened(disk.killed())
        assert (again.base, again.last, again.starts) == (base, base, source.starts)


def test_files_that_a_leader_dropped_and_left_do_not_outlive_a_snapshot() -> None:
    disk, other = made(1), made(1)
    log, source = opened(disk), opened(other)
    assert log.drop([log._segments[0][0].name]) == ["journal-000000000001.log"]
    log.begin_install(source.last)
    for head, size in source._segments:
        log.install(other.read(head.name)[SEGMENT_HEAD_BYTES:size])
    log.end_install()
    synced(log)
    assert "journal-000000000001.log" not in disk.names()
    assert opened(disk.killed()).last == source.last


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_what_a_leader_wrote_anew_while_a_snapshot_was_read_is_known_before_anything_else_goes(seed: int) -> None:
    """It did not lead any more when the snapshot ended, and makes room as a mirror; then it leads again."""
    disk, leader = started()
    traffic = Traffic(leader, seed)
    client = leader.client(1)
    client.declare("kept", durable=True)
    traffic.steps(60)
    leader.sync()
    leader.compact()
    snapshot = leader.log.snapshot()
    leader.log._most_held = 1 << 40
    for _ in range(4):
        client.publish("kept", b"." * 50, delivery_mode=2)
        traffic.steps(40)
        leader.compact()
    leader.sync()
    log = leader.log
    before = state_of_folder(disk)
    found = condensed(disk, log.durable)
    assert log._changes and not log.condense(found)  # somebody reads the snapshot still
    del snapshot
    gc.collect()
    assert log.condense(found)
    synced(log)
    log.drop()
    third = Mirror(log)
    third.feed()
    assert state_of_folder(disk) == state_of_folder(third.disk) == before


def test_without_a_whole_snapshot_nothing_is_touched() -> None:
    """What a rewritten segment leaves out would be told nowhere."""
    disk = made(1)
    log = opened(disk)
    data = b"".join(disk.read(head.name)[SEGMENT_HEAD_BYTES:size] for head, size in log._segments)
    ends_at = next(r.lsn for r in decode_all(data, 0) if r.type is Type.SNAPSHOT_END)
    assert condensed(disk, ends_at - 1) == Condensed((), (), condensed(disk, ends_at - 1).left)
    assert not [name for name in disk.names() if name.endswith(".new")]
