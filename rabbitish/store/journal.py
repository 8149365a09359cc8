"""The journal: records in the order they happened, in segments, and up to where they are on disk.

The core's side appends to a buffer and never waits; the writer's side (a thread of server/, or a test) takes everything
that has gathered, writes it, syncs it when somebody waits for that, and says so. So one sync covers whatever arrived
during the last one, without a timer. A new segment begins when the last is full, and with a snapshot of everything
declared; then older segments in which no message lives any more, taken from the oldest on, can go.

A large message that everybody is done with before it is written is not written: a consumer that keeps up saves the disk
the work, and the publisher the wait. So the checksum of one is left to the writer.

`write` and `delete` alone run on the writer's thread; everything else is called by one thread, the core's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from rabbitish.store.bodies import Ranges, encode_of_queue
from rabbitish.store.files import Disk, File
from rabbitish.store.gathering import Gathering, Numbered
from rabbitish.store.mixed import Mixed
from rabbitish.store.needed import Needed
from rabbitish.store.record import (
    HEAD,
    PUBLISH_HEAD,
    PUBLISHES,
    SegmentHead,
    Type,
    encode,
    encode_mark_record,
    encode_segment_head,
)
from rabbitish.store.segments import WEIGHT_BYTES, Segment, Segments

# At most so many ranges in one record, so that purging a million makes no record of megabytes.
_RANGES_AT_ONCE = 2048
# What was told of so many messages is appended before more is.
_GATHERED_AT_MOST = 4096
# Pieces from this size on are written by themselves.
LARGE_BYTES = 64 * 1024
# Stands for the head of a large message's record until the writer has worked out its checksum.
_HEAD_TO_COME = bytes(HEAD.size)


class Batch(NamedTuple):
    """What is to be written to one segment at once."""

    segment: str
    """Its file's name."""
    first: bool
    """Whether it begins the segment."""
    pieces: list[bytes]
    """Of records, three for one of messages; a segment's head is the first."""
    late: list[tuple[int, int]]
    """Where in them a head is still to come, and the record's number."""
    epoch: int
    size: int
    last_lsn: int

    @property
    def parts(self) -> list[bytes]:
        """What to write: large bodies and a segment's head by themselves, all else joined. Any thread may ask."""
        pieces = self.pieces
        for index, lsn in self.late:
            pieces[index] = encode(lsn, self.epoch, Type.PUBLISH, *pieces[index + 1 : index + 3])[0]
        return pieces[:1] + _joined(pieces[1:]) if self.first else _joined(pieces)

    @property
    def data(self) -> bytes:
        """All of it, joined."""
        return b"".join(self.parts)


def _joined(pieces: list[bytes]) -> list[bytes]:
    """The same bytes in few parts."""
    if max(map(len, pieces), default=0) < LARGE_BYTES:
        return [b"".join(pieces)]
    parts: list[bytes] = []
    for large, group in groupby(pieces, lambda piece: len(piece) >= LARGE_BYTES):
        if large:
            parts += group
        else:
            parts.append(b"".join(group))
    return parts


class _Large:
    """The record of one large message that waits to be written."""

    __slots__ = ("index", "queues", "weight")

    def __init__(self, index: int, queues: int, weight: int) -> None:
        self.index = index  # of its first piece
        self.queues = queues  # how many it is in
        self.weight = weight  # in all of these


