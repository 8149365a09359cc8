"""What a record says, taken apart for those who look into a journal, and whether all of it makes sense.

The broker itself reads records as they come (replay.py) and trusts those whose checksum is right. The tools do not: a
record that cannot be taken apart, or that would not be written the way it stands there, is one that the broker could
not use either, and so damage.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from rabbitish.core.message import Message
from rabbitish.core.sendings import Range
from rabbitish.errors import AMQPError
from rabbitish.store.bodies import (
    REASONS,
    Bound,
    Codec,
    DeclaredExchange,
    DeclaredQueue,
    Named,
    Ranges,
    decode_of_queue,
    decode_returned,
    decode_sent,
    encode_of_queue,
    encode_returned,
    encode_sent,
)
from rabbitish.store.mixed import MIXED_HEAD, Mixed
from rabbitish.store.reader import Publish, PublishReader
from rabbitish.store.record import PUBLISH_HEAD, PUBLISHES, Damage, Record, Type, decode_mark, encode_mark
from rabbitish.values import Value

_T = TypeVar("_T")
_ROUTES_KNOWN = 4096


class Mark(NamedTuple):
    """MARK."""

    durable_lsn: int


class Gone(NamedTuple):
    """QUEUE_GONE."""

    number: int


class OfQueue(NamedTuple):
    """REMOVE and DELIVERED: messages of a queue."""

    queue: int
    reason: str
    """Why they left; "" for DELIVERED."""
    ranges: Ranges

    @property
    def messages(self) -> int:
        """How many messages."""
        return sum(self.ranges[1::2])


class Returned(NamedTuple):
    """RETURNED."""

    queue: int
    message: int
    returns: int


class Sent(NamedTuple):
    """SENT."""

    session: bytes
    channel: int
    ranges: list[Range]


Details: TypeAlias = (
    Mark | Named | DeclaredExchange | DeclaredQueue | Gone | Bound | Publish | OfQueue | Returned | Sent | None
)
"""What a record says beside its type; None: nothing."""


class Looker(Codec, Protocol):
    """A codec that can also look inside messages."""

    def properties_of(self, message: Message) -> dict[str, Value]:
        """The properties that it has, by name."""

    def body_of(self, message: Message) -> bytes:
        """Its body. ValueError: the content is not what the stamp says."""


# What taking bytes apart raises when they are not what they should be.
UNREADABLE = (AMQPError, ValueError, LookupError, ArithmeticError, struct.error)


class Decoder:
    """Takes records apart."""

    def __init__(self, codec: Looker) -> None:
        self.codec = codec
        self.publishes = PublishReader(codec)
        self._known_routes: set[bytes] = set()
        self._decoders: dict[Type, Callable[[bytes], Details]] = {
            Type.VHOST_NEW: self._named,
            Type.VHOST_GONE: self._named,
            Type.EXCHANGE_NEW: self._exchange,
            Type.EXCHANGE_GONE: self._named,
            Type.QUEUE_NEW: self._queue,
            Type.QUEUE_GONE: self._gone,
            Type.BOUND: self._bound,
            Type.UNBOUND: self._bound,
            Type.REMOVE: self._remove,
            Type.DELIVERED: self._delivered,
            Type.RETURNED: self._returned,
            Type.SENT: self._sent,
        }

    def details(self, data: bytes, record: Record) -> Details:
        """What the record says; of messages all but the contents. Damage: it cannot be taken apart."""
        try:
            if record.type in PUBLISHES:
                return self._publish(data, record)
            if record.type is Type.MARK:
                return self._mark(data[record.body : record.end])
            decoder = self._decoders.get(record.type)
            return decoder(data[record.body : record.end]) if decoder is not None else None
        except UNREADABLE as error:
            raise unreadable(record, error) from error

    def check(self, data: bytes, record: Record) -> None:
        """Take everything in the record apart, messages too. Damage: something cannot be."""
        details = self.details(data, record)
        if isinstance(details, Publish):
            try:
                self._check_contents(data, record, details)
            except UNREADABLE as error:
                raise unreadable(record, error) from error

    def _check_contents(self, data: bytes, record: Record, publish: Publish) -> None:
        codec, route = self.codec, publish.route
        messages = self.publishes.messages(data, publish, 0, publish.length, 0)
        known = b""
        for message, content in zip(messages, codec.contents_of(messages), strict=True):
            beginning = codec.beginning(content, 0)
            if beginning != known:  # for most repeat theirs
                known = beginning
                codec.properties_of(message)
                own = codec.stamp(route.address, route.channel, content, 0)
                if (own.traits, own.size) != (message.stamp.traits, message.stamp.size):
                    raise ValueError("messages of one record are of different kinds")
            codec.body_of(message)

    # ---- by type

    def _publish(self, data: bytes, record: Record) -> Publish:
        publish = self.publishes.head(data, record.body, record.type)
        if not publish.length or publish.start(publish.length) != record.end:
            raise ValueError("its messages do not fill it")
        raw = data[record.body + PUBLISH_HEAD.size : publish.contents]
        if record.type is Type.PUBLISH_MIXED:
            mixed, route_end, _ = Mixed.decode(data, record.body)
            raw = data[record.body + MIXED_HEAD.size : route_end]
            if mixed.encode(raw, publish.now) != data[record.body : publish.contents]:
                raise ValueError("its head is not as it would be written")
        if raw not in self._known_routes:
            if publish.route.encode() != raw:
                raise ValueError("its route is not as it would be written")
            if len(self._known_routes) >= _ROUTES_KNOWN:
                self._known_routes.clear()
            self._known_routes.add(raw)
        return publish

    def _mark(self, body: bytes) -> Mark:
        mark = Mark(decode_mark(body, 0))
        return _same(mark, body, encode_mark(mark.durable_lsn))

    def _named(self, body: bytes) -> Named:
        named = Named.decode(body, self.codec)
        return _same(named, body, named.encode())

    def _exchange(self, body: bytes) -> DeclaredExchange:
        exchange = DeclaredExchange.decode(body, self.codec)
        return _same(exchange, body, exchange.encode(self.codec))

    def _queue(self, body: bytes) -> DeclaredQueue:
        queue = DeclaredQueue.decode(body, self.codec)
        return _same(queue, body, queue.encode(self.codec))

    def _gone(self, body: bytes) -> Gone:
        gone = Gone(int.from_bytes(body, "big"))
        return _same(gone, body, gone.number.to_bytes(4, "big"))

    def _bound(self, body: bytes) -> Bound:
        bound = Bound.decode(body, self.codec)
        return _same(bound, body, bound.encode(self.codec))

    def _remove(self, body: bytes) -> OfQueue:
        queue, reason, ranges = decode_of_queue(body)
        return _same(OfQueue(queue, REASONS[reason], ranges), body, encode_of_queue(queue, reason, ranges))

    def _delivered(self, body: bytes) -> OfQueue:
        queue, flags, ranges = decode_of_queue(body)
        return _same(OfQueue(queue, "", ranges), body, encode_of_queue(queue, flags, ranges))

    def _returned(self, body: bytes) -> Returned:
        returned = Returned(*decode_returned(body))
        return _same(returned, body, encode_returned(*returned))

    def _sent(self, body: bytes) -> Sent:
        sent = Sent(*decode_sent(body))
        return _same(sent, body, encode_sent(*sent))


def unreadable(record: Record, error: Exception) -> Damage:
    """The damage that a record is which could not be taken apart."""
    text = "it ends too soon" if isinstance(error, struct.error) else str(error) or type(error).__name__
    reason = "; ".join([text, *getattr(error, "__notes__", ())])
    name = record.type.name
    return Damage(record.start, f"{name} record {record.lsn} cannot be decoded ({reason})", torn=False)


def _same(value: _T, body: bytes, encoded: bytes) -> _T:
    if body != encoded:
        raise ValueError("it is not as it would be written")
    return value
