"""Frames: bytes <-> (type, channel, payload), and the protocol header before the first of them.

Owns the frame checks that need nothing but the frame: its size, its end marker, its type and the least length that
the type asks for. Never knows what a payload means or which channels are open.

The parser takes the stream in any pieces and copies a byte only a few times: pieces are kept in a list until a frame is
whole, so one that trickles in byte by byte costs little more than one that comes at once. Of large frames the bytes
are copied even less: only one that came in two pieces is put together, and the payload of a body frame is a view.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from struct import Struct
from typing import TypeAlias, cast

from rabbitish.errors import ConnectionFailure, ReplyCode

FRAME_METHOD = 1
FRAME_HEADER = 2
FRAME_BODY = 3
FRAME_HEARTBEAT = 8
FRAME_END = 0xCE

FRAME_MIN_SIZE = 4096
"""The largest frame before tune-ok, and the smallest frame_max that may be negotiated."""
FRAME_OVERHEAD = 8
"""Bytes of a frame that are not payload: head and end marker."""

HEAD = Struct(">BHI")
"""Type, channel, payload size."""
CONTENT_HEAD = Struct(">HHQ")
"""What a content header's payload starts with: class id, weight (always 0), body size."""

_END = bytes((FRAME_END,))
HEARTBEAT = HEAD.pack(FRAME_HEARTBEAT, 0, 0) + _END

Frame: TypeAlias = tuple[int, int, bytes]

_ANY = 0xFFFFFFFF
_PAYLOAD_SIZE = {
    FRAME_METHOD: (4, _ANY),
    FRAME_HEADER: (CONTENT_HEAD.size, _ANY),
    FRAME_BODY: (0, _ANY),
    FRAME_HEARTBEAT: (0, 0),
}
_NO_SIZE = (1, 0)
# Of frames from this size on each copy of the bytes counts.
_LARGE_BYTES = 16 * 1024


class FrameParser:
    """Cuts a stream of bytes into frames.

    `limit` is frame_max: the size of a whole frame in bytes, 0 for none. It may be changed at any time, also between
    two frames, and holds from the next frame on.

    Whoever knows a shortcut may read whole frames from `data` at `pos` itself and move `pos` behind them. `data` holds
    what is due next from `pos` on: all that has arrived, unless that is less than the next frame, or the next frame is
    large and came in pieces.
    """

    __slots__ = ("_behind", "_behind_at", "_chunks", "_need", "_waiting", "data", "limit", "lost", "pos")

    def __init__(self, limit: int = FRAME_MIN_SIZE) -> None:
        self.limit = limit
        self.data = b""
        self.pos = 0
        self._chunks: list[bytes] = []  # what came after data
        self._waiting = 0  # bytes in them
        self._need = HEAD.size  # bytes from pos on without which there is no next frame
        self._behind = b""  # what comes after data, from _behind_at on
        self._behind_at = 0
        self.lost = False  # out of step with the peer for good

    def push(self, data: bytes) -> None:
        """Take bytes; they are looked at when frames are asked for. Cheapest after `next_frame` gave None."""
        if self._behind:
            self._join()
        rest = len(self.data) - self.pos
        if not rest:
            self.data, self.pos = data, 0
            return
        if self.lost:
            return  # nobody will ever read it
        lacking = self._need - rest - self._waiting
        self._chunks.append(data)
        self._waiting += len(data)
        if lacking > len(data):
            return
        if self._need >= _LARGE_BYTES:
            self._chunks[-1], self._behind, self._behind_at = data[:lacking], data, lacking
        self.data = b"".join((self.data[self.pos :], *self._chunks))
        self.pos = self._waiting = 0
        self._chunks.clear()
        self._need = HEAD.size

    def _join(self) -> None:
        """Have everything in `data`."""
        self.data = b"".join((self.data[self.pos :], self._behind[self._behind_at :]))
        self.pos, self._behind = 0, b""

    def next_frame(self) -> Frame | None:
        """The next frame, or None until more bytes come.

        Raises ConnectionFailure (501 with RabbitMQ's text; blamed on no method) where the stream goes wrong. An unknown
        frame is skipped then; after a frame that is too large or has a wrong end marker nothing more can be understood,
        and every further call raises the same again.
        """
        data, pos = self.data, self.pos
        have = len(data) - pos
        if self._behind and not have:
            data, pos = self.data, self.pos = self._behind, self._behind_at
            have = len(data) - pos
            self._behind = b""
        if not have:
            self.data, self.pos, self._need = b"", 0, HEAD.size
            return None
        if have < HEAD.size:
            self._wait_for(HEAD.size)
            return None
        kind, channel, size = HEAD.unpack_from(data, pos)
        if self.limit and size > self.limit:
            self.lost = True
            raise _frame_error(kind, b"", f"{{frame_too_large,{size},{self.limit - FRAME_OVERHEAD}}}")
        if have < size + FRAME_OVERHEAD:
            self._wait_for(size + FRAME_OVERHEAD)
            return None
        start = pos + HEAD.size
        end = start + size
        if kind == FRAME_BODY and size >= _LARGE_BYTES:
            payload = cast("bytes", memoryview(data)[start:end])  # all that anybody does with it is to join it
        else:
            payload = data[start:end]
        if data[end] != FRAME_END:
            self.lost = True
            raise _frame_error(kind, payload, f"{{invalid_frame_end_marker,{data[end]}}}")
        self.pos = end + 1
        least, most = _PAYLOAD_SIZE.get(kind, _NO_SIZE)
        if not least <= size <= most:
            raise _frame_error(kind, payload, "unknown_frame")
        return kind, channel, payload

    def _wait_for(self, need: int) -> None:
        # An idle connection must not keep a read's worth of memory for the few bytes left over.
        if self.pos:
            self.data, self.pos = self.data[self.pos :], 0
        self._need = need

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes, and iterate over the frames that are whole now. The iterator raises as `next_frame`."""
        self.push(data)
        return iter(self.next_frame, None)


def _frame_error(kind: int, payload: bytes, reason: str) -> ConnectionFailure:
    return ConnectionFailure(ReplyCode.FRAME_ERROR, f"{frame_text(kind, payload)}: {reason}")


def frame_text(kind: int, payload: bytes) -> str:
    """A frame at fault as RabbitMQ's texts show it: its type and how its payload begins."""
    extent = "all" if len(payload) <= 16 else "first 16"
    return f"type {kind}, {extent} octets = {erlang_binary(bytes(payload[:16]))}"


