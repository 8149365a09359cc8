"""A mirror's log makes room while the node goes on: in a process of its own, which ends when it is told to."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from rabbitish.cluster.protocol.disk_open import open_log
from rabbitish.server import condenser as module
from rabbitish.server.condenser import Condenser, decode_condensed, encode_condensed
from rabbitish.store.condensing import Condensed, Rewritten
from rabbitish.store.files import RealDisk
from rabbitish.store.record import SegmentHead

from .journaled import SEGMENT_BYTES, SharedDisk, opened, state_of_folder, synced
from .test_condensing import made


def folder_of(disk: SharedDisk, path: Path) -> None:
    for name in disk.names():
        (path / name).write_bytes(disk.read(name))


def disk_of(path: Path) -> SharedDisk:
    disk = SharedDisk()
    for each in path.iterdir():
        disk.create(each.name).write(each.read_bytes())
    return disk


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LEAST_BYTES", 0)


class Noted:
    """What was said, and when it is."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []
        self.event = trio.Event()

    def __call__(self, event: str, details: dict[str, object]) -> None:
        self.said.append((event, details))
        self.event.set()


def condenser(path: Path, noted: Noted, committed: Callable[[int], int | None] = lambda last: last) -> Condenser:
    disk = RealDisk(path, exclusive=False)
    log = open_log(disk, lambda: "u1", segment_bytes=SEGMENT_BYTES)
    return Condenser(path, log, SEGMENT_BYTES, lambda: committed(log.last), lambda: synced(log), noted)


def run_until(room: Condenser, noted: Noted) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.run)
            with trio.fail_after(30):
                await noted.event.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)


@pytest.mark.usefixtures("quick")
def test_it_makes_room_and_loses_nothing(tmp_path: Path) -> None:
    before = made(1)
    folder_of(before, tmp_path)
    noted = Noted()
    room = condenser(tmp_path, noted)
    size = room._log.size
    run_until(room, noted)
    assert [event for event, _ in noted.said] == ["condensed"]
    assert room._log.size < size / 2
    assert sum(each.stat().st_size for each in tmp_path.glob("journal-*")) == room._log.size
    assert state_of_folder(disk_of(tmp_path)) == state_of_folder(before)


@pytest.mark.usefixtures("quick")
def test_what_lived_the_last_time_is_looked_at_again_when_something_has_come(tmp_path: Path) -> None:
    folder_of(made(1), tmp_path)
    noted = Noted()
    room = condenser(tmp_path, noted)
    size = room._left = room._log.size  # as if all of it had lived the last time
    run_until(room, noted)
    assert room._log.size < size / 2

    async def nothing_comes() -> None:
        room._due = 0
        with trio.move_on_after(0.5):
            await room.run()

    trio.run(nothing_comes)
    assert len(noted.said) == 1


@pytest.mark.usefixtures("quick")
def test_what_waits_for_its_name_is_left_alone(tmp_path: Path) -> None:
    """However long it takes until the log is synced."""
    before = made(1)
    folder_of(before, tmp_path)
    noted, enough = Noted(), trio.Event()
    room = condenser(tmp_path, noted)
    sync, room._flush = room._flush, lambda: None
    ask, looks = room._committed, list[list[int]]()

    def written() -> list[int]:
        return [each.stat().st_mtime_ns for each in sorted(tmp_path.glob("*.new"))]

    def looked() -> int | None:
        if noted.said:
            looks.append(written())
            room._due, room._up_to = 0.0, 0  # as if something had come, and it were worth it again
        if len(looks) == 5:
            enough.set()
        return ask()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.run)
            with trio.fail_after(30):
                await enough.wait()
            nursery.cancel_scope.cancel()

    room._committed = looked
    trio.run(main)
    assert [event for event, _ in noted.said] == ["condensed"]
    assert looks[0] and all(look == looks[0] for look in looks)
    sync()
    assert not written()
    assert state_of_folder(disk_of(tmp_path)) == state_of_folder(before)


