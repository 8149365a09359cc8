"""A client of a node that does not lead, on real sockets, while leaders change: it is a pause, or an end in words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from rabbitish.cluster.protocol.frames import Relay
from rabbitish.cluster.relay import RelayFailed, open_relay
from rabbitish.cluster.wire import LinkStream, Secure
from rabbitish.gateway.passport import Passport
from rabbitish.server import listings
from rabbitish.server.node import Node
from rabbitish.wire import methods
from rabbitish.wire.frames import FRAME_BODY, FRAME_HEARTBEAT, HEARTBEAT, PROTOCOL_HEADER
from rabbitish.wire.table import encode_table
from tests.server.fronts import SECRET, FrontNode, fronts, leads
from tests.server.support import Client, Running, broker, converse, until


class Three:
    """Node `a` leads with the broker `old`; `b` has a client; `c` has the broker `new` and could lead."""

    def __init__(self, old: Running, new: Running, nodes: tuple[FrontNode, FrontNode, FrontNode]) -> None:
        self.old, self.new = old, new
        self.a, self.b, self.c = nodes

    def change(self, at_home: bool = False) -> None:
        """The next leads: `c`, or the client's own node."""
        declare(self.new.node, "q")
        if at_home:
            self.b.front.serve(self.new.node)
        else:
            leads(self.c, self.new.node, self.b, epoch=2)


@asynccontextmanager
async def three(
    old_settings: dict[str, object] | None = None, links: Mapping[str, object] | None = None, **settings: object
) -> AsyncIterator[Three]:
    """A block with them. Settings are of `b`, those of links of all."""
    links = links or {}
    a, b, c = FrontNode("a", **links), FrontNode("b", **{**links, **settings}), FrontNode("c", **links)
    async with broker(**(old_settings or {})) as old, broker() as new, fronts(a, b, c):
        declare(old.node, "q")
        leads(a, old.node, b)
        yield Three(old, new, (a, b, c))


def declare(node: Node, name: str) -> None:
    """Have a durable queue."""
    node.broker.vhosts["/"].declare_queue(
        name, durable=True, exclusive=False, auto_delete=False, arguments={}, owner=None, now=node.now()
    )


async def confirming(node: FrontNode) -> Client:
    client = await node.connect()
    await client.ask(methods.ConfirmSelect(), methods.ConfirmSelectOk)
    return client


@pytest.mark.parametrize("at_home", [False, True])
def test_the_same_connection_publishes_and_consumes_at_the_next_leader(at_home: bool) -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await confirming(nodes.b)
            await client.ask(methods.BasicConsume(queue="q", consumer_tag="t"), methods.BasicConsumeOk)
            await client.publish("q", b"1")
            assert {await take(client), await take(client)} == {methods.BasicAck, methods.BasicDeliver}
            (before,) = listings.connections(nodes.old.node)
            nodes.change(at_home)
            await client.publish("q", b"2")
            assert (await answers(client, 2))[methods.BasicAck].delivery_tag == 2
            (after,) = listings.connections(nodes.new.node)
            assert [after[key] for key in ("name", "user", "vhost")] == [
                before[key] for key in ("name", "user", "vhost")
            ]
            await client.send(methods.BasicAck(delivery_tag=2))
            await until(lambda: nodes.new.node.broker.vhosts["/"].queues["q"].unacked == 0)
            assert nodes.b.front.relays == 1
            await client.stream.aclose()
            await until(lambda: not nodes.new.node.links and nodes.b.front.relays == 0)

    converse(conversation)


async def take(client: Client) -> type[methods.Method]:
    """The kind of the next method."""
    while (frame := await client.frame()) is not None:
        if frame[0] == 1:
            return type(methods.decode_method(frame[2]))
    raise AssertionError("the connection ended")


async def answers(client: Client, count: int) -> dict[type[methods.Method], methods.BasicAck]:
    """So many methods, by kind."""
    found = {}
    while len(found) < count:
        frame = await client.frame()
        assert frame is not None
        if frame[0] == 1:
            method = methods.decode_method(frame[2])
            found[type(method)] = method
    return found  # type: ignore[return-value]


