"""Publisher confirms of one channel: counts publishes, and answers a batch of them with as few frames as it can.

Publishes are numbered from 1 (confirm.select). Within a batch of input nothing is confirmed; `flush` then acknowledges
all of it with one cumulative basic.ack, cut only where a queue refused a publish (basic.nack). A batch with messages
that must survive waits until the journal is on disk as far as their records, or all of them have been acknowledged, and
later ones wait behind it.
"""

from __future__ import annotations

from collections import deque
from struct import Struct

from rabbitish.wire.frames import FRAME_END, FRAME_METHOD

# A whole frame: head, class and method id, delivery tag, flags, end.
_FRAME = Struct(">BHIHHQBB")
_ACK, _NACK = 80, 120
_MULTIPLE = 1
_REQUEUE = 2  # RabbitMQ sets it in its nacks, though nothing is requeued


class Confirms:
    """The confirm state of a channel in confirm mode."""

    __slots__ = ("_channel", "_counted", "_refused", "answered", "published", "safe_at", "waiting")

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self.published = 0  # the number of the last publish
        self.answered = 0  # all up to here have been confirmed or refused
        self.safe_at = 0  # the journal's record that makes the last publish safe
        self._refused: deque[int] = deque()
        self._counted = 0  # publishes of the batches up to now
        self.waiting: deque[tuple[int, int]] = deque()  # batches that wait for the disk: safe at, last publish

    def refuse(self) -> None:
        """The publish just counted was refused by a queue."""
        self._refused.append(self.published)

    def flush(self, safe: int = 0) -> bytes:
        """The frames that answer what was published and is safe, being on disk, or acknowledged, up to `safe`."""
        if self.published > self._counted:
            self._counted = self.published
            self.waiting.append((self.safe_at, self.published))
        waiting, last = self.waiting, 0
        while waiting and waiting[0][0] <= safe:
            last = waiting.popleft()[1]
        if not last:
            return b""
        frames: list[bytes] = []
        if self._refused:
            self._answer_refused(last, frames)
        self._acknowledge_below(last + 1, frames)
        return b"".join(frames)

    def _answer_refused(self, last: int, frames: list[bytes]) -> None:
        while self._refused and self._refused[0] <= last:
            number = self._refused.popleft()
            self._acknowledge_below(number, frames)
            frames.append(self._frame(_NACK, number, _REQUEUE))
            self.answered = number

    def _acknowledge_below(self, number: int, frames: list[bytes]) -> None:
        last = number - 1
        if last > self.answered:
            frames.append(self._frame(_ACK, last, _MULTIPLE if last > self.answered + 1 else 0))
            self.answered = last

    def _frame(self, method: int, number: int, flags: int) -> bytes:
        return _FRAME.pack(FRAME_METHOD, self._channel, 13, 60, method, number, flags, FRAME_END)
