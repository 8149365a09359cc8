"""Reading a permission's regular expression: PCRE's syntax, as far as a boolean answer needs no backtracking.

RabbitMQ's permissions are Erlang `re` expressions (PCRE) over bytes. What can be answered by following all ways at once
is read into a tree of nodes here: classes, groups, alternatives, repetitions, anchors, looking ahead and behind. What
cannot (references back to a group, atomic groups, possessive repetitions, recursion) is refused with its place, rather
than being understood wrongly. Lazy repetitions mean the same as greedy ones where only "does it match" is asked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, NoReturn, TypeAlias

_DEEPEST = 100  # groups in groups
_MOST_REPEATS = 65_535  # PCRE's


class PatternError(ValueError):
    """A regular expression that cannot be used; the text says why, and where."""

    def __init__(self, why: str, at: int | None = None) -> None:
        super().__init__(why if at is None else f"{why} at offset {at}")
        self.why = why.rstrip(",")
        self.at = at or 0


class Chars(NamedTuple):
    """One byte of a set: a byte of 256 is 1 where it is in it."""

    table: bytes


class Sequence(NamedTuple):
    """One after the other."""

    parts: tuple[Node, ...]


class Choice(NamedTuple):
    """Any of these."""

    ways: tuple[Node, ...]


class Repeat(NamedTuple):
    """So often; `most` None is without end."""

    node: Node
    least: int
    most: int | None


class Anchor(NamedTuple):
    """A place: "start", "end", "last line end", "line start", "line end", "word edge", "no word edge"."""

    kind: str


class Look(NamedTuple):
    """What must (or must not) follow, or come before."""

    node: Node
    negative: bool
    behind: bool


Node: TypeAlias = "Chars | Sequence | Choice | Repeat | Anchor | Look"

NOTHING = Sequence(())

_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset(b"0123456789")
WORD = _LETTERS | _DIGITS | {ord("_")}
_SPACE = frozenset(b" \t\n\v\f\r")
_ALL = frozenset(range(256))
_PRINTED = frozenset(range(0x21, 0x7F))
_NAMED_SETS = {
    ord("d"): _DIGITS,
    ord("w"): WORD,
    ord("s"): _SPACE,
    ord("h"): frozenset(b" \t\xa0"),
    ord("v"): frozenset(b"\n\v\f\r\x85"),
}
_NAMED_SETS |= {name - 32: _ALL - chars for name, chars in _NAMED_SETS.items()}
_NAMED_SETS[ord("N")] = _ALL - {ord("\n")}
_CONTROLS = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("f"): 12, ord("e"): 27, ord("a"): 7}
_ANCHORS = {
    ord("A"): "start",
    ord("z"): "end",
    ord("Z"): "last line end",
    ord("b"): "word edge",
    ord("B"): "no word edge",
}
_POSIX = {
    b"alnum": _LETTERS | _DIGITS,
    b"alpha": _LETTERS,
    b"ascii": frozenset(range(128)),
    b"blank": frozenset(b" \t"),
    b"cntrl": frozenset(range(32)) | {127},
    b"digit": _DIGITS,
    b"graph": _PRINTED,
    b"lower": frozenset(range(97, 123)),
    b"print": _PRINTED | {32},
    b"punct": _PRINTED - _LETTERS - _DIGITS,
    b"space": _SPACE,
    b"upper": frozenset(range(65, 91)),
    b"word": WORD,
    b"xdigit": frozenset(b"0123456789abcdefABCDEF"),
}
_PLAIN = _ALL - frozenset(b"\\^$.|?*+()[{")
_REPEATS = (b"*", b"+", b"?", b"{")
_HEX = _POSIX[b"xdigit"]


@lru_cache(1024)
def _chars_of(chars: frozenset[int]) -> Chars:
    table = bytearray(256)
    for char in chars:
        table[char] = 1
    return Chars(bytes(table))


def parse(text: str) -> Node:
    """The tree of a regular expression. PatternError: it is wrong, or has what is not supported."""
    try:
        return _Parser(text.encode()).parse()
    except UnicodeEncodeError:
        raise PatternError("not valid text") from None


class _Parser:
    """Goes through the bytes once; a group's flags end with it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._depth = 0
        self._flags: frozenset[str] = frozenset()

    def parse(self) -> Node:
        node = self._choice()
        if self._at < len(self._data):
            self._fail("unmatched parentheses")
        return node

    def _fail(self, why: str) -> NoReturn:
        raise PatternError(why, self._at)

    def _peek(self, what: bytes) -> bool:
        return self._data.startswith(what, self._at)

    def _take(self, what: bytes) -> bool:
        if self._peek(what):
            self._at += len(what)
            return True
        return False

    def _next(self, missing: str) -> int:
        if self._at >= len(self._data):
            self._fail(missing)
        self._at += 1
        return self._data[self._at - 1]

    def _until(self, end: bytes, missing: str) -> bytes:
        found = self._data.find(end, self._at)
        if found < 0:
            self._fail(missing)
        text, self._at = self._data[self._at : found], found + len(end)
        return text

    # ---- alternatives, sequences, repetitions

    def _choice(self) -> Node:
        flags, self._depth = self._flags, self._depth + 1
        if self._depth > _DEEPEST:
            self._fail("too many groups in groups")
        ways = [self._sequence()]
        while self._take(b"|"):
            ways.append(self._sequence())
        self._flags, self._depth = flags, self._depth - 1
        return ways[0] if len(ways) == 1 else Choice(tuple(ways))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._data) and not self._peek(b"|") and not self._peek(b")"):
            char = self._data[self._at]
            if char in _PLAIN and self._data[self._at + 1 : self._at + 2] not in _REPEATS:
                self._at += 1  # most are, and the rest takes ten times as long
                parts.append(self._chars({char}))
            elif self._take(b"\\Q"):
                end = self._data.find(b"\\E", self._at)
                literal = self._data[self._at : end if end >= 0 else None]
                self._at = min(self._at + len(literal) + 2, len(self._data))
                parts += [self._chars({char}) for char in literal]
                if literal and end >= 0:
                    parts[-1] = self._repeated(parts[-1])
            elif not self._take(b"\\E"):
                parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self, node: Node) -> Node:
        while True:
            least, most = 0, None
            if self._take(b"*"):
                pass
            elif self._take(b"+"):
                least = 1
            elif self._take(b"?"):
                most = 1
            else:
                counts = self._counts()
                if counts is None:
                    return node
                least, most = counts
            if self._peek(b"+"):
                self._fail("possessive repetitions are not supported,")
            self._take(b"?")
            node = Repeat(node, least, most)

    def _counts(self) -> tuple[int, int | None] | None:
        """{n}, {n,} or {n,m}; anything else is no repetition, and the brace means itself."""
        end = self._data.find(b"}", self._at)
        if not self._peek(b"{") or end < 0:
            return None
        least, comma, most = self._data[self._at + 1 : end].partition(b",")
        if not least.isdigit() or (most and not most.isdigit()) or len(least) > 6 or len(most) > 6:
            return None
        low, high = int(least), int(most) if most else None
        if not comma:
            high = low
        if max(low, high or 0) > _MOST_REPEATS:
            self._fail("number too big in {} quantifier")
        if high is not None and high < low:
            self._fail("numbers out of order in {} quantifier")
        self._at = end + 1
        return low, high

    # ---- atoms

    def _atom(self) -> Node:
        char = self._next("")
        if char == ord("("):
            return self._group()
        if char == ord("["):
            return self._class()
        if char == ord("."):
            return self._chars(_ALL if "s" in self._flags else _NAMED_SETS[ord("N")])
        if char == ord("^"):
            return Anchor("line start" if "m" in self._flags else "start")
        if char == ord("$"):
            return Anchor("line end" if "m" in self._flags else "last line end")
        if char == ord("\\"):
            if self._at < len(self._data) and self._data[self._at] in _ANCHORS:
                self._at += 1
                return Anchor(_ANCHORS[self._data[self._at - 1]])
            return self._chars(self._escape())
        if char in b"*+?":
            self._at -= 1
            self._fail("nothing to repeat")
        return self._chars({char})

    def _chars(self, chars: set[int] | frozenset[int]) -> Chars:
        if "i" in self._flags:
            chars = chars | {char ^ 32 for char in chars if char in _LETTERS}
        return _chars_of(frozenset(chars))

    def _group(self) -> Node:
        look: tuple[bool, bool] | None = None
        before = self._flags
        if self._take(b"?"):
            if self._take(b"#"):
                self._until(b")", "missing ) after comment")
                return NOTHING
            look = self._look()
            if look is None and not self._named() and self._flag_letters():
                return NOTHING
        elif self._peek(b"*"):
            self._fail("verbs are not supported,")
        node = self._choice()
        if not self._take(b")"):
            self._fail("missing )")
        self._flags = before
        return node if look is None else Look(node, negative=look[0], behind=look[1])

    def _look(self) -> tuple[bool, bool] | None:
        """Whether it is negative, and whether it looks behind; None: it is another group."""
        for mark in (b"=", b"!", b"<=", b"<!"):
            if self._take(mark):
                return mark[-1:] == b"!", mark[:1] == b"<"
        return None

    def _named(self) -> bool:
        """A name, which nothing can refer to here."""
        for begin, end in ((b"P<", b">"), (b"<", b">"), (b"'", b"'")):
            if self._take(begin):
                self._until(end, "missing terminator of a group's name")
                return True
        return False

    def _flag_letters(self) -> bool:
        """The letters of (?i:...) or (?i); True for the latter, which holds until the group around it ends."""
        on = True
        flags = set(self._flags)
        while True:
            char = self._next("missing )")
            if char in b":)":
                self._flags = frozenset(flags)
                return char == ord(")")
            if char == ord("-"):
                on = False
            elif char in b"ims":
                (flags.add if on else flags.discard)(chr(char))
            elif char not in b"UJ":  # those change nothing here
                self._at -= 1
                self._fail("this kind of group is not supported,")

    # ---- escapes and classes

    def _escape(self) -> set[int] | frozenset[int]:
        char = self._next("\\ at end of pattern")
        if char in _NAMED_SETS:
            return _NAMED_SETS[char]
        if char in _CONTROLS:
            return {_CONTROLS[char]}
        if char == ord("x"):
            return {self._hex()}
        if char == ord("0"):
            digits = self._data[self._at : self._at + 2]
            count = len(digits) - len(digits.lstrip(b"01234567"))
            self._at += count
            return {int(b"0" + digits[:count], 8)}
        if char in _LETTERS or char in _DIGITS:
            self._at -= 1
            self._fail(f"\\{chr(char)} is not supported,")
        return {char}

    def _hex(self) -> int:
        if self._take(b"{"):
            digits = self._until(b"}", "missing } after \\x{")
        else:
            digits = self._data[self._at : self._at + 2]
            digits = digits[: len(digits) - len(digits.lstrip(bytes(_HEX)))]
            self._at += len(digits)
        if not all(digit in _HEX for digit in digits) or len(digits) > 8 or int(b"0" + digits, 16) > 255:
            self._fail("character value in \\x too large")
        return int(b"0" + digits, 16)

    def _class(self) -> Node:
        negative = self._take(b"^")
        chars: set[int] = set()
        first = True
        while first or not self._take(b"]"):
            first = False
            low = self._class_item()
            if (
                not isinstance(low, int)
                or not self._peek(b"-")
                or self._data[self._at + 1 : self._at + 2] in (b"", b"]")
            ):
                chars |= {low} if isinstance(low, int) else low
                continue
            self._at += 1
            high = self._class_item()
            if not isinstance(high, int):
                self._fail("invalid range in character class")
            if high < low:
                self._fail("range out of order in character class")
            chars |= set(range(low, high + 1))
        found = self._chars(chars)
        return Chars(bytes(1 - one for one in found.table)) if negative else found

    def _class_item(self) -> int | frozenset[int]:
        char = self._next("missing terminating ] for character class")
        if char == ord("["):
            end = self._data.find(b":]", self._at)
            if self._peek(b":") and end >= 0 and b"]" not in self._data[self._at : end]:
                name = self._data[self._at + 1 : end]
                chars = _POSIX.get(name.removeprefix(b"^"))
                if chars is None:
                    self._fail("unknown POSIX class name")
                self._at = end + 2
                return _ALL - chars if name.startswith(b"^") else chars
        if char != ord("\\"):
            return char
        if self._take(b"b"):
            return 8
        found = self._escape()
        return next(iter(found)) if len(found) == 1 else frozenset(found)
