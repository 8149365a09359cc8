"""The common x-arguments of queues, exchanges and consumers by names of their own, with units.

Times are milliseconds, as in AMQP, or timedeltas. What is not given is left out, so that a declaration equals one that
never heard of it. Anything else goes through `more`, under its full name.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from rabbitish.values import Table, Value

Milliseconds = int | timedelta


def _milliseconds(value: Milliseconds | None) -> int | None:
    return round(value / timedelta(milliseconds=1)) if isinstance(value, timedelta) else value


def _table(values: dict[str, Value | None], more: Table | None) -> Table:
    table: Table = {f"x-{name.replace('_', '-')}": value for name, value in values.items() if value is not None}
    return {**table, **(more or {})}


def queue_arguments(
    *,
    message_ttl: Milliseconds | None = None,
    expires: Milliseconds | None = None,
    max_length: int | None = None,
    max_length_bytes: int | None = None,
    overflow: Literal["drop-head", "reject-publish", "reject-publish-dlx"] | None = None,
    dead_letter_exchange: str | None = None,
    dead_letter_routing_key: str | None = None,
    max_priority: int | None = None,
    single_active_consumer: bool | None = None,
    queue_mode: Literal["default", "lazy"] | None = None,
    queue_type: Literal["classic", "quorum", "stream"] | None = None,
    delivery_limit: int | None = None,
    more: Table | None = None,
) -> Table:
    """Arguments for queue.declare.

    Times are milliseconds or timedeltas.

    message_ttl: how long a message lives in the queue. expires: how long the queue lives unused. max_length,
    max_length_bytes: what it holds at most, and overflow: what happens to what is more. dead_letter_exchange, with
    dead_letter_routing_key instead of the message's own: where what is rejected, expires or is dropped goes; "" with a
    queue's name as the key is straight to that queue. max_priority: the highest priority (1 to 255, better few).
    single_active_consumer: one at a time, the others wait. delivery_limit: how often a message may come back (with
    RabbitMQ only in quorum queues). more: others by their full names.
    """
    return _table(
        {
            "message_ttl": _milliseconds(message_ttl),
            "expires": _milliseconds(expires),
            "max_length": max_length,
            "max_length_bytes": max_length_bytes,
            "overflow": overflow,
            "dead_letter_exchange": dead_letter_exchange,
            "dead_letter_routing_key": dead_letter_routing_key,
            "max_priority": max_priority,
            "single_active_consumer": single_active_consumer,
            "queue_mode": queue_mode,
            "queue_type": queue_type,
            "delivery_limit": delivery_limit,
        },
        more,
    )


def exchange_arguments(*, alternate_exchange: str | None = None, more: Table | None = None) -> Table:
    """Arguments for exchange.declare. alternate_exchange: where messages go that no binding takes. more: others."""
    # It alone has no x- in front.
    named: Table = {} if alternate_exchange is None else {"alternate-exchange": alternate_exchange}
    return {**named, **(more or {})}


def consumer_arguments(*, priority: int | None = None, more: Table | None = None) -> Table:
    """Arguments for basic.consume. priority: who has a higher one gets messages first. more: others."""
    return _table({"priority": priority}, more)
