"""The journal's place in a running broker: opened at the start, written by its thread, compacted in the background.

`Keeper` is what `Node` knows of it. It says when the journal is on disk some way further, holds back links whose
answers must wait for that, and says `behind` while more waits to be written than memory should hold.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from rabbitish.server.breath import Breath
from rabbitish.server.pace import LITTLE_BYTES
from rabbitish.server.prompt import Prompt
from rabbitish.server.syncer import Syncer
from rabbitish.session.content import WireCodec
from rabbitish.store.ahead import Ahead
from rabbitish.store.checkpoint import write_checkpoint
from rabbitish.store.columns import Unusable
from rabbitish.store.compaction import Compaction
from rabbitish.store.coordinator import Coordinator, LocalCoordinator
from rabbitish.store.files import Disk
from rabbitish.store.journal import Journal
from rabbitish.store.record import JournalDamaged
from rabbitish.store.recovery import Recovered, recover

if TYPE_CHECKING:
    from rabbitish.server.link import Link
    from rabbitish.server.node import Node

# How often it is looked whether segments are sparse. Short enough that a flood does not run away from it.
_COMPACTION_SECONDS = 0.25
# So little is put off until it can be written together with what somebody waits for, or there is nothing else to do.
# With what is recorded next it is still little for the syncer.
_PUT_OFF_BYTES = LITTLE_BYTES // 2
# With more than this to be written the disk is at work anyway, and nobody waits for consumers instead.
_MUCH_BYTES = 256 * 1024
# For so long after the disk was asked it is about to answer, and nobody is told before that does.
_SOON_SECONDS = 0.02
# When there was no room for a segment that is written anew, how long until that is tried again.
_NO_ROOM_SECONDS = 10


class JournalError(Exception):
    """The journal cannot be opened, read or written; the message says why, for people."""


class Writer(Protocol):
    """Brings what the journal has gathered to where it is safe."""

    def kick(self, wanted: int) -> bool:
        """There may be something to write, and somebody may wait for it; True when it is safe already."""

    def delete(self, names: list[str]) -> None:
        """Have files deleted."""

    def stop(self) -> None:
        """Write what is left. Exception: that failed, now or before."""


class Lead(Protocol):
    """A journal that other nodes keep as well, led by this one."""

    coordinator: Coordinator
    ahead: Ahead | None
    """What was read of it before, if anything was; None once it is used."""

    def govern(self, document: bytes) -> None:
        """The journal says so of users and policies; nothing has been declared yet."""

    def begin(self, journal: Journal, durable: Callable[[int], None]) -> Writer:
        """The journal has been read; `durable` is to be told when it is safe some way further."""

    def replaced(self, compaction: Compaction) -> None:
        """Segments have been written anew."""


class Keeper:
    """The journal of a node. `failed` is told when it cannot be used any more."""

    def __init__(self, node: Node, disk: Disk, failed: Callable[[Exception], None], lead: Lead | None = None) -> None:
        """Bring back what the journal on `disk` holds, and record changes there from now on.

        JournalError: it is damaged, or cannot be read.
        """
        self._lead = lead
        self.lost = False  # it is another's by now
        self._node = node
        self._failed = failed
        self._log = node.log
        self.put_off = False  # something is to be written in a moment, or asked of the disk
        self._held: dict[Link, None] = {}  # with something to say that must not be heard before the journal is on disk
        self._further: trio.Event | None = None  # for who waits until the journal is on disk further than before
        ahead = None
        if lead is not None:
            ahead, lead.ahead = lead.ahead, None
        self._codec = ahead.codec if ahead is not None else WireCodec(node.hub.properties)
        self.recovered = self._recover(disk, ahead)
        self.journal = self.recovered.journal
        node.broker.usage.window_bytes = node.settings.queue_window_bytes
        self._syncer: Writer
        if lead is None:
            self._syncer = Syncer(
                self.journal, self._durable, failed, node.reactor.call_soon, node.reactor.publishers_wait
            )
        else:
            self._syncer = lead.begin(self.journal, self._durable)
        node.hub.durable = node.hub.safe = self.journal.durable_lsn
        self._asked = 0  # how far the disk has been asked to be
        self._asked_at = 0.0  # when it was, by the performance counter
        self._prompt = Prompt()

    def _recover(self, disk: Disk, ahead: Ahead | None) -> Recovered:
        began, lead = time.monotonic(), self._lead
        try:
            recovered = recover(
                disk,
                self._node.broker,
                self._codec,
                lead.coordinator if lead is not None else LocalCoordinator(disk, lambda: secrets.token_hex(16)),
                self._node.now(),
                segment_bytes=self._node.settings.journal_segment_bytes,
                on_failure=self._failed,
                govern=lead.govern if lead is not None else None,
                tidied=lead is not None,
                ahead=ahead,
            )
        except JournalDamaged as damage:
            raise JournalError(f"the journal is damaged: {damage}") from damage
        except OSError as error:
            raise JournalError(f"the journal cannot be read: {error}") from error
        if recovered.doubt:
            self._log.warning("journal: the checkpoint does not count", reason=recovered.doubt)
        if recovered.cut is not None:
            self._log.warning("journal: a torn tail was cut off", **recovered.cut._asdict())
        self._log.info(
            "journal read",
            queues=recovered.queues,
            messages=recovered.messages,
            checkpoint=recovered.checkpointed,
            ahead=recovered.ahead,
            ms=int((time.monotonic() - began) * 1000),
        )
        return recovered

    def _durable(self, lsn: int) -> None:
        self._tell(lsn)
        if not self._node.in_round:  # else it is pumped at the end of that
            self._node.pump(self._node.now())

    def _tell(self, lsn: int) -> None:
        """The journal is on disk up to `lsn`: whoever waits for it may go on."""
        self._node.hub.now_durable(lsn)
        self._wake()
        if self._held:
            held, self._held = self._held, {}
            now = self._node.now()
            for link in held:
                link.flush(now)

    def hold(self, link: Link) -> None:
        """A link waits for the journal; it is flushed when that is on disk some way further."""
        self._held[link] = None

    def kick(self, *, more: bool) -> bool:
        """Something may have been recorded, or be waited for; True when sessions have more to say for that.

        Called after every batch of input, and when no `more` is expected for the moment. What is little and nobody
        waits for is put off until then: others will wait soon, and one write does for all.
        """
        node, journal = self._node, self.journal
        told = self._tell_acknowledged()
        wanted = self._wanted_on_disk(more=more or not node.reactor.quiet)
        spared = wanted < node.hub.wanted > node.hub.safe  # for the moment
        waited_for = wanted > node.hub.durable or node.behind
        if more and not waited_for and journal.pending_bytes <= _PUT_OFF_BYTES:
            self.put_off = spared or journal.waiting
            return told
        if not more:
            journal.close_gathering()
        if wanted > self._asked:
            self._asked, self._asked_at = wanted, time.perf_counter()
        safe = self._syncer.kick(wanted)
        self.put_off = spared or (more and journal.waiting)
        if safe:
            self._tell(journal.durable_lsn)
        behind = journal.pending_bytes > node.settings.journal_backlog_bytes
        if behind is not node.behind:
            node.behind = behind
            if not behind:
                for link in node.links.values():
                    link.look_again()
        return safe or told

    def _tell_acknowledged(self) -> bool:
        """Whether confirms go out for what everybody has acknowledged; none for what is synced soon."""
        hub, done = self._node.hub, self.journal.needed.done
        if done <= hub.safe or hub.safe >= hub.wanted:
            return False
        if hub.wanted <= self._asked and time.perf_counter() < self._asked_at + _SOON_SECONDS:
            return False
        hub.now_safe(done)
        self._prompt.came(done)
        return True

    def _wanted_on_disk(self, *, more: bool) -> int:
        """How far the journal must be on disk for all who wait, unless consumers may spare it that in a moment."""
        hub, prompt, journal = self._node.hub, self._prompt, self.journal
        if hub.wanted <= hub.safe:
            prompt.over()
            return hub.wanted_on_disk
        if hub.wanted <= max(self._asked, hub.wanted_on_disk):
            prompt.over()
            return hub.wanted
        worth = more and journal.needed.with_consumers and journal.pending_bytes <= _MUCH_BYTES
        if worth and prompt.worth_waiting(hub.wanted):
            return hub.wanted_on_disk
        prompt.in_vain()
        return hub.wanted

    async def caught_up(self) -> None:
        """Wait until everything that was recorded is on disk, and all who wait for it have been told."""
        self.journal.close_gathering()
        await self.reached(max(self._node.hub.wanted, self.journal.last_lsn))

    def _go_further(self) -> trio.Event:
        """Set when the journal is on disk some way further, or is lost."""
        if self._further is None:
            self._further = trio.Event()
        return self._further

    def _wake(self) -> None:
        if self._further is not None:
            self._further.set()
            self._further = None

    async def compact(self) -> None:
        """Keep the journal from taking much more room than what lives in it."""
        journal, looked_at = self.journal, 0
        while True:
            await trio.sleep(_COMPACTION_SECONDS)
            if journal.last_lsn != looked_at:
                looked_at = journal.last_lsn
                segments = journal.sparse()
                if segments:
                    looked_at = 0  # there may be more
                    await self._rewrite(Compaction(journal, self._codec, segments))

    def _write_anew(self, compaction: Compaction) -> None:
        """In a thread. What is recorded meanwhile must find room on the disk too."""
        try:
            free = self.journal.disk.free_bytes()
        except OSError:  # it cannot tell, so there is nothing to go by (see DiskWatch)
            free = compaction.bytes * 2
        if free < compaction.bytes * 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        compaction.write(Breath())

    async def reached(self, lsn: int) -> None:
        """Wait until the journal is on disk up to `lsn`. JournalError: it was lost before."""
        hub = self._node.hub
        hub.wanted = max(hub.wanted, lsn)
        hub.wanted_on_disk = max(hub.wanted_on_disk, lsn)
        while hub.durable < lsn:
            if self.lost:
                raise JournalError("another node leads by now")
            further = self._go_further()
            self._node.pump(self._node.now())  # to have it written and synced, and all told of it
            await further.wait()

    async def _rewrite(self, compaction: Compaction) -> None:
        try:
            try:
                await trio.to_thread.run_sync(self._write_anew, compaction)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                # Nobody waits for this file, so there is nothing to stop for; publishers are held back already.
                await trio.to_thread.run_sync(compaction.discard)
                compaction.give_up()
                self._log.warning("journal: no room to write segments anew", error=error)
                await trio.sleep(_NO_ROOM_SECONDS)
                return
            await self.reached(compaction.lsn)
            await trio.to_thread.run_sync(compaction.install)
        except JournalError:  # another node leads by now, and this one is about to end what it did as the leader
            return
        except (OSError, JournalDamaged) as error:
            self._failed(error)
            return
        compaction.finish()
        if self._lead is not None:
            self._lead.replaced(compaction)
        self._syncer.delete(self.journal.take_gone())
        self._log.debug("journal: segments were written anew", **compaction.report())

    def close(self) -> None:
        """Write what is left. JournalError: that failed."""
        try:
            self._syncer.stop()
        except Exception as error:  # whatever ended the thread
            raise JournalError(f"the journal cannot be written: {error}") from error
        if self._lead is None:
            self._leave_checkpoint()
        self.recovered.shelf.close()

    def lose(self) -> None:
        """The journal is led elsewhere or anew: whoever waits for it waits in vain. `forget` follows."""
        self.lost = True
        self._wake()

    def forget(self) -> None:
        """Nobody uses it any more."""
        self.recovered.shelf.close()

    def _leave_checkpoint(self) -> None:
        """Spare the next start the reading of the journal; it can do without."""
        log, began = self._log, time.monotonic()
        try:
            write_checkpoint(self.journal, self.recovered.recorder, self.recovered.shelf)
        except (OSError, Unusable) as error:
            log.warning("journal: no checkpoint was written, the next start reads everything", error=error)
        except Exception as error:  # a bug of ours, and everything is safe on disk by now
            log.exception("internal error", error)
        else:
            log.debug("journal: checkpoint written", ms=int((time.monotonic() - began) * 1000))
