"""Calling functions in other programs: requests in queues, replies by correlation id.

A request is a message to the queue that has the function's name, through the default exchange unless told otherwise;
its body is the payload. Replies come through direct reply-to, or through a queue of the client's own. An error is a
reply whose `type` property is "error": the header `error` names the exception, the body is its text.

A reply that nobody waits for, because it is late, or the second one, is dropped and counted. When the connection is
lost, so are the replies: calls on their way fail, and those that were not sent yet go out on the next connection.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, Unpack

import trio

from rabbitish.client.channel import Channel
from rabbitish.client.connection import Connection
from rabbitish.client.consumer import Consumer
from rabbitish.client.errors import CallTimeout, ClientError, ConnectionLost, RemoteError
from rabbitish.client.message import IncomingMessage
from rabbitish.client.pool import pool
from rabbitish.client.protocol.confirms import Publish
from rabbitish.client.protocol.content import TRANSIENT, MessageProperties
from rabbitish.client.protocol.promise import Promise
from rabbitish.client.waiting import background, wait
from rabbitish.values import Table

REPLY_TO = "amq.rabbitmq.reply-to"
_ERROR = "error"
_CONCURRENCY = 10


class RpcClient:
    """A block in which functions can be called: `async with RpcClient(connection) as rpc`.

    `timeout`: seconds for a call that says nothing else; None: for ever. `reply_queue`: have replies in a queue of our
    own instead of direct reply-to, for brokers that lack it. `exchange`: where requests go.
    """

    def __init__(
        self, connection: Connection, *, timeout: float | None = 30.0, reply_queue: bool = False, exchange: str = ""
    ) -> None:
        self.dropped = 0
        """Replies that nobody waited for."""
        self._connection = connection
        self._timeout = timeout
        self._reply_queue = reply_queue
        self._exchange = exchange
        self._error: ClientError | None = None
        self._calls: dict[str, Promise[IncomingMessage]] = {}
        self._ids = (f"{secrets.token_hex(8)}-{number}" for number in itertools.count(1))
        self._stack = contextlib.AsyncExitStack()
        self._channel: Channel
        self._consumer: Consumer
        self._reply_to = REPLY_TO

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(background())
            channel = self._channel = await stack.enter_async_context(self._connection.channel())
            queue = channel.queue(REPLY_TO)
            if self._reply_queue:
                queue = await channel.declare_queue(exclusive=True)
                stack.callback(queue.delete_soon)
            self._replies = queue
            self._consumer = await stack.enter_async_context(queue.consume(prefetch=0, no_ack=True))
            channel.on_restored = self._lost
            nursery.start_soon(self._receive)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    async def call(
        self,
        name: str,
        payload: Any = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (it is also told to the broker)
        **properties: Unpack[MessageProperties],
    ) -> Any:
        """Call a function; the value that it returned. Any number of calls may be on their way.

        RemoteError: it failed there; CallTimeout: no reply in `timeout` seconds, after which the broker drops the
        request if nobody has taken it; PublishReturned: nobody has registered that name; ConnectionLost: the connection
        went away, and with it the reply.
        """
        seconds = self._timeout if timeout is None else timeout
        properties.setdefault("delivery_mode", TRANSIENT)
        if seconds is not None:
            properties.setdefault("expiration", max(1, round(seconds * 1000)))
        try:
            with trio.fail_after(float("inf") if seconds is None else seconds):
                message = await self._exchange_messages(name, payload, properties)
        except trio.TooSlowError:
            raise CallTimeout(f"no reply from {name!r} within {seconds:g} seconds") from None
        if message.type == _ERROR:
            raise RemoteError(str(message.headers.get(_ERROR, "Exception")), message.body.decode("utf-8", "replace"))
        return message.value()

    async def _exchange_messages(self, name: str, payload: Any, properties: MessageProperties) -> IncomingMessage:
        channel = self._channel
        state = await channel.sendable() if channel.must_wait() else channel.state
        if self._error is not None:
            raise self._error.again()
        correlation_id = next(self._ids)
        reply_to = self._replies.queue
        # A call stands for itself: nothing of what the caller says about these two makes sense.
        own: MessageProperties = {**properties, "correlation_id": correlation_id, "reply_to": reply_to}
        publish = channel.prepare(payload, self._exchange, name, True, own)
        publish.retry = False
        promise: Promise[IncomingMessage] = Promise()

        def sent(publish: Publish) -> None:
            if publish.error is not None:
                promise.fail(publish.error)

        publish.callback = sent
        self._calls[correlation_id] = promise
        try:
            state.publish(publish)
            return await wait(promise)
        finally:
            del self._calls[correlation_id]

    async def _receive(self) -> None:
        try:
            async for message in self._consumer:
                promise = self._calls.get(message.correlation_id or "")
                if promise is None or promise.done:
                    self.dropped += 1
                else:
                    promise.keep(message)
        except ClientError as error:  # which is told to whoever calls
            self._error = error
            self._fail(error)

    def _lost(self) -> None:
        self._fail(ConnectionLost("the connection was lost, and the reply with it"))

    def _fail(self, error: ClientError) -> None:
        for promise in list(self._calls.values()):
            promise.fail(error)


Handler = Callable[..., Any]


class RpcServer:
    """A block in which functions can be called by others: `async with RpcServer(connection) as server`.

    `concurrency`: how many calls are worked on at the same time, over all functions. At the end of the block no more
    requests are taken; those in work have `drain_seconds` to end.
    """

    def __init__(self, connection: Connection, *, concurrency: int = _CONCURRENCY, drain_seconds: float = 30.0) -> None:
        self._connection = connection
        self._concurrency = concurrency
        self._drain_seconds = drain_seconds
        self._limiter = trio.CapacityLimiter(concurrency)
        self._stack = contextlib.AsyncExitStack()
        self._stopping = trio.Event()
        self._serving = 0
        self._served = trio.lowlevel.ParkingLot()
        self._replies: Channel
        self._nursery: trio.Nursery

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._replies = await stack.enter_async_context(self._connection.channel(confirms=False))
            self._nursery = await stack.enter_async_context(background())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if error is not None:
            return await self._stack.__aexit__(kind, error, traceback)
        async with self._stack:
            self._stopping.set()
            while self._serving:
                await self._served.park()
        return None

    async def register(
        self,
        name: str,
        handler: Handler,
        *,
        concurrency: int | None = None,
        pass_message: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        arguments: Table | None = None,
    ) -> None:
        """Serve calls of `name` with `handler(payload)`, or with `pass_message` `handler(payload, message)`.

        The handler may be asynchronous; what it returns is the reply, what it raises the error that the caller gets.
        `concurrency`: how many calls of this one at the same time. The other options are those of its queue, `name`,
        which all servers that register it must agree on. PreconditionFailed: it is there and different.
        """
        queue = await self._replies.declare_queue(name, durable=durable, auto_delete=auto_delete, arguments=arguments)

        async def handle(message: IncomingMessage) -> None:
            async with message.process(requeue=True):
                await self._serve(message, handler, pass_message)

        await self._nursery.start(self._serve_queue, queue.queue, handle, concurrency or self._concurrency)

    async def _serve_queue(
        self, queue: str, handle: Handler, concurrency: int, task_status: trio.TaskStatus[None]
    ) -> None:
        limiter = self._limiter if concurrency >= self._concurrency else trio.CapacityLimiter(concurrency)
        drain = self._drain_seconds
        self._serving += 1
        try:
            async with (
                self._connection.channel() as channel,
                pool(channel.queue(queue), handle, limiter=limiter, prefetch=concurrency, drain_seconds=drain),
            ):
                task_status.started()
                await self._stopping.wait()
        finally:
            self._serving -= 1
            self._served.unpark_all()

    async def _serve(self, message: IncomingMessage, handler: Handler, pass_message: bool) -> None:
        properties: MessageProperties = {"correlation_id": message.correlation_id, "delivery_mode": TRANSIENT}
        try:
            value = message.value()
            result = handler(value, message) if pass_message else handler(value)
            if inspect.isawaitable(result):
                result = await result
            publish = self._replies.prepare(result, "", message.reply_to or "", False, properties)
        except Exception as error:  # noqa: BLE001 (it is the caller's to handle)
            properties["type"], properties["headers"] = _ERROR, {_ERROR: type(error).__name__}
            publish = self._replies.prepare(str(error), "", message.reply_to or "", False, properties)
        if message.reply_to:
            state = await self._replies.sendable() if self._replies.must_wait() else self._replies.state
            state.publish(publish)
