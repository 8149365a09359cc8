"""Segments: when they begin, what they begin with, and when they may go."""

from __future__ import annotations

from rabbitish.store.journal import Journal
from rabbitish.store.record import SEGMENT_HEAD_BYTES, Type, decode_all, decode_segment_head, segment_name
from rabbitish.store.scan import scan
from rabbitish.wire import methods

from .driver import Durable, state_of
from .fake_disk import CREATE, SYNC, UNLINK, WRITE, FakeDisk

SMALL = 400
PERSISTENT = {"delivery_mode": 2}


def kinds(data: bytes) -> list[Type]:
    return [record.type for record in decode_all(data, SEGMENT_HEAD_BYTES)]


def journal_on(disk: FakeDisk, declarations: int = 0, segment_bytes: int = SMALL) -> Journal:
    def snapshot(journal: Journal) -> None:
        for _ in range(declarations):
            journal.append_snapshot(Type.VHOST_NEW, b"-" * 30)

    journal = Journal(disk, segment_bytes=segment_bytes, next_sequence=1, next_lsn=1, snapshot=snapshot)
    journal.begin()
    return journal


def write(journal: Journal) -> list[int]:
    """Write, sync and delete; what was deleted."""
    dead = journal.synced(journal.write(journal.take()))
    journal.delete(dead)
    return dead


def publish(journal: Journal, queue: int = 1, size: int = 150) -> int:
    lsn = journal.append(Type.PUBLISH, b"-" * size)
    journal.segments.add(lsn, queue, 1)
    return lsn


def remove(journal: Journal, lsn: int, queue: int = 1) -> None:
    journal.segments.remove(lsn, queue)
    journal.append(Type.REMOVE, b"-")


# ---- writing


def test_one_write_and_one_sync_for_all_that_gathered() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    assert journal.waiting
    lsns = [publish(journal) for _ in range(100)]
    assert lsns == list(range(lsns[0], lsns[0] + 100))
    batches = journal.take()
    assert journal.take() == []
    assert journal.write(batches) == lsns[-1] == journal.last_lsn
    assert disk.steps == [CREATE, WRITE, SYNC]
    assert journal.durable_lsn < lsns[0]
    journal.synced(lsns[-1])
    assert journal.durable_lsn == lsns[-1]
    publish(journal)
    write(journal)
    assert disk.steps == [CREATE, WRITE, SYNC, WRITE, SYNC]


def test_what_gathers_during_a_write_is_the_next_one() -> None:
    journal = journal_on(FakeDisk(), segment_bytes=1 << 20)
    batches = journal.take()
    lsn = publish(journal)
    journal.synced(journal.write(batches))
    assert journal.durable_lsn < lsn
    assert journal.waiting
    write(journal)
    assert journal.durable_lsn == lsn


def test_a_full_segment_is_synced_before_the_next_begins() -> None:
    disk = FakeDisk()
    journal = journal_on(disk)
    for _ in range(5):
        publish(journal)
    write(journal)
    assert disk.steps == [CREATE, WRITE, SYNC] * 2
    for sequence in (1, 2):
        head = decode_segment_head(disk.read(segment_name(sequence)))
        first = next(decode_all(disk.read(segment_name(sequence)), SEGMENT_HEAD_BYTES))
        assert (head.sequence, head.first_lsn) == (sequence, first.lsn)


def test_each_segment_begins_with_a_snapshot() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, declarations=3)
    for _ in range(7):
        publish(journal)
        write(journal)
    assert len(disk.names()) == 3
    for name in disk.names():
        begin = [Type.MARK, Type.SNAPSHOT, *[Type.VHOST_NEW] * 3, Type.SNAPSHOT_END, Type.PUBLISH]
        assert kinds(disk.read(name))[:7] == begin


def test_a_snapshot_larger_than_a_segment_does_not_call_for_the_next() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, declarations=100)
    for _ in range(6):
        publish(journal)
    write(journal)
    assert len(disk.names()) == 2


# ---- what may go


def test_a_dead_segment_goes() -> None:
    journal = journal_on(FakeDisk())
    lsns = [publish(journal) for _ in range(4)]
    assert write(journal) == []
    for lsn in lsns[:3]:
        remove(journal, lsn)
    assert write(journal) == [1]
    assert write_nothing(journal) == []


def write_nothing(journal: Journal) -> list[int]:
    publish(journal, size=1)
    return write(journal)


def test_only_when_a_later_snapshot_is_on_disk() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, declarations=3)
    lsns = [publish(journal) for _ in range(3)]
    batches = journal.take()
    for lsn in lsns:
        remove(journal, lsn)  # the first of these begins the next segment
    assert journal.synced(journal.write(batches)) == []
    assert disk.names() == [segment_name(1)]
    assert write(journal) == [1]
    assert disk.names() == [segment_name(2)]


