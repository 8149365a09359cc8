"""Matching a message's headers against the arguments of a binding to a headers exchange.

Owns what "equal" means between two field values and what a binding's arguments ask for; never looks at bindings as
such. RabbitMQ's rules (rabbit_exchange_type_headers): the outermost wire type of a value does not count, so 1 equals
1 of any width and 1.0, and a byte array equals a string; inside arrays and tables the types do count. A binding value
without a value (void) asks only that the header is there. Keys that start with "x-" are left out of it, except with
x-match all-with-x and any-with-x, where only x-match itself is.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from decimal import Decimal

from rabbitish.core.arguments import erlang_term, refuse
from rabbitish.values import Table, Value, type_name

# x-match: whether any demand is enough, and whether keys that start with "x-" count
_MODES = {"all": (False, False), "any": (True, False), "all-with-x": (False, True), "any-with-x": (True, True)}


def comparable(value: Value) -> Hashable:
    """Something equal (and of equal hash) for values that RabbitMQ holds equal, whatever their outermost type."""
    if isinstance(value, bool) or value is None:
        return "atom", value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, Decimal):
        return "decimal", value.as_tuple()
    if isinstance(value, list):
        return tuple(typed(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, *typed(item)) for key, item in value.items())
    return value


def typed(value: Value) -> tuple[str, Hashable]:
    """The same with the wire type in front, so that values are equal only when their types are."""
    return type_name(value), comparable(value)


def typed_table(table: Table) -> Hashable:
    """A table as something that is equal for tables with the same keys, types and values in any order."""
    return tuple((key, *typed(table[key])) for key in sorted(table)) if table else ()


@dataclass(frozen=True, slots=True)
class Demand:
    """What a binding asks of headers, all of it or any: keys, each with its value as `comparable` or None for any."""

    any: bool
    asked: tuple[tuple[str, Hashable], ...]

    def met_by(self, offered: dict[str, Hashable]) -> bool:
        """Whether a message with these headers meets it. Nothing asked for is met under "all", never under "any"."""
        for key, value in self.asked:
            if (key in offered if value is None else offered.get(key) == value) is self.any:
                return self.any
        return not self.any


def offer_of(headers: Table) -> dict[str, Hashable]:
    """A message's headers in the form that demands are compared with."""
    return {key: comparable(value) for key, value in headers.items()}


def demand_of(arguments: Table) -> Demand:
    """What the arguments of a binding ask for; ChannelError 406 for an x-match that means nothing."""
    mode = arguments.get("x-match", "all")
    if not isinstance(mode, str):
        raise refuse(f"Invalid x-match field type {type_name(mode)} (value {erlang_term(mode)}); expected longstr")
    if mode not in _MODES:
        expected = "expected all, any, all-with-x, or any-with-x"
        raise refuse(f"Invalid x-match field value {erlang_term(mode)}; {expected}")
    either, with_x = _MODES[mode]
    asked = tuple(
        (key, None if value is None else comparable(value))
        for key, value in arguments.items()
        if key != "x-match" and (with_x or not key.startswith("x-"))
    )
    return Demand(either, asked)
