"""Opening a replica's log: what a folder holds is read and checked, and what a crash left half done is done.

A torn tail is cut off. Anything else that is not as it was synced is damage, and the folder's content counts no more.
"""

from __future__ import annotations

from collections.abc import Callable

from rabbitish.cluster.protocol.disk_log import MOST_STARTS, DiskLog
from rabbitish.cluster.protocol.disk_pieces import Pieces, Place
from rabbitish.cluster.protocol.disk_writer import REPLICA_FILE, Known, read_known
from rabbitish.cluster.protocol.log import EpochStart, begin_in
from rabbitish.store.files import Disk
from rabbitish.store.record import (
    SEGMENT_HEAD_BYTES,
    JournalDamaged,
    Record,
    SegmentHead,
    Type,
    decode_segment_head,
    encode_segment_head,
    segment_name,
)
from rabbitish.store.scan import scan, that_count, tidy


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
    known = Known(known.storage, log.epoch, 0, tuple(starts[-MOST_STARTS:]))
    if read_known(disk) != known:
        log.know(known)
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
