"""A cluster in virtual time: replicas on logs in memory, a lossy network, an etcd that fails, and chaos from one seed.

A plain scheduler runs callbacks by time; where two are due at once the seed decides. The replicas are the real ones.
Safety is checked at every confirm and at every change of the coordinator's state: whoever may lead next has every
confirmed record on disk. `chaos.py` does the harm.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from random import Random

from rabbitish.cluster.protocol.confirms import ConfirmGate
from rabbitish.cluster.protocol.frames import Frame, FrameDecoder, Hello, encode_frame
from rabbitish.cluster.protocol.replica import NotLeading, Replica
from rabbitish.cluster.protocol.state import GroupState, Outcome, Proposal, View, decode_state, node_of, replica_id
from rabbitish.cluster.protocol.timing import Timing
from rabbitish.store.record import PUBLISH_HEAD, Type

from .memory_log import Done, Kept, MemoryLog

TIMING = Timing(
    tick_ms=40,
    ttl_ms=2_000,
    lag_ms=800,
    append_ms=60,
    silence_ms=500,
    hello_ms=100,
    stand_ms=50,
    retry_ms=100,
    rejoin_ms=100,
    stop_ms=500,
)
JOURNAL = "m3/a/0"
UNREACHABLE_MS = 500
UNCOMPARED = -1  # the revision of a proposal that breaks the rules


LATE = ("no progress", "not all")  # how the violations begin that are no harm to what was promised


class Violation(Exception):
    """A promise was broken."""


class Scheduler:
    """Virtual time, in milliseconds."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = 0
        self._heap: list[tuple[int, float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, ms: float, callback: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now + int(ms), self.random.random(), self._count, callback))

    def run(self, until: int) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, _, callback = heapq.heappop(self._heap)
            callback()
        self.now = until


class Etcd:
    """Linearizable, with leases; calls may be lost, answered too late or land long after the caller gave up."""

    def __init__(self, world: World, state: GroupState) -> None:
        self.world = world
        self.state = decode_state(state.encode())
        self.revision = self.at = 1
        self.leases: dict[str, tuple[str, int]] = {}
        self.down = False
        self.cut: set[str] = set()
        self.late: dict[str, int] = {}  # how many swaps of a node may still land
        world.scheduler.after(50, self._expire)

    def view(self) -> View:
        return View(self.state, self.revision, frozenset(self.leases), self.at)

    def put(self, state: GroupState) -> None:
        self.state = decode_state(state.encode())
        self.at += 1
        self.revision = self.at
        self.world.check_in_sync()
        self.changed()

    def changed(self) -> None:
        self.at += 1
        for node in self.world.nodes.values():
            if not self.down and node.name not in self.cut:
                self.world.scheduler.after(self.world.random.uniform(1, 8), lambda node=node: self._push(node))

    def _push(self, node: SimNode) -> None:
        if not self.down and node.name not in self.cut:
            view = self.view()
            node.call(lambda: node.replica.observed(view, self.world.now))

    def call(self, node: SimNode, do: Callable[[], object], done: Callable[[object], None]) -> None:
        """Run `do` there and tell the node what came out; None: unknown."""
        world, random = self.world, self.world.random
        boot = node.boot

        def answer(result: object) -> None:
            node.call(lambda: done(result), boot)

        if self.down or node.name in self.cut:
            world.scheduler.after(UNREACHABLE_MS, lambda: answer(None))
            return
        if random.random() < world.flake:
            kind = random.random()
            if kind < 0.35:
                do()
            elif kind < 0.8:
                self.late[node.name] = self.late.get(node.name, 0) + 1

                def land() -> None:
                    self.late[node.name] -= 1
                    do()

                world.scheduler.after(random.uniform(500, 3_000), land)
            world.scheduler.after(UNREACHABLE_MS, lambda: answer(None))
            return

        def arrive() -> None:
            result = do()
            lost = self.down or node.name in self.cut
            world.scheduler.after(
                UNREACHABLE_MS if lost else random.uniform(1, 5), lambda: answer(None if lost else result)
            )

        world.scheduler.after(random.uniform(1, 10), arrive)

    def swap(self, proposal: Proposal) -> tuple[Outcome, int]:
        absent = proposal.absent is not None and proposal.absent in self.leases
        if (self.revision != proposal.revision and proposal.revision != UNCOMPARED) or absent:
            return Outcome.CONFLICT, 0
        self.put(proposal.state)
        return Outcome.DONE, self.revision

    def keep_alive(self, name: str, boot: str) -> bool:
        """Renew a lease, or take one anew."""
        known = self.leases.get(name)
        self.leases[name] = (boot, self.world.now + TIMING.ttl_ms)
        if known is None or known[0] != boot:
            self.changed()
        return True

    def lose_lease(self, name: str) -> None:
        if self.leases.pop(name, None) is not None:
            self.changed()

    def _expire(self) -> None:
        self.world.scheduler.after(50, self._expire)
        if not self.down:
            for name in [name for name, (_, until) in self.leases.items() if until < self.world.now]:
                self.lose_lease(name)


