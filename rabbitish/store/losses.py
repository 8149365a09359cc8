"""What was, or may have been, in the holes of a journal.

A hole is explained if every damaged record in it still reads like one, and their numbers fill it: then it had only
records of those types and sizes. Else anything may have been in it, and only the count of its numbers says how much.
What came later tells more: a message that is known to have left its queue is no loss, and a queue that is not there in
the end has none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rabbitish.store.bodies import DeclaredQueue
from rabbitish.store.details import Decoder, Details, OfQueue
from rabbitish.store.pieces import Pieces
from rabbitish.store.reader import Publish
from rabbitish.store.record import PUBLISHES, Damage, Record, Type, parse_segment_name
from rabbitish.store.resync import Place
from rabbitish.store.survey import Hole, Part

_EMPTY = frozenset({Type.EPOCH, Type.SNAPSHOT, Type.SNAPSHOT_END})
_REMOVALS = frozenset({Type.REMOVE, Type.DELIVERED, Type.QUEUE_GONE})  # a bit makes a REMOVE read like a DELIVERED
_NO_DECLARATIONS = frozenset({Type.MARK, Type.EPOCH, *PUBLISHES, Type.REMOVE, Type.DELIVERED, Type.RETURNED})
_END = 1 << 64


class Guess(NamedTuple):
    """What a damaged record reads like."""

    place: Place
    record: Record
    details: Details


class Lost(NamedTuple):
    """A hole, and what it may have cost."""

    hole: Hole
    guesses: list[Guess]
    explained: bool
    least: int
    """So many messages are lost that were in a queue, at least."""
    most: int | None
    """None: that cannot be told, at an end of the journal."""
    left: int
    """Of the hole's numbers so many were messages that are known to have left a queue later."""
    queues: list[int]
    """Queues that can be affected; the guesses say which are likely to be, but those come from damaged bytes."""
    removals: bool
    """Whether removals may be lost: then messages that had left a queue are back."""


class Losses:
    """Is told of places, holes and the records between, in order; says what was lost in the end."""

    def __init__(self, decoder: Decoder, pieces: Pieces) -> None:
        self._decoder = decoder
        self._pieces = pieces
        self._guesses: dict[Place, Guess] = {}
        self._holes: list[_Hole] = []
        self._firsts: list[int] = []
        self._born: dict[int, int] = {}  # queues by the records that declared them
        self._in_snapshot = True  # or it may be: each segment begins with one

    def segment(self) -> None:
        """The next segment begins."""
        self._in_snapshot = True

    def place(self, part: Part | None, place: Place) -> None:
        """A place was found, in this part if it has bytes."""
        if part is None or place.likely is None:
            return
        record = place.likely
        try:
            details = self._decoder.details(part.data, record)
        except Damage:
            return
        if record.type in _EMPTY and record.body != record.end:
            return
        if isinstance(details, OfQueue) and any(map(record.lsn.__le__, details.ranges[::2])):
            return  # of messages that were still to come
        self._guesses[place] = Guess(place, record, details)

    def hole(self, hole: Hole) -> bool:
        """A hole ends; whether nothing was declared in it that counts."""
        guesses = [self._guesses.pop(place) for place in hole.places if place in self._guesses]
        self._holes.append(_Hole(hole, guesses))
        self._firsts.append(hole.first or 0)
        known = self._holes[-1].explained and all(guess.record.type in _NO_DECLARATIONS for guess in guesses)
        return hole.torn or known

    def record(self, record: Record, details: Details) -> None:
        """A whole record."""
        if isinstance(details, OfQueue) and details.reason:
            for first, count in zip(details.ranges[::2], details.ranges[1::2], strict=True):
                index = bisect_right(self._firsts, first + count - 1) - 1
                while index >= 0 and self._holes[index].end > first:
                    self._holes[index].has_left(first, first + count)
                    index -= 1
        elif record.type is Type.SNAPSHOT_END:
            self._in_snapshot = False
        elif isinstance(details, DeclaredQueue) and not details.ttls and not self._in_snapshot:
            self._born.setdefault(details.number, record.lsn)

    def found(self) -> Iterator[Lost]:
        """Every hole that is not just a torn tail."""
        final = sorted(self._pieces.declared.queues)
        last_removal = max((hole.end for hole in self._holes if hole.may_remove or hole.hole.torn), default=0)
        for hole in self._holes:
            if hole.hole.torn:
                continue
            queues = [number for number in final if self._born.get(number, 0) < hole.end]
            least = hole.least(final) if hole.explained and hole.end > last_removal else 0
            yield Lost(
                hole.hole, hole.guesses, hole.explained, least, hole.most, len(hole.left), queues, hole.may_remove
            )

    def again(self) -> dict[int, int]:
        """How many messages of which queue may be there only since their removal is lost, at most."""
        before: dict[int, int] = {}
        for lost in self.found():
            if lost.removals:
                for number in lost.queues:
                    before[number] = max(before.get(number, 0), lost.hole.next or _END)
        counts: dict[int, int] = {}
        for number, end in before.items():
            count = sum(max(0, min(live.length, end - live.first)) for live in self._pieces.live(number))
            if count:
                counts[number] = count
        return counts


class _Hole:
    def __init__(self, hole: Hole, guesses: list[Guess]) -> None:
        self.hole = hole
        self.guesses = guesses
        self.end = hole.next or _END
        # In segments written anew numbers are missing for no bad reason.
        names = [parse_segment_name(place.file) for place in hole.places]
        gaps = all(name is not None and name.generation for name in names)
        nothing = hole.first is not None and hole.first == hole.next
        self.explained = nothing or (len(guesses) == len(names) and (gaps or _fill(hole, guesses)))
        self.left: set[int] = set()

    def has_left(self, first: int, end: int) -> None:
        """These messages are known to have left a queue."""
        self.left.update(range(max(first, self.hole.first or 0), min(end, self.end)))

    @property
    def may_remove(self) -> bool:
        """Whether anything may have left a queue here."""
        if self.hole.torn:
            return False
        return not self.explained or any(guess.record.type in _REMOVALS for guess in self.guesses)

    @property
    def most(self) -> int | None:
        """So many messages are lost at most."""
        if self.explained:
            return sum(guess.details.length for guess in self.guesses if isinstance(guess.details, Publish))
        if self.hole.first is None or self.hole.next is None:
            return None
        return self.hole.next - self.hole.first

    def least(self, queues: Iterable[int]) -> int:
        """So many messages are lost at least that were in one of these queues."""
        known = frozenset(queues)
        return sum(
            len(set(range(guess.record.lsn, guess.record.lsn + guess.record.span)) - self.left)
            for guess in self.guesses
            if isinstance(guess.details, Publish) and known.intersection(guess.details.route.queues)
        )


def _fill(hole: Hole, guesses: list[Guess]) -> bool:
    """Whether the numbers of what was guessed fill the hole."""
    due = hole.first
    for guess in guesses:
        if guess.record.lsn != due:
            return False
        due = guess.record.lsn + guess.record.span
    return hole.next is None or due == hole.next
