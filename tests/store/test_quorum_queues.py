"""Whatever comes into a quorum queue is there after a kill, persistent or not, and is confirmed when it is on disk."""

from __future__ import annotations

import pytest

from rabbitish.values import Int64
from rabbitish.wire import methods
from tests.session.client import Said
from tests.session.harness import START

from .driver import Durable
from .fake_disk import FakeDisk
from .test_recovery import IN_MEMORY, WINDOW_BYTES, Story

TRANSIENT = 1
MODES = (None, TRANSIENT)


@pytest.fixture(
    params=[(1 << 20, WINDOW_BYTES), (300, WINDOW_BYTES), (1 << 20, IN_MEMORY)],
    ids=["one-segment", "many-segments", "in-memory"],
)
def story(request: pytest.FixtureRequest) -> Story:
    made = Story(*request.param)
    made.declare("q", queue_type="quorum")
    return made


def told(said: Said) -> tuple[bytes, bool, object]:
    """Body, redelivered flag and count of what basic.get said."""
    assert isinstance(said.method, methods.BasicGetOk)
    return said.body, said.method.redelivered, (said.props.headers or {}).get("x-delivery-count")


@pytest.mark.parametrize("mode", MODES)
def test_messages_that_are_not_persistent(story: Story, mode: int | None) -> None:
    story.publish("q", b"1", delivery_mode=mode)  # one by one, then alike
    story.publish("q", *[b"%d" % number for number in range(2, 9)], delivery_mode=mode)
    said = story.client.get("q")
    assert said is not None and said.body == b"1"
    story.restart()
    assert story.client.drain("q") == [b"%d" % number for number in range(2, 9)]
    story.restart()
    assert story.client.drain("q") == []


def test_the_delivery_mode_is_shown_as_it_was_published(story: Story) -> None:
    for mode in (None, 1, 2):
        story.publish("q", b"m", delivery_mode=mode)
    story.restart()
    seen = [said.props.delivery_mode for said in iter(lambda: story.client.get("q"), None)]
    assert seen == [None, 1, 2]


def test_a_durable_classic_queue_beside_it_keeps_them_too(story: Story) -> None:
    story.declare("classic")
    story.client.declare("transient")
    for queue in ("q", "classic", "transient"):
        story.bind(queue, "amq.fanout")
    story.publish("", *[b"%d" % number for number in range(5)], exchange="amq.fanout", delivery_mode=TRANSIENT)
    for queue in ("q", "classic", "transient"):
        assert told(story.get(queue))[0] == b"0"
    story.settle(methods.BasicAck(delivery_tag=0, multiple=True))
    story.publish("classic", b"alone", delivery_mode=TRANSIENT)
    assert story.client.drain("transient") == [b"1", b"2", b"3", b"4"]
    story.restart()
    assert story.client.drain("q") == story.client.drain("classic") == [b"1", b"2", b"3", b"4"]


def test_the_last_quorum_queue_goes(story: Story) -> None:
    story.declare("classic")
    story.bind("q", "amq.fanout")
    story.bind("classic", "amq.fanout")
    story.publish("", b"1", exchange="amq.fanout", delivery_mode=TRANSIENT)
    story.client.ask(methods.QueueDelete(queue="q"))
    story.publish("", b"2", exchange="amq.fanout", delivery_mode=TRANSIENT)
    story.restart()
    assert story.client.drain("classic") == [b"1"]


def test_returns_are_counted_and_survive(story: Story) -> None:
    story.publish("q", b"1", b"2", delivery_mode=TRANSIENT)
    assert told(story.get("q")) == (b"1", False, Int64(0))
    story.settle(methods.BasicNack(delivery_tag=1, requeue=True))
    story.restart()
    assert told(story.get("q")) == (b"1", True, Int64(1))
    assert told(story.get("q")) == (b"2", False, Int64(0))
    story.crash()
    assert told(story.get("q")) == (b"1", True, Int64(2))
    assert told(story.get("q")) == (b"2", True, Int64(1))


def test_a_transaction(story: Story) -> None:
    story.client.ask(methods.TxSelect())
    story.publish("q", b"1", delivery_mode=TRANSIENT)
    story.client.ask(methods.TxCommit())
    story.publish("q", b"2", delivery_mode=TRANSIENT)
    story.restart()
    assert story.client.drain("q") == [b"1"]


def test_its_dead_letters_are_kept_in_a_durable_queue(story: Story) -> None:
    story.declare("dying", queue_type="quorum", dead_letter_exchange="", dead_letter_routing_key="dead")
    story.declare("classic", dead_letter_exchange="", dead_letter_routing_key="dead")
    story.declare("dead")
    for queue in ("dying", "classic"):
        story.publish(queue, queue.encode(), delivery_mode=TRANSIENT)
        story.settle(methods.BasicReject(delivery_tag=story.tag(queue), requeue=False))
    story.restart()
    assert story.client.drain("dead") == [b"dying"]


def test_the_type_is_kept_over_restarts(story: Story) -> None:
    world = story.restart()
    assert world.vhost.queues["q"].options.quorum
    story.publish("q", b"1", delivery_mode=TRANSIENT)
    story.restart()
    assert story.client.drain("q") == [b"1"]


@pytest.mark.parametrize("bodies", [(b"1",), (b"1", b"2", b"3")])
@pytest.mark.parametrize("mode", MODES)
def test_confirms_wait_for_the_disk(mode: int | None, bodies: tuple[bytes, ...]) -> None:
    world = Durable(FakeDisk(), now=START, lazy=True)
    client = world.client(1)
    client.send(methods.QueueDeclare(queue="q", durable=True, arguments={"x-queue-type": "quorum"}))
    world.sync()
    client.answers()
    client.ask(methods.ConfirmSelect())
    for batch in (bodies[:1], bodies):  # the second goes the fast lane, if any does
        client.publish("q", *batch, delivery_mode=mode)
        assert client.answers() == []
        world.sync()
        (said,) = client.answers()
        assert isinstance(said.method, methods.BasicAck)


def test_dead_letters_that_wait_for_a_queue(story: Story) -> None:
    arguments = {"dead_letter_strategy": "at-least-once", "overflow": "reject-publish", "dead_letter_exchange": "dlx"}
    story.declare("patient", queue_type="quorum", **arguments)
    story.publish("patient", b"rejected", delivery_mode=TRANSIENT)
    story.settle(methods.BasicReject(delivery_tag=story.tag("patient"), requeue=False))
    story.publish("patient", b"expired", delivery_mode=TRANSIENT, expiration="10")
    story.world.now += 20
    story.world.settle()
    assert story.world.vhost.queues["patient"].waiting == 2
    story.crash()
    assert story.world.vhost.queues["patient"].waiting == 1
    assert told(story.get("patient")) == (b"rejected", True, Int64(1))
    story.declare("dead")
    story.exchange("dlx", "fanout")
    story.bind("dead", "dlx")
    story.settle(methods.BasicReject(delivery_tag=1, requeue=False))
    story.crash()
    assert sorted(story.client.drain("dead")) == [b"expired", b"rejected"]
    assert story.client.drain("patient") == []
