"""Fixtures of the conformance suite: the broker under test, peers and clients that are closed, names that are deleted.

Every case makes its own queues and exchanges with `name`, so that cases do not see each other and a failed one leaves
nothing behind. A case that hangs is cut off by an alarm. The broker is either given with --broker or it is rabbitish,
started with its data in a temporary folder and watched until its end: exit code 0 on SIGTERM, no traceback in its log.
With --through-mirror it is a cluster of three with its etcd, and cases connect to a node that does not lead; an
operator's commands are given to the leader, which alone answers them.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import pika
import pytest
from pamqp import commands
from pika.adapters.blocking_connection import BlockingChannel

from conformance.operating import Operator, Socket, Typed
from conformance.rawpeer import RawPeer, decode, raw_method, short, shortstr
from conformance.slow import running
from conformance.support import Broker, Names, parse_url

HERE = Path(__file__).parent
CASE_SECONDS = 30
_counts = pytest.StashKey[tuple[int, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rabbitmqctl", help="how to give the broker of --broker commands: rabbitmqctl -n rabbit@host")
    parser.addoption("--broker", help="judge this broker: amqp://user:password@host:port/vhost (default: rabbitish)")
    parser.addoption(
        "--through-mirror", action="store_true", help="judge a mirror in a cluster of rabbitish, with etcd"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--broker") and config.getoption("--through-mirror"):
        raise pytest.UsageError("--through-mirror starts a cluster of rabbitish, --broker wants another broker")
    config.addinivalue_line("markers", "slow: the broker itself takes a second or more")
    config.addinivalue_line("markers", "differs(rabbitmq, rabbitish, reason): rabbitish differs on purpose")


def _waits(item: pytest.Item) -> bool:
    return "outcomes" in getattr(item, "fixturenames", ())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_waits)  # stable: what waits for slow conversations comes last, when they are through
    ours = [item for item in items if HERE in item.path.parents]
    config.stash[_counts] = len(ours), sum(item.get_closest_marker("differs") is not None for item in ours)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    cases, different = config.stash.get(_counts, (0, 0))
    if cases:
        terminalreporter.write_line(f"{cases} cases, {different} where rabbitish differs from RabbitMQ on purpose")


# --- the broker ------------------------------------------------------------------------------------------------------


class Start(NamedTuple):
    """How the broker is started, to which options of `serve` are added, and how long it may take to start and end."""

    command: list[str]
    start_seconds: float
    stop_seconds: float


def _start(folder: Path, *, through_mirror: bool) -> Start:
    """Of a broker, or of a cluster that says where a mirror listens. Either has folder/data in the end."""
    if through_mirror:
        return Start(["-m", "tests.cluster.processes.standing", str(folder)], 150, 150)
    return Start(
        ["-m", "rabbitish", "serve", "--listen", "amqp://127.0.0.1:0", "--data-dir", str(folder / "data")], 20, 10
    )


def _read_ready_line(process: subprocess.Popen[bytes], seconds: float, log: Path) -> str:
    """The line on stdout that tells where rabbitish listens."""
    assert process.stdout is not None
    line, deadline = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
        chunk = os.read(process.stdout.fileno(), 4096) if ready else b""
        if not chunk:
            pytest.exit(f"rabbitish did not get ready; stdout: {line!r}, stderr:\n{log.read_text()}", returncode=3)
        line += chunk
    return line.decode()


@pytest.fixture(scope="session")
def _address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    given = request.config.getoption("--broker")
    if given:
        yield parse_url(given)
        return
    folder = tmp_path_factory.mktemp("rabbitish")
    log = folder / "stderr"
    start = _start(folder, through_mirror=request.config.getoption("--through-mirror"))
    command = [sys.executable, *start.command, "--definitions", str(HERE / "users.json")]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=HERE.parent
        )
    with process:  # which closes its pipes, and waits
        try:
            line = _read_ready_line(process, start.start_seconds, log)
            address = parse_url(line.split(" listening on ")[1].split(",")[0].strip())
            yield {**address, "control": folder / "data/control.sock"}
            assert process.poll() is None, f"rabbitish ended by itself with {process.returncode}:\n{log.read_text()}"
        finally:
            process.terminate()
            try:
                process.wait(start.stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
    assert process.returncode == 0, f"rabbitish ended with {process.returncode}:\n{log.read_text()}"
    assert "Traceback" not in log.read_text(errors="replace"), f"rabbitish logged a traceback:\n{log.read_text()}"


@pytest.fixture(scope="session")
def broker(_address: dict[str, Any]) -> Broker:
    """The broker under test."""
    peer = RawPeer(_address["host"], _address["port"])
    try:
        start = peer.handshake("start")
    finally:
        peer.drop()
    given = {key: value for key, value in _address.items() if key != "control"}
    return Broker(**given, is_rabbitmq="rabbitish_version" not in start.server_properties)


@pytest.fixture
def operator(_address: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Operator]:
    """Gives the broker an operator's commands; policies that were set are cleared after the case."""
    typed = request.config.getoption("--rabbitmqctl")
    if "control" in _address:
        operator: Operator = Socket(_address["control"])
    elif typed:
        operator = Typed(typed.split())
    else:
        assert not os.environ.get("RABBITISH_REQUIRE_ALL"), "nobody says how the broker is given commands"
        pytest.skip("how the broker is given commands takes --rabbitmqctl")
    yield operator
    operator.undo()


