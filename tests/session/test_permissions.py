"""Permissions in conversations: each method at each resource, refused in RabbitMQ's words, and changed meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.core.access.records import Permission, TopicPermission
from rabbitish.session.permissions import NEEDS, TOPIC_NEEDS
from rabbitish.wire import methods
from rabbitish.wire.method import Method

from .client import Client, publication
from .harness import World

BIND = (methods.QueueBind, methods.QueueUnbind)
E2E = (methods.ExchangeBind, methods.ExchangeUnbind)


@pytest.fixture
def joe(world: World) -> Client:
    """A client of joe's, who may do everything so far; there are a queue q and exchanges e and f."""
    client = world.client(user="joe", password="secret")
    client.declare("q")
    for name in ("e", "f"):
        client.ask(methods.ExchangeDeclare(exchange=name))
    return client


def allow(world: World, configure: str = "", write: str = "", read: str = "") -> None:
    world.change(lambda roster: roster.set_permissions("joe", "/", Permission(configure, write, read)))


def refused(resource: str, name: str) -> str:
    return f"ACCESS_REFUSED - access to {resource} '{name}' in vhost '/' refused for user 'joe'"


def q_bind(kind: Callable[..., Method], exchange: str = "e") -> Method:
    return kind(queue="q", exchange=exchange, routing_key="k")


# what is said, (method, resource) of the table, and what else is allowed: all but the one thing that is asked for
CASES = [
    (methods.ExchangeDeclare(exchange="e"), "exchange", {"write": ".*", "read": ".*"}, ("exchange", "e")),
    (
        methods.ExchangeDeclare(exchange="new", arguments={"alternate-exchange": "f"}),
        "exchange with alternate",
        {"configure": "^new$", "write": "^f$"},
        ("exchange", "new"),
    ),
    (
        methods.ExchangeDeclare(exchange="new", arguments={"alternate-exchange": "f"}),
        "alternate",
        {"configure": "^new$", "read": "^new$"},
        ("exchange", "f"),
    ),
    (methods.ExchangeDelete(exchange="e"), "exchange", {"write": ".*", "read": ".*"}, ("exchange", "e")),
    (methods.ExchangeDelete(exchange="nosuch"), "exchange", {}, ("exchange", "nosuch")),
    *[(kind(source="e", destination="f"), "destination", {"read": "e"}, ("exchange", "f")) for kind in E2E],
    *[(kind(source="e", destination="f"), "source", {"write": "f"}, ("exchange", "e")) for kind in E2E],
    (methods.ExchangeBind(source="e", destination=""), "destination", {}, ("exchange", "amq.default")),
    (methods.QueueDeclare(queue="q"), "queue", {"write": ".*", "read": ".*"}, ("queue", "q")),
    (
        methods.QueueDeclare(queue="new", arguments={"x-dead-letter-exchange": "e"}),
        "queue with dead letters",
        {"configure": "^new$", "write": "^e$"},
        ("queue", "new"),
    ),
    (
        methods.QueueDeclare(queue="new", arguments={"x-dead-letter-exchange": ""}),
        "dead letter exchange",
        {"configure": "^new$", "read": "^new$"},
        ("exchange", "amq.default"),
    ),
    (methods.QueueDelete(queue="q"), "queue", {"write": ".*", "read": ".*"}, ("queue", "q")),
    (methods.QueueDelete(queue="nosuch"), "queue", {}, ("queue", "nosuch")),
    (methods.QueuePurge(queue="q"), "queue", {"configure": ".*", "write": ".*"}, ("queue", "q")),
    *[(q_bind(kind), "destination", {"configure": ".*", "read": ".*"}, ("queue", "q")) for kind in BIND],
    *[(q_bind(kind), "source", {"configure": ".*", "write": ".*"}, ("exchange", "e")) for kind in BIND],
    *[(q_bind(kind, "nosuch"), "source", {"write": "q"}, ("exchange", "nosuch")) for kind in BIND],
    (methods.BasicConsume(queue="q"), "queue", {"configure": ".*", "write": ".*"}, ("queue", "q")),
    (methods.BasicConsume(queue="nosuch"), "queue", {}, ("queue", "nosuch")),
    (methods.BasicGet(queue="q"), "queue", {"configure": ".*", "write": ".*"}, ("queue", "q")),
]


