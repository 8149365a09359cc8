"""A message over the bytes it arrived in, and what the broker must know of its properties.

The content of a message is kept as whole frames on the publisher's channel number: where the consumer's number is the
same, which it nearly always is, those very bytes go out again. Otherwise the number in each frame head is replaced, and
bodies are cut anew only for a peer with a smaller frame_max. Properties are decoded only for rules that need headers.

What is digested of property bytes is remembered by those bytes (`PropertyCache`), since most publishers send the same
ones with every message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from struct import Struct
from typing import NamedTuple, Self, cast

from rabbitish.core.arguments import EXPIRY_MS_MAX
from rabbitish.core.message import Address, Message, Stamp, Traits
from rabbitish.core.vhost import REPLY_TO
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.values import Table, Value, type_name
from rabbitish.wire.codec import encode_shortstr
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_BODY, FRAME_HEADER, FRAME_OVERHEAD, HEAD
from rabbitish.wire.properties import Digest, Properties, decode_properties, digest, skim
from rabbitish.wire.table import decode_table, encode_table

CLASS_BASIC = 60
_PROPERTIES_AT = HEAD.size + CONTENT_HEAD.size
_LENGTH, _LENGTH_AT = Struct(">I"), HEAD.size - 4  # of a frame's payload
_SIZE_AND_FLAGS, _SIZE_AT = Struct(">QH"), _PROPERTIES_AT - 8  # of the body; of the properties
_PRIORITY_OR_EXPIRATION = 0x0900  # the flags of these
_END = b"\xce"
_BODY_HEAD = bytes((FRAME_BODY,))
_LONGEST_KNOWN = 512  # longer properties hardly ever repeat
_STAMPS_KNOWN = 4096  # of messages that come back from the journal: one stamp for all that were published alike


def address_suffix(address: Address) -> bytes:
    """What ends a basic.deliver of a message to this address: exchange, routing key, frame end."""
    return encode_shortstr(address.exchange) + encode_shortstr(address.routing_key) + _END


class WireStamp(Stamp):
    """A stamp with what delivering needs of it."""

    __slots__ = ("channel", "suffix")

    def __init__(self, address: Address, traits: Traits, size: int, channel: int, suffix: bytes) -> None:
        super().__init__(address, traits, size)
        self.channel = channel  # the number that is in the content's frames
        self.suffix = suffix


class WireMessage(Message):
    """A message as whole frames."""

    __slots__ = ("content",)

    stamp: WireStamp

    def __init__(self, stamp: WireStamp, content: bytes) -> None:
        self.stamp = stamp
        self.size = stamp.size
        self.deadline = None
        self.lsn = 0
        self.content = content

    @property
    def raw_properties(self) -> bytes:
        """Property flags and list, as they came."""
        return self.content[_PROPERTIES_AT : HEAD.size + HEAD.unpack_from(self.content)[2]]

    def _frames(self) -> Iterator[tuple[int, int]]:
        """Start and end of each frame's payload."""
        content, pos = self.content, 0
        while pos < len(content):
            start = pos + HEAD.size
            end = start + HEAD.unpack_from(content, pos)[2]
            yield start, end
            pos = end + 1

    def body(self) -> bytes:
        """The body, joined."""
        frames = list(self._frames())[1:]
        return b"".join([self.content[start:end] for start, end in frames])

    def framed(self, channel: int, frame_max: int) -> bytes:
        """The content as frames on `channel`, none larger than `frame_max`."""
        content = self.content
        if channel == self.stamp.channel and len(content) <= frame_max:
            return content
        frames = list(self._frames())
        if any(end - start + FRAME_OVERHEAD > frame_max for start, end in frames):
            return framed_content(channel, self.raw_properties, self.size, [self.body()], frame_max)
        if channel == self.stamp.channel:
            return content
        number = channel.to_bytes(2, "big")
        parts: list[bytes] = []
        for start, end in frames:
            head = start - HEAD.size
            parts += (content[head : head + 1], number, content[head + 3 : end + 1])
        return b"".join(parts)

    def properties(self) -> Properties:
        """All properties, decoded."""
        return decode_properties(self.raw_properties)

    def headers(self) -> Table:
        """See Message."""
        raw = self.raw_properties
        return decoded_headers(raw, digest(raw))

    def expiration(self) -> str | None:
        """See Message."""
        return digest(self.raw_properties).expiration

    def derived(self, address: Address, headers: Table, *, keep_expiration: bool) -> WireMessage:
        """See Message."""
        properties = self.properties()
        properties.headers = headers
        traits = self.traits
        if not keep_expiration:
            properties.expiration = None
            traits = traits._replace(expiration_ms=None)
        stamp = WireStamp(address, traits, self.size, self.stamp.channel, address_suffix(address))
        return WireMessage(stamp, self._content_with(properties))

    def _content_with(self, properties: Properties) -> bytes:
        raw = properties.encode()
        start, end = next(self._frames())
        head = HEAD.pack(FRAME_HEADER, self.stamp.channel, CONTENT_HEAD.size + len(raw))
        return b"".join((head, self.content[start : start + CONTENT_HEAD.size], raw, self.content[end:]))

    def with_properties(self, properties: Properties) -> WireMessage:
        """The same message with other properties that mean the same to the broker (a rewritten reply_to, no BCC)."""
        return WireMessage(self.stamp, self._content_with(properties))

    @property
    def away(self) -> bool:
        """See Message."""
        return not self.content

    def husk(self) -> WireMessage:
        """See Message."""
        husk = WireMessage(self.stamp, b"")
        husk.lsn, husk.deadline = self.lsn, self.deadline
        return husk

    def twin(self) -> Self:
        """See Message."""
        twin = type(self)(self.stamp, self.content)
        twin.lsn = self.lsn
        return twin


