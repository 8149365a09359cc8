"""Direct reply-to: a requester waits on a name of its own, and answers reach it without any queue.

To the virtual host the requester is a target like a queue, found under `amq.rabbitmq.reply-to.<token>` by the default
exchange while its consumer lives. RabbitMQ: rabbit_channel, "fast reply".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rabbitish.core.message import Message
from rabbitish.core.vhost import REPLY_TO
from rabbitish.session.content import WireMessage
from rabbitish.wire import methods

if TYPE_CHECKING:
    from rabbitish.session.channel import Channel


class ReplyConsumer:
    """A consumer of `amq.rabbitmq.reply-to` on a channel."""

    __slots__ = ("_channel", "durable", "name", "tag")

    def __init__(self, channel: Channel, tag: str) -> None:
        vhost, token = channel.session.vhost, channel.session.broker.token
        self._channel = channel
        self.durable = False
        self.tag = tag
        self.name = f"{REPLY_TO}.{token()}.{token()}"
        vhost.add_reply_target(self)

    @property
    def holds(self) -> bool:
        """A requester is not a queue."""
        return False

    def outpaced(self, now: int) -> bool:
        """Nobody works for it."""
        return False

    @property
    def may_refuse(self) -> bool:
        """A requester takes what comes."""
        return False

    def enqueue_alike(self, messages: list[Message], size: int, now: int) -> None:
        """Send several answers."""
        for message in messages:
            self.enqueue(message, now)

    def enqueue(self, message: Message, now: int) -> bool:
        """Send an answer to the requester at once."""
        channel = self._channel
        session = channel.session
        if session.vhost.replies.get(self.name) is not self:
            return True  # the answer comes with a commit, and the requester has gone meanwhile
        if session.outbox.size >= session.outbox.high:
            # Nobody holds answers for a requester that does not read; RabbitMQ would grow its writer's mailbox.
            return True
        address = message.address
        channel.send(
            methods.BasicDeliver(
                consumer_tag=self.tag,
                delivery_tag=channel.last_delivery_tag + 1,  # not used up: nobody can acknowledge an answer
                redelivered=False,
                exchange=address.exchange,
                routing_key=address.routing_key,
            )
        )
        session.outbox.write(cast("WireMessage", message).framed(channel.number, session.frame_max))
        return True

    def close(self) -> None:
        """The requester no longer waits."""
        self._channel.session.vhost.remove_reply_target(self)
