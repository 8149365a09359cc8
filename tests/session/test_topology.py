"""Declaring, binding and deleting: each method's answer, what nowait leaves out, and exclusive queues."""

from __future__ import annotations

import gc

import pytest

from rabbitish.core.queue import Queue
from rabbitish.wire import methods
from rabbitish.wire.method import Method

from .client import Client
from .harness import World

DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"
LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be originally "
    "declared on another connection or the exclusive property value does not match that of the original declaration."
)


@pytest.fixture
def q(client: Client) -> Client:
    """A client with a queue q and an exchange x."""
    client.declare("q")
    client.send(methods.ExchangeDeclare(exchange="x", type="direct"))
    client.expect(methods.ExchangeDeclareOk())
    return client


# --- answers ---------------------------------------------------------------------------------------------------------

PAIRS: list[tuple[Method, Method]] = [
    (methods.ExchangeDeclare(exchange="new", type="topic"), methods.ExchangeDeclareOk()),
    (methods.ExchangeDeclare(exchange="x", passive=True), methods.ExchangeDeclareOk()),
    (methods.ExchangeDelete(exchange="x"), methods.ExchangeDeleteOk()),
    (methods.ExchangeDelete(exchange="nosuch"), methods.ExchangeDeleteOk()),
    (methods.ExchangeBind(destination="x", source="amq.fanout"), methods.ExchangeBindOk()),
    (methods.ExchangeUnbind(destination="x", source="amq.fanout"), methods.ExchangeUnbindOk()),
    (methods.ExchangeUnbind(destination="nosuch", source="nosuch"), methods.ExchangeUnbindOk()),
    (methods.QueueDeclare(queue="new"), methods.QueueDeclareOk(queue="new")),
    (methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk(queue="q")),
    (methods.QueueBind(queue="q", exchange="x", routing_key="k"), methods.QueueBindOk()),
    (methods.QueuePurge(queue="q"), methods.QueuePurgeOk()),
    (methods.QueueDelete(queue="q"), methods.QueueDeleteOk()),
    (methods.QueueDelete(queue="nosuch"), methods.QueueDeleteOk()),
]


@pytest.mark.parametrize(
    ("method", "answer"), PAIRS, ids=[f"{pair[0].name} {index}" for index, pair in enumerate(PAIRS)]
)
def test_answers(q: Client, method: Method, answer: Method) -> None:
    assert q.ask(method) == answer
    q.open(2)


@pytest.mark.parametrize(
    ("method", "answer"), PAIRS, ids=[f"{pair[0].name} {index}" for index, pair in enumerate(PAIRS)]
)
def test_nowait_leaves_the_answer_out(q: Client, method: Method, answer: Method) -> None:
    said = {name: getattr(method, name) for name in type(method).fields}
    q.send(type(method)(**{**said, "nowait": True}))
    assert q.answers() == []


def test_unbind_has_no_nowait(q: Client) -> None:
    q.send(methods.QueueUnbind(queue="q", exchange="x"), methods.QueueUnbind(queue="nosuch", exchange="nosuch"))
    q.expect(methods.QueueUnbindOk(), methods.QueueUnbindOk())


def test_declare_ok_counts(q: Client, other: Client) -> None:
    q.publish("q", b"1", b"2", b"3")
    other.send(methods.QueueDeclare(queue="q"))
    other.expect(methods.QueueDeclareOk(queue="q", message_count=3))
    other.consume("q")
    assert len(other.answers()) == 3
    q.send(methods.QueueDeclare(queue="q", passive=True))
    q.expect(methods.QueueDeclareOk(queue="q", consumer_count=1))


def test_counts_are_of_this_very_moment(q: Client) -> None:
    """What a publish in the same read changed is in the answer, and so is what consumers took of it."""
    q.publish("q", b"1", b"2")
    q.send(methods.QueueDeclare(queue="q", passive=True))
    q.consume("q", no_ack=True)
    q.publish("q", b"3")
    q.send(methods.QueueDeclare(queue="q", passive=True))
    declared = [said.method for said in q.answers() if isinstance(said.method, methods.QueueDeclareOk)]
    assert [(one.message_count, one.consumer_count) for one in declared] == [(2, 0), (0, 1)]


