"""Publishing: what is checked, where a message goes, and what comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.values import Table
from rabbitish.wire import methods

from .client import Client, close_of, publication
from .harness import World

NOWHERE = methods.BasicReturn(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="nowhere")


@pytest.fixture
def q(client: Client) -> Client:
    """A client with a queue q."""
    client.declare("q")
    return client


def bound(client: Client, exchange: str, key: str, queue: str, arguments: Table | None = None) -> None:
    client.declare(queue)
    client.send(methods.QueueBind(queue=queue, exchange=exchange, routing_key=key, arguments=arguments or {}))
    client.expect(methods.QueueBindOk())


# --- routing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exchange", "key", "queues"),
    [
        ("", "direct", {"direct"}),
        ("amq.direct", "k", {"direct"}),
        ("amq.direct", "other", set()),
        ("amq.fanout", "whatever", {"fanout", "both"}),
        ("amq.topic", "a.b", {"topic", "both"}),
        ("amq.topic", "a.b.c", {"both"}),
    ],
)
def test_exchanges(client: Client, exchange: str, key: str, queues: set[str]) -> None:
    bound(client, "amq.direct", "k", "direct")
    bound(client, "amq.fanout", "", "fanout")
    bound(client, "amq.fanout", "", "both")
    bound(client, "amq.topic", "a.*", "topic")
    bound(client, "amq.topic", "#", "both")
    for _ in range(3):
        client.publish(key, b"x", exchange=exchange)
    client.world.settle()
    ready = {name: queue.ready for name, queue in client.world.vhost.queues.items() if queue.ready}
    assert ready == dict.fromkeys(queues, 3)


def test_headers(client: Client) -> None:
    bound(client, "amq.headers", "", "all", {"a": 1, "b": "x"})
    bound(client, "amq.headers", "", "any", {"x-match": "any", "a": 1, "b": "x"})
    client.publish("", b"both", exchange="amq.headers", headers={"a": 1, "b": "x"})
    client.publish("", b"one", exchange="amq.headers", headers={"a": 1, "b": "y"})
    client.publish("", b"none", exchange="amq.headers")
    assert client.drain("all") == [b"both"]
    assert client.drain("any") == [b"both", b"one"]


def test_routes_change_between_publishes_of_one_read(q: Client) -> None:
    bind = methods.QueueBind(queue="q", exchange="amq.direct", routing_key="k", nowait=True).frame(1)
    unbind = methods.QueueUnbind(queue="q", exchange="amq.direct", routing_key="k").frame(1)
    sent = [publication("k", body, exchange="amq.direct", mandatory=True) for body in (b"1", b"2", b"3", b"4")]
    q.raw(sent[0] + bind + sent[1] + sent[2] + unbind + sent[3])
    assert [said.body for said in q.answers() if isinstance(said.method, methods.BasicReturn)] == [b"1", b"4"]
    assert q.drain("q") == [b"2", b"3"]


def test_a_queue_that_comes_and_goes(client: Client) -> None:
    declare, delete = methods.QueueDeclare(queue="q", nowait=True), methods.QueueDelete(queue="q", nowait=True)
    one = publication("q", b"x", mandatory=True)
    client.raw(one + declare.frame(1) + one + one + delete.frame(1) + one + declare.frame(1) + one)
    assert [said.method.name for said in client.answers() if said.method] == ["basic.return"] * 2
    assert client.drain("q") == [b"x"]


def test_routes_are_remembered_up_to_a_limit(make_world: Callable[..., World]) -> None:
    for most in (0, 1, 5):
        world = make_world(route_cache_entries=most, properties_cache_entries=most)
        client = world.client()
        for name in "abcdefg":
            client.declare(name)
        for round_ in range(3):
            for name in "abcdefg":
                client.publish(name, b"x", message_id=f"{name}{round_}")
                assert len(client.session.routes) <= most
                assert len(world.hub.properties.known) <= most
        assert [len(client.drain(name)) for name in "abcdefg"] == [3] * 7


# --- copies ----------------------------------------------------------------------------------------------------------


def test_cc_and_bcc_are_further_keys(client: Client) -> None:
    for name in "abcd":
        client.declare(name)
    client.publish("a", b"x", headers={"CC": ["b", "a", 5], "BCC": ["c"], "n": 1})
    for name in "abc":
        said = client.get(name)
        assert said is not None and said.props.headers == {"CC": ["b", "a", 5], "n": 1}
        assert isinstance(said.method, methods.BasicGetOk)
        assert (said.method.exchange, said.method.routing_key, said.method.message_count) == ("", "a", 0)
    assert client.get("d") is None


def test_copies_make_a_mandatory_message_routable(q: Client) -> None:
    q.publish("nowhere", b"x", mandatory=True, headers={"BCC": ["q"]})
    assert q.answers() == []
    said = q.get("q")
    assert said is not None and said.props.headers == {}


@pytest.mark.parametrize("name", ["CC", "BCC"])
@pytest.mark.parametrize(("value", "kind"), [("q", "longstr"), (1, "signedint"), ({}, "table"), (None, "void")])
def test_copies_that_are_no_array(q: Client, name: str, value: object, kind: str) -> None:
    q.publish("q", b"x", headers={name: value})
    text = f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{name}",{kind}}}'
    q.expect_channel_close(406, text, methods.BasicPublish)


# --- properties that are checked -------------------------------------------------------------------------------------


def test_ones_own_user_id(q: Client) -> None:
    q.publish("q", b"x", user_id="guest")
    assert q.drain("q") == [b"x"]


def test_anothers_user_id(q: Client) -> None:
    q.publish("q", b"x", user_id="joe")
    text = "PRECONDITION_FAILED - user_id property set to 'joe' but authenticated user was 'guest'"
    q.expect_channel_close(406, text, methods.BasicPublish)


def test_impersonators_may_be_anybody(world: World) -> None:
    client = world.client(user="actor", password="secret")
    client.declare("q")
    client.publish("q", b"x", user_id="joe")
    assert client.drain("q") == [b"x"]


def test_what_one_user_may_say_another_may_not(world: World, q: Client) -> None:
    """The memory of what publishes mean does not mix up users."""
    q.publish("q", b"mine", user_id="guest")
    joe = world.client(user="joe", password="secret")
    joe.publish("q", b"no", user_id="guest")
    text = "PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user was 'joe'"
    joe.expect_channel_close(406, text, methods.BasicPublish)
    assert q.drain("q") == [b"mine"]


@pytest.mark.parametrize("expiration", ["0", "1", "+5", "007", "315360000000"])
def test_good_expirations(q: Client, expiration: str) -> None:
    q.publish("q", b"x", expiration=expiration)
    assert q.answers() == []


@pytest.mark.parametrize(
    ("expiration", "reason"),
    [
        ("", "no_integer"),
        ("abc", "no_integer"),
        ("-", "no_integer"),
        ("--1", "no_integer"),
        ("٣", "no_integer"),
        ("1.5", '{leftover_string,".5"}'),
        ("10s", '{leftover_string,"s"}'),
        ("-1", "{value_negative,-1}"),
        ("315360000001", "{value_too_large,315360000001}"),
    ],
)
def test_bad_expirations(q: Client, expiration: str, reason: str) -> None:
    for _ in range(2):
        q.publish("q", b"x", expiration=expiration)
        text = f"PRECONDITION_FAILED - invalid expiration '{expiration}': {reason}"
        q.expect_channel_close(406, text, methods.BasicPublish)
        q.open()


def test_an_expiration_is_kept_to(q: Client) -> None:
    q.publish("q", b"x", expiration="1000")
    q.world.advance(999)
    assert q.world.queue("q").ready == 1
    q.world.advance(1)
    assert q.world.queue("q").ready == 0


@pytest.mark.parametrize("mode", [0, 3, 255])
def test_an_unknown_delivery_mode(q: Client, mode: int) -> None:
    q.publish("q", b"x", delivery_mode=mode)
    text = f"PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,{mode}}}"
    q.expect_channel_close(406, text, methods.BasicPublish)


def test_priorities(client: Client) -> None:
    client.declare("q", arguments={"x-max-priority": 5})
    for priority in (None, 1, 9, 5, 0):
        client.publish("q", str(priority).encode(), priority=priority)
    assert client.drain("q") == [b"9", b"5", b"1", b"None", b"0"]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_missing_exchange(client: Client) -> None:
    client.publish("q", b"x", exchange="nosuch")
    text = "NOT_FOUND - no exchange 'nosuch' in vhost '/'"
    client.expect_channel_close(404, text, methods.BasicPublish)


def test_an_internal_exchange(client: Client) -> None:
    client.publish("q", b"x", exchange="amq.rabbitmq.trace")
    text = "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'"
    client.expect_channel_close(403, text, methods.BasicPublish)


def test_immediate(q: Client) -> None:
    frame = methods.BasicPublish(routing_key="q", immediate=True).frame(1)
    q.raw(frame + publication("q")[len(methods.BasicPublish(routing_key="q").frame(1)) :])
    q.expect_connection_close(540, "NOT_IMPLEMENTED - immediate=true", methods.BasicPublish)


def test_the_largest_message(make_world: Callable[..., World]) -> None:
    client = make_world(max_message_bytes=5000).client(frame_max=4096)
    client.declare("q")
    client.publish("q", bytes(5000), frame_max=4096)
    assert [len(body) for body in client.drain("q")] == [5000]
    client.publish("q", bytes(5001), frame_max=4096)
    text = "PRECONDITION_FAILED - message size 5001 is larger than configured max size 5000"
    client.expect_channel_close(406, text, methods.BasicPublish)


def test_exchange_and_key_need_not_be_text(client: Client) -> None:
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    client.publish(name, b"x", mandatory=True)
    (said,) = client.answers()
    assert said.method == methods.BasicReturn(reply_code=312, reply_text="NO_ROUTE", routing_key=name)
    client.publish("k", b"x", exchange=name)
    text = f"NOT_FOUND - no exchange '{name}' in vhost '/'"
    client.expect_channel_close(404, text, methods.BasicPublish)


# --- what has no way to go -------------------------------------------------------------------------------------------


def test_unroutable(client: Client) -> None:
    client.publish("nowhere", b"x")
    assert client.answers() == []


@pytest.mark.parametrize("body", [b"", b"x", bytes(300_000)], ids=len)
def test_unroutable_and_mandatory(client: Client, body: bytes) -> None:
    for _ in range(3):
        client.publish("nowhere", body, mandatory=True, headers={"a": 1}, delivery_mode=2)
        (said,) = client.expect(NOWHERE)
        assert (said.body, said.props.headers, said.props.delivery_mode) == (body, {"a": 1}, 2)


def test_a_return_comes_before_its_confirm(client: Client) -> None:
    client.send(methods.ConfirmSelect())
    client.expect(methods.ConfirmSelectOk())
    client.publish("nowhere", b"x", mandatory=True)
    client.expect(NOWHERE, methods.BasicAck(delivery_tag=1))


def test_an_alternate_exchange_takes_what_has_no_way(q: Client) -> None:
    declare = methods.ExchangeDeclare(exchange="x", type="direct", arguments={"alternate-exchange": "amq.fanout"})
    q.send(declare, methods.QueueBind(queue="q", exchange="amq.fanout"))
    assert len(q.answers()) == 2
    q.publish("k", b"x", exchange="x", mandatory=True)
    assert q.answers() == []
    assert q.drain("q") == [b"x"]


# --- queues that refuse ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_full_queue_refuses_and_says_so_to_who_wants_to_know(client: Client, overflow: str) -> None:
    client.declare("dead")
    arguments: Table = {"x-max-length": 2, "x-overflow": overflow}
    if overflow == "reject-publish-dlx":
        arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    client.declare("q", arguments=arguments)
    client.publish("q", b"1", b"2", b"3")
    assert client.answers() == []
    client.send(methods.ConfirmSelect())
    client.expect(methods.ConfirmSelectOk())
    client.publish("q", b"4")
    client.expect(methods.BasicNack(delivery_tag=1, multiple=False, requeue=True))
    assert client.drain("q") == [b"1", b"2"]
    assert client.drain("dead") == ([b"3", b"4"] if overflow == "reject-publish-dlx" else [])


def test_refused_by_one_of_two_queues(client: Client) -> None:
    client.declare("small", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    client.declare("large")
    for name in ("small", "large"):
        client.send(methods.QueueBind(queue=name, exchange="amq.fanout"), methods.ConfirmSelect())
        assert len(client.answers()) == 2
    client.publish("", b"1", b"2", exchange="amq.fanout")
    client.expect(methods.BasicAck(delivery_tag=1), methods.BasicNack(delivery_tag=2, multiple=False, requeue=True))
    assert (client.drain("small"), client.drain("large")) == ([b"1"], [b"1", b"2"])


def test_room_that_a_waiting_consumer_makes(client: Client) -> None:
    """A full queue is one that consumers do not empty."""
    client.declare("q", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    client.consume("q", no_ack=True)
    client.send(methods.ConfirmSelect())
    client.publish("q", b"1", b"2", b"3")
    names = [said.method.name for said in client.answers() if said.method]
    assert sorted(names) == ["basic.ack"] + ["basic.deliver"] * 3 + ["confirm.select-ok"]


def test_an_error_in_the_middle_leaves_the_other_channel_alone(world: World) -> None:
    client = world.client(1, 2)
    client.declare("q")
    client.raw(
        publication("q", b"1", channel=1) + publication("q", exchange="nosuch") + publication("q", b"2", channel=2)
    )
    (closed,) = client.answers()
    text = "NOT_FOUND - no exchange 'nosuch' in vhost '/'"
    assert closed.method == close_of(methods.ChannelClose, 404, text, methods.BasicPublish)
    client.send(methods.ChannelCloseOk(), methods.ChannelOpen())
    client.expect(methods.ChannelOpenOk())
    assert client.drain("q") == [b"1", b"2"]
