"""A node's part in one journal, at work: the replica between its log on disk, its links over TCP, etcd and the clock.

A mirror dials its leader: one connection a session, which begins with a greeting and a HELLO. Whoever sends puts frames
into the connection's queue and never waits; a peer that does not take them loses the connection. The log is synced in
a thread. The replica decides, this moves bytes and time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import trio

from rabbitish.cluster.etcd import Etcd
from rabbitish.cluster.membership import EtcdCoordinator, Names, now_ms
from rabbitish.cluster.protocol.confirms import ConfirmGate
from rabbitish.cluster.protocol.frames import (
    Ack,
    Frame,
    FrameDecoder,
    Hello,
    LinkError,
    Reject,
    Relay,
    Relaying,
    encode_frame,
)
from rabbitish.cluster.protocol.greeting import NONCE_BYTES, Greeting, Refused
from rabbitish.cluster.protocol.log import Log, Ticket
from rabbitish.cluster.protocol.replica import Replica
from rabbitish.cluster.protocol.state import node_of, replica_id
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.cluster.relay import TakeRelay
from rabbitish.store.record import Type

_READ_BYTES = 256 * 1024
_GREETING_SECONDS = 2
_MOST_FRAMES = 1_000  # waiting for a connection: the leader's window is far below
_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)

Note = Callable[[str, dict[str, object]], None]


class LeaderLost(Exception):
    """It does not lead any more: whether the record survives is not known here."""


class _Wait:
    """Somebody who waits for a confirm."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.confirmed = False


