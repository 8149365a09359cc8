"""The fast lane takes what the generic path would take from the same bytes: random traffic through both, compared."""

from __future__ import annotations

import os
from random import Random

import pytest

from rabbitish.session import fastlane
from rabbitish.wire import methods
from rabbitish.wire.frames import content_frames

from .client import Client, close_of, publication
from .harness import World
from .pair import Pair, declaration
from .traffic import FORMS, converse, oddities, unlike

SEEDS = range(6 * max(int(os.environ.get("RABBITISH_EXPLORE", "0")), 1))
SEEDS_A_TEST = 6


@pytest.mark.parametrize("seed", SEEDS)
def test_random_traffic(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    taken = 0
    for number in range(seed * SEEDS_A_TEST, (seed + 1) * SEEDS_A_TEST):
        taken += converse(monkeypatch, number, fastlane.take_fast).frames_taken
    assert taken > 50, "or this would prove nothing"


# --- what random traffic hardly ever hits ----------------------------------------------------------------------------


@pytest.mark.parametrize("odd", range(len(oddities(1))))
@pytest.mark.parametrize("frame_max", [4096, 131_072])
def test_just_beside(monkeypatch: pytest.MonkeyPatch, odd: int, frame_max: int) -> None:
    """What looks nearly like something that the fast lane has just learnt."""
    pair = Pair(monkeypatch, fastlane.take_fast)
    pair.client(frame_max, (2,))
    for channel in (1, 2):
        pair.say(0, publication("q0", b"abc", channel=channel) * 3)
        pair.say(0, publication("q0", b"x" * 4096, channel=channel) * 3)
    pair.both(World.settle)
    pair.compare()
    for channel in (1, 2):
        pair.say(0, oddities(channel)[odd] + publication("q0", b"abc", channel=channel))
        pair.both(World.settle)
        pair.compare(bodies=True)


@pytest.mark.parametrize("form", range(FORMS))
def test_a_shape_with_any_other_byte(monkeypatch: pytest.MonkeyPatch, form: int) -> None:
    """Every byte that is before the body of a message whose shape is known is changed in turn."""
    pair, random = Pair(monkeypatch, fastlane.take_fast), Random(form)
    pair.client(131_072, (1,))
    pair.say(0, declaration("q0").frame(1))
    method = methods.BasicPublish(routing_key="q0")

    def said(channel: int = 1) -> bytes:
        return method.frame(channel) + content_frames(channel, 60, unlike(random, form), b"abc", 4096)

    size = len(said())
    for at in range(len(method.frame(1)), size):
        if pair.clients[0][0].session.state != "running":
            pair.both(lambda world: world.advance(40_000))
            pair.clients.clear()
            pair.client(131_072, (1,))
        closing = bool(pair.clients[0][0].session.channels[1].closing)
        if closing:
            pair.say(0, methods.ChannelCloseOk().frame(1) + methods.ChannelOpen().frame(1))
        pair.say(0, b"".join([said() for _ in range(4)]))
        other = said()
        at = min(at, len(other) - 1)
        other = other[:at] + bytes((random.choice([other[at] ^ 1, other[at] ^ 0x80, 0x7F, 0]),)) + other[at + 1 :]
        pair.say(0, said() + other + said() + said())
        pair.compare()
        pair.both(World.settle)
        pair.compare(bodies=True)
        pair.say(0, methods.QueuePurge(queue="q0").frame(1))


@pytest.mark.parametrize("seed", range(4))
def test_kinds_in_any_order(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    pair, random = Pair(monkeypatch, fastlane.take_fast), Random(seed)
    pair.both(World.keep_journal)
    pair.client(131_072, (1,))
    for name in ("q0", "q3"):
        pair.say(0, declaration(name).frame(1))

    def said() -> bytes:
        name, own = random.choice(["q0", "q3"]), f"{random.randrange(10**6):06d}"
        named = random.choice([{}, {"message_id": own}, {"message_id": own}, {"priority": 1}, {"expiration": own}])
        mode, size = random.choice([None, 2]), random.choice([0, 1, 1, 20])
        return publication(name, b"x" * size, delivery_mode=mode, **named) * random.choice([1, 1, 1, 2])

    for _ in range(12):
        pair.say(0, b"".join([said() for _ in range(30)]))
        pair.compare()
        pair.both(World.settle)
        pair.compare(bodies=True)


@pytest.mark.parametrize("ids", [False, True])
def test_what_is_learnt_of_one_peer_holds_for_another_only_within_its_limits(world: World, *, ids: bool) -> None:
    large, small = world.client(), world.client(frame_max=4096)
    large.declare("q")
    named = iter([{"message_id": str(number)} if ids else {} for number in range(9)])
    for _ in range(3):
        large.publish("q", bytes(10_000), **next(named))
        small.publish("q", bytes(4_000), **next(named))
    assert world.queue("q").ready == 6
    small.raw(publication("q", bytes(10_000), **next(named)))
    text = "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,10000,4088}"
    small.expect(close_of(methods.ConnectionClose, 501, text, None), channel=0)
    assert world.queue("q").ready == 6


def test_a_user_learns_from_its_other_connections_and_nobody_elses(world: World) -> None:
    one, two, joe = world.client(), world.client(), world.client(user="joe", password="secret")
    one.declare("q")
    for _ in range(3):
        one.publish("q", b"x")
    assert one.session.templates is two.session.templates and len(one.session.templates) == 1
    assert joe.session.templates == {}
    for client in (two, joe, two):
        client.publish("q", b"y")
    assert one.drain("q") == [b"x"] * 3 + [b"y"] * 3


def test_properties_that_never_repeat_are_not_kept(client: Client) -> None:
    client.declare("q")
    for number in range(50):
        client.publish("q", b"x", message_id=str(number))
    assert client.session.templates == {}
    assert len(client.drain("q")) == 50


@pytest.mark.parametrize("size", [0, 1, 4088, 131_064])
def test_a_flood_cut_anywhere(client: Client, size: int) -> None:
    client.declare("q")
    body = bytes(range(256)) * (size // 256) + b"\xce" * (size % 256)
    data = publication("q", body) * 3
    for cut in (1, 7, 20, 40, 60, len(data) // 3 - 1, len(data) // 3, len(data) // 3 + 1, len(data) - 1):
        client.raw(data[:cut])
        client.raw(data[cut:])
        assert client.drain("q") == [body] * 3


def test_what_was_learnt_is_forgotten_when_bindings_change(client: Client, other: Client) -> None:
    for name in ("p", "q"):
        other.declare(name)
    for name in ("p", "q", "p", "q"):
        other.send(methods.QueueBind(queue=name, exchange="amq.fanout"))
        other.expect(methods.QueueBindOk())
        client.publish("", b"x", b"x", exchange="amq.fanout")
        client.publish("", b"x", exchange="amq.fanout")
        other.send(methods.QueueUnbind(queue=name, exchange="amq.fanout"))
        other.expect(methods.QueueUnbindOk())
        client.publish("", b"y", exchange="amq.fanout")
    assert (other.drain("p"), other.drain("q")) == ([b"x"] * 6, [b"x"] * 6)
