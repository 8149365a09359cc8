"""Deliveries in any pieces and of any shape are counted, timed and acknowledged as one by one."""

from __future__ import annotations

import random

import pytest

from rabbitish.perf.consumer import Consumer, Shape, acks
from rabbitish.perf.payload import Stamping
from rabbitish.perf.peer import PeerError
from rabbitish.perf.stats import Stats
from rabbitish.wire import methods
from rabbitish.wire.frames import HEARTBEAT
from rabbitish.wire.method import Method
from tests.perf.support import TAG, body, delivery, plan, said, welcome


def consumer(stats: Stats | None = None, kind: type[Consumer] = Consumer, **options: object) -> Consumer:
    """A consumer that has been let in and has begun."""
    made = kind(plan(queue="q", **options), 0, ["q"], stats or Stats(), Stamping())
    welcome(made)
    for count in ("qos", "global_qos"):
        if options.get(count):
            made.receive(methods.BasicQosOk().frame(1), 0)
            made.take(0)
    assert made.ready
    made.begin()
    (consume,) = said(made.take(0))
    assert consume == methods.BasicConsume(queue="q", no_ack=bool(options.get("autoack")))
    assert not made.ready
    made.receive(methods.BasicConsumeOk(TAG).frame(1), 0)
    assert made.ready
    return made


def acked(peer: Consumer) -> list[tuple[int, bool]]:
    """The acknowledgements that it sends."""
    sent = said(peer.take(0))
    assert all(isinstance(method, methods.BasicAck) for method in sent)
    return [(method.delivery_tag, method.multiple) for method in sent if isinstance(method, methods.BasicAck)]


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, []),
        ({"qos": 5}, [methods.BasicQos(prefetch_count=5)]),
        ({"global_qos": 6}, [methods.BasicQos(prefetch_count=6, global_=True)]),
        ({"qos": 5, "global_qos": 6}, [methods.BasicQos(prefetch_count=5), methods.BasicQos(0, 6, True)]),
    ],
)
def test_prefetch(options: dict[str, object], asked: list[Method]) -> None:
    peer = Consumer(plan(queue="q", **options), 0, ["q"], Stats(), Stamping())
    sent = welcome(peer)[4:]
    while not peer.ready:
        peer.receive(methods.BasicQosOk().frame(1), 0)
        sent += said(peer.take(0))
    assert sent == asked


def test_consumers_take_queues_in_turn() -> None:
    peer = Consumer(plan(queue_pattern="q%d", queue_pattern_to=2, consumers=4), 3, ["q1", "q2"], Stats(), Stamping())
    welcome(peer)
    peer.begin()
    assert said(peer.take(0)) == [methods.BasicConsume(queue="q2")]


# --- Counting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 11, 12, 13, 500, 5000])
@pytest.mark.parametrize("piece", [1, 9, 64, 1000, 10**6])
def test_deliveries_in_pieces(size: int, piece: int) -> None:
    stats = Stats()
    peer = consumer(stats)
    content = body(1000, size) if size >= 12 else b"x" * size
    data = b"".join(delivery(tag, content) for tag in range(1, 11))
    for start in range(0, len(data), piece):
        peer.receive(data[start : start + piece], 1500)
    assert (stats.consumed, stats.consumed_bytes, stats.last_consumed) == (10, 10 * size, 1500)
    assert acked(peer) == [(tag, False) for tag in range(1, 11)]
    histogram = stats.latency
    assert (histogram.count, histogram.lowest, histogram.highest) == ((10, 500, 500) if size >= 12 else (0, 0, 0))


def test_a_body_in_several_frames() -> None:
    stats = Stats()
    peer = consumer(stats)
    peer.receive(b"".join(delivery(tag, body(100, 10_000), frame_max=4096) for tag in (1, 2, 3)), 350)
    assert (stats.consumed, stats.consumed_bytes) == (3, 30_000)
    assert (stats.latency.count, stats.latency.lowest, stats.latency.highest) == (3, 250, 250)


@pytest.mark.parametrize("seed", range(30))
def test_mixed_traffic(seed: int) -> None:
    """Whatever changes from one delivery to the next, and however the stream is cut."""
    chance = random.Random(seed)
    stats = Stats()
    peer = consumer(stats)
    now, total, data, latencies = 10**9, 0, b"", []
    count = chance.randint(1, 200)
    calm = chance.random()  # mostly alike, or not
    looks = (False, "q", 0, 12)
    for tag in range(1, count + 1):
        if chance.random() > calm:
            looks = (
                chance.random() < 0.2,
                chance.choice(["q", "r", "longer"]),
                chance.randint(0, 9),
                chance.choice([5, 12, 12, 40, 5000]),
            )
        redelivered, key, priority, size = looks
        stamp = now - chance.randint(1, 5) * 1000
        content = body(stamp, size) if size >= 12 else b"x" * size
        if size >= 12:
            latencies.append(now - stamp)
        total += size
        data += delivery(tag, content, redelivered=redelivered, key=key, frame_max=4096, priority=priority)
        if chance.random() < 0.02:
            data += HEARTBEAT
    tags: list[tuple[int, bool]] = []
    while data:
        cut = chance.randint(1, 3000)
        peer.receive(data[:cut], now)
        tags += acked(peer)
        data = data[cut:]
    assert tags == [(tag, False) for tag in range(1, count + 1)]
    assert (stats.consumed, stats.consumed_bytes) == (count, total)
    assert (stats.latency.count, stats.latency.total) == (len(latencies), sum(latencies))


