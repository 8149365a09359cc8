"""Exchanges, queues and bindings of a definitions file: whether they can be, and then making them.

RabbitMQ's rule for what is there already: it stays as it is, whatever the file says of it. So making them again changes
nothing, and what somebody else does between two pieces of an import cannot make it fail. Names that begin with "amq."
are left out, as there, and so are bindings of what is neither in the file nor in the broker: RabbitMQ exports those of
exclusive queues and internal exchanges without these themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from rabbitish.core import arguments as args
from rabbitish.core.access.records import AccessError
from rabbitish.core.access.roster import Roster
from rabbitish.core.broker import Broker
from rabbitish.core.definitions.decode import Document
from rabbitish.core.definitions.entry import Entry
from rabbitish.core.definitions.tables import to_json
from rabbitish.core.exchange import KINDS, Binding, Exchange
from rabbitish.core.queue import Queue
from rabbitish.core.vhost import PREDECLARED, Vhost
from rabbitish.errors import ChannelError
from rabbitish.values import Table

_KEYS = {
    "exchanges": frozenset(["vhost", "name", "type", "durable", "auto_delete", "internal", "arguments"]),
    "queues": frozenset(["vhost", "name", "type", "durable", "auto_delete", "exclusive", "arguments"]),
    "bindings": frozenset(
        ["vhost", "source", "destination", "destination_type", "routing_key", "arguments", "properties_key"],
    ),
}
_RESERVED = "amq."


class NewExchange(NamedTuple):
    """An exchange to make."""

    vhost: str
    name: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: Table


class NewQueue(NamedTuple):
    """A queue to make."""

    vhost: str
    name: str
    durable: bool
    auto_delete: bool
    arguments: Table


class NewBinding(NamedTuple):
    """A binding to make; `to_queue` tells what its destination is."""

    vhost: str
    source: str
    destination: str
    to_queue: bool
    routing_key: str
    arguments: Table


@dataclass
class Topology:
    """What is to be made, and what somebody should know of it."""

    exchanges: list[NewExchange] = field(default_factory=list)
    queues: list[NewQueue] = field(default_factory=list)
    bindings: list[NewBinding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_topology(
    document: Document, roster: Roster, broker: Broker, vhost: str | None = None
) -> Generator[None, None, Topology]:
    """What a file wants to be made. AccessError: something in it cannot be.

    `roster` has the virtual hosts that there will be; those in `broker` are there already. With `vhost` everything is
    for that one.
    """
    reader = _Reader(roster, broker, vhost)
    for section, read in (
        ("exchanges", reader.exchange),
        ("queues", reader.queue),
        ("bindings", reader.binding),
    ):
        for number, fields in enumerate(document.section(section)):
            entry = Entry(f"{section}[{number}]", fields)
            entry.only(_KEYS[section])
            try:
                read(entry)
            except ChannelError as refusal:
                raise entry.refuse(refusal.detail) from None
            yield
    reader.check_limits()
    return reader.topology


class _Reader:
    def __init__(self, roster: Roster, broker: Broker, vhost: str | None) -> None:
        self._roster = roster
        self._broker = broker
        self._vhost = vhost
        self._meant: set[str] = set()  # which virtual hosts the file speaks of
        self._exchanges: dict[tuple[str, str], NewExchange] = {}
        self._queues: dict[tuple[str, str], NewQueue] = {}
        self.topology = Topology()

    def _place(self, entry: Entry) -> str:
        """The virtual host of an object."""
        if self._vhost is not None:
            if entry.has("vhost"):
                self._meant.add(entry.text("vhost"))
                if len(self._meant) > 1:
                    raise entry.refuse("the file has objects of several virtual hosts and cannot be imported into one")
            return self._vhost
        return entry.text("vhost")

    def _live(self, vhost: str) -> Vhost | None:
        return self._broker.vhosts.get(vhost)

    def _check_vhost(self, entry: Entry, vhost: str) -> None:
        if vhost not in self._roster.vhosts:
            raise entry.refuse(f"virtual host '{vhost}' does not exist")

    def exchange(self, entry: Entry) -> None:
        vhost, name = self._place(entry), entry.name("name", empty=True)
        entry.where = args.resource("exchange", name, vhost)
        self._check_vhost(entry, vhost)
        new = NewExchange(
            vhost,
            name,
            entry.text("type"),
            entry.flag("durable", True),
            entry.flag("auto_delete", False),
            entry.flag("internal", False),
            entry.arguments(),
        )
        if not name or name.startswith(_RESERVED):
            self.topology.notes.append(f"{entry.where}: left out, its name is reserved")
            return
        args.check_exchange_type(new.type, KINDS)
        args.alternate_exchange(name, vhost, new.arguments)
        if self._again(entry, self._exchanges.setdefault((vhost, name), new), new):
            return
        live = self._live(vhost)
        if live is None or name not in live.exchanges:
            self.topology.exchanges.append(new)

    def queue(self, entry: Entry) -> None:
        vhost, name = self._place(entry), entry.name("name")
        entry.where = args.resource("queue", name, vhost)
        self._check_vhost(entry, vhost)
        new = NewQueue(vhost, name, entry.flag("durable", True), entry.flag("auto_delete", False), entry.arguments())
        if name.startswith(_RESERVED):
            self.topology.notes.append(f"{entry.where}: left out, its name is reserved")
            return
        if entry.flag("exclusive", False):
            self.topology.notes.append(f"{entry.where}: left out, it is exclusive")
            return
        args.queue_options(
            name, vhost, new.arguments, durable=new.durable, exclusive=False, auto_delete=new.auto_delete
        )
        if self._again(entry, self._queues.setdefault((vhost, name), new), new):
            return
        live = self._live(vhost)
        if live is None or name not in live.queues:
            self.topology.queues.append(new)

    def _again(self, entry: Entry, first: object, new: object) -> bool:
        """Whether this has been there before. AccessError: with something else in it."""
        if first is not new and first != new:
            raise entry.refuse("it stands there twice, and not the same")
        return first is not new

    def binding(self, entry: Entry) -> None:
        vhost = self._place(entry)
        source, destination = entry.name("source", empty=True), entry.name("destination")
        kind, key = entry.text("destination_type"), entry.name("routing_key", empty=True)
        to = args.resource(kind, destination, vhost)
        entry.where = f"binding from exchange '{source}' to {to} with routing key '{key}'"
        self._check_vhost(entry, vhost)
        if kind not in ("queue", "exchange"):
            raise entry.refuse(f"destination_type must be queue or exchange, not '{kind}'")
        new = NewBinding(vhost, source, destination, kind == "queue", key, entry.arguments())
        if not source:
            self._default(entry, new)
            return
        type_ = self._type_of(vhost, source)
        found = self._has_queue(vhost, destination) if new.to_queue else self._type_of(vhost, destination)
        if type_ is None or not found:
            missing = f"exchange '{source}'" if type_ is None else f"{kind} '{destination}'"
            self.topology.notes.append(f"{entry.where}: left out, there is no {missing}")
            return
        if new.arguments:
            KINDS[type_]().add(Binding(Exchange(source, type_), Exchange(destination, "fanout"), key, new.arguments))
        self.topology.bindings.append(new)

    def _default(self, entry: Entry, new: NewBinding) -> None:
        """Every queue is bound to the default exchange by its name; there is nothing to make."""
        if not new.to_queue or new.routing_key != new.destination:
            raise entry.refuse("nothing can be bound to the default exchange")

    def _type_of(self, vhost: str, exchange: str) -> str | None:
        live = self._live(vhost)
        if live is not None and exchange in live.exchanges:
            return live.exchanges[exchange].type
        new = self._exchanges.get((vhost, exchange))
        if new is not None:
            return new.type
        return _predeclared().get(exchange) if live is None else None

    def _has_queue(self, vhost: str, queue: str) -> bool:
        live = self._live(vhost)
        return (vhost, queue) in self._queues or (live is not None and queue in live.queues)

    def check_limits(self) -> None:
        """AccessError: there would be more queues than there may be; what the file says of limits holds later."""
        more: dict[str, int] = {}
        for queue in self.topology.queues:
            more[queue.vhost] = more.get(queue.vhost, 0) + 1
        for vhost, count in more.items():
            live = self._live(vhost)
            most = live.record.max_queues if live is not None else None
            if live is not None and most is not None and count + len(live.queues) > most:
                raise AccessError(
                    f"vhost '{vhost}': adding {count} queue(s) would exceed the limit of {most} queue(s); it has "
                    f"{len(live.queues)} now"
                )


def _predeclared() -> dict[str, str]:
    """The types of exchanges that a new virtual host has."""
    return {name: kind for name, kind, _ in PREDECLARED}


def make(topology: Topology, broker: Broker, now: Callable[[], int]) -> Generator[None, None, dict[str, int]]:
    """Make what is not there by now; how many there were of each.

    What has been deleted meanwhile, or with its virtual host, is not missed.
    """
    made = {"exchanges": 0, "queues": 0, "bindings": 0}
    for exchange in topology.exchanges:
        vhost = broker.vhosts.get(exchange.vhost)
        if vhost is not None and exchange.name not in vhost.exchanges:
            vhost.add_exchange(
                exchange.name,
                exchange.type,
                durable=exchange.durable,
                auto_delete=exchange.auto_delete,
                internal=exchange.internal,
                arguments=exchange.arguments,
            )
            made["exchanges"] += 1
        yield
    for queue in topology.queues:
        vhost = broker.vhosts.get(queue.vhost)
        if vhost is not None and queue.name not in vhost.queues:
            vhost.add_queue(
                queue.name,
                durable=queue.durable,
                auto_delete=queue.auto_delete,
                arguments=queue.arguments,
                owner=None,
                now=now(),
            )
            made["queues"] += 1
        yield
    for binding in topology.bindings:
        vhost = broker.vhosts.get(binding.vhost)
        if vhost is not None:
            made["bindings"] += _bind(vhost, binding)
        yield
    return made


def _bind(vhost: Vhost, new: NewBinding) -> bool:
    """False: it is there, or cannot be any more."""
    source = vhost.exchanges.get(new.source)
    destination: Queue | Exchange | None
    destination = vhost.queues.get(new.destination) if new.to_queue else vhost.exchanges.get(new.destination)
    if source is None or destination is None or _is_bound(source, destination, new):
        return False
    try:
        vhost.bind(source.name, destination, new.routing_key, new.arguments)
    except ChannelError:  # the exchange has been declared anew meanwhile, with another type
        return False
    return True


def _is_bound(source: Exchange, destination: Queue | Exchange, new: NewBinding) -> bool:
    """Whether there is such a binding, whatever the width of the numbers in its arguments: JSON does not tell it."""
    if not new.arguments:
        return source.find(destination, new.routing_key, {}) is not None
    wanted = to_json(new.arguments)
    return any(
        binding.routing_key == new.routing_key and to_json(binding.arguments) == wanted
        for binding in source.bindings_to(destination)
    )
