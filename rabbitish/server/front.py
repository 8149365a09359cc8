"""The listeners of a node in a cluster: who comes in is served here where this node leads, else brought to who does.

A connection that is brought goes through a Carrier, which opens its session anew where somebody else leads, here too:
the client sees a pause. With TLS the handshake is done here, before anybody is asked, or what the client says is passed
on as it is (see `gateway_tls`); such a connection ends when somebody else leads, and the client connects anew, to any
node. While nobody leads a new client waits for as long as most of them wait for a broker's first word.
"""

from __future__ import annotations

import math
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from rabbitish.cluster.protocol.frames import MARK_BYTES, Relay, Verdict
from rabbitish.cluster.relay import RelayFailed, answer_relay, take_socket
from rabbitish.cluster.wire import LinkStream
from rabbitish.config import Settings
from rabbitish.errors import ConnectionFailure
from rabbitish.gateway.passport import decode_passport
from rabbitish.server.carrying import Carrier
from rabbitish.server.certificates import Certificates
from rabbitish.server.link_tls import SecureLink
from rabbitish.server.listener import Opened, SocketPeer, accept, close_all, has_room
from rabbitish.server.log import Log, get_log
from rabbitish.server.passing import carry
from rabbitish.server.secured import Secured, decode_secured
from rabbitish.server.tls import AnySocket, TlsSocket
from rabbitish.server.tls_door import Handshakes
from rabbitish.server.tls_stream import TlsStream
from rabbitish.session.resuming import admit

if TYPE_CHECKING:
    from rabbitish.server.node import Node

_PATIENCE_SECONDS = 10
_AGAIN_SECONDS = 0.2
# Who is about to lead lets the others wait so long before they are told to ask again; below what they have for asking.
_HOLD_SECONDS = 1
# Who was let in for less than this was not really.
_STEADY_SECONDS = 1

Dial = Callable[[tuple[str, int], Relay], Awaitable[LinkStream]]
"""How a client is brought to the node at an address: open_relay, but for the secret."""


class Leader(NamedTuple):
    """Who leads: its node, where other nodes reach it, and in which epoch."""

    node: str
    address: tuple[str, int]
    epoch: int


