"""What waits a moment: acks for others, or for a confirm that needs a write anyway; confirms for consumers."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from rabbitish.server import keeper as keeper_module
from rabbitish.server import node
from rabbitish.server.keeper import Keeper
from rabbitish.server.poller import READ
from rabbitish.server.prompt import Prompt
from rabbitish.wire import methods
from rabbitish.wire.frames import content_frames
from rabbitish.wire.properties import Properties
from tests.server.support import Client, Running, broker, converse, until
from tests.store.fake_disk import SYNC, WRITE, FakeDisk

PERSISTENT = Properties(delivery_mode=2).encode()


def confirmed(queue: str) -> bytes:
    """A publish that must survive."""
    return methods.BasicPublish(routing_key=queue).frame(1) + content_frames(1, 60, PERSISTENT, b"x", 131072)


class Later:
    """Does something as soon as the broker hears of it: at the end of a lot of events that is none of its own."""

    ahead = False

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._ours, self._theirs = socket.socketpair()
        self._theirs.send(b"-")

    def fileno(self) -> int:
        return self._ours.fileno()

    def on_ready(self, events: int) -> None:
        assert events == READ
        self._ours.recv(1)
        self._act()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


def say_now(client: Client, data: bytes) -> None:
    """Without giving the broker a turn."""
    with socket.socket(fileno=os.dup(client.stream.socket.fileno())) as sock:
        sock.sendall(data)


@pytest.mark.parametrize("publish", [False, True])
def test_acks_of_one_stretch_are_one_write(monkeypatch: pytest.MonkeyPatch, publish: bool) -> None:
    disk = FakeDisk()
    monkeypatch.setattr(node, "RealDisk", lambda path: disk)

    async def conversation() -> None:
        async with broker(data_dir="fake") as running:
            reactor, keeper = running.node.reactor, running.node.keeper
            assert keeper is not None
            client = await running.connect()
            for name in ("q", "nobody's"):
                await client.ask(methods.QueueDeclare(queue=name, durable=True), methods.QueueDeclareOk)
            await client.ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)
            for _ in range(2):
                await client.stream.send_all(confirmed("q"))
                await client.expect(methods.BasicAck)
            await client.ask(methods.BasicConsume(queue="q"), methods.BasicConsumeOk)
            await client.count_bodies(2)
            await keeper.caught_up()
            await until(lambda: disk.steps[-1] == SYNC)
            before = len(disk.steps)

            late = methods.BasicAck(delivery_tag=2).frame(1) + (confirmed("nobody's") if publish else b"")
            later = Later(lambda: say_now(client, late))
            say_now(client, methods.BasicAck(delivery_tag=1).frame(1))
            reactor.watch(later, 0, READ)
            reactor._slice()  # a lot of events with the first, and one with what came behind it
            reactor.watch(later, READ, 0)
            later.close()
            assert keeper.journal.written_lsn == keeper.journal.last_lsn and not keeper.journal.waiting
            await until(lambda: disk.steps[-1] == SYNC)
            assert disk.steps[before:].count(WRITE) == 1 + publish  # who waits does not wait for acks
            await trio.lowlevel.checkpoint()

    converse(conversation)


@asynccontextmanager
async def waiting_for_work(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Running, Keeper, FakeDisk, Client, Client]]:
    """A broker whose disk has nothing to do, who publishes there and wants confirms, and who consumes."""
    disk = FakeDisk()
    monkeypatch.setattr(node, "RealDisk", lambda path: disk)
    async with broker(data_dir="fake") as running:
        keeper = running.node.keeper
        assert keeper is not None
        publisher, consumer = await running.connect(), await running.connect()
        await publisher.ask(methods.QueueDeclare(queue="q", durable=True), methods.QueueDeclareOk)
        await publisher.ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)
        await consumer.ask(methods.BasicConsume(queue="q"), methods.BasicConsumeOk)
        await keeper.caught_up()
        await until(lambda: disk.steps[-1] == SYNC)
        yield running, keeper, disk, publisher, consumer


@pytest.mark.parametrize("prompt", [True, False])
def test_consumers_are_waited_for_until_there_is_nothing_more_to_hear(
    monkeypatch: pytest.MonkeyPatch, prompt: bool
) -> None:
    """A slice of time that is over asks nothing of the disk: another follows, and sees whether somebody has spoken."""
    monkeypatch.setattr(keeper_module, "Prompt", lambda: Prompt(lambda: 0.0))  # a moment that does not end

    async def conversation() -> None:
        async with waiting_for_work(monkeypatch) as (running, _, disk, publisher, consumer):
            reactor, hub, before = running.node.reactor, running.node.hub, disk.steps.count(SYNC)
            monkeypatch.setattr(reactor, "_slice_seconds", 0.0)

            say_now(publisher, confirmed("q"))
            reactor._slice()  # over as soon as this was heard
            assert not reactor.quiet and hub.safe < hub.wanted
            assert disk.steps.count(SYNC) == before
            if prompt:
                say_now(consumer, methods.BasicAck(delivery_tag=1).frame(1))
                reactor._slice()
                assert hub.safe == hub.wanted and disk.steps.count(SYNC) == before
            else:
                reactor._slice()
                assert reactor.quiet
            await publisher.expect(methods.BasicAck)
            assert prompt or disk.steps.count(SYNC) > before

    converse(conversation)


@pytest.mark.parametrize("long_ago", [True, False])
def test_an_acknowledgement_counts_when_the_disk_that_was_asked_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, long_ago: bool
) -> None:
    async def conversation() -> None:
        async with waiting_for_work(monkeypatch) as (running, keeper, _, publisher, consumer):
            reactor, hub = running.node.reactor, running.node.hub
            monkeypatch.setattr(keeper, "_asked_at", 0.0)
            monkeypatch.setattr(keeper_module, "_SOON_SECONDS", 0.0 if long_ago else 1e9)
            with monkeypatch.context() as hanging:
                hanging.setattr(keeper._syncer, "kick", lambda wanted: False)
                say_now(publisher, confirmed("q"))
                for _ in range(10):  # until one ends since there is nothing more to hear
                    reactor._slice()
                assert keeper._asked > hub.safe
                say_now(consumer, methods.BasicAck(delivery_tag=1).frame(1))
                reactor._slice()
                assert (hub.safe == hub.wanted) is long_ago
            await consumer.expect(methods.BasicDeliver)
            await publisher.expect(methods.BasicAck)

    converse(conversation)
