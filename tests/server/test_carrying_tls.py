"""A client with TLS of a node that does not lead, which shakes hands itself: a change of leaders is a pause for it."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from rabbitish.cluster.protocol.frames import Relay
from rabbitish.cluster.relay import RelayFailed, open_relay
from rabbitish.server import listings
from rabbitish.server.log import get_log
from rabbitish.server.secured import Secured
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_BODY, FRAME_HEARTBEAT, PROTOCOL_HEADER
from tests.server.fronts import SECRET, FrontNode, fronts, leads
from tests.server.support import Client, broker, converse, until
from tests.server.test_carrying import Three, consume_late, hang_up, three
from tests.server.test_tls import Lines, der
from tests.server.tls import HOST, TLS_1_2, TLS_1_3, Pki, pki

NAMES = {"ssl_cert_login": True, "ssl_cert_login_from": "common_name"}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    return Lines(caplog)


@pytest.fixture
def certificates() -> Iterator[Pki]:
    yield pki()
    pki().write(pki().server)


@asynccontextmanager
async def secured_three(old: dict[str, object] | None = None, **settings: object) -> AsyncIterator[Three]:
    """Three nodes, of which only `b` has a certificate, and shakes hands."""
    async with three(old, **pki().settings(gateway_tls="carry", **settings)) as nodes:
        yield nodes


async def secured(node: FrontNode, context: ssl.SSLContext | None = None) -> trio.SSLStream[trio.SocketStream]:
    """A connection with TLS to a node's only listener, with the handshake done."""
    raw = await node.open()
    tls = trio.SSLStream(raw.stream, context or pki().client(), server_hostname=HOST, https_compatible=True)
    await tls.do_handshake()
    return tls


async def connect(node: FrontNode, context: ssl.SSLContext | None = None, heartbeat: int = 0) -> Client:
    client = Client(await secured(node, context))  # type: ignore[arg-type]
    await client.handshake(heartbeat)
    return client


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("at_home", [False, True])
def test_the_same_connection_goes_on_at_the_next_leader(at_home: bool, version: ssl.TLSVersion) -> None:
    async def conversation() -> None:
        async with secured_three() as nodes:
            context = pki().client()
            context.minimum_version = context.maximum_version = version
            client = await connect(nodes.b, context)
            await client.ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)
            await client.publish("q", b"1" * 300_000)
            assert (await client.expect(methods.BasicAck)).delivery_tag == 1
            (before,) = listings.connections(nodes.old.node)
            nodes.change(at_home)
            await client.publish("q", b"2" * 300_000)
            assert (await client.expect(methods.BasicAck)).delivery_tag == 2
            await client.ask(methods.BasicConsume(queue="q", no_ack=True), methods.BasicConsumeOk)
            size = 0
            while size < 300_000:
                frame = await client.frame()
                assert frame is not None
                size += len(frame[2]) if frame[0] == FRAME_BODY else 0
            (after,) = listings.connections(nodes.new.node)
            for row in (before, after):
                assert (row["ssl"], row["ssl_protocol"]) == (True, f"tlsv1.{2 + version - TLS_1_2}")
                assert row["ssl_cipher"]
                assert row["peer_port"] == client.stream.transport_stream.socket.getsockname()[1]  # type: ignore[attr-defined]
            await client.stream.aclose()
            await until(lambda: not nodes.new.node.links and nodes.b.front.relays == 0)

    converse(conversation)


def test_a_flood_goes_on_with_every_message_in_order() -> None:
    async def conversation() -> None:
        async with secured_three() as nodes:
            client, count, size = await connect(nodes.b), 300, 20_000
            await client.ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)

            async def flood() -> None:
                for _ in range(count):
                    await client.publish("q", b"x" * size)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood)
                confirmed = 0
                while confirmed < count:
                    tag = (await client.expect(methods.BasicAck)).delivery_tag
                    assert tag > confirmed
                    confirmed = tag
                    if confirmed > count // 3 and not nodes.new.node.links:
                        nodes.change()
                        await until(lambda: len(nodes.new.node.links) == 1)
            had, has = (each.node.broker.vhosts["/"].queues["q"] for each in (nodes.old, nodes.new))
            assert had.ready + has.ready >= count
            assert has.ready and had.bytes + has.bytes == (had.ready + has.ready) * size

    converse(conversation)


