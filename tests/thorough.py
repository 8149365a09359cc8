"""How much a test goes through where it could go through everything: a drawn part, or all with RABBITISH_THOROUGH=1.

README's command takes the part, the same in every run; `.ci/run` goes through everything in the files that import this.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from random import Random
from typing import TypeVar

T = TypeVar("T")

THOROUGH = os.environ.get("RABBITISH_THOROUGH") == "1"


def part_of(everything: Iterable[T], one_in: int) -> list[T]:
    """One in so many of these, drawn, in their order; the first and the last are always among them."""
    whole = list(everything)
    if THOROUGH:
        return whole
    drawn = Random(one_in).sample(range(len(whole)), len(whole) // one_in)
    return [whole[at] for at in sorted({0, len(whole) - 1, *drawn})] if whole else []


def seeds(few: int, many: int) -> range:
    """So many seeds."""
    return range(many if THOROUGH else few)
