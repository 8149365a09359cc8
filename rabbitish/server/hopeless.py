"""Tells the operator what is waited for that may never come, which from outside looks like any other wait.

Only a replica that was in sync may lead: when none of them is there, or none with its disk, the others wait. Each node
looks at etcd from time to time while it does not lead, and says so once for each state. And a leader confirms nothing
while fewer are in sync than are asked for, nor does it serve before that was so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from rabbitish.cluster.etcd import Etcd, KeyValue, Unknown, get
from rabbitish.cluster.membership import Names, storage_in
from rabbitish.cluster.protocol.replica import Replica
from rabbitish.cluster.protocol.state import GroupState, decode_state, node_of, storage_of
from rabbitish.server.cluster_place import JOURNAL
from rabbitish.server.log import Log

_LOOK_SECONDS = 5.0
_WAY_OUT = "if no disk comes back, stop these nodes, and use 'rabbitish cluster force-leader' on the one that has most"


def told(state: GroupState, storages: dict[str, str]) -> dict[str, str] | None:
    """What there is to say, given the storage of each node that lives; None: somebody may lead."""
    gone = [node_of(x) for x in state.isr if storages.get(node_of(x), storage_of(x)) != storage_of(x)]
    absent = [node_of(x) for x in state.isr if node_of(x) not in storages]
    if len(gone) + len(absent) < len(state.isr):
        return None
    waits = {"waits_for": " ".join(absent)} if absent else {}
    lost = {"came_back_without_their_disks": " ".join(gone)} if gone else {}
    return {**waits, **lost, "way_out": _WAY_OUT}


def storages_in(kvs: list[KeyValue], names: Names) -> dict[str, str]:
    """The storage of each node that lives, where it says so."""
    said = {kv.key.removeprefix(names.nodes): storage_in(kv.value) for kv in kvs}
    return {node.decode(errors="replace"): storage for node, storage in said.items() if storage is not None}


async def watch(etcd: Etcd, names: Names, leads: Callable[[], bool], log: Log) -> None:
    """Look from time to time, for ever; what is so twice in a row is said."""
    last = said = None
    while True:
        await trio.sleep(_LOOK_SECONDS)
        if leads():
            last = said = None
            continue
        with suppress(Unknown, ValueError):
            journal, nodes = (await etcd.txn([], [get(names.journal(JOURNAL)), get(names.nodes, prefix=True)])).ranges
            if journal:
                found = told(decode_state(journal[0].value), storages_in(nodes, names))
                if found is not None and found == last and found != said:
                    said = found
                    log.error("nobody may lead, and nothing is confirmed", **found)
                last = found


async def watch_set(replica: Replica, log: Log) -> None:
    """Look from time to time, for ever, whether enough are in sync for a leader; what is so twice in a row is said."""
    last = said = None
    while True:
        await trio.sleep(_LOOK_SECONDS)
        leading, found = replica.leading, None
        if leading is not None and replica.short:
            found = {"in_sync": len(leading.state.isr), "needed": replica.needed(len(leading.state.replicas))}
        if found is not None and found == last and found != said:
            log.warning("nothing is confirmed: fewer replicas are in sync than --cluster-min-in-sync asks for", **found)
            said = found
        elif found is None and said is not None:
            log.info("enough replicas are in sync again")
            said = None
        last = found
