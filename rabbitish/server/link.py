"""One socket and its session: reads as long as it may, sends at once what can be sent.

The socket is a plain non-blocking one. What a batch of input caused is sent straight from the node's pump, without
waking any task; only when the kernel takes no more does a writer task wait for it. After a full read the reader lets
others run, so that a flood starves nobody. A peer that sends much and reads nothing is not read from until it does.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import trio

from rabbitish.session.connection import Session

if TYPE_CHECKING:
    from rabbitish.server.node import Node


class Link:
    """The server's side of a session."""

    __slots__ = (
        "_changed",
        "_hard_limit",
        "_node",
        "_reading",
        "_rest",
        "_sock",
        "_waiting",
        "_writing",
        "closed",
        "session",
    )

    def __init__(self, node: Node, sock: socket.socket, session: Session) -> None:
        self._node = node
        self._sock = sock
        self.session = session
        self.closed = False
        self._reading = trio.CancelScope()  # cancelled when there is nothing more to read for
        self._rest = memoryview(b"")  # taken from the outbox and not yet sent
        self._writing = False
        self._waiting = False  # the reader waits for _changed
        self._changed = trio.Event()
        # Deliveries stop at the high mark. Beyond several of those the peer piles up answers to what it keeps sending.
        self._hard_limit = 4 * session.settings.outbox_bytes_high

    async def run(self) -> None:
        """Feed the session until either side has had enough, then close the socket."""
        node, session = self._node, self.session
        try:
            with self._reading:
                await self._read()
        except OSError:  # a reset is one way to hang up
            pass
        except Exception as error:  # a bug of ours costs this connection, not the broker
            session.log.exception("internal error", error)
        finally:
            if not session.ended:
                now = node.now()
                session.receive_eof(now)
                node.pump(now)
            with trio.move_on_after(session.settings.close_timeout_ms / 1000):
                while self._writing:
                    await self._wait_for_change()
            self.close()

    async def _read(self) -> None:
        node, sock, session = self._node, self._sock, self.session
        receive, most = sock.recv, session.settings.read_bytes
        wait_readable = trio.lowlevel.wait_readable
        while not session.ended:
            if not session.reading or session.outbox.size > self._hard_limit:
                await self._wait_for_change()
                continue
            await wait_readable(sock)
            try:
                data = receive(most)
            except BlockingIOError:
                continue
            if not data:
                return
            now = node.now()
            session.receive_data(data, now)
            node.pump(now)
            if len(data) == most:
                await trio.lowlevel.checkpoint()

    async def _wait_for_change(self) -> None:
        self._changed = trio.Event()
        self._waiting = True
        await self._changed.wait()
        self._waiting = False

    def _changes(self) -> None:
        if self._waiting:
            self._changed.set()

    @property
    def _held(self) -> bool:
        """Whether what the session has to say must wait for the journal."""
        return self.session.outbox.held_until > self.session.hub.durable

    def flush(self, now: int) -> None:
        """Send what the session has to say, and notice what else changed about it."""
        outbox = self.session.outbox
        if self._held:
            self._node.hold(self)
        elif outbox.parts and not self._writing and not self.closed:
            data = outbox.take()
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:  # the peer is gone; the reader will see it too
                outbox.size = 0
                self._reading.cancel()
                return
            outbox.sent(sent, now)
            if sent < len(data):
                self._rest = memoryview(data)[sent:]
                self._writing = True
                self._node.nursery.start_soon(self._write)
        if self.session.ended:
            self._reading.cancel()
        else:
            self._changes()

    async def _write(self) -> None:
        """Send the rest, and what is said meanwhile, as the kernel takes it."""
        node, outbox = self._node, self.session.outbox
        try:
            while self._rest or (outbox.parts and not self._held):
                if not self._rest:
                    self._rest = memoryview(outbox.take())
                await trio.lowlevel.wait_writable(self._sock)
                with contextlib.suppress(BlockingIOError):
                    sent = self._sock.send(self._rest)
                    self._rest = self._rest[sent:]
                    now = node.now()
                    outbox.sent(sent, now)
                    node.pump(now)
                    self._changes()
        except (OSError, trio.ClosedResourceError):
            self._reading.cancel()
        finally:
            self._rest = memoryview(b"")
            self._writing = False
            self._changes()
        if self._held:
            node.hold(self)

    def close(self) -> None:
        """Close the socket."""
        if not self.closed:
            self.closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
            self._node.forget(self)
