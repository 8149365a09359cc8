"""TLS below a connection: the handshake, and a socket that deciphers what it receives and enciphers what it sends.

OpenSSL works on two buffers in memory, never on the socket. So one read takes what the kernel has, many TLS records at
once, and nothing that is deciphered already stays behind where no selector would tell of it. `TlsSocket` has what
`Link` uses of a plain non-blocking socket, and means the same by it; a plain connection never comes through here.

The handshake happens in the connection's own task, before there is a session. What goes wrong in it is a `TlsFailure`
with a reason for the log; the peer is told by an alert, if it speaks TLS at all.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import trio

Bytes: TypeAlias = bytes | memoryview
AnySocket: TypeAlias = "socket.socket | TlsSocket"
"""A non-blocking one; a client's TLS may be passed on within the TLS of a link."""

# What OpenSSL makes into a record at most, and gives back at a time.
_RECORD_BYTES = 16 * 1024
# So much is enciphered before the kernel is asked to take it.
_CHUNK_BYTES = 128 * 1024
_HANDSHAKE_CONTENT = 0x16
# A peer that failed has this long to take our alert and hang up, and may send this much meanwhile.
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 256 * 1024


class TlsFailure(Exception):
    """A handshake that came to nothing; the message says why.

    `silent`: the peer said nothing at all. `alerted`: it has been sent an alert, so `linger` before closing the socket.
    """

    def __init__(self, reason: str, *, silent: bool = False, alerted: bool = False) -> None:
        super().__init__(reason)
        self.silent = silent
        self.alerted = alerted


