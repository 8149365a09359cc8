"""A start from a checkpoint is as good as one that reads every record; what is no good checkpoint does not count."""

from __future__ import annotations

import os

import pytest

from rabbitish.store.checkpoint import NAME, VERSION, find_checkpoint, write_checkpoint
from rabbitish.store.columns import Unusable
from rabbitish.store.record import HEAD, SEGMENT_HEAD_BYTES, JournalDamaged, decode_all, segment_name
from rabbitish.store.scan import NEW_SUFFIX
from rabbitish.wire import methods
from tests.session.harness import START
from tests.thorough import seeds

from .fake_disk import Contents, FakeDisk, FakeFile
from .lives import SEGMENT_BYTES, Life, MemoryDisk, QueueState, declared_of, queues_of, segments_of
from .workload import QUEUES, Workload

SEEDS = len(seeds(3, 8)) * max(1, int(os.environ.get("RABBITISH_EXPLORE", "0")))
ALWAYS_READ = 1 << 30  # no journal is too large to be read


def both(disk: MemoryDisk, now: int) -> tuple[Life, Life]:
    """The next life, begun by reading every record and begun by the checkpoint."""
    scanned = Life(disk.copy(NAME), now=now)
    started = Life(disk.copy(), now=now)
    assert started.recovered.checkpointed and not scanned.recovered.checkpointed
    assert not started.recovered.doubt and not started.failures
    return scanned, started


def same(scanned: Life, started: Life) -> None:
    """Both have the same in every field."""
    assert declared_of(started) == declared_of(scanned)
    assert queues_of(started) == queues_of(scanned)
    assert segments_of(started) == segments_of(scanned)
    for field in ("last_lsn", "last_sequence", "epoch", "durable_lsn", "written_lsn"):
        assert getattr(started.journal, field) == getattr(scanned.journal, field)
    assert started.recovered.messages == scanned.recovered.messages
    assert started.recovered.recorder.highest_queue >= scanned.recovered.recorder.highest_queue


def weights_of(life: Life) -> list[tuple[int, dict[int, int]]]:
    """What segments weigh. Only about right, where messages left in several ranges at once, but kept as it is."""
    return [(segment.total_weight, segment.weights) for segment in life.journal.segments.all]


def unnumbered(life: Life) -> dict[tuple[str, str], QueueState]:
    """What the queues hold, whatever the numbers of it."""
    return {
        name: queue._replace(
            lanes={
                level: lane._replace(messages=[message._replace(lsn=0) for message in lane.messages])
                for level, lane in queue.lanes.items()
            }
        )
        for name, queue in queues_of(life).items()
    }


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happened(seed: int) -> None:
    """Several lives in a row; each begins in both ways, and goes on in both ways alike."""
    life = Life(MemoryDisk())
    work = Workload(life, seed)
    for generation in range(4):
        work.run(40)
        pause = work.random.choice((0, 3_000, 50_000))
        scanned, started = both(life.stop(), life.now + pause)
        same(scanned, started)
        assert weights_of(started)[:-1] == weights_of(life)
        assert started.recovered.recorder.highest_queue == life.recovered.recorder.highest_queue
        work, again = Workload(started, seed + generation), Workload(scanned, seed + generation)
        work.run(25)
        again.run(25)
        # Not by their numbers: how many records tell that a million left depends on how they were put away.
        assert unnumbered(started) == unnumbered(scanned)
        life = started
    ends = [Workload(life, seed) for life in both(life.stop(), life.now)]
    assert ends[0].drain() == ends[1].drain()
    for end in ends:
        for name in QUEUES:
            end.client.ask(methods.QueuePurge(queue=name))
        end.life.compact()
        end.publish()
        assert len(end.life.journal.segments.all) == 1, "all older ones are dead and gone"


def test_nothing() -> None:
    scanned, started = both(Life(MemoryDisk()).stop(), START)
    same(scanned, started)
    assert queues_of(started) == {}


def test_again_and_again() -> None:
    """Nothing but starts and stops: each start begins a segment, and the last checkpoint is what counts."""
    life = both(stocked().stop(), START)[1]
    expected = queues_of(life)
    for _ in range(4):
        life = both(life.stop(), life.now)[1]
        assert queues_of(life) == expected


