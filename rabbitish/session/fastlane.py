"""The fast lane: whole publishes and acks at the front of what has arrived, without decoding them.

Takes exactly what the generic path (channel.py, publish.py) would take from the same bytes, and leaves everything else
to it. A publisher's messages mostly begin alike: the same method frame and the same content header, body size included.
What such a beginning means is a `Template`, remembered by its bytes, so that of a message that begins like the last one
no field is looked at at all, and of one that begins like some earlier one only the two frame sizes. Messages of one
template go to their queues together.

Nothing here decides anything: routes, stamps and refusals come from publish.py and content.py. Kept honest by a test
that sends random traffic through both paths and compares everything that comes out.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from rabbitish.core.keeping import keepers
from rabbitish.core.message import Message
from rabbitish.errors import AMQPError
from rabbitish.session.content import CLASS_BASIC, WireMessage, WireStamp
from rabbitish.session.publish import Route
from rabbitish.wire import methods
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, HEAD

if TYPE_CHECKING:
    from rabbitish.session.channel import Channel
    from rabbitish.session.connection import Session

_head = HEAD.unpack_from
_content_head = Struct(">BHIHHQ").unpack_from  # a header frame's head, class, weight, body size
_HEAD_SIZE = HEAD.size
_PROPERTIES_AT = HEAD.size + CONTENT_HEAD.size
_SHORTEST_PUBLISH = _HEAD_SIZE + len(methods.BasicPublish().encode()) + 1 + _PROPERTIES_AT + 2 + 1
_ACK = (13).to_bytes(4, "big") + methods.BasicAck().encode()[:4]  # from the frame's size on
_ACK_FRAME = FRAME_OVERHEAD + 13
_ack = Struct(">QB").unpack_from
_ACK_ARGUMENTS_AT = _HEAD_SIZE + 4


class Template:
    """What a publish means that begins with these bytes: method frame, content header, head of the one body frame."""

    __slots__ = ("beginning", "channel", "content_at", "durable", "route", "size", "stamp", "together")

    def __init__(self, beginning: bytes, content_at: int, number: int, route: Route, stamp: WireStamp) -> None:
        self.beginning = beginning
        self.content_at = content_at  # where the header frame starts
        self.size = len(beginning) + (stamp.size + 1 if stamp.size else 0)  # of the whole, last frame end included
        self.channel = number
        self.route = route
        self.stamp = stamp
        # Messages may wait for each other unless each one's fate is known only when it is handed over.
        targets = route.targets or ()
        self.together = bool(targets) and all(target.holds and not target.may_refuse for target in targets)
        self.durable = keepers(targets, persistent=stamp.persistent)


def take_fast(session: Session) -> None:
    """Handle what can be handled at the front of the parser's bytes, and move its position behind that."""
    parser = session.parser
    buf, pos = parser.data, parser.pos
    have = len(buf)
    if have - pos < _ACK_FRAME:
        return
    starts = buf.startswith
    channels = session.channels
    batch: list[Message] = []
    template = session.template
    if template is not None and (session.templates.get(template.beginning) is not template):
        template = None  # bindings changed since
    channel = channels.get(template.channel) if template is not None else None
    if template is not None and channel is not None and channel.plain:
        beginning, content_at, size, stamp = template.beginning, template.content_at, template.size, template.stamp
    else:
        beginning, content_at, size, stamp = b"\xff", 0, 0, None
    while True:
        if stamp is not None and starts(beginning, pos):
            end = pos + size
            if end > have or buf[end - 1] != FRAME_END:
                break
            batch.append(WireMessage(stamp, buf[pos + content_at : end]))
            pos = end
            continue
        if batch:
            assert template is not None and channel is not None
            _hand_over(channel, template, batch)
            batch = []
        if starts(_ACK, pos + 3):
            if not _take_ack(session, buf, pos):
                break
            pos += _ACK_FRAME
            if session.busy:
                break
            continue
        template = _recognise(session, buf, pos, have)
        if template is None:
            break
        session.template = template
        channel = channels[template.channel]
        beginning, content_at, size, stamp = template.beginning, template.content_at, template.size, template.stamp
    if batch:
        assert template is not None and channel is not None
        _hand_over(channel, template, batch)
    parser.pos = pos


