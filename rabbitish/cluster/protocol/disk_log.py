"""A replica's log on a disk, in segments of the journal's format: the same records, to the byte, on every replica.

Everything changes in memory at once and is queued for the disk, in order: bytes, cuts, epochs, snapshots. A ticket
(`begin_sync`) carries out what is queued by then, in a thread if its owner wants. Records that are not written yet are
read from memory. A cut deletes the newest segments first, so that whatever a crash leaves is a beginning of the log.

A MARK in the records says what every in-sync replica had on disk. Before one is written that says more than this
replica has synced, that is synced: so a mark is true wherever it is found, and a record missing below it is damage.
A snapshot is one compacted segment that takes the place of all others by being renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from weakref import WeakSet

from rabbitish.cluster.protocol.disk_pieces import Pieces, Place, Snapshot
from rabbitish.cluster.protocol.disk_writer import REPLICA_FILE, Known, Writer, read_known
from rabbitish.cluster.protocol.log import EpochStart, Ticket, begin_in, check, check_kept
from rabbitish.store.files import Disk
from rabbitish.store.record import (
    SEGMENT_HEAD_BYTES,
    JournalDamaged,
    Record,
    SegmentHead,
    Type,
    decode_mark,
    decode_segment_head,
    encode_segment_head,
    segment_name,
)
from rabbitish.store.scan import Cut, scan, that_count, tidy

# Segments begin where the leader's do; where none of its does for so many times their size, one begins all the same.
_SEGMENTS = 4
# So many beginnings of epochs are kept, the newest.
_MOST_STARTS = 1_000


class DiskTicket:
    """See Ticket."""

    def __init__(self, log: DiskLog, work: list[Callable[[], None]]) -> None:
        self._writer = log._writer
        self._work = work
        self.last = log.last
        self.epoch = log.epoch
        self.cuts = log._cuts
        self.serial = log._pieces.serial
        self.appends = log._appends
        """How many bytes it appends, where it does nothing else; else None."""

    def run(self) -> None:
        """See Ticket."""
        for do in self._work:
            do()
        self._writer.sync()


class DiskLog:
    """See Log. Made by `open_log`."""

    def __init__(self, disk: Disk, known: Known, segment_bytes: int) -> None:
        self._disk = disk
        self._most_bytes = _SEGMENTS * segment_bytes
        self._writer = Writer(disk, known)
        self.storage = known.storage
        self.base = self.last = self.durable = 0
        self.epoch = self.stored_epoch = known.epoch
        self.starts: list[EpochStart] = []
        self.cut: Cut | None = None
        """The torn tail that was cut off when it was opened."""
        self._segments: list[tuple[SegmentHead, int]] = []  # with their sizes
        self._open = False  # whether the last of them may be appended to
        self._pieces = Pieces(disk)
        self._work: list[Callable[[], None]] = []
        self._writes: list[bytes] | None = None  # what the last of it writes
        self._appends: int | None = 0  # how much of it all does, if nothing else
        self._cuts = 0
        self._barrier = 0  # up to here is synced by the time that what is queued is done
        self._coming_head = SegmentHead(0, 0, 0, 0, 0)
        self._coming_size = self._coming_last = 0
        self._coming_starts: list[EpochStart] = []
        self._snapshots: WeakSet[Snapshot] = WeakSet()
        self._changes: list[Callable[[], None]] = []  # of old segments, that wait until nobody reads a snapshot
        self._gone: list[str] = []  # whose files may be deleted

    # ---- opening

    def adopt(
        self, segments: list[tuple[SegmentHead, int]], pieces: Pieces, starts: list[EpochStart], last: int
    ) -> None:
        """What was found on the disk; all of it is synced."""
        self._segments = segments
        self._pieces = pieces
        self.starts = starts
        self.last = self.durable = self._barrier = last
        for head, _ in segments:
            if head.generation:
                self.base = head.next_lsn - 1
            elif head is segments[0][0]:
                self.base = head.first_lsn - 1
        pieces.forget(self.base)
        self.epoch = max([self.epoch, *(start.epoch for start in starts)])

    # ---- changing it

    @property
    def dirty(self) -> bool:
        """See Log."""
        return bool(self._work)

    def _do(self, work: Callable[[], None]) -> None:
        self._work.append(work)
        self._writes = self._appends = None

    def note_epoch(self, epoch: int) -> None:
        """See Log."""
        self.epoch = epoch
        self._do(lambda: self._writer.note_epoch(epoch))

    def append(self, data: bytes) -> None:
        """See Log. A segment begins where the leader's does: with a snapshot of everything declared."""
        records = check(data, self.last, self.starts[-1].epoch if self.starts else 0)
        begins = [0, len(records)]
        for index, record in enumerate(records):
            if record.type is Type.SNAPSHOT:
                begins.append(index - 1 if index and records[index - 1].type is Type.MARK else index)
        for start, stop in pairwise(sorted(set(begins))):
            some = records[start:stop]
            size = self._segments[-1][1] if self._open else 0
            if not size or size >= self._most_bytes or (start in begins[2:] and size > SEGMENT_HEAD_BYTES):
                self._begin_next()
            if any(r.type is Type.MARK and decode_mark(data, r.body) > self._barrier for r in some):
                self._do(self._writer.sync)
                self._barrier = self.last
            part = data[some[0].start : some[-1].end]
            self._add((part,), len(part), some[-1].lsn + some[-1].span - 1)
        starts = begin_in(records, self.starts)
        if starts:
            self.starts += starts
            self._note_starts()

    def _add(self, parts: Sequence[bytes], size: int, last: int) -> None:
        head, at = self._segments[-1]
        self._pieces.add(self.last + 1, last, Place(head.name, at), size, parts)
        self._segments[-1] = (head, at + size)
        if self._writes is None:
            writes: list[bytes] = []
            self._work.append(lambda: self._writer.write(writes))
            self._writes = writes
        if self._appends is not None:
            self._appends += size
        self._writes += parts
        self.last = last

    def _note_starts(self) -> None:
        starts = tuple(self.starts[-_MOST_STARTS:])
        self._do(lambda: self._writer.note_starts(starts))

    def _begin_next(self) -> None:
        sequence = self._segments[-1][0].last + 1 if self._segments else 1
        self._begin(SegmentHead(sequence, sequence, 0, self.last + 1, 0))

    def _begin(self, head: SegmentHead) -> None:
        self._segments.append((head, SEGMENT_HEAD_BYTES))
        self._open = True
        self._barrier = self.last  # the one before is synced first
        self._do(lambda: self._writer.begin(head))

    def truncate(self, lsn: int) -> None:
        """See Log."""
        assert lsn >= self.base
        if lsn >= self.last:
            return
        name, size = "", 0
        drop: list[str] = []
        follows = self.base > 0  # on what is not to be forgotten: one segment says where the log goes on
        for head, _ in self._segments:
            if not head.generation and head.first_lsn > lsn:
                if follows:
                    name, size = head.name, SEGMENT_HEAD_BYTES
                else:
                    drop.append(head.name)
            follows = bool(head.generation)
        place = self._pieces.cut(lsn)
        if place is not None and place.segment not in drop:
            name, size = place
        self._segments = [
            (head, size if head.name == name else old) for head, old in self._segments if head.name not in drop
        ]
        for each in drop:
            self._disk.forget(each)
        self._do(lambda: self._writer.cut(drop[::-1], name, size))
        self._open = False
        self.last = lsn
        self.durable = min(self.durable, lsn)
        self._barrier = min(self._barrier, lsn)
        self._cuts += 1
        if self.starts and self.starts[-1].lsn > lsn:
            self.starts = [start for start in self.starts if start.lsn <= lsn]
            self._note_starts()

    # ---- for the journal of a leader

    def seal(self) -> None:
        """What was appended is on disk, in files that are closed, once the next ticket is done.

        What is appended next begins a segment. So others may read the folder, and a journal go on behind it.
        """
        self._do(self._writer.close)
        self._open = False

    def begin_segment(self, head: SegmentHead) -> None:
        """The journal begins a segment: it follows on the last, and on the last record."""
        assert head.sequence == (self._segments[-1][0].last + 1 if self._segments else 1)
        assert head.first_lsn == self.last + 1 and not head.generation
        self._begin(head)

    def append_batch(self, parts: Sequence[bytes], last: int) -> None:
        """Append records of our own, up to number `last`, which are not looked at.

        None of them begins an epoch that is not known, and no MARK in them is ahead of what is synced here.
        """
        assert self._open and last > self.last
        self._add(parts, sum(map(len, parts)), last)

    def drop(self, names: Iterable[str] = ()) -> list[str]:
        """Nobody needs these oldest segments any more, or those that one took the place of (see `replaced`).

        The names of the files that may be deleted now, in that order: of these and earlier ones. As long as somebody
        reads a snapshot nothing changes, and the names come later; so ask from time to time.
        """
        dropped = tuple(names)
        if dropped:
            self._changes.append(lambda: self._drop(dropped))
        self._change()
        gone, self._gone = self._gone, []
        for name in gone:
            self._disk.forget(name)
        return gone

    def _change(self) -> None:
        while self._changes and not self._snapshots:
            self._changes.pop(0)()

    def _drop(self, names: tuple[str, ...]) -> None:
        self._gone += names
        while self._segments[0][0].name in names:
            del self._segments[0]
        self._move_base(self._segments[0][0].first_lsn - 1)

    def replaced(self, olds: Sequence[str], head: SegmentHead, size: int) -> None:
        """A segment of so many bytes has been written anew in place of these neighbours, and has its name.

        Their files are not to be deleted before `drop` was told of them, and says so.
        """
        self._changes.append(lambda: self._replace(olds, head, size))
        self._change()

    def _replace(self, olds: Sequence[str], head: SegmentHead, size: int) -> None:
        index = next(index for index, (old, _) in enumerate(self._segments) if old.name == olds[0])
        assert [old.name for old, _ in self._segments[index : index + len(olds)]] == list(olds)
        self._segments[index : index + len(olds)] = [(head, size)]
        self._move_base(head.next_lsn - 1)

    def _move_base(self, base: int) -> None:
        assert base <= self.durable
        self.base = max(self.base, base)
        self._pieces.forget(self.base)

    @property
    def held(self) -> bool:
        """Whether somebody reads a snapshot, so that nothing is dropped."""
        return bool(self._snapshots)

    # ---- reading it

    def read(self, after: int, most_bytes: int) -> tuple[bytes, int]:
        """See Log. JournalDamaged: it cannot be read back."""
        assert self.base <= after < self.last
        return self._pieces.read(after, most_bytes)

    def snapshot(self) -> Iterator[bytes]:
        """See Log. Old segments stay as they are, and so does `base`, as long as somebody holds it."""
        kept = [(head, size) for head, size in self._segments if head.first_lsn <= self.base]
        first = self._segments[0][0].first_lsn if self._segments else self.last + 1
        starts = [start for start in self.starts if start.lsn < first]
        snapshot = Snapshot(self._disk, starts, [(head.name, size) for head, size in kept])
        self._snapshots.add(snapshot)
        return snapshot

    # ---- snapshots

    def begin_install(self, base: int) -> None:
        """See Log."""
        first = self._segments[0][0].sequence if self._segments else 1
        last = self._segments[-1][0].last if self._segments else 1
        generation = max((head.generation for head, _ in self._segments), default=0) + 1
        head = self._coming_head = SegmentHead(first, last, generation, 1, base + 1)
        self._coming_size, self._coming_last, self._coming_starts = SEGMENT_HEAD_BYTES, 0, []
        self._do(lambda: self._writer.begin_install(head))

    def install(self, data: bytes) -> None:
        """See Log."""
        records = check_kept(data, self._coming_last, self._coming_head.next_lsn - 1)
        self._coming_size += len(data)
        self._coming_last = records[-1].lsn + records[-1].span - 1
        self._coming_starts += begin_in(records, self._coming_starts)
        self._do(lambda: self._writer.install(data))

    def end_install(self) -> None:
        """See Log."""
        head, old = self._coming_head, [*self._gone, *(head.name for head, _ in self._segments)]
        self._changes, self._gone = [], []  # of what is replaced now, all of it
        following = SegmentHead(head.last + 1, head.last + 1, 0, head.next_lsn, 0)
        self.starts, self._coming_starts = self._coming_starts, []
        starts = tuple(self.starts[-_MOST_STARTS:])
        for name in old:
            self._disk.forget(name)
        self._do(lambda: self._writer.end_install(head, following, starts))
        self._segments = [(head, self._coming_size), (following, SEGMENT_HEAD_BYTES)]
        self._open = True
        self._pieces.clear()
        self.base = self.last = self._barrier = head.next_lsn - 1
        self.durable = 0
        self._cuts += 1

    # ---- syncing

    def begin_sync(self) -> DiskTicket:
        """See Log."""
        work, self._work, self._writes = self._work, [], None
        ticket, self._appends = DiskTicket(self, work), 0
        return ticket

    def end_sync(self, ticket: Ticket) -> None:
        """See Log."""
        assert isinstance(ticket, DiskTicket)
        self._pieces.written(ticket.serial)
        self.stored_epoch = ticket.epoch
        if ticket.cuts == self._cuts:
            self.durable = max(self.durable, ticket.last)
            self._barrier = max(self._barrier, ticket.last)

    def close(self) -> None:
        """Close the file that is being written, with what was written synced."""
        self._writer.close()


