"""Clients over TLS: with a password, by their certificate, and while the broker's certificate changes.

The broker listens for TLS and for plain connections, asks clients for a certificate, and lets in those without one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import amqp
import pika
import pika.exceptions
import pytest

from tests.server.tls import HOST, Pki, pki

from .conftest import REPOSITORY
from .support import DEADLINE, Lines, end_process, large_body, missing
from .test_node import node_folder  # noqa: F401  (the fixture)

USER, PASSWORD = "me", "secret"


class Served(NamedTuple):
    """A broker, its ports for TLS and without, and what it logs."""

    process: subprocess.Popen[str]
    port: int
    plain_port: int
    log: Lines


@pytest.fixture(scope="module")
def certificates() -> Pki:
    return pki()


@pytest.fixture(scope="module")
def served(certificates: Pki) -> Iterator[Served]:
    command = [sys.executable, "-m", "rabbitish", "serve", "--ephemeral"]
    command += ["--listen", "amqps://127.0.0.1:0", "--listen", "amqp://127.0.0.1:0"]
    command += ["--certfile", certificates.certfile, "--keyfile", certificates.keyfile]
    command += ["--cacertfile", certificates.cacertfile, "--set", "ssl_options.verify=verify_peer"]
    command += ["--set", "ssl_cert_login=true", "--set", "ssl_cert_login_from=common_name"]
    command += ["--set", f"default_user={USER}", "--set", f"default_pass={PASSWORD}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        log = Lines(process.stderr)
        try:
            urls = process.stdout.readline().split(" listening on ")[1].split(", ")
            port, plain_port = (int(url.rpartition(":")[2]) for url in urls)
            yield Served(process, port, plain_port, log)
        finally:
            code = end_process(process)
            log.finish()
    assert code == 0


Dial = Callable[..., pika.BlockingConnection]


@pytest.fixture
def dial(served: Served, certificates: Pki) -> Iterator[Dial]:
    """Connect with pika; a context means TLS."""
    opened: list[pika.BlockingConnection] = []

    def connect(context: ssl.SSLContext | None, port: int = 0, **login: object) -> pika.BlockingConnection:
        options = None if context is None else pika.SSLOptions(context, HOST)
        login = login or {"credentials": pika.PlainCredentials(USER, PASSWORD)}
        parameters = pika.ConnectionParameters("127.0.0.1", port or served.port, ssl_options=options, **login)
        opened.append(pika.BlockingConnection(parameters))
        return opened[-1]

    yield connect
    for connection in opened:
        if connection.is_open:
            connection.close()


def test_pika(dial: Dial, certificates: Pki) -> None:
    """Large bodies, small ones with a confirm each, and all of it back."""
    channel = dial(certificates.client()).channel()
    channel.confirm_delivery()
    channel.queue_declare("pika", exclusive=True)
    body = large_body(1 << 20)
    channel.basic_publish("", "pika", body)
    for number in range(1000):
        channel.basic_publish("", "pika", b"%d" % number)
    got = []
    for _, _, content in channel.consume("pika", auto_ack=True):
        got.append(content)
        if len(got) == 1001:
            break
    assert got == [body, *(b"%d" % number for number in range(1000))]


def test_py_amqp(served: Served, certificates: Pki) -> None:
    """A few thousand publishes at once, their confirms, and all of it back."""
    secured = {"ca_certs": certificates.cacertfile, "server_hostname": HOST, "cert_reqs": ssl.CERT_REQUIRED}
    address = f"127.0.0.1:{served.port}"
    # Where EXTERNAL is offered it would take that.
    with amqp.Connection(address, USER, PASSWORD, ssl=secured, login_method="PLAIN") as connection:
        channel = connection.channel()
        channel.queue_declare("py-amqp", exclusive=True)
        confirmed = 0

        def on_ack(tag: int, multiple: bool) -> None:
            nonlocal confirmed
            confirmed = tag

        channel.confirm_select()
        channel.events["basic_ack"].add(on_ack)
        body = large_body(1 << 20)
        channel.basic_publish(amqp.Message(body), routing_key="py-amqp")
        for number in range(3000):
            channel.basic_publish(amqp.Message(b"%d" % number), routing_key="py-amqp")
        while confirmed < 3001:
            connection.drain_events(timeout=DEADLINE)
        got: list[bytes] = []
        channel.basic_consume("py-amqp", no_ack=True, callback=lambda message: got.append(message.body))
        while len(got) < 3001:
            connection.drain_events(timeout=DEADLINE)
        assert got == [body, *(b"%d" % number for number in range(3000))]


def test_amqplib(served: Served, certificates: Pki, node_folder: Path) -> None:  # noqa: F811
    url = f"amqps://{USER}:{PASSWORD}@127.0.0.1:{served.port}/%2F"
    environ = {**os.environ, "NODE_EXTRA_CA_CERTS": certificates.cacertfile}
    for conversation, answer in {
        "large": [True, True],
        "confirms": {"refused": "message nacked", "messageCount": 3},
    }.items():
        command = ["node", "amqplib.mjs", url, conversation, f"node-{conversation}", "node-other"]
        done = subprocess.run(
            command, cwd=node_folder, env=environ, capture_output=True, text=True, timeout=2 * DEADLINE
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == answer


def test_openssl_s_client(served: Served, certificates: Pki) -> None:
    if not shutil.which("openssl"):
        missing("openssl is not installed")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-CAfile", certificates.cacertfile]
    command += ["-verify_return_error", "-verify_hostname", HOST, "-quiet", "-servername", HOST]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, bufsize=0, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"AMQP\0\0\x09\1")
        said = process.stdout.read(11)
        process.terminate()
    assert said[:3] == b"\1\0\0"
    assert said[7:] == b"\0\x0a\0\x0a", "connection.start"


# --- EXTERNAL ---------------------------------------------------------------------------------------------------------


def external() -> dict[str, object]:
    return {"credentials": pika.credentials.ExternalCredentials()}


def test_a_certificate_is_a_login(dial: Dial, served: Served, certificates: Pki) -> None:
    dial(certificates.client(certificates.me), **external()).channel()
    line = served.log.wait_for("connection opened")
    while " user=me " not in line or "tls=" not in line:
        line = served.log.wait_for("connection opened")


def test_without_a_certificate_it_is_none(dial: Dial, served: Served, certificates: Pki) -> None:
    for cert in (None, certificates.server):
        with pytest.raises(
            pika.exceptions.ProbableAuthenticationError, match="using authentication mechanism EXTERNAL"
        ):
            dial(certificates.client(cert), **external())
        served.log.wait_for("login refused")


def test_where_there_is_no_tls_it_is_not_offered(dial: Dial, served: Served) -> None:
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        dial(None, served.plain_port, **external())
    dial(None, served.plain_port)


# --- Certificates -----------------------------------------------------------------------------------------------------


def test_a_client_that_trusts_others_does_not_come_in(dial: Dial, served: Served, certificates: Pki) -> None:
    context = ssl.create_default_context()
    certificates.other_ca.configure_trust(context)
    with pytest.raises(ssl.SSLCertVerificationError):
        dial(context)
    assert "tlsv1 alert unknown ca" in served.log.wait_for("TLS handshake failed")


def test_sighup(dial: Dial, served: Served, certificates: Pki) -> None:
    """New connections get the new certificate; a broken one changes nothing; who is connected notices nothing."""

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", served.port), timeout=DEADLINE).strip()

    def pem(cert: object) -> str:
        return cert.cert_chain_pems[0].bytes().decode().strip()  # type: ignore[attr-defined, no-any-return]

    channel = dial(certificates.client()).channel()
    assert shown() == pem(certificates.server)
    try:
        certificates.spoil()
        served.process.send_signal(signal.SIGHUP)
        line = served.log.wait_for("the new certificate cannot be used, the one before stays")
        assert f'error="there is no certificate in PEM format in {certificates.certfile}"' in line
        assert shown() == pem(certificates.server)
        certificates.write(certificates.next_server)
        served.process.send_signal(signal.SIGHUP)
        served.log.wait_for("the certificate was read again")
        assert shown() == pem(certificates.next_server)
    finally:
        certificates.write(certificates.server)
    channel.queue_declare("still-here", exclusive=True)
