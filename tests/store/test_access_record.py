"""Where the journal keeps users and permissions, their document is there after every start, and in every snapshot."""

from __future__ import annotations

import pytest

from rabbitish.core.broker import Broker
from rabbitish.session.content import PropertyCache, WireCodec
from rabbitish.store.coordinator import LocalCoordinator
from rabbitish.store.record import JournalDamaged
from rabbitish.store.recovery import Recovered, recover

from .lives import MemoryDisk


def begin(disk: MemoryDisk, heard: list[bytes], *, segment_bytes: int = 4096, tidied: bool = False) -> Recovered:
    return recover(
        disk,
        Broker(token=lambda: "token", settle_budget=100),
        WireCodec(PropertyCache(16)),
        LocalCoordinator(disk, lambda: "id"),
        0,
        segment_bytes=segment_bytes,
        on_failure=lambda error: None,
        govern=heard.append,
        tidied=tidied,
    )


def write(life: Recovered) -> None:
    journal = life.journal
    batches = journal.take()
    journal.write(batches)
    journal.written(batches[-1].last_lsn, sum(batch.size for batch in batches))
    journal.sync()
    journal.delete(journal.synced(batches[-1].last_lsn))


def test_the_last_document_counts() -> None:
    disk, heard = MemoryDisk(), list[bytes]()
    life = begin(disk, heard)
    assert heard == [b""]
    for document in (b"first", b"second"):
        assert life.recorder.access_changed(document) == life.journal.last_lsn
    write(life)
    begin(disk.copy(), heard)
    assert heard == [b"", b"second"]


def test_it_outlives_the_segment_it_was_written_in() -> None:
    disk, heard = MemoryDisk(), list[bytes]()
    life = begin(disk, heard, segment_bytes=1)
    life.recorder.access_changed(b"users")
    for _ in range(5):  # each of which begins a segment, of which the oldest go
        life.recorder.vhost_added("/")
        write(life)
    assert len([name for name in disk.names() if name.startswith("journal")]) <= 2
    begin(disk.copy(), heard)
    assert heard[1:] == [b"users"]


def test_a_folder_that_somebody_else_looks_after_is_only_read() -> None:
    disk = MemoryDisk()
    life = begin(disk, [])
    life.recorder.vhost_added("/")
    write(life)
    torn = disk.copy()
    (name,) = [name for name in torn.names() if name.startswith("journal")]
    del torn.files[name].synced[-3:]
    with pytest.raises(JournalDamaged):
        begin(torn, [], tidied=True)
    begin(torn, [])