@pytest.mark.parametrize(("said", "what", "allowed", "refusal"), CASES, ids=str)
def test_each_method_needs_its_permission(
    world: World, joe: Client, said: Method, what: str, allowed: dict[str, str], refusal: tuple[str, str]
) -> None:
    allow(world, **allowed)
    joe.send(said)
    joe.expect_channel_close(403, refused(*refusal), type(said))
    kind, resource = NEEDS[type(said), what]
    assert resource == refusal[0]
    assert world.audited[-1] == {
        "event": "permission denied",
        "user": "joe",
        "vhost": "/",
        "permission": kind,
        "resource": resource,
        "name": refusal[1],
        "connection": "client 0",
    }
    # With just that permission more it is not refused.
    allow(world, **{**allowed, kind: ".*"})
    joe.open()
    answer = joe.ask(said)
    assert not isinstance(answer, methods.ChannelClose) or answer.reply_text != refused(*refusal)


def test_the_table_is_tried_as_a_whole() -> None:
    tried = {(type(said), what) for said, what, _, _ in CASES} | {(methods.BasicPublish, "exchange")}
    assert tried == NEEDS.keys()
    assert TOPIC_NEEDS.keys() <= NEEDS.keys()


@pytest.mark.parametrize(
    "said",
    [
        methods.QueueDeclare(queue="q", passive=True),
        methods.ExchangeDeclare(exchange="e", passive=True),
        methods.BasicConsume(queue="amq.rabbitmq.reply-to", no_ack=True),
        methods.ConfirmSelect(),
        methods.BasicQos(prefetch_count=1),
    ],
    ids=str,
)
def test_what_needs_none(world: World, joe: Client, said: Method) -> None:
    allow(world)
    assert not isinstance(joe.ask(said), methods.ChannelClose)


def test_a_redeclare_needs_no_permission_on_dead_letters(world: World, joe: Client) -> None:
    joe.declare("dying", arguments={"x-dead-letter-exchange": "e"})
    allow(world, configure="dying")
    assert joe.declare("dying", arguments={"x-dead-letter-exchange": "e"}) == "dying"


def test_a_server_named_queue(world: World, joe: Client) -> None:
    allow(world, configure="^amq\\.gen")
    assert joe.declare().startswith("amq.gen-")
    allow(world)
    joe.send(methods.QueueDeclare())
    (close,) = joe.methods()
    assert isinstance(close, methods.ChannelClose)
    assert close.reply_text.startswith("ACCESS_REFUSED - access to queue 'amq.gen-")


# --- publishing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exchange", "name"), [("e", "e"), ("", "amq.default"), ("nosuch", "nosuch")])
def test_publishing_needs_write(world: World, joe: Client, exchange: str, name: str) -> None:
    allow(world, configure=".*", read=".*")
    joe.raw(publication("q", b"m", exchange=exchange))
    joe.expect_channel_close(403, refused("exchange", name), methods.BasicPublish)


def test_a_change_holds_from_the_next_publish_on(world: World, joe: Client) -> None:
    """Also where route and template are remembered, by this connection and by another of the same user."""
    other = world.client(user="joe", password="secret")
    for _ in range(3):
        joe.raw(publication("q", b"m") * 10)
        other.raw(publication("q", b"m") * 10)
    assert joe.answers() == other.answers() == []
    assert joe.session.templates and world.queue("q").ready == 60
    allow(world, write="^e$")
    assert not joe.session.templates and not joe.session.routes
    for client in (joe, other):
        client.raw(publication("q", b"m") * 10)
        client.expect_channel_close(403, refused("exchange", "amq.default"), methods.BasicPublish)
    assert world.queue("q").ready == 60
    allow(world, write=".*")
    joe.open()
    joe.raw(publication("q", b"m") * 10)
    assert joe.answers() == [] and world.queue("q").ready == 70


def test_users_do_not_share_what_is_remembered(world: World, joe: Client) -> None:
    allow(world, write="^e$")
    guest = world.client()
    for _ in range(3):
        guest.raw(publication("q", b"m") * 10)
    assert guest.answers() == [] and world.queue("q").ready == 30
    joe.raw(publication("q", b"m"))
    joe.expect_channel_close(403, refused("exchange", "amq.default"), methods.BasicPublish)


def test_deliveries_go_on_when_permissions_go(world: World, joe: Client) -> None:
    """As with RabbitMQ, which asks when consuming begins."""
    joe.consume("q", no_ack=True)
    allow(world)
    world.client().raw(publication("q", b"m"))
    assert joe.bodies() == [b"m"]


