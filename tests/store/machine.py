"""A broker with a journal on a disk in memory, in which every step of the server's threads is a call of its own.

`Machine` is the world of tests/session; what server/ does in other threads happens when the test says so and no
earlier: `hand` gives the writer what has gathered, `write` has it written, `sync` synced, `tell` lets the broker know
and `delete` removes what may go. `step` is all of that. Segments, windows and pages are small, so that little traffic
reaches everything.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from random import Random

import pytest

from rabbitish.core.queue import Queue
from rabbitish.session.content import WireCodec, WireMessage
from rabbitish.store import shelf
from rabbitish.store.ahead import Ahead
from rabbitish.store.checkpoint import write_checkpoint
from rabbitish.store.compaction import Compaction
from rabbitish.store.coordinator import LocalCoordinator
from rabbitish.store.journal import Batch
from rabbitish.store.recovery import Recovered, recover
from rabbitish.store.segments import Segment
from tests.session.harness import START, World

SEGMENT_BYTES = 4096
WINDOW_BYTES = 6000
PAGE_MESSAGES = 8


class _File:
    def __init__(self, disk: MemoryDisk, name: str) -> None:
        self._disk = disk
        self.name = name
        self.closed = False

    def write(self, *parts: bytes) -> None:
        assert not self.closed
        if self._disk.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        self._disk.unsynced[self.name] += b"".join(parts)

    def sync(self) -> None:
        assert not self.closed
        self._disk.synced[self.name] += self._disk.unsynced[self.name]
        self._disk.unsynced[self.name].clear()

    def close(self) -> None:
        assert not self.closed, "its descriptor may be another file's by now"
        self.closed = True


class MemoryDisk:
    """A folder in memory that knows what was synced, and which files are open."""

    def __init__(self) -> None:
        self.synced: dict[str, bytearray] = {}
        self.unsynced: dict[str, bytearray] = {}
        self.files: list[_File] = []
        self.open: set[str] = set()  # to read from
        self.full = False
        self.stuck = False  # nothing can be deleted

    @property
    def used(self) -> int:
        return sum(map(len, self.synced.values())) + sum(map(len, self.unsynced.values()))

    def names(self) -> list[str]:
        return list(self.synced)

    def read(self, name: str) -> bytes:
        if name not in self.synced:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return bytes(self.synced[name] + self.unsynced[name])

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        data = self.read(name)
        self.open.add(name)
        return data[offset : offset + size]

    def forget(self, name: str) -> None:
        self.open.discard(name)

    def size(self, name: str) -> int:
        return len(self.read(name))

    def create(self, name: str) -> _File:
        assert name not in self.synced, "a name is used once"
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        self.synced[name], self.unsynced[name] = bytearray(), bytearray()
        file = _File(self, name)
        self.files.append(file)
        return file

    def rename(self, old: str, new: str) -> None:
        assert not self.unsynced[old], "it was not synced"
        for part in (self.synced, self.unsynced):
            part[new] = part.pop(old)

    def truncate(self, name: str, size: int) -> None:
        self.synced[name], self.unsynced[name] = bytearray(self.read(name)[:size]), bytearray()

    def unlink(self, name: str) -> None:
        if self.stuck:
            raise OSError(errno.EIO, "cannot delete")
        assert name not in self.open, "its descriptor stays open"
        del self.synced[name], self.unsynced[name]

    def free_bytes(self) -> int:
        return 0 if self.full else 1 << 40

    def close(self) -> None:
        """As RealDisk's."""

    def killed(self) -> MemoryDisk:
        """What is there when the process has ended: all that was written."""
        left = MemoryDisk()
        left.synced = {name: bytearray(self.read(name)) for name in self.synced}
        left.unsynced = {name: bytearray() for name in self.synced}
        return left

    def power_lost(self, random: Random) -> MemoryDisk:
        """What is there when the power is back: all that was synced, and the beginning of what was not."""
        left = MemoryDisk()
        for name, synced in self.synced.items():
            more = self.unsynced[name]
            left.synced[name] = bytearray(synced + more[: random.randint(0, len(more))])
            left.unsynced[name] = bytearray()
        return left


