"""Brokers as processes, and a cluster of them with its etcd: started, killed, frozen, stopped, wiped and damaged.

Every process writes to files of its own in the cluster's folder, which a failure names. Only what was started here is
ever signalled, by its process id.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from rabbitish.client import ClientError, connect
from rabbitish.cluster.etcd import Etcd, Unknown
from rabbitish.cluster.membership import Names
from rabbitish.cluster.protocol.state import GroupState, decode_state, node_of
from rabbitish.store.record import parse_segment_name

from ..etcd_server import EtcdCluster, free_ports
from .patience import PATIENCE_SECONDS, until
from .relays import ETCD, Network, Relay, owner_of

REPOSITORY = Path(__file__).parents[3]
CLUSTER = "drill"


def _environment() -> dict[str, str]:
    """Of a process that runs this code."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


class Broker:
    """One `rabbitish serve`, started again with the same options as often as is wanted."""

    def __init__(self, folder: Path, name: str, port: int, options: list[str]) -> None:
        self.name = name
        self.port = port
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self._command = [sys.executable, "-m", "rabbitish", "serve", "--listen", f"amqp://127.0.0.1:{port}"]
        self._command += ["--data-dir", str(self.data), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._begins = 0
        self.frozen = False

    def start(self) -> None:
        """Start it; `ready` waits until it listens."""
        assert self._process is None, f"{self.name} runs"
        self._begins = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=REPOSITORY, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int | None:
        """Its process, if there is one."""
        return None if self._process is None else self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started, and neither killed nor frozen."""
        return self._process is not None and not self.frozen

    def option(self, name: str) -> str:
        """What follows an option on its command line."""
        return self._command[self._command.index(name) + 1]

    @property
    def uri(self) -> str:
        """Where clients connect."""
        return f"amqp://127.0.0.1:{self.port}"

    def said(self) -> str:
        """What it wrote since it was started."""
        return self.log.read_bytes()[self._begins :].decode(errors="replace")

    async def ready(self) -> None:
        """Wait until it says that it listens. Impatient, or AssertionError with its last words if it ended instead."""

        def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"{self.name} ended:\n{self.said()[-2000:]}"
            return " listening on " in self.said()

        await until(f"{self.name} listens", listens)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        self.frozen = False

    def freeze(self) -> None:
        """SIGSTOP; when this returns it is frozen."""
        assert self._process is not None
        self._signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self.frozen = False

    async def terminate(self) -> float:
        """SIGTERM, and wait until it has ended, with code 0; the seconds that took."""
        self._signal(signal.SIGTERM)
        process = self._process
        assert process is not None

        took = await until(f"{self.name} ends after SIGTERM", lambda: process.poll() is not None)
        self._process = None
        assert process.returncode == 0, f"{self.name} ended with {process.returncode}:\n{self.said()[-2000:]}"
        return took

    def wipe(self) -> None:
        """Empty its disk, while it does not run."""
        assert self._process is None
        if self.data.is_mount():
            for each in self.data.iterdir():
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        elif self.data.exists():
            shutil.rmtree(self.data)

    def segments(self) -> list[Path]:
        """The files of its log, the oldest first."""
        return sorted(path for path in self.data.rglob("*") if parse_segment_name(path.name) is not None)

    def flip_a_bit(self, chance: random.Random) -> Path:
        """Damage the middle half of its oldest segment, while it does not run; where."""
        assert self._process is None
        segment = self.segments()[0]
        size = segment.stat().st_size
        with segment.open("r+b") as file:
            at = chance.randrange(size // 4, size * 3 // 4)
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))
        return segment

    def mount(self, size: int) -> None:
        """Give it a disk of its own, in memory, before it is started. Only root may."""
        self.data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.data)], check=True)

    def fill(self) -> Path:
        """Leave no room on its disk; the file that has it all."""
        filler = self.data.parent / self.name / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4_096))
        return filler

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def end(self) -> None:
        """Whatever state it is in, it is gone afterwards, and its disk with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self.data.is_mount():
            subprocess.run(["umount", str(self.data)], check=False)


class Cluster:
    """Nodes a, b, c … with an etcd, made by `cluster`."""

    def __init__(
        self,
        folder: Path,
        size: int,
        *,
        relays: bool,
        etcd_size: int,
        ttl: int,
        settings: dict[str, object],
        options: list[str],
    ) -> None:
        self.folder = folder
        self.ttl = ttl
        self.network = Network()
        self.etcd = EtcdCluster(folder, etcd_size)
        self.client = Etcd(self.etcd.endpoints, timeout=2)
        self._names = Names(CLUSTER)
        names = [chr(ord("a") + number) for number in range(size)]
        ports = free_ports(4 * size)
        self.nodes: dict[str, Broker] = {}
        self.links: dict[str, Relay] = {}
        self.relays: list[Relay] = []
        given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        for number, name in enumerate(names):
            amqp, link, near_link, near_etcd = ports[4 * number : 4 * number + 4]
            (host, etcd_port), *more = self.etcd.endpoints
            command = ["--node-name", name, "--cluster-listen", f"127.0.0.1:{link}", *given, *options]
            command += ["--set", f"cluster_ttl_s={ttl}"]
            if relays:
                self.links[name] = Relay(self.network, name, near_link, ("127.0.0.1", link), self._dialer)
                to_etcd = Relay(self.network, ETCD, near_etcd, (host, etcd_port), lambda _, __, name=name: name)  # type: ignore[misc]
                self.relays += [self.links[name], to_etcd]
                command += ["--cluster-advertise", f"127.0.0.1:{near_link}"]
                where = f"127.0.0.1:{near_etcd}"
                assert not more, "relays lead to one etcd"
            else:
                where = ",".join(f"{host}:{port}" for host, port in self.etcd.endpoints)
            self.nodes[name] = Broker(folder, name, amqp, [*command, "--cluster", f"etcd://{where}/{CLUSTER}"])

    def _dialer(self, port: int, to: int) -> str | None:
        return owner_of(port, to, {node.pid: name for name, node in self.nodes.items() if node.pid is not None})

    @property
    def names(self) -> list[str]:
        """All nodes."""
        return list(self.nodes)

    @property
    def uris(self) -> list[str]:
        """Where clients connect, of all nodes."""
        return [node.uri for node in self.nodes.values()]

    # ---- what it is like

    async def state(self) -> GroupState | None:
        """What etcd says of the journal; None: nothing yet, or it does not answer."""
        try:
            found = await self.client.range(self._names.prefix + b"journals/", prefix=True)
        except Unknown:
            return None
        return decode_state(found.kvs[0].value) if found.kvs else None

    async def leader(self) -> str:
        """The node that leads, by etcd, and runs. Impatient."""
        found: list[str] = []

        async def led() -> bool:
            state = await self.state()
            if state is not None and state.leader and self.nodes[node_of(state.leader)].runs:
                found.append(node_of(state.leader))
            return bool(found)

        await until("somebody leads", led)
        return found[0]

    async def other_leader(self, than: str) -> str:
        """The leader, once it is another one. Impatient."""

        async def other() -> bool:
            state = await self.state()
            return state is not None and bool(state.leader) and node_of(state.leader) != than

        await until(f"somebody else than {than} leads", other)
        return await self.leader()

    async def mirrors(self) -> list[str]:
        """Nodes that run and do not lead."""
        leader = await self.leader()
        return [name for name, node in self.nodes.items() if node.runs and name != leader]

    async def in_sync(self, *names: str, seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until exactly these are in sync, or all that run; the seconds it took. Impatient."""
        wanted = sorted(names or [name for name, node in self.nodes.items() if node.runs])

        async def there() -> bool:
            state = await self.state()
            return state is not None and sorted(map(node_of, state.isr)) == wanted and node_of(state.leader) in wanted

        return await until(f"in sync are {wanted}", there, seconds)

    async def answers(self, name: str) -> float:
        """Wait until a node lets clients in; the seconds it took."""

        async def let_in() -> bool:
            try:
                with trio.fail_after(3):
                    async with connect(f"{self.nodes[name].uri}?connection_timeout=2500"):
                        return True
            except (ClientError, trio.TooSlowError):
                return False

        return await until(f"{name} lets clients in", let_in)

    async def whole(self) -> None:
        """Wait until all that run are in sync and let clients in."""
        await self.in_sync()
        for name, node in self.nodes.items():
            if node.runs:
                await self.answers(name)

    # ---- what is done to it

    async def start(self, *names: str) -> None:
        """Start nodes, all if none is named, and wait until they listen."""
        for name in names or self.names:
            self.nodes[name].start()
            if name in self.links:
                await self.links[name].up()
        for name in names or self.names:
            await self.nodes[name].ready()

    def kill(self, *names: str) -> None:
        """kill -9."""
        for name in names:
            self.nodes[name].kill()
            if name in self.links:
                self.links[name].down()

    async def stop(self, name: str) -> float:
        """SIGTERM; the seconds until it had ended."""
        took = await self.nodes[name].terminate()
        if name in self.links:
            self.links[name].down()
        return took

    def mend(self) -> None:
        """Nothing is cut, and nobody is frozen."""
        self.network.heal()
        for node in self.nodes.values():
            if node.frozen:
                node.thaw()

    async def status(self, name: str) -> dict[str, object]:
        """What `rabbitish cluster status --json` says on a node."""
        result: dict[str, object] = json.loads(await self.ctl(name, "cluster", "status", "--json"))
        return result

    async def unsound(self) -> list[str]:
        """Kill all; what `rabbitish journal verify` has to say of the folders of those whose journal is damaged."""
        self.kill(*(name for name, node in self.nodes.items() if node.pid is not None))
        found = []
        for name, node in self.nodes.items():
            command = [sys.executable, "-m", "rabbitish", "journal", "verify", str(node.data)]
            done = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False, cwd=REPOSITORY, env=_environment()
            )
            if done.returncode:
                found.append(f"{name}: {done.stdout.decode()}{done.stderr.decode()}")
        return found

    async def ctl(self, name: str, *words: str) -> str:
        """An operator's command on a node; what it prints. AssertionError, with what it said."""
        done = await self.asked(name, *words)
        assert done.returncode == 0, f"{words} on {name}: {done.stderr.decode()}"
        return str(done.stdout.decode())

    async def asked(self, name: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        """An operator's command on a node, however it ends."""
        command = [sys.executable, "-m", "rabbitish", *words, "--data-dir", str(self.nodes[name].data)]
        return await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, cwd=REPOSITORY, env=_environment()
        )

    def tracebacks(self) -> list[str]:
        """Errors that nobody expected, in the logs of all nodes."""
        found = []
        for name, node in self.nodes.items():
            text = node.log.read_text(errors="replace") if node.log.exists() else ""
            found += [f"{name}: {text[max(0, at - 300) : at + 2500]}" for at in _places(text, "Traceback")[:2]]
        return found


def _places(text: str, what: str) -> list[int]:
    places, at = [], text.find(what)
    while at >= 0:
        places.append(at)
        at = text.find(what, at + 1)
    return places


@asynccontextmanager
async def cluster(
    folder: Path,
    size: int = 3,
    *,
    relays: bool = False,
    etcd_size: int = 1,
    ttl: int = 5,
    settings: dict[str, object] | None = None,
    options: list[str] | None = None,
    start: bool = True,
) -> AsyncIterator[Cluster]:
    """A block with a cluster, all its nodes in sync; nothing of it is left afterwards but its files."""
    made = Cluster(
        folder, size, relays=relays, etcd_size=etcd_size, ttl=ttl, settings=settings or {}, options=options or []
    )
    try:
        made.etcd.start()
        await made.etcd.ready()
        async with trio.open_nursery() as nursery:
            for relay in made.relays:
                await nursery.start(relay.run)
            if start:
                await made.start()
                await made.whole()
            yield made
            nursery.cancel_scope.cancel()
        await made.client.aclose()
    finally:
        for node in made.nodes.values():
            node.end()
        made.etcd.stop()