@pytest.fixture(scope="session")
def outcomes(broker: Broker) -> Iterator[dict[str, Future[None]]]:
    """What became of the slow conversations."""
    with running(broker) as futures:
        yield futures


@pytest.fixture(scope="session", autouse=True)
def _slow_ones_first(request: pytest.FixtureRequest) -> None:
    """Slow conversations start before the first case, if any case will ask for them."""
    if any(map(_waits, request.session.items)):
        request.getfixturevalue("outcomes")


@pytest.fixture
def expected(request: pytest.FixtureRequest, broker: Broker) -> Any:
    """What a case marked with `differs` wants of the broker under test."""
    marker = request.node.get_closest_marker("differs")
    assert marker is not None, "the fixture `expected` is for cases marked with differs(...)"
    return marker.kwargs["rabbitmq" if broker.is_rabbitmq else "rabbitish"]


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """A case that hangs fails."""

    def ring(*_: object) -> None:
        pytest.fail(f"the case took more than {CASE_SECONDS} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(CASE_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


# --- names, peers, clients -------------------------------------------------------------------------------------------


class Janitor:
    """Deletes what cases leave, over a connection of its own."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._peer: RawPeer | None = None

    def delete(self, names: list[str], tries: int = 50) -> None:
        """Delete queues and exchanges; a queue that is still locked by a connection on its way out is tried again."""
        while names:
            assert tries, f"cannot delete {names}"
            names, tries = self._delete(names), tries - 1
            if names:
                time.sleep(0.02)

    def _delete(self, names: list[str]) -> list[str]:
        """Ask for all deletions at once; returns the names that are left."""
        peer = self._peer or self._open()
        left = list(names)
        try:
            for one in names:
                which = short(0) + shortstr(one) + b"\x00"
                peer.send(raw_method(1, 50, 40, which), raw_method(1, 40, 20, which))
            for one in names:
                if not isinstance(decode(peer.read()), commands.Queue.DeleteOk):
                    peer.send_method(1, commands.Channel.CloseOk())
                    peer.channel(1)
                    break
                peer.expect(40, 21, 1)
                left.remove(one)
        except BaseException:
            self.close()
            raise
        return left

    def _open(self) -> RawPeer:
        given = self._broker
        self._peer = RawPeer(given.host, given.port, given.user, given.password, given.vhost)
        self._peer.handshake()
        self._peer.channel(1)
        return self._peer

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._peer = None


@pytest.fixture(scope="session")
def _janitor(broker: Broker) -> Iterator[Janitor]:
    janitor = Janitor(broker)
    yield janitor
    janitor.close()


@pytest.fixture
def name(_janitor: Janitor) -> Iterator[Names]:
    """Factory of unique names for queues and exchanges: name("orders")."""
    names = Names()
    yield names
    _janitor.delete(names.made)


@pytest.fixture
def raw(broker: Broker, name: Names) -> Iterator[Callable[..., RawPeer]]:
    """Factory of raw peers: raw() has its connection open, raw("tune") has just read connection.tune.

    raw(None) has connected and sent nothing. Other arguments go to RawPeer.handshake.
    """
    peers: list[RawPeer] = []

    def make(until: str | None = "open", **options: Any) -> RawPeer:
        peer = RawPeer(broker.host, broker.port, broker.user, broker.password, broker.vhost)
        peers.append(peer)
        if until is not None:
            peer.handshake(until, **options)
        return peer

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(raw: Callable[..., RawPeer]) -> RawPeer:
    """A raw peer with its connection and channel 1 open."""
    opened = raw()
    opened.channel(1)
    return opened


@pytest.fixture
def connect(broker: Broker, name: Names) -> Iterator[Callable[..., pika.BlockingConnection]]:
    """Factory of pika connections; keyword arguments go to pika.ConnectionParameters."""
    made: list[pika.BlockingConnection] = []

    def make(user: str | None = None, password: str | None = None, **options: Any) -> pika.BlockingConnection:
        login = pika.PlainCredentials(user or broker.user, password or broker.password)
        settings: dict[str, Any] = {"virtual_host": broker.vhost, "credentials": login, "heartbeat": 0}
        settings |= {"socket_timeout": 5, "blocked_connection_timeout": 10}
        parameters = pika.ConnectionParameters(broker.host, broker.port, **(settings | options))
        made.append(pika.BlockingConnection(parameters))
        return made[-1]

    yield make
    for one in made:
        if one.is_open:
            one.close()


@pytest.fixture
def connection(connect: Callable[..., pika.BlockingConnection]) -> pika.BlockingConnection:
    """A pika connection."""
    return connect()


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> BlockingChannel:
    """A channel of a pika connection."""
    return connection.channel()
