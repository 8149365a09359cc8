"""Frames that are wrong in themselves or where they come: 501 and 505, and how bytes are shown in the text."""

from __future__ import annotations

import re
import struct

import pytest
from pamqp import commands

from conformance.rawpeer import Raw, RawPeer, body, frame, header, method, publish_method, raw_method
from conformance.support import Names

Close = tuple[int, str]

NOT_A_METHOD = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"


def head(kind: int, channel: int, size: int) -> bytes:
    return struct.pack(">BHI", kind, channel, size)


# --- frames of an unknown form ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [0, 1, 9], ids=["channel 0", "open channel", "unopened channel"])
@pytest.mark.parametrize("kind", [0, 4, 5, 6, 7, 9, 255])
def test_unknown_frame_type(peer: RawPeer, kind: int, channel: int) -> None:
    peer.send(frame(kind, channel, b"x"))
    peer.expect_close(501, f'FRAME_ERROR - type {kind}, all octets = <<"x">>: unknown_frame')
    peer.expect_eof()


SHOWN = {
    "nothing": (b"", "all octets = <<>>"),
    "text": (b"hello", 'all octets = <<"hello">>'),
    "16 bytes of text": (b"abcdefghijklmnop", 'all octets = <<"abcdefghijklmnop">>'),
    "17 bytes of text": (b"abcdefghijklmnopq", 'first 16 octets = <<"abcdefghijklmnop">>'),
    "16 bytes": (bytes(range(16)), "all octets = <<0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15>>"),
    "20 bytes": (bytes(range(20)), "first 16 octets = <<0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15>>"),
    "quote and backslash": (b'"\\', r'all octets = <<"\"\\">>'),
    "escapes": (b"\t\r\n\x0b\x0c\x1b\x08", r'all octets = <<"\t\r\n\v\f\e\b">>'),
    "a NUL after text": (b"a\0", "all octets = <<97,0>>"),
    "DEL": (b"\x7f", "all octets = <<127>>"),
    "high bytes": (b"\xff\xfe\x00", "all octets = <<255,254,0>>"),
}


@pytest.mark.parametrize(("payload", "shown"), SHOWN.values(), ids=SHOWN.keys())
def test_bytes_are_shown_as_erlang_does(peer: RawPeer, payload: bytes, shown: str) -> None:
    peer.send(frame(7, 1, payload))
    peer.expect_close(501, f"FRAME_ERROR - type 7, {shown}: unknown_frame")


TOO_SHORT = {
    "method, empty": (frame(1, 1, b""), "type 1, all octets = <<>>"),
    "method, 3 bytes": (frame(1, 1, b"\0\x14\0"), "type 1, all octets = <<0,20,0>>"),
    "method on channel 0": (frame(1, 0, b"\0\x0a"), "type 1, all octets = <<0,10>>"),
    "header, empty": (frame(2, 1, b""), "type 2, all octets = <<>>"),
    "header, 11 bytes": (frame(2, 1, b"\0\x3c" + bytes(9)), "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0>>"),
}


@pytest.mark.parametrize(("data", "shown"), TOO_SHORT.values(), ids=TOO_SHORT.keys())
def test_frame_too_short_for_its_type(peer: RawPeer, data: bytes, shown: str) -> None:
    peer.send(data)
    peer.expect_close(501, f"FRAME_ERROR - {shown}: unknown_frame")


@pytest.mark.parametrize("channel", [0, 1])
def test_heartbeat_with_a_payload(peer: RawPeer, channel: int) -> None:
    peer.send(frame(8, channel, b"xx"))
    peer.expect_close(501, 'FRAME_ERROR - type 8, all octets = <<"xx">>: unknown_frame')


# --- frame end and size ----------------------------------------------------------------------------------------------