# --- topics ----------------------------------------------------------------------------------------------------------


def topic_refused(key: str) -> str:
    return f"ACCESS_REFUSED - access to topic '{key}' in exchange 'amq.topic' in vhost '/' refused for user 'joe'"


@pytest.fixture
def _topics(world: World) -> None:
    only = TopicPermission(write="^{username}\\.", read="^{vhost}")
    world.change(lambda roster: roster.set_topic_permissions("joe", "/", "amq.topic", only))


@pytest.mark.usefixtures("_topics")
def test_publishing_to_topics(world: World, joe: Client) -> None:
    joe.raw(publication("joe.x", b"m", exchange="amq.topic"))
    joe.raw(publication("ann.x", b"m", exchange="e"))  # not a topic exchange
    assert joe.answers() == []
    joe.raw(publication("ann.x", b"m", exchange="amq.topic"))
    joe.expect_channel_close(403, topic_refused("ann.x"), methods.BasicPublish)
    assert world.audited[-1]["routing_key"] == "ann.x"


@pytest.mark.usefixtures("_topics")
@pytest.mark.parametrize("kind", [*BIND, *E2E])
def test_binding_topics(joe: Client, kind: type[Method]) -> None:
    def said(key: str) -> Method:
        if kind in BIND:
            return kind(queue="q", exchange="amq.topic", routing_key=key)  # type: ignore[call-arg]
        return kind(source="amq.topic", destination="f", routing_key=key)  # type: ignore[call-arg]

    assert not isinstance(joe.ask(said("/x")), methods.ChannelClose)
    joe.send(said("x"))
    joe.expect_channel_close(403, topic_refused("x"), kind)


# --- changes while connections are open ------------------------------------------------------------------------------


COSTLY = "([ab]?){90}c"  # decided for short names, as permissions are set, but not for long ones


def test_an_expression_that_takes_too_long_allows_nothing_and_the_audit_log_says_why(world: World, joe: Client) -> None:
    world.change(
        lambda roster: roster.set_permissions("joe", "/", Permission(COSTLY, ".*", ".*")),
        lambda roster: roster.set_topic_permissions("joe", "/", "amq.topic", TopicPermission(COSTLY, ".*")),
    )
    name = "a" * 120 + "c"
    joe.raw(publication(name, b"", exchange="amq.topic"))
    joe.expect_channel_close(403, topic_refused(name), methods.BasicPublish)
    joe.open()
    assert joe.ask(methods.QueueDeclare(queue="abc")) == methods.QueueDeclareOk(queue="abc")
    joe.send(methods.QueueDeclare(queue=name))
    joe.expect_channel_close(403, refused("queue", name), methods.QueueDeclare)
    why = "the permission's expression takes too many steps to match"
    assert [denied.get("reason") for denied in world.audited if denied["event"] == "permission denied"] == [why, why]


def test_tags_change_at_once(world: World, joe: Client) -> None:
    joe.raw(publication("q", user_id="guest"))
    (close,) = joe.methods()
    assert isinstance(close, methods.ChannelClose) and close.reply_code == 406
    joe.send(methods.ChannelCloseOk())
    world.change(lambda roster: roster.set_tags("joe", ["impersonator"]))
    joe.open()
    joe.raw(publication("q", user_id="guest"))
    assert joe.answers() == []


def test_a_deleted_user_is_cut_off(world: World, joe: Client) -> None:
    guest = world.client()
    world.change(lambda roster: roster.delete_user("joe"))
    joe.expect_connection_close(320, "CONNECTION_FORCED - user 'joe' is deleted")
    assert guest.declare("mine") == "mine"


def test_a_deleted_virtual_host_takes_everything_with_it(world: World) -> None:
    world.add_vhost("v")
    journal = world.keep_journal()
    world.broker.record(journal)  # type: ignore[arg-type]
    inside, outside = world.client(vhost="v"), world.client()
    inside.send(
        methods.QueueDeclare(queue="q", durable=True),
        methods.QueueDeclare(queue="mine", exclusive=True),
        methods.ExchangeDeclare(exchange="e", durable=True),
        methods.QueueBind(queue="q", exchange="e"),
        methods.BasicConsume(queue="mine"),
    )
    inside.raw(publication("q", b"m" * 1000, delivery_mode=2))
    world.synced()
    assert len(inside.answers()) == 5
    before = journal.position
    world.change(lambda roster: roster.delete_vhost("v"))
    assert journal.position >= before + 3  # queue, exchange and virtual host have gone
    world.synced()
    inside.expect_connection_close(320, "CONNECTION_FORCED - vhost 'v' is deleted")
    assert list(world.broker.vhosts) == ["/"] and world.broker.usage.bytes == 0
    assert outside.declare("q") == "q"
    world.add_vhost("v")
    assert world.broker.vhosts["v"].queues == {} and len(world.broker.vhosts["v"].exchanges) == 7


