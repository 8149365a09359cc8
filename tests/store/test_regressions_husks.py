"""What is unacknowledged of a crowded queue: it may come back before the journal has written it."""

from __future__ import annotations

from rabbitish.values import Int64
from rabbitish.wire import methods

from .machine import Machine, bodies, numbered


def crowded(**arguments: int) -> Machine:
    """A machine with a queue of which more is unacknowledged than fits into its window."""
    machine = Machine()
    client = machine.client()
    client.declare("q", durable=True, arguments={f"x-{key.replace('_', '-')}": n for key, n in arguments.items()})
    client.consume("q")
    for body in numbered(0, 80):
        client.publish("q", body, delivery_mode=2)
    machine.settle()
    assert machine.queue("q").crowded
    return machine


def test_a_message_comes_back_before_it_was_written() -> None:
    machine = crowded()
    machine.lazy = True
    (client,) = machine.clients.values()
    client.publish("q", b"new", delivery_mode=2)
    assert client.bodies() == [*numbered(0, 80), b"new"]
    assert machine.queue("q").away_bytes == 3
    client.send(methods.BasicReject(delivery_tag=81, requeue=True))
    assert client.bodies() == [b"new"]
    client.send(methods.BasicReject(delivery_tag=82, requeue=True))
    machine.step()
    assert client.bodies() == [b"new"]
    machine.healthy()


def test_one_that_is_counted_as_well() -> None:
    machine = crowded(delivery_limit=1)
    machine.lazy = True
    (client,) = machine.clients.values()
    client.publish("q", b"new", delivery_mode=2)
    machine.settle()
    client.answers()
    client.send(methods.BasicReject(delivery_tag=81, requeue=True))
    (said,) = client.answers()
    assert (said.body, said.props.headers) == (b"new", {"x-delivery-count": Int64(1)})
    client.send(methods.BasicReject(delivery_tag=82, requeue=True))
    assert client.answers() == []
    machine.healthy()


def test_what_was_written_is_not_kept_in_memory() -> None:
    machine = crowded()
    (client,) = machine.clients.values()
    for body in numbered(80, 100):
        client.publish("q", body, delivery_mode=2)
        machine.settle()
    queue = machine.queue("q")
    assert len(machine.recovered.shelf._unwritten) <= 1
    assert queue.away_bytes == 20 * 100
    client.hang_up()
    assert bodies(queue) == list(numbered(0, 100))
    machine.healthy()


def test_what_was_fetched_and_not_acknowledged_does_not_stay_in_memory_either() -> None:
    machine = Machine()
    client = machine.client()
    client.declare("q", durable=True)
    client.publish("q", *numbered(0, 80), delivery_mode=2)
    machine.settle()
    assert [client.get("q", no_ack=False).body for _ in range(80)] == list(numbered(0, 80))  # type: ignore[union-attr]
    queue = machine.queue("q")
    assert queue.away_bytes == (80 - 61) * 100
    client.send(methods.BasicNack(delivery_tag=0, multiple=True, requeue=True))
    assert client.drain("q") == list(numbered(0, 80))
    assert not queue.away_bytes
    machine.healthy()
