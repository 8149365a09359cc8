"""What a replica's log does to its folder, one ticket at a time: segments, a snapshot that comes, and `replica.json`.

A ticket's work is done in its order, in a thread if its owner wants; nothing is done twice, and nothing may follow what
failed. `replica.json` is written anew under another name that is renamed, so that it is there as it was or as it is to
be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from rabbitish.cluster.protocol.log import EpochStart
from rabbitish.store.files import Disk, File
from rabbitish.store.record import JournalDamaged, SegmentHead, encode_segment_head, parse_segment_name, segment_name
from rabbitish.store.scan import NEW_SUFFIX

REPLICA_FILE = "replica.json"
SNAPSHOT_FILE = f"journal-snapshot{NEW_SUFFIX}"


class Known(NamedTuple):
    """What `replica.json` says."""

    storage: str
    epoch: int
    installing: int = 0
    """The segment that follows on a snapshot that is about to be renamed; 0 when there is none."""
    starts: tuple[EpochStart, ...] = ()
    """Where epochs begin. They count below the first segment alone, where there is no record of that any more."""


def read_known(disk: Disk) -> Known | None:
    """What a folder says of its replica; None: there is none. JournalDamaged: it cannot be read."""
    if REPLICA_FILE not in disk.names():
        return None
    try:
        found = json.loads(disk.read(REPLICA_FILE))
        starts = tuple(EpochStart(int(epoch), int(lsn)) for epoch, lsn in found["starts"])
        return Known(str(found["storage_id"]), int(found["epoch"]), int(found["installing"]), starts)
    except (ValueError, LookupError, TypeError) as error:
        raise JournalDamaged(REPLICA_FILE, 0, f"it cannot be read ({error})") from error


class Writer:
    """What is done to the disk, in a ticket's time. OSError: nothing may follow."""

    def __init__(self, disk: Disk, known: Known) -> None:
        self.disk = disk
        self.known = known
        self._file: File | None = None
        self._snapshot: File | None = None

    def know(self, known: Known) -> None:
        new = REPLICA_FILE + NEW_SUFFIX
        if new in self.disk.names():
            self.disk.unlink(new)
        file = self.disk.create(new)
        storage, epoch, installing, starts = known
        text = {"storage_id": storage, "epoch": epoch, "installing": installing, "starts": starts}
        file.write(json.dumps(text).encode())
        file.sync()
        file.close()
        self.disk.rename(new, REPLICA_FILE)
        self.known = known

    def note_epoch(self, epoch: int) -> None:
        self.know(self.known._replace(epoch=epoch))

    def note_starts(self, starts: tuple[EpochStart, ...]) -> None:
        self.know(self.known._replace(starts=starts))

    def close(self) -> None:
        if self._file is not None:
            self._file.sync()
            self._file.close()
            self._file = None

    def begin(self, head: SegmentHead) -> None:
        self.close()
        self._file = self.disk.create(head.name)
        self._file.write(encode_segment_head(head))
        self._file.sync()

    def write(self, parts: list[bytes]) -> None:
        assert self._file is not None
        self._file.write(*parts)

    def sync(self) -> None:
        if self._file is not None:
            self._file.sync()

    def cut(self, drop: list[str], name: str, size: int) -> None:
        self.close()
        for gone in drop:
            self.disk.unlink(gone)
        if name:
            self.disk.truncate(name, size)

    def name_new(self, name: str) -> None:
        """A segment that was written anew takes the place of others."""
        self.disk.rename(name + NEW_SUFFIX, name)

    def delete(self, names: Sequence[str]) -> None:
        """Delete those of these that are there, in that order."""
        there = self.disk.names()
        for name in names:
            if name in there:
                self.disk.unlink(name)

    def begin_install(self, head: SegmentHead) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
        if SNAPSHOT_FILE in self.disk.names():
            self.disk.unlink(SNAPSHOT_FILE)
        self._snapshot = self.disk.create(SNAPSHOT_FILE)
        self._snapshot.write(encode_segment_head(head))

    def install(self, data: bytes) -> None:
        assert self._snapshot is not None
        self._snapshot.write(data)

    def end_install(self, head: SegmentHead, following: SegmentHead, starts: tuple[EpochStart, ...]) -> None:
        assert self._snapshot is not None
        self._snapshot.sync()
        self._snapshot.close()
        self._snapshot = None
        self.close()
        self.know(self.known._replace(installing=following.sequence))
        old = sorted(filter(None, map(parse_segment_name, self.disk.names())))
        for name in old:  # older ones than any that it takes the place of were dropped, and may still be there
            if name.sequence < head.sequence:
                self.disk.unlink(segment_name(*name))
        self.disk.rename(SNAPSHOT_FILE, head.name)
        for name in old:
            if name.sequence >= head.sequence:
                self.disk.unlink(segment_name(*name))
        self.begin(following)
        self.know(self.known._replace(installing=0, starts=starts))
