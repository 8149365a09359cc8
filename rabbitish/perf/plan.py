"""Who publishes where and who consumes from what, as a pure function of the options.

As in PerfTest: a named queue is bound with its own name and shared by all; of several queues each producer and each
consumer takes one, in turn; without a name each consumer has a queue of its own and gets a copy of every message.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rabbitish.perf.options import Options
from rabbitish.values import Table
from rabbitish.wire.properties import Properties

_PERSISTENT, _TRANSIENT = 2, 1
_COMPARES_KEYS = ("direct", "topic")
_TAKES_ALL = ("fanout", "headers")


@dataclass(frozen=True)
class Plan:
    """The topology of a run. `token` is the routing key where neither the user nor a queue has one."""

    options: Options
    token: str

    @property
    def exchange(self) -> str:
        """The exchange's name; the default exchange's is empty."""
        name = self.options.exchange
        if name is None:
            return self.options.exchange_type
        return "" if name == "amq.default" else name

    @property
    def declares_exchange(self) -> bool:
        """Whether the exchange is ours to declare."""
        name = self.exchange
        return bool(name) and not name.startswith("amq.") and not self.options.predeclared

    @property
    def queues(self) -> list[str]:
        """The queues to declare; an empty name is the server's to choose."""
        options = self.options
        if options.queue_pattern:
            numbers = range(options.queue_pattern_from, options.queue_pattern_to + 1)
            return [options.queue_pattern % number for number in numbers]
        return [options.queue] if options.queue else [""] * options.consumers

    @property
    def leaves_queues(self) -> bool:
        """Whether some of the queues will be there after the run, unless somebody else deletes them."""
        options = self.options
        return not options.auto_delete or len(self.queues) > options.consumers

    @property
    def queue_arguments(self) -> Table:
        """The arguments that queues are declared with."""
        options = self.options
        return {**options.queue_args, "x-max-priority": options.priority} if options.priority else options.queue_args

    def binding_key(self, name: str) -> str:
        """The key that the queue of this name is bound with."""
        options = self.options
        if options.routing_key is not None:
            return options.routing_key
        return name if options.queue or options.queue_pattern or not self.exchange else self.token

    def producer_key(self, producer: int, names: list[str]) -> str:
        """The routing key of a producer, by its number. `names`: of all queues, as declared."""
        options = self.options
        if options.routing_key is not None:
            return options.routing_key
        return self.binding_key(names[producer % len(names)]) if names else self.token

    def consumer_queue(self, consumer: int, names: list[str]) -> str:
        """The queue of a consumer, by its number."""
        return names[consumer % len(names)]

    def copies(self, names: list[str]) -> int | None:
        """How many of the queues each message reaches; None where only the broker knows."""
        options = self.options
        if options.predeclared:
            return None
        if not self.exchange:
            return names.count(self.producer_key(0, names))
        if options.exchange_type in _TAKES_ALL:
            return len(names)
        if options.exchange_type in _COMPARES_KEYS:
            return [self.binding_key(name) for name in names].count(self.producer_key(0, names))
        return None

    @property
    def properties(self) -> list[Properties]:
        """The properties that messages have, in turn."""
        options = self.options
        base = replace(options.properties)
        if base.delivery_mode is None:
            base.delivery_mode = _PERSISTENT if options.persistent else _TRANSIENT
        if not options.priority:
            return [base]
        return [replace(base, priority=priority) for priority in range(options.priority + 1)]