def open_log(disk: Disk, new_id: Callable[[], str], *, segment_bytes: int) -> DiskLog:
    """The log in a folder, or a new one. JournalDamaged: it is not what it was; its storage counts no more.

    Then the folder is to be emptied, so that the replica comes back under a new id and is filled by the leader.
    """
    known = read_known(disk)
    if known is None:
        if that_count(disk.names())[0]:
            raise JournalDamaged(REPLICA_FILE, 0, "the file is missing, though there are segments,")
        known = Known(new_id(), 0, 0)
    log = DiskLog(disk, known, segment_bytes)
    _finish_install(disk, known)
    pieces = Pieces(disk)
    starts: list[EpochStart] = []

    def visit(head: SegmentHead, data: bytes, record: Record) -> None:
        last, size = record.lsn + record.span - 1, record.end - record.start
        pieces.found(record.lsn, last, Place(head.name, record.start), size)
        if record.type is Type.EPOCH:
            starts.extend(begin_in((record,), starts))

    scanned = scan(disk, visit)
    tidy(disk, scanned)
    log.cut = scanned.cut
    if scanned.segments:
        older = [start for start in known.starts if start.lsn < scanned.segments[0][0].first_lsn]
        starts = older + [start for start in starts if not older or start.epoch > older[-1].epoch]
    log.adopt(list(scanned.segments), pieces, starts, scanned.last_lsn)
    known = Known(known.storage, log.epoch, 0, tuple(starts[-_MOST_STARTS:]))
    if read_known(disk) != known:
        log._writer.know(known)
    log.stored_epoch = log.epoch
    return log


def _finish_install(disk: Disk, known: Known) -> None:
    """A crash came between a snapshot's new name and the segment that follows it."""
    names, _ = that_count(disk.names())
    if names and names[-1].sequence == known.installing and disk.size(segment_name(*names[-1])) <= SEGMENT_HEAD_BYTES:
        disk.unlink(segment_name(*names.pop()))
    if names and names[-1].generation and names[-1].last + 1 == known.installing:
        before = decode_segment_head(disk.read(segment_name(*names[-1])))
        head = SegmentHead(known.installing, known.installing, 0, before.next_lsn, 0)
        file = disk.create(head.name)
        file.write(encode_segment_head(head))
        file.sync()
        file.close()