def erlang_binary(raw: bytes) -> str:
    """`raw` as RabbitMQ's texts show a binary: <<"abc">> if it is printable Latin-1, else <<1,2,3>>."""
    text = raw.decode("latin-1")
    if raw and all(char in _ERLANG_ESCAPES or " " <= char <= "~" or char >= "\xa0" for char in text):
        return '<<"' + "".join(_ERLANG_ESCAPES.get(char, char) for char in text) + '">>'
    return f"<<{','.join(map(str, raw))}>>"


_ERLANG_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\v": "\\v",
    "\f": "\\f",
    "\r": "\\r",
    "\x1b": "\\e",
}


def method_frame(channel: int, payload: bytes) -> bytes:
    """The frame around a method's payload."""
    return HEAD.pack(FRAME_METHOD, channel, len(payload)) + payload + _END


def content_frames(channel: int, class_id: int, raw_properties: bytes, body: bytes, frame_max: int) -> bytes:
    """The header frame and the body frames that `frame_max` asks for: none for an empty body, one where it is 0.

    ValueError: the properties do not fit into one frame of `frame_max`.
    """
    header_size = CONTENT_HEAD.size + len(raw_properties)
    room = frame_max - FRAME_OVERHEAD if frame_max else max(len(body), header_size)
    if header_size > room:
        raise ValueError(f"content header of {header_size} bytes does not fit a frame of {frame_max}")
    parts = [
        HEAD.pack(FRAME_HEADER, channel, header_size),
        CONTENT_HEAD.pack(class_id, 0, len(body)),
        raw_properties,
        _END,
    ]
    if len(body) <= room:
        if body:
            parts += (HEAD.pack(FRAME_BODY, channel, len(body)), body, _END)
    else:
        for start in range(0, len(body), room):
            piece = body[start : start + room]
            parts += (HEAD.pack(FRAME_BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
"""Opens the connection, and is the answer to anything else."""
LEGACY_PROTOCOL_HEADER = b"AMQP\x01\x01\x00\x09"
"""AMQP 0-9's; RabbitMQ takes it for 0-9-1, and so do we."""


class Opening(Enum):
    """What the first bytes of a connection are."""

    INCOMPLETE = "incomplete"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


def classify_opening(data: bytes) -> Opening:
    """Judge the first bytes of a connection; once ACCEPTED, frames start at byte 8.

    REJECTED as soon as it is certain. RabbitMQ waits for eight bytes first, except after "GET ".
    """
    opening = data[:8]
    for header in (PROTOCOL_HEADER, LEGACY_PROTOCOL_HEADER):
        if header.startswith(opening):
            return Opening.ACCEPTED if len(opening) == len(header) else Opening.INCOMPLETE
    return Opening.REJECTED
