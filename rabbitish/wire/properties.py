"""The content properties of class basic: property flags and property list <-> fourteen optional values.

Two readers share the layout. `decode_properties` gives everything; `digest` gives only what the broker itself acts on,
skips the rest, and never looks into the headers, since most messages pass through without anyone asking for them.
Neither changes the bytes: a message leaves with the properties it came with.

RabbitMQ reads one word of flags whatever its lowest bit says (the specification's sign that another word follows) and
ignores the two bits that no property has; so do we. Properties that do not fill their bytes exactly are 541, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from struct import error as struct_error
from typing import Any, NamedTuple

from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.values import Table, Timestamp
from rabbitish.wire.codec import encode_shortstr
from rabbitish.wire.table import decode_table_body, encode_table

_write_octet = Struct(">B").pack
_read_flags = Struct(">H").unpack_from
_write_flags = Struct(">H").pack
_read_long = Struct(">I").unpack_from
_read_longlong = Struct(">Q").unpack_from
_write_longlong = Struct(">Q").pack


@dataclass(slots=True)
class Properties:
    """A message's properties; None is a property that is not there, which AMQP tells from an empty one."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Table | None = None
    delivery_mode: int | None = None
    """2: persistent."""
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    """Milliseconds, as text."""
    message_id: str | None = None
    timestamp: int | None = None
    """Seconds since the epoch."""
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None

    def encode(self) -> bytes:
        """Property flags and property list. ValueError, TypeError: a value that its property cannot hold."""
        flags = 0
        parts = [b""]
        try:
            for name, flag, _, write in _LAYOUT:
                value = getattr(self, name)
                if value is not None:
                    flags |= flag
                    parts.append(write(value))
        except struct_error as unfit:
            raise ValueError(f"property does not fit its type: {unfit}") from None
        parts[0] = _write_flags(flags)
        return b"".join(parts)


def decode_properties(raw: bytes) -> Properties:
    """The properties in `raw`, which is what follows class, weight and body size in a content header.

    ConnectionFailure: 541 if they do not fill `raw` exactly; whatever the headers table raises.
    """
    properties = Properties()
    try:
        flags: int = _read_flags(raw)[0]
        pos = 2
        for name, flag, read, _ in _LAYOUT:
            if flags & flag:
                value, pos = read(raw, pos)
                setattr(properties, name, value)
    except (IndexError, struct_error):
        raise _malformed() from None
    if pos != len(raw):
        raise _malformed()
    return properties


def _malformed() -> ConnectionFailure:
    failure = ConnectionFailure(ReplyCode.INTERNAL_ERROR, "")  # without a text, as from RabbitMQ
    failure.add_note("content properties do not fill their header frame")
    return failure


def _read_shortstr(raw: bytes, pos: int) -> tuple[str, int]:
    end = pos + 1 + raw[pos]
    return raw[pos + 1 : end].decode("utf-8", "surrogateescape"), end


def _read_octet(raw: bytes, pos: int) -> tuple[int, int]:
    return raw[pos], pos + 1


def _read_timestamp(raw: bytes, pos: int) -> tuple[Timestamp, int]:
    return Timestamp(_read_longlong(raw, pos)[0]), pos + 8


def _read_table(raw: bytes, pos: int) -> tuple[Table, int]:
    start = pos + 4
    end = start + _read_long(raw, pos)[0]
    if end > len(raw):
        raise IndexError
    return decode_table_body(raw, start, end), end


_Codec = tuple[Callable[[bytes, int], tuple[Any, int]], Callable[[Any], bytes]]
_SHORTSTR: _Codec = (_read_shortstr, encode_shortstr)
_OCTET: _Codec = (_read_octet, _write_octet)
_TIMESTAMP: _Codec = (_read_timestamp, _write_longlong)
_TABLE: _Codec = (_read_table, encode_table)

