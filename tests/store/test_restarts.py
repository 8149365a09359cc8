"""What one start leaves on disk must be good for the next one, and for the one after that."""

from __future__ import annotations

import pytest

from rabbitish.store.record import SEGMENT_HEAD_BYTES, segment_name

from .fake_disk import Contents
from .lives import Life, MemoryDisk


@pytest.mark.parametrize("size", [0, 1, SEGMENT_HEAD_BYTES - 1])
def test_a_last_segment_that_had_only_just_begun(size: int) -> None:
    """It is deleted, and the next one takes its place, so that none is missing later."""
    life = Life(MemoryDisk())
    client = life.client()
    client.declare("q", durable=True)
    client.publish("q", b"1", delivery_mode=2)
    client.answers()
    disk = life.disk.copy()
    disk.files[segment_name(2)] = Contents(disk.read(segment_name(1))[:size])
    for expected in ([b"1"], [b"1", b"2"], [b"1", b"2", b"2"]):
        life = Life(disk)
        assert [message.body() for message in life.queue("q")] == expected  # type: ignore[attr-defined]
        life.client().publish("q", b"2", delivery_mode=2)
        life.settle()
