"""A running broker: listeners, one reader task a connection, and the ticker; the pump that everything goes through.

`pump` is what follows every event: settle the core, send what sessions have to say, watch the memory. The ticker calls
it when a deadline comes and while the core says that work is left. Nothing else waits for time.
"""

from __future__ import annotations

import gc
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import trio

from rabbitish.config import Settings
from rabbitish.core.access import Access
from rabbitish.core.broker import Broker
from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.server.link import Link
from rabbitish.server.listener import SocketPeer, accept, close_all, open_listeners
from rabbitish.server.log import get_log
from rabbitish.server.syncer import Syncer
from rabbitish.session.connection import Session
from rabbitish.session.content import WireCodec
from rabbitish.session.hub import Hub
from rabbitish.store.files import DataDirInUse, Disk, RealDisk
from rabbitish.store.journal import Journal
from rabbitish.store.recovery import recover
from rabbitish.store.scan import JournalDamaged

# The cyclic collector walks every live object, and queued messages are many, none of them in a cycle: let it run
# rarely.
_GC_THRESHOLDS = (50_000, 20, 100)


class JournalError(Exception):
    """The journal cannot be opened, read or written; the message says why, for people."""


class Node:
    """One broker and its connections. `nursery` runs its tasks."""

    def __init__(self, settings: Settings, nursery: trio.Nursery) -> None:
        self.settings = settings
        self.nursery = nursery
        self._log = get_log()
        self.broker = Broker(
            token=lambda: secrets.token_urlsafe(16),
            settle_budget=settings.settle_budget_messages,
            on_fault=lambda fault: self._log.exception("internal error", fault),
        )
        self.broker.add_vhost(settings.default_vhost)
        access = Access(frozenset(settings.loopback_users))
        access.add_user(settings.default_user, settings.default_pass, frozenset({"administrator"}))
        self.hub = Hub(self.broker, access, settings)
        self.links: dict[Session, Link] = {}
        self._memory_limit = memory_limit_bytes(settings)
        self._started_wall_ms = time.time_ns() // 1_000_000
        self._started = trio.current_time()
        self._deadline: int | None = None
        self._alarm = trio.Event()  # set when the ticker must look at _deadline again
        self._sleeps_until: int | None = 0
        self._empty = trio.Event()
        self.failure: OSError | None = None
        self._syncer: Syncer | None = None
        self._held: list[Link] = []  # with something to say that must not be heard before the journal is on disk

    def open_journal(self, disk: Disk) -> None:
        """Bring back what the journal on `disk` holds, and record changes there from now on.

        JournalError: it is damaged, or cannot be read.
        """
        began = time.monotonic()
        codec = WireCodec(self.hub.properties)
        try:
            recovered = recover(disk, self.broker, codec, self.now(), segment_bytes=self.settings.journal_segment_bytes)
        except JournalDamaged as damage:
            raise JournalError(f"the journal is damaged: {damage}") from damage
        except OSError as error:
            raise JournalError(f"the journal cannot be read: {error}") from error
        if recovered.cut is not None:
            self._log.warning("journal: a torn tail was cut off", **recovered.cut._asdict())
        self._log.info(
            "journal read",
            queues=recovered.queues,
            messages=recovered.messages,
            ms=int((time.monotonic() - began) * 1000),
        )
        journal = recovered.journal
        self.hub.durable = journal.durable_lsn
        self._syncer = Syncer(journal, lambda lsn: self._durable(journal, lsn), self._journal_failed)
        self.pump(self.now())

    def _durable(self, journal: Journal, lsn: int) -> list[int]:
        dead = journal.synced(lsn)
        self.hub.now_durable(lsn)
        held, self._held = self._held, []
        now = self.now()
        for link in held:
            link.flush(now)
        self.pump(now)
        return dead

    def _journal_failed(self, error: OSError) -> None:
        self._log.error("journal: writing failed, the broker stops", error=error)
        self.failure = error
        self.nursery.cancel_scope.cancel()

    def hold(self, link: Link) -> None:
        """A link waits for the journal; it is flushed when that is on disk some way further."""
        self._held.append(link)

    def close_journal(self) -> None:
        """Write what is left. JournalError: that failed."""
        if self._syncer is not None:
            try:
                self._syncer.stop()
            except OSError as error:
                raise JournalError(f"the journal cannot be written: {error}") from error

    def now(self) -> int:
        """Wall milliseconds that never go back: the wall's at the start, and from there the event loop's clock."""
        return self._started_wall_ms + int((trio.current_time() - self._started) * 1000)

    def welcome(self, sock: socket.socket) -> None:
        """Start a session on an accepted socket."""
        if len(self.links) >= self.settings.max_connections:
            self._log.warning("too many connections", most=self.settings.max_connections)
            sock.close()
            return
        try:
            if self.settings.tcp_nodelay:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = SocketPeer(sock)
        except OSError:  # gone already
            sock.close()
            return
        log = self._log.bind(connection=peer.name)
        session = Session(self.hub, peer, log, self.now())
        link = self.links[session] = Link(self, sock, session)
        self.nursery.start_soon(link.run)
        self._look_at_deadlines()

    def forget(self, link: Link) -> None:
        """A connection's socket is closed."""
        del self.links[link.session]
        if not self.links:
            self._empty.set()

    def pump(self, now: int) -> None:
        """What follows every event: settle, send, and see when to be called again."""
        self._deadline = self.broker.settle(now)
        touched = self.hub.touched
        if touched:
            self.hub.touched = []
            for session in touched:
                session.listed = False
                link = self.links.get(session)
                if link is not None:
                    link.flush(now)
        if self._syncer is not None:
            self._syncer.kick()
        self._watch_memory()
        if self.broker.restless or self.hub.touched:
            self._deadline = now
        if self._deadline is not None and (self._sleeps_until is None or self._deadline < self._sleeps_until):
            self._alarm.set()

    def _look_at_deadlines(self) -> None:
        self._deadline = self.broker.deadlines.next_due()
        self._alarm.set()

    def _watch_memory(self) -> None:
        used = self.broker.usage.bytes + self.hub.partial_bytes
        if used > self._memory_limit:
            if not self.hub.alarm:
                self._log.warning("memory alarm: publishers are held back", used=used, limit=self._memory_limit)
                self.hub.set_alarm("low on memory")
        elif self.hub.alarm:
            self._log.warning("memory alarm is over", used=used, limit=self._memory_limit)
            self.hub.set_alarm("")

    async def tick(self) -> None:
        """Call the pump when its deadline comes."""
        while True:
            self._alarm = trio.Event()
            self._sleeps_until = self._deadline
            if self._deadline is None:
                await self._alarm.wait()
            else:
                delay = (self._deadline - self.now()) / 1000
                if delay > 0:
                    with trio.move_on_after(delay):
                        await self._alarm.wait()
                else:
                    await trio.lowlevel.checkpoint()
            self._sleeps_until = 0
            now = self.now()
            if self._deadline is not None and self._deadline <= now:
                self.pump(now)

    async def stop(self) -> None:
        """Close every connection with 320, and give the peers a while to answer."""
        now = self.now()
        for session in list(self.links):
            session.stop(
                ConnectionFailure(
                    ReplyCode.CONNECTION_FORCED, "broker forced connection closure with reason 'shutdown'"
                ),
                now,
            )
        self.pump(now)
        if self.links:
            self._empty = trio.Event()
            with trio.move_on_after(self.settings.shutdown_grace_ms / 1000):
                await self._empty.wait()


