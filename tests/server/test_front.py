"""Clients of a node that does not lead: they are brought to who does, who knows whose they are, or told off in time."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from rabbitish.cluster.protocol.frames import Relay
from rabbitish.cluster.relay import RelayFailed, open_relay
from rabbitish.server import listings
from rabbitish.server.passing import carry
from rabbitish.wire import methods
from tests.server.fronts import SECRET, FrontNode, fronts, leads
from tests.server.support import Client, broker, converse, until
from tests.server.tls import HOST, pki

ELSEWHERE = Relay(("10.1.2.3", 4711), ("10.9.9.9", 5672), "amqp")


def warnings(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    return [
        (record.getMessage(), vars(record)["fields"].get("reason"))
        for record in caplog.records
        if record.name == "rabbitish" and record.levelname in ("WARNING", "ERROR")
    ]


# --- Brought ----------------------------------------------------------------------------------------------------------


def test_a_client_of_a_mirror_is_the_leaders_under_its_own_address() -> None:
    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b")
        async with broker() as running, fronts(a, b):
            leads(a, running.node, b)
            client = await b.connect()
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await client.publish("q", b"x" * 300_000, times=20)
            await client.ask(methods.BasicConsume(queue="q", no_ack=True), methods.BasicConsumeOk)
            assert await client.count_bodies(20) == 20
            (row,) = listings.connections(running.node)
            host, port = client.stream.socket.getsockname()
            assert (row["peer_host"], row["peer_port"]) == (host, port)
            assert row["name"] == f"{host}:{port} -> 127.0.0.1:{b.ports[0]}"
            assert (a.front.relays, b.front.relays) == (0, 1)
            await client.stream.aclose()
            await until(lambda: not running.node.links and b.front.relays == 0)

    converse(conversation)


def test_a_client_of_the_leader_is_served_there() -> None:
    async def conversation() -> None:
        a = FrontNode("a")
        async with broker() as running, fronts(a):
            leads(a, running.node)
            await a.connect()
            assert len(running.node.links) == 1
            assert a.front.relays == 0

    converse(conversation)


def test_guest_may_not_come_from_elsewhere_through_a_node() -> None:
    async def conversation() -> None:
        a = FrontNode("a")
        async with broker(refused_linger_ms=0) as running, fronts(a):
            leads(a, running.node)
            async with await open_relay(a.links, SECRET, ELSEWHERE) as stream:
                with pytest.raises(AssertionError, match="ended before ConnectionTune"):
                    await Client(stream).handshake()
            near = ELSEWHERE._replace(client=("127.9.9.9", 4711))
            async with await open_relay(a.links, SECRET, near) as stream:
                await Client(stream).handshake()
                (name,) = (link.session.peer.name for link in running.node.links.values())
                assert name == "127.9.9.9:4711 -> 10.9.9.9:5672"

    converse(conversation)


def test_tls_passes_through() -> None:
    listen = ("amqp://127.0.0.1:0", "amqps://127.0.0.1:0")

    async def conversation() -> None:
        b = FrontNode("b", **pki().settings(listen=listen))
        a = FrontNode("a")
        async with broker(**pki().settings()) as running, fronts(a, b):
            leads(a, running.node, b)
            raw = await b.open(at=1)
            tls = trio.SSLStream(raw.stream, pki().client(), server_hostname=HOST, https_compatible=True)
            client = Client(tls)  # type: ignore[arg-type]
            await client.handshake()
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            (link,) = running.node.links.values()
            assert link.session.peer.port == raw.stream.socket.getsockname()[1]

    converse(conversation)


def test_a_mirror_with_tls_and_a_leader_without(caplog: pytest.LogCaptureFixture) -> None:
    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b", **pki().settings())
        async with broker() as running, fronts(a, b):
            leads(a, running.node, b)
            client = await b.open()
            assert await client.ended()

    converse(conversation)
    assert warnings(caplog) == [
        ("a node brings connections that cannot be served here", None),
        ("no leader took a connection", "a: does not serve amqps"),
    ]


# --- Bytes ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """A connection: both ends."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream(*listener.socket.getsockname())
        far = await listener.accept()
    async with near, far:
        yield near, far


async def everything(stream: trio.SocketStream) -> bytes:
    return b"".join([bytes(piece) async for piece in stream])


def test_a_half_close_is_passed_on_and_the_answer_still_comes() -> None:
    async def conversation() -> None:
        async with pair() as (client, near), pair() as (far, leader), trio.open_nursery() as nursery:
            nursery.start_soon(carry, near, far)
            await client.send_all(b"the last word")
            await client.send_eof()
            assert await everything(leader) == b"the last word"
            await leader.send_all(b"heard")
            await leader.aclose()
            assert await everything(client) == b"heard"

    converse(conversation)


def test_who_goes_on_after_the_leader_said_its_last_word_is_cut_off_in_time() -> None:
    async def conversation() -> None:
        async with pair() as (client, near), pair() as (far, leader), trio.open_nursery() as nursery:
            nursery.start_soon(carry, near, far)
            await leader.send_all(b"bye")
            await leader.send_eof()
            assert await everything(client) == b"bye"
            await client.send_all(b"but")
            assert await leader.receive_some() == b"but"
            before = trio.current_time()
            assert await leader.receive_some() == b""
            assert trio.current_time() - before > 4

    converse(conversation, faster=100)


