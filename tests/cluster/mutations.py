"""The protocol with one rule broken each: all of them must be noticed, or the simulation would prove nothing.

Each is a replica whose parts differ in one method or two. `MUTATIONS` says which seed is known to catch it: found by
trying the seeds from 1 on, and noted there so that an ordinary run needs one life for each. After a change of the
simulation another seed may be the first; the test goes on with the first few then.
"""

from __future__ import annotations

from typing import NamedTuple

from rabbitish.cluster.protocol.electing import Election
from rabbitish.cluster.protocol.following import Following
from rabbitish.cluster.protocol.frames import Ack, Hello, Welcome
from rabbitish.cluster.protocol.leading import Feed, Leadership
from rabbitish.cluster.protocol.replica import Replica
from rabbitish.cluster.protocol.state import GroupState, View

from .world import UNCOMPARED


class AnyoneStands(Election):
    """R8: who is not in sync may stand too."""

    def eligible(self, state: GroupState) -> bool:
        return True


class CutsToCommit(Leadership):
    """R2: logs are cut to what is committed, as if nobody could have more, instead of to where they part."""

    def cut_for(self, frame: Hello) -> int:
        return min(frame.end, max(self.replica.commit, self.replica.log.base))


class CountsAnyAck(Leadership):
    """R4: acknowledgements of other sessions and epochs count."""

    def counts(self, feed: Feed, frame: Ack) -> bool:
        return True


class HearsAnyone(Following):
    """R1 and R2: leaders of earlier epochs are listened to, and what belongs to another session."""

    def stale(self, peer: str, epoch: int) -> bool:
        return self.replica.leading is not None

    def welcome(self, peer: str, frame: Welcome, now: int) -> None:
        self._asked = frame.attempt
        super().welcome(peer, frame, now)


class AcksWhatIsWritten(Following):
    """R4: written is taken for synced."""

    def on_disk(self) -> int:
        return self.replica.log.last


class JoinsUnwaited(Leadership):
    """R10: who is about to join is not waited for until it has."""

    def waited_for(self) -> set[str]:
        return {self.replica.me, *self.state.isr}


class LeavesAtOnce(Leadership):
    """R9: who is about to leave is not waited for any more."""

    def waited_for(self) -> set[str]:
        return {self.replica.me, *(self.proposal.state if self.proposal is not None else self.state).isr}


class JoinsBehind(Leadership):
    """R10: who is in a session may join, whatever it has."""

    def caught_up(self, feed: Feed) -> bool:
        return True


class PutsPlainly(Leadership):
    """Every change is a compare-and-swap; here the last one to write wins."""

    def swap(self) -> None:
        assert self.proposal is not None
        self._retry_at = None
        self.proposal.revision = UNCOMPARED
        self.replica.coordinator.swap(self.proposal)


class BelievesARead(Leadership):
    """R11: a change of unknown outcome has failed when a read shows the old value, and is tried anew in a moment."""

    def unknown(self, now: int) -> None:
        super().unknown(now)
        self.replica.coordinator.read()

    def observed(self, view: View, now: int) -> None:
        super().observed(view, now)
        if self.proposal is not None and self._retry_at is not None and view.revision == self.revision:
            for name in self.proposal.state.isr:
                self._rejoin[name] = now + 1_000
            self.proposal = None
            self.advance()


class TakesAnyWelcome(Following):
    """R2: the answer to an earlier question, about a log that is no longer so, begins a session."""

    def welcome(self, peer: str, frame: Welcome, now: int) -> None:
        self._asked = frame.attempt
        super().welcome(peer, frame, now)


class Broken(NamedTuple):
    """A replica with a broken rule, and a seed that notices."""

    replica: type[Replica]
    seed: int
    flake: float | None
    """How many calls of etcd have an unknown outcome, where it takes many."""


def broken(
    seed: int,
    *,
    leadership: type[Leadership] = Leadership,
    following: type[Following] = Following,
    electing: type[Election] = Election,
    flake: float | None = None,
) -> Broken:
    parts = {
        "leadership": staticmethod(leadership),
        "following_as": staticmethod(following),
        "electing_as": staticmethod(electing),
    }
    return Broken(type("BrokenReplica", (Replica,), parts), seed, flake)


MUTATIONS = {
    "a candidate need not be in sync": broken(2, electing=AnyoneStands),
    "logs are cut to the commit, not to where they part": broken(1, leadership=CutsToCommit),
    "acknowledgements count without their epoch and session": broken(2, leadership=CountsAnyAck, following=HearsAnyone),
    "acknowledged before it is synced": broken(1, following=AcksWhatIsWritten),
    "who joins is not waited for meanwhile": broken(6, leadership=JoinsUnwaited),
    "who leaves is not waited for meanwhile": broken(3, leadership=LeavesAtOnce),
    "who joins need not have everything": broken(2, leadership=JoinsBehind),
    "the state is written without comparing": broken(12, leadership=PutsPlainly),
    "a swap of unknown outcome is forgotten after a read": broken(6, leadership=BelievesARead, flake=0.4),
    "a session begins with an answer to another question": broken(12, following=TakesAnyWelcome),
}