def memory_limit_bytes(settings: Settings) -> int:
    """The memory above which publishers are held back: as set, or a share of the machine's or the container's."""
    if settings.memory_high_watermark_bytes:
        return settings.memory_high_watermark_bytes
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit_file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit_file).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return total * settings.memory_high_watermark_percent // 100


async def run(settings: Settings, ready: Callable[[Node, list[str]], None], stop: trio.Event) -> None:
    """Run a broker until `stop` is set; `ready` gets it and the URLs it listens on. ListenError: it cannot listen."""
    disk = _open_disk(settings)
    listeners = open_listeners(settings)
    sockets = [sock for _, opened in listeners for sock in opened]
    async with trio.open_nursery() as nursery:
        node = Node(settings, nursery)
        try:
            if disk is not None:
                node.open_journal(disk)
            nursery.start_soon(node.tick)
            async with trio.open_nursery() as accepters:
                for sock in sockets:
                    accepters.start_soon(accept, sock, node.welcome)
                ready(node, [url for url, _ in listeners])
                await stop.wait()
                accepters.cancel_scope.cancel()
        finally:
            close_all(sockets)
        await node.stop()
        nursery.cancel_scope.cancel()
    if node.failure is not None:
        raise JournalError(f"the journal cannot be written: {node.failure}")
    node.close_journal()
    if disk is not None:
        disk.close()


def _open_disk(settings: Settings) -> RealDisk | None:
    if not settings.data_dir:
        return None
    try:
        return RealDisk(Path(settings.data_dir))
    except DataDirInUse as error:
        raise JournalError(str(error)) from error
    except OSError as error:
        raise JournalError(f"cannot use {settings.data_dir}: {error.strerror}") from error


async def serve(settings: Settings, ready: Callable[[list[str]], None]) -> None:
    """Be the broker of this process until SIGTERM or SIGINT; `ready` gets the URLs. ListenError: it cannot listen."""
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    stop = trio.Event()

    async def wait_for_signal() -> None:
        async for _ in signals:
            stop.set()
            return

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_signal)
            await run(settings, lambda _, urls: ready(urls), stop)
            nursery.cancel_scope.cancel()
