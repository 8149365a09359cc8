"""Free disk space: below `disk_free_limit_bytes` publishers are held back, before the disk is full.

A write that fails stops the broker, so those who fill the disk are stopped first. The file system is asked at an
interval, in a thread, since one that hangs must not keep the event loop. It is asked more often the less room there is.

When it cannot tell, nothing changes: no publisher is held back for want of a number, none let go. That is logged once,
and it is asked again as before. (RabbitMQ does not hold anybody back then either, and gives up after ten tries.)
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from rabbitish.server.log import Log
from rabbitish.session.hub import Hub
from rabbitish.store.files import Disk

# A fast disk takes so much, so that is how soon the room above the limit may be gone.
_FASTEST_BYTES_PER_MS = 1_000_000
# At that speed half of the default limit is left when it is noticed.
_SHORTEST_PAUSE_MS = 25


class DiskWatch:
    """Sets and clears the alarm of a disk. `changed` is called after either."""

    def __init__(self, disk: Disk, hub: Hub, log: Log, changed: Callable[[], None]) -> None:
        self._disk = disk
        self._hub = hub
        self._log = log
        self._changed = changed
        self._limit = hub.settings.disk_free_limit_bytes
        self._interval_ms = hub.settings.disk_check_interval_ms
        self._pause_ms = self._interval_ms
        self._failing = False

    def look(self) -> None:
        """Ask now, and wait for the answer."""
        self._judge(self._ask())

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await trio.sleep(self._pause_ms / 1000)
            self._judge(await trio.to_thread.run_sync(self._ask, abandon_on_cancel=True))

    def _ask(self) -> int | OSError:
        try:
            return self._disk.free_bytes()
        except OSError as error:
            return error

    def _judge(self, free: int | OSError) -> None:
        if isinstance(free, OSError):
            if not self._failing:
                self._log.warning("disk: cannot tell how much space is free", error=free)
            self._failing = True
            self._pause_ms = self._interval_ms
            return
        if self._failing:
            self._log.info("disk: can tell again how much space is free", free=free)
            self._failing = False
        alarmed = "disk" in self._hub.alarms
        if free < self._limit and not alarmed:
            self._log.warning("disk alarm: publishers are held back", free=free, limit=self._limit)
            self._hub.set_alarm("disk")
            self._changed()
        elif free >= self._limit and alarmed:
            self._log.warning("disk alarm is over", free=free, limit=self._limit)
            self._hub.clear_alarm("disk")
            self._changed()
        self._pause_ms = pause_ms(free - self._limit, self._interval_ms)


def pause_ms(room: int, longest: int) -> int:
    """When to ask again with `room` bytes above the limit; negative: below it, where it is no longer urgent."""
    if room < 0:
        return longest
    return min(max(room // _FASTEST_BYTES_PER_MS, _SHORTEST_PAUSE_MS), longest)
