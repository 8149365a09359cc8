"""When to take over, and how: by a compare-and-swap that only an in-sync replica may try.

Triggers (R7): the leader's lease is gone; its node refused two connections, so its process is gone; it handed over, or
was restarted, and we are the leader that nobody is; somebody asks. None of them matters for safety: a takeover without
any reason costs a pause and never a message, since whoever is in sync has everything that was confirmed (R8).

A swap of unknown outcome is sent again, the same one, until it is known or until the state has moved past it (R11).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rabbitish.cluster.protocol.state import GroupState, Outcome, Proposal, View, node_of

if TYPE_CHECKING:
    from rabbitish.cluster.protocol.replica import Replica

NAMED, DEAD, REFUSED, ASKED = "it is named the leader", "the leader's lease is gone", "the leader refuses", "asked to"


class Election:
    """What a replica that does not lead does to lead."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.proposal: Proposal | None = None
        self._retry_at: int | None = None
        self._due: int | None = None  # when to stand, if the reason still holds
        self._refusals: tuple[str, int, int] = ("", 0, 0)  # by whom, when first, how many; of the leader that is
        self._asked = False

    def eligible(self, state: GroupState) -> bool:
        """R8: only who is in sync."""
        return self.replica.me in state.isr

    def ask(self, now: int) -> None:
        """Take over without any other reason."""
        self._asked = True
        self.consider(now)

    def refused(self, leader: str, now: int) -> None:
        """The leader's node is there, and nobody listens."""
        who, first, count = self._refusals
        self._refusals = (leader, first, count + 1) if who == leader else (leader, now, 1)
        self.consider(now)

    def met(self) -> None:
        """The leader is there after all."""
        self._refusals = ("", 0, 0)

    def _reason(self, view: View, now: int) -> str:
        leader = view.state.leader
        who, first, count = self._refusals
        if leader == self.replica.me:
            return NAMED
        if who == leader and count > 1 and now - first >= self.replica.timing.hello_ms:
            return REFUSED
        if node_of(leader) not in view.live:
            return DEAD
        return ASKED if self._asked else ""

    def consider(self, now: int) -> None:
        """Stand, if there is a reason and it is our turn."""
        replica, view = self.replica, self.replica.view
        if view is None or replica.leading is not None or not replica.running or self.proposal is not None:
            return
        if self._refusals[0] != view.state.leader:
            self.met()  # who refused has been replaced: it may have been started again when it leads the next time
        reason = self._reason(view, now)
        if not reason or not self.eligible(view.state) or view.state.epoch < replica.log.epoch:
            self._due = None
            return
        if self._due is None:
            turn = view.state.replicas.index(replica.me) if replica.me in view.state.replicas else 0
            self._due = now + (0 if reason in (NAMED, ASKED) else turn * replica.timing.stand_ms)
        if now >= self._due:
            self._due = None
            self._asked = False
            self._stand(view, reason)

    def _stand(self, view: View, reason: str) -> None:
        replica, state = self.replica, view.state
        gone = state.leader if reason == REFUSED else ""
        isr = {x for x in state.isr if node_of(x) in view.live and x != gone} | {replica.me}
        new = GroupState(
            state.epoch + 1, replica.me, tuple(sorted(isr)), state.replicas, f"{replica.me}/{replica.nonce():x}"
        )
        self.proposal = Proposal(view.revision, new, node_of(state.leader) if reason == DEAD else None)
        replica.owner.note("candidate", epoch=new.epoch, reason=reason)
        replica.coordinator.swap(self.proposal)

    def swapped(self, outcome: Outcome, revision: int, now: int) -> None:
        """How it went."""
        assert self.proposal is not None
        if outcome is Outcome.DONE:
            self._won(revision, now)
        elif outcome is Outcome.UNKNOWN:
            self._retry_at = now + self.replica.timing.retry_ms
        else:
            self.replica.coordinator.read()

    def observed(self, view: View, *, linearizable: bool, now: int) -> None:
        """Whether the state shows how it went."""
        proposal = self.proposal
        if proposal is None:
            return
        if view.state.nonce == proposal.state.nonce:
            self._won(view.revision, now)
        elif view.revision > proposal.revision or (linearizable and self._retry_at is None):
            self.proposal = None  # it cannot happen any more, or the coordinator refused it

    def tick(self, now: int) -> None:
        """Send again what is unknown; stand, if it is our turn."""
        if self.proposal is not None and self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self.replica.coordinator.swap(self.proposal)
        self.consider(now)

    def _won(self, revision: int, now: int) -> None:
        proposal, self.proposal, self._retry_at = self.proposal, None, None
        assert proposal is not None
        self.met()
        if self.replica.log.epoch < proposal.state.epoch:  # else somebody was told of it before us: the next one, then
            self.replica.lead(proposal.state, revision, now)
