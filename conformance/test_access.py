"""What users may do and what they are told when they may not: permissions, topic permissions, limits, entering.

The users are those of users.json, definitions that RabbitMQ loads at its start (`load_definitions`, or later
`rabbitmqctl import_definitions conformance/users.json`); rabbitish is started with the same. A broker given with
--broker that does not have them is not asked. `cf.limited` may configure cf.mine.* and cf.c.*, write cf.mine.* and
cf.w.*, read cf.mine.* and cf.r.*.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pika
import pytest
from pamqp import commands
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import closes, get, no_exchange, no_queue, publish, sync
from conformance.rawpeer import ConnectionEnded, Raw, RawPeer
from conformance.support import Broker, Names, differs, eventually

PASSWORD = "secret"
OPEN = (10, 40)
Connect = Callable[..., pika.BlockingConnection]


@pytest.fixture(scope="module", autouse=True)
def _users(broker: Broker) -> None:
    """The users are there."""
    peer = RawPeer(broker.host, broker.port, "cf.limited", PASSWORD)
    try:
        peer.handshake()
    except (AssertionError, ConnectionEnded):
        assert broker.is_rabbitmq and not os.environ.get("RABBITISH_REQUIRE_ALL"), "the users are not there"
        pytest.skip("the broker does not have the users of conformance/users.json")
    finally:
        peer.close()


@pytest.fixture
def limited(connect: Connect) -> BlockingChannel:
    """A channel of cf.limited."""
    return connect("cf.limited", PASSWORD).channel()


@pytest.fixture
def topics(connect: Connect) -> BlockingChannel:
    """A channel of cf.topics, who may do everything but use some routing keys of amq.topic."""
    return connect("cf.topics", PASSWORD).channel()


def refused(resource: str, name: str, user: str = "cf.limited") -> str:
    return f"ACCESS_REFUSED - access to {resource} '{name}' in vhost '/' refused for user '{user}'"


# --- each method at each resource ------------------------------------------------------------------------------------

Act = Callable[[BlockingChannel, str, str], Any]
DLX, AE = "x-dead-letter-exchange", "alternate-exchange"
ACTIONS: dict[str, tuple[str, str, str, Act]] = {
    # name: (kind of the first name, first name, second name, what is done); the first name is refused
    "exchange.declare": ("exchange", "w.", "", lambda ch, a, _: ch.exchange_declare(a)),
    "exchange.declare, read": ("exchange", "c.", "w.", lambda ch, a, b: ch.exchange_declare(a, arguments={AE: b})),
    "exchange.declare, write": ("exchange", "c.", "mine.", lambda ch, a, b: ch.exchange_declare(b, arguments={AE: a})),
    "exchange.delete": ("exchange", "w.", "", lambda ch, a, _: ch.exchange_delete(a)),
    "exchange.bind, write": ("exchange", "r.", "mine.", lambda ch, a, b: ch.exchange_bind(a, b)),
    "exchange.bind, read": ("exchange", "w.", "mine.", lambda ch, a, b: ch.exchange_bind(b, a)),
    "exchange.unbind, write": ("exchange", "r.", "mine.", lambda ch, a, b: ch.exchange_unbind(a, b)),
    "exchange.unbind, read": ("exchange", "w.", "mine.", lambda ch, a, b: ch.exchange_unbind(b, a)),
    "queue.declare": ("queue", "r.", "", lambda ch, a, _: ch.queue_declare(a)),
    "queue.declare, read": ("queue", "c.", "mine.", lambda ch, a, b: ch.queue_declare(a, arguments={DLX: b})),
    "queue.declare, write": ("exchange", "r.", "mine.", lambda ch, a, b: ch.queue_declare(b, arguments={DLX: a})),
    "queue.delete": ("queue", "w.", "", lambda ch, a, _: ch.queue_delete(a)),
    "queue.purge": ("queue", "w.", "", lambda ch, a, _: ch.queue_purge(a)),
    "queue.bind, write": ("queue", "r.", "mine.", lambda ch, a, b: ch.queue_bind(a, b)),
    "queue.bind, read": ("exchange", "w.", "mine.", lambda ch, a, b: ch.queue_bind(b, a, "k")),
    "queue.unbind, write": ("queue", "r.", "mine.", lambda ch, a, b: ch.queue_unbind(a, b)),
    "queue.unbind, read": ("exchange", "w.", "mine.", lambda ch, a, b: ch.queue_unbind(b, a, "k")),
    "basic.publish": ("exchange", "r.", "", lambda ch, a, _: ch.basic_publish(a, "k", b"m")),
    "basic.get": ("queue", "w.", "", lambda ch, a, _: ch.basic_get(a)),
    "basic.consume": ("queue", "w.", "", lambda ch, a, _: ch.basic_consume(a, lambda *_: None)),
}


@pytest.mark.parametrize("there", [True, False], ids=["there", "missing"])
@pytest.mark.parametrize("action", ACTIONS)
def test_each_method_needs_its_permission(
    channel: BlockingChannel, limited: BlockingChannel, name: Names, action: str, there: bool
) -> None:
    """Whether or not what it is about exists: the permission is asked for first."""
    kind, first, second, act = ACTIONS[action]
    refused_name, other = name(first), name(second)
    new = action in ("exchange.declare, read", "exchange.declare, write", "queue.declare, read", "queue.declare, write")
    if there and not new:
        for made in (refused_name, other):
            channel.exchange_declare(made)
            channel.queue_declare(made)
    with closes(limited, 403, refused(kind, refused_name)):
        act(limited, refused_name, other)


@pytest.mark.parametrize(
    "act",
    [
        lambda ch, q: ch.basic_publish("", q, b"m"),
        lambda ch, q: ch.exchange_bind("", q),
        lambda ch, q: ch.queue_declare(q, arguments={DLX: ""}),
        lambda ch, q: ch.exchange_declare(q, arguments={AE: ""}),
    ],
    ids=["publish", "bind to", "dead letters", "alternate"],
)
def test_the_default_exchange_has_a_name(limited: BlockingChannel, name: Names, act: Any) -> None:
    mine = name("mine.")
    with closes(limited, 403, refused("exchange", "amq.default")):
        act(limited, mine)


def test_what_is_allowed(channel: BlockingChannel, limited: BlockingChannel, name: Names) -> None:
    queue, exchange, alternate = name("mine."), name("mine."), name("w.")
    limited.exchange_declare(exchange, arguments={AE: alternate})
    limited.queue_declare(queue, arguments={DLX: alternate})
    limited.queue_bind(queue, exchange, "k")
    publish(limited, "k", "m", exchange=exchange)
    message = get(limited, queue)
    assert message is not None and message.body == b"m"
    limited.queue_unbind(queue, exchange, "k")
    limited.queue_purge(queue)
    limited.queue_delete(queue)
    limited.exchange_delete(exchange)


def test_what_needs_no_permission(channel: BlockingChannel, limited: BlockingChannel, name: Names) -> None:
    other = name("others")
    channel.queue_declare(other)
    channel.exchange_declare(other)
    limited.queue_declare(other, passive=True)
    limited.exchange_declare(other, passive=True)
    limited.basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=True)
    sync(limited)


def test_what_is_missing_and_allowed(limited: BlockingChannel, name: Names) -> None:
    queue = name("mine.")
    with closes(limited, 404, no_queue(queue)):
        limited.basic_get(queue)


def test_a_missing_exchange_that_may_be_written_to(limited: BlockingChannel, name: Names) -> None:
    exchange = name("w.")
    with closes(limited, 404, no_exchange(exchange)):
        limited.basic_publish(exchange, "k", b"m")


def test_a_redeclare_asks_nothing_of_dead_letters(
    channel: BlockingChannel, limited: BlockingChannel, name: Names
) -> None:
    queue, exchange = name("c."), name("others")
    channel.queue_declare(queue, arguments={DLX: exchange})
    limited.queue_declare(queue, arguments={DLX: exchange})
    channel.exchange_declare(exchange_name := name("c."), arguments={AE: exchange})
    limited.exchange_declare(exchange_name, arguments={AE: exchange})


def test_a_server_named_queue(limited: BlockingChannel) -> None:
    queue = limited.queue_declare("", exclusive=True).method.queue
    with closes(limited, 403, refused("queue", queue)):
        limited.basic_get(queue)


def test_reserved_names_come_before_permissions(limited: BlockingChannel) -> None:
    with closes(limited, 403, "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'"):
        limited.queue_declare("amq.x")


def test_system_exchanges_come_before_permissions(limited: BlockingChannel) -> None:
    with closes(limited, 403, "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed"):
        limited.exchange_delete("amq.topic")


def test_a_new_exchange_of_a_reserved_name_comes_after(limited: BlockingChannel) -> None:
    with closes(limited, 403, refused("exchange", "amq.x")):
        limited.exchange_declare("amq.x")


def test_unbinding_needs_permissions_though_nothing_is_there(limited: BlockingChannel, name: Names) -> None:
    queue = name("x")
    with closes(limited, 403, refused("queue", queue)):
        limited.queue_unbind(queue, "amq.direct", "k")


def test_expressions_and_names_are_bytes(connect: Connect, name: Names) -> None:
    """cf.ö'.* may configure ^ö$, write ^..$ (two bytes), and read what does not begin with cf."""
    user = "cf.ö'.*"
    channel = connect(user, "säcret").channel()
    queue = name.adopt("ö")
    channel.queue_declare(queue)
    channel.basic_get(queue)
    channel.queue_bind(queue, "amq.direct", "k")
    with closes(channel, 403, refused("queue", "cf.x", user)):
        channel.basic_get("cf.x")


