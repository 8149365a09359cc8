"""What replicas say to each other: frames as bytes, `length u32 | type u8 | body`, big endian.

A follower sends HELLO, ACK and REJECT, a leader the others. Every frame but HELLO names an epoch, and those of a
session the session too: an answer counts for nothing else. HELLO has an attempt, which WELCOME repeats, since one that
answers an earlier HELLO knows a log that is no longer so. APPEND has a stamp of the leader's clock, which ACK repeats,
so that the leader knows when the follower was certainly there.

A connection that begins with RELAY brings a client instead: what follows the leader's answer is the client's own bytes.

To change a frame: raise VERSION in greeting.py; nodes of different versions do not talk. RELAY is JSON: what is added
to it and may be missing needs no other version.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from enum import IntEnum
from ipaddress import ip_address
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any, NamedTuple, Protocol

from rabbitish.cluster.protocol.log import EpochStart

MAX_RECORDS_BYTES = 1 << 20  # about as many bytes of records go into a frame, or one record
MAX_FRAME_BYTES = (1 << 31) - 1  # as long as a record may be
MARK_BYTES = 16


class LinkError(Exception):
    """The peer sends what is no frame; the link is closed."""


class Hello(NamedTuple):
    """A follower asks to be fed."""

    journal: str
    replica: str
    attempt: int
    seen: int
    """The highest epoch it knows."""
    starts: tuple[EpochStart, ...]
    end: int


class Welcome(NamedTuple):
    """A session begins: cut your log to `cut`, what is behind it follows, as a snapshot first if `snapshot`."""

    epoch: int
    session: int
    attempt: int
    cut: int
    commit: int
    snapshot: bool


class SnapBegin(NamedTuple):
    """A snapshot up to `base` follows."""

    epoch: int
    session: int
    base: int
    stamp: int


class SnapRecords(NamedTuple):
    """Its records, piece by piece; the next when this one is acknowledged."""

    epoch: int
    session: int
    piece: int
    stamp: int
    data: bytes


class SnapEnd(NamedTuple):
    """It was so many pieces, of this SHA-256."""

    epoch: int
    session: int
    pieces: int
    stamp: int
    digest: bytes


class Append(NamedTuple):
    """Records that follow `prev`, if any, and up to where all in-sync replicas have them."""

    epoch: int
    session: int
    prev: int
    commit: int
    stamp: int
    data: bytes


class Ack(NamedTuple):
    """The follower has everything up to `durable` on disk."""

    epoch: int
    session: int
    durable: int
    stamp: int


class Reject(NamedTuple):
    """There is a higher epoch."""

    epoch: int


class Relay(NamedTuple):
    """A node brings a client's connection."""

    client: tuple[str, int]
    """Where it comes from: address and port."""
    listener: tuple[str, int]
    """Where it came in."""
    scheme: str
    """What was spoken there: "amqp" or "amqps"."""
    session: bytes = b""
    """The session, if it began at an earlier leader, as the client's node vouches for it; not understood here."""
    secured: bytes = b""
    """How the client is secured, where its node has shaken hands with it and brings AMQP; not understood here."""
    mark: bytes = b""
    """What the session is to be known by at every leader, if others may go on with it; 16 bytes that none has had."""
    node: str = ""
    """Which node that is; older ones do not say."""


class Verdict(IntEnum):
    """What becomes of a relayed connection."""

    TAKEN = 0
    """The client's bytes may follow, both ways."""
    NOT_LEADER = 1
    """Somebody else is to be asked, or the same one later."""
    REFUSED = 2
    """Nobody needs to be asked again."""


class RelayAnswer(NamedTuple):
    """What becomes of it, and the reason in words."""

    verdict: Verdict
    reason: str


Frame = Hello | Welcome | SnapBegin | SnapRecords | SnapEnd | Append | Ack | Reject
Relaying = Relay | RelayAnswer


class Link(Protocol):
    """The way to other replicas. What is sent may be lost; nothing waits."""

    def send(self, peer: str, frame: Frame) -> None:
        """Send to a replica, over the connection there is or, for HELLO, one that is made."""


HEAD = Struct(">IB")
_HELLO = Struct(">QIQHHI")  # attempt, seen, end, bytes of journal, bytes of replica, how many starts
_START = Struct(">IQ")
_WELCOME = Struct(">IQQQQ?")
_BEGIN = Struct(">IQQQ")
_RECORDS = Struct(">IQIQ")
_END = Struct(">IQIQ32s")
_APPEND = Struct(">IQQQQ")
_ACK = Struct(">IQQQ")
_REJECT = Struct(">I")
_VERDICT = Struct(">B")


