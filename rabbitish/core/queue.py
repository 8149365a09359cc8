"""A queue: messages in, messages to consumers, in order, under its limits. A deterministic function of its calls.

Handlers change state and mark the queue dirty; `settle` alone matches messages with consumers, once for everything that
came in one batch of input, and applies what depends on the outcome (a TTL of 0, max-length). Between the two the queue
may be over its limits; nobody sees that, since whoever asks for counts or messages settles first.

What leaves without being consumed goes through `Host.bury` (dead letters) with its reason. The queue never routes, and
never knows connections: exclusive ownership and deletion are the virtual host's (vhost.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from rabbitish.core.arguments import QueueOptions
from rabbitish.core.changes import Reason
from rabbitish.core.consumer import Consumer, Consumers
from rabbitish.core.holdings import counted
from rabbitish.core.host import Host
from rabbitish.core.lane import FREED_AT_ONCE, Lane
from rabbitish.core.leaving import BURIED_COST, DELIVERY_LIMIT, MAXLEN, SWEEP_MESSAGES, Leaving
from rabbitish.core.message import Message
from rabbitish.core.policing import UNGOVERNED, Governing, governed
from rabbitish.values import Table

# At most so many messages, and about so many bytes, go to a consumer before it is asked for its room again, which
# depends on their sizes.
HANDFUL_MESSAGES = 128
HANDFUL_BYTES = 1024 * 1024
# A queue is long that has more messages ready than this; consumers are at work that took some so lately.
_LONG = 1_000
_AT_WORK_MS = 10


class Queue(Leaving):
    """What it holds, consumers with their turns, and limits."""

    __slots__ = (
        "_accounted",
        "_dirty",
        "_handed_out_at",
        "_limited",
        "_special",
        "arguments",
        "auto_delete",
        "consumers",
        "crowded",
        "due_at",
        "durable",
        "exclusive",
        "governing",
        "had_consumer",
        "last_used",
        "name",
        "owner",
    )

    def __init__(
        self,
        name: str,
        host: Host,
        options: QueueOptions,
        arguments: Table,
        *,
        durable: bool,
        auto_delete: bool,
        owner: object | None,
        now: int,
    ) -> None:
        super().__init__()
        # declared
        self.name = name
        self.arguments = arguments
        self.durable = durable
        self.auto_delete = auto_delete
        self.exclusive = owner is not None
        # in memory only
        self.owner = owner  # the connection of an exclusive queue
        self.consumers = Consumers(single_active=options.single_active_consumer)
        self.had_consumer = False
        self.deleted = False
        self.dirty = False
        self.waiting = self.waiting_bytes = 0
        self.acknowledged: list[Message] = []
        self.due_at: int | None = None
        self.last_used = now
        self._handed_out_at = now
        self.crowded = False  # so much is unacknowledged that of more only husks should stay in memory
        self._accounted = 0
        self._host = host
        self._dirty = host.dirty
        self.declared = options
        self.governing = UNGOVERNED
        self._apply(options)

    def _apply(self, options: QueueOptions) -> None:
        self.options = options
        self._limited = options.max_length is not None or options.max_length_bytes is not None
        self._special = bool(options.message_ttl_ms is not None or options.max_priority or self.may_refuse)
        self.mark()

    def govern(self, governing: Governing, now: int) -> None:
        """These policies hold from now on, beside what the queue was declared with.

        Messages that are here keep their deadlines. Those that came back too often already do not get another turn.
        """
        before, options = self.options, governed(self.declared, governing.definition)
        self.governing = governing
        self._apply(options)
        self.touch(now)
        if options.consumer_timeout_ms != before.consumer_timeout_ms:
            for consumer in self.consumers:
                consumer.options_changed(now)
        if options.delivery_limit is not None and (
            before.delivery_limit is None or options.delivery_limit < before.delivery_limit
        ):
            self._host.chores.add(self.bury_returned(now))

    def mark(self) -> None:
        """Have the queue settled at the end of this batch of input."""
        if not self.dirty and not self.deleted:
            self.dirty = True
            self._dirty.append(self)

    def fit_window(self) -> None:
        """There is less room in memory than there was."""
        self._put_away_at = 0
        self.mark()

    # ---- in

    def outpaced(self, now: int) -> bool:
        """Whether more comes in than its consumers take, though they are at work."""
        return self.ready > _LONG and now - self._handed_out_at <= _AT_WORK_MS and len(self.consumers) > 0

    def enqueue(self, message: Message, now: int) -> bool:
        """Put a message at the end; False when the queue is full and its overflow mode refuses publishes."""
        lane = self._lane
        if self._special or lane.expiring or message.stamp.expiration_ms is not None:
            return self._enqueue_special(message, now)
        lane.last.append(message)
        self.ready += 1
        self.bytes += message.size
        if not self.dirty:
            self.dirty = True
            self._dirty.append(self)
        return True

    def enqueue_alike(self, messages: list[Message], size: int, now: int) -> None:
        """See Target; for a queue that refuses none (see `may_refuse`)."""
        lane = self._lane
        if self._special or lane.expiring or messages[0].stamp.expiration_ms is not None:
            for message in messages:
                self._enqueue_special(message, now)
            return
        lane.last.extend(messages)
        self.ready += len(messages)
        self.bytes += size
        if not self.dirty:
            self.dirty = True
            self._dirty.append(self)

    @property
    def holds(self) -> bool:
        """A queue keeps messages."""
        return True

    @property
    def may_refuse(self) -> bool:
        """Whether `enqueue` may say no."""
        return not self.options.drops_head and self._limited

    def _enqueue_special(self, message: Message, now: int) -> bool:
        if self.deleted:
            return True  # routed to before it went, as in a transaction
        options = self.options
        if self.may_refuse and self._would_overflow(message):
            self.settle(now)  # what consumers can take makes room
            if self._would_overflow(message):
                if options.overflow == "reject-publish-dlx":
                    self._bury([message], MAXLEN, now)
                else:
                    self.record_removed([message], Reason.REFUSED)
                return False
        deadline = self.deadline_of(message.stamp, now)
        if deadline is not None:
            message = message.twin()  # which has a deadline of its own in this queue
            message.deadline = deadline
        self.lane_of(message.stamp).append(message)
        self.ready += 1
        self.bytes += message.size
        self.mark()
        return True

    def _would_overflow(self, message: Message) -> bool:
        options = self.options
        return (options.max_length is not None and self.ready + self.waiting + 1 > options.max_length) or (
            options.max_length_bytes is not None
            and self.ready_bytes + self.waiting_bytes + message.size > options.max_length_bytes
        )

    def restore(self, message: Message, now: int, returns: int) -> None:
        """See Holdings. What has come back too often by now is here until `bury_returned`."""
        limit = self.options.delivery_limit
        if self.options.counted and (told := returns if limit is None else min(returns, limit)):
            message = counted(self._recalled(message), told)
        super().restore(message, now, returns)

    def bury_returned(self, now: int) -> Iterator[None]:
        """What has come back more often than it may is dead-lettered, as `requeue` does it; a piece at each step.

        That may be so after a restart, and when a policy brings another limit.
        """
        limit = self.options.delivery_limit
        if limit is not None:
            for lane in list(self.lanes.values()):
                returned = lane.take_returned(limit)
                while piece := list(islice(returned, SWEEP_MESSAGES // BURIED_COST)):
                    self._drop(piece, DELIVERY_LIMIT, now)
                    self.mark()
                    yield
                    if self.deleted or self.options.delivery_limit != limit:
                        return

    def _restored(self, count: int, size: int) -> None:
        super()._restored(count, size)
        self.mark()

    # ---- out

    def settle(self, now: int, budget: int = HANDFUL_MESSAGES) -> bool:
        """Hand out what can be handed out, up to about `budget` messages; True when work is left for another call.

        A message whose time is up is not delivered, but one with a TTL of 0 that a consumer waits for still is.
        """
        if self.acknowledged:
            self.take_acknowledged()
        expiring = self._may_expire
        more = self._expire(now, now) if expiring else False
        if not more and (ready := self.ready) and self.consumers.turns:
            more = self._hand_out(budget)
            if self.ready != ready:
                self._handed_out_at = now
            while more and self._is_due(now):  # the next call would be too late
                more = self._hand_out(HANDFUL_MESSAGES)
        if expiring and self._may_expire:
            more |= self._expire(now + 1, now)
            self._ask_for_expiry()
        if self._limited and not more and self.options.drops_head:
            more = self._drop_head(now)
        usage = self._host.usage
        cost = self._memory_cost()
        if cost > usage.window_bytes and usage.shelf is not None:
            cost, more_to_put = self._put_away(usage.shelf, usage.window_bytes, cost)
            more |= more_to_put
        elif self._put_away_at:
            self._put_away_at = 0
        self.crowded = self.durable and self.unacked_bytes > usage.window_bytes and usage.shelf is not None
        usage.bytes += cost - self._accounted
        self._accounted = cost
        return more

    def _hand_out(self, budget: int) -> bool:
        consumers = self.consumers
        while self.ready:
            turn = consumers.next()
            if turn is None:
                return False
            if budget <= 0:
                return True
            consumer, room = turn
            most = min(budget, self._handful())
            if consumers.alone():
                budget -= self._hand_to(consumer, min(room, most))
            elif dealt := self._deal(most):
                budget -= dealt
            else:
                budget -= self._hand_to(consumer, 1)
                consumers.rotate()
        return False

    def _deal(self, most: int) -> int:
        """Deal messages out in turns, as many to each as the one with the least room can take: to each a share at once.

        How many; 0: they must go one by one.
        """
        lane = self._top()
        ready = min(most, len(lane.fresh))
        if ready < 2 or not lane.plain:
            return 0
        takers = self.consumers.round()
        each = min(min(room for _, room in takers), ready // len(takers)) if takers else 0
        if not each:
            return 0
        step = len(takers)
        first, messages, returns = self._take_run(lane, each * step)
        asked_again = self.ready > len(messages)  # who has room
        full: list[Consumer] = []
        held: list[Message] = []
        for place, (consumer, room) in enumerate(takers):
            share = messages[place::step]
            if consumer.no_ack:
                self._give(consumer, lane, first + place, share, returns, step)
            else:
                self.unacked_bytes += consumer.deliver(lane, first + place, share, returns, step)
                held += share
                if room == each:
                    full.append(consumer)
        if asked_again:
            self.consumers.set_aside_all(full)
        self._book_held(held)
        return len(messages)

    def _handful(self) -> int:
        size = self.bytes - self.unacked_bytes
        if size <= HANDFUL_BYTES:
            return HANDFUL_MESSAGES
        return min(HANDFUL_MESSAGES, max(1, HANDFUL_BYTES * self.ready // size))

    def _hand_to(self, consumer: Consumer, most: int) -> int:
        lane = self._lane if self._levels == 1 else self._top()
        first, messages, returns = self._take_run(lane, most)
        self._give(consumer, lane, first, messages, returns)
        return len(messages)

    def _take_run(self, lane: Lane, most: int) -> tuple[int, list[Message], int]:
        """See Lane.take_run; none of them is a husk."""
        first, messages, returns = lane.take_run(most)
        if self.away_bytes:
            messages = [self._whole(message) for message in messages]
        return first, messages, returns

    def _give(
        self, consumer: Consumer, lane: Lane, first: int, messages: list[Message], returns: int, step: int = 1
    ) -> None:
        """Deliver what was taken, and book it. See Consumer.deliver."""
        size = consumer.deliver(lane, first, messages, returns, step)
        if consumer.no_ack:
            self.ready -= len(messages)
            self.bytes -= size
            self.record_removed(messages, Reason.TAKEN)
        else:
            self.unacked_bytes += size
            self._book_held(messages)

    def _book_held(self, messages: list[Message]) -> None:
        """These are with consumers that will say what becomes of them."""
        count = len(messages)
        self.ready -= count
        self.unacked += count
        if count and self.durable:
            self._record_delivered(messages)

    def take(self, now: int, *, no_ack: bool) -> tuple[Lane, int, Message, int] | None:
        """One message for basic.get: its lane, position, the message and how often it came back; None when empty."""
        self.last_used = now
        self.settle(now)
        while self._may_expire and self._expire(now + 1, now):
            pass  # more than one sweep's worth was overdue
        if not self.ready:
            return None
        lane = self._top()
        position, message, returns = lane.take()
        message = self._whole(message)
        self.ready -= 1
        if self.options.quorum and not returns:
            message = counted(message, 0)  # so do RabbitMQ's, to basic.get alone
        if no_ack:
            self.bytes -= message.size
            self.record_removed([message], Reason.TAKEN)
        else:
            self.unacked += 1
            self.unacked_bytes += message.size
            self._record_delivered([message])
        self.mark()
        return lane, position, message, returns

    # ---- what is told of what has left

    def record_removed(self, messages: Sequence[Message], reason: Reason) -> None:
        """Have it recorded that messages have left, where that must survive."""
        recorder = self._host.recorder
        if recorder is not None and self.durable and not self.deleted:
            numbered = [message for message in messages if message.lsn]
            if numbered:
                recorder.removed(self, numbered, reason)

    def _record_delivered(self, messages: Sequence[Message]) -> None:
        recorder = self._host.recorder
        if recorder is not None and self.durable:
            numbered = [message for message in messages if message.lsn]
            if numbered:
                recorder.delivered(self, numbered)

    def _record_returned(self, message: Message, returns: int) -> None:
        if self._host.recorder is not None:
            self._host.recorder.returned(self, message, returns)

    def _bury(self, messages: Sequence[Message], reason: Reason, now: int) -> None:
        if self.options.dead_letter_exchange is not None:
            for message in messages:
                self._host.bury(self, self._whole(message), reason, now)
        elif messages:
            self.forget_away(messages)
            self.record_removed(messages, reason)

    # ---- time

    def _ask_for_expiry(self) -> None:
        for lane in self.lanes.values():
            deadline = lane.next_deadline()
            if deadline is not None:
                self._host.deadlines.ask(self, deadline)

    def touch(self, now: int) -> None:
        """The queue was used: declared, passively too, or asked for a message. Its x-expires starts anew."""
        self.last_used = now
        if self.options.expires_ms is not None and not len(self.consumers):
            self._host.deadlines.ask(self, now + self.options.expires_ms)

    def due(self, now: int) -> None:
        """A deadline came: expire messages, or the queue itself when it has been idle for its x-expires."""
        expires = self.options.expires_ms
        if expires is not None and not len(self.consumers):
            if now >= self.last_used + expires:
                self._host.idle(self)
                return
            self._host.deadlines.ask(self, self.last_used + expires)
        self.mark()

    # ---- consumers

    def add_consumer(self, consumer: Consumer) -> None:
        """Register a consumer; exclusive use is checked by the virtual host."""
        self.consumers.add(consumer)
        self.had_consumer = True
        self.mark()

    def remove_consumer(self, consumer: Consumer, now: int) -> None:
        """Take a consumer out; what it has unacked stays with its channel."""
        self.consumers.remove(consumer)
        self.touch(now)
        self.mark()

    def wake(self, consumer: Consumer) -> None:
        """A consumer that had no room has some again."""
        if self.consumers.ready(consumer) and self.ready:
            self.mark()

    # ---- the whole

    def purge(self) -> int:
        """Drop what is ready, without dead-lettering; how many that were."""
        dropped = self.ready
        recorder = self._host.recorder if self.durable and not self.deleted else None
        for lane in self.lanes.values():
            rest = lane.empty()
            self.forget_away([message for message, _ in rest.returned()])
            if recorder is not None:
                self.record_removed(rest.in_memory(), Reason.PURGED)
                if rest.pages:
                    recorder.pages_removed(self, [page for page in rest.pages if page.ranges], Reason.PURGED)
            for page in rest.pages:
                page.let_go()
            if len(rest.fresh) + len(rest.last) > FREED_AT_ONCE:
                self._host.chores.add(rest.free())
        self.ready = 0
        self.bytes = self.unacked_bytes
        self.mark()
        return dropped

    def close(self) -> int:
        """The queue is deleted: drop everything; how many messages were ready."""
        self.deleted = self._special = True
        dropped = self.purge()
        self._host.deadlines.forget(self)
        self._host.usage.bytes -= self._accounted
        self.crowded = False
        self._accounted = 0
        return dropped

    def check(self) -> None:
        """Assert what must always hold."""
        super().check()
        self.consumers.check()