def test_an_impersonator(connect: Connect, connection: pika.BlockingConnection) -> None:
    """Whose expression ^(amq\\.default)?$ allows the default exchange, too, and who may set any user-id."""
    channel = connect("cf.impersonator", PASSWORD).channel()
    channel.basic_publish("", "nowhere", b"m", BasicProperties(user_id="somebody"))
    sync(channel)


# --- topics ----------------------------------------------------------------------------------------------------------


def topic_refused(key: str) -> str:
    return f"ACCESS_REFUSED - access to topic '{key}' in exchange 'amq.topic' in vhost '/' refused for user 'cf.topics'"


@pytest.mark.parametrize("key", ["cf.topics.x", "cf.topics.", "/", "/.x"])
def test_topics_that_may_be_published_to(topics: BlockingChannel, key: str) -> None:
    publish(topics, key, "m", exchange="amq.topic")


@pytest.mark.parametrize("key", ["cf.topics", "x.cf.topics.", "x", ""])
def test_topics_that_may_not(topics: BlockingChannel, key: str) -> None:
    with closes(topics, 403, topic_refused(key)):
        topics.basic_publish("amq.topic", key, b"m")


@differs(rabbitmq=True, rabbitish=False, reason="a name in an expression stands for itself, whatever is in it")
def test_a_users_name_in_an_expression(topics: BlockingChannel, expected: bool) -> None:
    """In RabbitMQ the dot of cf.topics is any character."""
    if expected:
        publish(topics, "cf-topics.x", "m", exchange="amq.topic")
    else:
        with closes(topics, 403, topic_refused("cf-topics.x")):
            topics.basic_publish("amq.topic", "cf-topics.x", b"m")