def test_a_flood_goes_on_with_every_message() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await confirming(nodes.b)
            count = 300

            async def flood() -> None:
                for _ in range(count):
                    await client.publish("q", b"x" * 20_000)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood)
                confirmed = 0
                while confirmed < count:
                    method = (await answers(client, 1))[methods.BasicAck]
                    assert method.delivery_tag > confirmed
                    confirmed = method.delivery_tag
                    if confirmed > count // 3 and not nodes.new.node.links:
                        nodes.change()
                        await until(lambda: len(nodes.new.node.links) == 1)
            had, has = (each.node.broker.vhosts["/"].queues["q"].ready for each in (nodes.old, nodes.new))
            assert had + has >= count
            assert has

    converse(conversation)


async def consume_late(nodes: Three, client: Client) -> None:
    """Have a client consume the 100,000 bytes a message of `q`, and read nothing before another leads: all is whole."""
    old = nodes.old.node.broker.vhosts["/"].queues["q"]
    await client.send(methods.BasicConsume(queue="q", consumer_tag="t"))
    await until(lambda: old.unacked > 20)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert old.ready  # the rest waits for the client
    nodes.change()
    await until(lambda: len(nodes.new.node.links) == 1)
    other = await nodes.new.connect()
    await other.publish("q", b"y" * 10)
    bodies: list[bytes] = []
    while not bodies or bodies[-1] != b"y" * 10:
        frame = await client.frame()
        assert frame is not None
        if frame[0] == FRAME_BODY:
            bodies.append(bytes(frame[2]))
    assert {bytes(body[:1]) for body in bodies} == {b"x", b"y"}
    assert sum(map(len, bodies[:-1])) % 100_000 == 0


def test_a_client_that_does_not_read_gets_everything_whole_when_it_does() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client, count = await confirming(nodes.b), 150
            await client.publish("q", b"x" * 100_000, count)
            while (await client.expect(methods.BasicAck)).delivery_tag < count:
                pass
            await consume_late(nodes, client)

    converse(conversation)


def test_what_the_node_itself_answers_comes_at_once() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await confirming(nodes.b)
            await client.ask(methods.QueueDeclare(queue="missing", passive=True), methods.ChannelClose)
            nodes.change()
            await until(lambda: len(nodes.new.node.links) == 1)
            await trio.testing.wait_all_tasks_blocked()
            await client.ask(methods.ChannelClose(), methods.ChannelCloseOk)
            await client.send(methods.ChannelCloseOk())
            await client.ask(methods.ChannelOpen(), methods.ChannelOpenOk)

    converse(conversation)


def test_a_leader_that_stops_says_nothing_to_those_who_go_on() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client, direct = await confirming(nodes.b), await nodes.a.connect()
            nodes.a.front.serve(None)
            nodes.old.stop.set()
            await direct.expect(methods.ConnectionClose)
            nodes.change()
            await client.publish("q", b"1")
            assert (await client.expect(methods.BasicAck)).delivery_tag == 1

    converse(conversation)


def test_nor_does_it_delete_what_they_use() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client, direct = await confirming(nodes.b), await nodes.a.connect()
            await client.ask(methods.QueueDeclare(queue="own", exclusive=True), methods.QueueDeclareOk)
            for each in (client, direct):
                await each.ask(methods.QueueDeclare(queue="r", durable=True, auto_delete=True), methods.QueueDeclareOk)
                fanout = methods.ExchangeDeclare(exchange="e", type="fanout", durable=True, auto_delete=True)
                await each.ask(fanout, methods.ExchangeDeclareOk)
                await each.ask(methods.BasicConsume(queue="r", no_ack=each is client), methods.BasicConsumeOk)
            await client.ask(methods.QueueBind(queue="own", exchange="e"), methods.QueueBindOk)
            vhost = nodes.old.node.broker.vhosts["/"]
            await direct.publish("r", b"1", 3)
            await until(lambda: vhost.queues["r"].unacked > 0)
            nodes.a.front.serve(None)
            nodes.old.stop.set()
            while await direct.frame() is not None:
                pass
            await until(lambda: not nodes.old.node.links)
            left = vhost.queues["r"]
            assert left.ready > 0 and not left.unacked and not len(left.consumers)
            assert "e" in vhost.exchanges

    converse(conversation)


