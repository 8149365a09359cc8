"""Channel 0 of an open connection: methods in the wrong state, closes from both sides, update-secret."""

from __future__ import annotations

import pytest
from pamqp import base, commands

from conformance.rawpeer import (
    Raw,
    RawPeer,
    body,
    decode,
    frame,
    header,
    longstr,
    method,
    publish_method,
    raw_method,
    shortstr,
    table,
)
from conformance.support import Names

Connection, Channel, Queue = commands.Connection, commands.Channel, commands.Queue

CLOSE = method(0, Connection.Close(200, "bye", 0, 0))
CLOSE_OK = method(0, Connection.CloseOk())
FLOW = method(1, Channel.Flow(True))
WRONG_STATE = "CHANNEL_ERROR - unexpected method in connection state running"
UNKNOWN_FRAME = 'FRAME_ERROR - type 7, all octets = <<"x">>: unknown_frame'


# --- methods that do not belong --------------------------------------------------------------------------------------

NOT_ON_CHANNEL_0: list[base.Frame] = [
    Connection.StartOk({}, "PLAIN", "x", "en_US"),
    Connection.SecureOk("x"),
    Connection.TuneOk(2047, 131072, 0),
    Connection.Open("/"),
    Connection.CloseOk(),
    Connection.OpenOk(),
    Connection.Tune(2047, 131072, 0),
    Connection.Blocked("x"),
    Connection.Unblocked(),
    Channel.Open(),
    Channel.Flow(True),
    Channel.Close(200, "", 0, 0),
    Queue.Declare(queue="x"),
    commands.Exchange.Delete(exchange="x"),
    commands.Basic.Qos(),
    commands.Basic.Ack(1),
    commands.Basic.Publish(),
    commands.Tx.Select(),
    commands.Confirm.Select(),
]


@pytest.mark.parametrize("command", NOT_ON_CHANNEL_0, ids=lambda c: c.name)
def test_method_that_channel_0_does_not_take(peer: RawPeer, command: base.Frame) -> None:
    peer.send_method(0, command)
    peer.expect_close(504, WRONG_STATE, command.index >> 16, command.index & 0xFFFF)
    peer.expect_eof()


def test_start_from_the_client(peer: RawPeer) -> None:
    peer.send(raw_method(0, 10, 10, b"\x00\x09" + table() + longstr("") + longstr("")))
    peer.expect_close(504, WRONG_STATE, 10, 10)


ONLY_ON_CHANNEL_0: list[base.Frame] = [
    Connection.Open("/"),
    Connection.Close(200, "", 0, 0),
    Connection.CloseOk(),
    Connection.UpdateSecret("s", "r"),
]


@pytest.mark.parametrize("command", ONLY_ON_CHANNEL_0, ids=lambda c: c.name)
def test_connection_method_on_a_channel(peer: RawPeer, command: base.Frame) -> None:
    peer.send_method(1, command)
    peer.expect_close(503, "COMMAND_INVALID - unimplemented method", 10, command.index & 0xFFFF)


def test_connection_method_on_an_unopened_channel(peer: RawPeer) -> None:
    peer.send_method(5, Connection.Close(200, "", 0, 0))
    peer.expect_close(504, "CHANNEL_ERROR - expected 'channel.open'", 10, 50)


# --- closed by the client --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        Connection.Close(200, "bye", 0, 0),
        Connection.Close(65535, "x" * 255, 65535, 65535),
        Connection.Close(0, "", 0, 0),
    ],
    ids=["as usual", "odd values", "zeros"],
)
def test_close_is_answered_whatever_it_says(peer: RawPeer, command: base.Frame) -> None:
    peer.send_method(0, command)
    assert peer.read().payload == bytes.fromhex("000a0033")
    peer.is_open = False


def test_after_close_ok_the_socket_is_the_clients_to_end(peer: RawPeer) -> None:
    peer.ask(0, Connection.Close(200, "bye", 0, 0))
    peer.is_open = False
    peer.expect_nothing(300)
    peer.shutdown_write()
    peer.expect_eof()


def test_second_close_is_answered_too(peer: RawPeer) -> None:
    peer.send(CLOSE, CLOSE)
    peer.expect(10, 51, 0)
    peer.expect(10, 51, 0)
    peer.is_open = False


@pytest.mark.parametrize(
    "data",
    [
        FLOW,
        method(0, Connection.Open("/")),
        method(2, Channel.Open()),
        frame(8, 0, b""),
        frame(7, 0, b"x"),
        header(1, 5),
    ],
    ids=["method", "connection.open", "channel.open", "heartbeat", "unknown frame", "header"],
)
def test_nothing_after_close_is_handled(peer: RawPeer, data: bytes) -> None:
    peer.send(CLOSE)
    peer.expect(10, 51, 0)
    peer.send(data)
    peer.expect_nothing(50)
    peer.is_open = False


