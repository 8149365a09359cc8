"""The fast way through what comes by the thousand: whole deliveries and confirms, at the front of the parser's bytes.

Takes exactly what the generic path (frame by frame) would make of the same bytes, and leaves everything else to it:
what is cut off, what is on a channel that is half through something, what looks wrong. A test sends the same traffic
through both.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from rabbitish.errors import ConnectionFailure
from rabbitish.wire import methods
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, HEAD

if TYPE_CHECKING:
    from rabbitish.client.protocol.connection import Protocol

_head = HEAD.unpack_from
_content_head = Struct(">BHIHHQ").unpack_from  # a header frame's head, class, weight, body size
_tag_after = Struct(">Q").unpack_from
_confirm = Struct(">QB").unpack_from
_CONFIRM_FRAME = FRAME_OVERHEAD + 13
_HEAD_SIZE = HEAD.size
_PROPERTIES_AT = HEAD.size + CONTENT_HEAD.size
_DELIVER = methods.BasicDeliver().encode()[:4]
_ACK = methods.BasicAck().encode()[:4]
_NACK = methods.BasicNack().encode()[:4]
_CONFIRMS = (_ACK, _NACK)
_MOST_ADDRESSES = 1024


def skim(protocol: Protocol) -> None:
    """Handle what can be handled at the front, and move the parser's position behind that."""
    parser = protocol.parser
    data, pos = parser.data, parser.pos
    have = len(data)
    while have - pos > _HEAD_SIZE + 4:
        kind, number, size = _head(data, pos)
        ids = data[pos + _HEAD_SIZE : pos + _HEAD_SIZE + 4]
        end = pos + _HEAD_SIZE + size
        if kind != FRAME_METHOD or end >= have or data[end] != FRAME_END:
            break
        channel = protocol.channels.get(number)
        if channel is None or not channel.plain:
            break
        if ids == _DELIVER:
            next_pos = _delivery(protocol, number, data, pos, end, have)
            if not next_pos:
                break
            pos = next_pos
        elif ids in _CONFIRMS and size == 13 and channel.confirms is not None:
            tag, flags = _confirm(data, pos + _HEAD_SIZE + 4)
            pos += _CONFIRM_FRAME
            channel.confirms.confirm(tag, multiple=flags & 1 == 1, ack=ids == _ACK)
        else:
            break
    parser.pos = pos


def _delivery(protocol: Protocol, number: int, data: bytes, pos: int, end: int, have: int) -> int:
    """Take the delivery whose method frame goes from `pos` to `end`; the position behind it, 0: not here."""
    header_at = end + 1
    if have - header_at < _PROPERTIES_AT + 2:
        return 0
    kind, header_number, size, _, _, body_size = _content_head(data, header_at)
    header_end = header_at + _HEAD_SIZE + size
    if kind != FRAME_HEADER or header_number != number or header_end >= have or data[header_end] != FRAME_END:
        return 0
    next_pos: int = header_end + 1
    body = b""
    if body_size:
        body_at = next_pos + _HEAD_SIZE
        next_pos = body_at + body_size + 1
        if next_pos > have or _head(data, header_end + 1) != (FRAME_BODY, number, body_size):
            return 0
        if data[next_pos - 1] != FRAME_END:
            return 0
        body = data[body_at : next_pos - 1]
    tag_at = pos + _HEAD_SIZE + 5 + data[pos + _HEAD_SIZE + 4]
    raw_address = data[tag_at + 8 : end]
    address = protocol.addresses.get(raw_address) or _learn(protocol, data[pos + _HEAD_SIZE : end], raw_address)
    raw_tag = data[pos + _HEAD_SIZE + 5 : tag_at]
    channel = protocol.channels[number]
    state = channel.consumers.get(raw_tag.decode("utf-8", "surrogateescape"))
    if address is None or state is None:
        return 0
    redelivered, exchange, routing_key = address
    raw = data[header_at + _PROPERTIES_AT : header_end]
    (tag,) = _tag_after(data, tag_at)
    delivery = protocol.delivery_type(
        channel, state.tag, tag, redelivered, exchange, routing_key, raw, body, state.no_ack
    )
    if not state.no_ack:
        channel.unsettled[tag] = None
    state.give(delivery)
    return next_pos


def _learn(protocol: Protocol, payload: bytes, raw_address: bytes) -> tuple[bool, str, str] | None:
    """What the end of a basic.deliver means; None: it makes no sense."""
    try:
        method = methods.decode_method(payload)
    except ConnectionFailure:
        return None
    assert isinstance(method, methods.BasicDeliver)
    address = (method.redelivered, method.exchange, method.routing_key)
    if len(protocol.addresses) >= _MOST_ADDRESSES:
        protocol.addresses.clear()
    protocol.addresses[raw_address] = address
    return address
