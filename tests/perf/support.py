"""A broker's half of a conversation with a peer, without a broker."""

from __future__ import annotations

from rabbitish.perf.options import Options
from rabbitish.perf.peer import Peer
from rabbitish.perf.plan import Plan
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_METHOD, PROTOCOL_HEADER, FrameParser, content_frames
from rabbitish.wire.method import Method
from rabbitish.wire.properties import Properties

FRAME_MAX = 131_072
SECOND = 1_000_000_000
TAG = "amq.ctag-1"


def plan(token: str = "token", **options: object) -> Plan:
    return Plan(Options(**options), token)  # type: ignore[arg-type]


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """All frames in what a peer sends, which must be whole."""
    parser = FrameParser(0)
    found = list(parser.feed(data.removeprefix(PROTOCOL_HEADER)))
    assert parser.pos == len(parser.data), "a frame is cut off"
    return found


def said(data: bytes) -> list[Method]:
    """The methods in what a peer sends."""
    return [methods.decode_method(payload) for kind, _, payload in frames(data) if kind == FRAME_METHOD]


def welcome(peer: Peer, frame_max: int = FRAME_MAX, now: int = 0) -> list[Method]:
    """Let a peer log in and open its channel; what it said meanwhile."""
    sent = said(peer.take(now))
    for method, channel in (
        (methods.ConnectionStart(), 0),
        (methods.ConnectionTune(channel_max=2047, frame_max=frame_max, heartbeat=60), 0),
        (methods.ConnectionOpenOk(), 0),
        (methods.ChannelOpenOk(), 1),
    ):
        peer.receive(method.frame(channel), now)
        sent += said(peer.take(now))
    return sent


def delivery(
    tag: int, body: bytes, *, redelivered: bool = False, key: str = "q", frame_max: int = FRAME_MAX, priority: int = 0
) -> bytes:
    """The frames of a delivery."""
    deliver = methods.BasicDeliver(TAG, tag, redelivered, "", key)
    return deliver.frame(1) + content_frames(1, 60, Properties(priority=priority).encode(), body, frame_max)


def body(stamp: int, size: int = 12) -> bytes:
    """A body that was sent at `stamp`."""
    return bytes(4) + stamp.to_bytes(8, "big") + b"x" * (size - 12)
