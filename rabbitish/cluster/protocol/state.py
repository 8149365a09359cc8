"""What the coordinator keeps about a journal, and how it is changed: by compare-and-swap alone.

The state names an epoch, its leader, and the in-sync replicas: those that have every confirmed record on disk, so the
only ones that may lead next. A replica's id is its node's name and the id of its storage, so that a node whose disk was
emptied is another replica. Every change has a nonce of its own, by which its writer knows it again.

An answer of UNKNOWN means that the change may have happened, may yet happen, or never will. Only DONE or CONFLICT on
the same proposal ends that: a read that shows the old value proves nothing, since the write may land later.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import NamedTuple, Protocol


class GroupState(NamedTuple):
    """Who leads a journal in which epoch, and who may lead it next."""

    epoch: int
    leader: str
    isr: tuple[str, ...]
    """The in-sync replicas, sorted."""
    replicas: tuple[str, ...]
    """All that keep the journal; a candidate's place in it is how long it waits."""
    nonce: str

    def encode(self) -> bytes:
        """As the coordinator keeps it."""
        return json.dumps(self._asdict()).encode()


def decode_state(data: bytes) -> GroupState:
    """The other way. ValueError: it is something else."""
    try:
        found = json.loads(data)
        return GroupState(
            int(found["epoch"]),
            str(found["leader"]),
            tuple(map(str, found["isr"])),
            tuple(map(str, found["replicas"])),
            str(found["nonce"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"not the state of a journal: {error!r}") from error


def replica_id(node: str, storage: str) -> str:
    """The id of a node's replica."""
    return f"{node}#{storage}"


def node_of(replica: str) -> str:
    """The node of a replica."""
    return replica.partition("#")[0]


def storage_of(replica: str) -> str:
    """The storage of a replica."""
    return replica.partition("#")[2]


class View(NamedTuple):
    """What the coordinator said at one moment."""

    state: GroupState
    revision: int
    """Of the last change of `state`: what a proposal is compared with."""
    live: frozenset[str]
    """Nodes that hold a lease."""
    at: int
    """The coordinator's clock: of two views the one with the higher is newer."""


class Outcome(Enum):
    """How a compare-and-swap ended."""

    DONE = "done"
    CONFLICT = "conflict"
    UNKNOWN = "unknown"


class Proposal:
    """A change of a journal's state: it holds if `revision` is still the last and no node `absent` has a lease.

    The same object is proposed again until its outcome is known.
    """

    __slots__ = ("absent", "revision", "state")

    def __init__(self, revision: int, state: GroupState, absent: str | None = None) -> None:
        self.revision = revision
        self.state = state
        self.absent = absent


class Coordinator(Protocol):
    """Where states are kept, and who says which nodes live. It answers later, through the replica's methods."""

    def swap(self, proposal: Proposal) -> None:
        """Try a change; answered by `Replica.swapped`."""

    def read(self) -> None:
        """Read linearizably; answered by `Replica.was_read`."""