class TlsSocket:
    """A non-blocking socket on which the handshake is done. Errors are OSErrors, as of any socket."""

    __slots__ = ("_ahead", "_incoming", "_left", "_outgoing", "_over", "_sock", "_tls", "_unsent")

    def __init__(self, sock: AnySocket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._sock = sock
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._unsent = memoryview(b"")  # enciphered, and the kernel did not take it yet
        self._ahead = 0  # how much of what the caller sends next is enciphered already
        self._over = False  # the peer will say nothing more
        self._left = False  # or nothing that anybody wants to know

    @property
    def raw(self) -> socket.socket:
        """The socket below."""
        sock = self._sock
        return sock.raw if isinstance(sock, TlsSocket) else sock

    def peer_der(self) -> bytes:
        """The peer's certificate as it was sent; empty: there is none."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def version(self) -> str:
        """ "TLSv1.3", for example."""
        return self._tls.version() or "TLS"

    @property
    def cipher(self) -> str:
        """By OpenSSL's name: "TLS_AES_256_GCM_SHA384", for example."""
        cipher = self._tls.cipher()
        return cipher[0] if cipher is not None else ""

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The peer's certificate, which has been verified, as the standard library's ssl takes it apart."""
        return self._tls.getpeercert()

    def fileno(self) -> int:
        """See socket.socket."""
        return self._sock.fileno()

    # ---- in

    def recv(self, size: int) -> bytes:
        """All that the peer said in the next `size` bytes of the socket; empty when it will say nothing more.

        BlockingIOError: there is nothing whole yet.
        """
        if self._over:
            return self._sock.recv(size) if self._left else b""
        try:
            data = self._sock.recv(size)
        except BlockingIOError:  # what came along with the end of the handshake is not in the socket any more
            pass
        else:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
        parts: list[bytes] = []
        read = self._tls.read
        try:
            while part := read(_RECORD_BYTES):
                parts.append(part)
            self._end()  # by close_notify
        except ssl.SSLWantReadError:
            if not parts:
                raise BlockingIOError from None
        except ssl.SSLError:  # an end without close_notify, an alert, or nonsense: whatever it is, there is no more
            self._end()
        return b"".join(parts)

    def _end(self) -> None:
        """Nothing more will be read: what OpenSSL has to say to that is sent if possible."""
        self._over = True
        with contextlib.suppress(OSError):
            self._flush()
        with contextlib.suppress(OSError):  # from now on it can be read, so somebody will look and find the end
            self._sock.shutdown(socket.SHUT_RD)

    # ---- out

    def send(self, data: Bytes) -> int:
        """Send the beginning of `data`; how much of it the kernel has now.

        As with OpenSSL itself, more than that may be enciphered already, so the rest must be what is sent next.
        BlockingIOError: nothing went out.
        """
        view = memoryview(data)
        done = 0
        if self._ahead:
            if not self._flush():
                raise BlockingIOError
            done, self._ahead = self._ahead, 0
        while done < len(view):
            chunk = view[done : done + _CHUNK_BYTES]
            self._encipher(chunk)
            if not self._flush():
                self._ahead = len(chunk)
                break
            done += len(chunk)
        if not done:
            raise BlockingIOError
        return done

    def sendmsg(self, parts: Iterable[Bytes]) -> int:
        """The same of several parts. They are put together first, since each would cost a record of its own."""
        return self.send(b"".join(parts))

    def _encipher(self, chunk: memoryview) -> None:
        # A record at a time. It never has to read first: peers may not negotiate anew, and OpenSSL answers a change
        # of keys into the buffer.
        while chunk:
            chunk = chunk[self._tls.write(chunk) :]

    def _flush(self) -> bool:
        """Give the kernel what is enciphered; whether it took all of it."""
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            self._unsent = self._unsent[_sent(self._sock, self._unsent) :]
            if self._unsent:
                return False
        return True

    def take_leave(self) -> None:
        """Say nothing more, close_notify last. What is received from now on is not deciphered, only its end counts."""
        self._say_goodbye()
        self._over = self._left = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def shutdown(self, how: int) -> None:
        """As of a socket: no close_notify is sent, and the peer's end is still heard."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the socket, with close_notify where everything before it went out."""
        self._say_goodbye()
        self._sock.close()

    def _say_goodbye(self) -> None:
        if not self._unsent:
            with contextlib.suppress(OSError):  # SSLWantReadError: the peer's close_notify is not waited for
                self._tls.unwrap()
            with contextlib.suppress(OSError):
                self._flush()


def _sent(sock: AnySocket, data: memoryview) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


async def shake_hands(sock: AnySocket, context: ssl.SSLContext, turn: trio.Lock) -> TlsSocket:
    """Be the server of a TLS handshake; the socket stays the caller's until it has the result. TlsFailure: it failed.

    A step of it takes the processor for a millisecond or so. `turn` is held for each: when a thousand clients come back
    at once, everybody else gets a turn between two steps.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    silent = True
    while True:
        data = await _receive(sock, _RECORD_BYTES)
        if not data:
            raise TlsFailure("the peer hung up", silent=silent)
        if silent and data[0] != _HANDSHAKE_CONTENT:
            what = "plain AMQP" if data.startswith(b"AMQP"[: len(data)]) else f"{data[:8]!r}"
            raise TlsFailure(f"the peer does not speak TLS but {what}")
        silent = False
        incoming.write(data)
        failure: ssl.SSLError | None = None
        async with turn:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError as error:
                done, failure = False, error
            else:
                done = True
        with contextlib.suppress(OSError):  # a peer that is gone shows when it is read from
            await _send_all(sock, memoryview(outgoing.read()))
        if failure is not None:
            raise TlsFailure(_reason(failure), alerted=True) from failure
        if done:
            return TlsSocket(sock, tls, incoming, outgoing)


async def open_hands(sock: socket.socket, context: ssl.SSLContext) -> TlsSocket:
    """Be the client of a TLS handshake; otherwise as `shake_hands`."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    silent = True
    while True:
        failure, done = None, False
        try:
            tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            failure = error
        with contextlib.suppress(OSError):
            await _send_all(sock, memoryview(outgoing.read()))
        if failure is not None:
            raise TlsFailure(_reason(failure, "server"), alerted=True) from failure
        if done:
            return TlsSocket(sock, tls, incoming, outgoing)
        data = await _receive(sock, _RECORD_BYTES)
        if not data:
            raise TlsFailure("the peer hung up", silent=silent)
        silent = False
        incoming.write(data)


def _reason(error: ssl.SSLError, whose: str = "client") -> str:
    """OpenSSL's reason in plain words: "unsupported protocol", "certificate has expired"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the {whose}'s certificate: {error.verify_message}"
    return (error.reason or str(error)).lower().replace("_", " ")


async def _receive(sock: AnySocket, size: int) -> bytes:
    """What comes next; nothing when the peer is gone."""
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            return sock.recv(size)
        except BlockingIOError:
            continue
        except OSError:
            return b""


async def _send_all(sock: AnySocket, data: memoryview) -> None:
    while data:
        count = _sent(sock, data)
        data = data[count:]
        if data:
            await trio.lowlevel.wait_writable(sock)


async def linger(sock: AnySocket) -> None:
    """Let the peer read our alert: a socket that is closed with something unread resets the connection instead."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
    left = _LINGER_BYTES
    with trio.move_on_after(_LINGER_SECONDS):
        while left > 0 and (data := await _receive(sock, _RECORD_BYTES)):
            left -= len(data)
