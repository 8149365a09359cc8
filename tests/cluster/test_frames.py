"""Frames and greetings as bytes: whole, byte by byte, and with a tail; wrong ones are refused, and nothing else."""

from __future__ import annotations

from random import Random

import pytest

from rabbitish.cluster.protocol.frames import (
    Ack,
    Append,
    Frame,
    FrameDecoder,
    Hello,
    LinkError,
    Reject,
    Relay,
    RelayAnswer,
    Relaying,
    SnapBegin,
    SnapEnd,
    SnapRecords,
    Verdict,
    Welcome,
    encode_frame,
)
from rabbitish.cluster.protocol.greeting import Greeting, Refused
from rabbitish.cluster.protocol.log import EpochStart
from rabbitish.cluster.protocol.state import GroupState, decode_state

BIG = 1 << 60
FRAMES: list[Frame | Relaying] = [
    Hello("m3/a/0", "b#ü", BIG, 7, (EpochStart(1, 1), EpochStart(7, BIG)), BIG),
    Hello("", "", 0, 0, (), 0),
    Welcome(7, BIG, 3, 17, 12, snapshot=False),
    Welcome(7, 1, 3, 0, 12, snapshot=True),
    SnapBegin(7, 1, 99, 5),
    SnapRecords(7, 1, 2, 5, b"records"),
    SnapEnd(7, 1, 3, 5, bytes(range(32))),
    Append(7, 1, 99, 98, BIG, b""),
    Append(7, 1, 99, 98, 5, b"x" * 3000),
    Ack(7, 1, 98, 5),
    Reject(8),
    Relay(("10.0.0.7", 50_412), ("fe80::1%eth0", 5671), "amqps"),
    Relay(("10.0.0.7", 50_412), ("::1", 5671), "amqps", b"\0session", b"\xffsecured"),
    Relay(("10.0.0.7", 50_412), ("10.0.0.8", 5672), "amqp", b"session", b"", bytes(range(16))),
    Relay(("10.0.0.7", 50_412), ("10.0.0.8", 5672), "amqp", node="b"),
    RelayAnswer(Verdict.NOT_LEADER, "nobody does"),
]
STREAM = b"".join(map(encode_frame, FRAMES))


def test_frames_whole_and_byte_by_byte() -> None:
    assert FrameDecoder().feed(STREAM) == FRAMES
    decoder = FrameDecoder()
    assert [frame for at in range(len(STREAM)) for frame in decoder.feed(STREAM[at : at + 1])] == FRAMES


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_with_the_beginning_of_the_next(frame: Frame | Relaying) -> None:
    decoder = FrameDecoder()
    data = encode_frame(frame)
    assert decoder.feed(data + data[:3]) == [frame]
    assert decoder.feed(data[3:]) == [frame]


def test_what_is_no_frame_is_refused() -> None:
    for data in (b"\0\0\0\0\0", b"\0\0\0\1\x63x", b"\xff\xff\xff\xff\1", b"\0\0\0\1\1x", b"\0\0\0\1\7x"):
        with pytest.raises(LinkError):
            FrameDecoder().feed(data)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"7",
        b"[]",
        b"[" * 100_000,
        b'{"client": ["::1", 1], "listener": ["::1", 2]}',
        b'{"client": ["::1", 1], "listener": ["::1", Infinity], "scheme": "amqp"}',
        b'{"client": ["here", 1], "listener": ["::1", 2], "scheme": "amqp"}',
        b'{"client": [7, 1], "listener": ["::1", 2], "scheme": "amqp"}',
        b'{"client": ["::1"], "listener": ["::1", 2], "scheme": "amqp"}',
    ],
    ids=range(9),
)
def test_a_relay_of_nobody_is_refused(body: bytes) -> None:
    with pytest.raises(LinkError):
        FrameDecoder().feed(len(body).to_bytes(4, "big") + b"\x09" + body)


