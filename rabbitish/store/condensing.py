"""Making room in a journal's folder that nobody serves queues from, such as a mirror's: it knows no queue's state.

What lives is found as at a start, from the records; only from those up to a number that is given, since what is behind
it may still be cut off. Segments of which nothing lives, from the oldest on, are named; sparse neighbours are written
anew as one, under a name that does not count yet. Nothing that is there is changed: whoever owns the folder deletes
and renames. As declarations are left out (compaction.py), all of this is done to segments alone that come before a
whole snapshot of what is declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rabbitish.store.bodies import Codec
from rabbitish.store.compaction import Compaction
from rabbitish.store.files import Disk
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import (
    HEAD,
    PUBLISH_HEAD,
    PUBLISHES,
    SEGMENT_HEAD_BYTES,
    Record,
    SegmentHead,
    Type,
    parse_segment_name,
    segment_name,
)
from rabbitish.store.replay import Replay
from rabbitish.store.scan import NEW_SUFFIX, first_number, scan, that_count, unfinished
from rabbitish.store.segments import Segment, Segments


class Rewritten(NamedTuple):
    """A segment that takes the place of neighbours once it has its name."""

    olds: tuple[str, ...]
    head: SegmentHead
    size: int


class Condensed(NamedTuple):
    """What may be done to make room."""

    dead: tuple[str, ...]
    """Files in which nothing lives: the oldest segments, and what others have taken the place of."""
    rewritten: tuple[Rewritten, ...]
    """In this order; each is there under its name with NEW_SUFFIX behind it."""
    left: int
    """How many bytes all segments take afterwards."""


class _UpTo:
    """The files of a folder as they were when its journal ended with a number."""

    def __init__(self, disk: Disk, last: int) -> None:
        self._disk = disk
        self._last = last

    def names(self) -> list[str]:
        """The segments that had begun by then."""
        names = [segment_name(*name) for name in that_count(self._disk.names())[0]]
        return [name for name in names if self._had_begun(name, may_begin=name == names[-1])]

    def _had_begun(self, name: str, *, may_begin: bool) -> bool:
        first = first_number(self._disk, name)
        return not may_begin if first is None else first <= self._last + 1

    def read(self, name: str) -> bytes:
        """What was in a segment by then."""
        data = self._disk.read(name)
        at, have = SEGMENT_HEAD_BYTES, len(data)
        while at + HEAD.size <= have:
            size, _, lsn, _, kind, _ = HEAD.unpack_from(data, at)
            body = at + HEAD.size
            if kind in PUBLISHES and body + PUBLISH_HEAD.size <= have:
                lsn += PUBLISH_HEAD.unpack_from(data, body)[2] - 1
            if lsn > self._last or not size + lsn:
                return data[:at]
            at = body + size
        return data


class _Folder:
    """What a compaction asks of a journal."""

    def __init__(self, disk: Disk, segments: Segments, last_lsn: int, dead: list[Segment]) -> None:
        self.disk = disk
        self.segments = segments
        self.last_lsn = last_lsn
        self.dead = dead

    def dies(self, segments: Sequence[Segment]) -> None:
        """They may be there for some time."""
        self.dead += segments


def condense(disk: Disk, codec: Codec, up_to: int, segment_bytes: int) -> Condensed:
    """Find what is dead up to a number, and write anew what is sparse. JournalDamaged, OSError: it cannot be done."""
    files = disk.names()
    old_tries = [name for name in unfinished(files) if parse_segment_name(name.removesuffix(NEW_SUFFIX))]
    for name in old_tries:
        disk.unlink(name)
    left_over = tuple(name for name in that_count(files)[1] if parse_segment_name(name))
    publishes = PublishReader(codec)
    replay = Replay(codec, publishes)
    told: list[SegmentHead] = []  # which segments begin a snapshot that is whole, and maybe one that is not
    whole = 0  # of these

    def visit(head: SegmentHead, data: bytes, record: Record) -> None:
        nonlocal whole
        replay.visit(head, data, record)
        if record.type is Type.SNAPSHOT:
            del told[whole:]
            told.append(head)
        elif record.type is Type.SNAPSHOT_END:
            whole = len(told)

    scanned = scan(_UpTo(disk, up_to), visit, replay.run)
    replay.finish(scanned.segments)
    replay.weigh()
    segments = replay.segments
    if not whole:
        return Condensed(left_over, (), segments.disk_bytes)
    last = told[whole - 1]
    dead = segments.take_dead(next(index for index, segment in enumerate(segments.all) if segment.head == last))
    folder = _Folder(disk, segments, scanned.last_lsn, list(dead))
    rewritten: list[Rewritten] = []
    while sparse := segments.sparse(segment_bytes, last.first_lsn - 1):
        if any(segment.head == new.head for segment in sparse for new in rewritten):
            break  # which can be read when it has its name
        compaction = Compaction(folder, codec, sparse)
        if disk.free_bytes() < 2 * compaction.bytes:
            break
        compaction.write()
        compaction.finish()
        rewritten.append(
            Rewritten(tuple(head.name for head in compaction.replaced), compaction.head, compaction.new_bytes)
        )
    names = (*left_over, *(segment.head.name for segment in dead))
    return Condensed(names, tuple(rewritten), segments.disk_bytes)
