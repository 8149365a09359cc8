"""A publish is confirmed once all its journals are committed and enough replicas are in sync, and never before."""

from __future__ import annotations

from rabbitish.cluster.protocol.confirms import ConfirmGate


def test_in_order_as_far_as_is_committed() -> None:
    gate = ConfirmGate()
    for lsn in (3, 5, 9):
        gate.wait({"g": lsn}, 1, lsn)
    assert gate.advance("g", 2, 3) == []
    assert gate.advance("g", 5, 3) == [3, 5]
    assert gate.advance("g", 5, 3) == []
    assert gate.advance("g", 100, 1) == [9]


def test_all_journals_are_waited_for() -> None:
    gate = ConfirmGate()
    gate.wait({"g": 3, "h": 7}, 1, "both")
    gate.wait({"h": 8}, 1, "one")
    assert gate.advance("h", 8, 1) == ["one"]
    assert gate.advance("g", 3, 1) == ["both"]


def test_with_too_few_in_sync_it_is_held_and_not_forgotten() -> None:
    gate = ConfirmGate()
    gate.wait({"g": 3}, 2, "majority")
    gate.wait({"g": 4}, 1, "alone")
    assert gate.advance("g", 9, 1) == ["alone"]
    assert gate.held_back("g") == 1
    assert gate.advance("g", 9, 2) == ["majority"]
    assert gate.held_back("g") == gate.held_back("other") == 0


def test_without_a_leader_nothing_is_confirmed() -> None:
    gate = ConfirmGate()
    gate.wait({"g": 3}, 1, "lost")
    gate.wait({"h": 3}, 1, "kept")
    gate.forget("g")
    assert gate.advance("g", 9, 3) == gate.advance("none", 1, 1) == []
    assert gate.advance("h", 9, 3) == ["kept"]
