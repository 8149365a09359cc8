"""What a client sees of a change of leader, conversation by conversation: a pause, and the right numbers after it."""

from __future__ import annotations

import pytest

from rabbitish.core.access import EVERYTHING
from rabbitish.errors import ConnectionFailure
from rabbitish.wire import methods
from rabbitish.wire.frames import LEGACY_PROTOCOL_HEADER, PROTOCOL_HEADER
from rabbitish.wire.table import encode_table
from tests.session.client import publication, start_ok
from tests.session.harness import World

from .carried import Carried, carried, successor


def confirming(world: World, *channels: int) -> Carried:
    """A client with a durable queue `q` and channels in confirm mode."""
    client = carried(world, *channels)
    for channel in channels or (1,):
        assert client.ask(methods.ConfirmSelect(), channel) == methods.ConfirmSelectOk()
    client.declare("q", durable=True)
    return client


def drained(world: World, queue: str) -> list[bytes]:
    """What a queue holds, which is empty then."""
    taker = world.client()
    bodies = taker.drain(queue)
    taker.hang_up()
    return bodies


# ---- publishing


def test_nothing_is_changed_on_its_way_before_the_first_change_of_leader() -> None:
    world, beside = World(), World()
    through, straight = carried(world), beside.client()
    for client in (through, straight):
        client.raw(methods.ConfirmSelect().frame(1) + publication("nowhere", b"1", mandatory=True))
        client.answers()
        client.declare("q")
        client.consume("q", "t")
        client.publish("q", b"a" * 300_000, b"b")
        client.send(methods.BasicAck(delivery_tag=2, multiple=True))
        client.send(methods.BasicAck(delivery_tag=7))
        client.world.settle()
    assert through.received == straight.received


def test_confirms_go_on_with_the_clients_numbers() -> None:
    world = World()
    client = confirming(world)
    client.publish("q", b"1", b"2")
    client.expect(methods.BasicAck(delivery_tag=2, multiple=True))
    client.move(successor(world))
    client.publish("q", b"3", b"4")
    client.expect(methods.BasicAck(delivery_tag=4, multiple=True))
    client.publish("q", b"5")
    client.expect(methods.BasicAck(delivery_tag=5))
    assert drained(client.world, "q") == [b"1", b"2", b"3", b"4", b"5"]


def test_what_was_not_confirmed_is_sent_again_once_in_order_before_anything_newer() -> None:
    world = World()
    client = confirming(world)
    client.publish("q", b"1")
    client.expect(methods.BasicAck(delivery_tag=1))
    client.slow = True
    client.publish("q", b"2", b"3" * 200_000, b"4")
    client.lose_leader()
    client.raw(publication("q", b"5"))
    new = successor(world)
    client.slow = False
    client.go_on(new)
    client.expect(methods.BasicAck(delivery_tag=5, multiple=True))
    assert drained(new, "q") == [b"1", b"2", b"3" * 200_000, b"4", b"5"]
    assert client.gateway.kept_bytes == 0


def test_a_publish_that_the_client_is_in_the_middle_of_goes_to_the_next_leader_whole() -> None:
    world = World()
    client = confirming(world)
    data = publication("q", b"x" * 300_000)
    for cut in (1, 20, 60, 140_000, len(data) - 1):
        client.raw(data[:cut])
        client.world.settle()
        new = successor(client.world)
        client.move(new)
        assert client.answers() == []
        client.raw(data[cut:])
        (said,) = client.answers()
        assert isinstance(said.method, methods.BasicAck)
        assert drained(new, "q") == [b"x" * 300_000]


def test_confirms_of_two_channels_are_their_own() -> None:
    world = World()
    client = confirming(world, 1, 2)
    client.publish("q", b"1", b"2", channel=1)
    client.answers()
    client.move(successor(world))
    client.publish("q", b"3", channel=2)
    client.expect(methods.BasicAck(delivery_tag=1), channel=2)
    client.publish("q", b"4", channel=1)
    client.expect(methods.BasicAck(delivery_tag=3), channel=1)


