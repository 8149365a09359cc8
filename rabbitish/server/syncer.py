"""The thread that writes and syncs the journal, one batch after the other.

It takes what gathered while it wrote the last batch, so that one sync covers all of it; nobody waits for a timer. The
event loop hears of every sync through the trio token. After a write or sync that failed nobody knows what is on the
disk: nothing is written any more, nothing more is confirmed, and the broker stops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import trio

from rabbitish.store.journal import Batch, Journal


class Syncer:
    """Runs the writing side of a journal. `synced` and `failed` are called in the event loop."""

    def __init__(self, journal: Journal, synced: Callable[[int], list[int]], failed: Callable[[OSError], None]) -> None:
        self._journal = journal
        self._synced = synced
        self._failed = failed
        self._token = trio.lowlevel.current_trio_token()
        self._ready = threading.Condition()
        self._batches: list[Batch] = []
        self._dead: list[int] = []  # segments to be deleted
        self._stopping = False
        self._busy = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def kick(self) -> None:
        """There may be something to write; called in the event loop after every batch of input."""
        if self._journal.waiting and not self._busy:
            self._busy = True
            self._hand_over(self._journal.take())

    def _hand_over(self, batches: list[Batch]) -> None:
        with self._ready:
            self._batches += batches
            self._ready.notify()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not (self._batches or self._dead or self._stopping):
                    self._ready.wait()
                batches, self._batches = self._batches, []
                dead, self._dead = self._dead, []
            if not batches and not dead:
                return
            try:
                self._journal.delete(dead)
                if not batches:
                    continue
                lsn = self._journal.write(batches)
            except OSError as error:
                self._error = error
                self._tell(self._failed, error)
                return
            self._tell(self._done, lsn)

    def _tell(self, what: Callable[..., object], value: object) -> None:
        try:
            self._token.run_sync_soon(what, value)
        except trio.RunFinishedError:  # the loop is over; so is everybody who could have heard
            pass

    def _done(self, lsn: int) -> None:
        self._busy = False
        dead = self._synced(lsn)
        if dead:
            with self._ready:
                self._dead += dead
                self._ready.notify()
        self.kick()

    def stop(self) -> None:
        """Write what is left, in the caller's own time, and end the thread. OSError: that failed, now or before."""
        with self._ready:
            self._batches += self._journal.take()
            self._stopping = True
            self._ready.notify()
        self._thread.join()
        self._journal.close()
        if self._error is not None:
            raise self._error
