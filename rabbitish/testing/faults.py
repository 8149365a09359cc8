"""Publishes that a test wants to see, and those that are to go wrong.

It sits where the broker knows where a message goes and has not put it there yet (`Hub.on_publish`), and only while
somebody wants something of it, so that ordinary publishes go their ordinary, fast way. A publish that goes wrong does
so exactly as it would in earnest: a queue that refuses it, a channel that is closed for it, a connection that breaks
before or after the message is safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rabbitish.core.exchange import Target
from rabbitish.core.message import Message
from rabbitish.errors import ChannelError, ReplyCode
from rabbitish.session.channel import Channel
from rabbitish.session.content import WireMessage
from rabbitish.session.hub import Hub

How: TypeAlias = Literal["nack", "close-channel", "drop-connection", "lose-confirm"]
"""What becomes of a publish.

"nack": a queue refuses it. A publisher without confirms hears nothing of that; a transaction fails at its commit.
"close-channel": the channel is closed with an error.
"drop-connection": the connection breaks, and the message is lost.
"lose-confirm": the message is in its queues, and the connection breaks before its publisher hears so.
"""

HOWS: tuple[How, ...] = ("nack", "close-channel", "drop-connection", "lose-confirm")
CHANNEL_CODES = (311, 313, 403, 404, 405, 406)
"""The reply codes that close a channel and not the whole connection."""

Watcher: TypeAlias = Callable[[str, WireMessage], None]
"""Told of publishes: virtual host, message."""


@dataclass(slots=True)
class Fault:
    """Something that goes wrong with the next `times` publishes that fit: None fits all.

    ValueError: there is no such `how`, `times` is less than 1, or `reply_code` does not close a channel.
    """

    how: How = "nack"
    times: int = 1
    vhost: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    reply_code: int = ReplyCode.PRECONDITION_FAILED
    reply_text: str = "a test wants this publish to fail"

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            raise ValueError(f"how must be one of {', '.join(HOWS)}, not {self.how!r}")
        if self.times < 1:
            raise ValueError(f"times must be at least 1, not {self.times}")
        if self.reply_code not in CHANNEL_CODES:
            raise ValueError(f"a channel is closed with one of {CHANNEL_CODES}, not with {self.reply_code}")

    def fits(self, vhost: str, message: Message) -> bool:
        """Whether it is this publish's turn."""
        address = message.address
        return (
            self.vhost in (None, vhost)
            and self.exchange in (None, address.exchange)
            and self.routing_key in (None, address.routing_key)
        )


class _Refusing:
    """A queue, to those who publish, that is full for ever."""

    name = ""
    durable = False
    holds = True
    may_refuse = True

    def outpaced(self, now: int) -> bool:
        """Nobody works for it."""
        return False

    def enqueue(self, message: Message, now: int) -> bool:
        return False

    def enqueue_alike(self, messages: list[Message], size: int, now: int) -> None:
        """Never called, since it may refuse."""


class PublishWatch:
    """Faults to come, in the order they were asked for, and those who want to see publishes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._faults: list[Fault] = []
        self._watchers: list[Watcher] = []

    def plan(self, fault: Fault) -> None:
        """Have a publish fail."""
        self._faults.append(fault)
        self._look()

    def forget(self, vhost: str | None = None) -> None:
        """Have no publishes fail any more, of all or of one virtual host."""
        self._faults = [fault for fault in self._faults if vhost is not None and fault.vhost != vhost]
        self._look()

    def add(self, watcher: Watcher) -> None:
        """Tell somebody of every publish."""
        self._watchers.append(watcher)
        self._look()

    def remove(self, watcher: Watcher) -> None:
        """And no longer."""
        self._watchers.remove(watcher)
        self._look()

    def _look(self) -> None:
        self._hub.watch_publishes(self._published if self._faults or self._watchers else None)

    def _published(self, channel: Channel, message: WireMessage, targets: list[Target]) -> list[Target]:
        vhost = channel.session.vhost.name
        for watcher in self._watchers:
            watcher(vhost, message)
        fault = next((fault for fault in self._faults if fault.fits(vhost, message)), None)
        if fault is None:
            return targets
        fault.times -= 1
        if not fault.times:
            self._faults.remove(fault)
            self._look()
        if fault.how == "close-channel":
            raise ChannelError(ReplyCode(fault.reply_code), fault.reply_text)
        if fault.how in ("drop-connection", "lose-confirm"):
            channel.session.receive_eof(channel.session.now)
        return targets if fault.how == "lose-confirm" else [_Refusing()]
