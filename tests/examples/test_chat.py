"""examples/chat.py: who is there hears at once, who is not hears later, and nobody speaks to the void."""

from __future__ import annotations

import pytest
import trio

from examples import chat
from rabbitish.client import AccessRefused, PublishReturned
from tests.examples.support import Box, World


async def test_a_conversation(world: World) -> None:
    alice, bob = Box(), Box()
    async with world.connect() as connection, connection.channel() as channel, trio.open_nursery() as nursery:
        for user in ("alice", "bob"):
            await chat.mailbox(channel, user)
        nursery.start_soon(chat.read, connection, "alice", alice)
        nursery.start_soon(chat.read, connection, "bob", bob)
        await chat.say(connection, "alice", "bob", "are you there?")
        assert await bob.next() == "alice: are you there?"
        await chat.say(connection, "bob", "alice", "yes")
        assert await alice.next() == "bob: yes"
        nursery.cancel_scope.cancel()


async def test_who_was_away_gets_all_of_it_in_order(world: World) -> None:
    bob = Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await chat.join(connection, "bob", "trio")
        await chat.say(connection, "alice", "bob", "1")
        await chat.say(connection, "carol", "#trio", "2")
        await chat.say(connection, "alice", "bob", "3")
        nursery.start_soon(chat.read, connection, "bob", bob)
        assert await bob.take(3) == ["alice: 1", "carol in #trio: 2", "alice: 3"]
        nursery.cancel_scope.cancel()


async def test_a_room_is_heard_between_joining_and_leaving(world: World) -> None:
    alice, bob = Box(), Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await chat.join(connection, "alice", "trio")
        await chat.say(connection, "carol", "#trio", "before bob")
        await chat.join(connection, "bob", "trio")
        await chat.say(connection, "carol", "#trio", "with bob")
        await chat.leave(connection, "bob", "trio")
        await chat.say(connection, "carol", "#trio", "after bob")
        await chat.say(connection, "carol", "bob", "bye")
        nursery.start_soon(chat.read, connection, "alice", alice)
        nursery.start_soon(chat.read, connection, "bob", bob)
        assert await bob.take(2) == ["carol in #trio: with bob", "carol: bye"]
        assert len(await alice.take(3)) == 3
        nursery.cancel_scope.cancel()


async def test_who_has_never_been_there_is_known_to_be_missing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world.connect() as connection:
        with pytest.raises(PublishReturned):
            await chat.say(connection, "alice", "nobody", "hello")
        await chat.say_or_complain(connection, "alice", "#empty", "hello")
    assert capsys.readouterr().out == "there is no #empty\n"


async def test_what_was_not_shown_when_the_reader_died_is_shown_again(world: World) -> None:
    bob = Box()
    async with world.connect() as connection, world.connect() as dying, trio.open_nursery() as nursery:
        async with connection.channel() as channel:
            await chat.mailbox(channel, "bob")
        await chat.say(connection, "alice", "bob", "hello")

        def die(text: str) -> None:
            raise BrokenPipeError("the terminal is gone")

        with pytest.raises(BrokenPipeError):
            await chat.read(dying, "bob", die)
        nursery.start_soon(chat.read, connection, "bob", bob)
        assert await bob.next() == "alice: hello"
        with pytest.raises(AccessRefused):
            await chat.read(dying, "bob", bob)  # one reader at a time
        nursery.cancel_scope.cancel()


async def test_a_month_is_too_long(world: World) -> None:
    if world.broker is None:
        pytest.skip("nobody waits a month")
    async with world.connect() as connection, connection.channel() as channel:
        await chat.mailbox(channel, "bob")
        await chat.say(connection, "alice", "bob", "hello")
        await world.later(30 * 86_400 - 1)
        assert world.broker.queue("chat.bob").ready == 1
        await world.later(1)
        assert world.broker.queue("chat.bob").ready == 0
