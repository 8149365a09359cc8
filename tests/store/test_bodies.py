"""What stands in records: every body comes back as it went, down to types of table values and bytes of names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rabbitish.core.message import Address
from rabbitish.session.content import PropertyCache, WireCodec, framed_content
from rabbitish.store.bodies import (
    Bound,
    DeclaredExchange,
    DeclaredQueue,
    Named,
    Published,
    decode_removed,
    decode_returned,
    encode_publish_head,
    encode_removed,
    encode_returned,
)
from rabbitish.values import Table
from rabbitish.wire.properties import Properties
from tests.session.harness import examples
from tests.wire.helpers import any_text, exact, tables

CODEC = WireCodec(PropertyCache(100))
lsns = st.integers(0, 2**64 - 1)
numbers = st.integers(0, 2**32 - 1)


@given(st.builds(DeclaredExchange, any_text, any_text, any_text, st.booleans(), st.booleans(), tables))
@examples(100)
def test_exchanges(exchange: DeclaredExchange) -> None:
    found = DeclaredExchange.decode(exchange.encode(CODEC), CODEC)
    assert found[:5] == exchange[:5]
    assert exact(found.arguments) == exact(exchange.arguments)


@given(st.builds(DeclaredQueue, numbers, any_text, any_text, st.booleans(), tables))
@examples(100)
def test_queues(queue: DeclaredQueue) -> None:
    found = DeclaredQueue.decode(queue.encode(CODEC), CODEC)
    assert found[:4] == queue[:4]
    assert exact(found.arguments) == exact(queue.arguments)


@given(st.builds(Bound, any_text, any_text, st.booleans(), any_text, any_text, tables))
@examples(100)
def test_bindings(bound: Bound) -> None:
    body = bound.encode(CODEC)
    found = Bound.decode(body, CODEC)
    assert found[:5] == bound[:5]
    assert exact(found.arguments) == exact(bound.arguments)
    assert found.encode(CODEC) == body  # recovery knows bindings by their bytes


@given(st.builds(Named, any_text, any_text))
@examples(50)
def test_names(named: Named) -> None:
    assert Named.decode(named.encode(), CODEC) == named


@given(
    st.integers(0, 2**63),
    st.integers(1, 2**16 - 1),
    st.lists(numbers, max_size=4),
    any_text,
    any_text,
    st.lists(any_text, max_size=3),
    st.binary(max_size=50),
)
@examples(100)
def test_publishes(
    now: int, channel: int, queues: list[int], exchange: str, key: str, extra: list[str], content: bytes
) -> None:
    body = encode_publish_head(now, channel, queues, Address(exchange, key, tuple(extra))) + content
    assert Published.queues_of(body) == tuple(queues)
    found = Published.decode(body, CODEC)
    assert found[:3] == (now, channel, tuple(queues))
    assert (found.address.exchange, *found.address.routing_keys) == (exchange, key, *extra)
    assert found.content == content


def test_publishes_to_very_many_queues_under_very_long_keys() -> None:
    queues = range(70_000)
    keys = ("k" * 70_000, *["c"] * 70_000)
    body = encode_publish_head(1, 1, queues, Address("e", "key", keys))
    found = Published.decode(body, CODEC)
    assert found.queues == tuple(queues) == Published.queues_of(body)
    assert found.address.extra_keys == keys


@given(numbers, st.lists(lsns, max_size=6))
@examples(50)
def test_removals(queue: int, messages: list[int]) -> None:
    assert decode_removed(encode_removed(queue, messages)) == (queue, tuple(messages))


@given(numbers, lsns, numbers)
@examples(50)
def test_returns(queue: int, lsn: int, returns: int) -> None:
    assert decode_returned(encode_returned(queue, lsn, returns)) == (queue, lsn, returns)


@given(
    st.integers(1, 2**16 - 1),
    st.binary(max_size=5000),
    tables,
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, "0", "1500"]),
    st.sampled_from([None, 0, 9]),
    st.sampled_from([4096, 131_072]),
)
@examples(50)
def test_messages(
    channel: int,
    body: bytes,
    headers: Table,
    mode: int | None,
    expiration: str | None,
    priority: int | None,
    frame_max: int,
) -> None:
    properties = Properties(headers=headers, delivery_mode=mode, expiration=expiration, priority=priority)
    content = framed_content(channel, properties.encode(), len(body), [body], frame_max)
    message = CODEC.message(Address("e", "k"), channel, content)
    assert message.body() == body and message.size == len(body)
    assert exact(message.headers()) == exact(headers)
    assert message.properties() == properties
    assert message.traits == (mode == 2, priority or 0, int(expiration) if expiration else None)
    assert CODEC.channel_of(message) == channel
    assert CODEC.content_of(message) == content
