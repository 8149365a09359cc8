"""Settling the deliveries of one channel: acknowledgements that are gathered, rejections that are not.

Acknowledgements of one scheduling turn are written together, as one with `multiple` where they cover all that is
outstanding up to some tag. They are written after everything that was written before them, and before anything that
could depend on them; so a crash in between can only bring a message again, never lose what came of it.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from rabbitish.client.errors import ClientError
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_END, FRAME_METHOD

if TYPE_CHECKING:
    from rabbitish.client.protocol.connection import Protocol

_ACK = Struct(">BHIHHQBB")  # the whole frame of basic.ack
_ACK_BYTES = 13
_NO_TAG = 1 << 64


class Settling:
    """The part of a channel that settles deliveries."""

    def __init__(self, protocol: Protocol, number: int) -> None:
        self.protocol = protocol
        self.number = number
        self.error: ClientError | None = None
        """Why the channel is not open any more."""
        self.unsettled: dict[int, None] = {}
        """Tags of deliveries that are to be settled, in order."""
        self._acked: list[int] = []

    def settle_nothing(self) -> None:
        """The channel is gone: the broker has taken back everything."""
        self.unsettled.clear()
        self._acked.clear()

    def ack(self, tag: int) -> bool:
        """Acknowledge a delivery; False: there is nothing to acknowledge."""
        if self.unsettled.pop(tag, _NO_TAG) is not None:
            return False
        if not self._acked:
            self.protocol.will_ack(self)
        self._acked.append(tag)
        return True

    def settle_up_to(self, tag: int) -> int:
        """Acknowledge everything up to a tag; how many that were."""
        tags = self._up_to(tag)
        for each in tags:
            self.ack(each)
        return len(tags)

    def refuse(self, tag: int, *, requeue: bool) -> bool:
        """Reject a delivery; False: there is nothing to reject."""
        if self.unsettled.pop(tag, _NO_TAG) is not None:
            return False
        self.flush_acks()
        self.protocol.write(methods.BasicReject(delivery_tag=tag, requeue=requeue).frame(self.number))
        return True

    def refuse_up_to(self, tag: int, *, requeue: bool) -> int:
        """Reject everything up to a tag; how many that were."""
        tags = self._up_to(tag)
        if tags:
            self.flush_acks()
            for each in tags:
                del self.unsettled[each]
            nack = methods.BasicNack(delivery_tag=tags[-1], multiple=True, requeue=requeue)
            self.protocol.write(nack.frame(self.number))
        return len(tags)

    def _up_to(self, tag: int) -> list[int]:
        tags = []
        for each in self.unsettled:
            if each > tag:
                break
            tags.append(each)
        return tags

    def flush_acks(self) -> None:
        """Write the acknowledgements that have gathered."""
        acked = self._acked
        if not acked or self.error is not None:
            return
        self._acked = []
        low = next(iter(self.unsettled), _NO_TAG)
        if len(acked) == 1:
            below, singles = [], acked
        elif low == _NO_TAG or max(acked) < low:
            below, singles = acked, []
        else:
            below, singles = [tag for tag in acked if tag < low], [tag for tag in acked if tag > low]
        if below:
            self.protocol.write(_ACK.pack(FRAME_METHOD, self.number, _ACK_BYTES, 60, 80, max(below), 1, FRAME_END))
        if singles:
            frames = [_ACK.pack(FRAME_METHOD, self.number, _ACK_BYTES, 60, 80, tag, 0, FRAME_END) for tag in singles]
            self.protocol.write(b"".join(frames))
