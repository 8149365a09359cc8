"""A replica's log in memory that knows what a crash would leave: what was synced, and of the rest any beginning.

The rest is kept as operations in their order, since a cut that is not synced may be lost as well as an append. What a
crash leaves is another log.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from rabbitish.cluster.protocol.log import EpochStart, check, check_kept
from rabbitish.store.record import Type, encode


class Kept(NamedTuple):
    """One record."""

    last: int
    lsn: int
    epoch: int
    type: Type
    data: bytes


class Contents:
    """What a log consists of."""

    def __init__(self) -> None:
        self.records: list[Kept] = []
        self.base = 0
        self.epoch = 0

    @property
    def last(self) -> int:
        return self.records[-1].last if self.records and self.records[-1].last > self.base else self.base

    def copy(self) -> Contents:
        other = Contents()
        other.records, other.base, other.epoch = list(self.records), self.base, self.epoch
        return other

    def add(self, records: list[Kept]) -> None:
        self.records += records

    def cut(self, lsn: int) -> None:
        del self.records[bisect_right(self.records, lsn, key=lambda kept: kept.last) :]

    def replace(self, records: list[Kept], base: int) -> None:
        self.records, self.base = list(records), base

    def note(self, epoch: int) -> None:
        self.epoch = max(self.epoch, epoch)


class Done:
    """A ticket: so many operations, and what holds after them."""

    def __init__(self, count: int, last: int, epoch: int, cuts: int) -> None:
        self.count, self.last, self.epoch, self.cuts = count, last, epoch, cuts

    def run(self) -> None:
        pass


class MemoryLog:
    """See Log."""

    def __init__(self, contents: Contents | None = None) -> None:
        self.disk = contents if contents is not None else Contents()
        self.now = self.disk.copy()
        self.base, self.last, self.epoch = self.now.base, self.now.last, self.now.epoch
        self.durable, self.stored_epoch = self.last, self.epoch
        self.starts = [EpochStart(kept.epoch, kept.lsn) for kept in self.now.records if kept.type is Type.EPOCH]
        self._pending: list[tuple[str, tuple]] = []
        self._cuts = 0
        self._coming: list[Kept] = []
        self._coming_base = 0

    def _do(self, what: str, *arguments: object) -> None:
        getattr(self.now, what)(*arguments)
        self._pending.append((what, arguments))

    @property
    def dirty(self) -> bool:
        return bool(self._pending)

    def note_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self._do("note", epoch)

    def append(self, data: bytes) -> None:
        records = check(data, self.last, self.starts[-1].epoch if self.starts else 0)
        kept = [Kept(r.lsn + r.span - 1, r.lsn, r.epoch, r.type, data[r.start : r.end]) for r in records]
        self._do("add", kept)
        self.last = kept[-1].last
        self.starts += [EpochStart(one.epoch, one.lsn) for one in kept if one.type is Type.EPOCH]

    def truncate(self, lsn: int) -> None:
        assert lsn >= self.base
        if lsn < self.last:
            self._do("cut", lsn)
            assert self.now.last == lsn, "a cut through a record"
            self.last = lsn
            self.durable = min(self.durable, lsn)
            self._cuts += 1
            while self.starts and self.starts[-1].lsn > lsn:
                self.starts.pop()

    def read(self, after: int, most_bytes: int) -> tuple[bytes, int]:
        assert self.base <= after < self.last
        pieces: list[bytes] = []
        size = 0
        for kept in self.now.records[bisect_right(self.now.records, after, key=lambda kept: kept.last) :]:
            pieces.append(kept.data)
            after = kept.last
            size += len(kept.data)
            if size >= most_bytes:
                break
        return b"".join(pieces), after

    def snapshot(self) -> Iterator[bytes]:
        kept = [kept.data for kept in self.now.records if kept.last <= self.base]
        return iter([b"".join(kept[at : at + 40]) for at in range(0, len(kept), 40)])

    def begin_install(self, base: int) -> None:
        self._coming, self._coming_base = [], base

    def install(self, data: bytes) -> None:
        last = self._coming[-1].last if self._coming else 0
        records = check_kept(data, last, self._coming_base)
        self._coming += [Kept(r.lsn + r.span - 1, r.lsn, r.epoch, r.type, data[r.start : r.end]) for r in records]

    def end_install(self) -> None:
        self._do("replace", self._coming, self._coming_base)
        self.base = self.last = self._coming_base
        self.durable = 0
        self._cuts += 1
        self.starts = [EpochStart(kept.epoch, kept.lsn) for kept in self._coming if kept.type is Type.EPOCH]

    def begin_sync(self) -> Done:
        return Done(len(self._pending), self.last, self.epoch, self._cuts)

    def end_sync(self, ticket: Done) -> None:
        for what, arguments in self._pending[: ticket.count]:
            getattr(self.disk, what)(*arguments)
        del self._pending[: ticket.count]
        self.stored_epoch = ticket.epoch
        if ticket.cuts == self._cuts:
            self.durable = max(self.durable, ticket.last)

    # ---- for tests

    def condense(self, base: int, alive: object) -> None:
        """Keep of what is up to `base` only what is alive, and where epochs begin; as if on disk at once."""
        assert self.base <= base <= self.durable and not self._pending
        for contents in (self.now, self.disk):
            head = bisect_right(contents.records, base, key=lambda kept: kept.last)
            kept = [one for one in contents.records[:head] if one.type is Type.EPOCH or alive(one.lsn)]  # type: ignore[operator]
            contents.replace(kept + contents.records[head:], base)
        self.base = base

    def find(self, lsn: int) -> Kept | None:
        """The record that begins with a number."""
        at = bisect_left(self.now.records, lsn, key=lambda kept: kept.lsn)
        if at < len(self.now.records) and self.now.records[at].lsn == lsn:
            return self.now.records[at]
        return None

    def crashed(self, random: Random, *, power: bool) -> MemoryLog:
        """What the next process finds. Without power nothing is left of what was not synced, or any beginning of it."""
        left = self.disk.copy()
        count = random.randint(0, len(self._pending)) if not power or random.random() < 0.5 else 0
        for what, arguments in self._pending[:count]:
            getattr(left, what)(*arguments)
        if count < len(self._pending) and self._pending[count][0] == "add":
            left.add(self._pending[count][1][0][: random.randint(0, len(self._pending[count][1][0]))])
        return MemoryLog(left)


def record(lsn: int, epoch: int, kind: Type, *body: bytes) -> bytes:
    return b"".join(encode(lsn, epoch, kind, *body))
