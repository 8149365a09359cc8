"""A client that is brought to whoever leads, from leader to leader: sockets around a gateway.Gateway.

One task a direction. What goes to the client is sent so that it can be broken off anywhere and gone on with later,
since leaders change in the middle of it; what goes to a leader that is gone is of no use any more.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from rabbitish.cluster.relay import BROKEN, READ_BYTES, unlimit
from rabbitish.config import Settings
from rabbitish.gateway.session import Gateway
from rabbitish.server.tls_stream import TlsStream

_NOTHING = memoryview(b"")
# What a client may still say after the last word that it is told, before it is cut off.
_LINGER_SECONDS = 5
_HEARTBEATS_MISSED = 2
# After so much of the interval without the leader's own heartbeat, which comes after half of it, we send one.
_OWN_HEARTBEAT = 0.75
# How often it is asked whether there are to be heartbeats, before that is known.
_UNTIL_KNOWN_SECONDS = 8


class _Wait:
    """Waits for somebody's bytes, which can be broken off without losing any: a scope for many of them, since one for
    each would cost more than what is done with the bytes."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.since = math.inf  # when the wait that lasts began
        self._waits = False

    def __enter__(self) -> None:
        self.scope = trio.CancelScope()
        self.scope.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        self._waits = False
        return self.scope.__exit__(*error)

    def begins(self) -> None:
        """It is waited from now on."""
        self._waits = True
        self.since = min(self.since, trio.current_time())

    def ends(self) -> None:
        """Something has come."""
        self._waits = False
        self.since = math.inf

    def broken_off(self) -> bool:
        """Whether it was; then nothing but to leave the block is to be waited for."""
        return self.scope.cancel_called

    def wake(self) -> None:
        """Break the wait off, if there is one."""
        if self._waits:
            self.scope.cancel()


