"""What is done to a simulated cluster: everything at once for a while, then it is healed, and must be whole again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import count

from rabbitish.cluster.protocol.replica import Replica, Role
from rabbitish.cluster.protocol.state import replica_id
from rabbitish.store.record import PUBLISH_HEAD, Type

from .world import SimNode, Violation, World, alive

CHAOS_MS = 13_000
CALM_MS = 2_500
HEALING_MS = 4_500
PROGRESS_MS = 1_500
PRODUCERS = 3


class Chaos:
    """One life of a cluster."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.publishing = True
        self.harming = True
        self._power = False

    # ---- clients

    def producer(self, number: int) -> None:
        counter = count()

        def publish() -> None:
            if not self.publishing:
                return
            nodes = list(self.world.nodes.values())
            node = self.random.choice(nodes) if self.random.random() < 0.1 else self.world.leader()
            if node is not None:
                values = [b"%d.%08d" % (number, next(counter)) for _ in range(self.random.choice((1, 1, 3)))]
                node.call(lambda: node.publish(values))
            self.world.scheduler.after(self.random.uniform(15, 90), publish)

        publish()

    # ---- harm

    def _for_a_while(self, undo: Callable[[], None]) -> None:
        self.world.scheduler.after(self.random.choice((300, 1_000, 3_000)), undo)

    def step(self) -> None:
        if not self.harming:
            return
        nodes = list(self.world.nodes.values())
        node = self.random.choice(nodes)
        leader = self.world.leader()
        if leader is not None and self.random.random() < 0.5:
            node = leader
        harm = self.random.choice(HARM)
        if self.world.trace is not None:
            self.world.trace.append(f"{self.world.now} {harm.__name__} {node.name}")
        harm(self, node)
        self.world.scheduler.after(self.random.uniform(100, 1_500), self.step)

    def usurp(self) -> None:
        """Mirrors take over with no reason at all: nothing may depend on leases."""
        if self.harming and self.world.usurp:
            for node in self.world.nodes.values():
                if self.random.random() < self.world.usurp:
                    node.call(lambda node=node: node.replica.take_over(self.world.now))
            self.world.scheduler.after(300, self.usurp)

    def kill(self, node: SimNode) -> None:
        if node.up:
            node.crash(power=False)
            self._for_a_while(node.start)

    def cut_power(self, node: SimNode) -> None:
        for other in self.world.nodes.values():
            if other.up:
                other.crash(power=True)
            self.world.scheduler.after(self.random.uniform(100, 2_000), other.start)

    def pause(self, node: SimNode) -> None:
        if node.up and node.paused is None:
            node.paused = []
            self._for_a_while(node.resume)

    def _cut(self, pairs: set[tuple[str, str]]) -> None:
        self.world.network.cut |= pairs
        self._for_a_while(lambda: self.world.network.cut.difference_update(pairs))

    def isolate(self, node: SimNode) -> None:
        self._cut({pair for other in self.world.nodes for pair in ((node.name, other), (other, node.name))})

    def silence(self, node: SimNode) -> None:
        self._cut({(node.name, other) for other in self.world.nodes})

    def deafen(self, node: SimNode) -> None:
        self._cut({(other, node.name) for other in self.world.nodes})

    def part(self, node: SimNode) -> None:
        other = self.random.choice([name for name in self.world.nodes if name != node.name])
        self._cut({(node.name, other), (other, node.name)})

    def cut_from_etcd(self, node: SimNode) -> None:
        self.world.etcd.cut.add(node.name)
        self._for_a_while(lambda: self.world.etcd.cut.discard(node.name))

    def cut_off(self, node: SimNode) -> None:
        self.isolate(node)
        self.cut_from_etcd(node)

    def etcd_down(self, node: SimNode) -> None:
        self.world.etcd.down = True
        self._for_a_while(lambda: setattr(self.world.etcd, "down", False))

    def lose_lease(self, node: SimNode) -> None:
        self.world.etcd.lose_lease(node.name)

    def reset(self, node: SimNode) -> None:
        other = self.random.choice([name for name in self.world.nodes if name != node.name])
        self.world.network.reset(node.name, other)

    def stop(self, node: SimNode) -> None:
        """As SIGTERM."""
        node.call(lambda: node.replica.stop(self.world.now))

    def condense(self, node: SimNode) -> None:
        """Forget what nobody needs any more."""
        log = node.log
        if node.up and not log.dirty and node.replica.commit > log.base:
            most = min(node.replica.commit, log.durable)
            at = bisect_right(log.now.records, most, key=lambda kept: kept.last) - 1
            if at >= 0 and log.now.records[at].last > log.base:
                log.condense(log.now.records[at].last, alive)

    def wipe(self, node: SimNode) -> None:
        """A disk is lost; never the last that has everything."""
        etcd = self.world.etcd
        me, state = replica_id(node.name, str(node.storage)), etcd.state
        gone = [name for name in state.isr if name not in self._there()]
        busy = etcd.late.get(node.name) or (node.up and node.replica.role in (Role.LEADER, Role.CANDIDATE))
        if node.up and not busy and not gone and state.leader != me and len(state.isr) > 1:
            node.crash(power=True)
            node.wipe()
            self.world.count("wiped")
            self._for_a_while(node.start)

    def _there(self) -> list[str]:
        return [replica_id(node.name, str(node.storage)) for node in self.world.nodes.values()]

    # ---- a life

    def run(self) -> None:
        world = self.world
        for node in world.nodes.values():
            node.start()
        world.scheduler.run(1_000)
        for number in range(PRODUCERS):
            self.producer(number)
        self.step()
        self.usurp()
        world.scheduler.run(CHAOS_MS)
        self.harming = False
        world.scheduler.run(CHAOS_MS + CALM_MS)
        self.heal()
        world.scheduler.run(world.now + HEALING_MS)
        before = len(world.confirmed)
        world.scheduler.run(world.now + PROGRESS_MS)
        self.publishing = False
        if len(world.confirmed) == before:
            raise Violation(f"no progress after healing: {world.etcd.state}")
        world.scheduler.run(world.now + PROGRESS_MS)
        self.check()

    def heal(self) -> None:
        world = self.world
        world.network.cut.clear()
        world.network.drop = world.network.stray = 0
        world.network.streams = True
        world.etcd.cut.clear()
        world.etcd.down = False
        world.flake = world.stalls = 0
        for node in world.nodes.values():
            node.resume()
            node.start()

    def check(self) -> None:
        """Nothing confirmed is missing, nothing is there that nobody sent or twice, and all have the same."""
        world = self.world
        state = world.etcd.state
        if state.isr != tuple(sorted(self._there())):
            raise Violation(f"not all are back in sync: {state}")
        logs = {name: node.log for name, node in world.nodes.items()}
        ends = {(log.last, log.durable, log.epoch) for log in logs.values()}
        if len(ends) != 1:
            raise Violation(f"the logs end differently: {ends}")
        for kept in world.confirmed.values():
            for node in world.nodes.values():
                if not world.has(node, kept):
                    raise Violation(f"lost: {kept.lsn} on {node.name}")
        base = max(log.base for log in logs.values())
        tails = {tuple(kept.data for kept in log.now.records if kept.lsn > base) for log in logs.values()}
        if len(tails) != 1:
            raise Violation("the logs differ")
        for log in logs.values():
            values = [value for kept in log.now.records if kept.type is Type.PUBLISH for value in values_of(kept.data)]
            if len(values) != len(set(values)) or not world.attempts.issuperset(values):
                raise Violation("something came twice, or from nobody")