def test_a_client_that_does_not_read_gets_everything_whole_when_it_does() -> None:
    """What was enciphered and not sent when the leader went comes first."""

    async def conversation() -> None:
        async with secured_three() as nodes:
            client, count = await connect(nodes.b), 150
            await client.publish("q", b"x" * 100_000, count)
            old = nodes.old.node.broker.vhosts["/"].queues["q"]
            await until(lambda: old.ready == count)
            await consume_late(nodes, client)

    converse(conversation)


# --- Who it is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_home", [False, True])
def test_a_certificate_is_a_login_at_each_leader(at_home: bool, tmp_path: Path) -> None:
    """Though neither leader has a setting about that, nor a certificate."""
    audit = tmp_path / "audit"

    async def conversation() -> None:
        asks = pki().asking(required=False, gateway_tls="carry", **NAMES)
        async with three({"audit_log": str(audit)}, **asks) as nodes:
            for each in (nodes.old.node, nodes.new.node):
                each.hub.access.add_known_user("me", "unknown", frozenset(), "/")
            client = await external(nodes.b, pki().client(pki().me))
            assert await client.expect(methods.ConnectionTune)
            await client.send(methods.ConnectionTuneOk(channel_max=10, frame_max=131_072, heartbeat=0), 0)
            await client.send(methods.ConnectionOpen(virtual_host="/"), 0)
            await client.expect(methods.ConnectionOpenOk)
            await client.ask(methods.ChannelOpen(), methods.ChannelOpenOk)
            (before,) = listings.connections(nodes.old.node)
            nodes.change(at_home)
            await client.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)
            (after,) = listings.connections(nodes.new.node)
            for row in (before, after):
                assert (row["user"], row["auth_mechanism"]) == ("me", "EXTERNAL")
                assert str(row["peer_cert_subject"]).startswith("CN=me,")
                assert "Testing CA" in str(row["peer_cert_issuer"])
                assert str(row["peer_cert_validity"]).count("Z") == 2
            name = before["name"]
        told = [json.loads(line) for line in audit.read_text().splitlines()]
        assert [(each["event"], each["user"], each["mechanism"], each["connection"]) for each in told] == [
            ("login", "me", "EXTERNAL", name)
        ]

    converse(conversation)


async def external(node: FrontNode, context: ssl.SSLContext) -> Client:
    """A client that says it is whom its certificate says."""
    client = Client(await secured(node, context))  # type: ignore[arg-type]
    await client.stream.send_all(PROTOCOL_HEADER)
    start = await client.expect(methods.ConnectionStart)
    assert b"EXTERNAL" in start.mechanisms.split()
    capable = {"capabilities": {"authentication_failure_close": True}}
    answer = methods.ConnectionStartOk(client_properties=capable, mechanism="EXTERNAL", response=b"", locale="en_US")
    await client.send(answer, 0)
    return client


def test_a_certificate_of_nobody_is_no_login_and_a_password_still_is() -> None:
    async def conversation() -> None:
        async with three(**pki().asking(required=False, gateway_tls="carry", **NAMES)) as nodes:
            for context in (pki().client(), pki().client(pki().me)):  # without, and of a user who is not there
                client = await external(nodes.b, context)
                assert (await client.expect(methods.ConnectionClose)).reply_code == 403
            client = await connect(nodes.b)
            nodes.change()
            await client.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)

    converse(conversation)


def test_without_the_setting_a_certificate_is_no_login_though_it_is_at_the_leader() -> None:
    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b", **pki().asking(required=False, gateway_tls="carry"))
        async with broker(**pki().asking(required=False, **NAMES)) as running, fronts(a, b):
            leads(a, running.node, b)
            tls = await secured(b, pki().client(pki().me))
            await tls.send_all(PROTOCOL_HEADER)
            start = await Client(tls).expect(methods.ConnectionStart)  # type: ignore[arg-type]
            assert start.mechanisms == b"AMQPLAIN PLAIN"

    converse(conversation)


