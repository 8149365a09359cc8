"""The connections of a replica to the others: one that it dials, to its leader, and those that its mirrors dialled.

A mirror dials for every session anew: a greeting, then HELLO. Whoever sends puts frames into the connection's queue and
never waits; a peer that does not take them loses the connection, and so does one whose host is gone without a word. A
connection that begins with RELAY brings a client and is somebody else's from then on.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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
from rabbitish.store.record import JournalDamaged

_GREETING_SECONDS = 2
# Waiting for a connection: the leader has no more than its window under way, and a word every `append_ms`.
_MOST_FRAMES = 1_000


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


def _notice_silence(stream: trio.SocketStream, timing: Timing) -> None:
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


class _Connection:
    """A connection to a peer: frames that wait to be sent, and what ends it."""

    def __init__(self, peer: str = "") -> None:
        self.peer = peer
        self._outgoing, self._queue = trio.open_memory_channel[bytes](_MOST_FRAMES)
        self._unsent = 0  # how many are in there, or were and are being sent
        self._fd: int | None = None  # of the stream's socket, while `write` runs
        self.scope = trio.CancelScope()

    def send(self, frame: Frame) -> None:
        """At once if the kernel takes it: whoever waits for a confirm waits for no turn of a task's."""
        data = encode_frame(frame)
        try:
            if self._fd is not None and not self._unsent:
                with suppress(BlockingIOError):
                    data = data[os.write(self._fd, data) :]
            if data:
                self._outgoing.send_nowait(data)
                self._unsent += 1
        except (OSError, trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.scope.cancel()

    async def write(self, stream: trio.abc.Stream) -> None:
        if isinstance(stream, trio.SocketStream):
            self._fd = stream.socket.fileno()
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
            self._fd = None


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
    ) -> None:
        self._secret = secret
        self._timing = timing
        self._address_of = address_of
        self._take_relay = take_relay
        self._note = note
        self._to_leader: _Connection | None = None
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
        except BROKEN:
            pass
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
            async with stream, trio.open_nursery() as nursery:
                with trio.fail_after(_GREETING_SECONDS):
                    rest = await greet(stream, self._secret, dials=dials)
                nursery.start_soon(connection.write, stream)
                await self._read(connection, stream, rest, dials=dials)
                nursery.cancel_scope.cancel()
        except* (Refused, LinkError) as refused:
            self._note("link_refused", {"peer": connection.peer, "reason": str(refused.exceptions[0])})
        except* BROKEN:
            pass
        finally:
            if self._from_mirrors.get(connection.peer) is connection:
                del self._from_mirrors[connection.peer]
                self.replica.disconnected(connection.peer, now_ms())
            elif self._to_leader is connection:
                self._to_leader = None
                self.replica.disconnected(connection.peer, now_ms())

    async def _read(self, connection: _Connection, stream: trio.SocketStream, data: bytes, *, dials: bool) -> None:
        decoder = FrameDecoder()
        if dials:
            _notice_silence(stream, self._timing)
        with trio.CancelScope() as patience:  # with who was let in, and does not say what for
            patience.deadline = trio.current_time() + _GREETING_SECONDS
            while True:
                frames = decoder.feed(data)
                for frame in frames:
                    patience.deadline = math.inf
                    if isinstance(frame, Relaying):
                        if not isinstance(frame, Relay) or dials or connection.peer or self._take_relay is None:
                            raise LinkError("a client is brought where none is taken")
                        await self._take_relay(stream, frame)
                        return
                    if not dials and isinstance(frame, Hello):
                        self._met(connection, frame.replica)
                        _notice_silence(stream, self._timing)  # not for a client, who may be as slow as he likes
                    if connection.peer:
                        with disk_of(self.replica):
                            self.replica.received(connection.peer, frame, now_ms())
                if dials and not frames:
                    self.replica.receiving(connection.peer, now_ms())
                data = bytes(await stream.receive_some(READ_BYTES))
                if not data:
                    return

    def _met(self, connection: _Connection, replica: str) -> None:
        """A mirror says who it is; this is its connection now, and not the one that it had before."""
        if connection.peer not in ("", replica):
            raise LinkError(f"it was {connection.peer}, and would be {replica}")
        connection.peer = replica
        old, self._from_mirrors[replica] = self._from_mirrors.get(replica), connection
        if old is not None and old is not connection:
            old.scope.cancel()