class Machine(World):
    """A broker, its clients, its journal and its writer."""

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        *,
        now: int = START,
        lazy: bool = False,
        settle: bool = True,
        checkpoints: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        window_bytes: int = WINDOW_BYTES,
        ahead: Ahead | None = None,
    ) -> None:
        super().__init__()
        self.disk = disk or MemoryDisk()
        self.now = now
        self.lazy = lazy
        self.codec = ahead.codec if ahead is not None else WireCodec(self.hub.properties)
        self.failures: list[Exception] = []
        self.recovered: Recovered = recover(
            self.disk,
            self.broker,
            self.codec,
            LocalCoordinator(self.disk, lambda: "this disk"),
            now,
            segment_bytes=segment_bytes,
            on_failure=self.failures.append,
            ahead=ahead,
            checkpoint_trusted_above_bytes=0 if checkpoints else 1 << 60,
        )
        self.journal = self.recovered.journal
        self.hub.durable = self.journal.durable_lsn
        self.broker.usage.window_bytes = window_bytes
        self.handed: list[Batch] = []
        self.unsynced: list[Batch] = []
        self.dead: list[str] = []
        if settle:
            self.settle()

    # ---- the server

    def settle(self) -> None:
        """See World."""
        self._settle()
        if not self.lazy:
            while self.journal.waiting or self.dead:
                self.step()
                self._settle()

    def _settle(self) -> None:
        while True:
            self.broker.settle(self.now)
            self.look_through()
            touched, self.hub.touched = self.hub.touched, []
            for session in touched:
                session.listed = False
            for client in self.clients.values():
                client.collect()
            fed = [client for client in self.clients.values() if client.feed()]
            if not (fed or self.broker.restless or self.hub.touched):
                return

    def step(self) -> None:
        """All that the writer's thread does."""
        self.hand()
        self.write()
        self.sync()
        self.delete()

    def hand(self) -> None:
        """Give the writer what has gathered."""
        self.handed += self.journal.take()

    def write(self, count: int | None = None) -> None:
        """Have it, or the first `count` batches of it, written, and say so."""
        batches = self.handed[:count]
        if batches:
            del self.handed[: len(batches)]
            self.journal.write(batches)
            self.unsynced += batches
            self.journal.written(batches[-1].last_lsn, sum(len(batch.data) for batch in batches))

    def sync(self) -> None:
        """Have what was written synced, and let those hear of it who waited."""
        if self.unsynced:
            self.journal.sync()
            lsn = self.unsynced[-1].last_lsn
            self.unsynced.clear()
            self.dead += self.journal.synced(lsn)
            self.hub.now_durable(lsn)
            self._settle()

    def delete(self) -> None:
        """Delete what may go."""
        dead, self.dead = self.dead, []
        self.journal.delete(dead)

    # ---- compaction

    def compact(self) -> int:
        """Write sparse segments anew as long as there are any; how often."""
        times = 0
        while segments := self.journal.sparse():
            self._rewrite(segments)
            times += 1
            assert times < 100, "there is no end to it"
        return times

    def plan(self) -> Compaction | None:
        """A compaction of what is sparse that has not begun."""
        segments = self.journal.sparse()
        return Compaction(self.journal, self.codec, segments) if segments else None

    def rewrite(self, first: int, end: int | None = None) -> None:
        """Write these segments anew, sparse or not."""
        self._rewrite(self.journal.segments.all[:-1][first:end])

    def _rewrite(self, segments: Sequence[Segment]) -> None:
        compaction = Compaction(self.journal, self.codec, segments)
        compaction.write()
        while self.journal.durable_lsn < compaction.lsn:
            self.step()
        self.install(compaction)
        self.delete()

    def install(self, compaction: Compaction) -> None:
        """Let what was written count."""
        compaction.install()
        compaction.finish()
        self.dead += self.journal.take_gone()

    # ---- the end

    def stop(self) -> MemoryDisk:
        """A clean stop; what is left."""
        for session in list(self.clients):
            session.receive_eof(self.now)
        self.clients.clear()
        self._settle()
        while self.journal.waiting or self.handed or self.unsynced or self.dead:
            self.step()
        self.journal.close()
        write_checkpoint(self.journal, self.recovered.recorder, self.recovered.shelf)
        self.recovered.shelf.close()
        return self.disk.killed()

    def again(self, disk: MemoryDisk | None = None, **how: object) -> Machine:
        """The process ends, and the next one starts on what is left of the disk."""
        return Machine(disk or self.disk.killed(), now=self.now, **how)  # type: ignore[arg-type]

    def healthy(self) -> None:
        """Assert that nothing went wrong."""
        assert not self.failures
        assert not self.exceptions
        self.broker.check()


def small_pages(patch: pytest.MonkeyPatch, messages: int = PAGE_MESSAGES) -> None:
    """Make pages of a few messages."""
    patch.setattr(shelf, "PAGE_MESSAGES", messages)


def bodies(queue: Queue) -> list[bytes]:
    """The bodies of what is ready, in order, recalling what is not in memory."""
    return [whole(queue, message).body() for message in queue]


def whole(queue: Queue, message: object) -> WireMessage:
    """The message with its content."""
    assert isinstance(message, WireMessage)
    keeper = queue._host.usage.shelf
    recalled = keeper.recall(message) if message.away and keeper is not None else message
    assert isinstance(recalled, WireMessage)
    return recalled


def numbered(first: int, end: int, size: int = 100) -> Sequence[bytes]:
    """Bodies of one size that say which they are."""
    return [f"{number:06d}".encode().ljust(size, b".") for number in range(first, end)]
