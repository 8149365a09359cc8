"""What the core tells of its changes, for whoever keeps them: the journal, and mirrors one day.

Facts in the past tense, told right after they happened, in order; the observer never answers and never waits. Only what
must survive is told: durable exchanges and queues, bindings between them, persistent messages in durable queues. A
message that was told of has a number (`lsn`); one without was never told of and is not told of again.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rabbitish.core.exchange import Binding, Exchange
    from rabbitish.core.message import Message
    from rabbitish.core.paging import Page
    from rabbitish.core.queue import Queue
    from rabbitish.core.sendings import Range, Sendings


class Reason(StrEnum):
    """Why a message left its queue, in the words of x-death where that has any."""

    ACKNOWLEDGED = "acknowledged"
    TAKEN = "taken"  # by a consumer that does not acknowledge
    COMMITTED = "committed"  # acknowledged in a transaction, which is not done before the disk has it
    EXPIRED = "expired"
    REJECTED = "rejected"
    MAXLEN = "maxlen"
    DELIVERY_LIMIT = "delivery_limit"
    PURGED = "purged"
    REFUSED = "refused"  # the queue was full, and the publisher was told so


class Recorder(Protocol):
    """An observer of changes."""

    @property
    def position(self) -> int:
        """The number of the last change told of."""

    declared: int
    """The number of the last change to vhosts, exchanges, queues or bindings."""

    sendings: Sendings
    """Which publishes of carried sessions it was told of, which the sessions tell themselves."""

    @property
    def oldest(self) -> int:
        """No message with a lower number is in any queue."""

    def vhost_added(self, vhost: str) -> None:
        """A virtual host is there."""

    def vhost_removed(self, vhost: str) -> None:
        """It has gone; what was in it was told of before."""

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None:
        """A durable exchange is there."""

    def exchange_deleted(self, vhost: str, exchange: Exchange) -> None:
        """It has gone, with the bindings from and to it."""

    def queue_declared(self, vhost: str, queue: Queue) -> None:
        """A durable queue is there."""

    def queue_changed(self, vhost: str, queue: Queue) -> None:
        """Messages that come into a durable queue are given another TTL from now on; see Holdings.note_ttl."""

    def queue_deleted(self, queue: Queue) -> None:
        """It has gone, with its bindings and messages."""

    def bound(self, vhost: str, binding: Binding) -> None:
        """A binding between durable things is there."""

    def unbound(self, vhost: str, binding: Binding) -> None:
        """It has gone."""

    def published(self, queues: Sequence[Queue], messages: Sequence[Message], now: int, *, alike: bool = True) -> None:
        """Persistent messages of one address went to these durable queues; gives each message its number.

        They have one priority, and expire or not. `alike`: all that is before their bodies is the same to the byte.
        """

    def sent(self, session: bytes, channel: int, ranges: Sequence[Range]) -> None:
        """These publishes of a carried session were told of, in each queue that they went to; see sendings."""

    def removed(self, queue: Queue, messages: Sequence[Message], reason: Reason) -> None:
        """Messages with numbers left a queue."""

    def pages_removed(self, queue: Queue, pages: Sequence[Page], reason: Reason) -> None:
        """Messages with numbers left a queue that were not in memory."""

    def delivered(self, queue: Queue, messages: Sequence[Message]) -> None:
        """Messages with numbers were handed out, and will be removed or come back."""

    def returned(self, queue: Queue, message: Message, returns: int) -> None:
        """A message with a number came back to its queue, so often by now."""
