"""Publishing many messages with a window of confirms, and the quick way from a body to bytes.

Messages are written without a trip through the scheduler until the window is full; then the task sleeps until half of
it is confirmed, so that many go out in one piece again.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import trio

from rabbitish.client.errors import ClientError, PublishManyFailed
from rabbitish.client.protocol.confirms import Publish
from rabbitish.client.protocol.content import PERSISTENT, Message, MessageProperties, Serialisers
from rabbitish.client.waiting import Bell

if TYPE_CHECKING:
    from rabbitish.client.channel import Channel

WINDOW = 1000
OUT_BYTES_HIGH = 1024 * 1024
"""Written and not yet taken by the socket: more than this, and publishing waits."""
_PLAIN = Message(b"", delivery_mode=PERSISTENT).encode(Serialisers())[0]


def encode(body: Any, properties: MessageProperties, serialisers: Serialisers) -> tuple[bytes, bytes]:
    """Property bytes and body of what a program wants to publish."""
    if not properties and type(body) is bytes:
        return _PLAIN, body
    if isinstance(body, Message):
        if properties:
            raise TypeError("a Message has its properties in itself")
        return body.encode(serialisers)
    return Message(body, **properties).encode(serialisers)


class Many:
    """The messages of one call of `Channel.publish_many`."""

    def __init__(
        self,
        channel: Channel,
        exchange: str,
        routing_key: str,
        mandatory: bool | None,
        window: int,
        properties: MessageProperties,
    ) -> None:
        if window < 1:
            raise ValueError("the window has room for one message at least")
        self._channel = channel
        self._address = (exchange, routing_key, mandatory, properties)
        self._window = window
        self._sent = 0
        self._confirmed = 0
        self._outstanding = 0
        self._failures: list[tuple[int, ClientError]] = []
        self._bell = Bell()
        self._wake_at = -1

    async def publish(self, messages: Iterable[Any] | AsyncIterable[Any]) -> int:
        """Publish them all. PublishManyFailed."""
        if isinstance(messages, AsyncIterable):
            async for body in messages:
                if not self._can_send() and not await self._may_send():
                    break
                self._send(body)
        else:
            for body in messages:
                if not self._can_send() and not await self._may_send():
                    break
                self._send(body)
        await self._down_to(0)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._failures:
            raise PublishManyFailed(sorted(self._failures, key=itemgetter(0)), self._confirmed, self._sent)
        return self._sent

    def _can_send(self) -> bool:
        return self._outstanding < self._window and not self._failures and not self._channel.must_wait()

    async def _may_send(self) -> bool:
        """Wait until there is room; False: there is no use in going on."""
        if self._outstanding >= self._window:
            await self._down_to(self._window // 2)
        if not self._failures and self._channel.must_wait():
            await self._channel.sendable()
        return not self._failures

    def _send(self, body: Any) -> None:
        publish = self._channel.prepare(body, *self._address)
        publish.number = self._sent
        publish.callback = self._settled
        self._sent += 1
        self._outstanding += 1
        self._channel.state.publish(publish)

    def _settled(self, publish: Publish) -> None:
        self._outstanding -= 1
        if publish.error is None:
            self._confirmed += 1
        else:
            self._failures.append((publish.number, publish.error))
        if self._outstanding <= self._wake_at:
            self._wake_at = -1
            self._bell.ring()

    async def _down_to(self, outstanding: int) -> None:
        while self._outstanding > outstanding:
            self._wake_at = outstanding
            await self._bell.wait()
