"""Whether a permission's or policy's regular expression matches a name, in bounded time whatever either of them is.

An expression is compiled into a small program whose ways are all followed at once, a byte of the name at a time, so
that the work is at most the program's length times the name's. (Python's `re` tries one way after the other, and for
some innocent-looking expressions that takes until the end of the world.) Looking ahead and behind is worked out once a
place. What is left of extremes is cut off by a budget of steps: a name whose check costs more is not matched, and an
expression for which such names are easily found is refused when it is set (pattern_cost.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from rabbitish.core.access.pattern_syntax import (
    NOTHING,
    WORD,
    Anchor,
    Chars,
    Choice,
    Look,
    Node,
    PatternError,
    Repeat,
    Sequence,
    parse,
)

LONGEST_PATTERN = 8192
_LONGEST_PROGRAM = 10_000
_KNOWN = 4096
# Three to five milliseconds. An ordinary match takes ten to a hundred; a hundred alternatives, anywhere in the longest
# name there can be, take all of it at the very worst.
STEPS_MAX = 10_000
_EACH = 5  # what a match costs besides, in steps


class TooHard(Exception):
    """A match would take more steps than anybody should wait for."""


class Budget:
    """Steps that several matches together may take."""

    __slots__ = ("left",)

    def __init__(self, steps: int) -> None:
        self.left = steps


# An instruction: a byte of this set, then on; any of these; at this place, on; this look, then on.
Step: TypeAlias = "tuple[bytes, int] | tuple[tuple[int, ...], int] | tuple[str, int] | tuple[Looking, int] | None"


class Looking:
    """Looking ahead, or `behind` from as many bytes back as each way is long."""

    __slots__ = ("behind", "negative", "ways")

    def __init__(self, ways: list[tuple[int, int]], *, negative: bool, behind: bool) -> None:
        self.ways = ways  # where each begins in the program, and its width
        self.negative = negative
        self.behind = behind


class Pattern:
    """A compiled expression: its `program`, and where that starts."""

    __slots__ = ("_first", "_work", "anchored", "program", "start", "text")

    def __init__(self, text: str) -> None:
        """PatternError: it is wrong, too long, or has what is not supported."""
        if len(text) > LONGEST_PATTERN:
            raise PatternError(f"longer than {LONGEST_PATTERN} characters")
        self.text = text
        self._work = 0
        self.program: list[Step] = [None]  # None at 0: it matches
        tree = parse(text)
        self.start = self._compile(tree, 0)
        self.anchored = _starts_at_the_start(tree)
        self._first = self._first_byte()

    def matches(self, subject: bytes, budget: Budget | None = None) -> bool:
        """Whether it is found anywhere in `subject`. TooHard: that is not known, since it takes too many steps.

        A `budget` is what is left for this match and others.
        """
        match = _Match(self.program, subject, STEPS_MAX if budget is None else min(STEPS_MAX, budget.left))
        try:
            return match.found(self.start, 0, anchored=self.anchored, first=self._first)
        finally:
            if budget is not None:
                budget.left -= match.steps + _EACH

    def _first_byte(self) -> bytes | None:
        """One of which bytes whatever matches begins with, as in `Chars`. None: that depends, or there need be none."""
        ways, seen, found = [self.start], set[int](), 0
        while ways:
            where = ways.pop()
            if where in seen:
                continue
            seen.add(where)
            step = self.program[where]
            if step is None or isinstance(step[0], str | Looking):
                return None
            if isinstance(step[0], bytes):
                found |= int.from_bytes(step[0])
            else:
                ways += step[0]
        return found.to_bytes(256)

    # ---- compiling: each returns where a node begins that goes on at `then`

    def _compile(self, node: Node, then: int) -> int:
        self._work += 1
        if self._work > _LONGEST_PROGRAM:
            raise PatternError("too large when its repetitions are written out")
        match node:
            case Chars(table):
                return self._emit((table, then))
            case Anchor(kind):
                return self._emit((kind, then))
            case Sequence(parts):
                for part in reversed(parts):
                    then = self._compile(part, then)
                return then
            case Choice(ways):
                return self._emit((tuple([self._compile(way, then) for way in ways]), then))
            case Repeat():
                return self._repeat(node, then)
            case Look(inner, negative, behind):
                ways = inner.ways if isinstance(inner, Choice) and behind else (inner,)
                looks = [(self._compile(way, 0), _width(way) if behind else 0) for way in ways]
                return self._emit((Looking(looks, negative=negative, behind=behind), then))

    def _repeat(self, repeat: Repeat, then: int) -> int:
        start = then
        if repeat.most is None:
            start = self._emit(None)
            self.program[start] = ((self._compile(repeat.node, start), then), then)
        else:
            for _ in range(repeat.most - repeat.least):
                start = self._emit(((self._compile(repeat.node, start), then), then))
        for _ in range(repeat.least):
            start = self._compile(repeat.node, start)
        return start

    def _emit(self, step: Step) -> int:
        self.program.append(step)
        return len(self.program) - 1


def _starts_at_the_start(node: Node) -> bool:
    """Whether it can only match where the subject begins."""
    match node:
        case Anchor(kind):
            return kind == "start"
        case Sequence(parts):
            first = next((part for part in parts if part != NOTHING), NOTHING)  # (?i) is nothing
            return first != NOTHING and _starts_at_the_start(first)
        case Choice(ways):
            return all(map(_starts_at_the_start, ways))
        case Repeat(inner, least, _):
            return least > 0 and _starts_at_the_start(inner)
        case _:
            return False


def _width(node: Node) -> int:
    """How many bytes a node takes. PatternError: that depends, so that nobody can look behind for it."""
    match node:
        case Chars():
            return 1
        case Sequence(parts):
            return sum(map(_width, parts))
        case Choice(ways):
            widths = set(map(_width, ways))
            if len(widths) == 1:
                return widths.pop()
        case Repeat(inner, least, most):
            if least == most:
                return least * _width(inner)
        case _:
            return 0
    raise PatternError("lookbehind assertion is not fixed length")


@lru_cache(_KNOWN)
def compiled(text: str) -> Pattern:
    """The pattern of an expression: many users, and all policies at each change, have those that others had.

    PatternError: see Pattern.
    """
    return Pattern(text)


class _Match:
    """One subject on its way through a program, in at most so many steps."""

    __slots__ = ("_looked", "_most", "_program", "_subject", "steps")

    def __init__(self, program: list[Step], subject: bytes, most: int) -> None:
        self._program = program
        self._subject = subject
        self._most = most
        self.steps = 0
        self._looked: dict[tuple[Looking, int], bool] = {}

    def found(self, start: int, at: int, *, anchored: bool, first: bytes | None = None) -> bool:
        """Whether the program from `start` matches at `at`, or, not `anchored`, anywhere from there on.

        Where whatever matches begins with one of the `first` bytes, it is not looked for elsewhere.
        """
        program, subject = self._program, self._subject
        end = len(subject)
        ways = [start]
        while True:
            seen: set[int] = set()
            taking: list[tuple[bytes, int]] = []
            while ways:
                where = ways.pop()
                if where in seen:
                    continue
                seen.add(where)
                step = program[where]
                if step is None:
                    return True
                what, then = step
                if isinstance(what, bytes):
                    taking.append((what, then))
                elif isinstance(what, tuple):
                    ways += what
                elif self._stands(what, at):
                    ways.append(then)
            self.steps += len(seen) + 1
            if self.steps > self._most:
                raise TooHard
            if at == end:
                return False
            byte = subject[at]
            at += 1
            ways = [then for table, then in taking if table[byte]]
            if anchored:
                if not ways:
                    return False
            elif first is None:
                ways.append(start)
            else:
                if not ways:
                    while at < end and not first[subject[at]]:
                        at += 1
                if at < end and first[subject[at]]:
                    ways.append(start)
                elif not ways:
                    return False

    def _stands(self, what: str | Looking, at: int) -> bool:
        """Whether an anchor or a look holds at a place."""
        if isinstance(what, str):
            return _at_anchor(what, self._subject, at)
        known = self._looked.get((what, at))
        if known is None:
            known = what.negative is not any(
                width <= at and self.found(start, at - width, anchored=True) for start, width in what.ways
            )
            self._looked[what, at] = known
        return known


def _at_anchor(kind: str, subject: bytes, at: int) -> bool:
    size = len(subject)
    match kind:
        case "start":
            return at == 0
        case "end":
            return at == size
        case "last line end":  # PCRE's $ looks over a newline at the very end
            return at == size or (at == size - 1 and subject[at] == 10)
        case "line start":
            return at == 0 or (at < size and subject[at - 1] == 10)
        case "line end":
            return at == size or subject[at] == 10
    edge = (at > 0 and subject[at - 1] in WORD) is not (at < size and subject[at] in WORD)
    return edge is (kind == "word edge")
