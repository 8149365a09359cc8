"""What a queue knows of a consumer, and whose turn it is.

A queue hands messages to anything with this interface; session/ implements it over a channel, tests over a list. A
consumer that cannot take more (prefetch, a full outbox) is set aside until whoever made room calls `Consumers.ready`,
so that a thousand waiting consumers cost nothing. Turns go round robin among the consumers of the highest priority
that has any ready (RabbitMQ: rabbit_queue_consumers); with single active consumer only one is ever ready.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol

from rabbitish.core.lane import Lane
from rabbitish.core.message import Message

# So many are looked at to deal messages out to all of them at once.
_MOST_IN_A_ROUND = 64


class Consumer(Protocol):
    """A taker of messages. The queue alone sets `waiting`."""

    tag: str
    no_ack: bool
    exclusive: bool
    priority: int
    waiting: bool  # set aside until it has room again

    @property
    def channel(self) -> object:
        """What it is part of: deliveries of one channel keep their order, whichever of its consumers gets them."""

    def room(self) -> int:
        """How many messages it can take now."""

    def deliver(self, lane: Lane, first: int, messages: list[Message], returns: int, step: int = 1) -> int:
        """Take messages of the positions `first`, `first + step` and so on; their bytes.

        They came back `returns` times before. The list is the consumer's when this is over.
        """

    def options_changed(self, now: int) -> None:
        """The queue has another consumer timeout."""

    def queue_gone(self) -> None:
        """The queue is deleted (or moved away); nothing more will come."""


class Consumers:
    """The consumers of one queue in order of registration, and the ready ones in order of their turns."""

    __slots__ = ("_all", "_single_active", "active", "turns")

    def __init__(self, *, single_active: bool) -> None:
        self._all: dict[Consumer, None] = {}
        # who can be handed something, by priority, highest first; no empty ones
        self.turns: dict[int, OrderedDict[Consumer, None]] = {}
        self._single_active = single_active
        self.active: Consumer | None = None  # with single_active: the one that gets everything

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(self._all)

    def add(self, consumer: Consumer) -> None:
        """Register a consumer; its first turn comes after those already ready."""
        self._all[consumer] = None
        if self._single_active:
            if self.active is not None:
                consumer.waiting = False
                return
            self.active = consumer
        self._join(consumer)

    def remove(self, consumer: Consumer) -> None:
        """Take a consumer out; with single active consumer the next of the highest priority takes over."""
        del self._all[consumer]
        self._leave(consumer)
        consumer.waiting = False  # whoever makes room for it later must not bring it back
        if consumer is self.active:
            self.active = max(self._all, key=lambda other: other.priority, default=None)
            if self.active is not None:
                self._join(self.active)

    def ready(self, consumer: Consumer) -> bool:
        """A consumer that was set aside may have room again; whether it gets turns now."""
        if not consumer.waiting:
            return False
        self._join(consumer)
        return True

    def next(self) -> tuple[Consumer, int] | None:
        """Whose turn it is and how much room that consumer has; those without room are set aside on the way."""
        while self.turns:
            consumer = next(iter(next(iter(self.turns.values()))))
            room = consumer.room()
            if room > 0:
                return consumer, room
            self.set_aside(consumer)
        return None

    def alone(self) -> bool:
        """Whether whoever's turn it is has nobody to take turns with."""
        return len(next(iter(self.turns.values()))) == 1

    def round(self) -> list[tuple[Consumer, int]]:
        """All that have a turn before anybody has another one, in order, with their room; no change of turns.

        Those without room are set aside. Empty when they are too many, or share a channel, so that order matters.
        """
        turns = next(iter(self.turns.values()))
        if len(turns) > _MOST_IN_A_ROUND or len({id(consumer.channel) for consumer in turns}) < len(turns):
            return []
        asked = [(consumer, consumer.room()) for consumer in turns]
        able = [one for one in asked if one[1] > 0]
        if len(able) < len(asked):
            self.set_aside_all([consumer for consumer, room in asked if room <= 0])
        return able

    def rotate(self) -> None:
        """The one whose turn it was goes to the end of the line."""
        turns = next(iter(self.turns.values()))
        turns.move_to_end(next(iter(turns)))

    def _join(self, consumer: Consumer) -> None:
        consumer.waiting = False
        turns = self.turns.get(consumer.priority)
        if turns is not None:
            turns[consumer] = None
            return
        self.turns[consumer.priority] = OrderedDict({consumer: None})
        if len(self.turns) > 1:
            self.turns = dict(sorted(self.turns.items(), reverse=True))

    def set_aside(self, consumer: Consumer) -> None:
        """It has no room; no turns before it has."""
        self._leave(consumer)
        consumer.waiting = True

    def set_aside_all(self, full: Sequence[Consumer]) -> None:
        """None of these has room, of those whose turns come first."""
        priority, turns = next(iter(self.turns.items()))
        if len(full) == len(turns):
            del self.turns[priority]
        else:
            for consumer in full:
                del turns[consumer]
        for consumer in full:
            consumer.waiting = True

    def _leave(self, consumer: Consumer) -> None:
        turns = self.turns.get(consumer.priority)
        if turns is not None and consumer in turns:
            del turns[consumer]
            if not turns:
                del self.turns[consumer.priority]

    def check(self) -> None:
        """Assert what must always hold."""
        in_turn = [consumer for turns in self.turns.values() for consumer in turns]
        assert len(in_turn) == len({id(consumer) for consumer in in_turn})
        assert list(self.turns) == sorted(self.turns, reverse=True)
        for consumer in self._all:
            assert not (consumer.waiting and consumer in in_turn)
            assert consumer.waiting or consumer in in_turn or (self._single_active and consumer is not self.active)
