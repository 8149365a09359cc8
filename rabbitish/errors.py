"""Whose fault it was, as an exception's type.

A `ChannelError` closes the channel it happened on, a `ConnectionFailure` the whole connection; both are the peer's
doing and carry what AMQP puts into the close: a reply code and a text. Any other exception that leaves the broker's
code is our own bug. Nothing here knows where an error is sent; one place in session/ turns each into a close.

Codes and names: AMQP 0-9-1, section 1.2 "constants"; texts follow RabbitMQ's wording, since clients match on it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Protocol, Self


class ReplyCode(IntEnum):
    """Reply codes of AMQP 0-9-1, by RabbitMQ's names for them."""

    SUCCESS = 200
    CONTENT_TOO_LARGE = 311
    NO_ROUTE = 312
    NO_CONSUMERS = 313
    CONNECTION_FORCED = 320
    INVALID_PATH = 402
    ACCESS_REFUSED = 403
    NOT_FOUND = 404
    RESOURCE_LOCKED = 405
    PRECONDITION_FAILED = 406
    FRAME_ERROR = 501
    SYNTAX_ERROR = 502
    COMMAND_INVALID = 503
    CHANNEL_ERROR = 504
    UNEXPECTED_FRAME = 505
    RESOURCE_ERROR = 506
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541


_LONGEST_TEXT_BYTES = 255  # a reply text travels as a short string


class Culprit(Protocol):
    """The method that an error answers."""

    class_id: ClassVar[int]
    method_id: ClassVar[int]


class AMQPError(Exception):
    """A fault of the peer's, with the reply code and the text for it ("NOT_FOUND - no queue 'q' in vhost '/'").

    `class_id` and `method_id` name the method at fault, and are 0 where it was none.
    """

    def __init__(self, code: ReplyCode, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.class_id = 0
        self.method_id = 0

    def of(self, culprit: Culprit) -> Self:
        """The same error, blamed on a method; an internal error is nobody's fault (RabbitMQ has 0, 0 there)."""
        if self.code is ReplyCode.INTERNAL_ERROR:
            return self
        self.class_id, self.method_id = culprit.class_id, culprit.method_id
        return self

    @property
    def text(self) -> str:
        """The reply text as RabbitMQ writes it: the code's name, and where there is a detail, a dash and that."""
        return f"{self.code.name} - {self.detail}" if self.detail else self.code.name

    @property
    def short_text(self) -> str:
        """The reply text, cut to what a close can carry."""
        raw = self.text.encode("utf-8", "surrogateescape")
        if len(raw) <= _LONGEST_TEXT_BYTES:
            return self.text
        return raw[: _LONGEST_TEXT_BYTES - 3].decode("utf-8", "ignore") + "..."

    def __str__(self) -> str:
        return f"{int(self.code)} {self.text}"


class ChannelError(AMQPError):
    """A soft error: the channel is closed, the connection lives on."""


class ConnectionFailure(AMQPError):
    """A hard error: the connection is closed."""
