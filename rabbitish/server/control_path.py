"""Where the control socket is, for both of its ends; imports nothing heavy, since every command that is typed does."""

from __future__ import annotations

import os
from pathlib import Path

CONTROL_FILE = "control.sock"
# What the kernel lets the name of a socket have, on the systems that let it have least.
_LONGEST_PATH = 103


def reachable(path: Path, folder: int | None = None) -> str:
    """A name for a socket's path that is short enough for the kernel; `folder` is open on the directory it is in."""
    if len(os.fsencode(path)) <= _LONGEST_PATH or folder is None:
        return str(path)
    return f"/proc/self/fd/{folder}/{path.name}"
