"""One thing at a time happens to a cluster in virtual time: how long it pauses, and what each rule does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rabbitish.cluster.protocol.frames import Append, Frame, Hello, Welcome
from rabbitish.cluster.protocol.replica import NotLeading, Role
from rabbitish.store.record import Type

from .chaos import Chaos
from .world import TIMING, SimNode, Violation, World


class Quiet(World):
    """Nothing goes wrong by itself."""

    def __init__(self, *, min_in_sync: int = 1) -> None:
        super().__init__(1, min_in_sync=min_in_sync)
        self.flake = self.usurp = self.stalls = self.at_once = 0
        self.network.streams = True
        self.network.drop = self.network.stray = 0.0
        for node in self.nodes.values():
            node.start()
        self.run(1_000)
        self.producer = Chaos(self)
        self.producer.producer(0)
        self.run(500)

    def leader(self) -> SimNode | None:
        """The newest: an old one may not know yet."""
        leaders = [node for node in self.nodes.values() if node.up and node.replica.leading is not None]
        return max(leaders, key=lambda node: node.replica.log.epoch, default=None)

    def run(self, ms: int) -> None:
        self.scheduler.run(self.now + ms)

    def lead(self) -> SimNode:
        found = self.leader()
        assert found is not None
        return found

    def mirrors(self) -> list[SimNode]:
        leader = self.leader()
        return [node for node in self.nodes.values() if node is not leader]

    def pause_of(self, harm: Callable[[], object]) -> int:
        """How long nothing is confirmed after that."""
        harm()
        self.run(100)  # what was under way may still be confirmed
        before, began = len(self.confirmed), self.now - 100
        while len(self.confirmed) == before:
            self.run(5)
            if self.now - began > 20_000:
                raise Violation("nothing is confirmed any more")
        return self.now - began


def test_roles() -> None:
    world = Quiet()
    assert world.lead().replica.role is Role.LEADER
    assert [node.replica.role for node in world.mirrors()] == [Role.MIRROR, Role.MIRROR]
    with pytest.raises(NotLeading):
        world.mirrors()[0].replica.append(Type.VHOST_NEW, b"x", now=world.now)
    assert world.lead().replica.may_deliver(world.now)
    assert not world.mirrors()[0].replica.may_deliver(world.now)


def test_a_killed_leader_is_replaced_long_before_its_lease_ends() -> None:
    world = Quiet()
    old = world.lead()
    assert world.pause_of(lambda: old.crash(power=False)) < 700 < TIMING.ttl_ms
    assert world.etcd.state.leader != old.replica.me not in world.etcd.state.isr


@pytest.mark.parametrize("harm", ["pause", "cut_off"])
def test_a_frozen_or_cut_off_leader_is_replaced_when_its_lease_ends(harm: str) -> None:
    world = Quiet()
    old = world.lead()

    def strike() -> None:
        if harm == "pause":
            old.paused = []
        else:
            world.network.cut |= {pair for x in world.nodes for pair in ((old.name, x), (x, old.name))}
            world.etcd.cut.add(old.name)

    assert TIMING.ttl_ms * 0.6 < world.pause_of(strike) < TIMING.ttl_ms + 1_500
    assert not old.replica.may_deliver(world.now + TIMING.ttl_ms)


def test_a_leader_cut_off_from_etcd_alone_is_rejected_by_those_who_know_better() -> None:
    world = Quiet()
    old = world.lead()
    assert world.pause_of(lambda: world.etcd.cut.add(old.name)) < 200
    world.run(TIMING.ttl_ms + 1_500)
    assert world.lead() is not old
    assert old.replica.role is not Role.LEADER


def test_a_killed_mirror_and_a_frozen_one() -> None:
    world = Quiet()
    killed, frozen = world.mirrors()
    assert world.pause_of(lambda: killed.crash(power=False)) < 250
    world.run(1_000)

    def freeze() -> None:
        frozen.paused = []

    assert TIMING.lag_ms // 2 < world.pause_of(freeze) < TIMING.lag_ms + 300
    assert world.etcd.state.isr == (world.lead().replica.me,)
    frozen.resume()
    killed.start()
    world.run(2_000)
    assert len(world.etcd.state.isr) == 3


def test_without_etcd_confirms_go_on_until_a_mirror_is_lost() -> None:
    world = Quiet()
    world.etcd.down = True
    assert world.pause_of(lambda: None) < 200
    world.run(10 * TIMING.ttl_ms)
    assert world.lead().replica.may_deliver(world.now)  # all who might lead next have just answered (R12)
    world.mirrors()[0].crash(power=False)
    world.run(500)
    before = len(world.confirmed)
    world.run(3_000)
    assert len(world.confirmed) == before
    world.etcd.down = False
    assert world.pause_of(lambda: None) < 1_500


def test_a_stopping_leader_hands_over() -> None:
    world = Quiet()
    old = world.lead()
    assert world.pause_of(lambda: old.replica.stop(world.now)) < 300
    assert world.lead() is not old
    assert len(world.etcd.state.isr) >= 2


def test_a_stopping_leader_goes_when_what_is_under_way_is_confirmed_and_not_a_tick_later() -> None:
    world = Quiet()
    old = world.lead().replica
    world.run(1)
    old.append(Type.VHOST_NEW, b"x", now=world.now)
    old.flush(world.now)
    old.stop(world.now)
    old.tick(world.now)
    assert old.leading is not None and old.leading.proposal is None
    while old.commit < old.log.last:
        world.run(1)
    assert old.leading is None or old.leading.proposal is not None


def test_a_stopping_leader_leaves_nobody_in_charge_who_may_be_dead() -> None:
    world = Quiet()
    replica = world.lead().replica
    for node in world.mirrors():
        node.paused = []  # no connection has ended
    isr = world.etcd.state.isr
    replica.stop(world.now)
    world.run(TIMING.stop_ms + 200)
    assert not replica.running
    assert (world.etcd.state.leader, world.etcd.state.isr) == (replica.me, isr)


def test_a_stopping_leader_hands_over_to_the_mirror_that_answers() -> None:
    world = Quiet()
    old, (silent, there) = world.lead(), world.mirrors()
    silent.paused = []
    old.replica.stop(world.now)
    world.run(TIMING.stop_ms + 300)
    assert world.etcd.state.leader == there.replica.me
    assert silent.replica.me in world.etcd.state.isr, "it may be frozen, and have everything"


def test_the_last_one_in_sync_stops_when_somebody_has_caught_up() -> None:
    world = Quiet()
    old = world.lead()
    mirrors = world.mirrors()
    for node in mirrors:
        node.crash(power=False)
    world.run(500)
    assert world.etcd.state.isr == (old.replica.me,)
    mirrors[0].start()
    assert old.replica.leading is not None
    while not old.replica.leading.feeds:
        world.run(5)
    assert world.etcd.state.isr == (old.replica.me,)
    old.replica.stop(world.now)
    world.run(500)
    assert world.lead() is mirrors[0]


def test_a_leader_whose_disk_hangs_gives_way() -> None:
    world = Quiet()
    old = world.lead()

    def hang() -> None:
        old.sync = lambda ticket: None  # type: ignore[method-assign]

    assert TIMING.lag_ms < world.pause_of(hang) < 2 * TIMING.lag_ms + 500  # its heir gives it some time, too
    assert world.lead() is not old
    assert old.replica.running


def test_a_leader_that_slept_blames_nobody_for_what_it_did_not_hear() -> None:
    world = Quiet()
    leader = world.lead()
    before = world.counts["in_sync_changes"]
    leader.paused = []
    world.run(TIMING.lag_ms + 200)
    leader.resume()
    world.run(TIMING.lag_ms)
    assert (world.lead(), world.counts["in_sync_changes"]) == (leader, before)
    world.mirrors()[0].crash(power=False)
    world.run(500)
    assert world.counts["in_sync_changes"] == before + 1


def test_a_burst_gathers_in_the_log_and_not_on_the_way() -> None:
    world = Quiet()
    leader = world.lead()
    sent: list[Frame] = []
    leader.send = lambda peer, frame: sent.append(frame)  # type: ignore[method-assign]
    for _ in range(2_000):
        leader.replica.append(Type.VHOST_NEW, b"x", now=world.now)
        leader.replica.flush(world.now)
    assert len(sent) < 600
    del leader.send
    world.producer.publishing = False
    world.run(3_000)
    assert {node.log.durable for node in world.nodes.values()} == {leader.log.last}


def test_a_long_frame_on_its_way_keeps_a_session_alive() -> None:
    world = Quiet()
    leader, mirror = world.lead(), world.mirrors()[0]
    session = mirror.replica.following.session
    world.network.cut.add((leader.name, mirror.name))
    for _ in range(10):
        world.run(TIMING.silence_ms // 5)
        mirror.replica.receiving(leader.replica.me, world.now)
    assert mirror.replica.following.session is session
    world.run(2 * TIMING.silence_ms)
    assert mirror.replica.following.session is None


def test_with_too_few_in_sync_confirms_are_held() -> None:
    world = Quiet(min_in_sync=2)
    for node in world.mirrors():
        node.crash(power=False)
    world.run(1_500)
    before, isr = len(world.confirmed), world.etcd.state.isr
    world.run(3 * TIMING.lag_ms)
    assert (len(world.confirmed), world.etcd.state.isr) == (before, isr)
    assert len(isr) == 3  # who is gone may still lead next: with the leader alone nothing could be confirmed anyway
    back = world.mirrors()[0]
    back.start()
    world.run(1_000)
    assert len(world.confirmed) > before
    assert set(world.etcd.state.isr) == {world.lead().replica.me, back.replica.me}


def test_a_leader_that_reaches_nobody_gives_way_to_those_who_reach_each_other() -> None:
    world = Quiet(min_in_sync=2)
    alone = world.lead()

    def cut() -> None:
        for node in world.mirrors():
            world.network.cut |= {(alone.name, node.name), (node.name, alone.name)}

    pause = world.pause_of(cut)
    assert TIMING.ttl_ms < pause < TIMING.ttl_ms + TIMING.lag_ms + 1_500
    assert world.lead() is not alone
    world.network.cut.clear()
    world.run(3_000)
    assert len(world.etcd.state.isr) == 3


def test_a_leader_whose_mirrors_are_dead_keeps_leading() -> None:
    world = Quiet(min_in_sync=2)
    alone = world.lead()
    for node in world.mirrors():
        node.crash(power=False)
    world.run(3 * TIMING.ttl_ms)
    assert world.lead() is alone and alone.replica.role is Role.LEADER


def test_a_wiped_mirror_comes_back_as_another_and_gets_a_snapshot() -> None:
    world = Quiet()
    leader, wiped = world.lead(), world.mirrors()[0]
    Chaos(world).condense(leader)
    assert leader.log.base
    wiped.crash(power=True)
    wiped.wipe()
    world.run(1_000)
    wiped.start()
    world.run(2_000)
    new = f"{wiped.name}#2"
    assert new in world.etcd.state.isr
    assert len(world.etcd.state.replicas) == 3
    assert world.counts["snapshots"] == 1
    assert wiped.log.base == leader.log.base


class Watched:
    """A snapshot that says when nobody has it any more, and may fail."""

    def __init__(self, pieces: Iterator[bytes], ended: list[int], world: World, *, fails: bool) -> None:
        self.pieces, self.ended, self.world, self.fails = pieces, ended, world, fails

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.fails:
            raise FileNotFoundError("it was deleted")
        return next(self.pieces)

    def __del__(self) -> None:
        self.ended.append(self.world.now)


def test_a_snapshot_is_held_until_what_follows_it_has_arrived() -> None:
    """Or the leader's log might drop that in the meantime, and the mirror would need another snapshot, and so on."""
    world = Quiet()
    leader, wiped = world.lead(), world.mirrors()[0]
    Chaos(world).condense(leader)
    ended: list[int] = []
    snapshot, fails = leader.log.snapshot, iter((True, False))
    leader.log.snapshot = lambda: Watched(snapshot(), ended, world, fails=next(fails))  # type: ignore[method-assign]
    joined: list[int] = []
    wiped.crash(power=True)
    wiped.wipe()
    world.run(1_000)
    wiped.start()
    while f"{wiped.name}#2" not in world.etcd.state.isr:
        world.run(5)
        feed = leader.replica.leading.feeds.get(f"{wiped.name}#2")  # type: ignore[union-attr]
        if feed is not None and feed.snap is None and feed.sent > leader.log.base and not joined:
            joined.append(world.now)
            assert len(ended) == 1, "the first failed, the second is held"
    assert joined and len(ended) == 2 and world.counts["snapshots"] == 1


