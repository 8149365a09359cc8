"""Conversations over TLS with a whole broker, and with those who cannot have one."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trustme

from rabbitish.config import Settings
from rabbitish.server.certificates import CertificateError, read_context
from rabbitish.server.log import LineFormatter
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_BODY, PROTOCOL_HEADER

from .support import Running, broker, converse, until
from .tls import HOST, TLS_1_2, TLS_1_3, Pki, connect, pki, stream

BOTH = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


@pytest.fixture
def certificates() -> Iterator[Pki]:
    yield pki()
    pki().write(pki().server)


class Lines:
    """What the broker has logged as warnings and errors, without the time."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        caplog.set_level("INFO", "rabbitish")

    def of(self, *levels: str) -> list[str]:
        lines = [LineFormatter().format(record).partition(" ")[2] for record in self._caplog.records]
        return [line for line in lines if line.startswith(levels)]

    @property
    def faults(self) -> list[str]:
        """Without who it was about."""
        lines = self.of("warning", "error")
        return [" ".join((*line.partition(" connection=")[0:1], line.partition('" ')[2])).strip() for line in lines]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    return Lines(caplog)


# --- Working ----------------------------------------------------------------------------------------------------------


@BOTH
def test_messages_small_and_large(certificates: Pki, version: ssl.TLSVersion, lines: Lines) -> None:
    body = b"".join(number.to_bytes(4, "big") for number in range(1 << 18))

    async def conversation() -> None:
        async with broker(**certificates.settings()) as running:
            context = certificates.client()
            context.maximum_version = version
            client = await connect(running, context)
            assert client.stream.version() == ("TLSv1.2" if version is TLS_1_2 else "TLSv1.3")  # type: ignore[attr-defined]
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await client.publish("q", b"small", times=3000)
            await client.publish("q", body)
            await client.ask(methods.BasicConsume(queue="q", no_ack=True), methods.BasicConsumeOk)
            await client.count_bodies(3001)
            got = b""
            while len(got) < len(body):
                frame = await client.frame()
                assert frame is not None
                if frame[0] == FRAME_BODY and len(frame[2]) > 5:
                    got += frame[2]
            assert got == body
        opened = lines.of("info connection opened")
        assert len(opened) == 1
        assert f" tls={client.stream.version()} " in opened[0]  # type: ignore[attr-defined]
        assert lines.faults == []

    converse(conversation)


def test_plain_and_tls_side_by_side(certificates: Pki) -> None:
    async def conversation() -> None:
        listen = ("amqp://127.0.0.1:0", "amqps://localhost:0", "amqps://127.0.0.1:0")
        async with broker(**certificates.settings(listen=listen)) as running:
            plain = await running.connect()
            await plain.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await plain.publish("q", b"hello")
            for port in running.ports[1:]:
                secured = await connect(running, port=port)
                declared = await secured.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)
                assert declared.message_count == 1

    converse(conversation)


def in_memory(context: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A TLS client without a socket: itself, what it hears, what it says."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return context.wrap_bio(incoming, outgoing, server_hostname=HOST), incoming, outgoing


@BOTH
def test_what_comes_with_the_end_of_the_handshake_is_heard(certificates: Pki, version: ssl.TLSVersion) -> None:
    """The protocol header in one packet with the end of the handshake: nothing else will wake the broker."""

    async def conversation() -> None:
        async with broker(**certificates.settings()) as running:
            tcp = (await running.open()).stream
            context = certificates.client()
            context.minimum_version = context.maximum_version = version
            tls, incoming, outgoing = in_memory(context)
            done = False
            while not done:
                try:
                    tls.do_handshake()
                    done = True
                    tls.write(PROTOCOL_HEADER)
                except ssl.SSLWantReadError:
                    await tcp.send_all(outgoing.read())
                    incoming.write(await tcp.receive_some())
            await tcp.send_all(outgoing.read())
            heard = None
            while heard is None:
                incoming.write(await tcp.receive_some())
                try:
                    heard = tls.read(7)
                except ssl.SSLWantReadError:
                    continue
            assert heard[:3] == b"\1\0\0"  # connection.start
            await tcp.aclose()

    converse(conversation)


def test_stopping_says_why_and_goodbye(certificates: Pki) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings(shutdown_grace_ms=10_000)) as running:
            client = await connect(running)
            shaking = (await running.open()).stream
            await shaking.send_all(b"\x16\x03\x01")
            assert running.node.tls is not None
            await until(lambda: running.node.tls.shaking == 1)  # type: ignore[union-attr]
            running.stop.set()
            await client.expect(methods.ConnectionClose)
            assert await shaking.receive_some() == b"", "nobody waits for a handshake"
            await client.send(methods.ConnectionCloseOk(), 0)
            assert await client.ended()

    converse(conversation)


