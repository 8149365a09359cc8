"""Contents: the order of method, header and body frames, their sizes, how they mix with everything else."""

from __future__ import annotations

import pytest
from pamqp import commands

from conformance.rawpeer import Raw, RawPeer, body, content, frame, header, method, publish_method
from conformance.support import Names, differs

Basic, Channel = commands.Basic, commands.Channel

PUBLISH = publish_method(1, "", "nosuch")
FLOW = method(1, Channel.Flow(True))
NO_HEADER = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
NO_BODY = "UNEXPECTED_FRAME - expected content body, got non content body frame instead"
NO_METHOD = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"


def assert_bodies(peer: RawPeer, queue: str, *wanted: bytes, channel: int = 1) -> None:
    """The queue holds exactly these bodies, in this order."""
    for data in wanted:
        got = peer.get(channel, queue)
        assert got is not None and got.body == data
    assert peer.get(channel, queue) is None


# --- out of order ----------------------------------------------------------------------------------------------------

OUT_OF_ORDER = {
    "method for header": (PUBLISH + FLOW, NO_HEADER),
    "publish for header": (PUBLISH + PUBLISH, NO_HEADER),
    "body for header": (PUBLISH + body(1, b"x"), NO_HEADER),
    "empty body for header": (PUBLISH + body(1, b""), NO_HEADER),
    "channel.close for header": (PUBLISH + method(1, Channel.Close(200, "", 0, 0)), NO_HEADER),
    "header of weight 1": (PUBLISH + header(1, 1, weight=1), NO_HEADER),
    "empty header of weight 9": (PUBLISH + header(1, 0, weight=9), NO_HEADER),
    "method for body": (PUBLISH + header(1, 3) + FLOW, NO_BODY),
    "publish for body": (PUBLISH + header(1, 3) + PUBLISH, NO_BODY),
    "header for body": (PUBLISH + header(1, 3) + header(1, 3), NO_BODY),
    "channel.close for body": (PUBLISH + header(1, 3) + method(1, Channel.Close(200, "", 0, 0)), NO_BODY),
    "method for second body": (PUBLISH + header(1, 3) + body(1, b"a") + FLOW, NO_BODY),
    "publish for last body": (PUBLISH + header(1, 3) + body(1, b"ab") + PUBLISH, NO_BODY),
    **{
        f"header of class {wrong}": (
            PUBLISH + header(1, size, class_id=wrong),
            f"UNEXPECTED_FRAME - expected content header for class 60, got one for class {wrong} instead",
        )
        for wrong, size in [(0, 0), (50, 1), (65535, 0)]
    },
}


@pytest.mark.parametrize(("data", "text"), OUT_OF_ORDER.values(), ids=OUT_OF_ORDER.keys())
def test_frame_out_of_order(peer: RawPeer, data: bytes, text: str) -> None:
    peer.send(data)
    peer.expect_close(505, text, 60, 40)
    peer.expect_eof()


MORE_THAN_ANNOUNCED = {
    "body after the last": PUBLISH + header(1, 1) + body(1, b"a") + body(1, b"b"),
    "body after an empty content": PUBLISH + header(1, 0) + body(1, b"x"),
    "empty body after an empty content": PUBLISH + header(1, 0) + body(1, b""),
    "empty body after the last": PUBLISH + header(1, 1) + body(1, b"a") + body(1, b""),
    "header after the last": PUBLISH + header(1, 1) + body(1, b"a") + header(1, 1),
}


@pytest.mark.parametrize("data", MORE_THAN_ANNOUNCED.values(), ids=MORE_THAN_ANNOUNCED.keys())
def test_frame_after_the_content(peer: RawPeer, data: bytes) -> None:
    peer.send(data)
    peer.expect_close(505, NO_METHOD)


TOO_MUCH = "FRAME_ERROR - content body frame exceeds remaining content size"


@differs(rabbitmq=(505, NO_BODY), rabbitish=(501, TOO_MUCH), reason="3.10 overlooks it until the next frame, 4.x not")
@pytest.mark.parametrize("parts", [[b"abc"], [b"a", b"bc"], [b"", b"abc"]], ids=["at once", "later", "after none"])
def test_body_larger_than_announced(peer: RawPeer, parts: list[bytes], expected: tuple[int, str]) -> None:
    peer.send(PUBLISH, header(1, 2), *(body(1, part) for part in parts), FLOW)
    code, text = expected
    peer.expect_close(code, text, 60, 40)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (header(2, 1), NO_METHOD),
        (header(9, 1), NO_METHOD),
        (header(0, 1), "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,1,0,0>>"),
    ],
    ids=["open channel", "unopened channel", "channel 0"],
)
def test_header_on_another_channel(peer: RawPeer, wrong: bytes, text: str) -> None:
    peer.channel(2)
    peer.send(PUBLISH, wrong)
    peer.expect_close(505, text)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (body(2, b"a"), NO_METHOD),
        (body(9, b"a"), NO_METHOD),
        (body(0, b"a"), 'UNEXPECTED_FRAME - type 3, all octets = <<"a">>'),
        (frame(8, 1, b""), "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
    ],
    ids=["open channel", "unopened channel", "channel 0", "heartbeat"],
)
def test_body_on_another_channel(peer: RawPeer, wrong: bytes, text: str) -> None:
    peer.channel(2)
    peer.send(PUBLISH, header(1, 1), wrong)
    peer.expect_close(505, text)


