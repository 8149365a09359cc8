"""Three members on real disks and real links with a real etcd, in one process: a leader goes, another takes over.

Every record that was confirmed is in every log at the end, and the logs are the same to the byte. How long nothing was
confirmed is printed, not judged: the machine may be busy. Nobody goes before all are in sync: the last of the in-sync
set has no heir, and until it is back nothing is confirmed.
"""

from __future__ import annotations

import errno
import secrets
import shutil
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import trio

from rabbitish.cluster.etcd import Etcd
from rabbitish.cluster.member import LeaderLost, Member
from rabbitish.cluster.membership import Names, found_journal, shared_secret
from rabbitish.cluster.protocol.disk_log import DiskLog
from rabbitish.cluster.protocol.disk_open import open_log
from rabbitish.cluster.protocol.replica import NotLeading, Role
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.cluster.wire import Secure
from rabbitish.config import Settings
from rabbitish.server.link_tls import LinkTls
from rabbitish.store.files import File, RealDisk
from rabbitish.store.record import Type, decode_all
from tests.server.tls import pki

from .etcd_server import PATIENCE_SECONDS, EtcdCluster, served

JOURNAL = "m3/a/0"
TIMING = Timing(tick_ms=20, ttl_ms=2_000, lag_ms=1_500, silence_ms=1_000, rejoin_ms=200)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    yield from served(tmp_path_factory.mktemp("etcd"))


class Brittle:
    """Whether a disk is broken."""

    broken = False


class BrittleFile:
    """A file that cannot be synced any more, once its disk is broken."""

    def __init__(self, file: File, brittle: Brittle) -> None:
        self._file = file
        self._brittle = brittle
        self.write = file.write
        self.close = file.close

    def sync(self) -> None:
        if self._brittle.broken:
            raise OSError(errno.EIO, "the test broke it")
        self._file.sync()


class BrittleDisk(RealDisk):
    def __init__(self, folder: Path, brittle: Brittle) -> None:
        super().__init__(folder)
        self._brittle = brittle

    def create(self, name: str) -> File:
        return BrittleFile(super().create(name), self._brittle)