def _take_ack(session: Session, buf: bytes, pos: int) -> bool:
    """Take the basic.ack at `pos`; False: that is for the generic path."""
    if len(buf) - pos < _ACK_FRAME or buf[pos] != FRAME_METHOD or buf[pos + _ACK_FRAME - 1] != FRAME_END:
        return False
    channel = session.channels.get(buf[pos + 1] << 8 | buf[pos + 2])
    if channel is None or not channel.plain:
        return False
    tag, flags = _ack(buf, pos + _ACK_ARGUMENTS_AT)
    try:
        channel.ack(channel.take_unacked(tag, multiple=flags & 1 == 1))
    except AMQPError:  # it took nothing: the generic path finds the same fault and says so
        return False
    return True


def _recognise(session: Session, buf: bytes, pos: int, have: int) -> Template | None:
    """The template of the publish at `pos`; None: that is for the generic path, or not all here."""
    if have - pos < _SHORTEST_PUBLISH:
        return None
    kind, number, size = _head(buf, pos)
    method_end = pos + _HEAD_SIZE + size
    if kind != FRAME_METHOD or have - method_end < 1 + _PROPERTIES_AT + 2:
        return None
    header_at = method_end + 1
    kind, number2, size, class_id, weight, body_size = _content_head(buf, header_at)
    header_end = header_at + _HEAD_SIZE + size
    body_at = header_end + 1
    if header_end >= have:
        return None
    if body_size:
        body_at += _HEAD_SIZE
        if body_at + body_size >= have:
            return None
    beginning = buf[pos:body_at]
    template = session.templates.get(beginning)
    channel = session.channels.get(number)
    if channel is None or not channel.plain:
        return None
    limit = session.frame_max
    if template is not None:  # which another peer may have brought, with larger frames
        return template if size <= limit and body_size <= limit else None
    if (
        kind != FRAME_HEADER
        or number2 != number
        or class_id != CLASS_BASIC
        or weight
        or buf[method_end] != FRAME_END
        or buf[header_end] != FRAME_END
        or method_end - pos > limit
        or size > limit
        or body_size > min(limit, session.settings.max_message_bytes)
        or (body_size and _head(buf, header_end + 1) != (FRAME_BODY, number, body_size))
    ):
        return None
    route = session.routes.get(buf[pos + _HEAD_SIZE : method_end])
    if route is None or not route.targets:
        return None
    return _template(session, beginning, number, header_at - pos, route, body_size)


def _template(
    session: Session, beginning: bytes, number: int, content_at: int, route: Route, body_size: int
) -> Template | None:
    end = len(beginning) - 1 - (_HEAD_SIZE if body_size else 0)
    raw = beginning[content_at + _PROPERTIES_AT : end]
    repeats = raw in session.properties.known
    try:
        summary = session.properties.summary(raw)
    except AMQPError:
        return None
    if not summary.plain:
        return None
    stamp = WireStamp(route.address, summary.traits, body_size, number, route.suffix)
    template = Template(beginning, content_at, number, route, stamp)
    if not template.together:
        return None
    if repeats:  # properties that are new each time would only fill the memory
        session.remember_template(template)
    return template


def _hand_over(channel: Channel, template: Template, batch: list[Message]) -> None:
    """Put messages of one template into their queues."""
    session = channel.session
    if channel.confirms is not None:
        channel.confirms.published += len(batch)
        session.note_confirms(channel)
    session.note_publish()
    targets = template.route.targets
    assert targets
    recorder = session.vhost.recorder
    if recorder is not None and template.durable:
        recorder.published(template.durable, batch, session.now)
        if channel.confirms is not None:
            channel.confirms.safe_at = recorder.position
    for target in targets:
        target.enqueue_alike(batch, session.now)
