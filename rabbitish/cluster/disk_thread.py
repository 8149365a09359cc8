"""What a member's disk has to do, in threads: begun at once, and waited for before the member ends.

A thread that trio runs for a task begins when that task has its turn, which may be milliseconds away while the event
loop is busy with sockets; and it may wait for threads that look up names. Every confirm waits for the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

CallSoon = Callable[[Callable[[], None]], None]
"""Has something called in the event loop, from any thread."""


class DiskThread:
    """See the module."""

    def __init__(self) -> None:
        self._at_work = 0
        self._idle = trio.Event()

    def start(
        self, work: Callable[[], None], done: Callable[[OSError | None], None], call_soon: CallSoon | None = None
    ) -> None:
        """Have `work` done, then `done` called in the event loop with how it failed, if it did.

        It is called by `call_soon`, if there is that, or by trio, whichever is the first to have a turn.
        """
        token = trio.lowlevel.current_trio_token()
        failure: BaseException | None = None
        told = False
        self._at_work += 1

        def tell() -> None:
            nonlocal told
            if told:
                return
            told = True
            self._at_work -= 1
            self._idle.set()
            if failure is not None and not isinstance(failure, OSError):
                raise failure
            done(failure)

        def run() -> None:
            nonlocal failure
            try:
                work()
            except BaseException as error:  # noqa: BLE001 (raised where somebody hears of it)
                failure = error
            if call_soon is not None:
                call_soon(tell)

        def deliver(_: object) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(tell)

        trio.lowlevel.start_thread_soon(run, deliver, "disk")

    async def idle(self) -> None:
        """Wait until nothing is being done any more."""
        while self._at_work:
            self._idle = trio.Event()
            await self._idle.wait()