@pytest.mark.parametrize("order", ["122112", "121212", "112122", "221112", "212211", "121122"])
@pytest.mark.parametrize("cut", range(1, 6))
def test_contents_of_two_channels_that_are_mixed_frame_by_frame(order: str, cut: int) -> None:
    client = confirming(World(), 1, 2)
    bodies = {"1": b"a" * 20, "2": b"b" * 20}
    said = {number: iter(frames(publication("q", body, channel=int(number)))) for number, body in bodies.items()}
    mixed = [next(said[number]) for number in order]
    client.raw(b"".join(mixed[:cut]))
    new = successor(client.world)
    client.move(new)
    client.raw(b"".join(mixed[cut:]))
    client.answers()
    assert client.gateway.kept_bytes == 0
    assert set(drained(client.world, "q")) == set(bodies.values())


def frames(data: bytes) -> list[bytes]:
    """Bytes, frame by frame."""
    found, at = [], 0
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at + 3 : at + 7], "big")
        found.append(data[at:end])
        at = end
    return found


def test_a_refused_publish_is_refused_under_the_clients_number() -> None:
    world = World()
    client = confirming(world)
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    client.declare("small", durable=True, arguments=arguments)
    client.publish("q", b"1")
    client.answers()
    client.move(successor(world))
    client.publish("small", b"2", b"3")
    client.expect(methods.BasicAck(delivery_tag=2), methods.BasicNack(delivery_tag=3, requeue=True))
    assert client.gateway.kept_bytes == 0


def test_the_client_is_not_heard_while_too_much_is_not_confirmed() -> None:
    world = World()
    world.keep_journal()
    client = Carried(world, most=10_000)
    client.handshake()
    client.open()
    client.send(methods.ConfirmSelect())
    client.answers()
    client.send(methods.QueueDeclare(queue="q", durable=True))
    world.synced()
    client.answers()
    for number in range(9):
        client.publish("q", bytes([number]) * 2_000, delivery_mode=2)
    assert client.answers() == []
    assert not client.gateway.hears_client
    assert 10_000 <= client.gateway.kept_bytes < 13_000
    for _ in range(3):
        world.synced()
    assert client.gateway.hears_client
    assert client.gateway.kept_bytes == 0
    assert world.queue("q").ready == 9


# ---- consuming


def test_delivery_tags_go_on_and_acks_reach_who_delivered() -> None:
    world = World()
    client = confirming(world)
    client.consume("q", "t")
    client.publish("q", b"1", b"2", b"3")
    assert [tag for _, tag, _ in deliveries(client)] == [1, 2, 3]
    client.send(methods.BasicAck(delivery_tag=1))
    new = successor(world)
    client.move(new)
    assert deliveries(client) == [("t", 4, b"2"), ("t", 5, b"3")]
    client.send(methods.BasicAck(delivery_tag=3))  # of what the last leader delivered
    client.send(methods.BasicAck(delivery_tag=2, multiple=True))
    assert client.answers() == []
    assert new.queue("q").unacked == 2
    client.send(methods.BasicAck(delivery_tag=5))
    new.settle()
    assert new.queue("q").unacked == 1
    client.send(methods.BasicNack(delivery_tag=4, requeue=True))
    assert deliveries(client) == [("t", 6, b"2")]
    client.send(methods.BasicReject(delivery_tag=6, requeue=False))
    new.settle()
    assert (new.queue("q").ready, new.queue("q").unacked) == (0, 0)


def deliveries(client: Carried) -> list[tuple[str, int, bytes]]:
    """What was delivered since the last time."""
    return [
        (said.method.consumer_tag, said.method.delivery_tag, said.body)
        for said in client.answers()
        if isinstance(said.method, methods.BasicDeliver)
    ]


def test_an_ack_of_everything_passes_and_one_of_an_unknown_tag_is_an_error() -> None:
    world = World()
    client = confirming(world)
    client.consume("q", "t")
    client.publish("q", b"1")
    assert len(deliveries(client)) == 1
    new = successor(world)
    client.move(new)
    assert len(deliveries(client)) == 1
    client.send(methods.BasicAck(delivery_tag=0, multiple=True))
    new.settle()
    assert new.queue("q").unacked == 0
    client.send(methods.BasicAck(delivery_tag=9))
    client.expect_channel_close(406, "PRECONDITION_FAILED - unknown delivery tag 8", methods.BasicAck)
    client.open()


