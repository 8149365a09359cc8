"""The journal: records in the order they happened, in segments, and up to where they are on disk.

The core's side appends to a buffer and never waits; the writer's side (a thread of server/, or a test) takes everything
that has gathered, writes and syncs it, and says so. So one sync covers whatever arrived during the last one, without a
timer. A new segment begins when the last is full, and with a snapshot of everything declared; then older segments in
which no message lives any more, taken from the oldest on, can go.

Only `append`, `take` and `synced` are called here, by one thread; `write` alone runs on the writer's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from rabbitish.store.files import Disk, File
from rabbitish.store.record import Type, encode, encode_segment_head, segment_name

_LSN = Struct(">Q")
EPOCH = 1  # of a single node


class Batch(NamedTuple):
    """What is to be written to one segment at once."""

    segment: int
    first: bool
    """Whether it begins the segment."""
    data: bytes
    last_lsn: int


class Segments:
    """How many messages of which queue live in each segment, so that it is known which segments may go."""

    def __init__(self) -> None:
        self._sequences: list[int] = []
        self._first_lsns: list[int] = []
        self._live: list[dict[int, int]] = []  # by queue number; no zeroes

    def begin(self, sequence: int, first_lsn: int) -> None:
        """A segment begins with this record."""
        self._sequences.append(sequence)
        self._first_lsns.append(first_lsn)
        self._live.append({})

    def add(self, lsn: int, queue: int, count: int) -> None:
        """So many messages, the first of which is this record, are in a queue; all of one segment."""
        live = self._live[bisect_right(self._first_lsns, lsn) - 1]
        live[queue] = live.get(queue, 0) + count

    def remove(self, lsn: int, queue: int) -> None:
        """A message left a queue."""
        live = self._live[bisect_right(self._first_lsns, lsn) - 1]
        left = live[queue] - 1
        if left:
            live[queue] = left
        else:
            del live[queue]

    def remove_queue(self, queue: int) -> None:
        """A queue has gone with all that it held."""
        for live in self._live:
            live.pop(queue, None)

    def take_dead(self) -> list[int]:
        """The oldest segments, up to the first in which something lives or the newest; forgotten here."""
        dead = 0
        while dead < len(self._live) - 1 and not self._live[dead]:
            dead += 1
        gone = self._sequences[:dead]
        del self._sequences[:dead], self._first_lsns[:dead], self._live[:dead]
        return gone


class Journal:
    """Appends records and knows how far they are safe.

    `snapshot` is called when a segment begins and appends what is declared at that time.
    """

    def __init__(
        self, disk: Disk, *, segment_bytes: int, next_sequence: int, next_lsn: int, snapshot: Callable[[Journal], None]
    ) -> None:
        self.disk = disk
        self.segments = Segments()
        self.last_lsn = next_lsn - 1
        self.durable_lsn = next_lsn - 1
        self._segment_bytes = segment_bytes
        self._snapshot = snapshot
        self._sequence = next_sequence - 1
        self._size = 0  # of the segment that is being filled
        self._first = False
        self._pieces: list[bytes] = []
        self._batches: list[Batch] = []
        self._dying: deque[tuple[int, list[int]]] = deque()  # segments that may go once that record is on disk
        self._file: File | None = None

    # ---- the core's side

    def begin(self) -> None:
        """Begin the first segment of this run."""
        self._begin_segment()

    def append(self, kind: Type, *body: bytes) -> int:
        """Append a record; its number. It is on disk once `durable_lsn` has reached that."""
        if self._size >= self._segment_bytes:
            self._begin_segment()
        return self.append_snapshot(kind, *body)

    def append_snapshot(self, kind: Type, *body: bytes) -> int:
        """Append a record of the snapshot that begins a segment, however large that becomes."""
        if not self._pieces:
            self._mark()
        self.last_lsn += 1
        pieces = encode(self.last_lsn, EPOCH, kind, *body)
        self._pieces += pieces
        for piece in pieces:
            self._size += len(piece)
        return self.last_lsn

    def _mark(self) -> None:
        """Begin a batch with how far the journal was safe: less than that found later is damage, not a torn tail."""
        self.last_lsn += 1
        self._pieces += encode(self.last_lsn, EPOCH, Type.MARK, _LSN.pack(self.durable_lsn))

    def _begin_segment(self) -> None:
        self._close_batch()
        self._sequence += 1
        self._first = True
        self._size = 0
        first_lsn = self.last_lsn + 1
        self._pieces.append(encode_segment_head(self._sequence, first_lsn))
        self._mark()
        self.append_snapshot(Type.SNAPSHOT)
        self._snapshot(self)
        self.append_snapshot(Type.SNAPSHOT_END)
        self._size = 0  # or a snapshot larger than a segment would call for the next one at once
        self.segments.begin(self._sequence, first_lsn)

    def _close_batch(self) -> None:
        if self._pieces:
            self._batches.append(Batch(self._sequence, self._first, b"".join(self._pieces), self.last_lsn))
            self._pieces = []
            self._first = False

    @property
    def waiting(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._pieces or self._batches)

    def take(self) -> list[Batch]:
        """Everything that is to be written now; `write` it, then say `synced`."""
        self._close_batch()
        batches, self._batches = self._batches, []
        return batches

    def synced(self, lsn: int) -> list[int]:
        """Everything up to `lsn` is on disk. The numbers of the segments that may be deleted now.

        All there is by now must be on disk before a dead segment goes: what emptied it, since a message that left it
        may live on as a dead letter, and the snapshot at the beginning of the newest one.
        """
        self.durable_lsn = lsn
        dead = self.segments.take_dead()
        if dead:
            self._dying.append((self.last_lsn, dead))
        gone: list[int] = []
        while self._dying and self._dying[0][0] <= lsn:
            gone += self._dying.popleft()[1]
        return gone

    # ---- the writer's side

    def write(self, batches: list[Batch]) -> int:
        """Write and sync; the number of the last record. OSError: what is on disk is unknown, nothing may follow."""
        for batch in batches:
            if batch.first:
                if self._file is not None:
                    self._file.sync()
                    self._file.close()
                self._file = self.disk.create(segment_name(batch.segment))
            assert self._file is not None
            self._file.write(batch.data)
        assert self._file is not None
        self._file.sync()
        return batches[-1].last_lsn

    def delete(self, sequences: list[int]) -> None:
        """Delete segments that `synced` named."""
        for sequence in sequences:
            self.disk.unlink(segment_name(sequence))

    def close(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            self._file.close()
            self._file = None
