"""A consumer of a channel, as the queue sees it: how much it can take, and deliveries into the outbox.

A delivery is four byte strings: a prefix that is fixed for the consumer (frame head, method, consumer tag), delivery
tag and redelivered flag, a suffix that is fixed for the message's address (exchange, routing key, frame end), and the
message's content frames as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, cast

from rabbitish.core.handle import QueueHandle
from rabbitish.core.lane import Lane
from rabbitish.core.message import Message
from rabbitish.session.content import WireMessage
from rabbitish.session.unacked import Run
from rabbitish.wire import methods
from rabbitish.wire.codec import encode_shortstr
from rabbitish.wire.frames import FRAME_METHOD, HEAD

if TYPE_CHECKING:
    from rabbitish.session.channel import Channel

_NO_LIMIT = 1 << 30
_DELIVERY_BYTES = 100  # what a delivery adds to a body on the wire, about
_pack_tag = Struct(">Q?").pack
_DELIVER = methods.BasicDeliver(consumer_tag="").encode()[:4]
_FIXED_SIZE = len(_DELIVER) + 9 - 1  # class and method id, delivery tag and flag, less the frame end in the suffix


class ChannelConsumer:
    """Implements core.consumer.Consumer over a channel."""

    __slots__ = (
        "_outbox",
        "_own_timeout_ms",
        "_prefix",
        "_prefixed",
        "cancelled",
        "channel",
        "due_at",
        "exclusive",
        "no_ack",
        "prefetch",
        "priority",
        "queue",
        "tag",
        "timeout_ms",
        "unacked",
        "waiting",
    )

    def __init__(
        self,
        channel: Channel,
        queue: QueueHandle,
        tag: str,
        *,
        no_ack: bool,
        exclusive: bool,
        priority: int,
        timeout_ms: int | None,
    ) -> None:
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.prefetch = channel.consumer_prefetch
        self.waiting = False
        self.unacked = 0
        self.cancelled = False
        self._own_timeout_ms = timeout_ms
        self.timeout_ms = self._timeout()
        self.due_at: int | None = None
        self._outbox = channel.session.outbox
        self._prefix = b""
        self._prefixed = -1  # the length of the suffix that _prefix was made for

    def room(self) -> int:
        """How many messages it can take: prefetch of its own and of the channel, and whether the peer reads.

        And whether copies of what it got wait, where the virtual host is traced.
        """
        outbox = self._outbox
        if outbox.size >= outbox.high:
            outbox.waiters.append(self)
            return 0
        channel = self.channel
        if channel.tracer is not None and channel.tracer.holds(self):
            return 0
        if self.no_ack:
            return _NO_LIMIT
        room = self.prefetch - self.unacked if self.prefetch else _NO_LIMIT
        if channel.global_prefetch and not self.queue.options.quorum:  # which RabbitMQ's do not know
            room = min(room, channel.global_prefetch - channel.consumer_unacked)
        return room

    def resume(self) -> None:
        """The peer has read enough of what was sent."""
        self.queue.wake(self)

    def deliver(self, lane: Lane, first: int, messages: list[Message], returns: int, step: int = 1) -> int:
        """Send messages; see core.consumer.Consumer."""
        channel, outbox = self.channel, self._outbox
        session = channel.session
        number, frame_max = channel.number, session.frame_max
        parts = outbox.parts
        if not parts and not session.listed:
            session.touch()
        redelivered = returns > 0 or first < lane.doubtful
        size = 0
        tag = channel.last_delivery_tag
        stamp = None
        for message in cast("Sequence[WireMessage]", messages):
            tag += 1
            if message.stamp is not stamp:
                stamp = message.stamp
                suffix = stamp.suffix
                if len(suffix) != self._prefixed:
                    self._make_prefix(len(suffix))
                prefix = self._prefix
                as_is = stamp.channel == number and len(message.content) <= frame_max
            content = message.content if as_is else message.framed(number, frame_max)
            parts += (prefix, _pack_tag(tag, redelivered), suffix, content)
            size += message.size
        outbox.size += size + _DELIVERY_BYTES * len(messages)
        if not self.no_ack:
            self._hold(lane, first, messages, returns, step)
        channel.last_delivery_tag = tag
        if channel.tracer is not None:
            sent = cast("Sequence[WireMessage]", messages)
            channel.tracer.delivered(channel, self.queue.name, sent, self, redelivered=redelivered)
        return size

    def _hold(self, lane: Lane, position: int, messages: list[Message], returns: int, step: int) -> None:
        channel, queue = self.channel, self.queue
        count = len(messages)
        now = 0
        if self.timeout_ms is not None:
            now = channel.session.broker.now  # the session may not have been called for long
            channel.session.broker.deadlines.ask(self, now + self.timeout_ms)
        held = cast("list[Message | None]", queue.take_husks(messages) if queue.crowded else messages)
        first = channel.last_delivery_tag + 1
        channel.unacked.add(Run(first, queue, lane, position, held, returns, self, now, step))
        self.unacked += count
        channel.consumer_unacked += count

    def _make_prefix(self, suffix_size: int) -> None:
        tag = encode_shortstr(self.tag)
        size = _FIXED_SIZE + len(tag) + suffix_size
        self._prefix = HEAD.pack(FRAME_METHOD, self.channel.number, size) + _DELIVER + tag
        self._prefixed = suffix_size

    def options_changed(self, now: int) -> None:
        """See core.consumer.Consumer. What it holds that was delivered without a timeout counts from now."""
        self.timeout_ms = self._timeout()
        if self.timeout_ms is not None and self.unacked:
            for run in self.channel.unacked:
                if run.consumer is self:
                    run.when = run.when or now
            self.channel.session.broker.deadlines.ask(self, now)

    def _timeout(self) -> int | None:
        default = self.channel.session.settings.default_consumer_timeout_ms
        return self._own_timeout_ms or self.queue.options.consumer_timeout_ms or default

    def queue_gone(self) -> None:
        """The queue was deleted."""
        self.channel.consumer_gone(self)

    def due(self, now: int) -> None:
        """Look for a delivery that was held for longer than the queue's x-consumer-timeout."""
        if self.timeout_ms is None or self.cancelled:
            return
        oldest = next((run.when for run in self.channel.unacked if run.consumer is self), None)
        if oldest is None:
            return
        if now >= oldest + self.timeout_ms:
            self.channel.consumer_overdue(self, now)
        else:
            self.channel.session.broker.deadlines.ask(self, oldest + self.timeout_ms)
