"""The one module of store/ that touches the disk: a folder of files that are appended to, synced and deleted.

Everything else works on the `Disk` interface, which tests implement in memory with every kind of failure. Nothing here
retries: a write or sync that failed may have lost what was written before it, so the error goes up and stops the
broker.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

LOCK_FILE = "lock"
# A write of this size is one of many; then there is room for so much more.
_MUCH_BYTES = 64 * 1024
_ROOM_BYTES = 16 * 1024 * 1024
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: the file gets no longer
# Where little is synced so many times in a row, zeroes are written ahead: so few that to sync them is not slow either.
_LITTLE_BYTES = 16 * 1024
_LITTLE_SYNCS = 8
_ZEROES = bytes(128 * 1024)
# So many parts the kernel takes in one write, on all systems.
_MOST_PARTS = 1024
# So many segments are kept open to read bodies back from. Queues are read in order, so a few are in use at a time.
_OPEN_FILES = 32


def _keep_room(fd: int, offset: int, size: int) -> None:
    """Have the file system set blocks aside. What it says does not matter: without them everything goes on."""
    if _fallocate is not None:
        _fallocate(fd, _KEEP_SIZE, offset, size)


def _find_fallocate() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).fallocate
    except (OSError, AttributeError):  # another system, where os.posix_fallocate would make the file longer
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return cast("Callable[[int, int, int, int], int]", function)


_fallocate = _find_fallocate()


class DataDirInUse(Exception):
    """Another broker has the data directory."""


class File(Protocol):
    """A file that is appended to. Until it is closed zeroes may follow what was written, for whoever reads it."""

    def write(self, *parts: bytes) -> None:
        """Append everything. OSError: it is unknown how much."""

    def sync(self) -> None:
        """Return when everything written is on the medium. OSError: it is unknown what is."""

    def close(self) -> None:
        """End it where what was written ends, on the medium too if that was synced. OSError: it may end later."""


class Disk(Protocol):
    """A folder."""

    def names(self) -> list[str]:
        """Names of the files in it."""

    def read(self, name: str) -> bytes:
        """All of a file."""

    def size(self, name: str) -> int:
        """How many bytes a file has."""

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """A piece of a file, shorter where that ends. The file stays open for more until `forget`."""

    def forget(self, name: str) -> None:
        """`read_at` is not called for this file any more."""

    def create(self, name: str) -> File:
        """A new file, whose name survives once `create` has returned."""

    def rename(self, old: str, new: str) -> None:
        """Give a file that was synced its name, which survives once `rename` has returned."""

    def truncate(self, name: str, size: int) -> None:
        """Cut a file and sync that."""

    def unlink(self, name: str) -> None: ...

    def free_bytes(self) -> int:
        """How much more fits on the medium. OSError: it cannot tell."""


class RealFile:
    """A file on a real disk.

    One that much is written to gets room ahead of what is written: to find that anew for every sync takes the file
    system longer than to write the data. In one of which little is synced at a time, as long as that goes on, zeroes
    are written ahead, so that most writes go over blocks that are there and change nothing else: then a sync need not
    wait for the file system's own journal, which takes a third longer, and many times as long while others are busy.
    """

    __slots__ = ("_end", "_fd", "_little", "_room", "_size", "_synced")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = 0  # bytes written
        self._synced = 0  # and of these synced
        self._little = 0  # so many syncs in a row were of little
        self._end = 0  # up to here there are bytes, if only zeroes
        self._room = 0  # up to here there is room

    def write(self, *parts: bytes) -> None:
        """See File. In one call, since a thread that comes back from one waits until it may go on in Python."""
        written, size = self._size, sum(map(len, parts))
        self._size += size
        if self._size <= self._end:
            self._write_at(written, parts)
            return
        if self._little >= _LITTLE_SYNCS and size <= _LITTLE_BYTES:
            self._write_with_zeroes(written, parts)
            return
        self._write_at(written, parts)
        self._end = self._size
        if size >= _MUCH_BYTES and self._size + _MUCH_BYTES > self._room:
            self._room = self._size + _ROOM_BYTES
            _keep_room(self._fd, self._size, _ROOM_BYTES)

    def _write_with_zeroes(self, offset: int, parts: tuple[bytes, ...]) -> None:
        """At once: what is synced next is both."""
        self._end = self._size + len(_ZEROES)
        try:
            self._write_at(offset, (*parts, _ZEROES))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self._little = 0
            self._write_at(offset, parts)  # there may be room for that

    def _write_at(self, offset: int, parts: Sequence[bytes]) -> None:
        for start in range(0, len(parts), _MOST_PARTS):
            some = parts[start : start + _MOST_PARTS]
            size = sum(map(len, some))
            done = os.pwritev(self._fd, some, offset)
            if done < size:
                self._write_rest(offset + done, memoryview(b"".join(some))[done:])
            offset += size

    def _write_rest(self, offset: int, view: memoryview) -> None:
        while view:
            done = os.pwrite(self._fd, view, offset)
            view = view[done:]
            offset += done

    def sync(self) -> None:
        """See File."""
        size = self._size
        os.fdatasync(self._fd)
        self._little = self._little + 1 if size - self._synced <= _LITTLE_BYTES else 0
        self._synced = size

    def close(self) -> None:
        """See File."""
        try:
            if self._end > self._size or self._room:
                os.ftruncate(self._fd, self._size)  # gives back what was not needed
                if self._synced:
                    os.fdatasync(self._fd)
        finally:
            os.close(self._fd)


class RealDisk:
    """A folder on a real disk, held exclusively by this process while it is open.

    Not `exclusive`: it is there, is only read, and somebody else may be writing to it.
    """

    def __init__(self, path: Path, *, exclusive: bool = True) -> None:
        self._path = path
        self._open: OrderedDict[str, int] = OrderedDict()  # descriptors to read from, the last used at the end
        self._lock: int | None = None
        if not exclusive:
            return
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(path / LOCK_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise DataDirInUse(f"{path} is in use by another broker") from None

    def close(self) -> None:
        """Let others have the folder."""
        while self._open:
            os.close(self._open.popitem()[1])
        if self._lock is not None:
            os.close(self._lock)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    def set_aside(self, name: str, first: str = "") -> Path:
        """Have all files in a new folder inside this one, which is then empty; the folder. OSError: that failed.

        The file `first`, if it is there, has gone for good before any other does, whatever a crash leaves.
        """
        number = 1
        while (folder := self._path / f"{name}-{number}").exists():
            number += 1
        folder.mkdir(mode=0o700)
        files = [each for each in self.names() if each != LOCK_FILE]
        for some in ([each for each in files if each == first], [each for each in files if each != first]):
            for each in some:
                (self._path / each).rename(folder / each)
            _sync_folder(folder)
            _sync_folder(self._path)
        return folder

    def names(self) -> list[str]:
        """See Disk."""
        return [entry.name for entry in self._path.iterdir() if entry.is_file()]

    def read(self, name: str) -> bytes:
        """See Disk."""
        return (self._path / name).read_bytes()

    def size(self, name: str) -> int:
        """See Disk."""
        return (self._path / name).stat().st_size

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """See Disk."""
        fd = self._open.get(name)
        if fd is None:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            fd = self._open[name] = self._open_to_read(name)
        else:
            self._open.move_to_end(name)
        return os.pread(fd, size, offset)

    def _open_to_read(self, name: str) -> int:
        while True:
            try:
                return os.open(self._path / name, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                    raise
                os.close(self._open.popitem(last=False)[1])

    def forget(self, name: str) -> None:
        """See Disk."""
        fd = self._open.pop(name, None)
        if fd is not None:
            os.close(fd)

    def create(self, name: str) -> File:
        """See Disk."""
        fd = os.open(self._path / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self._sync_names()
        return RealFile(fd)

    def rename(self, old: str, new: str) -> None:
        """See Disk."""
        (self._path / old).rename(self._path / new)
        self._sync_names()

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

    def free_bytes(self) -> int:
        """See Disk. Without what the file system keeps back for root, as `df` counts."""
        status = os.statvfs(self._path)
        return status.f_bavail * status.f_frsize

    def _sync_names(self) -> None:
        _sync_folder(self._path)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
