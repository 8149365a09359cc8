"""What once went wrong with clients that are in a hurry, or mean ill."""

from __future__ import annotations

import pytest

from rabbitish.gateway import session as module
from rabbitish.gateway.channel import Requests
from rabbitish.gateway.restoring import _AT_ONCE
from rabbitish.gateway.session import Gateway
from rabbitish.gateway.topology import Topology
from rabbitish.wire import methods
from rabbitish.wire.frames import PROTOCOL_HEADER
from tests.session.client import publication, start_ok
from tests.session.harness import World

from .carried import Carried, carried, closing, confirming, successor


def test_who_says_twice_who_he_is_is_not_vouched_for() -> None:
    gateway = Gateway(most=1 << 20)
    gateway.from_client(PROTOCOL_HEADER + start_ok("joe", "secret").frame(0))
    gateway.from_client(methods.ConnectionTuneOk().frame(0) + methods.ConnectionOpen(virtual_host="/").frame(0))
    gateway.from_client(start_ok("admin", "guessed").frame(0))
    gateway.from_leader(methods.ConnectionOpenOk().frame(0))
    assert gateway.open and not gateway.resumable
    with pytest.raises(ValueError, match="not known"):
        gateway.passport()


def test_content_of_who_is_not_logged_in_is_the_leaders_business() -> None:
    gateway = Gateway(most=1 << 20)
    said = PROTOCOL_HEADER + publication("q", b"-" * 8000)[:6000]
    gateway.from_client(said)
    assert gateway.take_for_leader() == said


def flow(client: Carried) -> None:
    client.slow = False
    client.feed()
    client.world.settle()
    client.collect()


def test_a_channel_that_both_closed_at_once_can_be_opened_again() -> None:
    world = World()
    client = closing(world)
    client.send(methods.ChannelCloseOk())
    flow(client)
    client.expect(methods.ChannelCloseOk())
    client.open()
    client.declare("q")
    client.move(successor(world))
    client.declare("q")


def test_the_leader_goes_before_it_has_agreed_to_what_both_wanted() -> None:
    world = World()
    client = closing(world)
    client.send(methods.ChannelCloseOk())
    client.move(successor(world))
    flow(client)
    client.expect(methods.ChannelCloseOk())
    client.open()
    client.declare("q")


def again(client: Carried) -> None:
    """Close the channel and use it anew without waiting for anything."""
    client.send(
        methods.ChannelClose(),
        methods.ChannelOpen(),
        methods.ConfirmSelect(),
        methods.QueueDeclare(queue="q", durable=True),
    )


@pytest.mark.parametrize("moves", [False, True])
def test_a_channel_is_closed_and_opened_without_waiting(moves: bool) -> None:
    world = World()
    client = confirming(world)
    client.consume("q", "old")
    client.slow = True
    again(client)
    if moves:
        client.lose_leader()
        client.slow = False
        client.go_on(successor(world))
        world = client.world
    else:
        flow(client)
    assert [type(said.method) for said in client.answers()] == [
        methods.ChannelCloseOk,
        methods.ChannelOpenOk,
        methods.ConfirmSelectOk,
        methods.QueueDeclareOk,
    ]
    client.publish("q", b"1", delivery_mode=2)
    client.expect(methods.BasicAck(delivery_tag=1))
    assert world.queue("q").ready == 1 and not world.queue("q").consumers
    assert client.gateway.kept_bytes == 0
    client.move(successor(world))
    client.publish("q", b"2", delivery_mode=2)
    client.expect(methods.BasicAck(delivery_tag=2))


def test_who_does_that_over_and_over_is_passed_on_as_it_is() -> None:
    client = confirming(World())
    client.slow = True
    again(client)
    again(client)
    flow(client)
    assert [type(said.method) for said in client.answers()].count(methods.ChannelOpenOk) == 2
    assert not client.gateway.resumable


def too_large(client: Carried) -> None:
    """The beginning of a content that is larger than what is kept of such."""
    client.raw(publication("q", b"-" * 60_000, frame_max=8192)[:50_000])


def test_who_keeps_much_unfinished_goes_on_at_this_leader_alone() -> None:
    world = World()
    client = confirming(world)
    client.gateway._client.most = 10_000
    too_large(client)
    client.raw(publication("q", b"-" * 60_000, frame_max=8192)[50_000:])
    client.expect(methods.BasicAck(delivery_tag=1))
    client.send(methods.QueueDeclare(queue="q", passive=True))
    (said,) = client.answers()
    assert isinstance(said.method, methods.QueueDeclareOk) and said.method.message_count == 1
    assert not client.gateway.resumable


