"""Three members on real disks and real links with a real etcd, in one process: a leader goes, another takes over.

Every record that was confirmed is in every log at the end, and the logs are the same to the byte. How long nothing was
confirmed is printed, not judged: the machine may be busy. Nobody goes before all are in sync: the last of the in-sync
set has no heir, and until it is back nothing is confirmed.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import trio

from rabbitish.cluster.etcd import Etcd
from rabbitish.cluster.member import LeaderLost, Member
from rabbitish.cluster.membership import Names, found_journal, shared_secret
from rabbitish.cluster.protocol.disk_log import DiskLog, open_log
from rabbitish.cluster.protocol.replica import NotLeading, Role
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.store.files import RealDisk
from rabbitish.store.record import Type, decode_all

from .etcd_server import PATIENCE_SECONDS, EtcdCluster

JOURNAL = "m3/a/0"
TIMING = Timing(tick_ms=20, ttl_ms=2_000, lag_ms=1_500, silence_ms=1_000, rejoin_ms=200)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(tmp_path_factory.mktemp("etcd"))
    cluster.start()
    trio.run(cluster.ready)
    yield cluster
    cluster.stop()


class Place:
    """A node: its folder, and its member while it runs."""

    def __init__(self, trial: Trial, name: str) -> None:
        self.trial = trial
        self.name = name
        self.member: Member | None = None
        self.log: DiskLog
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def start(self) -> None:
        trial = self.trial
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        running = trio.Event()
        trial.nursery.start_soon(self._run, running)
        await running.wait()

    async def _run(self, running: trio.Event) -> None:
        trial = self.trial
        disk = RealDisk(trial.folder / self.name)
        self.log = open_log(disk, lambda: "u1", segment_bytes=20_000)
        etcd = Etcd(trial.server.endpoints)
        member = Member(self.name, self.log.storage, JOURNAL, self.log, etcd, trial.names, trial.secret, TIMING)

        def ready() -> None:
            self.member = member
            running.set()

        try:
            with self._scope:
                await member.run(ready=ready)
        finally:
            self.member = None
            await etcd.aclose()
            disk.close()
        self._ended.set()

    async def stop(self) -> None:
        assert self.member is not None
        self.member.stop()
        await self._ended.wait()

    async def kill(self) -> None:
        """Its connections close, nobody listens, and its lease goes on."""
        self._scope.cancel()
        await self._ended.wait()


class Trial:
    """A cluster, and what was confirmed to its client."""

    def __init__(self, server: EtcdCluster, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.names = Names(f"test-{secrets.token_hex(4)}")
        self.secret = b""
        self.confirmed: set[bytes] = set()
        self.longest = 0.0
        self.nursery: trio.Nursery
        self.places = [Place(self, name) for name in "abc"]

    def leader(self) -> Place | None:
        leading = [each for each in self.places if each.member and each.member.replica.role is Role.LEADER]
        return max(leading, key=lambda each: each.log.epoch, default=None)

    def in_sync(self) -> int:
        leader = self.leader()
        return leader.member.replica.in_sync if leader is not None and leader.member is not None else 0

    async def publish(self, values: Iterator[int]) -> None:
        """One after the other; what is lost with its leader is not sent again."""
        last = trio.current_time()
        for number in values:
            value = b"value %d" % number
            place = self.leader()
            try:
                if place is None or place.member is None:
                    raise NotLeading
                with trio.fail_after(PATIENCE_SECONDS):
                    await place.member.append(Type.VHOST_NEW, value)
            except (NotLeading, LeaderLost):
                await trio.sleep(0.005)
                continue
            self.confirmed.add(value)
            self.longest, last = max(self.longest, trio.current_time() - last), trio.current_time()

    async def until(self, holds: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            while not holds():  # noqa: ASYNC110  (what is waited for has no event)
                await trio.sleep(0.02)

    async def whole(self) -> None:
        """Until all are in sync, and have the same."""

        def holds() -> bool:
            leader = self.leader()
            members = [place.member for place in self.places]
            if leader is None or leader.member is None or None in members or leader.member.replica.in_sync < 3:
                return False
            return len({(place.log.last, place.log.durable) for place in self.places}) == 1

        await self.until(holds)

    def records(self, place: Place) -> bytes:
        """Its whole log."""
        data, after = b"", 0
        while after < place.log.last:
            piece, after = place.log.read(after, 1 << 20)
            data += piece
        return data

    def check(self) -> None:
        first, *others = map(self.records, self.places)
        assert all(other == first for other in others)
        found = [first[record.body : record.end] for record in decode_all(first, 0) if record.type is Type.VHOST_NEW]
        assert len(found) == len(set(found))
        assert self.confirmed <= set(found)


def play(server: EtcdCluster, folder: Path, scene: Callable[[Trial], Awaitable[None]]) -> Trial:
    """Three members, and a client that publishes while the scene goes on."""

    async def main() -> Trial:
        trial = Trial(server, folder)
        etcd = Etcd(server.endpoints)
        trial.secret = await shared_secret(etcd, trial.names, secrets.token_bytes(32))
        assert await shared_secret(etcd, trial.names, b"another") == trial.secret
        await found_journal(etcd, trial.names, JOURNAL, ("a#u1", "b#u1", "c#u1"))
        await etcd.aclose()
        async with trio.open_nursery() as trial.nursery:
            for place in trial.places:
                await place.start()
            await trial.until(lambda: trial.leader() is not None)
            async with trio.open_nursery() as client:
                client.start_soon(trial.publish, count())
                await trial.until(lambda: len(trial.confirmed) > 50 and trial.in_sync() == 3)
                trial.longest = 0
                await scene(trial)
                client.cancel_scope.cancel()
            await trial.whole()
            trial.check()
            for place in trial.places:
                await place.kill()
        return trial

    return trio.run(main)


async def confirms_go_on(trial: Trial) -> None:
    before = len(trial.confirmed)
    await trial.until(lambda: len(trial.confirmed) > before + 50)


@pytest.mark.parametrize("how", [Place.stop, Place.kill], ids=["stopped", "killed"])
def test_another_takes_over(server: EtcdCluster, tmp_path: Path, how: Callable[[Place], Awaitable[None]]) -> None:
    async def scene(trial: Trial) -> None:
        old = trial.leader()
        assert old is not None
        await how(old)
        await confirms_go_on(trial)
        assert trial.leader() not in (old, None)
        await old.start()

    trial = play(server, tmp_path, scene)
    print(
        f"leader {how.__name__}: nothing confirmed for {trial.longest * 1000:.0f} ms; {len(trial.confirmed)} confirmed"
    )


def test_all_are_killed_and_come_back(server: EtcdCluster, tmp_path: Path) -> None:
    async def scene(trial: Trial) -> None:
        for place in trial.places:
            await place.kill()
        for place in trial.places:
            await place.start()
        await confirms_go_on(trial)

    play(server, tmp_path, scene)
