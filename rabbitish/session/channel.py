"""One channel: its state, what commands do to it, and what it holds unacknowledged.

What a method does stands in the tables of topology.py, basic.py and modes.py, each a function of (channel, method); a
method that is in none of them is not for a channel. Here is what they share: replies, the queue name that stands in for
an empty one, settling what was delivered, and the two ways a channel closes. While it waits for close-ok it ignores
everything else (AMQP 0-9-1, channel.close).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from rabbitish.core.handle import QueueHandle
from rabbitish.core.message import Message
from rabbitish.core.queue import HANDFUL_MESSAGES
from rabbitish.errors import ChannelError, ConnectionFailure, ReplyCode
from rabbitish.session.assembly import Assembler, Command
from rabbitish.session.carried import Stream
from rabbitish.session.confirms import Confirms
from rabbitish.session.consumer import ChannelConsumer
from rabbitish.session.publish import publish
from rabbitish.session.replies import ReplyConsumer
from rabbitish.session.trace import Tracer
from rabbitish.session.unacked import Run, Unacked
from rabbitish.wire import methods
from rabbitish.wire.method import Method

if TYPE_CHECKING:
    from rabbitish.session.connection import Session
    from rabbitish.session.modes import Transaction

Handler: TypeAlias = Callable[["Channel", Any], None]

HANDLERS: dict[type[Method], Handler] = {}
"""What each method does; filled by topology.py, basic.py and modes.py."""


def handles(kind: type[Method]) -> Callable[[Handler], Handler]:
    """Enter a function into `HANDLERS`."""

    def enter(handler: Handler) -> Handler:
        HANDLERS[kind] = handler
        return handler

    return enter


# About so many messages are settled at a stretch: some milliseconds.
_ACKED_AT_ONCE = 8192
_REJECTED_AT_ONCE = 1024


def _are_many(runs: list[Run], at_once: int) -> bool:
    return len(runs) > at_once // HANDFUL_MESSAGES and sum([run.count for run in runs]) > at_once


def _in_pieces(act: Callable[[list[Run]], None], runs: list[Run], at_once: int) -> Iterator[None]:
    """Act on about so many messages a step, and keep none of those that are done."""
    runs.reverse()
    while runs:
        piece, count = [runs.pop()], 0
        while runs and (count := count + piece[-1].count) < at_once:
            piece.append(runs.pop())
        act(piece)
        yield


class Channel:
    """The state of one channel of a session."""

    __slots__ = (
        "_assembler",
        "closing",
        "confirms",
        "consumer_prefetch",
        "consumer_unacked",
        "consumers",
        "global_prefetch",
        "last_delivery_tag",
        "last_queue",
        "number",
        "opened",
        "opened_as",
        "plain",
        "reply_consumer",
        "session",
        "stream",
        "tracer",
        "transaction",
        "unacked",
    )

    def __init__(self, session: Session, number: int) -> None:
        self.session = session
        self.number = number
        self.opened = False
        self.closing = False
        self.opened_as = ""  # channel.open's argument; see carried.py
        self.last_queue = ""  # what an empty queue name means: the queue last declared here
        # consuming
        self.consumers: dict[str, ChannelConsumer] = {}
        self.reply_consumer: ReplyConsumer | None = None
        self.consumer_prefetch = 0  # for consumers to come
        self.global_prefetch = 0  # for all consumers of the channel together
        self.last_delivery_tag = 0
        self.unacked = Unacked()
        self.consumer_unacked = 0  # those that count for the prefetch limits
        # publishing
        self.confirms: Confirms | None = None
        self.transaction: Transaction | None = None
        self.stream: Stream | None = None  # from confirm.select or tx.select on, if the session is carried
        self.tracer: Tracer | None = None
        # open, no content arriving, no transaction, nobody watches or traces publishes: they may take the fast lane
        self.plain = False
        self._assembler = Assembler(session.settings.max_message_bytes, session.expect_content)

    # ---- frames in

    def frame(self, kind: int, payload: bytes) -> None:
        """Take a frame. ChannelError, ConnectionFailure: what the peer did wrong."""
        command = self._assembler.frame(kind, payload)
        if command is None:
            self.plain = False
        elif self.closing:
            self._while_closing(command.method)
        elif command.arguments[:4] == _BASIC_PUBLISH and self.opened:
            self.plain = self.transaction is None and self.tracer is None and self.session.hub.on_publish is None
            if self.stream is not None and self.stream.known is not None:
                self.plain = False
            self._publish(command)
        else:
            self._handle(command.method)

    def _handle(self, method: Method) -> None:
        try:
            if not self.opened and type(method) is not methods.ChannelOpen:
                raise ConnectionFailure(ReplyCode.CHANNEL_ERROR, "expected 'channel.open'")
            handler = HANDLERS.get(type(method))
            if handler is None:
                raise ConnectionFailure(ReplyCode.COMMAND_INVALID, "unimplemented method")
            if method.class_id in _SURVIVING:
                position = self.session.recorded
                handler(self, method)
                self.session.hold_answers(position, durable=getattr(method, "durable", True))
            else:
                handler(self, method)
        except (ChannelError, ConnectionFailure) as refusal:
            raise refusal.of(method) from None

    def _publish(self, command: Command) -> None:
        method = cast("methods.BasicPublish", command.method)
        try:
            publish(self, method, command)
        except (ChannelError, ConnectionFailure) as refusal:
            raise refusal.of(method) from None

    def _while_closing(self, method: Method) -> None:
        if type(method) is methods.ChannelCloseOk:
            self.session.forget_channel(self)
        elif type(method) is methods.ChannelClose:
            self.send(methods.ChannelCloseOk())
        elif type(method) is methods.ChannelOpen:
            raise ConnectionFailure(ReplyCode.CHANNEL_ERROR, "second 'channel.open' seen").of(method)

    # ---- frames out

    def send(self, method: Method) -> None:
        """Send a method on this channel."""
        self.session.outbox.write(method.frame(self.number))

    def reply(self, nowait: bool, method: Method) -> None:
        """Answer a method, unless the peer asked for no answer."""
        if not nowait:
            self.session.outbox.write(method.frame(self.number))

    # ---- tracing

    def heed_tracing(self) -> None:
        """The virtual host is traced, or not any more."""
        self.tracer = self.session.hub.tracer(self.session.vhost)
        if self.tracer is not None:
            self.plain = False

    # ---- names

    def queue_name(self, name: str) -> str:
        """A queue name with "" replaced by the queue last declared on the channel. ChannelError 404: none was."""
        if name:
            return name
        if not self.last_queue:
            raise ChannelError(ReplyCode.NOT_FOUND, "no previously declared queue")
        return self.last_queue

    def queue(self, name: str) -> QueueHandle:
        """The queue of that name (see `queue_name`). ChannelError: 404, 405."""
        return self.session.vhost.queue(self.queue_name(name), self.session)

    # ---- what was delivered

    def take_unacked(self, tag: int, *, multiple: bool) -> list[Run]:
        """Take what an ack, nack or reject names out of `unacked`, in order of tags.

        ChannelError 406: the tag is not of an unacknowledged delivery. With `multiple`, tag 0 means everything.
        """
        if multiple:
            taken = self.unacked.take_through(tag) if tag else self.unacked.take_all()
        else:
            run = self.unacked.take(tag)
            taken = None if run is None else [run]
        if taken is None:
            raise ChannelError(ReplyCode.PRECONDITION_FAILED, f"unknown delivery tag {tag}")
        return taken

    def ack(self, taken: list[Run]) -> None:
        """The peer is done with these; if that takes long it is not heard before all is done."""
        if len(taken) == 1:
            self.ack_run(taken[0])
        elif _are_many(taken, _ACKED_AT_ONCE):
            self.session.occupy(_in_pieces(self.ack_at_once, taken, _ACKED_AT_ONCE))
        else:
            self.ack_at_once(taken)

    def ack_run(self, run: Run) -> None:
        """The peer is done with these; their queue is, with whatever else it is done with, at the end of the batch."""
        self._release(run.consumer, run.count)
        run.queue.acknowledge_soon(run.held())

    def ack_at_once(self, taken: list[Run]) -> None:
        """The peer is done with these."""
        # Most are of one queue and consumer, whom it is enough to tell once.
        queue = consumer = None
        messages: list[Message] = []
        for run in taken:
            if run.queue is not queue or run.consumer is not consumer:
                if queue is not None:
                    self._acked(queue, consumer, messages)
                queue, consumer = run.queue, run.consumer
                messages = []
            messages += run.held()
        if queue is not None:
            self._acked(queue, consumer, messages)

    def _acked(self, queue: QueueHandle, consumer: ChannelConsumer | None, messages: list[Message]) -> None:
        self._release(consumer, len(messages))
        queue.acknowledge(messages, in_transaction=self.transaction is not None)

    def reject(self, taken: list[Run], *, requeue: bool) -> None:
        """The peer does not want these; if that takes long it is not heard before all is done."""
        reject = partial(self.reject_at_once, requeue=requeue)
        if _are_many(taken, _REJECTED_AT_ONCE):
            self.session.occupy(_in_pieces(reject, taken, _REJECTED_AT_ONCE))
        else:
            reject(taken)

    def reject_at_once(self, taken: list[Run], *, requeue: bool) -> None:
        """The peer does not want these: back to their places, or to the dead-letter exchange."""
        for run in taken:
            self._release(run.consumer, run.count)
            if requeue:
                self._requeue(run)
            else:
                run.queue.reject(run.held(), self.session.broker.now)

    def _requeue(self, run: Run) -> None:
        now = self.session.broker.now
        run.queue.requeue(run.lane, run.position, run.messages, run.returns + 1, now, run.step)

    def _requeue_all(self, taken: list[Run]) -> None:
        for run in taken:
            self._requeue(run)

    def _release(self, consumer: ChannelConsumer | None, count: int) -> None:
        """These no longer count for prefetch limits; consumers that waited for that get their turns again.

        Comes before the queue hears of it: where consumers of several queues share a limit, the queue that just had a
        message must be settled after those that wait for one.
        """
        if consumer is None:
            return
        self.consumer_unacked -= count
        consumer.unacked -= count
        if self.global_prefetch:
            if not consumer.cancelled:
                self.consumers[consumer.tag] = self.consumers.pop(consumer.tag)
            self.wake_consumers()
        elif consumer.waiting:
            consumer.queue.wake(consumer)

    def wake_consumers(self) -> None:
        """Whatever kept consumers of this channel waiting may be over."""
        for consumer in self.consumers.values():
            if consumer.waiting:
                consumer.resume()

    # ---- consumers that end by themselves

    def consumer_gone(self, consumer: ChannelConsumer) -> None:
        """The queue of a consumer was deleted; the peer is told if it wants to know."""
        if consumer.cancelled:
            return
        self.drop_consumer(consumer)
        if self.session.capability("consumer_cancel_notify") and not self.closing:
            self.send(methods.BasicCancel(consumer_tag=consumer.tag, nowait=True))

    def drop_consumer(self, consumer: ChannelConsumer) -> None:
        """Forget a consumer; what it has not acknowledged stays with the channel."""
        consumer.cancelled = True
        self.consumers.pop(consumer.tag, None)

    def consumer_overdue(self, consumer: ChannelConsumer, now: int) -> None:
        """A consumer held a delivery for too long: cancel it and requeue what it holds."""
        self.session.log.warning("consumer timed out", consumer_tag=consumer.tag, queue=consumer.queue.name)
        self.session.now = now
        self.session.vhost.cancel(consumer.queue, consumer, now)
        self.consumer_gone(consumer)
        self.reject(self.unacked.take_of(consumer), requeue=True)

    # ---- the end

    def shut(self) -> None:
        """Let go of everything: consumers end, what is unacknowledged goes back to its place."""
        vhost, now = self.session.vhost, self.session.now
        self._assembler.discard()
        self.plain = False
        self.session.hub.unsafe.pop(self, None)
        self.confirms = None  # its number may soon be another channel's, which must not hear of these publishes
        for consumer in list(self.consumers.values()):
            self.drop_consumer(consumer)
            consumer.waiting = False
            vhost.cancel(consumer.queue, consumer, now)
        if self.reply_consumer is not None:
            self.reply_consumer.close()
            self.reply_consumer = None
        if self.transaction is not None:
            self.unacked.put_back(self.transaction.settled())
            self.transaction = None
        self.consumer_unacked = 0
        taken = self.unacked.take_all()
        if _are_many(taken, _REJECTED_AT_ONCE):
            self.session.broker.chores.add(_in_pieces(self._requeue_all, taken, _REJECTED_AT_ONCE))
        else:
            self._requeue_all(taken)

    def close(self, error: ChannelError) -> None:
        """Tell the peer that the channel is closed, and ignore it until it agrees."""
        self.flush_confirms()
        self.closing = True
        self.shut()
        self.send(
            methods.ChannelClose(
                reply_code=error.code, reply_text=error.short_text, class_id_=error.class_id, method_id_=error.method_id
            )
        )

    def flush_confirms(self) -> None:
        """Answer what was published in this batch."""
        if self.stream is not None:
            self.stream.tell()
        confirms, hub = self.confirms, self.session.hub
        if confirms is not None:
            frames = confirms.flush(hub.safe)
            if frames:
                self.session.outbox.write(frames)
            if confirms.waiting:
                hub.unsafe[self] = None
                hub.wanted = max(hub.wanted, confirms.safe_at)


def strip_name(name: str) -> str:
    """A queue or exchange name without the carriage returns and line feeds that RabbitMQ takes out of it."""
    return name.replace("\r", "").replace("\n", "") if "\r" in name or "\n" in name else name


# Classes whose answers promise that what was asked for survives: exchange, queue, tx.
_SURVIVING = (40, 50, 90)
_BASIC_PUBLISH = methods.BasicPublish().encode()[:4]


@handles(methods.ChannelOpen)
def open_channel(channel: Channel, method: methods.ChannelOpen) -> None:
    """channel.open."""
    if channel.opened:
        raise ConnectionFailure(ReplyCode.CHANNEL_ERROR, "second 'channel.open' seen")
    channel.opened, channel.opened_as = True, method.out_of_band
    channel.plain = channel.session.hub.on_publish is None
    channel.heed_tracing()
    channel.send(methods.ChannelOpenOk())


@handles(methods.ChannelClose)
def close_channel(channel: Channel, method: methods.ChannelClose) -> None:
    """channel.close by the peer."""
    channel.flush_confirms()
    channel.shut()
    channel.send(methods.ChannelCloseOk())
    channel.session.forget_channel(channel)


@handles(methods.ChannelFlow)
def flow(channel: Channel, method: methods.ChannelFlow) -> None:
    """channel.flow: a peer can only say that it wants deliveries, as with RabbitMQ."""
    if not method.active:
        raise ConnectionFailure(ReplyCode.NOT_IMPLEMENTED, "active=false")
    channel.send(methods.ChannelFlowOk(active=True))


@handles(methods.AccessRequest)
def access_request(channel: Channel, method: methods.AccessRequest) -> None:
    """access.request: every ticket is good."""
    channel.send(methods.AccessRequestOk())