# --- Who does not get in ----------------------------------------------------------------------------------------------


async def refused(running: Running, context: ssl.SSLContext) -> str:
    """What OpenSSL says to a client that the broker turns away."""
    with pytest.raises(trio.BrokenResourceError) as caught:
        # With TLS 1.3 a client is done before the broker has looked at its certificate.
        await (await stream(running, context)).receive_some()
    cause = caught.value.__cause__
    assert isinstance(cause, ssl.SSLError), cause
    return cause.reason


@BOTH
def test_clients_without_the_right_certificate(certificates: Pki, version: ssl.TLSVersion, lines: Lines) -> None:
    async def conversation() -> None:
        async with broker(**certificates.asking(required=True)) as running:
            said = []
            for cert in (None, certificates.stranger, certificates.expired):
                context = certificates.client(cert)
                context.maximum_version = version
                said.append(await refused(running, context))
            missing = "TLSV13_ALERT_CERTIFICATE_REQUIRED" if version is TLS_1_3 else "SSLV3_ALERT_HANDSHAKE_FAILURE"
            assert said == [missing, "TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_CERTIFICATE_EXPIRED"]
            context = certificates.client(certificates.me)
            context.maximum_version = version
            client = await connect(running, context)
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            assert lines.faults == [
                f'warning TLS handshake failed reason="{reason}"'
                for reason in (
                    "peer did not return a certificate",
                    "the client's certificate: unable to get local issuer certificate",
                    "the client's certificate: certificate has expired",
                )
            ]

    converse(conversation)


def test_a_certificate_that_may_be_missing_must_still_be_right(certificates: Pki) -> None:
    async def conversation() -> None:
        async with broker(**certificates.asking(required=False)) as running:
            await connect(running)
            await connect(running, certificates.client(certificates.me))
            assert await refused(running, certificates.client(certificates.stranger)) == "TLSV1_ALERT_UNKNOWN_CA"

    converse(conversation)


def test_without_verification_nobody_is_asked(certificates: Pki) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings()) as running:
            client = await connect(running, certificates.client(certificates.stranger))
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)

    converse(conversation)


@pytest.mark.parametrize("login", [True, False])
def test_the_users_name_is_in_the_certificate(certificates: Pki, login: bool) -> None:
    async def conversation() -> None:
        names = {"ssl_cert_login": login, "ssl_cert_login_from": "subject_alternative_name"}
        async with broker(**certificates.asking(required=False, **names)) as running:
            for cert, name in ((certificates.me, "me.example"), (None, "")):
                client = await connect(running, certificates.client(cert))
                (session,) = running.node.links
                assert session.peer_certificate_name == (name if login else None)
                await client.stream.aclose()
                await until(lambda: not running.node.links)

    converse(conversation)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
@pytest.mark.parametrize(
    ("versions", "theirs"),
    [(("tlsv1.2", "tlsv1.3"), ssl.TLSVersion.TLSv1_1), (("tlsv1.3",), TLS_1_2)],
    ids=["1.1", "1.2 where only 1.3 is"],
)
def test_old_versions(certificates: Pki, versions: tuple[str, ...], theirs: ssl.TLSVersion, lines: Lines) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings(ssl_options_versions=versions)) as running:
            context = certificates.client()
            context.minimum_version = context.maximum_version = theirs
            context.set_ciphers("ALL:@SECLEVEL=0")  # or it would not even ask
            assert await refused(running, context) == "TLSV1_ALERT_PROTOCOL_VERSION"
            assert lines.faults == ['warning TLS handshake failed reason="unsupported protocol"']

    converse(conversation)


def test_only_1_2(certificates: Pki) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings(ssl_options_versions=("tlsv1.2",))) as running:
            assert (await stream(running, certificates.client())).version() == "TLSv1.2"  # type: ignore[attr-defined]

    converse(conversation)


