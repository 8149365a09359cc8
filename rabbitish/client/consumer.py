"""Consuming: an iterator over a queue's messages, which is at the same time the block in which there is a consumer.

Without the block (`async for message in queue.consume()`) the consumer starts with the first message and ends with the
loop. When it ends, what was not handed out goes back into the queue; what the program has in its hands stays its own
until the channel closes.

Taking a message that is here already costs no trip through trio's scheduler. So that nobody starves and a cancellation
is noticed, each message looks for a cancellation and each millisecond lets others run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

import trio

from rabbitish.client.errors import AccessRefused, ClientError, ConnectionLost, ResourceLocked
from rabbitish.client.message import IncomingMessage
from rabbitish.client.protocol.channel import ChannelState
from rabbitish.client.protocol.delivery import ConsumerState
from rabbitish.client.waiting import in_trio, sleep_until_woken, wait
from rabbitish.wire import methods

if TYPE_CHECKING:
    from rabbitish.client.channel import Channel
    from rabbitish.client.queue import Queue

_TURN_SECONDS = 0.001


class Consumer:
    """A consumer: a block (`async with`) and an iterator (`async for`) over its messages. Made by `Queue.consume`.

    Without the block it starts with the first message and ends with the loop. When it ends, what was not handed out
    goes back into the queue; what the program has in its hands stays its own until it is settled or the channel closes.
    One task at a time may iterate.
    """

    def __init__(self, channel: Channel, queue: Queue, prefetch: int, consume: methods.BasicConsume) -> None:
        self._channel = channel
        self._queue = queue
        self._prefetch = prefetch
        self._consume = consume if consume.consumer_tag else replace(consume, consumer_tag=channel.next_tag())
        self._state: ConsumerState | None = None
        self._ended = False
        self._turn_ends = 0.0

    @property
    def consumer_tag(self) -> str:
        """The name of the consumer on its channel."""
        return self._consume.consumer_tag

    @property
    def waiting(self) -> int:
        """How many messages have come and are not handed out yet."""
        return 0 if self._state is None else len(self._state.buffer)

    @property
    def closed(self) -> bool:
        """Whether the program has ended it."""
        return self._ended

    # ---- its life

    async def start(self) -> None:
        """Start to consume; a loop and a block do that by themselves. ClientError: the broker does not let us."""
        while self._state is None:
            state = await self._channel.ready()
            consumer: ConsumerState | None = None
            try:
                consumer = await self._begin(state)
            except ConnectionLost as error:
                if not self._channel.connection.comes_back(error):
                    raise
            else:
                if self._state is None:
                    self._state = consumer
                    self._channel.consumers.add(self)

    async def _begin(self, state: ChannelState) -> ConsumerState:
        changes = self._prefetch != state.prefetch
        if changes:  # without global it limits consumers that start from now on, which is the one in the next frame
            state.prefetch = self._prefetch
            state.request(methods.BasicQos(prefetch_count=self._prefetch), methods.BasicQosOk)
        consumer, started = state.consume(replace(self._consume, queue=self._queue.queue))
        if changes and self._channel.limit is not None:  # which RabbitMQ has lifted just now
            state.request(self._channel.limit, methods.BasicQosOk)
        try:
            await wait(started)
        except trio.Cancelled:
            state.cancel(consumer)
            raise
        return consumer

    async def restore(self, state: ChannelState) -> None:
        """Go on, on another connection's channel. ResourceLocked: the last connection is still there for the broker."""
        try:
            consumer = await self._begin(state)
        except AccessRefused as refused:
            if self._consume.exclusive:
                raise ResourceLocked(refused.code, refused.text) from None
            raise
        old, self._state = self._state, consumer
        if old is not None and old.no_ack:  # the broker has forgotten these: they are nowhere else
            consumer.buffer.extendleft(reversed(old.buffer))
        if old is not None and old.wake is not None:
            old.wake()

    def close(self) -> Any:
        """End it at once: what was not handed out goes back, and a loop over it ends."""
        state, self._ended = self._state, True
        self._channel.consumers.discard(self)
        if state is None or state.cancelled or state.error is not None:
            return None
        cancelled = state.channel.cancel(state)
        if state.wake is not None:
            state.wake()
        return cancelled

    async def __aenter__(self) -> Consumer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cancelled = self.close()
        if cancelled is not None:
            try:
                await wait(cancelled)
            except ClientError:
                pass  # the channel is gone, and the consumer with it

    def __del__(self) -> None:
        if self._state is not None and not self._ended and in_trio():
            self.close()

    # ---- messages

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> IncomingMessage:
        """The next message. ConsumerCancelled: the broker ended it; ClientError: channel or connection are gone."""
        state = self._state
        if state is not None and state.buffer and not self._ended:
            if perf_counter() < self._turn_ends:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
                self._turn_ends = perf_counter() + _TURN_SECONDS
            if state.buffer:
                return state.buffer.popleft()  # type: ignore[no-any-return]
        return await self._next()

    async def _next(self) -> IncomingMessage:
        while True:
            if self._ended:
                raise StopAsyncIteration
            state = self._state
            if state is None:
                await self.start()
            elif state.buffer:
                self._turn_ends = perf_counter() + _TURN_SECONDS
                return state.buffer.popleft()  # type: ignore[no-any-return]
            elif state.error is None:
                await sleep_until_woken(state)
            elif self._channel.connection.comes_back(state.error) and self._channel.closed is None:
                await self._channel.connection.wait_change()
            elif self._channel.closed is not None and isinstance(state.error, ConnectionLost):
                raise self._channel.closed.again()
            else:
                raise state.error.again()

    def batches(self, size: int, seconds: float | None = None) -> Batches:
        """The messages in lists: of `size`, or of fewer when `seconds` have passed since the first; None: wait for all.

        To iterate over: `async for batch in consumer.batches(100, 0.5)`. ValueError: `size` is less than 1.
        """
        return Batches(self, size, seconds)


