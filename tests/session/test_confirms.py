"""Publisher confirms: numbers, what one acknowledgement covers, refusals among them, several channels in one read."""

from __future__ import annotations

import pytest

from rabbitish.session.confirms import Confirms
from rabbitish.wire import methods
from rabbitish.wire.frames import FrameParser
from rabbitish.wire.method import Method

from .client import Client, close_of, publication
from .harness import World


def ack(tag: int, *, multiple: bool = False) -> Method:
    return methods.BasicAck(delivery_tag=tag, multiple=multiple)


def nack(tag: int) -> Method:
    return methods.BasicNack(delivery_tag=tag, multiple=False, requeue=True)


@pytest.fixture
def q(client: Client) -> Client:
    """A client with a queue q and a channel in confirm mode."""
    client.declare("q")
    client.send(methods.ConfirmSelect())
    client.expect(methods.ConfirmSelectOk())
    return client


def test_numbers_count_from_1(q: Client) -> None:
    for number in range(1, 6):
        q.publish("q", b"x")
        q.expect(ack(number))


def test_what_was_published_before_does_not_count(client: Client) -> None:
    client.declare("q")
    select = methods.ConfirmSelect().frame(1)
    client.raw(publication("q") + publication("q") + select + publication("q"))
    client.expect(methods.ConfirmSelectOk(), ack(1))


def test_one_ack_for_what_came_together(q: Client) -> None:
    q.publish("q", *[b"x"] * 100)
    q.expect(ack(100, multiple=True))
    q.publish("q", b"x")
    q.expect(ack(101))
    q.publish("q", b"x", b"x")
    q.expect(ack(103, multiple=True))


def test_selecting_again_changes_nothing(q: Client) -> None:
    q.publish("q", b"x")
    q.expect(ack(1))
    q.send(methods.ConfirmSelect())
    q.expect(methods.ConfirmSelectOk())
    q.publish("q", b"x")
    q.expect(ack(2))


def test_selecting_without_an_answer(client: Client) -> None:
    client.send(methods.ConfirmSelect(nowait=True))
    client.publish("nowhere", b"x")
    client.expect(ack(1))


def test_whatever_becomes_of_it_a_publish_is_confirmed(q: Client) -> None:
    q.declare("none", arguments={"x-max-length": 0})
    q.declare("short", arguments={"x-message-ttl": 0})
    for key in ("nowhere", "none", "short", "q"):
        q.publish(key, b"x")
    assert [said.method for said in q.answers()] == [ack(tag) for tag in (1, 2, 3, 4)]


def test_refusals_are_told_one_by_one(q: Client) -> None:
    q.declare("two", arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    q.publish("two", *[b"x"] * 5)
    q.expect(ack(2, multiple=True), nack(3), nack(4), nack(5))


def test_refusals_among_others(q: Client) -> None:
    q.declare("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    q.raw(b"".join(publication(key) for key in ("q", "full", "q", "q", "full", "full", "q")))
    q.expect(ack(1), nack(2), ack(4, multiple=True), nack(5), nack(6), ack(7))


def test_each_channel_counts_for_itself(world: World) -> None:
    client = world.client(1, 2, 3)
    client.declare("q")
    client.raw(b"".join(methods.ConfirmSelect().frame(channel) for channel in (1, 2)))
    assert len(client.answers()) == 2
    client.raw(b"".join(publication("q", channel=channel) for channel in (1, 2, 3, 1, 1, 2, 3, 2, 2)))
    assert [(said.channel, said.method) for said in client.answers()] == [
        (1, ack(3, multiple=True)),
        (2, ack(4, multiple=True)),
    ]


def test_a_closing_channel_confirms_first(q: Client) -> None:
    q.raw(publication("q") + publication("q") + methods.ChannelClose().frame(1))
    q.expect(ack(2, multiple=True), methods.ChannelCloseOk())


def test_a_channel_that_fails_confirms_what_it_took(q: Client) -> None:
    q.raw(publication("q") + methods.BasicGet(queue="nosuch").frame(1))
    text = "NOT_FOUND - no queue 'nosuch' in vhost '/'"
    q.expect(ack(1), close_of(methods.ChannelClose, 404, text, methods.BasicGet))


def test_a_connection_that_fails_confirms_what_it_took(q: Client) -> None:
    q.raw(publication("q") + methods.ChannelOpen().frame(1))
    assert q.methods()[0] == ack(1)


def test_a_mode_of_the_channel_for_good(q: Client) -> None:
    q.send(methods.TxSelect())
    text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode"
    q.expect_channel_close(406, text, methods.TxSelect)


# --- the count by itself ---------------------------------------------------------------------------------------------


def flushed(confirms: Confirms) -> list[Method]:
    return [methods.decode_method(payload) for _, _, payload in FrameParser(0).feed(confirms.flush())]


def test_the_count_by_itself() -> None:
    confirms = Confirms(7)
    assert confirms.flush() == b""
    confirms.published = 3
    assert flushed(confirms) == [ack(3, multiple=True)]
    assert flushed(confirms) == []
    confirms.published += 1
    confirms.refuse()
    assert flushed(confirms) == [nack(4)]
    assert (confirms.answered, flushed(confirms)) == (4, [])
    confirms.published += 1
    assert confirms.flush() == ack(5).frame(7)
    confirms.published += 1
    confirms.refuse()
    assert confirms.flush() == nack(6).frame(7)
