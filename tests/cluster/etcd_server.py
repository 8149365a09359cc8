"""A real etcd for a test: one member or three, in a folder of its own, on free ports; killed, paused and started again.

Without /usr/bin/etcd the tests that need one skip; RABBITISH_REQUIRE_ALL=1 makes that a failure.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from pathlib import Path

import pytest
import trio

from rabbitish.cluster.etcd import Etcd, Unknown, put

PATIENCE_SECONDS = 30
Inside = Callable[[], AbstractContextManager[object]]
_claimed: set[int] = set()


def find_etcd() -> str:
    """The program. Skips where there is none."""
    found = shutil.which("etcd")
    if found is None:
        reason = "etcd is not installed (apt install etcd-server)"
        if os.environ.get("RABBITISH_REQUIRE_ALL") == "1":
            pytest.fail(f"{reason}, and RABBITISH_REQUIRE_ALL=1 lets nothing be missing")
        pytest.skip(reason)
    return found


def free_ports(count: int) -> list[int]:
    """Ports to listen on, on the loopback: none of those that the kernel gives to whoever connects, or others claim.

    A process that is started later, or again, would find one of those taken now and then. A claim is a lock on a byte
    of a file, which ends with this process.
    """
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except OSError:
        lowest = 32_768
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, max(lowest, 20_000))
        with socket.socket() as probe, suppress(OSError):
            if port in _claimed:
                continue
            fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            _claimed.add(port)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)


@cache
def _claims() -> int:
    path = Path(tempfile.gettempdir()) / f"rabbitish-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


class EtcdMember:
    """One process."""

    def __init__(
        self, program: str, folder: Path, name: str, client: str, peer: str, cluster: str, inside: Inside = nullcontext
    ) -> None:
        self._inside = inside
        self.port = int(client.rpartition(":")[2])
        self.folder = folder / name
        self._log = folder / f"{name}.log"
        self._command = [
            program,
            f"--name={name}",
            f"--data-dir={self.folder}",
            f"--listen-client-urls=http://{client}",
            f"--advertise-client-urls=http://{client}",
            f"--listen-peer-urls=http://{peer}",
            f"--initial-advertise-peer-urls=http://{peer}",
            f"--initial-cluster={cluster}",
            "--heartbeat-interval=30",
            "--election-timeout=300",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log, self._inside():
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def pause(self) -> None:
        """Freeze it; when this returns it is frozen, and not just told to be."""
        self.signal(signal.SIGSTOP)
        assert self._process is not None
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class EtcdCluster:
    """Its members.

    `inside`: around the start of each, which says what network they are in.
    """

    def __init__(self, folder: Path, size: int = 1, *, host: str = "127.0.0.1", inside: Inside = nullcontext) -> None:
        program = find_etcd()
        ports = free_ports(2 * size)
        names = [f"e{number}" for number in range(size)]
        cluster = ",".join(f"{name}=http://{host}:{peer}" for name, peer in zip(names, ports[size:], strict=True))
        self.members = [
            EtcdMember(program, folder, name, f"{host}:{client}", f"{host}:{peer}", cluster, inside)
            for name, client, peer in zip(names, ports[:size], ports[size:], strict=True)
        ]
        self.endpoints = [(host, port) for port in ports[:size]]

    def start(self) -> None:
        for member in self.members:
            member.start()

    def stop(self) -> None:
        for member in self.members:
            member.kill()

    def back_up(self, to: Path) -> None:
        """While it is stopped."""
        for member in self.members:
            shutil.copytree(member.folder, to / member.folder.name)

    def restore(self, backup: Path) -> None:
        """While it is stopped: it knows nothing that came after."""
        for member in self.members:
            shutil.rmtree(member.folder)
            shutil.copytree(backup / member.folder.name, member.folder)

    async def change(self, key: bytes, times: int = 1) -> int:
        """Write a key so often; the revision then."""
        client = Etcd(self.endpoints)  # its own: what others have open may be of an etcd that was stopped
        for _ in range(times):
            revision = (await client.txn([], [put(key, b"something")])).revision
        await client.aclose()
        return revision

    async def ready(self) -> None:
        """Wait until it answers."""
        client = Etcd(self.endpoints, timeout=1)
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                try:
                    await client.range(b"x")
                    break
                except Unknown:
                    await trio.sleep(0.02)
        await client.aclose()


def served(folder: Path, size: int = 1) -> Iterator[EtcdCluster]:
    """What a fixture yields from: an etcd that answers, and is stopped afterwards."""
    cluster = EtcdCluster(folder, size)
    cluster.start()
    trio.run(cluster.ready)
    yield cluster
    cluster.stop()
