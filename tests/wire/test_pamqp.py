"""pamqp as an independent oracle: what we encode it decodes, and what it encodes we decode, to the byte where it can.

It differs from us (and from RabbitMQ) on purpose or by mistake in these ways, which the tests steer around:

- it encodes a table's keys in order and cut to 128 bytes, an int in the narrowest of b s u I i l, a float as f;
- a timestamp is a datetime, and beyond the year 2106 is taken for milliseconds;
- a long string that is not UTF-8 is bytes, a key or a short string that is not is an error;
- it refuses to encode reserved arguments other than its defaults (of which two are "0"), names of characters outside
  the specification's, cluster_id, a delivery mode but 1 and 2; it leaves out properties that are empty strings;
- it does not check that arguments or properties fill their frame, and reads several words of flags;
- it has no access.request.
"""

from __future__ import annotations

import datetime
from typing import Any

import pamqp.commands
import pamqp.encode
import pamqp.frame
import pamqp.header
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.values import Float32, Int8, Int16, Int64, Timestamp, UInt8, UInt16, UInt32
from rabbitish.wire.frames import CONTENT_HEAD, FRAME_HEADER, FrameParser, content_frames
from rabbitish.wire.methods import METHODS, BasicPublish, ConnectionStart, ConnectionStartOk, Method, decode_method
from rabbitish.wire.properties import Properties, decode_properties
from rabbitish.wire.table import decode_table, encode_table

from .helpers import FIELDS, decimals, integers, relaxed

COMMON = sorted(set(METHODS) & set(pamqp.commands.INDEX_MAPPING))

names = st.text("abcABC019-_.:@#,/+ ", max_size=127)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
numbers = st.one_of(
    integers(Int8, -(2**7), 2**7 - 1),
    integers(UInt8, 0, 2**8 - 1),
    integers(Int16, -(2**15), 2**15 - 1),
    integers(UInt16, 0, 2**16 - 1),
    integers(UInt32, 0, 2**32 - 1),
    integers(Int64, -(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(Float32),
    st.floats(allow_nan=False, allow_infinity=False),
    decimals,
)
scalars = st.one_of(st.none(), st.booleans(), numbers, text, st.binary(max_size=20), integers(Timestamp, 0, 2**32 - 1))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)
tables = st.dictionaries(names, values, max_size=4)


def seconds(value: Any) -> Any:
    """What pamqp decoded, in our types."""
    if isinstance(value, datetime.datetime):
        return int(value.timestamp())
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, list):
        return [seconds(item) for item in value]
    if isinstance(value, dict):
        return {key: seconds(item) for key, item in value.items()}
    return value


def datetimes(value: Any) -> Any:
    """Our values, in the types that pamqp encodes."""
    if isinstance(value, Timestamp):
        return datetime.datetime.fromtimestamp(value, tz=datetime.UTC)
    if isinstance(value, bytes):
        return bytearray(value)
    if isinstance(value, list):
        return [datetimes(item) for item in value]
    if isinstance(value, dict):
        return {key: datetimes(item) for key, item in value.items()}
    return value


RESERVED = {"ticket", "capabilities", "insist", "known_hosts", "out_of_band", "channel_id", "cluster_id"}


def of_the_specification(cls: type[Method]) -> st.SearchStrategy[Method]:
    """Instances of a method that pamqp is willing to encode: names as the specification has them, reserved defaults."""
    kinds: dict[str, st.SearchStrategy[Any]] = {
        **FIELDS,
        "shortstr": names,
        "longstr": text.map(str.encode),
        "table": tables,
        "longlong": st.integers(0, 2**63 - 1),
    }
    return st.builds(cls, **{name: kinds[kind] for name, kind in cls.fields.items() if name not in RESERVED})


common_methods = st.sampled_from(COMMON).flatmap(lambda ids: of_the_specification(METHODS[ids]))


def test_pamqp_knows_every_method_but_the_relic() -> None:
    assert {METHODS[ids].name for ids in set(METHODS) - set(COMMON)} == {"access.request", "access.request-ok"}
    assert set(pamqp.commands.INDEX_MAPPING) == set(COMMON)


@pytest.mark.parametrize("ids", COMMON, ids=lambda ids: METHODS[ids].name)
def test_pamqp_has_the_same_arguments_and_replies(ids: int) -> None:
    ours, theirs = METHODS[ids], pamqp.commands.INDEX_MAPPING[ids]
    assert list(ours.fields.values()) == [theirs.amqp_type(name) for name in theirs.attributes()]
    renamed = {"exchange_type": "type", "class_id": "class_id_", "method_id": "method_id_"}
    assert list(ours.fields) == [renamed.get(name, name) for name in theirs.attributes()]
    assert [reply.replace("-", "") for reply in ours.replies] == [reply.lower() for reply in theirs.valid_responses]


@relaxed
@given(common_methods, st.integers(0, 65535))
def test_pamqp_decodes_our_methods(method: Method, channel: int) -> None:
    frame = method.frame(channel)
    size, number, theirs = pamqp.frame.unmarshal(frame)
    assert (size, number, theirs.index) == (len(frame), channel, method.class_id << 16 | method.method_id)
    for (ours, kind), name in zip(method.fields.items(), theirs.attributes(), strict=True):
        sent, got = getattr(method, ours), seconds(theirs[name])
        assert got == (sent.decode() if kind == "longstr" else sent)


