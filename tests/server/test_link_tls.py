"""Links between nodes with TLS: nobody reads what crosses them, and to be a node takes certificate and secret."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trustme

from rabbitish.cluster.protocol.frames import Relay
from rabbitish.cluster.relay import BROKEN, RelayFailed, open_relay
from rabbitish.config import Settings
from rabbitish.server import listings
from rabbitish.server.certificates import CertificateError
from rabbitish.server.link_tls import LinkTls
from rabbitish.server.log import get_log
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_BODY
from tests.server.fronts import SECRET, FrontNode, fronts, leads
from tests.server.support import Client, Running, broker, converse, until
from tests.server.test_carrying import Three, three
from tests.server.test_carrying_tls import connect, secured
from tests.server.test_tls import Lines
from tests.server.tls import Pki, pki

SOMEBODY = Relay(("127.0.0.1", 4711), ("127.0.0.1", 5672), "amqp")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    return Lines(caplog)


class Tap:
    """Stands before a node's links, and keeps what passes."""

    def __init__(self) -> None:
        self.heard = bytearray()

    async def stand_before(self, node: FrontNode, nursery: trio.Nursery) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        behind, node.links = node.links, listener.socket.getsockname()[:2]

        async def relay(near: trio.SocketStream) -> None:
            async with near, await trio.open_tcp_stream(*behind) as far, trio.open_nursery() as both:
                both.start_soon(self._pass, near, far)
                both.start_soon(self._pass, far, near)

        nursery.start_soon(trio.serve_listeners, relay, [listener])

    async def _pass(self, source: trio.SocketStream, target: trio.SocketStream) -> None:
        with suppress(*BROKEN):
            async for data in source:
                self.heard += data
                await target.send_all(data)
            await target.send_eof()


@asynccontextmanager
async def tapped(**settings: object) -> AsyncIterator[tuple[Three, Tap]]:
    """Three nodes whose links have TLS, and a tap on the first leader's."""
    async with three(links=pki().links(), **settings) as nodes, trio.open_nursery() as nursery:
        tap = Tap()
        await tap.stand_before(nodes.a, nursery)
        nodes.b.front.follow(nodes.a.leader(epoch=1))
        yield nodes, tap
        for node in (nodes.a, nodes.b, nodes.c):
            await node.close()
        nursery.cancel_scope.cancel()


async def get_all(client: Client, queue: str, size: int) -> bytes:
    """So many bytes of bodies, consumed."""
    await client.ask(methods.BasicConsume(queue=queue, no_ack=True), methods.BasicConsumeOk)
    body = b""
    while len(body) < size:
        frame = await client.frame()
        assert frame is not None
        if frame[0] == FRAME_BODY:
            body += frame[2]
    return body


@pytest.mark.parametrize("tls", [False, True])
def test_clients_are_carried_over_links_that_nobody_reads(tls: bool) -> None:
    """With TLS they are by themselves, since the links have it too."""

    async def conversation() -> None:
        async with tapped(**pki().settings() if tls else {}) as (nodes, tap):
            client = await connect(nodes.b) if tls else await nodes.b.connect()
            await client.ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)
            await client.publish("q", b"the body" * 100_000)
            await client.expect(methods.BasicAck)
            assert len(tap.heard) > 800_000
            assert not any(word in tap.heard for word in (b"guest", b"PLAIN", b"the body", b"RABBLINK", b"127.0.0.1"))
            nodes.change()
            await client.publish("q", b"the next" * 100_000)
            assert (await client.expect(methods.BasicAck)).delivery_tag == 2
            assert await get_all(client, "q", 800_000) == b"the next" * 100_000
            (row,) = listings.connections(nodes.new.node)
            assert row["ssl"] is tls
            await client.stream.aclose()
            await until(lambda: not nodes.new.node.links and nodes.b.front.relays == 0)

    converse(conversation)