def test_a_cut_below_what_is_committed_is_refused() -> None:
    world = Quiet()
    mirror = world.mirrors()[0]
    replica = mirror.replica
    last = replica.log.last
    frame = Welcome(replica.log.epoch + 1, 1, 7, replica.commit - 1, 0, snapshot=False)
    replica.following._asked = 7
    with pytest.raises(Violation, match=r"stopped: .* would have us cut the log"):
        replica.received("x#1", frame, world.now)
    assert (replica.running, replica.log.last) == (False, last)


def test_a_failed_disk_stops_the_replica() -> None:
    world = Quiet()
    leader = world.lead()
    with pytest.raises(Violation, match="the disk failed"):
        leader.replica.failed(OSError("gone"))
    assert leader.replica.role is not Role.LEADER
    assert world.pause_of(lambda: None) < TIMING.ttl_ms + 1_500


def test_what_does_not_follow_ends_the_session_and_it_begins_anew() -> None:
    world = Quiet()
    world.producer.publishing = False
    world.run(500)
    leader, mirror = world.lead(), world.mirrors()[0]
    session = mirror.replica.following.session
    assert session is not None
    last = mirror.log.last
    gap: Frame = Append(session.epoch, session.number, last + 5, last, world.now, b"")
    mirror.replica.received(leader.replica.me, gap, world.now)
    assert mirror.replica.following.session is None
    world.run(200)
    assert mirror.replica.following.session is not None
    damaged = Append(
        mirror.replica.log.epoch, mirror.replica.following.session.number, last, last, world.now, b"x" * 40
    )
    mirror.replica.received(leader.replica.me, damaged, world.now)
    assert mirror.replica.following.session is None
    assert mirror.log.last == last
    world.run(500)
    assert len(world.etcd.state.isr) == 3


