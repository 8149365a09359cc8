"""The log of a broker for tests: kept in memory, line by line, and printed nowhere.

It is no part of the program's own logging: whatever that is set up to do, it neither shows these lines nor loses them.
"""

from __future__ import annotations

import logging
from collections import deque

from rabbitish.server.log import LOGGER_NAME, LineFormatter, Log

_MOST_LINES = 10_000


class _Keeper(logging.Handler):
    def __init__(self, lines: deque[str]) -> None:
        super().__init__()
        self._lines = lines
        self.setFormatter(LineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


def captured_log(level: str) -> tuple[Log, deque[str]]:
    """A log, and the lines that are written to it; of very many the last."""
    lines: deque[str] = deque(maxlen=_MOST_LINES)
    logger = logging.Logger(LOGGER_NAME, level.upper())  # not in the tree of the program's loggers
    logger.addHandler(_Keeper(lines))
    return Log(logger, {}), lines
