"""Chat: messages to people and rooms, at once for who is there, later for who is not.

    python examples/chat.py read bob [URL]
    python examples/chat.py join bob trio [URL]                   or leave: whether bob gets what is said in the room
    python examples/chat.py say alice bob "are you there?" [URL]
    python examples/chat.py say alice "#trio" "hello, all" [URL]

Everybody has a durable queue that gathers while they are away: the last 10,000 messages, for 30 days. A message leaves
it when it was shown. To write to somebody who has never been there is an error, and not silence.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import trio

from rabbitish.client import Channel, Connection, PublishReturned, Queue, connect, queue_arguments

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
CHAT = "chat"
KEPT = queue_arguments(message_ttl=timedelta(days=30), max_length=10_000, overflow="drop-head")


async def mailbox(channel: Channel, user: str) -> Queue:
    """A user's queue. It hears what is said to the user; rooms come with `join`."""
    await channel.declare_exchange(CHAT, "direct", durable=True)
    queue = await channel.declare_queue(f"chat.{user}", durable=True, arguments=KEPT)
    await queue.bind(CHAT, user)
    return queue


async def join(connection: Connection, user: str, room: str) -> None:
    """Let a user hear a room, from now on and also while away."""
    async with connection.channel() as channel:
        await (await mailbox(channel, user)).bind(CHAT, f"#{room}")


async def leave(connection: Connection, user: str, room: str) -> None:
    """Let a user not hear a room any more."""
    async with connection.channel() as channel:
        await (await mailbox(channel, user)).unbind(CHAT, f"#{room}")


async def say(connection: Connection, sender: str, to: str, text: str) -> None:
    """Say something to a user or a room; safe with the broker when this returns. PublishReturned: nobody is there."""
    async with connection.channel() as channel:
        chat = await channel.declare_exchange(CHAT, "direct", durable=True)
        message = {"from": sender, "to": to, "text": text}
        await chat.publish(message, to, mandatory=True, timestamp=datetime.now(UTC))


async def read(connection: Connection, user: str, show: Callable[[str], None] = print) -> None:
    """Show what was said while away, and then what is said, until cancelled. One reader at a time keeps the order."""
    async with connection.channel() as channel:
        queue = await mailbox(channel, user)
        async for message in queue.consume(exclusive=True):
            async with message.process(requeue=True):
                said = message.value()
                where = f" in {said['to']}" if said["to"].startswith("#") else ""
                show(f"{said['from']}{where}: {said['text']}")


async def say_or_complain(connection: Connection, sender: str, to: str, text: str) -> None:
    """As `say`, for a person."""
    try:
        await say(connection, sender, to, text)
    except PublishReturned:
        print(f"there is no {to}")


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["read", user, *url]:
            trio.run(main, partial(read, user=user), *url)
        case ["join", user, room, *url]:
            trio.run(main, partial(join, user=user, room=room), *url)
        case ["leave", user, room, *url]:
            trio.run(main, partial(leave, user=user, room=room), *url)
        case ["say", sender, to, text, *url]:
            trio.run(main, partial(say_or_complain, sender=sender, to=to, text=text), *url)
        case _:
            sys.exit(__doc__)
