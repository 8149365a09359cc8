"""What happens when we are at fault: 541 for that connection, a traceback in the log, and nothing for anybody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitish.session import channel, connection, handshake
from rabbitish.session.channel import Channel
from rabbitish.wire import methods
from rabbitish.wire.frames import PROTOCOL_HEADER

from .client import Client, close_of, publication, start_ok
from .harness import World

FAILED = close_of(methods.ConnectionClose, 541, "INTERNAL_ERROR", None)


@pytest.fixture
def world() -> Iterator[World]:
    """A world in which we may go wrong."""
    world = World()
    yield world
    world.broker.check()


def fail(*_: object) -> None:
    raise ZeroDivisionError("a bug of ours")


@pytest.fixture
def flawed(monkeypatch: pytest.MonkeyPatch) -> None:
    """basic.qos has a bug."""
    monkeypatch.setitem(channel.HANDLERS, methods.BasicQos, fail)


@pytest.mark.usefixtures("flawed")
def test_a_bug_in_a_handler(world: World, client: Client, other: Client) -> None:
    client.declare("mine", exclusive=True)
    client.declare("q")
    other.publish("q", b"a", b"b")
    client.consume("q")
    assert client.bodies() == [b"a", b"b"]
    client.send(methods.BasicQos(), methods.QueueDeclare(queue="never"))
    client.expect(FAILED, channel=0)
    (record,) = world.exceptions
    assert record.event == "internal error"
    assert isinstance(record.fields["error"], ZeroDivisionError)
    assert (record.fields["connection"], record.fields["user"]) == ("client 0", "guest")
    client.send(methods.ConnectionCloseOk(), channel=0)
    assert client.answers() == [] and client.hung_up
    assert list(world.vhost.queues) == ["q"]
    assert other.drain("q") == [b"a", b"b"]


@pytest.mark.usefixtures("flawed")
def test_what_came_before_it_is_answered(world: World, client: Client) -> None:
    client.declare("q")
    client.send(methods.ConfirmSelect())
    client.raw(publication("q", b"x") + methods.BasicQos().frame(1))
    assert client.methods() == [methods.ConfirmSelectOk(), methods.BasicAck(delivery_tag=1), FAILED]
    assert world.queue("q").ready == 1


@pytest.mark.usefixtures("flawed")
def test_whoever_does_not_agree_is_cut_off(world: World, client: Client) -> None:
    client.send(methods.BasicQos())
    client.expect(FAILED, channel=0)
    client.send(methods.BasicQos())
    world.advance(30_000)
    assert client.answers() == [] and client.hung_up
    assert len(world.exceptions) == 1


def test_a_bug_in_a_publish(monkeypatch: pytest.MonkeyPatch, world: World, client: Client, other: Client) -> None:
    monkeypatch.setattr(connection, "find_route", fail)
    client.publish("q", b"x")
    client.expect(FAILED, channel=0)
    assert other.ask(methods.QueueDeclare(queue="q")) == methods.QueueDeclareOk(queue="q")


def test_a_bug_in_the_fast_lane(monkeypatch: pytest.MonkeyPatch, world: World, client: Client) -> None:
    monkeypatch.setattr(connection, "take_fast", fail)
    client.publish("q", b"x")
    client.expect(FAILED, channel=0)
    assert world.hub.partial_bytes == 0


@pytest.mark.parametrize("state", ["starting", "tuning", "opening"])
def test_a_bug_in_the_handshake(monkeypatch: pytest.MonkeyPatch, world: World, state: str) -> None:
    for reached, kind in list(handshake.HANDLERS):
        if reached == state:
            monkeypatch.setitem(handshake.HANDLERS, (reached, kind), fail)
    client = world.connect()
    limits = methods.ConnectionTuneOk(channel_max=1, frame_max=4096)
    client.raw(PROTOCOL_HEADER)
    client.send(start_ok("guest", "guest"), limits, methods.ConnectionOpen(), channel=0)
    assert client.methods()[-1] == FAILED
    assert len(world.exceptions) == 1
    client.send(methods.ConnectionCloseOk(), channel=0)
    world.settle()
    assert client.hung_up


def test_a_bug_while_letting_go(monkeypatch: pytest.MonkeyPatch, world: World, client: Client, other: Client) -> None:
    """Even then the connection ends, and the other channels give back what they held."""
    client.open(2)
    other.declare("q")
    other.publish("q", b"x")
    assert client.get("q", no_ack=False, channel=2) is not None
    shut = Channel.shut

    def flawed(self: Channel) -> None:
        if self.number == 1:
            fail()
        shut(self)

    monkeypatch.setattr(Channel, "shut", flawed)
    client.hang_up()
    assert world.hub.sessions == {other.session}
    assert other.drain("q") == [b"x"]
    assert len(world.exceptions) == 1
