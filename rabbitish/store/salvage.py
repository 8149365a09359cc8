"""From a damaged journal to a new, sound one that has everything that can be read.

Whole records are copied as they stand, segment by segment and with their numbers, into segments that may have gaps.
Behind them stands a snapshot of what is declared, as far as that is known (pieces.py); it settles what was uncertain. A
message whose record is whole is kept, unless it is known that it left or that its queue is gone. Files that a segment
written anew has taken the place of are not read.

Until everything is there, a file that no broker reads over stands among the new ones.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from rabbitish.store.bodies import Bound, Named
from rabbitish.store.coordinator import read_node_file
from rabbitish.store.details import Decoder, Looker
from rabbitish.store.files import Disk
from rabbitish.store.inspect import Names
from rabbitish.store.losses import Losses, Lost
from rabbitish.store.pieces import MadeUp, Pieces
from rabbitish.store.record import (
    JournalDamaged,
    Record,
    SegmentHead,
    Type,
    encode,
    encode_mark,
    encode_segment_head,
    segment_name,
)
from rabbitish.store.resync import Place
from rabbitish.store.scan import that_count
from rabbitish.store.survey import Hole, Part, survey

_COPY_BYTES = 1024 * 1024
_UNFINISHED = segment_name(999_999_999_999)
_UNFINISHED_TEXT = b"The journal in this folder is not complete: `rabbitish journal salvage` did not finish.\n" * 2


class NothingToSalvage(Exception):
    """Not one record can be read; the message says why."""


class Salvaged(NamedTuple):
    """What came of it."""

    queues: int
    messages: int
    """In all queues together."""
    files: list[str]
    lost: list[Lost]
    """Holes, in order; empty if nothing is lost."""
    torn: list[Place]
    """The torn tail, which nobody was promised anything of."""
    again: dict[int, int]
    """How many messages of a queue may be back that had left it, at most."""
    names: Names
    """For the queues in all this."""
    certain: bool
    """Whether what is declared is just what was, though something may be lost."""
    made_up: list[MadeUp]
    unbound: list[Bound]
    """Bindings that are left out, since their exchange or queue is lost."""
    left_over: list[str]
    """Files that were not read."""


def salvage(disk: Disk, to: Disk, codec: Looker) -> Salvaged:
    """Write everything that can be read of the journal on `disk` to `to`, which is empty.

    NothingToSalvage: then nothing is written. OSError: what is on `to` cannot be used, and no broker will.
    """
    reading = _Reading(disk, codec)
    epoch = reading.run()
    pieces = reading.pieces
    pieces.finish([(copy.head, 0) for copy in reading.copies])
    for made_up in pieces.made_up:
        reading.names.learn(made_up.queue)
    files = list(_write(disk, to, codec, reading, epoch))
    messages = pieces.weigh()
    lost = list(reading.losses.found())
    return Salvaged(
        queues=len(pieces.declared.queues),
        messages=messages,
        files=files,
        lost=lost,
        torn=reading.torn,
        again=reading.losses.again(),
        names=reading.names,
        certain=pieces.certain or not lost,
        made_up=pieces.made_up,
        unbound=pieces.unbound,
        left_over=sorted(that_count(disk.names())[1]),
    )


class _Copy:
    """What is to be copied of a segment."""

    def __init__(self, part: Part) -> None:
        self.file = part.file
        self.head = part.head
        self.first_lsn = 0
        self.next_lsn = 0
        self.spans = array("Q")  # start and end of bytes to copy

    def add(self, record: Record) -> None:
        """A whole record."""
        if self.spans and self.spans[-1] == record.start:
            self.spans[-1] = record.end
        else:
            self.spans.extend((record.start, record.end))
        self.first_lsn = self.first_lsn or record.lsn
        self.next_lsn = record.lsn + record.span


class _Reading:
    """The first time that everything is read."""

    def __init__(self, disk: Disk, codec: Looker) -> None:
        self._disk = disk
        self._decoder = Decoder(codec)
        self.pieces = Pieces(codec, self._decoder.publishes)
        self.losses = Losses(self._decoder, self.pieces)
        self.names = Names()
        self.copies: list[_Copy] = []
        self.torn: list[Place] = []

    def run(self) -> int:
        """Read; the last epoch."""
        self.names.learn_from_snapshots(self._disk, self._decoder)
        part: Part | None = None
        epoch, why = 0, ""
        for event in survey(self._disk, self._decoder.check):
            if isinstance(event, Record):
                assert part is not None
                epoch = max(epoch, event.epoch)
                self._record(part, event)
            elif isinstance(event, Part):
                part = event
                self.copies.append(_Copy(part))
                self.losses.segment()
            elif isinstance(event, Place):
                why = why or f"{event.file}: {event.reason}"
                in_part = part is not None and part.file == event.file
                self.losses.place(part if in_part else None, event)
                if event.torn:
                    self.torn.append(event)
            else:
                self._hole(event)
        if not any(copy.spans for copy in self.copies):
            raise NothingToSalvage(why or "there is no journal")
        try:
            known = read_node_file(self._disk)
        except JournalDamaged:
            known = None
        return max(epoch, known[1] if known is not None else 0)

    def _record(self, part: Part, record: Record) -> None:
        details = self._decoder.details(part.data, record)
        self.names.learn(details)
        self.losses.record(record, details)
        self.pieces.visit(part.head, part.data, record)
        self.copies[-1].add(record)

    def _hole(self, hole: Hole) -> None:
        self.pieces.hole(harmless=self.losses.hole(hole))


# ---- writing


def _write(disk: Disk, to: Disk, codec: Looker, reading: _Reading, epoch: int) -> Iterator[str]:
    """Write the new journal; the names of its files."""
    guard = to.create(_UNFINISHED)
    guard.write(_UNFINISHED_TEXT)
    guard.sync()
    guard.close()
    copies = [copy for copy in reading.copies if copy.spans]
    sequence = 0
    for index, copy in enumerate(copies):
        following = copies[index + 1] if index + 1 < len(copies) else None
        sequence = max(sequence + 1, copy.head.sequence)
        last = max(sequence, following.head.sequence - 1 if following is not None else copy.head.last)
        next_lsn = following.first_lsn if following is not None else copy.next_lsn
        head = SegmentHead(sequence, last, copy.head.generation + 1, copy.first_lsn, next_lsn)
        _copy(disk, to, copy, head)
        yield head.name
        sequence = last
    lsn = copies[-1].next_lsn
    head = SegmentHead(sequence + 1, sequence + 1, 0, lsn, 0)
    file = to.create(head.name)
    file.write(b"".join(_snapshot(head, reading.pieces, codec, epoch)))
    file.sync()
    file.close()
    yield head.name
    to.unlink(_UNFINISHED)


def _copy(disk: Disk, to: Disk, copy: _Copy, head: SegmentHead) -> None:
    file = to.create(head.name)
    try:
        file.write(encode_segment_head(head))
        for start, end in zip(copy.spans[::2], copy.spans[1::2], strict=True):
            for at in range(start, end, _COPY_BYTES):
                file.write(disk.read_at(copy.file, at, min(_COPY_BYTES, end - at)))
        file.sync()
    finally:
        file.close()
    disk.forget(copy.file)


def _snapshot(head: SegmentHead, pieces: Pieces, codec: Looker, epoch: int) -> Iterator[bytes]:
    """The last segment: what is declared."""
    declared, lsn = pieces.declared, head.first_lsn
    yield encode_segment_head(head)
    records: list[tuple[Type, bytes]] = [
        (Type.MARK, encode_mark(lsn - 1)),
        (Type.SNAPSHOT, b""),
        *([(Type.ACCESS, declared.access)] if declared.access else []),
        *((Type.VHOST_NEW, Named(vhost, "").encode()) for vhost in declared.vhosts),
        *((Type.EXCHANGE_NEW, exchange.encode(codec)) for exchange in declared.exchanges.values()),
        *((Type.QUEUE_NEW, queue.encode(codec)) for queue in declared.queues.values()),
        *((Type.BOUND, bound.encode(codec)) for bound in declared.bindings.values()),
        (Type.SNAPSHOT_END, b""),
    ]
    for number, (kind, body) in enumerate(records, lsn):
        yield from encode(number, epoch, kind, body)
