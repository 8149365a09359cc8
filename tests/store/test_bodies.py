"""What stands in records: every body comes back as it went, down to types of table values and bytes of names."""

from __future__ import annotations

from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from rabbitish.core.changes import Reason
from rabbitish.core.message import Address, Stamp
from rabbitish.session.content import PropertyCache, WireCodec, WireMessage, framed_content
from rabbitish.store.bodies import (
    REASONS,
    Bound,
    DeclaredExchange,
    DeclaredQueue,
    Named,
    Route,
    decode_of_queue,
    decode_returned,
    encode_of_queue,
    encode_returned,
    ranges_of,
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


@given(st.integers(1, 2**16 - 1), st.lists(numbers, max_size=4), any_text, any_text, st.lists(any_text, max_size=3))
@examples(100)
def test_routes(channel: int, queues: list[int], exchange: str, key: str, extra: list[str]) -> None:
    raw = Route(channel, tuple(queues), Address(exchange, key, tuple(extra))).encode()
    found = Route.decode(raw, CODEC)
    assert found[:2] == (channel, tuple(queues))
    assert (found.address.exchange, *found.address.routing_keys) == (exchange, key, *extra)


def test_routes_to_very_many_queues_under_very_long_keys() -> None:
    queues = tuple(range(70_000))
    keys = ("c" * 70_000, *["c"] * 70_000)
    found = Route.decode(Route(1, queues, Address("e", "k" * 70_000, keys)).encode(), CODEC)
    assert found.queues == queues
    assert found.address.routing_key == "k" * 70_000
    assert found.address.extra_keys == keys


ranges = st.lists(st.tuples(lsns, numbers), max_size=6).map(lambda pairs: tuple(chain.from_iterable(pairs)))


@given(numbers, st.integers(0, 255), ranges)
@examples(50)
def test_messages_of_a_queue(queue: int, flags: int, messages: tuple[int, ...]) -> None:
    assert decode_of_queue(encode_of_queue(queue, flags, messages)) == (queue, flags, messages)


def test_every_reason_has_a_number_that_stays() -> None:
    assert REASONS == ("acknowledged", "expired", "maxlen", "rejected", "delivery_limit", "purged", "refused")
    assert set(REASONS) == set(Reason) - {Reason.TAKEN, Reason.COMMITTED}  # told as acknowledged


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30))
@examples(100)
def test_ranges(messages: list[int]) -> None:
    found = ranges_of(messages)
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert [lsn for first, count in pairs for lsn in range(first, first + count)] == messages
    assert all(first + count != following for (first, count), (following, _) in pairwise(pairs))
    assert ranges_of(range(5, 9)) == ranges_of([5, 6, 7, 8]) == [5, 4]


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
    stamp = CODEC.stamp(Address("e", "k"), channel, b"in front" + content, 8)
    messages = CODEC.messages([stamp] * 2, [content, content], 9)
    assert [message.lsn for message in messages] == [9, 10]
    for message in messages:
        assert isinstance(message, WireMessage)
        assert message.body() == body and message.size == len(body)
        assert exact(message.headers()) == exact(headers)
        assert message.properties() == properties
        assert message.traits == (mode == 2, priority or 0, int(expiration) if expiration else None)
        assert CODEC.channel_of(message) == channel
    assert CODEC.contents_of(messages) == [content, content]


def test_messages_alike_share_their_stamp() -> None:
    """Whatever is in their bodies; unlike are those of another size, address, channel or other properties."""
    codec, address = WireCodec(PropertyCache(100)), Address("e", "k")

    def stamp_of(body: bytes, channel: int = 1, to: Address = address, **properties: int) -> Stamp:
        raw = Properties(**properties).encode()  # type: ignore[arg-type]
        return codec.stamp(to, channel, framed_content(channel, raw, len(body), [body], 4096), 0)

    first = stamp_of(b"one", priority=1)
    assert stamp_of(b"two", priority=1) is first
    others = [
        stamp_of(b"three", priority=1),
        stamp_of(b"one", priority=2),
        stamp_of(b"one", 2, priority=1),
        stamp_of(b"one", to=Address("e", "other"), priority=1),
    ]
    assert first not in others and len(set(others)) == 4
    for number in range(5000):
        stamp_of(b"one", to=Address("e", "k"), priority=number % 200)
    assert len(codec._stamps) <= 4096
