"""Tutorial six: calling a function in another program.

    python examples/tutorials/six_rpc.py server [URL]
    python examples/tutorials/six_rpc.py client 30 [URL]

The client sends a request with `reply_to`, where the answer is wanted, and a `correlation_id`, by which it knows the
answer again. The server works on requests from its queue. RpcClient and RpcServer write these two properties.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from rabbitish.client import Connection, RpcClient, RpcServer, connect

URL = os.environ.get("RABBITISH_URL", "amqp://guest:guest@localhost")
QUEUE = "rpc_queue"


def fib(n: int) -> int:
    """Slow on purpose."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


async def in_a_thread(n: int) -> int:
    """What computes for long must not stop the program's other tasks."""
    return await trio.to_thread.run_sync(fib, n)


async def server(connection: Connection, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answer requests, until cancelled."""
    async with RpcServer(connection, concurrency=1) as calls:
        await calls.register(QUEUE, in_a_thread)
        task_status.started()
        print("waiting for requests; Ctrl-C ends")
        await trio.sleep_forever()


async def client(connection: Connection, n: int, show: Callable[[str], None] = print) -> None:
    """Ask for fib(n) and show the answer."""
    async with RpcClient(connection, timeout=30) as rpc:
        show(f"fib({n}) = {await rpc.call(QUEUE, n)}")


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
            trio.run(main, server, *url)
        case ["client", n, *url]:
            trio.run(main, partial(client, n=int(n)), *url)
        case _:
            sys.exit(__doc__)
