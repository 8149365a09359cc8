"""What a clean stop of the whole broker leaves, and what the next start makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rabbitish.server import node
from rabbitish.store.checkpoint import NAME
from rabbitish.store.files import File, RealDisk
from rabbitish.store.recovery import CHECKPOINT_TRUSTED_ABOVE_BYTES
from rabbitish.wire import methods
from rabbitish.wire.frames import content_frames
from rabbitish.wire.properties import Properties
from tests.server.crash import Peer, Process
from tests.server.support import Running, broker, converse

BODY = b"x" * (1 << 20)
MANY = CHECKPOINT_TRUSTED_ABOVE_BYTES // len(BODY) + 1
NOT_WRITTEN = "journal: no checkpoint was written, the next start reads everything"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def checkpoints(data_dir: Path) -> list[str]:
    """Those that are there, finished or not."""
    return [path.name for path in data_dir.glob(f"{NAME}*")]


async def publish(running: Running, body: bytes, times: int) -> None:
    """Persistent messages, which are on disk when this returns."""
    client = await running.connect()
    await client.ask(methods.QueueDeclare(queue="q", durable=True), methods.QueueDeclareOk)
    await client.ask(methods.TxSelect(), methods.TxSelectOk)
    for _ in range(times):
        frames = content_frames(1, 60, Properties(delivery_mode=2).encode(), body, 131_072)
        await client.stream.send_all(methods.BasicPublish(routing_key="q").frame(1) + frames)
    await client.ask(methods.TxCommit(), methods.TxCommitOk)


def test_a_large_journal_is_not_read(data_dir: Path) -> None:
    async def conversation() -> None:
        async with broker(data_dir=str(data_dir)) as running:
            await publish(running, BODY, MANY)
        assert checkpoints(data_dir) == [NAME]
        async with broker(data_dir=str(data_dir)) as running:
            assert checkpoints(data_dir) == []
            keeper = running.node.keeper
            assert keeper is not None
            assert keeper.recovered.checkpointed and keeper.recovered.messages == MANY
            client = await running.connect()
            await client.send(methods.BasicConsume(queue="q", consumer_tag="c", no_ack=True))
            await client.expect(methods.BasicConsumeOk)
            assert await client.count_bodies(MANY) == MANY

    converse(conversation)


def test_what_was_unacknowledged_is_in_the_queue_by_then(data_dir: Path) -> None:
    async def conversation() -> None:
        async with broker(data_dir=str(data_dir)) as running:
            await publish(running, b"m", 10)
            client = await running.connect()
            await client.ask(methods.BasicGet(queue="q"), methods.BasicGetOk)
        assert checkpoints(data_dir) == [NAME]
        async with broker(data_dir=str(data_dir)) as running:
            client = await running.connect()
            assert (await client.ask(methods.BasicGet(queue="q"), methods.BasicGetOk)).redelivered

    converse(conversation)


class NoRoom(RealDisk):
    """A disk that has no room for a checkpoint, or loses it."""

    wrong: Callable[[], None]

    def create(self, name: str) -> File:
        if name.startswith(NAME):
            type(self).wrong()
        return super().create(name)


def full() -> None:
    raise OSError(28, "No space left on device")


def buggy() -> None:
    raise ValueError("ours")


@pytest.mark.parametrize(("wrong", "said"), [(full, NOT_WRITTEN), (buggy, "internal error")])
def test_a_stop_without_a_checkpoint_is_clean_too(
    wrong: Callable[[], None],
    said: str,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def conversation() -> None:
        async with broker(data_dir=str(data_dir)) as running:
            await publish(running, b"m", 10)
        assert checkpoints(data_dir) == []
        async with broker(data_dir=str(data_dir)) as running:
            client = await running.connect()
            assert (await client.ask(methods.BasicGet(queue="q"), methods.BasicGetOk)).message_count == 9

    monkeypatch.setattr(node, "RealDisk", NoRoom)
    monkeypatch.setattr(NoRoom, "wrong", staticmethod(wrong), raising=False)
    caplog.set_level("WARNING")
    converse(conversation)
    assert [record.getMessage() for record in caplog.records] == [said] * 2


def test_a_start_that_is_refused_or_warns(data_dir: Path) -> None:
    """As its operator sees it."""
    process = Process(data_dir)
    peer = Peer(process.port)
    peer.declare("q")
    peer.ask(methods.ConfirmSelect())
    peer.confirm("q", b"1", b"2", b"3")
    peer.close()
    process.stop()
    (last,) = data_dir.glob("journal-*.log")
    data = last.read_bytes()
    last.write_bytes(data[:-5])
    process = Process(data_dir)
    assert process.ended() == 1
    said = f"{last.name}: the file, which ended at {len(data)} at the last clean stop, ends at offset {len(data) - 5}"
    assert process.said() == [f"rabbitish: the journal is damaged: {said}"]
    last.write_bytes(data)
    (data_dir / NAME).write_bytes(b"RABBCOLS or something")
    process = Process(data_dir)
    peer = Peer(process.port)
    assert list(peer.drain("q")) == [b"1", b"2", b"3"]
    peer.close()
    (line,) = process.said()
    assert "warning journal: the checkpoint does not count reason=" in line
    process.kill()
    assert checkpoints(data_dir) == []
