"""Starts on what a crash may leave of the segments' files."""

from __future__ import annotations

import pytest

from rabbitish.store.record import JournalDamaged, SegmentHead, encode_segment_head, segment_name

from .machine import Machine, MemoryDisk, bodies, numbered


def with_messages() -> MemoryDisk:
    """A journal of two segments."""
    machine = Machine()
    client = machine.client()
    client.declare("q", durable=True)
    for body in numbered(0, 30):
        client.publish("q", body, delivery_mode=2)
        machine.settle()
    return machine.disk.killed()


def segments(disk: MemoryDisk) -> list[str]:
    return sorted(name for name in disk.names() if name.startswith("journal-"))


@pytest.mark.parametrize("size", [0, 20])
def test_a_segment_that_was_begun_and_hardly_written(size: int) -> None:
    disk = with_messages()
    count = len(segments(disk))
    file = disk.create(segment_name(count + 1))
    file.write(encode_segment_head(SegmentHead(count + 1, count + 1, 0, 1000, 0))[:size])
    machine = Machine(disk)
    for _ in range(3):
        assert bodies(machine.queue("q")) == list(numbered(0, 30))
        machine = machine.again()


def test_one_that_is_the_only_one() -> None:
    disk = MemoryDisk()
    disk.create(segment_name(1))
    machine = Machine(disk)
    machine.client().declare("q", durable=True)
    machine = machine.again().again()
    assert "q" in machine.vhost.queues


def test_the_segment_behind_one_that_was_written_anew_is_missed() -> None:
    machine = Machine(with_messages())
    machine.rewrite(0)
    disk = machine.disk.killed()
    assert bodies(Machine(disk.killed()).queue("q")) == list(numbered(0, 30))
    disk.unlink(segments(disk)[-1])
    with pytest.raises(JournalDamaged, match="the segment is missing"):
        Machine(disk)
