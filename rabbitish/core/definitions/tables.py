"""Arguments of queues, exchanges and bindings: field tables in JSON and back.

As RabbitMQ has it: a whole number is a signed 64-bit one, any other a double; a number's width, a byte array's being
none and a decimal's digits are lost on the way out. Unlike RabbitMQ, `null` is a value without one (void), which it
writes as "undefined" and refuses to read. Bytes that are no text come out as escapes of half characters (\\udc80 to
\\udcff), which are taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import isfinite

from rabbitish.values import Int64, Table, Value

_DEEPEST = 100  # see wire/table.py
_LONGEST_KEY_BYTES = 255


def from_json(fields: Mapping[str, object]) -> Table:
    """The table. ValueError: a value or a key that a field table cannot have."""
    return _table(fields, _DEEPEST)


def _table(fields: Mapping[str, object], levels: int) -> Table:
    table: Table = {}
    for key, value in fields.items():
        if len(raw_name(key)) > _LONGEST_KEY_BYTES:
            raise ValueError(f'the key "{key[:20]}..." is longer than {_LONGEST_KEY_BYTES} bytes')
        try:
            table[key] = _value(value, levels)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return table


def _value(value: object, levels: int) -> Value:
    if isinstance(value, str):
        raw_name(value)
        return value
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{str(value)[:40]} does not fit into 64 bits")
        return Int64(value)
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError("a number is too large")
        return value
    if not levels:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
    if isinstance(value, list):
        return [_value(item, levels - 1) for item in value]
    assert isinstance(value, dict)  # JSON has nothing else
    return _table(value, levels - 1)


def raw_name(text: str) -> bytes:
    """The bytes that a text stands for. ValueError: it has halves of characters that stand for none."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("it is not valid UTF-8") from None


def to_json(table: Table) -> dict[str, object]:
    """What JSON can hold of a table."""
    return {key: _plain(value) for key, value in table.items()}


def _plain(value: Value) -> object:
    if isinstance(value, dict):
        return to_json(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, Decimal):
        return float(value)
    return value
