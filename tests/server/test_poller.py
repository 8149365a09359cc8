"""Both ways to watch sockets say the same of them."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from rabbitish.server.poller import READ, WRITE, EpollPoller, Poller, SelectorPoller

KINDS = [SelectorPoller, *([EpollPoller] if hasattr(select, "epoll") else [])]


class Watched:
    ahead = publishes = False

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)

    def fileno(self) -> int:
        return self.ours.fileno()

    def on_ready(self, events: int) -> None:
        raise AssertionError("who polls calls that")

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture(params=KINDS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    kind: Callable[[], Poller] = request.param
    with closing(kind()) as poller:
        yield poller


@pytest.fixture
def who() -> Iterator[Watched]:
    with closing(Watched()) as who:
        yield who


def test_only_what_is_watched_for_is_told(poller: Poller, who: Watched) -> None:
    assert poller.poll(0) == []
    poller.watch(who, 0, READ)
    assert poller.poll(0) == []
    who.theirs.send(b"-")
    assert poller.poll(0) == [(who, READ)]
    poller.watch(who, READ, READ | WRITE)
    assert poller.poll(0) == [(who, READ | WRITE)]
    poller.watch(who, READ | WRITE, WRITE)
    assert poller.poll(0) == [(who, WRITE)]
    poller.watch(who, WRITE, 0)
    assert poller.poll(0) == []


@pytest.mark.parametrize("events", [READ, WRITE, READ | WRITE])
def test_whoever_waits_for_anything_hears_that_the_peer_is_gone(poller: Poller, who: Watched, events: int) -> None:
    poller.watch(who, 0, events)
    who.theirs.close()
    assert poller.poll(0) == [(who, events)]


def test_it_can_be_waited_for_itself(poller: Poller, who: Watched) -> None:
    poller.watch(who, 0, READ)
    assert select.select([poller], [], [], 0) == ([], [], [])
    who.theirs.send(b"-")
    assert select.select([poller], [], [], 0) == ([poller], [], [])


def test_several_at_once(poller: Poller) -> None:
    with closing(Watched()) as first, closing(Watched()) as second, closing(Watched()) as third:
        for who in (first, second, third):
            poller.watch(who, 0, READ)
        for who in (first, third):
            who.theirs.send(b"-")
        found = poller.poll(0)
        assert len(found) == 2 and {who for who, _ in found} == {first, third}