def test_nor_does_one_that_took_the_session_over() -> None:
    async def conversation() -> None:
        async with three() as nodes, broker() as third:
            client = await confirming(nodes.b)
            nodes.change()
            await client.publish("q", b"1")
            await client.expect(methods.BasicAck)
            nodes.c.front.serve(None)
            nodes.new.stop.set()
            await until(lambda: not nodes.new.node.links)
            declare(third.node, "q")
            leads(nodes.a, third.node, nodes.b, epoch=3)
            await client.publish("q", b"2")
            assert (await client.expect(methods.BasicAck)).delivery_tag == 2

    converse(conversation)


def test_a_node_that_stops_says_so_to_its_own() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await confirming(nodes.b)
            nodes.change(at_home=True)
            await client.publish("q", b"1")
            await client.expect(methods.BasicAck)
            nodes.new.stop.set()
            assert (await client.expect(methods.ConnectionClose)).reply_code == 320

    converse(conversation)


def test_a_leader_that_is_not_known_for_a_moment_is_not_left() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await confirming(nodes.b)
            links = list(nodes.old.node.links)
            nodes.b.front.follow(None)
            await client.publish("q", b"1")
            await client.expect(methods.BasicAck)
            nodes.b.front.follow(nodes.a.leader())
            await client.publish("q", b"2")
            await client.expect(methods.BasicAck)
            assert list(nodes.old.node.links) == links

    converse(conversation)


def test_a_leader_that_is_followed_by_another_while_it_takes_the_session_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def conversation() -> None:
        async with three() as nodes, broker() as third, trio.open_nursery() as nursery:
            declare(third.node, "q")
            client = await confirming(nodes.b)

            async def change_again() -> None:
                nodes.b.front.follow(nodes.a.leader(epoch=3))

            async def dial(address: tuple[str, int], secret: bytes, relay: Relay, secure: Secure | None) -> LinkStream:
                stream = await open_relay(address, secret, relay, secure)
                if address == nodes.c.links:
                    nursery.start_soon(change_again)  # before who has dialed is the next to run
                return stream

            monkeypatch.setattr("tests.server.fronts.open_relay", dial)
            nodes.a.front.serve(third.node)
            nodes.change()
            await until(lambda: len(third.node.links) == 1)
            await client.publish("q", b"1")
            assert (await client.expect(methods.BasicAck)).delivery_tag == 1
            await until(lambda: not nodes.new.node.links)

    converse(conversation)


def test_a_client_that_missed_its_heartbeats_is_not_carried_on() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await nodes.b.open()
            await client.handshake(heartbeat=1)
            assert await client.ended()
            assert not nodes.old.node.links

    converse(conversation, faster=50)


def test_who_has_no_successor_in_time_is_told_so_and_kept_alive_until_then() -> None:
    async def conversation() -> None:
        async with three(gateway_patience_s=20) as nodes:
            client = await nodes.b.open()
            await client.handshake(heartbeat=4)
            began = trio.current_time()
            nodes.b.front.follow(None)
            nodes.old.node.nursery.start_soon(hang_up, nodes.old.node)
            beats = 0
            while (frame := await client.frame()) is not None and frame[0] == FRAME_HEARTBEAT:
                beats += 1
            assert frame is not None
            close = methods.decode_method(frame[2])
            assert isinstance(close, methods.ConnectionClose)
            assert (close.reply_code, close.reply_text) == (320, "CONNECTION_FORCED - nobody leads")
            assert 19 < trio.current_time() - began < 40
            assert 8 <= beats <= 12
            await client.send(methods.ConnectionCloseOk(), 0)
            assert await client.ended()

    converse(conversation, faster=50)


async def hang_up(node: Node) -> None:
    for link in list(node.links.values()):
        link.cut()