def test_the_fast_way_is_taken() -> None:
    """Of many alike the first is read frame by frame, and one after each change."""
    seen: list[int] = []

    class Watched(Consumer):
        def on_method(self, method: Method, payload: bytes, now: int) -> None:
            if isinstance(method, methods.BasicDeliver):
                seen.append(method.delivery_tag)
            super().on_method(method, payload, now)

    peer = consumer(kind=Watched)
    peer.receive(b"".join(delivery(tag, body(1)) for tag in range(1, 100)), 5)
    peer.receive(b"".join(delivery(tag, body(tag), priority=tag % 2) for tag in range(100, 200)), 500)
    peer.receive(b"".join(delivery(tag, body(tag, 30)) for tag in range(200, 300)), 500)
    peer.receive(b"".join(delivery(tag, body(tag, 30), key="longer") for tag in range(300, 400)), 500)
    assert seen == [1, 101, 200, 300]


def test_what_is_remembered_is_bounded() -> None:
    shape = Shape(b"before", b"000", 12)
    assert all(shape.takes(b"before", b"%03d" % number, 12) for number in range(1000))
    assert 1 <= len(shape.middles) <= 256


def test_more_kinds_than_are_remembered() -> None:
    stats = Stats()
    peer = consumer(stats)
    data = b"".join(delivery(tag, body(1), key=f"{tag % 700:03}") for tag in range(1, 2101))
    peer.receive(data, 5)
    assert (stats.consumed, stats.latency.count) == (2100, 2100)


def test_messages_of_somebody_else_have_no_latency() -> None:
    stats = Stats()
    peer = consumer(stats)
    bodies = [b"x" * 12, bytes(12), body(2), b"y" * 12, body(3)]
    peer.receive(b"".join(delivery(tag, content) for tag, content in enumerate(bodies, 1)), 10)
    assert (stats.consumed, stats.latency.count, stats.latency.total) == (5, 2, 8 + 7)


@pytest.mark.parametrize("limit", [1, 2, 7, 8, 10])
def test_a_limit(limit: int) -> None:
    stats = Stats()
    peer = consumer(stats, cmessages=limit)
    data = b"".join(delivery(tag, body(1)) for tag in range(1, 8))
    peer.receive(data, 5)
    assert peer.done is (limit <= 7)
    peer.receive(b"".join(delivery(tag, body(1)) for tag in range(8, 20)), 5)
    assert peer.done
    assert stats.consumed == stats.latency.count == limit
    assert acked(peer) == [(tag, False) for tag in range(1, limit + 1)]


# --- Acknowledging ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "every", "tags"),
    [
        (1, 3, 0, [(1, False), (2, False), (3, False)]),
        (1, 3, 1, [(1, True), (2, True), (3, True)]),
        (1, 10, 4, [(4, True), (8, True)]),
        (5, 8, 4, [(8, True)]),
        (4, 4, 4, [(4, True)]),
        (5, 7, 4, []),
        (2**40, 2**40, 0, [(2**40, False)]),
    ],
)
def test_acks(first: int, last: int, every: int, tags: list[tuple[int, bool]]) -> None:
    assert said(acks(first, last, every)) == [methods.BasicAck(tag, multiple) for tag, multiple in tags]


def test_automatic_acknowledgement_says_nothing() -> None:
    peer = consumer(autoack=True)
    peer.receive(delivery(1, body(1)), 5)
    assert peer.take(0) == b""


def test_many_at_once_and_the_rest_with_the_goodbye() -> None:
    peer = consumer(multi_ack_every=4)
    peer.receive(b"".join(delivery(tag, body(1)) for tag in range(1, 7)), 5)
    assert acked(peer) == [(4, True)]
    peer.receive(b"".join(delivery(tag, body(1)) for tag in range(7, 11)), 5)
    assert acked(peer) == [(8, True)]
    peer.close()
    rest, close = said(peer.take(0))
    assert rest == methods.BasicAck(10, True)
    assert isinstance(close, methods.ConnectionClose)
    peer.receive(delivery(11, body(1)), 5)
    peer.close()
    assert peer.take(0) == b""


def test_a_delivery_that_is_cut_by_the_goodbye_does_not_count() -> None:
    stats = Stats()
    peer = consumer(stats)
    data = delivery(1, body(1))
    peer.receive(data[:-5], 5)
    peer.close()
    peer.receive(data[-5:], 5)
    assert stats.consumed == 0


@pytest.mark.parametrize("every", [0, 1, 2, 4])
def test_a_goodbye_with_nothing_to_acknowledge(every: int) -> None:
    peer = consumer(multi_ack_every=every)
    peer.receive(b"".join(delivery(tag, body(1)) for tag in range(1, 5)), 5)
    peer.take(0)
    peer.close()
    (close,) = said(peer.take(0))
    assert isinstance(close, methods.ConnectionClose)


def test_a_queue_that_goes_away() -> None:
    peer = consumer()
    with pytest.raises(PeerError, match="the broker cancelled the consumer: queue 'q' is gone"):
        peer.receive(methods.BasicCancel(TAG).frame(1), 0)
