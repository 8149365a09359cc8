"""Makes room in the log of a node that does not lead, in a process of its own, at the lowest priority.

A mirror knows no queue's state, so what is dead in its log is found by reading all of it up to what is committed
(store/condensing.py). That is worth it once the log is twice as large as it was the last time, and a few segments
more; and, since what lived then may be dead by now, whenever something has come and many times as long has passed as
it took. The process writes new files beside the others; the log puts them in place with a ticket. Whoever is about to
lead has it end first. It ends with its parent too: two of them at a time might write the same file.

    python -m rabbitish.server.condenser FOLDER UP_TO SEGMENT_BYTES
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from rabbitish.cluster.protocol.disk_log import DiskLog
from rabbitish.session.content import PropertyCache, WireCodec
from rabbitish.store.condensing import Condensed, Rewritten, condense
from rabbitish.store.files import RealDisk
from rabbitish.store.record import JournalDamaged, SegmentHead

_LOOK_SECONDS = 1.0
_AFTER_FAILURE_SECONDS = 60.0
# So many segments more than twice what was left the last time.
_SEGMENTS = 2
_TIMES_AS_LONG = 10
_LEAST_BYTES = 1 << 20  # less is not worth a process
_PROPERTIES_KNOWN = 1_000
_LOCK_FILE = "condense.lock"
_LOWEST = 19

Note = Callable[[str, dict[str, object]], None]


class _Failed(Exception):
    """It could not be read, or not be written, for the reason that the process gave."""


class Condenser:
    """See the module. `committed`: up to where the log is that and on disk, or None while this node leads."""

    def __init__(
        self,
        folder: Path,
        log: DiskLog,
        segment_bytes: int,
        committed: Callable[[], int | None],
        flush: Callable[[], None],
        note: Note,
    ) -> None:
        """`flush` has the log synced some time soon."""
        self._folder = folder
        self._log = log
        self._segment_bytes = segment_bytes
        self._committed = committed
        self._flush = flush
        self._note = note
        self._left = 0  # what the log took when it was done the last time
        self._up_to = 0  # up to where it was read then
        self._due = 0.0  # when it is time to read all of it again
        self._refused = False  # what was found the last time was of no use
        self._scope = trio.CancelScope()
        self._at_work = trio.Lock()
        self._paused = False
        self._again = True  # files may have gone while they were read: what fails is tried once more, and then told

    async def run(self) -> None:
        """Look from time to time, for ever."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            up_to = self._committed()
            if not self._paused and up_to is not None:
                may = self._is_worth_it(up_to) and self._log.may_condense()
                if may and not await self._once(up_to):
                    await trio.sleep(_AFTER_FAILURE_SECONDS)

    def _is_worth_it(self, up_to: int) -> bool:
        size, more = self._log.size, max(_LEAST_BYTES, _SEGMENTS * self._segment_bytes)
        due = trio.current_time() >= self._due
        grown = size > 2 * self._left + more and (due or not self._refused)
        return size > more and (grown or (due and up_to > self._up_to))

    async def pause(self) -> None:
        """Be done with it, at once; do no more before `resume`."""
        self._paused = True
        self._scope.cancel()
        async with self._at_work:
            pass

    def resume(self) -> None:
        """Go on."""
        self._paused = False

    async def _once(self, up_to: int) -> bool:
        """Make room; False: that failed."""
        log, before, began = self._log, self._log.size, trio.current_time()
        async with self._at_work:
            with trio.CancelScope() as self._scope:
                if self._paused:  # since it was looked
                    return True
                try:
                    found = await self._find(up_to)
                except _Failed as failed:
                    again, self._again = self._again, False
                    if not again:
                        self._note("condensing_failed", {"reason": str(failed)})
                    return again
                self._again = True
                now = trio.current_time()
                self._due = now + _TIMES_AS_LONG * (now - began)
                if self._committed() is not None and log.condense(found):
                    self._flush()
                    self._left, self._up_to = found.left + max(0, log.size - before), up_to
                    self._refused = False
                    self._note("condensed", {"before": before, "after": self._left, "up_to": up_to})
                else:
                    self._refused = True
        return True

    async def _find(self, up_to: int) -> Condensed:
        command = [sys.executable, "-m", __name__, str(self._folder), str(up_to), str(self._segment_bytes)]
        said, complaints, status = list[bytes](), list[bytes](), 1
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
            )
            try:
                process: trio.Process = await nursery.start(run)
            except OSError as error:  # there may be no memory for it just now, or too many processes
                complaints.append(str(error).encode())
            else:
                assert process.stdout is not None and process.stderr is not None
                nursery.start_soon(_collect, process.stderr, complaints)
                await _collect(process.stdout, said)
                status = await process.wait()
            nursery.cancel_scope.cancel()
        if status:
            reason = b"".join(complaints).decode(errors="replace").strip().rpartition("\n")[2]
            raise _Failed(reason or f"it ended with {status}")
        return decode_condensed(b"".join(said))


async def _collect(stream: trio.abc.ReceiveStream, parts: list[bytes]) -> None:
    parts.extend([bytes(part) async for part in stream])


def encode_condensed(condensed: Condensed) -> bytes:
    """What one process tells the other."""
    return json.dumps(condensed).encode()


def decode_condensed(data: bytes) -> Condensed:
    """The other way."""
    dead, rewritten, left = json.loads(data)
    found = [Rewritten(tuple(olds), SegmentHead(*head), size) for olds, head, size in rewritten]
    return Condensed(tuple(dead), tuple(found), left)


def main(folder: str, up_to: str, segment_bytes: str) -> None:
    """Do it; what comes of it goes to the standard output. SystemExit: it failed, or another one is at it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_LOWEST)
    lock = os.open(Path(folder) / _LOCK_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    disk = RealDisk(Path(folder), exclusive=False)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = condense(disk, WireCodec(PropertyCache(_PROPERTIES_KNOWN)), int(up_to), int(segment_bytes))
    except (OSError, JournalDamaged) as error:
        raise SystemExit(str(error)) from None
    sys.stdout.buffer.write(encode_condensed(found))
    sys.stdout.buffer.flush()
    os._exit(0)  # the thread waits for the parent


def _end_with_parent() -> None:
    """Its end of the pipe is closed when it has ended, however it did."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
