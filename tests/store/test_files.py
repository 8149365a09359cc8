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


def test_much_finds_room_ahead_and_gives_back_what_is_left(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    file, path = disk.create("a"), tmp_path / "a"
    file.write(b"little")
    little = path.stat().st_blocks
    data = os.urandom(100_000)
    for _ in range(3):
        file.write(data)
    file.sync()
    roomy = path.stat()
    assert roomy.st_size == 300_006, "the file is no longer than what is in it"
    file.close()
    assert disk.read("a") == b"little" + 3 * data
    if roomy.st_blocks * 512 < 16 << 20:
        pytest.skip("this file system keeps no room")
    assert little * 512 < 1 << 20 and path.stat().st_blocks * 512 < 1 << 20
    disk.close()
