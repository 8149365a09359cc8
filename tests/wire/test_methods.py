"""Methods: literal payloads, round trips of all of them, and what is answered to those that do not decode."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import pytest
from hypothesis import given

from rabbitish.errors import AMQPError, ConnectionFailure, ReplyCode
from rabbitish.wire import methods
from rabbitish.wire.codec import Layout
from rabbitish.wire.frames import FrameParser
from rabbitish.wire.method import Method
from rabbitish.wire.methods import decode_method

from .helpers import any_method, every_method, exact, relaxed

LITERALS: list[tuple[Method, bytes]] = [
    (
        methods.QueueDeclare(queue="q", durable=True, auto_delete=True, arguments={"n": 1}),
        b"\x00\x32\x00\x0a\x00\x00\x01q\x0a\x00\x00\x00\x07\x01nI\x00\x00\x00\x01",
    ),
    (
        methods.QueueDeclare(ticket=258, passive=True, exclusive=True, nowait=True),
        b"\x00\x32\x00\x0a\x01\x02\x00\x15\x00\x00\x00\x00",
    ),
    (methods.QueueDeclareOk("é", 1, 2), b"\x00\x32\x00\x0b\x02\xc3\xa9\x00\x00\x00\x01\x00\x00\x00\x02"),
    (methods.ConnectionTune(2047, 131072, 60), b"\x00\x0a\x00\x1e\x07\xff\x00\x02\x00\x00\x00\x3c"),
    (
        methods.ConnectionStart(0, 9, {}, b"PLAIN AMQPLAIN", b"en_US"),
        b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x00\x00\x00\x00\x0ePLAIN AMQPLAIN\x00\x00\x00\x05en_US",
    ),
    (
        methods.ConnectionStartOk({"a": None}, "PLAIN", b"\x00guest\xff", "en_US"),
        b"\x00\x0a\x00\x0b\x00\x00\x00\x03\x01aV\x05PLAIN\x00\x00\x00\x07\x00guest\xff\x05en_US",
    ),
    (methods.ConnectionOpen("/", insist=True), b"\x00\x0a\x00\x28\x01/\x00\x01"),
    (
        methods.ChannelClose(404, "NOT_FOUND", 50, 10),
        b"\x00\x14\x00\x28\x01\x94\x09NOT_FOUND\x00\x32\x00\x0a",
    ),
    (methods.ChannelOpenOk(), b"\x00\x14\x00\x0b\x00\x00\x00\x00"),
    (methods.BasicQos(0, 10, True), b"\x00\x3c\x00\x0a\x00\x00\x00\x00\x00\x0a\x01"),
    (
        methods.BasicPublish(exchange="e", routing_key="k", immediate=True),
        b"\x00\x3c\x00\x28\x00\x00\x01e\x01k\x02",
    ),
    (
        methods.BasicDeliver("c", 2**64 - 1, True, "e", "k"),
        b"\x00\x3c\x00\x3c\x01c\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01e\x01k",
    ),
    (methods.BasicNack(1, multiple=True), b"\x00\x3c\x00\x78\x00\x00\x00\x00\x00\x00\x00\x01\x03"),
    (methods.TxSelect(), b"\x00\x5a\x00\x0a"),
]


@pytest.mark.parametrize(("method", "payload"), LITERALS, ids=lambda value: getattr(value, "name", ""))
def test_a_payload_both_ways(method: Method, payload: bytes) -> None:
    assert method.encode() == payload
    decoded = decode_method(payload)
    assert (type(decoded), decoded) == (type(method), method)
    assert method.frame(300) == b"\x01\x01\x2c" + struct.pack(">I", len(payload)) + payload + b"\xce"


def fields_of(method: Method) -> list[Any]:
    return [exact(getattr(method, name)) for name in method.fields]


@relaxed
@given(any_method)
def test_round_trip_whole_in_bytes_and_with_a_tail(method: Method) -> None:
    frame = method.frame(7)
    whole, pieces, tailed = FrameParser(0), FrameParser(0), FrameParser(0)
    got = [
        list(whole.feed(frame)),
        [each for at in range(len(frame)) for each in pieces.feed(frame[at : at + 1])],
        list(tailed.feed(frame + frame[:-1])),
    ]
    assert got == [[(1, 7, method.encode())]] * 3
    decoded = decode_method(got[0][0][2])
    assert (type(decoded), fields_of(decoded)) == (type(method), fields_of(method))
    assert decoded.encode() == method.encode()


@pytest.mark.parametrize("cls", every_method, ids=lambda cls: cls.name)
def test_every_method_has_defaults_and_is_immutable(cls: type[Method]) -> None:
    method = cls()
    assert decode_method(method.encode()) == method
    assert not hasattr(method, "__dict__")
    for name in cls.fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, name, None)


@pytest.mark.parametrize("cls", every_method, ids=lambda cls: cls.name)
def test_arguments_must_fill_the_payload_exactly(cls: type[Method]) -> None:
    payload = cls().encode()
    for wrong in (*(payload[:size] for size in range(4, len(payload))), payload + b"\x00"):
        with pytest.raises(ConnectionFailure) as failure:
            decode_method(wrong)
        octets = ",".join(str(octet) for octet in wrong[4:])
        assert str(failure.value) == f"501 FRAME_ERROR - cannot decode <<{octets}>>"
        assert (failure.value.class_id, failure.value.method_id) == (cls.class_id, cls.method_id)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        # What RabbitMQ 3.10.8 answers to the same bytes, class and method 50, 10.
        (b"\x00\x32\x00\x0a\x00\x00\x01q\x01\x00\x00\x00\x09abc", "<<0,0,1,113,1,0,0,0,9,97,98,99>>"),
        (b"\x00\x32\x00\x0a\x00\x00\x01q\x01\x00\x00\x00\x00xyz", "<<0,0,1,113,1,0,0,0,0,120,121,122>>"),
        (b"\x00\x32\x00\x0a\x00\x00\x05a\xe9", "<<0,0,5,97,233>>"),
    ],
)
def test_a_length_that_does_not_fit(payload: bytes, text: str) -> None:
    with pytest.raises(ConnectionFailure) as failure:
        decode_method(payload)
    assert failure.value.text == f"FRAME_ERROR - cannot decode {text}"
    assert (failure.value.class_id, failure.value.method_id) == (50, 10)


def test_a_table_that_makes_no_sense_is_541_and_blamed_on_no_method() -> None:
    with pytest.raises(ConnectionFailure) as failure:
        decode_method(b"\x00\x32\x00\x0a\x00\x00\x01q\x01\x00\x00\x00\x03\x01kZ")
    assert (failure.value.code, failure.value.text) == (ReplyCode.INTERNAL_ERROR, "INTERNAL_ERROR")
    assert (failure.value.class_id, failure.value.method_id) == (0, 0)


@pytest.mark.parametrize("text", [b"\xe9", b"\xc3", b"a\xff", b"\xed\xa0\x80"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\x00\x32\x00\x0a\x00\x00", b"\x01\x00\x00\x00\x00"),  # queue.declare
        (b"\x00\x14\x00\x28\x00\xc8", b"\x00\x00\x00\x00"),  # channel.close
    ],
)
def test_a_short_string_must_be_utf8(before: bytes, text: bytes, after: bytes) -> None:
    """As in RabbitMQ, but for the last one: it lets encoded surrogates pass, which no UTF-8 is allowed to have."""
    with pytest.raises(ConnectionFailure) as failure:
        decode_method(before + bytes((len(text),)) + text + after)
    assert str(failure.value) == "501 FRAME_ERROR - Malformed UTF-8 in shortstr"
    assert (failure.value.class_id, failure.value.method_id) == (0, 0)


@pytest.mark.parametrize(
    "method",
    [
        methods.BasicPublish(exchange="\udce9", routing_key="\udcff\udc80"),
        methods.BasicReturn(312, "NO_ROUTE", "\udce9", "\udcff"),
        methods.BasicDeliver("\udcff", 1, False, "\udce9", "\udcff"),
        methods.BasicGetOk(1, False, "\udce9", "\udcff"),
    ],
    ids=lambda method: method.name,
)
def test_where_a_short_string_may_be_any_bytes_it_survives(method: Method) -> None:
    payload = method.encode()
    assert b"\x01\xe9" in payload
    assert decode_method(payload) == method
    assert decode_method(payload).encode() == payload


@pytest.mark.parametrize(("class_id", "method_id"), [(50, 99), (99, 10), (0, 0), (65535, 65535), (40, 41)])
def test_an_unknown_method_is_503(class_id: int, method_id: int) -> None:
    with pytest.raises(ConnectionFailure) as failure:
        decode_method(struct.pack(">HH", class_id, method_id) + b"anything")
    assert str(failure.value) == f"503 COMMAND_INVALID - unknown method ({class_id},{method_id})"
    assert (failure.value.class_id, failure.value.method_id) == (class_id, method_id)


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x32\x00"])
def test_a_payload_without_ids_is_501(payload: bytes) -> None:
    with pytest.raises(AMQPError) as failure:
        decode_method(payload)
    assert failure.value.code is ReplyCode.FRAME_ERROR


@pytest.mark.parametrize(
    "method",
    [
        methods.QueueDeclare(queue="q" * 256),
        methods.QueueDeclare(queue="é" * 128),
        methods.QueueDeclare(queue="\ud800"),
        methods.QueueDeclare(ticket=65536),
        methods.QueueDeclare(arguments={"n": 2**63}),
        methods.BasicAck(-1),
        methods.BasicAck(2**64),
        methods.ConnectionTune(frame_max=2**32),
        methods.ConnectionStart(version_major=256),
    ],
    ids=str,
)
def test_an_argument_that_does_not_fit_is_a_value_error(method: Method) -> None:
    with pytest.raises(ValueError):
        method.encode()


def test_arguments_of_two_methods_are_not_one_table() -> None:
    first = methods.QueueDeclare()
    first.arguments["x"] = 1
    assert methods.QueueDeclare().arguments == {}


def test_bits_share_an_octet_only_with_their_neighbours() -> None:
    layout = Layout({"a": "bit", "b": "short", "c": "bit", "d": "bit"}, strict_text=True)
    assert layout.encode(b"head", [True, 5, False, True]) == b"head\x01\x00\x05\x02"
    assert layout.decode(b"head\xff\x00\x05\xff") == [True, 5, True, True]


def test_methods_are_values() -> None:
    """Equal, hashed and shown as dataclasses are, frozen as well."""
    ack = methods.BasicAck(delivery_tag=1)
    assert ack == methods.BasicAck(1, multiple=False)
    assert ack != methods.BasicAck(2)
    assert methods.TxSelect() == methods.TxSelect() != methods.TxCommit()
    assert ack != 1
    assert len({ack, methods.BasicAck(1), methods.BasicNack(1)}) == 2
    assert repr(ack) == "BasicAck(delivery_tag=1, multiple=False)"
    assert repr(methods.TxSelect()) == "TxSelect()"
    with pytest.raises(dataclasses.FrozenInstanceError):
        ack.multiple = True  # type: ignore[misc]
