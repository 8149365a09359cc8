"""Waiting for what nobody announces: bounded, and saying what was waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

PATIENCE_SECONDS = 40.0
POLL_SECONDS = 0.01


class Impatient(AssertionError):
    """Something did not become so in time."""


async def until(what: str, true: Callable[[], Awaitable[bool] | bool], seconds: float = PATIENCE_SECONDS) -> float:
    """Wait until it is so, looking again and again; how many seconds that took. Impatient."""
    began = trio.current_time()
    while True:
        found = true()
        if found if isinstance(found, bool) else await found:
            return trio.current_time() - began
        if trio.current_time() - began > seconds:
            raise Impatient(f"{what}: not so after {seconds:.0f} s")
        await trio.sleep(POLL_SECONDS)
