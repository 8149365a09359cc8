"""A message that came, and the consumer that it came for.

Settling a message only writes: it never waits and so cannot be interrupted halfway. A message whose channel is gone
cannot be settled any more, and need not be: the broker has taken it back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rabbitish.client.errors import AlreadySettled, ClientError
from rabbitish.wire.properties import Properties, decode_properties

if TYPE_CHECKING:
    from rabbitish.client.protocol.channel import ChannelState


class Delivery:
    """One message from the broker. Properties are decoded when they are first asked for."""

    __slots__ = (
        "_properties",
        "body",
        "channel",
        "consumer_tag",
        "delivery_tag",
        "exchange",
        "message_count",
        "no_ack",
        "raw_properties",
        "redelivered",
        "routing_key",
    )

    def __init__(
        self,
        channel: ChannelState,
        consumer_tag: str,
        delivery_tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        raw_properties: bytes,
        body: bytes,
        no_ack: bool = False,
    ) -> None:
        self.channel = channel
        self.consumer_tag = consumer_tag
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.raw_properties = raw_properties
        self.body = body
        self.no_ack = no_ack
        """The broker was done with it when it was sent: settling it does nothing."""
        self.message_count: int | None = None
        """How many more are ready in the queue: for a message that was asked for with get."""
        self._properties: Properties | None = None

    @property
    def properties(self) -> Properties:
        """All content properties. ConnectionFailure: they make no sense."""
        properties = self._properties
        if properties is None:
            properties = self._properties = decode_properties(self.raw_properties)
        return properties

    @property
    def settled(self) -> bool:
        """Whether there is nothing to acknowledge: that was done, the consumer has no_ack, or the channel is gone."""
        return self.delivery_tag not in self.channel.unsettled

    @property
    def stale(self) -> bool:
        """The channel that it came on is gone: the broker takes it for undelivered, and delivers it again."""
        return self.channel.error is not None

    def ack(self, *, multiple: bool = False) -> None:
        """Done with it (and with `multiple`, with all that came before it on the channel). AlreadySettled: it was.

        Does nothing when the channel is gone (see `stale`).
        """
        if multiple:
            self._check(self.channel.settle_up_to(self.delivery_tag) > 0)
        elif not self.channel.ack(self.delivery_tag):
            self._check(False)

    def reject(self, *, requeue: bool = False) -> None:
        """Refuse it: back into its queue with `requeue`, else dropped or dead-lettered. As `ack` otherwise."""
        self._check(self.channel.refuse(self.delivery_tag, requeue=requeue))

    def nack(self, *, multiple: bool = False, requeue: bool = True) -> None:
        """RabbitMQ's reject, also for all that came before it on the channel. As `ack` otherwise."""
        if not multiple:
            self.reject(requeue=requeue)
        else:
            self._check(self.channel.refuse_up_to(self.delivery_tag, requeue=requeue) > 0)

    def _check(self, done: bool) -> None:
        if not done and not self.no_ack and self.channel.error is None:
            raise AlreadySettled(f"message {self.delivery_tag} of consumer {self.consumer_tag!r} is settled already")

    def __repr__(self) -> str:
        where = f"exchange={self.exchange!r} routing_key={self.routing_key!r}"
        return f"<{type(self).__name__} {self.delivery_tag} {where} {len(self.body)} bytes>"


class ConsumerState:
    """Messages that came for a consumer and were not taken yet."""

    __slots__ = ("buffer", "cancelled", "channel", "error", "no_ack", "tag", "wake")

    def __init__(self, channel: ChannelState, tag: str, *, no_ack: bool) -> None:
        self.channel = channel
        self.tag = tag
        self.no_ack = no_ack
        self.buffer: deque[Any] = deque()
        self.error: ClientError | None = None
        """Why no more will come."""
        self.cancelled = False
        """The program wants no more: what still comes goes back."""
        self.wake: Callable[[], None] | None = None
        """Called when there is a message or an error."""

    def give(self, delivery: Delivery) -> None:
        """A message has come."""
        if self.cancelled:
            if not self.no_ack:
                self.channel.refuse(delivery.delivery_tag, requeue=True)
            return
        self.buffer.append(delivery)
        if self.wake is not None:
            self.wake()

    def end(self, error: ClientError, *, gone: bool = False) -> None:
        """No more will come; `gone`: the channel is closed, so what was not taken yet will come again elsewhere."""
        if gone and not self.no_ack:
            self.buffer.clear()
        if self.error is None:
            self.error = error
        if self.wake is not None:
            self.wake()

    def give_back(self) -> None:
        """Whatever was not taken goes back into the queue, and so does what still comes."""
        self.cancelled = True
        waiting, self.buffer = self.buffer, deque()
        if not self.no_ack and self.channel.error is None:
            for delivery in reversed(waiting):
                self.channel.refuse(delivery.delivery_tag, requeue=True)
