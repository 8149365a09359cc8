"""examples/tutorials/: what each of the seven shows."""

from __future__ import annotations

import pytest
import trio

from examples.tutorials import (
    five_topics,
    four_routing,
    one_hello_world,
    seven_publisher_confirms,
    six_rpc,
    three_publish_subscribe,
    two_work_queues,
)
from rabbitish.client import PublishManyFailed, PublishNacked, queue_arguments
from tests.examples.support import Box, World


async def test_one_a_message_waits_for_its_receiver(world: World) -> None:
    received = Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await one_hello_world.send(connection)
        nursery.start_soon(one_hello_world.receive, connection, received)
        assert await received.next() == "Hello, world!"
        nursery.cancel_scope.cancel()


async def test_two_workers_share_and_a_lost_ones_task_is_done(world: World) -> None:
    done, stuck = Box(), trio.Event()

    async def never_end(task: str) -> None:
        stuck.set()
        await trio.sleep_forever()

    async def do(task: str) -> None:
        pass

    async with world.connect() as connection, trio.open_nursery() as nursery:
        async with trio.open_nursery() as lost:
            lost.start_soon(two_work_queues.worker, connection, never_end)
            await two_work_queues.new_task(connection, "first")
            await stuck.wait()
            nursery.start_soon(two_work_queues.worker, connection, do, done)
            await two_work_queues.new_task(connection, "second")
            assert await done.next() == "done: second"
            lost.cancel_scope.cancel()
        assert await done.next() == "done: first"
        nursery.cancel_scope.cancel()


async def test_three_everybody_gets_every_line(world: World) -> None:
    shown = [Box(), Box()]
    async with world.channel() as channel, trio.open_nursery() as nursery:
        for box in shown:
            queue = await three_publish_subscribe.subscribe(channel)
            nursery.start_soon(three_publish_subscribe.show_all, queue, box)
        await three_publish_subscribe.emit_log(channel.connection, "a line")
        assert [await box.next() for box in shown] == ["a line", "a line"]
        nursery.cancel_scope.cancel()


async def test_four_lines_go_by_severity(world: World) -> None:
    shown = Box()
    async with world.channel() as channel, trio.open_nursery() as nursery:
        queue = await four_routing.subscribe(channel, ["warning", "error"])
        for severity in ("info", "warning", "error"):
            await four_routing.emit_log(channel.connection, severity, "a line")
        nursery.start_soon(four_routing.show_all, queue, shown)
        assert await shown.take(2) == ["warning: a line", "error: a line"]
        nursery.cancel_scope.cancel()


async def test_five_lines_go_by_patterns(world: World) -> None:
    shown = Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(five_topics.receive_logs, connection, ["kern.*", "*.critical"], shown)
        for key in ("kern.info", "cron.info", "cron.critical", "kern.critical"):
            await five_topics.emit_log(connection, key, "a line")
        assert await shown.take(3) == ["kern.info: a line", "cron.critical: a line", "kern.critical: a line"]
        nursery.cancel_scope.cancel()


async def test_six_an_answer(world: World) -> None:
    shown = Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(six_rpc.server, connection)
        await six_rpc.client(connection, 15, shown)
        assert await shown.next() == "fib(15) = 610"
        nursery.cancel_scope.cancel()


async def test_seven_all_ways_publish_all(world: World) -> None:
    async with world.connect() as connection:
        seconds = await seven_publisher_confirms.compare(connection, 150)
        assert list(seconds) == ["one_by_one", "in_batches", "with_a_window"]


async def test_seven_a_message_that_is_refused_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    async with world.channel() as channel:
        full = queue_arguments(max_length=2, overflow="reject-publish")
        queue = await channel.declare_queue(exclusive=True, arguments=full)
        with pytest.raises(PublishNacked):
            await seven_publisher_confirms.one_by_one(queue, 3)
        await queue.purge()
        with pytest.raises(PublishManyFailed):
            await seven_publisher_confirms.with_a_window(queue, 3)
        assert capsys.readouterr().out == "not published: [2]\n"
        await queue.purge()
        with pytest.raises(ExceptionGroup) as failed:
            await seven_publisher_confirms.in_batches(queue, 3)
        assert failed.group_contains(PublishNacked)