def test_a_leader_that_says_nothing_is_left_for_the_next() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await nodes.b.open()
            await client.handshake(heartbeat=2)
            (link,) = nodes.old.node.links.values()
            link.session.heartbeat_ms = 0  # it hangs
            link.session.patience.end()
            while not link.closed:
                frame = await client.frame()
                assert frame is not None and frame[0] == FRAME_HEARTBEAT
                await client.stream.send_all(HEARTBEAT)
            nodes.change()
            await client.send(methods.QueueDeclare(queue="r"))
            await client.expect(methods.QueueDeclareOk)

    converse(conversation, faster=20)


def test_a_session_of_a_user_who_is_gone_is_closed() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await confirming(nodes.b)
            draft = nodes.new.node.hub.access.roster.draft()
            draft.delete_user("guest")
            nodes.new.node.hub.adopt(draft, nodes.new.node.now())
            nodes.change()
            close = await client.expect(methods.ConnectionClose)
            assert close.reply_code == 320
            assert close.reply_text.endswith("user 'guest' is not there any more")

    converse(conversation)


@pytest.mark.parametrize("at_home", [False, True])
def test_a_transaction_goes_on_at_the_next_leader(at_home: bool) -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await nodes.b.connect()
            await client.ask(methods.TxSelect(), methods.TxSelectOk)
            await client.publish("q", b"1")
            await client.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)
            nodes.change(at_home)
            await client.publish("q", b"2")
            await client.ask(methods.TxCommit(), methods.TxCommitOk)
            assert nodes.new.node.broker.vhosts["/"].queues["q"].ready == 2

    converse(conversation)


async def in_transactions(nodes: Three) -> Client:
    """A client whose session cannot go on, since what it has published is more than is kept."""
    client = await nodes.b.connect()
    await client.ask(methods.TxSelect(), methods.TxSelectOk)
    await client.publish("q", b"x" * 40_000)
    await client.publish("q", b"x" * 40_000)
    await client.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)
    return client


@pytest.mark.parametrize("dies", [False, True])
def test_a_transaction_that_is_too_large_ends_with_its_leader_and_in_words(dies: bool) -> None:
    async def conversation() -> None:
        async with three(gateway_kept_bytes=65_536) as nodes:
            client = await in_transactions(nodes)
            if dies:
                await hang_up(nodes.old.node)
            else:
                nodes.change()
            close = await client.expect(methods.ConnectionClose)
            assert (close.reply_code, close.reply_text) == (
                320,
                "CONNECTION_FORCED - the leader is gone, and no other can go on with this connection: "
                "it has a transaction that is too large",
            )
            await client.send(methods.ConnectionCloseOk(), 0)
            assert await client.ended()

    converse(conversation)


def test_a_transaction_that_the_leader_ends_in_order_ends_in_its_words() -> None:
    async def conversation() -> None:
        async with three(gateway_kept_bytes=65_536) as nodes:
            client = await in_transactions(nodes)
            await client.send(methods.QueueDeclare(queue="q", passive=True), 5)  # which is not open
            assert (await client.expect(methods.ConnectionClose)).reply_code == 504
            await client.send(methods.ConnectionCloseOk(), 0)
            assert await client.ended()

    converse(conversation)


def test_a_transaction_whose_client_is_closing_it_needs_no_leader_for_that() -> None:
    async def conversation() -> None:
        async with three(gateway_kept_bytes=65_536) as nodes:
            client = await in_transactions(nodes)
            (link,) = nodes.old.node.links.values()
            link.session.busy = True  # it hears nothing
            await client.send(methods.ConnectionClose(), 0)
            await trio.testing.wait_all_tasks_blocked()
            link.cut()
            await client.expect(methods.ConnectionCloseOk)
            assert await client.ended()

    converse(conversation)


def test_who_speaks_no_amqp_is_not_told_in_it_that_the_leader_is_gone() -> None:
    async def conversation() -> None:
        async with three({"refused_linger_ms": 60_000}) as nodes:
            client = await nodes.b.open()
            await client.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await client.stream.receive_some() == PROTOCOL_HEADER
            nodes.change()
            assert await client.ended()

    converse(conversation)


