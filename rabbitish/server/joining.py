"""How a node comes into its cluster: its log is opened, and etcd is told that it keeps the journal, if it may.

Whoever has a log that etcd does not know of, or of another node or another cluster, is refused with the reason: to go
on would be to cut that log to what the cluster has. As long as etcd does not answer nobody knows: that is waited for.

A node that is left out while it runs says so and joins again by the same rules, as a replica that is not in sync. What
would refuse it at its start is said as well; it does not end for that, since nobody has looked at it yet.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable

import trio

from rabbitish.cluster.etcd import Etcd, Unknown
from rabbitish.cluster.membership import Names, NotThere, join_journal, shared_secret
from rabbitish.cluster.protocol.disk_log import DiskLog
from rabbitish.cluster.protocol.disk_open import open_log
from rabbitish.cluster.protocol.disk_writer import REPLICA_FILE, read_known
from rabbitish.cluster.protocol.replica import Replica
from rabbitish.cluster.protocol.state import View, node_of, replica_id
from rabbitish.server.cluster_place import JOURNAL, ClusterPlace
from rabbitish.server.keeper import JournalError
from rabbitish.server.log import Log
from rabbitish.store.files import RealDisk
from rabbitish.store.record import JournalDamaged
from rabbitish.store.scan import that_count

_SECRET_BYTES = 32
_AGAIN_SECONDS = 0.5


def open_records(disk: RealDisk, log_disk: RealDisk, segment_bytes: int, log: Log) -> DiskLog:
    """The log on disk, or a new one; one that is damaged is set aside, since the others have what it had (R14).

    A new one is not in sync, so it never leads before it has everything. JournalError: it cannot be read.
    """
    try:
        try:
            known = read_known(disk)
            if known is None and that_count(disk.names())[0]:
                raise JournalError(f"{disk.path} holds the journal of a broker of its own, which is in no cluster")
            return open_log(log_disk, _new_id, segment_bytes=segment_bytes)
        except JournalDamaged as damage:
            folder = disk.set_aside("damaged", REPLICA_FILE)  # a part of the log is not to be taken for all of it
            log.error("the log is damaged: it is set aside, and this node begins anew", reason=damage, at=folder)
            return open_log(log_disk, _new_id, segment_bytes=segment_bytes)
    except OSError as error:
        raise JournalError(f"the log cannot be read: {error}") from error


async def join(etcd: Etcd, names: Names, place: ClusterPlace, records: DiskLog, log: Log) -> bytes:
    """Become one of those that keep the journal; the cluster's secret. JournalError: that must not be."""
    me, said = replica_id(place.node, records.storage), False
    while True:
        try:
            await _have_name(etcd, names, place, records.storage, log)
            secret = await shared_secret(etcd, names, secrets.token_hex(_SECRET_BYTES).encode())
            await join_journal(etcd, names, JOURNAL, me, empty=not records.last, epoch=records.epoch)
            return secret
        except NotThere as refused:
            raise JournalError(str(refused)) from refused
        except Unknown as error:
            if not said:
                said = True
                log.warning("etcd does not answer, and without it nobody knows who leads", error=error)
        await trio.sleep(_AGAIN_SECONDS)


async def _have_name(etcd: Etcd, names: Names, place: ClusterPlace, storage: str, log: Log) -> None:
    """Wait until no other node has this one's name. JournalError: one does, for longer than a lease lasts."""
    until = trio.current_time() + 2 * place.ttl_s + 1
    waits = False
    while True:
        found = (await etcd.range(names.node(place.node))).kvs
        try:
            told = json.loads(found[0].value) if found else {}
            other, where = told.get("storage", storage), ":".join(map(str, told.get("address", ())))
        except (ValueError, TypeError, AttributeError):  # whoever wrote that
            return
        if other == storage:
            return
        if trio.current_time() >= until:
            raise JournalError(f"there is a node {place.node} already, at {where}: each needs its own node_name")
        if not waits:
            waits = True
            log.info("a node of this name was there a moment ago: its lease has to end", node=place.node)
        await trio.sleep(_AGAIN_SECONDS)


async def stay_in(
    replica: Replica, etcd: Etcd, names: Names, records: DiskLog, log: Log, news: Callable[[], Awaitable[None]]
) -> None:
    """Join again whenever the cluster does not count on this node any more, for ever; `news` waits for another view."""
    tried, refusal = 0, ""
    while True:
        await news()
        view = replica.view
        if view is None or not _left_out(replica, view):
            refusal = ""
            continue
        if view.revision == tried:
            continue
        tried = view.revision
        if not refusal:
            log.warning(
                "this node runs, and the cluster does not count on it ('forget' or 'force-leader' left it out): "
                "it joins again, not in sync",
                epoch=view.state.epoch,
                leader=node_of(view.state.leader),
            )
        try:
            await _join_again(replica, etcd, names, records)
            refusal = ""
        except NotThere as refused:
            if str(refused) != refusal:
                refusal = str(refused)
                log.error(
                    "this node cannot join its cluster again; it keeps what it has, and would be refused at its start",
                    reason=refusal,
                )


def _left_out(replica: Replica, view: View) -> bool:
    """Not so where its name is there with another storage: that is its leader's to put right (R14)."""
    away = node_of(replica.me) not in map(node_of, view.state.replicas)
    return away and replica.running and replica.leading is None


async def _join_again(replica: Replica, etcd: Etcd, names: Names, records: DiskLog) -> None:
    """Until etcd has answered. It is never the first one, whatever its log has: others were there."""
    while replica.running:
        try:
            await join_journal(etcd, names, JOURNAL, replica.me, empty=False, epoch=records.epoch)
            return
        except Unknown:
            await trio.sleep(_AGAIN_SECONDS)


def _new_id() -> str:
    return secrets.token_hex(16)
