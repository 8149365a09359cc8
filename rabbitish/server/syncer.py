"""Writes and syncs the journal, mostly in a thread of its own, one batch after the other.

The thread takes what gathered while it wrote the last batch, so that one sync covers all of it. What somebody waits for
is synced at once; what nobody waits for (removals, deliveries) is written, so that it outlives the process, and synced
with the next that is waited for or after a moment.

Little is written without the thread: to wake it costs more than the write. And as long as the disk syncs about as fast
as a thread is woken and heard of, little is synced without it as well, which is what a peer wants that sends one
message at a time and waits for each confirm. A disk that once took long is left to the thread for a while, so that
nobody else waits for it.

After a write or sync that failed nobody knows what is on the disk: nothing is written any more, nothing more is
confirmed, and the broker stops.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from rabbitish.server.pace import LITTLE_BYTES, Pace
from rabbitish.store.journal import Batch, Journal

# How long what nobody waits for stays unsynced: what the end of the power, not of the process, may cost.
_LAZY_SECONDS = 0.1


class Syncer:
    """Runs the writing side of a journal. `durable` and `failed` are called in the event loop.

    `crowded` says whether anybody was kept waiting there who publishes.
    """

    def __init__(
        self,
        journal: Journal,
        durable: Callable[[int], None],
        failed: Callable[[Exception], None],
        call_soon: Callable[[Callable[[], None]], None],
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._journal = journal
        self._durable = durable
        self._failed = failed
        self._call_soon = call_soon
        self._crowded = crowded
        self._ready = threading.Condition()
        # what the loop hands to the thread
        self._batches: list[Batch] = []
        self._dead: list[str] = []  # files to be deleted
        self._wanted = 0
        self._stopping = False
        self._lazy = False  # something was written that is to be synced in a moment
        # the loop's
        self._busy = False  # the thread has batches to write
        self._asked = 0  # what the thread was told is wanted
        self._hoped = 0  # what is wanted by now
        # whoever writes
        self._written = self._synced = journal.durable_lsn
        self._pace = Pace()
        self._error: Exception | None = None
        # Held during a sync: of two at a time one might not hear that the other failed.
        self._syncing = threading.Lock()
        # the thread's
        self._unsynced_since: float | None = None  # by the monotonic clock
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    # ---- the event loop

    def kick(self, wanted: int) -> bool:
        """There may be something to write, and somebody may wait for it; True when it is on disk already.

        Called after every batch of input.
        """
        self._hoped = max(self._hoped, wanted)
        if self._busy or self._error is not None or not (self._journal.waiting_now or wanted > self._asked):
            return False
        batches = self._journal.take(everything=False)
        if len(batches) == 1 and not batches[0].first and batches[0].size <= LITTLE_BYTES:
            if wanted <= self._synced:
                self._write_here(batches)
                return False
            if self._pace.fast and not self._syncing.locked():
                self._write_here(batches)
                return self._sync_here(wanted)
        self._asked = wanted
        self._busy = bool(batches)
        with self._ready:
            self._batches += batches
            self._wanted = wanted
            self._ready.notify()
        return False

    def _write_here(self, batches: list[Batch]) -> None:
        try:
            self._journal.write(batches)
        except OSError as error:
            self._fail(error)
            return
        self._written = batches[0].last_lsn
        self._journal.written(self._written, batches[0].size)
        if not self._lazy:
            with self._ready:
                self._lazy = True
                self._ready.notify()

    def _sync_here(self, wanted: int) -> bool:
        if self._error is not None:
            return False
        try:
            self._sync(self._written)
        except OSError as error:
            self._fail(error)
            return False
        if self._crowded():
            self._pace.crowded()
        self._asked = wanted
        self.delete(self._journal.synced(self._synced))
        return True

    def _fail(self, error: OSError) -> None:
        self._error = error
        self._failed(error)

    def _done(self, written: int, size: int, synced: int) -> None:
        if self._error is not None:
            return
        journal = self._journal
        if size:
            self._busy = False
            journal.written(written, size)
        if synced > journal.durable_lsn:
            self.delete(journal.synced(synced))
            self._durable(synced)
        if self.kick(self._hoped):
            self._durable(journal.durable_lsn)

    def delete(self, names: list[str]) -> None:
        """Have files deleted."""
        if names:
            with self._ready:
                self._dead += names
                self._ready.notify()

    def stop(self) -> None:
        """Write what is left, in the caller's own time, and end the thread. Exception: that failed, now or before."""
        with self._ready:
            self._batches += self._journal.take()
            self._stopping = True
            self._ready.notify()
        self._thread.join()
        self._journal.close()
        if self._error is not None:
            raise self._error

    # ---- the thread

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001  (a bug of ours too: without the thread nothing would be confirmed)
            self._error = error
            self._call_soon(partial(self._failed, error))

    def _step(self) -> bool:
        """Wait for something to do and do it; False: there will be no more. OSError: it failed."""
        with self._ready:
            while not (self._batches or self._dead or self._stopping or self._wanted > self._synced < self._written):
                if not self._ready.wait(_LAZY_SECONDS if self._lazy else None):
                    break
            batches, self._batches = self._batches, []
            dead, self._dead = self._dead, []
            wanted, stopping = self._wanted, self._stopping
            if not dead:
                self._lazy = False
        if self._error is not None:
            return False
        self._journal.delete(dead)
        written, size = self._written, 0
        if batches:
            self._journal.write(batches)
            written = batches[-1].last_lsn
            size = sum(batch.size for batch in batches)
            self._written = written
        if written > self._synced and (not batches or stopping or wanted > self._synced or self._waited()):
            self._sync(written)
            self._unsynced_since = None
        with self._ready:
            self._lazy = self._lazy or self._written > self._synced
        self._call_soon(partial(self._done, written, size, self._synced))
        return not stopping

    def _waited(self) -> bool:
        """Whether something has been unsynced for long; one batch after the other may come that nobody waits for."""
        now = time.monotonic()
        if self._unsynced_since is None:
            self._unsynced_since = now
        return now - self._unsynced_since >= _LAZY_SECONDS

    # ---- both

    def _sync(self, written: int) -> None:
        with self._syncing:
            if self._error is not None:
                raise self._error
            try:
                self._pace.timed(self._journal.sync)
            except OSError as error:
                self._error = error
                raise
            self._synced = max(self._synced, written)