@pytest.mark.usefixtures("quick")
def test_damage_is_told_and_nothing_is_touched(tmp_path: Path) -> None:
    before = made(1)
    folder_of(before, tmp_path)
    noted = Noted()
    room = condenser(tmp_path, noted)
    name = min(each.name for each in tmp_path.glob("journal-*"))
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    files = sorted(each.name for each in tmp_path.iterdir())
    run_until(room, noted)
    assert noted.said[0][0] == "condensing_failed" and "checksum" in str(noted.said[0][1]["reason"])
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "condense.lock") == files


@pytest.mark.usefixtures("quick")
def test_a_process_that_cannot_be_started_is_told_and_the_node_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(made(1), tmp_path)
    noted = Noted()
    room = condenser(tmp_path, noted)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_AFTER_FAILURE_SECONDS", 0)
        patch.setattr(sys, "executable", str(tmp_path / "missing"))
        run_until(room, noted)
        assert noted.said[0][0] == "condensing_failed" and "missing" in str(noted.said[0][1]["reason"])
    noted.event = trio.Event()
    run_until(room, noted)
    assert noted.said[-1][0] == "condensed"


@pytest.mark.usefixtures("quick")
def test_files_that_go_meanwhile_are_no_damage_and_it_tries_again_soon(tmp_path: Path) -> None:
    folder_of(made(1), tmp_path)
    noted = Noted()
    room = condenser(tmp_path, noted)
    vanishing, elsewhere = sorted(tmp_path.glob("journal-*"))[1], tmp_path / "elsewhere"
    vanishing.rename(elsewhere)
    vanishing.symlink_to(tmp_path / "nowhere")
    find = room._find

    async def looked(up_to: int) -> Condensed:
        try:
            return await find(up_to)
        finally:
            if vanishing.is_symlink():
                elsewhere.replace(vanishing)

    room._find = looked  # type: ignore[method-assign]
    run_until(room, noted)
    assert [event for event, _ in noted.said] == ["condensed"]


@pytest.mark.usefixtures("quick")
def test_what_is_of_no_use_is_not_looked_for_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(made(1), tmp_path)
    noted = Noted()
    room = condenser(tmp_path, noted)
    looked: list[int] = []

    async def find(up_to: int) -> Condensed:
        looked.append(up_to)
        await trio.sleep(1)
        return Condensed((), (), 0)

    monkeypatch.setattr(room, "_find", find)
    monkeypatch.setattr(room._log, "condense", lambda found: False)

    async def main() -> None:
        with trio.move_on_after(10):
            await room.run()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(looked) == 1


@pytest.mark.usefixtures("quick")
def test_who_is_about_to_lead_has_it_end_first(tmp_path: Path) -> None:
    before = made(1)
    folder_of(before, tmp_path)
    noted = Noted()
    began, ended = trio.Event(), trio.Event()
    monitored = condenser(tmp_path, noted)
    find = monitored._find

    async def looked(up_to: int) -> Condensed:
        began.set()
        found = await find(up_to)
        ended.set()
        return found

    monitored._find = looked  # type: ignore[method-assign]

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(monitored.run)
            await began.wait()
            await monitored.pause()
            size = monitored._log.size
            assert not noted.said and not ended.is_set()
            monitored.resume()
            with trio.fail_after(30):
                await noted.event.wait()
            assert monitored._log.size < size
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_there_is_one_at_a_time_and_it_ends_with_its_parent(tmp_path: Path) -> None:
    before = made(1)
    folder_of(before, tmp_path)
    last = opened(before).last
    command = [sys.executable, "-m", "rabbitish.server.condenser", str(tmp_path), str(last), str(SEGMENT_BYTES)]
    with (tmp_path / "condense.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as second:
            assert second.wait(30) == 1
    assert not list(tmp_path.glob("*.new"))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as orphan:
        assert orphan.wait(30) in (0, 1)  # whichever comes first
    assert state_of_folder(disk_of(tmp_path)) == state_of_folder(before)


def test_what_one_process_tells_the_other() -> None:
    head = SegmentHead(1, 5, 2, 10, 500)
    found = Condensed(("a", "b"), (Rewritten(("c", "d"), head, 77),), 1_000)
    assert decode_condensed(encode_condensed(found)) == found
