"""A client that is brought to whoever leads, from leader to leader: sockets around a gateway.Gateway.

One task a direction. What goes to the client is sent so that it can be broken off anywhere and gone on with later,
since leaders change in the middle of it; what goes to a leader that is gone is of no use any more.
"""

from __future__ import annotations

import math

import trio

from rabbitish.cluster.relay import BROKEN, READ_BYTES, unlimit
from rabbitish.config import Settings
from rabbitish.gateway.session import Gateway

_NOTHING = memoryview(b"")
# What a client may still say after the last word that it is told, before it is cut off.
_LINGER_SECONDS = 5
_HEARTBEATS_MISSED = 2
# After so much of the interval without the leader's own heartbeat, which comes after half of it, we send one.
_OWN_HEARTBEAT = 0.75


class Carrier:
    """One client."""

    def __init__(self, client: trio.SocketStream, settings: Settings) -> None:
        self.gateway = Gateway(most=settings.gateway_kept_bytes, frame_min=settings.frame_min_bytes)
        self.gone = False
        """The client has hung up, or cannot be reached."""
        self._client = client
        self._rest = _NOTHING  # taken for the client and not yet sent
        self._news = trio.Event()  # there is something for a direction that waits
        self._hearing: trio.CancelScope | None = None  # around waiting for the client
        self._listening: trio.CancelScope | None = None  # around waiting for the leader
        self._silent_since: float | None = None  # that the client is waited for, and says nothing
        unlimit(client)

    @property
    def silent(self) -> bool:
        """Whether the client has said nothing for so long that it counts as dead."""
        seconds, since = self.gateway.heartbeat_seconds, self._silent_since
        return bool(seconds) and since is not None and trio.current_time() - since > _HEARTBEATS_MISSED * seconds

    @property
    def goes_on(self) -> bool:
        """Whether another leader may take the session over."""
        return self.gateway.resumable and not self.gone and not self.silent

    # ---- with a leader

    async def exchange(self, leader: trio.SocketStream) -> None:
        """Pass on what both say, until the leader is gone and the session goes on, or until it is over."""
        self._silent_since = None
        async with leader, trio.open_nursery() as nursery:
            nursery.start_soon(self._hear, leader, nursery.cancel_scope)
            await self._listen(leader)
            nursery.cancel_scope.cancel()
        if not (self.gone or self.goes_on):
            await self._last_word()

    async def _last_word(self) -> None:
        """The client has been told everything: let it hang up."""
        with trio.move_on_after(_LINGER_SECONDS):
            try:
                await self.send_client()
                await self._client.send_eof()
                while await self._client.receive_some(READ_BYTES):
                    pass
            except BROKEN:
                pass

    async def _hear(self, leader: trio.SocketStream, scope: trio.CancelScope) -> None:
        """From the client to the leader."""
        gateway, client = self.gateway, self._client
        while True:
            try:
                while data := gateway.take_for_leader():
                    await leader.send_all(data)
            except BROKEN:
                return  # whoever listens to the leader knows best what has become of it
            if not gateway.hears_client:
                await self._wait_unheard()
                continue
            if self._silent_since is None:
                self._silent_since = trio.current_time()
            with trio.CancelScope() as self._hearing:
                try:
                    said = await client.receive_some(READ_BYTES)
                except BROKEN:
                    self.gone = True
                    scope.cancel()
                    return
            hearing, self._hearing = self._hearing, None
            if hearing.cancelled_caught:
                continue
            self._silent_since = None
            if not said:
                break
            gateway.from_client(bytes(said))
            if gateway.waits_for_client and self._listening is not None:
                self._listening.cancel()
        self.gone = True
        try:
            await leader.send_eof()
        except BROKEN:
            pass

    async def _wait_unheard(self) -> None:
        """Until the client may be heard again; the leader is shown signs of its life meanwhile."""
        news = self._news
        seconds = self.gateway.heartbeat_seconds
        with trio.move_on_after(seconds / 2 if seconds else math.inf) as waited:
            await news.wait()
        if waited.cancelled_caught:
            self.gateway.heartbeat_for_leader()

    async def _listen(self, leader: trio.SocketStream) -> None:
        """From the leader to the client, until either is gone.

        A leader that says nothing may be frozen, and another about to lead: the client is shown signs of life.
        """
        gateway = self.gateway
        heard = trio.current_time()
        while True:
            try:
                await self.send_client()
            except BROKEN:
                self.gone = True
                return
            seconds = gateway.heartbeat_seconds or math.inf
            with trio.CancelScope(deadline=trio.current_time() + _OWN_HEARTBEAT * seconds) as self._listening:
                try:
                    said = await leader.receive_some(READ_BYTES)
                except BROKEN:
                    return
            listening, self._listening = self._listening, None
            now = trio.current_time()
            if listening.cancelled_caught:
                if now - heard > _HEARTBEATS_MISSED * seconds:
                    return
                if now >= listening.deadline:
                    gateway.heartbeat_for_client()
                continue
            heard = now
            if not said:
                return
            gateway.from_leader(bytes(said))
            if gateway.waits_for_leader and self._hearing is not None:
                self._hearing.cancel()
            self._news.set()
            self._news = trio.Event()

    # ---- the client

    async def send_client(self) -> None:
        """Send the client what there is for it; may be cancelled and called again. BROKEN: it is gone."""
        sock = self._client.socket
        while True:
            if not self._rest:
                self._rest = memoryview(self.gateway.take_for_client())
                if not self._rest:
                    return
            sent = await sock.send(self._rest)
            self._rest = self._rest[sent:]

    # ---- without a leader

    async def keep_alive(self) -> None:
        """Show the client signs of life, for ever; to be cancelled when there is a leader."""
        seconds = self.gateway.heartbeat_seconds
        try:
            while True:
                await self.send_client()
                await trio.sleep(seconds / 2 if seconds else math.inf)
                self.gateway.heartbeat_for_client()
        except BROKEN:
            self.gone = True

    async def give_up(self, why: str) -> None:
        """Close the connection in so many words, and wait a while for the client to agree."""
        self.gateway.give_up(why)
        await self._last_word()
