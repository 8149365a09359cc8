"""The leader's side: it feeds mirrors, knows what is committed, and keeps the in-sync set true.

A record is committed when every replica that may lead next has it on disk: those in the in-sync set as the coordinator
has it, and while a change of that is in flight those of the proposal too (R5), however long its outcome is unknown
(R11). Who makes no progress leaves the set, who has everything joins it, both by compare-and-swap (R9, R10). Feeding
reads the log; nobody who appends waits for a mirror.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rabbitish.cluster.protocol.frames import (
    MAX_RECORDS_BYTES,
    Ack,
    Append,
    Hello,
    SnapBegin,
    SnapEnd,
    SnapRecords,
    Welcome,
)
from rabbitish.cluster.protocol.log import common_prefix
from rabbitish.cluster.protocol.state import GroupState, Outcome, Proposal, View, node_of
from rabbitish.store.record import JournalDamaged

if TYPE_CHECKING:
    from rabbitish.cluster.protocol.replica import Replica

# So much, in so many frames, may be under way to a mirror unacknowledged; the rest waits in the log, where it gathers.
_WINDOW_BYTES = 4 << 20
_WINDOW_FRAMES = 256
_MOST_STRIKES = 8


class Feed:
    """What the leader knows of a mirror in a session."""

    __slots__ = (
        "acked",
        "answered",
        "digest",
        "flying",
        "flying_bytes",
        "open",
        "pieces",
        "pin",
        "sent",
        "sent_at",
        "session",
        "snap",
    )

    def __init__(self, session: int, cut: int, now: int, snap: Iterator[bytes] | None) -> None:
        self.session = session
        self.sent = cut
        self.sent_at = now
        self.acked = 0
        self.answered = -1  # the leader's clock when it sent what the mirror answered last
        self.open = False  # the mirror has said that it is in the session
        self.flying: deque[tuple[int, int]] = deque()  # (last number, bytes) of frames under way
        self.flying_bytes = 0
        self.snap = snap
        self.pin: Iterator[bytes] | None = None  # a snapshot that was sent: what follows it is to be kept until then
        self.pieces = -1  # of the snapshot, sent so far; -1: it has not begun
        self.digest = hashlib.sha256()


class Leadership:
    """One epoch of ours."""

    def __init__(self, replica: Replica, state: GroupState, revision: int, begin: int, now: int) -> None:
        self.replica = replica
        self.epoch = state.epoch
        self.begin = begin
        self.state = state
        self.revision = revision
        self.proposal: Proposal | None = None
        self.feeds: dict[str, Feed] = {}
        self.marked = 0  # the commit that the newest MARK names
        self.marked_at = now
        self.stop_by: int | None = None
        self._short_since: int | None = None  # when we last reached as many as confirms need
        self._sessions = 0
        self._retry_at: int | None = None
        self._good = dict.fromkeys(state.isr, now)  # when a member had everything, or made progress
        self._lost: dict[str, None] = {}  # whose connection is gone
        self._strikes: dict[str, int] = {}
        self._rejoin: dict[str, int] = {}  # not before
        self._renewed: dict[str, str] = {}  # replicas that come back with another storage, and whose place they take
        self._strangers: set[str] = set()  # who was told of: they are no replicas
        self._ticked = now
        self._judge_at = now  # who slept judges nobody by what it did not hear then
        self._moved = (0, now)  # our own disk: up to where, and since when, or since when it had nothing to do

    # ---- sessions

    def hello(self, peer: str, frame: Hello, now: int) -> None:
        """A mirror asks to be fed."""
        replica, log = self.replica, self.replica.log
        if peer not in self.state.replicas:
            olds = [old for old in self.state.replicas if node_of(old) == node_of(peer)]
            if not olds:
                if peer not in self._strangers:  # it asks again and again
                    self._strangers.add(peer)
                    replica.owner.note("stranger", replica=peer)
                return
            self._renewed[peer] = olds[0]
        cut = self.cut_for(frame)
        snapshot = cut < log.base
        if snapshot and any(feed.snap is not None for name, feed in self.feeds.items() if name != peer):
            return  # one at a time; it asks again
        self._sessions += 1
        snap = log.snapshot() if snapshot else None
        self.feeds[peer] = Feed(self._sessions, log.base if snapshot else cut, now, snap)
        self._lost.pop(peer, None)
        answer = Welcome(self.epoch, self._sessions, frame.attempt, cut, replica.commit, snapshot)
        replica.link.send(peer, answer)

    def cut_for(self, frame: Hello) -> int:
        """Up to where its log and ours are the same (R2)."""
        return common_prefix(self.replica.log, frame.starts, frame.end)

    def disconnected(self, peer: str) -> None:
        """The connection to a mirror is gone."""
        if self.feeds.pop(peer, None) is not None:
            self._lost[peer] = None

    def ack(self, peer: str, frame: Ack, now: int) -> None:
        """A mirror has everything up to a number on disk."""
        feed = self.feeds.get(peer)
        if feed is None or not self.counts(feed, frame):
            return
        log = self.replica.log
        if frame.durable > feed.acked or frame.durable >= log.last:
            self._good[peer] = now
        feed.acked = max(feed.acked, frame.durable)
        feed.answered = max(feed.answered, frame.stamp)
        feed.open = True
        while feed.flying and feed.flying[0][0] <= feed.acked:
            feed.flying_bytes -= feed.flying.popleft()[1]
        if feed.snap is not None:
            self._good[peer] = now
            self._feed_snapshot(peer, feed, frame, now)
            return
        self.advance()
        if feed.pin is not None and self.caught_up(feed):
            feed.pin = None
        self._feed(peer, feed, now)
        self.look_whether_to_go(now)

    def counts(self, feed: Feed, frame: Ack) -> bool:
        """R4: of this epoch and session."""
        return frame.epoch == self.epoch and frame.session == feed.session

    # ---- feeding

    def flush(self, now: int) -> None:
        """Send what has gathered."""
        for peer, feed in list(self.feeds.items()):
            self._feed(peer, feed, now)

    def _feed(self, peer: str, feed: Feed, now: int) -> None:
        log = self.replica.log
        if feed.snap is None and feed.sent < log.base:
            del self.feeds[peer]  # what it needs next is not kept any more: it will ask again, and get a snapshot
            return
        while feed.open and feed.snap is None and feed.sent < log.last and self._has_room(feed):
            data, last = log.read(feed.sent, MAX_RECORDS_BYTES)
            feed.flying.append((last, len(data)))
            feed.flying_bytes += len(data)
            self._append(peer, feed, data, now)
            feed.sent = last

    def _has_room(self, feed: Feed) -> bool:
        return feed.flying_bytes < _WINDOW_BYTES and len(feed.flying) < _WINDOW_FRAMES

    def _append(self, peer: str, feed: Feed, data: bytes, now: int) -> None:
        feed.sent_at = now
        frame = Append(self.epoch, feed.session, feed.sent, self.replica.commit, now, data)
        self.replica.link.send(peer, frame)

    def _feed_snapshot(self, peer: str, feed: Feed, frame: Ack, now: int) -> None:
        """Send the next piece, once the last has arrived: so it is never more than a piece that is under way."""
        assert feed.snap is not None
        if feed.pieces >= 0 and frame.stamp < feed.sent_at:
            return
        send = self.replica.link.send
        feed.sent_at = now
        try:
            data = next(feed.snap, None) if feed.pieces >= 0 else None
        except (OSError, JournalDamaged) as error:
            self.replica.owner.note("snapshot_failed", mirror=peer, reason=str(error))
            del self.feeds[peer]  # it asks again
            return
        if feed.pieces < 0:
            send(peer, SnapBegin(self.epoch, feed.session, feed.sent, now))
        elif data is not None:
            feed.digest.update(data)
            send(peer, SnapRecords(self.epoch, feed.session, feed.pieces, now, data))
        else:
            feed.snap, feed.pin = None, feed.snap
            send(peer, SnapEnd(self.epoch, feed.session, feed.pieces, now, feed.digest.digest()))
        feed.pieces += 1

    # ---- commit

    def waited_for(self) -> set[str]:
        """R5: all that might lead next, and ourselves."""
        waited = {self.replica.me, *self.state.isr}
        if self.proposal is not None:
            waited.update(self.proposal.state.isr)
        return waited

    def _durable(self, name: str) -> int:
        replica = self.replica
        if name == replica.me:
            return replica.log.durable if replica.log.stored_epoch >= self.epoch else 0
        feed = self.feeds.get(name)
        return feed.acked if feed is not None else 0

    def advance(self) -> None:
        """Commit what everybody has."""
        commit = min(map(self._durable, self.waited_for()))
        if commit >= self.begin:
            self.replica.commits(commit)

    def may_deliver(self, now: int) -> bool:
        """R12: nobody else can have led for long."""
        replica = self.replica
        if replica.commit < self.begin:
            return False
        since = now - replica.timing.ttl_ms // 2
        return replica.lease_until > now or all(
            (feed := self.feeds.get(name)) is not None and feed.answered >= since
            for name in self.waited_for() - {replica.me}
        )

    # ---- the in-sync set

    def slow(self, now: int) -> list[str]:
        """R9: members that nothing is heard of, or that make no progress."""
        if now < self._judge_at:
            return []
        lag, me = self.replica.timing.lag_ms, self.replica.me
        return [x for x in self.state.isr if x != me and (x in self._lost or now - self._good.get(x, 0) > lag)]

    def caught_up(self, feed: Feed) -> bool:
        """R10: it has everything that is committed, and the beginning of our epoch."""
        return feed.acked >= max(self.replica.commit, self.begin)

    def _wanted(self, now: int) -> GroupState:
        state, isr = self.state, set(self.state.isr)
        replicas = list(state.replicas)
        for new, old in self._renewed.items():
            if old in replicas and new in self.feeds:
                replicas[replicas.index(old)] = new
                isr.discard(old)
        slow = self.slow(now)
        isr.difference_update(slow)
        isr.add(self.replica.me)
        if len(isr) < min(len(state.isr), self.replica.needed(len(replicas))):
            isr = set(state.isr)  # fewer could confirm nothing, and as it is each of them may still lead next
        if len(isr) == len(state.isr):
            isr.update(
                name
                for name, feed in self.feeds.items()
                if name in replicas
                and self.caught_up(feed)
                and now >= self._rejoin.get(name, 0)
                and now - feed.answered <= self.replica.timing.lag_ms  # or it has everything since there is nothing new
            )
        return state._replace(isr=tuple(sorted(isr)), replicas=tuple(replicas))

    def _adjust(self, now: int) -> None:
        wanted = self._wanted(now)
        if (wanted.isr, wanted.replicas) == (self.state.isr, self.state.replicas):
            return
        for name in set(self.state.isr) - set(wanted.isr):
            strikes = self._strikes[name] = min(self._strikes.get(name, 0) + 1, _MOST_STRIKES)
            self._rejoin[name] = now + strikes * self.replica.timing.rejoin_ms
        for name in set(wanted.isr) - set(self.state.isr):
            self._good[name] = now
        self.propose(wanted)

    def propose(self, state: GroupState) -> None:
        """Have the coordinator change the state; there is one change at a time."""
        nonce = f"{self.replica.me}/{self.replica.nonce():x}"
        self.proposal = Proposal(self.revision, state._replace(nonce=nonce))
        self.swap()

    def swap(self) -> None:
        """Send the proposal, for the first time or again."""
        assert self.proposal is not None
        self._retry_at = None
        self.replica.coordinator.swap(self.proposal)

    def swapped(self, outcome: Outcome, revision: int, now: int) -> None:
        """How it went."""
        assert self.proposal is not None
        if outcome is Outcome.DONE:
            self._adopt(self.proposal.state, revision, now)
        elif outcome is Outcome.UNKNOWN:
            self.unknown(now)
        else:
            self.replica.coordinator.read()

    def unknown(self, now: int) -> None:
        """R11: it stays in flight, and is sent again."""
        self._retry_at = now + self.replica.timing.retry_ms

    def observed(self, view: View, now: int) -> None:
        """The coordinator has another state than we knew."""
        if view.revision > self.revision:
            self._adopt(view.state, view.revision, now)

    def _adopt(self, state: GroupState, revision: int, now: int) -> None:
        """It is the state now, so what else we proposed cannot happen any more: its revision is over."""
        replica = self.replica
        if (state.epoch, state.leader) != (self.epoch, replica.me):
            replica.saw(state.epoch, now)
            return
        if state.isr != self.state.isr:
            replica.owner.note("in_sync", epoch=self.epoch, isr=" ".join(state.isr), before=" ".join(self.state.isr))
        self.state, self.revision, self.proposal, self._retry_at = state, revision, None, None
        self.advance()
        replica.owner.advanced()

    def hand_over(self, heir: str) -> bool:
        """Have a mirror that is in sync lead, and be one. False: another change is under way."""
        if self.proposal is not None or heir not in self.state.isr:
            return False
        self.propose(self.state._replace(epoch=self.epoch + 1, leader=heir))
        return True

    # ---- time

    def tick(self, now: int) -> None:
        """Speak to mirrors, look after the set, and go when it is time."""
        for peer, feed in list(self.feeds.items()):
            if feed.open and feed.snap is None and now - feed.sent_at >= self.replica.timing.append_ms:
                self._append(peer, feed, b"", now)
            elif now - feed.sent_at > self.replica.timing.lag_ms:
                del self.feeds[peer]  # it never answered, or is stuck in a snapshot
        self._look_at_ourselves(now)
        if self.proposal is None:
            if self.stop_by is not None:
                self._stop(now)
            elif now - self._moved[1] > self.replica.timing.lag_ms and (heirs := self._heirs()):
                self.replica.owner.note("slow_disk", epoch=self.epoch)
                self._hand_over(heirs, self.state.isr)
            elif heir := self._better_placed(now):
                self.replica.owner.note("alone", epoch=self.epoch, heir=heir)
                self.hand_over(heir)
            else:
                self._adjust(now)
        elif self._retry_at is not None and now >= self._retry_at:
            self.swap()
        if self.stop_by is not None and now >= self.stop_by + self.replica.timing.stop_ms:
            self.replica.stopped()

    def _better_placed(self, now: int) -> str:
        """Who should lead since we can confirm nothing, and others live that we do not reach; empty: nobody.

        That they live is known by their leases, so we wait until those of the dead have ended.
        """
        replica, state = self.replica, self.state
        if len(state.isr) - len(self.slow(now)) >= replica.needed(len(state.replicas)):
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        elif now - self._short_since > replica.timing.ttl_ms and replica.view is not None:
            live = replica.view.live
            return next((name for name in state.isr if name != replica.me and node_of(name) in live), "")
        return ""

    def _look_at_ourselves(self, now: int) -> None:
        """Whether we slept, and whether our own disk goes on."""
        replica = self.replica
        if now - self._ticked > replica.timing.lag_ms // 2:
            self._judge_at = now + replica.timing.lag_ms
            self._moved = (self._moved[0], now)
        self._ticked = now
        if not replica.syncing or replica.log.durable != self._moved[0]:
            self._moved = (replica.log.durable, now)

    def look_whether_to_go(self, now: int) -> None:
        """What we wait for before we stop may have come."""
        if self.stop_by is not None and self.proposal is None and self.replica.leading is self:
            self._stop(now)

    def begin_to_stop(self, now: int) -> None:
        """From now on nothing is appended; mirrors are asked whether they are there."""
        self.stop_by = now + self.replica.timing.stop_ms
        for peer, feed in self.feeds.items():
            if feed.open and feed.snap is None:
                self._append(peer, feed, b"", now)

    def _stop(self, now: int) -> None:
        """R13: once what is under way is confirmed or had its time, and who catches up was waited for.

        Who goes leaves the set, since the others need not wait until they notice. So one of them must have answered
        since: if all were dead by now, and one without its disk, nobody could lead any more.
        """
        assert self.stop_by is not None
        began = self.stop_by - self.replica.timing.stop_ms
        heirs = [name for name in self._heirs() if self.feeds[name].answered >= began]
        if now < self.stop_by:
            if self.replica.commit < self.replica.log.last:
                return
            if not heirs and self.feeds:
                self._adjust(now)
                return
        if heirs:
            self._hand_over(heirs, tuple(name for name in self.state.isr if name != self.replica.me))
        else:
            self.replica.stopped()

    def _heirs(self) -> list[str]:
        return [name for name in self.state.isr if name != self.replica.me and name in self.feeds]

    def _hand_over(self, heirs: list[str], isr: tuple[str, ...]) -> None:
        """To the mirror that has most."""
        heir = max(heirs, key=lambda name: self.feeds[name].acked)
        self.replica.owner.note("hands_over", epoch=self.epoch, heir=heir)
        self.propose(self.state._replace(epoch=self.epoch + 1, leader=heir, isr=isr))