def test_only_these_ciphers_and_the_first_that_both_have(certificates: Pki) -> None:
    ours = ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256")

    async def conversation() -> None:
        async with broker(**certificates.settings(ssl_options_ciphers=ours)) as running:
            context = certificates.client()
            context.maximum_version = TLS_1_2
            context.set_ciphers(":".join(ours[::-1]))
            assert (await stream(running, context)).cipher()[0] == ours[0]  # type: ignore[attr-defined]
            context.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
            assert await refused(running, context) == "SSLV3_ALERT_HANDSHAKE_FAILURE"

    converse(conversation)


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        (PROTOCOL_HEADER, '"the peer does not speak TLS but plain AMQP"'),
        (b"AMQ", '"the peer does not speak TLS but plain AMQP"'),
        (b"GET / HTTP/1.1\r\n\r\n", "\"the peer does not speak TLS but b'GET / HT'\""),
        (b"\x16\x03\x01\0\x05hello", '"unexpected message"'),
        (b"\x16garbage", '"wrong version number"'),
    ],
)
def test_no_tls_on_a_port_for_it(certificates: Pki, opening: bytes, reason: str, lines: Lines) -> None:
    """It ends at once, and does not keep others waiting."""

    async def conversation() -> None:
        async with broker(**certificates.settings()) as running:
            client = await connect(running)
            tcp = (await running.open()).stream
            await tcp.send_all(opening)
            alert = await tcp.receive_some()
            assert alert == b"" or alert[0] == 0x15
            if opening[0] != 0x16:
                assert alert == b"", "an alert would be noise to those who do not know TLS"
            await tcp.aclose()
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await until(lambda: running.node.tls.shaking == 0)  # type: ignore[union-attr]
            assert lines.faults == [f"warning TLS handshake failed reason={reason}"]

    converse(conversation)


def test_tls_on_a_port_without(certificates: Pki, lines: Lines) -> None:
    async def conversation() -> None:
        async with broker() as running:
            client = await running.connect()
            assert await refused(running, certificates.client()) == "WRONG_VERSION_NUMBER"
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            (fault,) = lines.faults
            assert fault.startswith("warning wrong protocol header ")
            assert fault.endswith(' hint="TLS on a port without"')

    converse(conversation)


def test_who_looks_in_and_leaves_is_not_worth_a_line(certificates: Pki, lines: Lines) -> None:
    """Load balancers do, every few seconds."""

    async def conversation() -> None:
        async with broker(**certificates.settings()) as running:
            for said in (b"", b"\x16\x03"):
                tcp = (await running.open()).stream
                await tcp.send_all(said)
                await tcp.send_eof()
                assert await tcp.receive_some() == b""
                await tcp.aclose()
            assert lines.faults == ['warning TLS handshake failed reason="the peer hung up"']

    converse(conversation)


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_a_slow_handshake_is_cut_off_and_holds_up_nobody(certificates: Pki, lines: Lines) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings(handshake_timeout_ms=30_000)) as running:
            began = trio.current_time()
            slow = [(await running.open()).stream for _ in range(20)]
            for tcp in slow[1:]:
                await tcp.send_all(b"\x16\x03\x01\x02")
            client = await connect(running)
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            assert trio.current_time() - began < 30
            for tcp in slow:
                assert await tcp.receive_some() == b""
                assert trio.current_time() - began >= 30
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            assert lines.faults == ["warning TLS handshake took too long"] * 20

    converse(conversation, faster=20)


def test_tls_and_amqp_share_the_time(certificates: Pki, lines: Lines) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings(handshake_timeout_ms=100_000)) as running:
            began = trio.current_time()
            tcp = (await running.open()).stream
            await trio.sleep(30)
            tls = trio.SSLStream(tcp, certificates.client(), server_hostname=HOST, https_compatible=True)
            await tls.do_handshake()
            assert await tls.receive_some() == b""
            assert 100 <= trio.current_time() - began < 150
            assert lines.faults == ["warning handshake took too long tls=TLSv1.3 state=header"]

    converse(conversation, faster=100)


def test_handshakes_count_as_connections(certificates: Pki, lines: Lines) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings(max_connections=2)) as running:
            await connect(running)
            shaking = (await running.open()).stream
            await until(lambda: running.node.tls.shaking == 1)  # type: ignore[union-attr]
            third = (await running.open()).stream
            assert await third.receive_some() == b""
            await shaking.aclose()
            await until(lambda: running.node.tls.shaking == 0)  # type: ignore[union-attr]
            tls = await stream(running, certificates.client())
            await tls.send_all(PROTOCOL_HEADER)
            assert await tls.receive_some(1) == b"\1"
            assert lines.faults == ["warning too many connections most=2"]

    converse(conversation)


# --- Certificates -----------------------------------------------------------------------------------------------------


async def shown(running: Running) -> bytes:
    """The certificate that a new connection is shown."""
    tls = await stream(running, pki().client())
    shown = tls.getpeercert(binary_form=True)  # type: ignore[attr-defined]
    await tls.aclose()
    assert isinstance(shown, bytes)
    return shown


