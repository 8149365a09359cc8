"""A replica's log: the one on a disk does what the one in memory does, and any crash leaves a state that it was in.

A script drawn from a seed does everything that can happen to a log. It is carried out on both, and then on a disk that
fails at step 1, 2, 3 ... What a killed process or a power loss leaves is opened again: it is one of the states that the
log had from its last sync on, maybe with part of an append, and it holds every epoch that was synced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from random import Random

import pytest

from rabbitish.cluster.protocol.disk_log import DiskLog
from rabbitish.cluster.protocol.disk_open import open_log
from rabbitish.cluster.protocol.disk_writer import REPLICA_FILE, SNAPSHOT_FILE
from rabbitish.cluster.protocol.log import EpochStart, Log, common_prefix
from rabbitish.store.record import PUBLISH_HEAD, Damage, JournalDamaged, Type, decode_all, encode_mark
from tests.store.fake_disk import FakeDisk

from .memory_log import MemoryLog, record

SEGMENT_BYTES = 150
STEPS = 40
SEEDS = range(1, 9)


def opened(disk: FakeDisk) -> DiskLog:
    return open_log(disk, lambda: "u1", segment_bytes=SEGMENT_BYTES)


def content(log: Log) -> tuple[int, bytes]:
    """All that a log holds."""
    kept = b"".join(log.snapshot())
    after = log.base
    while after < log.last:
        data, after = log.read(after, 200)
        kept += data
    return log.base, kept


def publish(random: Random, lsn: int, epoch: int) -> bytes:
    many, size = random.choice((1, 1, 4)), random.randint(1, 60)
    return record(lsn, epoch, Type.PUBLISH, PUBLISH_HEAD.pack(0, 0, many, size), random.randbytes(many * size))


class Script:
    """Random operations, each on all logs; the same again for the same seed."""

    def __init__(self, seed: int, *logs: Log) -> None:
        self.random = Random(seed)
        self.logs = logs

    def _all(self, name: str, *arguments: object) -> None:
        for log in self.logs:
            getattr(log, name)(*arguments)

    def steps(self) -> Iterator[str]:
        for _ in range(STEPS):
            do = self.random.choice((self.append, self.append, self.append, self.epoch, self.cut, self.sync, self.sync))
            if self.random.random() < 0.04:
                do = self.install
            yield do.__name__
            do()

    def append(self) -> None:
        log = self.logs[0]
        if not log.starts:
            self.epoch()
            return
        data, lsn, epoch = b"", log.last + 1, log.starts[-1].epoch
        if self.random.random() < 0.3:
            data, lsn = record(lsn, epoch, Type.MARK, encode_mark(log.last)), lsn + 1
        for _ in range(self.random.randint(1, 3)):
            one = publish(self.random, lsn, epoch)
            lsn += next(iter(decode_all(one, 0))).span
            data += one
        self._all("append", data)

    def epoch(self) -> None:
        log = self.logs[0]
        epoch = log.epoch + self.random.randint(1, 2)
        self._all("note_epoch", epoch)
        self._all("append", record(log.last + 1, epoch, Type.EPOCH))

    def cut(self) -> None:
        log = self.logs[0]
        ends, after = [log.base], log.base
        while after < log.last:
            _, after = log.read(after, 1)
            ends.append(after)
        self._all("truncate", self.random.choice(ends[-6:]))

    def install(self) -> None:
        base = self.logs[0].last + 50
        if self.logs[0].epoch < 3:
            self._all("note_epoch", 3)
        self._all("begin_install", base)
        lsn, epoch = 1, 1
        for _ in range(self.random.randint(1, 3)):
            piece = record(lsn, epoch, Type.EPOCH)
            piece += publish(self.random, lsn + 3, epoch)
            self._all("install", piece)
            lsn, epoch = lsn + 10, epoch + 1
            if self.random.random() < 0.5:
                self.sync()
        self._all("end_install")
        self.sync()  # nobody reads a snapshot before that

    def sync(self) -> None:
        for log in self.logs:
            ticket = log.begin_sync()
            ticket.run()
            log.end_sync(ticket)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_logs_do_the_same(seed: int) -> None:
    disk = FakeDisk()
    ours, model = opened(disk), MemoryLog()
    script = Script(seed, model, ours)
    for step in script.steps():
        for name in ("base", "last", "durable", "epoch", "stored_epoch", "starts", "dirty"):
            assert getattr(ours, name) == getattr(model, name), (step, name)
        assert content(ours) == content(model), step
    script.sync()
    assert (ours.durable, ours.stored_epoch) == (model.last, model.epoch)
    again = opened(disk.killed())
    assert (content(again), again.starts, again.durable, again.epoch) == (
        content(model),
        model.starts,
        model.last,
        model.epoch,
    )
    assert again.storage == "u1"


def partial(before: tuple[int, bytes], after: tuple[int, bytes]) -> list[tuple[int, bytes]]:
    """What may be there in the middle of an append or a cut: so much more than the less of it, in whole records."""
    base, (less, more) = before[0], sorted((before[1], after[1]), key=len)
    if after[0] != base or not more.startswith(less):
        return []
    return [(base, more[: found.end]) for found in decode_all(more, len(less))]


def tried(seed: int, fail_at: int) -> tuple[FakeDisk, list[tuple[int, bytes]], int]:
    """Carry out a script on a disk that fails: the disk, what may be found on it, and the epoch that was synced."""
    disk = FakeDisk()
    opened(disk)
    disk = disk.killed(fail_at=fail_at)
    disk.random.seed(fail_at)
    allowed, synced_epoch = [(0, b"")], 0
    try:
        log = opened(disk)
        model = MemoryLog()
        script = Script(seed, model, log)
        before = content(model)
        for step in script.steps():
            after = content(model)
            allowed += [*partial(before, after), after]
            if not log.dirty:
                allowed, synced_epoch = [after], log.stored_epoch
            before = after
            assert step
        after = content(model)
        allowed += [*partial(before, after), after]
        script.sync()
        allowed, synced_epoch = [content(model)], log.stored_epoch
    except OSError:
        assert disk.failed
        if "model" in locals():
            after = content(model)
            allowed += [*partial(before, after), after]
    return disk, allowed, synced_epoch


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_at_every_step(seed: int) -> None:
    for fail_at in count(1, 3):
        disk, allowed, epoch = tried(seed, fail_at)
        for left in (disk.killed(), disk.power_lost(1), disk.power_lost(2)):
            again = opened(left)
            assert content(again) in allowed
            assert again.epoch >= epoch
            assert SNAPSHOT_FILE not in left.names()
        if not disk.failed:
            break


def made(disk: FakeDisk) -> DiskLog:
    """A log with two epochs, synced."""
    log = opened(disk)
    script = Script(1, log)
    for act in (script.epoch, script.append, script.append, script.epoch, script.append, script.sync):
        act()
    return log


def test_what_was_synced_and_is_damaged_is_found() -> None:
    """A replica must not come back with less than it acknowledged: the folder's content counts no more (R14)."""
    disk = FakeDisk()
    log = made(disk)
    end = log.last
    log.append(record(end + 1, log.epoch, Type.MARK, encode_mark(end)))
    ticket = log.begin_sync()
    ticket.run()
    name = next(name for name in disk.names() if name.startswith("journal-"))
    disk.flip(name, disk.size(name) // 2)
    with pytest.raises(JournalDamaged):
        opened(disk.killed())


def test_without_its_file_a_folder_is_nobodys() -> None:
    disk = FakeDisk()
    made(disk)
    del disk.files[REPLICA_FILE]
    with pytest.raises(JournalDamaged, match="missing"):
        opened(disk.killed())


def test_a_mark_is_never_ahead_of_the_disk() -> None:
    """It says what all in-sync replicas have; before it is written here, so has this one."""
    disk = FakeDisk()
    log = made(disk)
    Script(2, log).append()
    end = log.last
    log.append(record(end + 1, log.epoch, Type.MARK, encode_mark(end)))
    steps = len(disk.steps)
    log.begin_sync().run()
    assert disk.steps[steps:] == ["write", "sync", "write", "sync"]


@pytest.mark.parametrize("kind", [MemoryLog, lambda: opened(FakeDisk())])
def test_what_does_not_follow_is_refused(kind: Callable[[], Log]) -> None:
    log = kind()
    log.append(record(1, 3, Type.EPOCH))
    good = publish(Random(1), 2, 3)
    wrong = {
        "another number": publish(Random(1), 3, 3),
        "an epoch without its beginning": publish(Random(1), 2, 4),
        "an older epoch": record(2, 2, Type.EPOCH),
        "damaged": good[:-1] + bytes([good[-1] ^ 1]),
        "cut": good[:-1],
        "damaged behind a good one": good + b"x",
        "zeroes": bytes(40),
        "zeroes behind a good one": good + bytes(40),
        "nothing": b"",
    }
    for what, data in wrong.items():
        with pytest.raises(Damage):
            log.append(data)
        assert log.last == 1, what
    log.append(good)
    assert log.last > 1


def log_of(*epochs: tuple[int, int]) -> MemoryLog:
    """A log of epochs, with so many records each."""
    log = MemoryLog()
    for epoch, many in epochs:
        log.append(record(log.last + 1, epoch, Type.EPOCH))
        for _ in range(many - 1):
            log.append(record(log.last + 1, epoch, Type.VHOST_NEW, b"x"))
    return log


@pytest.mark.parametrize(
    ("ours", "theirs", "cut"),
    [
        ([(1, 5)], [(1, 5)], 5),
        ([(1, 5)], [(1, 3)], 3),
        ([(1, 3)], [(1, 5)], 3),
        ([(1, 3), (3, 4)], [(1, 5), (2, 2)], 3),
        ([(1, 3), (2, 4), (4, 2)], [(1, 3), (2, 2), (3, 9)], 5),
        ([(1, 3), (2, 4)], [(1, 3), (2, 6)], 7),
        ([(1, 5), (2, 1)], [], 0),
        ([], [(1, 5)], 0),
        ([(1, 5)], [(2, 5)], 0),
        ([(1, 2), (3, 2)], [(1, 1), (3, 2)], 1),
    ],
)
def test_how_far_two_logs_are_the_same(ours: list[tuple[int, int]], theirs: list[tuple[int, int]], cut: int) -> None:
    one, other = log_of(*ours), log_of(*theirs)
    assert common_prefix(one, other.starts, other.last) == cut
    assert common_prefix(other, one.starts, one.last) == cut


def test_starts_are_told_by_name() -> None:
    assert log_of((2, 3), (5, 1)).starts == [EpochStart(2, 1), EpochStart(5, 4)]
