"""Forcing a leader: a state in etcd that names the replica in a data directory as the leader, alone in sync.

For when no in-sync replica will come back. No broker runs on the directory meanwhile; what may be lost is told by
cluster/protocol/operating.py. Nothing in the directory is changed: the node that is started on it finds itself named,
and takes over as it would after any restart.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import trio

from rabbitish.cluster.etcd import Etcd, Unknown
from rabbitish.cluster.membership import Names, change_state
from rabbitish.cluster.protocol.disk_writer import Known, read_known
from rabbitish.cluster.protocol.log import EpochStart
from rabbitish.cluster.protocol.operating import Forced, Unwise, force
from rabbitish.cluster.protocol.state import GroupState, View, replica_id
from rabbitish.config import Settings
from rabbitish.server.cluster_place import JOURNAL, cluster_place
from rabbitish.store.files import DataDirInUse, RealDisk
from rabbitish.store.record import JournalDamaged, Record, SegmentHead, Type
from rabbitish.store.scan import scan

_ETCD_SECONDS = 10


class CannotForce(Exception):
    """It cannot be done, or is not wise; the message says why, for people."""


class _OnlyAsked(Exception):
    """It was not to be done."""


def force_here(settings: Settings, do: bool) -> Forced:
    """Have the node with these settings lead, if `do`; what that means. CannotForce: see there."""
    path = Path(settings.data_dir).absolute()
    if not path.is_dir():
        raise CannotForce(f"there is no data directory {path}")
    try:
        disk = RealDisk(path)
    except DataDirInUse as error:
        raise CannotForce(f"{error}; stop that broker first") from error
    except OSError as error:
        raise CannotForce(f"cannot use {path}: {error.strerror}") from error
    try:
        known, last = _log_in(disk)
    except (JournalDamaged, OSError) as error:
        raise CannotForce(f"the log in {path} cannot be read: {error}") from error
    finally:
        disk.close()
    try:
        return trio.run(_force, settings, known, last, do)
    except Unwise as unwise:
        raise CannotForce(str(unwise)) from unwise
    except (Unknown, trio.TooSlowError) as error:
        raise CannotForce(f"etcd does not answer, so whether it is done is not known: {error}") from error


def _log_in(disk: RealDisk) -> tuple[Known, int]:
    """What a folder has of the log: what it knows, with the epochs whose beginning it has, and the last number."""
    known = read_known(disk)
    if known is None:
        raise CannotForce(f"{disk.path} is no data directory of a node in a cluster")
    starts = list(known.starts)

    def visit(head: SegmentHead, data: bytes, record: Record) -> None:
        if record.type is Type.EPOCH:
            starts.append(EpochStart(record.epoch, record.lsn))

    scanned = scan(disk, visit)
    return known._replace(starts=tuple(starts)), scanned.last_lsn


async def _force(settings: Settings, known: Known, last: int, do: bool) -> Forced:
    place = cluster_place(settings)
    me = replica_id(place.node, known.storage)
    made: list[Forced] = []

    def decide(view: View | None) -> GroupState:
        made.append(force(view, me, known.epoch, known.starts, last))
        if not do:
            raise _OnlyAsked
        return made[-1].state

    etcd = Etcd(place.cluster.members)
    try:
        with trio.fail_after(_ETCD_SECONDS):
            await change_state(
                etcd, Names(place.cluster.name), JOURNAL, decide, f"{me}/forced-{secrets.randbits(64):x}"
            )
    except _OnlyAsked:
        pass
    finally:
        await etcd.aclose()
    return made[-1]
