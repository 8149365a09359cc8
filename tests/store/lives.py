"""Lives of a broker on one disk: started, used by a client, stopped cleanly or killed, and started again.

As in the server whatever settles is written and synced at once, segments are written anew when they are sparse, and a
clean stop ends with a checkpoint. Segments and windows are small, so that all of it happens within some dozen messages.
"""

from __future__ import annotations

from typing import NamedTuple

from rabbitish.core.access.roster import Roster
from rabbitish.core.exchange import Exchange
from rabbitish.core.paging import Page
from rabbitish.core.policing import policies_by_vhost
from rabbitish.core.queue import Queue
from rabbitish.session.content import WireCodec, WireMessage
from rabbitish.store.checkpoint import write_checkpoint
from rabbitish.store.compaction import Compaction
from rabbitish.store.coordinator import LocalCoordinator
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import HEAD
from rabbitish.store.recovery import recover
from rabbitish.store.segments import Segment
from tests.session.harness import START, World
from tests.wire.helpers import exact

from .fake_disk import Contents, FakeDisk

SEGMENT_BYTES = 4096
WINDOW_BYTES = 6000


class MemoryDisk(FakeDisk):
    """A disk that can be copied."""

    def copy(self, *without: str) -> MemoryDisk:
        """What is on it now, but for some files."""
        copy = MemoryDisk()
        for name in self.names():
            if name not in without:
                copy.files[name] = Contents(self.read(name))
        return copy


class Life(World):
    """A broker from its start to its end. Checkpoints count however small the journal is, unless told otherwise."""

    def __init__(
        self, disk: MemoryDisk, *, now: int = START, trusted_above: int = 0, roster: Roster | None = None
    ) -> None:
        super().__init__()
        if roster is not None:  # known first, as in the server
            self.broker.govern(policies_by_vhost(roster), now)
        self.disk = disk
        self.now = now
        self.failures: list[Exception] = []
        self.codec = WireCodec(self.hub.properties)
        self.recovered = recover(
            disk,
            self.broker,
            self.codec,
            LocalCoordinator(disk, lambda: "id"),
            now,
            segment_bytes=SEGMENT_BYTES,
            on_failure=self.failures.append,
            checkpoint_trusted_above_bytes=trusted_above,
        )
        self.journal = self.recovered.journal
        self.broker.usage.window_bytes = WINDOW_BYTES
        self.hub.durable = self.journal.durable_lsn
        if roster is not None:
            self.hub.adopt(roster, now)

    def settle(self) -> None:
        """See World."""
        while True:
            self._settle()
            if not self.sync():
                return

    def _settle(self) -> None:
        while True:
            self.broker.settle(self.now)
            self.look_through()
            touched, self.hub.touched = self.hub.touched, []
            for session in touched:
                session.listed = False
            for client in self.clients.values():
                client.collect()
            fed = [client for client in self.clients.values() if client.feed()]
            if not (fed or self.broker.restless):
                return

    def sync(self) -> bool:
        """Write and sync what waits; whether anything did."""
        batches = self.journal.take()
        if not batches:
            return False
        self.journal.write(batches)
        self.journal.written(batches[-1].last_lsn, sum(len(batch.data) for batch in batches))
        self.journal.sync()
        self.journal.delete(self.journal.synced(batches[-1].last_lsn))
        self.hub.now_durable(batches[-1].last_lsn)
        return True

    def compact(self) -> bool:
        """Write segments anew if that is worth it; whether it was."""
        segments = self.journal.segments.sparse(SEGMENT_BYTES)
        if segments:
            compaction = Compaction(self.journal, self.codec, segments)
            compaction.write()
            self.settle()
            compaction.install()
            compaction.finish()
        return bool(segments)

    def stop(self) -> MemoryDisk:
        """End cleanly; what is left."""
        for session in self.clients:
            session.receive_eof(self.now)
        self.clients.clear()
        self.sync()
        self.journal.close()
        write_checkpoint(self.journal, self.recovered.recorder, self.recovered.shelf)
        self.recovered.shelf.close()
        assert not self.failures
        return self.disk


# ---- what there is, for comparison


