"""The policies of a virtual host, brought to everything that is in it.

What is declared gets its policies at once. When policies change all that there is gets others; where that is very much
it takes some settles, so that nobody waits long, and whoever made the change can wait until it is `busy` no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from rabbitish.core.changes import Recorder
from rabbitish.core.chores import Chores
from rabbitish.core.exchange import Exchange
from rabbitish.core.policing import NO_POLICIES, Policies
from rabbitish.core.queue import Queue

# A piece ends after so many steps of matching: two milliseconds or so, and those of its last name.
STEPS_AT_ONCE = 5_000
# What a queue costs, in steps: to be looked at, and to get another policy.
_LOOK_STEPS = 5
_CHANGE_STEPS = 150


class Governed(Protocol):
    """What is asked of the virtual host."""

    name: str
    queues: dict[str, Queue]
    exchanges: dict[str, Exchange]
    chores: Chores
    recorder: Recorder | None

    def forget_routes(self) -> None:
        """What sessions remember of routes may be wrong now."""


class Governor:
    """Knows the policies that hold."""

    __slots__ = ("_pending", "_vhost", "policies")

    def __init__(self, vhost: Governed) -> None:
        self.policies = NO_POLICIES
        self._vhost = vhost
        self._pending = 0

    @property
    def busy(self) -> bool:
        """Whether a change has not reached everything yet."""
        return self._pending > 0

    def adopt(self, policies: Policies, now: int) -> None:
        """These hold from now on."""
        self.policies = policies
        self._pending += 1
        work = self._govern_all(now)
        if next(work, self) is not self:
            self._vhost.chores.add(work)

    def _govern_all(self, now: int) -> Iterator[None]:
        vhost, policies = self._vhost, self.policies
        things: list[Queue | Exchange] = [*vhost.queues.values(), *vhost.exchanges.values()]
        began = policies.steps
        try:
            for thing in things:
                if policies.steps - began >= STEPS_AT_ONCE:
                    vhost.forget_routes()
                    yield
                    if self.policies is not policies:  # there are others by now
                        return
                    began = policies.steps
                if isinstance(thing, Exchange):
                    self.govern_exchange(thing)
                elif not thing.deleted:
                    self.govern_queue(thing, now)
            vhost.forget_routes()
        finally:
            self._pending -= 1

    def govern_exchange(self, exchange: Exchange) -> None:
        """Give an exchange the policies that it should have. The default one has none, as with RabbitMQ."""
        if exchange.name:
            governing = self.policies.of_exchange(exchange.name)
            if governing != exchange.governing:
                exchange.govern(governing)

    def govern_queue(self, queue: Queue, now: int) -> None:
        """Give a queue the policies that it should have."""
        governing = self.policies.of_queue(queue.name, queue.options.queue_type)
        self.policies.steps += _LOOK_STEPS
        if governing != queue.governing:
            self.policies.steps += _CHANGE_STEPS
            queue.govern(governing, now)
            self.note_ttl(queue)

    def note_ttl(self, queue: Queue) -> None:
        """Have it recorded which TTL messages are given in a queue, if that is another than before."""
        recorder = self._vhost.recorder
        if recorder is not None and queue.durable and queue.note_ttl(recorder.position, recorder.oldest):
            recorder.queue_changed(self._vhost.name, queue)