@relaxed
@given(common_methods, st.integers(0, 65535))
def test_we_decode_the_methods_of_pamqp(method: Method, channel: int) -> None:
    theirs = pamqp.commands.INDEX_MAPPING[method.class_id << 16 | method.method_id]()
    for (ours, kind), name in zip(method.fields.items(), theirs.attributes(), strict=True):
        value = getattr(method, ours)
        if kind == "table":
            value = datetimes(without_wide_floats(value))
        if ours not in RESERVED:
            setattr(theirs, name, value.decode() if kind == "longstr" else value)
    frame = pamqp.frame.marshal(theirs, channel)
    [(_, number, payload)] = FrameParser(0).feed(frame)
    decoded = decode_method(payload)
    assert (number, type(decoded)) == (channel, type(method))
    for name, kind in method.fields.items():
        sent = getattr(method, name)
        assert name in RESERVED or getattr(decoded, name) == (without_wide_floats(sent) if kind == "table" else sent)
    assert decoded.frame(channel) == frame


def without_wide_floats(value: Any) -> Any:
    """pamqp encodes every float in 32 bits, so give it only what fits there."""
    if isinstance(value, float) and not isinstance(value, Float32):
        return 0.5
    if isinstance(value, list):
        return [without_wide_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: without_wide_floats(item) for key, item in value.items()}
    return value


@relaxed
@given(tables)
def test_pamqp_decodes_our_tables(table: dict[str, Any]) -> None:
    raw = encode_table(table)
    size, theirs = pamqp.decode.field_table(raw)
    assert (size, seconds(theirs)) == (len(raw), table)


@relaxed
@given(tables)
def test_we_decode_the_tables_of_pamqp(table: dict[str, Any]) -> None:
    table = without_wide_floats(table)
    raw = pamqp.encode.field_table(datetimes(table))
    ours, pos = decode_table(raw, 0)
    assert (ours, pos) == (table, len(raw))
    assert encode_table(ours) == raw


names_in_pamqp = {"type": "message_type"}
some_properties = st.builds(
    Properties,
    headers=st.none() | tables.map(without_wide_floats),
    delivery_mode=st.sampled_from([None, 1, 2]),
    priority=st.none() | st.integers(0, 255),
    timestamp=st.none() | st.integers(0, 2**32 - 1).map(Timestamp),
    cluster_id=st.none(),
    **{
        name: st.none() | st.text("abcé", min_size=1, max_size=20)
        for name in Properties.__slots__
        if name not in ("headers", "delivery_mode", "priority", "timestamp", "cluster_id")
    },
)


@relaxed
@given(some_properties, st.integers(0, 2**63))
def test_pamqp_decodes_our_properties(properties: Properties, size: int) -> None:
    header = pamqp.header.ContentHeader()
    header.unmarshal(CONTENT_HEAD.pack(60, 0, size) + properties.encode())
    assert (header.class_id, header.body_size) == (60, size)
    for name in Properties.__slots__:
        got = seconds(header.properties[names_in_pamqp.get(name, name)])
        assert (None if got == "" else got) == getattr(properties, name)


@relaxed
@given(some_properties)
def test_we_decode_the_properties_of_pamqp(properties: Properties) -> None:
    theirs = pamqp.commands.Basic.Properties()
    for name in Properties.__slots__:
        if (value := getattr(properties, name)) is not None:
            setattr(theirs, names_in_pamqp.get(name, name), datetimes(value))
    frame = pamqp.frame.marshal(pamqp.header.ContentHeader(0, 5, theirs), 9)
    [(kind, channel, payload)] = FrameParser(0).feed(frame)
    raw = payload[CONTENT_HEAD.size :]
    assert (kind, channel, CONTENT_HEAD.unpack_from(payload)) == (FRAME_HEADER, 9, (60, 0, 5))
    assert decode_properties(raw) == properties
    assert decode_properties(raw).encode() == raw


@relaxed
@given(st.binary(max_size=200))
def test_pamqp_reads_our_content(body: bytes) -> None:
    stream = BasicPublish(routing_key="k").frame(3) + content_frames(3, 60, b"\x10\x00\x02", body, 30)
    got = b""
    kinds = []
    while stream:
        size, channel, each = pamqp.frame.unmarshal(stream)
        stream = stream[size:]
        kinds.append(each.name)
        assert channel == 3
        if each.name == "ContentBody":
            got += each.value
    assert got == body
    assert kinds == ["Basic.Publish", "ContentHeader"] + ["ContentBody"] * -(-len(body) // 22)


def test_a_handshake_in_both_libraries() -> None:
    start = ConnectionStart(server_properties={"product": "RabbitMQ", "capabilities": {"basic.nack": True}})
    _, _, theirs = pamqp.frame.unmarshal(start.frame(0))
    assert (theirs.mechanisms, theirs.locales) == ("PLAIN", "en_US")
    assert theirs.server_properties == start.server_properties
    answer = pamqp.commands.Connection.StartOk({"product": "x"}, "PLAIN", "\0guest\0guest", "en_US")
    [(_, _, payload)] = FrameParser().feed(pamqp.frame.marshal(answer, 0))
    assert decode_method(payload) == ConnectionStartOk({"product": "x"}, "PLAIN", b"\0guest\0guest", "en_US")