# --- any cut of the body ---------------------------------------------------------------------------------------------

CUTS: dict[str, list[bytes]] = {
    "empty, no body frame": [],
    "one frame": [b"hello"],
    "byte by byte": [b"h", b"e", b"l", b"l", b"o"],
    "empty frames between": [b"", b"he", b"", b"", b"llo"],
    "one large": [b"x" * 131064],
    "large and small": [b"x" * 131064, b"y"],
    "small and large": [b"y", b"x" * 131064],
    "thousand": [b"z" * 7] * 1000,
}


@pytest.mark.parametrize("parts", CUTS.values(), ids=CUTS.keys())
def test_body_is_the_sum_of_its_frames(peer: RawPeer, name: Names, parts: list[bytes]) -> None:
    queue, whole = peer.declare(1, name()), b"".join(parts)
    peer.send(publish_method(1, "", queue), header(1, len(whole)), *(body(1, part) for part in parts))
    assert_bodies(peer, queue, whole)


@pytest.mark.parametrize("size", [1 << 20, 5_000_003])
def test_large_body(peer: RawPeer, name: Names, size: int) -> None:
    queue = peer.declare(1, name())
    whole = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    peer.publish(1, "", queue, whole)
    got = peer.get(1, queue)
    assert got is not None and got.body == whole
    assert {len(part) for part in got.parts[:-1]} == {131064}


@differs(
    rabbitmq=None,
    rabbitish="PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216",
    reason="the limit is RabbitMQ 4's 16 MiB, not 3.10's 128 MiB",
)
def test_largest_message(peer: RawPeer, name: Names, expected: str | None) -> None:
    queue = peer.declare(1, name(), {"x-max-length": 0})
    peer.publish(1, "", queue, bytes(16 << 20))
    peer.sync(1)
    peer.publish(1, "", queue, bytes((16 << 20) + 1))
    if expected is None:
        peer.sync(1)
    else:
        peer.expect_close(406, expected, 60, 40, channel=1)


