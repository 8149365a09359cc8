"""Where a broker for tests listens: an address that can refuse connections for a while, and stays ours meanwhile.

While it refuses, a socket is bound to the address and does not listen, so the kernel refuses connections as for a
broker that is down, and nobody else gets the port.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

from rabbitish.server.listener import ListenError

_PAUSE_SECONDS = 0.01


class Door:
    """A listening socket. `welcome` gets what is accepted. ListenError: the address cannot be had."""

    def __init__(
        self, host: str, port: int, backlog: int, nursery: trio.Nursery, welcome: Callable[[socket.socket], None]
    ) -> None:
        self._backlog = backlog
        self._nursery = nursery
        self._welcome = welcome
        try:
            self._sock = _bound(host, port)
        except OSError as error:
            raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self.host: str = host
        self.port: int = self._sock.getsockname()[1]
        self.is_open = False

    def open(self) -> None:
        """Listen."""
        if not self.is_open:
            self.is_open = True
            self._sock.listen(self._backlog)
            self._nursery.start_soon(self._accept, self._sock)

    async def _accept(self, sock: socket.socket) -> None:
        while sock.fileno() >= 0:
            try:
                await trio.lowlevel.wait_readable(sock)
                accepted, _ = sock.accept()
            except trio.ClosedResourceError:
                return
            except OSError:  # shut in this moment, or too many are open
                await trio.sleep(_PAUSE_SECONDS)
                continue
            accepted.setblocking(False)
            self._welcome(accepted)

    def shut(self) -> None:
        """Refuse connections until it is opened again."""
        if self.is_open:
            self.close()
            self._sock = _bound(self.host, self.port)

    def close(self) -> None:
        """Give the address up."""
        if self.is_open:
            trio.lowlevel.notify_closing(self._sock)
            self.is_open = False
        self._sock.close()


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
