"""What goes wrong with a cluster while clients are at work, and what must be so afterwards.

Each mishap happens, is lived through until clients get confirms again, is mended, and ends with all nodes in sync. What
was promised to clients is checked by the ledger at the end of the run.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from .clients import Load, confirms_again
from .namespaces import Namespaces
from .nodes import Cluster
from .relays import ETCD

Happening = Callable[[Cluster, Load], Awaitable[None]]


class Mishap(NamedTuple):
    """`networks`: in which it can happen, by their names in WIRINGS, the one that serves best first."""

    happen: Happening
    networks: tuple[str, ...]


async def leader_killed(cluster: Cluster, load: Load) -> None:
    """kill -9 of the leader."""
    leader = await cluster.leader()
    began = trio.current_time()
    cluster.kill(leader)
    await confirms_again(load, began)
    assert await cluster.other_leader(leader) != leader
    await cluster.start(leader)


async def mirror_killed(cluster: Cluster, load: Load) -> None:
    """kill -9 of a mirror."""
    mirror, *_ = await cluster.mirrors()
    cluster.kill(mirror)
    await confirms_again(load)
    await cluster.in_sync()
    await confirms_again(load)
    await cluster.start(mirror)


async def all_killed(cluster: Cluster, load: Load) -> None:
    """kill -9 of all nodes at the same time."""
    cluster.kill(*cluster.names)
    await cluster.start()
    await confirms_again(load)


async def leader_frozen(cluster: Cluster, load: Load) -> None:
    """SIGSTOP of the leader, SIGCONT when there is another one."""
    leader = await cluster.leader()
    cluster.nodes[leader].freeze()
    await cluster.other_leader(leader)
    await confirms_again(load)
    cluster.nodes[leader].thaw()


async def mirror_frozen(cluster: Cluster, load: Load) -> None:
    """SIGSTOP of a mirror, SIGCONT when it has left the set."""
    mirror, *_ = await cluster.mirrors()
    cluster.nodes[mirror].freeze()
    await cluster.in_sync()
    await confirms_again(load)
    cluster.nodes[mirror].thaw()


async def handed_over(cluster: Cluster, load: Load) -> None:
    """SIGTERM to the leader, which hands over before it ends."""
    leader = await cluster.leader()
    began = trio.current_time()
    await cluster.stop(leader)
    await confirms_again(load, began)
    await cluster.other_leader(leader)
    await cluster.start(leader)


async def transferred(cluster: Cluster, load: Load) -> None:
    """An operator has a mirror lead; every node says so."""
    leader, (mirror, _) = await cluster.leader(), await cluster.mirrors()
    began = trio.current_time()
    await cluster.ctl(leader, "cluster", "transfer", mirror)
    await confirms_again(load, began)
    assert await cluster.other_leader(leader) == mirror
    await cluster.in_sync()
    told = [await cluster.status(name) for name in cluster.names]
    assert [each["leader"] for each in told] == [mirror] * 3, told
    assert len({each["epoch"] for each in told}) == 1, told


async def restarted_in_turn(cluster: Cluster, load: Load) -> None:
    """Each node is stopped and started again, as for an upgrade."""
    for name in cluster.names:
        await cluster.stop(name)
        await confirms_again(load)
        await cluster.start(name)
        await cluster.in_sync()


async def leader_cut_off(cluster: Cluster, load: Load) -> None:
    """The leader reaches neither nodes nor etcd, and nobody reaches it."""
    leader = await cluster.leader()
    cluster.network.isolate(leader, [name for name in cluster.names if name != leader])
    await cluster.other_leader(leader)
    await confirms_again(load)
    cluster.network.heal()


async def leader_cut_from_etcd(cluster: Cluster, load: Load) -> None:
    """The leader reaches the nodes and not etcd: somebody else leads, or it goes on as long as all mirrors answer."""
    leader = await cluster.leader()
    cluster.network.cut([leader], [ETCD])
    await confirms_again(load)
    await cluster.other_leader(leader)
    await confirms_again(load)
    cluster.network.heal()


async def leader_hears_nothing(cluster: Cluster, load: Load) -> None:
    """What the leader says arrives, and what is said to it does not."""
    leader = await cluster.leader()
    others = [name for name in cluster.names if name != leader]
    cluster.network.cut([*others, ETCD], [leader], both_ways=False)
    await cluster.other_leader(leader)
    await confirms_again(load)
    cluster.network.heal()


async def mirror_hears_nothing_of_the_leader(cluster: Cluster, load: Load) -> None:
    """What a mirror says to the leader arrives, and what the leader says to it does not: it is no longer waited for."""
    leader, (mirror, *others) = await cluster.leader(), await cluster.mirrors()
    cluster.network.cut([leader], [mirror], both_ways=False)
    await cluster.in_sync(leader, *others)
    await confirms_again(load)
    assert await cluster.leader() == leader
    cluster.network.heal()


async def leader_unplugged(cluster: Cluster, load: Load) -> None:
    """The leader's link is down, which it sees, and its clients do not; then it is up again."""
    assert isinstance(cluster.network, Namespaces)
    leader = await cluster.leader()
    cluster.network.unplug(leader)
    await cluster.other_leader(leader)
    await confirms_again(load)
    cluster.network.plug(leader)


