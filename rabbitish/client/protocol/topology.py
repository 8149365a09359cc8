"""What a program declared on a connection, so that it can be declared again on the next one.

Kept by the methods that made it: exchanges, then bindings between exchanges, queues, bindings of queues. What the
program deletes is forgotten, with the bindings that went with it. A queue that the broker named gets another name next
time, so bindings are kept by whatever name is current. Passive declarations declare nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from rabbitish.wire import methods
from rabbitish.wire.method import Method
from rabbitish.wire.table import encode_table

Binding: TypeAlias = methods.QueueBind | methods.ExchangeBind
_Key: TypeAlias = tuple[str, str, str, str, bytes]


def _key(method: Binding | methods.QueueUnbind | methods.ExchangeUnbind) -> _Key:
    arguments = encode_table(method.arguments)
    if isinstance(method, methods.QueueBind | methods.QueueUnbind):
        return "queue", method.queue, method.exchange, method.routing_key, arguments
    return "exchange", method.destination, method.source, method.routing_key, arguments


class Topology:
    """Exchanges, queues and bindings by name, in the order in which they were made."""

    def __init__(self) -> None:
        self.exchanges: dict[str, methods.ExchangeDeclare] = {}
        self.queues: dict[str, methods.QueueDeclare] = {}
        self.bindings: dict[_Key, Binding] = {}

    def note(self, method: Method, queue: str = "") -> None:
        """A method has been answered with its -ok; `queue` is the name in queue.declare-ok."""
        if isinstance(method, methods.ExchangeDeclare):
            if not method.passive:
                self.exchanges[method.exchange] = method
        elif isinstance(method, methods.QueueDeclare):
            if not method.passive:
                self.queues[queue] = method
        elif isinstance(method, methods.QueueBind | methods.ExchangeBind):
            self.bindings[_key(method)] = method
        elif isinstance(method, methods.QueueUnbind | methods.ExchangeUnbind):
            self.bindings.pop(_key(method), None)
        elif isinstance(method, methods.QueueDelete):
            self.forget_queue(method.queue)
        elif isinstance(method, methods.ExchangeDelete):
            self.exchanges.pop(method.exchange, None)
            self._forget(lambda key: method.exchange == key[2] or key[:2] == ("exchange", method.exchange))

    def forget_queue(self, queue: str) -> None:
        """The queue is gone."""
        self.queues.pop(queue, None)
        self._forget(lambda key: key[:2] == ("queue", queue))

    def _forget(self, gone: object) -> None:
        assert callable(gone)
        self.bindings = {key: method for key, method in self.bindings.items() if not gone(key)}

    def rename(self, old: str, new: str) -> None:
        """The broker gave a queue that it names another name."""
        self.queues = {new if name == old else name: method for name, method in self.queues.items()}
        bindings = [
            replace(method, queue=new) if isinstance(method, methods.QueueBind) and method.queue == old else method
            for method in self.bindings.values()
        ]
        self.bindings = {_key(method): method for method in bindings}

    def declarations(self) -> list[tuple[str, Method]]:
        """Exchanges and queues, with their names."""
        return [*self.exchanges.items(), *self.queues.items()]
