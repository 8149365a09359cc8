"""Values of a program <-> bodies and content types; messages as a program writes them, before they are bytes.

Bytes go as they are, text as UTF-8 (text/plain), everything else through a serialiser: JSON unless the program brings
another. What came is read by its content type, so a serialiser serves both ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Protocol, TypedDict

from rabbitish.values import Table
from rabbitish.wire.properties import Properties

PERSISTENT = 2
"""`delivery_mode` of a message that outlives the broker in a durable queue."""
TRANSIENT = 1
"""`delivery_mode` of a message that does not."""


class Serialiser(Protocol):
    """How values become bodies, under a content type. Errors of either method go to the caller as they are."""

    content_type: str

    def dumps(self, value: Any) -> bytes:
        """The body for a value."""
        ...

    def loads(self, body: bytes) -> Any:
        """The value of a body."""
        ...


class BytesSerialiser:
    """Bytes, as they are."""

    content_type = "application/octet-stream"

    def dumps(self, value: Any) -> bytes:
        """See Serialiser."""
        return bytes(value)

    def loads(self, body: bytes) -> Any:
        """See Serialiser."""
        return body


class TextSerialiser:
    """Text in UTF-8."""

    content_type = "text/plain"

    def dumps(self, value: Any) -> bytes:
        """See Serialiser."""
        return str(value).encode()

    def loads(self, body: bytes) -> Any:
        """See Serialiser. UnicodeDecodeError: it is not UTF-8."""
        return body.decode()


class JsonSerialiser:
    """JSON in UTF-8, compact."""

    content_type = "application/json"

    def dumps(self, value: Any) -> bytes:
        """See Serialiser. TypeError: JSON has nothing for it."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def loads(self, body: bytes) -> Any:
        """See Serialiser. ValueError: it is not JSON."""
        return json.loads(body)


BYTES = BytesSerialiser()
"""The serialiser for `application/octet-stream`."""
TEXT = TextSerialiser()
"""The serialiser for `text/plain`."""
JSON = JsonSerialiser()
"""The serialiser for `application/json`."""


class Serialisers:
    """Those that a program knows. The first given one is for values that are neither bytes nor text."""

    def __init__(self, own: Iterable[Serialiser] = ()) -> None:
        given = list(own)
        self.default: Serialiser = given[0] if given else JSON
        known: list[Serialiser] = [BYTES, TEXT, JSON, *given]
        self._known = {each.content_type: each for each in known}

    def dumps(self, value: Any, content_type: str | None) -> tuple[bytes, str | None]:
        """The body for a value, and its content type; None for bytes of which nobody said what they are.

        A content type that is given decides. LookupError: no serialiser is known for it, and the value is not bytes.
        """
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value), content_type
        if content_type is not None:
            return self._for(content_type).dumps(value), content_type
        serialiser: Serialiser = TEXT if isinstance(value, str) else self.default
        return serialiser.dumps(value), serialiser.content_type

    def loads(self, body: bytes, content_type: str | None) -> Any:
        """The value of a body; without a content type the body. LookupError: no serialiser is known for it."""
        return body if content_type is None else self._for(content_type).loads(body)

    def _for(self, content_type: str) -> Serialiser:
        bare = content_type.partition(";")[0].strip().lower()
        found = self._known.get(bare)
        if found is None:
            raise LookupError(f"no serialiser for content type {content_type!r}")
        return found


DEFAULT_SERIALISERS = Serialisers()


class MessageProperties(TypedDict, total=False):
    """The content properties by AMQP's names; None, as not given, is a property that is not there."""

    content_type: str | None
    content_encoding: str | None
    headers: Table | None
    delivery_mode: int | None
    priority: int | None
    correlation_id: str | None
    reply_to: str | None
    expiration: int | timedelta | str | None
    message_id: str | None
    timestamp: int | datetime | None
    type: str | None
    user_id: str | None
    app_id: str | None


@dataclass(slots=True)
class Message:
    """A message to publish, with its content properties by AMQP's names; None, as not given, is one that is not there.

    `body`: bytes, text or what a serialiser takes. `delivery_mode`: 2 (persistent) unless said otherwise. `expiration`:
    milliseconds or a timedelta. `timestamp`: a datetime or seconds since the epoch. `priority`: 0 to 255. `exchange`
    and `routing_key` say where it goes if it is not where all go.
    """

    body: Any
    exchange: str | None = None
    routing_key: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Table | None = None
    delivery_mode: int | None = PERSISTENT
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: int | timedelta | str | None = None
    message_id: str | None = None
    timestamp: int | datetime | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None

    def encode(self, serialisers: Serialisers) -> tuple[bytes, bytes]:
        """Property bytes and body. What the serialiser raises; ValueError, TypeError: a property that AMQP lacks."""
        body, content_type = serialisers.dumps(self.body, self.content_type)
        if all(getattr(self, name) is None for name in _SELDOM):
            return _plain(content_type, self.delivery_mode), body
        properties = Properties(
            **{name: getattr(self, name) for name in _SAME},
            content_type=content_type,
            expiration=_expiration(self.expiration),
            timestamp=int(self.timestamp.timestamp()) if isinstance(self.timestamp, datetime) else self.timestamp,
        )
        return properties.encode(), body


_SAME = [
    each.name
    for each in fields(Message)
    if each.name not in ("body", "exchange", "routing_key", "content_type", "expiration", "timestamp")
]
_SELDOM = [name for name in (*_SAME, "expiration", "timestamp") if name != "delivery_mode"]


def _expiration(value: int | timedelta | str | None) -> str | None:
    if isinstance(value, timedelta):
        value = round(value / timedelta(milliseconds=1))
    return None if value is None else str(value)


_plain_known: dict[tuple[str | None, int | None], bytes] = {}


def _plain(content_type: str | None, delivery_mode: int | None) -> bytes:
    """The property bytes of a message with nothing but these two."""
    key = (content_type, delivery_mode)
    raw = _plain_known.get(key)
    if raw is None:
        if len(_plain_known) > 100:
            _plain_known.clear()
        raw = Properties(content_type=content_type, delivery_mode=delivery_mode).encode()
        _plain_known[key] = raw
    return raw
