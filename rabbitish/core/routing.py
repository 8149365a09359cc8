"""From an exchange to the queues: follows bindings between exchanges, and alternates, through any chain and cycle.

Decides whom a message goes to, never delivers it. RabbitMQ's rules (rabbit_exchange:route): every exchange is visited
once and every queue named once; an exchange's alternate is visited when that exchange itself has no match for any of
the keys, so a binding that leads to another exchange counts as a match, whatever comes of it there. The alternates of
exchanges on the way are followed like the first one's; one that does not exist counts for nothing, nor does the
default exchange (measured: RabbitMQ routes a message nowhere whose alternate exchange is "").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

from rabbitish.core.exchange import Destination, Exchange, Target
from rabbitish.values import Table


def collect(
    exchange: Exchange,
    routing_keys: Iterable[str],
    headers: Table,
    alternate: Callable[[str], Exchange | None],
) -> dict[Target, None]:
    """The queues a message published to `exchange` goes to, in the order they were found.

    `routing_keys` are the message's own key and those of its CC and BCC headers; `alternate` finds an exchange by name.
    """
    keys = tuple(routing_keys)
    queues: dict[Target, None] = {}
    seen = {exchange: None}
    waiting = [exchange]
    for current in waiting:  # grows while it is walked
        found: list[Destination] = [destination for key in keys for destination in current.matches(key, headers)]
        for destination in found or _alternate_of(current, alternate):
            if not isinstance(destination, Exchange):
                queues[destination] = None
            elif destination not in seen:
                seen[destination] = None
                waiting.append(destination)
    return queues


def depends_on_headers(exchange: Exchange, alternate: Callable[[str], Exchange | None]) -> bool:
    """Whether any exchange that a message may reach from here looks at headers.

    If not, `collect` gives the same for the same routing keys until a binding, queue or exchange comes or goes.
    """
    seen = {exchange: None}
    waiting = [exchange]
    for current in waiting:  # grows while it is walked
        if current.uses_headers:
            return True
        for other in chain(current.exchanges(), _alternate_of(current, alternate)):
            if other not in seen:
                seen[other] = None
                waiting.append(other)
    return False


def _alternate_of(exchange: Exchange, lookup: Callable[[str], Exchange | None]) -> tuple[Exchange, ...]:
    other = lookup(exchange.alternate) if exchange.alternate else None
    return () if other is None else (other,)
