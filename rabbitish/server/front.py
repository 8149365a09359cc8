"""The listeners of a node in a cluster: who comes in is served here where this node leads, else brought to who does.

A connection that is brought is bytes both ways, a read at a time, TLS and all; the leader knows whose it is. While
nobody leads a client waits, for as long as most of them wait for a broker's first word. When somebody else leads, what
was brought to the last leader ends, as it does there: clients then connect anew, to any node.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from rabbitish.cluster.protocol.frames import Relay, Verdict
from rabbitish.cluster.relay import BROKEN, READ_BYTES, RelayFailed, answer_relay, take_socket, unlimit
from rabbitish.config import Settings
from rabbitish.server.listener import Opened, SocketPeer, accept, close_all, has_room
from rabbitish.server.log import Log, get_log

if TYPE_CHECKING:
    from rabbitish.server.node import Node

_PATIENCE_SECONDS = 10
_AGAIN_SECONDS = 0.2
# Who is about to lead lets the others wait so long before they are told to ask again; below what they have for asking.
_HOLD_SECONDS = 1
# What a client may still say after the leader has said its last word, before it is cut off.
_LINGER_SECONDS = 5

Dial = Callable[[tuple[str, int], Relay], Awaitable[trio.SocketStream]]
"""How a client is brought to the node at an address: open_relay, but for the secret."""


class Leader(NamedTuple):
    """Who leads: its node, where other nodes reach it, and in which epoch."""

    node: str
    address: tuple[str, int]
    epoch: int


class Front:
    """See the module. Whoever runs it says who leads: `serve`, `follow`."""

    def __init__(self, settings: Settings, dial: Dial, log: Log | None = None) -> None:
        self.node: Node | None = None
        """What serves here, while this node leads."""
        self.leader: Leader | None = None
        """Who leads, if that is another node and it is known."""
        self.urls: list[str] = []
        """Where it listens."""
        self.relays = 0
        """Clients that are being brought, or wait for it."""
        self._settings = settings
        self._dial = dial
        self._log = log or get_log()
        self._changed = trio.Event()
        self._scopes: set[trio.CancelScope] = set()

    # ---- who leads

    def serve(self, node: Node | None) -> None:
        """This node leads, and that is what serves; None: it does not any more."""
        if node is not self.node:
            self.node = node
            if node is not None:
                node.urls = self.urls
            self._change()

    def follow(self, leader: Leader | None) -> None:
        """Another node leads; None: that is not known."""
        if leader != self.leader:
            self.leader = leader
            self._change()

    def _change(self) -> None:
        for scope in self._scopes:
            scope.cancel()
        self._changed.set()
        self._changed = trio.Event()

    @contextmanager
    def _while_it_leads(self) -> Iterator[None]:
        """What is done in here ends when somebody else leads."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

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
            self.relays += 1
            nursery.start_soon(self._receive, scheme, sock)
        else:
            sock.close()

    async def _receive(self, scheme: str, sock: socket.socket) -> None:
        """Bring a client to whoever leads, if that is known soon."""
        kept: socket.socket | None = sock
        try:
            relay = Relay(sock.getpeername()[:2], sock.getsockname()[:2], scheme)
            node = await self._bring(sock, relay)
            if node is not None:
                _let_in(node, scheme, sock)
                kept = None
        except OSError:  # the client is gone
            pass
        except Exception as error:  # noqa: BLE001 (a bug of ours costs this connection, not the node)
            self._log.exception("internal error", error)
        finally:
            self.relays -= 1
            if kept is not None:
                kept.close()

    async def _bring(self, sock: socket.socket, relay: Relay) -> Node | None:
        """Until the connection is over; the node that serves here, if there is one before anybody took it."""
        reason = "nobody leads"
        with trio.move_on_after(_PATIENCE_SECONDS) as patience:
            while self.node is None:
                changed, leader = self._changed, self.leader
                if leader is not None:
                    with self._while_it_leads():
                        try:
                            stream = await self._dial(leader.address, relay)
                        except RelayFailed as failed:
                            reason = f"{leader.node}: {failed}"
                            if failed.final:
                                break
                        else:
                            patience.deadline = math.inf
                            await carry(trio.SocketStream(trio.socket.from_stdlib_socket(sock)), stream)
                    if patience.deadline == math.inf:
                        return None
                with trio.move_on_after(math.inf if leader is None else _AGAIN_SECONDS):
                    await changed.wait()
            else:
                return self.node
        self._log.warning("no leader took a connection", client=f"{relay.client[0]}:{relay.client[1]}", reason=reason)
        return None

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
        elif relay.scheme not in ("amqp", "amqps") or (relay.scheme == "amqps" and node.tls is None):
            self._log.warning("a node brings connections that cannot be served here", scheme=relay.scheme)
            await answer_relay(stream, Verdict.REFUSED, f"does not serve {relay.scheme}")
        else:
            await answer_relay(stream, Verdict.TAKEN)
            if self.node is node:
                _let_in(node, relay.scheme, take_socket(stream), SocketPeer(relay.client, relay.listener))


def _let_in(node: Node, scheme: str, sock: socket.socket, peer: SocketPeer | None = None) -> None:
    if scheme == "amqps":
        assert node.tls is not None
        node.tls.welcome(node.nursery, sock, peer)
    else:
        node.welcome(sock, peer)


async def carry(client: trio.SocketStream, leader: trio.SocketStream) -> None:
    """Pass on what both say until either is gone, or the leader had its last word and the client time for its own."""
    async with client, leader, trio.open_nursery() as nursery:
        unlimit(client)
        said_all = trio.Event()
        nursery.start_soon(_pass_on, client, leader, nursery, said_all)
        await _pass_on(leader, client, nursery, trio.Event())
        with trio.move_on_after(_LINGER_SECONDS):
            await said_all.wait()
        nursery.cancel_scope.cancel()


async def _pass_on(
    source: trio.SocketStream, target: trio.SocketStream, nursery: trio.Nursery, said_all: trio.Event
) -> None:
    """Until the source has said all."""
    try:
        while data := await source.receive_some(READ_BYTES):
            await target.send_all(data)
        await target.send_eof()
        said_all.set()
    except BROKEN:
        nursery.cancel_scope.cancel()
