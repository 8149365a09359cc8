"""The audit log: who did what that has to do with access, one JSON object a line, in a file of its own.

Logins and refusals, denied permissions, changes by an operator with who made them and from where; never a password and
never a message. Lines are appended whole. The file is opened anew when it was moved away, so that logrotate needs no
signal. If it cannot be written the broker goes on, and the ordinary log says so.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from rabbitish.server.keeper import JournalError
from rabbitish.server.log import get_log

# Longest value; what clients send has no business filling the file.
_LONGEST_VALUE = 512


class AuditError(JournalError):
    """The file cannot be written at the start; the message says why, for people."""


class AuditLog:
    """Appends to the file at `path`; AuditError: it cannot be opened. An empty path: there is none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute() if path else None
        self._fd: int | None = None
        self._inode = (0, 0)
        self._failing = False
        if self._path is not None:
            try:
                self._open(self._path)
            except OSError as error:
                raise AuditError(f"cannot write the audit log {self._path}: {error.strerror}") from error

    def __call__(self, event: str, **fields: object) -> None:
        """Write a line; fields that are None are left out. Never raises."""
        if self._path is None:
            return
        values = {key: _short(value) for key, value in fields.items() if value is not None}
        line = json.dumps({"time": _now(), "event": event, **values}, default=str) + "\n"
        try:
            self._follow(self._path)
            assert self._fd is not None
            os.write(self._fd, line.encode())
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._failing = True
                get_log().error("the audit log cannot be written", path=self._path, error=error)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self, path: Path) -> None:
        self.close()
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        status = os.fstat(self._fd)
        self._inode = status.st_dev, status.st_ino

    def _follow(self, path: Path) -> None:
        try:
            status = path.stat()
            there = status.st_dev, status.st_ino
        except FileNotFoundError:
            there = (0, 0)
        if self._fd is None or there != self._inode:
            self._open(path)


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1_000_000:03d}Z"


def _short(value: object) -> object:
    if isinstance(value, str) and len(value) > _LONGEST_VALUE:
        return f"{value[:_LONGEST_VALUE]}...({len(value)} characters)"
    return value