def test_a_reset_ends_both() -> None:
    async def conversation() -> None:
        for which in (0, 1):
            async with pair() as (client, near), pair() as (far, leader), trio.open_nursery() as nursery:
                gone, stays = (client, leader) if which == 0 else (leader, client)
                nursery.start_soon(carry, near, far)
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                await gone.aclose()
                assert await everything(stays) == b""

    converse(conversation)


# --- Who leads --------------------------------------------------------------------------------------------------------


def test_a_client_waits_for_a_leader_to_be_found() -> None:
    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b")
        async with broker() as running, fronts(a, b), trio.open_nursery() as nursery:
            client = await b.open()
            nursery.start_soon(client.handshake)
            await until(lambda: b.front.relays == 1)
            b.front.follow(a.leader())  # which does not serve yet
            await trio.testing.wait_all_tasks_blocked()
            assert not running.node.links
            a.front.serve(running.node)

    converse(conversation)


def test_who_is_about_to_lead_is_not_asked_again_and_again() -> None:
    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b")
        async with broker() as running, fronts(a, b), trio.open_nursery() as nursery:
            b.front.follow(a.leader())
            client = await b.open()
            nursery.start_soon(client.handshake)
            await until(lambda: a.asked == 1)
            await trio.testing.wait_all_tasks_blocked()
            a.front.serve(running.node)
            await until(lambda: len(running.node.links) == 1)
            assert a.asked == 1

    converse(conversation)


def test_who_follows_another_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitish.server.front._HOLD_SECONDS", 3600)

    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b")
        async with fronts(a, b):
            a.front.follow(b.leader())
            with pytest.raises(RelayFailed, match="does not lead, b does"):
                await open_relay(a.links, SECRET, ELSEWHERE)

    converse(conversation)


def test_a_client_that_waits_is_served_here_when_this_node_leads() -> None:
    async def conversation() -> None:
        b = FrontNode("b")
        async with broker() as running, fronts(b), trio.open_nursery() as nursery:
            client = await b.open()
            nursery.start_soon(client.handshake)
            await until(lambda: b.front.relays == 1)
            b.front.serve(running.node)
            await until(lambda: b.front.relays == 0)
            assert len(running.node.links) == 1

    converse(conversation)


@pytest.mark.parametrize("known", [False, True])
def test_a_client_does_not_wait_for_ever(known: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b")
        async with fronts(a, b):
            if known:
                b.front.follow(a.leader())
            client = await b.open()
            before = trio.current_time()
            assert await client.ended()
            assert trio.current_time() - before > 9

    converse(conversation, faster=50)
    ((event, reason),) = warnings(caplog)
    assert event == "no leader took a connection"
    assert str(reason).startswith("a: ") if known else reason == "nobody leads"


def test_connections_with_tls_end_when_another_leads_and_the_next_go_to_it() -> None:
    async def conversation() -> None:
        c = FrontNode("c")
        a, b = FrontNode("a"), FrontNode("b", **pki().settings(listen=("amqps://127.0.0.1:0",)))
        async with broker(**pki().settings()) as old, broker(**pki().settings()) as new, fronts(a, b, c):
            leads(a, old.node, b)
            client = await over_tls(b)
            leads(c, new.node, b, epoch=2)
            assert await client.ended()
            await over_tls(b)
            assert len(new.node.links) == 1

    converse(conversation)


async def over_tls(node: FrontNode) -> Client:
    """A client of a node's only listener."""
    raw = await node.open()
    client = Client(trio.SSLStream(raw.stream, pki().client(), server_hostname=HOST, https_compatible=True))  # type: ignore[arg-type]
    await client.handshake()
    return client


def test_a_node_of_another_cluster_takes_nobody_and_is_not_asked_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitish.server.front._PATIENCE_SECONDS", 3600)

    async def conversation() -> None:
        a, b = FrontNode("a", secret=b"else"), FrontNode("b")
        async with broker() as running, fronts(a, b):
            leads(a, running.node, b)
            client = await b.open()
            assert await client.ended()

    converse(conversation)
    ((event, reason),) = warnings(caplog)
    assert event == "no leader took a connection"
    assert str(reason).endswith("the peer does not know this cluster's secret")


def test_a_leader_that_is_not_there() -> None:
    async def conversation() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(RelayFailed) as failed:
                await open_relay(taken.getsockname(), SECRET, ELSEWHERE)
        assert not failed.value.final
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:  # the kernel takes the connection and nobody says anything
            with pytest.raises(RelayFailed) as failed:
                await open_relay(listener.socket.getsockname(), SECRET, ELSEWHERE)
        assert not failed.value.final

    converse(conversation, faster=50)


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_too_many_that_are_brought() -> None:
    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b", max_connections=1)
        async with broker() as running, fronts(a, b):
            leads(a, running.node, b)
            first = await b.connect()
            second = await b.open()
            assert await second.ended()
            await first.stream.aclose()
            await until(lambda: b.front.relays == 0)
            await b.connect()

    converse(conversation)


def test_too_many_for_the_leader() -> None:
    async def conversation() -> None:
        a, b = FrontNode("a"), FrontNode("b")
        async with broker(max_connections=1) as running, fronts(a, b):
            leads(a, running.node, b)
            first = await b.connect()
            second = await b.open()
            assert await second.ended()
            await first.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)

    converse(conversation)
