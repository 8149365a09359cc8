"""Compaction: that it ends, what is worth it, and what other threads have not done yet."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rabbitish.wire import methods

from .machine import SEGMENT_BYTES, Machine, bodies, numbered

MOST_BYTES = 5 * SEGMENT_BYTES  # twice next to nothing and two segments; the last one is not looked at


def machine_with(*queues: str) -> Machine:
    machine = Machine(window_bytes=1 << 30)
    client = machine.client()
    for name in queues:
        client.declare(name, durable=True)
    return machine


def publish(machine: Machine, queue: str, messages: Sequence[bytes]) -> None:
    """A message at a time."""
    (client, *_) = machine.clients.values()
    for body in messages:
        client.publish(queue, body, delivery_mode=2)
        machine.settle()


def test_messages_that_come_back_over_and_over_take_no_room() -> None:
    machine = machine_with("q")
    (client,) = machine.clients.values()
    publish(machine, "q", numbered(0, 5))
    for _ in range(200):
        said = client.get("q", no_ack=False)
        assert said is not None and isinstance(said.method, methods.BasicGetOk)
        client.send(methods.BasicReject(delivery_tag=said.method.delivery_tag, requeue=True))
        machine.settle()
    client.get("q", no_ack=False)
    machine.compact()
    assert machine.disk.used < MOST_BYTES
    again = machine.again(window_bytes=1 << 30)
    assert bodies(again.queue("q")) == list(numbered(0, 5))
    returns = [count for _, count in again.queue("q").lanes[0]._back.values()]
    assert returns == [201]


@pytest.mark.parametrize("compactions", [0, 1, 3])
def test_what_was_told_of_messages_stays_right(compactions: int) -> None:
    machine = machine_with("q")
    (client,) = machine.clients.values()
    publish(machine, "q", numbered(0, 30))
    tags = []
    for _ in range(30):
        said = client.get("q", no_ack=False)
        assert said is not None and isinstance(said.method, methods.BasicGetOk)
        tags.append(said.method.delivery_tag)
    for turn in range(compactions):
        client.send(*(methods.BasicReject(delivery_tag=tag, requeue=True) for tag in tags[turn::4]))
        machine.settle()
        for index in range(turn, len(tags), 4):
            said = client.get("q", no_ack=False)
            assert said is not None and isinstance(said.method, methods.BasicGetOk)
            tags[index] = said.method.delivery_tag
        machine.rewrite(turn % 2)
    client.send(*(methods.BasicAck(delivery_tag=tag) for tag in tags[3::4]))
    machine.settle()
    if compactions:
        machine.rewrite(0)
    again = machine.again(window_bytes=1 << 30)
    kept = [number for number in range(30) if number % 4 != 3]
    assert bodies(again.queue("q")) == [numbered(number, number + 1)[0] for number in kept]
    returns = [again.queue("q").lanes[0]._back[position][1] for position in sorted(again.queue("q").lanes[0]._back)]
    assert returns == [1 + (number % 4 < compactions) for number in kept]


@pytest.mark.parametrize("end", ["", "killed", "stopped"])
def test_one_message_among_acknowledgements_keeps_none_of_them(end: str) -> None:
    machine = machine_with("q", "old")
    (client,) = machine.clients.values()
    publish(machine, "q", numbered(0, 400, 10))
    for number in range(400):
        if number % 50 == 0:
            publish(machine, "old", [b"one"])
        said = client.get("q", no_ack=False)
        assert said is not None and isinstance(said.method, methods.BasicGetOk)
        client.send(methods.BasicAck(delivery_tag=said.method.delivery_tag))
        machine.settle()
    if end:
        machine = machine.again(machine.disk.killed() if end == "killed" else machine.stop(), checkpoints=True)
    machine.compact()
    assert machine.disk.used < MOST_BYTES
    assert bodies(machine.again().queue("old")) == [b"one"] * 8


def test_messages_of_all_sizes_that_leave_together() -> None:
    machine = machine_with("q")
    (client,) = machine.clients.values()
    client.open(2)
    kept = list(numbered(0, 10, 10))
    for body in kept:
        publish(machine, "q", [body, b"." * 3000])
        client.get("q", no_ack=False)
        client.get("q", no_ack=False, channel=2)
    publish(machine, "q", [b"."] * 300)
    client.consume("q", channel=2)
    client.answers()
    client.send(methods.BasicAck(delivery_tag=0, multiple=True), channel=2)
    machine.settle()
    machine.compact()
    assert machine.disk.used < MOST_BYTES
    assert bodies(machine.again().queue("q")) == kept


def test_a_small_segment_between_large_ones_is_left_alone() -> None:
    machine = machine_with("q")
    for _ in range(9):
        publish(machine, "q", [b"." * SEGMENT_BYTES])
        machine = machine.again()
        machine.client()
        publish(machine, "q", [b"."])
        machine = machine.again()
        machine.client()
    sizes = [segment.size for segment in machine.journal.segments.all]
    assert sum(size < SEGMENT_BYTES // 8 for size in sizes) >= 8
    assert machine.compact() == 0


def test_small_ones_beside_each_other_become_one() -> None:
    machine = machine_with("q")
    for number in range(12):
        publish(machine, "q", numbered(number, number + 1))
        machine = machine.again()
        machine.client()
    assert machine.compact()
    assert len(machine.journal.segments.all) < 5
    assert bodies(machine.again().queue("q")) == list(numbered(0, 12))


def test_what_is_not_written_yet_is_not_written_anew() -> None:
    machine = machine_with("q", "old")
    (client,) = machine.clients.values()
    machine.lazy = True
    for number in range(30):
        publish(machine, "q", numbered(0, 10))
        publish(machine, "old", numbered(number, number + 1))
    client.send(methods.QueuePurge(queue="q", nowait=True))
    machine.settle()
    assert machine.plan() is None
    machine.hand()
    machine.write(5)
    assert machine.compact()
    assert bodies(machine.again().queue("old")) == list(numbered(0, 30))


def test_files_go_though_nothing_else_happens() -> None:
    machine = machine_with("q", "old")
    (client,) = machine.clients.values()
    for number in range(30):
        publish(machine, "q", numbered(0, 10))
        publish(machine, "old", numbered(number, number + 1))
    client.ask(methods.QueuePurge(queue="q"))
    assert machine.compact()
    names = {segment.head.name for segment in machine.journal.segments.all}
    assert {name for name in machine.disk.names() if name.startswith("journal-")} == names
    assert machine.journal.dead == []


def test_a_segment_that_may_go_counts_until_its_file_is_gone() -> None:
    """The start after a crash finds it, and must find what was told of its messages too."""
    machine = machine_with("q", "old")
    (client,) = machine.clients.values()
    client.consume("q")
    publish(machine, "q", numbered(0, 40))
    client.answers()
    machine.lazy = True
    client.send(methods.BasicAck(delivery_tag=0, multiple=True))
    publish(machine, "old", [b"one"])
    for _ in range(20):
        publish(machine, "q", numbered(0, 10))
        client.answers()
        client.send(methods.BasicAck(delivery_tag=0, multiple=True))
    machine.settle()
    machine.hand()
    machine.write()
    machine.sync()
    assert machine.dead, "which the writer has not got to yet"
    compaction = machine.plan()
    assert compaction is not None
    compaction.write()
    machine.hand()
    machine.write()
    machine.sync()
    machine.install(compaction)
    again = machine.again()
    assert bodies(again.queue("q")) == []
    assert bodies(again.queue("old")) == [b"one"]
