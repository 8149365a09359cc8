"""pika with TLS on nodes that live keeps its connection while the leader is killed: with RABBITISH_DRILL=1 and etcd.

Links have TLS too, so clients with TLS are carried. One client logs in with a password, the other by its certificate.
"""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import pika
import pytest
import trio

from tests.server.tls import HOST, pki

from ..etcd_server import find_etcd
from .clients import WORK, Load
from .ledger import Ledger
from .nodes import Broker, cluster
from .patience import until
from .test_mishaps import SETTINGS, TTL_SECONDS

pytestmark = pytest.mark.skipif(os.environ.get("RABBITISH_DRILL") != "1", reason="RABBITISH_DRILL=1 for clusters")


@pytest.fixture(autouse=True)
def _etcd() -> None:
    find_etcd()


def tls_settings() -> dict[str, object]:
    """Of nodes that listen with TLS, by whose certificates users may log in, and whose links have TLS."""
    given = pki().asking(required=False, ssl_cert_login=True, ssl_cert_login_from="common_name", **pki().links())
    del given["listen"]
    return {key: str(value).lower() if isinstance(value, bool) else value for key, value in given.items()}


class Client(threading.Thread):
    """One connection of pika's blocking client, which publishes and gets until it is stopped."""

    def __init__(self, node: Broker, ledger: Ledger, lock: threading.Lock, *, external: bool) -> None:
        super().__init__(daemon=True)
        listening = re.search(r"amqps://127\.0\.0\.1:(\d+)", node.said())
        assert listening is not None
        context = pki().client(pki().me if external else None)
        self._parameters = pika.ConnectionParameters(
            "127.0.0.1",
            int(listening[1]),
            ssl_options=pika.SSLOptions(context, HOST),
            credentials=pika.credentials.ExternalCredentials() if external else pika.PlainCredentials("guest", "guest"),
            heartbeat=4,
        )
        self._ledger = ledger
        self._lock = lock
        self.stop = threading.Event()
        self.confirmed = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 (whatever it is, the test is to know)
            self.failure = error

    def _work(self) -> None:
        connection = pika.BlockingConnection(self._parameters)
        channel = connection.channel()
        channel.confirm_delivery()
        while not self.stop.is_set():
            with self._lock:
                message, body = self._ledger.attempt(self.name)
            channel.basic_publish("", WORK, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
            with self._lock:
                self._ledger.confirm(message, time.monotonic())
            self.confirmed += 1
            method, _, got = channel.basic_get(WORK)
            if method is not None:
                with self._lock:
                    self._ledger.receive(got, redelivered=method.redelivered)
                channel.basic_ack(method.delivery_tag)
            time.sleep(0.005)
        connection.close()


async def go_on(clients: list[Client]) -> None:
    """Wait until all have published and got so many more."""
    wanted = [(client, client.confirmed + 30) for client in clients]

    def have() -> bool:
        for client in clients:
            assert client.failure is None, repr(client.failure)
        return all(client.confirmed >= confirmed for client, confirmed in wanted)

    await until("pika's confirms come", have)


def test_pika_with_tls_keeps_its_connection(tmp_path: Path) -> None:
    async def main() -> None:
        options = ["--listen", "amqps://127.0.0.1:0"]
        settings = {**SETTINGS, **tls_settings(), "password_cost": 4}
        async with cluster(tmp_path, ttl=TTL_SECONDS, settings=settings, options=options) as nodes:
            load = Load(Ledger(), nodes.uris)
            await load.declare()
            leader = await nodes.leader()
            await nodes.ctl(leader, "add_user", "me", "unknown")
            await nodes.ctl(leader, "set_permissions", "me", ".*", ".*", ".*")
            lock = threading.Lock()
            clients = [
                Client(nodes.nodes[name], load.ledger, lock, external=external)
                for name in await nodes.mirrors()
                for external in (False, True)
            ]
            for client in clients:
                client.start()
            try:
                await go_on(clients)
                nodes.kill(leader)
                await nodes.other_leader(leader)
                await go_on(clients)
                heir = await nodes.leader()
                rows = await nodes.ctl(heir, "list_connections", "user", "auth_mechanism", "ssl", "peer_cert_subject")
                assert rows.count("EXTERNAL") == 2
                assert rows.count("CN=me,") == 2
            finally:
                for client in clients:
                    client.stop.set()
                for client in clients:
                    await trio.to_thread.run_sync(client.join, 20)
            assert not any(client.is_alive() for client in clients)
            await load.insist(load.empty)
            verdict = load.ledger.verdict()
            assert verdict.valid, verdict
            assert nodes.tracebacks() == []

    trio.run(main)
