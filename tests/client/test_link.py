"""The tasks around a protocol, on a transport in memory and a clock that is moved by hand."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from rabbitish.client import ConnectionLost
from rabbitish.client.link import Link
from rabbitish.wire import methods
from rabbitish.wire.frames import HEARTBEAT

from .peer import Broker


class Memory:
    """A transport: `feed` is what comes, `sent` what went."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.feed, self._incoming = trio.open_memory_channel[bytes](100)
        self.broken = False
        self.closed = False

    async def receive(self) -> bytes:
        return await self._incoming.receive()

    async def send(self, data: bytes) -> None:
        if self.broken:
            raise BrokenPipeError
        self.sent.append(data)

    async def aclose(self) -> None:
        self.closed = True


def on_a_link(
    conversation: Callable[[Broker, Memory, Link, trio.testing.MockClock], Awaitable[None]], heartbeat: int = 10
) -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        broker, memory = Broker(), Memory()
        broker.open(heartbeat=heartbeat)
        link = Link(memory, broker.protocol, lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            await link.log_in()
            await trio.testing.wait_all_tasks_blocked()
            await conversation(broker, memory, link, clock)
            broker.protocol.end(ConnectionLost("the test is over"))
        assert memory.closed
        assert link.over.is_set()

    trio.run(main, clock=clock)


def test_what_a_turn_of_the_scheduler_writes_is_sent_in_one_piece() -> None:
    async def conversation(broker: Broker, memory: Memory, link: Link, clock: trio.testing.MockClock) -> None:
        async def task() -> None:
            broker.protocol.beat()

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(task)
        await trio.testing.wait_all_tasks_blocked()
        assert memory.sent == [HEARTBEAT * 5]

    on_a_link(conversation)


def test_heartbeats_go_out_where_nothing_else_does() -> None:
    async def conversation(broker: Broker, memory: Memory, link: Link, clock: trio.testing.MockClock) -> None:
        for _ in range(4):
            memory.feed.send_nowait(HEARTBEAT)
            clock.jump(4)
            await trio.testing.wait_all_tasks_blocked()
        assert memory.sent == [HEARTBEAT, HEARTBEAT]
        assert broker.protocol.error is None

    on_a_link(conversation)


def test_without_a_heartbeat_silence_is_nothing() -> None:
    async def conversation(broker: Broker, memory: Memory, link: Link, clock: trio.testing.MockClock) -> None:
        clock.jump(100_000)
        await trio.testing.wait_all_tasks_blocked()
        assert (memory.sent, broker.protocol.error) == ([], None)

    on_a_link(conversation, heartbeat=0)


def test_a_program_that_was_busy_for_long_looks_at_what_came_first() -> None:
    async def conversation(broker: Broker, memory: Memory, link: Link, clock: trio.testing.MockClock) -> None:
        for _ in range(20):  # the scheduler's order is random
            memory.feed.send_nowait(HEARTBEAT)
            clock.jump(60)
            await trio.testing.wait_all_tasks_blocked()
            assert broker.protocol.error is None
        clock.jump(19)
        await trio.testing.wait_all_tasks_blocked()
        assert broker.protocol.error is None
        clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(broker.protocol.error, ConnectionLost)

    on_a_link(conversation)


def test_a_transport_that_breaks_while_sending_ends_when_reading_says_so() -> None:
    async def conversation(broker: Broker, memory: Memory, link: Link, clock: trio.testing.MockClock) -> None:
        memory.broken = True
        broker.protocol.beat()
        await trio.testing.wait_all_tasks_blocked()
        assert broker.protocol.error is None
        memory.feed.send_nowait(b"")
        await link.over.wait()
        assert isinstance(broker.protocol.error, ConnectionLost)

    on_a_link(conversation)


def test_a_cancelled_program_still_says_goodbye() -> None:
    async def main() -> None:
        broker, memory = Broker(), Memory()
        broker.open()
        link = Link(memory, broker.protocol, lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            await link.log_in()
            nursery.cancel_scope.cancel()
            broker.protocol.close()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert not link.over.is_set()
                memory.feed.send_nowait(methods.ConnectionCloseOk().frame(0))
                await link.over.wait()
        assert memory.sent == [methods.ConnectionClose(reply_code=200, reply_text="bye").frame(0)]

    trio.run(main)


def test_ctrl_c_goes_to_the_program_and_not_to_the_tasks_of_the_connection() -> None:
    class Interrupted(Memory):
        async def receive(self) -> bytes:
            signal.raise_signal(signal.SIGINT)  # whoever runs at that moment gets it, unless protected
            return await super().receive()

    async def main() -> None:
        broker, memory = Broker(), Interrupted()
        broker.open()
        link = Link(memory, broker.protocol, lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            try:
                await trio.sleep_forever()
            finally:
                assert not link.over.is_set()
                broker.protocol.end(ConnectionLost("the program is over"))

    interrupted = False
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        interrupted = True
    assert interrupted


def test_whoever_waits_hears_of_it_when_the_tasks_of_the_connection_fail() -> None:
    class Broken(Memory):
        async def receive(self) -> bytes:
            raise ZeroDivisionError

    async def main() -> None:
        broker, memory = Broker(), Broken()
        broker.open()
        link = Link(memory, broker.protocol, lambda: None)
        with pytest.raises(ExceptionGroup) as failed:
            await link.run()
        assert failed.group_contains(ZeroDivisionError)
        assert isinstance(broker.protocol.error, ConnectionLost)
        assert link.over.is_set()

    trio.run(main)
