"""What lives in a segment is known about: what leaves by several ranges at once is counted with an average."""

from __future__ import annotations

from rabbitish.store.record import SegmentHead
from rabbitish.store.segments import WEIGHT_BYTES, Segments


def test_what_is_left_weighs_something() -> None:
    segments = Segments()
    for number, first in enumerate((1, 101), 1):
        segments.begin(SegmentHead(number, number, 0, first, 0))
    small, large = segments.all
    small.add(7, 2, 2 * WEIGHT_BYTES)
    large.add(7, 2, 20_000 + 2 * WEIGHT_BYTES)
    segments.removed(7, (1, 1, 101, 1), 10_000 + 2 * WEIGHT_BYTES)
    assert small.weights == {7: WEIGHT_BYTES}
    assert large.weights == {7: 20_000 + 2 * WEIGHT_BYTES - 5000 - WEIGHT_BYTES}
    segments.removed(7, (2, 1), WEIGHT_BYTES)
    assert small.weights == {} == small.counts
