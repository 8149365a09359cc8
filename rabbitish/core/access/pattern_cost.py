"""Whether an expression takes too long for names that somebody may have, found out when it is set.

No expression is proven harmless here. A short name is put together that keeps as many ways of the program open as can
be, byte by byte, and matched; an expression that cannot even decide such a name within the budget is for no use.
"""

from __future__ import annotations

from functools import lru_cache

from rabbitish.core.access.patterns import STEPS_MAX, Looking, Pattern, TooHard, compiled

_NAME_BYTES = 32  # shorter than most names are, so that lists of hundreds of alternatives pass
_CANDIDATES = 8
_KNOWN = 4096
_ENDS = ("end", "last line end", "line end")


@lru_cache(_KNOWN)
def costly(text: str) -> bool:
    """Whether a name is easily found for which it takes too many steps. PatternError: see Pattern."""
    pattern = compiled(text)
    try:
        pattern.matches(_worst_name(pattern))
    except TooHard:
        return True
    return False


def _worst_name(pattern: Pattern) -> bytes:
    name = bytearray()
    taking, steps = _followed(pattern, [pattern.start], at_start=True)
    while taking and len(name) < _NAME_BYTES and steps <= 2 * STEPS_MAX:
        before, taking = taking, None
        for byte in _candidates(before):
            ways = [then for table, then in before if table[byte]]
            if not pattern.anchored:
                ways.append(pattern.start)
            taking, seen = _followed(pattern, ways)
            steps += seen
            if taking is not None:
                name.append(byte)
                break
    return bytes(name)


def _candidates(taking: list[tuple[bytes, int]]) -> list[int]:
    """Bytes that could come next, the one first that keeps most ways open."""
    tables = list(dict.fromkeys([table for table, _ in taking]))[:_CANDIDATES]
    return sorted([table.find(1) for table in tables], key=lambda byte: -sum([table[byte] for table, _ in taking]))


def _followed(
    pattern: Pattern, ways: list[int], *, at_start: bool = False
) -> tuple[list[tuple[bytes, int]] | None, int]:
    """What could take the next byte from here, as if this were a word's edge and no end; how much was looked at.

    None: it matches already. What is in a look, whose end is no match, has the complement (~) of its place.
    """
    seen: set[int] = set()
    taking: list[tuple[bytes, int]] = []
    while ways:
        where = ways.pop()
        if where in seen:
            continue
        seen.add(where)
        look = where < 0
        step = pattern.program[~where if look else where]
        if step is None:
            if look:
                continue
            return None, len(seen)
        what, then = step
        if look:
            then = ~then
        if isinstance(what, bytes):
            if 1 in what:
                taking.append((what, then))
        elif isinstance(what, tuple):
            ways += [~way for way in what] if look else what
        elif isinstance(what, Looking):
            ways += [~start for start, _ in what.ways]
            ways.append(then)
        elif at_start if what == "start" else what not in _ENDS:
            ways.append(then)
    return taking, len(seen)
