"""A real broker inside a test suite: `broker()` in a trio program, `running_broker()` for all others.

    async with rabbitish.testing.broker() as broker: ...
    with rabbitish.testing.running_broker() as broker: ...

It speaks AMQP on a free port of the loopback, keeps nothing on disk, moves its time where it is told, fails where it is
told, and shows what its queues hold. docs/TESTING.md is the guide; plugin.py has the fixtures for pytest. Names are
imported when they are first used, so that a test run that uses none pays for none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rabbitish.testing.faults import Fault as Fault
    from rabbitish.testing.loop import Broker as Broker
    from rabbitish.testing.loop import broker as broker
    from rabbitish.testing.thread import RunningBroker as RunningBroker
    from rabbitish.testing.thread import running_broker as running_broker
    from rabbitish.testing.views import Binding as Binding
    from rabbitish.testing.views import Connection as Connection
    from rabbitish.testing.views import Exchange as Exchange
    from rabbitish.testing.views import Message as Message
    from rabbitish.testing.views import Queue as Queue
    from rabbitish.testing.views import Vhost as Vhost

_HOMES = {
    "faults": ("Fault",),
    "loop": ("Broker", "broker"),
    "thread": ("RunningBroker", "running_broker"),
    "views": ("Binding", "Connection", "Exchange", "Message", "Queue", "Vhost"),
}

__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