BAD_ENDS = {
    "method": (frame(1, 1, b"\0\0\0\0", b"\0"), "type 1, all octets = <<0,0,0,0>>", 0),
    "body": (frame(3, 1, b"hello", b"\n"), 'type 3, all octets = <<"hello">>', 10),
    "long body": (
        frame(3, 1, b"hello world, and more", b"\xcd"),
        'type 3, first 16 octets = <<"hello world, and">>',
        205,
    ),
    "empty body": (frame(3, 1, b"", b"\xff"), "type 3, all octets = <<>>", 255),
    "heartbeat": (frame(8, 0, b"", b"x"), "type 8, all octets = <<>>", 120),
    "unknown type": (frame(7, 1, b"x", b"x"), 'type 7, all octets = <<"x">>', 120),
    "unopened channel": (frame(1, 9, b"\0\0\0\0", b"\0"), "type 1, all octets = <<0,0,0,0>>", 0),
}


@pytest.mark.parametrize(("data", "shown", "end"), BAD_ENDS.values(), ids=BAD_ENDS.keys())
def test_bad_frame_end(peer: RawPeer, data: bytes, shown: str, end: int) -> None:
    peer.send(data)
    # Erlang breaks the term where the line gets long
    text = re.escape(f"FRAME_ERROR - {shown}: ") + rf"\{{invalid_frame_end_marker,\s*{end}\}}"
    peer.expect_close(501, re.compile(text))


