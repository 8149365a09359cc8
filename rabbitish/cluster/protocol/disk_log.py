"""A replica's log on a disk, in segments of the journal's format: the same records, to the byte, on every replica.

Everything changes in memory at once and is queued for the disk, in order: bytes, cuts, epochs, snapshots. A ticket
(`begin_sync`) carries out what is queued by then, in a thread if its owner wants. Records that are not written yet are
read from memory. A cut deletes the newest segments first, so that whatever a crash leaves is a beginning of the log.

A MARK in the records says what every in-sync replica had on disk. Before one is written that says more than this
replica has synced, that is synced: so a mark is true wherever it is found, and a record missing below it is damage.
A snapshot is one compacted segment that takes the place of all others by being renamed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator

from rabbitish.cluster.protocol.disk_pieces import PIECE_BYTES, Piece
from rabbitish.cluster.protocol.disk_writer import REPLICA_FILE, Known, Writer, read_known
from rabbitish.cluster.protocol.log import EpochStart, check, check_kept
from rabbitish.store.files import Disk
from rabbitish.store.record import (
    SEGMENT_HEAD_BYTES,
    Damage,
    JournalDamaged,
    Record,
    SegmentHead,
    Type,
    decode_all,
    decode_mark,
    decode_segment_head,
    encode_segment_head,
    segment_name,
)
from rabbitish.store.scan import Cut, scan, that_count, tidy


class DiskTicket:
    """See Ticket."""

    def __init__(self, writer: Writer, work: list[Callable[[], None]], last: int, epoch: int, cuts: int) -> None:
        self._writer = writer
        self._work = work
        self.last = last
        self.epoch = epoch
        self.cuts = cuts
        self.written: list[Piece] = []

    def run(self) -> None:
        """See Ticket."""
        for do in self._work:
            do()
        self._writer.sync()


class DiskLog:
    """See Log. Made by `open_log`."""

    def __init__(self, disk: Disk, known: Known, segment_bytes: int) -> None:
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._writer = Writer(disk, known)
        self.storage = known.storage
        self.base = self.last = self.durable = 0
        self.epoch = self.stored_epoch = known.epoch
        self.starts: list[EpochStart] = []
        self.cut: Cut | None = None
        """The torn tail that was cut off when it was opened."""
        self._segments: list[tuple[SegmentHead, int]] = []  # with their sizes
        self._open = False  # whether the last of them may be appended to
        self._pieces: list[Piece] = []
        self._unwritten: list[Piece] = []
        self._work: list[Callable[[], None]] = []
        self._cuts = 0
        self._barrier = 0  # up to here is synced by the time that what is queued is done
        self._coming: list[Piece] = []
        self._coming_head = SegmentHead(0, 0, 0, 0, 0)
        self._coming_starts: list[EpochStart] = []

    # ---- opening

    def adopt(
        self, segments: list[tuple[SegmentHead, int]], pieces: list[Piece], starts: list[EpochStart], last: int
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
        self.epoch = max([self.epoch, *(start.epoch for start in starts)])

    # ---- changing it

    @property
    def dirty(self) -> bool:
        """See Log."""
        return bool(self._work)

    def note_epoch(self, epoch: int) -> None:
        """See Log."""
        self.epoch = epoch
        self._work.append(lambda: self._writer.note_epoch(epoch))

    def append(self, data: bytes) -> None:
        """See Log."""
        records = check(data, self.last, self.starts[-1].epoch if self.starts else 0)
        if not self._open or self._segments[-1][1] >= self._segment_bytes:
            self._begin()
        if any(r.type is Type.MARK and decode_mark(data, r.body) > self._barrier for r in records):
            self._work.append(self._writer.sync)
            self._barrier = self.last
        head, size = self._segments[-1]
        last = records[-1].lsn + records[-1].span - 1
        piece = Piece(self.last + 1, last, head.name, size, len(data), data)
        self._pieces.append(piece)
        self._unwritten.append(piece)
        self._segments[-1] = (head, size + len(data))
        self._work.append(lambda: self._writer.write(data))
        self.last = last
        self.starts += [EpochStart(record.epoch, record.lsn) for record in records if record.type is Type.EPOCH]

    def _begin(self) -> None:
        sequence = self._segments[-1][0].last + 1 if self._segments else 1
        head = SegmentHead(sequence, sequence, 0, self.last + 1, 0)
        self._segments.append((head, SEGMENT_HEAD_BYTES))
        self._open = True
        self._barrier = self.last  # the one before is synced first
        self._work.append(lambda: self._writer.begin(head))

    def truncate(self, lsn: int) -> None:
        """See Log."""
        assert lsn >= self.base
        if lsn >= self.last:
            return
        keep = bisect_right(self._pieces, lsn, key=lambda piece: piece.first)
        gone = self._pieces[keep:]
        name, size = "", 0
        drop: list[str] = []
        follows = False  # on a compacted segment, which there must be one behind
        for head, _ in self._segments:
            if not head.generation and head.first_lsn > lsn:
                if follows:
                    name, size = head.name, SEGMENT_HEAD_BYTES
                else:
                    drop.append(head.name)
            follows = bool(head.generation)
        if keep and self._pieces[keep - 1].last > lsn:
            piece = self._pieces[keep - 1]
            piece.size = self._offset(piece, lsn)
            piece.last = lsn
            if piece.data is not None:
                piece.data = piece.data[: piece.size]
            name, size = piece.segment, piece.offset + piece.size
        elif not name and gone and gone[0].segment not in drop:
            name, size = gone[0].segment, gone[0].offset
        del self._pieces[keep:]
        self._segments = [
            (head, size if head.name == name else old) for head, old in self._segments if head.name not in drop
        ]
        for each in drop:
            self._disk.forget(each)
        self._work.append(lambda: self._writer.cut(drop[::-1], name, size))
        self._open = False
        self.last = lsn
        self.durable = min(self.durable, lsn)
        self._barrier = min(self._barrier, lsn)
        self._cuts += 1
        while self.starts and self.starts[-1].lsn > lsn:
            self.starts.pop()

    # ---- reading it

    def _bytes(self, piece: Piece) -> bytes:
        data = piece.data
        if data is None:
            data = self._disk.read_at(piece.segment, piece.offset, piece.size)
        return data

    def _offset(self, piece: Piece, lsn: int) -> int:
        """How many bytes of a piece come before the first record behind `lsn`. JournalDamaged: it cannot be read."""
        data = self._bytes(piece)
        at = 0
        for record in self._records(piece, data):
            if record.lsn > lsn:
                break
            at = record.end
        return at

    def _records(self, piece: Piece, data: bytes) -> Iterator[Record]:
        try:
            yield from decode_all(data, 0)
        except Damage as damage:
            raise JournalDamaged(piece.segment, piece.offset + damage.offset, damage.reason) from None

    def read(self, after: int, most_bytes: int) -> tuple[bytes, int]:
        """See Log. JournalDamaged: it cannot be read back."""
        assert self.base <= after < self.last
        at = bisect_right(self._pieces, after + 1, key=lambda piece: piece.first) - 1
        parts: list[bytes] = []
        size = 0
        while at < len(self._pieces) and size < most_bytes:
            piece = self._pieces[at]
            data = self._bytes(piece)
            if piece.first <= after:
                data = data[self._offset(piece, after) :]
            parts.append(data)
            size += len(data)
            after = piece.last
            at += 1
        return b"".join(parts), after

    def snapshot(self) -> Iterator[bytes]:
        """See Log."""
        kept = [piece for piece in self._pieces if piece.last <= self.base]
        return (self._bytes(piece) for piece in kept)

    # ---- snapshots

    def begin_install(self, base: int) -> None:
        """See Log."""
        first = self._segments[0][0].sequence if self._segments else 1
        last = self._segments[-1][0].last if self._segments else 1
        generation = max((head.generation for head, _ in self._segments), default=0) + 1
        head = self._coming_head = SegmentHead(first, last, generation, 1, base + 1)
        self._coming, self._coming_starts = [], []
        self._work.append(lambda: self._writer.begin_install(head))

    def install(self, data: bytes) -> None:
        """See Log."""
        before = self._coming[-1] if self._coming else None
        records = check_kept(data, before.last if before else 0, self._coming_head.next_lsn - 1)
        offset = before.offset + before.size if before else SEGMENT_HEAD_BYTES
        last = records[-1].lsn + records[-1].span - 1
        self._coming.append(Piece(records[0].lsn, last, self._coming_head.name, offset, len(data), None))
        self._coming_starts += [EpochStart(record.epoch, record.lsn) for record in records if record.type is Type.EPOCH]
        self._work.append(lambda: self._writer.install(data))

    def end_install(self) -> None:
        """See Log."""
        head, old = self._coming_head, [head.name for head, _ in self._segments]
        following = SegmentHead(head.last + 1, head.last + 1, 0, head.next_lsn, 0)
        for name in old:
            self._disk.forget(name)
        self._work.append(lambda: self._writer.end_install(head, following, old))
        size = self._coming[-1].offset + self._coming[-1].size if self._coming else SEGMENT_HEAD_BYTES
        self._segments = [(head, size), (following, SEGMENT_HEAD_BYTES)]
        self._open = True
        self._pieces, self._coming = self._coming, []
        self._unwritten = []
        self.starts, self._coming_starts = self._coming_starts, []
        self.base = self.last = self._barrier = head.next_lsn - 1
        self.durable = 0
        self._cuts += 1

    # ---- syncing

    def begin_sync(self) -> DiskTicket:
        """See Log."""
        work, self._work = self._work, []
        ticket = DiskTicket(self._writer, work, self.last, self.epoch, self._cuts)
        ticket.written, self._unwritten = self._unwritten, []
        return ticket

    def end_sync(self, ticket: DiskTicket) -> None:
        """See Log."""
        for piece in ticket.written:
            piece.data = None
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
    pieces: list[Piece] = []
    starts: list[EpochStart] = []

    def visit(head: SegmentHead, data: bytes, record: Record) -> None:
        last = record.lsn + record.span - 1
        if pieces and pieces[-1].segment == head.name and pieces[-1].size < PIECE_BYTES:
            pieces[-1].last = last
            pieces[-1].size = record.end - pieces[-1].offset
        else:
            pieces.append(Piece(record.lsn, last, head.name, record.start, record.end - record.start, None))
        if record.type is Type.EPOCH:
            starts.append(EpochStart(record.epoch, record.lsn))

    scanned = scan(disk, visit)
    tidy(disk, scanned)
    log.cut = scanned.cut
    log.adopt(list(scanned.segments), pieces, starts, scanned.last_lsn)
    writer = log._writer
    if read_known(disk) != known or log.epoch > known.epoch or known.installing:
        writer.know(known._replace(epoch=log.epoch, installing=0))
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