def test_guest_may_come_from_loopback_alone_with_tls_too() -> None:
    async def conversation() -> None:
        a = FrontNode("a")
        async with broker(refused_linger_ms=0) as running, fronts(a):
            leads(a, running.node)
            told = Secured("TLSv1.3", "TLS_AES_256_GCM_SHA384").encode()
            far = Relay(("10.1.2.3", 4711), ("10.9.9.9", 5671), "amqps", secured=told)
            async with await open_relay(a.links, SECRET, far) as stream:
                with pytest.raises(AssertionError, match="ended before ConnectionTune"):
                    await Client(stream).handshake()
            near = far._replace(client=("127.9.9.9", 4711))
            async with await open_relay(a.links, SECRET, near) as stream:
                await Client(stream).handshake()

    converse(conversation)


@pytest.mark.parametrize("told", [b"nonsense", b"[]", b"{}", Secured("1", "2")._replace(subject=3).encode()])  # type: ignore[arg-type]
def test_what_says_nothing_of_a_clients_tls_is_refused(told: bytes) -> None:
    async def conversation() -> None:
        a = FrontNode("a")
        async with broker() as running, fronts(a):
            leads(a, running.node)
            with pytest.raises(RelayFailed) as failed:
                await open_relay(a.links, SECRET, Relay(("::1", 4711), ("::1", 5671), "amqps", secured=told))
            assert failed.value.final
            assert not running.node.links

    converse(conversation)


# --- Handshakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_home", [False, True])
def test_a_handshake_goes_on_while_leadership_moves(at_home: bool) -> None:
    async def conversation() -> None:
        async with secured_three() as nodes:
            raw = await nodes.b.open()
            tls = pki().client().wrap_bio(heard := ssl.MemoryBIO(), said := ssl.MemoryBIO(), server_hostname=HOST)
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            await raw.stream.send_all(said.read())
            heard.write(await raw.stream.receive_some())
            nodes.change(at_home)
            await trio.testing.wait_all_tasks_blocked()
            tls.do_handshake()
            tls.write(PROTOCOL_HEADER)  # together with the end of the handshake
            await raw.stream.send_all(said.read())
            await until(lambda: len(nodes.new.node.links) == 1)
            heard.write(await raw.stream.receive_some())
            assert tls.read(1) == b"\1"
            assert not nodes.old.node.links
            assert nodes.b.front.relays == (0 if at_home else 1)
            (row,) = listings.connections(nodes.new.node)
            assert (row["peer_port"], row["ssl"]) == (raw.stream.socket.getsockname()[1], True)

    converse(conversation)


async def refused(node: FrontNode, context: ssl.SSLContext) -> str:
    """The reason that a client is given."""
    with pytest.raises(trio.BrokenResourceError) as broken:
        await (await secured(node, context)).receive_some()
    assert isinstance(broken.value.__cause__, ssl.SSLError)
    return str(broken.value.__cause__.reason)


def test_who_is_refused_is_refused_as_by_the_leader(lines: Lines) -> None:
    async def conversation() -> None:
        async with three(**pki().asking(required=True, gateway_tls="carry")) as nodes:
            alert = await refused(nodes.b, pki().client())
            assert alert == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
            assert await refused(nodes.b, pki().client(pki().stranger)) == "TLSV1_ALERT_UNKNOWN_CA"
            assert await refused(nodes.b, pki().client(pki().expired)) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
            plain = await nodes.b.open()
            await plain.stream.send_all(PROTOCOL_HEADER)
            assert await plain.ended()
            await connect(nodes.b, pki().client(pki().me))
            await until(lambda: nodes.b.front.relays == 1)
            assert len(nodes.old.node.links) == 1

    converse(conversation, faster=10)  # broken clients are given a second to hang up
    assert lines.faults == [
        f'warning TLS handshake failed reason="{reason}"'
        for reason in (
            "peer did not return a certificate",
            "the client's certificate: unable to get local issuer certificate",
            "the client's certificate: certificate has expired",
            "the peer does not speak TLS but plain AMQP",
        )
    ]


