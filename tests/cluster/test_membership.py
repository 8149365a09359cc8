"""Who keeps a cluster's journal: the first one founds it, others join, and nobody begins it anew by mistake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
import trio

from rabbitish.cluster.etcd import Etcd, Txn
from rabbitish.cluster.membership import Names, NotThere, change_state, join_journal
from rabbitish.cluster.protocol.state import GroupState, View, decode_state

from .etcd_server import EtcdCluster, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    yield from served(tmp_path_factory.mktemp("etcd"))


def play(server: EtcdCluster, scene: Callable[[Etcd], Awaitable[None]]) -> None:
    async def main() -> None:
        etcd = Etcd(server.endpoints)
        with trio.fail_after(10):
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
