"""A node's part in one journal, at work: the replica between its log on disk, its links, etcd and the clock.

The log is synced in a thread, the lease is kept by a task of its own, and nobody who appends waits for a mirror. The
replica decides, this moves bytes and time. A disk that fails, or cannot be read back, stops the replica for good: `run`
returns, and `halted` says why.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

import trio

from rabbitish.cluster.disk_thread import DiskThread
from rabbitish.cluster.etcd import Etcd
from rabbitish.cluster.links import Links, disk_of
from rabbitish.cluster.membership import EtcdCoordinator, Names, now_ms
from rabbitish.cluster.protocol.confirms import ConfirmGate
from rabbitish.cluster.protocol.log import Log, Ticket
from rabbitish.cluster.protocol.replica import Replica
from rabbitish.cluster.protocol.state import node_of, replica_id
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.cluster.relay import TakeRelay
from rabbitish.cluster.wire import Secure
from rabbitish.store.record import Type

_FAREWELL_SECONDS = 1  # for etcd to take note that we go

Note = Callable[[str, dict[str, object]], None]


class LeaderLost(Exception):
    """It does not lead any more: whether the record survives is not known here."""


class _Wait:
    """Somebody who waits for a confirm."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.confirmed = False


def _nonce() -> int:
    return secrets.randbits(64)


class Member:
    """See the module. `run` does everything; `stop` ends it in order."""

    def __init__(
        self,
        node: str,
        storage: str,
        journal: str,
        log: Log,
        etcd: Etcd,
        names: Names,
        secret: bytes,
        timing: Timing,
        note: Note = lambda event, details: None,
        take_relay: TakeRelay | None = None,
        secure: Secure | None = None,
    ) -> None:
        self.node = node
        self._storage = storage
        self.id = replica_id(node, storage)
        self.journal = journal
        self.replica: Replica
        self._log = log
        self._etcd = etcd
        self._names = names
        self._timing = timing
        self._note = note
        self._links = Links(secret, timing, self.address_of, take_relay, note, secure)
        self._gate = ConfirmGate()
        self._waiting: dict[_Wait, None] = {}
        self._stopped = trio.Event()
        self._nursery: trio.Nursery
        self._coordinator: EtcdCoordinator
        self._disk = DiskThread()
        self._begun = False
        self.halted = ""
        """Why it stopped for good, if it did: its files are as they were, and somebody must look at them."""

    # ---- for its owner

    async def run(
        self,
        listeners: list[trio.SocketListener] | None = None,
        *,
        advertised: Callable[[int], tuple[str, int]] | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Take part until it is stopped or cancelled; `ready` when it does.

        `listeners` are for other nodes, and closed in the end; by default one on the loopback. `advertised` says by
        which address others reach the port that is listened on.
        """
        listeners = listeners or await trio.open_tcp_listeners(0, host="127.0.0.1")
        address: tuple[str, int] = listeners[0].socket.getsockname()[:2]
        if advertised is not None:
            address = advertised(address[1])
        try:
            await self._take_part(listeners, address, ready)
        finally:
            with trio.CancelScope(shield=True):  # whoever closes the files next must not do so under it
                await self._disk.idle()

    async def _take_part(
        self, listeners: list[trio.SocketListener], address: tuple[str, int], ready: Callable[[], None]
    ) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = self._links.nursery = nursery
            coordinator = self._coordinator = EtcdCoordinator(
                self._etcd, self._names, self.journal, nursery, self.viewed
            )
            self.replica = coordinator.replica = self._links.replica = Replica(
                self.id, self.journal, self._log, coordinator, self._links, self, _nonce, self._timing
            )
            self._begun = True
            nursery.start_soon(trio.serve_listeners, self._links.accept, listeners)
            nursery.start_soon(coordinator.keep_lease, self.node, address, self._timing.ttl_ms // 1_000, self._storage)
            nursery.start_soon(coordinator.follow, self._timing.ttl_ms / 4_000)
            nursery.start_soon(self._tick)
            ready()
            try:
                await self._stopped.wait()
                with trio.move_on_after(_FAREWELL_SECONDS):
                    await coordinator.end_lease()
            finally:
                self.replica.stopped()  # however it ends, nobody is to begin to wait
                self._release()
            nursery.cancel_scope.cancel()

    def address_of(self, replica: str) -> tuple[str, int] | None:
        """Where a replica's node listens, if that is known."""
        return self._coordinator.addresses.get(node_of(replica))

    @property
    def etcd_trouble(self) -> str:
        """Why etcd has not answered for a while, if it has not."""
        return self._coordinator.trouble

    def stop(self) -> None:
        """Hand over, if it leads, and end."""
        if not self._begun:
            self._stopped.set()
            return
        self.replica.stop(now_ms())
        self.replica.tick(now_ms())

    def flush(self) -> None:
        """What was appended goes to the disk and to the mirrors: once after each batch."""
        with disk_of(self.replica):
            self.replica.flush(now_ms())

    async def append(self, kind: Type, *body: bytes, min_in_sync: int = 1) -> int:
        """Append a record and wait until it is confirmed; its number. NotLeading, LeaderLost: see there."""
        lsn = self.replica.append(kind, *body, now=now_ms())
        wait = _Wait()
        self._waiting[wait] = None
        self._gate.wait({self.journal: self._log.last}, min_in_sync, wait)
        self.flush()
        await wait.event.wait()
        if not wait.confirmed:
            raise LeaderLost(self.id)
        return lsn

    async def _tick(self) -> None:
        while True:
            with disk_of(self.replica):
                self.replica.tick(now_ms())
            self.flush()
            await trio.sleep(self._timing.tick_ms / 1_000)

    def viewed(self) -> None:
        """The coordinator may have said something new."""

    # ---- Owner

    def sync(self, ticket: Ticket) -> None:
        """See Owner."""
        self._disk.start(ticket.run, partial(self._synced, ticket))

    def _synced(self, ticket: Ticket, failure: OSError | None) -> None:
        """The disk has done what it had to, or has failed."""
        if failure is not None:
            self.replica.failed(failure)
        else:
            self.replica.synced(ticket, now_ms())

    def advanced(self) -> None:
        """See Owner."""
        for token in self._gate.advance(self.journal, self.replica.commit, self.replica.in_sync):
            assert isinstance(token, _Wait)
            token.confirmed = True
            token.event.set()
            self._waiting.pop(token, None)

    def led(self, epoch: int) -> None:
        """See Owner."""

    def stepped_down(self) -> None:
        """See Owner."""
        self._gate.forget(self.journal)
        self._links.drop_mirrors()
        self._release()

    def _release(self) -> None:
        """Nobody who waits gets a confirm any more."""
        while self._waiting:
            self._waiting.popitem()[0].event.set()

    def alarm(self, reason: str) -> None:
        """See Owner."""
        self.halted = reason
        self._note("alarm", {"reason": reason})
        self._stopped.set()

    def stopped(self) -> None:
        """See Owner."""
        self._stopped.set()

    def note(self, event: str, **details: object) -> None:
        """See Owner."""
        self._note(event, details)
