"""The broker that the client conversations talk to, and names that are gone again after each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import amqp
import pytest

from .support import Broker, Lines, Proxy, end_process

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where to connect: RABBITISH_TEST_BROKER, or a rabbitish of our own that must start, stop and exit cleanly."""
    given = os.environ.get("RABBITISH_TEST_BROKER")
    if given:
        yield Broker.parse(given).url
        return
    folder = tmp_path_factory.mktemp("rabbitish")
    log = folder / "stderr"
    command = [sys.executable, "-m", "rabbitish", "serve", "--listen", "amqp://127.0.0.1:0"]
    command += ["--data-dir", str(folder / "data")]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    with process.stdout:
        output = Lines(process.stdout)
        try:
            ready = output.wait_for(" listening on amqp://")
            yield Broker.parse(ready.rpartition(" ")[2]).url
        finally:
            code = end_process(process)
            output.finish()
            print(log.read_text())  # captured: shown only when something failed
    assert "Traceback" not in log.read_text()
    assert code == 0


@pytest.fixture(scope="session")
def broker(broker_url: str) -> Broker:
    return Broker.parse(broker_url)


@pytest.fixture(scope="session")
def janitor(broker: Broker) -> Iterator[Callable[[str], None]]:
    """Deletes the queue and the exchange of a name; what does not exist is no error."""
    login = {"userid": broker.user, "password": broker.password, "virtual_host": broker.vhost}
    connection = amqp.Connection(f"{broker.host}:{broker.port}", heartbeat=0, **login)
    connection.connect()

    def delete(name: str) -> None:
        with connection.channel() as channel:
            channel.queue_delete(name)
            channel.exchange_delete(name)

    yield delete
    connection.close()


@pytest.fixture(autouse=True)
def new_name(janitor: Callable[[str], None]) -> Iterator[Callable[[], str]]:
    """Fresh names for queues and exchanges; what was made under them is deleted when the test ends.

    For every test, so that it is set up first and torn down last: after a test's own connections have closed.
    """
    names: list[str] = []

    def fresh() -> str:
        names.append(f"rabbitish.clients.{uuid4().hex[:12]}")
        return names[-1]

    yield fresh
    for name in names:
        janitor(name)


@pytest.fixture
def name(new_name: Callable[[], str]) -> str:
    return new_name()


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    relay = Proxy(broker.host, broker.port)
    yield relay
    relay.close()
