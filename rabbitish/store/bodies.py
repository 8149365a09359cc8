"""What stands in a record's body, type by type: both directions side by side.

Names are UTF-8 with a length before them (32 bits, since keys in CC headers may be long), any other bytes kept
(surrogateescape). Field tables and message contents are the wire's business; a `Codec` that the server hands in turns
them into bytes and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple, Protocol, TypeAlias

from rabbitish.core.message import Address, Message, Stamp, Traits
from rabbitish.core.sendings import Range
from rabbitish.values import Table

_U32 = Struct(">I")
_QUEUE = Struct(">IB")
_AUTO_DELETE, _HAS_TTLS = 1, 2
_TTL = Struct(">Qq")  # the number, and the TTL or -1
_ROUTE = Struct(">HII")
_RANGE_BYTES = 12
_OF_ONE_RANGE = Struct(">IBQI")
_RETURNED = Struct(">IQI")
RETURNED_BYTES = _RETURNED.size
_SENT = Struct(">16sI")  # session, channel; ranges follow
_SENT_RANGE = Struct(">QQ")


class Codec(Protocol):
    """What only the wire knows."""

    def encode_table(self, table: Table) -> bytes: ...
    def decode_table(self, data: bytes, offset: int) -> tuple[Table, int]: ...

    def channel_of(self, message: Message) -> int:
        """The channel number in a message's content."""

    def contents_of(self, messages: Iterable[Message]) -> list[bytes]:
        """The messages' contents."""

    def stamp(self, address: Address, channel: int, data: bytes, start: int) -> Stamp:
        """The stamp of messages that were published alike; the content of one of them begins at `start` of `data`."""

    def stamp_of(self, address: Address, channel: int, traits: Traits, size: int) -> Stamp:
        """The stamp of messages with such traits and bodies of this size."""

    def beginning(self, data: bytes, start: int) -> bytes:
        """How a message's content begins that starts there: those published alike begin with the same bytes."""

    def skim(self, beginning: bytes) -> tuple[int, int, int]:
        """Of messages that begin like this: bytes of the body, priority, expiration in milliseconds or -1."""

    def husk(self, stamp: Stamp, lsn: int) -> Message:
        """The message of that number without its content."""

    def messages(self, stamps: Iterable[Stamp], contents: Iterable[bytes], lsn: int) -> list[Message]:
        """The messages that had these contents; their numbers count up from `lsn`, or are 0 if that is."""


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
    ttls: tuple[tuple[int, int | None], ...] = ()
    """See core.holdings. With these it was told of before, and is told of anew since they have changed."""

    def encode(self, codec: Codec) -> bytes:
        """The body."""
        head = _QUEUE.pack(self.number, self.auto_delete * _AUTO_DELETE | bool(self.ttls) * _HAS_TTLS)
        names = encode_name(self.vhost) + encode_name(self.name)
        ttls = b"".join(_TTL.pack(since, -1 if ttl is None else ttl) for since, ttl in self.ttls)
        return head + names + codec.encode_table(self.arguments) + ttls

    @classmethod
    def decode(cls, body: bytes, codec: Codec) -> DeclaredQueue:
        """The other way."""
        reader = Reader(body, codec)
        number, flags = reader.take(_QUEUE)
        declared = cls(number, reader.name(), reader.name(), bool(flags & _AUTO_DELETE), reader.table())
        if not flags & _HAS_TTLS:
            return declared
        ttls = _TTL.iter_unpack(reader.rest())
        return declared._replace(ttls=tuple((since, None if ttl < 0 else ttl) for since, ttl in ttls))


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


class Route(NamedTuple):
    """Where the messages of a PUBLISH came from and went to; between its head and their contents."""

    channel: int
    queues: tuple[int, ...]
    address: Address

    def encode(self) -> bytes:
        """The bytes."""
        numbers = b"".join(map(_U32.pack, self.queues))
        keys = b"".join(map(encode_name, (self.address.exchange, *self.address.routing_keys)))
        head = _ROUTE.pack(self.channel, len(self.queues), 1 + len(self.address.extra_keys))
        return head + numbers + keys

    @classmethod
    def decode(cls, raw: bytes, codec: Codec) -> Route:
        """The other way."""
        reader = Reader(raw, codec)
        channel, count, keys = reader.take(_ROUTE)
        queues = reader.take(Struct(f">{count}I"))
        exchange = reader.name()
        routing_key, *extra = [reader.name() for _ in range(keys)]
        return cls(channel, queues, Address(exchange, routing_key, tuple(extra)))


# ---- ranges of messages, as first number and count

Ranges: TypeAlias = Sequence[int]
"""first, count, first, count ..."""


def ranges_of(lsns: Sequence[int]) -> list[int]:
    """Ranges that hold these numbers, in their order; mostly it is one."""
    first, total = lsns[0], len(lsns)
    if lsns == list(range(first, first + total)):
        return [first, total]
    ranges: list[int] = []
    count = 0
    for lsn in lsns:
        if count and lsn == first + count:
            count += 1
            continue
        if count:
            ranges += (first, count)
        first, count = lsn, 1
    ranges += (first, count)
    return ranges


def encode_of_queue(queue: int, flags: int, ranges: Ranges) -> bytes:
    """REMOVE (flags: the reason) and DELIVERED: these messages of this queue."""
    if len(ranges) == 2:
        return _OF_ONE_RANGE.pack(queue, flags, *ranges)
    return _QUEUE.pack(queue, flags) + Struct(">" + "QI" * (len(ranges) // 2)).pack(*ranges)


def decode_of_queue(body: bytes) -> tuple[int, int, tuple[int, ...]]:
    """The other way."""
    queue, flags = _QUEUE.unpack_from(body)
    count = (len(body) - _QUEUE.size) // _RANGE_BYTES
    return queue, flags, Struct(">" + "QI" * count).unpack_from(body, _QUEUE.size)


REASONS = ("acknowledged", "expired", "maxlen", "rejected", "delivery_limit", "purged", "refused")
"""Why messages left, by the number in REMOVE."""


def encode_returned(queue: int, lsn: int, returns: int) -> bytes:
    """RETURNED: a message has come back to its queue so often by now."""
    return _RETURNED.pack(queue, lsn, returns)


def decode_returned(body: bytes) -> tuple[int, int, int]:
    """The other way."""
    queue, lsn, returns = _RETURNED.unpack(body)
    return queue, lsn, returns


def encode_sent(session: bytes, channel: int, ranges: Iterable[Range]) -> bytes:
    """SENT: these publishes of a channel of a carried session are in the journal, by the session's own numbers.

    Of no channel (0), and none: the session is over.
    """
    return _SENT.pack(session, channel) + b"".join([_SENT_RANGE.pack(*each) for each in ranges])


def decode_sent(body: bytes) -> tuple[bytes, int, list[Range]]:
    """The other way."""
    session, channel = _SENT.unpack_from(body)
    return session, channel, list(_SENT_RANGE.iter_unpack(body[_SENT.size :]))
