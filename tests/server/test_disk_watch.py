"""Free disk space: publishers are held back while there is too little of it, on a disk that is as full as we say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from rabbitish.server import node
from rabbitish.server.disk_watch import pause_ms
from rabbitish.store.files import RealDisk
from rabbitish.wire import methods
from tests.server.support import Client, broker, converse, until
from tests.store.fake_disk import FakeDisk

LIMIT = 50_000_000
BLOCKED = ("connection.blocked",)
RAISED, OVER = "disk alarm: publishers are held back", "disk alarm is over"
CANNOT_TELL, CAN_TELL = "disk: cannot tell how much space is free", "disk: can tell again how much space is free"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FakeDisk:
    """The disk of the brokers to come, whatever their data directory is called."""
    fake = FakeDisk()
    monkeypatch.setattr(node, "RealDisk", lambda path: fake)
    return fake


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged about disk and memory."""
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if message.startswith(("disk", "memory"))]


async def is_held_back(client: Client, reason: str) -> None:
    """Its next publish is its last; what it says then is not heard."""
    await client.publish("nowhere", b"x")
    blocked = await client.expect(methods.ConnectionBlocked)
    assert blocked.reason == reason
    await client.send(methods.BasicQos())


async def goes_on(client: Client) -> None:
    """And what was not heard is."""
    await client.expect(methods.ConnectionUnblocked)
    await client.expect(methods.BasicQosOk)


def test_publishers_are_held_back_until_there_is_space(disk: FakeDisk, caplog: pytest.LogCaptureFixture) -> None:
    async def conversation() -> None:
        disk.free = LIMIT
        async with broker(data_dir="fake") as running:
            hub = running.node.hub
            publisher = await running.connect(capabilities=BLOCKED)
            other = await running.connect()
            await publisher.publish("nowhere", b"x")
            await publisher.ask(methods.BasicQos(), methods.BasicQosOk)
            for _ in range(2):
                disk.free = LIMIT - 1
                await until(lambda: bool(hub.alarm))
                await is_held_back(publisher, "low on disk")
                await other.ask(methods.QueueDeclare(queue="q", durable=True), methods.QueueDeclareOk)
                disk.free = LIMIT
                await goes_on(publisher)

    caplog.set_level("WARNING")
    converse(conversation, faster=100)
    assert logged(caplog) == [RAISED, OVER] * 2
    assert {"free": LIMIT - 1, "limit": LIMIT} in [vars(record).get("fields") for record in caplog.records]


def test_low_on_both(disk: FakeDisk, caplog: pytest.LogCaptureFixture) -> None:
    async def conversation() -> None:
        async with broker(data_dir="fake", memory_high_watermark_bytes=100_000) as running:
            hub = running.node.hub
            one, other, consumer = [await running.connect(capabilities=BLOCKED) for _ in range(3)]
            await consumer.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await one.publish("q", b"x" * 100_000)
            await until(lambda: hub.alarm == "low on memory")
            await is_held_back(one, "low on memory")
            disk.free = 0
            await until(lambda: hub.alarm != "low on memory")
            await is_held_back(other, "low on disk & memory")
            await consumer.ask(methods.BasicGet(queue="q", no_ack=True), methods.BasicGetOk)
            assert hub.alarm == "low on disk"
            disk.free = LIMIT
            for client in (one, other):
                await goes_on(client)
            disk.free = 0
            await until(lambda: hub.alarm == "low on disk")
            await one.publish("q", b"x" * 100_000)
            assert (await one.expect(methods.ConnectionBlocked)).reason == "low on disk"
            await is_held_back(other, "low on disk & memory")
            disk.free = LIMIT
            await until(lambda: hub.alarm == "low on memory")
            await consumer.ask(methods.BasicGet(queue="q", no_ack=True), methods.BasicGetOk)
            await goes_on(other)

    caplog.set_level("WARNING")
    converse(conversation, faster=100)
    low, enough = "memory alarm: publishers are held back", "memory alarm is over"
    assert logged(caplog) == [low, RAISED, enough, OVER, RAISED, low, OVER, enough]


def test_a_disk_that_is_low_at_the_start_and_cannot_tell_later(
    disk: FakeDisk, caplog: pytest.LogCaptureFixture
) -> None:
    async def conversation() -> None:
        disk.free = 0
        async with broker(data_dir="fake") as running:
            client = await running.connect(capabilities=BLOCKED)
            await is_held_back(client, "low on disk")
            disk.free = OSError("no answer")
            await until(lambda: logged(caplog) == [RAISED, CANNOT_TELL])
            await trio.sleep(5)
            assert running.node.hub.alarm == "low on disk", "nobody knows better"
            disk.free = LIMIT
            await goes_on(client)
            disk.free = OSError("no answer")
            await until(lambda: logged(caplog)[-1] == CANNOT_TELL)
            await trio.sleep(5)
            assert running.node.hub.alarm == "", "as above"

    caplog.set_level("INFO")
    converse(conversation, faster=100)
    assert logged(caplog) == [RAISED, CANNOT_TELL, CAN_TELL, OVER, CANNOT_TELL], "once each"


def test_a_limit_of_0_turns_it_off(disk: FakeDisk) -> None:
    async def conversation() -> None:
        disk.free = -1
        async with broker(data_dir="fake", disk_free_limit_bytes=0) as running:
            client = await running.connect(capabilities=BLOCKED)
            await client.publish("nowhere", b"x")
            await client.ask(methods.BasicQos(), methods.BasicQosOk)

    converse(conversation)


def test_a_real_file_system(tmp_path: Path) -> None:
    """Which has something free, but not more than there is; and the folder is one that did not exist before."""

    async def conversation(limit: int, reason: str) -> None:
        async with broker(data_dir=str(tmp_path / f"{limit}"), disk_free_limit_bytes=limit) as running:
            assert running.node.hub.alarm == reason

    total = shutil.disk_usage(tmp_path).total
    converse(lambda: conversation(1, ""))
    converse(lambda: conversation(total + 1, "low on disk"))


def test_free_is_what_is_free_for_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # f_bsize, f_frsize, f_blocks, f_bfree (with root's reserve), f_bavail (without), files and flags
    status = os.statvfs_result((8192, 4096, 1000, 500, 300, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: status)
    disk = RealDisk(tmp_path)
    assert disk.free_bytes() == 300 * 4096
    disk.close()


@pytest.mark.parametrize(
    ("room", "ms"),
    [(-1, 1000), (0, 25), (25_999_999, 25), (26_000_000, 26), (999_000_000, 999), (10**10, 1000), (10**18, 1000)],
)
def test_it_is_looked_at_more_often_near_the_limit(room: int, ms: int) -> None:
    assert pause_ms(room, 1000) == ms
    assert pause_ms(room, 10) == 10
