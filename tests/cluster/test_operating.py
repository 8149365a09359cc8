"""What an operator may do to a journal's replicas, what is refused, and what is said to be lost."""

from __future__ import annotations

import pytest

from rabbitish.cluster.protocol.log import EpochStart
from rabbitish.cluster.protocol.operating import Unwise, better_placed, force, forget, heir_for, members
from rabbitish.cluster.protocol.state import GroupState, View

ALL = ("a#1", "b#1", "c#1")


def view(isr: str = "abc", live: str = "abc", leader: str = "a", epoch: int = 7) -> View:
    state = GroupState(epoch, f"{leader}#1" if leader else "", tuple(f"{x}#1" for x in isr), ALL, "n")
    return View(state, 5, frozenset(live), 9)


def test_what_is_seen_by_the_leader_and_by_others() -> None:
    seen = view(isr="ab", live="ac")
    rows = members(seen, {"a": ("h", 1), "c": ("::1", 2)}, 100, {"a#1": 100, "b#1": 90})
    assert [list(row.values())[:7] for row in rows] == [
        ["a", "leader", True, True, 100, 0, "h:1"],
        ["b", "mirror", True, False, 90, 10, ""],
        ["c", "mirror", False, True, None, None, "::1:2"],
    ]
    assert [row["lag"] for row in members(seen, {}, 100, {})] == [None] * 3


# --- Handing over -----------------------------------------------------------------------------------------------------


def test_the_heir_is_who_has_most_or_is_named() -> None:
    acked = {"b#1": 90, "c#1": 95}
    assert heir_for(view(), "a#1", acked, None) == "c#1"
    assert heir_for(view(), "a#1", acked, "b") == "b#1"
    assert heir_for(view(isr="ab"), "a#1", acked, None) == "b#1"


@pytest.mark.parametrize(
    ("seen", "node", "reason"),
    [
        (view(isr="a"), None, "no mirror is in sync, and only one that is may lead"),
        (view(live="a"), None, "no mirror is in sync, and only one that is may lead"),
        (view(), "a", "a leads already"),
        (view(), "d", "there is no node d; there are a, b, c"),
        (view(isr="ac"), "b", "b is not in sync or not there, and only a mirror that is may lead"),
        (view(live="ac"), "b", "b is not in sync or not there, and only a mirror that is may lead"),
    ],
)
def test_nobody_else_may_lead(seen: View, node: str | None, reason: str) -> None:
    with pytest.raises(Unwise) as unwise:
        heir_for(seen, "a#1", {"b#1": 90, "c#1": 90}, node)
    assert str(unwise.value) == reason


def test_who_says_nothing_is_no_heir() -> None:
    with pytest.raises(Unwise):
        heir_for(view(), "a#1", {}, None)


@pytest.mark.parametrize(
    ("seen", "clients", "heir"),
    [
        (view(), {"a": 1, "b": 2, "c": 3}, "c#1"),
        (view(), {"a": 0, "b": 2, "c": 1}, "b#1"),
        (view(), {"b": 1}, "b#1"),
        (view(), {"a": 2, "b": 2, "c": 1}, None),  # as many are no reason
        (view(), {"a": 1, "b": 2, "c": 2}, "c#1"),  # which has more of the journal
        (view(isr="ab"), {"a": 1, "b": 2, "c": 3}, "b#1"),
        (view(live="ab"), {"a": 1, "b": 2, "c": 3}, "b#1"),
        (view(isr="ab"), {"a": 1, "c": 3}, None),
        (view(isr="a"), {"c": 3}, None),
        (view(), {"": 9}, None),
        (view(), {}, None),
    ],
)
def test_the_leader_should_be_where_most_clients_are(seen: View, clients: dict[str, int], heir: str | None) -> None:
    assert better_placed(seen, "a#1", {"b#1": 90, "c#1": 95}, clients) == heir