class Journal:
    """Appends records and knows how far they are safe.

    `snapshot` is called when a segment begins and appends what is declared at that time.
    """

    def __init__(
        self,
        disk: Disk,
        segments: Segments,
        *,
        segment_bytes: int,
        next_sequence: int,
        next_lsn: int,
        epoch: int,
        snapshot: Callable[[Journal], None],
    ) -> None:
        self.disk = disk
        self.segments = segments
        self.segment_bytes = segment_bytes
        self.last_lsn = next_lsn - 1
        self.written_lsn = next_lsn - 1  # up to here a record can be read back
        self.durable_lsn = next_lsn - 1  # up to here it survives
        self.pending_bytes = 0  # appended and not yet written
        self.needed = Needed(self.durable_lsn, self.last_lsn)
        self.epoch = epoch
        self._snapshot = snapshot
        self.last_sequence = next_sequence - 1
        self._filled = 0  # bytes of records in the segment that is being filled, apart from its snapshot
        self._segment: Segment
        self._name = ""  # of its file
        self._first = False
        self._gathering = Gathering()
        self._large: dict[int, _Large] = {}  # messages among what is not closed yet, by number
        self._pieces: list[bytes] = []
        self._unclosed = 0  # bytes of these
        self._batches: list[Batch] = []
        self._dying: deque[tuple[int, list[Segment]]] = deque()  # segments that may go once that record is on disk
        self._there: dict[str, Segment] = {}  # those, until their files are deleted
        self._file: File | None = None

    # ---- the core's side

    def begin(self) -> None:
        """Begin the first segment of this run."""
        self._begin_segment()
        self.append(Type.EPOCH)

    def only_safe_to(self, lsn: int) -> None:
        """What the journal was found to hold behind this number is not safe yet: other nodes have a say."""
        self.durable_lsn = lsn
        self.needed = Needed(lsn, self.last_lsn)

    def append(self, kind: Type, *body: bytes, behind_all: bool = True) -> int:
        """Append a record; its number. It is on disk once `durable_lsn` has reached that.

        Not `behind_all`: it has nothing to do with what has gathered.
        """
        self._make_room(behind_all=behind_all)
        self._filled += self._append(kind, body, 1)
        return self.last_lsn

    def append_ranges(self, kind: Type, queue: int, flags: int, ranges: Ranges) -> None:
        """Append that these messages of a queue have left, or were handed out."""
        self._make_room()
        self._append_ranges(kind, queue, flags, ranges)

    def _append_ranges(self, kind: Type, queue: int, flags: int, ranges: Ranges) -> None:
        for start in range(0, len(ranges), _RANGES_AT_ONCE):
            body = encode_of_queue(queue, flags, ranges[start : start + _RANGES_AT_ONCE])
            self._filled += self._append(kind, (body,), 1)

    def _make_room(self, *, behind_all: bool = True) -> None:
        """What is appended next is in a segment that is not full, and, if wanted, behind all that has gathered.

        Messages may come before acknowledgements and deliveries that were earlier: those are of other messages.
        """
        gathering = self._gathering
        if gathering.count and (behind_all or gathering.urgent or self._filled >= self.segment_bytes):
            self.close_gathering()
        if self._filled >= self.segment_bytes:
            self._begin_segment()

    def delivered(self, queue: int, messages: Sequence[Numbered]) -> None:
        """Have it appended that consumers were handed these, together with what else is gathered."""
        self.needed.handed_out(messages)
        self._room_to_gather().deliver(queue, messages)

    def removed(self, queue: int, reason: int, messages: Sequence[Numbered]) -> None:
        """The same of messages that have left. What that leaves of segments is counted when it is appended."""
        self._room_to_gather().remove(queue, reason, messages)

    def _room_to_gather(self) -> Gathering:
        if not 0 < self._gathering.count < _GATHERED_AT_MOST:
            self._make_room()
        return self._gathering

    def close_gathering(self) -> None:
        """Append what has gathered, so that `last_lsn` stands for all that was told."""
        if not self._gathering.count:
            return
        gathered, self._gathering = self._gathering, Gathering()
        for queue, ranges in gathered.delivered():
            self._append_ranges(Type.DELIVERED, queue, 0, ranges)
        for queue, reason, ranges, sizes in gathered.removed():
            self._append_ranges(Type.REMOVE, queue, reason, ranges)
            self.segments.left(queue, ranges, sizes)

    def append_snapshot(self, kind: Type, *body: bytes) -> None:
        """Append a record of the snapshot that begins a segment, however large that becomes."""
        self._append(kind, body, 1)

    def publish(self, route: bytes, queues: Sequence[int], now: int, contents: Sequence[bytes], body_bytes: int) -> int:
        """Append messages whose contents are of one size, and whose bodies of `body_bytes`; the number of the first."""
        self._make_room(behind_all=False)
        if not self._pieces:
            self._mark()
        segment, count = self._segment, len(contents)
        data = contents[0] if count == 1 else b"".join(contents)
        assert len(data) == count * len(contents[0])
        lsn = self.last_lsn + 1
        segment.note(lsn, segment.size, count)
        for queue in queues:
            segment.add(queue, count, count * (body_bytes + WEIGHT_BYTES))
        if len(data) >= LARGE_BYTES and count == 1:
            self._large[lsn] = _Large(len(self._pieces), len(queues), len(queues) * (body_bytes + WEIGHT_BYTES))
        self.needed.published(lsn, count, len(queues))
        head = PUBLISH_HEAD.pack(len(route), now, count, len(contents[0]))
        self._filled += self._append(Type.PUBLISH, (head + route, data), count)
        return lsn

    def publish_mixed(
        self, route: bytes, queues: Sequence[int], now: int, contents: Sequence[bytes], mixed: Mixed
    ) -> int:
        """Append messages of which `mixed` says what each has of its own; the number of the first."""
        self._make_room(behind_all=False)
        if not self._pieces:
            self._mark()
        segment, count, lsn = self._segment, len(contents), self.last_lsn + 1
        segment.note(lsn, segment.size, count)
        self.needed.published(lsn, count, len(queues))
        weight = sum(mixed.bodies) + count * WEIGHT_BYTES
        for queue in queues:
            segment.add(queue, count, weight)
        self._filled += self._append(Type.PUBLISH_MIXED, (mixed.encode(route, now), b"".join(contents)), count)
        return lsn

    @property
    def holds_large(self) -> bool:
        """Whether `done_with` may save anything."""
        return bool(self._large)

    def done_with(self, lsn: int) -> None:
        """A queue needs this message no more. When none does and it is not written yet, a mark takes its place."""
        large = self._large.get(lsn)
        if large is None:
            return
        large.queues -= 1
        if large.queues:
            return
        del self._large[lsn]
        pieces, index = self._pieces, large.index
        size = sum(map(len, pieces[index : index + 3]))
        mark = encode_mark_record(lsn, self.epoch, self.durable_lsn)
        pieces[index : index + 3] = (mark, b"", b"")
        saved = size - len(mark)
        self._segment.leave_out(lsn, saved, large.weight)
        self._segment.other_bytes += len(mark)
        self._filled -= saved
        self._unclosed -= saved
        self.pending_bytes -= saved

    def _append(self, kind: Type, body: tuple[bytes, ...], span: int) -> int:
        """Append a record that takes `span` numbers; its bytes."""
        if not self._pieces:
            self._mark()
        lsn = self.last_lsn + 1
        pieces = (_HEAD_TO_COME, *body) if lsn in self._large else encode(lsn, self.epoch, kind, *body)
        self.last_lsn += span
        size = self._add(pieces)
        if kind not in PUBLISHES:
            self._segment.other_bytes += size
        return size

    def _add(self, pieces: Sequence[bytes]) -> int:
        self._pieces += pieces
        size = sum(map(len, pieces))
        self._segment.size += size
        self._unclosed += size
        self.pending_bytes += size
        return size

    def _mark(self) -> None:
        """Begin a batch with how far the journal was safe: less than that found later is damage, not a torn tail."""
        self.last_lsn += 1
        self._segment.other_bytes += self._add((encode_mark_record(self.last_lsn, self.epoch, self.durable_lsn),))

    def _begin_segment(self) -> None:
        self._close_batch()
        self.last_sequence += 1
        self._first = True
        head = SegmentHead(self.last_sequence, self.last_sequence, 0, self.last_lsn + 1, 0)
        self._segment, self._name = self.segments.begin(head), head.name
        self._segment.other_bytes = self._add([encode_segment_head(head)])
        self._mark()
        self.append_snapshot(Type.SNAPSHOT)
        self._snapshot(self)
        self.append_snapshot(Type.SNAPSHOT_END)
        self._filled = 0  # or a snapshot larger than a segment would call for the next one at once

    def _close_batch(self) -> None:
        if self._pieces:
            late = [(large.index, lsn) for lsn, large in self._large.items()]
            self._batches.append(
                Batch(self._name, self._first, self._pieces, late, self.epoch, self._unclosed, self.last_lsn)
            )
            self._pieces = []
            self._large.clear()
            self._unclosed = 0
            self._first = False

    @property
    def waiting(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._pieces or self._batches or self._gathering.count)

    @property
    def waiting_now(self) -> bool:
        """Whether there is for whoever does not take everything."""
        return bool(self._pieces or self._batches or self._gathering.urgent)

    def take(self, *, everything: bool = True) -> list[Batch]:
        """Everything that is to be written now; `write` it, then say `written` and `synced`.

        Not `everything`: except acknowledgements and deliveries that still gather. Whoever takes so closes the
        gathering in a moment; mostly what was delivered has been acknowledged by then, and is told of once.
        """
        if everything or self._gathering.urgent:
            self.close_gathering()
        self._close_batch()
        batches, self._batches = self._batches, []
        return batches

    def written(self, lsn: int, size: int) -> None:
        """Everything up to `lsn` can be read back; `size` bytes less are pending."""
        self.written_lsn = lsn
        self.pending_bytes -= size

    def synced(self, lsn: int) -> list[str]:
        """Everything up to `lsn` is on disk. The names of the files that may be deleted now."""
        self.durable_lsn = lsn
        self.needed.synced(lsn)
        return self.take_gone()

    def take_gone(self) -> list[str]:
        """The names of the files that may be deleted now."""
        self.dies(self.segments.take_dead())
        gone: list[str] = []
        while self._dying and self._dying[0][0] <= self.durable_lsn:
            gone += [segment.head.name for segment in self._dying.popleft()[1]]
        for name in gone:
            self.disk.forget(name)
        return gone

    def dies(self, segments: list[Segment]) -> None:
        """Nobody needs these segments once all there is by now is on disk.

        That is what emptied them, since a message that left may live on as a dead letter, and the snapshot at the
        beginning of the newest one.
        """
        if segments:
            self._dying.append((self.last_lsn, segments))
            self._there.update((segment.head.name, segment) for segment in segments)

    @property
    def dead(self) -> list[Segment]:
        """Segments that nobody needs and whose files may still be there."""
        return list(self._there.values())

    def sparse(self) -> list[Segment]:
        """Neighbouring segments that are worth being written anew as one; not those that only wait to be deleted."""
        self.dies(self.segments.take_dead())
        return self.segments.sparse(self.segment_bytes, self.written_lsn)

    # ---- the writer's side

    def write(self, batches: list[Batch]) -> None:
        """Write. OSError: what is on disk is unknown, nothing may follow.

        The head of a segment is on disk before anything behind it is written; so whatever is there instead of a head
        that a crash tore, no record stood behind it (scan.py).
        """
        for batch in batches:
            parts = batch.parts
            if batch.first:
                if self._file is not None:
                    self._file.sync()
                    self.close()
                self._file = self.disk.create(batch.segment)
                self._file.write(parts[0])
                self._file.sync()
                parts = parts[1:]
            assert self._file is not None
            self._file.write(*parts)

    def sync(self) -> None:
        """Have everything written on the medium. OSError: what is on disk is unknown, nothing may follow."""
        assert self._file is not None
        self._file.sync()

    def delete(self, names: list[str]) -> None:
        """Delete files that `synced` named."""
        for name in names:
            self.disk.unlink(name)
            self._there.pop(name, None)  # the one thing that both threads change, in one step of the interpreter

    def close(self) -> None:
        """Close the file that is being written. OSError: it may end later than what was written."""
        if self._file is not None:
            file, self._file = self._file, None  # whatever comes of it: its number may be another's then
            file.close()
