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
from functools import partial
from itertools import pairwise
from weakref import WeakSet

from rabbitish.cluster.protocol.disk_pieces import Pieces, Place, Snapshot
from rabbitish.cluster.protocol.disk_writer import Known, Writer
from rabbitish.cluster.protocol.log import EpochStart, Ticket, begin_in, check, check_kept
from rabbitish.store.condensing import Condensed
from rabbitish.store.files import Disk
from rabbitish.store.record import (
    SEGMENT_HEAD_BYTES,
    SegmentHead,
    Type,
    decode_mark,
)
from rabbitish.store.scan import Cut

# Segments begin where the leader's do; where none of its does for so many times their size, one begins all the same.
_SEGMENTS = 4
# So many beginnings of epochs are kept, the newest.
MOST_STARTS = 1_000


class DiskTicket:
    """See Ticket."""

    def __init__(self, log: DiskLog, work: list[Callable[[], None]]) -> None:
        self._writer = log._writer
        self._work = work
        self.last = log.last
        self.epoch = log.epoch
        self.cuts = log._cuts
        self.serial = log._pieces.serial
        self.condensed = log._condensed
        self.appends = log._appends
        """How many bytes it appends, where it does nothing else; else None."""

    def run(self) -> None:
        """See Ticket."""
        for do in self._work:
            do()
        self._writer.sync()


class DiskLog:
    """See Log. Made by `open_log` (disk_open.py)."""

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
        self._most_held = 0  # how large the log may become meanwhile
        self._changes: list[Callable[[], None]] = []  # of old segments, that wait until nobody reads a snapshot
        self._gone: list[str] = []  # whose files may be deleted
        self._condensed: Condensed | None = None  # what the next ticket puts in place
        self._condensing = False  # until that is done
        self._generation = 0  # the highest of all segments
        self._installing = False

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
            self._generation = max(self._generation, head.generation)
        pieces.forget(self.base)
        self.epoch = self.stored_epoch = max([self.epoch, *(start.epoch for start in starts)])

    def know(self, known: Known) -> None:
        """Note it on the disk at once; its epoch is the log's."""
        self._writer.know(known)

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
        self._installing = False
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
        starts = tuple(self.starts[-MOST_STARTS:])
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
        if self._changes and self.size > self._most_held:  # whoever reads so slowly would never be done
            self._snapshots.clear()
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
        self._generation = max(self._generation, head.generation)
        self._changes.append(lambda: self._replace(olds, head, size))
        self._change()

    def _replace(self, olds: Sequence[str], head: SegmentHead, size: int) -> None:
        index = self._find(olds)
        if index is None:
            return  # a snapshot came in between, and took the place of all
        self._segments[index : index + len(olds)] = [(head, size)]
        self._move_base(head.next_lsn - 1)

    def _find(self, names: Sequence[str]) -> int | None:
        """Where segments of these names stand, if they are neighbours."""
        all_names = [head.name for head, _ in self._segments]
        index = all_names.index(names[0]) if names[0] in all_names else 0
        return index if all_names[index : index + len(names)] == list(names) else None

    def _move_base(self, base: int) -> None:
        assert base <= self.durable
        self.base = max(self.base, base)
        self._pieces.forget(self.base)

    def then(self, work: Callable[[], None]) -> None:
        """Have this done with the next ticket, behind all that the log itself has to do by now."""
        self._do(work)

    @property
    def held(self) -> bool:
        """Whether somebody reads a snapshot, so that nothing is dropped."""
        return bool(self._snapshots)

    # ---- on a mirror

    @property
    def size(self) -> int:
        """What all segments take."""
        return sum(size for _, size in self._segments)

    def may_condense(self) -> bool:
        """Whether room can be made: nobody may write files anew beside these while others wait for their names."""
        self._change()  # what this node had written anew as a leader has its name on disk, and is found under it
        return not (self._changes or self._installing or self._condensing)

    def condense(self, condensed: Condensed) -> bool:
        """Make room: what is dead goes, what was written anew gets its name with the next ticket.

        It was found from records up to what is committed and on disk. False: it is of no use, the log has become
        another one since, or does not know of all files yet.
        """
        if not self.may_condense() or any(self._find(each.olds) is None for each in condensed.rewritten):
            return False
        for each in condensed.rewritten:
            self._generation = max(self._generation, each.head.generation)
            self._do(partial(self._writer.name_new, each.head.name))
        self._condensed, self._condensing = condensed, True
        self._do(self._writer.sync)
        return True

    def _is_condensed(self, condensed: Condensed) -> None:
        """The new segments have their names; the old ones go with the next ticket."""
        self._condensing = False
        for olds, head, size in condensed.rewritten:
            if self._find(olds) is not None:  # and no snapshot has come in between
                self._replace(olds, head, size)
        self._drop((*condensed.dead, *(old for each in condensed.rewritten for old in each.olds)))
        gone, self._gone = list(dict.fromkeys(self._gone)), []  # what this node dropped as a leader is dead as well
        for name in gone:
            self._disk.forget(name)
        self._do(lambda: self._writer.delete(gone))

    # ---- reading it

    def read(self, after: int, most_bytes: int) -> tuple[bytes, int]:
        """See Log. JournalDamaged: it cannot be read back."""
        assert self.base <= after < self.last
        return self._pieces.read(after, most_bytes)

    def snapshot(self) -> Iterator[bytes]:
        """See Log. Old segments stay as they are, and so does `base`, as long as somebody holds it.

        Unless the log becomes more than twice as large meanwhile: then the next piece may be an OSError.
        """
        kept = [(head, size) for head, size in self._segments if head.first_lsn <= self.base]
        first = self._segments[0][0].first_lsn if self._segments else self.last + 1
        starts = [start for start in self.starts if start.lsn < first]
        snapshot = Snapshot(self._disk, starts, [(head.name, size) for head, size in kept])
        self._snapshots.add(snapshot)
        self._most_held = 2 * (self.size + self._most_bytes)
        return snapshot

    # ---- snapshots

    def begin_install(self, base: int) -> None:
        """See Log."""
        first = self._segments[0][0].sequence if self._segments else 1
        last = self._segments[-1][0].last if self._segments else 1
        self._generation += 1
        self._installing = True
        head = self._coming_head = SegmentHead(first, last, self._generation, 1, base + 1)
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
        self._installing = False
        following = SegmentHead(head.last + 1, head.last + 1, 0, head.next_lsn, 0)
        self.starts, self._coming_starts = self._coming_starts, []
        starts = tuple(self.starts[-MOST_STARTS:])
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
        self._condensed = None
        return ticket

    def end_sync(self, ticket: Ticket) -> None:
        """See Log."""
        assert isinstance(ticket, DiskTicket)
        self._pieces.written(ticket.serial)
        self.stored_epoch = ticket.epoch
        if ticket.cuts == self._cuts:
            self.durable = max(self.durable, ticket.last)
            self._barrier = max(self._barrier, ticket.last)
        if ticket.condensed is not None:
            self._is_condensed(ticket.condensed)

    def close(self) -> None:
        """Close the file that is being written, with what was written synced."""
        self._writer.close()
