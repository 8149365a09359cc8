"""What there is in a broker as a definitions file: the text by pieces, in an order that depends on nothing but content.

What cannot be brought back is left out: queues that belong to a connection, what the broker has named itself, and the
bindings of those. One object a line, so that two files can be compared. What is written is what there was when the
first piece was asked for.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple, TypeVar

from rabbitish.core.access.document import limits_of
from rabbitish.core.access.passwords import SHA256
from rabbitish.core.access.policies import Policy
from rabbitish.core.access.records import User, VhostRecord
from rabbitish.core.access.roster import Roster
from rabbitish.core.broker import Broker
from rabbitish.core.definitions.parameters import parameters_of
from rabbitish.core.definitions.tables import to_json
from rabbitish.core.exchange import Binding, Exchange
from rabbitish.core.queue import Queue

T = TypeVar("T")

_RUN = 512
_INTERNAL = "internal"
"""How names of global parameters begin that are a broker's own affair."""


class Header(NamedTuple):
    """Who writes the file: the RabbitMQ that it is for, and the program that it is from."""

    rabbitmq_version: str
    product_name: str
    product_version: str


def write(roster: Roster, broker: Broker, header: Header, vhost: str | None = None) -> Iterator[str]:
    """The text of the file; some pieces are empty. With `vhost` of that one alone, as RabbitMQ exports one."""
    found = _Snapshot(roster, broker, vhost)
    yield from _text(found, header)


def _text(found: _Snapshot, header: Header) -> Iterator[str]:
    top = {
        "rabbit_version": header.rabbitmq_version,
        "rabbitmq_version": header.rabbitmq_version,
        "product_name": header.product_name,
        "product_version": header.product_version,
        "rabbitmq_definition_format": "cluster" if found.vhost is None else "single_virtual_host",
    }
    if found.vhost is not None:
        top["original_vhost_name"] = found.vhost
    yield "{" + ",".join(f"\n {json.dumps(key)}: {json.dumps(value)}" for key, value in top.items())
    for section, rows in found.sections():
        yield f",\n {json.dumps(section)}: ["
        separator = "\n  "
        for row in rows:
            if row is None:
                yield ""
                continue
            if found.vhost is not None:
                row.pop("vhost", None)
            yield separator + json.dumps(row)
            separator = ",\n  "
        yield "]" if separator == "\n  " else "\n ]"
    yield "\n}\n"


_Rows = Iterator["dict[str, object] | None"]


class _Snapshot:
    """What there was at one moment. Nothing that is looked at later ever changes; a roster is replaced as a whole."""

    def __init__(self, roster: Roster, broker: Broker, vhost: str | None) -> None:
        self.vhost = vhost
        self._roster = roster
        names = sorted(broker.vhosts) if vhost is None else [vhost]
        vhosts = [broker.vhosts[name] for name in names]
        self._exchanges = [(each.name, list(each.exchanges.values())) for each in vhosts]
        self._queues = [(each.name, list(each.queues.values())) for each in vhosts]
        self._bindings = [
            (each.name, exchange, exchange.bindings()) for each in vhosts for exchange in each.exchanges.values()
        ]

    def sections(self) -> Iterator[tuple[str, _Rows]]:
        """All sections, in RabbitMQ's order."""
        roster = self._roster
        if self.vhost is None:
            yield "users", (_user(user) for _, user in sorted(roster.users.items()))
            yield "vhosts", (_vhost(record) for _, record in sorted(roster.vhosts.items()))
            yield (
                "permissions",
                (
                    {"user": user, "vhost": vhost, **permission._asdict()}
                    for (user, vhost), permission in sorted(roster.permissions.items())
                ),
            )
            yield (
                "topic_permissions",
                (
                    {"user": user, "vhost": vhost, "exchange": exchange, **permission._asdict()}
                    for (user, vhost, exchange), permission in sorted(roster.topic_permissions.items())
                ),
            )
        yield "parameters", self._parameters()
        if self.vhost is None:
            yield (
                "global_parameters",
                (
                    {"name": name, "value": value}
                    for name, value in sorted(roster.global_parameters.items())
                    if not name.startswith(_INTERNAL)
                ),
            )
        yield "policies", self._policies()
        yield "queues", self._queue_rows()
        yield "exchanges", self._exchange_rows()
        yield "bindings", self._binding_rows()

    def _here(self, vhost: str) -> bool:
        return self.vhost in (None, vhost)

    def _parameters(self) -> _Rows:
        for (vhost, component, name), value in parameters_of(self._roster):
            if self._here(vhost):
                yield {"vhost": vhost, "component": component, "name": name, "value": value}

    def _policies(self) -> _Rows:
        policies: list[tuple[tuple[str, str], Policy]] = sorted(self._roster.policies.items(), key=lambda item: item[0])
        for (vhost, name), policy in policies:
            if self._here(vhost):
                yield {"vhost": vhost, "name": name, **policy.value}

    def _queue_rows(self) -> _Rows:
        for vhost, queues in self._queues:
            kept = ((queue.name, queue) for queue in queues if _comes_back(queue))
            for item in _sorted(kept):
                yield _queue(vhost, item[1]) if item is not None else None

    def _exchange_rows(self) -> _Rows:
        for vhost, exchanges in self._exchanges:
            kept = ((each.name, each) for each in exchanges if each.name and not each.name.startswith("amq."))
            for item in _sorted(kept):
                yield _exchange(vhost, item[1]) if item is not None else None

    def _binding_rows(self) -> _Rows:
        for vhost, exchange, bindings in sorted(self._bindings, key=lambda item: (item[0], item[1].name)):
            kept = (_keyed(binding) for binding in bindings if _comes_back(binding.destination))
            for item in _sorted(kept):
                yield {"source": exchange.name, "vhost": vhost, **item[1]} if item is not None else None


