"""Being a process: a broker's, or a cluster node's, until SIGTERM or SIGINT.

With TLS, SIGHUP has the certificates read again; without, it ends the process as any that a terminal leaves behind.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from rabbitish.config import Settings
from rabbitish.server.allocator import keep_freed_blocks
from rabbitish.server.collector import Collector


@asynccontextmanager
async def as_process(
    settings: Settings, stop: trio.Event, reload: Callable[[], Awaitable[None]]
) -> AsyncGenerator[trio.Nursery]:
    """A nursery for as long as the process serves; a signal sets `stop`, or has `reload` called."""
    keep_freed_blocks()
    Collector.begin()

    async def heed_signals() -> None:
        async for number in signals:
            if number != signal.SIGHUP:
                stop.set()
                return
            nursery.start_soon(reload)

    heeded = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if settings.uses_tls or settings.secures_links else []))
    with trio.open_signal_receiver(*heeded) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heed_signals)
            yield nursery
            nursery.cancel_scope.cancel()
