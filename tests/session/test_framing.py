"""Content to a peer with another channel number, or with smaller frames than it came in."""

from __future__ import annotations

import pytest

from rabbitish.core.message import Address, Traits
from rabbitish.session.content import WireMessage, WireStamp, framed_content
from rabbitish.wire import methods
from rabbitish.wire.frames import FrameParser
from rabbitish.wire.properties import Properties

from .client import Client, publication
from .harness import World


def consumer(world: World, queue: str, *, channel: int = 1, frame_max: int = 131_072) -> Client:
    client = world.client(channel, frame_max=frame_max)
    client.consume(queue, channel=channel, no_ack=True)
    return client


@pytest.mark.parametrize("channel", [1, 2, 300, 65_535])
@pytest.mark.parametrize("frame_max", [4096, 8192, 131_072])
@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 8184, 100_000, 131_064, 131_065, 300_000])
@pytest.mark.parametrize("cut", [4096, 131_072])
def test_every_way(world: World, channel: int, frame_max: int, size: int, cut: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    publisher = world.client()
    publisher.declare("q")
    client = consumer(world, "q", channel=channel, frame_max=frame_max)
    for _ in range(2):
        publisher.publish("q", body, frame_max=cut, headers={"a": "b"}, message_id="m")
        (said,) = client.answers()
        assert said.channel == channel and said.body == body
        assert (said.props.headers, said.props.message_id) == ({"a": "b"}, "m")
        assert all(piece <= frame_max - 8 for piece in said.sizes)
        assert len(said.sizes) <= -(-size // 4088)


def test_several_consumers_of_one_message(world: World) -> None:
    """What one of them needs must not show in what the next one gets."""
    publisher = world.client()
    ways = [(1, 131_072), (2, 4096), (7, 8192), (1, 4096), (2, 131_072)]
    clients = []
    for number, (channel, frame_max) in enumerate(ways):
        publisher.declare(f"q{number}")
        publisher.send(methods.QueueBind(queue=f"q{number}", exchange="amq.fanout"))
        publisher.expect(methods.QueueBindOk())
        clients.append(consumer(world, f"q{number}", channel=channel, frame_max=frame_max))
    body = bytes(range(256)) * 40
    publisher.publish("", body, b"short", exchange="amq.fanout")
    for client, (channel, frame_max) in zip(clients, ways, strict=True):
        said = client.answers()
        assert [(one.channel, one.body) for one in said] == [(channel, body), (channel, b"short")]
        assert max(said[0].sizes) <= frame_max - 8


def test_get_and_return_are_cut_as_well(world: World) -> None:
    publisher, small = world.client(), world.client(9, frame_max=4096)
    publisher.declare("q")
    publisher.publish("q", bytes(10_000))
    said = small.get("q", channel=9)
    assert said is not None and said.sizes == (4088, 4088, 1824)
    small.publish("nowhere", bytes(10_000), channel=9, frame_max=4096, mandatory=True)
    (said,) = small.answers()
    assert said.sizes == (4088, 4088, 1824)


def test_small_pieces_come_out_in_larger_ones(world: World) -> None:
    client = world.client()
    client.declare("q")
    client.publish("q", bytes(100_000), frame_max=4096)
    said = client.get("q")
    assert said is not None and said.sizes == (100_000,)


def test_a_header_larger_than_the_frame_is_sent_all_the_same(world: World) -> None:
    """It cannot be cut; RabbitMQ does the same."""
    publisher = world.client()
    publisher.declare("q")
    small = consumer(world, "q", channel=3, frame_max=4096)
    headers = {"large": "x" * 6000}
    publisher.publish("q", bytes(5000), headers=headers)
    (said,) = small.answers()
    assert said.props.headers == headers and said.sizes == (4088, 912)


def test_dead_letters_are_cut_as_well(world: World) -> None:
    publisher = world.client()
    publisher.declare("dead")
    publisher.declare(
        "q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead", "x-max-length": 0}
    )
    small = consumer(world, "dead", channel=3, frame_max=4096)
    publisher.publish("q", bytes(9000), headers={"a": 1})
    (said,) = small.answers()
    assert said.sizes == (4088, 4088, 824)
    assert said.props.headers is not None and said.props.headers["a"] == 1


# --- a message by itself ---------------------------------------------------------------------------------------------


def test_a_message_by_itself() -> None:
    raw = Properties(headers={"a": 1}, expiration="5", priority=2).encode()
    stamp = WireStamp(Address("x", "k"), Traits(priority=2, expiration_ms=5), 6, 1, b"")
    message = WireMessage(stamp, framed_content(1, raw, 6, [b"abc", b"def"], 4096))
    assert (message.raw_properties, message.body()) == (raw, b"abcdef")
    assert (message.headers(), message.expiration()) == ({"a": 1}, "5")
    assert message.framed(1, 4096) is message.content
    frames = list(FrameParser(0).feed(message.framed(5, 12)))
    assert [(kind, channel, payload[-4:]) for kind, channel, payload in frames[1:]] == [(3, 5, b"abcd"), (3, 5, b"ef")]
    twin = message.twin()
    assert twin is not message and twin.content is message.content
    derived = message.derived(Address("y", "z"), {"b": 2}, keep_expiration=False)
    assert (derived.headers(), derived.expiration(), derived.body()) == ({"b": 2}, None, b"abcdef")
    assert (derived.traits.expiration_ms, derived.traits.priority, derived.address.routing_key) == (None, 2, "z")
    assert message.derived(Address("y", "z"), {}, keep_expiration=True).expiration() == "5"
    assert (message.headers(), message.expiration()) == ({"a": 1}, "5")


def test_content_is_framed_with_few_frames() -> None:
    def sizes(*pieces: bytes, frame_max: int = 18) -> list[int]:
        data = framed_content(1, b"\0\0", sum(map(len, pieces)), list(pieces), frame_max)
        return [len(payload) for _, _, payload in FrameParser(0).feed(data)][1:]

    assert sizes() == []
    assert sizes(b"x" * 10) == [10]
    assert sizes(b"x" * 10, b"y" * 10, b"z") == [10, 10, 1]
    assert sizes(b"x" * 25) == [10, 10, 5]
    assert sizes(b"x" * 4, b"y" * 4, b"z" * 4) == [10, 2]
    assert publication("q", b"abc").endswith(framed_content(1, b"\0\0", 3, [b"abc"], 4096))