def test_a_slow_handshake_is_cut_off_and_counts_as_a_connection(lines: Lines) -> None:
    async def conversation() -> None:
        async with secured_three(handshake_timeout_ms=30_000, max_connections=2) as nodes:
            began = trio.current_time()
            silent, slow = (await nodes.b.open()).stream, (await nodes.b.open()).stream
            await slow.send_all(b"\x16\x03\x01\x02")
            await until(lambda: nodes.b.front.relays == 2)
            assert await (await nodes.b.open()).ended()
            assert trio.current_time() - began < 30
            for stream in (silent, slow):
                assert await stream.receive_some() == b""
                assert trio.current_time() - began >= 30
            await until(lambda: nodes.b.front.relays == 0)
            await connect(nodes.b)

    converse(conversation, faster=20)
    assert lines.faults == ["warning too many connections most=2"] + ["warning TLS handshake took too long"] * 2


def test_certificates_that_are_read_again_count_for_new_connections(certificates: Pki) -> None:
    async def conversation() -> None:
        async with secured_three() as nodes:
            client = await connect(nodes.b)
            assert nodes.b.certificates is not None
            for cert in (certificates.server, certificates.next_server):
                certificates.write(cert)
                await nodes.b.certificates.reload(get_log())
                tls = await secured(nodes.b)
                assert tls.getpeercert(binary_form=True) == der(cert)  # type: ignore[attr-defined]
                await tls.aclose()
            await client.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)

    converse(conversation)


# --- Ends -------------------------------------------------------------------------------------------------------------


def test_who_has_no_successor_is_told_so_and_taken_leave_of() -> None:
    async def conversation() -> None:
        async with secured_three(gateway_patience_s=4) as nodes:
            client = await connect(nodes.b, heartbeat=2)
            nodes.b.front.follow(None)
            await hang_up(nodes.old.node)
            beats = 0
            while (frame := await client.frame()) is not None and frame[0] == FRAME_HEARTBEAT:
                beats += 1
            assert frame is not None and beats
            close = methods.decode_method(frame[2])
            assert isinstance(close, methods.ConnectionClose)
            assert close.reply_text == "CONNECTION_FORCED - nobody leads"
            assert await client.stream.receive_some() == b""
            assert client.stream._ssl_object.read(1) == b""  # type: ignore[attr-defined]  # by close_notify
            await client.stream.transport_stream.send_all(b"x" * 100_000)  # type: ignore[attr-defined]
            await client.stream.aclose()
            await until(lambda: nodes.b.front.relays == 0)

    converse(conversation, faster=10)


def test_a_client_that_closes_in_order_is_gone_from_both() -> None:
    async def conversation() -> None:
        async with secured_three() as nodes:
            client = await connect(nodes.b)
            await client.send(methods.ConnectionClose(), 0)
            await client.expect(methods.ConnectionCloseOk)
            await client.stream.aclose()
            await until(lambda: nodes.b.front.relays == 0 and not nodes.old.node.links)

    converse(conversation)


def test_a_client_that_hangs_up_while_nobody_leads() -> None:
    async def conversation() -> None:
        async with secured_three() as nodes:
            client = await connect(nodes.b)
            nodes.b.front.follow(None)
            await hang_up(nodes.old.node)
            await trio.testing.wait_all_tasks_blocked()
            await client.stream.aclose()
            nodes.change()
            await until(lambda: nodes.b.front.relays == 0 and not nodes.new.node.links)

    converse(conversation)


def test_a_client_that_nobody_takes_is_turned_away_after_its_handshake(lines: Lines) -> None:
    async def conversation() -> None:
        async with fronts(b := FrontNode("b", **pki().settings(gateway_tls="carry"))):
            tls = await secured(b)
            before = trio.current_time()
            assert await tls.receive_some() == b""
            assert trio.current_time() - before > 9

    converse(conversation, faster=20)
    (fault,) = lines.faults
    assert fault.startswith("warning no leader took a connection ")
    assert fault.endswith('reason="nobody leads"')