class Carrier:
    """One client."""

    def __init__(
        self,
        client: trio.SocketStream | TlsStream,
        settings: Settings,
        certificate_name: str | None = None,
        mark: bytes = b"",
    ) -> None:
        self.gateway = Gateway(
            most=settings.gateway_kept_bytes,
            unfinished=settings.partial_content_bytes + settings.max_message_bytes,
            frame_min=settings.frame_min_bytes,
            certificate_name=certificate_name,
            mark=mark,
        )
        self.gone = False
        """The client has hung up, or cannot be reached."""
        self._client = client
        # Unlike a stream's send_all it can be broken off, and it is known how much was sent.
        self._send_some = client.send_some if isinstance(client, TlsStream) else client.socket.send
        self._rest = _NOTHING  # taken for the client and not yet sent
        self._hearing = _Wait()  # for the client
        self._listening = _Wait()  # for the leader
        self._heard_again = trio.Event()
        self._told_at = trio.current_time()  # when the client was last sent something
        if isinstance(client, trio.SocketStream):
            unlimit(client)

    @property
    def goes_on(self) -> bool:
        """Whether another leader may take the session over; not that of a client that is silent, and counts as dead."""
        return self.gateway.resumable and self._is_there()

    @property
    def stranded(self) -> bool:
        """Whether the session ends with its leader, which the client has yet to be told; one that speaks no AMQP would
        not understand it."""
        gateway = self.gateway
        return gateway.open and bool(gateway.why_not) and not gateway.over and self._is_there()

    def _is_there(self) -> bool:
        return not self.gone and not self._is_silent(self._hearing)

    def _is_silent(self, wait: _Wait) -> bool:
        seconds = self.gateway.heartbeat_seconds
        return bool(seconds) and trio.current_time() - wait.since > _HEARTBEATS_MISSED * seconds

    # ---- with a leader

    async def exchange(self, leader: trio.abc.HalfCloseableStream) -> None:
        """Pass on what both say, until the leader is gone and the session goes on or is stranded, or it is over."""
        self._hearing, self._listening = _Wait(), _Wait()
        async with leader, trio.open_nursery() as nursery:
            nursery.start_soon(self._hear, leader, nursery.cancel_scope)
            nursery.start_soon(self._watch, nursery.cancel_scope)
            await self._listen(leader)
            nursery.cancel_scope.cancel()
        if not (self.gone or self.goes_on or self.stranded):
            await self.last_word()

    async def last_word(self) -> None:
        """The client has been told everything: let it hang up."""
        with trio.move_on_after(_LINGER_SECONDS):
            try:
                await self.send_client()
                await self._client.send_eof()
                while await self._client.receive_some(READ_BYTES):
                    pass
            except BROKEN:
                pass

    async def _hear(self, leader: trio.abc.HalfCloseableStream, over: trio.CancelScope) -> None:
        """From the client to the leader."""
        gateway, client, wait = self.gateway, self._client, self._hearing
        try:
            while True:
                while data := gateway.take_for_leader():
                    await leader.send_all(data)
                if not gateway.hears_client:
                    await self._wait_unheard()
                    continue
                with wait:
                    while not wait.broken_off():
                        wait.begins()
                        try:
                            said = await client.receive_some(READ_BYTES)
                        except BROKEN:
                            self.gone = True
                            over.cancel()
                            return
                        wait.ends()
                        if not said:
                            self.gone = True
                            await leader.send_eof()
                            return
                        gateway.from_client(bytes(said))
                        if gateway.waits_for_client:
                            self._listening.wake()
                        if wait.broken_off() or not gateway.hears_client:
                            break
                        while data := gateway.take_for_leader():
                            await leader.send_all(data)
        except BROKEN:
            pass  # whoever listens to the leader knows best what has become of it

    async def _wait_unheard(self) -> None:
        """Until the client may be heard again; the leader is shown signs of its life meanwhile."""
        self._heard_again = trio.Event()
        with trio.move_on_after((self.gateway.heartbeat_seconds or math.inf) / 2):
            await self._heard_again.wait()
            return
        self.gateway.heartbeat_for_leader()

    async def _listen(self, leader: trio.abc.HalfCloseableStream) -> None:
        """From the leader to the client, until either is gone."""
        gateway, wait = self.gateway, self._listening
        while True:
            with wait:
                while not wait.broken_off():
                    try:
                        await self.send_client()
                    except BROKEN:
                        self.gone = True
                        return
                    wait.begins()
                    try:
                        said = await leader.receive_some(READ_BYTES)
                    except BROKEN:
                        return
                    wait.ends()
                    if not said:
                        return
                    gateway.from_leader(bytes(said))
                    if not self._heard_again.is_set():
                        self._heard_again.set()

    async def _watch(self, over: trio.CancelScope) -> None:
        """A leader that says nothing may be frozen: show the client signs of life, and in the end look for another."""
        gateway = self.gateway
        while True:
            await trio.sleep((gateway.heartbeat_seconds or _UNTIL_KNOWN_SECONDS) / 4)
            seconds = gateway.heartbeat_seconds
            if self._is_silent(self._listening):
                over.cancel()
            elif seconds and trio.current_time() - self._told_at > _OWN_HEARTBEAT * seconds:
                gateway.heartbeat_for_client()
                self._listening.wake()

    # ---- the client

    async def send_client(self) -> None:
        """Send the client what there is for it; may be cancelled and called again. BROKEN: it is gone."""
        while True:
            if not self._rest:
                self._rest = memoryview(self.gateway.take_for_client())
                if not self._rest:
                    return
            sent = await self._send_some(self._rest)
            self._rest = self._rest[sent:]
            self._told_at = trio.current_time()

    # ---- without a leader

    async def keep_alive(self) -> None:
        """Show the client signs of life, for ever; to be cancelled when there is a leader."""
        seconds = self.gateway.heartbeat_seconds
        try:
            while True:
                await self.send_client()
                # Since the last sign and not from now on: this may be called again and again for a short while.
                await trio.sleep_until(self._told_at + seconds / 2 if seconds else math.inf)
                self.gateway.heartbeat_for_client()
        except BROKEN:
            self.gone = True

    async def give_up(self, why: str) -> None:
        """Close the connection in so many words, and wait a while for the client to agree."""
        self.gateway.give_up(why)
        await self.last_word()
