"""Listening sockets: opened all together or not at all, then accepted from until the node stops.

A name that means several addresses ("localhost" is ::1 and 127.0.0.1) gets a socket for each that this machine has, all
on one port. When the process runs out of descriptors accepting pauses a little instead of spinning.
"""

from __future__ import annotations

import errno
import ipaddress
import resource
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

from rabbitish.addresses import Address
from rabbitish.config import Settings
from rabbitish.server.log import Log

if TYPE_CHECKING:
    from rabbitish.server.secured import Secured

_OVERLOADED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_PAUSE_SECONDS = 0.1
_ANY_PORT_TRIES = 10
# So many descriptors are kept from connections, for the journal above all, which must not do without.
_RESERVED_FILES = 64


class ListenError(Exception):
    """A listening socket could not be opened; the message says which and why, for people."""


class HasFileno(Protocol):
    """A socket, or something like it."""

    def fileno(self) -> int: ...


class Opened(NamedTuple):
    """An address with the port that it really has, and its sockets."""

    address: Address
    sockets: list[socket.socket]


def open_listeners(settings: Settings) -> list[Opened]:
    """Open every address of `settings.listen`. ListenError: one failed."""
    opened: list[Opened] = []
    try:
        for address in settings.addresses:
            sockets = _open(address, settings.listen_backlog)
            port = sockets[0].getsockname()[1]
            opened.append(Opened(address._replace(port=port), sockets))
    except ListenError:
        for _, sockets in opened:
            close_all(sockets)
        raise
    return opened


def close_all(sockets: list[socket.socket]) -> None:
    """Close sockets."""
    for sock in sockets:
        sock.close()


def _open(address: Address, backlog: int) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror}") from error
    targets = list(dict.fromkeys((family, where) for family, _, _, _, where in found))
    for left in reversed(range(_ANY_PORT_TRIES)):
        try:
            return _bind_all(address, targets, backlog)
        except OSError as error:
            # A free port of one address may be taken on the other: try another.
            if address.port or error.errno != errno.EADDRINUSE or not left:
                raise ListenError(f"cannot listen on {address}: {_reason(error)}") from error
    raise AssertionError  # the last try has returned or raised


def _bind_all(address: Address, targets: Sequence[tuple[int, tuple[object, ...]]], backlog: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    port = address.port
    missing: OSError | None = None
    try:
        for family, where in targets:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((where[0], port, *where[2:]))
                sock.listen(backlog)
            except OSError as error:
                sock.close()
                if error.errno != errno.EADDRNOTAVAIL:  # the resolver knows ::1 even where there is no IPv6
                    raise
                missing = error
                continue
            sockets.append(sock)
            port = sock.getsockname()[1]
        if not sockets and missing is not None:
            raise missing
    except OSError:
        close_all(sockets)
        raise
    return sockets


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is already in use"
    if error.errno == errno.EACCES:
        return "permission denied (ports below 1024 need privileges)"
    return error.strerror or str(error)


async def accept(listener: socket.socket, welcome: Callable[[socket.socket], None]) -> None:
    """Accept connections for ever and hand each to `welcome`."""
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno in _OVERLOADED:
                await trio.sleep(_PAUSE_SECONDS)
            continue
        sock.setblocking(False)
        welcome(sock)


def has_room(sock: HasFileno, connections: int, settings: Settings, log: Log) -> bool:
    """Whether there may be one more than so many connections; where not, the log says why."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if connections >= settings.max_connections:
        log.warning("too many connections", most=settings.max_connections)
    elif sock.fileno() >= most - min(_RESERVED_FILES, most // 4) and most != resource.RLIM_INFINITY:
        log.warning("too many connections for the limit of open files", limit=most)
    else:
        return True
    return False


class SocketPeer:
    """Where a connection comes from, and where it came in: addresses with their ports; and how it is secured."""

    def __init__(self, remote: tuple[str, int], local: tuple[str, int], secured: Secured | None = None) -> None:
        self.node: str | None = None  # the node that brings it; empty if that does not say, None if it came in here
        self.secured = secured  # None: there is no TLS, or its handshake is not over
        # RabbitMQ's name for a connection; operators and its management API know connections by it.
        self.name = f"{_joined(remote)} -> {_joined(local)}"
        self.address = _joined(remote)
        self.host, self.port = remote[0], remote[1]
        self.loopback = ipaddress.ip_address(remote[0].partition("%")[0]).is_loopback

    @classmethod
    def of(cls, sock: socket.socket) -> SocketPeer:
        """Of an accepted socket. OSError: nobody is there any more."""
        return cls(sock.getpeername(), sock.getsockname())


def _joined(where: tuple[str, int]) -> str:
    return f"[{where[0]}]:{where[1]}" if ":" in where[0] else f"{where[0]}:{where[1]}"
