"""What must not grow with what the broker holds: work is counted in steps of the interpreter, not in seconds.

`steps` counts executed bytecodes, so the same code takes the same number on any machine, and a loop over all bindings
shows. What a built-in function does inside is one step: docs/PERFORMANCE.md's curves are there for that.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from rabbitish.core.broker import Broker
from rabbitish.core.consumer import Consumer, Consumers
from rabbitish.core.exchange import Binding, Exchange
from rabbitish.core.queue import Queue
from rabbitish.values import Table

from .fakes import START, ListConsumer, PlainMessage
from .test_exchange import FakeQueue


def steps(work: Callable[[], object]) -> int:
    """How many bytecodes this executes; the collector does not run meanwhile, for whoever listens to it would count."""
    count = 0
    gc.collect()
    gc.disable()

    def trace(frame: FrameType, event: str, given: Any) -> Callable[..., Any]:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def test_steps_are_counted() -> None:
    def loop(times: int) -> Callable[[], object]:
        return lambda: [number for number in range(times)]  # noqa: C416 (a loop is what is wanted)

    assert steps(loop(1000)) > 10 * steps(loop(50)) > 100


KEYS: dict[str, tuple[Callable[[int], tuple[str, Table]], str, Table]] = {
    "direct": (lambda number: (f"key-{number}", {}), "key-0", {}),
    "fanout": (lambda number: (f"key-{number}", {}), "", {}),
    "topic": (lambda number: (f"orders.{number}.*", {}), "orders.0.new", {}),
    "headers": (lambda number: ("", {"format": "pdf", "customer": number}), "", {"format": "pdf", "customer": 0}),
}


@pytest.mark.parametrize("kind", sorted(KEYS))
def test_routing_by_the_number_of_bindings(kind: str) -> None:
    make, key, headers = KEYS[kind]

    def routing(count: int) -> int:
        exchange = Exchange("x", kind)
        queues = [FakeQueue(str(number)) for number in range(5)]
        for number in range(count):
            exchange.bind(Binding(exchange, queues[number % 5], *make(number)))
        list(exchange.matches(key, headers))  # what it puts in order is in order afterwards
        return steps(lambda: list(exchange.matches(key, headers)))

    assert routing(3000) <= 1.2 * routing(10)


def test_a_message_by_the_number_that_is_ready() -> None:
    def passing(count: int) -> int:
        queue = queue_of(count)
        return steps(
            lambda: (queue.enqueue(PlainMessage("y"), START), queue.settle(START), queue.take(START, no_ack=True))
        )

    assert passing(3000) <= 1.2 * passing(10)


def test_a_message_by_the_number_of_consumers_without_room() -> None:
    def passing(count: int) -> int:
        queue = queue_of(0)
        for prefetch in (*[1] * count, 1000):
            consumer = ListConsumer(prefetch=prefetch)
            consumer.queue = queue
            queue.add_consumer(consumer)
        for _ in range(3 * count):
            queue.enqueue(PlainMessage("x"), START)
        queue.settle(START, 4 * count)
        assert queue.ready == 0
        return steps(lambda: (queue.enqueue(PlainMessage("y"), START), queue.settle(START)))

    assert passing(400) <= 1.2 * passing(5)


class Counted(ListConsumer):
    """Counts how often it is compared."""

    compared = 0
    __hash__ = ListConsumer.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return self is other


def test_a_consumer_leaves_without_a_look_at_the_others() -> None:
    consumers = Consumers(single_active=False)
    many: list[Consumer] = [Counted() for _ in range(500)]
    for consumer in many:
        consumers.add(consumer)
    for consumer in reversed(many):
        consumers.remove(consumer)
    assert len(consumers) == 0
    assert Counted.compared == 0


def queue_of(count: int) -> Queue:
    """A queue that holds so many messages."""
    vhost = Broker(token=str, settle_budget=1000).add_vhost("/")
    queue = vhost.declare_queue(
        "q", durable=False, exclusive=False, auto_delete=False, arguments={}, owner=None, now=START
    )
    for _ in range(count):
        queue.enqueue(PlainMessage("x"), START)
    queue.settle(START)
    return queue
