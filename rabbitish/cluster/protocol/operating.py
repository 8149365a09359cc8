"""What an operator sees of a journal's replicas, and may do to them; where it would be unwise, why.

Each change is a new state for the coordinator, made from the one that was read, and written by compare-and-swap alone:
whatever happens in between makes it fail, and it is decided anew. What is confirmed is kept by every one of them but
`force`, which is for when no in-sync replica is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from rabbitish.cluster.protocol.log import EpochStart
from rabbitish.cluster.protocol.state import GroupState, View, node_of


class Unwise(Exception):
    """It is not done, and why, for people."""


# ---- looking


def members(
    view: View, addresses: Mapping[str, tuple[str, int]], last: int, acked: Mapping[str, int]
) -> list[dict[str, object]]:
    """The replicas in the order in which they would stand. `acked`: what each has, which its leader alone knows."""
    state = view.state
    rows: list[dict[str, object]] = []
    for replica in state.replicas:
        node, has = node_of(replica), acked.get(replica)
        address = addresses.get(node)
        rows.append(
            {
                "node": node,
                "role": "leader" if replica == state.leader else "mirror",
                "in_sync": replica in state.isr,
                "live": node in view.live,
                "acked": has,
                "lag": None if has is None else max(0, last - has),
                "address": "" if address is None else f"{address[0]}:{address[1]}",
                "replica": replica,
            }
        )
    return rows


# ---- changing


def _heirs(view: View, me: str, acked: Mapping[str, int]) -> list[str]:
    return [x for x in view.state.isr if x != me and node_of(x) in view.live and x in acked]


def better_placed(view: View, me: str, acked: Mapping[str, int], clients: Mapping[str, int]) -> str | None:
    """The replica that should lead, since more clients are connected to its node than to ours; None: it is well so."""

    def has(replica: str) -> tuple[int, int]:
        return clients.get(node_of(replica), 0), acked[replica]

    best = max(_heirs(view, me, acked), key=has, default=None)
    return best if best is not None and has(best)[0] > clients.get(node_of(me), 0) else None


def heir_for(view: View, me: str, acked: Mapping[str, int], node: str | None) -> str:
    """The replica to lead in our place: of that node, or the one that has most. Unwise: there is none."""
    state, heirs = view.state, _heirs(view, me, acked)
    if node is None:
        if not heirs:
            raise Unwise("no mirror is in sync, and only one that is may lead")
        return max(heirs, key=lambda x: acked[x])
    if node == node_of(me):
        raise Unwise(f"{node} leads already")
    found = [x for x in state.replicas if node_of(x) == node]
    if not found:
        raise Unwise(f"there is no node {node}; there are {', '.join(sorted(map(node_of, state.replicas)))}")
    ready = [x for x in found if x in heirs]
    if not ready:
        raise Unwise(f"{node} is not in sync or not there, and only a mirror that is may lead")
    return ready[0]


def forget(view: View, node: str) -> GroupState:
    """The state without a node that will not come back. Unwise: it is needed, unknown, or runs and would join again."""
    state = view.state
    gone = {x for x in state.replicas if node_of(x) == node}
    if not gone:
        raise Unwise(f"there is no node {node}; there are {', '.join(sorted(map(node_of, state.replicas)))}")
    if state.leader in gone:
        if node in view.live:
            raise Unwise(f"{node} leads; another must first ('rabbitish cluster transfer', or stop it)")
        way = "if it will not come back: 'rabbitish cluster force-leader'"
        raise Unwise(f"{node} led last, and nobody else may yet; {way}")
    isr = tuple(x for x in state.isr if x not in gone)
    if not isr:
        raise Unwise(f"{node} alone is in sync: without it nobody may lead, and what it has is lost")
    if node in view.live:
        raise Unwise(f"{node} is running, or its lease in etcd has not ended yet: stop it first")
    return state._replace(isr=isr, replicas=tuple(x for x in state.replicas if x not in gone))


class Forced(NamedTuple):
    """What forcing a leader comes to."""

    state: GroupState
    losses: tuple[str, ...]
    """What may be lost by it, a sentence each; none: nothing that was confirmed is."""

    @property
    def nodes(self) -> list[str]:
        """Those that keep the journal then."""
        return [node_of(x) for x in self.state.replicas]


def force(view: View | None, me: str, epoch: int, starts: Collection[EpochStart], last: int) -> Forced:
    """The state in which we lead alone, whoever was in sync; our log knows of `epoch` and has records up to `last`.

    `view` is None where the coordinator knows nothing. Unwise: nobody needs to be forced.
    """
    have = max((start.epoch for start in starts), default=0)
    mine = f"this replica has records up to {last}, the newest of epoch {have}"
    if view is None:
        state = GroupState(epoch + 1, me, (me,), (me,), "")
        return Forced(state, (f"etcd knows nothing of this cluster; {mine}, and who has more is not known",))
    old = view.state
    leaders = [x for x in old.isr if x != me and node_of(x) in view.live]
    if leaders:
        names = ", ".join(sorted(map(node_of, leaders)))
        are, them = ("are", "them") if len(leaders) > 1 else ("is", "it")
        raise Unwise(f"{names} {are} in sync and alive, and can lead: stop {them} first")
    losses = []
    if me not in old.isr:
        names = ", ".join(sorted(map(node_of, old.isr)))
        losses.append(f"in sync is {names}, not this node: what was confirmed while it was not in sync may be lost")
        if have < old.epoch:
            losses.append(f"{mine}; the cluster is in epoch {old.epoch}: everything confirmed since may be lost")
        else:
            losses.append(f"{mine}, as is the cluster; how many records came after them is not known")
    # Who is not there joins when it comes back: until then it must not count, or too few might be in sync to confirm.
    there = (x for x in old.replicas if node_of(x) != node_of(me) and node_of(x) in view.live)
    state = GroupState(max(old.epoch, epoch) + 1, me, (me,), (me, *there), "")
    return Forced(state, tuple(losses))
