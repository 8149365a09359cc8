"""How the C library's allocator behaves in a process that is nothing but a broker.

A body of a mebibyte is copied a few times on its way (frames, content, outbox). By default glibc gives such blocks
back to the kernel when they are freed, and each new one costs a page fault for every 4 KiB: three quarters of what
handling a large message takes. With these limits freed blocks up to some megabytes are used again: 1.5 ms of work for a
message of 1 MiB became 0.5 ms. It costs at most the trim threshold of memory that is kept though it is free.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_TRIM_BYTES = 16 * 1024 * 1024
_MMAP_BYTES = 8 * 1024 * 1024


def keep_freed_blocks() -> None:
    """Have freed blocks used again instead of given back; nothing happens where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
