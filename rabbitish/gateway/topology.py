"""What a connection has declared that may end with a leader: what is not durable or deletes itself, and bindings.

Exclusive queues are among them, whatever their declare says. It is declared anew at the next leader, without messages,
as those are lost like transient ones anywhere; what is durable and deletes itself is there with them, unless a leader
took the session for gone. What others have deleted meanwhile may so come back, which is what clients that recover by
themselves do as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from rabbitish.wire import methods
from rabbitish.wire.method import Method
from rabbitish.wire.table import encode_table

_MADE_UP = "amq.gen-"
_MOST = 10_000
_MOST_BYTES = 16 * 1024 * 1024
Bind = methods.QueueBind | methods.ExchangeBind
Unbind = methods.QueueUnbind | methods.ExchangeUnbind


def destination_of(bind: Bind | Unbind) -> str:
    """Whose binding it is."""
    return bind.queue if isinstance(bind, methods.QueueBind | methods.QueueUnbind) else bind.destination


def source_of(bind: Bind | Unbind) -> str:
    """The exchange that it is bound to."""
    return bind.exchange if isinstance(bind, methods.QueueBind | methods.QueueUnbind) else bind.source


Place = tuple[bool, str]
"""A queue's, or an exchange's, and its name."""


def _place(bind: Bind | Unbind) -> Place:
    """Of its destination."""
    return isinstance(bind, methods.QueueBind | methods.QueueUnbind), destination_of(bind)


Key = tuple[str, str, bytes]
"""A binding's, among those of its destination."""
Thing = Place | tuple[Place, Key]
"""Something that is remembered: a queue or an exchange, or a binding."""


def _key(bind: Bind | Unbind) -> Key:
    """What makes it this binding and no other of its destination."""
    return source_of(bind), bind.routing_key, encode_table(bind.arguments)


class Topology:
    """See the module. Names are told in full: none is empty that stands for another."""

    def __init__(self) -> None:
        self._queues: dict[str, methods.QueueDeclare] = {}
        self._exchanges: dict[str, methods.ExchangeDeclare] = {}
        # By destination; with each the declare of its source, if that is in here: it ends with that one.
        self._bindings: dict[Place, dict[Key, tuple[Bind, methods.ExchangeDeclare | None]]] = {}
        self._consumers: Counter[str] = Counter()  # of this connection, by queue
        self._sizes: dict[Thing, int] = {}  # of all that is remembered
        self._bytes = 0  # of it
        self._too_much = False

    @property
    def too_much(self) -> bool:
        """Whether it was more than is remembered."""
        return self._too_much

    @property
    def names(self) -> frozenset[str]:
        """Names of queues that a leader has made up."""
        return frozenset(name for name in self._queues if name.startswith(_MADE_UP))

    def _remember(self, thing: Thing, method: methods.QueueDeclare | methods.ExchangeDeclare | Bind) -> bool:
        """Count it; whether there is room for it."""
        size = self._sizes[thing] = len(method.encode())
        self._bytes += size
        if len(self._sizes) > _MOST or self._bytes > _MOST_BYTES:
            self._too_much = True
        if self._too_much:
            self._queues, self._exchanges, self._bindings, self._sizes = {}, {}, {}, {}
        return not self._too_much

    def _forget(self, *things: Thing) -> None:
        for thing in things:
            self._bytes -= self._sizes.pop(thing, 0)

    def declared(self, method: methods.QueueDeclare | methods.ExchangeDeclare, name: str) -> None:
        """A queue or exchange is there, under that name."""
        if method.passive:
            return
        if isinstance(method, methods.ExchangeDeclare):
            passing = (method.auto_delete or not method.durable) and not name.startswith("amq.")
            if passing and name not in self._exchanges and self._remember((False, name), method):
                self._exchanges[name] = replace(method, exchange=name, nowait=False)
            return
        passing = method.exclusive or method.auto_delete or not method.durable
        if passing and name not in self._queues and self._remember((True, name), method):
            self._queues[name] = replace(method, queue=name, nowait=False)

    def queue_gone(self, name: str) -> None:
        """A queue was deleted, or is about to delete itself."""
        if self._queues.pop(name, None) is not None:
            self._gone((True, name))

    def exchange_gone(self, name: str) -> None:
        """An exchange was deleted, and what was bound to it is not any more."""
        if self._exchanges.pop(name, None) is not None:
            self._gone((False, name))
            for place, bindings in list(self._bindings.items()):
                for key in [key for key in bindings if key[0] == name]:
                    self._drop(place, key)

    def _gone(self, place: Place) -> None:
        self._forget(place, *((place, key) for key in self._bindings.pop(place, ())))

    def _drop(self, place: Place, key: Key) -> None:
        bindings = self._bindings.get(place, {})
        if bindings.pop(key, None) is not None:
            self._forget((place, key))
            if not bindings:
                del self._bindings[place]

    def consumed(self, queue: str) -> None:
        """A consumer of this connection has begun."""
        self._consumers[queue] += 1

    def consumer_gone(self, queue: str) -> None:
        """One has ended."""
        self._consumers[queue] -= 1
        if not self._consumers[queue]:
            del self._consumers[queue]
            declare = self._queues.get(queue)
            if declare is not None and declare.auto_delete:
                self.queue_gone(queue)

    def bound(self, bind: Bind) -> None:
        """There is a binding."""
        place, key = _place(bind), _key(bind)
        source = self._exchanges.get(source_of(bind))
        mine = self._queues if isinstance(bind, methods.QueueBind) else self._exchanges
        if source is None and destination_of(bind) not in mine:
            return
        known = self._bindings.get(place, {}).get(key)
        if known is not None and known[1] is source:
            return
        if known is not None or self._remember((place, key), bind):
            self._bindings.setdefault(place, {})[key] = replace(bind, nowait=False), source

    def unbound(self, unbind: Unbind) -> None:
        """There is no such binding any more."""
        self._drop(_place(unbind), _key(unbind))

    def steps(self) -> Iterator[Method]:
        """What declares all of it anew, in an order in which that can be done."""
        yield from self._exchanges.values()
        yield from self._queues.values()
        for bindings in self._bindings.values():
            yield from (bind for bind, source in bindings.values() if source is self._exchanges.get(source_of(bind)))
