"""Whose fault it was, as an exception's type.

A `ChannelError` closes the channel it happened on, a `ConnectionFailure` the whole connection; both are the peer's
doing and carry what AMQP puts into the close: a reply code and a text. Any other exception that leaves the broker's
code is our own bug. Nothing here knows where an error is sent; one place in session/ turns each into a close.

Codes and names: AMQP 0-9-1, section 1.2 "constants"; texts follow RabbitMQ's wording, since clients match on it.
"""

from __future__ import annotations

from enum import IntEnum


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


class AMQPError(Exception):
    """A fault of the peer's, with the reply code and the text for it ("NOT_FOUND - no queue 'q' in vhost '/'")."""

    def __init__(self, code: ReplyCode, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    @property
    def text(self) -> str:
        """The reply text as RabbitMQ writes it: the code's name, a dash and the detail."""
        return f"{self.code.name} - {self.detail}"

    def __str__(self) -> str:
        return f"{int(self.code)} {self.text}"


class ChannelError(AMQPError):
    """A soft error: the channel is closed, the connection lives on."""


class ConnectionFailure(AMQPError):
    """A hard error: the connection is closed."""
