"""What was read of a journal before it ended makes no difference to what comes back, whatever happened in between.

Random lives (random_lives.py) beside which somebody reads closed segments now and then, as a mirror does, and begins
again where they have changed. At each start all is read on a copy as well, and both must come to the same.
"""

from __future__ import annotations

from random import Random

import pytest

from rabbitish.session.content import PropertyCache, WireCodec
from rabbitish.store.ahead import Ahead
from rabbitish.store.segments import Segment
from tests.thorough import seeds

from .machine import Machine, MemoryDisk, small_pages
from .random_lives import Life, Quick, contents


def new_ahead(breaths: list[None] | None = None) -> Ahead:
    codec = WireCodec(PropertyCache(100))
    return Ahead(codec) if breaths is None else Ahead(codec, lambda: breaths.append(None))


def what(segment: Segment) -> dict[str, object]:
    """All that is known of a segment; of what was removed the order means nothing."""
    found: dict[str, object] = {name: getattr(segment, name) for name in Segment.__slots__}
    removed = zip(*[iter(segment.removed)] * 3, strict=True)
    found["removed"] = {(queue, lsn) for queue, first, count in removed for lsn in range(first, first + count)}
    return found


def everything(machine: Machine) -> tuple[object, ...]:
    """All that a start brings back."""
    journal, recorder = machine.journal, machine.recovered.recorder
    numbers = sorted((queue.name, number) for queue, number in recorder.queues.items())
    return (
        contents(machine.vhost),
        [what(segment) for segment in journal.segments.all],
        numbers,
        (journal.last_lsn, journal.last_sequence, journal.epoch),
        sorted(machine.vhost.exchanges),
        machine.broker.deadlines.next_due(),
    )


class AheadLife(Life):
    """One with a reader."""

    def __init__(self, seed: int, **sizes: int) -> None:
        self.ahead = new_ahead([])
        super().__init__(seed, **sizes)

    def writer(self) -> None:
        super().writer()
        if self.random.random() < 0.3:
            self.look()

    def look(self) -> None:
        """Read a few segments."""
        read = len(self.ahead.scanner.segments)
        chances = iter([self.random.random() < 0.7 for _ in range(100)])
        if not self.ahead.read_on(self.ours.disk, self.ours.journal.durable_lsn, lambda: next(chances)):
            self.seen["begun again"] += 1
            self.ahead = new_ahead([])
        self.seen["segments read"] += len(self.ahead.scanner.segments) - read

    def start(self, disk: MemoryDisk) -> Quick:
        self.look()
        self.seen["gone on from"] += bool(self.ahead.scanner.segments) and self.ahead.fits(disk)
        ahead, self.ahead = self.ahead, new_ahead([])
        whole = Quick(disk.killed(), now=self.now, lazy=True, settle=False, **self.sizes)
        again = Quick(disk, now=self.now, lazy=True, settle=False, ahead=ahead, **self.sizes)
        assert everything(again) == everything(whole)
        return again


@pytest.mark.parametrize("seed", seeds(3, 40))
def test_what_was_read_ahead_makes_no_difference(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    small_pages(monkeypatch, random.choice((3, 8, 20)))
    life = AheadLife(
        seed, steps=120, segment_bytes=random.choice((700, 1500, 4096)), window_bytes=random.choice((2500, 20_000))
    )
    seen = life.live()
    assert seen["crashes"] and seen["segments read"] and seen["gone on from"]
