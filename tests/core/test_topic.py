"""The topic trie, against a matcher that follows the definition word by word."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabbitish.core.topic import TopicTrie
from tests.thorough import seeds

WORDS = ("", "a", "b", "*", "#")


def words(key: str) -> tuple[str, ...]:
    return tuple(key.split(".")) if key else ()


def naive(pattern: tuple[str, ...], key: tuple[str, ...]) -> bool:
    if not pattern:
        return not key
    if pattern[0] == "#":
        return naive(pattern[1:], key) or (bool(key) and naive(pattern, key[1:]))
    return bool(key) and pattern[0] in ("*", key[0]) and naive(pattern[1:], key[1:])


def matches(pattern: str, key: str) -> bool:
    trie: TopicTrie[int] = TopicTrie()
    trie.insert(pattern, 1)
    return list(trie.match(key)) == [1]


keys = st.lists(st.sampled_from(WORDS), max_size=6).map(".".join)


# What RabbitMQ 3.10.8 answers, 3,024 pairs of which were compared with it.
@pytest.mark.parametrize(
    ("pattern", "matching", "not_matching"),
    [
        ("", [""], [".", "a"]),
        ("#", ["", ".", "a", "a.b", "a..b"], []),
        ("*", ["a", "*", "#"], ["", ".", "a.b"]),
        (".", ["."], ["", "a", ".."]),
        ("*.*", [".", "a.", ".a", "a.b"], ["", "a", "a..b"]),
        ("a.*.b", ["a.b.b", "a..b"], ["a.b", "a.b.b.b"]),
        ("a.#.b", ["a.b", "a..b", "a.x.y.b", "a.b.b"], ["a", "b", "a.b.c"]),
        ("#.a", ["a", ".a", "b.a", "a.a"], ["", "a.b"]),
        ("a.#", ["a", "a.", "a.b.c"], ["", "b", "ab"]),
        ("#.#", ["", "a", "a.b"], []),
        ("*.#", ["a", "a.b", "."], [""]),
        ("#.*", ["a", "a.b", "."], [""]),
        ("##", ["##"], ["", "a", "#"]),
        ("a*", ["a*"], ["a", "ab"]),
    ],
)
def test_patterns(pattern: str, matching: list[str], not_matching: list[str]) -> None:
    assert [key for key in matching if not matches(pattern, key)] == []
    assert [key for key in not_matching if matches(pattern, key)] == []


@settings(deadline=None, max_examples=len(seeds(100, 300)))
@given(keys, keys)
def test_one_pattern_matches_as_defined(pattern: str, key: str) -> None:
    assert matches(pattern, key) == naive(words(pattern), words(key))


@settings(deadline=None, max_examples=len(seeds(50, 150)))
@given(
    st.lists(st.tuples(st.booleans(), keys, st.integers(0, 20)), max_size=40),
    st.lists(keys, min_size=1, max_size=5),
)
def test_any_history_leaves_what_was_put_in_and_not_taken_out(
    history: list[tuple[bool, str, int]], published: list[str]
) -> None:
    trie: TopicTrie[int] = TopicTrie()
    model: dict[tuple[str, int], None] = {}
    for put, pattern, entry in history:
        if put:
            trie.insert(pattern, entry)
            model[pattern, entry] = None
        else:
            trie.remove(pattern, entry)
            model.pop((pattern, entry), None)
    for key in published:
        expected = {entry for pattern, entry in model if naive(words(pattern), words(key))}
        assert set(trie.match(key)) == expected
    fresh: TopicTrie[int] = TopicTrie()
    for pattern, entry in model:
        fresh.insert(pattern, entry)
    assert trie.size() == fresh.size()
    for pattern, entry in model:
        trie.remove(pattern, entry)
    assert trie.size() == 0


def test_many_entries_under_one_pattern_keep_their_order() -> None:
    for pattern in ("a.b", "a.*"):
        trie: TopicTrie[int] = TopicTrie()
        for entry in (*range(100), 5, 50):
            trie.insert(pattern, entry)
        for entry in (3, 3, 99):
            trie.remove(pattern, entry)
        assert list(trie.match("a.b")) == [entry for entry in range(99) if entry != 3]


def test_an_entry_is_under_a_pattern_once() -> None:
    for pattern in ("a.b", "a.*", "#"):
        trie: TopicTrie[int] = TopicTrie()
        for entry in (1, 2, 1):
            trie.insert(pattern, entry)
        assert list(trie.match("a.b")) == [1, 2]


def test_what_is_removed_gives_its_memory_back() -> None:
    trie: TopicTrie[int] = TopicTrie()
    trie.insert("a.*", 1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(30_000):
        trie.insert(f"a.*.{number}", number)
    grown = tracemalloc.get_traced_memory()[0] - before
    for number in range(30_000):
        trie.remove(f"a.*.{number}", number)
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown > 3_000_000
    assert left < 300_000


def test_removing_what_is_not_there_changes_nothing() -> None:
    trie: TopicTrie[int] = TopicTrie()
    trie.insert("a.*", 1)
    trie.insert("a.b", 1)
    size = trie.size()
    for pattern in ("a.*", "a.b", "a.#", "a.*.c", "*", "x", "a.b.c"):
        trie.remove(pattern, 2)
    trie.remove("a.*.c", 1)
    assert trie.size() == size
    assert list(trie.match("a.b")) == [1, 1]


def test_removing_one_pattern_leaves_those_that_share_its_beginning() -> None:
    trie: TopicTrie[str] = TopicTrie()
    patterns = ["a.*", "a.*.c", "a.*.*", "a.*.#", "*.b.c", "#.c"]
    for pattern in patterns:
        trie.insert(pattern, pattern)
    for pattern in patterns:
        assert pattern in set(trie.match("a.b" if pattern == "a.*" else "a.b.c"))
        trie.remove(pattern, pattern)
        assert pattern not in {*trie.match("a.b"), *trie.match("a.b.c")}
    assert trie.size() == 0


@pytest.mark.parametrize("unit", ["#.a", "#.*", "#.#", "*.#.a"])
def test_patterns_full_of_wildcards_do_not_explode(unit: str) -> None:
    # Trying every way to share 120 words out among 40 wildcards would take longer than the universe is old.
    trie: TopicTrie[int] = TopicTrie()
    for count in range(1, 40):
        trie.insert(".".join([unit] * count + ["#"]), count)
        trie.insert(".".join([unit] * count + ["z"]), -count)
    assert set(trie.match(".".join(["a"] * 120))) == set(range(1, 40))


def test_literal_patterns_make_no_nodes_and_similar_ones_share_them() -> None:
    trie: TopicTrie[int] = TopicTrie()
    for number in range(1000):
        trie.insert(f"stock.usd.{number}", number)
    assert trie.size() == 1000
    for number in range(1000):
        trie.insert(f"stock.*.{number}", number)
    assert trie.size() == 2002
    assert list(trie.match("stock.usd.7")) == [7, 7]
