"""What lies between a link and its socket: nothing, or something of its owner's that enciphers (server/link_tls.py).

A wire that enciphers has a binding, which both ends know and nobody else's connection has: the proof of the cluster's
secret is made under it, so that whoever is in the middle of two connections cannot pass a proof on.
"""

from __future__ import annotations

import hmac
import os
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import trio


class SecureStream(trio.abc.HalfCloseableStream):
    """A stream that enciphers."""

    binding: bytes = b""
    """See the module."""

    @abstractmethod
    def send_now(self, data: bytes) -> int:
        """How much of it the kernel has now; the rest must be what is sent next. BlockingIOError: nothing."""

    @abstractmethod
    def receive_now(self, size: int) -> bytes:
        """What has come in the next so many bytes; empty at the end. BlockingIOError: nothing whole yet."""

    @abstractmethod
    def fileno(self) -> int:
        """Of the socket: when that can be read there may be something."""

    @abstractmethod
    def setsockopt(self, level: int, option: int, value: int) -> None:
        """See trio.SocketStream."""


Read: TypeAlias = Callable[[int], bytes]
LinkStream: TypeAlias = trio.SocketStream | SecureStream

Secure: TypeAlias = Callable[[trio.SocketStream, bool], Awaitable[SecureStream]]
"""Makes a wire that enciphers of a connection, which this node has dialled or not. Refused: the peer is none to trust.
OSError: it is gone."""


async def secured_by(
    secure: Secure | None, stream: trio.SocketStream, secret: bytes, *, dials: bool
) -> tuple[LinkStream, bytes]:
    """The wire of a connection, and what is to be proved over it. See Secure."""
    if secure is None:
        return stream, secret
    wire = await secure(stream, dials)
    return wire, hmac.digest(secret, wire.binding, "sha256")


def fileno_of(stream: LinkStream) -> int:
    """Of a wire's socket."""
    return stream.fileno() if isinstance(stream, SecureStream) else stream.socket.fileno()


def reader_of(stream: LinkStream) -> Read:
    """What receives from a wire without waiting: see SecureStream.receive_now."""
    if isinstance(stream, SecureStream):
        return stream.receive_now
    return partial(os.read, stream.socket.fileno())


def writer_of(stream: LinkStream) -> Callable[[bytes], int]:
    """What sends over a wire without waiting: see SecureStream.send_now."""
    if isinstance(stream, SecureStream):
        return stream.send_now
    return partial(os.write, stream.socket.fileno())
