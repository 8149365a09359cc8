"""Dead letters on their way: each from the queue that it left to whatever its dead-letter exchange routes it to.

One death may cause another (a full queue behind the dead-letter exchange), so they wait in line here rather than on the
stack. What is written on them is deadletter.py's.

A queue whose dead letters are to arrive at least once keeps one that no queue takes, neither ready nor gone, and it is
tried again: when routes change, and now and then. In the journal it is still in its queue, so after a restart it is
there as before it died.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from rabbitish.core.changes import Reason
from rabbitish.core.chores import Chores
from rabbitish.core.deadletter import dead_letter, is_cycle
from rabbitish.core.deadlines import Deadlines
from rabbitish.core.exchange import Exchange, Target
from rabbitish.core.leaving import BURIED_COST, SWEEP_MESSAGES
from rabbitish.core.message import Message
from rabbitish.core.queue import Queue
from rabbitish.values import Table

# What waits is tried again after so long, and after twice as long each time that none of it could go.
AGAIN_MS = 1_000
AGAIN_MS_MAX = 60_000


class Router(Protocol):
    """What is asked of the virtual host."""

    exchanges: dict[str, Exchange]
    deadlines: Deadlines
    chores: Chores

    def route(self, exchange: Exchange, routing_keys: Iterable[str], headers: Table) -> list[Target]:
        """The queues that a message goes to, each once."""

    def record_published(self, targets: Iterable[Target], message: Message, now: int, *, keep: bool = False) -> None:
        """Have it recorded that a message is about to go to these targets, where that must survive."""


class Death(NamedTuple):
    """A message that has left its queue without being consumed."""

    queue: Queue
    message: Message
    reason: Reason
    owed: frozenset[str] | None = None
    """The queues that it is still to go to, where others have it."""


class Burials:
    """Those of a virtual host."""

    __slots__ = ("_again_ms", "_burying", "_dying", "_router", "_trying", "_waiting", "due_at")

    def __init__(self, router: Router) -> None:
        self._router = router
        self._dying: deque[Death] = deque()
        self._burying = False
        self._waiting: deque[Death] = deque()
        self._trying = False
        self._again_ms = AGAIN_MS
        self.due_at: int | None = None

    def bury(self, queue: Queue, message: Message, reason: Reason, now: int) -> None:
        """Send a message that left `queue` to its dead-letter exchange, if that exists."""
        self._work(Death(queue, message, reason), now)

    def _work(self, death: Death, now: int) -> None:
        self._dying.append(death)
        if self._burying:
            return
        self._burying = True
        try:
            while self._dying:
                self._bury(self._dying.popleft(), now)
        finally:
            self._burying = False

    def _bury(self, death: Death, now: int) -> None:
        router = self._router
        queue, message, reason, owed = death
        name, key = queue.options.dead_letter_exchange, queue.options.dead_letter_routing_key
        exchange = router.exchanges.get(name) if name is not None else None
        targets: list[Target] = []
        full: list[str] = []
        if name is not None and exchange is not None:
            counted, keep = queue.options.counted, queue.options.quorum
            dead = dead_letter(message, queue.name, reason.value, name, key, now, counted=counted)
            headers = dead.headers()
            targets = router.route(exchange, dead.address.routing_keys, headers)
            targets = [target for target in targets if not is_cycle(headers, target.name, reason.value)]
            if owed is not None:
                targets = [target for target in targets if target.name in owed]
            router.record_published(targets, dead, now, keep=keep)
            refused = [target for target in targets if not target.enqueue(dead, now)]
            full = [target.name for target in refused if not _passes_on(target)]
        if queue.options.patient and not queue.deleted and (full or not (targets or owed)):
            queue.keep_waiting(message)
            self._waiting.append(Death(queue, message, reason, frozenset(full) or None))
            router.deadlines.ask(self, now + self._again_ms)
            return
        # Only now, so that no end of the process finds it in neither queue.
        queue.record_removed([message], reason)

    # ---- what waits

    def rerouted(self) -> None:
        """Routes have changed, so what waits may find a queue."""
        if self._waiting:
            self._again_ms = AGAIN_MS
            self._router.deadlines.ask(self, 0)

    def due(self, now: int) -> None:
        """Try what waits again."""
        if self._waiting and not self._trying:
            self._trying = True
            self._router.chores.add(self._try_again(now))

    def _try_again(self, now: int) -> Iterator[None]:
        try:
            before = len(self._waiting)
            for tried in range(1, before + 1):
                death = self._waiting.popleft()
                if not death.queue.deleted:
                    death.queue.waited(death.message)
                    self._work(death, now)
                if tried % (SWEEP_MESSAGES // BURIED_COST) == 0:
                    yield
            self._again_ms = AGAIN_MS if len(self._waiting) < before else min(2 * self._again_ms, AGAIN_MS_MAX)
        finally:
            self._trying = False
        if self._waiting:
            self._router.deadlines.forget(self)
            self._router.deadlines.ask(self, now + self._again_ms)


def _passes_on(target: Target) -> bool:
    """Whether it dead-letters what it refuses, so that it need not be asked again."""
    return isinstance(target, Queue) and target.options.overflow == "reject-publish-dlx"
