"""The broker: virtual hosts, and the one settle that everything comes together in.

The server calls `settle(now)` after every batch of input and whenever the deadline it returned has come. It fires what
is due, matches messages with consumers on every queue that was touched, and says when it wants to be called again.
Nothing else makes time pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from rabbitish.core.access.policies import Policy
from rabbitish.core.changes import Recorder
from rabbitish.core.chores import Chores
from rabbitish.core.deadlines import Deadlines
from rabbitish.core.host import Usage
from rabbitish.core.policing import NO_POLICIES, Policies
from rabbitish.core.queue import Queue
from rabbitish.core.vhost import Vhost


class Broker:
    """All virtual hosts of a node, and what is common to them.

    `token` makes 22 random characters for names that the broker makes up; `settle_budget` is how many messages at most
    a queue hands out before others get their turn. `on_fault` is told of an exception, a bug of ours, that settling a
    queue or a deadline raised, so that it costs no other queue anything; without one it is raised.
    """

    def __init__(
        self, *, token: Callable[[], str], settle_budget: int, on_fault: Callable[[Exception], None] | None = None
    ) -> None:
        self.token = token
        self.now = 0  # of the call that is being handled, for whom it reaches without having been called itself
        self.deadlines = Deadlines()
        self.chores = Chores()
        self.usage = Usage()
        self.vhosts: dict[str, Vhost] = {}
        self._policies: dict[str, Policies] = {}  # by virtual host, where there are any
        # Hears of a policy of a virtual host that is not held against a name, since matching takes too long.
        self.on_too_hard: Callable[[str, Policy, str], None] | None = None
        self.recorder: Recorder | None = None
        self._dirty: list[Queue] = []
        self._settle_budget = settle_budget
        self._on_fault = on_fault

    def add_vhost(self, name: str) -> Vhost:
        """Make a virtual host, or find it."""
        vhost = self.vhosts.get(name)
        if vhost is None:
            vhost = self.vhosts[name] = Vhost(
                name,
                dirty=self._dirty,
                deadlines=self.deadlines,
                chores=self.chores,
                usage=self.usage,
                token=self.token,
            )
            vhost.recorder = self.recorder
            if name in self._policies:
                vhost.governor.adopt(self._policies[name], self.now)
            if self.recorder is not None:
                self.recorder.vhost_added(name)
        return vhost

    def delete_vhost(self, name: str) -> None:
        """Take a virtual host away with everything in it; its connections are closed already."""
        vhost = self.vhosts.pop(name)
        vhost.clear()
        vhost.tell_consumers()
        if self.recorder is not None:
            self.recorder.vhost_removed(name)

    def govern(self, policies: Mapping[str, Policies], now: int) -> None:
        """These policies hold from now on, by virtual host, and no others; for virtual hosts that are to come too."""
        self._policies = {name: each for name, each in policies.items() if each}
        if self.on_too_hard is not None:
            for name, each in self._policies.items():
                each.on_too_hard = partial(self.on_too_hard, name)
        for name, vhost in self.vhosts.items():
            new = self._policies.get(name, NO_POLICIES)
            if not new.same(vhost.governor.policies):
                vhost.governor.adopt(new, now)

    @property
    def policing(self) -> bool:
        """Whether policies have not reached everything that they are for yet."""
        return any(vhost.governor.busy for vhost in self.vhosts.values())

    def doubt(self) -> None:
        """Another broker had all that is queued here until now: say of each message that it may have been seen."""
        for vhost in self.vhosts.values():
            for queue in vhost.queues.values():
                for lane in queue.lanes.values():
                    lane.doubt()

    def settle(self, now: int) -> int | None:
        """Do what is due and hand out messages; the moment of the next call at the latest (`now` if work is left)."""
        self.now = now
        deadlines = self.deadlines
        due = deadlines.next_due()
        if due is not None and due <= now:
            deadlines.fire(now, self._on_fault)
        if self.chores:
            self.chores.step(self._on_fault)
        dirty = self._dirty
        if dirty:
            # One round over what is dirty now; dead letters may make others dirty, which the loop then reaches as well.
            unfinished: list[Queue] = []
            for queue in dirty:
                queue.dirty = False
                try:
                    if not queue.deleted and queue.settle(now, self._settle_budget):
                        unfinished.append(queue)
                except Exception as fault:
                    if self._on_fault is None:
                        raise
                    self._on_fault(fault)
            dirty.clear()
            for queue in unfinished:
                queue.mark()
        for vhost in self.vhosts.values():
            vhost.tell_consumers()
        return now if dirty or self.chores else deadlines.next_due()

    def take_acknowledged(self) -> None:
        """Have what consumers are done with by now recorded, before something else is."""
        for queue in self._dirty:
            queue.take_acknowledged()

    def record(self, recorder: Recorder) -> None:
        """Tell `recorder` of changes from now on."""
        self.recorder = recorder
        for vhost in self.vhosts.values():
            vhost.recorder = recorder

    def narrow_windows(self, window_bytes: int) -> None:
        """Have queues keep no more than this in memory, if it can be kept elsewhere."""
        self.usage.window_bytes = window_bytes
        for vhost in self.vhosts.values():
            for queue in vhost.queues.values():
                queue.fit_window()

    def messages_in_memory(self) -> int:
        """How many messages all queues hold in memory, with or without their content."""
        return sum(queue.messages_in_memory() for vhost in self.vhosts.values() for queue in vhost.queues.values())

    @property
    def restless(self) -> bool:
        """Whether something is left to be done now."""
        return bool(self._dirty or self.chores)

    def check(self) -> None:
        """Assert what must always hold."""
        for vhost in self.vhosts.values():
            for queue in vhost.queues.values():
                queue.check()