def test_a_relay_of_an_older_node_does_not_say_whose_it_is() -> None:
    body = b'{"client": ["::1", 1], "listener": ["::1", 2], "scheme": "amqp", "session": "", "secured": "", "mark": ""}'
    (relay,) = FrameDecoder().feed(len(body).to_bytes(4, "big") + b"\x09" + body)
    assert relay == Relay(("::1", 1), ("::1", 2), "amqp")


def test_damaged_frames_are_frames_or_refused() -> None:
    random = Random(1)
    refused = 0
    for _ in range(2_000):
        data = bytearray(encode_frame(random.choice(FRAMES)))
        data[random.randrange(len(data))] = random.randrange(256)
        try:
            FrameDecoder().feed(bytes(data))
        except LinkError:
            refused += 1
    assert 50 < refused < 1_950


# ---- greetings

SECRET, ONE, OTHER = b"secret", b"1" * 16, b"2" * 16


def talk(dialler: Greeting, listener: Greeting, step: int = 1 << 20) -> None:
    """Until nobody has anything to say."""
    to_listener, to_dialler = dialler.begin(), listener.begin()
    while to_listener or to_dialler:
        out = b""
        for at in range(0, len(to_listener), step):
            out += listener.receive(to_listener[at : at + step])
        to_listener, to_dialler = b"", out
        for at in range(0, len(to_dialler), step):
            to_listener += dialler.receive(to_dialler[at : at + step])
        to_dialler = b""


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_two_nodes_that_share_a_secret(step: int) -> None:
    dialler, listener = Greeting(SECRET, ONE, dials=True), Greeting(SECRET, OTHER, dials=False)
    talk(dialler, listener, step)
    assert dialler.done and listener.done
    assert dialler.rest == listener.rest == b""


def test_frames_may_follow_at_once() -> None:
    dialler, listener = Greeting(SECRET, ONE, dials=True), Greeting(SECRET, OTHER, dials=False)
    proof = dialler.receive(listener.receive(dialler.begin()))
    listener.receive(proof + STREAM)
    assert listener.done and listener.rest == STREAM


def test_another_secret_is_refused_by_who_dials_already() -> None:
    dialler, listener = Greeting(b"else", ONE, dials=True), Greeting(SECRET, OTHER, dials=False)
    answer = listener.receive(dialler.begin())
    with pytest.raises(Refused, match="secret"):
        dialler.receive(answer)
    with pytest.raises(Refused, match="secret"):
        listener.receive(bytes(32))
    assert not dialler.done and not listener.done


def test_a_proof_cannot_be_sent_back() -> None:
    """Whoever does not know the secret learns nothing to prove it with from who does."""
    listener = Greeting(SECRET, OTHER, dials=False)
    answer = listener.receive(Greeting(b"else", ONE, dials=True).begin())
    with pytest.raises(Refused, match="secret"):
        listener.receive(answer[-32:])


def test_another_version_is_refused_and_told_which() -> None:
    dialler = Greeting(SECRET, ONE, dials=True, version=1)
    with pytest.raises(Refused, match="version 1 of the link, this node version 3"):
        Greeting(SECRET, OTHER, dials=False).receive(dialler.begin())


def test_something_else_is_refused_at_its_first_bytes() -> None:
    for data in (b"AMQP", b"GET / HTTP/1.1\r\n\r\n" * 9, b"\0"):
        with pytest.raises(Refused, match="no node"):
            Greeting(SECRET, OTHER, dials=False).receive(data)


# ---- states


def test_a_state_comes_back() -> None:
    state = GroupState(7, "a#1", ("a#1", "b#2"), ("a#1", "b#2", "c#3"), "n")
    assert decode_state(state.encode()) == state
    for data in (b"", b"{}", b"[]", b'{"epoch": "x"}', b"\xff", b"7"):
        with pytest.raises(ValueError, match="not the state of a journal"):
            decode_state(data)
