"""What a queue holds: its messages by priority and position, in memory or put away, and the counts of them.

A level of priority is one lane; most queues have one. `Queue` adds to this who gets messages, when and within which
limits; here nobody asks for a consumer or a limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rabbitish.core.arguments import QueueOptions
from rabbitish.core.lane import Lane
from rabbitish.core.message import Message, Stamp
from rabbitish.core.paging import PAGE_OVERHEAD_BYTES, Page, Shelf
from rabbitish.values import Int64

# What a queued message costs beside its body, for memory accounting: its objects, content framing and places in deques.
MESSAGE_OVERHEAD_BYTES = 400


def counted(message: Message, returns: int) -> Message:
    """The message with the header that tells a consumer how often it came back."""
    headers = {**message.headers(), "x-delivery-count": Int64(returns)}
    told = message.derived(message.address, headers, keep_expiration=True)
    told.deadline = message.deadline
    told.lsn = message.lsn
    return told


def _deadline(ttl: int | None, stamp: Stamp, now: int) -> int | None:
    expiration = stamp.expiration_ms
    if ttl is None:
        return None if expiration is None else now + expiration
    return now + (ttl if expiration is None else min(ttl, expiration))


class Holdings:
    """Messages by priority and position."""

    __slots__ = (
        "_lane",
        "_levels",
        "_paged",
        "_put_away_at",
        "away_bytes",
        "bytes",
        "declared",
        "lanes",
        "options",
        "ready",
        "ttls",
        "unacked",
        "unacked_bytes",
    )

    declared: QueueOptions
    """What it was declared with."""
    options: QueueOptions
    """What holds, policies included."""
    durable: bool

    def __init__(self) -> None:
        self.lanes: dict[int, Lane] = {0: Lane()}
        self._lane = self.lanes[0]
        self._levels = 1  # a bit a priority level that may hold messages
        self.ready = 0
        self.unacked = 0
        self.bytes = 0  # bodies, ready and unacked
        self.unacked_bytes = 0
        self.away_bytes = 0  # of these, bodies of husks
        self._paged = False  # whether anything may be put away
        self._put_away_at = 0  # bytes in memory at which that is worth trying again
        # From which number on messages were given another TTL than `declared` says, and which; see `note_ttl`.
        self.ttls: tuple[tuple[int, int | None], ...] = ()

    @property
    def ready_bytes(self) -> int:
        """Bytes of the bodies that are ready."""
        return self.bytes - self.unacked_bytes

    def lane_of(self, stamp: Stamp) -> Lane:
        """The lane that such messages belong to, which is taken to hold something from now on."""
        most = self.options.max_priority
        return self.lane_at(min(stamp.traits.priority, most) if most else 0)

    def lane_at(self, level: int) -> Lane:
        """The lane of a level of priority, which is taken to hold something from now on."""
        lane = self.lanes.get(level)
        if lane is None:
            lane = self.lanes[level] = Lane()
        self._levels |= 1 << level
        return lane

    def _top(self) -> Lane:
        """The lane of the highest priority that holds messages, or an empty one."""
        if self._levels == 1:
            return self._lane
        while True:
            level = self._levels.bit_length() - 1
            lane = self.lanes[level]
            if level == 0 or len(lane):
                return lane
            self._levels &= ~(1 << level)

    def _relevel(self, lane: Lane) -> None:
        if self.options.max_priority:
            level = next(level for level, known in self.lanes.items() if known is lane)
            self._levels |= 1 << level

    def deadline_of(self, stamp: Stamp, now: int) -> int | None:
        """When a message that comes in at `now` expires here."""
        return _deadline(self.options.message_ttl_ms, stamp, now)

    def deadline_then(self, stamp: Stamp, published: int, lsn: int) -> int | None:
        """When a message expires here that came in at that time, with that number; what held then counts."""
        ttl = self.declared.message_ttl_ms
        for since, other in self.ttls:
            if lsn <= since:
                break
            ttl = other
        return _deadline(ttl, stamp, published)

    def note_ttl(self, position: int, oldest: int) -> bool:
        """Remember that messages with higher numbers than `position` are given the TTL that holds now.

        Those with lower numbers than `oldest` are not there any more. False: that is known.
        """
        ttl, known = self.options.message_ttl_ms, self.ttls
        if ttl == (known[-1][1] if known else self.declared.message_ttl_ms):
            return False
        ends = [*[since for since, _ in known[1:]], position]  # with which number what was known ended
        kept = tuple(entry for entry, end in zip(known, ends, strict=False) if end >= oldest)
        self.ttls = (*kept, (position, ttl))
        return True

    @property
    def _may_expire(self) -> bool:
        return self._lane.expiring or (len(self.lanes) > 1 and any(lane.expiring for lane in self.lanes.values()))

    def _is_due(self, now: int) -> bool:
        deadlines = [lane.next_deadline() for lane in self.lanes.values() if lane.expiring]
        return any(deadline is not None and deadline <= now for deadline in deadlines)

    # ---- leaving

    def forget_away(self, messages: Sequence[Message]) -> None:
        """Messages are gone, some of which may have been husks."""
        if self.away_bytes:
            self.away_bytes -= sum(message.size for message in messages if message.away)

    # ---- memory

    def messages_in_memory(self) -> int:
        """How many messages are objects here, ready or not."""
        count = self.ready + self.unacked
        return count - sum(lane.pages.messages for lane in self.lanes.values()) if self._paged else count

    def _memory_cost(self) -> int:
        """What the messages that are in memory cost, about."""
        count, size = self.ready + self.unacked, self.bytes - self.away_bytes
        pages = 0
        if self._paged:
            for lane in self.lanes.values():
                count -= lane.pages.messages
                size -= lane.pages.bytes
                pages += len(lane.pages)
            self._paged = pages > 0
        return size + count * MESSAGE_OVERHEAD_BYTES + pages * PAGE_OVERHEAD_BYTES

    def _put_away(self, shelf: Shelf, window_bytes: int, cost: int) -> tuple[int, bool]:
        """Bring what is in memory below `window_bytes` as far as can be at a stretch.

        What it costs afterwards, and whether another call would bring it further.
        """
        if cost < self._put_away_at:
            return cost, False
        average = max(
            1, cost // max(1, self.ready + self.unacked - sum(lane.pages.messages for lane in self.lanes.values()))
        )
        keep = window_bytes // 2 // average
        more = False
        for level in sorted(self.lanes):
            more |= self.lanes[level].put_away(shelf, keep, max(1, keep // 4), recorded=self.durable)
        self._paged = True
        cost = self._memory_cost()
        self._put_away_at = 0 if more else max(window_bytes, cost + window_bytes // 8)
        return cost, more and cost > window_bytes

    # ---- a restart

    def restore(self, message: Message, now: int, returns: int) -> None:
        """Put a message back that was handed out before a restart: enqueued at `now`, come back so often.

        Oldest first, and before any page of its lane.
        """
        message.deadline = self.deadline_then(message.stamp, now, message.lsn)
        self.lane_of(message.stamp).restore(message, returns)
        if message.away:
            self.away_bytes += message.size
        self._restored(1, message.size)

    def restore_page(self, lane: Lane, page: Page) -> None:
        """Put a page of messages of one lane back that were here before a restart."""
        count, size = page.count, page.bytes
        lane.restore_page(page)
        self._paged = True
        self._restored(count, size)

    def _restored(self, count: int, size: int) -> None:
        self.ready += count
        self.bytes += size

    # ---- the whole

    def __iter__(self) -> Iterator[Message]:
        """The ready messages in the order in which they would be delivered."""
        for level in sorted(self.lanes, reverse=True):
            yield from self.lanes[level]

    def check(self) -> None:
        """Assert what must always hold."""
        for lane in self.lanes.values():
            lane.check()
        assert self.ready == sum(len(lane) for lane in self.lanes.values())
        assert self.ready_bytes == sum(message.size for message in self)
        assert self.unacked >= 0 and self.unacked_bytes >= 0 and 0 <= self.away_bytes <= self.bytes
        assert all(self._levels >> level & 1 for level, lane in self.lanes.items() if len(lane))
