"""Notifications: each user hears by the channels they chose, the urgent at once, the rest gathered into digests.

    python examples/notifications.py deliver email [URL]                    or sms, push; as many of each as needed
    python examples/notifications.py notify alice "your parcel is here" [URL]
    python examples/notifications.py urgent alice "your card is blocked" [URL]

Each channel has two queues. What is urgent never waits behind the rest, for it is in the other one. Of the rest a
hundred, or a minute's, are taken together and sent as one message per user. Nothing is acknowledged before it is sent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Batch, Channel, Connection, Message, Queue, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
CHANNELS = ("email", "sms", "push")
CHOSEN = {"alice": ("email", "push"), "bob": ("sms",)}
SIZE, WINDOW_SECONDS = 100, 60
Send = Callable[[str, str, list[str]], Awaitable[None]]


async def declare(channel: Channel, name: str, *, urgent: bool) -> Queue:
    """One of the queues: notify.email, notify.email.urgent …"""
    return await channel.declare_queue(f"notify.{name}.urgent" if urgent else f"notify.{name}", durable=True)


async def notify(connection: Connection, user: str, text: str, *, urgent: bool = False) -> None:
    """Tell a user something, by all channels that they chose. KeyError: nobody knows that user."""
    async with connection.channel() as channel:
        queues = [await declare(channel, name, urgent=urgent) for name in CHOSEN[user]]
        await channel.publish_many(
            [Message({"user": user, "text": text}, exchange="", routing_key=queue.queue) for queue in queues]
        )


async def show(channel: str, user: str, texts: list[str]) -> None:
    """What sends, here: print. In earnest a mail server, an SMS gateway …"""
    print(f"{channel} to {user}: {'; '.join(texts)}")


async def deliver(
    connection: Connection, name: str, send: Send = show, *, size: int = SIZE, window: float = WINDOW_SECONDS
) -> None:
    """Send what comes for a channel, until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver_urgent, connection, name, send)
        nursery.start_soon(deliver_digests, connection, name, send, size, window)


async def deliver_urgent(connection: Connection, name: str, send: Send) -> None:
    """One by one, as they come."""
    async with connection.channel() as channel:
        async for message in (await declare(channel, name, urgent=True)).consume(prefetch=10):
            async with message.process(requeue=True):
                notification = message.value()
                await send(name, notification["user"], [notification["text"]])


async def deliver_digests(connection: Connection, name: str, send: Send, size: int, window: float) -> None:
    """Batches of so many, or of so many seconds after the first; a message for each user in it."""
    async with connection.channel() as channel:
        queue = await declare(channel, name, urgent=False)
        async for batch in queue.consume(prefetch=size).batches(size, window):
            users = {message.value()["user"]: Batch() for message in batch}
            for message in batch:
                users[message.value()["user"]].append(message)
            for user, theirs in users.items():
                async with theirs.process(requeue=True):  # acknowledged user by user: few are sent twice after a crash
                    await send(name, user, [message.value()["text"] for message in theirs])


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["deliver", name, *url]:
            trio.run(main, partial(deliver, name=name), *url)
        case ["notify", user, text, *url]:
            trio.run(main, partial(notify, user=user, text=text), *url)
        case ["urgent", user, text, *url]:
            trio.run(main, partial(notify, user=user, text=text, urgent=True), *url)
        case _:
            sys.exit(__doc__)
