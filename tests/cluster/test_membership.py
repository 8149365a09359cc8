"""Who keeps a cluster's journal: the first one founds it, others join, and nobody begins it anew by mistake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from rabbitish.cluster.etcd import Etcd, KeyValue, Range, Txn, Unknown, delete, put
from rabbitish.cluster.membership import EtcdCoordinator, Names, NotThere, change_state, join_journal
from rabbitish.cluster.protocol.state import GroupState, View, decode_state

from .etcd_server import EtcdCluster, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    yield from served(tmp_path_factory.mktemp("etcd"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EtcdCluster]:
    yield from served(tmp_path)


def play(server: EtcdCluster, scene: Callable[[Etcd], Awaitable[None]], seconds: float = 10) -> None:
    async def main() -> None:
        etcd = Etcd(server.endpoints)
        with trio.fail_after(seconds):
            await scene(etcd)
        await etcd.aclose()

    trio.run(main)


async def known(etcd: Etcd, names: Names) -> GroupState:
    (found,) = (await etcd.range(names.journal("main"))).kvs
    return decode_state(found.value)


def test_the_first_founds_it_and_others_join(server: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        names = Names("joining")
        await join_journal(etcd, names, "main", "a#a1", empty=True)
        assert (await known(etcd, names))[:4] == (0, "", ("a#a1",), ("a#a1",))
        await join_journal(etcd, names, "main", "b#b1", empty=True)
        await join_journal(etcd, names, "main", "b#b1", empty=True)
        assert (await known(etcd, names))[:4] == (0, "", ("a#a1",), ("a#a1", "b#b1"))
        await join_journal(etcd, names, "main", "b#b2", empty=True)  # whose place its leader gives it
        assert (await known(etcd, names)).replicas == ("a#a1", "b#b1")
        await join_journal(etcd, names, "main", "c#c1", empty=False)  # which had been forgotten
        assert (await known(etcd, names)).replicas == ("a#a1", "b#b1", "c#c1")

    play(server, scene)


def test_all_at_once(server: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        names = Names("racing")
        async with trio.open_nursery() as nursery:
            for node in "abcde":

                async def join(node: str = node) -> None:
                    await join_journal(etcd, names, "main", f"{node}#{node}1", empty=True)

                nursery.start_soon(join)
        state = await known(etcd, names)
        assert sorted(state.replicas) == [f"{node}#{node}1" for node in "abcde"]
        assert len(state.isr) == 1

    play(server, scene)


def test_who_has_something_does_not_begin_anew(server: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        names = Names("forgotten")
        with pytest.raises(NotThere, match="etcd knows nothing of /rabbitish/forgotten/journals/main"):
            await join_journal(etcd, names, "main", "a#a1", empty=False)
        assert not (await etcd.range(names.prefix, prefix=True)).kvs

    play(server, scene)


def test_a_change_is_decided_anew_when_somebody_was_faster(server: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        names = Names("changing")
        await join_journal(etcd, names, "main", "a#a1", empty=True)
        seen: list[int] = []

        def decide(view: View | None) -> GroupState:
            assert view is not None
            seen.append(len(view.state.replicas))
            return view.state._replace(epoch=view.state.epoch + 1)

        class Slow(Etcd):
            """Somebody joins between the first read and the first write."""

            async def txn(self, compare: Sequence[Any], then: Sequence[Any]) -> Txn:
                if compare and len(seen) == 1:
                    await join_journal(etcd, names, "main", "b#b1", empty=True)
                return await super().txn(compare, then)

        slow = Slow(server.endpoints)
        assert (await change_state(slow, names, "main", decide, "mine")).nonce == "mine"
        await slow.aclose()
        assert seen == [1, 2]
        assert await known(etcd, names) == GroupState(1, "", ("a#a1",), ("a#a1", "b#b1"), "mine")

    play(server, scene)


def test_a_state_is_made_where_there_is_none(server: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        names = Names("making")
        state = GroupState(8, "a#a1", ("a#a1",), ("a#a1",), "")

        def decide(view: View | None) -> GroupState:
            assert view is None
            return state

        await change_state(etcd, names, "main", decide, "mine")
        assert await known(etcd, names) == state._replace(nonce="mine")

    play(server, scene)


# --- Being there ------------------------------------------------------------------------------------------------------

AT = ("127.0.0.1", 25672)


class Heard:
    """A replica that is told of leases alone, and its own owner, which hears of nothing else."""

    def __init__(self) -> None:
        self.renewed = 0
        self.view: View | None = None
        self.owner = self
        self.notes: list[dict[str, object]] = []

    def leased(self, until: int) -> None:
        self.renewed += 1

    def note(self, event: str, **details: object) -> None:
        self.notes.append({"event": event, **details})

    async def renewals(self, count: int) -> None:
        """So many more."""
        until = self.renewed + count
        while self.renewed < until:  # noqa: ASYNC110  (what is waited for has no event)
            await trio.sleep(0.02)


def heard_by(coordinator: EtcdCoordinator) -> Heard:
    heard = coordinator.replica
    assert isinstance(heard, Heard)
    return heard


async def node_is(etcd: Etcd, names: Names, true: Callable[[KeyValue | None], bool]) -> KeyValue | None:
    """What etcd has of node a, when that is true of it."""
    while True:
        found = (await etcd.range(names.node("a"))).kvs
        if true(found[0] if found else None):
            return found[0] if found else None
        await trio.sleep(0.02)


async def keeping(etcd: Etcd, names: Names, scene: Callable[[EtcdCoordinator], Awaitable[None]]) -> None:
    """While node a keeps its lease."""
    async with trio.open_nursery() as nursery:
        coordinator = EtcdCoordinator(etcd, names, "main", nursery)
        coordinator.replica = Heard()  # type: ignore[assignment]
        nursery.start_soon(coordinator.keep_lease, "a", AT, 1, "a1")
        await scene(coordinator)
        await coordinator.end_lease()
        nursery.cancel_scope.cancel()


def test_a_key_that_came_to_hang_on_an_old_lease_is_put_again(server: EtcdCluster) -> None:
    class Late(Etcd):
        """The first put is not answered; etcd does it later, under the lease that there was then."""

        late: tuple[Sequence[Any], Sequence[Any]] | None = None

        async def txn(self, compare: Sequence[Any], then: Sequence[Any], failure: Sequence[Any] = ()) -> Txn:
            if self.late is None:
                self.late = (compare, then)
                raise Unknown("nobody answered")
            return await super().txn(compare, then, failure)

    async def scene(etcd: Etcd) -> None:
        names, late = Names("late"), Late(server.endpoints)

        async def lands(coordinator: EtcdCoordinator) -> None:
            first = await node_is(etcd, names, lambda found: found is not None)
            assert first is not None and first.lease == coordinator._lease and late.late is not None
            assert (await etcd.txn(*late.late)).succeeded
            old = int(late.late[1][0]["request_put"]["lease"])
            found = await node_is(etcd, names, lambda found: found is not None and found.lease == first.lease)
            assert found is not None and found.value == first.value and found.modified > first.modified
            await etcd.revoke(old)  # whose end means nothing any more
            assert (await etcd.range(names.node("a"))).kvs == [found]

        await keeping(late, names, lands)
        assert not (await etcd.range(names.node("a"))).kvs
        await late.aclose()

    play(server, scene)


def test_a_key_that_is_lost_while_its_lease_lives_is_put_again(server: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        names = Names("lost")

        async def loses(coordinator: EtcdCoordinator) -> None:
            first = await node_is(etcd, names, lambda found: found is not None)
            await etcd.txn([], [delete(names.node("a"))])
            again = await node_is(etcd, names, lambda found: found is not None)
            assert first is not None and again is not None and again[4:] == first[4:] and again.value == first.value

        await keeping(etcd, names, loses)

    play(server, scene)


def test_a_key_that_another_node_has_is_left_to_it(server: EtcdCluster) -> None:
    async def scene(etcd: Etcd) -> None:
        names = Names("another")

        async def comes(coordinator: EtcdCoordinator) -> None:
            first = await node_is(etcd, names, lambda found: found is not None)
            assert first is not None
            other = first.value.replace(b"a1", b"a2")
            await etcd.txn([], [put(names.node("a"), other, await etcd.grant(5))])
            await heard_by(coordinator).renewals(3)
            found = await node_is(etcd, names, lambda found: found is not None)
            assert found is not None and found.value == other

        await keeping(etcd, names, comes)

    play(server, scene)


def test_an_etcd_that_has_lost_what_it_knew_is_told_of_once(own: EtcdCluster, tmp_path: Path) -> None:
    async def scene(etcd: Etcd) -> None:
        names = Names("restored")

        async def goes_back(coordinator: EtcdCoordinator) -> None:
            heard = heard_by(coordinator)
            await heard.renewals(1)
            own.stop()
            own.back_up(tmp_path / "backup")
            own.start()
            await own.ready()
            revision = await own.change(b"else", 20)
            heard.view = View(GroupState(1, "", (), (), ""), 1, frozenset(), revision)
            await heard.renewals(3)
            assert heard.notes == []
            own.stop()
            own.restore(tmp_path / "backup")
            own.start()
            await own.ready()
            await heard.renewals(3)
            (note,) = heard.notes
            assert (note["event"], note["known"]) == ("etcd_went_back", revision)
            assert note["is_at"] < revision and "force-leader" in str(note["way_out"])  # type: ignore[operator]
            assert await own.change(b"else", 30) > revision
            await heard.renewals(3)
            assert len(heard.notes) == 1
            heard.view = heard.view._replace(at=revision + 1_000)
            await heard.renewals(3)
            assert len(heard.notes) == 2  # it is news again

        await keeping(etcd, names, goes_back)

    play(own, scene, seconds=30)


class Silent:
    """An etcd that answers or not, and whoever is told of it."""

    view = None

    def __init__(self) -> None:
        self.away = False
        self.said: list[str] = []

    async def grant(self, seconds: int) -> int:
        return await self.keep_alive(seconds)

    async def keep_alive(self, _: int) -> int:
        if self.away:
            raise Unknown("nobody is there")
        return 5

    async def txn(self, *_: object) -> Txn:
        return Txn(True, 1, [])

    async def range(self, key: bytes) -> Range:
        return Range(1, [KeyValue(key, b"{}", 1, 1, 5)])

    def leased(self, until: int) -> None: ...

    @property
    def owner(self) -> Silent:
        return self

    def note(self, event: str, **details: object) -> None:
        self.said.append(event)


def test_it_is_said_once_that_etcd_is_silent_and_once_that_it_is_not() -> None:
    async def main() -> None:
        etcd = Silent()
        async with trio.open_nursery() as nursery:
            coordinator = EtcdCoordinator(etcd, Names("silent"), "main", nursery)  # type: ignore[arg-type]
            coordinator.replica = etcd  # type: ignore[assignment]
            nursery.start_soon(coordinator.keep_lease, "a", ("127.0.0.1", 1), 5)
            await trio.sleep(30)
            etcd.away = True
            await trio.sleep(3)
            assert not etcd.said and not coordinator.trouble  # one of its members may be about to be replaced
            await trio.sleep(30)
            assert etcd.said == ["etcd_is_silent"]
            assert coordinator.trouble.startswith("has not answered since 3")
            assert coordinator.trouble.endswith(" s: nobody is there")
            etcd.away = False
            await trio.sleep(30)
            assert etcd.said == ["etcd_is_silent", "etcd_answers_again"] and not coordinator.trouble
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