class Network:
    """Delay, loss and reordering; or connections that keep the order and break."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cut: set[tuple[str, str]] = set()
        self.streams = world.random.random() < 0.5
        self.drop = 0.0 if self.streams else world.random.choice((0.0, 0.01, 0.05))
        self.stray = 0.0 if self.streams else world.random.choice((0.0, 0.01, 0.05))  # come long after they were sent
        self._last: dict[tuple[str, str], int] = {}

    def send(self, sender: SimNode, to: str, frame: Frame) -> None:
        world, a, b = self.world, sender.name, node_of(to)
        me, boot = sender.replica.me, sender.boot
        if (a, b) in self.cut or world.random.random() < self.drop:
            return
        (copy,) = FrameDecoder().feed(encode_frame(frame))
        delay = world.random.expovariate(1 / 3)
        if world.random.random() < self.stray:
            delay = world.random.uniform(50, 4_000)
        if self.streams:
            at = max(world.now + int(delay), self._last.get((a, b), 0))
            self._last[a, b] = at
            delay = at - world.now

        def arrive() -> None:
            node = world.nodes[b]
            if (a, b) in self.cut:
                return
            if node.up and node.replica.me == to:
                node.call(lambda: node.replica.received(me, copy, world.now))
            elif isinstance(frame, Hello) and (b, a) not in self.cut:
                world.scheduler.after(1, lambda: sender.call(lambda: sender.replica.refused(to, world.now), boot))

        if self.streams:  # the order of arrivals at one moment is kept by making them one millisecond apart
            self._last[a, b] += 1
        world.scheduler.after(delay, arrive)

    def reset(self, x: str, y: str) -> None:
        """A connection breaks, and both ends hear of it."""
        for a, b in ((x, y), (y, x)):
            node, other = self.world.nodes[a], self.world.nodes[b]
            if (b, a) not in self.cut and node.up:
                node.lost(other.replica.me)


class SimNode:
    """A node: its disk, its process, and the interfaces of its replica."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.storage = 1
        self.log = MemoryLog()
        self.up = False
        self.boot = 0
        self.paused: list[Callable[[], None]] | None = None
        self.replica: Replica

    def start(self) -> None:
        if self.up:
            return
        world = self.world
        self.up = True
        self.boot += 1
        self.gate = ConfirmGate()
        me = replica_id(self.name, str(self.storage))
        self.replica = world.replica_type(me, JOURNAL, self.log, self, self, self, self._nonce, TIMING)
        self.replica.needed = lambda replicas: world.min_in_sync
        boot = self.boot
        for every, what in ((TIMING.tick_ms, self._tick), (TIMING.ttl_ms // 4, self._keep_alive), (300, self.read)):
            self._repeat(every, what, boot)

    def _nonce(self) -> int:
        return self.world.random.getrandbits(64)

    def _repeat(self, every: int, what: Callable[[], None], boot: int) -> None:
        if not self.up or self.boot != boot:
            return
        what_now = what if what != self.read else self._poll
        self.call(what_now, boot)
        jitter = self.world.random.uniform(0.8, 1.2)
        self.world.scheduler.after(every * jitter, lambda: self._repeat(every, what, boot))

    def call(self, do: Callable[[], None], boot: int | None = None) -> None:
        """Let the process do something, once it runs."""
        if not self.up or (boot is not None and boot != self.boot):
            return
        if self.paused is not None:
            here = self.boot
            self.paused.append(lambda: self.call(do, here))
            return
        do()

    def crash(self, *, power: bool) -> None:
        self.up = False
        self.paused = None
        self.log = self.log.crashed(self.world.random, power=power)
        if self.world.network.streams:
            for other in self.world.nodes.values():
                if other.up and (self.name, other.name) not in self.world.network.cut:
                    self.world.scheduler.after(2, partial(other.lost, self.replica.me))

    def lost(self, peer: str) -> None:
        """The connection to a peer was closed."""
        self.call(lambda: self.replica.disconnected(peer, self.world.now))

    def wipe(self) -> None:
        self.storage += 1
        self.log = MemoryLog()

    def resume(self) -> None:
        backlog, self.paused = self.paused, None
        for do in backlog or ():
            do()

    # ---- the process

    def _tick(self) -> None:
        replica, world = self.replica, self.world
        replica.tick(world.now)
        replica.flush(world.now)
        if replica.may_deliver(world.now):
            world.check_delivery(self)

    def _keep_alive(self) -> None:
        if not self.replica.running:
            return
        asked, boot = self.world.now, str(self.boot)

        def done(result: object) -> None:
            if result:
                self.replica.leased(asked + TIMING.ttl_ms)

        self.world.etcd.call(self, lambda: self.world.etcd.keep_alive(self.name, boot), done)

    def _poll(self) -> None:
        def done(view: object) -> None:
            if isinstance(view, View):
                self.replica.observed(view, self.world.now)

        self.world.etcd.call(self, self.world.etcd.view, done)

    def publish(self, values: list[bytes]) -> None:
        try:
            head = PUBLISH_HEAD.pack(0, self.world.now, len(values), len(values[0]))
            lsn = self.replica.append(Type.PUBLISH, head, *values, now=self.world.now)
        except NotLeading:
            return
        self.world.attempts.update(values)
        kept = self.log.now.records[-1]
        assert kept.lsn == lsn
        self.gate.wait({JOURNAL: kept.last}, self.world.min_in_sync, kept)
        if self.world.random.random() < 0.7:
            self.replica.flush(self.world.now)

    # ---- Coordinator

    def swap(self, proposal: Proposal) -> None:
        def done(result: object) -> None:
            outcome, revision = result if isinstance(result, tuple) else (Outcome.UNKNOWN, 0)
            self.replica.swapped(proposal, outcome, revision, self.world.now)

        self.world.etcd.call(self, lambda: self.world.etcd.swap(proposal), done)

    def read(self) -> None:
        def done(view: object) -> None:
            self.replica.was_read(view if isinstance(view, View) else None, self.world.now)

        self.world.etcd.call(self, self.world.etcd.view, done)

    # ---- Link

    def send(self, peer: str, frame: Frame) -> None:
        self.world.network.send(self, peer, frame)

    # ---- Owner

    def sync(self, ticket: Done) -> None:
        random, boot, replica = self.world.random, self.boot, self.replica
        if self.world.at_once and random.random() < self.world.at_once:
            replica.synced(ticket, self.world.now)
            return
        takes = random.uniform(1, 20) if random.random() >= self.world.stalls else random.uniform(100, 1_200)
        self.world.scheduler.after(takes, lambda: self.call(lambda: replica.synced(ticket, self.world.now), boot))

    def advanced(self) -> None:
        if self.replica.leading is not None:
            for kept in self.gate.advance(JOURNAL, self.replica.commit, self.replica.in_sync):
                assert isinstance(kept, Kept)
                self.world.confirm(self, kept)

    def led(self, epoch: int) -> None:
        self.world.note_leader(self, epoch)

    def stepped_down(self) -> None:
        self.gate.forget(JOURNAL)
        self.world.count("stepdowns")

    def alarm(self, reason: str) -> None:
        raise Violation(f"{self.replica.me} stopped: {reason}")

    def stopped(self) -> None:
        """It leaves: the process ends, with its files closed, and comes back later."""
        self.world.etcd.lose_lease(self.name)
        boot = self.boot

        def end() -> None:
            if self.up and self.boot == boot:
                self.crash(power=False)
                self.world.scheduler.after(self.world.random.uniform(100, 1_000), self.start)

        self.world.scheduler.after(1, end)

    def note(self, event: str, **details: object) -> None:
        counted = {"in_sync": "in_sync_changes", "snapshot": "snapshots"}.get(event)
        if counted is not None:
            self.world.count(counted)
        if self.world.trace is not None:
            self.world.trace.append(f"{self.world.now} {self.replica.me} {event} {details}")


def alive(lsn: int) -> bool:
    """What still matters of old records: everybody condenses by the same rule."""
    return lsn % 5 != 0


class World:
    """Everything there is, and what was promised."""

    def __init__(
        self, seed: int, replica_type: type[Replica] = Replica, *, size: int = 3, min_in_sync: int = 1
    ) -> None:
        self.random = Random(seed)
        self.scheduler = Scheduler(self.random)
        self.replica_type = replica_type
        self.min_in_sync = min_in_sync
        self.flake = self.random.choice((0, 0.03, 0.03, 0.3))
        self.usurp = self.random.choice((0, 0, 0.03))
        self.stalls = 0.01  # how many syncs take long
        self.at_once = 0.3  # how many are done before anything else is
        self.trace: list[str] | None = None
        self.attempts: set[bytes] = set()
        self.confirmed: dict[int, Kept] = {}
        self.leaders: dict[int, tuple[str, int, int]] = {}  # by epoch: node, boot, when
        self.newest = 0
        self.counts: dict[str, int] = {}
        self.nodes: dict[str, SimNode] = {}
        self.network = Network(self)
        names = "abcde"[:size]
        ids = tuple(replica_id(name, "1") for name in names)
        self.etcd = Etcd(self, GroupState(0, "", ids, ids, "first"))
        self.nodes = {name: SimNode(self, name) for name in names}

    @property
    def now(self) -> int:
        return self.scheduler.now

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def leader(self) -> SimNode | None:
        """Some node that believes that it leads."""
        return next((node for node in self.nodes.values() if node.up and node.replica.leading is not None), None)

    # ---- promises

    def has(self, node: SimNode, kept: Kept) -> bool:
        """Whether a record is on a node's disk, or has been dropped as nobody needs it any more."""
        log = node.log
        if kept.last <= log.base and not alive(kept.lsn):
            return True
        found = log.find(kept.lsn)
        return found is not None and found.data == kept.data and (kept.last <= log.durable or kept.last <= log.base)

    def _members(self) -> list[SimNode]:
        found = [(self.nodes[node_of(name)], name) for name in self.etcd.state.isr]
        return [node for node, name in found if replica_id(node.name, str(node.storage)) == name]

    def confirm(self, node: SimNode, kept: Kept) -> None:
        if self.confirmed.setdefault(kept.lsn, kept).data != kept.data:
            raise Violation(f"{self.now}: record {kept.lsn} was confirmed before, as another")
        if self.etcd.state.epoch == node.replica.log.epoch and len(self._members()) < 1:
            raise Violation("confirmed with nobody in sync")
        for member in self._members():
            if not self.has(member, kept):
                raise Violation(
                    f"{self.now}: {node.replica.me} confirmed {kept.lsn}, which {member.name} may lead without"
                )

    def check_in_sync(self) -> None:
        for member in self._members() if self.nodes else ():
            log = member.log
            safe = max(log.durable, log.base)
            there = {kept.lsn: kept.data for kept in log.now.records if kept.last <= safe}
            for kept in self.confirmed.values():
                if there.get(kept.lsn) != kept.data and not self.has(member, kept):
                    raise Violation(f"{self.now}: {member.name} may lead, and lacks {kept.lsn}; {self.etcd.state}")

    def note_leader(self, node: SimNode, epoch: int) -> None:
        if epoch in self.leaders:
            raise Violation(f"epoch {epoch} has two leaders")
        self.leaders[epoch] = (node.name, node.boot, self.now)
        self.newest = max(self.newest, epoch)
        self.count("elections")

    def check_delivery(self, node: SimNode) -> None:
        """A leader that was replaced knows soon that it cannot prove to lead, whatever it hears (R12)."""
        self.count("deliveries")
        epoch = node.replica.log.epoch
        since = [when for other, (_, _, when) in self.leaders.items() if other > epoch]
        if since and self.now - min(since) > TIMING.ttl_ms // 2 and node.replica.lease_until <= self.now:
            raise Violation(f"{self.now}: {node.name} delivers in epoch {epoch}, and has been replaced for long")
