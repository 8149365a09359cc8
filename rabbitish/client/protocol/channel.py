"""One channel: requests and their answers, content put together, publishes and their confirms, acknowledgements.

Answers come in the order of requests, so correlation is a queue; except that RabbitMQ's queues themselves answer
basic.consume and basic.cancel, at any time later, so those are found by the consumer's tag.

What settles deliveries is in settling.py; whatever is written here and could depend on acknowledgements writes those
first (`flush_acks`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

from rabbitish.client.errors import (
    ChannelClosed,
    ClientError,
    ConnectionLost,
    ConsumerCancelled,
    ProtocolError,
    PublishReturned,
    PublishUnconfirmed,
    channel_closed,
)
from rabbitish.client.protocol.confirms import Confirms, Publish
from rabbitish.client.protocol.delivery import ConsumerState, Delivery
from rabbitish.client.protocol.promise import Promise
from rabbitish.client.protocol.settling import Settling
from rabbitish.wire import methods
from rabbitish.wire.frames import (
    CONTENT_HEAD,
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    HEAD,
    content_frames,
)
from rabbitish.wire.method import Method

if TYPE_CHECKING:
    from rabbitish.client.protocol.connection import Protocol

M = TypeVar("M", bound=Method)

CLASS_BASIC = 60
_END = bytes((FRAME_END,))
_MOST_BEGINNINGS = 1024


class Get(Promise[Delivery | None]):
    """The answer to basic.get."""

    __slots__ = ("no_ack",)

    def __init__(self, *, no_ack: bool) -> None:
        super().__init__()
        self.no_ack = no_ack


class ChannelState(Settling):
    """An open channel, until `error` says why it is not any more."""

    def __init__(self, protocol: Protocol, number: int) -> None:
        super().__init__(protocol, number)
        self.closing = False
        self.closed: Promise[None] = Promise()
        """Kept when the channel is gone, whoever wanted that; never fails."""
        self.flow = True
        """False while the broker asks to send no content (channel.flow)."""
        self.confirms: Confirms | None = None
        self.orphans: list[Publish] = []
        """Publishes to try again elsewhere, after the connection was lost."""
        self.consumers: dict[str, ConsumerState] = {}
        self.prefetch = 0
        """The limit for consumers that start from now on."""
        self.on_return: Callable[[PublishReturned, Delivery], None] | None = None
        """Called for a returned message that no publish waits for."""
        self._by_tag: dict[tuple[type[Method], str], Promise[Method]] = {}
        self._answers: deque[tuple[tuple[type[Method], ...], Promise[Method]]] = deque()
        self._beginnings: dict[tuple[str, str, bool, bytes, int], bytes] = {}
        self._method: methods.BasicDeliver | methods.BasicGetOk | methods.BasicReturn | None = None
        self._raw: bytes | None = None
        self._left = 0
        self._parts: list[bytes] = []

    # ---- requests

    @property
    def plain(self) -> bool:
        """Whether content may be read in one go: nothing is half received, and the program still listens."""
        return self._method is None and not self.closing

    def request(self, method: Method, *answers: type[M]) -> Promise[M]:
        """Ask for something. The promise fails when the channel or the connection ends instead."""
        promise: Promise[M] = Promise()
        if self.error is not None:
            promise.fail(self.error)
        else:
            self.flush_acks()
            self._answers.append((answers, cast("Promise[Method]", promise)))
            self.protocol.write(method.frame(self.number))
        return promise

    def open(self, *, confirms: bool) -> Promise[Method]:
        """Open it; kept when it can be used."""
        promise: Promise[Method] = cast("Promise[Method]", self.request(methods.ChannelOpen(), methods.ChannelOpenOk))
        if confirms:
            self.confirms = Confirms()
            promise = cast("Promise[Method]", self.request(methods.ConfirmSelect(), methods.ConfirmSelectOk))
        return promise

    def close(self) -> Promise[None]:
        """Close it from our side: at once for the program, and kept when the broker has agreed."""
        if self.error is None:
            self.flush_acks()
            self.closing = True
            self.protocol.write(methods.ChannelClose(reply_code=200, reply_text="bye").frame(self.number))
            self._end(ChannelClosed(200, "the program closed the channel"))
        return self.closed

    def get(self, get: methods.BasicGet) -> Promise[Delivery | None]:
        """Take one message; None: the queue is empty."""
        promise = Get(no_ack=get.no_ack)
        if self.error is not None:
            promise.fail(self.error)
        else:
            self.flush_acks()
            answers = (methods.BasicGetOk, methods.BasicGetEmpty)
            self._answers.append((answers, cast("Promise[Method]", promise)))
            self.protocol.write(get.frame(self.number))
        return promise

    def consume(self, consume: methods.BasicConsume) -> tuple[ConsumerState, Promise[methods.BasicConsumeOk]]:
        """Start a consumer, whose tag must be chosen. ValueError: it is in use."""
        if consume.consumer_tag in self.consumers:
            raise ValueError(f"consumer tag {consume.consumer_tag!r} is in use on this channel")
        state = ConsumerState(self, consume.consumer_tag, no_ack=consume.no_ack)
        if self.error is None:
            self.consumers[consume.consumer_tag] = state
        else:
            state.end(self.error)
        return state, self._ask_queue(consume, methods.BasicConsumeOk, consume.consumer_tag)

    def cancel(self, state: ConsumerState) -> Promise[methods.BasicCancelOk]:
        """End a consumer. What was not taken from it goes back."""
        promise = self._ask_queue(methods.BasicCancel(consumer_tag=state.tag), methods.BasicCancelOk, state.tag)
        if self.error is None:
            state.give_back()
        return promise

    def _ask_queue(self, method: Method, answer: type[M], tag: str) -> Promise[M]:
        promise: Promise[M] = Promise()
        if self.error is not None:
            promise.fail(self.error)
        else:
            self.flush_acks()
            self._by_tag[answer, tag] = cast("Promise[Method]", promise)
            self.protocol.write(method.frame(self.number))
        return promise

    # ---- publishing

    def publish(self, publish: Publish) -> None:
        """Write a message. In confirm mode it is settled by its confirm, else at once."""
        if self.error is not None:
            publish.fail(self.error)
            return
        raw, body = publish.raw_properties, publish.body
        size = len(body)
        key = (publish.exchange, publish.routing_key, publish.mandatory, raw, size)
        beginning = self._beginnings.get(key)
        if beginning is None:
            beginning = self._beginning(publish, size)
        if not size:
            self.protocol.write(beginning)
        elif size <= self.protocol.frame_room:
            self.protocol.write_content(beginning, body)
        else:
            frames = content_frames(self.number, CLASS_BASIC, raw, body, self.protocol.frame_max)
            self.protocol.write(beginning + frames)
        if self.confirms is not None:
            self.confirms.add(publish)
        else:
            publish.keep(None)

    def _beginning(self, publish: Publish, size: int) -> bytes:
        """What comes before the body: the method, and unless the body needs many frames, header and body's head."""
        method = methods.BasicPublish(
            exchange=publish.exchange, routing_key=publish.routing_key, mandatory=publish.mandatory
        )
        beginning = method.frame(self.number)
        raw, room = publish.raw_properties, self.protocol.frame_room
        if CONTENT_HEAD.size + len(raw) > room:
            raise ValueError(f"content header of {CONTENT_HEAD.size + len(raw)} bytes does not fit a frame of {room}")
        if size <= room:
            header = HEAD.pack(FRAME_HEADER, self.number, CONTENT_HEAD.size + len(raw))
            beginning += header + CONTENT_HEAD.pack(CLASS_BASIC, 0, size) + raw + _END
            if size:
                beginning += HEAD.pack(FRAME_BODY, self.number, size)
        if len(self._beginnings) >= _MOST_BEGINNINGS:
            self._beginnings.clear()
        self._beginnings[publish.exchange, publish.routing_key, publish.mandatory, raw, size] = beginning
        return beginning

    # ---- what comes

    def on_method(self, method: Method) -> None:
        """A method on this channel. ProtocolError: it is not due."""
        if isinstance(method, methods.ChannelClose):
            self.protocol.write(methods.ChannelCloseOk().frame(self.number))
            self._end(channel_closed(method.reply_code, method.reply_text))
            self._gone()
        elif self.closing:
            if isinstance(method, methods.ChannelCloseOk):
                self._gone()
        elif self._method is not None:
            raise ProtocolError(f"{method.name} came where content was due")
        else:
            handler = _HANDLERS.get(type(method))
            if handler is not None:
                handler(self, method)
            elif self._answers and isinstance(method, self._answers[0][0]):
                if isinstance(method, methods.BasicGetOk):
                    self._method = method
                elif isinstance(method, methods.BasicGetEmpty):
                    cast("Get", self._answers.popleft()[1]).keep(None)
                else:
                    self._answers.popleft()[1].keep(method)
            else:
                raise ProtocolError(f"{method.name} came and was not asked for")

    def _on_confirm(self, method: methods.BasicAck | methods.BasicNack) -> None:
        if self.confirms is None:
            raise ProtocolError(f"{method.name} came without confirm mode")
        ack = isinstance(method, methods.BasicAck)
        self.confirms.confirm(method.delivery_tag, multiple=method.multiple, ack=ack)

    def _on_content_method(self, method: methods.BasicDeliver | methods.BasicReturn) -> None:
        self._method = method

    def _on_cancel(self, method: methods.BasicCancel) -> None:
        state = self.consumers.pop(method.consumer_tag, None)
        if state is not None:
            state.end(ConsumerCancelled(f"the broker ended consumer {method.consumer_tag!r}"))
        if not method.nowait:
            self.protocol.write(methods.BasicCancelOk(consumer_tag=method.consumer_tag).frame(self.number))

    def _on_consumer_ok(self, method: methods.BasicConsumeOk | methods.BasicCancelOk) -> None:
        promise = self._by_tag.pop((type(method), method.consumer_tag), None)
        if promise is None:
            raise ProtocolError(f"{method.name} came and was not asked for")
        if isinstance(method, methods.BasicCancelOk):
            self.consumers.pop(method.consumer_tag, None)
        promise.keep(method)

    def _on_flow(self, method: methods.ChannelFlow) -> None:
        self.flow = method.active
        self.protocol.write(methods.ChannelFlowOk(active=method.active).frame(self.number))
        self.protocol.on_change()

    def on_content(self, kind: int, payload: bytes) -> None:
        """A header or body frame. ProtocolError: it is not due."""
        if self.closing:
            return
        if self._method is None or (self._raw is None) is not (kind == FRAME_HEADER):
            raise ProtocolError("content came where none was due")
        if kind == FRAME_HEADER:
            self._left = CONTENT_HEAD.unpack_from(payload)[2]
            self._raw = payload[CONTENT_HEAD.size :]
        else:
            self._left -= len(payload)
            if self._left < 0:
                raise ProtocolError("a body is longer than announced")
            self._parts.append(payload)
        if not self._left:
            self._complete()

    def _complete(self) -> None:
        method, raw, body = self._method, self._raw, b"".join(self._parts)
        assert method is not None and raw is not None
        self._method = self._raw = None
        self._parts = []
        if isinstance(method, methods.BasicDeliver):
            self.deliver(
                method.consumer_tag,
                method.delivery_tag,
                method.redelivered,
                method.exchange,
                method.routing_key,
                raw,
                body,
            )
        elif isinstance(method, methods.BasicGetOk):
            self._got(method, raw, body)
        else:
            self._returned(method, raw, body)

    def deliver(
        self, consumer_tag: str, tag: int, redelivered: bool, exchange: str, routing_key: str, raw: bytes, body: bytes
    ) -> None:
        """A message has come for a consumer."""
        state = self.consumers.get(consumer_tag)
        if state is None:
            raise ProtocolError(f"a message came for consumer {consumer_tag!r}, which there is not")
        if not state.no_ack:
            self.unsettled[tag] = None
        state.give(
            self.protocol.delivery_type(
                self, consumer_tag, tag, redelivered, exchange, routing_key, raw, body, state.no_ack
            )
        )

    def _got(self, method: methods.BasicGetOk, raw: bytes, body: bytes) -> None:
        promise = cast("Get", self._answers.popleft()[1])
        delivery = self.protocol.delivery_type(
            self,
            "",
            method.delivery_tag,
            method.redelivered,
            method.exchange,
            method.routing_key,
            raw,
            body,
            promise.no_ack,
        )
        delivery.message_count = method.message_count
        if not promise.no_ack:
            self.unsettled[method.delivery_tag] = None
        promise.keep(delivery)

    def _returned(self, method: methods.BasicReturn, raw: bytes, body: bytes) -> None:
        error = PublishReturned(method.reply_code, method.reply_text, method.exchange, method.routing_key)
        if self.confirms is not None and self.confirms.return_(error, raw, body):
            return
        if self.on_return is not None:
            delivery = self.protocol.delivery_type(
                self, "", 0, False, method.exchange, method.routing_key, raw, body, True
            )
            self.on_return(error, delivery)

    # ---- the end

    def connection_ended(self, error: ClientError) -> None:
        """The connection is gone, and the channel with it."""
        self._end(error)
        self._gone()

    def _end(self, error: ClientError) -> None:
        if self.error is not None:
            return
        self.error = error
        lost = isinstance(error, ConnectionLost)
        if self.confirms is not None:
            unconfirmed, self.confirms.unconfirmed = self.confirms.unconfirmed, {}
            for publish in unconfirmed.values():
                if lost and publish.retry:
                    self.orphans.append(publish)
                elif isinstance(error, ChannelClosed):
                    publish.fail(error)
                else:
                    unknown = PublishUnconfirmed()
                    unknown.__cause__ = error
                    publish.fail(unknown)
        for promise in [*(promise for _, promise in self._answers), *self._by_tag.values()]:
            promise.fail(error)
        self._answers.clear()
        self._by_tag.clear()
        for state in list(self.consumers.values()):
            state.end(error, gone=True)
        self.consumers.clear()
        self.settle_nothing()
        self.protocol.on_change()

    def _gone(self) -> None:
        self.protocol.forget(self)
        self.closed.keep(None)


_HANDLERS: dict[type[Method], Callable[[ChannelState, object], None]] = cast(
    "dict[type[Method], Callable[[ChannelState, object], None]]",
    {
        methods.BasicAck: ChannelState._on_confirm,
        methods.BasicNack: ChannelState._on_confirm,
        methods.BasicDeliver: ChannelState._on_content_method,
        methods.BasicReturn: ChannelState._on_content_method,
        methods.BasicCancel: ChannelState._on_cancel,
        methods.BasicConsumeOk: ChannelState._on_consumer_ok,
        methods.BasicCancelOk: ChannelState._on_consumer_ok,
        methods.ChannelFlow: ChannelState._on_flow,
    },
)