class Relay:
    """Where a member is reached; while it is frozen nothing passes, and nobody is told."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._open = trio.Event()
        self._open.set()

    def stand_before(self, port: int) -> tuple[str, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        self._nursery.start_soon(self._serve, trio.socket.from_stdlib_socket(listener), port)
        address: tuple[str, int] = listener.getsockname()
        return address

    async def _serve(self, listener: trio.socket.SocketType, port: int) -> None:
        await trio.serve_listeners(lambda stream: self._relay(stream, port), [trio.SocketListener(listener)])

    async def _relay(self, near: trio.SocketStream, port: int) -> None:
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with near, await trio.open_tcp_stream("127.0.0.1", port) as far, trio.open_nursery() as nursery:
                for source, target in ((near, far), (far, near)):
                    nursery.start_soon(self._pass, source, target, nursery.cancel_scope)

    async def _pass(self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await self._open.wait()
                await target.send_all(data)
        scope.cancel()

    def freeze(self) -> None:
        self._open = trio.Event()

    def thaw(self) -> None:
        self._open.set()


class Place:
    """A node: its folder, and its member while it runs."""

    def __init__(self, trial: Trial, name: str) -> None:
        self.trial = trial
        self.name = name
        self.folder = trial.folder / name
        self.storage = "u1"
        self.brittle = Brittle()
        self.member: Member | None = None
        self.halted = ""
        self.relay: Relay | None = None
        self.log: DiskLog
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def start(self, nursery: trio.Nursery | None = None) -> None:
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        running = trio.Event()
        (nursery or self.trial.nursery).start_soon(self._run, running)
        await running.wait()

    async def _run(self, running: trio.Event) -> None:
        trial = self.trial
        disk = BrittleDisk(self.folder, self.brittle)
        self.log = open_log(disk, lambda: self.storage, segment_bytes=20_000)
        etcd = Etcd(trial.server.endpoints)
        member = Member(
            self.name,
            self.log.storage,
            JOURNAL,
            self.log,
            etcd,
            trial.names,
            trial.secret,
            TIMING,
            secure=trial.secure,
        )

        def ready() -> None:
            self.member = member
            running.set()

        try:
            with self._scope:
                await member.run(advertised=self.relay and self.relay.stand_before, ready=ready)
        finally:
            self.member = None
            self.halted = member.halted
            await etcd.aclose()
            disk.close()
        self._ended.set()

    async def stop(self) -> None:
        assert self.member is not None
        self.member.stop()
        await self._ended.wait()

    async def ended(self) -> None:
        await self._ended.wait()

    def cancel(self) -> None:
        self._scope.cancel()

    async def kill(self) -> None:
        """Its connections close, nobody listens, and its lease goes on."""
        self.cancel()
        await self._ended.wait()


class Trial:
    """A cluster, and what was confirmed to its client."""

    def __init__(self, server: EtcdCluster, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.names = Names(f"test-{secrets.token_hex(4)}")
        self.secret = b""
        self.secure: Secure | None = None
        self.confirmed: set[bytes] = set()
        self.longest = 0.0
        self.nursery: trio.Nursery
        self.places = [Place(self, name) for name in "abc"]

    async def found(self) -> None:
        etcd = Etcd(self.server.endpoints)
        self.secret = await shared_secret(etcd, self.names, secrets.token_bytes(32))
        assert await shared_secret(etcd, self.names, b"another") == self.secret
        await found_journal(etcd, self.names, JOURNAL, ("a#u1", "b#u1", "c#u1"))
        await etcd.aclose()

    def leader(self) -> Place | None:
        leading = [each for each in self.places if each.member and each.member.replica.role is Role.LEADER]
        return max(leading, key=lambda each: each.log.epoch, default=None)

    def set_in_sync(self) -> tuple[str, ...]:
        leader = self.leader()
        leading = leader.member.replica.leading if leader is not None and leader.member is not None else None
        return leading.state.isr if leading is not None else ()

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


def play(
    server: EtcdCluster,
    folder: Path,
    scene: Callable[[Trial], Awaitable[None]],
    *,
    relays: bool = False,
    secure: Secure | None = None,
) -> Trial:
    """Three members, and a client that publishes while the scene goes on."""

    async def main() -> Trial:
        trial = Trial(server, folder)
        trial.secure = secure
        await trial.found()
        async with trio.open_nursery() as trial.nursery:
            for place in trial.places:
                place.relay = Relay(trial.nursery) if relays else None
                await place.start()
            await trial.until(lambda: trial.leader() is not None)
            async with trio.open_nursery() as client:
                client.start_soon(trial.publish, count())
                await trial.until(lambda: len(trial.confirmed) > 50 and len(trial.set_in_sync()) == 3)
                trial.longest = 0
                await scene(trial)
                client.cancel_scope.cancel()
            await trial.whole()
            trial.check()
            for place in trial.places:
                await place.kill()
            trial.nursery.cancel_scope.cancel()
        return trial

    return trio.run(main)


async def confirms_go_on(trial: Trial) -> None:
    before = len(trial.confirmed)
    await trial.until(lambda: len(trial.confirmed) > before + 50)


@pytest.mark.parametrize(
    ("how", "secure"),
    [(Place.stop, False), (Place.kill, False), (Place.kill, True)],
    ids=["stopped", "killed", "killed with TLS on the links"],
)
def test_another_takes_over(
    server: EtcdCluster, tmp_path: Path, how: Callable[[Place], Awaitable[None]], secure: bool
) -> None:
    async def scene(trial: Trial) -> None:
        old = trial.leader()
        assert old is not None
        await how(old)
        await confirms_go_on(trial)
        assert trial.leader() not in (old, None)
        await old.start()

    tls = LinkTls(Settings(**pki().links())) if secure else None  # type: ignore[arg-type]
    trial = play(server, tmp_path, scene, secure=tls)
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


def test_a_leader_whose_disk_fails_stops_for_good_and_another_takes_over(server: EtcdCluster, tmp_path: Path) -> None:
    async def scene(trial: Trial) -> None:
        old = trial.leader()
        assert old is not None
        old.brittle.broken = True
        await old.ended()
        assert "the test broke it" in old.halted
        await confirms_go_on(trial)
        assert trial.leader() not in (old, None)
        old.brittle.broken = False
        await old.start()

    play(server, tmp_path, scene)


def test_a_node_that_lost_its_disk_comes_back_as_another_replica(server: EtcdCluster, tmp_path: Path) -> None:
    async def scene(trial: Trial) -> None:
        (_, lost) = (place for place in trial.places if place is not trial.leader())
        await lost.kill()
        shutil.rmtree(lost.folder)
        lost.storage = "u2"
        await lost.start()
        await trial.until(lambda: f"{lost.name}#u2" in trial.set_in_sync())

    play(server, tmp_path, scene)


def test_who_hears_nothing_goes_on_alone_and_is_found_again(server: EtcdCluster, tmp_path: Path) -> None:
    async def scene(trial: Trial) -> None:
        leader = trial.leader()
        assert leader is not None and leader.relay is not None
        leader.relay.freeze()
        before = len(trial.confirmed)
        await trial.until(lambda: len(trial.confirmed) > before + 50)
        assert (trial.leader(), len(trial.set_in_sync())) == (leader, 1)
        leader.relay.thaw()

    play(server, tmp_path, scene, relays=True)


class Sleeper:
    """A node in a thread of its own, with a client of its own: all of it freezes, as a process that is stopped."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.confirmed: set[bytes] = set()
        self.deposed = False
        self._thaw = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    async def live(self) -> None:
        async with trio.open_nursery() as nursery:
            await self.place.start(nursery)
            self._token = trio.lowlevel.current_trio_token()
            for number in count():
                member, value = self.place.member, b"early %d" % number
                if member is None or self.deposed:
                    break
                try:
                    await member.append(Type.VHOST_NEW, value)
                    self.confirmed.add(value)
                except (NotLeading, LeaderLost):
                    self.deposed = bool(self.confirmed)
                    await trio.sleep(0.005)

    def freeze(self) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._thaw.wait, PATIENCE_SECONDS)

    def thaw(self) -> None:
        self._thaw.set()

    def end(self) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self.place.cancel)


def test_a_leader_that_was_frozen_wakes_and_confirms_nothing_that_is_not_so(
    server: EtcdCluster, tmp_path: Path
) -> None:
    async def main() -> None:
        trial = Trial(server, tmp_path)
        await trial.found()
        sleeper = Sleeper(trial.places[0])
        async with trio.open_nursery() as trial.nursery:
            trial.nursery.start_soon(partial(trio.to_thread.run_sync, trio.run, sleeper.live))
            await trial.until(lambda: bool(sleeper.confirmed))
            for place in trial.places[1:]:
                await place.start()
            await trial.until(lambda: len(trial.set_in_sync()) == 3)
            sleeper.freeze()
            await trial.until(lambda: trial.leader() in trial.places[1:])
            async with trio.open_nursery() as client:
                client.start_soon(trial.publish, count())
                await confirms_go_on(trial)
                sleeper.thaw()
                await trial.until(lambda: sleeper.deposed)
                client.cancel_scope.cancel()
            await trial.whole()
            trial.confirmed |= sleeper.confirmed
            trial.check()
            sleeper.end()
            for place in trial.places[1:]:
                await place.kill()

    trio.run(main)