class Front:
    """See the module. Whoever runs it says who leads: `serve`, `follow`."""

    def __init__(
        self, settings: Settings, dial: Dial, log: Log | None = None, certificates: Certificates | None = None
    ) -> None:
        self.node: Node | None = None
        """What serves here, while this node leads."""
        self.leader: Leader | None = None
        """Who leads, if that is another node and it is known."""
        self.urls: list[str] = []
        """Where it listens."""
        self.relays = 0
        """Clients that are being brought, or wait for it. As long as there are any the event loop has other things to
        do than to wait for a broker's events."""
        self._settings = settings
        self._dial = dial
        self._log = log or get_log()
        self._handshakes: Handshakes | None = None  # which are done here where this node does not lead
        carries = settings.gateway_tls == "carry" or (settings.gateway_tls == "auto" and settings.secures_links)
        if certificates is not None and carries:
            self._handshakes = Handshakes(certificates, settings.handshake_timeout_ms)
        self._changed = trio.Event()
        self._scopes: dict[trio.CancelScope, Node | Leader | None] = {}

    # ---- who leads

    def serve(self, node: Node | None) -> None:
        """This node leads, and that is what serves; None: it does not any more."""
        if node is not self.node:
            self.node = node
            if node is not None:
                node.urls = self.urls
                node.reactor.linger(not self.relays)
            self._change()

    def follow(self, leader: Leader | None) -> None:
        """Another node leads; None: that is not known."""
        if leader != self.leader:
            self.leader = leader
            self._change()

    def _change(self) -> None:
        where = self.node or self.leader
        for scope, brought_to in self._scopes.items():
            if brought_to is None or (where is not None and brought_to != where):
                scope.cancel()
        self._changed.set()
        self._changed = trio.Event()

    @contextmanager
    def _while_it_leads(self, where: Node | Leader | None = None) -> Iterator[None]:
        """What is done in here ends when somebody else leads; without `where` also when it is not known who does."""
        leads = self.node or self.leader
        with trio.CancelScope() as scope:
            if where is not None and leads is not None and leads != where:  # it has changed since that was found
                scope.cancel()
            self._scopes[scope] = where
            try:
                yield
            finally:
                del self._scopes[scope]

    # ---- who comes in here

    async def run(self, listeners: list[Opened]) -> None:
        """Take in whoever comes, for ever; the listeners are closed in the end."""
        self.urls = [str(opened.address) for opened in listeners]
        try:
            async with trio.open_nursery() as nursery:
                for address, sockets in listeners:
                    for sock in sockets:
                        nursery.start_soon(accept, sock, partial(self._welcome, nursery, address.scheme))
        finally:
            close_all([sock for opened in listeners for sock in opened.sockets])

    def _welcome(self, nursery: trio.Nursery, scheme: str, sock: socket.socket) -> None:
        if self.node is not None:
            _let_in(self.node, scheme, sock)
        elif has_room(sock, self.relays, self._settings, self._log):
            self._count(1)
            nursery.start_soon(self._receive, scheme, sock)
        else:
            sock.close()

    def _count(self, more: int) -> None:
        self.relays += more
        if self.node is not None:
            self.node.reactor.linger(not self.relays)

    async def _receive(self, scheme: str, sock: socket.socket) -> None:
        """Bring a client to whoever leads, if that is known soon."""
        kept: AnySocket | None = sock
        try:
            relay = Relay(sock.getpeername()[:2], sock.getsockname()[:2], scheme)
            if scheme == "amqps" and self._handshakes is not None:
                began = trio.current_time()
                log = self._log.bind(connection=_peer(relay).name)
                kept = tls = await self._handshakes.shake(sock, log)
                if tls is None:
                    return
                relay = relay._replace(secured=Secured.of(tls, self._settings, log).encode(), mark=_new_mark())
                node = await self._bring(TlsStream(tls), relay)
                if node is not None:
                    kept = None
                    _begin(node, tls, relay, trio.current_time() - began)
            else:
                if scheme == "amqp":
                    relay = relay._replace(mark=_new_mark())
                node = await self._bring(sock, relay)
                if node is not None:
                    kept = None
                    _let_in(node, scheme, sock)
        except OSError:  # the client is gone
            pass
        except Exception as error:  # noqa: BLE001 (a bug of ours costs this connection, not the node)
            self._log.exception("internal error", error)
        finally:
            self._count(-1)
            if kept is not None:
                kept.close()

    async def _bring(self, came: socket.socket | TlsStream, relay: Relay) -> Node | None:
        """Until the connection is over; the node that serves here, if there is one before anybody took it."""
        try:
            found, where = await self._reach(relay, trio.current_time() + _PATIENCE_SECONDS)
        except RelayFailed as failed:
            self._log.warning("no leader took a connection", client=_joined(relay.client), reason=str(failed))
            return None
        if found is None:
            assert not isinstance(where, Leader)
            return where
        if isinstance(came, TlsStream):
            async with came:
                await self._carry_on(came, relay, found, where)
            return None
        client = trio.SocketStream(trio.socket.from_stdlib_socket(came))
        if relay.scheme == "amqp":
            async with client:
                await self._carry_on(client, relay, found, where)
        else:
            with self._while_it_leads():
                await carry(client, found)
        return None

    async def _reach(self, relay: Relay, deadline: float) -> tuple[LinkStream | None, Node | Leader]:
        """The way to who leads, and who that is; no way to the node that serves here. RelayFailed: nobody, in time."""
        reason = "nobody leads"
        with trio.CancelScope(deadline=deadline):
            while self.node is None:
                changed, leader = self._changed, self.leader
                if leader is not None:
                    with self._while_it_leads(leader):
                        try:
                            return await self._dial(leader.address, relay), leader
                        except RelayFailed as failed:
                            reason = f"{leader.node}: {failed}"
                            if failed.final:
                                break
                with trio.move_on_after(math.inf if leader is None else _AGAIN_SECONDS):
                    await changed.wait()
            else:
                return None, self.node
        raise RelayFailed(reason)

    # ---- from leader to leader

    async def _carry_on(
        self, client: trio.SocketStream | TlsStream, relay: Relay, stream: LinkStream, where: Node | Leader
    ) -> None:
        """Until the connection is over, whoever leads."""
        secured = decode_secured(relay.secured)
        carrier = Carrier(client, self._settings, secured.login if secured is not None else None, relay.mark)
        since, deadline = -math.inf, 0.0
        while True:
            with self._while_it_leads(where):
                await carrier.exchange(stream)
            stranded = carrier.stranded
            if not (stranded or carrier.goes_on):
                return
            carrier.gateway.detach()
            if carrier.gateway.over:  # it was being closed
                await carrier.last_word()
                return
            if stranded:
                why_not = carrier.gateway.why_not
                await carrier.give_up(f"the leader is gone, and no other can go on with this connection: {why_not}")
                return
            now = trio.current_time()
            pause = 0.0
            if now - since > _STEADY_SECONDS:
                deadline = now + self._settings.gateway_patience_s
            else:  # it was let in and turned out again, which must have an end, and not be tried without a breath
                pause = _AGAIN_SECONDS
            try:
                reached = await self._reach_again(carrier, relay, deadline, pause)
            except RelayFailed as failed:
                self._log.warning("a session cannot go on", client=_joined(relay.client), reason=str(failed))
                await carrier.give_up(str(failed))
                return
            if reached is None:
                return
            stream, where = reached
            since = trio.current_time()
            carrier.gateway.attach()

    async def _reach_again(
        self, carrier: Carrier, relay: Relay, deadline: float, pause: float
    ) -> tuple[LinkStream, Node | Leader] | None:
        """The way of an open session to the next leader, after a pause if it was turned out by the last.

        None: the client is gone. RelayFailed: there is none.
        """
        reached: tuple[LinkStream, Node | Leader] | None = None
        failure: RelayFailed | None = None
        async with trio.open_nursery() as nursery:

            async def keep_alive() -> None:
                await carrier.keep_alive()
                nursery.cancel_scope.cancel()

            nursery.start_soon(keep_alive)
            passport = carrier.gateway.passport()
            try:
                if pause:
                    await trio.sleep(pause)
                    if trio.current_time() >= deadline:  # who serves here is reached without looking at that
                        raise RelayFailed("who leads turns it out again and again")
                reached = await self._reach_anew(relay._replace(session=passport), deadline)
            except RelayFailed as failed:
                failure = failed
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if carrier.gone and reached is not None:
            await trio.aclose_forcefully(reached[0])
            return None
        return reached

    async def _reach_anew(self, relay: Relay, deadline: float) -> tuple[LinkStream, Node | Leader]:
        stream, where = await self._reach(relay, deadline)
        if stream is not None:
            return stream, where
        assert not isinstance(where, Leader)
        peer, passport = _peer(relay), decode_passport(relay.session)
        try:
            admit(where.hub, peer, passport)
        except ConnectionFailure as refusal:
            raise RelayFailed(refusal.text, final=True) from refusal
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        where.go_on(theirs, peer, passport, carried=False)
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), where

    # ---- who is brought here

    async def relayed(self, stream: trio.abc.Stream, relay: Relay) -> None:
        """Another node brings a client: it is served, or that node is told why not."""
        if self.node is None and self.leader is None:
            with trio.move_on_after(_HOLD_SECONDS):
                await self._changed.wait()
        node = self.node
        if node is None:
            leader = f"{self.leader.node} does" if self.leader is not None else "nobody does"
            await answer_relay(stream, Verdict.NOT_LEADER, f"does not lead, {leader}")
        elif relay.scheme not in ("amqp", "amqps") or (relay.scheme == "amqps" and not relay.secured and not node.tls):
            self._log.warning("a node brings connections that cannot be served here", scheme=relay.scheme)
            await answer_relay(stream, Verdict.REFUSED, f"does not serve {relay.scheme}")
        else:
            await self._take(stream, relay, node)

    async def _take(self, stream: trio.abc.Stream, relay: Relay, node: Node) -> None:
        """Have a client be served by the node that leads here."""
        passport = None
        try:
            peer = _peer(relay)
            peer.node = relay.node
            if relay.session:  # it began at another leader
                passport = decode_passport(relay.session)
                admit(node.hub, peer, passport)
        except (ValueError, ConnectionFailure) as refusal:
            text = refusal.detail if isinstance(refusal, ConnectionFailure) else str(refusal)
            await answer_relay(stream, Verdict.REFUSED, text)
            return
        await answer_relay(stream, Verdict.TAKEN)
        if self.node is not node:
            return
        if passport is not None:
            node.go_on(_taken(stream), peer, passport, carried=True)
        else:
            _let_in(node, "amqp" if relay.secured else relay.scheme, _taken(stream), peer, relay.mark)


def _taken(stream: trio.abc.Stream) -> AnySocket:
    return stream.take() if isinstance(stream, SecureLink) else take_socket(stream)


def _new_mark() -> bytes:
    return secrets.token_bytes(MARK_BYTES)


def _let_in(node: Node, scheme: str, sock: AnySocket, peer: SocketPeer | None = None, mark: bytes = b"") -> None:
    if scheme == "amqps":
        assert node.tls is not None
        node.tls.welcome(node.nursery, sock, peer)
    else:
        node.welcome(sock, peer, carried=peer is not None, mark=mark)


def _begin(node: Node, tls: TlsSocket, relay: Relay, seconds: float) -> None:
    """Have a client be served whose handshake was done so long ago, before this node led."""
    peer = node.let_in(tls, _peer(relay))
    if peer is not None:
        node.begin(tls, peer, node.now() - round(seconds * 1000))


def _peer(relay: Relay) -> SocketPeer:
    """Whose connection it is. ValueError: that cannot be read."""
    return SocketPeer(relay.client, relay.listener, decode_secured(relay.secured))


def _joined(client: tuple[str, int]) -> str:
    return f"{client[0]}:{client[1]}"
