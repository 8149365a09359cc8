"""What everybody has acknowledged needs no disk: how it is counted, and that it is confirmed, and nothing else."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest

from rabbitish.store.needed import Needed
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.method import Method
from tests.session.client import Client, publication

from .driver import IN_MEMORY, Durable
from .fake_disk import FakeDisk


class Message(NamedTuple):
    lsn: int


def those(*lsns: int) -> list[Message]:
    return [Message(lsn) for lsn in lsns]


@pytest.fixture
def needed() -> Needed:
    """Of a journal whose first ten records are on disk."""
    return Needed(10, 10)


# ---- how it is counted


def test_up_to_the_first_that_is_needed(needed: Needed) -> None:
    for first in (11, 15, 20):
        needed.published(first, 2, 1)
    needed.acknowledged(those(15, 16))
    assert needed.done == 10
    needed.acknowledged(those(12))
    assert needed.done == 10
    needed.acknowledged(those(11))
    assert needed.done == 16
    needed.acknowledged(those(20, 21))
    assert needed.done == 21


def test_a_message_in_two_queues_is_needed_until_it_has_left_both(needed: Needed) -> None:
    needed.published(11, 1, 2)
    needed.acknowledged(those(11))
    assert needed.done == 10
    needed.acknowledged(those(11))
    assert needed.done == 11


def test_the_disk_makes_up_for_what_is_needed(needed: Needed) -> None:
    for first in (11, 15, 20):
        needed.published(first, 2, 1)
    needed.acknowledged(those(20, 21))
    needed.synced(13)
    assert needed.done == 13
    needed.acknowledged(those(12))  # which does not matter any more
    assert needed.done == 13
    needed.synced(17)
    assert needed.done == 21
    needed.published(30, 1, 1)
    needed.acknowledged(those(11, 30, 99))
    assert needed.done == 30


def test_whether_all_of_it_is_with_consumers(needed: Needed) -> None:
    assert needed.with_consumers
    needed.published(11, 3, 2)
    for _ in range(2):
        assert not needed.with_consumers
        needed.handed_out(those(9, 11, 12, 13))
    assert needed.with_consumers
    needed.published(20, 1, 1)
    assert not needed.with_consumers
    needed.synced(20)
    assert needed.with_consumers


def test_much_at_once_is_not_counted_but_left_to_the_disk(needed: Needed) -> None:
    needed.published(11, 200, 1)
    needed.published(300, 57, 1)
    assert not needed.with_consumers
    needed.acknowledged(those(*range(11, 211), *range(300, 357)))
    needed.published(400, 1, 1)
    needed.acknowledged(those(400))
    needed.synced(399)
    assert (needed.done, needed.with_consumers) == (399, False)
    needed.synced(400)
    assert needed.with_consumers
    needed.published(401, 1, 1)
    needed.acknowledged(those(401))
    assert needed.done == 401


def test_what_was_there_before_and_may_not_be_safe_takes_the_disk() -> None:
    needed = Needed(10, 15)
    needed.published(16, 1, 1)
    needed.acknowledged(those(16))
    assert (needed.done, needed.with_consumers) == (10, False)
    needed.synced(16)
    assert needed.with_consumers


# ---- confirms


class Story:
    """A broker whose disk has nothing but what was declared, one who publishes, and one who consumes."""

    def __init__(self) -> None:
        self.disk = FakeDisk()
        self.world = Durable(self.disk, lazy=True, window_bytes=IN_MEMORY)
        self.publisher, self.consumer = self.world.client(), self.world.client()
        for name in ("q", "other"):
            self.publisher.send(methods.QueueDeclare(queue=name, durable=True))
            self.publisher.send(methods.QueueBind(queue=name, exchange="amq.fanout"))
        self.publisher.send(methods.ConfirmSelect())
        self.world.sync()
        self.publisher.answers()
        self.durable = self.world.journal.durable_lsn

    def publish(self, exchange: str = "", **properties: object) -> None:
        self.publisher.publish("q", b"x", exchange=exchange, **{"delivery_mode": 2, **properties})
        self.world.settle()

    def consume(self, queue: str = "q", arguments: Table | None = None, *, no_ack: bool = False) -> None:
        self.consumer.ask(methods.BasicConsume(queue=queue, no_ack=no_ack, arguments=arguments or {}))

    def settle(self, method: methods.BasicAck | methods.BasicNack) -> None:
        self.consumer.send(method)
        self.consumer.answers()

    def confirmed(self) -> list[Method]:
        assert self.world.journal.durable_lsn == self.durable  # all of it without the disk
        return [said.method for said in self.publisher.answers()]


@pytest.fixture
def story() -> Story:
    return Story()


def test_what_its_consumer_has_acknowledged_is_confirmed_without_the_disk(story: Story) -> None:
    story.consume()
    story.publish()
    assert story.confirmed() == []
    story.settle(methods.BasicAck(delivery_tag=1))
    assert story.confirmed() == [methods.BasicAck(delivery_tag=1)]
    story.publish()
    story.publish()
    story.settle(methods.BasicAck(delivery_tag=3))
    assert story.confirmed() == []  # in the order of publishing
    story.settle(methods.BasicAck(delivery_tag=2))
    assert story.confirmed() == [methods.BasicAck(delivery_tag=3, multiple=True)]


def test_every_queue_that_it_went_to_counts(story: Story) -> None:
    story.consume("q")
    story.consume("other")
    story.publish("amq.fanout")
    story.settle(methods.BasicAck(delivery_tag=1))
    assert story.confirmed() == []
    story.settle(methods.BasicAck(delivery_tag=2))
    assert story.confirmed() == [methods.BasicAck(delivery_tag=1)]


@pytest.mark.parametrize("requeue", [True, False])
def test_what_was_refused_waits_for_the_disk(story: Story, requeue: bool) -> None:
    story.consume()
    story.publish()
    story.settle(methods.BasicNack(delivery_tag=1, requeue=requeue))
    assert story.confirmed() == []
    story.world.sync()
    story.publisher.expect(methods.BasicAck(delivery_tag=1))


def test_so_does_what_was_only_sent_to_somebody(story: Story) -> None:
    story.consume(no_ack=True)
    story.publish()
    assert story.confirmed() == []


def test_and_what_went_with_a_consumer_that_hung_up(story: Story) -> None:
    story.consume()
    story.publish()
    story.consumer.hang_up()
    assert story.confirmed() == []


def test_a_declaration_behind_it_waits_for_the_disk_all_the_same(story: Story) -> None:
    story.consume()
    story.publish()
    story.settle(methods.BasicAck(delivery_tag=1))
    assert story.confirmed() == [methods.BasicAck(delivery_tag=1)]
    story.publisher.send(methods.QueueDeclare(queue="new", durable=True))
    assert story.confirmed() == []
    story.world.sync()
    story.publisher.expect(methods.QueueDeclareOk(queue="new", message_count=0, consumer_count=0))


def test_what_was_confirmed_so_comes_at_most_again_after_a_kill(story: Story) -> None:
    story.consume()
    story.publish()
    story.settle(methods.BasicAck(delivery_tag=1))
    story.publish()
    assert story.confirmed() == [methods.BasicAck(delivery_tag=1)]
    story.world.sync()
    client: Client = Durable(story.disk.killed()).client()
    assert len(client.drain("q")) == 1


def test_what_was_acknowledged_in_a_transaction_waits_for_that(story: Story) -> None:
    """Its consumer hears that it is done when the disk has it, and not before."""
    story.consumer.ask(methods.TxSelect())
    story.consume()
    story.publish()
    story.consumer.answers()
    story.consumer.send(methods.BasicAck(delivery_tag=1))
    story.consumer.send(methods.TxCommit())
    story.world.settle()
    assert story.confirmed() == [] and story.consumer.answers() == []
    story.world.sync()
    story.publisher.expect(methods.BasicAck(delivery_tag=1))
    story.consumer.expect(methods.TxCommitOk())


# ---- at random


class Lives(Story):
    """Two consumers, and dice. A confirm is believed if the disk has the message, or its consumers acknowledged it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = Random(seed)
        self.places: list[set[str]] = []  # of each publish, in which queues nobody has acknowledged it
        self.on_disk = self.answered = 0  # publishes
        self.held: list[tuple[int, str, int]] = []  # what the consumer was handed: tag, queue, publish
        self.without_the_disk = 0
        for queue in ("q", "other"):
            self.consumer.ask(methods.BasicConsume(queue=queue, consumer_tag=queue))

    def run(self, steps: int) -> None:
        kinds = [self.publish_some] * 3 + [self.take] * 9 + [self.to_disk]
        for _ in range(steps):
            self.random.choice(kinds)()
            self.world.settle()
            self.hear()

    def publish_some(self) -> None:
        for _ in range(self.random.choice([1, 1, 2])):
            exchange, queues = self.random.choice([("", {"q"}), ("amq.fanout", {"q", "other"})])
            body = b"%d" % len(self.places)
            self.publisher.raw(publication("q", body, exchange=exchange, delivery_mode=2))
            self.places.append(set(queues))

    def take(self) -> None:
        for said in self.consumer.answers():
            assert isinstance(said.method, methods.BasicDeliver)
            self.held.append((said.method.delivery_tag, said.method.consumer_tag, int(said.body)))
        if not self.held:
            return
        tag, queue, number = self.held.pop(self.random.randrange(len(self.held)))
        if self.random.random() < 0.8:
            self.consumer.send(methods.BasicAck(delivery_tag=tag))
            self.places[number].discard(queue)
        else:
            self.consumer.send(methods.BasicNack(delivery_tag=tag, requeue=True))

    def to_disk(self) -> None:
        self.world.sync()
        self.on_disk = len(self.places)

    def hear(self) -> None:
        for said in self.publisher.answers():
            assert isinstance(said.method, methods.BasicAck)
            for number in range(self.answered, said.method.delivery_tag):
                assert number < self.on_disk or not self.places[number], number
                self.without_the_disk += number >= self.on_disk
            self.answered = said.method.delivery_tag


def test_no_confirm_is_early() -> None:
    without = 0
    for seed in range(20):
        lives = Lives(seed)
        lives.run(120)
        without += lives.without_the_disk
        lives.to_disk()
        lives.hear()
        assert lives.answered == len(lives.places)
    assert without > 100
