"""The connections of a replica to the others: one that it dials, to its leader, and those that its mirrors dialled.

A mirror dials for every session anew: a greeting, then HELLO. Whoever sends puts frames into the connection's queue and
never waits; a peer that does not take them loses the connection, and so does one whose host is gone without a word. A
connection that begins with RELAY brings a client and is somebody else's from then on.

A connection is read by a task of its own, or, while this node leads, together with the broker's other sockets
(`watch_with`): every confirm waits for what mirrors say, and a turn of a task costs more than to hear it.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from selectors import EVENT_READ
from typing import Protocol

import trio

from rabbitish.cluster.membership import now_ms
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
from rabbitish.cluster.protocol.greeting import Refused
from rabbitish.cluster.protocol.replica import Replica
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.cluster.relay import BROKEN, READ_BYTES, TakeRelay, greet
from rabbitish.cluster.wire import LinkStream, Read, Secure, fileno_of, reader_of, secured_by, writer_of
from rabbitish.store.record import JournalDamaged

_GREETING_SECONDS = 2
# Waiting for a connection: the leader has no more than its window under way, and a word every `append_ms`.
_MOST_FRAMES = 1_000
# A mirror that has nothing else to do waits so long for its leader's next word without giving the event loop up, since
# a turn of that costs more than a little message does; and gives it up after so long all the same.
_LINGER_MS = 3
_SLICE_SECONDS = 0.01


@contextmanager
def disk_of(replica: Replica) -> Iterator[None]:
    """Around what may read the replica's log: if that cannot be read, the replica stops for good."""
    try:
        yield
    except JournalDamaged as error:
        replica.failed(error)


async def _connect(address: tuple[str, int]) -> trio.SocketStream:
    """A connection to the first of a name's addresses where somebody is. ConnectionRefusedError: nobody is at any."""
    refused: OSError = ConnectionRefusedError("it has no address")
    for family, kind, protocol, _, where in await trio.socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        with suppress(ConnectionRefusedError):
            dialled = trio.socket.socket(family, kind, protocol)
            try:
                await dialled.connect(where)
            except BaseException:
                dialled.close()
                raise
            return trio.SocketStream(dialled)
    raise refused


def _notice_silence(stream: LinkStream, timing: Timing) -> None:
    """Have the kernel give up on a host that says nothing any more; one that is only slow may take its time."""
    patience = 2 * timing.lag_ms
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", max(1, timing.lag_ms // 1_000)),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", max(1, timing.lag_ms // 1_000)),
        ("TCP_USER_TIMEOUT", patience),
    ):
        if (option := getattr(socket, name, None)) is not None:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)


async def _next(fd: int, read: Read) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(fd)
        with suppress(BlockingIOError):  # not a whole record of TLS
            return read(READ_BYTES)


