"""The fast way through deliveries and confirms is the slow way: the same traffic through both, in any pieces."""

from __future__ import annotations

import random

import pytest

from rabbitish.client.protocol import connection
from rabbitish.client.protocol.confirms import Publish
from rabbitish.wire import methods
from rabbitish.wire.frames import HEARTBEAT
from rabbitish.wire.properties import Properties

from .peer import RAW, Broker, content

CHANNELS = 3


def traffic(rng: random.Random) -> bytes:
    """Something that a broker may say on one of the channels."""
    channel = rng.randint(1, CHANNELS)
    tag = rng.randrange(1, 40)
    if rng.random() < 0.3:
        kind = methods.BasicAck if rng.random() < 0.7 else methods.BasicNack
        return kind(delivery_tag=tag, multiple=rng.random() < 0.3).frame(channel % 2 + 1)
    if rng.random() < 0.1:
        return rng.choice([HEARTBEAT, methods.ChannelFlow(active=True).frame(channel)])
    body = b"\xce" * rng.choice([0, 1, 30, 5000])
    raw = rng.choice([RAW, Properties(headers={"a": "\u00e4"}, message_id="1").encode()])
    deliver = methods.BasicDeliver(
        consumer_tag=rng.choice(["acked", "not acked", "gone"]),
        delivery_tag=rng.randrange(1 << 20),
        redelivered=rng.random() < 0.5,
        exchange=rng.choice(["", "\u00e4" * 100]),
        routing_key=rng.choice(["", "a.b"]),
    )
    return content(channel, deliver, body, raw, 4096)


def delivery(tag: int) -> bytes:
    """A message in three frames, with nothing in it that looks like a frame's end."""
    return content(1, methods.BasicDeliver(consumer_tag="acked", delivery_tag=tag), b"body")


class Side:
    """A client, and everything that can be seen of it."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.broker.open(frame_max=4096)
        self.seen: list[object] = []
        for number in range(1, CHANNELS + 1):
            state = self.broker.channel(confirms=number != 3)
            for tag in ("acked", "not acked", "gone"):
                consumer, _ = state.consume(methods.BasicConsume(consumer_tag=tag, no_ack=tag == "not acked"))
                self.broker.say(methods.BasicConsumeOk(consumer_tag=tag), channel=number)
                if tag == "gone":
                    state.cancel(consumer)
            for index in range(30):
                publish = Publish("", "q", True, RAW, b"%d" % index)
                publish.callback = self.seen.append
                publish.number = index
                state.publish(publish)
        self.broker.said()

    def look(self) -> object:
        """What there is now."""
        protocol = self.broker.protocol
        seen = [(publish.number, type(publish.error)) for publish in self.seen if isinstance(publish, Publish)]
        self.seen.clear()
        return (
            seen,
            type(protocol.error),
            protocol.take(),
            [
                (
                    number,
                    list(state.unsettled),
                    [
                        (
                            tag,
                            [
                                (
                                    message.delivery_tag,
                                    message.redelivered,
                                    message.exchange,
                                    message.routing_key,
                                    message.properties,
                                    message.body,
                                    message.no_ack,
                                    message.consumer_tag,
                                )
                                for message in consumer.buffer
                            ],
                        )
                        for tag, consumer in state.consumers.items()
                    ],
                )
                for number, state in protocol.channels.items()
            ],
        )


@pytest.mark.parametrize("seed", range(16))
def test_both_ways_see_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    fast, slow = Side(), Side()
    taken = 0
    skim = connection.skim

    def choose(protocol: connection.Protocol) -> None:
        nonlocal taken
        if protocol is fast.broker.protocol:
            before = protocol.parser.pos
            skim(protocol)
            taken += protocol.parser.pos != before

    monkeypatch.setattr(connection, "skim", choose)
    data = b"".join(traffic(rng) for _ in range(60))
    if seed % 4 == 3:  # and something that is not asked for
        data += methods.BasicAck(delivery_tag=1).frame(3) + delivery(1)
    if seed % 4 == 2:  # or a message without its content
        data += methods.BasicDeliver(consumer_tag="acked", delivery_tag=1 << 30).frame(1) + delivery(1) + delivery(2)
    if seed % 4 == 1:  # or a frame with a wrong end
        sound = delivery(1)
        ends = [place for place in range(len(sound)) if sound[place] == 0xCE]
        place = rng.choice(ends)
        data += sound[:place] + b"\0" + sound[place + 1 :] + delivery(2)
    while data:
        size = rng.choice([1, 7, 100, 3000, 100_000])
        for side in (fast, slow):
            side.broker.protocol.receive(data[:size])
        data = data[size:]
        assert fast.look() == slow.look()
        for side in (fast, slow):
            for state in side.broker.protocol.channels.values():
                for consumer in state.consumers.values():
                    for message in consumer.buffer:
                        if not message.settled and message.delivery_tag % 3 == 0:
                            message.ack()
                    consumer.buffer.clear()
    assert taken
    assert (fast.broker.protocol.error is None) is (seed % 4 == 0)
