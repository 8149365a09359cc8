"""Sockets of peers, all in one selector that one trio task looks at: what comes goes to a peer, what it says goes out.

As in the broker, a task for each socket would cost more in trio's scheduler than the messages do. Events are taken from
the selector for a slice of time, then whoever else is in the event loop gets a turn. With `linger` the loop waits in
the selector itself for a moment first, which is right for a process that does nothing else.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
from collections.abc import Callable
from typing import Protocol, cast

import trio

from rabbitish.perf.peer import Peer, PeerError

# More would be blocks that the allocator asks the kernel for each time.
_READ_BYTES = 120 * 1024
_BATCHES = 4  # before others get their turn
_SLICE_NS = 2_000_000
_LINGER_NS = 1_000_000
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class _Pollable(Protocol):
    """A selector that can itself be waited for."""

    def fileno(self) -> int: ...


class Link:
    """A peer and its socket, which is connected and does not block. `name` says for the user who
    it is; empty for nobody in particular.
    """

    __slots__ = ("_armed", "_loop", "_rest", "_sock", "_watching", "name", "over", "peer")

    def __init__(self, loop: Loop, sock: socket.socket, peer: Peer, name: str) -> None:
        self._loop = loop
        self._sock = sock
        self.peer = peer
        self.name = name
        self.over = False
        self._rest = memoryview(b"")  # taken from the peer and not yet sent
        self._watching = 0
        self._armed = False  # the loop will call at some time
        self.flush()

    @property
    def sent_all(self) -> bool:
        """Whether the kernel has all that the peer has said."""
        return not self._rest

    def on_ready(self, events: int) -> None:
        """The socket can be read or written, or has failed."""
        try:
            if events & _READ:
                self._read()
            self.flush()
        except PeerError as error:
            self._loop.fail(self, error)

    def on_time(self) -> None:
        """What was due later is due now."""
        self._armed = False
        self.flush()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # a reset is one way to hang up
            data = b""
        if data:
            self.peer.receive(data, self._loop.clock())
        else:
            self.peer.receive_eof()
        if self.peer.ended:
            self.drop()

    def flush(self) -> None:
        """Send what the peer has to say, as far as the kernel takes it."""
        for _ in range(_BATCHES):
            if self.over:
                return
            if not self._rest:
                data = self.peer.take(self._loop.clock())
                if not data:
                    break
                self._rest = memoryview(data)
            try:
                self._rest = self._rest[self._sock.send(self._rest) :]
            except BlockingIOError:
                break
            except OSError:  # the peer is gone; reading will tell why
                self._rest = memoryview(b"")
                break
        self._look_again()

    def _look_again(self) -> None:
        events = _READ
        if self._rest:
            events |= _WRITE
        else:
            now = self._loop.clock()
            due = self.peer.due(now)
            if due is not None and due <= now:
                events |= _WRITE
            elif due is not None and not self._armed:
                self._armed = True
                self._loop.call_at(due, self)
        if events != self._watching:
            self._loop.watch(self, self._sock, self._watching, events)
            self._watching = events

    def drop(self) -> None:
        """Close the socket, whatever the peer thinks of it."""
        if not self.over:
            self.over = True
            self._loop.watch(self, self._sock, self._watching, 0)
            self._sock.close()


class Loop:
    """Waits for sockets and for times. `clock` gives nanoseconds."""

    def __init__(self, clock: Callable[[], int], *, linger: bool) -> None:
        self.clock = clock
        self.failure: str | None = None
        """Who could not go on, and why: the first of them."""
        self._linger_ns = _LINGER_NS if linger else 0
        self._selector = selectors.DefaultSelector()
        self._calls: list[tuple[int, int, Link]] = []
        self._order = itertools.count()
        self._turn = trio.Event()  # set after each slice

    def watch(self, link: Link, sock: socket.socket, before: int, events: int) -> None:
        """Tell the link of these events of its socket from now on instead of those `before`; 0: of none."""
        if not events:
            if before:
                self._selector.unregister(sock)
        elif before:
            self._selector.modify(sock, events, link)
        else:
            self._selector.register(sock, events, link)

    def call_at(self, when: int, link: Link) -> None:
        """Call the link's `on_time` at this time of the clock."""
        heapq.heappush(self._calls, (when, next(self._order), link))

    def fail(self, link: Link, error: PeerError) -> None:
        """A link cannot go on."""
        link.drop()
        if self.failure is None and not link.peer.closing:
            self.failure = f"{link.name}: {error}" if link.name else str(error)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until this is true, which is looked at after all that happens. PeerError: a link has failed."""
        while True:
            if self.failure is not None:
                raise PeerError(self.failure)
            if true():
                return
            self._turn = trio.Event()
            await self._turn.wait()

    async def run(self) -> None:
        """Serve all links for ever."""
        try:
            fileno = cast("_Pollable", self._selector).fileno()
            while True:
                wait = self._until_next_call()
                with trio.move_on_after(wait):
                    await trio.lowlevel.wait_readable(fileno)
                self._slice()
                self._turn.set()
        finally:
            for key in list(self._selector.get_map().values()):
                if isinstance(key.data, Link):
                    key.data.drop()
            self._selector.close()

    def _until_next_call(self) -> float:
        """Seconds until the next of the calls is due."""
        return max(0, self._calls[0][0] - self.clock()) / 1e9 if self._calls else float("inf")

    def _slice(self) -> None:
        select, clock = self._selector.select, self.clock
        end = clock() + _SLICE_NS
        while True:
            events = select(0)
            if not events and self._linger_ns:
                events = select(min(self._linger_ns / 1e9, self._until_next_call()))
            for key, event in events:
                key.data.on_ready(event)
            now = clock()
            fired = False
            while self._calls and self._calls[0][0] <= now:
                fired = True
                heapq.heappop(self._calls)[2].on_time()
            if (not events and not fired) or now > end:
                return
