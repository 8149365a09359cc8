"""Worlds for the conversations, and what must hold at the end of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .client import Client
from .harness import World


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    """Makes worlds with settings; in none of them may we have gone wrong."""
    worlds: list[World] = []

    def make(**settings: object) -> World:
        worlds.append(World(**settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.broker.check()
        assert world.exceptions == []


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world with default settings."""
    return make_world()


@pytest.fixture
def client(world: World) -> Client:
    """A client with an open connection and channel 1."""
    return world.client()


@pytest.fixture
def other(world: World) -> Client:
    """Another one."""
    return world.client()
