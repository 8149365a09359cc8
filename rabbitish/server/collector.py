"""When Python's cyclic collector runs in a process that is nothing but a broker: at moments that we choose.

The collector looks at every live object, and a million queued messages are a million of them: 240 ms in which nobody is
served, at any moment and again and again while they come in. Reference counts free messages, routes and connections;
tests keep it so that nothing of ours ends in a cycle. So the collector is a net for what others or a fault leave
behind. By itself it does not run at all; once a minute somebody sees whether it may: when it will be quick, when nobody
has said anything for a while, or when it has not run for an hour.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from rabbitish.server.node import Node

LOOK_SECONDS = 60
# A quarter of a microsecond or less for each object: so many take a few milliseconds.
FEW_OBJECTS = 25_000
QUIET_MS = 1_000
LONGEST_MS = 3_600_000
# Session, link, task, channel, consumer and what they consist of.
OBJECTS_A_CONNECTION = 100
OBJECTS_A_QUEUE = 10


class Collector:
    """Runs the cyclic collector for a node. `begin` is for before the node is made, so that its start is quick too."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._last = node.now()

    @staticmethod
    def begin() -> None:
        """From now on it does not run by itself."""
        gc.disable()

    @staticmethod
    def settle_down() -> None:
        """What is there now stays: never look at it again."""
        gc.freeze()

    async def run(self) -> None:
        """Have it run when it may, for ever."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            self.look(self._node.now())

    def look(self, now: int) -> bool:
        """Run it if this is a moment for it; whether it was."""
        quiet = now - self._node.broker.now >= QUIET_MS
        if not quiet and now - self._last < LONGEST_MS and self._objects() > FEW_OBJECTS:
            return False
        gc.collect()
        self._last = now
        return True

    def _objects(self) -> int:
        """How many objects there are that it would look at, about."""
        broker, links = self._node.broker, self._node.links
        queues = sum(len(vhost.queues) for vhost in broker.vhosts.values())
        return broker.messages_in_memory() + OBJECTS_A_CONNECTION * len(links) + OBJECTS_A_QUEUE * queues