def test_close_in_the_middle_of_a_content(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.send(publish_method(1, "", queue), header(1, 5), body(1, b"he"), CLOSE)
    peer.expect(10, 51, 0)
    peer.is_open = False
    other = raw()
    other.channel(1)
    assert other.get(1, queue) is None


def test_close_after_a_content_loses_nothing(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"last words")
    peer.send(CLOSE)
    peer.expect(10, 51, 0)
    other = raw()
    other.channel(1)
    got = other.get(1, queue)
    assert got is not None and got.body == b"last words"


def test_close_with_many_channels(raw: Raw) -> None:
    peer = raw()
    for number in range(1, 21):
        peer.channel(number)
    peer.ask(0, Connection.Close(200, "bye", 0, 0))
    peer.is_open = False


def test_exclusive_queue_is_gone_after_close_ok(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = peer.declare(1, name(), exclusive=True)
    peer.ask(0, Connection.Close(200, "bye", 0, 0))
    peer.is_open = False
    other = raw()
    other.channel(1)
    other.send_method(1, Queue.Declare(queue=queue, passive=True))
    other.expect_close(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", 50, 10, channel=1)


# --- closed by the broker --------------------------------------------------------------------------------------------


def break_connection(peer: RawPeer) -> None:
    """Make the broker close the connection; its close is read and not answered."""
    peer.send(frame(7, 1, b"x"))
    close = peer.expect(10, 50, 0)
    assert (close.reply_code, close.reply_text) == (501, UNKNOWN_FRAME)
    peer.is_open = False


def test_socket_ends_at_close_ok(peer: RawPeer) -> None:
    break_connection(peer)
    peer.expect_nothing(100)
    peer.send(CLOSE_OK)
    peer.expect_eof(1.0)


def test_both_close_at_once(peer: RawPeer) -> None:
    break_connection(peer)
    peer.send(CLOSE)
    peer.expect(10, 51, 0)
    peer.expect_nothing(50)
    peer.send(CLOSE_OK)
    peer.expect_eof(1.0)


def test_both_close_in_one_write(peer: RawPeer) -> None:
    peer.send(frame(7, 1, b"x"), CLOSE, CLOSE_OK)
    peer.expect(10, 50, 0)
    peer.expect(10, 51, 0)
    peer.expect_eof(1.0)


@pytest.mark.parametrize(
    "data",
    [
        FLOW,
        method(0, Connection.Open("/")),
        method(2, Channel.Open()),
        frame(8, 0, b""),
        frame(7, 0, b"y"),
        header(1, 5),
    ],
    ids=["method", "connection.open", "channel.open", "heartbeat", "unknown frame", "header"],
)
def test_nothing_but_close_ok_is_handled_after_an_error(peer: RawPeer, data: bytes) -> None:
    break_connection(peer)
    peer.send(data)
    peer.expect_nothing(50)
    peer.send(CLOSE_OK)
    peer.expect_eof(1.0)


def test_end_of_stream_instead_of_close_ok(peer: RawPeer) -> None:
    break_connection(peer)
    peer.shutdown_write()
    peer.expect_eof(1.0)


def test_methods_behind_the_error_have_no_effect(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = name()
    peer.send(frame(7, 1, b"x"), method(1, Queue.Declare(queue=queue)))
    peer.expect_close(501, UNKNOWN_FRAME)
    peer.expect_eof()
    other = raw()
    other.channel(1)
    other.send_method(1, Queue.Declare(queue=queue, passive=True))
    other.expect_close(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", 50, 10, channel=1)


def test_error_of_one_connection_leaves_the_others_alone(peer: RawPeer, raw: Raw) -> None:
    other = raw()
    other.channel(1)
    break_connection(peer)
    other.sync(1)


def test_unacked_messages_are_back_after_an_error(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"m")
    assert peer.get(1, queue, no_ack=False) is not None
    break_connection(peer)
    peer.send(CLOSE_OK)
    peer.expect_eof(1.0)
    other = raw()
    other.channel(1)
    assert other.declare(1, queue) == queue
    other.send_method(1, commands.Basic.Get(queue=queue, no_ack=True))
    assert other.expect(60, 71, 1).redelivered is True
    other.expect_content(1)


def test_end_of_stream_of_the_client_is_answered_with_one(peer: RawPeer) -> None:
    peer.shutdown_write()
    peer.expect_eof(1.0)


# --- update-secret ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "reason"), [("new", "because"), ("", ""), ("s" * 3000, "r" * 255)], ids=["short", "empty", "long"]
)
def test_update_secret(peer: RawPeer, secret: str, reason: str) -> None:
    peer.send(raw_method(0, 10, 70, longstr(secret) + shortstr(reason)))
    assert peer.read().payload == bytes.fromhex("000a0047")
    peer.sync(1)


def test_update_secret_again_and_again(peer: RawPeer) -> None:
    for _ in range(3):
        reply = peer.ask(0, Connection.UpdateSecret("s", "r"))
        assert isinstance(reply, Connection.UpdateSecretOk)


def test_no_frame_is_sent_unasked(peer: RawPeer) -> None:
    peer.expect_nothing(100)
    peer.send(FLOW)
    assert isinstance(decode(peer.read()), Channel.FlowOk)