def test_only_when_what_emptied_it_is_on_disk() -> None:
    """A message moves to another queue: the record that brings it there must be safe before its old place goes."""
    journal = journal_on(FakeDisk())
    lsns = [publish(journal) for _ in range(4)]
    batches = journal.take()
    publish(journal, queue=2, size=10)  # the dead letter
    for lsn in lsns[:3]:
        remove(journal, lsn)
    assert journal.synced(journal.write(batches)) == []
    assert write(journal) == [1]


def test_an_old_message_keeps_its_segment_and_what_is_behind() -> None:
    disk = FakeDisk()
    journal = journal_on(disk)
    lsns = [publish(journal) for _ in range(30)]
    write(journal)
    count = len(disk.names())
    old = lsns[10]
    for lsn in lsns:
        if lsn != old:
            remove(journal, lsn)
    gone = write(journal) + write_nothing(journal)
    assert gone == list(range(1, gone[-1] + 1))
    holder = next(name for name in sorted(disk.names()))
    assert old in [record.lsn for record in decode_all(disk.read(holder), SEGMENT_HEAD_BYTES)]
    assert len(disk.names()) >= count - len(gone)
    remove(journal, old)
    assert write(journal) + write_nothing(journal)
    assert len(disk.names()) <= 2


def test_a_message_in_two_queues_lives_until_it_has_left_both() -> None:
    journal = journal_on(FakeDisk())
    lsn = publish(journal, queue=1)
    journal.segments.add(lsn, 2, 1)
    for _ in range(3):
        remove(journal, publish(journal, queue=3), queue=3)
    write(journal)
    remove(journal, lsn, queue=1)
    assert write(journal) + write_nothing(journal) == []
    remove(journal, lsn, queue=2)
    assert write(journal) + write_nothing(journal) == [1]


def test_a_deleted_queue_frees_its_segments() -> None:
    journal = journal_on(FakeDisk())
    for _ in range(10):
        publish(journal, queue=5)
    keeper = publish(journal, queue=6)
    write(journal)
    journal.segments.remove_queue(5)
    journal.append(Type.QUEUE_GONE, b"")
    gone = write(journal)
    assert gone and gone[0] == 1
    remove(journal, keeper, queue=6)


def test_segments_go_from_the_oldest_on() -> None:
    disk = FakeDisk()
    journal = journal_on(disk)
    lsns = [publish(journal) for _ in range(20)]
    write(journal)
    for lsn in lsns:
        remove(journal, lsn)
    deleted = write(journal) + write_nothing(journal)
    assert deleted == sorted(deleted) and len(deleted) >= 5
    assert disk.steps.count(UNLINK) == len(deleted)


# ---- over several runs


def test_numbering_goes_on_after_recovery() -> None:
    disk = FakeDisk()
    last, sequences = 0, []
    for run in range(1, 5):
        world = Durable(disk, segment_bytes=SMALL)
        client = world.client()
        client.declare("q", durable=True)
        client.publish("q", b"%d" % run, **PERSISTENT)
        world.settle()
        assert world.journal.last_lsn > last
        last = world.journal.last_lsn
        sequences.append(len(world.segments()))
        disk = disk.killed()
    scanned = scan(disk, lambda sequence, record: None)
    assert scanned.last_lsn == last
    assert [sequence for sequence, _ in scanned.segments] == list(range(1, scanned.last_sequence + 1))
    assert sequences == sorted(sequences)


def test_starts_alone_leave_one_segment() -> None:
    """Every start begins a segment, and the first sync frees those before it."""
    disk = FakeDisk()
    for _ in range(5):
        world = Durable(disk)
        world.settle()
        world.client().declare("q", durable=True)
        world.advance(1)
        disk = disk.killed()
        assert len(world.segments()) == 1


def test_disk_use_stays_small_while_messages_come_and_go() -> None:
    disk = FakeDisk()
    world = Durable(disk, segment_bytes=2000)
    client = world.client()
    client.declare("q", durable=True)
    client.consume("q", no_ack=True)
    most = 0
    for _ in range(200):
        client.publish("q", b"-" * 100, **PERSISTENT)
        client.answers()
        most = max(most, len(disk.names()))
    assert most <= 4
    before = state_of(world.broker)
    assert state_of(Durable(disk.killed()).broker) == before
    assert before.queues["/", "q"].messages == []


def test_a_transient_message_leaves_no_trace() -> None:
    world = Durable(FakeDisk())
    client = world.client()
    client.declare("q", durable=True)
    client.declare("t")
    client.answers()
    lsn = world.journal.last_lsn
    client.publish("q", b"transient")
    client.publish("t", b"to a transient queue", **PERSISTENT)
    client.publish("nowhere", b"unroutable", **PERSISTENT)
    client.ask(methods.BasicGet(queue="q", no_ack=True))
    client.ask(methods.QueuePurge(queue="t"))
    assert world.journal.last_lsn == lsn
