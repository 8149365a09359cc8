"""One node's replica of a journal: its role, its epoch, and everything that can happen to it.

    FOLLOWER --a session--> MIRROR --a reason to take over--> CANDIDATE --the swap is done--> LEADER
    every role --a higher epoch--> FOLLOWER

Events come in as calls with `now` (integer milliseconds of any clock that does not go back), what is to be done goes
out through four interfaces: the `Log`, the `Link`, the `Coordinator`, and the `Owner`, whose journal it is. Nothing
here waits, and no step relies on a clock or a lease: those only say when to try something.

Whoever sees a higher epoch notes it, ends its session and does not lead any more (R1).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from rabbitish.cluster.protocol.electing import Election
from rabbitish.cluster.protocol.following import Following
from rabbitish.cluster.protocol.frames import (
    Ack,
    Append,
    Frame,
    Hello,
    Link,
    Reject,
    SnapBegin,
    SnapEnd,
    SnapRecords,
    Welcome,
)
from rabbitish.cluster.protocol.leading import Leadership
from rabbitish.cluster.protocol.log import Log, Ticket
from rabbitish.cluster.protocol.state import Coordinator, GroupState, Outcome, Proposal, View
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.store.record import Type, encode, encode_mark


class Role(Enum):
    """What a replica is at the moment."""

    FOLLOWER = "follower"
    MIRROR = "mirror"
    CANDIDATE = "candidate"
    LEADER = "leader"


class NotLeading(Exception):
    """This replica does not lead, or is about to stop."""


class Owner(Protocol):
    """Whose journal it is."""

    def sync(self, ticket: Ticket) -> None:
        """Run the ticket where waiting is allowed, then call `Replica.synced`; `Replica.failed` if it raises.

        Both may be called before this returns.
        """

    def advanced(self) -> None:
        """`commit` or the in-sync set may have changed: confirms may go out, records may be applied."""

    def led(self, epoch: int) -> None:
        """It leads. What is behind `commit` may still be cut, elsewhere than here."""

    def stepped_down(self) -> None:
        """It leads no more: what waits for a confirm never gets one from here, and is not refused either."""

    def alarm(self, reason: str) -> None:
        """It stopped for good, and somebody must look at it: its files are as they were.

        The node's lease must end, or nobody would take over from it.
        """

    def stopped(self) -> None:
        """After `stop`: it does nothing any more, and the lease may be revoked."""

    def note(self, event: str, **details: object) -> None:
        """For the log."""


def _one(replicas: int) -> int:
    return 1


class Replica:
    """See the module. `me` is its id; `nonce` draws a number of 64 bits that it never drew before."""

    leadership: Callable[..., Leadership] = Leadership
    following_as: Callable[..., Following] = Following
    electing_as: Callable[..., Election] = Election

    def __init__(
        self,
        me: str,
        journal: str,
        log: Log,
        coordinator: Coordinator,
        link: Link,
        owner: Owner,
        nonce: Callable[[], int],
        timing: Timing,
    ) -> None:
        self.me = me
        self.journal = journal
        self.log = log
        self.coordinator = coordinator
        self.link = link
        self.owner = owner
        self.nonce = nonce
        self.timing = timing
        self.view: View | None = None
        self.commit = log.base
        self.syncing = False
        self.running = True
        self.lease_until = 0
        self.needed: Callable[[int], int] = _one
        """Of so many replicas, how many must be in sync for a confirm: the leader keeps the set at least as large."""
        self.leading: Leadership | None = None
        self.following = self.following_as(self)
        self.election = self.electing_as(self)

    @property
    def role(self) -> Role:
        """What it is at the moment."""
        if self.leading is not None:
            return Role.LEADER
        if self.election.proposal is not None:
            return Role.CANDIDATE
        return Role.FOLLOWER if self.following.session is None else Role.MIRROR

    # ---- what its owner asks

    def append(self, kind: Type, *body: bytes, now: int) -> int:
        """Append a record as the leader; its number. NotLeading: it does not."""
        leading = self.leading
        if leading is None or not self.running or leading.stop_by is not None:
            raise NotLeading(self.me)
        if self.commit > leading.marked and now - leading.marked_at >= self.timing.append_ms:
            leading.marked, leading.marked_at = self.commit, now
            self._append(Type.MARK, encode_mark(self.commit))
        return self._append(kind, *body)

    def _append(self, kind: Type, *body: bytes) -> int:
        lsn = self.log.last + 1
        self.log.append(b"".join(encode(lsn, self.log.epoch, kind, *body)))
        return lsn

    def flush(self, now: int) -> None:
        """After a batch of appends: to the mirrors, which then sync it while we do."""
        if self.leading is not None:
            self.leading.flush(now)
        self.sync()

    @property
    def in_sync(self) -> int:
        """How many are in the in-sync set, as far as the leader knows; 0 where it does not lead."""
        return len(self.leading.state.isr) if self.leading is not None else 0

    @property
    def short(self) -> bool:
        """Whether fewer are in sync than a confirm needs, as far as the leader knows; True where it does not lead."""
        return self.leading is None or self.in_sync < self.needed(len(self.leading.state.replicas))

    def may_deliver(self, now: int) -> bool:
        """Whether consumers may get what is committed (R12)."""
        return self.leading is not None and self.running and self.leading.may_deliver(now)

    def take_over(self, now: int) -> None:
        """Lead, if it is in sync, though nothing is wrong with the leader."""
        self.election.ask(now)

    def leased(self, until: int) -> None:
        """This node's lease is valid until then, counted from before it was asked to be kept alive."""
        self.lease_until = until

    def stop(self, now: int) -> None:
        """Hand over, if it leads, and do nothing any more (R13); `Owner.stopped` says when."""
        if self.leading is not None and self.running:
            if self.leading.stop_by is None:
                self.leading.begin_to_stop(now)
        else:
            self.stopped()

    def stopped(self) -> None:
        """There is nothing to hand over any more."""
        if self.running:
            self.running = False
            self._step_down()
            self.owner.stopped()

    # ---- what happens

    def tick(self, now: int) -> None:
        """Time passed."""
        if not self.running:
            return
        if self.leading is not None:
            self.leading.tick(now)
        else:
            self.election.tick(now)
            if self.leading is None:
                self.following.tick(now)

    def observed(self, view: View, now: int, *, linearizable: bool = False) -> None:
        """The coordinator says so, by itself or because it was asked.

        An older view than the last is one that came late, or the coordinator has lost what it knew: no use either way.
        """
        old = self.view
        if not self.running or (old is not None and view.at < old.at):
            return
        self.view = view
        if self.leading is not None:
            self.leading.observed(view, now)
        else:
            self.election.observed(view, linearizable=linearizable, now=now)
        if view.state.leader != self.me:
            self.saw(view.state.epoch, now)
        if self.leading is None:
            if old is None or (old.state.epoch, old.state.leader) != (view.state.epoch, view.state.leader):
                self.following.hurry()
            self.election.consider(now)
            self.following.tick(now)

    def was_read(self, view: View | None, now: int) -> None:
        """The answer to `Coordinator.read`; None: there was none."""
        if not self.running:
            return
        if view is not None:
            self.observed(view, now, linearizable=True)
        if self.leading is not None and self.leading.proposal is not None:
            self.leading.unknown(now)
        elif self.leading is None and self.election.proposal is not None:
            self.election.swapped(Outcome.UNKNOWN, 0, now)

    def swapped(self, proposal: Proposal, outcome: Outcome, revision: int, now: int) -> None:
        """The answer to `Coordinator.swap`, one for each time it was asked."""
        if not self.running:
            return
        if self.leading is not None and self.leading.proposal is proposal:
            self.leading.swapped(outcome, revision, now)
        elif self.leading is None and self.election.proposal is proposal:
            self.election.swapped(outcome, revision, now)

    def received(self, peer: str, frame: Frame, now: int) -> None:
        """Another replica says something."""
        if not self.running:
            return
        if isinstance(frame, (Hello, Ack)):
            self._as_leader(peer, frame, now)
        elif isinstance(frame, Reject):
            self.saw(frame.epoch, now)
        elif self.leading is not None and self.leading.epoch <= frame.epoch:
            return  # nobody else leads our epoch, and of a higher one etcd tells
        elif isinstance(frame, Append):
            self.following.append(peer, frame, now)
        elif isinstance(frame, Welcome):
            self.following.welcome(peer, frame, now)
        elif isinstance(frame, SnapBegin):
            self.following.snap_begin(peer, frame, now)
        elif isinstance(frame, SnapRecords):
            self.following.snap_records(peer, frame, now)
        elif isinstance(frame, SnapEnd):
            self.following.snap_end(peer, frame, now)

    def _as_leader(self, peer: str, frame: Hello | Ack, now: int) -> None:
        epoch = frame.seen if isinstance(frame, Hello) else frame.epoch
        proposal = self.election.proposal
        if proposal is not None and epoch == proposal.state.epoch:
            return  # it knows before we do that we lead
        if epoch > self.log.epoch:
            self.saw(epoch, now)
        elif self.leading is None:
            return
        elif isinstance(frame, Ack):
            self.leading.ack(peer, frame, now)
        elif frame.journal == self.journal and frame.replica == peer:
            self.leading.hello(peer, frame, now)

    def receiving(self, peer: str, now: int) -> None:
        """A frame of another replica arrives that is not whole yet: a long one takes longer than we are patient."""
        session = self.following.session
        if session is not None and session.leader == peer:
            session.heard = now

    def disconnected(self, peer: str, now: int) -> None:
        """The connection to a replica is gone."""
        if self.leading is not None:
            self.leading.disconnected(peer)
        elif self.following.session is not None and self.following.session.leader == peer:
            self.following.leave()
            if self.running:
                self.following.tick(now)

    def refused(self, peer: str, now: int) -> None:
        """A replica's node is there, and nobody listens."""
        if self.running and self.leading is None and self.view is not None and self.view.state.leader == peer:
            self.election.refused(peer, now)

    def synced(self, ticket: Ticket, now: int) -> None:
        """The disk did what it had to."""
        self.syncing = False
        if not self.running:
            return
        self.log.end_sync(ticket)
        self.sync()
        if self.leading is not None:
            self.leading.advance()
            if self.leading is not None:
                self.leading.look_whether_to_go(now)
        else:
            self.following.acknowledge()

    def failed(self, error: Exception) -> None:
        """The disk did not, and nobody knows what is on it."""
        self.halt(f"the disk failed: {error}")

    # ---- for its parts

    def sync(self) -> bool:
        """Have the disk do what there is to do, unless it is at work; then it goes on afterwards.

        Whether there is anything, of which `synced` then is told, or was told by now.
        """
        if not self.syncing:
            if not self.log.dirty or not self.running:
                return False
            self.syncing = True
            self.owner.sync(self.log.begin_sync())
        return True

    def commits(self, lsn: int) -> None:
        """Everything up to `lsn` is committed."""
        if lsn > self.commit:
            self.commit = lsn
            self.owner.advanced()

    def saw(self, epoch: int, now: int) -> None:
        """R1: there is an epoch that high."""
        if epoch > self.log.epoch:
            self.log.note_epoch(epoch)
            leader_stopped = self.leading is not None and self.leading.stop_by is not None
            self._step_down()
            if leader_stopped:
                self.stopped()
            self.sync()

    def _step_down(self) -> None:
        self.following.leave()
        if self.leading is not None:
            self.owner.note("stepped_down", epoch=self.leading.epoch, now=self.log.epoch)
            self.leading = None
            self.owner.stepped_down()

    def lead(self, state: GroupState, revision: int, now: int) -> None:
        """The swap that makes us leader is done: note the epoch, begin it in the log, serve once that is on disk."""
        self.following.leave()
        self.log.note_epoch(state.epoch)
        begin = self._append(Type.EPOCH)
        self.leading = self.leadership(self, state, revision, begin, now)
        self.owner.note("leads", epoch=state.epoch, isr=" ".join(state.isr))
        self.owner.led(state.epoch)
        self.sync()
        self.leading.advance()

    def halt(self, reason: str) -> None:
        """Stop for good, without touching anything."""
        if self.running:
            self.running = False
            self._step_down()
            self.owner.alarm(reason)
