"""A value that is to come, or an error in its place. It is settled once, and tells one callback.

The pure half's only way to be waited for: it never knows who waits, or how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rabbitish.client.errors import ClientError

T = TypeVar("T")


class Promise(Generic[T]):
    """`done` once `value` or `error` is there. Settling it again does nothing."""

    __slots__ = ("callback", "done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: T | None = None
        self.error: ClientError | None = None
        self.callback: Callable[[Any], None] | None = None
        """Called with the promise when it is settled."""

    def keep(self, value: T) -> None:
        """Here it is."""
        if not self.done:
            self.done = True
            self.value = value
            if self.callback is not None:
                self.callback(self)

    def fail(self, error: ClientError) -> None:
        """It will not come."""
        if not self.done:
            self.done = True
            self.error = error
            if self.callback is not None:
                self.callback(self)

    def result(self) -> T:
        """The value, or the error raised. Only for one that is done."""
        assert self.done, "nobody has settled it"
        if self.error is not None:
            raise self.error.again() from self.error.__cause__
        return self.value  # type: ignore[return-value]
