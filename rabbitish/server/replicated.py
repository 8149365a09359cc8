"""The leader's journal: what it gathers goes to the replicated log, and is safe when that has committed it.

It takes the place of `Syncer`. A batch goes to the log's disk and to the mirrors at once, from memory; while one is
being synced the next one gathers. Safe means committed: on the disk of every replica that may lead next. With fewer
replicas in sync than are needed nothing is said to be safe, so that confirms wait; what had been said before holds.

What nobody waits for (removals, deliveries) goes along with the next that is waited for, or after a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import trio

from rabbitish.cluster.protocol.disk_log import DiskLog
from rabbitish.cluster.protocol.replica import Replica
from rabbitish.store.ahead import Ahead
from rabbitish.store.compaction import Compaction
from rabbitish.store.coordinator import Coordinator
from rabbitish.store.journal import Journal
from rabbitish.store.record import decode_segment_head

# So much gathers while the disk syncs; more is handed on without waiting for that.
_GATHER_BYTES = 256 * 1024
# How long what nobody waits for stays here, and how much of it.
_LAZY_SECONDS = 0.02
_LAZY_BYTES = 64 * 1024


class Deposed(Exception):
    """Another node leads by now."""


class Begun:
    """See store.coordinator.Coordinator: the protocol has decided already, and written the epoch into the log."""

    def __init__(self, storage_id: str, epoch: int) -> None:
        self.storage_id = storage_id
        self._epoch = epoch

    def lead(self, last_epoch: int) -> int:
        """See Coordinator."""
        if last_epoch > self._epoch:
            raise Deposed(
                f"the log has records of epoch {last_epoch}, and this node was to lead in epoch {self._epoch}"
            )
        return self._epoch


class Replicated:
    """See keeper.Lead, and keeper.Writer once it has begun. One for each time that this node leads."""

    def __init__(
        self,
        replica: Replica,
        log: DiskLog,
        flush: Callable[[], None],
        govern: Callable[[bytes], None],
        ahead: Ahead | None = None,
    ) -> None:
        """`flush` has what was appended sent and synced. `govern`, `ahead`: see Lead."""
        self.coordinator: Coordinator = Begun(log.storage, log.epoch)
        self.govern = govern
        self.ahead = ahead
        self._epoch = log.epoch
        self._replica = replica
        self._log = log
        self._flush = flush
        self._journal: Journal | None = None
        self._durable: Callable[[int], None] = lambda lsn: None
        self._wanted = 0  # what somebody waits for
        self._asked = 0  # whoever waits for no more than this need not have anything handed over
        self._handed: deque[tuple[int, int]] = deque()  # last number and bytes of batches that are not committed
        self._handed_bytes = 0
        self.crowded: Callable[[], bool] = lambda: False
        """Whether anybody who publishes was kept waiting while the disk synced on the spot."""
        self._kicked = False
        self._lazy = trio.Event()

    def begin(self, journal: Journal, durable: Callable[[int], None]) -> Replicated:
        """See Lead."""
        journal.only_safe_to(self._replica.commit)
        self._journal, self._durable = journal, durable
        return self

    @property
    def _leads(self) -> bool:
        leading = self._replica.leading
        return leading is not None and leading.epoch == self._epoch

    # ---- Writer

    def kick(self, wanted: int) -> bool:
        """See Writer."""
        self._wanted = max(self._wanted, wanted)
        journal = self._journal
        if journal is None or not journal.waiting:
            return False
        waiting_bytes = journal.pending_bytes - self._handed_bytes
        if wanted <= self._asked and waiting_bytes < _LAZY_BYTES:
            self._lazy.set()
        elif not self._replica.syncing or waiting_bytes >= _GATHER_BYTES:
            self._kicked, durable = True, journal.durable_lsn
            self.hand_over()
            self._kicked = False
            return journal.durable_lsn > durable
        return False

    def hand_over(self) -> None:
        """Everything that has gathered goes to the log, unless that is led by another or anew by now."""
        journal = self._journal
        if journal is None or not self._leads:
            return
        log = self._log
        for batch in journal.take():
            parts = batch.parts
            if batch.first:
                log.begin_segment(decode_segment_head(parts[0]))
                parts = parts[1:]
            log.append_batch(parts, batch.last_lsn)
            self._handed.append((batch.last_lsn, batch.size))
            self._handed_bytes += batch.size
        self._asked = journal.last_lsn
        self._flush()

    async def hand_over_lazily(self) -> None:
        """What nobody waits for is handed over in a moment, for ever."""
        while True:
            await self._lazy.wait()
            handed = self._asked
            await trio.sleep(_LAZY_SECONDS)
            if self._asked > handed:  # what is here now has not been for so long
                continue
            self._lazy = trio.Event()
            self.hand_over()

    def synced(self) -> None:
        """The disk has done what it had to: it may have the next."""
        if self.kick(self._wanted) and self._journal is not None:
            self._durable(self._journal.durable_lsn)

    def delete(self, names: list[str]) -> None:
        """See Writer. A mirror may be reading them, so they may go only later; then in the log's order."""
        if self._journal is None or not self._leads:
            return
        gone = self._log.drop(names)
        if gone:
            self._log.then(partial(_delete, self._journal, gone))

    def stop(self) -> None:
        """See Writer. Whoever wants it to be safe has waited for that."""
        self.hand_over()
        self.end()

    def end(self) -> None:
        """What is recorded from now on goes nowhere: the log is led by another, or anew and so from what it has."""
        self._journal = None

    # ---- what the replica says

    def advanced(self) -> None:
        """More is committed, or the in-sync set has changed."""
        journal, commit = self._journal, self._replica.commit
        if journal is None or self._replica.short or not self._leads:
            return
        last = size = 0
        while self._handed and self._handed[0][0] <= commit:
            last, bytes_ = self._handed.popleft()
            size += bytes_
        if size:
            self._handed_bytes -= size
            journal.written(last, size)
        if commit > journal.durable_lsn:
            self.delete(journal.synced(commit))
            if not self._kicked:  # else whoever kicked is told
                self._durable(commit)

    def replaced(self, compaction: Compaction) -> None:
        """See Lead. The log is told even if this node leads no more: the files are as they are."""
        self._log.replaced([head.name for head in compaction.replaced], compaction.head, compaction.new_bytes)


def _delete(journal: Journal, names: list[str]) -> None:
    """Delete those that are there: an earlier journal on the same log may have had them dropped too."""
    there = journal.disk.names()
    journal.delete([name for name in dict.fromkeys(names) if name in there])