_LAYOUT = [
    (name, 0x8000 >> bit, *codec)
    for bit, (name, codec) in enumerate(
        {
            "content_type": _SHORTSTR,
            "content_encoding": _SHORTSTR,
            "headers": _TABLE,
            "delivery_mode": _OCTET,
            "priority": _OCTET,
            "correlation_id": _SHORTSTR,
            "reply_to": _SHORTSTR,
            "expiration": _SHORTSTR,
            "message_id": _SHORTSTR,
            "timestamp": _TIMESTAMP,
            "type": _SHORTSTR,
            "user_id": _SHORTSTR,
            "app_id": _SHORTSTR,
            "cluster_id": _SHORTSTR,
        }.items()
    )
]


class Digest(NamedTuple):
    """What the broker acts on in a message's properties; None is a property that is not there."""

    delivery_mode: int | None
    priority: int | None
    expiration: str | None
    reply_to: str | None
    user_id: str | None
    headers_span: tuple[int, int] | None
    """Where the headers table starts (at its length) and ends: for `decode_table`; its body is 4 bytes on."""


_new_tuple = tuple.__new__


def digest(raw: bytes) -> Digest:
    """Skim `raw`. ConnectionFailure as `decode_properties`, except that the inside of the headers is not looked at."""
    delivery_mode = priority = expiration = reply_to = user_id = headers_span = None
    try:
        flags = raw[0] << 8 | raw[1]
        pos = 2
        if flags & 0xE000:
            if flags & 0x8000:
                pos += 1 + raw[pos]
            if flags & 0x4000:
                pos += 1 + raw[pos]
            if flags & 0x2000:
                start = pos
                pos += 4 + _read_long(raw, pos)[0]
                headers_span = (start, pos)
        if flags & 0x1000:
            delivery_mode = raw[pos]
            pos += 1
        if flags & 0x0FFC:
            if flags & 0x0800:
                priority = raw[pos]
                pos += 1
            if flags & 0x0400:
                pos += 1 + raw[pos]
            if flags & 0x0200:
                start = pos + 1
                pos = start + raw[pos]
                reply_to = raw[start:pos].decode("utf-8", "surrogateescape")
            if flags & 0x0100:
                start = pos + 1
                pos = start + raw[pos]
                expiration = raw[start:pos].decode("utf-8", "surrogateescape")
            if flags & 0x0080:
                pos += 1 + raw[pos]
            if flags & 0x0040:
                pos += 8
            if flags & 0x0020:
                pos += 1 + raw[pos]
            if flags & 0x0010:
                start = pos + 1
                pos = start + raw[pos]
                user_id = raw[start:pos].decode("utf-8", "surrogateescape")
            if flags & 0x0008:
                pos += 1 + raw[pos]
            if flags & 0x0004:
                pos += 1 + raw[pos]
    except (IndexError, struct_error):
        raise _malformed() from None
    if pos != len(raw):
        raise _malformed()
    # The constructor of a named tuple is a Python function that does just this.
    return _new_tuple(Digest, (delivery_mode, priority, expiration, reply_to, user_id, headers_span))


def skim(raw: bytes, start: int) -> tuple[int, bytes]:
    """Priority and expiration of the properties that begin at `start`, 0 and empty where they are not there.

    ConnectionFailure as `digest`, except that nothing behind the expiration is looked at.
    """
    priority, expiration = 0, b""
    try:
        flags = raw[start] << 8 | raw[start + 1]
        pos = start + 2
        if flags & 0x8000:
            pos += 1 + raw[pos]
        if flags & 0x4000:
            pos += 1 + raw[pos]
        if flags & 0x2000:
            pos += 4 + _read_long(raw, pos)[0]
        if flags & 0x1000:
            pos += 1
        if flags & 0x0800:
            priority = raw[pos]
            pos += 1
        if flags & 0x0400:
            pos += 1 + raw[pos]
        if flags & 0x0200:
            pos += 1 + raw[pos]
        if flags & 0x0100:
            expiration = raw[pos + 1 : pos + 1 + raw[pos]]
    except (IndexError, struct_error):
        raise _malformed() from None
    return priority, expiration