def test_a_delivery_that_was_cut_off_is_never_half_heard() -> None:
    world = World()
    client = confirming(world)
    client.publish("q", b"x" * 300_000)
    client.answers()
    client.consume("q", "t")
    assert len(deliveries(client)) == 1
    for cut in (3, 30, 60, 200_000):
        new = successor(client.world)
        client.move(new)
        client.slow = True
        client.answers()
        client.down(cut)
        client.slow = False
    (last,) = deliveries(client) or deliveries_after_move(client)
    assert last[2] == b"x" * 300_000


def deliveries_after_move(client: Carried) -> list[tuple[str, int, bytes]]:
    """The same at one more leader."""
    client.move(successor(client.world))
    return deliveries(client)


def test_limits_are_those_that_held_for_each_consumer() -> None:
    world = World()
    client = confirming(world)
    client.ask(methods.BasicQos(prefetch_count=2))
    client.consume("q", "two")
    client.ask(methods.BasicQos(prefetch_count=1))
    client.declare("r", durable=True)
    client.consume("r", "one")
    client.ask(methods.BasicQos(prefetch_count=7))
    new = successor(world)
    client.move(new)
    (channel,) = client.session.channels.values()
    assert {tag: consumer.prefetch for tag, consumer in channel.consumers.items()} == {"two": 2, "one": 1}
    assert (channel.consumer_prefetch, channel.global_prefetch) == (7, 0)
    client.ask(methods.BasicQos(prefetch_count=9, global_=True))
    client.move(successor(new))
    (channel,) = client.session.channels.values()
    assert (channel.consumer_prefetch, channel.global_prefetch) == (7, 9)
    client.ask(methods.BasicQos(prefetch_count=4))
    client.move(successor(client.world))
    (channel,) = client.session.channels.values()
    assert (channel.consumer_prefetch, channel.global_prefetch) == (4, 0)
    client.expect()


def test_a_consumer_that_was_cancelled_does_not_come_back() -> None:
    world = World()
    client = confirming(world)
    client.consume("q", "gone")
    client.consume("q", "stays")
    client.ask(methods.BasicCancel(consumer_tag="gone"))
    client.move(successor(world))
    (channel,) = client.session.channels.values()
    assert list(channel.consumers) == ["stays"]


def test_a_consumer_whose_queue_is_gone_is_cancelled() -> None:
    world = World()
    other = world.client(1)
    other.declare("passing")
    client = confirming(world)
    client.consume("passing", "p")
    client.consume("q", "t")
    client.publish("q", b"1")
    assert len(deliveries(client)) == 1
    new = successor(world)
    client.move(new)
    said = client.answers()
    assert methods.BasicCancel(consumer_tag="p", nowait=True) in [each.method for each in said]
    assert [each.method.delivery_tag for each in said if isinstance(each.method, methods.BasicDeliver)] == [2]
    client.publish("q", b"2")
    assert methods.BasicAck(delivery_tag=2) in [each.method for each in client.answers()]


def test_or_its_channel_is_closed_if_the_client_does_not_understand_that() -> None:
    world = World()
    other = world.client(1)
    other.declare("passing")
    client = carried(world, 1, 2, capabilities={})
    client.consume("passing", "p")
    client.move(successor(world))
    client.expect_channel_close(404, "NOT_FOUND - no queue 'passing' in vhost '/'", methods.BasicConsume)
    client.declare("q", channel=2)
    client.open()


def test_a_channel_that_the_client_was_closing_when_a_consumer_cannot_come_back() -> None:
    world = World()
    world.client(1).declare("passing")
    client = confirming(world)
    client.publish("q", b"1")
    client.answers()
    client.consume("q", "t")
    client.consume("passing", "p")
    deliveries(client)
    client.slow = True
    client.send(methods.ChannelClose())
    new = successor(world)
    client.move(new)
    last = methods.BasicConsume(queue="passing", consumer_tag="p").frame(1)
    client.up(len(client.waiting_up) - len(last))
    new.settle()  # there is a delivery before the refusal
    client.up(len(last))
    new.settle()
    client.slow = False
    client.collect()
    said = [type(each.method) for each in client.answers()]
    assert said == [methods.BasicDeliver, methods.ChannelCloseOk]
    client.open()
    assert new.queue("q").ready == 1


