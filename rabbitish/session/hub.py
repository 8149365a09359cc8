"""What the sessions of a broker share, and what a session asks of its surroundings.

The server makes one hub a broker. Through `touched` it learns which sessions have something to send or have ended;
through `now_durable` and `set_alarm` it tells all of them what concerns all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rabbitish.config import Settings
from rabbitish.core.access import Access
from rabbitish.core.broker import Broker
from rabbitish.session.content import PropertyCache

if TYPE_CHECKING:
    from rabbitish.session.channel import Channel
    from rabbitish.session.connection import Session


class Log(Protocol):
    """Where a session reports what happens to it."""

    def info(self, event: str, **fields: object) -> None: ...
    def warning(self, event: str, **fields: object) -> None: ...
    def exception(self, event: str, error: BaseException, **fields: object) -> None: ...
    def bind(self, **fields: object) -> Log: ...


class Peer(Protocol):
    """Where a connection comes from."""

    name: str  # "127.0.0.1:50412 -> 127.0.0.1:5672", RabbitMQ's name for a connection
    loopback: bool


class Hub:
    """What the sessions of a broker share."""

    def __init__(self, broker: Broker, access: Access, settings: Settings) -> None:
        self.broker = broker
        self.access = access
        self.settings = settings
        self.properties = PropertyCache(settings.properties_cache_entries)
        self.touched: list[Session] = []  # sessions that the server must look at
        self.sessions: set[Session] = set()
        self.partial_bytes = 0  # announced bodies that are still arriving
        self.durable = 0  # how far the journal is on disk
        self.unsafe: dict[Channel, None] = {}  # channels with publishes that wait for the disk
        self.alarm = ""  # why publishers are held back ("low on memory"), or empty

    def now_durable(self, lsn: int) -> None:
        """The journal is on disk up to `lsn`: confirm what waited for that."""
        self.durable = lsn
        unsafe, self.unsafe = self.unsafe, {}
        for channel in unsafe:
            channel.flush_confirms()

    def set_alarm(self, reason: str) -> None:
        """Hold publishers back for this reason, or let them go on when it is empty."""
        if reason != self.alarm:
            self.alarm = reason
            for session in list(self.sessions):
                session.alarm_changed()
