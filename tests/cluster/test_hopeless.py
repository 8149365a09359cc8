"""An operator is told when nobody may lead any more, and only then."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from rabbitish.cluster.etcd import KeyValue, Txn, Unknown
from rabbitish.cluster.membership import Names
from rabbitish.cluster.protocol.state import GroupState
from rabbitish.server.hopeless import storages_in, told, watch, watch_set

NAMES = Names("x")
STATE = GroupState(3, "a#1", ("a#1", "b#1"), ("a#1", "b#1", "c#1"), "")


@pytest.mark.parametrize(
    ("live", "absent", "lost"),
    [
        ({"a": "1", "b": "1", "c": "1"}, None, None),
        ({"a": "2", "b": "1"}, None, None),  # b may
        ({"b": "1"}, None, None),
        ({"a": "2", "b": "2", "c": "1"}, None, "a b"),
        ({"a": "2", "c": "1"}, "b", "a"),
        ({"c": "1"}, "a b", None),
    ],
)
def test_what_there_is_to_say(live: dict[str, str], absent: str | None, lost: str | None) -> None:
    said = told(STATE, live)
    if absent is None and lost is None:
        assert said is None
    else:
        assert said is not None and "force-leader" in said["way_out"]
        assert (said.get("waits_for"), said.get("came_back_without_their_disks")) == (absent, lost)


def node(name: str, value: object) -> KeyValue:
    return KeyValue(NAMES.node(name), json.dumps(value).encode(), 1, 1, 0)


def test_where_a_node_says_what_its_storage_is() -> None:
    assert storages_in([node("a", {"storage": "1"}), node("b", {}), node("c", 7)], NAMES) == {"a": "1"}


class Answers:
    """An etcd that answers so, and a log that takes what is said."""

    def __init__(self) -> None:
        self.live: dict[str, str] = {}
        self.away = False
        self.said: list[dict[str, object]] = []

    async def txn(self, *_: object) -> Txn:
        if self.away:
            raise Unknown("away")
        nodes = [node(name, {"storage": storage}) for name, storage in self.live.items()]
        return Txn(True, 1, [[KeyValue(b"journal", STATE.encode(), 1, 1, 0)], nodes])

    def error(self, _: str, **fields: object) -> None:
        self.said.append(fields)


def test_it_is_said_once_when_it_stays_so() -> None:
    async def main() -> None:
        etcd, leads = Answers(), False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, etcd, NAMES, lambda: leads, etcd)  # type: ignore[arg-type]
            etcd.live = {"a": "1"}
            await trio.sleep(21)
            assert not etcd.said
            etcd.live = {"a": "2"}
            await trio.sleep(5)
            assert not etcd.said  # it may be about to change
            await trio.sleep(20)
            assert [each["waits_for"] for each in etcd.said] == ["b"]
            etcd.away = True
            await trio.sleep(20)
            etcd.away, etcd.live = False, {"a": "2", "b": "2"}
            await trio.sleep(20)
            assert len(etcd.said) == 2 and etcd.said[1]["came_back_without_their_disks"] == "a b"
            leads = True
            await trio.sleep(20)
            leads = False
            await trio.sleep(20)
            assert len(etcd.said) == 3  # it is news again
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


class Leads:
    """A replica, and a log that takes what is said."""

    def __init__(self) -> None:
        self.leading: Leads | None = None
        self.state = STATE
        self.short = False
        self.said: list[tuple[str, object]] = []

    def needed(self, replicas: int) -> int:
        return replicas + 1

    def warning(self, _: str, **fields: object) -> None:
        self.said.append(("short", fields))

    def info(self, _: str) -> None:
        self.said.append(("enough", {}))


def test_a_leader_says_once_that_too_few_are_in_sync() -> None:
    async def main() -> None:
        replica = Leads()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_set, replica, replica)  # type: ignore[arg-type]
            replica.short = True  # of no interest while another leads
            await trio.sleep(21)
            assert not replica.said
            replica.leading = replica
            await trio.sleep(5)
            assert not replica.said  # somebody may be about to join
            await trio.sleep(20)
            few = {"in_sync": len(STATE.isr), "needed": len(STATE.replicas) + 1}
            assert replica.said == [("short", few)]
            replica.short = False
            await trio.sleep(20)
            assert replica.said == [("short", few), ("enough", {})]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
