"""Regular expressions of permissions: what they match, what is refused, and that none of them takes long."""

from __future__ import annotations

import random
import re

import pytest

from rabbitish.core.access.pattern_cost import costly
from rabbitish.core.access.pattern_syntax import PatternError
from rabbitish.core.access.patterns import LONGEST_PATTERN, STEPS_MAX, Budget, Pattern, TooHard


@pytest.mark.parametrize(
    ("text", "matching", "others"),
    [
        (".*", "any|", ""),
        ("^$", "|\n", "a"),
        ("^amq\\.", "amq.x", "amqx|xamq."),
        ("team-(a|b)\\.", "my-team-a.x|team-b.", "team-c.|team-a"),
        ("^(?!secret).*$", "other|", "secret|secret-2"),
        ("(?<!secret)$", "other|", "secret"),
        ("(?<=a|bc)x", "ax|bcx", "cx|bx|x"),
        ("^[[:alpha:]_]+$", "abc_D", "a1|"),
        ("^[^[:digit:]]$", "a", "1"),
        ("^[]a-c-]+$", "]abc-", "d"),
        ("^\\w+\\d{2,3}$", "abc12|abc123|abc1234", "abc1|12"),
        ("^a{2}$", "aa", "a|aaa"),
        ("^a{,2}$", "a{,2}", "aa"),
        ("^a{x}", "a{x}", "ax"),
        ("(?i)^abc(?-i)d$", "ABCd", "abcD"),
        ("^(?i:a)b", "Ab|ab", "aB"),
        ("^((?i)a|b)c$", "Ac|Bc", "aC"),
        ("\\Qa.b\\E+$", "a.b|a.bb", "axb"),
        ("^\\Qa.b", "a.b", "axb"),
        ("\\x41\\x{42}\\012", "AB\n", "AB"),
        ("\\bcat\\b", "a cat|cat", "cats"),
        ("\\Bcat", "scat", "cat"),
        ("^a.c$", "abc", "a\nc"),
        ("(?s)^a.c$", "a\nc", "ac"),
        ("(?m)^b$", "a\nb\nc", "ab"),
        ("^a$", "a|a\n", "a\n\n"),
        ("^a\\z", "a", "a\n"),
        ("^a(?#comment)b", "ab", "a"),
        ("(?<name>a)(?P<other>b)(?'third'c)", "abc", "ab"),
        ("^ä$", "ä", "a"),
        ("^..$", "ä", "a"),
        ("", "a|", ""),
        ("a|", "b|", ""),
        ("()*a", "a", "b"),
        ("(a*)*b", "aab", "aac"),
        ("[\\w.]+@[\\d\\b]", "a.b@1|a@\b", "@1"),
        ("[[.]", "[|.", "a"),
    ],
)
def test_what_matches(text: str, matching: str, others: str) -> None:
    pattern = Pattern(text)
    for subject in matching.split("|"):
        assert pattern.matches(subject.encode()), subject
    for subject in others.split("|") if others else ():
        assert not pattern.matches(subject.encode()), subject


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(", "missing ) at offset 1"),
        ("a)", "unmatched parentheses at offset 1"),
        ("*a", "nothing to repeat at offset 0"),
        ("a|+", "nothing to repeat at offset 2"),
        ("[a", "missing terminating ] for character class at offset 2"),
        ("[]", "missing terminating ]"),
        ("[b-a]", "range out of order"),
        ("[a-\\d]", "invalid range"),
        ("[[:nosuch:]]", "unknown POSIX class"),
        ("a{2,1}", "numbers out of order"),
        ("a{70000}", "number too big"),
        ("(a)\\1", "\\1 is not supported"),
        ("\\p{L}", "\\p is not supported"),
        ("a++", "possessive"),
        ("(?>a)", "this kind of group is not supported"),
        ("(*UTF)a", "verbs are not supported"),
        ("(?R)", "this kind of group"),
        ("(?#a", "missing ) after comment"),
        ("(?i", "missing )"),
        ("(?<a", "missing terminator"),
        ("(?<=a*)b", "not fixed length"),
        ("(?<=(a|bc)d)b", "not fixed length"),
        ("\\", "\\ at end of pattern"),
        ("\\x{100}", "too large"),
        ("\\x{41", "missing } after"),
        ("\udcff", "not valid text"),
        ("(" * 200 + ")" * 200, "too many groups in groups"),
        ("((a{100}){100}){100}", "too large when its repetitions are written out"),
        ("((){60000}){60000}", "too large"),
        ("a" * (LONGEST_PATTERN + 1), "longer than"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(PatternError, match=re.escape(why)):
        Pattern(text)


HOSTILE = b"a" * 254 + b"!"


@pytest.mark.parametrize(
    "text", ["^(a+)+$", "^(a|a)*$", "(a*)*b", "^(a|aa)+$", "a*a*a*a*a*a*a*b", "(.*){1,9}[bc]", "^(?=(a+)+b)"]
)
def test_what_hangs_others_takes_no_time(text: str) -> None:
    assert not Pattern(text).matches(HOSTILE)


def test_what_would_take_long_is_given_up() -> None:
    with pytest.raises(TooHard):
        Pattern("(?=(.*){100}b)(?=(.*){101}b)" * 5).matches(HOSTILE)
    with pytest.raises(TooHard):
        Pattern("(" + "|".join(f"a*{number}" for number in range(900)) + ")b").matches(HOSTILE)


def test_several_matches_share_a_budget() -> None:
    budget = Budget(1000)
    pattern = Pattern("^(a|aa)+$")
    with pytest.raises(TooHard):
        pattern.matches(HOSTILE, budget)
    assert budget.left < 0
    with pytest.raises(TooHard):
        Pattern("a").matches(b"a", budget)


@pytest.mark.parametrize(
    "text",
    [
        ".*",
        "^(amq\\.gen.*|amq\\.default)$",
        "^(?!amq\\.|federation:).*$",
        ".*_dlq$",
        "celery|celeryev\\..*|.*\\.pidbox|.*\\.reply\\.celery.*",
        "^[a-z0-9-]+\\.v[0-9]+\\.(events|commands)$",
        "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        "^.{1,200}$",
        "(?i)^" + "|^".join(f"service-{number}" for number in range(300)),
        "^(" + "|".join(f"service-{number}" for number in range(300)) + ")$",
        "|".join(f"event-{number}" for number in range(100)),
    ],
)
def test_what_people_write_takes_few_steps(text: str) -> None:
    """Also on names that are much like what is asked for: three quarters of the budget at most."""
    assert not costly(text)
    for name in ("orders.v1.events", "service-299", "event-99", "amq.gen-JzTY20BRgKO-HjmUJj0wLg", "celery" * 10):
        budget = Budget(STEPS_MAX)
        Pattern(text).matches(name.encode(), budget)
        assert budget.left > STEPS_MAX / 4


@pytest.mark.parametrize(
    "text",
    [
        "(" + "|".join(f"a*{number}" for number in range(900)) + ")b",
        "^(x|(.?){600})y",
        "^team-([a-z]?){700}$",
        "(?=([ab]*){300}c)x",
    ],
)
def test_what_takes_long_for_short_names_already(text: str) -> None:
    assert costly(text)


# Without \B, which Python does not find in nothing.
ATOMS = ("a", "b", ".", "[ab]", "[^a]", "\\w", "\\.", "^", "$", "\\b", "\\A", "\\d", "-", "[a-c.]")


def expression(chance: random.Random, depth: int = 0) -> str:
    roll = chance.random()
    if depth > 3 or roll < 0.35:
        return chance.choice(ATOMS)
    inner = expression(chance, depth + 1)
    if roll < 0.55:
        return inner + expression(chance, depth + 1)
    if roll < 0.7:
        return f"(?:{inner}|{expression(chance, depth + 1)})"
    if roll < 0.85:
        return f"(?:{inner}){chance.choice(['*', '+', '?', '{2}', '{1,2}', '{0,2}?', '{2,}', '*?'])}"
    return f"{chance.choice(('(?=', '(?!', '('))}{inner})"


def test_the_same_as_pythons_own_expressions() -> None:
    chance = random.Random(1)
    compared = 0
    while compared < 3_000:
        text = expression(chance)
        try:
            theirs = re.compile(text.encode())
        except re.error:  # it refuses repetitions of nothing
            continue
        ours = Pattern(text)
        for _ in range(5):
            subject = "".join(chance.choices("aabbc.-_\n1", k=chance.randrange(8))).encode()
            assert ours.matches(subject) is bool(theirs.search(subject)), (text, subject)
            compared += 1
