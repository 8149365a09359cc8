"""Bad input: random bytes and frames, and valid conversations that were spoilt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rabbitish.wire import methods
from rabbitish.wire.frames import HEAD
from rabbitish.wire.method import METHODS

from .fuzzing import CONVERSATION, LOGIN, Stage, cuts, numbers, send
from .harness import examples


def test_the_conversation_is_valid() -> None:
    stage = Stage()
    send(stage, CONVERSATION, [], together=False)
    assert stage.bad.methods()[-1] == methods.ConnectionCloseOk()
    assert [record for record in stage.world.records if record.level != "info"] == []
    stage.end()


# --- bytes -----------------------------------------------------------------------------------------------------------


@examples(100)
@given(reached=st.integers(0, len(LOGIN)), data=st.binary(max_size=600), cuts=cuts)
def test_random_bytes(reached: int, data: bytes, cuts: list[int]) -> None:
    stage = Stage(reached)
    send(stage, [data], cuts)
    stage.end()


@examples(100)
@given(
    reached=st.integers(0, len(LOGIN)),
    frames=st.lists(st.tuples(st.sampled_from([1, 1, 2, 3, 8, 4, 0]), numbers, st.binary(max_size=60)), max_size=8),
    cuts=cuts,
)
def test_random_frames(reached: int, frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    stage = Stage(reached)
    data = [HEAD.pack(kind, number, len(payload)) + payload + b"\xce" for kind, number, payload in frames]
    send(stage, [methods.ChannelOpen().frame(1), *data], cuts)
    stage.end()


@examples(100)
@given(
    ids=st.lists(st.tuples(st.sampled_from(sorted(METHODS)), st.binary(max_size=40), numbers), max_size=8), cuts=cuts
)
def test_known_methods_with_random_arguments(ids: list[tuple[int, bytes, int]], cuts: list[int]) -> None:
    stage = Stage()
    payloads = [(number, key.to_bytes(4, "big") + arguments) for key, arguments, number in ids]
    data = [HEAD.pack(1, number, len(payload)) + payload + b"\xce" for number, payload in payloads]
    send(stage, [methods.ChannelOpen().frame(1), *data], cuts)
    stage.end()


# --- a valid conversation, spoilt ------------------------------------------------------------------------------------

Change = tuple[str, int, int]
changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "insert", "drop", "double", "swap", "number", "size"]),
        *[st.integers(0, 10_000)] * 2,
    ),
    min_size=1,
    max_size=5,
)


def spoilt(pieces: list[bytes], change: Change) -> list[bytes]:
    """The pieces with one change; where and how is up to two numbers."""
    what, where, how = change
    pieces = list(pieces)
    index = where % len(pieces)
    piece = bytearray(pieces[index])
    at = how % max(len(piece), 1)
    if what == "flip":
        piece[at] ^= 1 << how % 8
    elif what == "set":
        piece[at] = (0, 1, 127, 128, 206, 255)[how % 6]
    elif what == "cut":
        del piece[at : at + 1 + how % 5]
    elif what == "insert":
        piece[at:at] = bytes((how % 256,)) * (1 + how % 3)
    elif what == "number":
        piece[1:3] = (how % 4).to_bytes(2, "big")
    elif what == "size":
        piece[3:7] = (how * 97).to_bytes(4, "big")
    elif what == "drop":
        del pieces[index]
        return pieces or [b""]
    elif what == "double":
        pieces.insert(index, bytes(piece))
        return pieces
    else:
        other = how % len(pieces)
        pieces[index], pieces[other] = pieces[other], pieces[index]
        return pieces
    pieces[index] = bytes(piece)
    return pieces


@examples(100)
@given(changes=changes, cuts=cuts, together=st.booleans())
def test_a_spoilt_conversation(changes: list[Change], cuts: list[int], together: bool) -> None:
    pieces = CONVERSATION
    for change in changes:
        pieces = spoilt(pieces, change)
    stage = Stage()
    send(stage, pieces, cuts, together=together)
    stage.end()


@examples(100)
@given(changes=changes, cuts=cuts)
def test_a_spoilt_handshake(changes: list[Change], cuts: list[int]) -> None:
    pieces = [*LOGIN, *CONVERSATION[:3]]
    for change in changes:
        pieces = spoilt(pieces, change)
    stage = Stage(0)
    send(stage, pieces, cuts)
    stage.end()


def test_eof_anywhere() -> None:
    """In one world, one peer after the other hangs up in the middle, each a little later than the last."""
    stage = Stage(0)
    world, data = stage.world, b"".join([*LOGIN, *CONVERSATION])
    for cut in range(0, len(data), 7):
        client = world.connect()
        client.raw(data[:cut])
        if cut % 2:
            world.settle()
        client.hang_up()
        assert world.hub.sessions == {stage.good.session, stage.bad.session}
        assert world.hub.partial_bytes == 0
        client.session.receive_data(data[cut:], world.now)
        assert client.session.outbox.waiters == [] and client.session.channels == {}
    stage.end()
