"""What must survive is confirmed and answered when it is on disk, and not before; all else does not wait for that."""

from __future__ import annotations

import pytest

from rabbitish.session.confirms import Confirms
from rabbitish.session.content import WireCodec, WireMessage
from rabbitish.wire import methods
from rabbitish.wire.method import Method

from .client import Client, publication
from .harness import Journal, World


def ack(tag: int, *, multiple: bool = False) -> Method:
    return methods.BasicAck(delivery_tag=tag, multiple=multiple)


@pytest.fixture
def journal(world: World) -> Journal:
    """The world's journal."""
    return world.keep_journal()


@pytest.fixture
def q(world: World, client: Client, journal: Journal) -> Client:
    """A client with a durable queue q, a transient one t, and channel 1 in confirm mode."""
    client.send(methods.QueueDeclare(queue="q", durable=True), methods.QueueDeclare(queue="t"), methods.ConfirmSelect())
    world.synced()
    assert len(client.answers()) == 3
    return client


# --- confirms --------------------------------------------------------------------------------------------------------


def test_a_persistent_message_in_a_durable_queue_is_confirmed_when_it_is_on_disk(world: World, q: Client) -> None:
    for tag in (1, 2, 3):
        q.publish("q", b"x", delivery_mode=2)
        assert q.answers() == []
        world.synced()
        q.expect(ack(tag))


@pytest.mark.parametrize(
    ("key", "mode"), [("q", None), ("q", 1), ("t", 2), ("t", None), ("nowhere", 2)], ids=lambda it: str(it)
)
def test_everything_else_is_confirmed_at_once(q: Client, key: str, mode: int | None) -> None:
    for tag in (1, 2, 3):
        q.publish(key, b"x", delivery_mode=mode)
        q.expect(ack(tag))


def test_one_ack_for_all_that_is_on_disk_by_then(world: World, q: Client) -> None:
    for _ in range(3):
        q.publish("q", b"x", b"x", delivery_mode=2)
        assert q.answers() == []
    world.synced()
    q.expect(ack(6, multiple=True))


def test_what_comes_later_waits_behind_it(world: World, q: Client, journal: Journal) -> None:
    before = journal.position
    for key, mode in (("q", 2), ("t", 1), ("q", 2), ("q", 1)):
        q.publish(key, b"x", delivery_mode=mode)
    assert q.answers() == []
    world.synced(before + 1)
    q.expect(ack(2, multiple=True))
    world.synced()
    q.expect(ack(4, multiple=True))


def test_refusals_wait_their_turn(world: World, q: Client) -> None:
    q.declare("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    q.publish("q", b"x", delivery_mode=2)
    q.publish("full", b"x")
    q.publish("t", b"x")
    assert q.answers() == []
    world.synced()
    q.expect(ack(1), methods.BasicNack(delivery_tag=2, multiple=False, requeue=True), ack(3))


def test_each_channel_waits_for_its_own(world: World, q: Client) -> None:
    q.open(2)
    q.send(methods.ConfirmSelect(), channel=2)
    q.expect(methods.ConfirmSelectOk(), channel=2)
    q.raw(publication("q", b"x", delivery_mode=2) + publication("t", b"x", channel=2))
    q.expect(ack(1), channel=2)
    world.synced()
    q.expect(ack(1))


@pytest.mark.parametrize("together", [True, False])
def test_a_channel_that_is_closed_hears_no_more_of_it(world: World, q: Client, together: bool) -> None:
    """Least of all the one that has its number next."""
    q.raw(publication("q", b"x", delivery_mode=2) * (3 if together else 1))
    if not together:
        assert q.answers() == []
    q.send(methods.ChannelClose(), methods.ChannelOpen())
    q.expect(methods.ChannelCloseOk(), methods.ChannelOpenOk())
    world.synced()
    assert q.answers() == [] and world.hub.unsafe == {}


def test_a_channel_closed_in_the_read_that_published_hears_no_more_of_it(world: World, q: Client) -> None:
    end = methods.ChannelClose().frame(1) + methods.ChannelOpen().frame(1)
    q.raw(publication("q", b"x", delivery_mode=2) + publication("q", b"y", delivery_mode=2) + end)
    q.expect(methods.ChannelCloseOk(), methods.ChannelOpenOk())
    world.synced()
    assert q.answers() == [] and world.hub.unsafe == {}


def test_nor_does_one_that_fails(world: World, q: Client) -> None:
    q.raw(publication("q", b"x", delivery_mode=2) + publication("q", exchange="nosuch"))
    assert [method.name for method in q.methods() if method] == ["channel.close"]
    world.synced()
    assert q.answers() == [] and world.hub.unsafe == {}


@pytest.mark.parametrize("published", [1, 3])
def test_a_publisher_that_is_gone(world: World, q: Client, published: int) -> None:
    q.publish("q", *[b"x"] * published, delivery_mode=2)
    q.hang_up()
    world.synced()
    assert q.answers() == [] and world.hub.unsafe == {}
    assert world.queue("q").ready == published


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (methods.QueueDeclare(queue="new", durable=True), methods.QueueDeclareOk(queue="new")),
        (methods.QueueDelete(queue="q"), methods.QueueDeleteOk()),
        (methods.ExchangeDeclare(exchange="new", type="fanout", durable=True), methods.ExchangeDeclareOk()),
        (methods.QueueBind(queue="q", exchange="amq.fanout"), methods.QueueBindOk()),
    ],
    ids=lambda method: method.name,
)
def test_what_is_durable_is_answered_when_it_is_on_disk(
    world: World, q: Client, method: Method, answer: Method
) -> None:
    q.send(method)
    assert q.answers() == []
    world.synced()
    q.expect(answer)


