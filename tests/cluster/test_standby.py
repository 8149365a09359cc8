"""A mirror has read most of its log when it is to lead, and nothing of it that may still change."""

from __future__ import annotations

import threading
from pathlib import Path

import trio
import trio.testing

from rabbitish.server.standby import Standby
from rabbitish.store.record import segment_name
from rabbitish.store.scan import first_number, that_count

from .journaled import SharedDisk
from .test_condenser import folder_of
from .test_condensing import made

LAST = 1 << 60


class Folder:
    """A mirror's, and who reads it ahead; as if everything up to `committed` were."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk: SharedDisk = made(1)
        folder_of(self.disk, path)
        self.committed: int | None = LAST
        self.standby = Standby(path, lambda: self.committed, 100)

    @property
    def closed(self) -> list[str]:
        """All segments but the last."""
        return [segment_name(*name) for name in that_count([each.name for each in self.path.iterdir()])[0]][:-1]

    def taken(self) -> list[str]:
        """What somebody gets who is about to lead."""
        return [head.name for head, _ in self.standby.take().scanner.segments]


def test_closed_segments_are_read_as_far_as_they_are_committed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    async def main() -> None:
        third = first_number(folder.disk, folder.closed[2])
        assert third is not None
        for committed, read in ((None, 0), (third - 2, 1), (third - 1, 2), (LAST, len(folder.closed))):
            folder.committed = committed
            assert await folder.standby.look()
            assert len(folder.standby._ahead.scanner.segments) == read
        assert folder.taken() == folder.closed
        assert folder.taken() == [], "it is somebody else's"

    trio.run(main)


def test_when_files_have_gone_all_is_read_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    async def main() -> None:
        folder.committed = LAST - 1
        assert await folder.standby.look()
        (tmp_path / folder.closed[0]).unlink()
        folder.committed = LAST
        assert await folder.standby.look()
        assert await folder.standby.look()
        assert folder.taken() == folder.closed

    trio.run(main)


def test_damage_is_left_to_who_leads(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    damaged = tmp_path / folder.closed[3]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)

    async def main() -> None:
        assert not await folder.standby.look()
        assert folder.taken() == []

    trio.run(main)


def test_who_is_about_to_lead_waits_for_no_more_than_a_segment(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    standby, reading, released = folder.standby, threading.Event(), threading.Event()

    def breathe() -> None:
        reading.set()
        assert released.wait(20)

    async def main() -> None:
        standby._breathe = breathe  # type: ignore[method-assign]
        standby._ahead = standby._begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(standby.look)
            assert await trio.to_thread.run_sync(reading.wait, 20)
            nursery.start_soon(standby.pause)
            await trio.testing.wait_all_tasks_blocked()
            released.set()
        assert folder.taken() == folder.closed[:1]
        assert await standby.look()
        assert folder.taken() == []
        standby.resume()
        assert await standby.look()
        assert folder.taken() == folder.closed

    trio.run(main)