@pytest.mark.parametrize("at_home", [False, True])
def test_who_is_turned_out_again_and_again_is_given_up(at_home: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def conversation() -> None:
        async with three(gateway_patience_s=3) as nodes:
            client = await nodes.b.open()
            await client.handshake(heartbeat=1)
            nodes.new.node.settings = nodes.new.node.settings.__class__(
                listen=("amqp://127.0.0.1:0",), max_connections=1
            )
            await nodes.new.connect()
            began = trio.current_time()
            nodes.change(at_home)
            beats = 0
            while (frame := await client.frame()) is not None and frame[0] == FRAME_HEARTBEAT:
                beats += 1
            assert frame is not None
            close = methods.decode_method(frame[2])
            assert isinstance(close, methods.ConnectionClose)
            assert close.reply_code == 320
            if at_home:  # else its time may also be up while it is on its way
                assert close.reply_text == "CONNECTION_FORCED - who leads turns it out again and again"
            assert trio.current_time() - began > 2.5
            assert beats >= 4
            await client.send(methods.ConnectionCloseOk(), 0)
            assert await client.ended()

    converse(conversation, faster=3)
    refused = [record for record in caplog.records if record.getMessage() == "too many connections"]
    assert 2 <= len(refused) <= 16


def test_a_connection_that_is_being_closed_needs_no_leader_for_that() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await confirming(nodes.b)
            (link,) = nodes.old.node.links.values()
            link.session.busy = True  # it hears nothing
            await client.send(methods.ConnectionClose(), 0)
            await trio.testing.wait_all_tasks_blocked()
            nodes.b.front.follow(None)
            link.cut()
            await client.expect(methods.ConnectionCloseOk)
            assert await client.ended()

    converse(conversation)


def test_the_client_hangs_up_while_nobody_leads() -> None:
    async def conversation() -> None:
        async with three() as nodes:
            client = await confirming(nodes.b)
            nodes.b.front.follow(None)
            await hang_up(nodes.old.node)
            await trio.testing.wait_all_tasks_blocked()
            await client.stream.aclose()
            nodes.change()
            await until(lambda: nodes.b.front.relays == 0)
            await until(lambda: not nodes.new.node.links)

    converse(conversation)


def passport(user: str = "guest", vhost: str = "/") -> bytes:
    return Passport(user, "PLAIN", vhost, {}, 2047, 131_072, 0).encode()


@pytest.mark.parametrize(
    ("session", "secret", "why"),
    [
        (b"nonsense", SECRET, "cannot be read"),
        (encode_table({}), SECRET, "no passport"),
        (passport(user="joe"), SECRET, "user 'joe' is not there any more"),
        (passport(vhost="team"), SECRET, "vhost 'team' is not there any more"),
        (passport(), b"guessed", "does not know this cluster's secret"),
    ],
)
def test_who_may_not_go_on_with_a_session(session: bytes, secret: bytes, why: str) -> None:
    async def conversation() -> None:
        a = FrontNode("a")
        async with broker() as running, fronts(a):
            leads(a, running.node)
            relay = Relay(("127.0.0.1", 4711), ("127.0.0.1", 5672), "amqp", session)
            with pytest.raises(RelayFailed, match=why) as failed:
                await open_relay(a.links, secret, relay)
            assert failed.value.final
            assert not running.node.links
            assert not running.node.hub.sessions

    converse(conversation)


def test_a_session_goes_on_without_a_password_if_a_node_says_so() -> None:
    async def conversation() -> None:
        a = FrontNode("a")
        async with broker() as running, fronts(a):
            leads(a, running.node)
            relay = Relay(("127.0.0.1", 4711), ("127.0.0.1", 5672), "amqp", passport())
            async with await open_relay(a.links, SECRET, relay) as stream:
                client = Client(stream)
                await client.ask(methods.ChannelOpen(), methods.ChannelOpenOk)
                ((link,), host) = running.node.links.values(), "127.0.0.1:4711 -> 127.0.0.1:5672"
                assert (link.session.user.name, link.session.peer.name) == ("guest", host)
            await until(lambda: not running.node.links)
            far = relay._replace(client=("10.1.2.3", 4711))
            with pytest.raises(RelayFailed, match="user 'guest' is not there"):  # who may come from loopback alone
                await open_relay(a.links, SECRET, far)

    converse(conversation)
