"""TLS: who is trusted and who is not, our own certificate, and names, through a proxy that ends TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from rabbitish.client import ConnectFailed, connect

from .support import broker, new_queue, run

trustme = pytest.importorskip("trustme")


class Pki:
    """An authority, the broker's certificate and ours, as files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        client = authority.issue_cert("me.example", common_name="me")
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.configure_cert(self.context)
        authority.configure_trust(self.context)
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.cert, self.key = folder / "client.pem", folder / "client.key"
        client.cert_chain_pems[0].write_to_path(self.cert)
        client.private_key_pem.write_to_path(self.key)
        self.other = folder / "other.pem"
        trustme.CA().cert_pem.write_to_path(self.other)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class Seen:
    """What the proxy learns of its clients."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.certificates: list[object] = []


@asynccontextmanager
async def tls(pki: Pki) -> AsyncIterator[tuple[str, Seen]]:
    """An amqps URI without options, and what is seen there."""
    seen = Seen()
    pki.context.sni_callback = lambda _, name, __: seen.names.append(name)

    async def pump(source: trio.abc.Stream, target: trio.abc.Stream, nursery: trio.Nursery) -> None:
        try:
            while data := await source.receive_some():
                await target.send_all(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()

    async with broker() as uri, trio.open_nursery() as serving:
        parts = urlsplit(uri)

        async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
            async with stream:
                try:
                    await stream.do_handshake()
                except trio.BrokenResourceError:
                    return
                seen.certificates.append(stream.getpeercert())
                plain = await trio.open_tcp_stream(parts.hostname or "", parts.port or 5672)
                async with plain, trio.open_nursery() as nursery:
                    nursery.start_soon(pump, stream, plain, nursery)
                    nursery.start_soon(pump, plain, stream, nursery)

        listeners = await trio.open_ssl_over_tcp_listeners(0, pki.context, host="127.0.0.1")
        port = listeners[0].transport_listener.socket.getsockname()[1]
        serving.start_soon(trio.serve_listeners, handle, listeners)
        yield f"amqps://127.0.0.1:{port}", seen
        serving.cancel_scope.cancel()


def test_a_broker_that_we_trust_and_a_certificate_of_our_own(pki: Pki) -> None:
    async def conversation() -> None:
        async with tls(pki) as (uri, seen):
            pki.context.verify_mode = ssl.CERT_OPTIONAL
            files = f"cacertfile={pki.ca}&certfile={pki.cert}&keyfile={pki.key}"
            async with (
                connect(f"{uri}?{files}&server_name_indication=localhost") as connection,
                connection.channel() as channel,
            ):
                queue = await new_queue(channel)
                body = bytes(range(256)) * 4000
                await channel.publish_many([body] * 5, routing_key=queue.queue)
                async with queue.consume() as messages:
                    for _ in range(5):
                        assert (await anext(messages)).body == body
            assert seen.names == ["localhost"]
            assert seen.certificates[0]["subject"] != ()  # type: ignore[index]
            pki.context.verify_mode = ssl.CERT_NONE

    run(conversation)


def test_a_broker_that_we_do_not_trust(pki: Pki) -> None:
    async def conversation() -> None:
        async with tls(pki) as (uri, seen):
            wrong_name = f"?cacertfile={pki.ca}&server_name_indication=other.example"
            for options in ("", f"?cacertfile={pki.other}", wrong_name):
                with pytest.raises(ConnectFailed, match="CERTIFICATE_VERIFY_FAILED"):
                    async with connect(uri + options):
                        pass
            with pytest.raises(ConnectFailed):
                async with connect(f"{uri}?cacertfile=/nowhere"):
                    pass
            for options in ("?verify=verify_none", f"?cacertfile={pki.ca}&server_name_indication=disable"):
                async with connect(uri + options) as connection:
                    assert connection.connected
            assert seen.names[-1] is None

    run(conversation)


def test_a_context_of_the_programs_own(pki: Pki) -> None:
    async def conversation() -> None:
        async with tls(pki) as (uri, _):
            context = ssl.create_default_context(cafile=str(pki.ca))
            async with connect(uri, ssl_context=context) as connection:
                assert connection.connected

    run(conversation)


def test_no_tls_where_tls_was_expected(pki: Pki) -> None:
    async def conversation() -> None:
        async with broker() as uri:
            with pytest.raises(ConnectFailed):
                async with connect(uri.replace("amqp://", "amqps://")):
                    pass

    run(conversation)
