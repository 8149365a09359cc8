"""The one module of store/ that touches the disk: a folder of files that are appended to, synced and deleted.

Everything else works on the `Disk` interface, which tests implement in memory with every kind of failure. Nothing here
retries: a write or sync that failed may have lost what was written before it, so the error goes up and stops the
broker.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol


class DataDirInUse(Exception):
    """Another broker has the data directory."""


class File(Protocol):
    """A file that is appended to."""

    def write(self, data: bytes) -> None:
        """Append everything. OSError: it is unknown how much."""

    def sync(self) -> None:
        """Return when everything written is on the medium. OSError: it is unknown what is."""

    def close(self) -> None: ...


class Disk(Protocol):
    """A folder."""

    def names(self) -> list[str]:
        """Names of the files in it."""

    def read(self, name: str) -> bytes: ...

    def create(self, name: str) -> File:
        """A new file, whose name survives once `create` has returned."""

    def truncate(self, name: str, size: int) -> None:
        """Cut a file and sync that."""

    def unlink(self, name: str) -> None: ...


class RealFile:
    """A file on a real disk."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        """See File."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def sync(self) -> None:
        """See File."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """See File."""
        os.close(self._fd)


class RealDisk:
    """A folder on a real disk, held exclusively by this process while it is open."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise DataDirInUse(f"{path} is in use by another broker") from None

    def close(self) -> None:
        """Let others have the folder."""
        os.close(self._lock)

    def names(self) -> list[str]:
        """See Disk."""
        return [entry.name for entry in self._path.iterdir() if entry.is_file()]

    def read(self, name: str) -> bytes:
        """See Disk."""
        return (self._path / name).read_bytes()

    def create(self, name: str) -> File:
        """See Disk."""
        fd = os.open(self._path / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._sync_names()
        return RealFile(fd)

    def truncate(self, name: str, size: int) -> None:
        """See Disk."""
        fd = os.open(self._path / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)

    def unlink(self, name: str) -> None:
        """See Disk."""
        (self._path / name).unlink()
        self._sync_names()

    def _sync_names(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
