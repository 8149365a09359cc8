"""A client that does anything, and leaders that are replaced at any byte: nothing confirmed is lost, nothing invented.

Leaders keep a journal that is synced now and then, and the next leader has what was synced, and perhaps some more. The
client counts as clients do: every publish is confirmed once, every delivery tag is new, frames are never torn (the
client's parser says so). In the end everything that was confirmed has been delivered, and nothing was published again
of which the next leader's journal said that it was there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from rabbitish.session.content import WireMessage
from rabbitish.wire import methods
from tests.session.client import Said, publication
from tests.session.harness import Journal, World

from .carried import MARK, Carried, bodies_in, successor

SEEDS = 25 * max(1, int(os.environ.get("RABBITISH_EXPLORE", "0")))
STEPS = 120
QUEUES = ("d0", "d1", "d2")
SIZES = (0, 1, 10, 10, 100, 3_000, 5_000, 20_000)
FRAME_MAX = 4_096
OWN = b"own"


class Life:
    """One client's."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World()
        self.world.keep_journal()
        helper = self.world.client()
        for queue in QUEUES:
            helper.send(methods.QueueDeclare(queue=queue, durable=True, nowait=True))
        self.world.synced()
        helper.hang_up()
        self.client = Carried(self.world, most=200_000)
        self.client.handshake(frame_max=FRAME_MAX)
        self.numbers = {1: 0, 2: 0, 3: 0}
        self.open = {1: {}, 2: {}, 3: {}}  # type: ignore[var-annotated]
        self.tags: dict[int, list[int]] = {1: [], 2: []}
        self.last_tag = {1: 0, 2: 0}
        self.sent: set[bytes] = set()
        self.confirmed: set[bytes] = set()
        self.received: set[bytes] = set()
        self.bodies: dict[int, dict[int, bytes]] = {1: {}, 2: {}, 3: {}}  # of all publishes, by channel and number
        self.ends: list[tuple[bool, int]] = []  # of transactions, not answered yet: whether to commit; up to where
        self.rolled_back: set[bytes] = set()
        self.transient: set[bytes] = set()  # which end with their leader
        self.there: set[bytes] = set()  # of which the journal said at the last change of leader that it has them
        self.consumers: dict[tuple[int, str], bool] = {}
        self.pending = b""  # said and not yet heard by the node
        for channel in (1, 2):
            self.client.open(channel)
            self.client.ask(methods.ConfirmSelect(), channel)
            self.client.ask(methods.BasicQos(prefetch_count=5), channel)
        self.client.open(3)
        self.client.ask(methods.TxSelect(), 3)
        self.own = self.client.declare("", exclusive=True, channel=2)  # which ends with each leader, and is there again
        self.client.ask(methods.QueueBind(exchange="amq.topic", routing_key="own"), 2)
        self.client.consume(self.own, "own", channel=2, no_ack=True)
        self.client.slow = True
        self.watch()

    def watch(self) -> None:
        """Look at all that is published."""
        journal = self.journal
        publish = journal.published

        def published(queues: object, messages: Sequence[WireMessage], *how: Any, **more: Any) -> None:
            for message in messages:
                assert b"".join(bodies_in(message.content)) not in self.there, "there twice"
            publish(queues, messages, *how, **more)  # type: ignore[arg-type]

        journal.published = published  # type: ignore[method-assign, assignment]

    @property
    def journal(self) -> Journal:
        journal = self.world.broker.recorder
        assert isinstance(journal, Journal)
        return journal

    # ---- what happens

    def step(self) -> None:
        act = self.random.choice(
            [self.publish] * 6
            + [self.flow] * 8
            + [self.settle] * 4
            + [self.manage] * 2
            + [self.sync] * 2
            + [self.move, self.transact]
        )
        act()
        self.hear()

    def publish(self) -> None:
        data = []
        for _ in range(self.random.randrange(1, 4)):
            channel = self.random.choice((1, 2))
            body = f"{len(self.sent)} ".encode() + b"x" * self.random.choice(SIZES)
            self.sent.add(body)
            self.number(channel, body)
            queue = self.random.choice(QUEUES)
            mode = self.random.choice((2, 2, 2, 2, 1))
            if mode == 1:
                self.transient.add(body)
            data.append(publication(queue, body, channel=channel, frame_max=FRAME_MAX, delivery_mode=mode))
        if self.random.random() < 0.2:
            self.number(1, OWN)
            data.append(publication("own", OWN, exchange="amq.topic", channel=1))
        self.say(b"".join(data))

    def transact(self) -> None:
        """Publish in a transaction, and maybe end it."""
        data = []
        for _ in range(self.random.randrange(4)):
            body = f"{len(self.sent)} tx".encode()
            self.sent.add(body)
            self.number(3, body)
            data.append(publication(self.random.choice(QUEUES), body, channel=3, delivery_mode=2))
        if self.random.random() < 0.7:
            data.append(self.end(commits=self.random.random() < 0.7))
        self.say(b"".join(data))

    def end(self, *, commits: bool) -> bytes:
        self.ends.append((commits, self.numbers[3]))
        return (methods.TxCommit() if commits else methods.TxRollback()).frame(3)

    def ended(self, *, commits: bool) -> None:
        """The leader says so."""
        expected, last = self.ends.pop(0)
        assert commits is expected
        bodies = {self.open[3].pop(number) for number in sorted(self.open[3]) if number <= last}
        (self.confirmed if commits else self.rolled_back).update(bodies)

    def number(self, channel: int, body: bytes) -> None:
        self.numbers[channel] += 1
        self.open[channel][self.numbers[channel]] = self.bodies[channel][self.numbers[channel]] = body

    def say(self, data: bytes) -> None:
        """In pieces."""
        self.pending += data
        cut = self.random.randrange(len(self.pending) + 1)
        said, self.pending = self.pending[:cut], self.pending[cut:]
        self.client.raw(said)

    def flow(self) -> None:
        client = self.client
        client.feed()
        for move in (client.up, client.down):
            move(self.random.choice((1, 30, 500, 5_000, 100_000)))
        self.world.settle()
        client.collect()

    def settle(self) -> None:
        channel = self.random.choice((1, 2))
        tags = self.tags[channel]
        if not tags:
            return
        tag = self.random.choice(tags)
        multiple = self.random.random() < 0.4
        gone = [each for each in tags if each <= tag] if multiple else [tag]
        self.tags[channel] = [each for each in tags if each not in gone]
        method = self.random.choice([methods.BasicAck(tag, multiple)] * 3 + [methods.BasicNack(tag, multiple, True)])
        self.say(method.frame(channel))

    def manage(self) -> None:
        channel, queue = self.random.choice((1, 2)), self.random.choice(QUEUES)
        consumed = self.consumers.get((channel, queue), False)
        choices = [methods.BasicQos(prefetch_count=self.random.randrange(1, 9))]
        choices.append(methods.QueueDeclare(queue=queue, durable=True, nowait=self.random.random() < 0.5))
        choices.append(methods.BasicGet(queue=queue))
        if consumed:
            choices.append(methods.BasicCancel(consumer_tag=f"{queue} {channel}", nowait=self.random.random() < 0.5))
        else:
            choices += [methods.BasicConsume(queue=queue, consumer_tag=f"{queue} {channel}")] * 3
        method = self.random.choice(choices)
        if isinstance(method, methods.BasicConsume | methods.BasicCancel):
            self.consumers[(channel, queue)] = not consumed
        self.say(method.frame(channel))

    def sync(self) -> None:
        journal = self.journal
        low = self.world.hub.durable
        self.world.synced(self.random.randrange(low, journal.position + 1))

    def move(self) -> None:
        self.client.lose_leader()
        journal = self.journal
        up_to = self.random.randrange(self.world.hub.durable, journal.position + 1)
        self.there = set()
        for at, mark, channel, ranges in journal.sends:
            assert mark == MARK
            if at <= up_to:
                self.there |= {self.bodies[channel][each] for first, last in ranges for each in range(first, last + 1)}
        assert not self.there & {OWN, *self.transient}, "what died with the leader is told of"
        self.world = successor(self.world, journal=True, up_to=up_to, synced=self.random.random() < 0.3)
        self.watch()
        self.client.go_on(self.world)

    # ---- what the client makes of it

    def hear(self) -> None:
        for said in self.client.answers():
            self.take(said)

    def take(self, said: Said) -> None:
        method, channel = said.method, said.channel
        if isinstance(method, methods.BasicAck | methods.BasicNack):
            assert isinstance(method, methods.BasicAck), "refused"
            waiting = self.open[channel]
            assert method.delivery_tag in waiting, "confirmed twice, or never published"
            for number in sorted(waiting):
                if number == method.delivery_tag or (method.multiple and number < method.delivery_tag):
                    self.confirmed.add(waiting.pop(number))
        elif isinstance(method, methods.BasicDeliver) and method.consumer_tag == "own":
            assert said.body == OWN
            self.last_tag[channel] = method.delivery_tag
        elif isinstance(method, methods.BasicDeliver | methods.BasicGetOk):
            assert said.body in self.sent, "invented"
            assert method.delivery_tag > self.last_tag[channel], "a tag that was used"
            self.last_tag[channel] = method.delivery_tag
            self.tags[channel].append(method.delivery_tag)
            self.received.add(said.body)
        elif isinstance(method, methods.TxCommitOk | methods.TxRollbackOk):
            self.ended(commits=isinstance(method, methods.TxCommitOk))
        else:
            assert not isinstance(method, methods.ChannelClose | methods.ConnectionClose), method
            assert not isinstance(method, methods.BasicCancel | methods.ChannelOpenOk | methods.ChannelCloseOk), method

    # ---- the end

    def finish(self) -> None:
        client = self.client
        client.slow = False
        client.raw(self.pending + self.end(commits=True))
        for _ in range(100):
            client.up(len(client.waiting_up))
            client.down(len(client.waiting_down))
            self.world.synced()
            self.hear()
            for channel, tags in self.tags.items():
                for tag in tags:
                    client.send(methods.BasicAck(tag), channel=channel)
                tags.clear()
        assert not any(self.open.values()), "never confirmed"
        assert client.gateway.kept_bytes == client.gateway.open_bytes == 0
        assert self.world.exceptions == []
        taker = self.world.client()
        for queue in QUEUES:
            if self.world.queue(queue).ready:
                self.received.update(taker.drain(queue))
            assert self.world.queue(queue).unacked == 0
        assert self.confirmed - {OWN} == self.sent - self.rolled_back
        assert self.sent - self.transient - self.rolled_back <= self.received <= self.sent - self.rolled_back


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_confirmed_is_lost_whenever_leaders_change(seed: int) -> None:
    life = Life(seed)
    for _ in range(STEPS):
        life.step()
    life.move()
    life.finish()
