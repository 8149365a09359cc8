"""Clusters in virtual time under everything at once: nothing confirmed is lost, and once healed all is whole again.

RABBITISH_SEEDS says how many lives to try (6 in an ordinary run, 200 in .ci/run, thousands by hand), beginning with
RABBITISH_FIRST_SEED. A failure names its seed: `live(seed)` is the same again, with `World.trace` for what happened.
"""

from __future__ import annotations

import os

import pytest

from rabbitish.store.record import Damage

from .chaos import live
from .mutations import MUTATIONS, Broken
from .world import LATE, Violation

FIRST_SEED = int(os.environ.get("RABBITISH_FIRST_SEED", "1"))
SEEDS = int(os.environ.get("RABBITISH_SEEDS", "6"))
MOST_SEEDS = 60


def test_no_confirmed_record_is_lost_whatever_happens() -> None:
    totals: dict[str, int] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
        try:
            world = live(seed)
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
        for what, count in {**world.counts, "confirmed": len(world.confirmed)}.items():
            totals[what] = totals.get(what, 0) + count
    print(f"{SEEDS} lives:", ", ".join(f"{count} {what}" for what, count in sorted(totals.items())))
    assert totals["confirmed"] > 300 * SEEDS
    if SEEDS >= 15:
        assert totals["elections"] > 3 * SEEDS and totals["in_sync_changes"] > 5 * SEEDS
        assert totals["deliveries"]
    if SEEDS >= 100:  # about every tenth life has one
        assert totals["wiped"] and totals["snapshots"]


def test_a_life_is_the_same_again() -> None:
    first, second = live(3), live(3)
    assert (first.counts, list(first.confirmed)) == (second.counts, list(second.confirmed))
    assert first.etcd.state == second.etcd.state


@pytest.mark.parametrize("broken", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_broken_rule_is_noticed(broken: Broken) -> None:
    """By the seed that is known for it, or after changes by another of the first few."""
    for seed in (broken.seed, *range(1, MOST_SEEDS)):
        try:
            live(seed, broken.replica, broken.flake)
        except (Violation, Damage, AssertionError) as noticed:  # the last: a log that is told what no log can do
            if not str(noticed).startswith(LATE):  # what was promised was broken, not only late
                return
    pytest.fail(f"no seed up to {MOST_SEEDS} notices")
