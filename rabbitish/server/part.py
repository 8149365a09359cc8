"""A node's part in the cluster's journal: the protocol's member, beside the broker while that is led here.

What is little is synced on the spot where the disk is fast, else in a thread. While the broker is led here, what
mirrors say and what threads have done is heard together with the broker's sockets, which it waits for without giving
the event loop up; a mirror without clients waits for its leader in the same way. Who leads is looked at only when it
may have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rabbitish.cluster.disk_thread import CallSoon
from rabbitish.cluster.member import Member
from rabbitish.cluster.membership import now_ms
from rabbitish.cluster.protocol.disk_log import DiskTicket
from rabbitish.cluster.protocol.log import Ticket
from rabbitish.server.pace import LITTLE_BYTES, Pace
from rabbitish.server.reactor import Reactor
from rabbitish.server.replicated import Replicated

# A thread for each sync costs more here, where several nodes may share a machine: so many times as slow is not slow.
_PATIENCE = 3


class Part(Member):
    """See the module."""

    lead: Replicated | None = None

    def watch(self, changed: Callable[[], None], alone: Callable[[], bool]) -> None:
        """Call `changed` whenever it may have changed who leads, or how far we are on the way to that.

        `alone`: a mirror has no clients, and nothing to do than to be one.
        """
        self._changed = changed
        self._links.lingers = alone

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._pace = Pace(_PATIENCE)
        self._call_soon: CallSoon | None = None

    def join_in(self, reactor: Reactor | None) -> None:
        """Be part of what this waits for, while the broker is led here; None: not any more."""
        self._call_soon = None if reactor is None else reactor.call_soon
        self._links.watch_with(reactor)

    def sync(self, ticket: Ticket) -> None:
        """See Owner. On the spot where that is quicker than a thread."""
        assert isinstance(ticket, DiskTicket)
        little = ticket.appends is not None and ticket.appends <= LITTLE_BYTES
        run = partial(self._pace.timed, ticket.run) if little else ticket.run
        if not little or not self._pace.fast:
            self._disk.start(run, partial(self._synced, ticket), self._call_soon)
            return
        try:
            run()
        except OSError as error:
            self.replica.failed(error)
            return
        self.replica.synced(ticket, now_ms())
        if self.lead is not None and self.lead.crowded():
            self._pace.crowded()
        self._got_on()

    def _synced(self, ticket: Ticket, failure: OSError | None) -> None:
        super()._synced(ticket, failure)
        if failure is None and self.lead is not None:
            self.lead.synced()
        self._got_on()

    def _got_on(self) -> None:
        """Nobody needs to look for each message: who leads is known to all who ask, and who does not waits for that."""
        if self.lead is None and self.replica.leading is not None:
            self._changed()

    def advanced(self) -> None:
        """See Owner."""
        super().advanced()
        if self.lead is not None:
            self.lead.advanced()
        self._got_on()

    def viewed(self) -> None:
        """See Member."""
        self._changed()

    def led(self, epoch: int) -> None:
        """See Owner."""
        self._changed()

    def stepped_down(self) -> None:
        """See Owner."""
        super().stepped_down()
        self.lead = None
        self._changed()

    def alarm(self, reason: str) -> None:
        """See Owner."""
        super().alarm(reason)
        self._changed()