def test_a_consumer_that_wants_to_know_is_cancelled() -> None:
    world = World()
    client = confirming(world)
    client.consume("q", "t", arguments={"x-cancel-on-ha-failover": True})
    client.move(successor(world))
    client.expect(methods.BasicCancel(consumer_tag="t", nowait=True))
    assert not client.session.channels[1].consumers


# ---- requests under way


REQUESTS = [
    (methods.QueueDeclare(queue="new", durable=True), methods.QueueDeclareOk(queue="new")),
    (methods.QueuePurge(queue="q"), methods.QueuePurgeOk(message_count=1)),
    (methods.QueueBind(queue="q", exchange="amq.topic", routing_key="#"), methods.QueueBindOk()),
    (methods.ExchangeDeclare(exchange="e", durable=True), methods.ExchangeDeclareOk()),
    (methods.BasicQos(prefetch_count=3), methods.BasicQosOk()),
    (methods.BasicConsume(queue="r", consumer_tag="c"), methods.BasicConsumeOk(consumer_tag="c")),
    (methods.BasicCancel(consumer_tag="none"), methods.BasicCancelOk(consumer_tag="none")),
    (methods.BasicGet(queue="r"), methods.BasicGetEmpty()),
    (methods.ConfirmSelect(), methods.ConfirmSelectOk()),
    (methods.ChannelFlow(active=True), methods.ChannelFlowOk(active=True)),
    (methods.BasicRecover(requeue=True), methods.BasicRecoverOk()),
    (methods.ChannelClose(), methods.ChannelCloseOk()),
    (methods.QueueDelete(queue="r"), methods.QueueDeleteOk()),
]


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize(("request_", "answer"), REQUESTS, ids=lambda value: type(value).__name__)
def test_a_request_without_an_answer_is_answered_by_the_next_leader(
    request_: methods.Method, answer: methods.Method, heard: bool
) -> None:
    world = World()
    client = confirming(world)
    client.declare("r", durable=True)
    client.publish("q", b"1")
    client.answers()
    client.slow = True
    client.send(request_)
    if heard and type(request_) is not methods.QueuePurge:
        client.up(10_000)
        world.settle()
    client.slow = False
    client.move(successor(world))
    client.expect(answer)


def test_a_channel_that_is_being_opened() -> None:
    world = World()
    client = carried(world)
    client.slow = True
    client.raw(methods.ChannelOpen().frame(2) + methods.ConfirmSelect().frame(2) + publication("q", b"1", channel=2))
    client.slow = False
    client.move(successor(world))
    client.expect(methods.ChannelOpenOk(), methods.ConfirmSelectOk(), methods.BasicAck(delivery_tag=1), channel=2)


def test_publishes_and_requests_are_sent_again_in_their_order() -> None:
    world = World()
    client = confirming(world)
    client.slow = True
    client.publish("q", b"1")
    client.send(methods.QueueDeclare(queue="later", durable=True))
    client.publish("later", b"2")
    client.send(methods.QueuePurge(queue="q"))
    client.publish("q", b"3")
    client.slow = False
    client.move(successor(world))
    assert drained(client.world, "q") == [b"3"]
    assert drained(client.world, "later") == [b"2"]


def test_a_name_that_stands_for_the_last_queue() -> None:
    world = World()
    client = carried(world)
    client.declare("q", durable=True)
    client.move(successor(world))
    client.send(methods.QueueBind(exchange="amq.direct"))
    client.expect(methods.QueueBindOk())
    client.publish("q", b"1", exchange="amq.direct")
    got = client.get("")
    assert got is not None and got.body == b"1"
    client.slow = True
    client.send(methods.QueueDeclare(queue="r", durable=True), methods.QueueBind(exchange="amq.direct"))
    client.up(10_000)
    client.world.settle()
    client.down(len(methods.QueueDeclareOk(queue="r").frame(1)))
    client.slow = False
    client.move(successor(client.world))
    client.expect(methods.QueueDeclareOk(queue="r"), methods.QueueBindOk())
    client.publish("r", b"2", exchange="amq.direct")
    assert drained(client.world, "r") == [b"2"]


