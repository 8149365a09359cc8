"""Which sockets have something to say: one selector for all connections, looked at from one task.

Waiting for each socket in a task of its own costs a trip through trio's scheduler for each event, more than the event
itself does. So connections share a selector (epoll, kqueue), which is itself something that trio can wait for: one task
does, takes whatever is ready, and has the node settle once for all of it. While events keep coming they are taken
straight from the selector, for a slice of time, after which everybody else in the event loop gets a turn.

With `linger` it waits for the next event in the selector itself for a moment before it goes back to trio: right for a
process that is nothing but a broker, wrong where the broker shares its event loop with its clients. Other threads wake
it with `call_soon`, wherever it waits.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable

import trio

from rabbitish.server.poller import READ, Event, Ready, new_poller

# Everybody else in the event loop gets a turn after this long; after longer where that is nothing but the broker's own,
# since the turn costs as much as a few messages.
_SLICE_SECONDS = 0.002
_LONG_SLICE_SECONDS = 0.01
# How long the next event is waited for without giving the event loop up: longer than the disk takes for a sync, or a
# peer on this machine for an answer.
_LINGER_SECONDS = 0.001

# So much longer than it took to hear them others go first before those that are ahead are heard again: about as much as
# a delivery and an acknowledgement of its own cost more than a publish, so that the queue does not grow.
_OTHERS_SHARE = 20


class _Waker:
    """The reactor's end of the pair by which other threads wake it."""

    ahead = publishes = False

    def __init__(self, sock: socket.socket, woken: Callable[[], None]) -> None:
        self._sock = sock
        self._woken = woken

    def fileno(self) -> int:
        return self._sock.fileno()

    def on_ready(self, events: int) -> None:
        self._woken()


class Reactor:
    """Waits for sockets. `begin` is called before and `end` after each lot of events.

    `rest` is called after the last lot before others in the event loop have their turn.
    """

    def __init__(
        self,
        begin: Callable[[], None],
        end: Callable[[], None],
        rest: Callable[[], None],
        *,
        linger: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock  # seconds
        self._begin = begin
        self._end = end
        self._rest = rest
        self.linger(linger)
        self._poller = new_poller()
        self._over = False
        self.quiet = True
        """Whether the last slice of time ended since there were no events any more; if not, another follows."""
        self._ahead_from = 0.0  # when those that are ahead have their turn, though others are ready
        self._calls: deque[Callable[[], None]] = deque()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._poller.watch(_Waker(self._woken, self._called), 0, READ)

    def linger(self, linger: bool) -> None:
        """Whether this is nearly all that the event loop does; it may change."""
        self._linger = _LINGER_SECONDS if linger else 0.0
        self._slice_seconds = _LONG_SLICE_SECONDS if linger else _SLICE_SECONDS

    def watch(self, who: Ready, before: int, events: int) -> None:
        """Tell `who` of these events from now on instead of those `before`; 0: of none."""
        if self._over:
            return
        self._poller.watch(who, before, events)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have something called in the event loop; from any thread."""
        self._calls.append(call)
        with contextlib.suppress(OSError):  # full, so it will wake anyway; or closed, and nobody is there to be called
            self._wake.send(b"\0")

    async def run(self) -> None:
        """Take events for ever."""
        try:
            fileno = self._poller.fileno()
            while True:
                if self.quiet:
                    await trio.lowlevel.wait_readable(fileno)
                else:  # it is looked whether there is more, so that somebody notices when there is not
                    await trio.lowlevel.checkpoint()
                self._slice()
        finally:
            self.close()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._over = True
        self._poller.close()
        self._woken.close()
        self._wake.close()

    def _slice(self) -> None:
        try:
            self._take_events()
        finally:
            self._rest()

    def _take_events(self) -> None:
        poll, linger = self._poller.poll, self._linger
        now = self._clock()
        end = now + self._slice_seconds
        self.quiet = False
        while now <= end:
            events = poll(linger)
            if not events:
                self.quiet = True
                return
            others: list[Event] = []
            ahead: list[Event] = []
            for event in events:
                (ahead if event[1] == READ and event[0].ahead else others).append(event)
            self._handle_in_turn(others, ahead)
            now = self._clock()

    def _handle_in_turn(self, others: list[Event], ahead: list[Event]) -> None:
        """Let a queue's consumers have their say before those that make it longer still."""
        if others:
            self._handle(others)
        if not ahead:
            return
        began = self._clock()
        if not others or began >= self._ahead_from:
            self._handle(ahead)
            now = self._clock()
            self._ahead_from = now + (now - began) * _OTHERS_SHARE

    def publishers_wait(self) -> bool:
        """Whether anybody who publishes has said something that is not heard yet."""
        return not self._over and any(who.publishes for who, _ in self._poller.poll(0))

    def take_ready(self) -> bool:
        """Handle what is ready by now, without waiting; False: nothing was. For whoever cannot wait for its turn."""
        events = [] if self._over else self._poller.poll(0)
        if events:
            try:
                self._handle(events)
            finally:
                self._rest()
        return bool(events)

    def _handle(self, events: list[Event]) -> None:
        self._begin()
        try:
            for who, event in events:
                who.on_ready(event)
        finally:
            self._end()

    def _called(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._calls:
            self._calls.popleft()()
