"""The values an AMQP field table can hold, as Python types that remember their wire type.

Most values are plain Python: bool, int, float, Decimal, str, bytes, list, dict, None. Where AMQP has several widths for
one Python type, a light subclass carries the less usual ones, so that a header that is decoded and encoded again keeps
its type to the byte, while everything else compares and computes with it as with any int or float. A plain int stands
for a signed 32-bit field when it fits and a signed 64-bit one when it does not; a plain float for a double.

This module imports nothing, so that wire/ (which encodes these) and core/ (which compares them) can share it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias


class Int8(int):
    """Signed 8-bit, tag b."""

    __slots__ = ()


class UInt8(int):
    """Unsigned 8-bit, tag B."""

    __slots__ = ()


class Int16(int):
    """Signed 16-bit, tag s."""

    __slots__ = ()


class UInt16(int):
    """Unsigned 16-bit, tag u."""

    __slots__ = ()


class UInt32(int):
    """Unsigned 32-bit, tag i."""

    __slots__ = ()


class Int64(int):
    """Signed 64-bit, tag l (and L, which is read as l)."""

    __slots__ = ()


class Timestamp(int):
    """Seconds since the epoch, unsigned 64-bit, tag T."""

    __slots__ = ()


class Float32(float):
    """Single precision, tag f."""

    __slots__ = ()


Value: TypeAlias = "bool | int | float | Decimal | str | bytes | list[Value] | dict[str, Value] | None"
Table: TypeAlias = "dict[str, Value]"

_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "bool"),
    (Int8, "byte"),
    (UInt8, "unsignedbyte"),
    (Int16, "short"),
    (UInt16, "unsignedshort"),
    (UInt32, "unsignedint"),
    (Int64, "long"),
    (Timestamp, "timestamp"),
    (Float32, "float"),
    (float, "double"),
    (Decimal, "decimal"),
    (str, "longstr"),
    (bytes, "binary"),
    (list, "array"),
    (dict, "table"),
)


def type_name(value: Value) -> str:
    """RabbitMQ's name for a value's type, as its error texts use it ("longstr", "signedint", ...)."""
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return name
    if value is None:
        return "void"
    return "signedint" if -(2**31) <= value < 2**31 else "long"  # type: ignore[operator]