def test_copies_are_not_looked_at(topics: BlockingChannel) -> None:
    publish(topics, "cf.topics.x", "m", exchange="amq.topic", headers={"CC": ["x"]})


def test_other_exchanges_have_no_topics(topics: BlockingChannel, name: Names) -> None:
    publish(topics, "x", "m", exchange="amq.direct")
    exchange = name()
    topics.exchange_declare(exchange, "topic")
    publish(topics, "x", "m", exchange=exchange)


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize("to_exchange", [False, True])
def test_topics_in_bindings(topics: BlockingChannel, name: Names, undo: bool, to_exchange: bool) -> None:
    destination = name()
    topics.queue_declare(destination)
    topics.exchange_declare(destination)
    what = ("exchange_" if to_exchange else "queue_") + ("unbind" if undo else "bind")
    getattr(topics, what)(destination, "amq.topic", "r.x")
    with closes(topics, 403, topic_refused("x.r.")):
        getattr(topics, what)(destination, "amq.topic", "x.r.")


# --- entering, and limits --------------------------------------------------------------------------------------------


@pytest.fixture
def entering(raw: Raw) -> Callable[..., RawPeer]:
    """Has a user ask to open a connection to a virtual host."""

    def make(user: str, vhost: str = "/") -> RawPeer:
        peer = raw(None)
        peer.user, peer.password = user, PASSWORD
        peer.handshake("tune")
        peer.send_method(0, commands.Connection.TuneOk(2047, 131072, 0))
        peer.send_method(0, commands.Connection.Open(vhost))
        return peer

    return make