def values_of(data: bytes) -> list[bytes]:
    """The messages of a PUBLISH record."""
    head = 22 + PUBLISH_HEAD.size
    _, _, many, size = PUBLISH_HEAD.unpack_from(data, 22)
    return [data[head + i * size : head + (i + 1) * size] for i in range(many)]


HARM = (
    Chaos.kill,
    Chaos.kill,
    Chaos.cut_power,
    Chaos.pause,
    Chaos.isolate,
    Chaos.silence,
    Chaos.deafen,
    Chaos.part,
    Chaos.part,
    Chaos.cut_from_etcd,
    Chaos.cut_off,
    Chaos.etcd_down,
    Chaos.lose_lease,
    Chaos.reset,
    Chaos.stop,
    Chaos.condense,
    Chaos.condense,
    Chaos.wipe,
)


def world_of(seed: int, replica_type: type[Replica] = Replica) -> World:
    """Every fourth world has five nodes, every second one wants two in sync."""
    return World(seed, replica_type, size=3 if seed % 4 else 5, min_in_sync=1 + seed % 2)


def live(seed: int, replica_type: type[Replica] = Replica, flake: float | None = None) -> World:
    """A whole life. Violation: it broke a promise."""
    world = world_of(seed, replica_type)
    if flake is not None:
        world.flake = flake
    Chaos(world).run()
    return world