class _Connection:
    """A connection to a peer: frames that wait to be sent, and what ends it."""

    def __init__(self) -> None:
        self.peer = ""
        self.outgoing, self._queue = trio.open_memory_channel[Frame](_MOST_FRAMES)
        self.scope = trio.CancelScope()

    def send(self, frame: Frame) -> None:
        try:
            self.outgoing.send_nowait(frame)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.scope.cancel()

    async def write(self, stream: trio.abc.Stream) -> None:
        async for frame in self._queue:
            await stream.send_all(encode_frame(frame))


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
    ) -> None:
        self.node = node
        self.id = replica_id(node, storage)
        self.journal = journal
        self.replica: Replica
        self._log = log
        self._etcd = etcd
        self._names = names
        self._secret = secret
        self._timing = timing
        self._note = note
        self._take_relay = take_relay
        self._gate = ConfirmGate()
        self._waiting: list[_Wait] = []
        self._stopped = trio.Event()
        self._nursery: trio.Nursery
        self._coordinator: EtcdCoordinator
        self._to_leader: _Connection | None = None
        self._from_mirrors: dict[str, _Connection] = {}

    # ---- for its owner

    async def run(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        advertised: Callable[[int], tuple[str, int]] | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Take part until it is stopped or cancelled; `ready` when it does. OSError: it cannot listen.

        `advertised` says by which address others reach the port that is listened on.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        address: tuple[str, int] = listeners[0].socket.getsockname()[:2]
        if advertised is not None:
            address = advertised(address[1])
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            coordinator = self._coordinator = EtcdCoordinator(self._etcd, self._names, self.journal, nursery)
            self.replica = coordinator.replica = Replica(
                self.id, self.journal, self._log, coordinator, self, self, lambda: secrets.randbits(64), self._timing
            )
            nursery.start_soon(trio.serve_listeners, self._accept, listeners)
            nursery.start_soon(coordinator.keep_lease, self.node, address, self._timing.ttl_ms // 1_000)
            nursery.start_soon(coordinator.follow)
            nursery.start_soon(self._tick)
            ready()
            try:
                await self._stopped.wait()
                await coordinator.end_lease()
            finally:
                self.replica.stopped()  # however it ends, nobody is to begin to wait
                self._release()
            nursery.cancel_scope.cancel()

    def address_of(self, replica: str) -> tuple[str, int] | None:
        """Where a replica's node listens, if that is known."""
        return self._coordinator.addresses.get(node_of(replica))

    def stop(self) -> None:
        """Hand over, if it leads, and end."""
        self.replica.stop(now_ms())

    async def append(self, kind: Type, *body: bytes, min_in_sync: int = 1) -> int:
        """Append a record and wait until it is confirmed; its number. NotLeading, LeaderLost: see there."""
        lsn = self.replica.append(kind, *body, now=now_ms())
        wait = _Wait()
        self._waiting.append(wait)
        self._gate.wait({self.journal: self._log.last}, min_in_sync, wait)
        self.replica.flush(now_ms())
        await wait.event.wait()
        if not wait.confirmed:
            raise LeaderLost(self.id)
        return lsn

    async def _tick(self) -> None:
        while True:
            self.replica.tick(now_ms())
            self.replica.flush(now_ms())
            await trio.sleep(self._timing.tick_ms / 1_000)

    # ---- Owner

    def sync(self, ticket: Ticket) -> None:
        """See Owner."""
        self._nursery.start_soon(self._sync, ticket)

    async def _sync(self, ticket: Ticket) -> None:
        try:
            await trio.to_thread.run_sync(ticket.run)
        except OSError as error:
            self.replica.failed(error)
        else:
            self.replica.synced(ticket, now_ms())

    def advanced(self) -> None:
        """See Owner."""
        for token in self._gate.advance(self.journal, self.replica.commit, self.replica.in_sync):
            assert isinstance(token, _Wait)
            token.confirmed = True
            token.event.set()
        self._waiting = [wait for wait in self._waiting if not wait.confirmed]

    def led(self, epoch: int) -> None:
        """See Owner."""

    def stepped_down(self) -> None:
        """See Owner."""
        self._gate.forget(self.journal)
        for connection in self._from_mirrors.values():
            connection.scope.cancel()
        self._release()

    def _release(self) -> None:
        """Nobody who waits gets a confirm any more."""
        while self._waiting:
            self._waiting.pop().event.set()

    def alarm(self, reason: str) -> None:
        """See Owner."""
        self._note("alarm", {"reason": reason})
        self._stopped.set()

    def stopped(self) -> None:
        """See Owner."""
        self._stopped.set()

    def note(self, event: str, **details: object) -> None:
        """See Owner."""
        self._note(event, details)

    # ---- Link

    def send(self, peer: str, frame: Frame) -> None:
        """See Link."""
        if isinstance(frame, Hello):
            if self._to_leader is not None:
                self._to_leader.scope.cancel()
            self._to_leader = connection = _Connection()
            connection.peer = peer
            connection.send(frame)
            self._nursery.start_soon(self._dial, connection)
        elif self._to_leader is not None and self._to_leader.peer == peer and isinstance(frame, (Ack, Reject)):
            self._to_leader.send(frame)
        elif peer in self._from_mirrors:
            self._from_mirrors[peer].send(frame)

    async def _dial(self, connection: _Connection) -> None:
        address = self._coordinator.addresses.get(node_of(connection.peer))
        if address is None:
            return
        with connection.scope, trio.socket.socket() as socket:
            try:
                with trio.fail_after(_GREETING_SECONDS):
                    await socket.connect(address)
            except ConnectionRefusedError:
                self.replica.refused(connection.peer, now_ms())
            except _BROKEN:
                pass
            else:
                await self._talk(connection, trio.SocketStream(socket), dials=True)
        if self._to_leader is connection:
            self._to_leader = None

    async def _accept(self, stream: trio.SocketStream) -> None:
        connection = _Connection()
        with connection.scope:
            await self._talk(connection, stream, dials=False)

    async def _talk(self, connection: _Connection, stream: trio.abc.Stream, *, dials: bool) -> None:
        """Until the connection ends."""
        try:
            async with stream, trio.open_nursery() as nursery:
                greeting = Greeting(self._secret, secrets.token_bytes(NONCE_BYTES), dials=dials)
                with trio.fail_after(_GREETING_SECONDS):
                    await stream.send_all(greeting.begin())
                    while not greeting.done:
                        data = await stream.receive_some(_READ_BYTES)
                        if not data:
                            return
                        await stream.send_all(greeting.receive(bytes(data)))
                nursery.start_soon(connection.write, stream)
                await self._read(connection, stream, greeting.rest, dials=dials)
                nursery.cancel_scope.cancel()
        except* (Refused, LinkError) as refused:
            self.note("link_refused", peer=connection.peer, reason=str(refused.exceptions[0]))
        except* _BROKEN:
            pass
        finally:
            if self._from_mirrors.get(connection.peer) is connection:
                del self._from_mirrors[connection.peer]
                self.replica.disconnected(connection.peer, now_ms())
            elif self._to_leader is connection:
                self._to_leader = None
                self.replica.disconnected(connection.peer, now_ms())

    async def _read(self, connection: _Connection, stream: trio.abc.Stream, data: bytes, *, dials: bool) -> None:
        decoder = FrameDecoder()
        while True:
            for frame in decoder.feed(data):
                if isinstance(frame, Relaying):
                    if not isinstance(frame, Relay) or dials or connection.peer or self._take_relay is None:
                        raise LinkError("a client is brought where none is taken")
                    await self._take_relay(stream, frame)
                    return
                if not dials and isinstance(frame, Hello):
                    connection.peer = frame.replica
                    old, self._from_mirrors[frame.replica] = self._from_mirrors.get(frame.replica), connection
                    if old is not None and old is not connection:
                        old.scope.cancel()
                if connection.peer:
                    self.replica.received(connection.peer, frame, now_ms())
            data = bytes(await stream.receive_some(_READ_BYTES))
            if not data:
                return