class Batches:
    """See `Consumer.batches`."""

    def __init__(self, consumer: Consumer, size: int, seconds: float | None) -> None:
        if size < 1:
            raise ValueError("a batch has one message at least")
        self._consumer = consumer
        self._size = size
        self._seconds = seconds
        self._batch = Batch()

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        """The next batch, with one message at least; raises as the consumer does, when the batch before is out."""
        batch = self._batch  # kept when this is cancelled, and gone on with
        try:
            if not batch:
                batch.append(await anext(self._consumer))
            with trio.move_on_after(float("inf") if self._seconds is None else self._seconds):
                while len(batch) < self._size:
                    batch.append(await anext(self._consumer))
        except (StopAsyncIteration, ClientError):
            if not batch:
                raise
        self._batch = Batch()
        return batch


class Batch(list[IncomingMessage]):
    """A list of messages that are to be settled together; see `Consumer.batches`."""

    def ack(self) -> None:
        """Acknowledge all that are not settled yet; as few acknowledgements as possible go out."""
        for message in self:
            if not message.settled:
                message.ack()

    def reject(self, *, requeue: bool = False) -> None:
        """Reject all that are not settled yet."""
        for message in self:
            if not message.settled:
                message.reject(requeue=requeue)

    def process(self, *, requeue: bool = False, reject_on_error: bool = True) -> BatchProcessing:
        """As `IncomingMessage.process`, for all that the block does not settle itself."""
        return BatchProcessing(self, requeue, reject_on_error)


class BatchProcessing:
    """See `Batch.process`."""

    def __init__(self, batch: Batch, requeue: bool, reject_on_error: bool) -> None:
        self._batch = batch
        self._requeue = requeue
        self._reject_on_error = reject_on_error

    async def __aenter__(self) -> Batch:
        return self._batch

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._batch.ack()
        elif not isinstance(error, Exception):
            self._batch.reject(requeue=True)
        elif self._reject_on_error:
            self._batch.reject(requeue=self._requeue)
