"""A journal's closed segments, read before they are asked for: what lets a mirror lead without reading all of its log.

Only segments are read that another one follows, and of which everything is committed: nothing in them changes any more.
They may go, though, or be written anew; then this is of no use, and whoever reads begins again. `recover` goes on where
it ends, so there is one way from records to queues.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from rabbitish.store.bodies import Codec
from rabbitish.store.files import Disk
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import Record, SegmentHead, segment_name
from rabbitish.store.replay import Replay
from rabbitish.store.scan import Scanner, first_number, that_count

# So much is read between two breaths, which takes a fraction of a millisecond.
_RUN_BYTES = 32 * 1024


class Ahead:
    """See the module. Used by one thread at a time."""

    def __init__(self, codec: Codec, breathe: Callable[[], None] | None = None) -> None:
        """`breathe` is called all the time while it reads."""
        self.codec = codec
        self.publishes = PublishReader(codec)
        if breathe is None:
            self.replay = Replay(codec, self.publishes)
            self.scanner = Scanner(self.replay.visit, self.replay.run)
            return
        replay = self.replay = Replay(codec, self.publishes, run_bytes=_RUN_BYTES)

        def visit(head: SegmentHead, data: bytes, record: Record) -> None:
            breathe()
            replay.visit(head, data, record)

        def run(head: SegmentHead, data: bytes, offset: int, due: int, epoch: int) -> tuple[int, int]:
            breathe()
            return replay.run(head, data, offset, due, epoch)

        self.scanner = Scanner(visit, run)

    def read_on(self, disk: Disk, up_to: int, go_on: Callable[[], bool] = lambda: True) -> bool:
        """Read what is closed and holds nothing behind number `up_to`, a segment at a time as long as it is to `go_on`.

        False: this is of no use any more, since what was read is not what there is. JournalDamaged, OSError: nor is it,
        since something cannot be read.
        """
        if not self.fits(disk):
            return False
        names = that_count(disk.names())[0][len(self.scanner.segments) :]
        for name, following in pairwise(names):
            first = first_number(disk, segment_name(*following))
            if first is None or first > up_to + 1 or not go_on():
                break
            self.scanner.segment(name, disk.read(segment_name(*name)), is_last=False)
        return True

    def fits(self, disk: Disk) -> bool:
        """Whether what was read is there as it was, and comes first."""
        read = self.scanner.segments
        there = [segment_name(*name) for name in that_count(disk.names())[0][: len(read)]]
        return there == [head.name for head, _ in read] and all(disk.size(head.name) == size for head, size in read)
