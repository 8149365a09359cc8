"""Where connections for TLS come in: a handshake in a task of its own, and only then a session.

Knows which certificates are in force, how many handshakes are going on (they count as connections), and that they take
turns on the processor. A handshake that fails costs a line in the log and that connection.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import trio

from rabbitish.server.certificates import Certificates
from rabbitish.server.listener import SocketPeer
from rabbitish.server.log import Log, get_log
from rabbitish.server.peer_name import peer_name
from rabbitish.server.tls import TlsFailure, TlsSocket, linger, shake_hands

if TYPE_CHECKING:
    from rabbitish.server.node import Node


class TlsDoor:
    """The TLS listeners of a node, all with the same certificates."""

    def __init__(self, node: Node, certificates: Certificates) -> None:
        self._node = node
        self.certificates = certificates
        self.shaking = 0
        """Handshakes that are not done."""
        self._turn = trio.Lock()
        self._log = get_log()

    def welcome(self, nursery: trio.Nursery, sock: socket.socket, peer: SocketPeer | None = None) -> None:
        """Start the handshake on an accepted socket; it ends with `nursery` at the latest. `peer`: see Node."""
        peer = self._node.let_in(sock, peer)
        if peer is not None:
            self.shaking += 1
            nursery.start_soon(self._receive, sock, peer)

    async def _receive(self, sock: socket.socket, peer: SocketPeer) -> None:
        """Shake hands, in the time that TLS and AMQP have together, and start the session."""
        log, began = self._log.bind(connection=peer.name), self._node.now()
        tls = None
        try:
            with trio.move_on_after(self._node.settings.handshake_timeout_ms / 1000) as limit:
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
            self.shaking -= 1
            if tls is None:
                sock.close()
        if tls is not None:
            log = log.bind(tls=tls.version)
            self._node.begin(tls, peer, log, began, self._name(tls, log))

    def _name(self, tls: TlsSocket, log: Log) -> str | None:
        """Session's peer_certificate_name."""
        if not self._node.settings.ssl_cert_login:
            return None
        try:
            return peer_name(tls.certificate, self._node.settings)
        except (ssl.SSLError, ValueError) as error:  # text that is none
            log.warning("no name can be read from the client's certificate", error=error)
            return ""

    async def reload(self) -> None:
        """Read the certificates again, for the connections to come."""
        await self.certificates.reload(self._log)
