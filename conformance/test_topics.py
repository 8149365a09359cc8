"""Topic exchanges: `*` stands for exactly one word, `#` for none or more.

Words are what lies between dots, empty ones included; but the empty key has no word at all.
"""

from __future__ import annotations

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import drain, publish
from conformance.support import Names

KEYS = [
    "",
    ".",
    "..",
    "a",
    "b",
    "A",
    "a.",
    ".a",
    "a.b",
    "a..b",
    "a.b.",
    "b.a",
    "a.b.c",
    "a.x.c",
    "a.b.c.d",
    "a.a.a",
    "aa",
    "a b",
    "*",
    "#",
    "a.*",
    "a.#",
    "☃.ü",
]

WORDS = [key for key in KEYS if key]
TWO_WORDS = [key for key in KEYS if "." in key]

MATCHES: dict[str, list[str]] = {
    "": [""],
    ".": ["."],
    "a": ["a"],
    "a.": ["a."],
    ".a": [".a"],
    "a.b": ["a.b"],
    "a..b": ["a..b"],
    "a.b.c": ["a.b.c"],
    "#": KEYS,
    "#.#": KEYS,
    "#.#.#": KEYS,
    "*": ["a", "b", "A", "aa", "a b", "*", "#"],
    "*.*": [".", "a.", ".a", "a.b", "b.a", "a.*", "a.#", "☃.ü"],
    "*.*.*": ["..", "a..b", "a.b.", "a.b.c", "a.x.c", "a.a.a"],
    "*.#": WORDS,
    "#.*": WORDS,
    "*.#.*": TWO_WORDS,
    "#.*.#": WORDS,
    "a.*": ["a.", "a.b", "a.*", "a.#"],
    "a.#": ["a", "a.", "a.b", "a..b", "a.b.", "a.b.c", "a.x.c", "a.b.c.d", "a.a.a", "a.*", "a.#"],
    "*.b": ["a.b"],
    "#.b": ["b", "a.b", "a..b"],
    "#.a": ["a", ".a", "b.a", "a.a.a"],
    "a.*.c": ["a.b.c", "a.x.c"],
    "a.#.c": ["a.b.c", "a.x.c"],
    "a.#.b": ["a.b", "a..b"],
    "a.#.a": ["a.a.a"],
    "a.#.#": ["a", "a.", "a.b", "a..b", "a.b.", "a.b.c", "a.x.c", "a.b.c.d", "a.a.a", "a.*", "a.#"],
    "a.#.*": ["a.", "a.b", "a..b", "a.b.", "a.b.c", "a.x.c", "a.b.c.d", "a.a.a", "a.*", "a.#"],
    "#.b.#": ["b", "a.b", "a..b", "a.b.", "b.a", "a.b.c", "a.b.c.d"],
    "#.c.*": ["a.b.c.d"],
    "*.*.#": TWO_WORDS,
    "a.*.#.d": ["a.b.c.d"],
    "#.": [".", "..", "a.", "a.b."],
    ".#": [".", "..", ".a"],
    "..": [".."],
    "a*": [],
    "a#": [],
    "*a": [],
    "a.b*": [],
    "A": ["A"],
    "*.ü": ["☃.ü"],
    "☃.#": ["☃.ü"],
}


@pytest.mark.parametrize("pattern", list(MATCHES))
def test_pattern(channel: BlockingChannel, name: Names, pattern: str) -> None:
    exchange, queue = name("x"), name()
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, pattern)
    for key in KEYS:
        channel.basic_publish(exchange, key, key.encode())
    assert drain(channel, queue) == MATCHES[pattern]


def test_all_patterns_at_once(channel: BlockingChannel, name: Names) -> None:
    matches = dict(list(MATCHES.items())[::2])
    exchange, queues = name("x"), [name() for _ in matches]
    channel.exchange_declare(exchange, "topic")
    for queue, pattern in zip(queues, matches, strict=True):
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, pattern)
    for key in KEYS:
        publish(channel, key, key, exchange=exchange)
    got = {pattern: drain(channel, queue) for queue, pattern in zip(queues, matches, strict=True)}
    assert got == matches


@pytest.mark.parametrize(
    ("bound", "gone", "left"),
    [
        (["a.*", "a.b"], "a.*", ["a.b"]),
        (["a.*", "a.b"], "a.b", ["a.b", "a.c"]),
        (["#", "a.#"], "#", ["a.b", "a.c", "a"]),
        (["a.#", "a.#.#"], "a.#.#", ["a.b", "a.c", "a"]),
        (["*.b", "#.b"], "*.b", ["a.b", "b"]),
        (["a.b"], "a.*", ["a.b"]),
    ],
)
def test_unbinding_one_pattern_leaves_the_others(
    channel: BlockingChannel, name: Names, bound: list[str], gone: str, left: list[str]
) -> None:
    exchange, queue = name("x"), name()
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue)
    for pattern in bound:
        channel.queue_bind(queue, exchange, pattern)
    channel.queue_unbind(queue, exchange, gone)
    for key in ("a.b", "a.c", "a", "b"):
        publish(channel, key, key, exchange=exchange)
    assert drain(channel, queue) == left


def test_many_words(channel: BlockingChannel, name: Names) -> None:
    exchange, queue = name("x"), name()
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "#.z." + ".".join("*" * 20) + ".#")
    long_key = ".".join("a" * 100 + "z" + "b" * 20)
    publish(channel, long_key, "m", exchange=exchange)
    publish(channel, long_key[:-2], "n", exchange=exchange)
    assert drain(channel, queue) == ["m"]
