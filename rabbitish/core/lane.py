"""A first-in-first-out line of messages in which each has a position, and may return to it.

A queue is one lane, or with priorities one a level. Positions count up from 0 as messages come in and are implied by
the order of `fresh`, so that a message that was never handed out costs no more than its place in a deque. What comes
back (nack, a lost consumer) waits in `back` by its old position, which is before everything fresh. A message that
leaves from the middle (its time was up) leaves a hole. The lane knows neither consumers nor limits.

Of a long lane the middle may be put away (paging.py): then `fresh` holds what comes before the `pages`, `last` what
came after them; else both are the same deque. While anything is there that was never handed out, `fresh` is not empty.
A message in a page has no position, for those before it may leave the page; `last` begins at a position of its own.

Expiry: as long as deadlines come in order, only the first message need be looked at; those in memory that come out of
order (mixed TTLs, returned messages) are also in the heap `late`, whose entries may outlive their message and are then
skipped. Pages know when what is in them expires.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from rabbitish.core.message import Message
from rabbitish.core.paging import NEVER, PAGE_MESSAGES, Page, Pages, Shelf

# To let go of so many messages takes a few milliseconds.
FREED_AT_ONCE = 10_000
# So does putting so many away.
PUT_AWAY_AT_ONCE = 2 * PAGE_MESSAGES


_NONE = -(1 << 62)  # below all positions


class Lane:
    """Messages in order of their positions, with holes and returns."""

    __slots__ = (
        "_back",
        "_highest",
        "_holes",
        "_last_at",
        "_late",
        "_late_messages",
        "_order",
        "doubtful",
        "expiring",
        "fresh",
        "head",
        "last",
        "pages",
    )

    def __init__(self) -> None:
        self.fresh: deque[Message] = deque()
        self.pages = Pages()
        self.last = self.fresh
        self.head = 0  # position of fresh[0]
        self._last_at = 0  # with pages: position of last[0]
        self.doubtful = _NONE  # what has a lower position may have been handed out by a broker that is gone
        self.expiring = False  # whether any message here has, or may have, a deadline
        self._back: dict[int, tuple[Message, int]] = {}
        self._order: list[int] = []  # heap of the positions in _back; may hold some that are there no more
        self._holes: set[int] = set()
        self._late: list[tuple[int, int]] = []  # heap of deadlines and positions
        # by position, one for each entry of _late; None when it was taken
        self._late_messages: dict[int, Message | None] = {}
        self._highest = -1  # the latest deadline among the fresh ones that came in order

    def __len__(self) -> int:
        count = len(self.fresh) + len(self._back) - len(self._holes)
        return count + self.pages.messages + len(self.last) if self.pages else count

    def doubt(self) -> None:
        """Whatever is here may have been handed out by a broker that is gone, and could not tell of it."""
        self.doubtful = self._end

    @property
    def _end(self) -> int:
        """The position of the next message."""
        return self._last_at + len(self.last) if self.pages else self.head + len(self.fresh)

    @property
    def plain(self) -> bool:
        """Nothing returned and no holes: `take_fresh` may be used."""
        return not self._back and not self._holes

    def append(self, message: Message) -> None:
        """Put a message at the end; `last.append` does the same for one without a deadline while not `expiring`."""
        if message.deadline is not None or self.expiring:
            self._note_deadline(NEVER if message.deadline is None else message.deadline, message)
        self.last.append(message)

    def _note_deadline(self, deadline: int, message: Message) -> None:
        if not self.fresh:
            self._highest = -1
        elif not self.expiring:
            self._highest = NEVER  # those before it have no deadline
        self.expiring = True
        if deadline >= self._highest:
            self._highest = deadline
        else:
            self._add_late(deadline, self._end, message)

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
        return position < self._end and position not in self._holes

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
        if self.pages and not fresh:
            self._turn()
        return first, taken

    def _let_go(self, positions: Iterable[int]) -> None:
        """Keep no message alive that was taken, though its entry in _late outlives it."""
        messages = self._late_messages
        for position in positions:
            if position in messages:
                messages[position] = None

    def take_run(self, most: int) -> tuple[int, list[Message], int]:
        """Take up to `most` messages from the front that have consecutive positions and came back equally often.

        The first one's position, the messages, how often. IndexError: there is none.
        """
        if not self._back and not self._holes:  # it is plain
            if not self.fresh:
                raise IndexError("the lane is empty")
            return *self.take_fresh(most), 0
        first, message, returns = self.take()
        messages = [message]
        order, back = self._order, self._back
        while order and len(messages) < most:
            position = order[0]
            if position != first + len(messages) or position not in back or back[position][1] != returns:
                break
            messages.append(self.take()[1])
        return first, messages, returns

    def take(self) -> tuple[int, Message, int]:
        """Take the first message: its position, the message, how often it came back. Raises IndexError when empty."""
        while self._order:
            position = heapq.heappop(self._order)
            returned = self._back.pop(position, None)
            if returned is not None:
                self._let_go((position,))
                return position, *returned
        while True:
            position, message = self._pop()
            if position not in self._holes:
                self._let_go((position,))
                return position, message, 0
            self._holes.discard(position)

    def _pop(self) -> tuple[int, Message]:
        """The first fresh message, hole or not. IndexError: there is none."""
        message = self.fresh.popleft()
        self.head += 1
        if self.pages and not self.fresh:
            self._turn()
        return self.head - 1, message

    def give_back(self, position: int, message: Message, returns: int) -> None:
        """Put a message that was taken back to its old place; `returns` is how often it has come back by now."""
        assert position < self.head and position not in self._back
        self._back[position] = (message, returns)
        heapq.heappush(self._order, position)
        if message.deadline is not None:
            if not self.expiring:
                self.expiring = True
                self._highest = NEVER  # those in fresh have no deadline
            self._add_late(message.deadline, position, message)

    def restore(self, message: Message, returns: int) -> None:
        """Append a message that was here before a restart and had come back so often; before any other."""
        assert not self.fresh
        self.head += 1
        self.give_back(self.head - 1, message, returns)

    def take_returned(self, more_than: int) -> Iterator[Message]:
        """Take those that came back more often than so many times by now, in order, each when it is asked for."""
        for position in sorted(self._back):
            message, returns = self._back.get(position, (None, 0))
            if message is not None and returns > more_than:
                self._drop_back(position)
                self._let_go((position,))
                yield message

    def next_deadline(self) -> int | None:
        """The earliest moment at which a message here may expire, or None."""
        if not self.expiring:
            return None
        first = self._first_fresh()
        deadline = first.deadline if first is not None else None
        late = self._late
        while late and not self._holds(late[0][1]):
            del self._late_messages[heapq.heappop(late)[1]]
        if late and (deadline is None or late[0][0] < deadline):
            deadline = late[0][0]
        if self.pages and (paged := self.pages.next_deadline()) != NEVER and (deadline is None or paged < deadline):
            deadline = paged
        if deadline is None and not self.fresh and not self._back:
            self.expiring = False
        return deadline

    def _first_fresh(self) -> Message | None:
        while self.fresh and self.head in self._holes:
            position = self._pop()[0]  # which may put another set in the place of this one
            self._holes.discard(position)
        return self.fresh[0] if self.fresh else None

    def take_expired(self, before: int, *, whole: bool = True) -> Message | None:
        """Take one message whose deadline is earlier than `before`, or return None; call it until it does.

        They come in order of their deadlines, those of the same one in order of positions. Not `whole`: number and
        size of those that are in pages are enough.
        """
        deadline = self.next_deadline()
        if deadline is None or deadline >= before:
            return None
        first, late = self._first_fresh(), self._late
        if first is not None and first.deadline == deadline and not (late and late[0] < (deadline, self.head)):
            return self._pop()[1]
        in_pages = self.pages and self.pages.next_deadline() == deadline
        if in_pages and not (late and late[0] < (deadline, self._last_at)):
            return self._take_from_pages(whole=whole)
        position = heapq.heappop(late)[1]
        message = self._late_messages.pop(position)
        assert message is not None
        if position < self.head:
            self._drop_back(position)
        else:
            self._holes.add(position)
            in_memory = len(self.fresh) + (len(self.last) if self.pages else 0)
            if len(self._holes) > 64 + in_memory // 2:
                self._close_ranks()
        return message

    def _take_from_pages(self, *, whole: bool) -> Message:
        message = self.pages.take_earliest(whole=whole)
        if not self.pages:
            self._join()
        return message

    def _drop_back(self, position: int) -> None:
        del self._back[position]
        if len(self._order) > 64 + 2 * len(self._back):
            self._order = sorted(self._back)

    def _close_ranks(self) -> None:
        """Free what holes hold on to: what was never handed out moves up, and nobody else knows its positions yet."""
        holes, late = self._holes, self._late_messages
        before = late.keys() & self._back.keys()
        places = {position: position for position in before}
        parts = [(self.fresh, self.head), (self.last, self._last_at)]
        for part, first in parts if self.pages else parts[:1]:
            position = end = first
            for _ in range(len(part)):
                message = part.popleft()
                if position not in holes:
                    part.append(message)
                    if position in late:
                        places[position] = end
                    end += 1
                position += 1
        holes.clear()
        self._late = [(deadline, places[position]) for deadline, position in self._late if position in places]
        heapq.heapify(self._late)
        self._late_messages = {places[position]: message for position, message in late.items() if position in places}
        if self.pages and not self.fresh:
            self._turn()

    def empty(self) -> Lane:
        """Give everything up, which is in the lane that this returns, at its old places."""
        rest, end = Lane(), self._end
        for name in self.__slots__:
            mine = getattr(self, name)
            setattr(self, name, getattr(rest, name))
            setattr(rest, name, mine)
        self.head = end
        return rest

    def free(self) -> Iterator[None]:
        """Let go of everything in memory, a piece at each step. Nobody else may use the lane."""
        for messages in (self.fresh, self.last):
            while messages:
                for _ in range(min(len(messages), FREED_AT_ONCE)):
                    messages.pop()
                yield

    def __iter__(self) -> Iterator[Message]:
        """The messages in order, without taking them."""
        for message, _ in self.returned():
            yield message
        for kept in self.never_taken():
            if isinstance(kept, Page):
                yield from kept.load()
            else:
                yield kept

    def returned(self) -> Iterator[tuple[Message, int]]:
        """What came back, in order, and how often, without taking it."""
        for position in sorted(self._back):
            yield self._back[position]

    def never_taken(self) -> Iterator[Message | Page]:
        """What was never handed out, in order, without taking it; what is put away as pages."""
        yield from self._without_holes(self.fresh, self.head)
        if self.pages:
            yield from self.pages
            yield from self._without_holes(self.last, self._last_at)

    def in_memory(self) -> list[Message]:
        """The messages that are not put away, in order, without taking them."""
        messages = [message for message, _ in self.returned()]
        messages += self._without_holes(self.fresh, self.head)
        if self.pages:
            messages += self._without_holes(self.last, self._last_at)
        return messages

    def _without_holes(self, messages: Iterable[Message], first: int) -> Iterator[Message]:
        holes = self._holes
        if not holes:
            return iter(messages)
        return (message for position, message in enumerate(messages, first) if position not in holes)

    # ---- pages

    def put_away(self, shelf: Shelf, keep: int, at_once: int, *, recorded: bool) -> bool:
        """Have messages kept outside of memory, but for about the first `keep`, unless `at_once` would not be reached.

        True: there are more than can be at a stretch. `recorded`: see Shelf.
        """
        if self._holes:
            self._close_ranks()
        skip = 0 if self.pages else max(1, keep)
        if len(self.last) - skip < at_once:
            return False
        pages = shelf.put_away(islice(self.last, skip, skip + PUT_AWAY_AT_ONCE), recorded=recorded)
        count = sum(page.count for page in pages)
        if not count:
            return False
        first = (self._last_at if self.pages else self.head) + skip
        if self._late:
            self._forget_late(first, first + count)
        after = deque(islice(self.last, skip + count, None))
        if not self.pages:
            while len(self.fresh) > skip:
                self.fresh.pop()
        self.last = after
        self._last_at = first + count
        for page in pages:
            self.pages.add(page)
        return count == PUT_AWAY_AT_ONCE

    def _forget_late(self, first: int, end: int) -> None:
        """The messages at these positions are in pages."""
        messages = self._late_messages
        self._late = [late for late in self._late if not first <= late[1] < end]
        heapq.heapify(self._late)
        self._late_messages = {at: message for at, message in messages.items() if not first <= at < end}

    def restore_page(self, page: Page) -> None:
        """Append a page that was here before a restart; before any message but those of `restore`."""
        assert not self.pages or not self.last
        if self.expiring or page.earliest != NEVER:
            highest = -1 if not self.fresh else self._highest if self.expiring else NEVER
            self._highest = max(highest, page.latest)
            self.expiring = True
        if not self.pages:
            self.last = deque()
            self._last_at = self.head + len(self.fresh)
        self._last_at += page.count
        self.pages.add(page)
        if not self.fresh:
            self._turn()

    def _turn(self) -> None:
        """Everything before the first page was taken: read that."""
        messages = self.pages[0].load()
        ordered = self.pages[0].ordered
        page = self.pages.take_first()
        self.fresh.extend(messages)
        if not self.pages:
            self._join()
        if not ordered:
            highest = -1
            for position, message in enumerate(messages, self.head):
                deadline = NEVER if message.deadline is None else message.deadline
                if deadline >= highest:
                    highest = deadline
                else:
                    self._add_late(deadline, position, message)
        page.let_go()

    def _join(self) -> None:
        """There are no pages any more: what came after them moves up, and nobody else knows its positions yet."""
        first, late = self._last_at, self._late_messages
        gap = first - self.head - len(self.fresh)
        if gap:
            self._holes = {at - gap if at >= first else at for at in self._holes}
            self._late = [(deadline, at - gap if at >= first else at) for deadline, at in self._late]  # still a heap
            self._late_messages = {at - gap if at >= first else at: message for at, message in late.items()}
        self.fresh.extend(self.last)
        self.last = self.fresh

    def check(self) -> None:
        """Assert what must always hold."""
        end = self._end
        assert (self.last is self.fresh) == (not self.pages)
        assert self.fresh or not self.pages
        assert not self.pages or self.head + len(self.fresh) <= self._last_at
        assert self.pages.messages == sum(page.count for page in self.pages)
        assert self.pages.bytes == sum(page.bytes for page in self.pages)
        assert all(position < self.head for position in self._back)
        assert all(self.head <= position < end for position in self._holes)
        between = range(self.head + len(self.fresh), self._last_at if self.pages else end)
        assert not any(position in between for position in (*self._holes, *self._late_messages))
        assert self._back.keys() <= set(self._order)
        assert sorted(position for _, position in self._late) == sorted(self._late_messages)
        if not self.expiring:
            assert all(message.deadline is None for message in self)
