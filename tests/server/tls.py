"""Certificates for the tests, made once, and clients that use them."""

from __future__ import annotations

import datetime
import functools
import ssl
import tempfile
from pathlib import Path
from typing import cast

import trio
import trustme

from tests.server.support import Client, Running

HOST = "localhost"
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Pki:
    """Two authorities, ours and another, and what they have issued, as objects and as files."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rabbitish-tls-")
        folder = Path(self._folder.name)
        self.ca, self.other_ca = trustme.CA(), trustme.CA()
        self.server = self.ca.issue_cert(HOST, "127.0.0.1")
        self.next_server = self.ca.issue_cert(HOST, "127.0.0.1")
        self.me = self.ca.issue_cert("me.example", common_name="me")
        self.stranger = self.other_ca.issue_cert("me.example", common_name="me")
        past = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
        self.expired = self.ca.issue_cert("me.example", common_name="me", not_before=past, not_after=past)
        self.cacertfile = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.cacertfile)
        self.certfile, self.keyfile = str(folder / "server.pem"), str(folder / "server.key")
        self.write(self.server)

    def write(self, cert: trustme.LeafCert) -> None:
        """Put a certificate and its key where the broker looks for them."""
        Path(self.certfile).write_bytes(b"".join(pem.bytes() for pem in cert.cert_chain_pems))
        cert.private_key_pem.write_to_path(self.keyfile)

    def spoil(self) -> None:
        """Put something else there."""
        Path(self.certfile).write_text("half of it")

    def file(self, cert: trustme.LeafCert, name: str) -> str:
        """A file with a certificate and its key."""
        path = Path(self._folder.name) / name
        cert.private_key_and_cert_chain_pem.write_to_path(path)
        return str(path)

    def settings(self, **more: object) -> dict[str, object]:
        """Of a broker that listens for TLS."""
        files = {"ssl_options_certfile": self.certfile, "ssl_options_keyfile": self.keyfile}
        return {"listen": ("amqps://127.0.0.1:0",), **files, **more}

    def asking(self, *, required: bool, **more: object) -> dict[str, object]:
        """Of one that also asks clients for a certificate."""
        asks = {"ssl_options_verify": "verify_peer", "ssl_options_cacertfile": self.cacertfile}
        return self.settings(**asks, ssl_options_fail_if_no_peer_cert=required, **more)

    def links(self, cert: trustme.LeafCert | None = None) -> dict[str, object]:
        """Of a node whose links have TLS."""
        certfile = self.file(cert or self.me, "link.pem" if cert is None else "other link.pem")
        return {"cluster_ssl_options_certfile": certfile, "cluster_ssl_options_cacertfile": self.cacertfile}

    def client(self, cert: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """The context of a client that trusts our authority, with a certificate of its own or without."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if cert is not None:
            cert.configure_cert(context)
        return context


@functools.cache
def pki() -> Pki:
    """The same for all tests of a process: keys take a while."""
    return Pki()


async def stream(running: Running, context: ssl.SSLContext, port: int = 0) -> trio.SSLStream[trio.SocketStream]:
    """A connection with the handshake done."""
    tcp = await trio.open_tcp_stream(running.host, port or running.port)
    running.clients.append(Client(tcp))  # closed at the end
    tls = trio.SSLStream(tcp, context, server_hostname=HOST, https_compatible=True)
    await tls.do_handshake()
    return tls


async def connect(running: Running, context: ssl.SSLContext | None = None, port: int = 0) -> Client:
    """A client whose connection and channel 1 are open."""
    secured = await stream(running, context or pki().client(), port)
    client = Client(cast("trio.SocketStream", secured))  # as far as it uses one
    await client.handshake()
    return client
