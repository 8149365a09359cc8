"""Tells the operator when nobody may lead any more: the nodes that were in sync are not there, or lost their disks.

Only a replica that was in sync may lead, so the others wait, for ever if need be, and from outside that looks like any
wait for a leader. Each node looks at etcd from time to time while it does not lead, and says so once for each state.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import trio

from rabbitish.cluster.etcd import Etcd, KeyValue, Unknown, get
from rabbitish.cluster.membership import Names
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
    found = {}
    for kv in kvs:
        with suppress(ValueError, LookupError, TypeError):
            found[kv.key.removeprefix(names.nodes).decode()] = str(json.loads(kv.value)["storage"])
    return found


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
