"""One transport and its protocol: a task that reads, one that writes, one that keeps the heart beating.

What tasks of the program write in one scheduling turn is sent together: the first of them rings a bell, and the writer
takes everything when its turn comes. All three tasks end when the protocol does, and `run` never raises for what the
other side does. Ctrl-C is none of their business: it goes to the program's main task, and what that has to say on its
way out is still sent.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from rabbitish.client.errors import ConnectionLost
from rabbitish.client.protocol.connection import Protocol
from rabbitish.client.protocol.heartbeat import Heartbeats
from rabbitish.client.protocol.promise import Promise
from rabbitish.client.transport import Transport
from rabbitish.client.waiting import Bell, wait

_GOODBYE_SECONDS = 1.0


class Link:
    """`on_drain` is called when what was to be sent has been taken, `on_change` when the protocol's state changed."""

    def __init__(self, transport: Transport, protocol: Protocol, on_change: Callable[[], None]) -> None:
        self.protocol = protocol
        self.over = trio.Event()
        self._transport = transport
        self._bell = Bell()
        self._reading = trio.CancelScope()
        self._on_change = on_change
        self._opened = trio.Event()
        self._mute = False  # nothing can be sent any more
        self._heartbeats: Heartbeats | None = None
        protocol.on_output = self._bell.ring
        protocol.on_change = on_change
        protocol.closed.callback = self._ended

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Carry bytes until the protocol is over; a cancellation alone does not end it, so that a goodbye goes out."""
        with trio.CancelScope(shield=True):
            await self._run()

    async def _run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                nursery.start_soon(self._write, nursery.cancel_scope)
                with self._reading:
                    await self._read()
                # What is left to say is mostly close-ok.
                patience = 0 if self._mute else _GOODBYE_SECONDS
                nursery.cancel_scope.deadline = trio.current_time() + patience
        finally:
            self.protocol.end(ConnectionLost("the tasks of the connection failed"))  # unless it has ended otherwise
            await self._transport.aclose()
            self.over.set()

    async def log_in(self) -> None:
        """Wait until the connection is open, while `run` runs. ClientError: it will not be."""
        await wait(self.protocol.opened)
        self._opened.set()

    def _ended(self, _: Promise[None]) -> None:
        self._reading.cancel()
        self._bell.ring()

    async def _read(self) -> None:
        protocol, receive = self.protocol, self._transport.receive
        while protocol.error is None:
            data = await receive()
            if data:
                if self._heartbeats is not None:
                    self._heartbeats.received = trio.current_time()
                protocol.receive(data)
            else:
                protocol.receive_eof()

    @trio.lowlevel.enable_ki_protection
    async def _write(self, scope: trio.CancelScope) -> None:
        protocol, send = self.protocol, self._transport.send
        while True:
            data = protocol.take()
            if data:
                self._on_change()
                try:
                    await send(data)
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                    self._mute = True  # reading will tell why, if it has not already
                    if protocol.error is not None:
                        scope.cancel()
                    return
                if self._heartbeats is not None:
                    self._heartbeats.sent = trio.current_time()
            elif protocol.error is not None:
                scope.cancel()
                return
            else:
                await self._bell.wait()

    @trio.lowlevel.enable_ki_protection
    async def _beat(self) -> None:
        protocol = self.protocol
        await self._opened.wait()
        if not protocol.heartbeat:
            return
        beats = self._heartbeats = Heartbeats(protocol.heartbeat, trio.current_time())
        while protocol.error is None:
            await trio.sleep_until(beats.next())
            if beats.due(trio.current_time()):
                protocol.beat()
                beats.sent = trio.current_time()
            if beats.silent(trio.current_time()):
                # The program may have been busy for long: whatever came meanwhile counts.
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
                if beats.silent(trio.current_time()):
                    protocol.end(ConnectionLost(f"no heartbeat for {2 * protocol.heartbeat} seconds"))