def stocked() -> Life:
    """A broker with segments, pages, returned messages and declarations."""
    life = Life(MemoryDisk())
    work = Workload(life, 7)
    work.run(40)
    client = work.client
    for n in range(200):
        if n == 50:
            life.settle()  # what is not written yet cannot be put away
        client.publish("plain", b"%d" % n + b"." * 40, delivery_mode=2)
    for _ in range(3):
        client.get("plain", no_ack=False)
    client.send(methods.BasicNack(delivery_tag=0, multiple=True, requeue=True))
    client.answers()
    (lane,) = life.queue("plain").lanes.values()
    assert lane.pages and list(lane.returned()) and len(life.journal.segments.all) > 3
    return life


@pytest.fixture
def life() -> Life:
    return stocked()


def test_numbers_and_epochs_are_not_used_again() -> None:
    life = Life(MemoryDisk())
    client = life.client()
    for name in ("stays", "goes"):
        client.declare(name, durable=True)
    client.ask(methods.QueueDelete(queue="goes"))
    disk = life.stop()
    del disk.files["node.json"]
    started = both(disk, START)[1]
    assert started.recovered.recorder.highest_queue == 2
    assert started.journal.epoch == life.journal.epoch + 1


def test_segments_that_were_being_written_anew(life: Life) -> None:
    """They are deleted, and the checkpoint counts all the same."""
    disk = life.stop()
    disk.files["journal-000000000002-000000000003-1.log" + NEW_SUFFIX] = Contents(b"half of it")
    started = both(disk, START)[1]
    assert not [name for name in started.disk.names() if name.endswith(NEW_SUFFIX)]


def test_a_clean_stop_leaves_none_of_them(life: Life) -> None:
    life.disk.files["journal-000000000002-000000000003-1.log" + NEW_SUFFIX] = Contents(b"half of it")
    disk = life.stop()
    assert NAME in disk.names()
    assert not [name for name in disk.names() if name.endswith(NEW_SUFFIX)]


# ---- a checkpoint that does not count


def warned(disk: MemoryDisk, why: str) -> None:
    """The start reads everything, says why, and finds what it would find without a checkpoint."""
    expected = Life(disk.copy(NAME))
    life = Life(disk.copy())
    assert not life.recovered.checkpointed
    assert why in life.recovered.doubt
    same(expected, life)
    assert NAME not in life.disk.names()


def test_damaged_anywhere(life: Life) -> None:
    disk = life.stop()
    for offset in range(0, disk.size(NAME), 5):
        damaged = disk.copy()
        damaged.flip(NAME, offset, offset % 8)
        with pytest.raises(Unusable):
            find_checkpoint(damaged, life.codec)
    disk.flip(NAME, 1000)
    warned(disk, "its checksum does not match")


def test_cut_short(life: Life) -> None:
    disk = life.stop()
    for size in [*range(40), 100, 1000, disk.size(NAME) - 1]:
        short = disk.copy()
        short.truncate(NAME, size)
        with pytest.raises(Unusable):
            find_checkpoint(short, life.codec)
    disk.truncate(NAME, 0)
    warned(disk, "it is something else")


def test_of_another_version(life: Life) -> None:
    disk = life.stop()
    disk.files[NAME].synced[9] += 1
    warned(disk, f"it is of version {VERSION + 1}, not {VERSION}")


