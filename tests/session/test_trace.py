"""Tracing in conversations: which copies come, what they say, when they do not, and what they leave alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rabbitish.core.access.policies import Policy
from rabbitish.core.queue import HANDFUL_MESSAGES
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.properties import Properties

from .client import Client, Said, publication
from .harness import World

TRACE = "amq.rabbitmq.trace"


@pytest.fixture
def watcher(world: World) -> Client:
    """Has bound its queue "seen" to everything, while the virtual host is traced."""
    client = world.client(2)
    client.send(methods.QueueDeclare(queue="seen"), channel=2)
    client.send(methods.QueueBind(queue="seen", exchange=TRACE, routing_key="#"), channel=2)
    client.answers()
    trace(world, on=True)
    return client


def trace(world: World, *, on: bool) -> None:
    world.change(lambda roster: roster.set_tracing("/", on=on))


def seen(watcher: Client) -> list[Said]:
    """All copies so far."""
    found = []
    while (said := watcher.get("seen", channel=2)) is not None:
        found.append(said)
    return found


def keys(copies: list[Said]) -> list[str]:
    return [said.method.routing_key for said in copies if isinstance(said.method, methods.BasicGetOk)]


def headers(copy: Said) -> Table:
    assert copy.props.headers is not None
    return copy.props.headers


def test_a_publish_and_its_delivery(world: World, watcher: Client, client: Client) -> None:
    client.declare("q")
    client.consume("q", no_ack=True)
    given = Properties(
        content_type="text/plain",
        headers={"a": 1},
        delivery_mode=2,
        timestamp=1_700_000_000,
        message_id="m",
    )
    client.publish("q", b"body", properties=given.encode())
    assert client.bodies() == [b"body"]
    published, delivered = seen(watcher)
    assert keys([published, delivered]) == ["publish.", "deliver.q"]
    assert (published.body, delivered.body) == (b"body", b"body")
    common = {
        "exchange_name": "",
        "routing_keys": ["q"],
        "properties": {
            "content_type": "text/plain",
            "headers": {"a": 1},
            "delivery_mode": 2,
            "timestamp": 1_700_000_000,
            "message_id": "m",
        },
        "node": "rabbitish@localhost",
        "vhost": "/",
        "connection": client.session.peer.name,
        "channel": 1,
        "user": "guest",
    }
    assert headers(published) == {**common, "routed_queues": ["q"]}
    assert headers(delivered) == {**common, "redelivered": 0}


def test_what_is_fetched_and_comes_again(world: World, watcher: Client, client: Client) -> None:
    client.declare("q")
    client.publish("q", b"1")
    client.send(methods.BasicGet(queue="q"), methods.BasicReject(delivery_tag=1, requeue=True))
    client.send(methods.BasicGet(queue="q"))
    client.answers()
    copies = seen(watcher)
    assert keys(copies) == ["publish.", "deliver.q", "deliver.q"]
    assert [headers(copy)["redelivered"] for copy in copies[1:]] == [0, 1]


def test_what_goes_nowhere_or_to_many(world: World, watcher: Client, client: Client) -> None:
    for name in ("a", "b"):
        client.declare(name)
        client.ask(methods.QueueBind(queue=name, exchange="amq.fanout"))
    client.publish("k", b"1", exchange="amq.fanout")
    client.publish("k", b"", exchange="amq.direct", headers={"CC": ["l"], "BCC": ["m"]})
    assert client.answers() == []
    many, nowhere = seen(watcher)
    assert (many.body, nowhere.body, nowhere.sizes) == (b"1", b"", ())
    assert keys([many, nowhere]) == ["publish.amq.fanout", "publish.amq.direct"]
    assert headers(many)["routed_queues"] == ["a", "b"]
    assert headers(nowhere)["routed_queues"] == []
    assert headers(nowhere)["routing_keys"] == ["k", "l", "m"]
    assert headers(nowhere)["properties"] == {"headers": {"CC": ["l"]}}


def test_a_transaction_is_traced_as_it_is_said(world: World, watcher: Client, client: Client) -> None:
    client.declare("q")
    client.ask(methods.TxSelect())
    client.publish("q", b"1")
    client.ask(methods.TxRollback())
    assert keys(seen(watcher)) == ["publish."]


def test_it_begins_and_ends_on_channels_that_are_open(world: World, watcher: Client, client: Client) -> None:
    client.declare("q")
    client.publish("q", *[b"x"] * 10)
    assert client.session.channels[1].plain is False
    trace(world, on=False)
    client.publish("q", *[b"x"] * 10)
    assert client.session.channels[1].plain is True
    assert len(seen(watcher)) == 10
    trace(world, on=True)
    client.publish("q", *[b"x"] * 5)
    assert len(seen(watcher)) == 5
    assert world.queue("q").ready == 25


def test_only_one_virtual_host_is_traced(world: World, watcher: Client) -> None:
    world.add_vhost("other")
    stranger = world.client(vhost="other")
    stranger.declare("q")
    stranger.publish("q", b"x")
    assert stranger.session.channels[1].tracer is None
    assert seen(watcher) == []


def test_copies_are_not_traced_and_need_somebody_to_see_them(world: World, client: Client) -> None:
    trace(world, on=True)
    client.declare("q")
    client.publish("q", b"x")
    watcher = world.client(2)
    watcher.send(methods.QueueDeclare(queue="seen"), channel=2)
    watcher.send(methods.QueueBind(queue="seen", exchange=TRACE, routing_key="deliver.q"), channel=2)
    watcher.answers()
    client.publish("q", b"y")
    assert seen(watcher) == []
    watcher.consume("seen", channel=2, no_ack=True)
    client.consume("q", no_ack=True)
    assert client.bodies() == [b"x", b"y"]
    assert watcher.bodies() == [b"x", b"y"]
    assert watcher.answers() == []


def test_a_queue_that_is_traced_into_itself(world: World, client: Client) -> None:
    """Each delivery puts a copy into the queue that it came from, and no copy another one."""
    trace(world, on=True)
    client.declare("q")
    client.ask(methods.QueueBind(queue="q", exchange=TRACE, routing_key="deliver.q"))
    client.publish("q", *[b"%d" % n for n in range(200)])
    client.consume("q", no_ack=True)
    assert sorted(client.bodies()) == sorted(2 * [b"%d" % n for n in range(200)])


def test_names_and_headers_at_their_limits(world: World, watcher: Client, client: Client) -> None:
    name = "x" * 255
    client.ask(methods.ExchangeDeclare(exchange=name))
    deep: Table = {}
    for _ in range(99):
        deep = {"d": deep}
    client.raw(publication("k", b"b", exchange=name, headers=deep))
    assert client.answers() == []
    (copy,) = seen(watcher)
    assert keys([copy]) == [("publish." + name)[:255]]
    assert headers(copy)["properties"] == {}


def test_copies_that_die_are_not_traced_again(world: World, client: Client) -> None:
    """Or a short queue that keeps what is seen, with somebody behind it, would go on for ever."""
    trace(world, on=True)
    client.declare("dead")
    arguments: Table = {"x-max-length": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    client.declare("seen", arguments=arguments)
    client.ask(methods.QueueBind(queue="seen", exchange=TRACE, routing_key="#"))
    reader = world.client(1)
    reader.consume("dead", no_ack=True)
    client.publish("nowhere", b"1", b"2", b"3")
    world.settle()
    assert len(reader.bodies()) == 2
    assert [said.body for said in iter(lambda: client.get("seen"), None)] == [b"3"]


def test_a_copy_whose_headers_fit_no_frame(world: World, watcher: Client, client: Client) -> None:
    client.ask(methods.ExchangeDeclare(exchange="many", type="fanout"))
    names = [f"{number:0200}" for number in range(700)]
    client.send(*[methods.QueueDeclare(queue=name, nowait=True) for name in names])
    client.send(*[methods.QueueBind(queue=name, exchange="many", nowait=True) for name in names])
    client.publish("", b"m", exchange="many")
    (copy,) = seen(watcher)
    assert (copy.body, headers(copy)["exchange_name"], headers(copy)["routed_queues"]) == (b"m", "many", [])


def steps(world: World, *clients: Client) -> Iterator[None]:
    """Let the broker settle one time after the other, and these clients read what comes, until nothing is left."""
    while True:
        world.broker.settle(world.now)
        yield
        for client in clients:
            client.collect()
        if not world.broker.restless:
            return


def sent(client: Client) -> int:
    """How many deliveries a client was sent."""
    return client.session.channels[1].last_delivery_tag


def test_a_long_queue_is_drained_no_faster_than_its_copies_are_published(
    world: World, watcher: Client, client: Client
) -> None:
    """What waits to be copied is a handful, and is counted as memory in use until it is in the queue of copies."""
    trace(world, on=False)
    client.declare("q")
    body = b"x" * 1000
    client.publish("q", *[body] * 3000)
    world.settle()
    trace(world, on=True)
    in_use = world.broker.usage.bytes
    client.send(methods.BasicConsume(queue="q", consumer_tag="c", no_ack=True))
    behind = []
    for _ in steps(world, client):
        behind.append(sent(client) - world.queue("seen").ready)
        assert world.broker.usage.bytes >= in_use
    assert 0 < max(behind) <= HANDFUL_MESSAGES
    assert (sent(client), world.queue("seen").ready, behind[-1]) == (3000, 3000, 0)
    assert [said.body for said in client.answers()[1:]] == [body] * 3000
    watcher.ask(methods.QueuePurge(queue="seen"), channel=2)
    assert world.broker.usage.bytes == 0


def test_fetching_much_waits_for_copies(world: World, watcher: Client, client: Client) -> None:
    trace(world, on=False)
    client.declare("q")
    client.publish("q", *[b"x" * 200_000] * 60)
    world.settle()
    trace(world, on=True)
    client.reading = False
    client.send(*[methods.BasicGet(queue="q", no_ack=True)] * 60)
    assert sent(client) == 42  # 8 MiB
    client.read_on()
    assert (len(client.answers()), world.queue("seen").ready) == (60, 60)


def test_nobody_gets_a_second_share_before_all_that_wait_had_one(world: World, watcher: Client) -> None:
    """So much waits to be copied after eight deliveries that the other consumers must wait."""
    trace(world, on=False)
    readers = [world.client() for _ in range(11)]
    for number, reader in enumerate(readers):
        reader.session.outbox.high = 1 << 30
        reader.declare(f"q{number}")
        reader.publish(f"q{number}", *[b"x" * (1 << 20)] * 2)
    world.settle()
    trace(world, on=True)
    for number, reader in enumerate(readers):
        reader.send(methods.BasicConsume(queue=f"q{number}", no_ack=True))
    for _ in steps(world, *readers):
        had = [sent(reader) for reader in readers]
        assert max(had) - min(had) <= 1
    assert had == [2] * 11


def test_where_nobody_can_see_a_copy_nothing_is_done(world: World, watcher: Client, client: Client) -> None:
    watcher.ask(methods.QueueUnbind(queue="seen", exchange=TRACE, routing_key="#"), channel=2)
    watcher.ask(methods.QueueBind(queue="seen", exchange=TRACE, routing_key="deliver.other"), channel=2)
    client.declare("q")
    client.publish("q", *[b"x"] * 1000)
    client.send(methods.BasicConsume(queue="q", no_ack=True))
    world.broker.settle(world.now)
    assert (sent(client), world.broker.restless, world.broker.usage.bytes) == (1000, False, 0)


def test_a_policy_s_alternate_sees_what_nobody_asked_for(world: World, client: Client) -> None:
    trace(world, on=True)
    client.declare("q")
    client.declare("rest")
    client.ask(methods.QueueBind(queue="rest", exchange="amq.fanout"))
    policy = Policy("p", "trace", {"alternate-exchange": "amq.fanout"})
    world.change(lambda roster: roster.set_policy("/", policy))
    client.publish("q", b"x")
    assert world.queue("rest").ready == 1


def test_tracing_ends_while_copies_wait(world: World, watcher: Client, client: Client) -> None:
    trace(world, on=False)
    client.declare("q")
    client.publish("q", *[b"x"] * 500)
    world.settle()
    trace(world, on=True)
    client.send(methods.BasicConsume(queue="q", no_ack=True))
    world.broker.settle(world.now)
    assert sent(client) == HANDFUL_MESSAGES
    trace(world, on=False)
    assert sent(client) == 500
    assert len(seen(watcher)) == HANDFUL_MESSAGES
