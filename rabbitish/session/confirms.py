"""Publisher confirms of one channel: counts publishes, and answers a batch of them with as few frames as it can.

Publishes are numbered from 1 (confirm.select). Within a batch of input nothing is confirmed; `flush` then acknowledges
all of it with one cumulative basic.ack, cut only where a queue refused a publish (basic.nack). What will have to wait
for the disk later is released here too: a batch is confirmed up to the number whose messages are safe.
"""

from __future__ import annotations

from struct import Struct

from rabbitish.wire.frames import FRAME_END, FRAME_METHOD

# A whole frame: head, class and method id, delivery tag, flags, end.
_FRAME = Struct(">BHIHHQBB")
_ACK, _NACK = 80, 120
_MULTIPLE = 1
_REQUEUE = 2  # RabbitMQ sets it in its nacks, though nothing is requeued


class Confirms:
    """The confirm state of a channel in confirm mode."""

    __slots__ = ("_channel", "_refused", "answered", "published")

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self.published = 0  # the number of the last publish
        self.answered = 0  # all up to here have been confirmed or refused
        self._refused: list[int] = []

    def refuse(self) -> None:
        """The publish just counted was refused by a queue."""
        self._refused.append(self.published)

    def flush(self) -> bytes:
        """The frames that answer everything published since the last call; empty when there is nothing."""
        frames: list[bytes] = []
        for number in self._refused:
            self._acknowledge_below(number, frames)
            frames.append(self._frame(_NACK, number, _REQUEUE))
            self.answered = number
        self._refused.clear()
        self._acknowledge_below(self.published + 1, frames)
        return b"".join(frames)

    def _acknowledge_below(self, number: int, frames: list[bytes]) -> None:
        last = number - 1
        if last > self.answered:
            frames.append(self._frame(_ACK, last, _MULTIPLE if last > self.answered + 1 else 0))
            self.answered = last

    def _frame(self, method: int, number: int, flags: int) -> bytes:
        return _FRAME.pack(FRAME_METHOD, self._channel, 13, 60, method, number, flags, FRAME_END)
