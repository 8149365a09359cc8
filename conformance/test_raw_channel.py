"""Channels: opening and closing from both sides, numbers and how many, flow, qos, what an error leaves behind."""

from __future__ import annotations

import pytest
from pamqp import base, commands

from conformance.rawpeer import Raw, RawPeer, content, frame, header, method, publish_method
from conformance.support import Names, eventually

Basic, Channel, Queue = commands.Basic, commands.Channel, commands.Queue

CLOSE = method(1, Channel.Close(200, "bye", 0, 0))
CLOSE_OK = method(1, Channel.CloseOk())
EXPECTED_OPEN = "CHANNEL_ERROR - expected 'channel.open'"
UNKNOWN_TAG = "PRECONDITION_FAILED - unknown delivery tag 9"


def break_channel(peer: RawPeer, channel: int = 1) -> None:
    """Make the broker close the channel; its close is read and not answered."""
    peer.send_method(channel, Basic.Ack(9))
    close = peer.expect(20, 40, channel)
    assert (close.reply_code, close.reply_text) == (406, UNKNOWN_TAG)


def assert_missing(peer: RawPeer, channel: int, queue: str) -> None:
    peer.send_method(channel, Queue.Declare(queue=queue, passive=True))
    peer.expect_close(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", 50, 10, channel=channel)


# --- opening ---------------------------------------------------------------------------------------------------------


def test_open_ok_to_the_byte(peer: RawPeer) -> None:
    peer.send_method(2, Channel.Open())
    assert peer.read() == (1, 2, bytes.fromhex("0014000b 00000000"))


def test_open_twice(peer: RawPeer) -> None:
    peer.send_method(1, Channel.Open())
    peer.expect_close(504, "CHANNEL_ERROR - second 'channel.open' seen", 20, 10)
    peer.expect_eof()


@pytest.mark.parametrize("number", [2, 255, 256, 2047, 2048, 65535])
def test_any_number_will_do(peer: RawPeer, number: int) -> None:
    peer.channel(number)
    peer.sync(number)


NOT_OPENED: list[base.Frame] = [
    Queue.Declare(queue="x"),
    Channel.Close(200, "", 0, 0),
    Channel.CloseOk(),
    Channel.Flow(True),
    Basic.Get(queue="x"),
    Basic.Ack(1),
    Basic.Qos(),
    commands.Exchange.Declare(exchange="x"),
    commands.Tx.Select(),
    commands.Confirm.Select(),
]


@pytest.mark.parametrize("command", NOT_OPENED, ids=lambda c: c.name)
def test_method_on_a_channel_never_opened(peer: RawPeer, command: base.Frame) -> None:
    peer.send_method(9, command)
    peer.expect_close(504, EXPECTED_OPEN, command.index >> 16, command.index & 0xFFFF)


def test_publish_on_a_channel_never_opened_is_refused_once_complete(peer: RawPeer) -> None:
    peer.send(publish_method(9, "", "x"))
    peer.expect_nothing(50)
    peer.send(content(9, b"abc"))
    peer.expect_close(504, EXPECTED_OPEN, 60, 40)


FOR_CLIENTS: list[base.Frame] = [
    Channel.OpenOk(),
    Channel.FlowOk(True),
    Channel.FlowOk(False),
    Channel.CloseOk(),
    commands.Exchange.DeclareOk(),
    Queue.DeclareOk("x", 0, 0),
    Queue.BindOk(),
    Basic.QosOk(),
    Basic.ConsumeOk("t"),
    Basic.CancelOk("t"),
    Basic.GetEmpty(),
    Basic.RecoverOk(),
    commands.Tx.SelectOk(),
    commands.Confirm.SelectOk(),
]


@pytest.mark.parametrize(
    "command", FOR_CLIENTS, ids=lambda c: f"{c.name} {'' if c.name != 'Channel.FlowOk' else c.active}"
)
def test_method_that_only_clients_get(peer: RawPeer, command: base.Frame) -> None:
    peer.send_method(1, command)
    text = "COMMAND_INVALID - unimplemented method"
    peer.expect_close(503, text, command.index >> 16, command.index & 0xFFFF)


@pytest.mark.parametrize(
    "command",
    [Basic.Deliver("t", 1, False, "", "x"), Basic.Return(312, "NO_ROUTE", "", "x"), Basic.GetOk(1, False, "", "x", 0)],
    ids=lambda c: c.name,
)
def test_content_method_that_only_clients_get(peer: RawPeer, command: base.Frame) -> None:
    peer.send_method(1, command)
    peer.expect_nothing(30)
    peer.send(content(1, b"abc"))
    peer.expect_close(503, "COMMAND_INVALID - unimplemented method", 60, command.index & 0xFFFF)


# --- how many --------------------------------------------------------------------------------------------------------


def too_many(count: int) -> str:
    return f"NOT_ALLOWED - number of channels opened ({count}) has reached the negotiated channel_max ({count})"


@pytest.mark.parametrize("channel_max", [1, 2, 10])
def test_channel_max_is_a_count(raw: Raw, channel_max: int) -> None:
    peer = raw(channel_max=channel_max)
    for number in range(100, 100 + channel_max):
        peer.channel(number)
    peer.send_method(1, Channel.Open())
    peer.expect_close(530, too_many(channel_max))
    peer.expect_eof()


@pytest.mark.parametrize("data", [method(7, Queue.Declare(queue="x")), header(7, 1)], ids=["method", "header"])
def test_any_frame_takes_a_channel(raw: Raw, data: bytes) -> None:
    peer = raw(channel_max=1)
    peer.channel(1)
    peer.send(data)
    peer.expect_close(530, too_many(1))


def test_closed_channel_makes_room(raw: Raw) -> None:
    peer = raw(channel_max=2)
    peer.channel(5)
    for number in range(6, 26):
        peer.channel(number)
        peer.ask(number, Channel.Close(200, "", 0, 0))


def test_channel_closed_by_an_error_makes_room(raw: Raw) -> None:
    peer = raw(channel_max=1)
    for number in range(1, 6):
        peer.channel(number)
        break_channel(peer, number)
        peer.send_method(number, Channel.CloseOk())


def test_all_2047_channels(raw: Raw) -> None:
    peer = raw()
    for first in range(1, 2048, 256):
        numbers = range(first, min(first + 256, 2048))
        peer.send(*(method(number, Channel.Open()) for number in numbers))
        assert {peer.read().channel for _ in numbers} == set(numbers)
    peer.sync(2047)
    peer.send_method(2048, Channel.Open())
    peer.expect_close(530, too_many(2047))


# --- closed by the client --------------------------------------------------------------------------------------------


def test_close_ok_to_the_byte(peer: RawPeer) -> None:
    peer.send(CLOSE)
    assert peer.read() == (1, 1, bytes.fromhex("00140029"))


def test_number_is_free_at_once(peer: RawPeer) -> None:
    for _ in range(10):
        peer.send(CLOSE)
        peer.expect(20, 41, 1)
        peer.channel(1)
    peer.sync(1)


def test_method_after_close_ok(peer: RawPeer) -> None:
    peer.send(CLOSE)
    peer.expect(20, 41, 1)
    peer.send_method(1, Channel.Flow(True))
    peer.expect_close(504, EXPECTED_OPEN, 20, 20)


def test_close_after_close_ok(peer: RawPeer) -> None:
    peer.send(CLOSE)
    peer.expect(20, 41, 1)
    peer.send(CLOSE)
    peer.expect_close(504, EXPECTED_OPEN, 20, 40)


def test_closing_one_channel_leaves_the_others(peer: RawPeer) -> None:
    peer.channel(2)
    peer.send(CLOSE)
    peer.expect(20, 41, 1)
    peer.sync(2)


def test_delivery_tags_begin_anew_on_a_reused_number(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    for _ in range(2):
        peer.publish(1, "", queue, b"m")
        peer.send_method(1, Basic.Get(queue=queue, no_ack=True))
        assert peer.expect(60, 71, 1).delivery_tag == 1
        peer.expect_content(1)
        peer.send(CLOSE)
        peer.expect(20, 41, 1)
        peer.channel(1)


def test_unacked_messages_are_back_after_close_ok(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"m")
    assert peer.get(1, queue, no_ack=False) is not None
    peer.channel(2)
    assert peer.get(2, queue) is None
    peer.send(CLOSE)
    peer.expect(20, 41, 1)
    # RabbitMQ's queue hears of the closed channel from another process than the one that asks, now and then after it.
    got = eventually(lambda: peer.get(2, queue))
    assert got is not None and got.body == b"m"


# --- closed by an error ----------------------------------------------------------------------------------------------

IGNORED: dict[str, bytes] = {
    "method with a reply": method(1, Channel.Flow(True)),
    "another error": method(1, Basic.Ack(77)),
    "publish": publish_method(1, "", "x", mandatory=True) + content(1, b"abc"),
    "publish without a body": publish_method(1, "", "x", mandatory=True) + header(1, 0),
    "hard error of a method": method(1, Basic.Qos(1, 0, False)),
    "method for clients": method(1, Basic.QosOk()),
}


@pytest.mark.parametrize("data", IGNORED.values(), ids=IGNORED.keys())
def test_ignored_until_close_ok(peer: RawPeer, data: bytes) -> None:
    break_channel(peer)
    peer.send(data, data)
    peer.channel(2)
    peer.expect_nothing(30)
    peer.send(CLOSE_OK)
    peer.channel(1)
    peer.sync(1)


def test_ignored_means_without_effect(peer: RawPeer, name: Names) -> None:
    queue, other = peer.declare(1, name()), name()
    break_channel(peer)
    peer.send_method(1, Queue.Declare(queue=other))
    peer.publish(1, "", queue, b"lost")
    peer.send(CLOSE_OK)
    peer.channel(1)
    assert peer.get(1, queue) is None
    assert_missing(peer, 1, other)


def test_methods_on_their_way_behind_the_error_have_no_effect(peer: RawPeer, name: Names) -> None:
    queue, other = peer.declare(1, name()), name()
    peer.send_method(1, Basic.Ack(9))
    peer.send_method(1, Queue.Declare(queue=other))
    peer.publish(1, "", queue, b"lost")
    peer.expect_close(406, UNKNOWN_TAG, 60, 80, channel=1)
    peer.channel(1)
    assert peer.get(1, queue) is None
    assert_missing(peer, 1, other)


def test_open_instead_of_close_ok(peer: RawPeer) -> None:
    break_channel(peer)
    peer.send_method(1, Channel.Open())
    peer.expect_close(504, "CHANNEL_ERROR - second 'channel.open' seen", 20, 10)


STILL_CHECKED: dict[str, tuple[bytes, tuple[int, str, int, int]]] = {
    "frame type": (frame(7, 1, b"x"), (501, 'FRAME_ERROR - type 7, all octets = <<"x">>: unknown_frame', 0, 0)),
    "heartbeat": (frame(8, 1, b""), (505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", 0, 0)),
    "arguments": (method(1, Channel.Flow(True))[:3] + bytes.fromhex("00000004 00140014 ce"), (501, "", 20, 20)),
    "header without a method": (
        header(1, 3),
        (505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead", 0, 0),
    ),
    "method in a content": (
        publish_method(1, "", "x") + CLOSE_OK,
        (
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
            *(60, 40),
        ),
    ),
}


@pytest.mark.parametrize(("data", "close"), STILL_CHECKED.values(), ids=STILL_CHECKED.keys())
def test_form_of_ignored_frames_is_still_checked(peer: RawPeer, data: bytes, close: tuple[int, str, int, int]) -> None:
    break_channel(peer)
    peer.send(data)
    code, text, class_id, method_id = close
    peer.expect_close(code, text or "FRAME_ERROR - cannot decode <<>>", class_id, method_id)


def test_both_close_at_once(peer: RawPeer) -> None:
    break_channel(peer)
    peer.send(CLOSE)
    peer.expect(20, 41, 1)
    peer.send(CLOSE_OK)
    peer.channel(1)
    peer.sync(1)


def test_client_closes_twice_before_its_close_ok(peer: RawPeer) -> None:
    break_channel(peer)
    peer.send(CLOSE, CLOSE)
    peer.expect(20, 41, 1)
    peer.expect(20, 41, 1)
    peer.send(CLOSE_OK)
    peer.channel(1)


def test_second_close_ok(peer: RawPeer) -> None:
    break_channel(peer)
    peer.send(CLOSE_OK, CLOSE_OK)
    peer.expect_close(504, EXPECTED_OPEN, 20, 41)


def test_number_is_free_right_after_close_ok(peer: RawPeer) -> None:
    for _ in range(10):
        break_channel(peer)
        peer.send(CLOSE_OK)
        peer.channel(1)
    peer.sync(1)


def test_error_on_one_channel_leaves_the_others(peer: RawPeer) -> None:
    peer.channel(2)
    break_channel(peer, 1)
    peer.sync(2)
    break_channel(peer, 2)
    peer.channel(3)
    peer.sync(3)


def test_unacked_messages_are_back_after_an_error(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    for data in [b"a", b"b", b"c"]:
        peer.publish(1, "", queue, data)
        assert peer.get(1, queue, no_ack=False) is not None
    break_channel(peer)
    peer.send(CLOSE_OK)
    peer.channel(1)
    for data in [b"a", b"b", b"c"]:
        peer.send_method(1, Basic.Get(queue=queue, no_ack=True))
        assert peer.expect(60, 71, 1).redelivered is True
        assert peer.expect_content(1).body == data


def test_deliveries_stop_at_an_error(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.consume(1, queue, "t", no_ack=True)
    break_channel(peer)
    other = raw()
    other.channel(1)
    other.publish(1, "", queue, b"m")
    other.sync(1)
    peer.expect_nothing(50)
    got = other.get(1, queue)
    assert got is not None and got.body == b"m"


def test_connection_closes_while_a_channel_waits_for_close_ok(peer: RawPeer) -> None:
    break_channel(peer)
    peer.ask(0, commands.Connection.Close(200, "bye", 0, 0))
    peer.is_open = False


# --- flow and qos ----------------------------------------------------------------------------------------------------


def test_flow_on(peer: RawPeer) -> None:
    peer.send_method(1, Channel.Flow(True))
    assert peer.read() == (1, 1, bytes.fromhex("00140015 01"))


def test_flow_off_is_not_implemented(peer: RawPeer) -> None:
    peer.send_method(1, Channel.Flow(False))
    peer.expect_close(540, "NOT_IMPLEMENTED - active=false", 20, 20)


@pytest.mark.parametrize("everyone", [False, True], ids=["consumer", "channel"])
@pytest.mark.parametrize("count", [0, 1, 65535])
def test_qos(peer: RawPeer, count: int, everyone: bool) -> None:
    peer.send_method(1, Basic.Qos(0, count, everyone))
    assert peer.read() == (1, 1, bytes.fromhex("003c000b"))


@pytest.mark.parametrize("everyone", [False, True], ids=["consumer", "channel"])
@pytest.mark.parametrize("size", [1, 4294967295])
def test_qos_by_size_is_not_implemented(peer: RawPeer, size: int, everyone: bool) -> None:
    peer.send_method(1, Basic.Qos(size, 0, everyone))
    peer.expect_close(540, f"NOT_IMPLEMENTED - prefetch_size!=0 ({size})", 60, 10)


@pytest.mark.parametrize("command", [Basic.Recover(False), Basic.RecoverAsync(False)], ids=lambda c: c.name)
def test_recover_without_requeue_is_not_implemented(peer: RawPeer, command: base.Frame) -> None:
    peer.send_method(1, command)
    peer.expect_close(540, "NOT_IMPLEMENTED - requeue=false", 60, command.index & 0xFFFF)


def test_recover_is_answered(peer: RawPeer) -> None:
    peer.send_method(1, Basic.Recover(True))
    assert peer.read() == (1, 1, bytes.fromhex("003c006f"))


def test_recover_async_is_not_answered(peer: RawPeer) -> None:
    peer.send_method(1, Basic.RecoverAsync(True))
    peer.sync(1)
