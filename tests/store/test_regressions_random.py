"""Random lives (random_lives.py). RABBITISH_LIVES says how many seeds are run, RABBITISH_LIVES_FIRST the first."""

from __future__ import annotations

import os
from random import Random

import pytest

from rabbitish.store import journal, recorder
from tests.thorough import seeds

from .machine import small_pages
from .random_lives import Life

SEEDS = int(os.environ.get("RABBITISH_LIVES", len(seeds(3, 8))))
FIRST = int(os.environ.get("RABBITISH_LIVES_FIRST", "0"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_with_a_journal_as_without(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    small_pages(monkeypatch, random.choice((1, 3, 8, 20)))
    # What counts as large need not be written if it leaves in time.
    large = random.choice((1, 120, 64 * 1024))
    monkeypatch.setattr(journal, "LARGE_BYTES", large)
    monkeypatch.setattr(recorder, "LARGE_BYTES", large)
    life = Life(
        seed,
        steps=150,
        segment_bytes=random.choice((700, 1500, 4096, 20_000)),
        window_bytes=random.choice((800, 2500, 6000, 20_000)),
    )
    seen = life.live()
    assert seen["crashes"] and seen["publish"]
