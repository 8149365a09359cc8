"""Bad input: whatever a peer sends is accepted, or answered with a close; nothing raises, and nobody else notices.

Every example has a well-behaved client beside the bad one. At the end the good one must still get a message through,
nothing of ours may have gone wrong, and when the bad one is gone nothing of it may be left.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.errors import ReplyCode
from rabbitish.values import Int64, Table, Timestamp
from rabbitish.wire import methods
from rabbitish.wire.frames import HEAD, HEARTBEAT, PROTOCOL_HEADER, content_frames
from rabbitish.wire.method import METHODS, Method
from rabbitish.wire.properties import Properties
from rabbitish.wire.table import encode_table

from .client import Client, publication, start_ok
from .harness import World, examples

KIB = 1024
CODES = {int(code) for code in ReplyCode}
LIMITS = methods.ConnectionTuneOk(channel_max=2047, frame_max=131_072, heartbeat=60)
LOGIN: list[bytes] = [
    PROTOCOL_HEADER,
    start_ok("guest", "guest", {"product": "fuzz", "capabilities": {"consumer_cancel_notify": True}}).frame(0),
    LIMITS.frame(0),
    methods.ConnectionOpen().frame(0),
]
DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def conversation() -> list[bytes]:
    """A valid conversation with something of everything in it, in pieces that belong together."""
    a, b = 1, 2
    one = [
        methods.ChannelOpen(),
        methods.QueueDeclare(queue="dead"),
        methods.QueueDeclare(queue="q", arguments={**DEAD, "x-message-ttl": 60_000, "x-max-length": 3}),
        methods.ExchangeDeclare(exchange="x", type="headers", arguments={"alternate-exchange": "amq.fanout"}),
        methods.QueueBind(queue="q", exchange="x", arguments={"x-match": "any", "a": 1, "t": {"n": [1, "x", None]}}),
        methods.ExchangeBind(destination="x", source="amq.topic", routing_key="a.*.#"),
        methods.ConfirmSelect(),
        methods.BasicQos(prefetch_count=2),
        methods.BasicConsume(queue="q", consumer_tag="t", arguments={"x-priority": 3}),
    ]
    two = [methods.ChannelOpen(), methods.TxSelect(), methods.BasicConsume(queue="amq.rabbitmq.reply-to", no_ack=True)]
    said = [method.frame(a) for method in one] + [method.frame(b) for method in two]
    said += [
        publication("q", b"body", headers={"a": 1}, mandatory=True),
        publication("a.b", b"body", exchange="amq.topic", headers={"CC": ["q"], "BCC": ["dead"]}, delivery_mode=2),
        publication("q", b"x" * 500, frame_max=108, channel=b, reply_to="amq.rabbitmq.reply-to", expiration="1000"),
        methods.TxCommit().frame(b),
        publication("q", b"", user_id="guest", priority=3) * 3,
        methods.BasicAck(delivery_tag=1).frame(a),
        methods.BasicNack(delivery_tag=2, requeue=True).frame(a),
        HEARTBEAT,
        methods.BasicGet(queue="q").frame(a),
        methods.BasicReject(delivery_tag=3, requeue=False).frame(a),
        methods.BasicRecover(requeue=True).frame(b),
        methods.BasicCancel(consumer_tag="t").frame(a),
        methods.QueuePurge(queue="q").frame(a),
        methods.QueueUnbind(queue="q", exchange="x", arguments={"a": 1}).frame(a),
        methods.ChannelFlow(active=True).frame(a),
        methods.QueueDelete(queue="q").frame(a),
        methods.ExchangeDelete(exchange="x", if_unused=True).frame(a),
        methods.ConnectionUpdateSecret(new_secret=b"s").frame(0),
        methods.ChannelClose().frame(b),
        methods.ConnectionClose().frame(0),
    ]
    return said


CONVERSATION = conversation()


class Stage:
    """A world with a good client, and a bad one as far as it has come."""

    def __init__(self, reached: int = len(LOGIN)) -> None:
        self.world = World(
            outbox_bytes_high=64 * KIB,
            outbox_bytes_low=16 * KIB,
            max_message_bytes=KIB * KIB,
            partial_content_bytes=2 * KIB * KIB,
        )
        self.good = self.world.client(heartbeat=0)
        self.good.declare("good")
        self.good.consume("good", no_ack=True)
        self.bad = self.world.connect()
        for data in LOGIN[:reached]:
            self.bad.raw(data)
            self.world.settle()

    def end(self) -> None:
        """What must hold whatever was sent."""
        world, bad, good = self.world, self.bad, self.good
        world.settle()
        self.check_close()
        assert bad.session.outbox.size <= 8 * world.settings.outbox_bytes_high
        good.answers()
        good.publish("good", b"still here")
        assert good.bodies() == [b"still here"]
        world.advance(1000)
        bad.hang_up()
        assert world.hub.sessions == {good.session}
        assert world.hub.partial_bytes == 0
        assert not any(queue.unacked for queue in world.vhost.queues.values())
        assert len(world.queue("good").consumers) == 1
        world.advance(120_000)
        assert good.session.state == "running"
        assert world.exceptions == []

    def check_close(self) -> None:
        """A bad peer is still listened to, or told why not, or not worth an answer."""
        closes = [said.method for said in self.bad.answers() if isinstance(said.method, methods.ConnectionClose)]
        assert len(closes) <= 1
        for close in closes:
            assert close.reply_code in CODES
            assert close.reply_text.startswith(ReplyCode(close.reply_code).name)
        if self.bad.session.state == "closing":
            assert closes


def chop(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def send(stage: Stage, pieces: list[bytes], cuts: list[int], *, together: bool = True) -> None:
    """Send all of it cut anywhere, or piece by piece."""
    for piece in chop(b"".join(pieces), cuts) if together else pieces:
        stage.bad.raw(piece)
        stage.world.settle()


cuts = st.lists(st.integers(0, 100_000), max_size=4)
numbers = st.one_of(st.integers(0, 4), st.sampled_from([0, 1, 2, 3, 255, 2047, 65_535]))


def test_the_conversation_is_valid() -> None:
    stage = Stage()
    send(stage, CONVERSATION, [], together=False)
    assert stage.bad.methods()[-1] == methods.ConnectionCloseOk()
    assert [record for record in stage.world.records if record.level != "info"] == []
    stage.end()


# --- bytes -----------------------------------------------------------------------------------------------------------


@examples(150)
@given(reached=st.integers(0, len(LOGIN)), data=st.binary(max_size=600), cuts=cuts)
def test_random_bytes(reached: int, data: bytes, cuts: list[int]) -> None:
    stage = Stage(reached)
    send(stage, [data], cuts)
    stage.end()


@examples(150)
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


@examples(150)
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


@examples(200)
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


# --- methods that make sense, in no order at all ---------------------------------------------------------------------

names = st.sampled_from(
    ["", "q", "p", "dead", "x", "t", "amq.direct", "amq.fanout", "amq.headers", "amq.rabbitmq.reply-to", "amq.q"]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([Int64(2**63 - 1), Int64(-(2**63)), Timestamp(2**64 - 1), 0, 1, -1]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["q", "all", "any", "x" * 300, "reject-publish", "drop-head", "dead", "\udcff"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
QUEUE_ARGUMENTS = """x-message-ttl x-expires x-max-length x-max-length-bytes x-max-priority x-overflow x-delivery-limit
    x-dead-letter-exchange x-dead-letter-routing-key x-single-active-consumer x-consumer-timeout
    x-match alternate-exchange x-priority x-queue-type a"""
queue_arguments = st.dictionaries(
    st.sampled_from(QUEUE_ARGUMENTS.split()),
    st.one_of(
        st.integers(0, 5), st.sampled_from(["", "amq.fanout", "dead", "reject-publish", "classic", True]), values
    ),
    max_size=3,
)
fields: dict[str, st.SearchStrategy[Any]] = {
    "bit": st.sampled_from([False, False, True]),
    "octet": st.integers(0, 255),
    "short": st.integers(0, 3) | st.integers(0, 65_535),
    "long": st.sampled_from([0, 0, 0, 1, 2**32 - 1]),
    "longlong": st.integers(0, 6) | st.sampled_from([2**63, 2**64 - 1]),
    "shortstr": names,
    "longstr": st.binary(max_size=20),
    "table": queue_arguments,
}
useful = [kind for kind in METHODS.values() if not kind.name.endswith("-ok") and kind.class_id != 10]
any_method = st.sampled_from(useful).flatmap(
    lambda kind: st.builds(kind, **{name: fields[of] for name, of in kind.fields.items()})
)
deaths = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "queue": st.sampled_from(["q", "p"]) | values,
            "reason": st.sampled_from(["expired", "rejected", "maxlen"]) | values,
            "count": scalars,
            "routing-keys": values,
        },
    )
    | values,
    max_size=3,
)
headers = st.fixed_dictionaries(
    {}, optional={"x-death": deaths | values, "CC": st.lists(names) | values, "x-delivery-count": scalars, "a": values}
)
properties = st.builds(
    Properties,
    headers=st.none() | headers,
    expiration=st.sampled_from([None, None, "0", "1", "10", "-1", "soon"]),
    delivery_mode=st.sampled_from([None, 1, 2, 2, 9]),
    priority=st.sampled_from([None, 0, 3, 255]),
    reply_to=st.sampled_from([None, None, "amq.rabbitmq.reply-to"]),
    user_id=st.sampled_from([None, None, None, "guest", "joe"]),
)


def encoded(method: Method, properties: Properties, body: bytes, number: int) -> bytes:
    content = content_frames(number, 60, properties.encode(), body, 131_072) if method.has_content else b""
    return method.frame(number) + content


@examples(250)
@given(
    said=st.lists(
        st.tuples(any_method, properties, st.binary(max_size=30), st.sampled_from([1, 1, 1, 2])), max_size=20
    ),
    cuts=cuts,
    pause=st.sampled_from([0, 1, 5, 20]),
)
def test_any_methods_in_any_order(
    said: list[tuple[Method, Properties, bytes, int]], cuts: list[int], pause: int
) -> None:
    stage = Stage()
    opened = methods.ChannelOpen().frame(1) + methods.ChannelOpen().frame(2)
    agreed = methods.ChannelCloseOk()
    stage.bad.raw(opened)
    for method, about, body, number in said:
        send(stage, [encoded(method, about, body, number)], cuts)
        stage.world.advance(pause)
        for channel in list(stage.bad.session.channels.values()):
            if channel.closing:
                stage.bad.send(agreed, methods.ChannelOpen(), channel=channel.number)
    stage.end()


@examples(200)
@given(
    arguments=st.fixed_dictionaries(
        {"x-dead-letter-exchange": st.just("")},
        optional={
            "x-dead-letter-routing-key": st.sampled_from(["dead", "q", "x" * 255, "x" * 256, "\udcff"]),
            "x-message-ttl": st.sampled_from([0, 5]),
            "x-max-length": st.sampled_from([0, 1]),
            "x-delivery-limit": st.sampled_from([0, 1]),
        },
    ),
    published=st.lists(st.tuples(properties, st.sampled_from(["q", "dead"])), max_size=4),
)
def test_hostile_headers_on_messages_that_die(arguments: Table, published: list[tuple[Properties, str]]) -> None:
    stage = Stage()
    bad = stage.bad
    bad.send(
        methods.ChannelOpen(), methods.QueueDeclare(queue="dead"), methods.QueueDeclare(queue="q", arguments=arguments)
    )
    for about, key in published:
        bad.raw(encoded(methods.BasicPublish(routing_key=key), about, b"x", 1))
        bad.send(
            methods.BasicGet(queue="q"), methods.BasicGet(queue="q"), methods.BasicNack(delivery_tag=0, requeue=True)
        )
        bad.send(methods.BasicGet(queue="q"), methods.BasicNack(delivery_tag=0, requeue=False))
        stage.world.advance(3)
    bad.send(methods.BasicConsume(queue="dead", no_ack=True))
    stage.world.advance(20)
    stage.end()


@pytest.mark.parametrize(
    ("count", "next_count"),
    [
        (1, 2),
        (-5, -4),
        (Int64(2**63 - 1), 2**63 - 1),
        (Timestamp(2**64 - 1), 2**63 - 1),
        (True, 2),
        (1.5, 1),
        ("x", 1),
        (None, 1),
    ],
)
def test_death_counts_that_were_made_up(count: object, next_count: int) -> None:
    stage = Stage()
    stage.good.declare("dead")
    stage.good.declare("q", arguments={**DEAD, "x-max-length": 0})
    about: Any = {"x-death": [{"queue": "q", "reason": "maxlen", "count": count}]}
    stage.bad.raw(methods.ChannelOpen().frame(1) + publication("q", b"x", headers=about))
    stage.world.settle()
    said = stage.good.get("dead")
    assert said is not None and said.props.headers is not None
    (death,) = said.props.headers["x-death"]  # type: ignore[misc]
    assert death["count"] == next_count  # type: ignore[index,call-overload]
    stage.end()


def test_a_routing_key_for_the_dead_that_no_delivery_could_carry() -> None:
    stage = Stage()
    long = {**DEAD, "x-dead-letter-routing-key": "x" * 256}
    stage.bad.send(methods.ChannelOpen(), methods.QueueDeclare(queue="q", arguments=long))
    (close,) = [said.method for said in stage.bad.answers() if isinstance(said.method, methods.ChannelClose)]
    assert close.reply_code == 406 and "value_too_long,256" in close.reply_text
    stage.end()


# --- too much --------------------------------------------------------------------------------------------------------


def nested(depth: int, array: bool) -> Table:
    value: Any = 1
    for _ in range(depth):
        value = [value] if array else {"n": value}
    return {"n": value}


def encoded_nested(depth: int, array: bool) -> bytes:
    """Deeper than what our own encoder is willing to write."""
    raw = b"I\0\0\0\1"
    for _ in range(depth):
        inner = raw if array else b"\1n" + raw
        raw = (b"A" if array else b"F") + len(inner).to_bytes(4, "big") + inner
    raw = b"\1n" + raw
    return len(raw).to_bytes(4, "big") + raw


@pytest.mark.parametrize("depth", [1, 50, 99, 100, 101, 500, 10_000])
@pytest.mark.parametrize("array", [False, True])
def test_deep_tables(depth: int, array: bool) -> None:
    table = encoded_nested(depth, array)
    if depth == 50:
        assert table == encode_table(nested(depth, array))
    stage = Stage()
    declare = methods.QueueDeclare(queue="q").encode()[:-4] + table
    stage.bad.raw(methods.ChannelOpen().frame(1) + HEAD.pack(1, 1, len(declare)) + declare + b"\xce")
    bind = methods.QueueBind(queue="q", exchange="amq.headers").encode()[:-4] + table
    stage.bad.raw(HEAD.pack(1, 1, len(bind)) + bind + b"\xce")
    for key in ("q", "dead"):
        stage.bad.raw(publication(key, b"x", properties=b"\x20\0" + table, exchange="amq.headers"))
    stage.end()
    stage = Stage(1)
    login = start_ok("guest", "guest").encode()
    login = login[:4] + table + login[8:]
    stage.bad.raw(HEAD.pack(1, 0, len(login)) + login + b"\xce")
    stage.end()


@pytest.mark.parametrize("kind", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("size", [131_064, 131_065, 131_072, 131_073, 1 << 31, (1 << 32) - 1])
def test_oversized_frames(kind: int, size: int) -> None:
    stage = Stage()
    stage.bad.raw(methods.ChannelOpen().frame(1) + HEAD.pack(kind, 1, size))
    for _ in range(20):
        stage.bad.raw(bytes(20_000))
    assert sum(map(len, (stage.bad.session.parser.data,))) < 300_000
    stage.end()


def test_a_flood_of_channels() -> None:
    stage = Stage()
    for first in range(1, 60_000, 500):
        stage.bad.raw(b"".join(methods.ChannelOpen().frame(number) for number in range(first, first + 500)))
    assert len(stage.bad.session.channels) == 0, "one too many costs them all"
    stage.end()


@pytest.mark.parametrize(
    "said",
    [
        methods.QueueDeclare(queue="q" * 255).frame(1),
        methods.BasicGet(queue="large").frame(1),
        methods.BasicQos(prefetch_count=1).frame(1),
        methods.BasicRecover(requeue=True).frame(1),
        publication("nowhere", bytes(10 * KIB), mandatory=True),
        publication("large", bytes(10 * KIB)),
        methods.ConnectionUpdateSecret().frame(0),
        methods.BasicConsume(queue="large", no_ack=True).frame(1),
    ],
    ids=["declare", "get", "qos", "recover", "return", "publish", "secret", "consume"],
)
def test_one_that_never_reads(said: bytes) -> None:
    """Its outbox grows to a few times the high mark, and then it is not read from any more."""
    stage = Stage()
    stage.good.declare("large")
    stage.good.publish("large", *[bytes(5 * KIB)] * 400)
    stage.bad.send(methods.ChannelOpen(), methods.BasicConsume(queue="large"))
    stage.world.settle()
    stage.bad.reading = False
    for _ in range(20):
        stage.bad.raw(said * 100 if len(said) < KIB else said * 10)
        stage.world.settle()
    session = stage.bad.session
    assert session.outbox.size <= 8 * stage.world.settings.outbox_bytes_high
    assert len(session.outbox.waiters) < 4000
    stage.end()


def test_bodies_that_never_end() -> None:
    stage = Stage()
    stage.bad.raw(b"".join(methods.ChannelOpen().frame(number) for number in range(1, 1000)))
    for number in range(1, 1000):
        header = content_frames(number, 60, b"\0\0", bytes(100 * KIB), 131_072)[:22]
        stage.bad.raw(methods.BasicPublish().frame(number) + header)
    assert stage.bad.session.state == "closing"
    assert stage.world.hub.partial_bytes == 0
    stage.end()


def test_many_half_open_peers() -> None:
    stage = Stage()
    for number in range(500):
        client = stage.world.connect()
        client.raw(b"".join(LOGIN)[: number % 80])
    assert len(stage.world.hub.sessions) == 502
    stage.world.advance(10_000)
    assert len(stage.world.hub.sessions) == 2
    stage.end()


def test_a_client_that_stays_after_all(world: World) -> None:
    """The measure itself: a bad peer in this sense is any Client, and a good one passes too."""
    client: Client = world.client()
    client.declare("q")
    client.publish("q", b"x")
    assert client.drain("q") == [b"x"] and world.exceptions == []
