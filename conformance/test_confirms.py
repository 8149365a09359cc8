"""Publisher confirms, basic.return and nacks: their numbers, their order, and that each publish gets exactly one.

pika's blocking channel hides the frames, so most of this is told with a raw peer: it looks at the acks themselves.
"""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError, UnroutableError

from conformance.clients import closes, drain, must_get, no_exchange, publish, ready, sync
from conformance.rawpeer import METHOD, RawPeer, content, decode, describe, publish_method
from conformance.support import Names, eventually

CONTENT = 2, 3
"""Types of the frames that follow a basic.return."""


class Outcome:
    """What came back for publishes: acked and nacked sequence numbers, and the order of everything."""

    def __init__(self) -> None:
        self.acked: set[int] = set()
        self.nacked: set[int] = set()
        self.events: list[str] = []
        self._lowest = 1

    def settle(self, event: Any) -> None:
        """Take one basic.ack, basic.nack or basic.return."""
        if isinstance(event, commands.Basic.Return):
            self.events.append(f"return {event.routing_key}")
            return
        into = self.acked if isinstance(event, commands.Basic.Ack) else self.nacked
        known = self.acked | self.nacked
        first = self._lowest if event.multiple else event.delivery_tag
        for tag in range(first, event.delivery_tag + 1):
            if tag not in known:
                into.add(tag)
                self.events.append(f"{event.name.split('.')[1].lower()} {tag}")
        assert event.delivery_tag not in known, f"{event.name} {event.delivery_tag} came twice"


def _select(peer: RawPeer, channel: int = 1) -> None:
    peer.ask(channel, commands.Confirm.Select())


def _collect(peer: RawPeer, count: int) -> Outcome:
    """Read until `count` publishes are acked or nacked."""
    outcome = Outcome()
    while len(outcome.acked) + len(outcome.nacked) < count:
        frame = peer.read()
        if frame.type == METHOD:
            event = decode(frame)
            assert isinstance(event, (commands.Basic.Ack, commands.Basic.Nack, commands.Basic.Return)), describe(frame)
            outcome.settle(event)
        else:
            assert frame.type in CONTENT
    return outcome


# --- acks ------------------------------------------------------------------------------------------------------------


def test_numbers_start_at_one_and_go_up(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"before confirm.select")
    _select(peer)
    for tag in (1, 2, 3):
        peer.publish(1, "", queue, b"m")
        ack = peer.expect(60, 80, 1)
        assert (ack.delivery_tag, ack.multiple) == (tag, False)
    peer.sync()


