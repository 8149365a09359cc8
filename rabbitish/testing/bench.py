"""A node on the test bench: what tests do to a broker, done inside its event loop.

Everything here but `advance` is an ordinary function that runs to its end while the node does nothing else. `look` is
what makes tests exact: before anybody looks at anything, the node takes what its peers have sent by then, so that a
client that has sent a message finds it in the queue, confirmed or not.

`advance` goes from one deadline to the next, and stops at each, so that what is due after ten seconds and causes
something that is due after ten more does so at its time. For peers no time passes: heartbeats, the limits of handshakes
and of closes are put off by as much.
"""

from __future__ import annotations

from collections import deque

import trio

from rabbitish.core.access import EVERYTHING
from rabbitish.core.access.records import VhostRecord
from rabbitish.core.vhost import Vhost
from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.server.node import Node
from rabbitish.session.connection import Session
from rabbitish.testing.clock import MovableClock
from rabbitish.testing.door import Door
from rabbitish.testing.faults import PublishWatch

# What peers have sent is taken in at most so many rounds, each of a read from every socket: one that never stops
# sending must not keep a test from looking, and no kernel buffers as much as this.
_MOST_ROUNDS = 256


class Bench:
    """A node and what can be done to it."""

    def __init__(self, node: Node, door: Door, clock: MovableClock, log: deque[str]) -> None:
        self.node = node
        self.door = door
        self.log = log
        self.publishes = PublishWatch(node.hub)
        self._clock = clock
        self._made_vhosts = 0

    # ---- now

    def look(self) -> None:
        """Take what peers have sent, and do all that follows from it."""
        for _ in range(_MOST_ROUNDS):
            if not self.node.reactor.take_ready():
                break
        self.settle()

    def settle(self) -> None:
        """Do all that is to be done now, and send what there is to say."""
        node = self.node
        node.pump(node.now())
        while node.broker.restless or node.hub.touched:
            node.pump(node.now())

    # ---- later

    async def advance(self, ms: int) -> None:
        """Let time pass in no time; see the module's words. With a journal, everything due is on disk at the end."""
        self.look()
        with self._clock.held():
            until = self._clock() + ms
            while (due := self._next_due()) is not None and due <= until:
                self._move(due - self._clock())
                self.settle()
            self._move(until - self._clock())
        deadlines = self.node.broker.deadlines
        for session in list(self.node.hub.sessions):
            deadlines.ask(session.patience, self._clock())
        self.settle()
        self.node.look_at_deadlines()
        if self.node.keeper is not None:
            await self.node.keeper.caught_up()
        await trio.lowlevel.checkpoint()

    def _next_due(self) -> int | None:
        """The next deadline of anything but a peer's patience."""
        deadlines = self.node.broker.deadlines
        for session in self.node.hub.sessions:
            deadlines.forget(session.patience)
        return deadlines.next_due()

    def _move(self, ms: int) -> None:
        if ms > 0:
            self._clock.move(ms)
            for session in self.node.hub.sessions:
                session.patience.put_off(ms)

    # ---- virtual hosts

    def vhost(self, name: str) -> Vhost:
        """The virtual host of that name. LookupError: there is none."""
        vhost = self.node.broker.vhosts.get(name)
        if vhost is None:
            raise LookupError(f"there is no virtual host {name!r}, only {sorted(self.node.broker.vhosts)}")
        return vhost

    def add_vhost(self, name: str | None) -> str:
        """Make a virtual host that was not there; its name. ValueError: it was."""
        vhosts = self.node.broker.vhosts
        if name is None:
            self._made_vhosts += 1
            name = f"test-{self._made_vhosts}"
        if name in vhosts:
            raise ValueError(f"there is a virtual host {name!r} already")
        roster = self.node.hub.access.roster.draft()
        roster.add_vhost(VhostRecord(name))
        for user in roster.users:
            roster.set_permissions(user, name, EVERYTHING)
        self.node.hub.adopt(roster, self.node.now())
        return name

    def delete_vhost(self, name: str) -> None:
        """Take a virtual host away, with its connections and everything in it. LookupError: there is none."""
        self.vhost(name)
        self.publishes.forget(name)
        self.hang_up(self.sessions(name))
        roster = self.node.hub.access.roster.draft()
        roster.delete_vhost(name)
        self.node.hub.adopt(roster, self.node.now())
        self.settle()

    # ---- connections

    def sessions(self, vhost: str | None = None) -> list[Session]:
        """The connections, or those of one virtual host, that are open; oldest first."""
        links = [session for session in self.node.links if session.state == "running"]
        return [session for session in links if vhost is None or session.vhost.name == vhost]

    def hang_up(self, sessions: list[Session]) -> None:
        """Break connections without a word, and let go of what they held."""
        for session in sessions:
            self.node.links[session].cut()
        self.settle()

    def close(self, sessions: list[Session], reason: str) -> None:
        """Close connections as an operator does, with connection.close 320 and this reason."""
        now = self.node.now()
        for session in sessions:
            session.stop(ConnectionFailure(ReplyCode.CONNECTION_FORCED, reason), now)
        self.settle()

    def restore(self) -> None:
        """Undo whatever fault is on."""
        self.publishes.forget()
        self.hold_publishers("")
        self.door.open()

    def hold_publishers(self, reason: str) -> None:
        """See Hub."""
        self.node.hub.hold_publishers(reason)
        self.settle()
