"""Long work is done in pieces, in turns, and a fault ends only the chore that has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitish.core.broker import Broker
from rabbitish.core.chores import Chores

from .fakes import World


def chore(said: list[str], name: str, steps: int, *, fault: bool = False) -> Iterator[None]:
    for step in range(steps):
        said.append(f"{name}{step}")
        yield
    if fault:
        raise ValueError(name)


def test_turns() -> None:
    chores, said = Chores(), list[str]()
    chores.add(chore(said, "a", 3))
    chores.add(chore(said, "b", 1))
    while chores:
        chores.step()
    assert said == ["a0", "b0", "a1", "a2"]


def test_all_of_it_now() -> None:
    chores, said = Chores(), list[str]()
    chores.add(chore(said, "a", 3))
    chores.finish()
    assert said == ["a0", "a1", "a2"] and not chores


def test_a_fault_ends_one_chore() -> None:
    chores, said, faults = Chores(), list[str](), list[Exception]()
    chores.add(chore(said, "a", 1, fault=True))
    chores.add(chore(said, "b", 2))
    chores.finish(faults.append)
    assert said == ["a0", "b0", "b1"] and [str(fault) for fault in faults] == ["a"]
    chores.add(chore(said, "c", 0, fault=True))
    with pytest.raises(ValueError, match="c"):
        chores.step()
    assert not chores


def test_one_step_a_settle() -> None:
    broker = Broker(token=str, settle_budget=100)
    said: list[str] = []
    assert broker.settle(5) is None
    broker.chores.add(chore(said, "a", 2))
    assert broker.restless and broker.settle(5) == 5 and said == ["a0"]
    assert broker.settle(5) == 5 and said == ["a0", "a1"]
    assert broker.settle(5) is None and not broker.restless


def test_what_is_purged_is_let_go_in_pieces() -> None:
    world = World()
    queue = world.queue()
    world.publish_all(["m"] * 25_000)
    queue.purge()
    left = queue.ready, queue.bytes
    steps = 0
    while world.broker.chores:
        world.broker.chores.step()
        steps += 1
    assert left == (0, 0) and steps == 4, "three pieces, and the end"