def test_what_was_asked_without_wanting_an_answer() -> None:
    world = World()
    client = carried(world)
    client.slow = True
    client.send(methods.QueueDeclare(queue="q", durable=True, nowait=True))
    client.slow = False
    client.move(successor(world))
    assert client.answers() == []
    assert "q" in client.world.vhost.queues
    client.world.vhost.drop_queue(client.world.queue("q"))
    client.move(successor(client.world))
    assert "q" not in client.world.vhost.queues  # it had been heard


# ---- what ends with a leader


def test_exclusive_queues_and_their_bindings_are_declared_again() -> None:
    world = World()
    client = carried(world)
    name = client.declare("", exclusive=True)
    client.ask(methods.QueueBind(exchange="amq.topic", routing_key="a.*"))
    client.ask(methods.QueueBind(exchange="amq.topic", routing_key="b"))
    client.ask(methods.QueueUnbind(queue=name, exchange="amq.topic", routing_key="b"))
    client.consume(name, "t")
    for _ in range(2):
        client.move(successor(client.world))
        client.publish("a.b", b"1", exchange="amq.topic")
        client.publish("b", b"2", exchange="amq.topic")
        assert [body for _, _, body in deliveries(client)] == [b"1"]
    client.send(methods.QueueDelete(queue=name))
    client.answers()
    client.move(successor(client.world))
    assert not client.world.vhost.queues


def test_nobody_else_may_use_a_reserved_name() -> None:
    world = World()
    client = carried(world)
    name = client.declare("", exclusive=True)
    client.move(successor(world))
    stranger = client.world.client()
    stranger.send(methods.QueueDeclare(queue=f"{name}x"))
    text = f"ACCESS_REFUSED - queue name '{name}x' contains reserved prefix 'amq.*'"
    stranger.expect_channel_close(403, text, methods.QueueDeclare)
    client.send(methods.QueueDeclare(queue=f"{name}x"))
    client.expect_channel_close(403, text, methods.QueueDeclare)


def test_what_cannot_be_declared_again_is_left_out() -> None:
    world = World()
    world.client().ask(methods.ExchangeDeclare(exchange="theirs"))
    client = carried(world)
    client.ask(methods.ExchangeDeclare(exchange="mine"))
    client.declare("a", exclusive=True)
    for exchange in ("theirs", "mine", "amq.fanout"):
        client.ask(methods.QueueBind(queue="a", exchange=exchange, routing_key="k"))
    client.consume("a", "t")
    client.move(successor(world))
    assert client.answers() == []
    client.publish("k", b"1", exchange="mine")
    client.publish("k", b"2", exchange="amq.fanout")
    assert [body for _, _, body in deliveries(client)] == [b"1", b"2"]


def test_a_queue_that_went_with_its_last_consumer_does_not_come_back() -> None:
    world = World()
    client = carried(world)
    client.declare("a", auto_delete=True)
    client.consume("a", "t")
    client.ask(methods.BasicCancel(consumer_tag="t"))
    client.move(successor(world))
    assert not client.world.vhost.queues


def test_answers_to_requests_come_back_at_the_next_leader() -> None:
    world = World()
    client = carried(world)
    client.consume("amq.rabbitmq.reply-to", "replies", no_ack=True)
    client.declare("service", durable=True)
    for _ in range(2):
        client.move(successor(client.world))
        client.publish("service", b"?", reply_to="amq.rabbitmq.reply-to")
        got = client.get("service")
        assert got is not None and got.props.reply_to is not None
        client.publish(got.props.reply_to, b"!")
        assert [(tag, body) for tag, _, body in deliveries(client)] == [("replies", b"!")]


# ---- the ends


