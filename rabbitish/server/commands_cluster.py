"""Commands about a cluster, which any of its nodes answers: who leads, who is in sync, and what an operator may change.

As in commands.py; names follow rabbitmqctl where it has one. What is wise is decided in cluster/protocol/operating.py.
cluster/etcd.py is imported by the node of a cluster alone, so here only where a command runs on one.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import trio

from rabbitish.cluster.protocol.operating import Unwise, better_placed, forget, heir_for, members
from rabbitish.cluster.protocol.state import GroupState, View, node_of
from rabbitish.core.access.records import AccessError
from rabbitish.server.commands import Call, ClusterView, command

if TYPE_CHECKING:
    from rabbitish.cluster.protocol.leading import Leadership
    from rabbitish.cluster.protocol.replica import Replica

_PATIENCE_SECONDS = 5
_LOOK_SECONDS = 0.02
NOT_ANSWERED = "etcd does not answer, so whether it is done is not known; see 'rabbitish cluster status'"


def _cluster(call: Call) -> ClusterView:
    if call.cluster is None:
        raise AccessError("this broker is in no cluster")
    return call.cluster


def _view(replica: Replica) -> View:
    if replica.view is None:
        raise AccessError("etcd has not said anything yet: nobody knows who leads")
    return replica.view


def _acked(replica: Replica) -> dict[str, int]:
    """How far each mirror has everything on disk; nothing where this node does not lead."""
    if replica.leading is None:
        return {}
    return {name: feed.acked for name, feed in replica.leading.feeds.items()}


@command
async def cluster_status(call: Call) -> dict[str, object]:
    """Who leads, and how its mirrors are, as this node knows it."""
    cluster = _cluster(call)
    part = cluster.part
    replica = part.replica
    view = _view(replica)
    acked = _acked(replica)
    if replica.leading is not None:
        acked[replica.me] = replica.log.durable
    addresses = {node_of(each): where for each in view.state.replicas if (where := part.address_of(each)) is not None}
    return {
        "cluster": str(cluster.place.cluster),
        "node": cluster.place.node,
        "role": replica.role.value,
        "serves": cluster.front.node is not None,
        "leader": node_of(view.state.leader),
        "epoch": view.state.epoch,
        "last": replica.log.last,
        "committed": replica.commit,
        "needed": replica.needed(len(view.state.replicas)),
        "etcd": part.etcd_trouble or "answers",
        "replicas": members(view, addresses, replica.log.last, acked),
    }


@command
async def transfer_leadership(call: Call, node: str | None = None) -> str:
    """Have another node lead: that one, or the one that has most. Connections end, and are taken by any node again."""
    replica = _cluster(call).part.replica
    leading, view = _leading(replica)
    try:
        heir = heir_for(view, replica.me, _acked(replica), node)
    except Unwise as unwise:
        raise AccessError(str(unwise)) from None
    return await _hand_over(call, replica, leading, heir)


@command
async def rebalance_leadership(call: Call) -> dict[str, object]:
    """Have the node lead to which most clients are connected: they are served without a way through another.

    What is counted is connections that are open. One that a node of an older version brings counts for no node.
    """
    replica = _cluster(call).part.replica
    leading, view = _leading(replica)
    here = node_of(replica.me)
    clients = dict.fromkeys(map(node_of, view.state.replicas), 0)
    for session in call.node.links:
        if session.state == "running":
            by = getattr(session.peer, "node", None)
            by = here if by is None else by
            clients[by] = clients.get(by, 0) + 1
    heir = better_placed(view, replica.me, _acked(replica), clients)
    leader = here if heir is None else await _hand_over(call, replica, leading, heir)
    return {"leader": leader, "before": here, "clients": clients}


def _leading(replica: Replica) -> tuple[Leadership, View]:
    """AccessError: it does not."""
    view = _view(replica)
    if replica.leading is None:
        raise AccessError(f"this node does not lead: give the command on node {node_of(view.state.leader) or '(none)'}")
    return replica.leading, view


async def _hand_over(call: Call, replica: Replica, leading: Leadership, heir: str) -> str:
    call.node.hub.audit("leadership handed over", actor=call.actor, to=node_of(heir))
    with trio.move_on_after(_PATIENCE_SECONDS):
        while replica.leading is leading:
            leading.hand_over(heir)  # does nothing while a change is under way, this one or another
            await trio.sleep(_LOOK_SECONDS)
        return node_of(heir)
    raise AccessError(NOT_ANSWERED)


@command
async def forget_cluster_node(call: Call, node: str) -> None:
    """The node will not come back, and nobody waits for it or counts it any more."""
    from rabbitish.cluster.etcd import Unknown
    from rabbitish.cluster.membership import change_state

    cluster = _cluster(call)

    def decide(view: View | None) -> GroupState:
        if view is None:
            raise Unwise("etcd knows nothing of this cluster")
        return forget(view, node)

    nonce = f"{cluster.part.id}/{secrets.randbits(64):x}"
    try:
        await change_state(cluster.etcd, cluster.names, cluster.part.journal, decide, nonce)
    except Unwise as unwise:
        raise AccessError(str(unwise)) from None
    except Unknown:
        raise AccessError(NOT_ANSWERED) from None
