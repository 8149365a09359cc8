"""Messages ready to be sent: everything but the time in a body is made once, and many are made in one go.

A body begins as PerfTest's does: four bytes that are 0 here, then eight with the time it was sent at, big-endian; the
rest is filler. All messages of a batch carry the same time, so a batch is one repetition of a byte string.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from rabbitish.perf.options import STAMPED_BYTES
from rabbitish.wire.frames import HEAD, content_frames
from rabbitish.wire.methods import BasicPublish
from rabbitish.wire.properties import Properties

CLASS_BASIC = 60
STAMP = Struct(">Q")
STAMP_AT = 4
"""Where in a body its time is."""
_FILLER = b"x"
_SKEW_NS = 1_000_000_000  # how much the clock of another machine may be ahead of ours


@dataclass(frozen=True)
class Stamping:
    """How a time is written into a message: the run's clock and `offset` nanoseconds, in units of `unit` ones."""

    unit: int = 1
    offset: int = 0

    def at(self, now: int) -> int:
        """The stamp for `now`, which is in nanoseconds of the run's clock."""
        return (now + self.offset) // self.unit

    def latency(self, stamp: int, now: int) -> int | None:
        """Nanoseconds from `stamp` to `now`; None if that can be no stamp, as in a message of somebody else's."""
        latency = (self.at(now) - stamp) * self.unit
        return latency if stamp > 0 and latency > -_SKEW_NS else None


class Payload:
    """The messages of one producer: `size` bytes of body, and `properties` in turn from message to message."""

    __slots__ = ("_next", "_parts", "message_bytes")

    def __init__(
        self, channel: int, publish: BasicPublish, properties: list[Properties], size: int, frame_max: int
    ) -> None:
        self._parts = [_split(channel, publish, each, size, frame_max) for each in properties]
        self._next = 0  # whose turn it is
        self.message_bytes = sum(map(len, self._parts[0])) + (STAMP.size if self._stamped else 0)
        """Bytes on the wire of one message."""

    @property
    def _stamped(self) -> bool:
        return bool(self._parts[0][1])

    def batch(self, count: int, stamp: int) -> bytes:
        """The next `count` messages, whole frames, sent at `stamp`."""
        raw = STAMP.pack(stamp) if self._stamped else b""
        parts = self._parts
        if len(parts) == 1:
            return raw.join(parts[0]) * count
        messages = [raw.join(each) for each in parts]
        turn = self._next
        self._next = (turn + count) % len(parts)
        cycle = b"".join(messages[turn:] + messages[:turn])
        rest = [messages[(turn + number) % len(parts)] for number in range(count % len(parts))]
        return cycle * (count // len(parts)) + b"".join(rest)


def _split(
    channel: int, publish: BasicPublish, properties: Properties, size: int, frame_max: int
) -> tuple[bytes, bytes]:
    """A message's frames before and after its stamp; nothing after it where the body has no room for one."""
    body = bytes(STAMP_AT) + _FILLER * (size - STAMP_AT) if size >= STAMPED_BYTES else _FILLER * size
    method = publish.frame(channel)
    content = content_frames(channel, CLASS_BASIC, properties.encode(), body, frame_max)
    if size < STAMPED_BYTES:
        return method + content, b""
    header_bytes = len(content_frames(channel, CLASS_BASIC, properties.encode(), b"", frame_max))
    at = header_bytes + HEAD.size + STAMP_AT
    return method + content[:at], content[at + STAMP.size :]