def test_purge_and_delete_count_what_was_ready(q: Client) -> None:
    q.publish("q", b"1", b"2", b"3")
    assert q.get("q", no_ack=False) is not None
    assert q.ask(methods.QueuePurge(queue="q")) == methods.QueuePurgeOk(message_count=2)
    q.publish("q", b"4")
    assert q.ask(methods.QueueDelete(queue="q")) == methods.QueueDeleteOk(message_count=1)


def test_names_lose_their_line_ends(client: Client) -> None:
    assert client.declare("\r\na\nb\r") == "ab"
    assert client.declare("") == "amq.gen-" + "1".zfill(22)
    client.send(methods.ExchangeDeclare(exchange="x\r\n", type="fanout"))
    client.send(methods.ExchangeDeclare(exchange="x", passive=True))
    client.expect(methods.ExchangeDeclareOk(), methods.ExchangeDeclareOk())


def test_an_empty_name_means_the_queue_last_declared(q: Client) -> None:
    q.declare("other")
    q.declare("q")
    q.publish("q", b"x")
    assert q.ask(methods.QueuePurge()) == methods.QueuePurgeOk(message_count=1)
    assert q.ask(methods.QueueBind(exchange="amq.direct")) == methods.QueueBindOk()
    q.publish("q", b"bound by its name", exchange="amq.direct")
    assert q.drain("") == [b"bound by its name"]
    assert q.ask(methods.QueueUnbind(exchange="amq.direct")) == methods.QueueUnbindOk()
    q.publish("q", b"x", exchange="amq.direct")
    assert q.get("q") is None
    assert q.ask(methods.QueueDelete()) == methods.QueueDeleteOk()
    assert list(q.world.vhost.queues) == ["other"]


@pytest.mark.parametrize(
    "method",
    [
        methods.QueuePurge(),
        methods.QueueDelete(),
        methods.QueueBind(exchange="amq.direct"),
        methods.QueueUnbind(exchange="amq.direct"),
        methods.BasicGet(),
    ],
    ids=lambda method: method.name,
)
def test_no_queue_was_declared(client: Client, method: Method) -> None:
    client.send(method)
    client.expect_channel_close(404, "NOT_FOUND - no previously declared queue", type(method))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "code", "text"),
    [
        (methods.ExchangeDeclare(exchange="", type="direct"), 403, DEFAULT),
        (methods.ExchangeDeclare(exchange="", passive=True), 403, DEFAULT),
        (methods.ExchangeDelete(exchange=""), 403, DEFAULT),
        (methods.ExchangeBind(destination="", source="x"), 403, DEFAULT),
        (methods.ExchangeBind(destination="x", source=""), 403, DEFAULT),
        (methods.ExchangeUnbind(destination="", source="x"), 403, DEFAULT),
        (methods.ExchangeUnbind(destination="x", source=""), 403, DEFAULT),
        (methods.QueueBind(queue="q"), 403, DEFAULT),
        (methods.QueueUnbind(queue="q"), 403, DEFAULT),
        (
            methods.ExchangeDeclare(exchange="nosuch", passive=True),
            404,
            "NOT_FOUND - no exchange 'nosuch' in vhost '/'",
        ),
        (methods.ExchangeBind(destination="x", source="nosuch"), 404, "NOT_FOUND - no exchange 'nosuch' in vhost '/'"),
        (methods.ExchangeBind(destination="nosuch", source="x"), 404, "NOT_FOUND - no exchange 'nosuch' in vhost '/'"),
        (methods.QueueBind(queue="q", exchange="nosuch"), 404, "NOT_FOUND - no exchange 'nosuch' in vhost '/'"),
        (methods.QueueBind(queue="nosuch", exchange="x"), 404, "NOT_FOUND - no queue 'nosuch' in vhost '/'"),
        (methods.QueueDeclare(queue="nosuch", passive=True), 404, "NOT_FOUND - no queue 'nosuch' in vhost '/'"),
        (methods.QueuePurge(queue="nosuch"), 404, "NOT_FOUND - no queue 'nosuch' in vhost '/'"),
        (
            methods.QueueDeclare(queue="q", durable=True),
            406,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': "
            "received 'true' but current is 'false'",
        ),
        (
            methods.QueueDeclare(queue="amq.q"),
            403,
            "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'",
        ),
    ],
)
def test_refusals(q: Client, method: Method, code: int, text: str) -> None:
    q.send(method)
    q.expect_channel_close(code, text, type(method))


