"""A node of a cluster: it keeps a mirror of the cluster's journal, and is the broker while it leads.

    take part (Member) -> leads, and its epoch is committed -> the broker is read from the log -> clients come in
    another leads, or it may be so without our hearing of it -> clients go, the broker is forgotten -> mirror again

There is one journal in a cluster and so one broker at a time, on the node that leads; the others send their clients on
to it (front.py). Nothing here decides who leads: that is the protocol's, in cluster/.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from rabbitish.cluster.etcd import Etcd
from rabbitish.cluster.membership import Names, now_ms
from rabbitish.cluster.protocol.disk_log import DiskLog
from rabbitish.cluster.protocol.frames import Relay
from rabbitish.cluster.protocol.state import node_of
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.cluster.relay import open_relay
from rabbitish.cluster.wire import LinkStream
from rabbitish.config import Settings
from rabbitish.server import hopeless
from rabbitish.server.certificates import Certificates
from rabbitish.server.cluster_place import JOURNAL, ClusterPlace, cluster_place, needed_in_sync
from rabbitish.server.collector import Collector
from rabbitish.server.condenser import Condenser
from rabbitish.server.control import ControlSocket
from rabbitish.server.definitions import load_definitions
from rabbitish.server.front import Front, Leader
from rabbitish.server.joining import join, open_records, stay_in
from rabbitish.server.keeper import JournalError
from rabbitish.server.link_tls import LinkTls
from rabbitish.server.listener import ListenError, Opened, close_all, open_listeners
from rabbitish.server.log import Log, get_log
from rabbitish.server.node import Node, open_disk
from rabbitish.server.part import Part
from rabbitish.server.process import as_process
from rabbitish.server.replicated import Replicated
from rabbitish.server.rosters import roster_of
from rabbitish.server.standby import Standby
from rabbitish.server.tls_door import TlsDoor
from rabbitish.store.files import RealDisk

_LOOK_SECONDS = 0.1  # how often it is looked without any news
# How long it may be doubtful whether we still lead before clients are sent away.
_DOUBT_SECONDS = 1.0
_CONFIRM_SECONDS = 2.0  # for what is under way when we stop
_LEVELS = {"alarm": "error", "etcd_went_back": "error", "etcd_is_silent": "warning", "link_refused": "warning"}


class Clustered:
    """See the module."""

    def __init__(self, settings: Settings, place: ClusterPlace, log: Log) -> None:
        self.settings = settings
        self.place = place
        self.log = log
        self.names = Names(place.cluster.name)
        self.etcd = Etcd(place.cluster.members)
        self.stopping = trio.Event()
        self.part: Part
        self._secret = b""
        self._certificates = Certificates(settings) if settings.uses_tls else None
        self._link_tls = LinkTls(settings) if settings.secures_links else None
        self.front = Front(settings, self._bring, log, self._certificates)
        self._disk: RealDisk
        self._log_disk: RealDisk  # the same folder, for whoever reads it at the same time
        self._records: DiskLog
        self._condenser: Condenser
        self._standby: Standby
        self._news = trio.Event()

    async def run(self, ready: Callable[[list[str]], None]) -> None:
        """Take part until `stopping` is set. ListenError, JournalError: it cannot, or not any more.

        Who comes in before it knows who leads waits for that, as long as for any leader.
        """
        disk = open_disk(self.settings, self.log)
        assert disk is not None  # no member of a cluster without a data directory, say the settings
        self._disk, self._log_disk = disk, RealDisk(disk.path, exclusive=False)
        halted = ""
        try:
            listeners = open_listeners(self.settings)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.front.run, listeners)
                    halted = await self._be_member(listeners, ready)
                    nursery.cancel_scope.cancel()
            finally:
                close_all([sock for opened in listeners for sock in opened.sockets])
        finally:
            self._log_disk.close()
            disk.close()
        if halted:
            raise JournalError(f"this node cannot go on in the cluster: {halted}")

    async def _be_member(self, listeners: list[Opened], ready: Callable[[list[str]], None]) -> str:
        """Until `stopping`; why it ended, if it had to."""
        host, port = self.place.listen
        try:  # first: who joins is counted on, and would be by mistake if it cannot be reached
            links = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise ListenError(f"cannot listen on {self.place.listen}: {error.strerror or error}") from error
        try:
            return await self._take_part(links, listeners, ready) if await self._join() else ""
        finally:
            for link in links:
                link.socket.close()

    async def _join(self) -> bool:
        """Whether this node is a member of the cluster; False: it is to stop before it could be."""
        async with trio.open_nursery() as nursery:

            async def heed_stop() -> None:
                await self.stopping.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(heed_stop)
            segment_bytes = self.settings.journal_segment_bytes
            opening = partial(open_records, self._disk, self._log_disk, segment_bytes, self.log)
            self._records = await trio.to_thread.run_sync(opening)
            self._secret = await join(self.etcd, self.names, self.place, self._records, self.log)
            nursery.cancel_scope.cancel()
        return bool(self._secret)

    async def _bring(self, address: tuple[str, int], relay: Relay) -> LinkStream:
        return await open_relay(address, self._secret, relay._replace(node=self.place.node), self._link_tls)

    async def _take_part(
        self, links: list[trio.SocketListener], listeners: list[Opened], ready: Callable[[list[str]], None]
    ) -> str:
        log, settings = self._records, self.settings
        timing = Timing(ttl_ms=self.place.ttl_s * 1_000)
        self.part = Part(
            self.place.node,
            log.storage,
            JOURNAL,
            log,
            self.etcd,
            self.names,
            self._secret,
            timing,
            self._note,
            take_relay=self.front.relayed,
            secure=self._link_tls,
        )
        self.part.watch(self._changed, alone=lambda: not self.front.relays)
        async with trio.open_nursery() as nursery:
            begun = trio.Event()
            self._condenser = Condenser(
                self._disk.path,
                log,
                settings.journal_segment_bytes,
                self._settled,
                self.part.flush,
                self._note,
            )
            self._standby = Standby(self._disk.path, self._settled, settings.properties_cache_entries)

            async def take_part() -> None:
                await self.part.run(links, advertised=self.place.advertised, ready=begun.set)
                nursery.cancel_scope.cancel()

            nursery.start_soon(take_part)
            await begun.wait()
            self.part.replica.needed = self._needed
            nursery.start_soon(self._watch_leader)
            nursery.start_soon(stay_in, self.part.replica, self.etcd, self.names, log, self.log, self._for_news)
            nursery.start_soon(self._condenser.run)
            nursery.start_soon(self._standby.run)
            nursery.start_soon(hopeless.watch, self.etcd, self.names, lambda: self._leads, self.log)
            nursery.start_soon(hopeless.watch_set, self.part.replica, self.log)
            control = ControlSocket.open(None, self)
            if control is not None:
                nursery.start_soon(control.run)
            ready([str(address) for address, _ in listeners])
            nursery.start_soon(self._lead_when_due)
        with suppress(OSError):  # all that anybody relies on was synced before
            log.close()
        return self.part.halted

    async def reload(self) -> None:
        """Read the files of `ssl_options` again, for when it leads too, and those of the links."""
        if self._certificates is not None:
            await self._certificates.reload(self.log)
        if self._link_tls is not None:
            await self._link_tls.reload(self.log)

    def _note(self, event: str, details: dict[str, object]) -> None:
        said = getattr(self.log, _LEVELS.get(event, "info"))
        said(f"cluster: {event.replace('_', ' ')}", **details)

    def _changed(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _watch_leader(self) -> None:
        """Tell the front who leads, for ever."""
        while True:
            news, leader = self._news, None
            view = self.part.replica.view
            if view is not None and view.state.leader and view.state.leader != self.part.id:
                address = self.part.address_of(view.state.leader)
                if address is not None:
                    leader = Leader(node_of(view.state.leader), address, view.state.epoch)
            if leader is not None and leader != self.front.leader:
                self.log.info("another node leads", leader=leader.node, epoch=leader.epoch)
            self.front.follow(leader)
            with trio.move_on_after(_LOOK_SECONDS):
                await news.wait()

    # ---- leading

    @property
    def _leads(self) -> bool:
        return self.part.replica.may_deliver(now_ms())

    def _leads_in(self, epoch: int) -> bool:
        leading = self.part.replica.leading
        return leading is not None and leading.epoch == epoch

    async def _lead_when_due(self) -> None:
        while not self.stopping.is_set():
            if self._leads:
                await self._condenser.pause()
                await self._standby.pause()
                await self._lead()
                self._condenser.resume()
                self._standby.resume()
            else:
                await self._for_news()
        self.part.stop()

    def _settled(self) -> int | None:
        """Up to where a mirror's log is committed, and on its disk; a leader's is its journal's."""
        replica = self.part.replica
        return min(replica.commit, self._records.durable) if replica.leading is None else None

    async def _for_news(self, seconds: float = _LOOK_SECONDS) -> None:
        news = self._news
        with trio.move_on_after(seconds):
            await news.wait()

    async def _lead(self) -> None:
        """Be the broker, as long as this node leads."""
        replica, records = self.part.replica, self._records
        epoch = records.epoch
        records.seal()
        self.part.flush()
        while (replica.syncing or records.dirty) and self._leads_in(epoch) and not self.stopping.is_set():
            await self._for_news()
        if not self._leads_in(epoch) or self.stopping.is_set():
            return
        # Its own: nothing that it keeps open may be another file by the next time.
        disk = RealDisk(self._disk.path, exclusive=False)
        try:
            async with trio.open_nursery() as nursery:
                node = Node(self.settings, nursery, log=self.log)
                try:
                    await self._be_broker(node, disk, epoch)
                finally:
                    self.part.join_in(None)
                    node.lose()
                    self.part.lead = None
                    self.front.serve(None)
                    nursery.cancel_scope.cancel()
            if node.failure is not None and self._leads_in(epoch):
                raise JournalError(f"the journal cannot be used: {node.failure}")
        finally:
            if node.keeper is not None:
                node.keeper.forget()
            node.audit.close()
            disk.close()

    async def _be_broker(self, node: Node, disk: RealDisk, epoch: int) -> None:
        """From the log to the end. What fails once another leads is no failure: the files are changing then."""

        def govern(document: bytes) -> None:
            node.registrar.govern(roster_of(document))

        lead = Replicated(self.part.replica, self._records, self.part.flush, govern, self._standby.take())
        self.part.lead = lead
        node.nursery.start_soon(lead.hand_over_lazily)
        node.nursery.start_soon(self._end_when_lost, node, epoch)
        try:
            with trio.CancelScope() as beginning:
                begun = trio.Event()
                node.nursery.start_soon(self._end_when_stopping, node, beginning, begun)
                await self._begin(node, disk, lead)
                begun.set()
            if not beginning.cancelled_caught:
                await self._serve(node)
        except Exception as error:
            if self._leads_in(epoch) and not node.over:
                raise
            self.log.info("what this node would have led is led by another by now", reason=error)
        finally:
            lead.end()

    async def _begin(self, node: Node, disk: RealDisk, lead: Replicated) -> None:
        if self._certificates is not None:
            node.tls = TlsDoor(node, self._certificates)
        began = now_ms()
        await node.open_led(disk, lead)
        lead.crowded = node.reactor.publishers_wait
        self.part.join_in(node.reactor)
        node.broker.doubt()
        if self.settings.load_definitions:
            await load_definitions(node, Path(self.settings.load_definitions))
        node.nursery.start_soon(node.tick)
        node.nursery.start_soon(Collector(node).run)
        self.log.info("this node leads, and serves", epoch=self._records.epoch, ms=now_ms() - began)

    async def _serve(self, node: Node) -> None:
        """Let clients in until we are to stop."""
        if not self.stopping.is_set():
            self.front.serve(node)
            await self.stopping.wait()
        self.front.serve(None)
        await node.stop()
        assert node.keeper is not None
        with trio.move_on_after(_CONFIRM_SECONDS):
            await node.keeper.caught_up()
        node.keeper.close()

    async def _end_when_lost(self, node: Node, epoch: int) -> None:
        """End what this node does as the leader once it is not, or cannot know for too long (R12)."""
        certain = trio.current_time()
        try:
            while self._leads_in(epoch) and trio.current_time() - certain <= _DOUBT_SECONDS:
                await self._for_news()
                if self._leads:
                    certain = trio.current_time()
            self.log.warning("this node does not lead any more: its connections are closed", epoch=epoch)
        finally:
            node.lose()  # first, since a change of users is carried through, and waits for the journal
            node.nursery.cancel_scope.cancel()

    async def _end_when_stopping(self, node: Node, beginning: trio.CancelScope, begun: trio.Event) -> None:
        """Give up what takes too long to begin: it may wait for other nodes, for ever."""
        await self.stopping.wait()
        if not begun.is_set():
            beginning.cancel()
            node.lose()

    def _needed(self, replicas: int) -> int:
        return needed_in_sync(self.place.min_in_sync, replicas)


async def serve_clustered(settings: Settings, ready: Callable[[list[str]], None]) -> None:
    """Be a node of a cluster until SIGTERM or SIGINT; see node.serve."""
    clustered = Clustered(settings, cluster_place(settings), get_log())

    def is_ready(urls: list[str]) -> None:
        Collector.settle_down()
        ready(urls)

    async with as_process(settings, clustered.stopping, clustered.reload):
        await clustered.run(is_ready)
