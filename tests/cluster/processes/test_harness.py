"""The harness itself: that the ledger sees what is wrong, that relays cut what they say, and one node, killed."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
import trio.testing

from ..etcd_server import free_ports
from . import namespaces
from .brokers import Broker
from .clients import Load, at_work, confirms_again
from .ledger import Ledger
from .relays import Network, Relay, owner_of


def played(count: int = 3, *, ordered: bool = False) -> tuple[Ledger, list[bytes]]:
    ledger = Ledger(ordered=ordered)
    bodies = []
    for _ in range(count):
        message, body = ledger.attempt("p")
        ledger.confirm(message, 0.0)
        bodies.append(body)
    return ledger, bodies


def test_what_is_right() -> None:
    ledger, bodies = played(ordered=True)
    _, unsure = ledger.attempt("p")
    for body in (*bodies, unsure):
        ledger.receive(body, redelivered=False)
    ledger.receive(bodies[0], redelivered=True)
    verdict = ledger.verdict()
    assert verdict.valid
    assert (verdict.attempted, verdict.confirmed, verdict.received) == (4, 3, 4)
    assert (verdict.recovered, verdict.duplicates) == (1, 1)


def test_lost() -> None:
    ledger, bodies = played()
    for body in bodies[1:]:
        ledger.receive(body, redelivered=False)
    assert ledger.missing == 1
    verdict = ledger.verdict()
    assert verdict.lost == 1 and not verdict.valid and "lost ('p', 1)" in verdict.examples


@pytest.mark.parametrize("body", [b"", b"p", b"p 1", b"p x y", b"q 1 00000000", b"p 4 00000000", b"p -1 0", b"p 1 bad"])
def test_invented(body: bytes) -> None:
    ledger, _ = played()
    ledger.receive(body, redelivered=False)
    assert ledger.verdict().unexpected == 1


def test_not_redelivered() -> None:
    ledger, bodies = played()
    for body in (*bodies, bodies[1]):
        ledger.receive(body, redelivered=False)
    verdict = ledger.verdict()
    assert verdict.false_first == 1 and verdict.duplicates == 1


def test_out_of_order() -> None:
    for ordered in (True, False):
        ledger, bodies = played(ordered=ordered)
        for body in (bodies[0], bodies[2], bodies[1]):
            ledger.receive(body, redelivered=False)
        assert ledger.verdict().disorder == ordered


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(data)


async def heard(stream: trio.SocketStream) -> bytes | None:
    """What comes within a moment; None: nothing."""
    with trio.move_on_after(0.1):
        return bytes(await stream.receive_some())
    return None


def test_cuts_hold_back_and_healing_lets_pass() -> None:
    async def main() -> None:
        network = Network()
        behind, before = free_ports(2)
        streams: list[trio.SocketStream] = []

        async def client() -> trio.SocketStream:
            streams.append(await trio.open_tcp_stream("127.0.0.1", before))
            return streams[-1]

        relay = Relay(network, "b", before, ("127.0.0.1", behind), lambda _, __: "a")
        async with trio.open_nursery() as nursery:
            await nursery.start(relay.run)
            with pytest.raises(trio.BrokenResourceError):  # nobody is behind it
                await heard(await client())
            await nursery.start(trio.serve_tcp, echo, behind)
            stream = await client()
            await stream.send_all(b"1")
            assert await stream.receive_some() == b"1"
            for source, target in (("a", "b"), ("b", "a")):
                network.cut([source], [target], both_ways=False)
                await stream.send_all(b"2")
                assert await heard(stream) is None
                network.heal()
                assert await stream.receive_some() == b"2"
            network.cut(["a"], ["b", "c"])
            assert len(network.cuts) == 4
            other = await client()
            await other.send_all(b"3")
            assert await heard(other) is None
            network.heal()
            assert await other.receive_some() == b"3"
            relay.down()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(OSError, match="connect"):
                await client()
            await relay.up()
            await client()
            for each in streams:
                await each.aclose()
            nursery.cancel_scope.cancel()

    trio.run(main)


def where() -> Path:
    return Path("/proc/thread-self/ns/net").readlink()


def test_namespaces_are_cut_and_healed() -> None:
    if reason := namespaces.refused():
        pytest.skip(reason)

    async def main() -> None:
        with namespaces.Namespaces(["a", "b"]) as network, network.between(), ExitStack() as sockets:
            here = where()
            with network.inside("b"):
                listening = sockets.enter_context(socket.create_server((network.address("b"), 5672)))
                assert where() != here
            assert where() == here

            async def client() -> trio.SocketStream:
                with network.inside("a"):
                    end = sockets.enter_context(socket.socket())
                connection = trio.socket.from_stdlib_socket(end)
                with trio.fail_after(10):
                    await connection.connect((network.address("b"), 5672))
                return trio.SocketStream(connection)

            async with trio.open_nursery() as nursery:
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
                nursery.start_soon(trio.serve_listeners, echo, [listener])
                stream = await client()
                await stream.send_all(b"1")
                assert await stream.receive_some() == b"1"
                for source, target in (("a", "b"), ("b", "a")):
                    network.cut([source], [target], both_ways=False)
                    await stream.send_all(b"2")
                    assert await heard(stream) is None
                    network.heal()
                    assert await stream.receive_some() == b"2"
                network.cut(["a"], ["b"])
                with trio.move_on_after(0.1) as silent:
                    await client()
                assert silent.cancelled_caught
                network.unplug("a")
                with pytest.raises(OSError, match="unreachable"):
                    await client()
                network.heal()
                await stream.send_all(b"3")
                assert await stream.receive_some() == b"3"
                await client()
                nursery.cancel_scope.cancel()

    before = where()
    trio.run(main)
    assert where() == before


def test_whose_connection_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        to = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", to)) as client:
            port = client.getsockname()[1]
            assert owner_of(port, to, {os.getpid(): "us"}) == "us"
            assert owner_of(port, to, {1: "init", os.getppid(): "other"}) is None


def test_one_node_is_killed_while_clients_are_at_work(tmp_path: Path) -> None:
    async def main() -> None:
        (port,) = free_ports(1)
        broker = Broker(tmp_path, "a", port, ["--set", "log_level=warning"])
        try:
            broker.start()
            await broker.ready()
            load = Load(Ledger(ordered=True), [broker.uri], kind="consume", consumers=1)
            async with at_work(load):
                broker.kill()
                broker.start()
                await broker.ready()
                await confirms_again(load)
            verdict = load.ledger.verdict()
            assert verdict.valid, verdict
            assert verdict.confirmed > 20
            await broker.terminate()
        finally:
            broker.end()

    trio.run(main)
