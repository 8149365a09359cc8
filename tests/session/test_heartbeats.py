"""Heartbeats: sent on a line that is idle, missed by a peer that is gone."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from rabbitish.wire.frames import HEARTBEAT

from .client import Client, Said, publication
from .harness import World

BEAT = Said(0, None)


def beating(world: World, ms: int, *clients: Client) -> None:
    """Let time pass while these clients send heartbeats often enough."""
    for _ in range(ms // 500):
        world.advance(500)
        for client in clients:
            client.raw(HEARTBEAT)


def test_none_when_not_wanted(world: World) -> None:
    client = world.client(heartbeat=0)
    world.advance(10 * 24 * 3600 * 1000)
    assert client.answers() == [] and not client.hung_up


def test_sent_twice_an_interval_on_an_idle_line(world: World) -> None:
    client = world.client(heartbeat=10)
    world.advance(4_999)
    assert client.answers() == []
    world.advance(1)
    assert client.answers() == [BEAT]
    world.advance(15_000)
    assert client.answers() == [BEAT] * 3


def test_not_sent_on_a_busy_line(world: World) -> None:
    client = world.client(heartbeat=10)
    for _ in range(40):
        world.advance(1_000)
        client.send(methods.ChannelFlow(active=True))
        client.expect(methods.ChannelFlowOk(active=True))


def test_an_answer_puts_the_next_one_off(world: World) -> None:
    client = world.client(heartbeat=10)
    world.advance(3_000)
    client.send(methods.ChannelFlow(active=True))
    assert len(client.answers()) == 1
    world.advance(2_000)
    assert client.answers() == []
    world.advance(5_000)
    assert client.answers() == [BEAT]


def test_not_sent_where_bytes_still_wait(world: World) -> None:
    """They would only wait behind those."""
    client = world.client(heartbeat=10)
    client.reading = False
    client.send(methods.ChannelFlow(active=True))
    beating(world, 60_000, client)
    client.read_on()
    client.expect(methods.ChannelFlowOk(active=True))


@pytest.mark.parametrize("heartbeat", [1, 10, 60, 65_535])
def test_a_peer_that_missed_two_is_given_up(world: World, heartbeat: int) -> None:
    client = world.client(heartbeat=heartbeat)
    client.declare("mine", exclusive=True)
    world.advance(2 * heartbeat * 1000)
    assert not client.hung_up
    world.advance(heartbeat * 500)
    assert client.hung_up and world.vhost.queues == {}
    assert world.logged("missed heartbeats from client")[0]["interval_ms"] == heartbeat * 1000
    assert {said.method for said in client.answers()} == {None}, "no close is said to somebody who is gone"


def test_heartbeats_keep_a_peer(world: World) -> None:
    client = world.client(heartbeat=1)
    beating(world, 60_000, client)
    assert not client.hung_up


@pytest.mark.parametrize("sent", [methods.BasicAck().frame(1)[:3], publication("nowhere")], ids=["piece", "publish"])
def test_any_bytes_keep_a_peer(world: World, sent: bytes) -> None:
    client = world.client(heartbeat=2)
    world.advance(3_900)
    client.raw(sent)
    world.advance(3_900)
    assert not client.hung_up
    world.advance(2_000)
    assert client.hung_up


def test_what_the_broker_sends_does_not_keep_a_peer(world: World) -> None:
    client, other = world.client(heartbeat=2), world.client()
    client.declare("q")
    client.consume("q", no_ack=True)
    for _ in range(6):
        other.publish("q", b"x")
        world.advance(1_000)
    assert client.hung_up


def test_while_the_broker_does_not_read_nobody_is_given_up(world: World) -> None:
    """An alarm holds the peer's heartbeats back as well; the broker's own go on."""
    client = world.client(heartbeat=1)
    client.answers()
    world.hub.set_alarm("memory")
    client.publish("nowhere")
    client.expect(methods.ConnectionBlocked(reason="low on memory"), channel=0)
    beating(world, 60_000, client)
    assert not client.hung_up
    assert client.answers().count(BEAT) >= 60


def test_an_alarm_that_is_over_leaves_the_peer_its_two_intervals(world: World) -> None:
    client = world.client(heartbeat=1)
    world.hub.set_alarm("memory")
    client.publish("nowhere")
    world.advance(60_000)
    world.hub.clear_alarm("memory")
    world.advance(1_900)
    assert not client.hung_up
    world.advance(1_000)
    assert client.hung_up


def test_after_a_close_there_are_none(world: World) -> None:
    client = world.client(heartbeat=1)
    client.send(methods.ConnectionClose(), channel=0)
    client.expect(methods.ConnectionCloseOk(), channel=0)
    world.advance(29_000)
    assert client.answers() == [] and not client.hung_up
    world.advance(1_000)
    assert client.hung_up


def test_a_year_of_them(world: World) -> None:
    """Time that passes costs nothing but the heartbeats that it asks for."""
    client = world.client(heartbeat=65_535)
    for _ in range(300):
        world.advance(105_000_000)
        client.raw(HEARTBEAT)
    assert not client.hung_up
    assert client.answers().count(BEAT) == 300 * 105_000_000 // 32_767_500


def test_called_before_its_time(world: World) -> None:
    """A deadline may come early; whoever is called looks at the clock, and asks again."""
    fresh, idle, closing, quiet = world.connect(), world.client(heartbeat=10), world.client(), world.client()
    closing.send(methods.ConnectionClose(), channel=0)
    assert len(closing.answers()) == 1
    for client in (fresh, idle, closing, quiet):
        client.session.patience.due(world.now + 1)
        assert client.answers() == [] and not client.session.ended
    world.advance(10_000)
    assert fresh.hung_up and idle.answers() == [BEAT, BEAT] and not closing.hung_up
    world.advance(20_000)
    assert closing.hung_up and idle.hung_up and not quiet.hung_up
    for client in (fresh, idle, closing):
        client.session.patience.due(world.now)
        assert client.session.ended
