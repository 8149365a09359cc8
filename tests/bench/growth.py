"""How the cost of a message grows with what the broker holds: processor time from its publish to its delivery.

Each `Axis` builds a broker that holds so many of something (queues, bindings, ready messages ...) and sends the same
traffic through it, without sockets. A curve that rises with the number is a fault.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rabbitish.session.connection import Session
from rabbitish.wire import methods as m

from .inside import Inside, fill, message, microseconds_each

# Publishes that come with one read, as from a publisher that does not wait for each confirm.
AT_ONCE = 64
MESSAGES = 6_400
LIMIT = 1.2  # the cost may grow by a fifth
Measure: TypeAlias = Callable[[int], float]


class Axis(NamedTuple):
    """What grows, how far, and how a message's cost at one point is measured (microseconds)."""

    title: str
    sizes: tuple[int, ...]
    measure: Measure


def _declare(inside: Inside, session: Session, *names: str, durable: bool = False) -> None:
    for start in range(0, len(names), 1000):
        inside.ask(session, *[m.QueueDeclare(queue=name, durable=durable) for name in names[start : start + 1000]])


def _bind(inside: Inside, session: Session, bindings: list[m.QueueBind]) -> None:
    for start in range(0, len(bindings), 1000):
        inside.ask(session, *bindings[start : start + 1000])