def test_who_does_so_behind_a_change_is_told_that_it_ends() -> None:
    """Acks could not be told from those of an earlier leader any more."""
    world = World()
    client = confirming(world)
    client.move(successor(world))
    client.gateway._client.most = 10_000
    client.sent_up.clear()
    too_large(client)
    (said,) = client.answers()
    assert isinstance(said.method, methods.ConnectionClose) and module._NONSENSE in said.method.reply_text
    assert not client.sent_up and client.gateway.over


def test_what_was_declared_is_declared_anew_in_handfuls() -> None:
    world = World()
    client = carried(world)
    for number in range(3 * _AT_ONCE + 7):
        client.declare(f"q{number}")
    client.slow = True
    client.lose_leader()
    client.go_on(World())
    declares = [_AT_ONCE, _AT_ONCE, _AT_ONCE, 7]
    for count in declares:
        assert bytes(client.waiting_up).count(methods.QueueDeclare(queue="q").encode()[:4]) == count
        client.up(1 << 20)
        client.world.settle()
        client.collect()
        client.down(1 << 20)
        client.feed()
    flow(client)
    client.open(2)
    assert len(client.world.vhost.queues) == sum(declares)


def test_declares_without_an_answer_are_counted() -> None:
    requests = Requests()
    declare, bind = methods.QueueDeclare(queue=""), methods.QueueBind(queue="", exchange="e")
    for method in (declare, bind, declare):
        requests.append(module.Request(method))
    assert requests.declares == 2
    requests.popleft()
    requests.popleft()
    assert requests.declares == 1
    requests.clear()
    assert requests.declares == 0


def binding(queue: str, source: str) -> methods.QueueBind:
    return methods.QueueBind(queue=queue, exchange=source, routing_key="k")


def test_bindings_end_with_their_source_though_that_comes_back() -> None:
    topology = Topology()
    declare, queue = methods.ExchangeDeclare(exchange="e"), methods.QueueDeclare(queue="q")
    topology.declared(declare, "e")
    topology.declared(queue, "q")
    topology.bound(binding("q", "e"))
    topology.declared(declare, "e")  # which is there
    topology.bound(binding("durable", "e"))
    assert list(topology.steps())[2:] == [binding("q", "e"), binding("durable", "e")]
    topology.exchange_gone("e")
    topology.declared(declare, "e")
    assert list(topology.steps()) == [declare, queue]
    topology.bound(binding("q", "e"))
    assert list(topology.steps())[2:] == [binding("q", "e")]
    topology.queue_gone("q")
    assert list(topology.steps()) == [declare]


def test_what_is_too_much_is_not_remembered_at_all() -> None:
    topology = Topology()
    for number in range(20_000):
        topology.declared(methods.QueueDeclare(queue=f"q{number}"), f"q{number}")
    assert topology.too_much and not list(topology.steps())
    topology = Topology()
    for number in range(400):
        arguments = {"x-large": "-" * 60_000}
        topology.declared(methods.QueueDeclare(queue=f"q{number}", arguments=arguments), f"q{number}")
    assert topology.too_much and not list(topology.steps())


@pytest.mark.parametrize("ends_with_source", [False, True])
def test_what_is_declared_and_deleted_again_and_again_is_never_too_much(ends_with_source: bool) -> None:
    topology = Topology()
    exchange = methods.ExchangeDeclare(exchange="e")
    queue = methods.QueueDeclare(queue="q", arguments={"x-large": "-" * 60_000})
    for number in range(10_001 if ends_with_source else 400):
        topology.declared(queue, "q")
        topology.declared(exchange, "e")
        topology.bound(methods.QueueBind(queue="q", exchange="e", routing_key=f"{number}"))
        topology.exchange_gone("e")
        if not ends_with_source:
            topology.queue_gone("q")
    assert not topology.too_much
    assert list(topology.steps()) == ([queue] if ends_with_source else [])


def test_an_auto_delete_queue_goes_with_its_last_consumer() -> None:
    topology = Topology()
    topology.declared(methods.QueueDeclare(queue="q", auto_delete=True), "q")
    topology.consumed("q")
    topology.consumed("q")
    topology.consumer_gone("q")
    assert list(topology.steps())
    topology.consumer_gone("q")
    assert not list(topology.steps())