def test_no_permission_no_entry(entering: Any) -> None:
    for user, vhost in (("cf.nobody", "/"), ("cf.limited", "cf.other")):
        text = f"NOT_ALLOWED - access to vhost '{vhost}' refused for user '{user}'"
        entering(user, vhost).expect_close(530, text, *OPEN)


def test_a_missing_vhost(entering: Any) -> None:
    entering("cf.nobody", "nosuch").expect_close(530, "NOT_ALLOWED - vhost nosuch not found", *OPEN)


def test_a_full_vhost(entering: Any) -> None:
    text = "NOT_ALLOWED - access to vhost 'cf.full' refused for user 'cf.limited': connection limit (0) is reached"
    entering("cf.limited", "cf.full").expect_close(530, text, *OPEN)


def test_a_full_vhost_comes_before_permission(entering: Any) -> None:
    text = "NOT_ALLOWED - access to vhost 'cf.full' refused for user 'cf.nobody': connection limit (0) is reached"
    entering("cf.nobody", "cf.full").expect_close(530, text, *OPEN)


def test_a_users_connections(entering: Any) -> None:
    def full(peer: RawPeer, user: str, most: int) -> None:
        text = f"NOT_ALLOWED - connection refused for user '{user}': user connection limit ({most}) is reached"
        peer.expect_close(530, text, *OPEN)

    full(entering("cf.none"), "cf.none", 0)
    first = entering("cf.one")
    first.expect(10, 41)
    # RabbitMQ counts a connection a moment after it opened it.
    seen: list[RawPeer] = []

    def second() -> bool:
        seen.append(entering("cf.one"))
        try:
            full(seen[-1], "cf.one", 1)
        except AssertionError:
            seen[-1].drop()
            raise
        return True

    eventually(second, every=0.1)
    first.drop()


def test_a_users_channels(raw: Raw) -> None:
    peer = raw(None)
    peer.user, peer.password = "cf.channels", PASSWORD
    peer.handshake()
    text = (
        "NOT_ALLOWED - number of channels opened for user 'cf.channels' has reached the maximum allowed user limit "
        "of (2)"
    )
    for number in range(1, 50):  # RabbitMQ counts a channel a moment after it opened it
        peer.send_method(number, commands.Channel.Open())
        if not _opened(peer, number, text):
            assert number > 2
            return
    raise AssertionError("any number of channels may be opened")


def _opened(peer: RawPeer, number: int, text: str) -> bool:
    got = peer.read()
    if got.channel == number:
        return True
    assert text.encode() in got.payload and got.payload[:4] == b"\0\x0a\0\x32", got
    peer.send_method(0, commands.Connection.CloseOk())
    peer.is_open = False
    return False


def test_the_queues_of_a_vhost(connect: Connect, name: Names) -> None:
    channel = connect("cf.limited", PASSWORD, virtual_host="cf.queues").channel()
    first = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_declare(first, passive=True)
    text = "PRECONDITION_FAILED - cannot declare queue 'x': queue limit in vhost 'cf.queues' (1) is reached"
    with closes(channel, 406, text):
        channel.queue_declare("x")


# --- logging in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_odd_names_and_passwords(raw: Raw, mechanism: str) -> None:
    user, password = "cf.ö'.*".encode(), "säcret".encode()
    response = b"\0" + user + b"\0" + password
    if mechanism == "AMQPLAIN":
        fields = ((b"LOGIN", user), (b"PASSWORD", password))
        response = b"".join(bytes((len(k),)) + k + b"S" + len(v).to_bytes(4, "big") + v for k, v in fields)
    assert raw("tune", mechanism=mechanism, response=response) is not None
