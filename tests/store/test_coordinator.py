"""Epochs and the storage id: the one goes up with every start whatever happens, the other stays with the directory."""

from __future__ import annotations

import json
from itertools import count

import pytest

from rabbitish.store.coordinator import LocalCoordinator
from rabbitish.store.record import JournalDamaged

from .driver import Durable
from .fake_disk import CREATE, RENAME, SYNC, UNLINK, WRITE, Contents, FakeDisk

FILE = "node.json"


def coordinator(disk: FakeDisk, new_id: str = "a") -> LocalCoordinator:
    return LocalCoordinator(disk, lambda: new_id)


def written(disk: FakeDisk) -> tuple[str, int]:
    found = json.loads(disk.read(FILE))
    return found["storage_id"], found["epoch"]


def test_the_first_start() -> None:
    disk = FakeDisk()
    first = coordinator(disk)
    assert (first.storage_id, disk.names()) == ("a", [])
    assert first.lead(0) == 1
    assert disk.names() == [FILE]
    assert written(disk.power_lost(1)) == ("a", 1)


def test_every_start_has_an_epoch_of_its_own_and_the_same_id() -> None:
    disk = FakeDisk()
    for start in range(1, 5):
        again = coordinator(disk, f"id {start}")
        assert (again.lead(start - 1), again.storage_id) == (start, "id 1")
        disk = disk.power_lost(start)


def test_a_second_leadership_of_the_same_start() -> None:
    disk = FakeDisk()
    same = coordinator(disk)
    assert (same.lead(0), same.lead(0), written(disk)) == (1, 2, ("a", 2))


def test_it_is_newer_than_all_that_is_in_the_journal() -> None:
    """Of which somebody may have put an older file beside it, or none."""
    disk = FakeDisk()
    assert coordinator(disk).lead(7) == 8
    assert coordinator(disk).lead(3) == 9
    assert coordinator(FakeDisk(), "b").lead(9) == 10


def test_an_unfinished_file_does_not_count() -> None:
    disk = FakeDisk()
    disk.files[FILE + ".new"] = Contents(b'{"storage_id": "b", "ep')
    first = coordinator(disk)
    assert (first.storage_id, first.lead(0)) == ("a", 1)
    assert disk.names() == [FILE]


def test_a_fault_at_every_step() -> None:
    """No epoch is given twice, whatever of a start is left; and what was given once stays known."""
    failed = set()
    for number in count(1):
        disk = FakeDisk()
        coordinator(disk).lead(0)
        coordinator(disk).lead(1)
        disk.files[FILE + ".new"] = Contents(b"left over")
        disk = disk.killed(fail_at=number)
        disk.random.seed(number)
        given = 2
        try:
            given = coordinator(disk).lead(2)
            assert given == 3
        except OSError:
            assert disk.failed
        failed.add(disk.failed)
        for left in (disk.killed(), *map(disk.power_lost, range(20))):
            again = coordinator(left, "b")
            assert again.storage_id == "a"
            assert again.lead(given) > given
            assert coordinator(left).lead(0) > given + 1
        if not disk.failed:
            break
    assert failed == {UNLINK, CREATE, WRITE, SYNC, RENAME, ""}


@pytest.mark.parametrize(
    "text", [b"", b"\0" * 40, b"{}", b"[1]", b'"a"', b'{"storage_id": "a"}', b'{"epoch": 1', b"\xff"]
)
def test_a_file_that_cannot_be_read(text: bytes) -> None:
    disk = FakeDisk()
    disk.files[FILE] = Contents(text)
    with pytest.raises(JournalDamaged, match=r"^node\.json: it cannot be read \(.+\) at offset 0$"):
        coordinator(disk)
    assert disk.read(FILE) == text


def test_a_broker_leads_its_journal_before_it_writes_to_it() -> None:
    disk = FakeDisk()
    for start in (1, 2, 3):
        world = Durable(disk, lazy=True)
        assert written(disk) == ("this very disk", start)
        assert world.journal.epoch == start
        world.sync()
        disk = disk.killed()
