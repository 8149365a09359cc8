"""How messages leave a queue, or come back to it: what becomes of those that were handed out, and what the limits take.

Between `Holdings`, which knows messages alone, and `Queue`, which hands them out and tells others: what leaves without
being consumed is buried (dead letters) with its reason. Long sweeps stop after a stretch, and say that there is more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rabbitish.core.changes import Reason
from rabbitish.core.holdings import Holdings, counted
from rabbitish.core.host import Host
from rabbitish.core.lane import Lane
from rabbitish.core.message import Message

# At most so many messages are expired or dropped at a stretch, so that a million of them never hold the loop.
SWEEP_MESSAGES = 1024
# So many times as much as any other does one cost that is in a page, or may be.
PAGED_COST = 4
# And one that is dead-lettered, for which headers are written and queues found.
BURIED_COST = 32

EXPIRED, REJECTED, MAXLEN, DELIVERY_LIMIT = Reason.EXPIRED, Reason.REJECTED, Reason.MAXLEN, Reason.DELIVERY_LIMIT


class Leaving(Holdings, ABC):
    """What a queue holds and how that leaves it."""

    __slots__ = ("_host", "acknowledged", "deleted", "dirty", "waiting", "waiting_bytes")

    _host: Host
    deleted: bool
    dirty: bool
    waiting: int
    """How many dead letters wait until somebody takes them, among those that are unacked."""
    waiting_bytes: int
    acknowledged: list[Message]
    """What consumers are done with and is still counted as theirs, until the next `settle`."""

    @abstractmethod
    def mark(self) -> None:
        """Have the queue settled at the end of this batch of input."""

    @abstractmethod
    def record_removed(self, messages: Sequence[Message], reason: Reason) -> None:
        """Have it recorded that messages have left, where that must survive."""

    @abstractmethod
    def _record_returned(self, message: Message, returns: int) -> None:
        """Have it recorded that a message came back, so often by now."""

    @abstractmethod
    def _bury(self, messages: Sequence[Message], reason: Reason, now: int) -> None:
        """Messages have left without being consumed: dead-letter them."""

    # ---- husks

    def take_husks(self, messages: list[Message]) -> list[Message]:
        """What a consumer of a `crowded` queue should keep of messages that it was handed."""
        shelf = self._host.usage.shelf
        if shelf is None:
            return messages
        shelf.remember([message for message in messages if message.lsn])
        husks = [message.husk() if message.lsn else message for message in messages]
        self.away_bytes += sum(husk.size for husk in husks if husk.away)
        return husks

    def _whole(self, message: Message) -> Message:
        """The message with its content, if it was a husk."""
        if not message.away:
            return message
        self.away_bytes -= message.size
        return self._recalled(message)

    def _recalled(self, message: Message) -> Message:
        shelf = self._host.usage.shelf
        return shelf.recall(message) if message.away and shelf is not None else message

    # ---- what becomes of a message that was handed out

    def _let_out(self, messages: Sequence[Message]) -> None:
        """Consumers hold these no longer, and the queue neither."""
        size = sum([message.size for message in messages])
        self.unacked -= len(messages)
        self.unacked_bytes -= size
        self.bytes -= size

    def acknowledge(self, messages: Sequence[Message], *, in_transaction: bool = False) -> None:
        """Consumers are done with these messages."""
        self._acknowledged(messages, Reason.COMMITTED if in_transaction else Reason.ACKNOWLEDGED)
        self.mark()

    def take_acknowledged(self) -> None:
        """Do now what `acknowledge_soon` has put off."""
        if self.acknowledged:
            acknowledged, self.acknowledged = self.acknowledged, []
            self._acknowledged(acknowledged, Reason.ACKNOWLEDGED)

    def _acknowledged(self, messages: Sequence[Message], reason: Reason) -> None:
        self._let_out(messages)
        if self.away_bytes:
            self.forget_away(messages)
        if self.durable:
            self.record_removed(messages, reason)

    def acknowledge_soon(self, messages: Sequence[Message]) -> None:
        """A consumer is done with these messages: `acknowledge`, for all of a batch of input at once."""
        if self.deleted:
            return
        self.acknowledged += messages
        if not self.dirty:
            self.mark()

    def keep_waiting(self, message: Message) -> None:
        """A dead letter has to wait: it counts as unacked, and for the limits as ready."""
        self.waiting += 1
        self.waiting_bytes += message.size
        self.unacked += 1
        self.unacked_bytes += message.size
        self.bytes += message.size
        self.mark()

    def waited(self, message: Message) -> None:
        """It waits no more."""
        self.waiting -= 1
        self.waiting_bytes -= message.size
        self._let_out([message])
        self.mark()

    def reject(self, messages: Sequence[Message], now: int) -> None:
        """A consumer wants these neither done nor back: dead-letter them."""
        if self.deleted:
            return
        self._let_out(messages)
        self.mark()
        self._bury(messages, REJECTED, now)

    def requeue(
        self, lane: Lane, position: int, messages: Sequence[Message | None], returns: int, now: int, step: int = 1
    ) -> None:
        """Put messages back to their old places; over the queue's delivery limit they are dead-lettered instead.

        The places are `position`, `position + step` and so on; None is in that of a message that is settled already.
        `returns` is how often they have come back by now, this time included. The count shows in the header
        x-delivery-count in quorum queues, and where the queue has a limit.
        """
        if self.deleted:
            return
        limit, told = self.options.delivery_limit, self.options.counted
        if limit is not None and returns > limit:
            held = [message for message in messages if message is not None]
            self._let_out(held)
            self.mark()
            self._bury(held, DELIVERY_LIMIT, now)
            return
        for place, message in zip(range(position, position + step * len(messages), step), messages, strict=True):
            if message is None:
                continue
            self.unacked -= 1
            self.unacked_bytes -= message.size
            if told:
                message = counted(self._whole(message), returns)
            if message.lsn and self.durable:
                self._record_returned(message, returns)
            lane.give_back(place, message, returns)
            self.ready += 1
        self._relevel(lane)
        self.mark()

    # ---- limits

    def _expire(self, before: int, now: int) -> bool:
        """Expire what has a deadline earlier than `before`; True when there is more than one sweep's worth."""
        expired: list[Message] = []
        left, buried = SWEEP_MESSAGES, self.options.dead_letter_exchange is not None
        for lane in self.lanes.values():
            while left > 0 and (message := lane.take_expired(before, whole=buried)) is not None:
                expired.append(message)
                left -= BURIED_COST if buried else PAGED_COST if lane.pages else 1
        self._drop(expired, EXPIRED, now)
        return left <= 0

    def _drop_head(self, now: int) -> bool:
        options = self.options
        most = options.max_length if options.max_length is not None else self.ready
        most_bytes = options.max_length_bytes if options.max_length_bytes is not None else self.ready_bytes
        at_once = SWEEP_MESSAGES if options.dead_letter_exchange is None else SWEEP_MESSAGES // BURIED_COST
        dropped: list[Message] = []
        ready, ready_bytes = self.ready, self.ready_bytes
        while len(dropped) < at_once and (ready > most or ready_bytes > most_bytes):
            message = self._top().take()[1]
            dropped.append(message)
            ready -= 1
            ready_bytes -= message.size
        self._drop(dropped, MAXLEN, now)
        return len(dropped) == at_once

    def _drop(self, messages: list[Message], reason: Reason, now: int) -> None:
        """These were ready, and are taken."""
        self.ready -= len(messages)
        self.bytes -= sum([message.size for message in messages])
        self._bury(messages, reason, now)
