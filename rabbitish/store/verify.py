"""Whether a journal is sound: everything in it is read and taken apart, nothing is changed.

What `recover` would refuse is found here, and all of it, not only the first; and what recovery would not look at:
records that are whole and make no sense, and the inside of messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rabbitish.store.coordinator import NODE_FILE, read_node_file
from rabbitish.store.details import Decoder, Looker
from rabbitish.store.files import Disk
from rabbitish.store.pieces import Pieces
from rabbitish.store.record import PUBLISHES, JournalDamaged, Record, SegmentHead
from rabbitish.store.resync import Place
from rabbitish.store.scan import that_count
from rabbitish.store.survey import Part, survey


class SegmentReport(NamedTuple):
    """What is in a segment's file."""

    file: str
    bytes: int
    records: int
    messages: int
    live_bytes: int
    """How much of the file is messages that are still in a queue, about."""
    places: int
    """How many places in it are damaged, or torn."""


class Verified(NamedTuple):
    """What a journal was found to be."""

    segments: list[SegmentReport]
    damage: list[Place]
    torn: list[Place]
    """The torn tail: nothing in it was ever confirmed, and the next start cuts it off from the first of these on."""
    queues: int
    messages: int
    """In all queues together."""
    last_lsn: int
    epoch: int
    notes: list[str]
    """What is no damage and may be worth knowing."""


def verify(disk: Disk, codec: Looker) -> Verified:
    """Read everything. OSError: the disk cannot be read."""
    verifier = _Verifier(codec)
    for event in survey(disk, verifier.decoder.check):
        if isinstance(event, Record):
            verifier.record(event)
        elif isinstance(event, Part):
            verifier.part = event
            verifier.parts.append(_Counts(event.file, event.head, len(event.data)))
        elif isinstance(event, Place):
            verifier.places.append(event)
        else:
            verifier.pieces.hole(harmless=event.torn)
    return verifier.finish(disk)


class _Counts:
    """One segment's, while it is read."""

    def __init__(self, file: str, head: SegmentHead, size: int) -> None:
        self.file = file
        self.head = head
        self.size = size
        self.end = 0  # of its last record
        self.records = 0
        self.messages = 0


class _Verifier:
    def __init__(self, codec: Looker) -> None:
        self.decoder = Decoder(codec)
        self.pieces = Pieces(codec, self.decoder.publishes)
        self.part: Part
        self.parts: list[_Counts] = []
        self.places: list[Place] = []
        self._last_lsn = 0
        self._epoch = 0

    def record(self, record: Record) -> None:
        """A whole record."""
        counts = self.parts[-1]
        counts.records += 1
        counts.end = record.end
        if record.type in PUBLISHES:
            counts.messages += record.span
        self._last_lsn = record.lsn + record.span - 1
        self._epoch = max(self._epoch, record.epoch)
        self.pieces.visit(self.part.head, self.part.data, record)

    def finish(self, disk: Disk) -> Verified:
        """There are no more."""
        pieces = self.pieces
        pieces.finish([(counts.head, counts.end) for counts in self.parts])
        messages = pieces.weigh()
        places = [*self.places, *_node_file(disk)]
        reports = [
            SegmentReport(
                counts.file,
                counts.size,
                counts.records,
                counts.messages,
                segment.live_bytes,
                sum(place.file == counts.file for place in places),
            )
            for counts, segment in zip(self.parts, pieces.segments.all, strict=True)
        ]
        return Verified(
            reports,
            [place for place in places if not place.torn],
            [place for place in places if place.torn],
            len(pieces.declared.queues),
            messages,
            self._last_lsn,
            self._epoch,
            list(_notes(disk, self._epoch)),
        )


def _node_file(disk: Disk) -> Sequence[Place]:
    try:
        read_node_file(disk)
    except JournalDamaged as damage:
        return [Place(NODE_FILE, 0, len(disk.read(NODE_FILE)), damage.reason)]
    return []


def _notes(disk: Disk, epoch: int) -> Sequence[str]:
    notes: list[str] = []
    _, left_over = that_count(disk.names())
    if left_over:
        notes.append(f"not needed any more, and deleted at the next start: {', '.join(sorted(left_over))}")
    try:
        known = read_node_file(disk)
    except JournalDamaged:
        known = None
    if known is not None and known[1] > epoch:
        notes.append(
            f"{NODE_FILE} knows of epoch {known[1]}, and no record is of one later than {epoch}: the broker ended as "
            "soon as it had started, or the newest segments are missing"
        )
    return notes
