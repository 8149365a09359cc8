"""Request and reply: functions of one program that others call over the broker, with timeouts and errors.

    python examples/rpc.py server [URL]        run as many of these as there are calls for
    python examples/rpc.py client N [URL]      ask for the Fibonacci numbers up to the Nth, all at once

The caller awaits an ordinary value. An exception in the server is a RemoteError in the client, no answer in time is a
CallTimeout, and a function that nobody serves is known at once: PublishReturned.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import CallTimeout, Connection, PublishReturned, RemoteError, RpcClient, RpcServer, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
FIBONACCI = "math.fibonacci"


def fibonacci(n: int) -> int:
    """The function that is called: what it returns is the reply, what it raises the caller's error."""
    if n < 0:
        raise ValueError(f"there is no Fibonacci number {n}")
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


async def serve(connection: Connection, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answer calls, up to ten at the same time, until cancelled."""
    async with RpcServer(connection, concurrency=10) as server:
        # The queue goes with the last server, so that callers hear at once that nobody is there.
        await server.register(FIBONACCI, fibonacci, auto_delete=True)
        task_status.started()
        print("serving")
        await trio.sleep_forever()


async def call(connection: Connection, numbers: list[int], timeout: float = 5) -> dict[int, str]:  # noqa: ASYNC109
    """Make all calls at the same time over one connection; what came of each."""
    answers: dict[int, str] = {}

    async def one(rpc: RpcClient, n: int) -> None:
        try:
            answers[n] = str(await rpc.call(FIBONACCI, n, timeout=timeout))
        except RemoteError as error:
            answers[n] = f"it failed there: {error.message}"
        except CallTimeout:
            answers[n] = "no answer in time"
        except PublishReturned:
            answers[n] = "nobody serves this"

    async with RpcClient(connection) as rpc, trio.open_nursery() as nursery:
        for n in numbers:
            nursery.start_soon(one, rpc, n)
    return answers


async def show(connection: Connection, n: int) -> None:
    """Print what the client asked for."""
    answers = await call(connection, [-1, *range(1, n + 1)])
    for number in sorted(answers):
        print(f"fibonacci({number}): {answers[number]}")


async def main(half: Callable[[Connection], Awaitable[None]], *url: str) -> None:
    """Connect, and be one half until it is done or Ctrl-C."""
    try:
        async with connect(url or URL) as connection:
            await half(connection)
    except* KeyboardInterrupt:
        pass


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", *url]:
            trio.run(main, serve, *url)
        case ["client", n, *url]:
            trio.run(main, partial(show, n=int(n)), *url)
        case _:
            sys.exit(__doc__)
