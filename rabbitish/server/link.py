"""One socket and its session: reads as long as it may, sends at once what can be sent.

The socket is a plain non-blocking one, or one that behaves like it (server/tls.py), and the node's reactor says when it
can be read. What a batch of input caused is
sent straight from the node's pump; only when the kernel takes no more does the reactor say when it does again. A peer
that sends much and reads nothing is not read from until it does, and publishers are not while the disk is behind.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import trio

from rabbitish.server.poller import READ, WRITE
from rabbitish.session.connection import Session

if TYPE_CHECKING:
    from rabbitish.server.node import Node


# Of a peer who had less than this to say the last time little is read: to make room for much costs as much as to read.
_TERSE_BYTES = 1024
_LITTLE_READ_BYTES = 4096
# As much is read at once of a large body.
_LARGE_READ_BYTES = 1024 * 1024
# From this size on few parts are sent without being joined first.
_LARGE_BYTES = 256 * 1024
_FEW_PARTS = 64
# And no more of one that is ahead, or its consumers would wait until all of that is handled.
_AHEAD_READ_BYTES = 64 * 1024


_NOTHING = memoryview(b"")


def _behind(parts: list[bytes], sent: int) -> bytes:
    """What comes after the first `sent` bytes of all parts."""
    for index, part in enumerate(parts):
        if sent < len(part):
            return b"".join((memoryview(part)[sent:], *parts[index + 1 :]))
        sent -= len(part)
    return b""


class Socket(Protocol):
    """What a link needs of a non-blocking socket."""

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes | memoryview, /) -> int: ...
    def sendmsg(self, parts: list[bytes], /) -> int: ...
    def close(self) -> None: ...


class Link:
    """The server's side of a session."""

    __slots__ = (
        "_done",
        "_hard_limit",
        "_is_ahead",
        "_little_bytes",
        "_node",
        "_over",
        "_read_bytes",
        "_rest",
        "_sent_all",
        "_sock",
        "_terse",
        "_watching",
        "carried",
        "closed",
        "session",
    )

    def __init__(self, node: Node, sock: Socket, session: Session) -> None:
        self._node = node
        self._sock = sock
        self.session = session
        self.closed = False
        self.carried = False  # another node brings it, and finds the next leader when this one hangs up
        self._over = trio.Event()  # there is nothing more to read for
        self._done = False  # the same at hand
        self._sent_all = trio.Event()  # set when _rest gets empty
        self._rest = _NOTHING  # taken from the outbox and not yet sent
        self._watching = 0
        self._is_ahead = False  # when that was last asked
        self._terse = True  # it had little to say the last time
        self._read_bytes = session.settings.read_bytes
        self._little_bytes = min(_LITTLE_READ_BYTES, self._read_bytes)
        # Deliveries stop at the high mark. Beyond several of those the peer piles up answers to what it keeps sending.
        self._hard_limit = 4 * session.settings.outbox_bytes_high

    def fileno(self) -> int:
        """See Ready."""
        return self._sock.fileno()

    async def run(self) -> None:
        """Have the session fed until either side has had enough, then close the socket."""
        node, session = self._node, self.session
        try:
            self.look_again()
            await self._over.wait()
        finally:
            if not session.ended:
                now = node.now()
                session.receive_eof(now)
                node.pump(now)
            try:
                with trio.move_on_after(session.settings.close_timeout_ms / 1000):
                    while self._rest:
                        self._sent_all = trio.Event()
                        await self._sent_all.wait()
            finally:
                self.close()

    # ---- in

    def on_ready(self, events: int) -> None:
        """See Ready."""
        if events & WRITE:
            self._write()
        if events & READ and not self._done:
            try:
                self._read()
            except Exception as error:  # a bug of ours costs this connection, not the broker
                self.session.log.exception("internal error", error)
                self._end()

    @property
    def publishes(self) -> bool:
        """See Ready."""
        return self.session.publishes

    @property
    def ahead(self) -> bool:
        """See Ready."""
        session = self.session
        self._is_ahead = session.publishes and session.ahead
        return self._is_ahead

    def _read(self) -> None:
        session = self.session
        try:
            if self._terse:
                size = self._little_bytes
            else:  # more at once of a large body; the rest of it is what will come
                size = self._read_bytes if session.arriving < _LARGE_BYTES else _LARGE_READ_BYTES
                if self._is_ahead and size > _AHEAD_READ_BYTES:
                    size = _AHEAD_READ_BYTES
            data = self._sock.recv(size)
            self._terse = len(data) < _TERSE_BYTES
        except BlockingIOError:
            return
        except OSError:  # a reset is one way to hang up
            data = b""
        if data:
            session.receive_data(data, self._node.now())
        if not data or session.ended:
            self._end()
        elif session.listed:
            pass  # it will be flushed, and looked at then
        elif session.publishes or session.busy or not session.reading:
            self.look_again()

    def _end(self) -> None:
        self._done = True
        self._over.set()
        self.look_again()

    def look_again(self) -> None:
        """What the socket is watched for may have changed."""
        if self.closed:
            return
        session = self.session
        events = WRITE if self._rest else 0
        if session.reading and not self._done and not session.busy and session.outbox.size <= self._hard_limit:
            paused = session.publishes and self._node.behind
            if not paused:
                events |= READ
            if paused is not session.paused:
                session.pause() if paused else session.resume(self._node.now())
        if events != self._watching:
            self._node.reactor.watch(self, self._watching, events)
            self._watching = events

    # ---- out

    def flush(self, now: int) -> None:
        """Send what the session has to say, and notice what else changed about it."""
        session = self.session
        outbox = session.outbox
        if outbox.held_until > session.hub.durable:  # what it has to say must wait for the journal
            keeper = self._node.keeper
            assert keeper is not None
            keeper.hold(self)
        elif outbox.parts and not self._rest and not self.closed:
            try:
                self._send(now)
            except OSError:  # the peer is gone; the reader will see it too
                outbox.size = 0
                self._end()
                return
        if session.ended:
            self._done = True
            self._over.set()
        self.look_again()

    def _send(self, now: int) -> None:
        """Send what is in the outbox, as far as the kernel takes it."""
        outbox = self.session.outbox
        sent = 0
        if outbox.size < _LARGE_BYTES or len(outbox.parts) > _FEW_PARTS:
            data = outbox.take()
            try:  # contextlib.suppress takes longer, and this is every message that goes alone
                sent = self._sock.send(data)
            except BlockingIOError:
                pass
            if sent == len(data):
                outbox.sent(sent, now)
                return
            rest = memoryview(data)[sent:]
        else:  # large bodies need not be copied together
            parts = outbox.take_parts()
            with contextlib.suppress(BlockingIOError):
                sent = self._sock.sendmsg(parts)
            rest = memoryview(_behind(parts, sent))
        outbox.sent(sent, now)
        self._rest = rest

    def _write(self) -> None:
        """Send the rest, and what was said meanwhile, as the kernel takes it."""
        now = self._node.now()
        try:
            sent = self._sock.send(self._rest)
        except BlockingIOError:
            return
        except OSError:
            self._rest = _NOTHING
            self._sent_all.set()
            self._end()
            return
        self._rest = self._rest[sent:]
        self.session.outbox.sent(sent, now)
        if not self._rest:
            self.flush(now)
            if not self._rest:
                self._sent_all.set()
        self.look_again()

    def cut(self) -> None:
        """Hang up at once; what was still to be said is not."""
        self.session.receive_eof(self._node.now())
        self._rest = _NOTHING
        self._end()
        self.close()

    def close(self) -> None:
        """Close the socket."""
        if not self.closed:
            if self._watching:
                self._node.reactor.watch(self, self._watching, 0)
            self.closed = True
            self._sock.close()
            self._node.forget(self)
