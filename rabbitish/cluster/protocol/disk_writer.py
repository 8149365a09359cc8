"""What a replica's log does to its folder, one ticket at a time: segments, a snapshot that comes, and `replica.json`.

A ticket's work is done in its order, in a thread if its owner wants; nothing is done twice, and nothing may follow what
failed. `replica.json` is written anew under another name that is renamed, so that it is there as it was or as it is to
be.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from rabbitish.store.files import Disk, File
from rabbitish.store.record import JournalDamaged, SegmentHead, encode_segment_head
from rabbitish.store.scan import NEW_SUFFIX

REPLICA_FILE = "replica.json"
SNAPSHOT_FILE = f"journal-snapshot{NEW_SUFFIX}"


class Known(NamedTuple):
    """What `replica.json` says."""

    storage: str
    epoch: int
    installing: int
    """The segment that follows on a snapshot that is about to be renamed; 0 when there is none."""


def read_known(disk: Disk) -> Known | None:
    """What a folder says of its replica; None: there is none. JournalDamaged: it cannot be read."""
    if REPLICA_FILE not in disk.names():
        return None
    try:
        found = json.loads(disk.read(REPLICA_FILE))
        return Known(str(found["storage_id"]), int(found["epoch"]), int(found["installing"]))
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
        text = {"storage_id": known.storage, "epoch": known.epoch, "installing": known.installing}
        file.write(json.dumps(text).encode())
        file.sync()
        file.close()
        self.disk.rename(new, REPLICA_FILE)
        self.known = known

    def note_epoch(self, epoch: int) -> None:
        self.know(self.known._replace(epoch=epoch))

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

    def write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)

    def sync(self) -> None:
        if self._file is not None:
            self._file.sync()

    def cut(self, drop: list[str], name: str, size: int) -> None:
        self.close()
        for gone in drop:
            self.disk.unlink(gone)
        if name:
            self.disk.truncate(name, size)

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

    def end_install(self, head: SegmentHead, following: SegmentHead, old: list[str]) -> None:
        assert self._snapshot is not None
        self._snapshot.sync()
        self._snapshot.close()
        self._snapshot = None
        self.close()
        self.know(self.known._replace(installing=following.sequence))
        self.disk.rename(SNAPSHOT_FILE, head.name)
        for name in old:
            self.disk.unlink(name)
        self.begin(following)
        self.know(self.known._replace(installing=0))
