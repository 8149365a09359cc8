"""Routing by pattern: `*` stands for exactly one word, `#` for none or more, words are separated by dots.

Owns the words and patterns, never what is bound: an entry is any hashable. Patterns without wildcards live in a
dictionary of their own and cost one look-up; the others form a trie. A match walks the trie one word at a time with
the set of nodes reached so far, so that the work is bounded by the words times the trie's nodes however many `#` a
pattern has (trying every way to share words out among several `#` would be exponential).

Words may be empty: "a..b" has three, "." has two. The empty key has none at all (RabbitMQ: split_topic_key), so that
`#` and the empty pattern match it and `*` does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
K = TypeVar("K")
Entries: TypeAlias = "tuple[T, ...] | dict[T, None]"

_FEW = 8  # up to here a tuple is smaller than a dictionary and as fast


def with_entry(entries: Entries[T], entry: T) -> Entries[T]:
    """The entries with one more; an entry that is there already changes nothing."""
    if entry in entries:
        return entries
    if isinstance(entries, dict):
        entries[entry] = None
        return entries
    if len(entries) < _FEW:
        return (*entries, entry)
    return dict.fromkeys((*entries, entry))


def without_entry(entries: Entries[T], entry: T) -> Entries[T]:
    """The entries less one; an entry that is not there changes nothing."""
    if isinstance(entries, dict):
        entries.pop(entry, None)
        return entries
    return tuple(other for other in entries if other != entry)


def file_entry(table: dict[K, Entries[T]], key: K, entry: T) -> None:
    """Put an entry under a key of a table."""
    table[key] = with_entry(table.get(key, ()), entry)


def unfile_entry(table: dict[K, Entries[T]], key: K, entry: T) -> None:
    """Take an entry from under a key of a table, and the key if nothing is left there."""
    left = without_entry(table.get(key, ()), entry)
    if left:
        table[key] = left
    else:
        table.pop(key, None)


def words_of(key: str) -> list[str]:
    """The words of a routing key or pattern; the empty one has none."""
    return key.split(".") if key else []


class _Node(Generic[T]):
    """A place in the trie, reached by the words of a pattern so far."""

    __slots__ = ("children", "entries", "many", "repeats", "single")

    def __init__(self, *, repeats: bool = False) -> None:
        self.children: dict[str, _Node[T]] | None = None
        self.single: _Node[T] | None = None  # after `*`
        self.many: _Node[T] | None = None  # after `#`
        self.repeats = repeats  # reached by `#`, so any further word stays here
        self.entries: Entries[T] = ()

    @property
    def empty(self) -> bool:
        return not (self.entries or self.children or self.single or self.many)

    def child(self, word: str) -> _Node[T] | None:
        if word == "*":
            return self.single
        if word == "#":
            return self.many
        return None if self.children is None else self.children.get(word)

    def grow(self, word: str) -> _Node[T]:
        node = self.child(word)
        if node is not None:
            return node
        node = _Node(repeats=word == "#")
        if word == "*":
            self.single = node
        elif word == "#":
            self.many = node
        elif self.children is None:
            self.children = {word: node}
        else:
            self.children[word] = node
        return node

    def prune(self, word: str) -> None:
        if word == "*":
            self.single = None
        elif word == "#":
            self.many = None
        else:
            assert self.children is not None
            del self.children[word]
            if not self.children:
                self.children = None


class TopicTrie(Generic[T]):
    """Entries under patterns, found by routing key."""

    __slots__ = ("_literal", "_root")

    def __init__(self) -> None:
        self._literal: dict[str, Entries[T]] = {}
        self._root: _Node[T] = _Node()

    def insert(self, pattern: str, entry: T) -> None:
        """Put an entry under a pattern; one that is there already stays once."""
        words = _wild_words(pattern)
        if words is None:
            file_entry(self._literal, pattern, entry)
            return
        node = self._root
        for word in words:
            node = node.grow(word)
        node.entries = with_entry(node.entries, entry)

    def remove(self, pattern: str, entry: T) -> None:
        """Take an entry from under a pattern, and the nodes that nothing needs any more; one not there is ignored."""
        words = _wild_words(pattern)
        if words is None:
            unfile_entry(self._literal, pattern, entry)
            return
        path = [self._root]
        for word in words:
            node = path[-1].child(word)
            if node is None:
                return
            path.append(node)
        path[-1].entries = without_entry(path[-1].entries, entry)
        while words and path.pop().empty:
            path[-1].prune(words.pop())

    def match(self, routing_key: str) -> Iterator[T]:
        """Every entry whose pattern matches; an entry under several matching patterns comes once for each."""
        yield from self._literal.get(routing_key, ())
        if self._root.empty:
            return
        nodes: dict[_Node[T], None] = {}
        _reach(nodes, self._root)
        for word in words_of(routing_key):
            nodes = _advance(nodes, word)
        for node in nodes:
            yield from node.entries

    def size(self) -> int:
        """How much it remembers: the patterns without wildcards, and the nodes behind the root for the others."""
        waiting = [self._root]
        for node in waiting:  # grows while it is walked
            waiting += filter(None, (*(node.children or {}).values(), node.single, node.many))
        return len(self._literal) + len(waiting) - 1


def _wild_words(pattern: str) -> list[str] | None:
    """A pattern's words; None when there are no wildcards among them."""
    words = pattern.split(".")
    return words if "*" in words or "#" in words else None


def _reach(reached: dict[_Node[T], None], node: _Node[T] | None) -> None:
    """Add a node, and those behind it by `#` that stand for no word."""
    while node is not None:
        reached[node] = None
        node = node.many


def _advance(nodes: dict[_Node[T], None], word: str) -> dict[_Node[T], None]:
    """The nodes reached from these by one more word."""
    reached: dict[_Node[T], None] = {}
    for node in nodes:
        if node.repeats:
            reached[node] = None
        if node.children is not None:
            _reach(reached, node.children.get(word))
        _reach(reached, node.single)
    return reached
