"""A running broker: listeners, one task a connection, and the ticker; the pump that everything goes through.

`pump` is what follows every event: settle the core, send what sessions have to say, watch the memory. The ticker calls
it when a deadline comes and while the core says that work is left. Nothing else waits for time.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from rabbitish.cluster.protocol.disk_writer import REPLICA_FILE
from rabbitish.config import Settings
from rabbitish.core.access import Access
from rabbitish.core.access.policies import Policy
from rabbitish.core.broker import Broker
from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.server.audit import AuditLog
from rabbitish.server.certificates import Certificates
from rabbitish.server.clock import WallClock
from rabbitish.server.collector import Collector
from rabbitish.server.control import ControlSocket
from rabbitish.server.definitions import load_definitions
from rabbitish.server.disk_watch import DiskWatch
from rabbitish.server.keeper import JournalError, Keeper, Lead
from rabbitish.server.link import Link, Socket
from rabbitish.server.listener import SocketPeer, accept, close_all, has_room, open_listeners
from rabbitish.server.log import Log, get_log
from rabbitish.server.poller import READ
from rabbitish.server.process import as_process
from rabbitish.server.reactor import Reactor
from rabbitish.server.registrar import Registrar
from rabbitish.server.rosters import RosterFile, RosterRecord, Rosters
from rabbitish.server.tls import AnySocket, TlsSocket
from rabbitish.server.tls_door import TlsDoor
from rabbitish.session.carried import bring, keep_for_next
from rabbitish.session.connection import Session
from rabbitish.session.hub import Hub
from rabbitish.session.resuming import Passport, resume
from rabbitish.store.files import DataDirInUse, Disk, RealDisk

# However many queues are long, each keeps this much in memory.
_NARROWEST_WINDOW_BYTES = 64 * 1024


class DataDirError(JournalError):
    """The data directory cannot be used at all; another one could be."""


class Node:
    """One broker and its connections. `nursery` runs its tasks; `clock` tells wall milliseconds that never go back."""

    def __init__(
        self,
        settings: Settings,
        nursery: trio.Nursery,
        *,
        alone: bool = False,
        clock: Callable[[], int] | None = None,
        log: Log | None = None,
    ) -> None:
        self.settings = settings
        self.nursery = nursery
        self.log = log or get_log()
        self._clock = clock or WallClock()
        self.broker = Broker(
            token=lambda: secrets.token_urlsafe(16),
            settle_budget=settings.settle_budget_messages,
            on_fault=lambda fault: self.log.exception("internal error", fault),
        )
        self.broker.on_too_hard = self._policy_passed_over
        access = Access(
            frozenset(settings.loopback_users),
            key=secrets.token_bytes(32),
            most_failures=settings.login_failures_max,
            cost=settings.password_cost,
        )
        if not settings.load_definitions:
            self.broker.add_vhost(settings.default_vhost)
            access.add_known_user(
                settings.default_user, settings.default_pass, frozenset({"administrator"}), settings.default_vhost
            )
        self.hub = Hub(self.broker, access, settings)
        self.hub.audit = self.audit = AuditLog(settings.audit_log)
        self.registrar = Registrar(self, self._journal_failed)
        self.links: dict[Session, Link] = {}
        self.urls: list[str] = []
        self.memory_limit = memory_limit_bytes(settings)
        self._much_memory = self.memory_limit // 4
        self.started_at = self._clock()
        self._deadline: int | None = None
        self._alarm = trio.Event()  # set when the ticker must look at _deadline again
        self._sleeps_until: int | None = 0
        self._empty = trio.Event()
        self.tls: TlsDoor | None = None
        self.failure: Exception | None = None
        self.over = False  # see `lose`
        self.keeper: Keeper | None = None
        self.behind = False  # whether publishers must wait for the disk
        self._round_now: int | None = None
        self.reactor = Reactor(self._begin_round, self._end_round, self._rest, linger=alone)
        nursery.start_soon(self.reactor.run)

    def open_journal(self, disk: Disk) -> None:
        """Bring back what the journal on `disk` holds, and record changes there from now on.

        JournalError: it is damaged, or cannot be read, or is a cluster's.
        """
        if REPLICA_FILE in disk.names():  # to write to it would be to part with the cluster, in an epoch of our own
            where = Path(self.settings.data_dir).absolute()
            raise JournalError(f"{where} is the data directory of a node in a cluster: start it with --cluster")
        rosters = RosterFile(disk)
        self.registrar.govern(rosters.read())
        self.keeper = Keeper(self, disk, self._journal_failed)
        self._opened(disk, rosters)

    async def open_led(self, disk: Disk, lead: Lead) -> None:
        """The same for a journal that other nodes keep too. It may take a while, in which everything else goes on."""
        self._begin_round()  # for the thread, where trio's clock cannot be asked
        try:
            self.keeper = await trio.to_thread.run_sync(Keeper, self, disk, self._journal_failed, lead)
        finally:
            self._round_now = None
        if self.over:
            self.keeper.lose()
        self._opened(disk, RosterRecord(self.keeper))
        await self.keeper.caught_up()

    def _opened(self, disk: Disk, rosters: Rosters) -> None:
        """The journal has been read."""
        assert self.keeper is not None
        self.registrar.open(rosters)
        self.nursery.start_soon(self.keeper.compact)
        if self.settings.disk_free_limit_bytes:
            watch = DiskWatch(disk, self.hub, self.log, lambda: self.pump(self.now()))
            watch.look()  # before anybody can publish
            self.nursery.start_soon(watch.run)
        self.pump(self.now())

    def lose(self) -> None:
        """Another node is the broker by now, or this one will be one anew: whoever waits for this one is told."""
        self.over = True
        if self.keeper is not None:
            self.keeper.lose()

    def _journal_failed(self, error: Exception) -> None:
        if self.over:
            self.log.info("journal: it is another's by now", error=error)
        elif self.failure is None:
            self.log.error("journal: the broker stops", error=error)
            self.failure = error
            self.nursery.cancel_scope.cancel()

    def _policy_passed_over(self, vhost: str, policy: Policy, name: str) -> None:
        self.log.warning(
            "a policy is passed over: to match its pattern, or those before it, takes too many steps",
            vhost=vhost,
            policy=policy.name,
            pattern=policy.pattern,
            name=name,
        )

    def now(self) -> int:
        """Wall milliseconds that never go back."""
        if self._round_now is not None:
            return self._round_now
        return self._clock()

    @property
    def in_round(self) -> bool:
        """Whether a lot of events is being handled, which ends with the pump."""
        return self._round_now is not None

    def _begin_round(self) -> None:
        """No time passes while a lot of events is handled: a TTL of 0 lasts until its end."""
        self._round_now = None
        self._round_now = self.now()

    def _end_round(self) -> None:
        try:
            self.pump(self.now())
        finally:
            self._round_now = None

    def _rest(self) -> None:
        if self.keeper is not None and self.keeper.put_off:
            self.pump(self.now())

    def welcome(
        self, sock: AnySocket, peer: SocketPeer | None = None, *, carried: bool = False, mark: bytes = b""
    ) -> None:
        """Start a session on an accepted socket; `peer` is who it is if it is brought, `carried` if by another node.

        `mark` is what it is known by, if others may go on with it.
        """
        peer = self.let_in(sock, peer)
        if peer is not None:
            session = self._session(peer)
            if mark:
                bring(session, mark)
            self._begin(sock, session).carried = carried

    def _session(self, peer: SocketPeer, began: int | None = None) -> Session:
        secured, log = peer.secured, self.log.bind(connection=peer.name)
        began = self.now() if began is None else began
        if secured is None:
            return Session(self.hub, peer, log, began)
        return Session(self.hub, peer, log.bind(tls=secured.version), began, peer_certificate_name=secured.login)

    def go_on(self, sock: AnySocket, peer: SocketPeer, passport: Passport, *, carried: bool) -> None:
        """The same with a session that is open already, as a node of the cluster says."""
        if self.let_in(sock, peer) is None:
            return
        session = self._session(peer)
        try:
            resume(session, passport)
        except ConnectionFailure as refusal:  # since it was asked whether it may
            session.log.warning("a session cannot go on", error=refusal)
            session.end("refused")
            sock.close()
            return
        self._begin(sock, session).carried = carried

    def let_in(self, sock: AnySocket, peer: SocketPeer | None = None) -> SocketPeer | None:
        """Who is there; None, and the socket closed, when there is no room for it."""
        try:
            if has_room(sock, len(self.links) + (self.tls.shaking if self.tls else 0), self.settings, self.log):
                raw = sock.raw if isinstance(sock, TlsSocket) else sock
                if self.settings.tcp_nodelay and raw.family != socket.AF_UNIX:
                    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return peer or SocketPeer.of(raw)
        except OSError:  # gone already
            pass
        sock.close()
        return None

    def _begin(self, sock: Socket, session: Session) -> Link:
        link = self.links[session] = Link(self, sock, session)
        self.nursery.start_soon(link.run)
        self.look_at_deadlines()
        return link

    def begin(self, sock: Socket, peer: SocketPeer, began: int) -> None:
        """Start a session on a socket that may hold something already; it `began` when it was accepted."""
        link = self._begin(sock, self._session(peer, began))
        link.on_ready(READ)
        self.pump(self.now())

    async def reload(self) -> None:
        """Read again what may have changed: the files of `ssl_options`."""
        if self.tls is not None:
            await self.tls.reload()

    def forget(self, link: Link) -> None:
        """A connection's socket is closed."""
        del self.links[link.session]
        if not self.links:
            self._empty.set()

    def pump(self, now: int) -> None:
        """What follows every event: settle, send, and see when to be called again."""
        if self.over:
            return  # what its clients say while they are sent away is not heard
        self._deadline = self.broker.settle(now)
        self._flush(now)
        if self.keeper is not None and self.keeper.kick(more=self._round_now is not None):
            self._flush(now)
        self._watch_memory()
        if self.broker.restless or self.hub.touched:
            self._deadline = now
        if self._deadline is not None and (self._sleeps_until is None or self._deadline < self._sleeps_until):
            self._alarm.set()

    def _flush(self, now: int) -> None:
        """Send what sessions have to say."""
        touched = self.hub.touched
        if touched:
            self.hub.touched = []
            for session in touched:
                session.listed = False
                link = self.links.get(session)
                if link is not None:
                    link.flush(now)

    def look_at_deadlines(self) -> None:
        """A deadline was asked for outside of the pump, or the clock was moved: have the ticker look again."""
        self._deadline = self.broker.deadlines.next_due()
        self._alarm.set()

    def _watch_memory(self) -> None:
        usage, hub = self.broker.usage, self.hub
        used = usage.bytes + hub.partial_bytes
        if used < self._much_memory and not hub.alarms and usage.window_bytes == self.settings.queue_window_bytes:
            return  # there is nothing to do, nor to undo
        if used > self.memory_limit:
            if "memory" not in self.hub.alarms:
                self.log.warning("memory alarm: publishers are held back", used=used, limit=self.memory_limit)
                self.hub.set_alarm("memory")
        elif "memory" in self.hub.alarms:
            self.log.warning("memory alarm is over", used=used, limit=self.memory_limit)
            self.hub.clear_alarm("memory")
        if self.keeper is not None:
            self._fit_windows(used)

    def _fit_windows(self, used: int) -> None:
        """Have queues keep less in memory where there are so many long ones that all of them together are too much."""
        usage, widest = self.broker.usage, self.settings.queue_window_bytes
        if used > self.memory_limit // 2:
            if usage.window_bytes > _NARROWEST_WINDOW_BYTES:
                self.broker.narrow_windows(usage.window_bytes // 2)
        elif used < self.memory_limit // 4 and usage.window_bytes < widest:
            usage.window_bytes = min(widest, usage.window_bytes * 2)

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
        """Close every connection with 320, and give the peers a while to answer. What other nodes bring is cut off."""
        now = self.now()
        carried = {session: link for session, link in self.links.items() if link.carried}
        for session in [session for session in self.links if session not in carried]:
            session.stop(
                ConnectionFailure(
                    ReplyCode.CONNECTION_FORCED, "broker forced connection closure with reason 'shutdown'"
                ),
                now,
            )
        for session, link in carried.items():  # after those who end, whose going may not delete what these use
            keep_for_next(session, now)
            link.cut()
        self.pump(now)
        if self.links:
            self._empty = trio.Event()
            with trio.move_on_after(self.settings.shutdown_grace_ms / 1000):
                await self._empty.wait()
        self.broker.chores.finish()


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


async def run(
    settings: Settings,
    ready: Callable[[Node, list[str]], None],
    stop: trio.Event,
    *,
    alone: bool = False,
    listen: bool = True,
    clock: Callable[[], int] | None = None,
    log: Log | None = None,
) -> None:
    """Run a broker until `stop` is set; `ready` gets it and the URLs it listens on. ListenError: it cannot listen.

    `alone`: the event loop runs nothing else. Without `listen` somebody else brings the node its connections.
    """
    certificates = Certificates(settings) if settings.uses_tls else None
    log = log or get_log()
    disk = open_disk(settings, log)
    listeners = open_listeners(settings) if listen else []
    sockets = [sock for opened in listeners for sock in opened.sockets]
    async with trio.open_nursery() as nursery:
        try:
            node = Node(settings, nursery, alone=alone, clock=clock, log=log)
            if certificates is not None:
                node.tls = TlsDoor(node, certificates)
            if disk is not None:
                node.open_journal(disk)
            if settings.load_definitions:
                await load_definitions(node, Path(settings.load_definitions))
            control = ControlSocket.open(node)
            if control is not None:
                nursery.start_soon(control.run)
            nursery.start_soon(node.tick)
            async with trio.open_nursery() as accepters:
                for address, opened_sockets in listeners:
                    welcome = node.welcome
                    if address.scheme == "amqps":
                        assert node.tls is not None
                        welcome = partial(node.tls.welcome, accepters)
                    for sock in opened_sockets:
                        accepters.start_soon(accept, sock, welcome)
                node.urls = [str(address) for address, _ in listeners]
                ready(node, node.urls)
                await stop.wait()
                accepters.cancel_scope.cancel()
        finally:
            close_all(sockets)
        await node.stop()
        nursery.cancel_scope.cancel()
    if node.failure is not None:
        raise JournalError(f"the journal cannot be used: {node.failure}")
    if node.keeper is not None:
        node.keeper.close()
    node.audit.close()
    if disk is not None:
        disk.close()


def open_disk(settings: Settings, log: Log) -> RealDisk | None:
    if not settings.data_dir:
        log.info("nothing is kept on disk, nothing survives this process")
        return None
    path = Path(settings.data_dir).absolute()
    try:
        disk = RealDisk(path)
    except DataDirInUse as error:
        raise DataDirError(str(error)) from error
    except OSError as error:
        raise DataDirError(f"cannot use {path}: {error.strerror}") from error
    log.info("what is durable is kept on disk", data_dir=path)
    return disk


async def serve(settings: Settings, ready: Callable[[list[str]], None]) -> None:
    """Be the broker of this process until SIGTERM or SIGINT; `ready` gets the URLs. ListenError: it cannot listen."""
    stop = trio.Event()
    nodes: list[Node] = []

    async def reload() -> None:
        for node in nodes:
            await node.reload()

    def is_ready(node: Node, urls: list[str]) -> None:
        nodes.append(node)
        Collector.settle_down()
        nursery.start_soon(Collector(node).run)
        ready(urls)

    async with as_process(settings, stop, reload) as nursery:
        await run(settings, is_ready, stop, alone=True)
