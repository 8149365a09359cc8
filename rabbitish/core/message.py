"""A message as the core sees it: where it was sent, the few properties that rules depend on, and its size.

The core never looks into content. What messages that were published alike have in common is in one `Stamp` that they
share: a publisher sends the same exchange, routing key, properties and size over and over, and what a million messages
share need not be worked out, kept or compared a million times. The rare rule that does need the headers (headers
exchanges, dead letters) asks for them; session/ implements that over the bytes that arrived, tests over dictionaries.
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

    __slots__ = ("exchange", "extra_keys", "routing_key")

    def __init__(self, exchange: str, routing_key: str, extra_keys: tuple[str, ...] = ()) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.extra_keys = extra_keys

    @property
    def routing_keys(self) -> tuple[str, ...]:
        """Every key the message is routed by: its own first, then those of CC and BCC."""
        return (self.routing_key, *self.extra_keys)


class Stamp:
    """What messages have in common that were published alike."""

    __slots__ = ("address", "expiration_ms", "persistent", "size", "traits")

    def __init__(self, address: Address, traits: Traits, size: int) -> None:
        self.address = address
        self.traits = traits
        self.expiration_ms = traits.expiration_ms
        self.persistent = traits.persistent
        self.size = size  # bytes of the body


class Message(ABC):
    """One message; shared by all the queues it is in unless they give it different deadlines."""

    __slots__ = ("deadline", "lsn", "size", "stamp")

    stamp: Stamp
    size: int  # bytes of the body; the stamp's, at hand
    deadline: int | None  # when it expires in the queue that holds it, wall milliseconds
    lsn: int  # its number in the journal, 0 for a message that is not in it

    @property
    def address(self) -> Address:
        """Where it was published to."""
        return self.stamp.address

    @property
    def traits(self) -> Traits:
        """The properties that rules depend on."""
        return self.stamp.traits

    @abstractmethod
    def headers(self) -> Table:
        """The headers table, decoded; empty when there is none. Not to be changed."""

    @abstractmethod
    def expiration(self) -> str | None:
        """The expiration property as the publisher wrote it."""

    @abstractmethod
    def derived(self, address: Address, headers: Table, *, keep_expiration: bool) -> Message:
        """A new message with this one's body and properties, other headers and address, no deadline."""

    @property
    @abstractmethod
    def away(self) -> bool:
        """Whether this is a husk: the content is not in memory, and `Shelf.recall` has it."""

    @abstractmethod
    def husk(self) -> Message:
        """The same message without its content: number, stamp and deadline are all that is asked of it."""

    @abstractmethod
    def twin(self) -> Self:
        """The same message as an object of its own, so that it can have a deadline of its own."""
