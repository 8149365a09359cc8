"""Dead letters on their way: each from the queue that it left to whatever its dead-letter exchange routes it to.

One death may cause another (a full queue behind the dead-letter exchange), so they wait in line here rather than on the
stack. What is written on them is deadletter.py's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from rabbitish.core.changes import Reason
from rabbitish.core.deadletter import dead_letter, is_cycle
from rabbitish.core.exchange import Exchange, Target
from rabbitish.core.message import Message
from rabbitish.core.queue import Queue
from rabbitish.values import Table


class Router(Protocol):
    """What is asked of the virtual host."""

    exchanges: dict[str, Exchange]

    def route(self, exchange: Exchange, routing_keys: Iterable[str], headers: Table) -> list[Target]:
        """The queues that a message goes to, each once."""

    def record_published(self, targets: Iterable[Target], message: Message, now: int, *, keep: bool = False) -> None:
        """Have it recorded that a message is about to go to these targets, where that must survive."""


class Burials:
    """Those of a virtual host."""

    __slots__ = ("_burying", "_dying", "_router")

    def __init__(self, router: Router) -> None:
        self._router = router
        self._dying: deque[tuple[Queue, Message, Reason]] = deque()
        self._burying = False

    def bury(self, queue: Queue, message: Message, reason: Reason, now: int) -> None:
        """Send a message that left `queue` to its dead-letter exchange, if that exists."""
        self._dying.append((queue, message, reason))
        if self._burying:
            return
        self._burying = True
        try:
            while self._dying:
                self._bury(*self._dying.popleft(), now)
        finally:
            self._burying = False

    def _bury(self, queue: Queue, message: Message, reason: Reason, now: int) -> None:
        router = self._router
        name, key = queue.options.dead_letter_exchange, queue.options.dead_letter_routing_key
        exchange = router.exchanges.get(name) if name is not None else None
        if name is not None and exchange is not None:
            counted, keep = queue.options.counted, queue.options.quorum
            dead = dead_letter(message, queue.name, reason.value, name, key, now, counted=counted)
            headers = dead.headers()
            targets = router.route(exchange, dead.address.routing_keys, headers)
            targets = [target for target in targets if not is_cycle(headers, target.name, reason.value)]
            router.record_published(targets, dead, now, keep=keep)
            for target in targets:
                target.enqueue(dead, now)
        # Only now, so that no end of the process finds it in neither queue.
        queue.record_removed([message], reason)