def framed_content(channel: int, raw: bytes, size: int, body: list[bytes], frame_max: int) -> bytes:
    """Content as frames on `channel`: one for the header, however large (it cannot be split), and few for the body."""
    number = channel.to_bytes(2, "big")
    parts = [HEAD.pack(FRAME_HEADER, channel, CONTENT_HEAD.size + len(raw)), CONTENT_HEAD.pack(CLASS_BASIC, 0, size)]
    parts += (raw, _END)
    most = frame_max - FRAME_OVERHEAD
    pieces = body
    if any(len(piece) > most for piece in body) or (len(body) > 1 and len(body[0]) < most):
        whole = b"".join(body)
        pieces = [whole[start : start + most] for start in range(0, size, most)]
    for piece in pieces:
        parts += (_BODY_HEAD, number, len(piece).to_bytes(4, "big"), piece, _END)
    return b"".join(parts)


class WireCodec:
    """Tables and messages as bytes, for those who keep them (store/) and know no wire."""

    def __init__(self, properties: PropertyCache) -> None:
        self._properties = properties
        self._stamps: dict[tuple[Address, bytes], WireStamp] = {}
        self._kinds: dict[tuple[Address, int, Traits, int], WireStamp] = {}

    def encode_table(self, table: Table) -> bytes:
        """A field table."""
        return encode_table(table)

    def decode_table(self, data: bytes, offset: int) -> tuple[Table, int]:
        """The other way: the table, and the offset behind it."""
        return decode_table(data, offset)

    def channel_of(self, message: Message) -> int:
        """The channel number in a message's frames."""
        return cast("WireMessage", message).stamp.channel

    def contents_of(self, messages: Iterable[Message]) -> list[bytes]:
        """The messages' frames."""
        return [message.content for message in cast("Iterable[WireMessage]", messages)]

    def stamp(self, address: Address, channel: int, data: bytes, start: int) -> WireStamp:
        """The stamp of messages that were published alike; the frames of one of them begin at `start` of `data`."""
        beginning = self.beginning(data, start)
        stamp = self._stamps.get((address, beginning))
        if stamp is None:
            _, _, size = CONTENT_HEAD.unpack_from(beginning, HEAD.size)
            traits = self._properties.summary(beginning[_PROPERTIES_AT:]).traits
            stamp = WireStamp(address, traits, size, channel, address_suffix(address))
            if len(self._stamps) >= _STAMPS_KNOWN:
                self._stamps.clear()
            self._stamps[address, beginning] = stamp
        return stamp

    def stamp_of(self, address: Address, channel: int, traits: Traits, size: int) -> WireStamp:
        """The stamp of messages with such traits and bodies of this size."""
        key = address, channel, traits, size
        stamp = self._kinds.get(key)
        if stamp is None:
            stamp = WireStamp(address, traits, size, channel, address_suffix(address))
            if len(self._kinds) >= _STAMPS_KNOWN:
                self._kinds.clear()
            self._kinds[key] = stamp
        return stamp

    def beginning(self, data: bytes, start: int) -> bytes:
        """What is before the body in the frames that begin at `start`."""
        return data[start : start + HEAD.size + _LENGTH.unpack_from(data, start + _LENGTH_AT)[0]]

    def skim(self, beginning: bytes) -> tuple[int, int, int]:
        """Of messages that begin like this: bytes of the body, priority, expiration in milliseconds or -1."""
        size, flags = _SIZE_AND_FLAGS.unpack_from(beginning, _SIZE_AT)
        if not flags & _PRIORITY_OR_EXPIRATION:
            return size, 0, -1
        priority, text = skim(beginning, _PROPERTIES_AT)
        if not text:
            return size, priority, -1
        try:
            return size, priority, parse_expiration(text.decode("utf-8", "surrogateescape"))
        except ChannelError:
            return size, priority, -1

    def husk(self, stamp: Stamp, lsn: int) -> Message:
        """A message without its frames."""
        husk = WireMessage(cast("WireStamp", stamp), b"")
        husk.lsn = lsn
        return husk

    def messages(self, stamps: Iterable[Stamp], contents: Iterable[bytes], lsn: int) -> list[Message]:
        """The messages that had these frames; their numbers count up from `lsn`, or are 0 if that is."""
        messages: list[Message] = list(map(WireMessage, cast("Iterable[WireStamp]", stamps), contents))
        if lsn:
            for number, message in enumerate(messages, lsn):
                message.lsn = number
        return messages

    def properties_of(self, message: Message) -> dict[str, Value]:
        """The properties that a message has, by name. ConnectionFailure: they do not decode."""
        properties = cast("WireMessage", message).properties()
        values = {field.name: getattr(properties, field.name) for field in fields(properties)}
        return {name: value for name, value in values.items() if value is not None}

    def body_of(self, message: Message) -> bytes:
        """A message's body. ValueError: its frames are not whole, or not what its stamp says."""
        stamp, content = cast("WireMessage", message).stamp, cast("WireMessage", message).content
        body: list[bytes] = []
        at, kind = 0, FRAME_HEADER
        while at < len(content):
            start = at + HEAD.size
            found, channel, size = HEAD.unpack_from(content, at)
            at = start + size + 1
            if found != kind or channel != stamp.channel or content[at - 1 : at] != _END:
                raise ValueError("a message is not made of whole frames")
            if kind == FRAME_BODY:
                body.append(content[start : at - 1])
            kind = FRAME_BODY
        joined = b"".join(body)
        if len(joined) != stamp.size:
            raise ValueError(f"a message's body has {len(joined)} bytes, not {stamp.size}")
        return joined