def test_selecting_again_does_not_start_over(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    _select(peer)
    peer.publish(1, "", queue, b"m")
    assert peer.expect(60, 80, 1).delivery_tag == 1
    _select(peer)
    peer.publish(1, "", queue, b"m")
    assert peer.expect(60, 80, 1).delivery_tag == 2


def test_every_channel_counts_for_itself(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.channel(2)
    for channel in (1, 2):
        _select(peer, channel)
    for channel in (1, 2, 2, 1):
        peer.publish(channel, "", queue, b"m")
        peer.expect(60, 80, channel)
    peer.publish(2, "", queue, b"m")
    assert peer.expect(60, 80, 2).delivery_tag == 3


def test_without_select_there_are_no_confirms(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.publish(1, "", queue, b"m")
    peer.publish(1, "", name(), b"to nobody")
    peer.sync()


@pytest.mark.parametrize("persistent", [False, True])
def test_a_burst_is_acked_once_each(peer: RawPeer, name: Names, persistent: bool) -> None:
    queue = peer.declare(1, name(), durable=True)
    _select(peer)
    properties = b"\x10\x00\x02" if persistent else b"\x10\x00\x01"
    for _ in range(300):
        peer.publish(1, "", queue, b"m", properties)
    assert _collect(peer, 300).acked == set(range(1, 301))
    peer.sync()


@pytest.mark.parametrize("copies", [0, 1, 5])
def test_one_ack_however_many_queues(peer: RawPeer, name: Names, copies: int) -> None:
    exchange = name("x")
    peer.ask(1, commands.Exchange.Declare(exchange=exchange, exchange_type="fanout"))
    for _ in range(copies):
        queue = peer.declare(1, name())
        peer.ask(1, commands.Queue.Bind(queue=queue, exchange=exchange))
    _select(peer)
    for _ in range(3):
        peer.publish(1, exchange, "k", b"m")
    assert _collect(peer, 3).acked == {1, 2, 3}
    peer.sync()


@pytest.mark.parametrize(
    "arguments",
    [{"x-message-ttl": 0}, {"x-max-length": 0}, {"x-max-length": 1}, {"x-max-length-bytes": 0}, {"x-message-ttl": 1}],
)
def test_messages_that_a_queue_drops_are_acked(peer: RawPeer, name: Names, arguments: dict[str, Any]) -> None:
    queue = peer.declare(1, name(), arguments)
    _select(peer)
    for _ in range(5):
        peer.publish(1, "", queue, b"m")
    assert _collect(peer, 5).acked == {1, 2, 3, 4, 5}
    peer.sync()


def test_confirm_after_the_queue_is_gone(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    _select(peer)
    peer.publish(1, "", queue, b"m")
    assert peer.expect(60, 80, 1).delivery_tag == 1
    peer.ask(1, commands.Queue.Delete(queue=queue))
    peer.publish(1, "", queue, b"m")
    assert peer.expect(60, 80, 1).delivery_tag == 2


def test_confirms_while_a_queue_comes_and_goes(peer: RawPeer, channel: BlockingChannel, name: Names) -> None:
    queue = name()
    _select(peer)
    for _ in range(10):
        channel.queue_declare(queue)
        peer.send(*[publish_method(1, "", queue) + content(1, b"m")] * 10)
        channel.queue_delete(queue)
    assert _collect(peer, 100).acked == set(range(1, 101))
    peer.sync()


def test_a_consumed_message_is_acked_to_the_publisher(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name())
    peer.channel(2)
    peer.consume(2, queue, "t", no_ack=True)
    _select(peer)
    peer.publish(1, "", queue, b"m")
    seen = set()
    for _ in range(4):
        frame = peer.read()
        seen.add((frame.channel, frame.type))
    assert seen == {(1, 1), (2, 1), (2, 2), (2, 3)}


# --- returns ---------------------------------------------------------------------------------------------------------


def test_return_comes_before_the_ack(peer: RawPeer, name: Names) -> None:
    missing = name()
    _select(peer)
    for _ in range(3):
        peer.publish(1, "", missing, b"body", mandatory=True)
        back = peer.expect(60, 50, 1)
        assert (back.reply_code, back.reply_text, back.exchange, back.routing_key) == (312, "NO_ROUTE", "", missing)
        assert peer.expect_content(1).body == b"body"
        peer.expect(60, 80, 1)


def test_return_without_confirms(peer: RawPeer, name: Names) -> None:
    missing = name()
    peer.publish(1, "", missing, b"", mandatory=True)
    assert peer.expect(60, 50, 1).reply_code == 312
    assert peer.expect_content(1) == (b"\x00\x00", 0, [])
    peer.sync()


def test_only_unrouted_ones_are_returned(peer: RawPeer, name: Names) -> None:
    queue, missing = peer.declare(1, name()), name()
    _select(peer)
    for key in (queue, missing, queue, missing):
        peer.publish(1, "", key, b"m", mandatory=True)
    outcome = _collect(peer, 4)
    assert outcome.acked == {1, 2, 3, 4}
    returns = [event for event in outcome.events if event.startswith("return")]
    assert returns == [f"return {missing}"] * 2
    assert outcome.events.index("ack 4") > outcome.events.index(returns[0])


def test_a_returned_message_has_its_properties(channel: BlockingChannel, name: Names) -> None:
    returned: list[Any] = []
    channel.add_on_return_callback(lambda *args: returned.append(args[1:]))
    missing, exchange = name(), name("x")
    channel.exchange_declare(exchange, "direct")
    properties: dict[str, Any] = {"headers": {"CC": ["cc"], "h": 1}, "message_id": "id", "delivery_mode": 2}
    for where in ("", exchange):
        channel.basic_publish(where, missing, b"body", BasicProperties(**properties), mandatory=True)
    sync(channel)
    channel.connection.process_data_events(0)
    assert [(m.reply_code, m.reply_text, m.exchange, m.routing_key) for m, _, _ in returned] == [
        (312, "NO_ROUTE", "", missing),
        (312, "NO_ROUTE", exchange, missing),
    ]
    for _, got, body in returned:
        assert (body, got.headers, got.message_id, got.delivery_mode) == (b"body", {"CC": ["cc"], "h": 1}, "id", 2)


@pytest.mark.parametrize(
    "drops", [{"x-max-length": 0}, {"x-message-ttl": 0}, {"x-max-length": 0, "x-overflow": "reject-publish"}]
)
def test_routed_but_dropped_is_not_returned(peer: RawPeer, name: Names, drops: dict[str, Any]) -> None:
    queue = peer.declare(1, name(), drops)
    peer.publish(1, "", queue, b"m", mandatory=True)
    peer.sync()


# --- errors ----------------------------------------------------------------------------------------------------------


def test_the_publish_that_closes_the_channel_is_not_confirmed(peer: RawPeer, name: Names) -> None:
    missing = name("x")
    _select(peer)
    peer.publish(1, missing, "k", b"m")
    peer.expect_close(404, no_exchange(missing), 60, 40, channel=1)
    peer.channel(1)
    _select(peer)
    peer.publish(1, "", "nowhere", b"m")
    assert peer.expect(60, 80, 1).delivery_tag == 1


@pytest.mark.parametrize("first", ["tx", "confirm"])
def test_confirms_and_transactions_exclude_each_other(channel: BlockingChannel, first: str) -> None:
    if first == "tx":
        channel.tx_select()
        channel.tx_select()
        with closes(channel, 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode"):
            channel.confirm_delivery()
    else:
        channel.confirm_delivery()
        with closes(channel, 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode"):
            channel.tx_select()


# --- nacks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_full_queue_nacks(channel: BlockingChannel, name: Names, overflow: str) -> None:
    queue = name()
    channel.queue_declare(queue, arguments={"x-max-length": 2, "x-overflow": overflow})
    publish(channel, queue, "a", "b")
    with pytest.raises(NackError):
        publish(channel, queue, "c")
    assert must_get(channel, queue).body == b"a"
    publish(channel, queue, "d")
    assert drain(channel, queue) == ["b", "d"]


def test_acks_and_nacks_share_the_numbers(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name(), {"x-max-length": 2, "x-overflow": "reject-publish"})
    _select(peer)
    for _ in range(5):
        peer.publish(1, "", queue, b"m")
    outcome = _collect(peer, 5)
    assert (outcome.acked, outcome.nacked) == ({1, 2}, {3, 4, 5})
    peer.sync()


def test_nack_has_the_requeue_bit(peer: RawPeer, name: Names) -> None:
    queue = peer.declare(1, name(), {"x-max-length": 0, "x-overflow": "reject-publish"})
    _select(peer)
    peer.publish(1, "", queue, b"m")
    nack = peer.expect(60, 120, 1)
    assert (nack.delivery_tag, nack.requeue) == (1, True)  # RabbitMQ also sets multiple


def test_one_refusing_queue_is_enough_for_a_nack(channel: BlockingChannel, name: Names) -> None:
    exchange, full, free = name("x"), name(), name()
    channel.exchange_declare(exchange, "fanout")
    channel.queue_declare(full, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.queue_declare(free)
    publish(channel, full, "there already")
    for queue in (full, free):
        channel.queue_bind(queue, exchange)
    with pytest.raises(NackError):
        publish(channel, "", "m", exchange=exchange)
    assert eventually(lambda: ready(channel, free) == 1)
    assert drain(channel, full) == ["there already"]


def test_unroutable_in_confirm_mode(channel: BlockingChannel, name: Names) -> None:
    publish(channel, name(), "not mandatory: acked")
    with pytest.raises(UnroutableError) as caught:
        channel.basic_publish("", "nowhere", b"m", mandatory=True)
    assert [message.body for message in caught.value.messages] == [b"m"]
