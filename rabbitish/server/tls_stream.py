"""A TlsSocket as a stream, for whoever brings its client to a leader: what trio's SocketStream is of a plain socket.

Whatever is broken off loses nothing: what was received is returned, and what was enciphered and not sent yet is the
beginning of what must be sent next (see TlsSocket.send).
"""

from __future__ import annotations

import contextlib
import socket

import trio

from rabbitish.cluster.relay import READ_BYTES
from rabbitish.server.tls import Bytes, TlsSocket


class TlsStream(trio.abc.HalfCloseableStream):
    """See the module. Errors are OSErrors."""

    def __init__(self, tls: TlsSocket) -> None:
        with contextlib.suppress(OSError):  # of a socket that is gone already
            tls.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as trio does
        self._tls = tls
        self._closed = False
        self._rest = b""  # deciphered, and more than was asked for

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come; empty at the end. After `send_eof` it is as it came, for who only waits for the end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        most = max_bytes or READ_BYTES
        data, self._rest = self._rest, b""
        while not data:
            try:
                data = self._tls.recv(most)
                break
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._tls)
        if len(data) > most:
            data, self._rest = data[:most], data[most:]
        await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    async def send_some(self, data: Bytes) -> int:
        """Send the beginning of what is not nothing; how much. If it is broken off, this is to be sent first again."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                sent = self._tls.send(data)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._tls)
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return sent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        view = memoryview(data)
        while view:
            view = view[await self.send_some(view) :]

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await trio.lowlevel.wait_writable(self._tls)

    async def send_eof(self) -> None:
        """Take leave of the peer: close_notify."""
        self._tls.take_leave()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the socket."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._tls)
            self._tls.close()
        await trio.lowlevel.checkpoint()