def test_a_leader_that_hands_over_goes_on_as_a_mirror() -> None:
    world = Quiet()
    old, heir = world.lead(), world.mirrors()[0]
    leading = old.replica.leading
    assert leading is not None
    assert not leading.hand_over("nobody#1")
    assert world.pause_of(lambda: leading.hand_over(heir.replica.me)) < 700
    assert world.lead() is heir
    world.run(500)
    assert old.replica.role is Role.MIRROR
    assert len(world.etcd.state.isr) == 3


def test_a_leader_does_not_hand_over_while_a_change_is_under_way() -> None:
    world = Quiet()
    leader, heir = world.lead(), world.mirrors()[0]
    leading = leader.replica.leading
    assert leading is not None
    assert leading.hand_over(heir.replica.me)
    assert not leading.hand_over(heir.replica.me)


def test_who_is_no_replica_is_told_of_once() -> None:
    world = Quiet()
    replica = world.lead().replica
    leading, said = replica.leading, list[object]()
    assert leading is not None
    replica.owner.note = lambda event, **details: said.append((event, details))  # type: ignore[method-assign]
    for attempt in range(3):
        for stranger in ("x#x1", "y#y1"):
            leading.hello(stranger, Hello(replica.journal, stranger, attempt, 0, (), 0), world.now)
    assert said == [("stranger", {"replica": "x#x1"}), ("stranger", {"replica": "y#y1"})]


def test_who_refused_may_lead_again_when_it_is_back() -> None:
    world = Quiet()
    old = world.lead()
    old.crash(power=False)
    world.run(2_000)
    old.start()
    world.run(3_000)
    leader = world.lead().replica
    assert leader.leading is not None and old.replica.me in world.etcd.state.isr
    leader.leading.hand_over(old.replica.me)
    world.run(3_000)
    assert world.lead() is old
