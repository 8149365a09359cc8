"""The cyclic collector runs when nobody minds; nothing that a broker is done with waits for it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from rabbitish.server.collector import FEW_OBJECTS, LONGEST_MS, QUIET_MS, Collector
from rabbitish.server.node import Node
from rabbitish.wire import methods

from .support import Running, broker, converse, until


@pytest.fixture(autouse=True)
def _by_count_alone() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Ring:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


async def much_to_look_at(running: Running) -> Node:
    client = await running.connect()
    await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
    await client.publish("q", b"", times=FEW_OBJECTS + 1)
    await client.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)
    return running.node


def test_it_waits_while_there_is_much_to_look_at_and_somebody_is_served() -> None:
    async def conversation() -> None:
        async with broker() as running:
            node = await much_to_look_at(running)
            collector = Collector(node)
            ring = weakref.ref(Ring())
            now = node.broker.now
            assert not collector.look(now + QUIET_MS - 1)
            assert ring() is not None
            assert collector.look(now + QUIET_MS)
            assert ring() is None

    converse(conversation)


def test_it_runs_where_it_is_quick() -> None:
    async def conversation() -> None:
        async with broker() as running:
            await running.connect()
            ring = weakref.ref(Ring())
            assert Collector(running.node).look(running.node.broker.now)
            assert ring() is None

    converse(conversation)


def test_it_runs_once_an_hour_at_least() -> None:
    async def conversation() -> None:
        async with broker() as running:
            node = await much_to_look_at(running)
            collector = Collector(node)
            began = node.now()
            looks = []
            for minute in range(1, 2 * LONGEST_MS // 60_000 + 1):
                node.broker.now = began + minute * 60_000
                looks.append(collector.look(node.broker.now))
            assert [minute for minute, ran in enumerate(looks, 1) if ran] == [60, 120]

    converse(conversation)


def test_what_ends_leaves_nothing_for_it() -> None:
    ours: set[int] = set()

    async def conversation() -> None:
        async with broker() as running:
            for closes in (True, False):
                client = await running.connect(heartbeat=60)
                await client.ask(methods.QueueDeclare(queue="q", exclusive=True), methods.QueueDeclareOk)
                await client.ask(methods.BasicConsume(queue="q"), methods.BasicConsumeOk)
                await client.publish("q", b"", times=10)
                await client.count_bodies(10)
                ours.update(parts_of_the_only_connection(running.node))
                if closes:
                    await client.send(methods.ConnectionClose(reply_code=200, reply_text="bye"), 0)
                await client.stream.aclose()
                await until(lambda: not running.node.links)

    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        converse(conversation)
        gc.collect()
        left = {(id(found), type(found).__module__, type(found).__name__) for found in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    # Of the node itself, at its end, much is left; what was freed before may have its place taken by others.
    assert {name for at, module, name in left if at in ours and module.startswith("rabbitish.se")} == set()


def parts_of_the_only_connection(node: Node) -> set[int]:
    """Where in memory they are."""
    (link,) = node.links.values()
    session = link.session
    channel = session.channels[1]
    return {id(part) for part in (link, session, session.outbox, session.patience, session.parser, channel)}
