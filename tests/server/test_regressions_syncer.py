"""The syncer's two threads: what is told, when it is synced at the latest, and that a failure is the end."""

from __future__ import annotations

import errno
import queue
import threading
import types
from collections.abc import Callable, Iterator

import pytest

from rabbitish.server import pace
from rabbitish.server import syncer as module
from rabbitish.server.syncer import Syncer
from rabbitish.store.journal import Journal
from rabbitish.store.record import Type
from rabbitish.store.segments import Segments
from tests.store.machine import MemoryDisk

from .support import PATIENCE_SECONDS

LITTLE, MUCH = b"." * 10, b"." * 20_000


class Gate:
    """Where the journal's thread is held up."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def pass_(self) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE_SECONDS)


class Loop:
    """A syncer and the event loop that it works for."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        self.told: list[int] = []
        self.failures: list[Exception] = []
        self.disk = MemoryDisk()
        self.journal = Journal(
            self.disk, Segments(), segment_bytes=1 << 20, next_sequence=1, next_lsn=1, epoch=1, snapshot=lambda _: None
        )
        self.crowded = False
        self.syncer = Syncer(self.journal, self.told.append, self.failures.append, self.calls.put, lambda: self.crowded)
        self.journal.begin()
        self.kick(self.journal.last_lsn)
        while not self.told:
            self.one_call()
        self.file = self.disk.files[0]

    def one_call(self) -> None:
        self.calls.get(timeout=PATIENCE_SECONDS)()

    def kick(self, wanted: int) -> None:
        """As Keeper.kick."""
        if self.syncer.kick(wanted):
            self.told.append(self.journal.durable_lsn)

    def append(self, body: bytes, *, wanted: bool = False) -> int:
        lsn = self.journal.append(Type.DELIVERED, body)
        self.kick(lsn if wanted else 0)
        return lsn

    def in_thread(self, what: str, do: Callable[[], None]) -> None:
        """Have something done before the journal's thread next writes or syncs."""
        plain = getattr(self.file, what)

        def instead(*arguments: object) -> None:
            if threading.current_thread() is self.syncer._thread:
                do()
            plain(*arguments)

        setattr(self.file, what, instead)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    if not loop.failures:
        loop.syncer.stop()


def test_what_came_while_the_thread_wrote_is_told_of_when_it_is_synced(loop: Loop) -> None:
    gate = Gate()
    loop.in_thread("write", gate.pass_)
    loop.append(MUCH)
    assert gate.reached.wait(PATIENCE_SECONDS)
    lsn = loop.append(LITTLE, wanted=True)
    gate.open.set()
    while loop.journal.durable_lsn < lsn:
        loop.one_call()
    assert loop.told[-1] == lsn


def test_what_nobody_waits_for_is_synced_though_more_comes_all_the_time(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1 << 30))
    clock = types.SimpleNamespace(monotonic=lambda: next(ticks), perf_counter=lambda: 0.0)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_LAZY_SECONDS", 3)
    before = list(loop.told)
    for _ in range(8):
        loop.append(MUCH)
        while loop.syncer._busy:
            loop.one_call()
    assert loop.told != before


def test_what_others_had_to_wait_for_is_left_to_the_thread(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_CROWDED_SECONDS", 1e6)
    monkeypatch.setattr(pace, "_FAST_SECONDS", 1e6)
    monkeypatch.setattr(pace, "_SLOW_SECONDS", 1e6)
    threads: list[threading.Thread] = []
    plain = loop.file.sync
    loop.file.sync = lambda: (threads.append(threading.current_thread()), plain())[1]  # type: ignore[method-assign]
    for loop.crowded in (False, True, False):
        lsn = loop.append(LITTLE, wanted=True)
        while loop.journal.durable_lsn < lsn:
            loop.one_call()
    here = threading.current_thread()
    assert [thread is here for thread in threads] == [True, True, False]


def test_while_the_thread_syncs_nobody_else_does(loop: Loop) -> None:
    """Of two syncs at a time one may not hear that the other failed."""
    gate = Gate()

    def fail() -> None:
        gate.pass_()
        raise OSError(errno.EIO, "no sync")

    loop.in_thread("sync", fail)
    told = list(loop.told)
    loop.append(LITTLE)
    assert gate.reached.wait(PATIENCE_SECONDS)
    loop.append(LITTLE, wanted=True)
    gate.open.set()
    while not loop.failures:
        loop.one_call()
    assert loop.told == told


def test_after_a_failure_nothing_is_synced(loop: Loop) -> None:
    told = list(loop.told)
    loop.disk.full = True
    loop.append(LITTLE, wanted=True)
    assert loop.failures
    loop.disk.full = False
    loop.append(LITTLE, wanted=True)
    with pytest.raises(OSError, match="no space"):
        loop.syncer.stop()
    while not loop.calls.empty():
        loop.one_call()
    assert loop.told == told
    assert loop.disk.unsynced == {loop.file.name: b""}


def test_a_sync_that_failed_is_not_tried_again(loop: Loop) -> None:
    told = list(loop.told)
    plain, loop.file.sync = loop.file.sync, _fail  # type: ignore[method-assign]
    loop.append(LITTLE, wanted=True)
    assert loop.failures
    loop.file.sync = plain  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no sync"):
        loop.syncer.stop()
    while not loop.calls.empty():
        loop.one_call()
    assert loop.told == told


def _fail() -> None:
    raise OSError(errno.EIO, "no sync")


def test_a_fault_of_ours_in_the_thread_is_told(loop: Loop) -> None:
    def fault() -> None:
        raise RuntimeError("a bug")

    loop.in_thread("write", fault)
    loop.append(MUCH, wanted=True)
    while not loop.failures:
        loop.one_call()
    assert [str(failure) for failure in loop.failures] == ["a bug"]
