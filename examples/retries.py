"""Retries with growing pauses, a queue for what never works, and the way back out of it.

    python examples/retries.py work [URL]
    python examples/retries.py send https://example.com/hook [URL]
    python examples/retries.py parked [URL]             what has failed too often, and why
    python examples/retries.py redrive [URL]            have it all done again, when the reason is gone

A call that fails waits in a queue of its own for 1, 4, 16 … seconds (nobody sleeps, and a restart loses nothing), then
comes back. After five retries it is parked; so is, at once, what cannot ever work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Backoff, Connection, Poison, WorkQueue, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
HOOKS = "hooks"
BACKOFF = Backoff(first=1, factor=4, longest=600, retries=5)
Do = Callable[[str], Awaitable[None]]


def hooks(connection: Connection, backoff: Backoff = BACKOFF) -> WorkQueue:
    """The work queue: hooks, hooks.retry.1000 and so on, hooks.parked."""
    return WorkQueue(connection, HOOKS, backoff=backoff)


async def send(connection: Connection, address: str) -> None:
    """Have an address called; when this returns, that is safe with the broker."""
    async with hooks(connection) as queue:
        await queue.put(address)


async def work(connection: Connection, do: Do, backoff: Backoff = BACKOFF) -> None:
    """Call addresses, four at a time, until cancelled."""
    async with hooks(connection, backoff) as queue, queue.workers(do, count=4):
        await trio.sleep_forever()


async def call(address: str) -> None:
    """What the work is here: to connect. OSError: it does not work now; Poison: it never will."""
    print("calling", address)
    host = address.removeprefix("https://").split("/")[0]
    if not address.startswith("https://") or not host:
        raise Poison(f"{address!r} is no address")
    with trio.fail_after(10):
        stream = await trio.open_tcp_stream(host, 443)
        await stream.aclose()
    print("called", address)


async def parked(connection: Connection) -> list[tuple[str, str]]:
    """What is parked, each with its last error. It is looked at and put back."""
    async with hooks(connection) as queue:
        messages = []
        while (message := await queue.parked.get()) is not None:
            messages.append(message)
        found = [(message.value(), message.headers["x-error"]) for message in messages]
        for message in reversed(messages):
            message.reject(requeue=True)
        return found


async def redrive(connection: Connection) -> int:
    """Have all that is parked done again, with all its retries; how many."""
    async with hooks(connection) as queue:
        return await queue.redrive()


async def show_parked(connection: Connection) -> None:
    """Print what is parked."""
    for address, error in await parked(connection):
        print(f"{address}: {error}")


async def show_redriven(connection: Connection) -> None:
    """Redrive, and print how many."""
    print("done again:", await redrive(connection))


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C; a lost connection comes back."""
    try:
        async with connect(url or URL, reconnect=True) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work", *url]:
            trio.run(main, partial(work, do=call), *url)
        case ["send", address, *url]:
            trio.run(main, partial(send, address=address), *url)
        case ["parked", *url]:
            trio.run(main, show_parked, *url)
        case ["redrive", *url]:
            trio.run(main, show_redriven, *url)
        case _:
            sys.exit(__doc__)
