"""A disk in memory that keeps what was synced apart from what was only written, and fails when it is told to.

Every call that changes something is a step. `fail_at` names the one that raises OSError, and from then on they all do,
since nobody may go on after a failure; how much of the failing step took place is drawn from `seed`. What a crash
leaves is a new disk: `killed` keeps everything written (only the process ended), `power_lost` keeps what was synced and
of the rest any prefix, behind which there may be zeroes, or all of it but for a piece. Zeroes follow in a file of the
journal that was synced and not closed. `refuses` begins the names of files for which there is no room: that is no
failure of the disk.

It also watches its users: nobody reads a file that was forgotten, and nobody deletes one that is still open for that.
"""

from __future__ import annotations

import errno
from random import Random

CREATE, WRITE, SYNC, RENAME, TRUNCATE, UNLINK = "create", "write", "sync", "rename", "truncate", "unlink"


class Contents:
    """The bytes of one file."""

    def __init__(self, synced: bytes | bytearray = b"", unsynced: bytes | bytearray = b"") -> None:
        self.synced = bytearray(synced)
        self.unsynced = bytearray(unsynced)
        self.zeroes = 0  # written ahead

    def sync(self) -> None:
        self.synced += self.unsynced
        self.unsynced.clear()


class FakeFile:
    """A file that is appended to."""

    def __init__(self, disk: FakeDisk, name: str) -> None:
        self._disk = disk
        self._name = name
        self.closed = False

    def write(self, *parts: bytes) -> None:
        data = b"".join(parts)
        assert not self.closed
        unsynced = self._disk.files[self._name].unsynced
        if self._disk.has_no_room_for(self._name):
            unsynced += data[: self._disk.random.randint(0, len(data))]
            raise OSError(errno.ENOSPC, "no room")
        if self._disk.fails(WRITE):
            unsynced += data[: self._disk.random.randint(0, len(data))]
            raise self._disk.error()
        unsynced += data

    def sync(self) -> None:
        assert not self.closed
        contents = self._disk.files[self._name]
        if self._disk.fails(SYNC):
            part = self._disk.random.randint(0, len(contents.unsynced))
            contents.synced += contents.unsynced[:part]
            del contents.unsynced[:part]
            raise self._disk.error()
        contents.sync()
        if self._name.startswith("journal-"):
            contents.zeroes = len(self._disk.steps) * 31 % 97

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        contents = self._disk.files.get(self._name)
        if contents is not None and contents.zeroes:
            if self._disk.fails(SYNC):
                raise self._disk.error()
            contents.zeroes = 0


def _torn(random: Random, file: Contents) -> bytes:
    """What is left of a write that was not synced."""
    data, at = bytearray(file.unsynced), random.randint(0, len(file.unsynced))
    how = random.choice(("cut", "cut", "zeroes", "gap", "start"))
    if how == "cut":
        return bytes(data[:at])
    if how == "start":
        at = 0
    end = len(data) if how == "zeroes" else min(at + 32, len(data))
    data[at:end] = bytes(end - at)
    return bytes(data)


class FakeDisk:
    """A folder."""

    def __init__(self, *, fail_at: int = 0, seed: int = 0) -> None:
        self.files: dict[str, Contents] = {}
        self.fail_at = fail_at
        self.failed = ""
        self.steps: list[str] = []
        self.random = Random(seed)
        self.free: int | OSError = 1 << 40
        self.refuses = ""
        self.unreadable = False
        self.open: set[str] = set()  # to read from
        self.reads: list[int] = []  # how many bytes were asked for
        self.forgotten: set[str] = set()
        self._renamings: list[dict[str, Contents | None]] = []  # what a rename that failed may have left of two files

    # ---- failing

    def fails(self, step: str) -> bool:
        """Count a step; whether it is to fail."""
        self.steps.append(step)
        if len(self.steps) == self.fail_at:
            self.failed = step
        return bool(self.failed)

    def error(self) -> OSError:
        return OSError(errno.EIO, f"{self.failed} failed, at step {self.fail_at}")

    # ---- the interface

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str) -> bytes:
        contents = self.files[name]
        return bytes(contents.synced + contents.unsynced)

    def size(self, name: str) -> int:
        return len(self.read(name))

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        assert name not in self.forgotten, f"{name} was to be read no more"
        self.open.add(name)
        self.reads.append(size)
        if self.unreadable:
            raise OSError(errno.EIO, "cannot be read")
        zeroes = bytes(self.files[name].zeroes)  # which whoever reads ahead sees
        return (self.read(name) + zeroes)[offset : offset + size]

    def forget(self, name: str) -> None:
        self.open.discard(name)
        self.forgotten.add(name)

    def has_no_room_for(self, name: str) -> bool:
        return bool(self.refuses) and name.startswith(self.refuses)

    def create(self, name: str) -> FakeFile:
        assert name not in self.files, "a name is used once"
        if self.has_no_room_for(name):
            raise OSError(errno.ENOSPC, "no room")
        failing = self.fails(CREATE)
        if not failing or self.random.random() < 0.5:
            self.files[name] = Contents()
        if failing:
            raise self.error()
        self.forgotten.discard(name)
        return FakeFile(self, name)

    def rename(self, old: str, new: str) -> None:
        assert not self.files[old].unsynced, "what is not synced may be lost under its new name"
        failing = self.fails(RENAME)
        if failing:
            self._renamings = [{old: self.files[old], new: self.files.get(new)}, {old: None, new: self.files[old]}]
        if not failing or self.random.random() < 0.5:
            self.files[new] = self.files.pop(old)
        if failing:
            raise self.error()

    def truncate(self, name: str, size: int) -> None:
        failing = self.fails(TRUNCATE)
        if not failing or self.random.random() < 0.5:
            self.files[name] = Contents(self.read(name)[:size])
        if failing:
            raise self.error()

    def unlink(self, name: str) -> None:
        assert name not in self.open, f"{name} is open to read from"
        failing = self.fails(UNLINK)
        if not failing or self.random.random() < 0.5:
            del self.files[name]
        if failing:
            raise self.error()

    def free_bytes(self) -> int:
        """What the test says; no step, since it changes nothing."""
        if isinstance(self.free, OSError):
            raise self.free
        return self.free

    def close(self) -> None:
        """As RealDisk's; there is nobody else to have it."""

    # ---- what is left

    def killed(self, *, fail_at: int = 0) -> FakeDisk:
        """What the next process finds when this one ended."""
        left = FakeDisk(fail_at=fail_at)
        left.files = {
            name: Contents(file.synced, file.unsynced + bytes(file.zeroes)) for name, file in self.files.items()
        }
        return left

    def power_lost(self, seed: int, *, fail_at: int = 0) -> FakeDisk:
        """What is found when the power comes back."""
        random = Random(seed)
        left = FakeDisk(fail_at=fail_at, seed=seed)
        for name, file in self.files.items():
            left.files[name] = Contents(file.synced + _torn(random, file) + bytes(file.zeroes))
        if self._renamings:
            for name, contents in random.choice(self._renamings).items():
                left.files.pop(name, None)
                if contents is not None:
                    left.files[name] = Contents(contents.synced)
        return left

    def flip(self, name: str, offset: int, bit: int = 0) -> None:
        """Turn one bit around."""
        self.files[name] = Contents(self.read(name))
        self.files[name].synced[offset] ^= 1 << bit
