"""A broker whose journal is written to a replica's log, as that of a cluster's leader; and random traffic for it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from rabbitish.cluster.protocol.disk_log import DiskLog
from rabbitish.cluster.protocol.disk_open import open_log
from rabbitish.store.compaction import Compaction
from rabbitish.store.record import Type, decode_segment_head
from rabbitish.wire import methods
from tests.session.client import publication
from tests.session.harness import START
from tests.store.driver import Durable, State, state_of
from tests.store.fake_disk import FakeDisk

from .memory_log import record

SEGMENT_BYTES = 4_000
NOW = 1 << 41  # beyond everything that expires


class SharedDisk(FakeDisk):
    """Two read from it, the log and the journal: each may go on when the other needs a file no more."""

    def forget(self, name: str) -> None:
        self.open.discard(name)


class Epoch:
    """See store.coordinator: the epoch is the replica's."""

    storage_id = "u1"

    def __init__(self, log: DiskLog) -> None:
        self._log = log

    def lead(self, last_epoch: int) -> int:
        assert last_epoch == self._log.epoch
        return self._log.epoch


def opened(disk: FakeDisk) -> DiskLog:
    return open_log(disk, lambda: "u1", segment_bytes=SEGMENT_BYTES)


def synced(log: DiskLog) -> None:
    while log.dirty:
        ticket = log.begin_sync()
        ticket.run()
        log.end_sync(ticket)


class Leader(Durable):
    """It leads on a log, alone: what is on its disk is committed. `replicate` is called before
    what was written is taken for committed."""

    def __init__(self, disk: FakeDisk, log: DiskLog, *, now: int = START) -> None:
        self.log = log
        self.replicate: Callable[[], None] = lambda: None
        log.note_epoch(log.epoch + 1)
        log.append(record(log.last + 1, log.epoch, Type.EPOCH))
        log.seal()
        synced(log)
        super().__init__(disk, now=now, segment_bytes=SEGMENT_BYTES, coordinator=Epoch(log))

    def _step(self, *, at_once: bool = False) -> bool:
        journal, log = self.journal, self.log
        batches = journal.take()
        for batch in batches:
            parts = batch.parts
            if batch.first:
                log.begin_segment(decode_segment_head(parts[0]))
                parts = parts[1:]
            log.append_batch(parts, batch.last_lsn)
        journal.delete(log.drop())
        if not log.dirty:
            return False
        synced(log)
        if batches:
            journal.written(batches[-1].last_lsn, sum(batch.size for batch in batches))
        self.replicate()
        journal.delete(log.drop(journal.synced(log.durable)))
        self.hub.now_durable(journal.durable_lsn)
        return True

    def compact(self) -> int:
        rounds = 0
        while sparse := self.journal.sparse():
            compaction = Compaction(self.journal, self.codec, sparse)
            compaction.write()
            self.sync()
            compaction.install()
            compaction.finish()
            self.log.replaced([old.name for old in compaction.replaced], compaction.head, compaction.new_bytes)
            self.journal.delete(self.log.drop(self.journal.take_gone()))
            rounds += 1
        return rounds


class Mirror:
    """A log that is fed by another one."""

    def __init__(self, leader: DiskLog) -> None:
        self.leader = leader
        self.disk = SharedDisk()
        self.log = opened(self.disk)
        self.snapshots = 0

    def feed(self, most: int = 1 << 20) -> None:
        """Take what there is, as Leadership and Following do."""
        ours, log = self.leader, self.log
        if log.last < ours.base:
            self.snapshots += 1
            log.note_epoch(ours.epoch)
            log.begin_install(ours.base)
            for piece in ours.snapshot():
                log.install(piece)
            log.end_install()
        elif log.epoch < ours.epoch:
            log.note_epoch(ours.epoch)
        while log.last < ours.last:
            data, last = ours.read(log.last, most)
            log.append(data)
            assert log.last == last
        synced(log)
        assert log.starts == ours.starts

    def state(self) -> State:
        return state_of_folder(self.disk)


def state_of_folder(disk: SharedDisk) -> State:
    """What a broker finds that leads on what is left of it."""
    left = SharedDisk()
    left.files = disk.killed().files
    return state_of(Leader(left, opened(left), now=NOW).broker)


def started() -> tuple[SharedDisk, Leader]:
    disk = SharedDisk()
    return disk, Leader(disk, opened(disk))


QUEUES: dict[str, dict[str, object]] = {
    "plain": {},
    "dead": {},
    "limit": {"x-delivery-limit": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
    "short": {"x-max-length": 12, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
    "priority": {"x-max-priority": 2},
    "mortal": {"x-message-ttl": 3_000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
}


class Traffic:
    """Publishes, acknowledgements, returns, dead letters, purges, and queues that come and go."""

    def __init__(self, world: Durable, seed: int) -> None:
        self.world = world
        self.random = Random(seed)
        self.number = 0
        self.connect()

    def connect(self) -> None:
        self.client = self.world.client(1)
        for name in QUEUES:
            self.declare(name)

    def declare(self, name: str) -> None:
        self.client.send(methods.QueueDeclare(queue=name, durable=True, arguments=QUEUES[name], nowait=True))
        if self.random.random() < 0.5:
            self.client.send(methods.QueueBind(queue=name, exchange="amq.fanout", nowait=True))

    def steps(self, count: int) -> None:
        acts = (self.publish, self.take, self.rare, self.wait)
        for _ in range(count):
            self.random.choices(acts, (40, 50, 4, 6))[0]()
            self.client.answers()

    def publish(self) -> None:
        random = self.random
        for _ in range(random.choice((1, 1, 4))):
            self.number += 1
            body = b"%06d" % self.number + b"." * random.choice((1, 30, 30, 200, 900))
            exchange = "amq.fanout" if random.random() < 0.2 else ""
            properties = {"delivery_mode": 2, "priority": random.randrange(3)}
            self.client.raw(publication(random.choice([*QUEUES]), body, exchange=exchange, **properties))
        self.world.settle()

    def take(self) -> None:
        """Get some, and acknowledge, return, reject or keep them."""
        random, client = self.random, self.client
        for _ in range(random.choice((1, 3))):
            client.send(methods.BasicGet(queue=random.choice([*QUEUES])))
        unacked = client.session.channels[1].unacked.tags()
        if unacked:
            tag, many = random.choice(unacked), random.random() < 0.4
            if random.random() < 0.75:
                client.send(methods.BasicAck(delivery_tag=tag, multiple=many))
            else:
                client.send(methods.BasicNack(delivery_tag=tag, multiple=many, requeue=random.random() < 0.7))

    def rare(self) -> None:
        name = self.random.choice([*QUEUES])
        if self.random.random() < 0.5:
            self.client.send(methods.QueuePurge(queue=name, nowait=True))
        else:
            self.client.send(methods.QueueDelete(queue=name, nowait=True))
            self.declare(name)

    def wait(self) -> None:
        self.world.advance(self.random.choice((100, 1_000)))
