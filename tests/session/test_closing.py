"""How connections end: errors, a peer that closes, the broker that closes, both at once, and the hanging up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.wire import methods
from rabbitish.wire.frames import HEAD, HEARTBEAT
from rabbitish.wire.method import Method

from .client import Client, close_of, publication
from .harness import World

CLOSE = methods.ConnectionClose(reply_code=200, reply_text="bye")
SHUTDOWN = ConnectionFailure(ReplyCode.CONNECTION_FORCED, "broker forced connection closure with reason 'shutdown'")
FORCED = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"


def frame(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return HEAD.pack(kind, channel, len(payload)) + payload + end


# --- the peer closes -------------------------------------------------------------------------------------------------


def test_the_peer_closes(client: Client) -> None:
    client.send(CLOSE, channel=0)
    client.expect(methods.ConnectionCloseOk(), channel=0)
    assert not client.hung_up, "hanging up is the client's part"
    client.hang_up()
    assert client.hung_up and client.world.hub.sessions == set()
    assert len(client.world.logged("connection closed")) == 1
    assert client.world.logged("connection lost") == []


def test_a_peer_that_closed_and_does_not_hang_up(client: Client) -> None:
    client.send(CLOSE, channel=0)
    client.expect(methods.ConnectionCloseOk(), channel=0)
    client.world.advance(29_999)
    assert not client.hung_up
    client.world.advance(1)
    assert client.hung_up


def test_after_its_close_a_peer_is_not_heard(client: Client) -> None:
    client.declare("q")
    client.send(CLOSE, channel=0)
    client.raw(publication("q", b"late") + HEARTBEAT + frame(2, 0, bytes(12)))
    client.send(methods.ChannelOpen(), channel=2)
    client.send(methods.ConnectionUpdateSecret(), channel=0)
    client.expect(methods.ConnectionCloseOk(), channel=0)
    assert client.world.queue("q").ready == 0


def test_closing_twice(client: Client) -> None:
    client.send(CLOSE, CLOSE, channel=0)
    client.expect(methods.ConnectionCloseOk(), methods.ConnectionCloseOk(), channel=0)


def test_close_ok_instead_of_hanging_up(client: Client) -> None:
    client.send(CLOSE, methods.ConnectionCloseOk(), channel=0)
    client.expect(methods.ConnectionCloseOk(), channel=0)
    assert client.hung_up


def test_what_was_published_before_the_close_is_kept_and_confirmed(client: Client) -> None:
    client.declare("q")
    client.send(methods.ConfirmSelect())
    client.expect(methods.ConfirmSelectOk())
    client.raw(publication("q", b"a") + publication("q", b"b") + CLOSE.frame(0))
    assert client.methods() == [methods.BasicAck(delivery_tag=2, multiple=True), methods.ConnectionCloseOk()]
    assert client.world.queue("q").ready == 2


# --- the broker closes -----------------------------------------------------------------------------------------------


def test_the_broker_closes(client: Client) -> None:
    client.session.stop(SHUTDOWN, client.world.now)
    client.expect_connection_close(320, FORCED)


def test_a_peer_that_does_not_agree_is_cut_off(client: Client) -> None:
    client.session.stop(SHUTDOWN, client.world.now)
    client.expect(close_of(methods.ConnectionClose, 320, FORCED, None), channel=0)
    client.send(methods.QueueDeclare(queue="q"))
    client.raw(HEARTBEAT)
    client.world.advance(29_999)
    assert client.answers() == [] and not client.hung_up
    client.world.advance(1)
    assert client.hung_up
    assert "q" not in client.world.vhost.queues


def test_hanging_up_is_agreement_too(client: Client) -> None:
    client.session.stop(SHUTDOWN, client.world.now)
    assert len(client.answers()) == 1
    client.hang_up()
    assert client.hung_up


def test_stopping_during_the_handshake_just_hangs_up(world: World) -> None:
    client = world.connect()
    client.session.stop(SHUTDOWN, world.now)
    assert client.answers() == [] and client.hung_up
    assert client.received == b""


def test_stopping_what_is_closing_already_hangs_up(client: Client) -> None:
    client.send(CLOSE, channel=0)
    client.session.stop(SHUTDOWN, client.world.now)
    client.expect(methods.ConnectionCloseOk(), channel=0)
    assert client.hung_up
    client.session.stop(SHUTDOWN, client.world.now)
    client.session.receive_eof(client.world.now)
    assert client.answers() == []


# --- both at once ----------------------------------------------------------------------------------------------------


def test_both_close_at_once(client: Client) -> None:
    client.session.stop(SHUTDOWN, client.world.now)
    client.send(CLOSE, channel=0)
    client.expect(close_of(methods.ConnectionClose, 320, FORCED, None), methods.ConnectionCloseOk(), channel=0)
    assert not client.hung_up
    client.send(methods.ConnectionCloseOk(), channel=0)
    assert client.answers() == [] and client.hung_up


def test_a_close_after_an_error_in_the_same_read(client: Client) -> None:
    client.raw(methods.ChannelOpen().frame(1) + CLOSE.frame(0) + methods.ConnectionCloseOk().frame(0))
    error = close_of(methods.ConnectionClose, 504, "CHANNEL_ERROR - second 'channel.open' seen", methods.ChannelOpen)
    client.expect(error, methods.ConnectionCloseOk(), channel=0)
    assert client.hung_up


# --- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_closes_everything(world: World, client: Client) -> None:
    client.open(2)
    client.declare("mine", exclusive=True)
    client.declare("q")
    client.consume("q")
    client.publish("q", b"a")
    assert client.bodies() == [b"a"]
    client.send(methods.BasicQos(prefetch_size=1), channel=2)
    client.expect(
        close_of(methods.ConnectionClose, 540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)", methods.BasicQos), channel=0
    )
    assert list(world.vhost.queues) == ["q"]
    assert (world.queue("q").ready, len(world.queue("q").consumers)) == (1, 0)
    assert client.session.channels == {}


def test_nothing_is_heard_after_an_error(client: Client) -> None:
    client.declare("q")
    bad = methods.ChannelFlow(active=False).frame(1)
    client.raw(publication("q", b"before") + bad + publication("q", b"after") + bad)
    client.expect_connection_close(540, "NOT_IMPLEMENTED - active=false", methods.ChannelFlow)
    assert client.world.queue("q").ready == 1


@pytest.mark.parametrize(
    ("method", "code", "text"),
    [
        (methods.ConnectionCloseOk(), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
        (methods.ConnectionStartOk(), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
        (methods.ConnectionBlocked(), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
        (methods.ChannelOpen(), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
        (methods.BasicPublish(), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
    ],
    ids=lambda it: getattr(it, "name", ""),
)
def test_methods_that_are_not_for_channel_0(client: Client, method: Method, code: int, text: str) -> None:
    client.send(method, channel=0)
    client.expect_connection_close(code, text, type(method))


def test_update_secret(client: Client) -> None:
    client.send(methods.ConnectionUpdateSecret(new_secret=b"new", reason="old"), channel=0)
    client.expect(methods.ConnectionUpdateSecretOk(), channel=0)


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (frame(2, 0, bytes(12)), 505, "UNEXPECTED_FRAME - type 2, all octets = <<0,0,0,0,0,0,0,0,0,0,0,0>>"),
        (frame(3, 0, b"x" * 17), 505, 'UNEXPECTED_FRAME - type 3, first 16 octets = <<"xxxxxxxxxxxxxxxx">>'),
        (frame(8, 1, b""), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
        (frame(8, 9, b""), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
        (frame(8, 0, b"x"), 501, 'FRAME_ERROR - type 8, all octets = <<"x">>: unknown_frame'),
        (frame(4, 1, b"x"), 501, 'FRAME_ERROR - type 4, all octets = <<"x">>: unknown_frame'),
        (frame(1, 1, b"x"), 501, 'FRAME_ERROR - type 1, all octets = <<"x">>: unknown_frame'),
        (frame(1, 0, b"\0\x0a\0\x32\x01"), 541, "INTERNAL_ERROR"),
    ],
)
def test_frames_that_make_no_sense(client: Client, data: bytes, code: int, text: str) -> None:
    client.raw(data)
    client.expect_connection_close(code, text)
    assert len(client.world.logged("connection closed for an error")) == 1


def test_undecodable_arguments_are_blamed_on_the_method(client: Client) -> None:
    client.raw(frame(1, 1, b"\0\x0a\0\x32\x01"))
    client.expect_connection_close(501, "FRAME_ERROR - cannot decode <<1>>", methods.ConnectionClose)


@pytest.mark.parametrize(("number", "ids"), [(0, (10, 99)), (1, (60, 99)), (1, (61, 10))])
def test_an_unknown_method(client: Client, number: int, ids: tuple[int, int]) -> None:
    client.raw(frame(1, number, b"".join(part.to_bytes(2, "big") for part in ids)))
    (said,) = client.answers()
    assert said.method == methods.ConnectionClose(
        reply_code=503,
        reply_text=f"COMMAND_INVALID - unknown method ({ids[0]},{ids[1]})",
        class_id_=ids[0],
        method_id_=ids[1],
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (HEAD.pack(3, 1, 131_073), "type 3, all octets = <<>>: {frame_too_large,131073,131064}"),
        (frame(1, 1, b"\0\x3c\0\x0b", b"\0"), "type 1, all octets = <<0,60,0,11>>: {invalid_frame_end_marker,0}"),
    ],
)
def test_out_of_step(client: Client, data: bytes, text: str) -> None:
    """There is no reading on after such a frame, so not even a close-ok is understood."""
    client.raw(data)
    client.expect(close_of(methods.ConnectionClose, 501, f"FRAME_ERROR - {text}", None), channel=0)
    client.send(methods.ConnectionCloseOk(), channel=0)
    client.world.advance(2_999)
    assert not client.hung_up
    client.world.advance(1)
    assert client.hung_up


def test_out_of_step_while_closing(client: Client) -> None:
    client.send(CLOSE, channel=0)
    client.raw(HEAD.pack(3, 1, 131_073))
    client.expect(methods.ConnectionCloseOk(), channel=0)
    client.world.advance(3_000)
    assert client.hung_up


def test_nonsense_while_closing_is_ignored(client: Client) -> None:
    client.send(CLOSE, channel=0)
    client.raw(frame(7, 1, b"") + frame(1, 1, b"") + frame(1, 0, b"\0\x0a\0\x63"))
    client.expect(methods.ConnectionCloseOk(), channel=0)
    assert not client.hung_up


def test_a_long_text_is_cut(client: Client) -> None:
    name = "é" * 127
    client.send(methods.BasicConsume(queue=client.declare("q"), consumer_tag=name, nowait=True))
    client.send(methods.BasicConsume(queue="q", consumer_tag=name))
    (said,) = client.answers()
    assert isinstance(said.method, methods.ConnectionClose)
    assert said.method.reply_text.startswith("NOT_ALLOWED - attempt to reuse consumer tag 'éé")
    assert said.method.reply_text.endswith("é...")
    assert 253 <= len(said.method.reply_text.encode()) <= 255


# --- the peer is gone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", publication("q", b"half")[:40], methods.ChannelOpen().frame(2)[:6]])
def test_eof(world: World, client: Client, sent: bytes) -> None:
    client.declare("q")
    client.raw(sent)
    client.hang_up()
    assert client.session.ended and not client.session.reading
    assert world.hub.sessions == set()
    (lost,) = world.logged("connection lost")
    assert (lost["reason"], lost["user"], lost["vhost"]) == ("the peer hung up", "guest", "/")


def test_eof_gives_back_what_was_announced(world: World, client: Client) -> None:
    client.raw(publication("q", bytes(1000))[:-500])
    assert world.hub.partial_bytes == 1000
    client.hang_up()
    assert world.hub.partial_bytes == 0


def test_nothing_is_left_behind(make_world: Callable[..., World]) -> None:
    world = make_world()
    for _ in range(100):
        client = world.client(1, 2, heartbeat=60)
        client.declare(exclusive=True)
        client.hang_up()
    assert world.hub.sessions == set() and world.vhost.queues == {}
    assert world.broker.deadlines.next_due() is None
    assert world.broker.usage.bytes == world.hub.partial_bytes == 0