# --- Forgetting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("isr", "live"), [("abc", "ac"), ("ac", "ac")])
def test_a_node_that_is_not_needed_is_forgotten(isr: str, live: str) -> None:
    after = forget(view(isr=isr, live=live), "b")
    assert (after.isr, after.replicas) == (("a#1", "c#1"), ("a#1", "c#1"))
    assert (after.epoch, after.leader) == (7, "a#1")


@pytest.mark.parametrize(
    ("seen", "node", "reason"),
    [
        (view(), "a", "a leads; another must first ('rabbitish cluster transfer', or stop it)"),
        (
            view(live=""),
            "a",
            "a led last, and nobody else may yet; if it will not come back: 'rabbitish cluster force-leader'",
        ),
        (view(), "b", "b is running, or its lease in etcd has not ended yet: stop it first"),
        (view(isr="ac"), "b", "b is running, or its lease in etcd has not ended yet: stop it first"),
        (view(), "d", "there is no node d; there are a, b, c"),
        (view(isr="b", leader=""), "b", "b alone is in sync: without it nobody may lead, and what it has is lost"),
    ],
)
def test_a_node_that_is_needed_is_not(seen: View, node: str, reason: str) -> None:
    with pytest.raises(Unwise) as unwise:
        forget(seen, node)
    assert str(unwise.value) == reason


# --- Forcing ----------------------------------------------------------------------------------------------------------


def test_in_sync_and_alone_nothing_is_lost() -> None:
    forced = force(view(live=""), "b#1", 7, [EpochStart(7, 3)], 90)
    assert forced.losses == ()
    assert forced.state == GroupState(8, "b#1", ("b#1",), ("b#1",), "")


def test_who_is_there_goes_on_counting_and_who_is_not_joins_again() -> None:
    forced = force(view(isr="a", live="c"), "b#1", 7, [EpochStart(7, 3)], 90)
    assert (forced.state.replicas, forced.nodes) == (("b#1", "c#1"), ["b", "c"])


def test_another_storage_takes_its_nodes_place() -> None:
    forced = force(view(isr="a", live="bc"), "b#2", 3, [], 0)
    assert (forced.state.leader, forced.state.isr, forced.state.replicas) == ("b#2", ("b#2",), ("b#2", "c#1"))


@pytest.mark.parametrize(
    ("starts", "epoch", "expected", "said"),
    [
        ([EpochStart(7, 3)], 7, 8, "newest of epoch 7, as is the cluster; how many records came after them is not"),
        ([EpochStart(5, 3)], 6, 8, "newest of epoch 5; the cluster is in epoch 7: everything confirmed since may be"),
        ([], 0, 8, "newest of epoch 0; the cluster is in epoch 7: everything confirmed since may be lost"),
        ([EpochStart(5, 3)], 9, 10, "newest of epoch 5; the cluster is in epoch 7"),
    ],
)
def test_what_may_be_lost_is_said(starts: list[EpochStart], epoch: int, expected: int, said: str) -> None:
    forced = force(view(isr="ac", live=""), "b#1", epoch, starts, 90)
    first, second = forced.losses
    assert first == "in sync is a, c, not this node: what was confirmed while it was not in sync may be lost"
    assert said in second and "records up to 90" in second
    assert forced.state.epoch == expected


def test_an_etcd_that_knows_nothing() -> None:
    forced = force(None, "b#1", 7, [EpochStart(7, 3)], 90)
    assert forced.state == GroupState(8, "b#1", ("b#1",), ("b#1",), "")
    assert forced.losses == (
        "etcd knows nothing of this cluster; this replica has records up to 90, the newest of epoch 7, and who has more"
        " is not known",
    )


def test_nobody_is_forced_where_one_can_lead() -> None:
    with pytest.raises(Unwise, match="c is in sync and alive, and can lead: stop it first"):
        force(view(live="bc"), "b#1", 7, [], 90)
    with pytest.raises(Unwise, match="a, c are in sync and alive"):
        force(view(), "b#1", 7, [], 90)
