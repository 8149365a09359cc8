"""Content: a method, a header and body frames on a channel, in the right order and of the right sizes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise

import pytest

from rabbitish.session.assembly import Assembler
from rabbitish.wire import methods
from rabbitish.wire.frames import CONTENT_HEAD, HEAD
from rabbitish.wire.method import Method
from rabbitish.wire.properties import Properties

from .client import Client, close_of, publication
from .harness import World

PUBLISH = methods.BasicPublish(routing_key="q")
NO_PROPERTIES = b"\0\0"
NO_BODY = "UNEXPECTED_FRAME - expected content body, got non content body frame instead"
NO_HEADER = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
NO_METHOD = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"


def header(
    size: int, channel: int = 1, *, class_id: int = 60, weight: int = 0, properties: bytes = NO_PROPERTIES
) -> bytes:
    payload = CONTENT_HEAD.pack(class_id, weight, size) + properties
    return HEAD.pack(2, channel, len(payload)) + payload + b"\xce"


def body(data: bytes, channel: int = 1) -> bytes:
    return HEAD.pack(3, channel, len(data)) + data + b"\xce"


@pytest.fixture
def q(client: Client) -> Client:
    """A client with a queue q."""
    client.declare("q")
    return client


# --- any cut and any size --------------------------------------------------------------------------------------------


def test_a_publish_may_be_cut_anywhere(q: Client) -> None:
    data = publication("q", b"body", content_type="text/plain", headers={"a": 1})
    for cut in range(1, len(data)):
        q.raw(data[:cut])
        q.world.settle()
        q.raw(data[cut:])
        said = q.get("q")
        assert said is not None and said.body == b"body" and said.props.headers == {"a": 1}


def test_a_publish_may_come_byte_by_byte(q: Client) -> None:
    q.send(methods.ConfirmSelect())
    q.expect(methods.ConfirmSelectOk())
    for byte in publication("q", b"one") * 2 + publication("q"):
        q.raw(bytes((byte,)))
    q.expect(*[methods.BasicAck(delivery_tag=tag) for tag in (1, 2, 3)])
    assert q.drain("q") == [b"one", b"one", b""]


@pytest.mark.parametrize("cuts", [cuts for count in range(4) for cuts in combinations(range(7), count)], ids=str)
def test_a_body_in_any_frames(q: Client, cuts: tuple[int, ...]) -> None:
    """Empty frames among them too."""
    data, edges = b"abcdef", (0, *cuts, 6)
    frames = [body(data[start:end]) for start, end in pairwise(edges)]
    q.raw(PUBLISH.frame(1) + header(6) + b"".join(frames))
    if cuts and cuts[-1] == 6:
        q.expect_connection_close(505, NO_METHOD)
    else:
        assert q.drain("q") == [data]


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 131_063, 131_064, 131_065, 262_128, 1_000_000])
def test_a_body_of_any_size(q: Client, size: int) -> None:
    data = (b"0123456789" * (size // 10 + 1))[:size]
    q.publish("q", data, frame_max=4096)
    q.publish("q", data)
    assert q.drain("q") == [data, data]
    assert q.world.hub.partial_bytes == 0


def test_properties_come_out_as_they_went_in(q: Client) -> None:
    """Not decoded and encoded again: here the table has a key twice, and a type that RabbitMQ writes as another."""
    table = b"\x01at\x07\x01aI\0\0\0\x01\x01bL\0\0\0\0\0\0\0\x01"
    raw = b"\x20\0" + len(table).to_bytes(4, "big") + table
    q.publish("q", b"x", properties=raw)
    said = q.get("q")
    assert said is not None and said.properties == raw


def test_channels_may_take_turns(world: World) -> None:
    client = world.client(1, 2)
    client.declare("q")
    mine, yours = methods.BasicPublish(routing_key="q"), methods.BasicPublish(routing_key="q")
    client.raw(
        mine.frame(1) + yours.frame(2) + header(4, 1) + header(2, 2) + body(b"AB", 1) + body(b"cd", 2) + body(b"CD")
    )
    assert client.drain("q") == [b"cd", b"ABCD"]


def test_channel_0_may_have_a_word_in_between(q: Client) -> None:
    q.raw(PUBLISH.frame(1) + methods.ConnectionUpdateSecret().frame(0) + header(1) + body(b"x"))
    q.expect(methods.ConnectionUpdateSecretOk(), channel=0)
    assert q.drain("q") == [b"x"]


# --- out of turn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "text", "culprit"),
    [
        (header(0), NO_METHOD, None),
        (body(b"x"), NO_METHOD, None),
        (PUBLISH.frame(1) + PUBLISH.frame(1), NO_HEADER, methods.BasicPublish),
        (PUBLISH.frame(1) + methods.BasicQos().frame(1), NO_HEADER, methods.BasicPublish),
        (PUBLISH.frame(1) + body(b""), NO_HEADER, methods.BasicPublish),
        (PUBLISH.frame(1) + header(3) + header(3), NO_BODY, methods.BasicPublish),
        (PUBLISH.frame(1) + header(3) + methods.ChannelClose().frame(1), NO_BODY, methods.BasicPublish),
        (PUBLISH.frame(1) + header(3) + body(b"ab") + PUBLISH.frame(1), NO_BODY, methods.BasicPublish),
        (PUBLISH.frame(1) + header(0) + body(b""), NO_METHOD, None),
        (PUBLISH.frame(1) + header(1, weight=1), NO_HEADER, methods.BasicPublish),
        (
            PUBLISH.frame(1) + header(0, class_id=50),
            "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
            methods.BasicPublish,
        ),
    ],
)
def test_frames_out_of_turn(q: Client, frames: bytes, text: str, culprit: type[Method] | None) -> None:
    q.raw(frames)
    q.expect_connection_close(505, text, culprit)
    assert q.world.hub.partial_bytes == 0


def test_frames_out_of_turn_on_a_channel_that_is_not_open(client: Client) -> None:
    client.raw(header(0, 2))
    client.expect_connection_close(505, NO_METHOD)


def test_more_body_than_announced(q: Client) -> None:
    q.raw(PUBLISH.frame(1) + header(3) + body(b"ab") + body(b"cd"))
    text = "FRAME_ERROR - content body frame exceeds remaining content size"
    q.expect_connection_close(501, text, methods.BasicPublish)
    assert q.world.hub.partial_bytes == 0


@pytest.mark.parametrize(
    "properties", [b"", b"\0", b"\x80\0", b"\0\0x", b"\x20\0\0\0\0\x02\x01a", b"\x20\0\0\0\0\x03\x01aZ"]
)
def test_properties_that_do_not_decode(q: Client, properties: bytes) -> None:
    q.raw(PUBLISH.frame(1) + header(0, properties=properties))
    q.expect_connection_close(541, "INTERNAL_ERROR")


# --- while closing ---------------------------------------------------------------------------------------------------


def test_content_is_discarded_while_closing(q: Client) -> None:
    """A body that was on its way when the channel failed must still be read to its end."""
    missing = methods.BasicGet(queue="nosuch")
    q.raw(PUBLISH.frame(1) + header(4) + body(b"ab"))
    assert q.world.hub.partial_bytes == 4
    q.raw(body(b"cd") + missing.frame(1) + PUBLISH.frame(1) + header(1000) + body(bytes(400)))
    assert q.world.hub.partial_bytes == 0
    q.raw(body(bytes(600)) + methods.ChannelCloseOk().frame(1) + methods.ChannelOpen().frame(1))
    text = "NOT_FOUND - no queue 'nosuch' in vhost '/'"
    q.expect(close_of(methods.ChannelClose, 404, text, methods.BasicGet), methods.ChannelOpenOk())
    assert q.drain("q") == [b"abcd"]


def test_the_order_of_frames_holds_while_closing(q: Client) -> None:
    q.send(methods.BasicGet(queue="nosuch"))
    assert len(q.answers()) == 1
    q.raw(PUBLISH.frame(1) + header(10) + body(bytes(11)))
    text = "FRAME_ERROR - content body frame exceeds remaining content size"
    q.expect_connection_close(501, text, methods.BasicPublish)


def test_a_closing_connection_gives_back_what_was_announced(world: World) -> None:
    client = world.client(1, 2, 3)
    for channel in (1, 2, 3):
        client.raw(PUBLISH.frame(channel) + header(1000, channel) + body(bytes(channel), channel))
    assert world.hub.partial_bytes == 3000
    client.send(methods.ConnectionClose(), channel=0)
    assert world.hub.partial_bytes == 0


# --- how much may be on its way --------------------------------------------------------------------------------------


def test_unfinished_bodies_are_limited(make_world: Callable[..., World]) -> None:
    world = make_world(max_message_bytes=1000, partial_content_bytes=2500)
    client, other = world.client(1, 2, 3, 4), world.client(1, 2)
    for channel in (1, 2):
        client.raw(PUBLISH.frame(channel) + header(1000, channel))
        other.raw(PUBLISH.frame(channel) + header(1000, channel))
    client.raw(PUBLISH.frame(3) + header(500, 3))
    assert world.hub.partial_bytes == 4500
    client.raw(PUBLISH.frame(4) + header(1, 4))
    client.expect_connection_close(506, "RESOURCE_ERROR - too many unfinished message bodies on this connection")
    assert world.hub.partial_bytes == 2000, "the other's, and nothing more"
    other.raw(body(bytes(1000)) + body(bytes(1000), 2))
    assert other.answers() == [] and world.hub.partial_bytes == 0


def test_finished_bodies_do_not_count(make_world: Callable[..., World]) -> None:
    client = make_world(max_message_bytes=1000, partial_content_bytes=1000).client()
    client.declare("q")
    client.publish("q", *[bytes(1000)] * 10)
    client.publish("q", *[bytes(1000)] * 10, frame_max=100)
    assert len(client.drain("q")) == 20


@pytest.mark.parametrize("size", [1001, 1 << 40, (1 << 64) - 1])
def test_a_body_that_is_too_large_is_not_kept(make_world: Callable[..., World], size: int) -> None:
    world = make_world(max_message_bytes=1000, partial_content_bytes=2000)
    client = world.client()
    client.raw(PUBLISH.frame(1) + header(size) + body(bytes(1000)))
    assert client.answers() == [] and world.hub.partial_bytes == 0
    if size == 1001:
        client.raw(body(b"x"))
        text = "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000"
        client.expect_channel_close(406, text, methods.BasicPublish)


# --- the assembler by itself -----------------------------------------------------------------------------------------


def test_the_assembler_hands_over_whole_commands() -> None:
    waited_for: list[int] = []
    assembler = Assembler(100, waited_for.append)
    assert assembler.idle
    assert assembler.frame(1, PUBLISH.encode()) is None
    assert assembler.frame(2, header(3, properties=Properties(priority=1).encode())[7:-1]) is None
    assert not assembler.idle
    assert assembler.frame(3, b"ab") is None
    command = assembler.frame(3, b"c")
    assert command is not None
    assert (command.method, command.arguments) == (PUBLISH, PUBLISH.encode())
    assert (command.properties, command.size, command.body) == (b"\x08\0\1", 3, [b"ab", b"c"])
    assert waited_for == [3, -3] and assembler.idle
    command = assembler.frame(1, methods.BasicQos().encode())
    assert command is not None and command.method == methods.BasicQos()
