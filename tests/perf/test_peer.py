"""Logging in, saying goodbye, and everything that ends a peer against its will."""

from __future__ import annotations

import pytest

from rabbitish.perf.options import Login
from rabbitish.perf.peer import Peer, PeerError, Refused, Script, ask
from rabbitish.wire import methods
from rabbitish.wire.frames import HEARTBEAT, PROTOCOL_HEADER, content_frames
from rabbitish.wire.method import Method
from tests.perf.support import said, welcome

LOGIN = Login(user="mé", password="s3cret", vhost="v")


def test_a_login() -> None:
    peer = Peer(LOGIN)
    assert peer.due(0) == 0
    assert peer.take(0) == PROTOCOL_HEADER
    assert peer.due(0) is None
    start_ok, tune_ok, opening, channel = welcome(peer)
    assert isinstance(start_ok, methods.ConnectionStartOk)
    assert (start_ok.mechanism, start_ok.response) == ("PLAIN", "\0mé\0s3cret".encode())
    assert start_ok.client_properties["capabilities"]["authentication_failure_close"] is True  # type: ignore[index,call-overload]
    assert tune_ok == methods.ConnectionTuneOk(channel_max=2047, frame_max=131_072, heartbeat=0)
    assert opening == methods.ConnectionOpen(virtual_host="v")
    assert channel == methods.ChannelOpen()
    assert peer.ready


@pytest.mark.parametrize(("offered", "taken"), [(0, 131_072), (4096, 4096), (131_072, 131_072), (1 << 20, 131_072)])
def test_frame_max(offered: int, taken: int) -> None:
    peer = Peer(LOGIN)
    tune_ok = welcome(peer, frame_max=offered)[1]
    assert isinstance(tune_ok, methods.ConnectionTuneOk)
    assert tune_ok.frame_max == peer.frame_max == taken


def test_a_login_byte_by_byte() -> None:
    peer = Peer(LOGIN)
    for byte in methods.ConnectionStart().frame(0):
        assert peer.take(0) in (PROTOCOL_HEADER, b"")
        peer.receive(bytes((byte,)), 0)
    assert isinstance(said(peer.take(0))[0], methods.ConnectionStartOk)


class Asking(Peer):
    """Asks two things before it is ready."""

    def script(self) -> Script[None]:
        self.first = yield from ask(methods.QueueDeclare(queue="a"), methods.QueueDeclareOk)
        self.second = yield from ask(methods.QueueDeclare(queue="b"), methods.QueueDeclareOk)


def test_a_script() -> None:
    peer = Asking(LOGIN)
    assert welcome(peer)[-1] == methods.QueueDeclare(queue="a")
    answers = [methods.QueueDeclareOk("a", 1, 0), methods.QueueDeclareOk("b", 2, 0)]
    peer.receive(HEARTBEAT + answers[0].frame(1), 0)
    assert said(peer.take(0)) == [methods.QueueDeclare(queue="b")]
    assert not peer.ready
    peer.receive(answers[1].frame(1), 0)
    assert peer.ready
    assert [peer.first, peer.second] == answers


def test_a_later_script() -> None:
    peer = Peer(LOGIN)
    welcome(peer)
    peer.run_script(Asking(LOGIN).script())
    assert not peer.ready
    assert said(peer.take(0)) == [methods.QueueDeclare(queue="a")]


def test_a_later_script_that_says_nothing() -> None:
    peer = Peer(LOGIN)
    welcome(peer)
    peer.run_script(peer.script())
    assert peer.ready


@pytest.mark.parametrize(
    "close",
    [
        methods.ConnectionClose(403, "ACCESS_REFUSED - no", 0, 0),
        methods.ChannelClose(404, "NOT_FOUND - no queue", 50, 10),
    ],
)
def test_a_refusal_has_its_code_and_text(close: Method) -> None:
    peer = Asking(LOGIN)
    welcome(peer)
    with pytest.raises(Refused) as raised:
        peer.receive(close.frame(1), 0)
    assert str(raised.value) in ("403 ACCESS_REFUSED - no", "404 NOT_FOUND - no queue")
    assert raised.value.code in (403, 404)


def test_a_close_out_of_the_blue() -> None:
    peer = Peer(LOGIN)
    welcome(peer)
    with pytest.raises(Refused, match="320 CONNECTION_FORCED"):
        peer.receive(methods.ConnectionClose(320, "CONNECTION_FORCED - bye").frame(0), 0)


def test_an_answer_to_something_else() -> None:
    peer = Asking(LOGIN)
    welcome(peer)
    with pytest.raises(PeerError, match=r"answered with queue\.bind-ok where queue\.declare-ok was due"):
        peer.receive(methods.QueueBindOk().frame(1), 0)


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n", PROTOCOL_HEADER])
def test_somebody_who_speaks_something_else(greeting: bytes) -> None:
    with pytest.raises(PeerError, match=r"what it sends is not AMQP 0-9-1"):
        Peer(LOGIN).receive(greeting, 0)


def test_an_end_at_the_login_is_likely_a_refusal() -> None:
    peer = Peer(LOGIN)
    peer.receive(methods.ConnectionStart().frame(0), 0)
    with pytest.raises(PeerError, match="closed the connection at the login"):
        peer.receive_eof()


@pytest.mark.parametrize("welcomed", [False, True])
def test_an_end_too_early(welcomed: bool) -> None:
    peer = Peer(LOGIN)
    if welcomed:
        welcome(peer)
    with pytest.raises(PeerError, match=r"^the broker closed the connection$"):
        peer.receive_eof()


def test_a_goodbye() -> None:
    peer = Peer(LOGIN)
    welcome(peer)
    peer.close()
    peer.close()
    (close,) = said(peer.take(0))
    assert isinstance(close, methods.ConnectionClose)
    late = methods.BasicDeliver("t", 1).frame(1) + content_frames(1, 60, b"\0\0", b"late", 4096)
    peer.receive(late + methods.ChannelClose(404, "late").frame(1), 0)
    assert not peer.ended
    peer.receive(methods.ConnectionCloseOk().frame(0), 0)
    assert peer.ended


@pytest.mark.parametrize("by_close", [False, True])
def test_other_ends_of_a_goodbye(by_close: bool) -> None:
    peer = Peer(LOGIN)
    welcome(peer)
    peer.close()
    if by_close:
        peer.receive(methods.ConnectionClose(320, "me too").frame(0), 0)
    else:
        peer.receive_eof()
    assert peer.ended


def test_blocked() -> None:
    peer = Peer(LOGIN)
    welcome(peer)
    peer.receive(methods.ConnectionBlocked("low on memory").frame(0), 0)
    assert peer.blocked
    peer.receive(methods.ConnectionUnblocked().frame(0), 0)
    assert not peer.blocked
