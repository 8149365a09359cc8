"""Channels: numbers and their reuse, how many, errors, and the silence until close-ok."""

from __future__ import annotations

import pytest

from rabbitish.wire import methods
from rabbitish.wire.method import Method

from .client import Client, close_of, publication
from .harness import World

CLOSE = methods.ChannelClose(reply_code=200, reply_text="bye")
NO_QUEUE = "NOT_FOUND - no queue 'nosuch' in vhost '/'"
BAD_GET = methods.BasicGet(queue="nosuch")


def test_open_and_close(client: Client) -> None:
    client.send(CLOSE)
    client.expect(methods.ChannelCloseOk())
    assert client.session.channels == {}


@pytest.mark.parametrize("number", [1, 2, 2047, 2048, 65_535])
def test_any_number_will_do(world: World, number: int) -> None:
    client = world.client(number)
    client.declare("q", channel=number)
    client.publish("q", b"a", channel=number)
    client.consume("q", channel=number, no_ack=True)
    (said,) = client.answers()
    assert (said.channel, said.body) == (number, b"a")


def test_a_number_is_free_at_once_after_close_ok(client: Client) -> None:
    for _ in range(5):
        client.send(CLOSE, methods.ChannelOpen())
        client.expect(methods.ChannelCloseOk(), methods.ChannelOpenOk())


def test_a_reopened_channel_knows_nothing_of_the_last_one(client: Client) -> None:
    client.declare("q")
    client.consume("q", "t")
    client.send(
        methods.TxSelect(), methods.BasicQos(prefetch_count=1), methods.BasicQos(prefetch_count=1, global_=True)
    )
    assert len(client.answers()) == 3
    client.send(
        CLOSE, methods.ChannelOpen(), methods.ConfirmSelect(), methods.BasicConsume(queue="q", consumer_tag="t")
    )
    assert len(client.answers()) == 4
    client.publish("q", b"a", b"b")
    names = [(said.method.name, getattr(said.method, "delivery_tag", 0)) for said in client.answers() if said.method]
    assert names == [("basic.ack", 2), ("basic.deliver", 1), ("basic.deliver", 2)]
    client.send(methods.BasicGet())
    client.expect_channel_close(404, "NOT_FOUND - no previously declared queue", methods.BasicGet)


def test_channel_max_is_how_many_and_not_the_highest(world: World) -> None:
    client = world.client(11, 40, 65_535, channel_max=3)
    client.send(methods.ChannelOpen(), channel=1)
    text = "NOT_ALLOWED - number of channels opened (3) has reached the negotiated channel_max (3)"
    client.expect_connection_close(530, text)


def test_all_2047_channels_and_back(world: World) -> None:
    client = world.client()
    for _ in range(2):
        client.raw(b"".join(methods.ChannelOpen().frame(number) for number in range(2, 2048)))
        assert client.methods() == [methods.ChannelOpenOk()] * 2046
        client.raw(b"".join(CLOSE.frame(number) for number in range(2, 2048)))
        assert client.methods() == [methods.ChannelCloseOk()] * 2046


def test_a_channel_counts_until_it_is_closed_on_both_sides(world: World) -> None:
    client = world.client(1, 2, channel_max=2)
    client.send(BAD_GET, channel=2)
    client.expect(close_of(methods.ChannelClose, 404, NO_QUEUE, methods.BasicGet), channel=2)
    client.send(methods.ChannelCloseOk(), channel=2)
    client.open(3)
    client.send(methods.ChannelOpen(), channel=4)
    text = "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"
    client.expect_connection_close(530, text)


# --- errors that cost the connection ---------------------------------------------------------------------------------


def test_open_twice(client: Client) -> None:
    client.send(methods.ChannelOpen())
    client.expect_connection_close(504, "CHANNEL_ERROR - second 'channel.open' seen", methods.ChannelOpen)


@pytest.mark.parametrize("method", [CLOSE, methods.ChannelCloseOk(), methods.QueueDeclare(), methods.TxCommit()])
def test_a_channel_that_is_not_open(client: Client, method: Method) -> None:
    client.send(method, channel=2)
    client.expect_connection_close(504, "CHANNEL_ERROR - expected 'channel.open'", type(method))


def test_a_publish_on_a_channel_that_is_not_open(client: Client) -> None:
    client.publish("q", b"x", channel=2)
    client.expect_connection_close(504, "CHANNEL_ERROR - expected 'channel.open'", methods.BasicPublish)


def test_a_channel_that_was_closed(client: Client) -> None:
    client.send(CLOSE)
    client.expect(methods.ChannelCloseOk())
    client.send(methods.BasicQos())
    client.expect_connection_close(504, "CHANNEL_ERROR - expected 'channel.open'", methods.BasicQos)


