"""Reads a mirror's log before it is asked for (store/ahead.py), so that a takeover takes no longer for a long one.

In a thread, which leaves the interpreter to the event loop for most of the time. Whoever is about to lead has it end:
the segment that is being read then is read to its end without a pause. What changes under it in another way than by
growing makes it begin again: that is when room was made, so the log is not much longer than what lives in it, and what
is kept of it takes a few dozen bytes for each record.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from rabbitish.server.breath import Breath
from rabbitish.session.content import PropertyCache, WireCodec
from rabbitish.store.ahead import Ahead
from rabbitish.store.files import RealDisk
from rabbitish.store.record import JournalDamaged

_LOOK_SECONDS = 0.5
_AFTER_FAILURE_SECONDS = 60.0


class Standby:
    """See the module. `committed`: up to where the log is committed and on disk, or None while this node leads."""

    def __init__(self, folder: Path, committed: Callable[[], int | None], properties_known: int) -> None:
        self._folder = folder
        self._committed = committed
        self._properties_known = properties_known
        self._paused = False
        self._at_work = trio.Lock()
        self._breath: Breath  # of the thread that reads
        self._up_to = 0  # what was committed the last time
        self._ahead = self._begin()

    def _begin(self) -> Ahead:
        return Ahead(WireCodec(PropertyCache(self._properties_known)), self._breathe)

    def _breathe(self) -> None:
        if not self._paused:
            self._breath()

    async def run(self) -> None:
        """Look from time to time, for ever."""
        while True:
            well = await self.look()
            await trio.sleep(_LOOK_SECONDS if well else _AFTER_FAILURE_SECONDS)

    async def look(self) -> bool:
        """Read what has come; False: that cannot be read."""
        up_to = self._committed()
        if up_to is None or up_to == self._up_to or self._paused:
            return True
        async with self._at_work:
            # It only reads, so nobody needs to wait for it who is about to end.
            read = await trio.to_thread.run_sync(self._read_on, self._ahead, up_to, abandon_on_cancel=True)
        if read:
            self._up_to = up_to
        else:
            self._ahead, self._up_to = self._begin(), 0
        return read is not None

    def _read_on(self, ahead: Ahead, up_to: int) -> bool | None:
        """In a thread: read what has come. False: it is to begin again; None: and not at once."""
        self._breath = Breath()
        try:
            disk = RealDisk(self._folder, exclusive=False)
            try:
                return ahead.read_on(disk, up_to, lambda: not self._paused)
            finally:
                disk.close()
        except FileNotFoundError:  # room was made this very moment
            return False
        except (OSError, JournalDamaged):  # whoever needs it will find out, and say so
            return None

    async def pause(self) -> None:
        """Be done with it soon; do no more before `resume`."""
        self._paused = True
        async with self._at_work:
            pass

    def resume(self) -> None:
        """Go on."""
        self._paused = False

    def take(self) -> Ahead:
        """What has been read, which is somebody else's from now on. Only while it is paused."""
        ahead, self._ahead, self._up_to = self._ahead, self._begin(), 0
        return ahead
