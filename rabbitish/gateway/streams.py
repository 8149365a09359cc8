"""The bytes of a session, of both sides: they come in as they come, are cut into commands, and wait to be sent on.

Whoever knows what commands mean is given each by `_of_client` or `_of_leader`, and says what goes on in its place. A
stream that cannot be cut any more is for `_lose_track`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from rabbitish.gateway.cutting import Cutter
from rabbitish.wire.frames import HEARTBEAT, PROTOCOL_HEADER, Opening, classify_opening
from rabbitish.wire.method import Method

# Who is not logged in has no content to send.
_UNFINISHED_BEFORE_OPEN = 4096


class Streams(ABC):
    """See the module."""

    def __init__(self, frame_min: int) -> None:
        self._header = b""
        self._begun = False
        self._for_leader: list[bytes] = []
        self._for_client: list[bytes] = []
        self._client = Cutter(self._of_client, limit=frame_min, most=_UNFINISHED_BEFORE_OPEN)
        self._leader = Cutter(self._of_leader)

    @abstractmethod
    def _of_client(self, key: int, number: int, data: bytes, start: int, end: int) -> bytes | None:
        """See cutting.Judge; on the way to the leader."""

    @abstractmethod
    def _of_leader(self, key: int, number: int, data: bytes, start: int, end: int) -> bytes | None:
        """See cutting.Judge; on the way to the client."""

    @abstractmethod
    def _lose_track(self) -> None:
        """The client has said what cannot be cut."""

    def from_client(self, data: bytes) -> None:
        """The client has said something."""
        if not self._begun:
            self._header += data
            opening = classify_opening(self._header)
            if opening is Opening.INCOMPLETE:
                return
            data, self._header, self._begun = self._header, b"", True
            if opening is Opening.ACCEPTED:
                self._for_leader.append(data[: len(PROTOCOL_HEADER)])
                data = data[len(PROTOCOL_HEADER) :]
            else:
                self._client.lost = True
        self._for_leader += self._client.feed(data)
        if self._client.lost:
            self._lose_track()

    def from_leader(self, data: bytes) -> None:
        """The leader has. LeaderFault: something impossible."""
        before, self._for_client = self._for_client, []
        pieces = self._leader.feed(data)
        self._for_client = [*before, *pieces, *self._for_client]  # what is ours to say follows from what it said

    def take_for_leader(self) -> bytes:
        """What is to be sent to the leader by now."""
        parts, self._for_leader = self._for_leader, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take_for_client(self) -> bytes:
        """What is to be sent to the client by now."""
        parts, self._for_client = self._for_client, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def waits_for_client(self) -> bool:
        """Whether there is something to be sent to the client."""
        return bool(self._for_client)

    def say_to_leader(self, channel: int, method: Method) -> None:
        """Send the leader a method."""
        self._for_leader.append(method.frame(channel))

    def say_to_client(self, channel: int, method: Method) -> None:
        """Send the client a method."""
        self._for_client.append(method.frame(channel))

    def heartbeat_for_client(self) -> None:
        """Show the client that somebody is there."""
        self._for_client.append(HEARTBEAT)

    def heartbeat_for_leader(self) -> None:
        """Show the leader that the client is, as far as is known."""
        self._for_leader.append(HEARTBEAT)