def _comes_back(thing: object) -> bool:
    """Whether an import makes it again: what has a reserved name is only there if it always is."""
    if isinstance(thing, Queue):
        return thing.owner is None and not thing.name.startswith("amq.")
    return isinstance(thing, Exchange)


def _sorted(items: Iterable[tuple[str, T]]) -> Generator[tuple[str, T] | None, None, None]:
    """Items in order of the texts in front, sorted by pieces: a None is a pause."""
    runs: list[list[tuple[str, T]]] = []
    run: list[tuple[str, T]] = []
    for item in items:
        run.append(item)
        if len(run) == _RUN:
            run.sort(key=_first)
            runs.append(run)
            run = []
            yield None
    run.sort(key=_first)
    yield from heapq.merge(*runs, run, key=_first)


def _first(item: tuple[str, object]) -> str:
    return item[0]


def _user(user: User) -> dict[str, object]:
    password = user.password
    return {
        "name": user.name,
        "password_hash": password.encoded() if password is not None else "",
        "hashing_algorithm": password.algorithm if password is not None else SHA256,
        "tags": sorted(user.tags),
        "limits": limits_of(user),
    }


def _vhost(record: VhostRecord) -> dict[str, object]:
    metadata: dict[str, object] = {"description": record.description, "tags": list(record.tags)}
    if record.default_queue_type is not None:
        metadata["default_queue_type"] = record.default_queue_type
    return {
        "name": record.name,
        "description": record.description,
        "tags": list(record.tags),
        "metadata": metadata,
        "tracing": record.tracing,
        "limits": limits_of(record),
    }


def _queue(vhost: str, queue: Queue) -> dict[str, object]:
    return {
        "vhost": vhost,
        "name": queue.name,
        "type": queue.options.queue_type,
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "arguments": to_json(queue.arguments),
    }


def _exchange(vhost: str, exchange: Exchange) -> dict[str, object]:
    return {
        "vhost": vhost,
        "name": exchange.name,
        "type": exchange.type,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": to_json(exchange.arguments),
    }


def _keyed(binding: Binding) -> tuple[str, dict[str, object]]:
    kind = "exchange" if isinstance(binding.destination, Exchange) else "queue"
    row: dict[str, object] = {
        "destination": binding.destination.name,
        "destination_type": kind,
        "routing_key": binding.routing_key,
        "arguments": to_json(binding.arguments),
    }
    key = f"{binding.destination.name}\0{kind}\0{binding.routing_key}"
    return (f"{key}\0{json.dumps(row['arguments'], sort_keys=True)}" if binding.arguments else key), row
