"""What the tests of bad input share: a broker with a good client and a bad one, and what must hold at the end.

Whatever a peer sends is accepted, or answered with a close; nothing raises, and nobody else notices. At the end the
good client must still get a message through, nothing of ours may have gone wrong, and when the bad one is gone nothing
of it may be left.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from rabbitish.core.queue import HANDFUL_BYTES
from rabbitish.errors import ReplyCode
from rabbitish.wire import methods
from rabbitish.wire.frames import HEARTBEAT, PROTOCOL_HEADER

from .client import publication, start_ok
from .harness import World

KIB = 1024
CODES = {int(code) for code in ReplyCode}
LIMITS = methods.ConnectionTuneOk(channel_max=2047, frame_max=131_072, heartbeat=60)
LOGIN: list[bytes] = [
    PROTOCOL_HEADER,
    start_ok("guest", "guest", {"product": "fuzz", "capabilities": {"consumer_cancel_notify": True}}).frame(0),
    LIMITS.frame(0),
    methods.ConnectionOpen().frame(0),
]
DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def conversation() -> list[bytes]:
    """A valid conversation with something of everything in it, in pieces that belong together."""
    a, b = 1, 2
    one = [
        methods.ChannelOpen(),
        methods.QueueDeclare(queue="dead"),
        methods.QueueDeclare(queue="q", arguments={**DEAD, "x-message-ttl": 60_000, "x-max-length": 3}),
        methods.ExchangeDeclare(exchange="x", type="headers", arguments={"alternate-exchange": "amq.fanout"}),
        methods.QueueBind(queue="q", exchange="x", arguments={"x-match": "any", "a": 1, "t": {"n": [1, "x", None]}}),
        methods.ExchangeBind(destination="x", source="amq.topic", routing_key="a.*.#"),
        methods.ConfirmSelect(),
        methods.BasicQos(prefetch_count=2),
        methods.BasicConsume(queue="q", consumer_tag="t", arguments={"x-priority": 3}),
    ]
    two = [methods.ChannelOpen(), methods.TxSelect(), methods.BasicConsume(queue="amq.rabbitmq.reply-to", no_ack=True)]
    said = [method.frame(a) for method in one] + [method.frame(b) for method in two]
    said += [
        publication("q", b"body", headers={"a": 1}, mandatory=True),
        publication("a.b", b"body", exchange="amq.topic", headers={"CC": ["q"], "BCC": ["dead"]}, delivery_mode=2),
        publication("q", b"x" * 500, frame_max=108, channel=b, reply_to="amq.rabbitmq.reply-to", expiration="1000"),
        methods.TxCommit().frame(b),
        publication("q", b"", user_id="guest", priority=3) * 3,
        methods.BasicAck(delivery_tag=1).frame(a),
        methods.BasicNack(delivery_tag=2, requeue=True).frame(a),
        HEARTBEAT,
        methods.BasicGet(queue="q").frame(a),
        methods.BasicReject(delivery_tag=3, requeue=False).frame(a),
        methods.BasicRecover(requeue=True).frame(b),
        methods.BasicCancel(consumer_tag="t").frame(a),
        methods.QueuePurge(queue="q").frame(a),
        methods.QueueUnbind(queue="q", exchange="x", arguments={"a": 1}).frame(a),
        methods.ChannelFlow(active=True).frame(a),
        methods.QueueDelete(queue="q").frame(a),
        methods.ExchangeDelete(exchange="x", if_unused=True).frame(a),
        methods.ConnectionUpdateSecret(new_secret=b"s").frame(0),
        methods.ChannelClose().frame(b),
        methods.ConnectionClose().frame(0),
    ]
    return said


CONVERSATION = conversation()


class Stage:
    """A world with a good client, and a bad one as far as it has come."""

    def __init__(self, reached: int = len(LOGIN)) -> None:
        self.world = World(
            outbox_bytes_high=64 * KIB,
            outbox_bytes_low=16 * KIB,
            max_message_bytes=KIB * KIB,
            partial_content_bytes=2 * KIB * KIB,
        )
        self.world.keep_journal()
        self.good = self.world.client(heartbeat=0)
        self.good.declare("good")
        self.good.consume("good", no_ack=True)
        self.bad = self.world.connect()
        for data in LOGIN[:reached]:
            self.bad.raw(data)
            self.world.settle()

    def end(self) -> None:
        """What must hold whatever was sent."""
        world, bad, good = self.world, self.bad, self.good
        world.synced()
        self.check_close()
        assert bad.session.outbox.size <= 4 * world.settings.outbox_bytes_high + HANDFUL_BYTES
        good.answers()
        good.publish("good", b"still here")
        assert good.bodies() == [b"still here"]
        world.advance(1000)
        bad.hang_up()
        assert world.hub.sessions == {good.session}
        assert world.hub.partial_bytes == 0 and world.hub.unsafe == {}
        assert not any(queue.unacked for queue in world.vhost.queues.values())
        assert len(world.queue("good").consumers) == 1
        world.advance(120_000)
        assert good.session.state == "running"
        assert world.exceptions == []

    def check_close(self) -> None:
        """A bad peer is still listened to, or told why not, or not worth an answer."""
        closes = [said.method for said in self.bad.answers() if isinstance(said.method, methods.ConnectionClose)]
        assert len(closes) <= 1
        for close in closes:
            assert close.reply_code in CODES
            assert close.reply_text.startswith(ReplyCode(close.reply_code).name)
        if self.bad.session.state == "closing":
            assert closes


def chop(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


def send(stage: Stage, pieces: list[bytes], cuts: list[int], *, together: bool = True) -> None:
    """Send all of it cut anywhere, or piece by piece."""
    for piece in chop(b"".join(pieces), cuts) if together else pieces:
        stage.bad.raw(piece)
        stage.world.settle()


cuts = st.lists(st.integers(0, 100_000), max_size=4)
numbers = st.one_of(st.integers(0, 4), st.sampled_from([0, 1, 2, 3, 255, 2047, 65_535]))