def test_nothing_after_a_bad_frame_end_is_read(peer: RawPeer, raw: Raw, name: Names) -> None:
    queue = name()
    declare = method(1, commands.Queue.Declare(queue=queue))
    peer.send(frame(8, 0, b"", b"x"), declare)
    peer.expect_close(501, "FRAME_ERROR - type 8, all octets = <<>>: {invalid_frame_end_marker,120}")
    other = raw()
    other.channel(1)
    other.send_method(1, commands.Queue.Declare(queue=queue, passive=True))
    other.expect_close(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'", 50, 10, channel=1)


@pytest.mark.parametrize("kind", [1, 2, 3, 7, 8])
def test_too_large_frame_is_refused_by_its_head(peer: RawPeer, kind: int) -> None:
    peer.send(head(kind, 1, 131073))
    peer.expect_close(501, f"FRAME_ERROR - type {kind}, all octets = <<>>: {{frame_too_large,131073,131064}}")


@pytest.mark.parametrize("size", [200000, 2**31, 2**32 - 1])
@pytest.mark.parametrize("channel", [0, 1, 65535])
def test_too_large_frame_on_any_channel(peer: RawPeer, channel: int, size: int) -> None:
    peer.send(head(1, channel, size))
    peer.expect_close(501, f"FRAME_ERROR - type 1, all octets = <<>>: {{frame_too_large,{size},131064}}")


@pytest.mark.parametrize("frame_max", [4096, 5000, 65536])
def test_negotiated_frame_max_counts(raw: Raw, frame_max: int) -> None:
    peer = raw(frame_max=frame_max)
    size = frame_max + 1
    peer.send(head(3, 1, size))
    peer.expect_close(501, f"FRAME_ERROR - type 3, all octets = <<>>: {{frame_too_large,{size},{frame_max - 8}}}")


@pytest.mark.parametrize("size", [4088, 4089, 4096])
def test_payload_up_to_frame_max_is_let_through(raw: Raw, name: Names, size: int) -> None:
    """Frame head and end should count too, but RabbitMQ forgives clients that get this wrong."""
    peer = raw(frame_max=4096)
    queue = peer.declare(peer.channel(1), name())
    peer.send(publish_method(1, "", queue), header(1, size), body(1, b"x" * size))
    got = peer.get(1, queue)
    assert got is not None and got.body == b"x" * size


def test_frame_of_frame_max_before_open_counts_the_negotiated_one(raw: Raw) -> None:
    peer = raw("tune")
    peer.send(method(0, commands.Connection.TuneOk(2047, 4096, 0)), head(1, 0, 4097))
    peer.expect_close(501, "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,4097,4088}")


# --- frames where none is due ----------------------------------------------------------------------------------------

UNEXPECTED = {
    "header": (header(1, 0), NOT_A_METHOD),
    "header of size 3": (header(1, 3), NOT_A_METHOD),
    "body": (body(1, b"x"), NOT_A_METHOD),
    "empty body": (body(1, b""), NOT_A_METHOD),
    "header on an unopened channel": (header(5, 0), NOT_A_METHOD),
    "body on an unopened channel": (body(5, b"x"), NOT_A_METHOD),
    "heartbeat on channel 1": (frame(8, 1, b""), "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
    "heartbeat on an unopened channel": (frame(8, 77, b""), "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
    "body on channel 0": (body(0, b"x"), 'UNEXPECTED_FRAME - type 3, all octets = <<"x">>'),
    "empty body on channel 0": (body(0, b""), "UNEXPECTED_FRAME - type 3, all octets = <<>>"),
    "header on channel 0": (
        header(0, 1),
        "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,1,0,0>>",
    ),
    "long header on channel 0": (
        header(0, 2**63, b"\xff" * 10),
        "UNEXPECTED_FRAME - type 2, first 16 octets = <<0,60,0,0,128,0,0,0,0,0,0,0,255,255,255,255>>",
    ),
}


@pytest.mark.parametrize(("data", "text"), UNEXPECTED.values(), ids=UNEXPECTED.keys())
def test_unexpected_frame(peer: RawPeer, data: bytes, text: str) -> None:
    peer.send(data)
    peer.expect_close(505, text)
    peer.expect_eof()


def test_heartbeats_may_come_at_any_time(peer: RawPeer) -> None:
    beat = frame(8, 0, b"")
    peer.send(beat * 100, method(1, commands.Channel.Flow(True)), beat)
    peer.expect(20, 21, 1)
    peer.sync(1)


# --- unknown methods -------------------------------------------------------------------------------------------------

UNKNOWN = {
    "method": (1, 60, 250),
    "method of class channel": (1, 20, 99),
    "class": (1, 61, 10),
    "class 0": (1, 0, 0),
    "class file": (1, 70, 10),
    "class test": (1, 120, 10),
    "method on channel 0": (0, 10, 250),
    "class on channel 0": (0, 99, 1),
    "connection.redirect": (0, 10, 42),
    "on an unopened channel": (7, 99, 99),
}


@pytest.mark.parametrize(("channel", "class_id", "method_id"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_unknown_method(peer: RawPeer, channel: int, class_id: int, method_id: int) -> None:
    """RabbitMQ's reader crashes on these: the socket closes at once. A close with a code is as good."""
    peer.send(raw_method(channel, class_id, method_id))
    peer.expect_refusal(501, 503, 540)


# --- however the bytes are cut ---------------------------------------------------------------------------------------


def conversation(queue: str) -> bytes:
    """Methods, contents and heartbeats; the last frame asks for a reply."""
    message = publish_method(1, "", queue) + header(1, 5) + body(1, b"he") + body(1, b"") + body(1, b"llo")
    return (
        method(1, commands.Queue.Declare(queue=queue))
        + message
        + frame(8, 0, b"")
        + publish_method(1, "", queue)
        + header(1, 0)
        + message
        + method(1, commands.Channel.Flow(True))
    )


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 8, 11, 64, 100000])
def test_any_cut_gives_the_same(peer: RawPeer, name: Names, step: int) -> None:
    queue = name()
    peer.send_apart(conversation(queue), step)
    assert peer.expect(50, 11, 1).queue == queue
    peer.expect(20, 21, 1)
    for wanted in [b"hello", b"", b"hello"]:
        got = peer.get(1, queue)
        assert got is not None and got.body == wanted
    assert peer.get(1, queue) is None


@pytest.mark.parametrize("cut", [1, 6, 7, 8, 11, -2, -1], ids=lambda n: f"at {n}")
def test_rest_of_a_frame_is_waited_on(peer: RawPeer, cut: int) -> None:
    data = method(1, commands.Channel.Flow(True))
    peer.send(data[:cut])
    peer.expect_nothing(30)
    peer.send(data[cut:])
    peer.expect(20, 21, 1)


def test_thousand_frames_in_one_write(peer: RawPeer) -> None:
    peer.send(method(1, commands.Channel.Flow(True)) * 1000)
    for _ in range(1000):
        peer.expect(20, 21, 1)


@pytest.mark.parametrize("data", [b"\x01", b"\x01\0\x01\0\0\0\x05", b"\x01\0\x01\0\0\0\x05\0\x14\0\x14\x01"])
def test_end_of_stream_inside_a_frame(peer: RawPeer, data: bytes) -> None:
    peer.send(data)
    peer.shutdown_write()
    peer.expect_eof()
