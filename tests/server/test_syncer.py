"""Between the event loop and the thread that writes the journal nobody is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue

from rabbitish.server.syncer import Syncer
from rabbitish.store.journal import Journal
from rabbitish.store.record import Type
from rabbitish.store.segments import Segments
from tests.store.fake_disk import FakeDisk

PATIENCE_SECONDS = 20


def test_who_waits_since_the_thread_was_busy_is_told() -> None:
    """What came in meanwhile is so little that the event loop writes and syncs it itself, with nobody asking."""
    journal = Journal(
        FakeDisk(),
        Segments(),
        segment_bytes=10_000,
        next_sequence=1,
        next_lsn=1,
        epoch=1,
        snapshot=lambda journal: None,
    )
    journal.begin()
    calls: Queue[Callable[[], None]] = Queue()
    told: list[int] = []
    failures: list[OSError] = []
    syncer = Syncer(journal, told.append, failures.append, calls.put)
    assert not syncer.kick(0)
    done = calls.get(timeout=PATIENCE_SECONDS)  # the first segment is written, and the event loop does not know yet
    wanted = journal.append(Type.VHOST_NEW, b"")
    assert not syncer.kick(wanted)
    done()
    assert told[-1:] == [wanted]
    syncer.stop()
    assert not failures
