"""Segments: when they begin, what they begin with, and when they may go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rabbitish.store.bodies import decode_of_queue
from rabbitish.store.journal import _RANGES_AT_ONCE, Journal
from rabbitish.store.record import (
    SegmentHead,
    Type,
    decode_mark,
    decode_segment_head,
    segment_name,
)
from rabbitish.store.scan import scan
from rabbitish.store.segments import WEIGHT_BYTES
from rabbitish.wire import methods

from .driver import Durable, state_of
from .fake_disk import CREATE, SYNC, UNLINK, WRITE, FakeDisk
from .made import SMALL, journal_on, kinds, publish, records, remove, write

PERSISTENT = {"delivery_mode": 2}
LARGE = 64 * 1024


# ---- writing


def test_one_write_and_one_sync_for_all_that_gathered() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    assert journal.waiting
    lsns = [publish(journal) for _ in range(100)]
    assert lsns == list(range(lsns[0], lsns[0] + 100))
    batches = journal.take()
    assert journal.take() == []
    (batch,) = batches
    assert batch.last_lsn == lsns[-1] == journal.last_lsn
    assert journal.pending_bytes == len(batch.data)
    journal.write(batches)
    journal.sync()
    assert disk.steps == [CREATE, WRITE, SYNC, WRITE, SYNC]
    assert journal.written_lsn == journal.durable_lsn < lsns[0]
    journal.written(batch.last_lsn, len(batch.data))
    assert (journal.written_lsn, journal.pending_bytes) == (lsns[-1], 0)
    assert journal.durable_lsn < lsns[0]
    assert journal.synced(lsns[-1]) == []
    assert journal.durable_lsn == lsns[-1]
    publish(journal)
    write(journal)
    assert disk.steps == [CREATE, WRITE, SYNC, WRITE, SYNC, WRITE, SYNC]


def test_what_gathers_during_a_write_is_the_next_one() -> None:
    journal = journal_on(FakeDisk(), segment_bytes=1 << 20)
    (batch,) = journal.take()
    lsn = publish(journal)
    pending = journal.pending_bytes
    journal.write([batch])
    journal.written(batch.last_lsn, len(batch.data))
    journal.sync()
    journal.synced(batch.last_lsn)
    assert journal.written_lsn == journal.durable_lsn < lsn
    assert (journal.waiting, journal.pending_bytes) == (True, pending - len(batch.data))
    write(journal)
    assert (journal.written_lsn, journal.durable_lsn, journal.pending_bytes) == (lsn, lsn, 0)


def test_each_write_begins_with_how_far_it_was_safe() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    (batch,) = journal.take()
    journal.write([batch])
    journal.written(batch.last_lsn, len(batch.data))  # and not synced
    publish(journal)
    write(journal)
    durable = journal.durable_lsn
    publish(journal)
    write(journal)
    data = disk.read(segment_name(1))
    marks = [decode_mark(data, record.body) for record in records(data) if record.type is Type.MARK]
    assert marks == [0, 0, durable]


def test_messages_published_together_are_one_record() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    first = publish(journal, count=100)
    second = publish(journal, count=5)
    assert (second, journal.last_lsn) == (first + 100, first + 104)
    write(journal)
    found = [record for record in records(disk.read(segment_name(1))) if record.type is Type.PUBLISH]
    assert [(record.lsn, record.span) for record in found] == [(first, 100), (second, 5)]
    (segment,) = journal.segments.all
    assert list(segment.lsns) == [first, second]
    assert list(segment.offsets) == [record.start for record in found]
    assert segment.size == len(disk.read(segment_name(1)))


def gathered(data: bytes) -> list[tuple[int, Type, tuple[int, int, tuple[int, ...]]]]:
    """What a segment says of messages of queues."""
    return [
        (record.lsn, record.type, decode_of_queue(data[record.body : record.end]))
        for record in records(data)
        if record.type in (Type.REMOVE, Type.DELIVERED)
    ]


class Numbered(NamedTuple):
    lsn: int
    size: int = 100


def messages(numbers: Iterable[int]) -> list[Numbered]:
    return [Numbered(number) for number in numbers]


def test_what_left_is_counted_message_by_message_when_its_record_is_closed() -> None:
    journal = journal_on(FakeDisk(), segment_bytes=1 << 20)
    small = publish(journal, size=100)
    publish(journal, size=100)
    large = publish(journal, size=5000)
    publish(journal, size=5000)
    (segment,) = journal.segments.all
    journal.removed(1, 0, [Numbered(large, 5000)])
    journal.removed(1, 0, [Numbered(small)])
    journal.close_gathering()
    assert (segment.counts, segment.weights) == ({1: 2}, {1: 5100 + 2 * WEIGHT_BYTES})
    assert list(segment.removed) == [1, small, 1, 1, large, 1]


def test_the_same_said_of_several_is_one_record() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    first = publish(journal, 1, 2, count=5)
    write(journal)
    before = journal.last_lsn
    for numbers in ([first + 4], [first, first + 1], [first + 2]):
        journal.removed(1, 0, messages(numbers))
        assert journal.waiting
    journal.removed(1, 3, messages([first + 3]))  # for another reason
    journal.removed(2, 3, messages([first + 3]))  # from another queue
    journal.delivered(2, messages([20]))
    lsn = publish(journal)
    journal.delivered(2, messages([21]))
    journal.close_gathering()  # somebody asked how far the journal is
    journal.delivered(2, messages([22]))
    assert journal.last_lsn == lsn + 1
    write(journal)
    assert gathered(disk.read(segment_name(1))) == [
        (before + 2, Type.DELIVERED, (2, 0, (20, 1))),  # a mark comes first
        (before + 3, Type.REMOVE, (1, 0, (first, 3, first + 4, 1))),
        (before + 4, Type.REMOVE, (1, 3, (first + 3, 1))),
        (before + 5, Type.REMOVE, (2, 3, (first + 3, 1))),
        (lsn + 1, Type.DELIVERED, (2, 0, (21, 1))),
        (lsn + 2, Type.DELIVERED, (2, 0, (22, 1))),
    ]
    assert not journal.waiting


def test_of_what_left_right_after_it_was_handed_out_only_that_is_told() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    first = publish(journal, 1, 2, count=3)
    journal.delivered(1, messages([first, first + 1]))
    journal.removed(2, 0, messages([first + 1]))  # from another queue
    journal.removed(1, 0, messages([first]))
    write(journal)
    journal.removed(1, 0, messages([first + 1]))
    write(journal)
    journal.delivered(1, messages([first + 2]))
    journal.removed(1, 0, messages([first + 2]))
    before = journal.last_lsn
    journal.close_gathering()
    assert journal.last_lsn == before + 2  # and a mark
    write(journal)
    assert [what for _, *what in gathered(disk.read(segment_name(1)))] == [
        [Type.DELIVERED, (1, 0, (first + 1, 1))],
        [Type.REMOVE, (2, 0, (first + 1, 1))],
        [Type.REMOVE, (1, 0, (first, 1))],
        [Type.REMOVE, (1, 0, (first + 1, 1))],
        [Type.REMOVE, (1, 0, (first + 2, 1))],
    ]


def test_very_much_that_is_the_same_is_several_records() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    before = journal.last_lsn
    lsns = list(range(100, 10_100, 2))
    journal.delivered(1, messages(reversed(lsns)))
    journal.delivered(1, messages([99]))
    write(journal)
    found = gathered(disk.read(segment_name(1)))
    assert [lsn for lsn, _, _ in found] == [before + 1 + n for n in range(len(found))]
    assert [lsn for _, _, (_, _, ranges) in found for lsn in ranges[::2]] == [*lsns, 99]
    assert max(len(ranges) for _, _, (_, _, ranges) in found) <= 2 * _RANGES_AT_ONCE


def test_a_large_message_that_nobody_needs_any_more_is_not_written() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    write(journal)
    size = len(disk.read(segment_name(1)))
    before = publish(journal)
    large = publish(journal, 1, 2, size=LARGE)
    after = [publish(journal, size=200), publish(journal, size=LARGE), publish(journal, size=300)]
    pending = journal.pending_bytes
    journal.segments.removed(1, (large, 1), LARGE + WEIGHT_BYTES)
    journal.done_with(large)
    assert journal.pending_bytes == pending, "the other queue may need it"
    journal.segments.removed(2, (large, 1), LARGE + WEIGHT_BYTES)
    journal.done_with(large)
    journal.done_with(before)  # so little is written anyway
    assert pending - journal.pending_bytes > LARGE
    assert journal.last_lsn == after[-1]
    write(journal)
    assert journal.pending_bytes == 0
    data = disk.read(segment_name(1))
    assert LARGE < len(data) - size < LARGE + 2000
    found = records(data)
    assert [record.lsn for record in found][-5:] == [before, large, *after]
    assert found[-4].type is Type.MARK
    (segment,) = journal.segments.all
    publishes = [record for record in found if record.type is Type.PUBLISH]
    assert list(segment.lsns) == [before, *after] == [record.lsn for record in publishes]
    assert list(segment.offsets) == [record.start for record in publishes]
    assert list(segment.spans) == [1, 1, 1, 1]
    assert segment.size == len(data)
    assert segment.other_bytes == len(data) - sum(record.end - record.start for record in publishes)
    assert segment.total_weight == segment.weights[1] == sum((100, 200, LARGE, 300)) + 4 * WEIGHT_BYTES


def test_a_large_message_that_is_being_written_is_not_taken_back() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    lsn = publish(journal, size=LARGE)
    batches = journal.take()
    journal.segments.removed(1, (lsn, 1), LARGE + WEIGHT_BYTES)
    journal.done_with(lsn)
    assert not journal.holds_large
    journal.write(batches)
    journal.written(batches[-1].last_lsn, sum(len(batch.data) for batch in batches))
    assert journal.pending_bytes == 0
    assert kinds(disk.read(segment_name(1)))[-1] is Type.PUBLISH


def test_every_record_has_the_epoch() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, epoch=7)
    for _ in range(5):
        publish(journal)
    write(journal)
    assert len(disk.names()) > 1
    assert {record.epoch for name in disk.names() for record in records(disk.read(name))} == {7}
    assert kinds(disk.read(segment_name(1)))[-1] is not Type.EPOCH
    assert kinds(disk.read(segment_name(1))).count(Type.EPOCH) == 1
    assert Type.EPOCH not in kinds(disk.read(segment_name(2)))


def test_a_full_segment_is_synced_before_the_next_begins() -> None:
    disk = FakeDisk()
    journal = journal_on(disk)
    for _ in range(5):
        publish(journal)
    write(journal)
    ended = [SYNC]  # cut to its length
    assert disk.steps == [CREATE, WRITE, SYNC, WRITE, SYNC, *ended, CREATE, WRITE, SYNC, WRITE, SYNC]
    for sequence in (1, 2):
        head = decode_segment_head(disk.read(segment_name(sequence)))
        first = records(disk.read(segment_name(sequence)))[0]
        assert head == SegmentHead(sequence, sequence, 0, first.lsn, 0)


def test_each_segment_begins_with_a_snapshot() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, declarations=3)
    for _ in range(7):
        publish(journal)
        write(journal)
    assert len(disk.names()) == 3
    for name in disk.names():
        begin = [Type.MARK, Type.SNAPSHOT, *[Type.VHOST_NEW] * 3, Type.SNAPSHOT_END]
        assert kinds(disk.read(name))[:6] == begin
        assert Type.PUBLISH in kinds(disk.read(name))


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
    assert write(journal) == [segment_name(1)]
    assert write_nothing(journal) == []


def write_nothing(journal: Journal) -> list[str]:
    publish(journal, size=1)
    return write(journal)


def test_only_when_a_later_snapshot_is_on_disk() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, declarations=3)
    lsns = [publish(journal) for _ in range(3)]
    batches = journal.take()
    for lsn in lsns:
        remove(journal, lsn)  # the first of these begins the next segment
    journal.write(batches)
    journal.sync()
    assert journal.synced(batches[-1].last_lsn) == []
    assert disk.names() == [segment_name(1)]
    assert write(journal) == [segment_name(1)]
    assert disk.names() == [segment_name(2)]


def test_only_when_what_emptied_it_is_on_disk() -> None:
    """A message moves to another queue: the record that brings it there must be safe before its old place goes."""
    journal = journal_on(FakeDisk())
    lsns = [publish(journal) for _ in range(4)]
    batches = journal.take()
    publish(journal, 2, size=10)  # the dead letter
    for lsn in lsns[:3]:
        remove(journal, lsn)
    journal.write(batches)
    journal.sync()
    assert journal.synced(batches[-1].last_lsn) == []
    assert write(journal) == [segment_name(1)]


def test_nothing_more_is_read_of_what_may_go() -> None:
    disk = FakeDisk()
    journal = journal_on(disk)
    lsns = [publish(journal) for _ in range(4)]
    write(journal)
    disk.read_at(segment_name(1), 0, 10)
    for lsn in lsns[:3]:
        remove(journal, lsn)
    assert disk.open == {segment_name(1)}
    assert write(journal) == [segment_name(1)]
    assert disk.open == set()


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
    assert gone == [segment_name(number + 1) for number in range(len(gone))] != []
    holder = sorted(disk.names())[0]
    assert old in [record.lsn for record in records(disk.read(holder))]
    assert len(disk.names()) >= count - len(gone)
    remove(journal, old)
    assert write(journal) + write_nothing(journal)
    assert len(disk.names()) <= 2


def test_a_message_in_two_queues_lives_until_it_has_left_both() -> None:
    journal = journal_on(FakeDisk())
    lsn = publish(journal, 1, 2)
    for _ in range(3):
        remove(journal, publish(journal, 3), queue=3)
    write(journal)
    remove(journal, lsn, queue=1)
    assert write(journal) + write_nothing(journal) == []
    remove(journal, lsn, queue=2)
    assert write(journal) + write_nothing(journal) == [segment_name(1)]


def test_a_deleted_queue_frees_its_segments() -> None:
    journal = journal_on(FakeDisk())
    for _ in range(10):
        publish(journal, 5)
    keeper = publish(journal, 6)
    write(journal)
    journal.segments.remove_queue(5)
    journal.append(Type.QUEUE_GONE, b"")
    gone = write(journal)
    assert gone[0] == segment_name(1) and len(gone) >= 3
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
    epochs: set[int] = set()
    scanned = scan(disk, lambda head, data, record: epochs.add(record.epoch))
    assert scanned.last_lsn == last
    assert [head.sequence for head, _ in scanned.segments] == list(range(1, scanned.last_sequence + 1))
    assert epochs == {1, 2, 3, 4}
    assert sequences == sorted(sequences)


def test_starts_alone_leave_one_segment() -> None:
    """Every start begins a segment, and the first sync frees those before it."""
    disk = FakeDisk()
    for _ in range(5):
        world = Durable(disk)
        world.client().declare("q", durable=True)
        world.sync()
        disk = disk.killed()
        assert len(world.segments()) == 1


def test_disk_use_stays_small_while_messages_come_and_go() -> None:
    disk = FakeDisk()
    world = Durable(disk, segment_bytes=2000)
    client = world.client()
    client.declare("q", durable=True)
    client.consume("q", no_ack=True)
    most = 0
    for number in range(200):
        client.publish("q", b"-" * 100, **PERSISTENT)
        client.answers()
        if number % 5 == 0:
            world.sync()  # a moment later
        most = max(most, len(world.segments()))
    assert most <= 4
    before = state_of(world.broker)
    assert state_of(Durable(disk.killed()).broker) == before
    assert before.queues["/", "q"].messages == []


def test_what_lives_weighs_what_its_messages_do() -> None:
    """Though large and small ones leave together, and others were written between them."""
    world = Durable(FakeDisk(), segment_bytes=3000)
    client = world.client()
    for name in ("q", "other"):
        client.declare(name, durable=True)
    sizes = [0, 500, 10, 10, 2000, 0, 0, 70] * 3
    for size in sizes:
        client.publish("q", b"-" * size, **PERSISTENT)
        client.publish("other", b"-", **PERSISTENT)
    client.consume("q")
    assert [len(body) for body in client.bodies()] == sizes
    client.send(methods.BasicAck(delivery_tag=14, multiple=True), methods.BasicAck(delivery_tag=17))
    world.sync()
    living = [*sizes[14:16], *sizes[17:], *[1] * len(sizes)]
    segments = world.journal.segments
    assert len(segments.all) > 2
    weight = sum(sum(segment.weights.values()) for segment in segments.all)
    assert weight == sum(living) + WEIGHT_BYTES * len(living)
    lsns = {queue.name: {message.lsn: message.size for message in queue} for queue in world.vhost.queues.values()}
    for segment in segments.all:
        mine = {lsn: size for lsn, size in lsns["other"].items() if segments.of(lsn) is segment}
        number = world.recovered.recorder.queues[world.queue("other")]
        assert segment.weights.get(number, 0) == sum(mine.values()) + WEIGHT_BYTES * len(mine)
    for name in ("q", "other"):
        client.send(methods.QueueDelete(queue=name))
    world.sync()
    assert segments.live_bytes == 0


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


def test_acks_and_deliveries_gather_on_while_messages_are_written() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    first = publish(journal, 1, count=3)
    journal.delivered(1, messages([first, first + 1]))
    second = publish(journal, 1)
    write(journal, everything=False)
    journal.removed(1, 0, messages([first]))
    assert journal.waiting and not journal.waiting_now and journal.take(everything=False) == []
    third = publish(journal, 1)
    write(journal, everything=False)
    assert gathered(disk.read(segment_name(1))) == []
    assert second < third == journal.last_lsn
    journal.removed(1, 3, messages([second]))  # rejected: it may be in another queue by now
    assert journal.waiting_now
    publish(journal, 1)
    write(journal, everything=False)
    assert [what for _, *what in gathered(disk.read(segment_name(1)))] == [
        [Type.DELIVERED, (1, 0, (first + 1, 1))],
        [Type.REMOVE, (1, 0, (first, 1))],
        [Type.REMOVE, (1, 3, (second, 1))],
    ]
    assert not journal.waiting


def test_what_gathers_is_in_the_segment_that_was_begun_before() -> None:
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=2_000)
    first = publish(journal, 1)
    journal.delivered(1, messages([first]))
    while len(journal.segments.all) == 1:
        publish(journal, 1)
    write(journal)
    assert [what for _, *what in gathered(disk.read(segment_name(1)))] == [[Type.DELIVERED, (1, 0, (first, 1))]]
    assert gathered(disk.read(segment_name(2))) == []


def test_what_was_acknowledged_before_a_bind_is_on_disk_when_that_is_answered() -> None:
    disk = FakeDisk()
    world = Durable(disk)
    client = world.client()
    client.declare("q", durable=True)
    client.publish("q", b"1", b"2", **PERSISTENT)
    client.consume("q")
    assert client.bodies() == [b"1", b"2"]
    bind = methods.QueueBind(queue="q", exchange="amq.direct", routing_key="k")
    client.raw(methods.BasicAck(delivery_tag=1).frame(1) + bind.frame(1) + methods.BasicAck(delivery_tag=2).frame(1))
    world.settle()
    client.expect(methods.QueueBindOk())
    found = records(disk.read(segment_name(1)))
    (bound,) = (record.lsn for record in found if record.type is Type.BOUND)
    assert [record.lsn < bound for record in found if record.type is Type.REMOVE] == [True, False]
