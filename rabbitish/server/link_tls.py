"""TLS of the links between nodes: TLS 1.3, and both sides show a certificate of the cluster's authorities.

A certificate is that of who knows the cluster's secret: the proof of that is bound to both (see cluster/wire.py), so
names in certificates do not matter, and an authority that others have certificates of as well is good enough.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from pathlib import Path
from typing import NamedTuple

import trio

from rabbitish.cluster.protocol.greeting import Refused
from rabbitish.cluster.relay import take_socket
from rabbitish.cluster.wire import SecureStream
from rabbitish.config import Settings
from rabbitish.server.certificates import CertificateError, load_authorities, load_own
from rabbitish.server.log import Log
from rabbitish.server.tls import TlsFailure, TlsSocket, linger, open_hands, shake_hands
from rabbitish.server.tls_stream import TlsStream

_FIRST_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class SecureLink(TlsStream, SecureStream):
    """A link with TLS."""

    def __init__(self, tls: TlsSocket, binding: bytes) -> None:
        super().__init__(tls)
        self.binding = binding

    def send_now(self, data: bytes) -> int:
        """See SecureStream."""
        return self._tls.send(data)

    def receive_now(self, size: int) -> bytes:
        """See SecureStream."""
        return self._tls.recv(size)

    def fileno(self) -> int:
        """See SecureStream."""
        return self._tls.fileno()

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """See SecureStream."""
        self._tls.raw.setsockopt(level, option, value)

    async def send_eof(self) -> None:
        """See trio.abc.HalfCloseableStream: what the peer still says is heard."""
        self._tls.shutdown(socket.SHUT_WR)
        await trio.lowlevel.checkpoint()

    def take(self) -> TlsSocket:
        """What is below, and this is an empty shell from now on."""
        self._closed = True
        return self._tls


class _Contexts(NamedTuple):
    """What is made of the files, all at a time."""

    listens: ssl.SSLContext
    dials: ssl.SSLContext
    own: bytes


class LinkTls:
    """A Secure, by the files that the settings name. CertificateError: they cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._contexts = _read(settings)
        self._turn = trio.Lock()
        self._reading = trio.Lock()

    async def __call__(self, stream: trio.SocketStream, dials: bool) -> SecureLink:
        """See Secure."""
        sock, contexts = take_socket(stream), self._contexts
        tls = None
        try:
            if dials:
                tls = await open_hands(sock, contexts.dials)
                ends = contexts.own, tls.peer_der()
            else:
                tls = await shake_hands(sock, contexts.listens, self._turn)
                ends = tls.peer_der(), contexts.own
        except TlsFailure as failure:
            if failure.alerted:
                await linger(sock)
            elif dials or failure.silent:
                raise trio.BrokenResourceError(f"TLS: {failure}") from failure
            raise Refused(f"TLS: {failure}") from failure
        finally:
            if tls is None:
                sock.close()
        return SecureLink(tls, b"".join(hashlib.sha256(end).digest() for end in ends))

    async def reload(self, log: Log) -> None:
        """Read the files again, for the links to come. In a thread: they may be on a file system that hangs."""
        async with self._reading:
            try:
                self._contexts = await trio.to_thread.run_sync(_read, self._settings, abandon_on_cancel=True)
            except CertificateError as error:
                log.error("the new certificate of the links cannot be used, the one before stays", error=error)
            else:
                log.info(
                    "the certificate of the links was read again", certfile=self._settings.cluster_ssl_options_certfile
                )


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:  # whoever loads it says so better
        return ""


def _read(settings: Settings) -> _Contexts:
    listens, dials = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dials.check_hostname = False  # see the module
    listens.num_tickets = 0
    certfile = settings.cluster_ssl_options_certfile
    shown = _text(certfile)
    for context in (listens, dials):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        keyfile, secret = settings.cluster_ssl_options_keyfile, settings.cluster_ssl_options_password
        load_own(context, certfile, keyfile, secret, "cluster_ssl_options_password")
        load_authorities(context, settings.cluster_ssl_options_cacertfile)
        context.verify_mode = ssl.CERT_REQUIRED
    if _text(certfile) != shown:
        return _read(settings)  # it was replaced meanwhile: what is shown must be what the proof is bound to
    first = _FIRST_CERTIFICATE.search(shown)
    if first is None:
        raise CertificateError(f"there is no certificate in PEM format in {certfile}")
    return _Contexts(listens, dials, ssl.PEM_cert_to_DER_cert(first.group()))
