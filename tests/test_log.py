"""The log: one line an event, whatever a client calls itself."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.server.log import LOGGER_NAME, configure, format_value, get_log

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    logger = logging.getLogger(LOGGER_NAME)
    before = logger.handlers[:], logger.propagate, logger.level, logging.raiseExceptions
    yield
    logger.handlers[:], logger.propagate, logger.level, logging.raiseExceptions = before


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    configure("info", stream)
    return stream


def test_an_event_is_time_level_words_and_fields(lines: io.StringIO) -> None:
    log = get_log(peer="10.0.0.7:50412").bind(user="guest", vhost="/")
    log.info("connection opened", client="order service", heartbeat=60, reason=None)
    line = lines.getvalue()
    assert re.match(TIME, line)
    said = line.partition("Z ")[2]
    assert said == 'info connection opened peer=10.0.0.7:50412 user=guest vhost=/ client="order service" heartbeat=60\n'


def test_levels(lines: io.StringIO) -> None:
    log = get_log()
    log.debug("one")
    log.warning("two")
    log.error("three")
    configure("debug", lines)
    log.debug("four")
    levels = [line.split(" ", 1)[1] for line in lines.getvalue().splitlines()]
    assert levels == ["warning two", "error three", "debug four"]


def test_a_bound_log_does_not_change_its_parent(lines: io.StringIO) -> None:
    parent = get_log(a=1)
    parent.bind(a=2, b=3).info("child")
    parent.info("parent")
    assert [line.partition("info ")[2] for line in lines.getvalue().splitlines()] == ["child a=2 b=3", "parent a=1"]


def test_a_bug_is_one_line_with_its_traceback(lines: io.StringIO) -> None:
    try:
        raise ValueError("bad\nname")
    except ValueError as error:
        get_log().exception("internal error", error, peer="x")
    (line,) = lines.getvalue().splitlines()
    assert ' error internal error peer=x error="ValueError(' in line
    assert r'traceback="Traceback (most recent call last):\n' in line
    assert r"ValueError: bad\nname\n" in line


def test_records_of_other_modules_are_lines_too(lines: io.StringIO) -> None:
    logging.getLogger(f"{LOGGER_NAME}.other").warning("two\nlines of %s", "mine")
    try:
        raise KeyError("k")
    except KeyError:
        logging.getLogger(LOGGER_NAME).exception("went wrong")
    first, second = lines.getvalue().splitlines()
    assert first.endswith(r" warning two\nlines of mine")
    assert r" error went wrong traceback=" in second


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("guest", "guest"),
        ("127.0.0.1:5->[::1]:6", "127.0.0.1:5->[::1]:6"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("a\nb\rc\td", r'"a\nb\rc\td"'),
        ("\x1b[31mred", r'"\x1b[31mred"'),
        ("\x85\u2028\u202e", r'"\x85\u2028\u202e"'),
        ("\U000e0001", r'"\U000e0001"'),
        (b"\xff".decode(errors="surrogateescape"), r'"\xff"'),
        ("\ud800", r'"\ud800"'),
        ("Grüße", "Grüße"),
        (7, "7"),
        (("a", 1), "\"('a', 1)\""),
    ],
)
def test_a_value(value: object, text: str) -> None:
    assert format_value(value) == text


def test_a_long_value_is_cut() -> None:
    assert format_value("x" * 600) == f'"{"x" * 512}...(600 characters)"'


@given(st.text(), st.text())
def test_no_name_forges_a_line_or_a_field(name: str, other: str) -> None:
    stream = io.StringIO()
    configure("info", stream)
    get_log(client=name).info("opened", user=other)
    (line, rest) = stream.getvalue().split("\n")
    assert rest == ""
    assert line.isprintable()
    value = r'(?:[^\s"=]+|"(?:[^"\\]|\\.)*")'
    assert re.fullmatch(rf"{TIME} info opened client={value} user={value}", line)