def test_tls_of_clients_passes_through_tls_of_links() -> None:
    async def conversation() -> None:
        b = FrontNode("b", **pki().settings(**pki().links(), gateway_tls="pass_on"))
        a = FrontNode("a", **pki().links())
        async with broker(**pki().settings()) as running, fronts(a, b):
            leads(a, running.node, b)
            client = await connect(b)
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await client.publish("q", b"the body" * 100_000)
            assert await get_all(client, "q", 800_000) == b"the body" * 100_000
            (row,) = listings.connections(running.node)
            assert row["ssl"]
            await client.stream.aclose()
            await until(lambda: not running.node.links and b.front.relays == 0)

    converse(conversation)


def test_a_half_closed_client_still_gets_its_answers() -> None:
    async def conversation() -> None:
        async with three(links=pki().links()) as nodes:
            client = await nodes.b.connect()
            await client.send(methods.QueueDeclare(queue="q", passive=True))
            await client.stream.send_eof()
            await client.expect(methods.QueueDeclareOk)
            assert await client.ended()

    converse(conversation)


# --- Who is no node ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def leading(cert: trustme.LeafCert | None = None) -> AsyncIterator[tuple[FrontNode, Running]]:
    """A node that leads, and whose links have TLS."""
    a = FrontNode("a", **pki().links(cert))
    async with broker() as running, fronts(a):
        leads(a, running.node)
        yield a, running


def dialler(cert: trustme.LeafCert | None = None) -> LinkTls:
    """That of a node with a certificate."""
    return LinkTls(Settings(**pki().links(cert)))  # type: ignore[arg-type]


def refusals(node: FrontNode) -> list[object]:
    """Why it took none of those who were none."""
    return [details["reason"] for event, details in node.noted if event == "link_refused"]


def test_who_has_no_certificate_or_another_authoritys_is_no_node() -> None:
    async def conversation() -> None:
        async with leading() as (a, running):
            with pytest.raises(RelayFailed):
                await open_relay(a.links, SECRET, SOMEBODY)
            with pytest.raises(RelayFailed):
                await open_relay(a.links, SECRET, SOMEBODY, dialler(pki().stranger))
            with pytest.raises(RelayFailed, match="does not know this cluster's secret"):
                await open_relay(a.links, b"guessed", SOMEBODY, dialler())
            await until(lambda: len(refusals(a)) >= 2)
            assert refusals(a)[:2] == [
                "TLS: the peer does not speak TLS but b'RABBLINK'",
                "TLS: the client's certificate: unable to get local issuer certificate",
            ]
            assert not running.node.links
            async with await open_relay(a.links, SECRET, SOMEBODY, dialler()) as stream:
                await Client(stream).handshake()  # type: ignore[arg-type]

    converse(conversation)


def test_nor_is_a_leader_whose_certificate_is_another_authoritys_or_who_has_none() -> None:
    async def conversation() -> None:
        async with leading(pki().stranger) as (a, _):
            with pytest.raises(RelayFailed, match="the server's certificate: unable to get local issuer") as failed:
                await open_relay(a.links, SECRET, SOMEBODY, dialler())
            assert failed.value.final
        plain = FrontNode("a")
        async with fronts(plain):
            with pytest.raises(RelayFailed) as failed:
                await open_relay(plain.links, SECRET, SOMEBODY, dialler())
            assert refusals(plain) == ["the peer is no node of a cluster"]

    converse(conversation)


def test_who_stands_between_two_nodes_cannot_pass_their_proofs_on() -> None:
    """With a good certificate, but not knowing the secret."""

    async def conversation() -> None:
        between = dialler(pki().server)
        async with leading() as (a, running), trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            passed: list[bytes] = []

            async def pass_on(near: trio.abc.Stream, far: trio.abc.Stream, scope: trio.CancelScope) -> None:
                with suppress(*BROKEN):
                    while data := await near.receive_some():
                        passed.append(bytes(data))
                        await far.send_all(data)
                scope.cancel()

            async def relay(stream: trio.SocketStream) -> None:
                near = await between(stream, False)
                far = await between(await trio.open_tcp_stream(*a.links), True)
                async with near, far, trio.open_nursery() as both:
                    both.start_soon(pass_on, near, far, both.cancel_scope)
                    both.start_soon(pass_on, far, near, both.cancel_scope)

            nursery.start_soon(trio.serve_listeners, relay, [listener])
            with pytest.raises(RelayFailed, match="does not know this cluster's secret"):
                await open_relay(listener.socket.getsockname()[:2], SECRET, SOMEBODY, dialler())
            assert len(passed) >= 2 and all(data.startswith(b"RABBLINK") for data in passed[:2])
            assert not running.node.links
            nursery.cancel_scope.cancel()

    converse(conversation)


