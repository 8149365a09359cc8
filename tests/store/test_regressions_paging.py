"""What leaves from behind pages frees its memory, and lets what follows be put away."""

from __future__ import annotations

import pytest

from .machine import Machine, bodies, numbered, small_pages


@pytest.fixture(autouse=True)
def _pages(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pages(monkeypatch)


def backlog() -> Machine:
    """A machine with a queue most of which is put away."""
    machine = Machine()
    client = machine.client()
    client.declare("q", durable=True)
    for start in range(0, 100, 10):
        client.publish("q", *numbered(start, start + 10), delivery_mode=2)
        machine.settle()
    assert machine.queue("q").lanes[0].pages.messages
    return machine


def test_what_expires_behind_pages_is_not_kept() -> None:
    machine = backlog()
    (client,) = machine.clients.values()
    for _ in range(60):
        client.publish("q", *numbered(0, 20), delivery_mode=2, expiration="1000")
        machine.advance(500)
    machine.advance(1000)
    queue = machine.queue("q")
    assert queue.ready == 100
    assert len(queue.lanes[0].last) < 200
    assert bodies(queue) == list(numbered(0, 100))
    machine.healthy()


def test_when_the_last_that_may_expire_has_gone_more_is_put_away() -> None:
    machine = backlog()
    (client,) = machine.clients.values()
    lane = machine.queue("q").lanes[0]
    client.publish("q", b"in time", delivery_mode=2, expiration="1000")
    machine.advance(2000)
    before = lane.pages.messages
    for start in range(100, 200, 10):
        client.publish("q", *numbered(start, start + 10), delivery_mode=2)
        machine.settle()
    assert lane.pages.messages > before + 50
    assert client.drain("q") == list(numbered(0, 200))
    machine.healthy()
