"""Compaction in a running broker: on a full disk it is put off."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest

from rabbitish.server import keeper, node
from rabbitish.store.files import File, RealDisk
from rabbitish.store.scan import NEW_SUFFIX
from rabbitish.wire import methods
from rabbitish.wire.frames import content_frames
from rabbitish.wire.properties import Properties

from .support import Client, broker, converse, until


class FullFile:
    """A file that does not fit."""

    def __init__(self, file: File) -> None:
        self.sync, self.close = file.sync, file.close

    def write(self, *parts: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")


class FullDisk(RealDisk):
    """A disk with no room for segments that are written anew."""

    full = True
    tried = 0

    def create(self, name: str) -> File:
        file = super().create(name)
        if not (name.startswith("journal-") and name.endswith(NEW_SUFFIX)):
            return file
        FullDisk.tried += 1
        return FullFile(file) if FullDisk.full else file


async def make_sparse(client: Client) -> None:
    """Segments of which little lives."""
    for queue in ("dead", "old"):
        await client.ask(methods.QueueDeclare(queue=queue, durable=True), methods.QueueDeclareOk)
    for queue in ("dead", "old") * 20:
        frames = methods.BasicPublish(routing_key=queue).frame(1)
        frames += content_frames(
            1, 60, Properties(delivery_mode=2).encode(), b"." * (30_000 if queue == "dead" else 1), 131_072
        )
        await client.stream.send_all(frames)
    await client.ask(methods.QueuePurge(queue="dead"), methods.QueuePurgeOk)


class AlmostFullDisk(FullDisk):
    """One with so little that compaction would leave none to what is recorded."""

    def create(self, name: str) -> File:
        assert not (FullDisk.full and name.endswith(NEW_SUFFIX) and name.startswith("journal-"))
        return super().create(name)

    def free_bytes(self) -> int:
        FullDisk.tried += 1
        return 100 if FullDisk.full else super().free_bytes()


@pytest.mark.parametrize("disk", [FullDisk, AlmostFullDisk])
def test_without_room_it_is_put_off(
    disk: type[FullDisk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FullDisk.full, FullDisk.tried = True, 0
    monkeypatch.setattr(node, "RealDisk", disk)
    monkeypatch.setattr(keeper, "_NO_ROOM_SECONDS", 0.01)

    def size() -> int:
        sizes = []
        for path in tmp_path.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has just got its name, or gone
                sizes.append(path.stat().st_size)
        return sum(sizes)

    async def conversation() -> None:
        async with broker(data_dir=str(tmp_path), journal_segment_bytes=65_536, disk_free_limit_bytes=0) as running:
            client = await running.connect()
            await make_sparse(client)
            await until(lambda: FullDisk.tried > 1)
            assert size() > 500_000
            FullDisk.full = False
            await until(lambda: size() < 200_000)
            count = await client.ask(methods.QueueDeclare(queue="old", durable=True), methods.QueueDeclareOk)
            assert count.message_count == 20

    converse(conversation)
    assert not list(tmp_path.glob("*" + NEW_SUFFIX))
    assert {record.getMessage().split(" error")[0] for record in caplog.records if record.levelname == "WARNING"} == {
        "journal: no room to write segments anew"
    }
