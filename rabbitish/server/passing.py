"""A client's bytes, passed on as they are: with TLS that nobody on the way understands but the leader."""

from __future__ import annotations

import trio

from rabbitish.cluster.relay import BROKEN, READ_BYTES, unlimit

# What a client may still say after the leader has said its last word, before it is cut off.
_LINGER_SECONDS = 5


async def carry(client: trio.SocketStream, leader: trio.abc.HalfCloseableStream) -> None:
    """Pass on what both say until either is gone, or the leader had its last word and the client time for its own."""
    async with client, leader, trio.open_nursery() as nursery:
        unlimit(client)
        said_all = trio.Event()
        nursery.start_soon(_pass_on, client, leader, nursery, said_all)
        await _pass_on(leader, client, nursery, trio.Event())
        with trio.move_on_after(_LINGER_SECONDS):
            await said_all.wait()
        nursery.cancel_scope.cancel()


async def _pass_on(
    source: trio.abc.ReceiveStream, target: trio.abc.HalfCloseableStream, nursery: trio.Nursery, said_all: trio.Event
) -> None:
    """Until the source has said all."""
    try:
        while data := await source.receive_some(READ_BYTES):
            await target.send_all(data)
        await target.send_eof()
        said_all.set()
    except BROKEN:
        nursery.cancel_scope.cancel()
