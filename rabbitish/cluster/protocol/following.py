"""The mirror's side: it finds the leader, cuts its log to what both have, takes what follows, and says what it synced.

A session belongs to one leader in one epoch and begins with a cut (R2). What does not follow on the log's end ends the
session (R3), and the mirror asks anew. An acknowledgement says what is on disk, never what was only written, and only
when the epoch is on disk as well, or a crash could make us follow an older leader again (R4).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from rabbitish.cluster.protocol.frames import Ack, Append, Hello, Reject, SnapBegin, SnapEnd, SnapRecords, Welcome
from rabbitish.store.record import Damage

if TYPE_CHECKING:
    from rabbitish.cluster.protocol.replica import Replica

# A HELLO names so many epochs at most, the newest: an older common one is found as a lower cut or a snapshot.
_MOST_STARTS = 1_000


class Session:
    """What a mirror and its leader agreed on."""

    __slots__ = ("digest", "epoch", "heard", "leader", "number", "pieces", "snapshot", "stamp")

    def __init__(self, leader: str, epoch: int, number: int, now: int, *, snapshot: bool) -> None:
        self.leader = leader
        self.epoch = epoch
        self.number = number
        self.heard = now
        self.stamp = 0
        self.snapshot = snapshot  # one is coming
        self.pieces = -1  # of it so far; -1: it has not begun
        self.digest = hashlib.sha256()


class Following:
    """What a replica does while it does not lead."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.session: Session | None = None
        self._asked = 0  # the attempt that a WELCOME may answer
        self._hello_at = 0  # not before
        self._pause = replica.timing.hello_ms  # between two attempts, twice as long each time, or a slow answer would
        # always be one to the attempt before

    def leave(self) -> None:
        """End the session, if there is one; nothing that was said in it counts any more."""
        self.session = None
        self._asked = 0

    def hurry(self) -> None:
        """There is a new leader: ask at once."""
        self._hello_at = 0
        self._pause = self.replica.timing.hello_ms

    def tick(self, now: int) -> None:
        """Ask for a session where there is none, or none that is alive."""
        replica, timing = self.replica, self.replica.timing
        if self.session is not None and now - self.session.heard > timing.silence_ms:
            self.leave()
        if self.session is not None or now < self._hello_at or replica.view is None:
            return
        leader = replica.view.state.leader
        if leader in ("", replica.me) or replica.view.state.epoch < replica.log.epoch:
            return
        self._hello_at = now + self._pause
        self._pause = min(2 * self._pause, timing.silence_ms)
        self._asked = replica.nonce() or 1
        log = replica.log
        starts = tuple(log.starts[-_MOST_STARTS:])
        replica.link.send(leader, Hello(replica.journal, replica.me, self._asked, log.epoch, starts, log.last))

    def stale(self, peer: str, epoch: int) -> bool:
        """Whether a frame comes from an epoch that is over; its sender is told."""
        if epoch < self.replica.log.epoch:
            self.replica.link.send(peer, Reject(self.replica.log.epoch))
            return True
        return False

    def welcome(self, peer: str, frame: Welcome, now: int) -> None:
        """A session may begin. A cut below what is committed would lose it: that is for people to look at."""
        if self.stale(peer, frame.epoch) or frame.attempt != self._asked or not self._asked:
            return
        replica = self.replica
        replica.saw(frame.epoch, now)
        self._asked = 0
        self._pause = replica.timing.hello_ms
        cut = min(frame.cut, replica.log.last)
        if cut < replica.commit or (cut < replica.log.base and not frame.snapshot):
            replica.halt(f"{peer} would have us cut the log to {cut}, and up to {replica.commit} it is committed")
            return
        if not frame.snapshot:
            replica.log.truncate(cut)
        self.session = Session(peer, frame.epoch, frame.session, now, snapshot=frame.snapshot)
        if not replica.sync():
            self.acknowledge()

    def _current(self, peer: str, epoch: int, number: int) -> Session | None:
        """The session that a frame belongs to, if it is ours."""
        if self.stale(peer, epoch):
            return None
        session = self.session
        if session is None or (session.leader, session.epoch, session.number) != (peer, epoch, number):
            return None
        return session

    def append(self, peer: str, frame: Append, now: int) -> None:
        """Take what follows."""
        session = self._current(peer, frame.epoch, frame.session)
        if session is None:
            return
        replica, log = self.replica, self.replica.log
        if session.snapshot or frame.prev != log.last:
            self._give_up(now)
            return
        if frame.data:
            try:
                log.append(frame.data)
            except Damage as damage:
                replica.owner.note("damaged_records", leader=peer, reason=str(damage))
                self._give_up(now)
                return
        session.heard = now
        session.stamp = max(session.stamp, frame.stamp)
        replica.commits(min(frame.commit, log.last))
        if not replica.sync():
            self.acknowledge()

    def _give_up(self, now: int) -> None:
        """Something is missing: begin anew."""
        self.leave()
        self.tick(now)

    def acknowledge(self) -> None:
        """Say what is on disk, if the epoch is."""
        session, replica = self.session, self.replica
        if session is None or replica.log.stored_epoch < session.epoch:
            return
        durable = 0 if session.snapshot else self.on_disk()
        replica.link.send(session.leader, Ack(session.epoch, session.number, durable, session.stamp))

    def on_disk(self) -> int:
        """What may be acknowledged."""
        return self.replica.log.durable

    # ---- snapshots

    def snap_begin(self, peer: str, frame: SnapBegin, now: int) -> None:
        """A snapshot begins."""
        session = self._current(peer, frame.epoch, frame.session)
        if session is None or not session.snapshot:
            return
        self.replica.log.begin_install(frame.base)
        session.pieces = 0
        session.digest = hashlib.sha256()
        self._hear(session, frame.stamp, now)

    def snap_records(self, peer: str, frame: SnapRecords, now: int) -> None:
        """A piece of it."""
        session = self._current(peer, frame.epoch, frame.session)
        if session is None:
            return
        if frame.piece != session.pieces or not session.snapshot:
            self._give_up(now)
            return
        try:
            self.replica.log.install(frame.data)
        except Damage as damage:
            self.replica.owner.note("damaged_snapshot", leader=peer, reason=str(damage))
            self._give_up(now)
            return
        session.pieces += 1
        session.digest.update(frame.data)
        self._hear(session, frame.stamp, now)

    def snap_end(self, peer: str, frame: SnapEnd, now: int) -> None:
        """It is complete, and takes the place of the log."""
        session = self._current(peer, frame.epoch, frame.session)
        if session is None:
            return
        if not session.snapshot or session.pieces != frame.pieces or session.digest.digest() != frame.digest:
            self._give_up(now)
            return
        session.snapshot = False
        self.replica.log.end_install()
        self.replica.owner.note("snapshot", leader=peer, base=self.replica.log.base)
        self.replica.commits(self.replica.log.base)
        self._hear(session, frame.stamp, now)

    def _hear(self, session: Session, stamp: int, now: int) -> None:
        session.heard = now
        session.stamp = max(session.stamp, stamp)
        if not self.replica.sync():
            self.acknowledge()
