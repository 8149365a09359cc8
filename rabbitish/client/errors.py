"""What can go wrong for a user of the client, as exceptions that say whose matter it is.

Everything derives from `ClientError`. The connection is gone: `ConnectionClosed`. The broker refused an operation and
closed the channel over it: `ChannelClosed`, with a class for each reply code that programs tell apart. A message did
not get where it should: `PublishError`. Nothing here knows a socket.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

from rabbitish.errors import ReplyCode


class ClientError(Exception):
    """Anything that the client raises by itself; what is wrong with arguments is a ValueError or a TypeError."""

    def again(self) -> Self:
        """The same error for one more who is to see it: an exception object belongs to one stack."""
        other = copy.copy(self)
        other.__cause__ = self.__cause__
        return other.with_traceback(None)


class URIError(ValueError):
    """An AMQP URI cannot be used; the text says what is wrong with it, and never shows a password."""


class ProtocolError(ClientError):
    """What the other side sends is not AMQP 0-9-1, or not what is due."""


class ConnectionClosed(ClientError):
    """The connection is closed, by either side. `code` is the broker's reply code, 0 where it gave none."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text, code)
        self.text = text
        self.code = code

    def __str__(self) -> str:
        return f"{self.code} {self.text}" if self.code else self.text


class ConnectionLost(ConnectionClosed):
    """The connection ended without a word: a broken network, a broker that went away, or missed heartbeats.

    The one error after which a connection with `reconnect` comes back.
    """


class ConnectFailed(ConnectionClosed):
    """No connection came about on any of the hosts."""


class AuthenticationFailed(ConnectionClosed):
    """The broker does not let this user in, or not into this virtual host."""


class ChannelClosed(ClientError):
    """The channel is closed. `code` and `text` are the broker's, or 200 where the program closed it itself."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class AccessRefused(ChannelClosed):
    """403: the user may not do this."""


class NotFound(ChannelClosed):
    """404: there is no such queue or exchange."""


class ResourceLocked(ChannelClosed):
    """405: somebody else has this queue for himself."""


class PreconditionFailed(ChannelClosed):
    """406: it exists and is different, is not empty, or the delivery tag is unknown."""


_BY_CODE: dict[int, type[ChannelClosed]] = {
    ReplyCode.ACCESS_REFUSED: AccessRefused,
    ReplyCode.NOT_FOUND: NotFound,
    ReplyCode.RESOURCE_LOCKED: ResourceLocked,
    ReplyCode.PRECONDITION_FAILED: PreconditionFailed,
}


def channel_closed(code: int, text: str) -> ChannelClosed:
    """The exception for a channel.close."""
    return _BY_CODE.get(code, ChannelClosed)(code, text)


class PublishError(ClientError):
    """A message was not published, or nobody knows whether it was."""


class PublishReturned(PublishError):
    """No queue is there to take it (312), and it was mandatory. `body` and `properties` are what came back."""

    def __init__(self, code: int, text: str, exchange: str, routing_key: str) -> None:
        super().__init__(code, text, exchange, routing_key)
        self.code = code
        self.text = text
        self.exchange = exchange
        self.routing_key = routing_key

    def __str__(self) -> str:
        return f"{self.code} {self.text}: exchange {self.exchange!r}, routing key {self.routing_key!r}"


class PublishNacked(PublishError):
    """The broker refused it: a full queue with `x-overflow: reject-publish`, or an error of the broker's."""

    def __str__(self) -> str:
        return "the broker did not take the message (basic.nack)"


class PublishUnconfirmed(PublishError):
    """The connection was lost before the confirm: the broker may have the message or not. The cause says more."""

    def __str__(self) -> str:
        return "the connection was lost before the message was confirmed"


class PublishManyFailed(PublishError):
    """Some of many were not published.

    `failures`: the position of each and why; `confirmed`: how many the broker has. No message behind the last of the
    failures has been sent unless it was in the window at that time, so `sent` says where to go on.
    """

    def __init__(self, failures: Sequence[tuple[int, ClientError]], confirmed: int, sent: int) -> None:
        super().__init__(failures, confirmed, sent)
        self.failures = list(failures)
        self.confirmed = confirmed
        self.sent = sent

    def __str__(self) -> str:
        position, error = self.failures[0]
        return f"{len(self.failures)} of {self.sent} messages were not published; first number {position}: {error}"


class ConsumerCancelled(ClientError):
    """The broker ended the consumer: its queue was deleted, or its node went away."""


class AlreadySettled(ClientError):
    """The message was acknowledged or rejected before, or was never to be."""


class RemoteError(ClientError):
    """The function that was called failed on the server: `kind` names its exception, `message` is its text."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


class CallTimeout(ClientError, TimeoutError):
    """No reply came in time. The call may still be done; its reply will be dropped."""


class Poison(Exception):
    """Raised by a handler of a work queue: this job will never work, so it is parked without another try."""