class Watched:
    """A connection's socket, for who watches many."""

    publishes = ahead = False

    def __init__(self, fd: int, read: Read, hear: Callable[[bytes], object]) -> None:
        """`hear` takes what is said; what it raises ends that."""
        self._fd = fd
        self._read = read
        self._hear = hear
        self.over = trio.Event()
        """There is nothing more to hear here."""
        self.failure: Exception | None = None

    def fileno(self) -> int:
        return self._fd

    def on_ready(self, events: int) -> None:
        """It can be read, or has failed."""
        if self.over.is_set():  # what there is to read is another's
            return
        data = b""
        try:
            data = self._read(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            pass  # whoever reads next hears of it
        if data:
            try:
                self._hear(data)
                return
            except Exception as error:  # noqa: BLE001 (it is the reading task's to say what comes of it)
                self.failure = error
        self.over.set()


class Watcher(Protocol):
    """See server.reactor.Reactor."""

    def watch(self, who: Watched, before: int, events: int) -> None:
        """Tell `who` of these events from now on instead of those `before`; 0: of none."""


class _Connection:
    """A connection to a peer: frames that wait to be sent, and what ends it."""

    def __init__(self, peer: str = "") -> None:
        self.peer = peer
        self.decoder = FrameDecoder()
        self.spoken = False  # the peer has said something
        self.watched: Watched | None = None
        self._outgoing, self._queue = trio.open_memory_channel[bytes](_MOST_FRAMES)
        self._unsent = 0  # how many are in there, or were and are being sent
        self._send_now: Callable[[bytes], int] | None = None  # while `write` runs
        self.scope = trio.CancelScope()

    def send(self, frame: Frame) -> None:
        """At once if the kernel takes it: whoever waits for a confirm waits for no turn of a task's."""
        data = encode_frame(frame)
        try:
            if self._send_now is not None and not self._unsent:
                with suppress(BlockingIOError):
                    data = data[self._send_now(data) :]
            if data:
                self._outgoing.send_nowait(data)
                self._unsent += 1
        except (OSError, trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.scope.cancel()

    async def write(self, stream: LinkStream) -> None:
        self._send_now = writer_of(stream)
        try:
            async for data in self._queue:
                parts = [data]
                size = len(data)
                with suppress(trio.WouldBlock):
                    while size < READ_BYTES:
                        parts.append(self._queue.receive_nowait())
                        size += len(parts[-1])
                await stream.send_all(b"".join(parts))
                self._unsent -= len(parts)
        finally:
            self._send_now = None


class Links:
    """See the module, and Link. `nursery` and `replica` are set before it is used."""

    replica: Replica
    nursery: trio.Nursery

    def __init__(
        self,
        secret: bytes,
        timing: Timing,
        address_of: Callable[[str], tuple[str, int] | None],
        take_relay: TakeRelay | None,
        note: Callable[[str, dict[str, object]], None],
        secure: Secure | None = None,
    ) -> None:
        self._secret = secret
        self._secure = secure
        self._timing = timing
        self._address_of = address_of
        self._take_relay = take_relay
        self._note = note
        self._watcher: Watcher | None = None
        self.lingers: Callable[[], bool] = lambda: False
        """Whether a mirror has nothing else to do than to hear its leader."""
        self._to_leader: _Connection | None = None
        self._unreached = ""  # the leader of which that was said
        self._from_mirrors: dict[str, _Connection] = {}

    def send(self, peer: str, frame: Frame) -> None:
        """See Link."""
        if isinstance(frame, Hello):
            if self._to_leader is not None:
                self._to_leader.scope.cancel()
            self._to_leader = connection = _Connection(peer)
            connection.send(frame)
            self.nursery.start_soon(self._dial, connection)
        elif self._to_leader is not None and self._to_leader.peer == peer and isinstance(frame, (Ack, Reject)):
            self._to_leader.send(frame)
        elif peer in self._from_mirrors:
            self._from_mirrors[peer].send(frame)

    def watch_with(self, watcher: Watcher | None) -> None:
        """From now on mirrors are heard together with what else is watched; None: by a task each, as before."""
        self._watcher = watcher
        for connection in self._from_mirrors.values():
            if connection.watched is not None:
                connection.watched.over.set()

    def drop_mirrors(self) -> None:
        """We do not lead: they are to look for who does."""
        for connection in self._from_mirrors.values():
            connection.scope.cancel()

    async def _dial(self, connection: _Connection) -> None:
        try:
            with connection.scope:
                address = self._address_of(connection.peer)
                if address is not None:
                    with trio.fail_after(_GREETING_SECONDS):
                        stream = await _connect(address)
                    await self._talk(connection, stream, dials=True)
        except ConnectionRefusedError:
            self.replica.refused(connection.peer, now_ms())
        except BROKEN as error:
            self._not_reached(connection, error)
        finally:
            if self._to_leader is connection:
                self._to_leader = None

    async def accept(self, stream: trio.SocketStream) -> None:
        """Somebody dialled us. For as long as the connection lives."""
        connection = _Connection()
        with connection.scope:
            await self._talk(connection, stream, dials=False)

    async def _talk(self, connection: _Connection, stream: trio.SocketStream, *, dials: bool) -> None:
        """Until the connection ends."""
        try:
            async with stream:
                with trio.fail_after(_GREETING_SECONDS):
                    wire, proved = await secured_by(self._secure, stream, self._secret, dials=dials)
                async with wire, trio.open_nursery() as nursery:
                    with trio.fail_after(_GREETING_SECONDS):
                        rest = await greet(wire, proved, dials=dials)
                    nursery.start_soon(connection.write, wire)
                    await self._read(connection, wire, rest, dials=dials)
                    nursery.cancel_scope.cancel()
        except* (Refused, LinkError) as refused:
            self._note("link_refused", {"peer": connection.peer, "reason": str(refused.exceptions[0])})
        except* BROKEN as broken:
            if dials:
                self._not_reached(connection, broken.exceptions[0])
        finally:
            if self._from_mirrors.get(connection.peer) is connection:
                del self._from_mirrors[connection.peer]
                self.replica.disconnected(connection.peer, now_ms())
            elif self._to_leader is connection:
                self._to_leader = None
                self.replica.disconnected(connection.peer, now_ms())

    def _not_reached(self, connection: _Connection, error: BaseException) -> None:
        """Say once that a leader does not let us speak; it may have TLS where we have none, or the other way round."""
        if not connection.spoken and self._unreached != connection.peer:
            self._unreached = connection.peer
            reason = str(error) or type(error).__name__
            self._note("leader_not_reached", {"leader": connection.peer, "reason": reason})

    async def _read(self, connection: _Connection, stream: LinkStream, data: bytes, *, dials: bool) -> None:
        fd, read = fileno_of(stream), reader_of(stream)
        if dials:
            _notice_silence(stream, self._timing)
        with trio.CancelScope() as patience:  # with who was let in, and does not say what for
            patience.deadline = trio.current_time() + _GREETING_SECONDS
            while True:
                relay = self._hear(connection, data, dials=dials)
                if relay is not None:
                    patience.deadline = math.inf
                    assert self._take_relay is not None
                    await self._take_relay(stream, relay)
                    return
                if connection.spoken and patience.deadline < math.inf:
                    patience.deadline = math.inf
                    if dials:
                        self._unreached = ""
                    else:
                        _notice_silence(stream, self._timing)  # not for a client, who may be as slow as he likes
                if self._watcher is not None and connection.peer and not dials:
                    await self._be_watched(connection, fd, read, self._watcher)
                if dials and connection.spoken and self.lingers():
                    self._linger(connection, fd, read)
                if not (data := await _next(fd, read)):
                    return

    def _linger(self, connection: _Connection, fd: int, read: Read) -> None:
        """Hear the leader without giving the event loop up, for a slice of time."""
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        until = time.perf_counter() + _SLICE_SECONDS
        while not self.replica.syncing and time.perf_counter() < until and poller.poll(_LINGER_MS):
            try:
                data = read(READ_BYTES)
            except BlockingIOError:  # not a whole record of TLS
                continue
            if not data:  # whoever reads next sees that too
                return
            self._hear(connection, data, dials=True)

    async def _be_watched(self, connection: _Connection, fd: int, read: Read, watcher: Watcher) -> None:
        """Until another is to read, or there is nothing more to hear. LinkError: what was heard makes no sense."""
        watched = connection.watched = Watched(fd, read, partial(self._hear, connection, dials=False))
        watcher.watch(watched, 0, EVENT_READ)
        try:
            await watched.over.wait()
        finally:
            watcher.watch(watched, EVENT_READ, 0)
            connection.watched = None
        if watched.failure is not None:
            raise watched.failure

    def _hear(self, connection: _Connection, data: bytes, *, dials: bool) -> Relay | None:
        """Have the replica told what a peer says; a client that it brings instead. LinkError: it makes no sense."""
        frames = connection.decoder.feed(data)
        connection.spoken = connection.spoken or bool(frames)
        for frame in frames:
            if isinstance(frame, Relaying):
                if not isinstance(frame, Relay) or dials or connection.peer or self._take_relay is None:
                    raise LinkError("a client is brought where none is taken")
                return frame
            if not dials and isinstance(frame, Hello):
                self._met(connection, frame.replica)
            if connection.peer:
                with disk_of(self.replica):
                    self.replica.received(connection.peer, frame, now_ms())
        if dials and not frames:
            self.replica.receiving(connection.peer, now_ms())
        return None

    def _met(self, connection: _Connection, replica: str) -> None:
        """A mirror says who it is; this is its connection now, and not the one that it had before."""
        if connection.peer not in ("", replica):
            raise LinkError(f"it was {connection.peer}, and would be {replica}")
        connection.peer = replica
        old, self._from_mirrors[replica] = self._from_mirrors.get(replica), connection
        if old is not None and old is not connection:
            old.scope.cancel()
