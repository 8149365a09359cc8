"""What a channel may ask of a queue, wherever that is.

Channels hold queues by this interface alone. Today the only form is `Queue` itself, in this process; a queue that
another node leads will be a handle that sends the same over a link. So nothing here gives away where messages are
kept: a lane and a position are the place that a message came from, to be handed back with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rabbitish.core.arguments import QueueOptions
from rabbitish.core.consumer import Consumer, Consumers
from rabbitish.core.lane import Lane
from rabbitish.core.message import Message


class QueueHandle(Protocol):
    """A queue, as a channel knows it. `Queue` says what each of these means."""

    name: str
    durable: bool
    auto_delete: bool
    deleted: bool
    options: QueueOptions
    consumers: Consumers
    ready: int
    crowded: bool

    def touch(self, now: int) -> None: ...
    def settle(self, now: int) -> bool: ...
    def purge(self) -> int: ...
    def take(self, now: int, *, no_ack: bool) -> tuple[Lane, int, Message, int] | None: ...
    def acknowledge(self, messages: Sequence[Message], *, in_transaction: bool = False) -> None: ...
    def acknowledge_soon(self, messages: Sequence[Message]) -> None: ...
    def reject(self, messages: Sequence[Message], now: int) -> None: ...
    def requeue(
        self, lane: Lane, position: int, messages: Sequence[Message | None], returns: int, now: int, step: int = 1
    ) -> None: ...
    def take_husks(self, messages: list[Message]) -> list[Message]: ...
    def add_consumer(self, consumer: Consumer) -> None: ...
    def remove_consumer(self, consumer: Consumer, now: int) -> None: ...
    def wake(self, consumer: Consumer) -> None: ...
