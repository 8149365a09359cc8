"""Three nodes of Debian's RabbitMQ, joined, to compare with: with everything of their own, as .ci/rabbitmq.sh has it.

Quorum queues declared there have a replica on each node, and lead on the node that the client is connected to.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.outside import Unavailable, connect

from ..etcd_server import free_ports

_PATIENCE_SECONDS = 90


class _Node:
    def __init__(self, home: Path, number: int, port: int, dist_port: int, epmd_port: int) -> None:
        self.port = port
        self.name = f"rabbitish-peer-{port}@localhost"
        self.home = home / f"node{number}"
        for folder in ("mnesia", "log"):
            (self.home / folder).mkdir(parents=True)
        for file, text in (("enabled_plugins", "[].\n"), ("rabbitmq-env.conf", ""), ("rabbitmq.conf", "")):
            (self.home / file).write_text(text)
        self.environment = {
            **os.environ,
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self.home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.home / "log"),
            "RABBITMQ_PID_FILE": str(self.home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "rabbitmq-env.conf"),
        }

    def start(self) -> None:
        with (self.home / "out").open("wb") as out:
            subprocess.Popen(
                ["rabbitmq-server"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with suppress(ConnectionError, socket.timeout):
                connect(self.port).close()
                return
            if time.monotonic() > until:
                raise Unavailable(f"RabbitMQ does not start: {(self.home / 'out').read_text()[-1000:]}")
            time.sleep(0.3)

    def ctl(self, *words: str) -> None:
        done = subprocess.run(
            ["rabbitmqctl", "-n", self.name, *words], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Unavailable(f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}")

    def stop(self) -> None:
        subprocess.run(
            ["rabbitmqctl", "-n", self.name, "stop", str(self.home / "pid")],
            env=self.environment,
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )


@contextmanager
def three() -> Iterator[list[int]]:
    """Their ports. Unavailable: not on this machine."""
    if shutil.which("rabbitmq-server") is None:
        raise Unavailable("no RabbitMQ here to compare with: install Debian's rabbitmq-server")
    home = Path(tempfile.mkdtemp(prefix="rabbitmq-three-"))
    home.chmod(0o755)
    epmd_port, *ports = free_ports(7)
    nodes = [_Node(home, number, ports[2 * number], ports[2 * number + 1], epmd_port) for number in range(3)]
    if os.getuid() == 0:  # Debian's wrapper runs the broker as this user
        subprocess.run(["chown", "-R", "rabbitmq:", str(home)], check=True)
    started: list[_Node] = []
    try:
        for node in nodes:
            started.append(node)
            node.start()
            if node is not nodes[0]:
                for words in (("stop_app",), ("join_cluster", nodes[0].name), ("start_app",)):
                    node.ctl(*words)
                connect(node.port).close()
        yield [node.port for node in nodes]
    finally:
        for node in reversed(started):
            node.stop()
        subprocess.run(["epmd", "-port", str(epmd_port), "-kill"], capture_output=True, check=False)
        shutil.rmtree(home, ignore_errors=True)
