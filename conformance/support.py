"""What every case may use besides fixtures: the broker's address, deliberate differences, polling with a deadline.

It holds no test and no fixture (those are in conftest.py) and knows nothing about any broker's insides.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import pytest

T = TypeVar("T")

DEADLINE = 5.0
"""Seconds that a case waits at most for something that must happen."""


@dataclass(frozen=True)
class Broker:
    """The broker under test and how to log in to it."""

    host: str
    port: int
    user: str
    password: str
    vhost: str
    is_rabbitmq: bool

    @property
    def url(self) -> str:
        """The address in the form clients take, e.g. amqp://guest:guest@127.0.0.1:5672/%2F."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"amqp://{login}@{self.host}:{self.port}/{quote(self.vhost, safe='')}"


def parse_url(url: str) -> dict[str, Any]:
    """The parts of an amqp:// URL; a missing or empty path means vhost "/"."""
    parts = urlsplit(url)
    if parts.scheme != "amqp" or not parts.hostname:
        raise ValueError(f"--broker wants amqp://user:password@host:port/vhost, not {url!r}")
    return {
        "host": parts.hostname,
        "port": parts.port or 5672,
        "user": unquote(parts.username or "guest"),
        "password": unquote(parts.password or "guest"),
        "vhost": unquote(parts.path[1:]) or "/",
    }


class Names:
    """Makes unique names; whatever is called so, queue or exchange, is deleted after the case."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, prefix: str = "q") -> str:
        return self.adopt(f"cf.{prefix}.{uuid.uuid4().hex[:12]}")

    def adopt(self, given: str) -> str:
        """Delete this one too (a server-named queue, say)."""
        self.made.append(given)
        return given


def differs(*, rabbitmq: Any, rabbitish: Any, reason: str) -> pytest.MarkDecorator:
    """Mark a case where rabbitish does something else than RabbitMQ 3.10 on purpose.

    The test takes the fixture `expected`, which is `rabbitmq` or `rabbitish`, by the broker under test. Works as a
    decorator and in `pytest.param(..., marks=differs(...))`.
    """
    return pytest.mark.differs(rabbitmq=rabbitmq, rabbitish=rabbitish, reason=reason)


def eventually(condition: Callable[[], T], timeout: float = DEADLINE, every: float = 0.01) -> T:
    """Poll until `condition()` returns something true and does not raise AssertionError; return that.

    `timeout` and `every` are in seconds. Raises AssertionError with the last outcome when time is up.
    """
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            result = condition()
            if result:
                return result
            last = result
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s; last: {last!r}")
        time.sleep(every)
