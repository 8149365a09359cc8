"""Bad input that is well formed: methods that make sense in no order at all, and headers that were made up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.values import Int64, Table, Timestamp
from rabbitish.wire import methods
from rabbitish.wire.frames import content_frames
from rabbitish.wire.method import METHODS, Method
from rabbitish.wire.properties import Properties

from .client import publication
from .fuzzing import DEAD, Stage, cuts, send
from .harness import examples

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


@examples(150)
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
        if pause:
            stage.world.synced()
        for channel in list(stage.bad.session.channels.values()):
            if channel.closing:
                stage.bad.send(agreed, methods.ChannelOpen(), channel=channel.number)
    stage.end()


@examples(100)
@given(
    arguments=st.fixed_dictionaries(
        {"x-dead-letter-exchange": st.just("")},
        optional={
            "x-dead-letter-routing-key": st.sampled_from(["dead", "q", "x" * 255, "x" * 256, "\udcff"]),
            "x-message-ttl": st.sampled_from([0, 5]),
            "x-max-length": st.sampled_from([0, 1]),
            "x-delivery-limit": st.sampled_from([0, 1]),
            "x-queue-type": st.just("quorum"),
        },
    ),
    published=st.lists(st.tuples(properties, st.sampled_from(["q", "dead"])), max_size=4),
)
def test_hostile_headers_on_messages_that_die(arguments: Table, published: list[tuple[Properties, str]]) -> None:
    stage = Stage()
    bad = stage.bad
    bad.send(
        methods.ChannelOpen(),
        methods.QueueDeclare(queue="dead"),
        methods.QueueDeclare(queue="q", durable=True, arguments=arguments),
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
