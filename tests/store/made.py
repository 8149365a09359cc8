"""Journals without a broker: records put in by hand, and what server/ does with what has gathered."""

from __future__ import annotations

from collections.abc import Callable

from rabbitish.core.message import Address
from rabbitish.store.bodies import Route, encode_of_queue
from rabbitish.store.files import Disk
from rabbitish.store.journal import Journal
from rabbitish.store.record import SEGMENT_HEAD_BYTES, Record, Type, decode_all, parse_segment_name
from rabbitish.store.segments import WEIGHT_BYTES, Segments

from .fake_disk import FakeDisk

SMALL = 400


def journal_on(
    disk: Disk,
    *,
    declarations: int = 0,
    segment_bytes: int = SMALL,
    next_sequence: int = 1,
    next_lsn: int = 1,
    epoch: int = 1,
    snapshot: Callable[[Journal], None] | None = None,
) -> Journal:
    """A journal that has begun, whose snapshots hold so many declarations, or whatever `snapshot` appends."""

    def many(journal: Journal) -> None:
        for _ in range(declarations):
            journal.append_snapshot(Type.VHOST_NEW, b"-" * 30)

    journal = Journal(
        disk,
        Segments(),
        segment_bytes=segment_bytes,
        next_sequence=next_sequence,
        next_lsn=next_lsn,
        epoch=epoch,
        snapshot=snapshot or many,
    )
    journal.begin()
    return journal


def publish(journal: Journal, *queues: int, size: int = 100, count: int = 1, content: bytes = b"") -> int:
    """Publish messages of one size; the number of the first."""
    queues = queues or (1,)
    route = Route(1, queues, Address("", "q")).encode()
    return journal.publish(route, queues, 5, [content or b"-" * size] * count, len(content) or size)


def remove(journal: Journal, lsn: int, queue: int = 1, *, count: int = 1, size: int = 100) -> None:
    """Messages leave a queue."""
    journal.segments.removed(queue, (lsn, count), count * (size + WEIGHT_BYTES))
    journal.append(Type.REMOVE, encode_of_queue(queue, 0, (lsn, count)))


def write(journal: Journal, *, everything: bool = True) -> list[str]:
    """Write and sync what has gathered, and delete what may go then; the names of that."""
    batches = journal.take(everything=everything)
    journal.write(batches)
    journal.written(batches[-1].last_lsn, sum(len(batch.data) for batch in batches))
    journal.sync()
    dead = journal.synced(batches[-1].last_lsn)
    journal.delete(dead)
    return dead


def segments(disk: FakeDisk) -> list[str]:
    """The files of the journal, oldest first."""
    return sorted(name for name in disk.names() if parse_segment_name(name))


def records(data: bytes) -> list[Record]:
    """The records of a segment."""
    return list(decode_all(data, SEGMENT_HEAD_BYTES))


def kinds(data: bytes) -> list[Type]:
    """What the records of a segment are."""
    return [record.type for record in records(data)]
