"""A node's log that is damaged: it is never taken for one that is whole, wherever setting it aside was cut short."""

from __future__ import annotations

import logging
from itertools import count
from pathlib import Path

import pytest

from rabbitish.cluster.protocol.disk_open import open_log
from rabbitish.server.joining import open_records
from rabbitish.server.keeper import JournalError
from rabbitish.server.log import Log
from rabbitish.store.files import RealDisk
from rabbitish.store.record import Type
from tests.cluster.journaled import synced
from tests.cluster.memory_log import record

SEGMENT_BYTES = 4_000


def damaged(path: Path) -> None:
    """A log of two segments, the first of which is damaged."""
    disk = RealDisk(path)
    log = open_log(disk, lambda: "old", segment_bytes=SEGMENT_BYTES)
    log.note_epoch(1)
    log.append(record(1, 1, Type.EPOCH))
    log.append(record(2, 1, Type.VHOST_NEW, b"\0\0\0\1v\0\0\0\0"))
    log.seal()
    log._begin_next()
    log.append(record(3, 1, Type.VHOST_NEW, b"\0\0\0\1w\0\0\0\0"))
    synced(log)
    log.close()
    disk.close()
    first = min(path.glob("journal-*"))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)


def test_a_damaged_log_that_was_set_aside_in_part_is_not_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, log = Path.rename, Log(logging.getLogger("test"), {})
    for done in count():
        path = tmp_path / str(done)
        damaged(path)
        files = len(list(path.glob("journal-*"))) + 1
        moved: list[str] = []

        def fails(old: Path, new: Path, done: int = done, moved: list[str] = moved) -> Path:
            if new.parent.name.startswith("damaged"):
                if len(moved) == done:
                    raise OSError("the test ends it here")
                moved.append(old.name)
            return rename(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", fails)
            # what else is in the folder comes in any order: here the log's own identity last
            names = RealDisk.names
            patch.setattr(RealDisk, "names", lambda disk, names=names: sorted(names(disk)))
            disk = RealDisk(path)
            try:
                assert open_records(disk, disk, SEGMENT_BYTES, log).storage != "old"
            except JournalError:
                assert len(moved) == done < files
            disk.close()
        assert not done or moved[0] == "replica.json"
        if len(moved) < done:
            assert done == files + 1
            break
        disk = RealDisk(path)
        try:
            assert open_records(disk, disk, SEGMENT_BYTES, log).storage != "old"
        except JournalError as refused:
            assert 0 < done < files, refused
        disk.close()
