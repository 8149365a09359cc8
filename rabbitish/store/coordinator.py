"""Who may write to a journal, and in which epoch: on a single node whoever holds the data directory.

An epoch is one leadership of a journal, and every record carries that of its writer, so that of two histories it can be
told which is newer. Mirrors will ask etcd here; a node of its own counts its starts and needs no server. The storage id
names this very data directory: one that was emptied is another.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

from rabbitish.store.files import Disk
from rabbitish.store.record import JournalDamaged

NODE_FILE = "node.json"


class Coordinator(Protocol):
    """Decides about leaderships."""

    @property
    def storage_id(self) -> str:
        """Which data directory this is."""

    def lead(self, last_epoch: int) -> int:
        """Begin a leadership of a journal whose records go up to `last_epoch`; its epoch, which is safe on disk."""


def read_node_file(disk: Disk) -> tuple[str, int] | None:
    """Storage id and last epoch as a data directory knows them; None: it is a new one. JournalDamaged: unreadable."""
    if NODE_FILE not in disk.names():
        return None
    try:
        known = json.loads(disk.read(NODE_FILE))
        return str(known["storage_id"]), int(known["epoch"])
    except (ValueError, LookupError, TypeError) as error:
        raise JournalDamaged(NODE_FILE, 0, f"it cannot be read ({error})") from error


class LocalCoordinator:
    """The only node there is."""

    def __init__(self, disk: Disk, new_id: Callable[[], str]) -> None:
        self._disk = disk
        self._epoch = 0
        known = read_node_file(disk)
        if known is not None:
            self._storage_id, self._epoch = known
        else:
            self._storage_id = new_id()

    @property
    def storage_id(self) -> str:
        """See Coordinator."""
        return self._storage_id

    def lead(self, last_epoch: int) -> int:
        """See Coordinator. OSError: it could not be written down."""
        self._epoch = max(self._epoch, last_epoch) + 1
        text = json.dumps({"storage_id": self._storage_id, "epoch": self._epoch})
        new = f"{NODE_FILE}.new"
        if new in self._disk.names():
            self._disk.unlink(new)
        file = self._disk.create(new)
        file.write(text.encode())
        file.sync()
        file.close()
        self._disk.rename(new, NODE_FILE)
        return self._epoch
