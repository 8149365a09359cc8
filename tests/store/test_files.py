"""The real disk: a name is on the medium when the call that gave it returns, and so is what was cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rabbitish.store.files import RealDisk


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The system's syncs: of what, and which names were in the folder then."""
    seen: list[tuple[str, list[str]]] = []

    def watch(real: object) -> object:
        def sync(fd: int) -> None:
            path = Path(f"/proc/self/fd/{fd}").readlink()
            folder = path if path.is_dir() else path.parent
            seen.append((path.name, sorted(entry.name for entry in folder.iterdir() if entry.name != "lock")))
            real(fd)  # type: ignore[operator]

        return sync

    monkeypatch.setattr(os, "fsync", watch(os.fsync))
    monkeypatch.setattr(os, "fdatasync", watch(os.fdatasync))
    return seen


def test_names_are_synced_when_they_change(tmp_path: Path, synced: list[tuple[str, list[str]]]) -> None:
    disk = RealDisk(tmp_path / "data")
    file = disk.create("a.new")
    assert synced == [("data", ["a.new"])]
    file.write(b"12345")
    assert len(synced) == 1
    file.sync()
    assert synced[1:] == [("a.new", ["a.new"])]
    file.close()
    disk.rename("a.new", "a")
    assert synced[2:] == [("data", ["a"])]
    disk.truncate("a", 3)
    assert synced[3:] == [("a", ["a"])]
    assert (disk.read("a"), disk.size("a"), disk.read_at("a", 1, 9)) == (b"123", 3, b"23")
    disk.forget("a")
    disk.unlink("a")
    assert synced[4:] == [("data", [])]
    disk.close()