# --- entering, and limits --------------------------------------------------------------------------------------------


def entering(world: World, vhost: str = "/", user: str = "joe") -> Client:
    """A client that has asked to open its connection."""
    client = world.connect()
    client.begin(user=user, password="secret" if user == "joe" else user)
    client.send(methods.ConnectionOpen(virtual_host=vhost), channel=0)
    return client


def test_no_permission_no_entry(world: World) -> None:
    world.add_vhost("v")
    text = "NOT_ALLOWED - access to vhost 'v' refused for user 'joe'"
    entering(world, "v").expect_connection_close(530, text, methods.ConnectionOpen)
    assert world.audited[-1]["event"] == "access to vhost refused"
    assert world.audited[-1]["reason"] == text.partition(" - ")[2]


def test_the_connection_limit_of_a_virtual_host(world: World) -> None:
    world.change(lambda roster: roster.set_vhost_limits("/", {"max-connections": 2}))
    first, _ = world.client(), world.client()
    text = "NOT_ALLOWED - access to vhost '/' refused for user 'joe': connection limit (2) is reached"
    entering(world).expect_connection_close(530, text, methods.ConnectionOpen)
    first.send(methods.ConnectionClose(), channel=0)
    first.answers()
    world.client()
    world.change(lambda roster: roster.set_vhost_limits("/", {"max-connections": -1}))
    world.client()


def test_the_connection_limit_of_a_user(world: World) -> None:
    world.change(lambda roster: roster.set_user_limits("joe", {"max-connections": 1}))
    first = world.client(user="joe", password="secret")
    text = "NOT_ALLOWED - connection refused for user 'joe': user connection limit (1) is reached"
    entering(world).expect_connection_close(530, text, methods.ConnectionOpen)
    world.client()
    first.session.receive_eof(world.now)
    world.client(user="joe", password="secret")


def test_the_channel_limit_of_a_user(world: World) -> None:
    world.change(lambda roster: roster.set_user_limits("joe", {"max-channels": 3}))
    one, other = (world.client(1, user="joe", password="secret") for _ in range(2))
    other.open(2)
    other.send(methods.ChannelClose(), channel=2)
    other.expect(methods.ChannelCloseOk(), channel=2)
    one.open(2)
    one.send(methods.ChannelOpen(), channel=3)
    text = "NOT_ALLOWED - number of channels opened for user 'joe' has reached the maximum allowed user limit of (3)"
    one.expect_connection_close(530, text)
    for number in (3, 4):
        other.open(number)
    assert world.hub.tally.channels_of["joe"] == 3


def test_the_queue_limit_of_a_virtual_host(world: World, client: Client) -> None:
    client.declare("a")
    world.change(lambda roster: roster.set_vhost_limits("/", {"max-queues": 2}))
    client.declare("b")
    client.declare("b")
    client.send(methods.QueueDeclare(queue="c"))
    text = "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in vhost '/' (2) is reached"
    client.expect_channel_close(406, text, methods.QueueDeclare)


def test_the_default_queue_type(world: World, client: Client) -> None:
    def default(kind: str) -> None:
        from dataclasses import replace

        world.change(lambda roster: roster.vhosts.update({"/": replace(roster.vhosts["/"], default_queue_type=kind)}))

    default("classic")
    client.declare("c")
    assert world.queue("c").arguments == {"x-queue-type": "classic"}
    default("quorum")
    client.declare("transient")  # which no quorum queue can be
    client.declare("durable", durable=True, arguments={"x-queue-type": "classic"})
    client.send(methods.QueueDeclare(queue="q", durable=True))
    (answer,) = client.methods()
    assert isinstance(answer, methods.QueueDeclareOk)
    assert [world.queue(name).options.queue_type for name in ("transient", "durable", "q")] == [
        "classic",
        "classic",
        "quorum",
    ]
