"""A channel's frames into commands: a method, and for those that have content, its header and body.

Owns the order of frames on a channel and its errors (AMQP 0-9-1, 4.2.6; RabbitMQ: rabbit_command_assembler), which hold
even while the channel is closing and what the commands say is ignored. Knows nothing of what a command means. Bodies of
commands that are going to be ignored or refused are counted but not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.session.content import CLASS_BASIC
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from rabbitish.wire.method import Method
from rabbitish.wire.methods import decode_method


class Command(NamedTuple):
    """What a peer said on a channel."""

    method: Method
    arguments: bytes
    """The method's payload, as it came."""
    properties: bytes
    """Property flags and list; empty where the method has no content."""
    size: int
    """Of the body, in bytes."""
    body: list[bytes]
    """The body in the pieces it came in; empty where it was not kept."""


class Assembler:
    """Puts the frames of one channel together. `account` is told of bytes that are waited for (negative: no more)."""

    __slots__ = ("_account", "_arguments", "_body", "_header", "_left", "_method", "_most", "_size", "discarding")

    def __init__(self, most: int, account: Callable[[int], None]) -> None:
        self._most = most  # larger bodies are not kept: they will be refused when they are complete
        self._account = account
        self.discarding = False  # keep no bodies
        self._method: Method | None = None  # whose content is arriving
        self._arguments = b""
        self._header: bytes | None = None
        self._body: list[bytes] | None = None
        self._size = 0
        self._left = 0

    @property
    def idle(self) -> bool:
        """Whether a method is due next."""
        return self._method is None

    def frame(self, kind: int, payload: bytes) -> Command | None:
        """Take a frame; the command it completes. ConnectionFailure: not its turn, or it does not decode."""
        if kind == FRAME_METHOD:
            return self._take_method(payload)
        if kind == FRAME_HEADER:
            return self._take_header(payload)
        assert kind == FRAME_BODY
        return self._take_body(payload)

    def _take_method(self, payload: bytes) -> Command | None:
        if self._method is not None:
            raise self._not_due()
        method = decode_method(payload)
        if not method.has_content:
            return Command(method, payload, b"", 0, [])
        self._method = method
        self._arguments = payload
        return None

    def _take_header(self, payload: bytes) -> Command | None:
        if self._method is None or self._header is not None:
            raise self._not_due()
        class_id, weight, size = CONTENT_HEAD.unpack_from(payload)
        if class_id != CLASS_BASIC:
            text = f"expected content header for class 60, got one for class {class_id} instead"
            raise ConnectionFailure(ReplyCode.UNEXPECTED_FRAME, text).of(self._method)
        if weight:
            raise self._not_due()
        self._header = payload
        self._size = self._left = size
        if not self.discarding and size <= self._most:
            self._body = []  # first, so that it is given back even if it is too much
            self._account(size)
        return None if size else self._complete()

    def _take_body(self, payload: bytes) -> Command | None:
        if self._header is None:
            raise self._not_due()
        self._left -= len(payload)
        if self._left < 0:
            failure = ConnectionFailure(ReplyCode.FRAME_ERROR, "content body frame exceeds remaining content size")
            raise failure if self._method is None else failure.of(self._method)
        if payload and self._body is not None:
            self._body.append(payload)
        return None if self._left else self._complete()

    def _complete(self) -> Command:
        method, header = self._method, self._header
        assert method is not None and header is not None
        body, size = self._body or [], self._size
        self._release()
        self._method = self._header = None
        self._size = 0
        return Command(method, self._arguments, header[CONTENT_HEAD.size :], size, body)

    def discard(self) -> None:
        """Keep no bodies from now on, nor what has come of one."""
        self.discarding = True
        self._release()

    def _release(self) -> None:
        if self._body is not None:
            self._account(-self._size)
            self._body = None

    def _not_due(self) -> ConnectionFailure:
        """The error for a frame that is not the one whose turn it is."""
        if self._method is None:
            return ConnectionFailure(ReplyCode.UNEXPECTED_FRAME, "expected method frame, got non method frame instead")
        if self._header is None:
            text = "expected content header for class 60, got non content header frame instead"
        else:
            text = "expected content body, got non content body frame instead"
        return ConnectionFailure(ReplyCode.UNEXPECTED_FRAME, text).of(self._method)
