"""examples/event_sourcing.py: balances, refusals, writers that meet, snapshots, events that all go out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from examples import event_sourcing
from examples.event_sourcing import Conflict, EventStore
from rabbitish.client import RemoteError
from tests.examples.support import Box, World


async def test_commands_and_their_events(world: World, tmp_path: Path) -> None:
    seen = Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(event_sourcing.watch, connection, seen)
        await nursery.start(event_sourcing.serve, connection, tmp_path / "accounts.db")
        assert await event_sourcing.command(connection, "deposit", "alice", 30) == 30
        assert await event_sourcing.command(connection, "withdraw", "alice", 20) == 10
        with pytest.raises(RemoteError, match="alice has only 10"):
            await event_sourcing.command(connection, "withdraw", "alice", 11)
        assert await seen.take(2) == [
            ("alice/1", {"type": "deposited", "amount": 30}),
            ("alice/2", {"type": "withdrawn", "amount": 20}),
        ]
        nursery.cancel_scope.cancel()


async def test_two_servers_share_a_database(world: World, tmp_path: Path) -> None:
    seen = Box()
    async with world.connect() as connection, world.connect() as other, trio.open_nursery() as nursery:
        await nursery.start(event_sourcing.watch, connection, seen)
        for each in (connection, other):
            await nursery.start(event_sourcing.serve, each, tmp_path / "accounts.db")
        async with trio.open_nursery() as calls:
            for _ in range(20):
                calls.start_soon(event_sourcing.command, connection, "deposit", "alice", 1)
        ids: list[str] = []  # both may publish an event, but neither before those in front of it
        while "alice/20" not in ids:
            ids.append((await seen.next())[0])
        assert list(dict.fromkeys(ids)) == [f"alice/{version}" for version in range(1, 21)]
        nursery.cancel_scope.cancel()
    assert EventStore(tmp_path / "accounts.db").load("alice").balance == 20


async def test_what_a_crash_left_unpublished_goes_out_at_the_start(world: World, tmp_path: Path) -> None:
    seen, path = Box(), tmp_path / "accounts.db"
    store = EventStore(path)
    store.execute({"what": "deposit", "account": "alice", "amount": 1})  # and the server dies
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(event_sourcing.watch, connection, seen)
        await nursery.start(event_sourcing.serve, connection, path)
        assert await seen.next() == ("alice/1", {"type": "deposited", "amount": 1})
        nursery.cancel_scope.cancel()


async def test_a_crash_between_publishing_and_noting_it_publishes_again_under_the_same_id(
    world: World, tmp_path: Path
) -> None:
    seen, path = Box(), tmp_path / "accounts.db"
    store = EventStore(path)
    store.execute({"what": "deposit", "account": "alice", "amount": 1})
    store.database.execute(
        "CREATE TRIGGER dies BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'the power is gone'); END"
    )
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(event_sourcing.watch, connection, seen)
        with pytest.raises(sqlite3.IntegrityError, match="the power is gone"):
            await event_sourcing.serve(connection, path)
        store.database.execute("DROP TRIGGER dies")
        await nursery.start(event_sourcing.serve, connection, path)
        assert [event_id for event_id, _ in await seen.take(2)] == ["alice/1", "alice/1"]
        nursery.cancel_scope.cancel()


def test_a_write_on_what_is_not_so_any_more_is_refused(tmp_path: Path) -> None:
    one, other = EventStore(tmp_path / "accounts.db"), EventStore(tmp_path / "accounts.db")
    stale = one.load("alice")
    other.execute({"what": "deposit", "account": "alice", "amount": 5})
    with pytest.raises(Conflict):
        one.append(stale, {"type": "deposited", "amount": 1})
    assert one.load("alice").balance == 5


def test_a_decision_that_came_too_late_is_taken_anew(tmp_path: Path) -> None:
    rival = EventStore(tmp_path / "accounts.db")

    class Slow(EventStore):
        """Between its reading and its writing there is time for others."""

        def load(self, name: str) -> event_sourcing.Account:
            account = super().load(name)
            if account.version == 1:
                rival.execute({"what": "withdraw", "account": name, "amount": 7})
            return account

    rival.execute({"what": "deposit", "account": "alice", "amount": 10})
    with pytest.raises(ValueError, match="alice has only 3"):
        Slow(tmp_path / "accounts.db").execute({"what": "withdraw", "account": "alice", "amount": 7})
    assert rival.load("alice") == event_sourcing.Account("alice", 2, 3)


def test_snapshots_save_reading_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_sourcing, "SNAPSHOT_EVERY", 4)
    store = EventStore(tmp_path / "accounts.db")
    for amount in range(1, 11):
        store.execute({"what": "deposit", "account": "alice", "amount": amount})
    whole = store.load("alice")
    assert whole == event_sourcing.Account("alice", 10, 55)
    assert store.database.execute("SELECT version, balance FROM snapshots").fetchall() == [(8, 36)]
    store.database.execute("DELETE FROM events WHERE version <= 8")  # nobody reads them for the state any more
    assert store.load("alice") == whole
    store.database.execute("DELETE FROM snapshots")
    assert store.load("alice") != whole
