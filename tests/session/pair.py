"""Two worlds with the same clients, one of them without the fast lane, and the comparison of everything in them.

Both get the same bytes, cut at the same places. Whatever comes out must be the same to the byte, and so must every
queue, channel and journal, after every step.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.session import connection
from rabbitish.session.connection import Session
from rabbitish.values import Table
from rabbitish.wire import methods

from .client import Client
from .harness import World

CHANNELS = (1, 2, 3)

QUEUES: dict[str, Table] = {
    "q0": {},
    "q1": {"x-max-length": 5, "x-overflow": "reject-publish"},
    "q2": {"x-message-ttl": 30, "x-dead-letter-exchange": "amq.fanout"},
    "q3": {"x-max-priority": 3},
    "q4": {"x-max-length": 3, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q0"},
    "q5": {
        "x-max-length-bytes": 5000,
        "x-overflow": "reject-publish-dlx",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "q3",
    },
}
DURABLE = ("q0", "q3", "q5")


def declaration(name: str, *, nowait: bool = True) -> methods.QueueDeclare:
    """The declare of one of the queues."""
    return methods.QueueDeclare(queue=name, durable=name in DURABLE, arguments=QUEUES[name], nowait=nowait)


class Pair:
    """The two worlds, with the same clients in both."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, take_fast: Callable[[Session], None]) -> None:
        self.fast, self.plain = World(), World()
        self.frames_taken = 0

        def choose(session: Session) -> None:
            if session.hub is self.fast.hub:
                before = session.parser.pos
                take_fast(session)
                self.frames_taken += session.parser.pos != before

        monkeypatch.setattr(connection, "take_fast", choose)
        self.clients: list[tuple[Client, Client]] = []

    def client(self, frame_max: int, confirms: tuple[int, ...]) -> None:
        """One more client."""
        both = [world.client(*CHANNELS, frame_max=frame_max) for world in (self.fast, self.plain)]
        self.clients.append((both[0], both[1]))
        for channel in confirms:
            self.say(len(self.clients) - 1, methods.ConfirmSelect().frame(channel))
        for channel, queue in ((1, "q0"), (2, "q3")):
            declare = declaration(queue)
            consume = methods.BasicConsume(queue=queue, consumer_tag=f"{queue} at first")
            self.say(len(self.clients) - 1, declare.frame(channel) + consume.frame(channel))
        self.compare()

    def say(self, index: int, data: bytes) -> None:
        """Have a client send bytes in one piece."""
        for client in self.clients[index]:
            client.raw(data)

    def both(self, act: Callable[[World], None]) -> None:
        """Do something in both worlds."""
        for world in (self.fast, self.plain):
            act(world)

    def compare(self, *, bodies: bool = False) -> None:
        """All that came out since the last time, and all that there is."""
        for mine, theirs in self.clients:
            assert mine.received == theirs.received
            mine.received.clear()
            theirs.received.clear()
            assert inside(mine.session) == inside(theirs.session)
        assert self.fast.broker.usage.bytes == self.plain.broker.usage.bytes
        assert self.fast.hub.partial_bytes == self.plain.hub.partial_bytes
        assert contents(self.fast, bodies=bodies) == contents(self.plain, bodies=bodies)
        assert self.fast.exceptions == self.plain.exceptions == []
        for mine, theirs in zip(journals(self.fast), journals(self.plain), strict=True):
            assert mine == theirs


def journals(world: World) -> list[object]:
    """What the journal was told, and how far channels know to be safe."""
    recorder = world.vhost.recorder
    if recorder is None:
        return []
    waiting = [(channel.session.peer.name, channel.number) for channel in world.hub.unsafe]
    return [
        recorder.position,
        waiting,
        [(queue.name, [message.lsn for message in queue]) for queue in world.vhost.queues.values()],
    ]


def inside(session: Session) -> object:
    """What there is to a session, channel by channel."""
    return (
        session.state,
        session.blocked,
        session.outbox.size,
        [
            (
                channel.number,
                channel.closing,
                channel.confirms and (channel.confirms.published, channel.confirms.answered, channel.confirms.safe_at),
                channel.last_delivery_tag,
                channel.unacked.tags(),
                channel.consumer_unacked,
                [(consumer.tag, consumer.unacked, consumer.waiting) for consumer in channel.consumers.values()],
                channel.transaction and len(channel.transaction.publishes),
            )
            for channel in session.channels.values()
        ],
    )


def contents(world: World, *, bodies: bool) -> object:
    """Everything in the queues."""
    return [
        (
            queue.name,
            queue.ready,
            queue.unacked,
            queue.bytes,
            queue.unacked_bytes,
            [
                (message.size, message.deadline, message.traits, message.address.routing_keys)
                + ((message.content,) if bodies else ())  # type: ignore[attr-defined]
                for message in queue
            ],
        )
        for queue in world.vhost.queues.values()
    ]
