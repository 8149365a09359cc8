"""A day of mixed load in one life of a broker: whenever it is killed, what was there comes back, field by field.

Nothing is ever stopped cleanly and nothing is begun anew, so the journal is all that a day leaves: rotated, written
anew in the background, with messages that expired, came back and died. The clock is the test's.
"""

from __future__ import annotations

import pytest

from rabbitish.wire import methods

from .driver import Durable, state_of
from .fake_disk import FakeDisk
from .machine import small_pages
from .workload import Workload

HOUR = 3600 * 1000
LOOKS = 12  # a day
SEGMENT_BYTES = 20_000
WINDOW_BYTES = 6000


def look(world: Durable, work: Workload) -> Durable:
    """Kill a copy of the broker, when nobody holds anything, and compare what the next one makes of it."""
    for channel in (1, 2):
        work.client.ask(methods.ChannelClose(200, "", 0, 0), channel)
        work.client.open(channel)
    world.settle()
    again = Durable(world.disk.killed(), now=world.now, segment_bytes=SEGMENT_BYTES, window_bytes=WINDOW_BYTES)
    assert state_of(again.broker) == state_of(world.broker)
    assert again.recovered.recorder.highest_queue == world.recovered.recorder.highest_queue
    assert not again.failures
    return again


def test_what_is_left_of_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pages(monkeypatch)
    world = Durable(FakeDisk(), segment_bytes=SEGMENT_BYTES, window_bytes=WINDOW_BYTES)
    work = Workload(world, seed=24)
    begin, held = world.now, []
    for part in range(1, LOOKS + 1):
        until = begin + part * 24 * HOUR // LOOKS
        while world.now < until:
            work.run(3)
            world.advance(min(work.random.choice((1_000, 60_000, 600_000)), until - world.now))
        again = look(world, work)
        held.append(again.recovered.messages)
    assert world.now - begin == 24 * HOUR
    assert world.journal.last_sequence > 30 and max(held) > 200 and min(held) > 3
    assert look(again, Workload(again, seed=25)).recovered.messages == held[-1]
