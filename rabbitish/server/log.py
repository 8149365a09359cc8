"""The broker's log: one line an event on stderr, for eyes and for grep.

    2026-11-21T12:00:00.123Z info connection opened connection="10.0.0.7:50412 -> 10.0.0.2:5672" user=guest vhost=/

The event's words are ours; everything that a client chose is a value after a key. A value with anything in it that
could be taken for the end of the value is quoted, and whatever does not print is escaped, so a hostile name can forge
neither a line nor a field, nor reach the terminal. A traceback stays on its line as the value of `traceback`.

The standard library's logging lies underneath, under the logger "rabbitish", so a program that holds a broker can send
the records where it likes. This module never raises, and never decides what is worth a line.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping
from typing import TextIO

LOGGER_NAME = "rabbitish"

# Longest value: a client's name or product string has no business being longer, and the log is not theirs to fill.
_LONGEST_VALUE = 512
_LONGEST_TRACEBACK = 32 * 1024
_PLAIN = re.compile(r"[^\s\"'=\\]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Log:
    """Writes events that share some fields, such as everything about one connection."""

    __slots__ = ("_fields", "_logger")

    def __init__(self, logger: logging.Logger, fields: Mapping[str, object]) -> None:
        self._logger = logger
        self._fields = dict(fields)

    def bind(self, **fields: object) -> Log:
        """The same log with more fields in every line."""
        return Log(self._logger, {**self._fields, **fields})

    def debug(self, event: str, **fields: object) -> None:
        """What only somebody who hunts a fault wants to see."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What happened in the ordinary course of things."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """A client at fault, or a limit reached: the broker goes on as it should."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something that an operator has to do something about."""
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        """A bug of ours: an error with its traceback."""
        trace = "".join(traceback.format_exception(error))
        self._write(logging.ERROR, event, {**fields, "error": repr(error), "traceback": trace})

    def _write(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", event, extra={"fields": {**self._fields, **fields}})


class LineFormatter(logging.Formatter):
    """A record as one line; records of other libraries too."""

    def format(self, record: logging.LogRecord) -> str:
        """Time in UTC, level, event, then the fields."""
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [f"{clock}.{int(record.msecs):03d}Z", record.levelname.lower(), _escape(record.getMessage())]
        fields: Mapping[str, object] = getattr(record, "fields", {})
        parts += [f"{key}={format_value(value, _limit(key))}" for key, value in fields.items() if value is not None]
        if record.exc_info:
            parts.append(f"traceback={format_value(self.formatException(record.exc_info), _LONGEST_TRACEBACK)}")
        return " ".join(parts)


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send events of `level` ("debug" ... "error") and above to `stream`, stderr unless told. May be called again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    logger = logging.getLogger(LOGGER_NAME)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
    logging.raiseExceptions = False  # a closed stderr must not disturb the broker


def get_log(**fields: object) -> Log:
    """A log whose lines all have `fields`."""
    return Log(logging.getLogger(LOGGER_NAME), fields)


def format_value(value: object, longest: int = _LONGEST_VALUE) -> str:
    """A value as it stands after "key=": bare when nothing in it can be misread, else quoted and escaped."""
    text = str(value)
    if len(text) > longest:
        text = f"{text[:longest]}...({len(text)} characters)"
    if _PLAIN.fullmatch(text) and text.isprintable():
        return text
    return f'"{_escape(text)}"'


def _escape(text: str) -> str:
    """Backslash escapes for quotes, backslashes and all that does not print; bytes that were no UTF-8 as \\xNN."""
    if text.isprintable() and "\\" not in text and '"' not in text:
        return text
    return "".join(
        char if char.isprintable() and char not in _ESCAPES else _ESCAPES.get(char) or _numeric(char) for char in text
    )


def _numeric(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _limit(key: str) -> int:
    return _LONGEST_TRACEBACK if key == "traceback" else _LONGEST_VALUE
