"""Whether a declare means the queue or exchange that exists; if not, the error that RabbitMQ gives, in its words.

Checks in RabbitMQ's order (rabbit_amqqueue:assert_equivalence, rabbit_exchange:assert_equivalence), since of several
differences only the first is told. Of the arguments only those that RabbitMQ compares count: for queues a fixed list,
for exchanges the alternate alone. Integers are compared whatever their width.
"""

from __future__ import annotations

from typing import Protocol

from rabbitish.core.arguments import erlang_term, refuse, resource
from rabbitish.core.headers import comparable
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.values import Table, Value, type_name

# In the order of the checks (rabbit_classic_queue: capabilities), then what is compared here in addition.
_QUEUE_ARGUMENTS = (
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-queue-leader-locator",
    "x-consumer-timeout",
)
_EXCHANGE_ARGUMENTS = ("alternate-exchange",)


class DeclaredQueue(Protocol):
    """What there must be to know of an existing queue."""

    @property
    def name(self) -> str: ...
    @property
    def durable(self) -> bool: ...
    @property
    def auto_delete(self) -> bool: ...
    @property
    def arguments(self) -> Table: ...
    @property
    def owner(self) -> object | None:
        """The connection that the queue is exclusive to."""


class DeclaredExchange(Protocol):
    """What there must be to know of an existing exchange."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def durable(self) -> bool: ...
    @property
    def auto_delete(self) -> bool: ...
    @property
    def internal(self) -> bool: ...
    @property
    def arguments(self) -> Table: ...


def resource_locked(name: str, vhost: str) -> ChannelError:
    """The 405 for every use of another connection's exclusive queue."""
    detail = (
        f"cannot obtain exclusive access to locked {resource('queue', name, vhost)}. It could be originally declared "
        "on another connection or the exclusive property value does not match that of the original declaration."
    )
    return ChannelError(ReplyCode.RESOURCE_LOCKED, detail)


def check_queue(
    queue: DeclaredQueue, vhost: str, *, durable: bool, auto_delete: bool, owner: object | None, arguments: Table
) -> None:
    """Compare a queue.declare with the queue that has its name; ChannelError 405 or 406 at the first difference.

    `owner` is the declaring connection when the declare is exclusive, else None. An exclusive queue is never durable,
    whatever its declare says (RabbitMQ stores durable and not exclusive), so the caller passes `durable` like that.
    """
    if queue.owner is not owner:
        raise resource_locked(queue.name, vhost)
    where = resource("queue", queue.name, vhost)
    _compare_flag(where, "durable", queue.durable, durable)
    _compare_flag(where, "auto_delete", queue.auto_delete, auto_delete)
    _compare_arguments(where, _QUEUE_ARGUMENTS, queue.arguments, arguments)


def check_exchange(
    exchange: DeclaredExchange,
    vhost: str,
    *,
    type_: str,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: Table,
) -> None:
    """Compare an exchange.declare with the exchange that has its name; ChannelError 406 at the first difference."""
    where = resource("exchange", exchange.name, vhost)
    if exchange.type != type_:
        raise _inequivalent(where, "type", f"'{type_}'", f"'{exchange.type}'")
    _compare_flag(where, "durable", exchange.durable, durable)
    _compare_flag(where, "auto_delete", exchange.auto_delete, auto_delete)
    _compare_flag(where, "internal", exchange.internal, internal)
    _compare_arguments(where, _EXCHANGE_ARGUMENTS, exchange.arguments, arguments)


def _inequivalent(where: str, key: str, received: str, current: str) -> ChannelError:
    return refuse(f"inequivalent arg '{key}' for {where}: received {received} but current is {current}")


def _compare_flag(where: str, key: str, current: bool, received: bool) -> None:
    if current != received:
        raise _inequivalent(where, key, f"'{erlang_term(received)}'", f"'{erlang_term(current)}'")


def _compare_arguments(where: str, keys: tuple[str, ...], current: Table, received: Table) -> None:
    for key in keys:
        if key in current and key in received:
            if not _equivalent(current[key], received[key]):
                raise _inequivalent(where, key, _quoted(received[key]), _quoted(current[key]))
        elif key in current or key in received:
            given = current.get(key, received.get(key))
            if key == "x-queue-type" and given == "classic":
                continue  # a queue without the argument is a classic one
            raise _inequivalent(where, key, _described(key, received), _described(key, current))


def _equivalent(one: Value, other: Value) -> bool:
    """Whether two values are the same; of numbers, integers of any width are, and floating ones of any."""
    return isinstance(one, float) == isinstance(other, float) and comparable(one) == comparable(other)


def _described(key: str, arguments: Table) -> str:
    if key not in arguments:
        return "none"
    return f"the value '{_shown(arguments[key])}' of type '{type_name(arguments[key])}'"


def _quoted(value: Value) -> str:
    return "none" if value is None else f"'{_shown(value)}'"


def _shown(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return erlang_term(value)