async def leader_cut_from_mirrors(cluster: Cluster, load: Load) -> None:
    """The leader reaches etcd and no mirror, and the mirrors reach each other and etcd: it gives way to one of them."""
    leader = await cluster.leader()
    cluster.network.cut([leader], [name for name in cluster.names if name != leader])
    await cluster.other_leader(leader)
    await confirms_again(load)
    cluster.network.heal()


async def handed_over_while_etcd_is_slow(cluster: Cluster, load: Load) -> None:
    """SIGTERM to the leader while each question to etcd takes a good part of a lease."""
    for name in cluster.names:
        cluster.network.delays[(ETCD, name)] = cluster.network.delays[(name, ETCD)] = cluster.ttl / 8
    await confirms_again(load)
    leader = await cluster.leader()
    began = trio.current_time()
    await cluster.stop(leader)
    await confirms_again(load, began)
    await cluster.start(leader)
    await cluster.in_sync()
    cluster.network.heal()


async def stopped_while_etcd_is_frozen(cluster: Cluster, load: Load) -> None:
    """SIGTERM to the leader, which nobody can be told of: it ends all the same, and when etcd answers another leads."""
    leader = await cluster.leader()
    cluster.etcd.members[0].pause()
    began = trio.current_time()
    await cluster.stop(leader)
    cluster.etcd.members[0].resume()
    await cluster.other_leader(leader)
    await confirms_again(load, began)
    await cluster.start(leader)


async def mirror_wiped(cluster: Cluster, load: Load) -> None:
    """A mirror comes back with an empty disk."""
    mirror, *_ = await cluster.mirrors()
    cluster.kill(mirror)
    await cluster.in_sync()
    cluster.nodes[mirror].wipe()
    await cluster.start(mirror)


async def mirror_damaged(cluster: Cluster, load: Load) -> None:
    """A bit of what a mirror has on disk is another one when it comes back."""
    mirror, *_ = await cluster.mirrors()
    cluster.kill(mirror)
    await cluster.in_sync()
    cluster.nodes[mirror].flip_a_bit(random.Random(1))
    await cluster.start(mirror)


async def etcd_killed(cluster: Cluster, load: Load) -> None:
    """etcd is gone for longer than leases last; as long as all mirrors answer nobody notices."""
    before = load.ledger.failures
    cluster.etcd.stop()
    with trio.move_on_after(cluster.ttl + 1):
        while True:
            await confirms_again(load)
    assert load.ledger.failures == before, load.ledger.troubles
    cluster.etcd.start()
    await cluster.etcd.ready()


async def etcd_frozen(cluster: Cluster, load: Load) -> None:
    """The same with an etcd that does not answer."""
    before = load.ledger.failures
    cluster.etcd.members[0].pause()
    with trio.move_on_after(cluster.ttl + 1):
        while True:
            await confirms_again(load)
    assert load.ledger.failures == before, load.ledger.troubles
    cluster.etcd.members[0].resume()


async def two_leaders_killed(cluster: Cluster, load: Load) -> None:
    """The leader and then, before it is back, the next one: one of three confirms nothing alone."""
    first = await cluster.leader()
    cluster.kill(first)
    second = await cluster.other_leader(first)
    await confirms_again(load)
    await cluster.in_sync()
    cluster.kill(second)
    await cluster.start(first, second)
    await confirms_again(load)


_ANY = ("loopback", "relays", "namespaces")
_CUT = ("relays", "namespaces")
MISHAPS = {
    happen.__name__: Mishap(happen, networks)
    for networks, happenings in (
        (
            _ANY,
            (
                leader_killed,
                mirror_killed,
                all_killed,
                leader_frozen,
                mirror_frozen,
                handed_over,
                transferred,
                restarted_in_turn,
                mirror_wiped,
                mirror_damaged,
                etcd_killed,
                etcd_frozen,
                stopped_while_etcd_is_frozen,
                two_leaders_killed,
            ),
        ),
        (
            _CUT,
            (
                leader_cut_off,
                leader_cut_from_etcd,
                leader_cut_from_mirrors,
                leader_hears_nothing,
                mirror_hears_nothing_of_the_leader,
            ),
        ),
        (("relays",), (handed_over_while_etcd_is_slow,)),
        (("namespaces",), (leader_unplugged,)),
    )
    for happen in happenings
}


def possible(network: str) -> tuple[str, ...]:
    """What can happen in one of WIRINGS."""
    return tuple(name for name, mishap in MISHAPS.items() if network in mishap.networks)


async def live_through(cluster: Cluster, load: Load, name: str) -> None:
    """A mishap, and the way back."""
    try:
        await MISHAPS[name].happen(cluster, load)
    finally:
        cluster.mend()
    await cluster.whole()
    await confirms_again(load)
