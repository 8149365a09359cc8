"""Channel 0 of an open connection: what its methods do, and what is wrong with a frame on it.

A table of method -> handler; what is not in it is an unexpected method (connection.py says so).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rabbitish.errors import AMQPError, ConnectionFailure, ReplyCode
from rabbitish.wire import methods
from rabbitish.wire.codec import IDS
from rabbitish.wire.frames import frame_text
from rabbitish.wire.method import Method, decode_method

if TYPE_CHECKING:
    from rabbitish.session.connection import Session


def unexpected(kind: int, payload: bytes) -> ConnectionFailure:
    """A frame that has no business where it came."""
    return ConnectionFailure(ReplyCode.UNEXPECTED_FRAME, frame_text(kind, payload))


def decode_on_0(payload: bytes) -> Method:
    """Decode a method of class connection, for whose arguments RabbitMQ has another error than for a channel's."""
    try:
        return decode_method(payload)
    except AMQPError as error:
        if "cannot decode" in error.detail:
            raise ConnectionFailure(ReplyCode.INTERNAL_ERROR, "") from error
        if len(payload) >= IDS.size and not error.class_id:
            error.class_id, error.method_id = IDS.unpack_from(payload)
        raise


def _close(session: Session, method: methods.ConnectionClose) -> None:
    session.closed_by_peer()


def _update_secret(session: Session, method: methods.ConnectionUpdateSecret) -> None:
    """A password does not expire, so there is nothing to renew; clients call it all the same."""
    session.send(methods.ConnectionUpdateSecretOk())


RUNNING: dict[type[Method], Callable[[Session, Any], None]] = {
    methods.ConnectionClose: _close,
    methods.ConnectionUpdateSecret: _update_secret,
}
