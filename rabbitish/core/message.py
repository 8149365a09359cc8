"""A message as the core sees it: where it was sent, the few properties that rules depend on, and its size.

The core never looks into content. What it must know of the properties is digested once into `Traits`, which messages
with the same property bytes share, as messages to the same place share an `Address`. The rare rule that does need the
headers (headers exchanges, dead letters) asks for them; session/ implements that over the bytes that arrived, tests
over plain dictionaries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

from rabbitish.values import Table


class Traits(NamedTuple):
    """The properties that the broker's rules depend on."""

    persistent: bool = False
    priority: int = 0
    expiration_ms: int | None = None


class Address:
    """Where a message was published to: exchange, routing key, and the further keys of its CC and BCC headers."""

    __slots__ = ("encoded", "exchange", "extra_keys", "routing_key")

    def __init__(self, exchange: str, routing_key: str, extra_keys: tuple[str, ...] = ()) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.extra_keys = extra_keys
        # The session's encoded form of exchange and routing key, kept here so that it is made once an address.
        self.encoded: bytes | None = None

    @property
    def routing_keys(self) -> tuple[str, ...]:
        """Every key the message is routed by: its own first, then those of CC and BCC."""
        return (self.routing_key, *self.extra_keys)


class Message(ABC):
    """One message; shared by all the queues it is in unless they give it different deadlines."""

    __slots__ = ("address", "deadline", "size", "traits")

    address: Address
    traits: Traits
    size: int  # bytes of the body
    deadline: int | None  # when it expires in the queue that holds it, wall milliseconds

    @abstractmethod
    def headers(self) -> Table:
        """The headers table, decoded; empty when there is none. Not to be changed."""

    @abstractmethod
    def expiration(self) -> str | None:
        """The expiration property as the publisher wrote it."""

    @abstractmethod
    def derived(self, address: Address, headers: Table, *, keep_expiration: bool) -> Message:
        """A new message with this one's body and properties, other headers and address, no deadline."""

    @abstractmethod
    def twin(self) -> Self:
        """The same message as an object of its own, so that it can have a deadline of its own."""