class MessageState(NamedTuple):
    """A message in a queue."""

    lsn: int
    deadline: int | None
    returns: int
    content: bytes
    exchange: str
    routing_keys: tuple[str, ...]


class LaneState(NamedTuple):
    """A level of priority; only what is in the journal counts."""

    messages: list[MessageState]
    next_deadline: int | None


class QueueState(NamedTuple):
    """A queue."""

    number: int
    arguments: str
    auto_delete: bool
    ready: int
    bytes: int
    unacked: int
    lanes: dict[int, LaneState]


class SegmentState(NamedTuple):
    """A segment."""

    head: tuple[int, ...]
    size: int
    records: list[tuple[int, int, int]]
    living: dict[int, list[int]]


def queues_of(life: Life) -> dict[tuple[str, str], QueueState]:
    """The durable queues."""
    numbers = life.recovered.recorder.queues
    return {
        (vhost.name, queue.name): QueueState(
            numbers[queue],
            repr(exact(queue.arguments)),
            queue.auto_delete,
            queue.ready,
            queue.bytes,
            queue.unacked,
            lanes_of(life, queue),
        )
        for vhost in life.broker.vhosts.values()
        for queue in vhost.queues.values()
        if queue.durable
    }


def lanes_of(life: Life, queue: Queue) -> dict[int, LaneState]:
    lanes: dict[int, LaneState] = {}
    for level, lane in queue.lanes.items():
        messages = [(message, returns) for message, returns in lane.returned()]
        for kept in lane.never_taken():
            messages += [(message, 0) for message in (kept.load() if isinstance(kept, Page) else [kept])]
        if messages:
            deadline = lane.next_deadline()
            lanes[level] = LaneState([message_of(life, *one) for one in messages if one[0].lsn], deadline)
    return lanes


def message_of(life: Life, message: object, returns: int) -> MessageState:
    assert isinstance(message, WireMessage)
    content = (life.recovered.shelf.recall(message) if message.away else message).content  # type: ignore[attr-defined]
    address = message.address
    return MessageState(message.lsn, message.deadline, returns, content, address.exchange, address.routing_keys)


def declared_of(life: Life) -> tuple[set[object], set[object]]:
    """The durable exchanges, and the bindings between what is durable."""
    exchanges: set[object] = set()
    bindings: set[object] = set()
    for vhost in life.broker.vhosts.values():
        for exchange in vhost.exchanges.values():
            if not exchange.durable:
                continue
            how = (exchange.type, exchange.auto_delete, exchange.internal, repr(exact(exchange.arguments)))
            exchanges.add((vhost.name, exchange.name, how))
            for binding in exchange.bindings():
                to = binding.destination
                if to.durable:
                    ends = (vhost.name, exchange.name, to.name, isinstance(to, Exchange))
                    bindings.add((ends, binding.routing_key, repr(exact(binding.arguments))))
    return exchanges, bindings


def segments_of(life: Life) -> list[SegmentState]:
    """The segments, with everything that is certain: by queue the messages that live."""
    return [_segment_state(life, segment) for segment in life.journal.segments.all]


def _segment_state(life: Life, segment: Segment) -> SegmentState:
    records = list(zip(segment.lsns, segment.offsets, segment.spans, strict=True))
    living: dict[int, list[int]] = {}
    left: dict[int, set[int]] = {number: set() for number in segment.counts}
    for number, first, count in zip(*[iter(segment.removed)] * 3, strict=True):
        if number in left:
            left[number].update(range(first, first + count))
    for number, gone in left.items():
        living[number] = [lsn for lsn in _numbers(life, segment, number) if lsn not in gone]
        assert len(living[number]) == segment.counts[number]
    return SegmentState(segment.head, segment.size, records, living)


def _numbers(life: Life, segment: Segment, queue: int) -> list[int]:
    """The messages that were published to a queue in this segment."""
    data, publishes = life.disk.read(segment.head.name), PublishReader(life.codec)
    found: list[int] = []
    for lsn, offset, span in zip(segment.lsns, segment.offsets, segment.spans, strict=True):
        if queue in publishes.head(data, offset + HEAD.size, data[offset + HEAD.size - 2]).route.queues:
            found += range(lsn, lsn + span)
    return found
