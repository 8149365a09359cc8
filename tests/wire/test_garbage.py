"""Whatever comes in, decoding gives a value or a ConnectionFailure, and never anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.errors import ConnectionFailure
from rabbitish.wire.frames import FrameParser
from rabbitish.wire.methods import METHODS, Method, decode_method
from rabbitish.wire.properties import decode_properties, digest
from rabbitish.wire.table import decode_table, decode_table_body, encode_table

from .helpers import any_method, relaxed, tables

IDS = sorted(METHODS)


def attempt(read: Any, *arguments: Any) -> Any:
    """What `read` returns, or None if it refuses; any other exception fails the test."""
    try:
        return read(*arguments)
    except ConnectionFailure:
        return None


@st.composite
def mutated(draw: st.DrawFn, raw: bytes) -> bytes:
    """`raw` with a few octets replaced, removed or put in."""
    octets = bytearray(raw)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(octets)))
        octets[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(octets)


@relaxed
@given(st.binary(max_size=80), st.integers(0, 80))
def test_any_bytes_as_a_table(raw: bytes, end: int) -> None:
    attempt(decode_table, raw, 0)
    attempt(decode_table_body, raw, 0, min(end, len(raw)))


@relaxed
@given(tables.flatmap(lambda table: mutated(encode_table(table))))
def test_a_mutated_table(raw: bytes) -> None:
    decoded = attempt(decode_table, raw, 0)
    if decoded is not None:
        table, end = decoded
        again = encode_table(table)
        assert end <= len(raw)
        assert decode_table(again, 0) == (table, len(again))


@relaxed
@given(st.sampled_from(IDS), st.binary(max_size=80))
def test_any_bytes_as_arguments(ids: int, raw: bytes) -> None:
    payload = ids.to_bytes(4, "big") + raw
    decoded = attempt(decode_method, payload)
    assert decoded is None or type(decoded) is METHODS[ids]


@relaxed
@given(any_method.flatmap(lambda method: mutated(method.encode())))
def test_a_mutated_method(payload: bytes) -> None:
    decoded = attempt(decode_method, payload)
    if decoded is not None:
        assert isinstance(decoded, Method)
        assert decode_method(decoded.encode()) == decoded


@relaxed
@given(st.binary(max_size=80))
def test_any_bytes_as_properties(raw: bytes) -> None:
    attempt(digest, raw)
    decoded = attempt(decode_properties, raw)
    if decoded is not None:
        assert decode_properties(decoded.encode()) == decoded


@relaxed
@given(st.lists(st.binary(max_size=40), max_size=6), st.sampled_from([0, 4096]))
def test_any_bytes_as_frames(pieces: list[bytes], limit: int) -> None:
    parser = FrameParser(limit)
    for piece in pieces:
        attempt(lambda piece=piece: list(parser.feed(piece)))


@pytest.mark.parametrize("wrong", [b"\x01\x00\x01\x00\x00\x10\x01", b"\x01\x00\x01\x00\x00\x00\x04abcd\x00"])
def test_a_stream_that_lost_step_is_kept_no_longer(wrong: bytes) -> None:
    parser = FrameParser()
    for _ in range(100):
        assert attempt(lambda: list(parser.feed(wrong))) is None
    assert len(parser.data) == len(wrong)
