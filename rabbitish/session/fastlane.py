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

from rabbitish.core.message import Message
from rabbitish.errors import AMQPError
from rabbitish.session.content import CLASS_BASIC, WireMessage, WireStamp
from rabbitish.session.shapes import Kind, Shape
from rabbitish.wire import methods
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, HEAD

if TYPE_CHECKING:
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

    __slots__ = ("beginning", "content_at", "kind", "size", "stamp")

    def __init__(self, beginning: bytes, content_at: int, kind: Kind, stamp: WireStamp) -> None:
        self.beginning = beginning
        self.content_at = content_at  # where the header frame starts
        self.size = len(beginning) + (stamp.size + 1 if stamp.size else 0)  # of the whole, last frame end included
        self.kind = kind
        self.stamp = stamp


def take_fast(session: Session) -> None:
    """Handle what can be handled at the front of the parser's bytes, and move its position behind that."""
    parser = session.parser
    buf, pos = parser.data, parser.pos
    have = len(buf)
    if have - pos < _ACK_FRAME:
        return
    starts = buf.startswith
    batch: list[Message] = []  # publishes of one kind
    kind = None
    alike = True  # whether they are of one template
    template = session.template
    if template is not None and session.templates.get(template.beginning) is template:  # or bindings changed since
        channel = session.channels.get(template.kind.channel)
        if channel is not None and channel.plain:
            kind = template.kind
    if template is not None and kind is not None:
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
        if starts(_ACK, pos + 3):
            if batch:
                assert kind is not None
                _hand_over(session, kind, batch, alike=alike)
                batch, alike = [], True
            if not _take_ack(session, buf, pos):
                break
            pos += _ACK_FRAME
            if session.busy:
                break
            continue
        found = _recognise(session, buf, pos, have)
        if found is None:
            break
        if batch and found.kind is not kind:
            assert kind is not None
            _hand_over(session, kind, batch, alike=alike)
            batch, alike = [], True
        alike &= not batch
        kind = found.kind
        if isinstance(found, Shape):
            stamp, start, alike = None, pos, False
            pos = found.take(buf, pos, min(session.frame_max, session.settings.max_message_bytes), batch)
            if pos == start:
                break
            continue
        session.template = template = found
        beginning, content_at, size, stamp = template.beginning, template.content_at, template.size, template.stamp
    if batch:
        assert kind is not None
        _hand_over(session, kind, batch, alike=alike)
    parser.pos = pos


def take_only_ack(session: Session, data: bytes) -> bool:
    """Handle what has arrived if that is one basic.ack and nothing else; False: nothing was done."""
    return (
        len(data) == _ACK_FRAME
        and session.state == "running"
        and not session.busy
        and not session.parser.data
        and data.startswith(_ACK, 3)
        and _take_ack(session, data, 0)
    )


def _take_ack(session: Session, buf: bytes, pos: int) -> bool:
    """Take the basic.ack at `pos`; False: that is for the generic path."""
    if len(buf) - pos < _ACK_FRAME or buf[pos] != FRAME_METHOD or buf[pos + _ACK_FRAME - 1] != FRAME_END:
        return False
    channel = session.channels.get(buf[pos + 1] << 8 | buf[pos + 2])
    if channel is None or not channel.plain:
        return False
    tag, flags = _ack(buf, pos + _ACK_ARGUMENTS_AT)
    if not flags & 1:
        run = channel.unacked.take(tag)
        if run is None:
            return False
        channel.ack_run(run)
        return True
    try:
        channel.ack(channel.take_unacked(tag, multiple=True))
    except AMQPError:  # it took nothing: the generic path finds the same fault and says so
        return False
    return True


def _recognise(session: Session, buf: bytes, pos: int, have: int) -> Template | Shape | None:
    """What the publish at `pos` is like; None: that is for the generic path, or not all here."""
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
    content_at = header_at - pos
    form = buf[pos : header_at + _HEAD_SIZE], beginning[content_at + _PROPERTIES_AT :][:2]
    again = False  # whether the last one that was looked at began with the same bytes
    if body_size:
        for shape in session.shapes.get(form, ()):
            if shape.fits(beginning):
                again, shape.last = beginning == shape.last, beginning
                if not again:
                    return shape
                break
    return _learn(session, beginning, content_at, form, body_size, again=again)


def _learn(
    session: Session, beginning: bytes, content_at: int, form: tuple[bytes, bytes], body_size: int, *, again: bool
) -> Template | Shape | None:
    """Decode what is published and remember what it is like; None: that is for the generic path."""
    method = beginning[:content_at]
    route = session.routes.get(method[_HEAD_SIZE:-1])
    if route is None or not route.targets:
        return None
    raw = beginning[content_at + _PROPERTIES_AT : len(beginning) - 1 - (_HEAD_SIZE if body_size else 0)]
    repeats = again or raw in session.properties.known
    try:
        summary = session.properties.summary(raw)
    except AMQPError:
        return None
    if not summary.plain:
        return None
    kind = session.kind_of(method, route, summary.traits)
    if not kind.together:
        return None
    if body_size and not again and (kind.repeats or not repeats):
        shape = Shape(kind, beginning, content_at)
        session.remember_shape(form, shape)
        return shape
    template = Template(beginning, content_at, kind, kind.stamp(body_size, summary.traits.expiration_ms))
    if repeats:  # properties that are new each time would only fill the memory
        kind.repeats = True
        session.remember_template(template)
    return template


def _hand_over(session: Session, kind: Kind, batch: list[Message], *, alike: bool) -> None:
    """Put messages of one kind into their queues."""
    channel = session.channels[kind.channel]
    session.kind = kind
    if channel.confirms is not None:
        channel.confirms.published += len(batch)
        session.note_confirms(channel)
        if channel.stream is not None:
            channel.stream.number += len(batch)
    session.note_publish()
    targets = kind.route.targets
    assert targets
    recorder = session.vhost.recorder
    if recorder is not None and kind.durable:
        recorder.published(kind.durable, batch, session.now, alike=alike)
        if channel.confirms is not None:
            channel.confirms.safe_at = batch[-1].lsn
            if channel.stream is not None and len(kind.durable) == len(targets):
                channel.stream.stored(channel.stream.number, len(batch))
    size = len(batch) * batch[0].size if alike else sum([message.size for message in batch])
    for target in targets:
        target.enqueue_alike(batch, size, session.now)
