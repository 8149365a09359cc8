"""Connections that end with something unsent."""

from __future__ import annotations

import socket

import trio
import trio.testing

from rabbitish.wire import methods

from .support import broker, converse, until

BODY = b"." * 100_000


def test_a_broker_that_waits_for_a_peer_to_read_does_nothing_else() -> None:
    async def conversation() -> None:
        async with broker(close_timeout_ms=3_600_000) as running:
            client = await running.connect()
            # The kernel would else take all of it at times.
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await client.ask(methods.BasicConsume(queue="q", no_ack=True), methods.BasicConsumeOk)
            (link,) = running.node.links.values()
            for last in (False, True):
                await client.publish("q", BODY, times=100)
                await until(lambda: bool(link._rest))
                if not last:
                    await client.count_bodies(100)
            await client.stream.send_eof()
            await until(lambda: link.session.ended)
            with trio.fail_after(15):
                await trio.testing.wait_all_tasks_blocked()
            assert link._rest
            await client.count_bodies(30)

    converse(conversation)
