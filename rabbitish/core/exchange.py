"""Exchanges and bindings: who gets a message with this routing key and these headers, one exchange at a time.

An `Exchange` keeps its bindings, each once, found again by destination; its kind (direct, fanout, topic, headers)
keeps whatever index answers `matches` fast. A kind is a small class with three methods in the registry `KINDS`, so
that a new type is one class and one line. Following bindings from exchange to exchange, alternates and cycles is
routing.py's; auto-delete, permissions and names are the vhost's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import chain
from operator import attrgetter
from typing import Protocol, TypeAlias

from rabbitish.core.headers import Demand, demand_of, offer_of, typed_table
from rabbitish.core.message import Message
from rabbitish.core.policing import UNGOVERNED, Governing
from rabbitish.core.topic import Entries, TopicTrie, file_entry, unfile_entry
from rabbitish.values import Table


class Target(Protocol):
    """Where a routed message ends: a queue, or what stands for one. Told apart by identity."""

    name: str
    durable: bool

    @property
    def holds(self) -> bool:
        """Whether it keeps messages. If no target does, a mandatory one counts as unroutable (RabbitMQ)."""

    @property
    def may_refuse(self) -> bool:
        """Whether `enqueue` may say no."""

    def outpaced(self, now: int) -> bool:
        """Whether more comes in than is taken by those who are at work for it."""

    def enqueue(self, message: Message, now: int) -> bool:
        """Take a message; False when it is refused."""

    def enqueue_alike(self, messages: list[Message], size: int, now: int) -> None:
        """Take messages of one kind, whose bodies are `size` bytes together, where none may be refused.

        Of one kind they expire or not, and have one priority.
        """


Destination: TypeAlias = "Target | Exchange"


class Binding:
    """One binding. Two with the same destination, routing key and arguments (types included) are the same one."""

    __slots__ = ("arguments", "destination", "identity", "routing_key", "serial", "source")

    def __init__(self, source: Exchange, destination: Destination, routing_key: str, arguments: Table) -> None:
        self.source = source
        self.destination = destination
        self.routing_key = routing_key
        self.arguments = arguments
        self.identity: Hashable = (routing_key, typed_table(arguments)) if arguments else routing_key
        self.serial = 0  # counts the bindings of the source as they were made


_in_order = attrgetter("serial")
_Places: TypeAlias = "tuple[tuple[str, Hashable], ...]"


class Kind(Protocol):
    """What makes an exchange's type: an index of its bindings."""

    uses_headers: bool

    def add(self, binding: Binding) -> None:
        """A binding that was not there is now; ChannelError when this type cannot have it."""

    def remove(self, binding: Binding) -> None:
        """A binding that was there is gone."""

    def matches(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        """Whom the message goes to; the same destination may come several times."""


class Direct:
    """The routing key equals the binding's."""

    __slots__ = ("_by_key",)
    uses_headers = False

    def __init__(self) -> None:
        self._by_key: dict[str, Entries[Binding]] = {}

    def add(self, binding: Binding) -> None:
        file_entry(self._by_key, binding.routing_key, binding)

    def remove(self, binding: Binding) -> None:
        unfile_entry(self._by_key, binding.routing_key, binding)

    def matches(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        return [binding.destination for binding in self._by_key.get(routing_key, ())]


class Fanout:
    """Every binding matches, so all that counts is who has any."""

    __slots__ = ("_bound", "_in_order")
    uses_headers = False

    def __init__(self) -> None:
        self._bound: dict[Destination, Entries[Binding]] = {}
        self._in_order = True  # whether these are in the order of the first bindings that they have

    def add(self, binding: Binding) -> None:
        file_entry(self._bound, binding.destination, binding)

    def remove(self, binding: Binding) -> None:
        if next(iter(self._bound[binding.destination])) is binding:
            self._in_order = False
        unfile_entry(self._bound, binding.destination, binding)

    def matches(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        if not self._in_order:
            self._bound = dict(sorted(self._bound.items(), key=lambda bound: next(iter(bound[1])).serial))
            self._in_order = True
        return list(self._bound)


class Topic:
    """The binding's key is a pattern for the routing key."""

    __slots__ = ("_trie",)
    uses_headers = False

    def __init__(self) -> None:
        self._trie: TopicTrie[Binding] = TopicTrie()

    def add(self, binding: Binding) -> None:
        self._trie.insert(binding.routing_key, binding)

    def remove(self, binding: Binding) -> None:
        self._trie.remove(binding.routing_key, binding)

    def matches(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        return [binding.destination for binding in sorted(self._trie.match(routing_key), key=_in_order)]


class Headers:
    """The binding's arguments ask for headers; the routing key does not count.

    A binding is kept under something that a matching message must have: one for "all" of its demands under that one
    which the fewest others are kept under, one for "any" under each. So a message is compared with few bindings.
    """

    __slots__ = ("_always", "_by_demand", "_kept")
    uses_headers = True

    def __init__(self) -> None:
        self._kept: dict[Binding, tuple[Demand, _Places]] = {}
        self._always: dict[Binding, None] = {}
        # by header and value; value None for those that ask only that the header is there
        self._by_demand: dict[tuple[str, Hashable], Entries[Binding]] = {}

    def add(self, binding: Binding) -> None:
        demand = demand_of(binding.arguments)
        places = demand.asked
        if not demand.any:
            if places:
                places = (min(places, key=lambda place: len(self._by_demand.get(place, ()))),)
            else:
                self._always[binding] = None
        for place in places:
            file_entry(self._by_demand, place, binding)
        self._kept[binding] = demand, places

    def remove(self, binding: Binding) -> None:
        _, places = self._kept.pop(binding)
        self._always.pop(binding, None)
        for place in places:
            unfile_entry(self._by_demand, place, binding)

    def matches(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        offered = offer_of(headers)
        found = dict(self._always)
        for place in offered.items():
            for binding in chain(self._by_demand.get(place, ()), self._by_demand.get((place[0], None), ())):
                if self._kept[binding][0].met_by(offered):
                    found[binding] = None
        return [binding.destination for binding in sorted(found, key=_in_order)]


KINDS: dict[str, Callable[[], Kind]] = {"direct": Direct, "fanout": Fanout, "headers": Headers, "topic": Topic}


class Exchange:
    """A named exchange with its bindings, those that lead away from it."""

    __slots__ = (
        "_by_destination",
        "_exchanges",
        "_kind",
        "_serial",
        "alternate",
        "arguments",
        "auto_delete",
        "durable",
        "ever_bound",
        "governing",
        "internal",
        "name",
        "type",
        "uses_headers",
    )

    def __init__(
        self,
        name: str,
        type_: str,
        *,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table | None = None,
    ) -> None:
        self.name = name
        self.type = type_
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments: Table = {} if arguments is None else arguments
        self.alternate = self._own_alternate
        self.governing = UNGOVERNED
        self.ever_bound = False
        self._kind = KINDS[type_]()
        self.uses_headers = self._kind.uses_headers
        self._by_destination: dict[Destination, dict[Hashable, Binding]] = {}
        self._exchanges: dict[Exchange, None] = {}
        self._serial = 0

    @property
    def _own_alternate(self) -> str | None:
        alternate = self.arguments.get("alternate-exchange")
        return alternate if isinstance(alternate, str) else None

    def govern(self, governing: Governing) -> None:
        """These policies hold from now on, beside what the exchange was declared with."""
        self.governing = governing
        alternate = self._own_alternate
        if alternate is None:
            value = governing.definition.get("alternate-exchange")
            alternate = value if isinstance(value, str) else None
        self.alternate = alternate

    def __repr__(self) -> str:
        return f"<Exchange {self.name!r} {self.type}>"

    def bind(self, binding: Binding) -> bool:
        """Add a binding; False when it is there already. ChannelError when this type cannot have it."""
        known = self._by_destination.get(binding.destination)
        if known is not None and binding.identity in known:
            return False
        self._kind.add(binding)
        self._serial += 1
        binding.serial = self._serial
        self.ever_bound = True
        self._by_destination.setdefault(binding.destination, {})[binding.identity] = binding
        if isinstance(binding.destination, Exchange):
            self._exchanges[binding.destination] = None
        return True

    def find(self, destination: Destination, routing_key: str, arguments: Table) -> Binding | None:
        """The binding with this identity; None when there is none."""
        identity = Binding(self, destination, routing_key, arguments).identity
        return self._by_destination.get(destination, {}).get(identity)

    def unbind(self, destination: Destination, routing_key: str, arguments: Table) -> Binding | None:
        """Take out the binding with this identity and return it; None when there is none."""
        wanted = Binding(self, destination, routing_key, arguments)
        binding = self._by_destination.get(destination, {}).pop(wanted.identity, None)
        if binding is not None:
            self._kind.remove(binding)
            if not self._by_destination[destination]:
                self._forget(destination)
        return binding

    def unbind_destination(self, destination: Destination) -> list[Binding]:
        """Take out every binding to a destination that goes, and return them; costs nothing for the others."""
        bindings = list(self._by_destination.get(destination, {}).values())
        for binding in bindings:
            self._kind.remove(binding)
        self._forget(destination)
        return bindings

    def _forget(self, destination: Destination) -> None:
        self._by_destination.pop(destination, None)
        if isinstance(destination, Exchange):
            self._exchanges.pop(destination, None)

    @property
    def bound(self) -> bool:
        """Whether there is any binding."""
        return bool(self._by_destination)

    def bindings(self) -> list[Binding]:
        """All bindings in the order they were made."""
        return sorted(chain.from_iterable(map(dict.values, self._by_destination.values())), key=_in_order)

    def bindings_to(self, destination: Destination) -> Iterable[Binding]:
        """The bindings to one destination."""
        return self._by_destination.get(destination, {}).values()

    def exchanges(self) -> Iterator[Exchange]:
        """The exchanges that this one is bound to send to."""
        return iter(self._exchanges)

    def matches(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        """Whom a message goes to from here, in the order of the bindings; one destination may come several times."""
        return self._kind.matches(routing_key, headers)


class DefaultExchange(Exchange):
    """The exchange "", which every queue is bound to by its name without there being a binding."""

    __slots__ = ("_lookup",)

    def __init__(self, lookup: Callable[[str], Target | None]) -> None:
        super().__init__("", "direct", durable=True)
        self._lookup = lookup

    def matches(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        """The queue of that name, if there is one."""
        target = self._lookup(routing_key)
        return () if target is None else (target,)
