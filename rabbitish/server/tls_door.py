"""Where connections for TLS come in: a handshake in a task of its own, and only then a session.

Knows which certificates are in force, how many handshakes are going on (they count as connections), and that they take
turns on the processor. A handshake that fails costs a line in the log and that connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from rabbitish.server.certificates import Certificates
from rabbitish.server.listener import SocketPeer
from rabbitish.server.log import Log, get_log
from rabbitish.server.secured import Secured
from rabbitish.server.tls import AnySocket, TlsFailure, TlsSocket, linger, shake_hands

if TYPE_CHECKING:
    from rabbitish.server.node import Node


class Handshakes:
    """Those of one node, which take turns."""

    def __init__(self, certificates: Certificates, limit_ms: int) -> None:
        self.certificates = certificates
        self._limit_ms = limit_ms
        self._turn = trio.Lock()

    async def shake(self, sock: AnySocket, log: Log) -> TlsSocket | None:
        """Shake hands, in the time there is for that; None, and the socket closed, when it fails."""
        tls = None
        try:
            with trio.move_on_after(self._limit_ms / 1000) as limit:
                tls = await shake_hands(sock, self.certificates.context, self._turn)
            if limit.cancelled_caught:
                log.warning("TLS handshake took too long")
        except TlsFailure as failure:
            (log.debug if failure.silent else log.warning)("TLS handshake failed", reason=failure)
            if failure.alerted:
                await linger(sock)
        except Exception as error:  # a bug of ours costs this connection, not the broker
            log.exception("internal error", error)
        finally:
            if tls is None:
                sock.close()
        return tls


class TlsDoor:
    """The TLS listeners of a node, all with the same certificates."""

    def __init__(self, node: Node, certificates: Certificates) -> None:
        self._node = node
        self.certificates = certificates
        self.shaking = 0
        """Handshakes that are not done."""
        self._handshakes = Handshakes(certificates, node.settings.handshake_timeout_ms)
        self._log = get_log()

    def welcome(self, nursery: trio.Nursery, sock: AnySocket, peer: SocketPeer | None = None) -> None:
        """Start the handshake on an accepted socket; it ends with `nursery` at the latest. `peer`: see Node."""
        peer = self._node.let_in(sock, peer)
        if peer is not None:
            self.shaking += 1
            nursery.start_soon(self._receive, sock, peer)

    async def _receive(self, sock: AnySocket, peer: SocketPeer) -> None:
        """Shake hands, in the time that TLS and AMQP have together, and start the session."""
        log, began = self._log.bind(connection=peer.name), self._node.now()
        try:
            tls = await self._handshakes.shake(sock, log)
        finally:
            self.shaking -= 1
        if tls is not None:
            peer.secured = Secured.of(tls, self._node.settings, log)
            self._node.begin(tls, peer, began)

    async def reload(self) -> None:
        """Read the certificates again, for the connections to come."""
        await self.certificates.reload(self._log)
