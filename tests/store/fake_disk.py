"""A disk in memory that keeps what was synced apart from what was only written, and fails when it is told to.

Every call that changes something is a step. `fail_at` names the one that raises OSError, and from then on they all do,
since nobody may go on after a failure; how much of the failing step took place is drawn from `seed`. What a crash
leaves is a new disk: `killed` keeps everything written (only the process ended), `power_lost` keeps what was synced and
of the rest any prefix.
"""

from __future__ import annotations

import errno
from random import Random

CREATE, WRITE, SYNC, TRUNCATE, UNLINK = "create", "write", "sync", "truncate", "unlink"


class Contents:
    """The bytes of one file."""

    def __init__(self, synced: bytes | bytearray = b"", unsynced: bytes | bytearray = b"") -> None:
        self.synced = bytearray(synced)
        self.unsynced = bytearray(unsynced)

    def sync(self) -> None:
        self.synced += self.unsynced
        self.unsynced.clear()


class FakeFile:
    """A file that is appended to."""

    def __init__(self, disk: FakeDisk, name: str) -> None:
        self._disk = disk
        self._name = name
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        unsynced = self._disk.files[self._name].unsynced
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

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class FakeDisk:
    """A folder."""

    def __init__(self, *, fail_at: int = 0, seed: int = 0) -> None:
        self.files: dict[str, Contents] = {}
        self.fail_at = fail_at
        self.failed = ""
        self.steps: list[str] = []
        self.random = Random(seed)

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

    def create(self, name: str) -> FakeFile:
        assert name not in self.files, "a name is used once"
        failing = self.fails(CREATE)
        if not failing or self.random.random() < 0.5:
            self.files[name] = Contents()
        if failing:
            raise self.error()
        return FakeFile(self, name)

    def truncate(self, name: str, size: int) -> None:
        failing = self.fails(TRUNCATE)
        if not failing or self.random.random() < 0.5:
            self.files[name] = Contents(self.read(name)[:size])
        if failing:
            raise self.error()

    def unlink(self, name: str) -> None:
        failing = self.fails(UNLINK)
        if not failing or self.random.random() < 0.5:
            del self.files[name]
        if failing:
            raise self.error()

    # ---- what is left

    def killed(self, *, fail_at: int = 0) -> FakeDisk:
        """What the next process finds when this one ended."""
        left = FakeDisk(fail_at=fail_at)
        left.files = {name: Contents(file.synced, file.unsynced) for name, file in self.files.items()}
        return left

    def power_lost(self, seed: int, *, fail_at: int = 0) -> FakeDisk:
        """What is found when the power comes back."""
        random = Random(seed)
        left = FakeDisk(fail_at=fail_at, seed=seed)
        for name, file in self.files.items():
            survives = file.unsynced[: random.randint(0, len(file.unsynced))]
            left.files[name] = Contents(file.synced + survives)
        return left

    def flip(self, name: str, offset: int, bit: int = 0) -> None:
        """Turn one bit around."""
        self.files[name] = Contents(self.read(name))
        self.files[name].synced[offset] ^= 1 << bit