def test_thousand_messages_in_one_write(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    message = publish_method(1, "", queue)
    peer.send(*(message + content(1, b"%d" % n) for n in range(1000)), FLOW)
    peer.expect(20, 21, 1)
    peer.consume(1, queue, "t", no_ack=True)
    for n in range(1000):
        assert peer.expect(60, 60, 1).delivery_tag == n + 1
        assert peer.expect_content(1).body == b"%d" % n


# --- mixed with other things -----------------------------------------------------------------------------------------


def test_two_channels_take_turns(peer: RawPeer, name: Names) -> None:
    one, two = peer.declare(1, name()), peer.declare(peer.channel(2), name())
    peer.send(
        *(publish_method(1, "", one), publish_method(2, "", two)),
        *(header(2, 4), header(1, 3)),
        *(body(1, b"o"), body(2, b"tw"), body(1, b"ne"), body(2, b"o!")),
    )
    peer.sync(2)
    assert_bodies(peer, one, b"one")
    assert_bodies(peer, two, b"two!", channel=2)


def test_many_channels_take_turns(peer: RawPeer, name: Names) -> None:
    queue, numbers = peer.declare(1, name()), range(2, 32)
    for number in numbers:
        peer.channel(number)
    peer.send(*(publish_method(number, "", queue) for number in numbers))
    peer.send(*(header(number, 2) for number in reversed(numbers)))
    peer.send(*(body(number, bytes([number])) for number in numbers))
    for number in numbers:  # one after the other, so that their order in the queue is known
        peer.send(body(number, b"."))
        peer.sync(number)
    assert_bodies(peer, queue, *(bytes([number]) + b"." for number in numbers))


def test_methods_on_another_channel_inside_a_content(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.send(publish_method(1, "", queue))
    peer.channel(2)
    peer.send(header(1, 4))
    assert peer.get(2, queue) is None
    peer.send(body(1, b"ab"))
    peer.sync(2)
    peer.send(body(1, b"cd"))
    peer.sync(1)
    assert_bodies(peer, queue, b"abcd", channel=2)


def test_error_on_another_channel_inside_a_content(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.channel(2)
    peer.send(publish_method(1, "", queue), header(1, 4), body(1, b"ab"))
    peer.send_method(2, Basic.Ack(9))
    peer.expect_close(406, "PRECONDITION_FAILED - unknown delivery tag 9", 60, 80, channel=2)
    peer.send(body(1, b"cd"))
    assert_bodies(peer, queue, b"abcd")


def test_heartbeats_inside_a_content(peer: RawPeer, name: Names) -> None:
    queue, beat = peer.declare(1, name()), frame(8, 0, b"")
    peer.send(publish_method(1, "", queue), beat, header(1, 2), beat, body(1, b"a"), beat, body(1, b"b"), beat)
    assert_bodies(peer, queue, b"ab")


def test_deliveries_inside_a_content(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.consume(1, queue, "t", no_ack=True)
    peer.send(publish_method(1, "", queue), header(1, 2), body(1, b"a"))
    other = raw()
    other.channel(1)
    other.publish(1, "", queue, b"from the other")
    peer.expect(60, 60, 1)
    assert peer.expect_content(1).body == b"from the other"
    peer.send(body(1, b"b"))
    peer.expect(60, 60, 1)
    assert peer.expect_content(1).body == b"ab"


@pytest.mark.parametrize("how", ["drop", "end of stream", "connection.close", "connection error"])
def test_unfinished_content_is_not_published(peer: RawPeer, raw: Raw, name: Names, how: str) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"whole")
    peer.send(publish_method(1, "", queue), header(1, 4), body(1, b"abc"))
    if how == "drop":
        peer.drop()
    elif how == "end of stream":
        peer.shutdown_write()
        peer.expect_eof()
    elif how == "connection.close":
        peer.ask(0, commands.Connection.Close(200, "bye", 0, 0))
    else:
        peer.send(body(1, b"d")[:-1] + b"\0")
        peer.expect_close(501, 'FRAME_ERROR - type 3, all octets = <<"d">>: {invalid_frame_end_marker,0}')
    peer.is_open = False
    other = raw()
    other.channel(1)
    assert_bodies(other, queue, b"whole")


# --- what a publish does, frame by frame -----------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"abc"], ids=["empty", "body"])
def test_return_to_the_byte(peer: RawPeer, data: bytes) -> None:
    properties = bytes.fromhex("9000") + b"\x0atext/plain\x02"
    peer.publish(1, "amq.direct", "nosuch", data, properties, mandatory=True)
    got = peer.read()
    assert got.payload == bytes.fromhex("003c0032 0138") + b"\x08NO_ROUTE" + b"\x0aamq.direct" + b"\x06nosuch"
    returned = peer.expect_content(1)
    assert (returned.properties, returned.parts) == (properties, [data] if data else [])


@pytest.mark.parametrize("data", [b"", b"abc"], ids=["empty", "body"])
def test_return_comes_before_its_confirm(peer: RawPeer, data: bytes) -> None:
    peer.ask(1, commands.Confirm.Select())
    peer.publish(1, "", "nosuch", data, mandatory=True)
    assert peer.expect(60, 50, 1).reply_code == 312
    peer.expect_content(1)
    assert peer.read().payload == bytes.fromhex("003c0050 0000000000000001 00")


@pytest.mark.parametrize("mandatory", [False, True])
@pytest.mark.parametrize("data", [b"", b"abc"], ids=["empty", "body"])
def test_immediate_is_not_implemented(peer: RawPeer, data: bytes, mandatory: bool) -> None:
    peer.publish(1, "", "nosuch", data, immediate=True, mandatory=mandatory)
    peer.expect_close(540, "NOT_IMPLEMENTED - immediate=true", 60, 40)


def test_immediate_is_refused_once_the_content_is_complete(peer: RawPeer) -> None:
    peer.send(publish_method(1, "", "nosuch", immediate=True), header(1, 2))
    peer.expect_nothing(50)
    peer.send(body(1, b"ab"))
    peer.expect_close(540, "NOT_IMPLEMENTED - immediate=true", 60, 40)


def test_missing_exchange_is_reported_once_the_content_is_complete(peer: RawPeer, name: Names) -> None:
    exchange = name("x")
    peer.send(publish_method(1, exchange, "k"), header(1, 2))
    peer.expect_nothing(50)
    peer.send(body(1, b"ab"))
    peer.expect_close(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'", 60, 40, channel=1)


def test_publishes_behind_a_failed_one_are_lost(peer: RawPeer, name: Names) -> None:
    queue, exchange = peer.declare(1, name()), name("x")
    peer.ask(1, commands.Confirm.Select())
    peer.send(*(publish_method(1, where, queue) + content(1, b"m") for where in ["", exchange, ""]))
    first = peer.read()
    if first.payload[:4] == bytes.fromhex("003c0050"):  # the first may be confirmed before the channel goes
        first = peer.read()
    assert first.payload[:4] == bytes.fromhex("00140028")
    peer.send_method(1, Channel.CloseOk())
    peer.channel(1)
    assert_bodies(peer, queue, b"m")
