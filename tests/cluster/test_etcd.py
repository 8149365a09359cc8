"""Our etcd client against a real etcd, in its good days and its bad ones, and against servers that make no sense."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest
import trio

from rabbitish.cluster.etcd import (
    Compacted,
    Etcd,
    Unknown,
    Watch,
    delete,
    end_of,
    get,
    modified_at,
    not_there,
    put,
)

from .etcd_server import PATIENCE_SECONDS, EtcdCluster, served

Scene = Callable[[Etcd], Awaitable[None]]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One member, for all tests that do it no harm: each uses keys of its own."""
    yield from served(tmp_path_factory.mktemp("etcd"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EtcdCluster]:
    yield from served(tmp_path)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """Three members, for tests that leave them as they were."""
    yield from served(tmp_path_factory.mktemp("three"), 3)


def play(cluster: EtcdCluster, scene: Scene, timeout: float = 2.0) -> None:
    async def main() -> None:
        etcd = Etcd(cluster.endpoints, timeout=timeout)
        with trio.fail_after(PATIENCE_SECONDS):
            await scene(etcd)
        await etcd.aclose()

    trio.run(main)


async def answered(ask: Callable[[], Awaitable[object]]) -> object:
    """Ask until there is an answer."""
    while True:
        try:
            return await ask()
        except Unknown:
            await trio.sleep(0.05)


def test_compare_and_swap(one: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        key = b"/cas/\x00\xff"
        first = await etcd.txn([not_there(key)], [put(key, b"a")], [get(key)])
        assert first.succeeded and first.ranges == []
        second = await etcd.txn([not_there(key)], [put(key, b"b")], [get(key)])
        assert not second.succeeded
        ((found,),) = second.ranges
        assert (found.key, found.value, found.modified, found.created) == (key, b"a", first.revision, first.revision)
        third = await etcd.txn([modified_at(key, first.revision)], [put(key, b"c")])
        assert third.succeeded and third.revision > first.revision
        assert not (await etcd.txn([modified_at(key, first.revision)], [put(key, b"d")])).succeeded
        assert (await etcd.txn([modified_at(key + b"!", 0)], [delete(key)])).succeeded
        assert (await etcd.range(key)).kvs == []

    play(one, scene)


def test_ranges(one: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        keys = [b"/range/%d" % number for number in range(5)]
        await etcd.txn([], [put(key, key * 2) for key in [*keys, b"/rangf"]])
        for serializable in (False, True):
            found = await etcd.range(b"/range/", prefix=True, serializable=serializable)
            assert [(kv.key, kv.value) for kv in found.kvs] == [(key, key * 2) for key in keys]
        read = await etcd.txn([], [get(b"/range/", prefix=True), get(b"/nothing")])
        assert [len(kvs) for kvs in read.ranges] == [5, 0]

    play(one, scene)


def test_where_a_prefix_ends() -> None:
    assert [end_of(prefix) for prefix in (b"/a/", b"a\xff", b"\xff", b"")] == [b"/a0", b"b", b"\0", b"\0"]


def test_leases(one: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        lease = await etcd.grant(5)
        await etcd.txn([], [put(b"/lease/a", b"1", lease)])
        assert (await etcd.range(b"/lease/a")).kvs[0].lease == lease
        assert await etcd.keep_alive(lease) == 5
        await etcd.revoke(lease)
        assert (await etcd.range(b"/lease/a")).kvs == []
        assert await etcd.keep_alive(lease) == 0
        with pytest.raises(Unknown):
            await etcd.txn([], [put(b"/lease/a", b"1", lease)])

    play(one, scene)


def test_a_watch_tells_every_change_in_order(one: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        began = (await etcd.txn([], [put(b"/watch/a", b"0")])).revision
        seen: list[tuple[bytes, bytes, bool]] = []
        async with etcd.watch(b"/watch/", began) as changes:
            for number in range(1, 4):
                await etcd.txn([], [put(b"/watch/b", b"%d" % number), put(b"/elsewhere", b"x")])
            await etcd.txn([], [delete(b"/watch/a")])
            while len(seen) < 5:
                _, events = await anext(changes)
                seen += [(event.kv.key, event.kv.value, event.gone) for event in events]
        assert seen == [
            (b"/watch/a", b"0", False),
            *((b"/watch/b", b"%d" % number, False) for number in range(1, 4)),
            (b"/watch/a", b"", True),
        ]

    play(one, scene)


async def to_the_end(changes: Watch) -> None:
    async for _ in changes:
        pass


async def compact(etcd: Etcd, revision: int) -> None:
    await etcd._call("/v3/kv/compaction", {"revision": str(revision), "physical": True})


def test_a_watch_from_what_was_compacted(one: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        began = (await etcd.txn([], [put(b"/compact/a", b"0")])).revision
        now = (await etcd.txn([], [put(b"/compact/a", b"1")])).revision
        await compact(etcd, now)
        async with etcd.watch(b"/compact/", began) as changes:
            with pytest.raises(Compacted):
                await to_the_end(changes)

    play(one, scene)


def test_following_goes_on_after_a_kill(own: EtcdCluster) -> None:
    """Also where what the watch would go on from has been compacted meanwhile."""

    async def scene(etcd: Etcd) -> None:
        await etcd.txn([], [put(b"/f/a", b"0")])
        async with aclosing(etcd.follow(b"/f/")) as states:
            assert [kv.value for kv in (await anext(states)).kvs] == [b"0"]
            await etcd.txn([], [put(b"/f/a", b"1")])
            assert [kv.value for kv in (await anext(states)).kvs] == [b"1"]
            own.members[0].kill()
            with pytest.raises(Unknown):
                await etcd.range(b"/f/a")
            own.start()
            await own.ready()
            other = Etcd(own.endpoints)
            now = (await other.txn([], [put(b"/f/b", b"2")])).revision
            await compact(other, now)
            await other.aclose()
            while [kv.value for kv in (await anext(states)).kvs] != [b"1", b"2"]:
                pass

    play(own, scene)


def test_silence_is_not_believed(one: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        await etcd.txn([], [put(b"/silence/a", b"0")])
        async with aclosing(etcd.follow(b"/silence/", anew_seconds=0.05)) as states:
            first = [await anext(states) for _ in range(3)]
        assert [[kv.value for kv in found.kvs] for found in first] == [[b"0"]] * 3

    play(one, scene)


def test_a_frozen_etcd_answers_nothing_and_goes_on_afterwards(own: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        lease = await etcd.grant(30)
        own.members[0].pause()
        for ask in (etcd.range(b"x"), etcd.txn([], [put(b"x", b"y")]), etcd.keep_alive(lease), etcd.grant(5)):
            with pytest.raises(Unknown):
                await ask
        own.members[0].resume()
        assert await answered(lambda: etcd.keep_alive(lease)) == 30

    play(own, scene, timeout=0.2)


def test_with_a_member_lost_the_next_is_asked(three: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        await etcd.txn([], [put(b"a", b"1")])
        three.members[0].kill()
        await answered(lambda: etcd.txn([], [put(b"a", b"2")]))
        assert (await etcd.range(b"a")).kvs[0].value == b"2"
        three.members[0].start()
        back = Etcd(three.endpoints[:1])
        await answered(lambda: back.range(b"a"))
        await back.aclose()

    play(three, scene)


def test_without_a_majority_only_what_may_be_outdated_is_read(three: EtcdCluster) -> None:
    async def scene(_: Etcd) -> None:
        left = Etcd(three.endpoints[:1], timeout=1)
        began = (await left.txn([], [put(b"a", b"1")])).revision
        async with left.watch(b"a", began) as changes:
            await anext(changes)
            for member in three.members[1:]:
                member.pause()
            with pytest.raises(Unknown):  # it would be silent for ever without asking for this
                await to_the_end(changes)
        with pytest.raises(Unknown):
            await left.range(b"a")
        with pytest.raises(Unknown):
            await left.txn([], [put(b"a", b"2")])
        assert (await left.range(b"a", serializable=True)).kvs[0].value == b"1"
        for member in three.members[1:]:
            member.resume()
        await answered(lambda: left.range(b"a"))
        await left.aclose()

    play(three, scene)


def test_nobody_listens_at_the_first(one: EtcdCluster) -> None:
    async def main() -> None:
        with pytest.raises(Unknown, match="cannot be reached"):
            await Etcd([("127.0.0.1", 1)]).grant(5)
        etcd = Etcd([("127.0.0.1", 1), *one.endpoints])
        assert await etcd.grant(5)
        await etcd.aclose()

    trio.run(main)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x15\x03\x01",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 503 No\r\n\r\n",
        OK % (2, b"{}"),
        OK % (2, b"[]"),
        OK % (4, b"true"),
        OK % (9, b"{"),
        OK % (2, b"\xff\xff"),
        OK % (26, b'{"header":{"revision":[]}}'),
        OK % (62, b'{"header":{"revision":"1"},"kvs":[{"key":7}],"responses":[7] }'),
        OK % (23, b'{"error":"no","code":5}'),
    ],
)
def test_an_answer_that_makes_no_sense_is_none(answer: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    async def watched(etcd: Etcd) -> None:
        async with etcd.watch(b"a", 1) as changes:
            await to_the_end(changes)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            etcd = Etcd([listener.socket.getsockname()[:2]])
            for ask in (etcd.range(b"a"), etcd.txn([], [put(b"a", b"b")]), etcd.keep_alive(1), etcd.grant(5)):
                with pytest.raises(Unknown):
                    await ask
            with pytest.raises(Unknown):
                await watched(etcd)
            nursery.cancel_scope.cancel()

    trio.run(main)