def test_what_is_not_is_answered_at_once(q: Client) -> None:
    assert q.ask(methods.QueueDeclare(queue="new")) == methods.QueueDeclareOk(queue="new")
    assert q.ask(methods.QueueDelete(queue="t")) == methods.QueueDeleteOk()


def test_a_commit(world: World, q: Client) -> None:
    q.open(2)
    q.send(methods.TxSelect(), channel=2)
    q.expect(methods.TxSelectOk(), channel=2)
    q.publish("q", b"x", channel=2, delivery_mode=2)
    q.send(methods.TxCommit(), channel=2)
    assert q.answers() == []
    world.synced()
    q.expect(methods.TxCommitOk(), channel=2)


def test_nothing_overtakes_a_held_answer(world: World, q: Client, other: Client) -> None:
    q.send(methods.QueueDeclare(queue="new", durable=True), methods.ChannelFlow(active=True))
    assert q.answers() == []
    assert other.ask(methods.ChannelFlow(active=True)) == methods.ChannelFlowOk(active=True)
    world.synced()
    q.expect(methods.QueueDeclareOk(queue="new"), methods.ChannelFlowOk(active=True))


def test_the_disk_is_in_a_hurry_only_for_those_who_wait(
    world: World, q: Client, other: Client, journal: Journal
) -> None:
    """What is wanted is synced at once, all else with it or after a moment."""
    hub, before = world.hub, world.hub.wanted
    assert before == hub.durable == journal.position
    other.publish("q", b"1", b"2", delivery_mode=2)  # nobody confirms these
    other.consume("q")
    assert other.bodies() == [b"1", b"2"]
    other.send(methods.BasicNack(delivery_tag=1, requeue=True), methods.BasicAck(delivery_tag=2))
    q.publish("t", b"x", delivery_mode=2)
    q.expect(ack(1))
    assert other.bodies() == [b"1"]
    assert (hub.wanted, hub.durable) == (before, before) and journal.position == before + 6
    q.publish("q", b"x", delivery_mode=2)
    confirmed_at = hub.wanted
    assert before < confirmed_at <= journal.position
    q.publish("q", b"x", delivery_mode=1)  # waits behind that for its turn, not for the disk
    assert hub.wanted == confirmed_at
    other.send(methods.QueueDeclare(queue="new", durable=True))
    assert hub.wanted == journal.position > confirmed_at


# --- by themselves ---------------------------------------------------------------------------------------------------


def test_the_count_by_itself() -> None:
    confirms = Confirms(1)
    confirms.published, confirms.safe_at = 2, 10
    assert confirms.flush(9) == b"" and confirms.waiting
    confirms.published = 3
    assert confirms.flush(9) == b""
    assert confirms.flush(10) == ack(3, multiple=True).frame(1)
    assert not confirms.waiting and confirms.flush(10) == b""


def test_messages_and_tables_as_bytes(world: World, client: Client) -> None:
    client.declare("q")
    client.publish("q", b"body", headers={"a": 1}, delivery_mode=2, priority=4, expiration="70")
    world.settle()
    (message,) = world.queue("q")
    codec = WireCodec(world.hub.properties)
    (content,) = codec.contents_of([message])
    stamp = codec.stamp(message.address, codec.channel_of(message), b"before" + content + b"behind", 6)
    (again,) = codec.messages([stamp], [content], 7)
    assert isinstance(again, WireMessage)
    assert (again.body(), again.headers(), again.traits, again.size) == (b"body", {"a": 1}, message.traits, 4)
    assert (again.framed(1, 4096), again.lsn, again.deadline) == (content, 7, None)
    assert [message.lsn for message in codec.messages([stamp] * 3, [content] * 3, 7)] == [7, 8, 9]
    assert [message.lsn for message in codec.messages([stamp] * 3, [content] * 3, 0)] == [0, 0, 0]
    assert codec.decode_table(b"x" + codec.encode_table({"a": [1]}) + b"y", 1) == ({"a": [1]}, 12 + 5)
