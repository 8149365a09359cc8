"""A cluster of brokers with its etcd: what it is like, and what is done to it.

Every process writes to files of its own in the cluster's folder, which a failure names.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from rabbitish.client import ClientError, connect
from rabbitish.cluster.etcd import Etcd, Unknown
from rabbitish.cluster.membership import Names, change_state
from rabbitish.cluster.protocol.state import GroupState, View, decode_state, node_of
from rabbitish.server.cluster_place import JOURNAL

from ..etcd_server import EtcdCluster
from .brokers import REPOSITORY, Broker, environment
from .patience import PATIENCE_SECONDS, until
from .relays import ETCD, Address
from .wiring import WIRINGS, Wiring

CLUSTER = "drill"


class Cluster:
    """Nodes a, b, c … with an etcd, made by `cluster`."""

    def __init__(
        self,
        folder: Path,
        names: list[str],
        wiring: Wiring,
        *,
        etcd_size: int,
        ttl: int,
        settings: dict[str, object],
        options: list[str],
    ) -> None:
        self.folder = folder
        self.ttl = ttl
        self.wiring = wiring
        self.network = wiring.network
        self.etcd = EtcdCluster(folder, etcd_size, host=wiring.etcd_host, inside=lambda: wiring.inside(ETCD))
        self.client = Etcd(self.etcd.endpoints, timeout=2)
        self._names = Names(CLUSTER)
        self.nodes: dict[str, Broker] = {}
        given = [*(f"{key}={value}" for key, value in settings.items()), f"cluster_ttl_s={ttl}", *wiring.settings]
        for name in names:
            place = wiring.place(name, self.etcd.endpoints)
            command = ["--node-name", name, "--cluster-listen", _said(place.link), *options]
            command += [part for each in given for part in ("--set", each)]
            if place.advertised != place.link:
                command += ["--cluster-advertise", _said(place.advertised)]
            command += ["--cluster", f"etcd://{','.join(map(_said, place.etcd))}/{CLUSTER}"]
            host, port = place.amqp
            self.nodes[name] = Broker(
                folder,
                name,
                port,
                command,
                host=host,
                inside=lambda name=name: wiring.inside(name),  # type: ignore[misc]
            )

    def processes(self) -> dict[int, str]:
        """Nodes by their process ids."""
        return {node.pid: name for name, node in self.nodes.items() if node.pid is not None}

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
            await self.wiring.up(name)
        for name in names or self.names:
            await self.nodes[name].ready()

    def kill(self, *names: str) -> None:
        """kill -9."""
        for name in names:
            self.nodes[name].kill()
            self.wiring.down(name)

    async def stop(self, name: str) -> float:
        """SIGTERM; the seconds until it had ended."""
        took = await self.nodes[name].terminate()
        self.wiring.down(name)
        return took

    async def depose(self, heir: str) -> None:
        """Have a mirror that is in sync lead at once, with no word to the leader, as any of them may at any time."""

        def decide(view: View | None) -> GroupState:
            assert view is not None
            state = view.state
            (replica,) = (each for each in state.isr if node_of(each) == heir)
            return state._replace(epoch=state.epoch + 1, leader=replica)

        await change_state(self.client, self._names, JOURNAL, decide, f"{heir}/deposes-{random.getrandbits(64):x}")

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
                command, capture_stdout=True, capture_stderr=True, check=False, cwd=REPOSITORY, env=environment()
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
            command, capture_stdout=True, capture_stderr=True, check=False, cwd=REPOSITORY, env=environment()
        )

    def tracebacks(self) -> list[str]:
        """Errors that nobody expected, in the logs of all nodes."""
        found = []
        for name, node in self.nodes.items():
            text = node.log.read_text(errors="replace") if node.log.exists() else ""
            found += [f"{name}: {text[max(0, at - 300) : at + 2500]}" for at in _places(text, "Traceback")[:2]]
        return found


def _said(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


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
    network: str = "loopback",
    etcd_size: int = 1,
    ttl: int = 5,
    settings: dict[str, object] | None = None,
    options: list[str] | None = None,
    start: bool = True,
) -> AsyncIterator[Cluster]:
    """A block with a cluster, all its nodes in sync; nothing of it is left afterwards but its files.

    `network` is one of WIRINGS.
    """
    names = [chr(ord("a") + number) for number in range(size)]
    wiring = WIRINGS[network](names)
    with wiring.entered():
        made = Cluster(
            folder, names, wiring, etcd_size=etcd_size, ttl=ttl, settings=settings or {}, options=options or []
        )
        try:
            made.etcd.start()
            await made.etcd.ready()
            async with trio.open_nursery() as nursery:
                await nursery.start(wiring.run, made.processes)
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
