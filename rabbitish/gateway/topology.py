"""What a connection has declared that ends with a leader: queues and exchanges that are not durable, and bindings.

Exclusive queues are among them, whatever their declare says. It is declared anew at the next leader, without messages,
as those are lost like transient ones anywhere. What others have deleted meanwhile may so come back, which is what
clients that recover by themselves do as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rabbitish.wire import methods
from rabbitish.wire.method import Method
from rabbitish.wire.table import encode_table

_MADE_UP = "amq.gen-"
_MOST = 10_000
Bind = methods.QueueBind | methods.ExchangeBind
Unbind = methods.QueueUnbind | methods.ExchangeUnbind


def destination_of(bind: Bind | Unbind) -> str:
    """Whose binding it is."""
    return bind.queue if isinstance(bind, methods.QueueBind | methods.QueueUnbind) else bind.destination


def source_of(bind: Bind | Unbind) -> str:
    """The exchange that it is bound to."""
    return bind.exchange if isinstance(bind, methods.QueueBind | methods.QueueUnbind) else bind.source


def _key(bind: Bind | Unbind) -> tuple[object, ...]:
    """What makes it this binding and no other."""
    of_queue = isinstance(bind, methods.QueueBind | methods.QueueUnbind)
    return of_queue, destination_of(bind), source_of(bind), bind.routing_key, encode_table(bind.arguments)


class Topology:
    """See the module. Names are told in full: none is empty that stands for another."""

    def __init__(self) -> None:
        self._queues: dict[str, methods.QueueDeclare] = {}
        self._exchanges: dict[str, methods.ExchangeDeclare] = {}
        self._bindings: dict[tuple[object, ...], Bind] = {}

    @property
    def too_much(self) -> bool:
        """Whether it is more than is remembered."""
        return len(self._queues) + len(self._exchanges) + len(self._bindings) > _MOST

    @property
    def names(self) -> frozenset[str]:
        """Names of queues that a leader has made up."""
        return frozenset(name for name in self._queues if name.startswith(_MADE_UP))

    def declared(self, method: methods.QueueDeclare | methods.ExchangeDeclare, name: str) -> None:
        """A queue or exchange is there, under that name."""
        if method.passive:
            return
        if isinstance(method, methods.ExchangeDeclare):
            if not method.durable and not name.startswith("amq."):
                self._exchanges[name] = replace(method, exchange=name, nowait=False)
        elif method.exclusive or not method.durable:
            self._queues[name] = replace(method, queue=name, nowait=False)

    def queue_gone(self, name: str) -> None:
        """A queue was deleted, or is about to delete itself."""
        if self._queues.pop(name, None) is not None:
            self._forget_bindings(methods.QueueBind, name, source="")

    def exchange_gone(self, name: str) -> None:
        """An exchange was deleted."""
        if self._exchanges.pop(name, None) is not None:
            self._forget_bindings(methods.ExchangeBind, name, source=name)

    def _forget_bindings(self, kind: type[Bind], destination: str, *, source: str) -> None:
        self._bindings = {
            key: each
            for key, each in self._bindings.items()
            if not (source and source_of(each) == source)
            and not (isinstance(each, kind) and destination_of(each) == destination)
        }

    def consumer_gone(self, queue: str, others: int) -> None:
        """A consumer has ended; so many of this connection are left on its queue."""
        declare = self._queues.get(queue)
        if declare is not None and declare.auto_delete and not others:
            self.queue_gone(queue)

    def bound(self, bind: Bind) -> None:
        """There is a binding."""
        mine = self._queues if isinstance(bind, methods.QueueBind) else self._exchanges
        if destination_of(bind) in mine or source_of(bind) in self._exchanges:
            self._bindings.setdefault(_key(bind), replace(bind, nowait=False))

    def unbound(self, unbind: Unbind) -> None:
        """There is no such binding any more."""
        self._bindings.pop(_key(unbind), None)

    def steps(self) -> Iterator[Method]:
        """What declares all of it anew, in an order in which that can be done."""
        yield from self._exchanges.values()
        yield from self._queues.values()
        yield from self._bindings.values()
