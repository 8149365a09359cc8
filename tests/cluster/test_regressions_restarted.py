"""Segments of a mirror that was restarted begin where it was then, be it between two messages of one queue."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from tests.session.client import publication
from tests.session.harness import START

from .journaled import Leader, Mirror, SharedDisk, opened, started, state_of_folder, synced
from .test_condensing import ends

BODIES = [b"%d" % number for number in range(12)]


def taken_over(window_bytes: int = 1 << 20) -> Leader:
    """By a mirror that was restarted after each record of twelve messages that the leader wrote at once."""
    _, leader = started()
    client = leader.client(1)
    client.declare("q", durable=True)
    mirror = Mirror(leader.log)
    mirror.feed()
    leader.lazy = True
    for number, body in enumerate(BODIES):  # each a record, since they are not of one kind
        client.raw(publication("q", body, delivery_mode=2, priority=number % 3))
    leader.lazy = False
    leader.settle()
    leader.sync()
    for at in ends(leader.log, mirror.log.last)[1:]:
        data, last = leader.log.read(mirror.log.last, 1)
        assert last == at
        mirror.log.append(data)
        mirror.log.seal()
        synced(mirror.log)
        left, mirror.disk = mirror.disk, SharedDisk()
        mirror.disk.files = left.killed().files
        mirror.log = opened(mirror.disk)
    heir = Leader(mirror.disk, mirror.log, now=START)
    (queue,) = heir.recovered.recorder.queues
    assert sum(len(segment.lsns) > 0 for segment in heir.journal.segments.all) == len(BODIES)
    heir.broker.narrow_windows(window_bytes)
    assert queue.ready == len(BODIES)
    return heir


def test_its_messages_are_read_back() -> None:
    heir = taken_over()
    client = heir.client(1)
    assert client.drain("q") == BODIES
    assert not heir.failures
    heir.broker.check()


@pytest.mark.parametrize("window_bytes", [1, 1 << 20])
@pytest.mark.parametrize("purged", [True, False])
def test_what_leaves_is_counted_where_it_is(window_bytes: int, *, purged: bool) -> None:
    heir = taken_over(window_bytes)
    client = heir.client(1)
    if purged:
        client.ask(methods.QueuePurge(queue="q"))
    else:
        for _ in BODIES:
            client.send(methods.BasicGet(queue="q"))
        client.answers()
        client.send(methods.BasicAck(delivery_tag=0, multiple=True))
    heir.settle()
    heir.sync()
    assert not heir.failures
    assert not any(segment.counts or segment.weights for segment in heir.journal.segments.all)
    assert state_of_folder(heir.disk).queues["/", "q"].messages == []
