"""Direct reply-to: questions that name their asker, answers that need no queue, and askers that are gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.wire import methods

from .client import Client
from .harness import World

REPLY_TO = "amq.rabbitmq.reply-to"
ASK = methods.BasicConsume(queue=REPLY_TO, consumer_tag="answers", no_ack=True)


@pytest.fixture
def asker(world: World) -> Client:
    """A client that has declared q and waits for answers."""
    client = world.client(1, 2)
    client.declare("q", channel=2)
    client.send(ASK)
    client.expect(methods.BasicConsumeOk(consumer_tag="answers"))
    return client


def asked(asker: Client, other: Client) -> str:
    """The name under which an answer reaches the asker."""
    asker.publish("q", b"question", reply_to=REPLY_TO)
    said = other.get("q")
    assert said is not None and said.props.reply_to is not None
    return said.props.reply_to


def test_a_question_and_its_answers(asker: Client, other: Client) -> None:
    name = asked(asker, other)
    assert name.startswith(f"{REPLY_TO}.") and name != asked(asker, other) + "x"
    for body in (b"one", b"", bytes(200_000)):
        other.publish(name, body, correlation_id="7", mandatory=False)
        (said,) = asker.answers()
        assert said.method == methods.BasicDeliver(
            consumer_tag="answers", delivery_tag=1, redelivered=False, exchange="", routing_key=name
        )
        assert (said.body, said.props.correlation_id) == (body, "7")


def test_the_other_properties_stay(asker: Client, other: Client) -> None:
    asker.publish("q", b"x", reply_to=REPLY_TO, headers={"a": 1, "BCC": ["q"]}, delivery_mode=2, message_id="m")
    said = other.get("q")
    assert said is not None
    properties = said.props
    assert (properties.headers, properties.delivery_mode, properties.message_id) == ({"a": 1}, 2, "m")


def test_many_answers_in_one_read(asker: Client, other: Client) -> None:
    name = asked(asker, other)
    for _ in range(3):
        other.publish(name, b"1", b"2", b"3")
        assert asker.bodies() == [b"1", b"2", b"3"]


def test_tags_are_those_of_the_channel(asker: Client, other: Client) -> None:
    """An answer uses up no delivery tag, since nobody can acknowledge it."""
    name = asked(asker, other)
    asker.declare("p")
    asker.consume("p", "p")
    got = []
    for key, body in (("p", b"x"), (name, b"answer"), (name, b"answer"), ("p", b"y")):
        other.publish(key, body)
        got += asker.deliveries()
    assert got == [("p", 1, b"x"), ("answers", 2, b"answer"), ("answers", 2, b"answer"), ("p", 2, b"y")]


def test_an_answer_may_be_asked_for_and_passed_on(asker: Client, other: Client) -> None:
    """A name is good for whoever knows it, on any connection and through any exchange that leads to it by default."""
    name = asked(asker, other)
    other.send(methods.ConfirmSelect())
    other.expect(methods.ConfirmSelectOk())
    other.publish(name, b"x")
    other.expect(methods.BasicAck(delivery_tag=1))
    assert asker.bodies() == [b"x"]


@pytest.mark.parametrize("passive", [False, True])
def test_whether_the_asker_is_still_there(asker: Client, other: Client, passive: bool) -> None:
    name = asked(asker, other)
    there = methods.QueueDeclareOk(queue=name, message_count=0, consumer_count=1)
    assert other.ask(methods.QueueDeclare(queue=name, passive=passive)) == there
    other.send(methods.QueueDeclare(queue=name, passive=passive, nowait=True))
    assert other.answers() == []
    assert other.ask(methods.QueueDeclare(queue=REPLY_TO)) == methods.QueueDeclareOk(queue=REPLY_TO, consumer_count=1)
    asker.hang_up()
    other.send(methods.QueueDeclare(queue=name, passive=passive))
    other.expect_channel_close(404, f"NOT_FOUND - no queue '{name}' in vhost '/'", methods.QueueDeclare)


def cancels(asker: Client) -> None:
    assert asker.ask(methods.BasicCancel(consumer_tag="answers")) == methods.BasicCancelOk(consumer_tag="answers")


def closes_its_channel(asker: Client) -> None:
    assert asker.ask(methods.ChannelClose()) == methods.ChannelCloseOk()


def fails(asker: Client) -> None:
    asker.send(methods.BasicGet(queue="nosuch"))
    assert len(asker.answers()) == 1


def hangs_up(asker: Client) -> None:
    asker.hang_up()


@pytest.mark.parametrize("goes", [cancels, closes_its_channel, fails, hangs_up], ids=lambda goes: goes.__name__)
def test_the_asker_is_gone(asker: Client, other: Client, goes: Callable[[Client], None]) -> None:
    name = asked(asker, other)
    other.publish(name, b"in time")
    assert asker.bodies() == [b"in time"]
    goes(asker)
    other.publish(name, b"too late")
    assert (other.answers(), asker.answers()) == ([], [])
    other.publish(name, b"too late", mandatory=True)
    other.expect(methods.BasicReturn(reply_code=312, reply_text="NO_ROUTE", routing_key=name))
    assert other.world.vhost.replies == {}


def test_an_asker_that_does_not_read(make_world: Callable[..., World]) -> None:
    """Nobody keeps answers for it."""
    world = make_world(outbox_bytes_high=64 * 1024, outbox_bytes_low=1024)
    asker, other = world.client(), world.client()
    asker.declare("q")
    asker.send(ASK)
    assert len(asker.answers()) == 1
    name = asked(asker, other)
    asker.reading = False
    for _ in range(1000):
        other.publish(name, bytes(1024))
    assert asker.session.outbox.size < 67_000
    asker.read_on()
    assert 50 < len(asker.bodies()) < 64
    other.publish(name, b"now")
    assert asker.bodies() == [b"now"]


# --- misuse ----------------------------------------------------------------------------------------------------------


def test_it_cannot_acknowledge(client: Client) -> None:
    client.send(methods.BasicConsume(queue=REPLY_TO))
    client.expect_channel_close(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", methods.BasicConsume)


def test_one_a_channel(asker: Client) -> None:
    asker.send(methods.BasicConsume(queue=REPLY_TO, no_ack=True))
    asker.expect_channel_close(406, "PRECONDITION_FAILED - reply consumer already set", methods.BasicConsume)


def test_its_tag_is_taken(asker: Client) -> None:
    asker.send(ASK)
    text = "NOT_ALLOWED - attempt to reuse consumer tag 'answers'"
    asker.expect_connection_close(530, text, methods.BasicConsume)


def test_a_tag_from_the_broker_and_no_answer(client: Client, other: Client) -> None:
    client.declare("q")
    client.send(methods.BasicConsume(queue=REPLY_TO, no_ack=True, nowait=True))
    name = asked(client, other)
    other.publish(name, b"x")
    ((tag, _, _),) = client.deliveries()
    assert tag.startswith("amq.ctag-")


def test_again_after_cancelling(asker: Client, other: Client) -> None:
    cancels(asker)
    asker.send(ASK)
    asker.expect(methods.BasicConsumeOk(consumer_tag="answers"))
    other.publish(asked(asker, other), b"x")
    assert asker.bodies() == [b"x"]


def test_a_question_without_waiting_for_an_answer(client: Client) -> None:
    client.declare("q")
    client.publish("q", b"x", reply_to=REPLY_TO)
    text = "PRECONDITION_FAILED - fast reply consumer does not exist"
    client.expect_channel_close(406, text, methods.BasicPublish)


def test_another_reply_to_is_left_alone(client: Client) -> None:
    client.declare("q")
    client.publish("q", b"x", reply_to="my queue")
    said = client.get("q")
    assert said is not None and said.props.reply_to == "my queue"