def test_who_says_nothing_is_hung_up_on() -> None:
    async def conversation() -> None:
        async with leading() as (a, _), await trio.open_tcp_stream(*a.links) as silent:
            assert await silent.receive_some() == b""

    converse(conversation, faster=20)


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificates() -> Iterator[Pki]:
    yield pki()
    pki().links()


def test_the_certificate_of_links_can_be_changed(certificates: Pki, lines: Lines) -> None:
    async def conversation() -> None:
        async with leading() as (a, _):
            assert a.secure is not None
            dials = dialler()

            async def shown() -> bytes:
                stream = await dials(await trio.open_tcp_stream(*a.links), True)
                await stream.aclose()
                return stream.take().peer_der()

            path = trio.Path(a.settings.cluster_ssl_options_certfile)
            before = await shown()
            await path.write_bytes(pki().next_server.private_key_and_cert_chain_pem.bytes())
            await a.secure.reload(get_log())
            after = await shown()
            assert before != after
            async with await open_relay(a.links, SECRET, SOMEBODY, dials):
                pass  # each with its own
            await path.write_text("half of it")
            await a.secure.reload(get_log())
            assert await shown() == after

    converse(conversation)
    (fault,) = lines.faults
    assert fault.startswith("error the new certificate of the links cannot be used, the one before stays ")


def test_files_that_are_no_good(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("junk")
    for which in ("certfile", "cacertfile", "keyfile"):
        with pytest.raises(CertificateError, match="junk"):
            LinkTls(Settings(**{**pki().links(), f"cluster_ssl_options_{which}": str(junk)}))  # type: ignore[arg-type]


def test_who_shows_no_certificate_is_told_off() -> None:
    async def conversation() -> None:
        async with leading() as (a, _):
            context = pki().client()
            context.check_hostname = False
            tls = trio.SSLStream(await trio.open_tcp_stream(*a.links), context)
            await tls.do_handshake()  # over for the client, before it is for the other side
            with pytest.raises(trio.BrokenResourceError) as broken:
                await tls.receive_some()
            assert isinstance(broken.value.__cause__, ssl.SSLError)
            assert broken.value.__cause__.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
            await trio.aclose_forcefully(tls)
            await until(lambda: refusals(a) == ["TLS: peer did not return a certificate"])

    converse(conversation)


def test_old_tls_is_no_good() -> None:
    async def conversation() -> None:
        async with leading() as (a, _):
            context = pki().client(pki().me)
            context.check_hostname = False
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            tls = trio.SSLStream(await trio.open_tcp_stream(*a.links), context)
            with pytest.raises(trio.BrokenResourceError) as broken:
                await tls.do_handshake()
            assert isinstance(broken.value.__cause__, ssl.SSLError)
            assert broken.value.__cause__.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
            await trio.aclose_forcefully(tls)

    converse(conversation)


@pytest.mark.parametrize(("gateway", "carried"), [("auto", False), ("carry", True), ("pass_on", False)])
def test_without_tls_on_links_that_of_clients_is_passed_on(gateway: str, carried: bool) -> None:
    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b", **pki().settings(gateway_tls=gateway))
        async with broker(**pki().settings()) as running, fronts(a, b):
            leads(a, running.node, b)
            tls = await secured(b)
            await until(lambda: b.front.relays == 1)
            await until(lambda: len(running.node.links) == 1)
            (link,) = running.node.links.values()
            assert link.carried is carried
            await tls.aclose()

    converse(conversation)
