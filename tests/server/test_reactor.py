"""Whose events are handled first."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from rabbitish.server.poller import READ
from rabbitish.server.reactor import Reactor

WORK = 5  # what it takes to hear one of them, by the clock of these tests


class Heard:
    """A socket with something to read, as often as it says so."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.name, self.ahead = stage, name, name == "publisher"
        self.publishes = self.ahead
        self.ours, self.theirs = socket.socketpair()
        for sock in (self.ours, self.theirs):
            sock.setblocking(False)
            stage.stack.callback(sock.close)
        stage.reactor.watch(self, 0, READ)

    def fileno(self) -> int:
        return self.ours.fileno()

    def say(self, times: int) -> None:
        self.theirs.send(b"-" * times)

    def on_ready(self, events: int) -> None:
        assert events == READ
        self.ours.recv(1)
        self.stage.now += WORK
        self.stage.order.append(self.name)


class Stage:
    """A reactor and what it did, round by round."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.now = stack, 0.0
        self.order: list[str] = []
        self.reactor = Reactor(
            lambda: self.order.append("("), lambda: None, lambda: None, linger=False, clock=lambda: self.now
        )

    def slice(self) -> str:
        self.reactor._slice()
        order, self.order = self.order, []
        return " ".join(order)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        stage = Stage(stack)
        yield stage
        stage.reactor.close()


def test_who_is_ahead_comes_last_and_rarely_while_others_have_something_to_say(stage: Stage) -> None:
    publisher, consumer = Heard(stage, "publisher"), Heard(stage, "consumer")
    publisher.say(9)
    consumer.say(24)
    assert stage.slice() == "( consumer ( publisher"  # one turn each; the clock says that the slice is over
    heard = [stage.slice() for _ in range(23)]
    assert heard.count("( consumer ( publisher") == 1, "a twentieth of the time of others"
    assert heard.index("( consumer ( publisher") == 19
    assert heard.count("( consumer") == 22


def test_who_is_ahead_is_heard_when_nobody_else_has_anything_to_say(stage: Stage) -> None:
    publisher, consumer = Heard(stage, "publisher"), Heard(stage, "consumer")
    publisher.say(3)
    consumer.say(1)
    assert [stage.slice() for _ in range(4)] == ["( consumer ( publisher", "( publisher", "( publisher", ""]


def test_who_is_not_ahead_waits_for_nobody(stage: Stage) -> None:
    publisher, consumer = Heard(stage, "publisher"), Heard(stage, "consumer")
    publisher.ahead = False
    publisher.say(3)
    consumer.say(3)
    for _ in range(3):
        assert sorted(stage.slice().split()) == ["(", "consumer", "publisher"]


def test_who_publishes_waits_until_it_is_heard(stage: Stage) -> None:
    publisher, consumer = Heard(stage, "publisher"), Heard(stage, "consumer")
    consumer.say(1)
    assert not stage.reactor.publishers_wait()
    publisher.say(1)
    assert stage.reactor.publishers_wait() and stage.reactor.publishers_wait()
    stage.slice()
    assert not stage.reactor.publishers_wait()
    publisher.say(1)
    stage.reactor.close()  # it ends, and the last connections with it
    assert not stage.reactor.publishers_wait()


def test_after_a_slice_that_time_ended_it_looks_whether_there_is_more(stage: Stage) -> None:
    publisher = Heard(stage, "publisher")

    async def conversation() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.reactor.run)
            await trio.testing.wait_all_tasks_blocked()
            publisher.say(1)
            await trio.testing.wait_all_tasks_blocked()  # nothing that can be read makes it look again
            assert stage.order == ["(", "publisher"]
            assert stage.reactor.quiet
            nursery.cancel_scope.cancel()

    trio.run(conversation)
