"""Whether a permission's regular expression matches a name, in bounded time whatever either of them is.

An expression is compiled into a small program whose ways are all followed at once, a byte of the name at a time, so
that the work is at most the program's length times the name's. (Python's `re` tries one way after the other, and for
some innocent-looking expressions that takes until the end of the world.) Looking ahead and behind is worked out once a
place. What is left of extremes is cut off by a budget of steps: a name whose check costs more is not allowed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from rabbitish.core.access.pattern_syntax import (
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
_LONGEST_PROGRAM = 20_000
_KNOWN = 4096
_MOST_STEPS = 200_000  # some tens of milliseconds; an ordinary check takes some hundreds


class TooHard(Exception):
    """A match would take more steps than anybody should wait for."""


# An instruction: a byte of this set, then on; both of these; at this place, on; this look, then on.
_Step: TypeAlias = "tuple[bytes, int] | tuple[int, int] | tuple[str, int] | tuple[_Looking, int] | None"


class _Looking:
    """Looking ahead, or `behind` from as many bytes back as each way is long."""

    __slots__ = ("behind", "negative", "ways")

    def __init__(self, ways: list[tuple[int, int]], *, negative: bool, behind: bool) -> None:
        self.ways = ways  # where each begins in the program, and its width
        self.negative = negative
        self.behind = behind


class Pattern:
    """A compiled expression."""

    __slots__ = ("_program", "_start", "_work", "text")

    def __init__(self, text: str) -> None:
        """PatternError: it is wrong, too long, or has what is not supported."""
        if len(text) > LONGEST_PATTERN:
            raise PatternError(f"longer than {LONGEST_PATTERN} characters")
        self.text = text
        self._work = 0
        self._program: list[_Step] = [None]  # None at 0: it matches
        self._start = self._compile(parse(text), 0)

    def matches(self, subject: bytes) -> bool:
        """Whether it is found anywhere in `subject`. TooHard: that is not known."""
        return _Match(self._program, subject).found(self._start, 0, anchored=False)

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
                starts = [self._compile(way, then) for way in ways]
                start = starts.pop()
                while starts:
                    start = self._emit((starts.pop(), start))
                return start
            case Repeat():
                return self._repeat(node, then)
            case Look(inner, negative, behind):
                ways = inner.ways if isinstance(inner, Choice) and behind else (inner,)
                looks = [(self._compile(way, 0), _width(way) if behind else 0) for way in ways]
                return self._emit((_Looking(looks, negative=negative, behind=behind), then))

    def _repeat(self, repeat: Repeat, then: int) -> int:
        start = then
        if repeat.most is None:
            start = self._emit(None)
            self._program[start] = (self._compile(repeat.node, start), then)
        else:
            for _ in range(repeat.most - repeat.least):
                start = self._emit((self._compile(repeat.node, start), then))
        for _ in range(repeat.least):
            start = self._compile(repeat.node, start)
        return start

    def _emit(self, step: _Step) -> int:
        self._program.append(step)
        return len(self._program) - 1


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
    """One subject on its way through a program."""

    __slots__ = ("_looked", "_program", "_steps", "_subject")

    def __init__(self, program: list[_Step], subject: bytes) -> None:
        self._program = program
        self._subject = subject
        self._steps = 0
        self._looked: dict[tuple[_Looking, int], bool] = {}

    def found(self, start: int, at: int, *, anchored: bool) -> bool:
        """Whether the program from `start` matches at `at`, or, not `anchored`, anywhere from there on."""
        program, subject = self._program, self._subject
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
                first, then = step
                if isinstance(first, bytes):
                    taking.append((first, then))
                elif isinstance(first, int):
                    ways += (then, first)
                elif self._stands(first, at):
                    ways.append(then)
            self._steps += len(seen) + 1
            if self._steps > _MOST_STEPS:
                raise TooHard
            if at == len(subject):
                return False
            byte = subject[at]
            ways = [then for table, then in taking if table[byte]]
            if not anchored:
                ways.append(start)
            elif not ways:
                return False
            at += 1

    def _stands(self, what: str | _Looking, at: int) -> bool:
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
