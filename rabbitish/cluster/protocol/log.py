"""The replicated log, as the protocol sees it: records as bytes, numbered, of ascending epochs; cut and synced.

Appending, cutting and noting an epoch take effect in memory at once and reach the disk in the same order with the next
sync. `begin_sync` gives the work as a ticket, which somebody carries out where waiting is allowed; `end_sync` then says
what is safe. A ticket that was taken before the log was cut says nothing about what was appended afterwards.

Each epoch begins with an EPOCH record, which is never dropped. So the epochs' first numbers say how far two logs are
the same: up to the lower end of the highest epoch that begins at the same number in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from rabbitish.store.record import Damage, Record, Type, decode_all


class EpochStart(NamedTuple):
    """The number of an epoch's first record."""

    epoch: int
    lsn: int


def begin_in(records: Iterable[Record], known: Sequence[EpochStart]) -> list[EpochStart]:
    """The epochs that begin in records behind those `known`. Of an epoch's EPOCH records the first is its beginning."""
    epoch = known[-1].epoch if known else 0
    starts: list[EpochStart] = []
    for record in records:
        if record.type is Type.EPOCH and record.epoch > epoch:
            epoch = record.epoch
            starts.append(EpochStart(epoch, record.lsn))
    return starts


class Ticket(Protocol):
    """Work for the disk."""

    def run(self) -> None:
        """Do it. OSError: what is on disk is unknown, nothing may follow."""


class Log(Protocol):
    """One replica's log."""

    @property
    def base(self) -> int:
        """Up to here only what still matters is kept; beyond it there are all records."""

    @property
    def last(self) -> int:
        """The number that the last record ends with."""

    @property
    def durable(self) -> int:
        """Up to here everything is on disk, and so are all cuts."""

    @property
    def epoch(self) -> int:
        """The highest epoch ever noted."""

    @property
    def stored_epoch(self) -> int:
        """The highest epoch noted that is on disk."""

    @property
    def starts(self) -> Sequence[EpochStart]:
        """Where the epochs begin, ascending."""

    @property
    def dirty(self) -> bool:
        """Whether there is anything for the disk to do."""

    def note_epoch(self, epoch: int) -> None:
        """There is an epoch that high."""

    def append(self, data: bytes) -> None:
        """Append whole records that follow on the last. Damage: they are not that; nothing was appended."""

    def truncate(self, lsn: int) -> None:
        """Cut off everything behind `lsn`, which is where a record ends and not below `base`."""

    def read(self, after: int, most_bytes: int) -> tuple[bytes, int]:
        """Records behind `after`, at least one, up to about so many bytes; and the number that they end with."""

    def snapshot(self) -> Iterator[bytes]:
        """The records that are kept up to `base`, in pieces."""

    def begin_install(self, base: int) -> None:
        """A snapshot is coming that replaces everything once it is complete."""

    def install(self, data: bytes) -> None:
        """Some of its records. Damage: they are none."""

    def end_install(self) -> None:
        """It is complete: the log is that, and ends with its base."""

    def begin_sync(self) -> Ticket:
        """What the disk has to do by now. There is one ticket at a time."""

    def end_sync(self, ticket: Ticket) -> None:
        """It has been done."""


def check(data: bytes, last: int, epoch: int) -> list[Record]:
    """The records in bytes that are to follow `last` of `epoch`. Damage: they do not."""
    records: list[Record] = []
    for record in decode_all(data, 0):
        if record.lsn != last + 1:
            raise Damage(record.start, f"record {record.lsn} where {last + 1} is due", torn=False)
        if record.epoch != epoch and (record.epoch < epoch or record.type is not Type.EPOCH):
            raise Damage(record.start, f"epoch {record.epoch} begins without its record", torn=False)
        last, epoch = record.lsn + record.span - 1, record.epoch
        records.append(record)
    return _whole(records, data)


def check_kept(data: bytes, last: int, base: int) -> list[Record]:
    """The records in a piece of a snapshot, which has gaps. Damage: they are no such piece."""
    records = list(decode_all(data, 0))
    for record in records:
        if record.lsn <= last or record.lsn + record.span - 1 > base:
            raise Damage(record.start, f"record {record.lsn} between {last} and {base}", torn=False)
        last = record.lsn + record.span - 1
    return _whole(records, data)


def _whole(records: list[Record], data: bytes) -> list[Record]:
    """Zeroes end a segment for whoever reads it, so none may come into one. Damage: there are, or nothing at all."""
    end = records[-1].end if records else 0
    if end < max(1, len(data)):
        raise Damage(end, "no record", torn=False)
    return records


def end_of(starts: Sequence[EpochStart], index: int, last: int) -> int:
    """The number that the epoch at `index` ends with, in a log that ends with `last`."""
    return starts[index + 1].lsn - 1 if index + 1 < len(starts) else last


def common_prefix(ours: Log, starts: Sequence[EpochStart], last: int) -> int:
    """Up to which number our log is the same as one with these starts and this end."""
    mine = {start.epoch: index for index, start in enumerate(ours.starts)}
    for index in range(len(starts) - 1, -1, -1):
        at = mine.get(starts[index].epoch)
        if at is not None and ours.starts[at].lsn == starts[index].lsn:
            return min(end_of(starts, index, last), end_of(ours.starts, at, ours.last))
    return 0
