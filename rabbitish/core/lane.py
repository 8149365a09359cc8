"""A first-in-first-out line of messages in which each has a position, and may return to it.

A queue is one lane, or with priorities one a level. Positions count up from 0 as messages come in and are implied by
the order of `fresh`, so that a message that was never handed out costs no more than its place in a deque. What comes
back (nack, a lost consumer) waits in `back` by its old position, which is before everything fresh. A message that
leaves from the middle (its time was up) leaves a hole. The lane knows neither consumers nor limits.

Expiry: as long as deadlines come in order, only the first message need be looked at; those that come out of order
(mixed TTLs, returned messages) are also in the heap `late`, whose entries may outlive their message and are then
skipped.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator

from rabbitish.core.message import Message

_NEVER = 1 << 62  # a deadline for messages that have none, later than all others


class Lane:
    """Messages in order of their positions, with holes and returns."""

    __slots__ = ("_back", "_highest", "_holes", "_late", "_late_messages", "_order", "expiring", "fresh", "head")

    def __init__(self) -> None:
        self.fresh: deque[Message] = deque()
        self.head = 0  # position of fresh[0]
        self.expiring = False  # whether any message here has, or may have, a deadline
        self._back: dict[int, tuple[Message, int]] = {}
        self._order: list[int] = []  # heap of the positions in _back; may hold some that are there no more
        self._holes: set[int] = set()
        self._late: list[tuple[int, int]] = []  # heap of deadlines and positions
        # by position, one for each entry of _late; None when it was taken
        self._late_messages: dict[int, Message | None] = {}
        self._highest = -1  # the latest deadline among the fresh ones that came in order

    def __len__(self) -> int:
        return len(self.fresh) + len(self._back) - len(self._holes)

    @property
    def plain(self) -> bool:
        """Nothing returned and no holes: `take_fresh` may be used."""
        return not self._back and not self._holes

    def append(self, message: Message) -> None:
        """Put a message at the end; `fresh.append` does the same for one without a deadline while not `expiring`."""
        if message.deadline is not None or self.expiring:
            self._note_deadline(_NEVER if message.deadline is None else message.deadline, message)
        self.fresh.append(message)

    def _note_deadline(self, deadline: int, message: Message) -> None:
        if not self.fresh:
            self._highest = -1
        elif not self.expiring:
            self._highest = _NEVER  # those before it have no deadline
        self.expiring = True
        if deadline >= self._highest:
            self._highest = deadline
        else:
            self._add_late(deadline, self.head + len(self.fresh), message)

    def _add_late(self, deadline: int, position: int, message: Message) -> None:
        messages = self._late_messages
        if position not in messages:  # else it was here before, and its deadline is the same
            if len(self._late) > 2 * len(self) + 64:
                self._tidy_late()
            heapq.heappush(self._late, (deadline, position))
        self._late_messages[position] = message

    def _tidy_late(self) -> None:
        messages = self._late_messages
        self._late = [late for late in self._late if self._holds(late[1])]
        heapq.heapify(self._late)
        self._late_messages = {position: messages[position] for _, position in self._late}

    def _holds(self, position: int) -> bool:
        if position < self.head:
            return position in self._back
        return position < self.head + len(self.fresh) and position not in self._holes

    def take_fresh(self, most: int) -> tuple[int, list[Message]]:
        """Take up to `most` messages from the front of a `plain` lane: the first one's position, and the messages."""
        fresh, first = self.fresh, self.head
        if most >= len(fresh):
            taken = list(fresh)
            fresh.clear()
        else:
            popleft = fresh.popleft
            taken = [popleft() for _ in range(most)]
        self.head = first + len(taken)
        if self._late:
            self._let_go(range(first, self.head))
        return first, taken

    def _let_go(self, positions: Iterable[int]) -> None:
        """Keep no message alive that was taken, though its entry in _late outlives it."""
        messages = self._late_messages
        for position in positions:
            if position in messages:
                messages[position] = None

    def take(self) -> tuple[int, Message, int]:
        """Take the first message: its position, the message, how often it came back. Raises IndexError when empty."""
        while self._order:
            position = heapq.heappop(self._order)
            returned = self._back.pop(position, None)
            if returned is not None:
                self._let_go((position,))
                return position, *returned
        while True:
            message = self.fresh.popleft()
            position = self.head
            self.head += 1
            if position not in self._holes:
                self._let_go((position,))
                return position, message, 0
            self._holes.discard(position)

    def give_back(self, position: int, message: Message, returns: int) -> None:
        """Put a message that was taken back to its old place; `returns` is how often it has come back by now."""
        assert position < self.head and position not in self._back
        self._back[position] = (message, returns)
        heapq.heappush(self._order, position)
        if message.deadline is not None:
            if not self.expiring:
                self.expiring = True
                self._highest = _NEVER  # those in fresh have no deadline
            self._add_late(message.deadline, position, message)

    def restore(self, message: Message, returns: int) -> None:
        """Append a message that was here before a restart and had come back so often; before any `append`."""
        assert not self.fresh
        self.head += 1
        self.give_back(self.head - 1, message, returns)

    def next_deadline(self) -> int | None:
        """The earliest moment at which a message here may expire, or None."""
        if not self.expiring:
            return None
        late = self._late
        while late and not self._holds(late[0][1]):
            del self._late_messages[heapq.heappop(late)[1]]
        first = self._first_fresh()
        deadline = first.deadline if first is not None else None
        if late and (deadline is None or late[0][0] < deadline):
            deadline = late[0][0]
        if deadline is None and not self.fresh and not self._back:
            self.expiring = False
        return deadline

    def _first_fresh(self) -> Message | None:
        fresh, holes = self.fresh, self._holes
        while fresh and self.head in holes:
            holes.discard(self.head)
            fresh.popleft()
            self.head += 1
        return fresh[0] if fresh else None

    def take_expired(self, before: int) -> Message | None:
        """Take one message whose deadline is earlier than `before`, or return None; call it until it does.

        They come in order of their deadlines, those of the same one in order of positions.
        """
        deadline = self.next_deadline()
        if deadline is None or deadline >= before:
            return None
        first, late = self._first_fresh(), self._late
        if first is not None and first.deadline == deadline and not (late and late[0] < (deadline, self.head)):
            self.fresh.popleft()
            self.head += 1
            return first
        position = heapq.heappop(late)[1]
        message = self._late_messages.pop(position)
        assert message is not None
        if position < self.head:
            self._drop_back(position)
        else:
            self._holes.add(position)
            if len(self._holes) > 64 + len(self.fresh) // 2:
                self._fill_holes()
        return message

    def _drop_back(self, position: int) -> None:
        del self._back[position]
        if len(self._order) > 64 + 2 * len(self._back):
            self._order = sorted(self._back)

    def _fill_holes(self) -> None:
        """Free what holes hold on to behind a first message that stays: what lies between them moves to `_back`."""
        while self._holes:
            message, position = self.fresh.popleft(), self.head
            self.head += 1
            if position in self._holes:
                self._holes.discard(position)
                continue
            self._back[position] = (message, 0)
            heapq.heappush(self._order, position)
            if message.deadline is not None:
                self._add_late(message.deadline, position, message)

    def clear(self) -> list[Message]:
        """Take everything."""
        taken = list(self)
        self.head += len(self.fresh)
        self.fresh.clear()
        self._back.clear()
        self._order.clear()
        self._holes.clear()
        self._late.clear()
        self._late_messages.clear()
        self.expiring = False
        return taken

    def __iter__(self) -> Iterator[Message]:
        """The messages in order, without taking them."""
        for position in sorted(self._back):
            yield self._back[position][0]
        for offset, message in enumerate(self.fresh):
            if self.head + offset not in self._holes:
                yield message

    def check(self) -> None:
        """Assert what must always hold."""
        end = self.head + len(self.fresh)
        assert all(position < self.head for position in self._back)
        assert all(self.head <= position < end for position in self._holes)
        assert self._back.keys() <= set(self._order)
        assert sorted(position for _, position in self._late) == sorted(self._late_messages)
        if not self.expiring:
            assert all(message.deadline is None for message in self)
