"""Conversations with a whole broker: starting, stopping, peers that vanish, and time."""

from __future__ import annotations

import socket

import pytest
import trio

from rabbitish.config import Settings
from rabbitish.server.listener import ListenError, open_listeners
from rabbitish.wire import methods
from rabbitish.wire.frames import PROTOCOL_HEADER
from tests.server.support import broker, converse


def test_publish_and_get() -> None:
    async def conversation() -> None:
        async with broker() as running:
            client = await running.connect()
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await client.publish("q", b"hello", times=3)
            got = await client.ask(methods.BasicGet(queue="q", no_ack=True), methods.BasicGetOk)
            assert got.message_count == 2

    converse(conversation)


def test_stop_says_320_and_waits_for_the_answer() -> None:
    async def conversation() -> None:
        async with broker(shutdown_grace_ms=10_000) as running:
            client = await running.connect()
            running.stop.set()
            close = await client.expect(methods.ConnectionClose)
            assert (close.reply_code, close.reply_text) == (
                320,
                "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
            )
            await client.send(methods.ConnectionCloseOk(), 0)
            assert await client.ended()

    converse(conversation)


def test_stop_does_not_wait_for_a_silent_peer_for_ever() -> None:
    async def conversation() -> None:
        async with broker(shutdown_grace_ms=5_000) as running:
            client = await running.connect()
            before = trio.current_time()
            running.stop.set()
            await client.expect(methods.ConnectionClose)
            assert await client.ended()
            assert 5 <= trio.current_time() - before < 10

    converse(conversation, faster=100)


def test_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on amqp://127.0.0.1:{port}: the port is already in use"):
            open_listeners(Settings(listen=(f"amqp://127.0.0.1:{port}",)))


def test_unknown_host() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on amqp://no\.such\.invalid:0"):
        open_listeners(Settings(listen=("amqp://no.such.invalid:0",)))


def test_one_listener_that_fails_closes_the_others() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bad = f"amqp://127.0.0.1:{taken.getsockname()[1]}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(ListenError):
            open_listeners(Settings(listen=(f"amqp://127.0.0.1:{port}", bad)))
        with socket.socket() as again:
            again.bind(("127.0.0.1", port))


def test_several_listeners_and_localhost() -> None:
    async def conversation() -> None:
        async with broker(listen=("amqp://localhost:0", "amqp://127.0.0.1:0")) as running:
            assert len(running.node.links) == 0
            client = await running.connect()
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)

    converse(conversation)


def test_wrong_header_is_answered_with_ours() -> None:
    async def conversation() -> None:
        async with broker() as running:
            client = await running.open()
            await client.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await client.stream.receive_some() == PROTOCOL_HEADER
            assert await client.ended()

    converse(conversation)


def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    async def conversation() -> None:
        async with broker(max_connections=1) as running:
            first = await running.connect()
            second = await running.open()
            assert await second.ended()
            await first.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)

    converse(conversation)


def test_what_a_vanished_peer_held_goes_to_another() -> None:
    async def conversation() -> None:
        async with broker() as running:
            one, other = await running.connect(), await running.connect()
            await one.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await one.publish("q", b"m", times=2)
            await one.ask(methods.BasicConsume(queue="q"), methods.BasicConsumeOk)
            await one.count_bodies(2)
            one.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.stream.socket.close()  # with a reset
            await other.ask(methods.BasicConsume(queue="q"), methods.BasicConsumeOk)
            for tag in (1, 2):
                delivery = await other.expect(methods.BasicDeliver)
                assert (delivery.delivery_tag, delivery.redelivered) == (tag, True)

    converse(conversation)


def test_time_passes_without_anybody_saying_anything() -> None:
    """The ticker alone expires messages, deletes an idle queue, and hangs up on who does not finish the handshake."""

    async def conversation() -> None:
        async with broker(handshake_timeout_ms=10_000) as running:
            silent = await running.open()
            client = await running.connect()
            to_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
            for name, arguments in {
                "dead": {},
                "minute": {"x-message-ttl": 60_000, **to_dead},
                "longer": {"x-message-ttl": 100_000, **to_dead},
                "idle": {"x-expires": 90_000},
            }.items():
                await client.ask(methods.QueueDeclare(queue=name, arguments=arguments), methods.QueueDeclareOk)
            await client.ask(methods.BasicConsume(queue="dead", no_ack=True), methods.BasicConsumeOk)
            began = trio.current_time()
            await client.publish("minute", b"m")
            await client.publish("longer", b"m")
            queues = running.node.broker.vhosts["/"].queues
            await client.expect(methods.BasicDeliver)
            assert 60 <= trio.current_time() - began < 80
            assert "idle" in queues
            assert await silent.ended()
            await client.expect(methods.BasicDeliver)
            assert 100 <= trio.current_time() - began < 120
            assert "idle" not in queues

    converse(conversation, faster=200)


def test_heartbeats() -> None:
    """They come on an idle line, and a peer that sends none is dropped."""

    async def conversation() -> None:
        async with broker() as running:
            client = await running.connect(heartbeat=2)
            began = trio.current_time()
            frame = await client.frame()
            assert frame == (8, 0, b"")
            assert 1 <= trio.current_time() - began < 3
            assert await client.ended()
            assert 4 <= trio.current_time() - began < 8

    converse(conversation, faster=20)