def der(cert: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(cert.cert_chain_pems[0].bytes().decode())


def test_new_connections_get_the_new_certificate(certificates: Pki, lines: Lines) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings()) as running:
            client = await connect(running)
            assert await shown(running) == der(certificates.server)
            certificates.write(certificates.next_server)
            assert await shown(running) == der(certificates.server)
            await running.node.reload()
            assert await shown(running) == der(certificates.next_server)
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            certfile = certificates.certfile
            assert f"info the certificate was read again certfile={certfile}" in lines.of("info the")

    converse(conversation)


def test_a_broken_certificate_does_not_replace_a_good_one(certificates: Pki, lines: Lines) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings()) as running:
            certificates.spoil()
            await running.node.reload()
            assert await shown(running) == der(certificates.server)
            assert lines.faults == [
                "error the new certificate cannot be used, the one before stays "
                f'error="there is no certificate in PEM format in {certificates.certfile}"'
            ]
            certificates.write(certificates.next_server)
            await running.node.reload()
            assert await shown(running) == der(certificates.next_server)

    converse(conversation)


def test_without_tls_there_is_nothing_to_reload(lines: Lines) -> None:
    async def conversation() -> None:
        async with broker() as running:
            await running.node.reload()
            await running.connect()
        assert lines.faults == []

    converse(conversation)


def test_files_that_are_no_good(certificates: Pki, tmp_path: Path) -> None:
    cert, key, ca = certificates.certfile, certificates.keyfile, certificates.cacertfile
    junk, cut, other = tmp_path / "junk", tmp_path / "cut", tmp_path / "other"
    junk.write_text("junk")
    cut.write_text(Path(cert).read_text()[:200])
    certificates.other_ca.issue_cert("x").private_key_pem.write_to_path(other)
    complaints = {
        ("nowhere", key, ca): "cannot read nowhere: No such file or directory",
        (cert, str(tmp_path), ca): f"cannot read {tmp_path}: Is a directory",
        (junk, key, ca): f"there is no certificate in PEM format in {junk}",
        (cut, key, ca): f"cannot use {cut} with the key in {key}: ",
        (cert, "", ca): f"there is no private key in PEM format in {cert}",
        (cert, other, ca): f"the key in {other} does not belong to the certificate in {cert}",
        (cert, key, junk): f"there is no certificate in PEM format in {junk}",
        (cert, key, key): f"there is no certificate in PEM format in {key}",
        (cert, key, cut): f"cannot use the authorities in {cut}: ",
    }
    for (certfile, keyfile, cacertfile), complaint in complaints.items():
        settings = Settings(
            ssl_options_certfile=str(certfile),
            ssl_options_keyfile=str(keyfile),
            ssl_options_cacertfile=str(cacertfile),
            ssl_options_verify="verify_peer",
        )
        with pytest.raises(CertificateError) as caught:
            read_context(settings)
        assert str(caught.value).startswith(complaint)


def test_a_cipher_that_there_is_not(certificates: Pki) -> None:
    settings = Settings(ssl_options_certfile=certificates.certfile, ssl_options_ciphers=("AES128-GCM-SHA256", "ROT13"))
    with pytest.raises(CertificateError, match="ssl_options_ciphers: OpenSSL has no cipher 'ROT13'"):
        read_context(settings)


def test_certificate_and_key_in_one_file_and_an_encrypted_key(certificates: Pki, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as pem

    both = certificates.file(certificates.server, "both.pem")
    assert read_context(Settings(ssl_options_certfile=both)).verify_mode is ssl.CERT_NONE
    key = pem.load_pem_private_key(certificates.server.private_key_pem.bytes(), None)
    keyfile = tmp_path / "encrypted"
    encryption = pem.BestAvailableEncryption(b"sesame")
    keyfile.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption))
    files = {"ssl_options_certfile": certificates.certfile, "ssl_options_keyfile": str(keyfile)}
    read_context(Settings(**files, ssl_options_password="sesame"))  # type: ignore[arg-type]
    for wrong in ("", "simsim", "s" * 2000):
        with pytest.raises(CertificateError, match=r"^ssl_options_password does not open the key in "):
            read_context(Settings(**files, ssl_options_password=wrong))  # type: ignore[arg-type]


def test_a_broker_does_not_start_with_a_bad_certificate(certificates: Pki) -> None:
    async def conversation() -> None:
        async with broker(**certificates.settings(ssl_options_certfile="nowhere")):
            raise AssertionError

    with pytest.raises(ExceptionGroup) as caught:
        converse(conversation)
    assert caught.group_contains(CertificateError)
