"""What stands in a record's body, type by type: both directions side by side.

Names are UTF-8 with a length before them (32 bits, since keys in CC headers may be long), any other bytes kept
(surrogateescape). Field tables and message contents are the wire's business; a `Codec` that the server hands in turns
them into bytes and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple, Protocol

from rabbitish.core.message import Address, Message
from rabbitish.values import Table

_U32 = Struct(">I")
_QUEUE = Struct(">IB")
_PUBLISH = Struct(">QHI")
_REMOVE = Struct(">IB")
_RETURNED = Struct(">IQI")


class Codec(Protocol):
    """What only the wire knows."""

    def encode_table(self, table: Table) -> bytes: ...
    def decode_table(self, data: bytes, offset: int) -> tuple[Table, int]: ...

    def channel_of(self, message: Message) -> int:
        """The channel number in a message's content."""

    def content_of(self, message: Message) -> bytes:
        """A message's content."""

    def message(self, address: Address, channel: int, content: bytes) -> Message:
        """The message that had this content."""


def encode_name(text: str) -> bytes:
    """A name with its length."""
    raw = text.encode("utf-8", "surrogateescape")
    return _U32.pack(len(raw)) + raw


class Reader:
    """Reads a body from its start."""

    def __init__(self, body: bytes, codec: Codec) -> None:
        self._body = body
        self._codec = codec
        self._at = 0

    def take(self, layout: Struct) -> tuple[int, ...]:
        """Fixed numbers."""
        values: tuple[int, ...] = layout.unpack_from(self._body, self._at)
        self._at += layout.size
        return values

    def name(self) -> str:
        """A name."""
        (size,) = self.take(_U32)
        raw = self._body[self._at : self._at + size]
        self._at += size
        return raw.decode("utf-8", "surrogateescape")

    def table(self) -> Table:
        """A field table."""
        table, self._at = self._codec.decode_table(self._body, self._at)
        return table

    def rest(self) -> bytes:
        """What is left."""
        return self._body[self._at :]


class DeclaredExchange(NamedTuple):
    """EXCHANGE_NEW."""

    vhost: str
    name: str
    type: str
    auto_delete: bool
    internal: bool
    arguments: Table

    def encode(self, codec: Codec) -> bytes:
        """The body."""
        flags = bytes((self.auto_delete | self.internal << 1,))
        names = encode_name(self.vhost) + encode_name(self.name) + encode_name(self.type)
        return flags + names + codec.encode_table(self.arguments)

    @classmethod
    def decode(cls, body: bytes, codec: Codec) -> DeclaredExchange:
        """The other way."""
        reader = Reader(body[1:], codec)
        names = reader.name(), reader.name(), reader.name()
        return cls(*names, bool(body[0] & 1), bool(body[0] & 2), reader.table())


class DeclaredQueue(NamedTuple):
    """QUEUE_NEW. Records know the queue by its number."""

    number: int
    vhost: str
    name: str
    auto_delete: bool
    arguments: Table

    def encode(self, codec: Codec) -> bytes:
        """The body."""
        head = _QUEUE.pack(self.number, self.auto_delete)
        return head + encode_name(self.vhost) + encode_name(self.name) + codec.encode_table(self.arguments)

    @classmethod
    def decode(cls, body: bytes, codec: Codec) -> DeclaredQueue:
        """The other way."""
        reader = Reader(body, codec)
        number, flags = reader.take(_QUEUE)
        return cls(number, reader.name(), reader.name(), bool(flags), reader.table())


class Bound(NamedTuple):
    """BOUND and UNBOUND."""

    vhost: str
    source: str
    to_exchange: bool
    destination: str
    routing_key: str
    arguments: Table

    def encode(self, codec: Codec) -> bytes:
        """The body."""
        names = map(encode_name, (self.vhost, self.source, self.destination, self.routing_key))
        return bytes((self.to_exchange,)) + b"".join(names) + codec.encode_table(self.arguments)

    @classmethod
    def decode(cls, body: bytes, codec: Codec) -> Bound:
        """The other way."""
        reader = Reader(body[1:], codec)
        vhost, source, destination, key = (reader.name() for _ in range(4))
        return cls(vhost, source, bool(body[0]), destination, key, reader.table())


class Named(NamedTuple):
    """VHOST_NEW, VHOST_GONE, EXCHANGE_GONE: a name, in a virtual host where it is not one."""

    vhost: str
    name: str

    def encode(self) -> bytes:
        """The body."""
        return encode_name(self.vhost) + encode_name(self.name)

    @classmethod
    def decode(cls, body: bytes, codec: Codec) -> Named:
        """The other way."""
        reader = Reader(body, codec)
        return cls(reader.name(), reader.name())


def encode_publish_head(now: int, channel: int, queues: Sequence[int], address: Address) -> bytes:
    """PUBLISH up to the content, which follows: when, on which channel, to which queues, and the address."""
    numbers = b"".join(map(_U32.pack, queues))
    keys = b"".join(map(encode_name, (address.exchange, *address.routing_keys)))
    head = _PUBLISH.pack(now, channel, len(queues)) + numbers + _U32.pack(1 + len(address.extra_keys)) + keys
    return _U32.pack(len(head)) + head


class Published(NamedTuple):
    """PUBLISH, read; the content stays where it is until it is asked for."""

    now: int
    channel: int
    queues: tuple[int, ...]
    address: Address
    content: bytes

    @staticmethod
    def queues_of(body: bytes) -> tuple[int, ...]:
        """Only the queues."""
        (count,) = _U32.unpack_from(body, _U32.size + _PUBLISH.size - _U32.size)
        return Struct(f">{count}I").unpack_from(body, _U32.size + _PUBLISH.size)

    @classmethod
    def decode(cls, body: bytes, codec: Codec) -> Published:
        """From a body."""
        reader = Reader(body, codec)
        reader.take(_U32)
        now, channel, count = reader.take(_PUBLISH)
        queues = tuple(reader.take(_U32)[0] for _ in range(count))
        (keys,) = reader.take(_U32)
        exchange = reader.name()
        routing_key, *extra = [reader.name() for _ in range(keys)]
        return cls(now, channel, queues, Address(exchange, routing_key, tuple(extra)), reader.rest())


def encode_removed(queue: int, lsns: Iterable[int]) -> bytes:
    """REMOVE: these messages left this queue."""
    lsns = tuple(lsns)
    return _REMOVE.pack(queue, 0) + Struct(f">{len(lsns)}Q").pack(*lsns)


def decode_removed(body: bytes) -> tuple[int, tuple[int, ...]]:
    """The other way."""
    queue, _ = _REMOVE.unpack_from(body)
    count = (len(body) - _REMOVE.size) // 8
    return queue, Struct(f">{count}Q").unpack_from(body, _REMOVE.size)


def encode_returned(queue: int, lsn: int, returns: int) -> bytes:
    """RETURNED: a message has come back to its queue so often by now."""
    return _RETURNED.pack(queue, lsn, returns)


def decode_returned(body: bytes) -> tuple[int, int, int]:
    """The other way."""
    queue, lsn, returns = _RETURNED.unpack(body)
    return queue, lsn, returns
