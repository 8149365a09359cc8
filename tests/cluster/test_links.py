"""A connection that is heard together with other sockets: what is said arrives, and what ends it is known."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from rabbitish.cluster.links import Watched
from rabbitish.cluster.protocol.frames import LinkError
from rabbitish.server.poller import READ, new_poller


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def hear_all(watched: Watched) -> None:
    poller = new_poller()
    poller.watch(watched, 0, READ)
    while not watched.over.is_set() and (events := poller.poll(0)):
        for who, event in events:
            who.on_ready(event)
    poller.close()


def test_what_is_said_is_heard_until_the_peer_hangs_up(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    heard: list[bytes] = []
    watched = Watched(ours.fileno(), ours.recv, heard.append)
    theirs.send(b"one")
    hear_all(watched)
    assert heard == [b"one"] and not watched.over.is_set()
    watched.on_ready(READ)  # there is nothing
    assert heard == [b"one"] and not watched.over.is_set()
    theirs.send(b"two")
    theirs.close()
    hear_all(watched)
    assert heard == [b"one", b"two"] and watched.over.is_set() and watched.failure is None
    assert ours.recv(1) == b""  # whoever reads next sees it too


def test_once_another_is_to_read_nothing_is_taken_away(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    heard: list[bytes] = []
    watched = Watched(ours.fileno(), ours.recv, heard.append)
    theirs.send(b"one")
    watched.over.set()
    watched.on_ready(READ)
    assert heard == [] and ours.recv(9) == b"one"


def test_what_makes_no_sense_ends_it_and_is_said(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair

    def hear(data: bytes) -> None:
        raise LinkError("a frame of type 99")

    watched = Watched(ours.fileno(), ours.recv, hear)
    theirs.send(b"nonsense")
    hear_all(watched)
    assert watched.over.is_set() and isinstance(watched.failure, LinkError)