def _stream(inside: Inside, publisher: Session, data: bytes) -> float:
    """The cost of a message in a flow of these: many with one read, and one after another."""

    def work() -> None:
        for _ in range(MESSAGES // AT_ONCE):
            inside.send(publisher, data * AT_ONCE)

    return microseconds_each(work, MESSAGES)


def _one_by_one(inside: Inside, publisher: Session, data: list[bytes]) -> float:
    """The cost of a message that comes alone, when these come in turns."""
    lots = data * (-(-MESSAGES // len(data)))

    def work() -> None:
        for each in lots:
            inside.send(publisher, each)

    return microseconds_each(work, len(lots))


def idle_queues(count: int) -> float:
    """Traffic on one queue while there are others."""
    inside = Inside()
    publisher, consumer = inside.session(), inside.session()
    _declare(inside, publisher, *[f"q{number}" for number in range(count)])
    inside.ask(consumer, *[m.BasicConsume(queue=f"q{number}", no_ack=True) for number in range(count)])
    return _stream(inside, publisher, message("q0"))


def busy_queues(count: int) -> float:
    """Traffic on all queues in turn."""
    inside = Inside()
    publisher, consumer = inside.session(), inside.session()
    names = [f"queue-{number:05d}" for number in range(count)]
    _declare(inside, publisher, *names)
    inside.ask(consumer, *[m.BasicConsume(queue=name, no_ack=True) for name in names])
    return _one_by_one(inside, publisher, [message(name) for name in names])


def _bound(kind: str, count: int, bindings: Callable[[int], dict[str, object]], data: bytes) -> float:
    """Traffic through an exchange with so many bindings to ten queues, when no route is remembered."""
    inside = Inside(route_cache_entries=0)
    publisher, consumer = inside.session(), inside.session()
    _declare(inside, publisher, *[f"q{number}" for number in range(10)])
    inside.ask(publisher, m.ExchangeDeclare(exchange="x", type=kind))
    made = [m.QueueBind(queue=f"q{number % 10}", exchange="x", **bindings(number)) for number in range(count)]  # type: ignore[arg-type]
    _bind(inside, publisher, made)
    inside.ask(consumer, *[m.BasicConsume(queue=f"q{number}", no_ack=True) for number in range(10)])
    return _one_by_one(inside, publisher, [data])


def direct_bindings(count: int) -> float:
    """A direct exchange; one of its keys."""
    return _bound("direct", count, lambda n: {"routing_key": f"key-{n}"}, message("key-0", exchange="x"))


def topic_bindings(count: int) -> float:
    """A topic exchange with patterns; one of them matches."""
    keys = ("orders.{}.*", "*.{}.#", "#.{}.new")
    return _bound(
        "topic", count, lambda n: {"routing_key": keys[n % 3].format(n)}, message("orders.0.new", exchange="x")
    )


def headers_bindings(count: int) -> float:
    """A headers exchange; one binding matches."""
    asked = {"x-match": "all", "format": "pdf"}
    data = message("", exchange="x", headers={"format": "pdf", "customer": "c0"})
    return _bound("headers", count, lambda n: {"arguments": {**asked, "customer": f"c{n}"}}, data)


def fanout_bindings(count: int) -> float:
    """A fanout exchange, with more and more bindings to the same ten queues: the cost of a delivery."""
    data = message("", exchange="x")
    return _bound("fanout", count, lambda n: {"routing_key": f"key-{n}"}, data) / min(count, 10)


def fanout_queues(count: int) -> float:
    """A fanout exchange with so many queues: the cost of a delivery."""
    inside = Inside()
    publisher, consumer = inside.session(), inside.session()
    names = [f"q{number}" for number in range(count)]
    _declare(inside, publisher, *names)
    inside.ask(publisher, m.ExchangeDeclare(exchange="x", type="fanout"))
    _bind(inside, publisher, [m.QueueBind(queue=name, exchange="x") for name in names])
    inside.ask(consumer, *[m.BasicConsume(queue=name, no_ack=True) for name in names])
    data, times = message("", exchange="x"), max(1, MESSAGES // count)

    def work() -> None:
        for _ in range(times):
            inside.send(publisher, data)

    return microseconds_each(work, times * count)


def ready_messages(count: int) -> float:
    """In at the end and out at the front of a queue that holds so many, all in memory."""
    return _ready(Inside(), count, persistent=False)


def ready_messages_on_disk(count: int) -> float:
    """The same with the journal, where the middle of a long queue is on disk; persistent, with confirms."""
    with tempfile.TemporaryDirectory() as folder:
        return _ready(Inside(Path(folder)), count, persistent=True)


def _ready(inside: Inside, count: int, *, persistent: bool) -> float:
    publisher, consumer = inside.session(), inside.session()
    _declare(inside, publisher, "q", durable=persistent)
    if persistent:
        inside.ask(publisher, m.ConfirmSelect())
    data = message("q", persistent=persistent)
    fill(inside, publisher, data, count + 2 * AT_ONCE)
    inside.ask(consumer, m.BasicQos(prefetch_count=AT_ONCE), m.BasicConsume(queue="q"))
    channel = consumer.channels[1]

    def work() -> None:
        for _ in range(MESSAGES // AT_ONCE):
            inside.send(publisher, data * AT_ONCE)
            inside.ask(consumer, m.BasicAck(delivery_tag=channel.last_delivery_tag, multiple=True))

    return microseconds_each(work, MESSAGES)


def consumers_of_a_queue(count: int) -> float:
    """So many consumers take turns on one queue, and acknowledge."""
    inside = Inside()
    publisher = inside.session()
    _declare(inside, publisher, "q")
    sessions = [inside.session() for _ in range(min(count, 10))]
    for number in range(count):
        inside.ask(sessions[number % len(sessions)], m.BasicConsume(queue="q"))
    data = message("q")

    def work() -> None:
        for _ in range(MESSAGES // AT_ONCE):
            inside.send(publisher, data * AT_ONCE)
            for session in sessions:
                inside.ask(session, m.BasicAck(delivery_tag=0, multiple=True))

    return microseconds_each(work, MESSAGES)


def waiting_consumers(count: int) -> float:
    """One consumer has room, the others hold all that their prefetch lets them."""
    inside = Inside()
    publisher, busy, free = inside.session(), inside.session(), inside.session()
    _declare(inside, publisher, "q")
    inside.ask(busy, m.BasicQos(prefetch_count=1))
    for _ in range(count - 1):
        inside.ask(busy, m.BasicConsume(queue="q"))
    data = message("q")
    if count > 1:
        fill(inside, publisher, data, count - 1)
    inside.ask(free, m.BasicQos(prefetch_count=AT_ONCE), m.BasicConsume(queue="q"))

    def work() -> None:
        for _ in range(MESSAGES // AT_ONCE):
            inside.send(publisher, data * AT_ONCE)
            inside.ask(free, m.BasicAck(delivery_tag=0, multiple=True))

    return microseconds_each(work, MESSAGES)


def unacknowledged(count: int) -> float:
    """So many deliveries are unacknowledged on a channel; with each new one the oldest is acknowledged by itself."""
    return _unacked(count, 0)


def unacknowledged_newest(count: int) -> float:
    """The same, and the newest is acknowledged."""
    return _unacked(count, count)


def _unacked(count: int, ahead: int) -> float:
    inside = Inside()
    publisher, consumer = inside.session(), inside.session()
    _declare(inside, publisher, "q")
    inside.ask(consumer, m.BasicConsume(queue="q"))
    data = message("q")
    fill(inside, publisher, data, count)
    tag = ahead

    def work() -> None:
        nonlocal tag
        for _ in range(MESSAGES // AT_ONCE):
            inside.send(publisher, data * AT_ONCE)
            acks = [m.BasicAck(delivery_tag=tag + number + 1) for number in range(AT_ONCE)]
            tag += AT_ONCE
            inside.ask(consumer, *acks)

    return microseconds_each(work, MESSAGES)


_BINDINGS = (1, 10, 100, 1_000, 10_000, 100_000)
_QUEUES = (1, 10, 100, 1_000, 10_000)
_READY = (0, 1_000, 10_000, 100_000, 1_000_000)
AXES = {
    "idle-queues": Axis("queues, traffic on one", _QUEUES, idle_queues),
    "busy-queues": Axis("queues, traffic on all in turn", _QUEUES, busy_queues),
    "direct": Axis("bindings of a direct exchange", _BINDINGS, direct_bindings),
    "topic": Axis("bindings of a topic exchange", _BINDINGS, topic_bindings),
    "headers": Axis("bindings of a headers exchange", _BINDINGS, headers_bindings),
    "fanout": Axis("bindings of a fanout exchange to ten queues, a delivery", _BINDINGS[1:], fanout_bindings),
    "fanout-queues": Axis("queues of a fanout exchange, a delivery", _QUEUES, fanout_queues),
    "ready": Axis("messages ready, in memory", _READY, ready_messages),
    "ready-journal": Axis("messages ready, with the journal", _READY, ready_messages_on_disk),
    "consumers": Axis("consumers that take turns on a queue", (1, 2, 10, 100, 1_000), consumers_of_a_queue),
    "waiting-consumers": Axis("consumers, all but one without room", (1, 10, 100, 1_000), waiting_consumers),
    "unacked": Axis("unacknowledged, the oldest acknowledged", _QUEUES, unacknowledged),
    "unacked-newest": Axis("unacknowledged, the newest acknowledged", _QUEUES, unacknowledged_newest),
}
