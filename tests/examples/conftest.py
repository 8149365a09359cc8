"""Conversations with the examples: `async def test_…(world)` runs in trio, with a broker as its world.

Ours runs in the same program, new for each test; `pytest tests/examples --broker amqp://…` has them talk to that one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

from rabbitish import testing
from tests.examples.support import Running, World


def pytest_addoption(parser: pytest.Parser) -> None:
    try:
        parser.addoption("--broker", help="run against this broker: amqp://user:password@host:port/vhost")
    except ValueError:
        pass  # the conformance suite has it too


@pytest.fixture(scope="session")
def outside(request: pytest.FixtureRequest) -> str | None:
    """The broker that was given; None: ours."""
    given: str | None = request.config.getoption("--broker", default=None)
    return given


@pytest.fixture
def world(outside: str | None) -> World:
    """A broker, connections to it and the time there."""
    return World(outside)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an asynchronous test in the world that it asks for."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    pyfuncitem.funcargs["world"].run(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in names})
    return True


@pytest.fixture(scope="session")
def running(outside: str | None) -> Iterator[Running]:
    """The broker for programs in processes of their own: its URL, and it if it is ours."""
    if outside is not None:
        yield outside, None
    else:
        with testing.running_broker() as broker:
            yield broker.url, broker
