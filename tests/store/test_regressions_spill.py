"""The spill: pages over the border of two files, files that cannot be written, made or deleted."""

from __future__ import annotations

import pytest

from rabbitish.core.queue import Queue

from .machine import Machine, MemoryDisk, bodies, numbered, small_pages


@pytest.fixture(autouse=True)
def _pages(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pages(monkeypatch, 16)


def flood(machine: Machine, count: int, first: int = 0) -> Queue:
    """Transient messages to a queue, of two stamps in turn, so that a page holds several writes."""
    client = machine.client()
    client.declare("t")
    for number, body in enumerate(numbered(first, first + count), first):
        client.publish("t", body, priority=number % 2)
    machine.settle()
    return machine.queue("t")


def spilled(disk: MemoryDisk) -> list[str]:
    return sorted(name for name in disk.names() if name.startswith("spill-"))


def test_a_page_may_begin_in_one_file_and_end_in_the_next() -> None:
    machine = Machine()
    queue = flood(machine, 160)
    assert len(spilled(machine.disk)) > 2
    assert bodies(queue) == list(numbered(0, 160))
    assert machine.client().drain("t") == list(numbered(0, 160))
    assert len(spilled(machine.disk)) == 1, "the files of what was taken are gone"
    machine.healthy()


def test_two_queues_share_files() -> None:
    machine = Machine()
    client = machine.client()
    for name in "ab":
        client.declare(name)
    for body in numbered(0, 120):
        client.publish("a", body)
        client.publish("b", body)
        machine.settle()
    assert client.drain("a") == list(numbered(0, 120))
    assert spilled(machine.disk)
    assert client.drain("b") == list(numbered(0, 120))
    assert len(spilled(machine.disk)) == 1
    machine.healthy()


def test_while_the_disk_is_full_messages_stay_in_memory_and_no_file_is_closed_twice() -> None:
    machine = Machine()
    queue = flood(machine, 100)
    machine.disk.full = True
    flood(machine, 60, 100)
    assert sum(not file.closed and file.name.startswith("spill-") for file in machine.disk.files) == 0
    machine.disk.full = False
    flood(machine, 40, 160)
    assert bodies(queue) == list(numbered(0, 200))
    assert machine.client().drain("t") == list(numbered(0, 200))
    machine.healthy()


def test_a_file_that_is_full_when_the_next_cannot_be_made_is_closed_once() -> None:
    machine = Machine()
    flood(machine, 100)
    spill = machine.recovered.shelf._spill
    page = machine.queue("t").lanes[0].pages[-1]
    messages = page.load()
    while spill._segments.all[-1].size < machine.journal.segment_bytes:
        spill.write(messages[:1])
    machine.disk.full = True
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            spill.write(messages[:1])
    machine.disk.full = False
    spill.write(messages[:1])


def test_a_file_that_cannot_be_deleted_costs_no_message() -> None:
    machine = Machine()
    queue = flood(machine, 160)
    machine.disk.stuck = True
    client = machine.client()
    assert client.drain("t") == list(numbered(0, 160))
    assert not queue.ready
    machine.disk.stuck = False
    left = machine.again()
    assert spilled(left.disk) == []
    machine.healthy()