@pytest.mark.parametrize(
    "method",
    [
        methods.ConnectionClose(),
        methods.ChannelOpenOk(),
        methods.ChannelCloseOk(),
        methods.ChannelFlowOk(),
        methods.QueueDeclareOk(),
        methods.BasicConsumeOk(),
        methods.ConfirmSelectOk(),
    ],
    ids=lambda method: method.name,
)
def test_methods_that_are_not_for_a_broker(client: Client, method: Method) -> None:
    client.send(method)
    client.expect_connection_close(503, "COMMAND_INVALID - unimplemented method", type(method))


@pytest.mark.parametrize("method", [methods.BasicDeliver(), methods.BasicReturn(), methods.BasicGetOk()])
def test_content_that_is_not_for_a_broker(client: Client, method: Method) -> None:
    client.send(method)
    client.raw(publication("")[len(methods.BasicPublish().frame(1)) :])
    client.expect_connection_close(503, "COMMAND_INVALID - unimplemented method", type(method))


def test_flow(client: Client) -> None:
    client.send(methods.ChannelFlow(active=True))
    client.expect(methods.ChannelFlowOk(active=True))
    client.send(methods.ChannelFlow(active=False))
    client.expect_connection_close(540, "NOT_IMPLEMENTED - active=false", methods.ChannelFlow)


def test_access_request(client: Client) -> None:
    client.send(methods.AccessRequest())
    client.expect(methods.AccessRequestOk(ticket=1))


# --- errors that cost the channel ------------------------------------------------------------------------------------


def test_an_error_closes_only_its_channel(world: World) -> None:
    client = world.client(1, 2)
    client.declare("q", channel=2)
    client.consume("q", channel=2, no_ack=True)
    client.send(BAD_GET)
    client.expect_channel_close(404, NO_QUEUE, methods.BasicGet)
    client.publish("q", b"still here", channel=2)
    assert client.bodies() == [b"still here"]
    (logged,) = world.logged("channel closed for an error")
    assert logged["channel"] == 1 and str(logged["error"]) == f"404 {NO_QUEUE}"


def test_until_close_ok_everything_else_is_ignored(world: World, client: Client) -> None:
    client.declare("q")
    client.send(BAD_GET)
    client.send(methods.QueueDeclare(queue="another"), BAD_GET, methods.BasicAck(delivery_tag=9), methods.TxCommit())
    client.publish("q", b"ignored", b"")
    client.publish("q", b"ignored", exchange="nosuch")
    client.expect_channel_close(404, NO_QUEUE, methods.BasicGet)
    client.open()
    assert client.get("q") is None
    assert list(world.vhost.queues) == ["q"]


def test_everything_up_to_the_error_holds(world: World, client: Client) -> None:
    client.declare("q")
    client.send(methods.ConfirmSelect())
    client.raw(publication("q", b"a") + publication("q", b"b") + publication("q", exchange="nosuch") + publication("q"))
    missing = "NOT_FOUND - no exchange 'nosuch' in vhost '/'"
    client.expect(
        methods.ConfirmSelectOk(),
        methods.BasicAck(delivery_tag=2, multiple=True),
        close_of(methods.ChannelClose, 404, missing, methods.BasicPublish),
    )
    assert world.queue("q").ready == 2


def test_both_close_at_once(client: Client) -> None:
    client.send(BAD_GET, CLOSE)
    client.expect(close_of(methods.ChannelClose, 404, NO_QUEUE, methods.BasicGet), methods.ChannelCloseOk())
    client.send(methods.BasicGet(queue="q"))
    assert client.answers() == [], "close-ok is still to come"
    client.send(methods.ChannelCloseOk(), methods.ChannelOpen())
    client.expect(methods.ChannelOpenOk())


def test_opening_a_channel_that_is_closing(client: Client) -> None:
    client.send(BAD_GET, methods.ChannelOpen())
    assert client.methods() == [
        close_of(methods.ChannelClose, 404, NO_QUEUE, methods.BasicGet),
        close_of(methods.ConnectionClose, 504, "CHANNEL_ERROR - second 'channel.open' seen", methods.ChannelOpen),
    ]


def test_a_closed_channel_gives_back_what_it_held(world: World, client: Client, other: Client) -> None:
    client.declare("q")
    client.publish("q", b"a", b"b", b"c")
    client.consume("q", "t")
    assert client.bodies() == [b"a", b"b", b"c"]
    client.send(methods.BasicAck(delivery_tag=2))
    client.send(BAD_GET)
    assert len(client.answers()) == 1
    assert len(world.queue("q").consumers) == 0
    assert [(said.body, said.method.redelivered) for said in iter(lambda: other.get("q"), None)] == [  # type: ignore[union-attr]
        (b"a", True),
        (b"c", True),
    ]