# --- exclusive queues ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        methods.QueueDeclare(queue="mine"),
        methods.QueueDeclare(queue="mine", exclusive=True),
        methods.QueueDeclare(queue="mine", passive=True),
        methods.QueueBind(queue="mine", exchange="amq.direct"),
        methods.QueuePurge(queue="mine"),
        methods.QueueDelete(queue="mine"),
        methods.BasicConsume(queue="mine"),
        methods.BasicGet(queue="mine"),
    ],
    ids=lambda method: method.name,
)
def test_an_exclusive_queue_is_nobody_elses(client: Client, other: Client, method: Method) -> None:
    client.declare("mine", exclusive=True)
    other.send(method)
    other.expect_channel_close(405, LOCKED, type(method))


def test_anybody_may_publish_to_it(client: Client, other: Client) -> None:
    client.declare("mine", exclusive=True)
    other.publish("mine", b"x", mandatory=True)
    assert other.answers() == []
    assert client.drain("mine") == [b"x"]


def test_unbinding_it_is_nobody_elses(client: Client, other: Client) -> None:
    client.declare("mine", exclusive=True)
    assert client.ask(methods.QueueBind(queue="mine", exchange="amq.fanout", routing_key="k")) == methods.QueueBindOk()
    unbind = methods.QueueUnbind(queue="mine", exchange="amq.fanout", routing_key="k")
    other.send(unbind)
    other.expect_channel_close(405, LOCKED, methods.QueueUnbind)
    assert client.ask(unbind) == methods.QueueUnbindOk()


def test_exclusive_queues_go_with_their_connection(world: World, client: Client, other: Client) -> None:
    for name in ("a", "b", ""):
        client.declare(name, exclusive=True)
    client.declare("durable", exclusive=True, durable=True)
    client.declare("stays")
    client.send(methods.ChannelClose())
    client.expect(methods.ChannelCloseOk())
    assert len(world.vhost.queues) == 5, "the channel is not the connection"
    client.send(methods.ConnectionClose(), channel=0)
    client.expect(methods.ConnectionCloseOk(), channel=0)
    assert list(world.vhost.queues) == ["stays"]
    other.declare("a", exclusive=True)


def test_they_go_with_whoever_hangs_up_or_fails(world: World) -> None:
    lost, wrong = world.client(), world.client()
    lost.declare("a", exclusive=True)
    wrong.declare("b", exclusive=True)
    lost.hang_up()
    wrong.send(methods.ChannelOpen())
    world.settle()
    assert world.vhost.queues == {}


def test_one_that_was_deleted_and_declared_by_another_stays(client: Client, other: Client) -> None:
    client.declare("q", exclusive=True)
    assert client.ask(methods.QueueDelete(queue="q")) == methods.QueueDeleteOk()
    other.declare("q", exclusive=True)
    client.hang_up()
    assert list(client.world.vhost.queues) == ["q"]


def test_deleted_ones_are_not_remembered(client: Client) -> None:
    """A client that makes one for every question it asks must not cost more with each."""

    def queues() -> int:
        gc.collect()
        return sum(isinstance(thing, Queue) for thing in gc.get_objects())

    before = queues()
    for _ in range(30):
        client.declare("", exclusive=True)
        assert client.ask(methods.QueueDelete()) == methods.QueueDeleteOk()
        client.declare("", exclusive=True, auto_delete=True)
        client.consume("")
        assert client.ask(methods.BasicCancel(consumer_tag="t")) == methods.BasicCancelOk(consumer_tag="t")
    assert queues() == before