def test_of_another_machine(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = life.stop()
    monkeypatch.setattr("rabbitish.store.columns._MACHINE", "0102 B1 I4 Q8 q8")
    warned(disk, "a machine of another kind")


def test_that_cannot_be_read(life: Life) -> None:
    class Unreadable(MemoryDisk):
        def read(self, name: str) -> bytes:
            if name == NAME:
                raise OSError(5, "Input/output error")
            return super().read(name)

    disk = Unreadable()
    disk.files = life.stop().files
    started = Life(disk)
    assert not started.recovered.checkpointed and "Input/output error" in started.recovered.doubt
    assert NAME not in disk.names()


def test_half_written(life: Life) -> None:
    disk = life.stop()
    disk.files[NAME + NEW_SUFFIX] = disk.files.pop(NAME)
    started = Life(disk)
    assert not started.recovered.checkpointed and not started.recovered.doubt
    assert not [name for name in disk.names() if name.startswith(NAME)]


def test_the_journal_has_grown_by_a_segment(life: Life) -> None:
    """The checkpoint came back, as from a copy of the folder."""
    disk = life.stop()
    checkpoint = disk.files[NAME]
    grown = Life(disk)
    Workload(grown, 3).run(5)
    left = grown.disk.copy()
    left.files[NAME] = checkpoint
    warned(left, "the journal has other segments by now")


def test_the_journal_has_grown_within_a_segment(life: Life) -> None:
    last = life.journal.segments.all[-1].head.name
    disk = life.stop()
    disk.files[last].synced += b"some more"
    warned(disk, "the journal is longer by now")


# ---- a journal that is less than it was


@pytest.mark.parametrize("trusted_above", [0, ALWAYS_READ], ids=["large", "small"])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_segment_is_shorter(life: Life, which: int, trusted_above: int) -> None:
    segment = life.journal.segments.all[which]
    name, size = segment.head.name, segment.size
    disk = life.stop()
    disk.truncate(name, size - 1)
    before = disk.copy()
    with pytest.raises(JournalDamaged) as damage:
        Life(disk, trusted_above=trusted_above)
    text = f"{name}: the file, which ended at {size} at the last clean stop, ends at offset {size - 1}"
    assert str(damage.value) == text
    assert {n: disk.read(n) for n in disk.names()} == {n: before.read(n) for n in before.names()}


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_segment_is_missing(life: Life, which: int) -> None:
    name = life.journal.segments.all[which].head.name
    disk = life.stop()
    del disk.files[name]
    with pytest.raises(JournalDamaged, match=f"{name}: the file, which was there at the last clean stop, is missing"):
        Life(disk)


def test_the_end_of_a_small_journal_is_damaged(life: Life) -> None:
    """Without the checkpoint that would be a torn tail; but everything was whole."""
    segment = life.journal.segments.all[-1]
    disk = life.stop()
    disk.flip(segment.head.name, segment.size - 1)
    assert Life(disk.copy(NAME)).recovered.cut is not None
    with pytest.raises(JournalDamaged, match="checksum does not match, though it was whole at the last clean stop"):
        Life(disk, trusted_above=ALWAYS_READ)


def test_the_end_of_a_small_journal_is_zeroes(life: Life) -> None:
    """After a crash those would have been written ahead; but at the clean stop something else was there."""
    segment = life.journal.segments.all[-1]
    data = life.disk.read(segment.head.name)
    last = [record.start for record in decode_all(data, SEGMENT_HEAD_BYTES)][-1]
    disk = life.stop()
    disk.files[segment.head.name].synced[last : segment.size] = bytes(segment.size - last)
    assert Life(disk.copy(NAME)).recovered.cut is None
    with pytest.raises(JournalDamaged, match=f"zeroes .* by what was known at the last clean stop, at offset {last}"):
        Life(disk, trusted_above=ALWAYS_READ)


# ---- damage within, and how much a checkpoint is believed


def damaged_body(life: Life) -> tuple[MemoryDisk, str, int]:
    """A journal in which the last message of a queue is damaged; file and offset of its record."""
    last = life.queue("plain").lanes[0].last[-1].lsn
    life.client().publish("other", b"and something behind it", delivery_mode=2)
    segment = life.journal.segments.of(last)
    offset = segment.offsets[segment.find(last)]
    disk = life.stop()
    disk.flip(segment.head.name, offset + HEAD.size + 60)
    return disk, segment.head.name, offset


def test_damage_in_a_small_journal_is_found_at_the_start(life: Life) -> None:
    disk, name, offset = damaged_body(life)
    total = sum(segment.size for segment in life.journal.segments.all)
    for trusted_above in (total, ALWAYS_READ):
        with pytest.raises(JournalDamaged, match=f"{name}: checksum does not match.* at offset {offset}"):
            Life(disk.copy(), trusted_above=trusted_above)
    assert Life(disk.copy(), trusted_above=total - 1).recovered.checkpointed


def test_damage_in_a_large_journal_is_found_when_it_is_read_back(life: Life) -> None:
    disk, name, offset = damaged_body(life)
    started = Life(disk)
    assert started.recovered.checkpointed and not started.failures
    with pytest.raises(JournalDamaged):
        list(started.queue("plain"))
    assert list(map(str, started.failures)) == [f"{name}: checksum does not match at offset {offset}"]


def test_a_small_journal_is_read_though_the_checkpoint_is_good(life: Life) -> None:
    expected = queues_of(life)
    started = Life(life.stop(), trusted_above=ALWAYS_READ)
    assert not started.recovered.checkpointed and not started.recovered.doubt
    assert queues_of(started).keys() == expected.keys()
    assert NAME not in started.disk.names()


def test_damage_in_a_message_that_came_back(life: Life) -> None:
    """Those are looked at when the broker starts, which is refused."""
    ((husk, _), *_) = life.queue("plain").lanes[0].returned()
    segment = life.journal.segments.of(husk.lsn)
    offset = segment.offsets[segment.find(husk.lsn)]
    disk = life.stop()
    disk.flip(segment.head.name, offset + HEAD.size + 60)
    with pytest.raises(JournalDamaged, match=f"{segment.head.name}: checksum does not match at offset {offset}"):
        Life(disk)
    assert NAME in disk.names(), "nobody has looked at the rest yet"


# ---- at the stop


def not_written(life: Life, why: str) -> None:
    recovered = life.recovered
    with pytest.raises(Unusable, match=why):
        write_checkpoint(recovered.journal, recovered.recorder, recovered.shelf)
    assert not [name for name in life.disk.names() if name.startswith(NAME)]


def test_not_while_something_is_unacknowledged(life: Life) -> None:
    life.client().get("plain", no_ack=False)
    not_written(life, "messages of the queue 'plain' are unacknowledged")


def test_not_while_something_waits_to_be_written(life: Life) -> None:
    life.vhost.delete_queue("short", None, life.now, if_unused=False, if_empty=False)
    not_written(life, "the journal is not all on disk")


def test_not_when_the_books_are_wrong(life: Life) -> None:
    queue = life.queue("plain")
    queue.lanes[0].take()
    not_written(life, "the queues do not hold what lives in the segments")


def test_dead_segments_are_gone_by_then() -> None:
    """What died with the last thing that was done is not known any more."""
    life = Life(MemoryDisk())
    client = life.client()
    client.declare("q", durable=True)
    for _ in range(10):
        client.publish("q", b"." * SEGMENT_BYTES, delivery_mode=2)
    client.answers()
    assert len(life.journal.segments.all) > 8
    life.vhost.queues["q"].purge()
    scanned, started = both(life.stop(), life.now)
    same(scanned, started)
    assert len(started.journal.segments.all) == 2


class FailingDisk(MemoryDisk):
    """A disk that remembers what was done to which file."""

    def __init__(self, fail_at: int = 0) -> None:
        super().__init__(fail_at=fail_at)
        self.told: list[str] = []

    def rename(self, old: str, new: str) -> None:
        self.told.append(f"{new} renamed")
        super().rename(old, new)

    def create(self, name: str) -> FakeFile:
        self.told.append(f"{name} created")
        return super().create(name)

    def unlink(self, name: str) -> None:
        self.told.append(f"{name} deleted")
        super().unlink(name)

    def take_over(self, disk: FakeDisk) -> FailingDisk:
        self.files = disk.killed().files
        return self


def steps_of(disk: MemoryDisk) -> tuple[int, list[str]]:
    """How many steps a start and a stop take, and what they are."""
    told = FailingDisk().take_over(disk)
    Life(told).stop()
    return len(told.steps), told.told


def test_it_goes_before_anything_is_appended(life: Life) -> None:
    disk = life.stop()
    segment = f"{segment_name(life.journal.last_sequence + 1)} created"
    told = steps_of(disk)[1]
    assert told.index(f"{NAME} deleted") < told.index(segment) < told.index(f"{NAME} renamed")


def test_a_disk_that_fails_at_any_step(life: Life) -> None:
    """Whatever fails at a start from a checkpoint or at the next stop: the start after that finds everything."""
    disk = life.stop()
    expected = queues_of(Life(disk.copy()))
    for fail_at in range(1, steps_of(disk)[0] + 1):
        failing = FailingDisk(fail_at).take_over(disk)
        with pytest.raises(OSError, match="failed"):
            Life(failing).stop()
        for left in (failing.killed(), failing.power_lost(fail_at), failing.power_lost(fail_at + 1)):
            assert queues_of(Life(FailingDisk().take_over(left))) == expected
