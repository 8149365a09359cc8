"""Brokers as processes of their own, the load generator, and connections made of nothing but a socket.

`ours` and `rabbitmq` start a broker on a free port of the loopback and end it afterwards. `load` runs amqpload.c, which
is compiled when it is first needed: a load generator in Python would be what is measured.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rabbitish.wire import methods as m
from rabbitish.wire.frames import PROTOCOL_HEADER

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
_PATIENCE_SECONDS = 60
# All of the client's part of a handshake, without waiting for the broker's.
HANDSHAKE = (
    PROTOCOL_HEADER
    + m.ConnectionStartOk(response=b"\0guest\0guest").frame(0)
    + m.ConnectionTuneOk(channel_max=2047, frame_max=131_072, heartbeat=0).frame(0)
    + m.ConnectionOpen(virtual_host="/").frame(0)
)
_OPENED = m.ConnectionOpenOk().frame(0)


class Unavailable(Exception):
    """Something that a measurement needs is not on this machine."""


class Process(NamedTuple):
    """A broker that runs."""

    port: int
    pid: int
    seconds: float  # from the command to the first answer

    @property
    def resident_kib(self) -> int:
        """Its memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise Unavailable("this system does not tell of a process's memory")

    @property
    def processor_seconds(self) -> float:
        """Its processor time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextmanager
def ours(*, journal: bool = True, **settings: object) -> Iterator[Process]:
    """This broker as a user would start it; keyword arguments are settings."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        where = ["--data-dir", folder] if journal else ["--ephemeral"]
        command = [sys.executable, "-m", "rabbitish", "serve", "--listen", f"amqp://127.0.0.1:{port}", *where]
        for key, value in {"log_level": "error", **settings}.items():
            command += ["--set", f"{key}={value}"]
        began = time.monotonic()
        broker = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            while True:
                if broker.poll() is not None:
                    assert broker.stderr is not None
                    raise Unavailable(broker.stderr.read().decode())
                try:
                    connect(port).close()
                    break
                except ConnectionError:
                    time.sleep(0.005)
            yield Process(port, broker.pid, time.monotonic() - began)
        finally:
            broker.terminate()
            broker.wait()


@contextmanager
def rabbitmq() -> Iterator[Process]:
    """Debian's RabbitMQ, with a data directory of its own. Unavailable: it is not installed."""
    if shutil.which("rabbitmq-server") is None:
        raise Unavailable("no RabbitMQ here to compare with: install Debian's rabbitmq-server")
    home = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
    script = str(REPOSITORY / ".ci/rabbitmq.sh")
    began = time.monotonic()
    try:
        started = subprocess.run([script, "start", str(home)], capture_output=True, text=True, check=False)
        if started.returncode:
            raise Unavailable(started.stderr)
        port = int(started.stdout.split()[-1])
        connect(port).close()
        yield Process(port, int((home / "pid").read_text()), time.monotonic() - began)
    finally:
        subprocess.run([script, "stop", str(home)], check=False)


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """A connection that is open, from this loopback address. ConnectionError: the broker is not there, or refuses."""
    sock = socket.socket()
    try:
        sock.settimeout(_PATIENCE_SECONDS)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", port))
        sock.sendall(HANDSHAKE)
        received = b""
        while not received.endswith(_OPENED):
            data = sock.recv(65_536)
            if not data:
                raise ConnectionResetError("the broker hung up")
            received += data
    except BaseException:
        sock.close()
        raise
    return sock


def load(port: int, options: str, *, seconds: float | None = None) -> dict[str, Any]:
    """What amqpload says of a run with these options; see its `--help`. Unavailable: it cannot be built, or failed."""
    command = [_built(), "--port", str(port), *options.split()]
    if seconds is not None:
        command += ["-z", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=(seconds or 0) + 300, check=False)
    if done.returncode or not done.stdout.strip():
        raise Unavailable((done.stderr.strip().splitlines() or ["amqpload said nothing"])[-1])
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _built() -> str:
    source, program = HERE / "amqpload.c", Path(tempfile.gettempdir()) / f"rabbitish-amqpload-{os.getuid()}"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise Unavailable("no C compiler here: amqpload.c, which makes the load, cannot be built (install gcc)")
        subprocess.run([compiler, "-O2", "-pthread", "-o", str(program), str(source)], check=True)
    return str(program)
