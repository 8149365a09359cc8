"""A message as a consumer gets it: a delivery with its properties at hand, its value, and `process()` to settle it.

`process` decides by how its block is left. Done: acknowledged. An error of the program's: rejected, to be dropped or
dead-lettered, or with `requeue` to come again. Cancelled, or stopped with Ctrl-C: back into the queue, since that is
not the message's fault. An error always goes on to whoever is outside.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from rabbitish.client.protocol.delivery import Delivery

T = TypeVar("T")


class _Property(Generic[T]):
    """One of the content properties, as an attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, message: None, owner: type) -> _Property[T]: ...
    @overload
    def __get__(self, message: Delivery, owner: type) -> T: ...
    def __get__(self, message: Delivery | None, owner: type) -> _Property[T] | T:
        if message is None:
            return self
        value: T = getattr(message.properties, self._name)
        return value


class IncomingMessage(Delivery):
    """A message from a queue, to be settled exactly once unless its consumer has no_ack.

    Settled by `process`, `ack`, `reject` or `nack`, of which none waits. It has all content properties as attributes by
    AMQP's names (`message_id`, `correlation_id`, `content_type`, `priority`, `timestamp` …, None where there is none),
    and `body` (bytes), `exchange`, `routing_key`, `redelivered`, `delivery_tag`, `consumer_tag`, and `message_count`:
    how many more were ready, for a message of `Queue.get`.
    """

    __slots__ = ()

    content_type = _Property[str | None]()
    content_encoding = _Property[str | None]()
    delivery_mode = _Property[int | None]()
    priority = _Property[int | None]()
    correlation_id = _Property[str | None]()
    reply_to = _Property[str | None]()
    expiration = _Property[str | None]()
    message_id = _Property[str | None]()
    timestamp = _Property[int | None]()
    type = _Property[str | None]()
    user_id = _Property[str | None]()
    app_id = _Property[str | None]()

    @property
    def headers(self) -> dict[str, Any]:
        """The headers; an empty table where there are none."""
        return self.properties.headers or {}

    def value(self) -> Any:
        """The body, read by its content type: text, what JSON says, or bytes where nothing says what it is.

        LookupError: no serialiser is known for the content type; ValueError, or what else its serialiser raises.
        """
        return self.channel.protocol.serialisers.loads(self.body, self.properties.content_type)

    def process(
        self, *, requeue: bool = False, reject_on_error: bool = True, ignore_settled: bool = False
    ) -> Processing:
        """A block (`async with` or `with`) at whose end the message is settled; see the module.

        `requeue`: after an error it goes back into its queue. `reject_on_error` False: after an error it stays
        unsettled, for the program to decide. `ignore_settled`: the block itself may settle it.
        """
        return Processing(self, requeue, reject_on_error, ignore_settled)


class Processing:
    """See `IncomingMessage.process`."""

    __slots__ = ("_ignore_settled", "_message", "_reject_on_error", "_requeue")

    def __init__(self, message: IncomingMessage, requeue: bool, reject_on_error: bool, ignore_settled: bool) -> None:
        self._message = message
        self._requeue = requeue
        self._reject_on_error = reject_on_error
        self._ignore_settled = ignore_settled

    def __enter__(self) -> IncomingMessage:
        return self._message

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        message = self._message
        if error is None:
            if not (self._ignore_settled and message.settled):
                message.ack()
        elif message.settled:
            pass  # the error says more than that
        elif not isinstance(error, Exception):
            message.reject(requeue=True)
        elif self._reject_on_error:
            message.reject(requeue=self._requeue)

    async def __aenter__(self) -> IncomingMessage:
        return self._message

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)