def test_a_channel_that_the_leader_closed_and_the_client_has_not_agreed_to() -> None:
    world = World()
    client = confirming(world, 1, 2)
    client.send(methods.QueueDeclare(queue="missing", passive=True))
    (said,) = client.answers()
    assert isinstance(said.method, methods.ChannelClose)
    client.move(successor(world))
    client.publish("q", b"1")
    client.send(methods.BasicAck(delivery_tag=1), methods.QueuePurge(queue="q"))
    client.send(methods.ChannelClose())
    client.expect(methods.ChannelCloseOk())
    client.send(methods.ChannelCloseOk())
    assert client.answers() == []
    client.open()
    assert list(client.session.channels) == [2, 1]


def test_a_channel_that_both_were_closing() -> None:
    world = World()
    client = carried(world)
    client.slow = True
    client.send(methods.QueueDeclare(queue="missing", passive=True))
    client.up(10_000)
    world.settle()
    client.collect()
    client.send(methods.ChannelClose())
    client.down(10_000)
    (said,) = client.answers()
    assert isinstance(said.method, methods.ChannelClose)
    client.slow = False
    client.move(successor(world))
    client.expect(methods.ChannelCloseOk())
    client.send(methods.ChannelCloseOk())
    assert client.answers() == []
    client.open()


def test_a_leader_that_goes_before_it_has_heard_everything() -> None:
    world = World()
    client = confirming(world)
    name = client.declare("", exclusive=True)
    client.consume(name, "t")
    client.slow = True
    client.publish("q", b"1")
    client.send(methods.QueuePurge(queue="q"))
    client.publish(name, b"2")
    for cut in range(0, 400, 7):
        client.lose_leader()
        client.go_on(successor(client.world))
        for _ in range(20):
            client.up(cut)
            client.world.settle()
            client.collect()
            client.down(cut)
            if cut < 200:
                break
    client.slow = False
    client.move(successor(client.world))
    said = [each.method for each in client.answers() if not isinstance(each.method, methods.BasicDeliver)]
    assert sum(isinstance(each, methods.QueuePurgeOk) for each in said) == 1
    assert client.gateway.kept_bytes == 0
    assert drained(client.world, "q") == []


def test_a_connection_that_the_client_was_closing() -> None:
    world = World()
    client = carried(world)
    client.slow = True
    client.send(methods.ConnectionClose(), channel=0)
    client.lose_leader()
    client.expect(methods.ConnectionCloseOk(), channel=0)
    assert not client.gateway.resumable


def test_a_connection_that_the_leader_has_closed_is_over() -> None:
    world = World()
    client = carried(world)
    client.send(methods.BasicQos(prefetch_size=1))
    (said,) = client.answers()
    assert isinstance(said.method, methods.ConnectionClose)
    assert not client.gateway.resumable


def test_who_was_blocked_is_told_that_it_is_over() -> None:
    world = World()
    client = carried(world)
    client.declare("q", durable=True)
    world.hub.set_alarm("memory")
    client.publish("q", b"1")
    assert isinstance(client.answers()[0].method, methods.ConnectionBlocked)
    client.move(successor(world))
    client.expect(methods.ConnectionUnblocked(), channel=0)


def test_a_transaction_cannot_go_on() -> None:
    client = carried(World())
    client.ask(methods.TxSelect())
    assert not client.gateway.resumable
    assert client.gateway.why_not == "it has transactions"


@pytest.mark.parametrize("header", [PROTOCOL_HEADER, LEGACY_PROTOCOL_HEADER])
@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_a_client_that_says_everything_at_once(header: bytes, size: int) -> None:
    client = Carried(World())
    tune = methods.ConnectionTuneOk(channel_max=9, frame_max=5000, heartbeat=0)
    data = header + start_ok("guest", "guest").frame(0) + tune.frame(0) + methods.ConnectionOpen().frame(0)
    data += methods.ChannelOpen().frame(1) + methods.QueueDeclare(queue="q", durable=True).frame(1)
    for at in range(0, len(data), size):
        client.raw(data[at : at + size])
    assert client.answers()[-1].method == methods.QueueDeclareOk(queue="q")
    client.move(successor(client.world))
    assert (client.session.frame_max, client.session.channel_max) == (5000, 9)
    assert client.declare("q", durable=True) == "q"


