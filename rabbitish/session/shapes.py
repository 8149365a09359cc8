"""Publishes that differ in what nobody acts on: recognised by their shape, without decoding what each has of its own.

Clients give every message an id, a time, a correlation id, headers with other values, a body of another size. The bytes
of the content header that hold such values are a mask, and a header whose other bytes are those of one that was
decoded means the same and decodes as well (wire/spans.py). So a comparison of two numbers stands for decoding. What
the broker acts on is not in the mask but for the body's size and the expiration, which are read.

Messages of one `Kind` go to their queues together, whatever shapes they have.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from rabbitish.core.arguments import EXPIRY_MS_MAX
from rabbitish.core.keeping import keepers
from rabbitish.core.message import Message, Traits
from rabbitish.core.vhost import REPLY_TO
from rabbitish.session.content import WireMessage, WireStamp
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_END, HEAD
from rabbitish.wire.spans import value_spans

if TYPE_CHECKING:
    from rabbitish.session.publish import Route

_PROPERTIES_AT = HEAD.size + CONTENT_HEAD.size
_BODY_SIZE_AT = _PROPERTIES_AT - 8
_MATTER = ("delivery_mode", "priority")  # any other value has another meaning; with a user id nothing is learnt
_STAMPS_KNOWN = 1024


class Kind:
    """Messages that go the same way by the same rules. `traits`: of one of them; others may expire at other times."""

    __slots__ = ("_stamps", "channel", "durable", "repeats", "route", "together", "traits")

    def __init__(self, number: int, route: Route, traits: Traits) -> None:
        self.channel = number
        self.route = route
        self.traits = traits
        targets = route.targets or ()
        # Messages may wait for each other unless each one's fate is known only when it is handed over.
        self.together = bool(targets) and all(target.holds and not target.may_refuse for target in targets)
        self.durable = keepers(targets, persistent=traits.persistent)
        self.repeats = False  # whether any came twice in the same words
        self._stamps: dict[tuple[int, int | None], WireStamp] = {}

    def stamp(self, size: int, expiration_ms: int | None) -> WireStamp:
        """The stamp of those with a body of this size that expire after so long."""
        stamp = self._stamps.get((size, expiration_ms))
        if stamp is None:
            route, traits = self.route, Traits(self.traits.persistent, self.traits.priority, expiration_ms)
            stamp = WireStamp(route.address, traits, size, self.channel, route.suffix)
            if len(self._stamps) >= _STAMPS_KNOWN:
                self._stamps.clear()
            self._stamps[size, expiration_ms] = stamp
        return stamp


class Shape:
    """What publishes look like that begin like this one: method frame, content header, head of the one body frame."""

    __slots__ = ("_expires", "_head", "_mask", "_method", "_pattern", "_sizes", "kind", "last")

    def __init__(self, kind: Kind, beginning: bytes, content_at: int) -> None:
        self.kind = kind
        self.last = beginning  # of the last one that was looked at by itself
        self._method = beginning[:content_at]
        header = beginning[content_at:]
        end = len(header) - HEAD.size - 1  # of the header frame's payload
        self._head = len(beginning)
        self._expires: tuple[int, int] | None = None
        mask = bytearray(b"\xff" * len(header))
        mask[_BODY_SIZE_AT : _BODY_SIZE_AT + 8], mask[-4:] = bytes(8), bytes(4)
        for name, start, stop in value_spans(header[_PROPERTIES_AT:end]):
            start, stop = start + _PROPERTIES_AT, stop + _PROPERTIES_AT
            if name == "expiration":
                self._expires = start, stop
            if name not in _MATTER and not (name == "reply_to" and stop - start == len(REPLY_TO)):
                mask[start:stop] = bytes(stop - start)
        self._mask = int.from_bytes(mask, "big")
        self._pattern = int.from_bytes(header, "big") & self._mask
        self._sizes = Struct(f">{_BODY_SIZE_AT}xQ{len(header) - _BODY_SIZE_AT - 12}xI").unpack_from

    def fits(self, beginning: bytes) -> bool:
        """Whether a publish with this method frame, which begins like this, has the shape."""
        return int.from_bytes(beginning[len(self._method) :], "big") & self._mask == self._pattern

    def take(self, buf: bytes, pos: int, most: int, messages: list[Message]) -> int:
        """Take messages that stand one behind the other from `pos` on, with at most so large bodies; where that ends.

        Stops before one that has another shape, is not all here, or is not right.
        """
        method, mask, pattern = self._method, self._mask, self._pattern
        starts, number, sizes = buf.startswith, int.from_bytes, self._sizes
        content_at, head, have = len(method), self._head, len(buf)
        expires, known, stamp = self._expires, 0, None
        while starts(method, pos):
            at, body_at = pos + content_at, pos + head
            if number(buf[at:body_at], "big") & mask != pattern:
                break
            size, again = sizes(buf, at)
            end = body_at + size + 1
            if size != again or not 0 < size <= most or end > have or buf[end - 1] != FRAME_END:
                break
            if size != known or expires is not None:
                ms = None
                if expires is not None:
                    text = buf[at + expires[0] : at + expires[1]]
                    if not text.isdigit() or (ms := int(text)) > EXPIRY_MS_MAX:
                        break
                known, stamp = size, self.kind.stamp(size, ms)
            assert stamp is not None
            messages.append(WireMessage(stamp, buf[at:end]))
            pos = end
        return pos
