"""The fast lane: whole publishes and acks at the front of what has arrived, without decoding them.

Takes exactly what the generic path (channel.py, publish.py) would take from the same bytes, and leaves everything else to
it: a publish whose arguments were seen before, on an open channel outside a transaction, with property bytes that need no
looking at, whose content is all here in one header and at most one body frame; and basic.ack. What makes it fast is what
it does not do: arguments and properties are keys of dictionaries, and the content stays the slice that arrived.

Kept honest by a test that sends random traffic through both paths and compares everything that comes out.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from rabbitish.errors import ChannelError
from rabbitish.session.content import WireMessage
from rabbitish.session.publish import give_back
from rabbitish.wire import methods
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, HEAD

if TYPE_CHECKING:
    from rabbitish.session.connection import Session

_head = HEAD.unpack_from
_content_head = Struct(">BHIHHQ").unpack_from  # a header frame's head, class, weight, body size
_HEAD_SIZE = HEAD.size
_PROPERTIES_AT = HEAD.size + CONTENT_HEAD.size
_LEAST = HEAD.size + 1 + _PROPERTIES_AT + 2 + 1  # no publish is shorter
_ACK = methods.BasicAck().encode()[:4]
_ACK_SIZE = 13
_ack = Struct(">QB").unpack_from


def take_fast(session: Session) -> None:
    """Handle what can be handled at the front of the parser's bytes, and move its position behind that."""
    parser = session.parser
    buf, pos = parser.data, parser.pos
    have = len(buf)
    routes, known, channels = session.routes, session.properties.known, session.channels
    limit, now = session.frame_max, session.now
    most = session.settings.max_message_bytes
    publishing = None
    while have - pos > _ACK_SIZE + _HEAD_SIZE:
        kind, number, size = _head(buf, pos)
        end = pos + _HEAD_SIZE + size
        if kind != FRAME_METHOD or end >= have or buf[end] != FRAME_END:
            break
        start = pos + _HEAD_SIZE
        if size == _ACK_SIZE and buf[start : start + 4] == _ACK:
            channel = channels.get(number)
            if channel is None or not channel.plain:
                break
            tag, flags = _ack(buf, start + 4)
            try:
                channel.ack(channel.take_unacked(tag, multiple=flags & 1 == 1))
            except ChannelError:
                break  # it took nothing: the generic path says so
            pos = end + 1
            continue
        route = routes.get(buf[start:end])
        if route is None or have - end < _LEAST:
            break
        targets = route.targets
        channel = channels.get(number)
        if targets is None or channel is None or not channel.plain:
            break
        # the header frame
        first = end + 1
        kind, number2, size, class_id, _, body_size = _content_head(buf, first)
        end = first + _HEAD_SIZE + size
        if kind != FRAME_HEADER or number2 != number or class_id != 60 or end >= have or size > limit:
            break
        summary = known.get(buf[first + _PROPERTIES_AT : end])
        if summary is None or not summary.plain or buf[end] != FRAME_END:
            break
        # the body frame
        if body_size:
            body = end + 1
            if have - body < _HEAD_SIZE or body_size > most:
                break
            kind, number2, size = _head(buf, body)
            end = body + _HEAD_SIZE + size
            if kind != FRAME_BODY or number2 != number or size != body_size or end >= have or buf[end] != FRAME_END:
                break
            if size > limit:
                break
        pos = end + 1
        message = WireMessage(route.address, summary.traits, body_size, number, buf[first:pos])
        confirms = channel.confirms
        if confirms is not None:
            confirms.published += 1
            if channel is not publishing:
                session.note_confirms(channel)
                publishing = channel
        if len(targets) == 1:
            if not targets[0].enqueue(message, now) and confirms is not None:
                confirms.refuse()
            continue
        accepted = True
        for target in targets:
            accepted = target.enqueue(message, now) and accepted
        if not accepted and confirms is not None:
            confirms.refuse()
        if not targets and route.mandatory:
            give_back(channel, message)
    if publishing is not None or pos != parser.pos:
        session.note_publish()
    parser.pos = pos
