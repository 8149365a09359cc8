"""Content properties: literal bytes, round trips, and the skim that the broker makes instead of decoding."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.values import Int64, Table, Timestamp
from rabbitish.wire.properties import Digest, Properties, decode_properties, digest, skim
from rabbitish.wire.table import decode_table

from .helpers import any_text, exact, relaxed, tables

NOTHING = Digest(None, None, None, None, None, None)

EVERYTHING = Properties(
    content_type="text/plain",
    content_encoding="gzip",
    headers={"a": Int64(1), "b": [None, {}]},
    delivery_mode=2,
    priority=9,
    correlation_id="c",
    reply_to="r",
    expiration="60000",
    message_id="m",
    timestamp=Timestamp(1_700_000_000),
    type="t",
    user_id="guest",
    app_id="app",
    cluster_id="x",
)
EVERYTHING_RAW = (
    b"\xff\xfc"
    b"\x0atext/plain"
    b"\x04gzip"
    b"\x00\x00\x00\x18" b"\x01al" b"\x00\x00\x00\x00\x00\x00\x00\x01" b"\x01bA\x00\x00\x00\x06VF\x00\x00\x00\x00"
    b"\x02" b"\x09" b"\x01c" b"\x01r" b"\x0560000" b"\x01m"
    b"\x00\x00\x00\x00\x65\x53\xf1\x00"
    b"\x01t" b"\x05guest" b"\x03app" b"\x01x"
)  # fmt: skip

properties = st.builds(
    Properties,
    headers=st.none() | tables,
    delivery_mode=st.none() | st.integers(0, 255),
    priority=st.none() | st.integers(0, 255),
    timestamp=st.none() | st.integers(0, 2**64 - 1).map(Timestamp),
    **{field.name: st.none() | any_text for field in dataclasses.fields(Properties) if field.type == "str | None"},
)


def test_everything_both_ways() -> None:
    assert EVERYTHING.encode() == EVERYTHING_RAW
    decoded = decode_properties(EVERYTHING_RAW)
    assert [exact(value) for value in dataclasses.astuple(decoded)] == [
        exact(value) for value in dataclasses.astuple(EVERYTHING)
    ]
    start = EVERYTHING_RAW.index(b"\x00\x00\x00\x18")
    assert digest(EVERYTHING_RAW) == Digest(2, 9, "60000", "r", "guest", (start, start + 4 + 0x18))


def test_nothing_both_ways() -> None:
    assert Properties().encode() == b"\x00\x00"
    assert decode_properties(b"\x00\x00") == Properties()
    assert digest(b"\x00\x00") == NOTHING


def test_an_empty_property_is_not_a_missing_one() -> None:
    empty = Properties(content_type="", headers={}, expiration="", priority=0)
    raw = empty.encode()
    assert raw == b"\xa9\x00\x00\x00\x00\x00\x00\x00\x00"
    assert decode_properties(raw) == empty
    assert digest(raw) == NOTHING._replace(priority=0, expiration="", headers_span=(3, 7))


@relaxed
@given(properties)
def test_round_trip(sent: Properties) -> None:
    raw = sent.encode()
    got = decode_properties(raw)
    assert [exact(value) for value in dataclasses.astuple(got)] == [exact(value) for value in dataclasses.astuple(sent)]
    assert got.encode() == raw


@relaxed
@given(properties)
def test_the_digest_says_what_decoding_says(sent: Properties) -> None:
    raw = sent.encode()
    skimmed = digest(raw)
    assert skimmed[:5] == (sent.delivery_mode, sent.priority, sent.expiration, sent.reply_to, sent.user_id)
    headers: Table | None = None
    if skimmed.headers_span is not None:
        start, end = skimmed.headers_span
        headers, pos = decode_table(raw, start)
        assert pos == end
    assert exact(headers) == exact(sent.headers)


@pytest.mark.parametrize("flags", [b"\x00\x01", b"\x00\x02", b"\x00\x03"])
def test_flags_that_no_property_has_are_ignored(flags: bytes) -> None:
    """Also the lowest, which announces another word of flags: RabbitMQ reads one word whatever it says."""
    assert decode_properties(flags) == Properties()
    assert digest(flags) == NOTHING
    for read in (decode_properties, digest):
        with pytest.raises(ConnectionFailure):
            read(flags + b"\x00\x00")


def refused(raw: bytes) -> None:
    for read in (decode_properties, digest):
        with pytest.raises(ConnectionFailure) as failure:
            read(raw)
        assert str(failure.value) == "541 INTERNAL_ERROR"
        assert failure.value.__notes__ == ["content properties do not fill their header frame"]


def test_properties_cut_anywhere_or_with_a_tail_are_refused() -> None:
    for size in range(len(EVERYTHING_RAW)):
        refused(EVERYTHING_RAW[:size])
    refused(EVERYTHING_RAW + b"\x00")
    refused(b"\x00\x00x")


@pytest.mark.parametrize("bit", range(14))
def test_a_property_that_is_flagged_must_be_there(bit: int) -> None:
    flags = (0x8000 >> bit).to_bytes(2, "big")
    refused(flags)
    if bit == 9:
        refused(flags + bytes(7))
    elif bit == 2:
        refused(flags + bytes(3))
        refused(flags + b"\x00\x00\x00\x01")
        refused(flags + b"\x00\x00\x00\x00V")
    elif bit not in (3, 4):
        refused(flags + b"\x02a")


@relaxed
@given(st.binary(max_size=40))
@example(b"\x20\x00\xff\xff\xff\xff")
@example(b"\x20\x00\x00\x00\x00\x03\x01kZ")
def test_the_digest_refuses_what_decoding_refuses(raw: bytes) -> None:
    """But for rubbish inside the headers, which it does not see."""
    try:
        whole = decode_properties(raw)
    except ConnectionFailure as failure:
        if "table" in failure.__notes__[0]:
            return
        refused(raw)
    else:
        assert digest(raw)[:5] == (
            whole.delivery_mode,
            whole.priority,
            whole.expiration,
            whole.reply_to,
            whole.user_id,
        )


def test_rubbish_in_the_headers_is_found_when_they_are_decoded() -> None:
    raw = b"\x20\x00\x00\x00\x00\x03\x01kZ"
    assert digest(raw) == NOTHING._replace(headers_span=(2, 9))
    with pytest.raises(ConnectionFailure) as failure:
        decode_properties(raw)
    assert failure.value.code is ReplyCode.INTERNAL_ERROR
    assert failure.value.__notes__ == ["unknown field type 'Z' in a table"]


@pytest.mark.parametrize(
    "wrong",
    [
        Properties(priority=256),
        Properties(delivery_mode=-1),
        Properties(timestamp=-1),
        Properties(timestamp=2**64),
        Properties(message_id="x" * 256),
        Properties(message_id="\ud800"),
        Properties(headers={"n": 2**63}),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_a_value_error(wrong: Properties) -> None:
    with pytest.raises(ValueError):
        wrong.encode()


@given(properties)
@example(EVERYTHING)
def test_a_skim_finds_what_the_digest_finds(given_: Properties) -> None:
    raw = given_.encode()
    found = digest(raw)
    expiration = (found.expiration or "").encode("utf-8", "surrogateescape")
    assert skim(b"in front" + raw + b"behind", 8) == (found.priority or 0, expiration)


@given(properties)
def test_a_skim_of_properties_that_are_cut_short(given_: Properties) -> None:
    raw = given_.encode()
    for size in range(2):
        with pytest.raises(ConnectionFailure):
            skim(raw[:size], 0)