@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\0\0\x09\0", b"AMQP\1\1\0\x0a", b"\x16\x03\1"])
def test_another_protocol_is_the_leaders_business(opening: bytes) -> None:
    client, beside = Carried(World()), World().connect()
    for each in (client, beside):
        each.raw(opening)
        each.world.settle()
    assert client.received == beside.received == PROTOCOL_HEADER


@pytest.mark.parametrize(
    ("mechanism", "response", "user"),
    [
        ("PLAIN", b"\0guest\0guest", "guest"),
        ("AMQPLAIN", encode_table({"LOGIN": "guest", "PASSWORD": "guest"})[4:], "guest"),
        ("ANONYMOUS", b"", "joe"),
    ],
)
def test_whoever_it_was_goes_on(mechanism: str, response: bytes, user: str) -> None:
    world, new = World(anonymous_user="joe"), World(anonymous_user="joe")
    for each in (world, new):
        each.change(lambda roster: roster.set_permissions("joe", "/", EVERYTHING))
    client = Carried(world)
    start = methods.ConnectionStartOk(client_properties={"product": "x"}, mechanism=mechanism, response=response)
    client.raw(PROTOCOL_HEADER + start.frame(0) + methods.ConnectionTuneOk(2047, 131_072, 0).frame(0))
    client.raw(methods.ConnectionOpen().frame(0))
    assert client.answers()[-1].method == methods.ConnectionOpenOk()
    client.move(new)
    session = client.session
    assert (session.user.name, session.mechanism, session.client_properties) == (user, mechanism, {"product": "x"})
    assert b"guest\0guest" not in client.gateway.passport()


def test_nor_can_what_has_not_begun() -> None:
    client = Carried(World())
    client.begin()
    assert not client.gateway.resumable


@pytest.mark.parametrize("missing", ["user", "vhost", "permission"])
def test_a_session_of_somebody_who_may_not_any_more(missing: str) -> None:
    world = World()
    world.add_vhost("team")
    client = carried(world, vhost="team")
    new = successor(world)
    if missing == "user":
        new.change(lambda roster: roster.delete_user("guest"))
    elif missing == "vhost":
        new.change(lambda roster: roster.delete_vhost("team"))
    else:
        new.change(lambda roster: roster.clear_permissions("guest", "team"))
    client.lose_leader()
    before = len(new.hub.sessions)
    with pytest.raises(ConnectionFailure):
        client.go_on(new)
    assert not client.session.channels and len(new.hub.sessions) == before + 1


PUBLISH = frames(publication("q", b"x" * 9))
WRONG = {
    "a frame of no type": b"\x04\0\1\0\0\0\0\xce",
    "a frame that is too large": b"\1\0\1\0\3\0\0",
    "a method without ids": b"\1\0\1\0\0\0\2\xff\xff\xce",
    "a body out of turn": PUBLISH[2],
    "a method in a content": b"".join([*PUBLISH[:2], PUBLISH[0]]),
    "content of another class": PUBLISH[0] + PUBLISH[1].replace(b"\0\x3c", b"\0\x32"),
    "content of some weight": PUBLISH[0] + PUBLISH[1].replace(b"\0\x3c\0\0", b"\0\x3c\0\1"),
    "a body that is too long": b"".join([*PUBLISH[:2], publication("q", b"x" * 10)[-18:]]),
    "a method that does not decode": b"\1\0\1\0\0\0\5\0\x3c\0\x28\0\xce",
    "a publish on channel 0": methods.BasicPublish().frame(0),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_makes_no_sense_is_the_leaders_business_at_once(wrong: str) -> None:
    client = carried(World(), 1, 2)
    beside = World().client(1, 2)
    for each in (client, beside):
        each.raw(publication("q", b"whole", channel=2) + PUBLISH[0].replace(b"\1\0\1", b"\1\0\2"))
        each.raw(WRONG[wrong])
        each.world.settle()
    assert client.received == beside.received
    assert isinstance(client.answers()[0].method, methods.ConnectionClose)
    assert not client.gateway.resumable


def test_texts_that_do_not_decode() -> None:
    client = carried(World())
    client.raw(publication("k", exchange=b"\xff".decode("utf-8", "surrogateescape")))
    (said,) = client.answers()
    assert isinstance(said.method, methods.ChannelClose)
