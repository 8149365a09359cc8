"""Sockets, with and without TLS, behind two methods: receive some bytes, send all bytes.

Without TLS it is a plain non-blocking socket: what the kernel takes or has at once costs no trip through trio's
scheduler. Whatever goes wrong with a socket is the end of the stream.
"""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

import trio

from rabbitish.client.protocol.uri import Parameters, TlsOptions

# More would be blocks that the allocator asks the kernel for each time.
_READ_BYTES = 120 * 1024


class Transport(Protocol):
    """A stream of bytes both ways."""

    async def receive(self) -> bytes:
        """Some bytes; none at the end of the stream. Always a checkpoint."""
        ...

    async def send(self, data: bytes) -> None:
        """Send all of it. OSError, trio.BrokenResourceError: the stream is over."""
        ...

    async def aclose(self) -> None:
        """Close it, without a goodbye."""
        ...


class TcpTransport:
    """A connected socket of trio's, which is taken over."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._sock = socket.socket(fileno=stream.socket.detach())
        self._sock.setblocking(False)

    async def receive(self) -> bytes:
        """See Transport."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                return self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:  # a reset is one way to hang up
                return b""

    async def send(self, data: bytes) -> None:
        """See Transport."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            await trio.lowlevel.wait_writable(self._sock)
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                continue

    async def aclose(self) -> None:
        """See Transport."""
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        await trio.lowlevel.checkpoint()


class TlsTransport:
    """TLS on top of trio's stream; the handshake is done."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    async def receive(self) -> bytes:
        """See Transport."""
        try:
            return bytes(await self._stream.receive_some(_READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return b""

    async def send(self, data: bytes) -> None:
        """See Transport."""
        await self._stream.send_all(data)

    async def aclose(self) -> None:
        """See Transport."""
        await trio.aclose_forcefully(self._stream)


async def open_transport(parameters: Parameters, context: ssl.SSLContext | None) -> Transport:
    """Connect, and shake hands where the URI says amqps. OSError (ssl.SSLError too): that did not work."""
    stream = await trio.open_tcp_stream(parameters.host, parameters.port)
    tls = parameters.tls
    if tls is None:
        return TcpTransport(stream)
    try:
        name = parameters.host if tls.server_name is None else tls.server_name or None
        wrapped = trio.SSLStream(stream, context or tls_context(tls), server_hostname=name, https_compatible=True)
        await wrapped.do_handshake()
    except trio.BrokenResourceError as broken:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
        if isinstance(broken.__cause__, OSError):
            raise broken.__cause__ from None
        raise ConnectionResetError("the TLS handshake was cut off") from None
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
        raise
    return TlsTransport(wrapped)


def tls_context(tls: TlsOptions) -> ssl.SSLContext:
    """The context that a URI describes. OSError (ssl.SSLError too): a file cannot be read or used."""
    context = ssl.create_default_context(cafile=tls.cacertfile)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.server_name == "":
        context.check_hostname = False
    if tls.certfile is not None:
        context.load_cert_chain(tls.certfile, tls.keyfile, tls.password)
    return context
