"""examples/notifications.py: who hears by what, the urgent past the rest, digests, and what a crash sends twice."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from examples import notifications
from examples.notifications import deliver, notify
from tests.examples.support import Box, World


class Sent(Box):
    """What was sent, as a channel's way to send."""

    async def send(self, channel: str, user: str, texts: list[str]) -> None:
        self(channel, user, texts)


async def test_everybody_hears_by_the_channels_they_chose(world: World) -> None:
    sent = Sent()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        for name in notifications.CHANNELS:
            nursery.start_soon(partial(deliver, connection, name, sent.send, size=1))
        await notify(connection, "alice", "hello")
        await notify(connection, "bob", "hi", urgent=True)
        assert sorted(await sent.take(3)) == [
            ("email", "alice", ["hello"]),
            ("push", "alice", ["hello"]),
            ("sms", "bob", ["hi"]),
        ]
        with pytest.raises(KeyError):
            await notify(connection, "nobody", "hello")
        nursery.cancel_scope.cancel()


async def test_the_urgent_go_at_once_and_the_rest_together_after_a_while(world: World) -> None:
    sent = Sent()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        for number in range(3):
            await notify(connection, "bob", f"news {number}")
        nursery.start_soon(partial(deliver, connection, "sms", sent.send, window=world.seconds(60)))
        await notify(connection, "bob", "fire", urgent=True)
        assert await sent.next() == ("sms", "bob", ["fire"])
        if world.broker is not None:
            queue = world.broker.queue("notify.sms")
            await world.broker.wait_until(lambda: queue.unacked == 3)
            await world.later(59)
            assert not sent.waiting
        await world.later(1)
        assert await sent.next() == ("sms", "bob", ["news 0", "news 1", "news 2"])
        nursery.cancel_scope.cancel()


async def test_a_full_digest_does_not_wait_and_each_user_gets_their_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent()
    monkeypatch.setattr(notifications, "CHOSEN", {"carol": ("sms",), "dave": ("sms",)})
    async with world.connect() as connection, trio.open_nursery() as nursery:
        for user, text in [("carol", "1"), ("dave", "2"), ("carol", "3")]:
            await notify(connection, user, text)
        nursery.start_soon(partial(deliver, connection, "sms", sent.send, size=3))
        assert await sent.take(2) == [("sms", "carol", ["1", "3"]), ("sms", "dave", ["2"])]
        nursery.cancel_scope.cancel()


async def test_a_crash_sends_again_only_what_was_not_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent()
    monkeypatch.setattr(notifications, "CHOSEN", {"carol": ("sms",), "dave": ("sms",)})

    async def dies(channel: str, user: str, texts: list[str]) -> None:
        if user == "dave":
            raise ConnectionError("the gateway is gone")
        sent(channel, user, texts)

    async with world.connect() as connection, trio.open_nursery() as nursery:
        await notify(connection, "carol", "1")
        await notify(connection, "dave", "2")
        with pytest.raises(ConnectionError):
            await notifications.deliver_digests(connection, "sms", dies, 2, 60)
        nursery.start_soon(partial(deliver, connection, "sms", sent.send, size=1))
        assert await sent.take(2) == [("sms", "carol", ["1"]), ("sms", "dave", ["2"])]
        nursery.cancel_scope.cancel()