def _pack_hello(frame: Hello) -> bytes:
    journal, replica = frame.journal.encode(), frame.replica.encode()
    head = _HELLO.pack(frame.attempt, frame.seen, frame.end, len(journal), len(replica), len(frame.starts))
    return b"".join((head, journal, replica, *(_START.pack(*start) for start in frame.starts)))


def _unpack_hello(body: bytes) -> Hello:
    attempt, seen, end, journal_bytes, replica_bytes, count = _HELLO.unpack_from(body)
    at = _HELLO.size + journal_bytes + replica_bytes
    if len(body) != at + count * _START.size:
        raise LinkError("a HELLO of the wrong length")
    journal = body[_HELLO.size : _HELLO.size + journal_bytes].decode()
    replica = body[_HELLO.size + journal_bytes : at].decode()
    starts = tuple(EpochStart(*start) for start in _START.iter_unpack(body[at:]))
    return Hello(journal, replica, attempt, seen, starts, end)


def _pack_relay(frame: Relay) -> bytes:
    raw = {key: b64encode(getattr(frame, key)).decode() for key in ("session", "secured")}
    raw["mark"] = frame.mark.hex()
    return json.dumps({**frame._asdict(), **raw}).encode()


def _unpack_relay(body: bytes) -> Relay:
    found = json.loads(body)
    ends: list[tuple[str, int]] = []
    for host, port in (found["client"], found["listener"]):
        ip_address(host.partition("%")[0])
        if type(port) is not int:
            raise LinkError(f"a port that is none: {port!r}")
        ends.append((host, port))
    session, secured = (b64decode(found[key], validate=True) for key in ("session", "secured"))
    mark = bytes.fromhex(found["mark"])
    if len(mark) not in (0, MARK_BYTES):
        raise LinkError(f"a mark of {len(mark)} bytes")
    return Relay(ends[0], ends[1], str(found["scheme"]), session, secured, mark, str(found.get("node", "")))


def _pack_answer(frame: RelayAnswer) -> bytes:
    return _VERDICT.pack(frame.verdict) + frame.reason.encode()


def _unpack_answer(body: bytes) -> RelayAnswer:
    return RelayAnswer(Verdict(*_VERDICT.unpack_from(body)), body[_VERDICT.size :].decode())


def _fixed(layout: Struct, kind: Callable[..., Frame]) -> tuple[Callable[[Any], bytes], Callable[[bytes], Frame]]:
    return lambda frame: layout.pack(*frame), lambda body: kind(*layout.unpack(body))


def _with_data(layout: Struct, kind: Callable[..., Frame]) -> tuple[Callable[[Any], bytes], Callable[[bytes], Frame]]:
    """The last field is the rest of the body."""
    return (
        lambda frame: layout.pack(*frame[:-1]) + frame[-1],
        lambda body: kind(*layout.unpack_from(body), body[layout.size :]),
    )


_TABLE: Mapping[type[Any], tuple[int, tuple[Callable[[Any], bytes], Callable[[bytes], Frame | Relaying]]]] = {
    Hello: (1, (_pack_hello, _unpack_hello)),
    Welcome: (2, _fixed(_WELCOME, Welcome)),
    SnapBegin: (3, _fixed(_BEGIN, SnapBegin)),
    SnapRecords: (4, _with_data(_RECORDS, SnapRecords)),
    SnapEnd: (5, _fixed(_END, SnapEnd)),
    Append: (6, _with_data(_APPEND, Append)),
    Ack: (7, _fixed(_ACK, Ack)),
    Reject: (8, _fixed(_REJECT, Reject)),
    Relay: (9, (_pack_relay, _unpack_relay)),
    RelayAnswer: (10, (_pack_answer, _unpack_answer)),
}
_PACK = {kind: (number, codec[0]) for kind, (number, codec) in _TABLE.items()}
_UNPACK = {number: codec[1] for number, codec in _TABLE.values()}


def encode_frame(frame: Frame | Relaying) -> bytes:
    """A frame as bytes."""
    number, pack = _PACK[type(frame)]
    body = pack(frame)
    return HEAD.pack(len(body), number) + body


class FrameDecoder:
    """Bytes as they arrive, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame | Relaying]:
        """The frames that are complete with `data`. LinkError: no frame; nothing more can be read."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame | Relaying] = []
        at = 0
        while len(buffer) - at >= HEAD.size:
            size, number = HEAD.unpack_from(buffer, at)
            if size > MAX_FRAME_BYTES or number not in _UNPACK:
                raise LinkError(f"a frame of type {number} and {size} bytes")
            end = at + HEAD.size + size
            if len(buffer) < end:
                break
            body = bytes(buffer[at + HEAD.size : end])
            at = end
            try:
                frames.append(_UNPACK[number](body))
            except (StructError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                raise LinkError(f"a frame of type {number} that cannot be read: {error}") from error
        del buffer[:at]
        return frames
