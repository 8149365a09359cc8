"""The real disk: a name is on the medium when the call that gave it returns, and so is what was cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rabbitish.store.files import File, RealDisk


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


def sync_little(file: File, times: int, data: bytes = b"." * 400) -> bytes:
    for _ in range(times):
        file.write(data)
        file.sync()
    return data * times


def test_where_little_is_synced_zeroes_are_written_ahead_and_end_with_the_file(
    tmp_path: Path, synced: list[tuple[str, list[str]]]
) -> None:
    disk = RealDisk(tmp_path)
    file, path = disk.create("a"), tmp_path / "a"
    expected = sync_little(file, 8)
    assert path.read_bytes() == expected
    expected += sync_little(file, 1)
    size = path.stat().st_size
    assert len(expected) + 60_000 < size < len(expected) + 1_000_000
    sizes = set()
    for _ in range(size // 400):  # over the zeroes and beyond them
        expected += sync_little(file, 1)
        sizes.add(path.stat().st_size)
    assert len(sizes) == 2, "most writes leave the file as long as it was"
    assert path.read_bytes() == expected.ljust(max(sizes), b"\0")
    synced.clear()
    file.close()
    assert synced == [("a", ["a"])], "where it ends survives"
    assert disk.read("a") == expected
    disk.close()


def test_much_goes_over_zeroes_and_brings_none(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    file, path = disk.create("a"), tmp_path / "a"
    expected = sync_little(file, 9)
    much = os.urandom(300_000)
    file.write(much)
    assert path.stat().st_size == len(expected + much), "it reaches beyond them"
    file.sync()
    expected += much + sync_little(file, 8)
    assert path.read_bytes() == expected
    for _ in range(20):  # unsynced
        file.write(b"-")
    assert path.stat().st_size > len(expected) + 100_000
    file.close()
    assert disk.read("a") == expected + b"-" * 20
    disk.close()


def test_what_is_never_synced_gets_no_zeroes(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    file = disk.create("a")
    for _ in range(100):
        file.write(b"12345")
    assert disk.size("a") == 500
    file.close()
    disk.close()


def test_without_room_for_zeroes_it_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk(tmp_path)
    file = disk.create("a")
    expected = sync_little(file, 8)
    full = True

    def pwritev(fd: int, parts: Sequence[bytes], offset: int, real: Callable[..., int] = os.pwritev) -> int:
        return real(fd, [b"".join(parts)[:30_000]] if full else parts, offset)

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        assert full and offset > len(expected) + 1000
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "pwrite", pwrite)
    expected += sync_little(file, 1)
    full = False
    expected += sync_little(file, 3)
    file.close()
    assert disk.read("a") == expected
    disk.close()


def test_parts_stand_one_after_the_other_however_little_is_taken_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwritev(fd: int, parts: Sequence[bytes], offset: int, real: Callable[..., int] = os.pwritev) -> int:
        assert len(parts) <= os.sysconf("SC_IOV_MAX")
        return real(fd, [b"".join(parts)[:1000]], offset)

    def pwrite(fd: int, data: memoryview, offset: int, real: Callable[..., int] = os.pwrite) -> int:
        return real(fd, data[:777], offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "pwrite", pwrite)
    disk = RealDisk(tmp_path)
    file = disk.create("a")
    parts = [b"%d " % number for number in range(2500)]
    file.write(*parts)
    file.write(*parts[:10])
    file.close()
    assert disk.read("a") == b"".join([*parts, *parts[:10]])
    disk.close()


def test_set_aside(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path / "data")
    for text in (b"one", b"two"):
        file = disk.create("journal")
        file.write(text)
        file.close()
        folder = disk.set_aside("damaged")
        assert (folder / "journal").read_bytes() == text
        assert [name for name in disk.names() if name != "lock"] == []
    assert sorted(path.name for path in tmp_path.glob("data/*")) == ["damaged-1", "damaged-2", "lock"]
    disk.close()