class Summary(NamedTuple):
    """What property bytes mean to the broker."""

    traits: Traits
    digest: Digest
    plain: bool
    """Nothing in them needs a closer look when a message is published (publish.py: `_route_by_headers`)."""


class PropertyCache:
    """Summaries by property bytes; emptied when full, since publishers that never repeat theirs would fill any size."""

    __slots__ = ("_most", "known")

    def __init__(self, most: int) -> None:
        self._most = most
        self.known: dict[bytes, Summary] = {}

    def summary(self, raw: bytes) -> Summary:
        """The summary of `raw`. ConnectionFailure: it does not decode, which consumers would stumble over too."""
        known = self.known.get(raw)
        if known is not None:
            return known
        found = digest(raw)
        headers = decoded_headers(raw, found)
        expiration = None
        plain = (
            found.user_id is None
            and found.reply_to != REPLY_TO
            and found.delivery_mode in (None, 1, 2)
            and headers.keys().isdisjoint(("CC", "BCC"))
        )
        if found.expiration is not None:
            try:
                expiration = parse_expiration(found.expiration)
            except ChannelError:
                plain = False  # whoever looks closer will say so, in its turn
        summary = Summary(Traits(found.delivery_mode == 2, found.priority or 0, expiration), found, plain)
        if len(raw) <= _LONGEST_KNOWN and self._most:
            if len(self.known) >= self._most:
                self.known.clear()
            self.known[raw] = summary
        return summary


def parse_expiration(text: str) -> int:
    """The expiration property in milliseconds. ChannelError 406 in RabbitMQ's words (rabbit_basic:parse_expiration)."""
    if text.isascii() and text.isdigit() and (value := int(text)) <= EXPIRY_MS_MAX:
        return value
    digits = text[1:] if text[:1] in ("+", "-") else text
    number = ""
    for char in digits:
        if char not in "0123456789":
            break
        number += char
    if not number:
        raise _invalid_expiration(text, "no_integer")
    rest = digits[len(number) :]
    if rest:
        raise _invalid_expiration(text, f'{{leftover_string,"{rest}"}}')
    value = -int(number) if text[0] == "-" else int(number)
    if value < 0:
        raise _invalid_expiration(text, f"{{value_negative,{value}}}")
    if value > EXPIRY_MS_MAX:
        raise _invalid_expiration(text, f"{{value_too_large,{value}}}")
    return value


def _invalid_expiration(text: str, reason: str) -> ChannelError:
    return ChannelError(ReplyCode.PRECONDITION_FAILED, f"invalid expiration '{text}': {reason}")


def check_delivery_mode(mode: int | None) -> None:
    """ChannelError 406 for a delivery mode that AMQP does not know."""
    if mode not in (None, 1, 2):
        raise ChannelError(ReplyCode.PRECONDITION_FAILED, f"invalid message: {{delivery_mode_unknown,{mode}}}")


def decoded_headers(raw: bytes, found: Digest) -> Table:
    """The headers table in property bytes, {} when there is none. ConnectionFailure: it does not decode."""
    return decode_table(raw, found.headers_span[0])[0] if found.headers_span is not None else {}


def copy_keys(headers: Table) -> tuple[str, ...]:
    """The further routing keys in CC and BCC. ChannelError 406 when they are no arrays."""
    keys: list[str] = []
    for name in ("CC", "BCC"):
        if name not in headers:
            continue
        copies = headers[name]
        if not isinstance(copies, list):
            raise ChannelError(
                ReplyCode.PRECONDITION_FAILED,
                f'invalid message: {{unacceptable_type_in_header,"{name}",{type_name(copies)}}}',
            )
        keys += [key for key in copies if isinstance(key, str)]
    return tuple(keys)
