"""The fixtures for pytest, found by it through the entry point `pytest11`; docs/TESTING.md tells what to do with them.

Every test run of whoever has rabbitish installed imports this module, so it imports nothing of ours: the broker is
imported when a fixture wants one. With pytest-xdist each worker is a process with a session, and a broker, of its own.
There are no assertions here for pytest to rewrite (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rabbitish.testing.thread import RunningBroker
    from rabbitish.testing.views import Vhost

_LINES_SHOWN = 50
_REWRITER = "_pytest.assertion.rewrite"


@contextmanager
def _nothing_rewritten() -> Iterator[None]:
    """Import what is imported here as it is.

    pytest rewrites the assertions in all modules of a distribution that brings a plugin. The broker's are none of a
    test's: they would make its start take half as long again, and it slower.
    """
    places = [place for place, finder in enumerate(sys.meta_path) if type(finder).__module__ == _REWRITER]
    rewriters = [(place, sys.meta_path[place]) for place in places]
    for _, rewriter in rewriters:
        sys.meta_path.remove(rewriter)
    try:
        yield
    finally:
        for place, rewriter in rewriters:
            sys.meta_path.insert(place, rewriter)


@pytest.fixture(scope="session")
def rabbitish_options() -> dict[str, Any]:
    """What `rabbitish_broker` is started with, the keywords of `running_broker`; override it to change them."""
    return {}


@pytest.fixture(scope="session")
def rabbitish_broker(rabbitish_options: dict[str, Any]) -> Iterator[RunningBroker]:
    """A broker in a thread of its own, for the whole test session."""
    with _nothing_rewritten():
        from rabbitish.testing.thread import running_broker

    with running_broker(**rabbitish_options) as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbitish_url(rabbitish_broker: RunningBroker) -> str:
    """The URL of that broker's default virtual host, which all tests share."""
    return rabbitish_broker.url


@pytest.fixture
def rabbitish_vhost(rabbitish_broker: RunningBroker) -> Iterator[Vhost]:
    """A virtual host for this test alone; afterwards it is deleted and every fault that is on is undone."""
    with rabbitish_broker.fresh_vhost() as vhost:
        try:
            yield vhost
        finally:
            rabbitish_broker.restore()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the broker's log with a test that failed."""
    report = yield
    broker = getattr(item, "funcargs", {}).get("rabbitish_broker") if report.failed else None
    if broker is not None:
        report.sections.append(("rabbitish log", "\n".join(broker.log[-_LINES_SHOWN:])))
    return report
