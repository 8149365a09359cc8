"""Random traffic, chosen by a seed: what clients might say to a broker, much of it again and again."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from random import Random

import pytest

from rabbitish.core.vhost import REPLY_TO
from rabbitish.session.connection import Session
from rabbitish.values import Float32, Int8, Table, Timestamp
from rabbitish.wire import methods
from rabbitish.wire.frames import CONTENT_HEAD, HEAD, content_frames
from rabbitish.wire.properties import Properties

from .client import Client, publication
from .harness import World
from .pair import CHANNELS, QUEUES, Pair, declaration

STEPS = 40
BINDINGS = (
    ("amq.fanout", "q0"),
    ("amq.direct", "q0"),
    ("amq.topic", "q3"),
    ("amq.topic", "q4"),
    ("x", "q2"),
    ("x", "q5"),
)
KEYS = (*QUEUES, "q0", "q0", "a.b", "", "nowhere")
EXCHANGES = ("", "", "", "", "amq.direct", "amq.fanout", "amq.topic", "amq.headers", "x", "x")
SIZES = (0, 0, 1, 1, 10, 100, 100, 100, 4088, 4089, 10_000, 131_064, 140_000)


def oddities(channel: int) -> list[bytes]:
    """What is just beside what the fast lane knows."""
    method = methods.BasicPublish(routing_key="q0").frame(channel)
    ack = methods.BasicAck(delivery_tag=1).frame(channel)

    def header(size: int = 3, number: int = channel, class_id: int = 60, weight: int = 0, length: int = 14) -> bytes:
        payload = (CONTENT_HEAD.pack(class_id, weight, size) + bytes(99))[:length]
        return HEAD.pack(2, number, len(payload)) + payload + b"\xce"

    def body(size: int = 3, number: int = channel) -> bytes:
        return HEAD.pack(3, number, size) + b"abc" * (size // 3) + b"d" * (size % 3) + b"\xce"

    return [
        method + header(weight=1) + body(),
        method + header(class_id=50) + body(),
        method + header(number=channel % 3 + 1) + body(),
        method + header() + body(number=channel % 3 + 1),
        method + header(2) + body(),
        method + header(4) + body(),
        method + header(0) + body(0),
        *[method + header(length=length) + body() for length in (0, 2, 4, 11, 12, 13, 15)],
        *[method + header(size) + body(size) for size in (4095, 4096, 4097, 131_072, 131_073)],
        method + header() + body()[:-1] + b"\0",
        method + header()[:-1] + b"\0" + body(),
        method[:-1] + b"\0" + header() + body(),
        method + header() + HEAD.pack(2, channel, 3) + b"abc\xce",
        method.replace(b"\x01", b"\x08", 1) + header() + body(),
        method + header().replace(b"\x02", b"\x03", 1) + body(),
        method[:-2] + b"\x02\xce" + header() + body(),
        methods.BasicPublish(routing_key="q0").frame(9) + header(number=9) + body(number=9),
        ack[:-1] + b"\0",
        ack[:-2] + b"\x82\xce",
        ack[:-2] + b"\x83\xce",
        methods.BasicAck(delivery_tag=2).frame(channel)[:-2] + b"\x83\xce",
        ack.replace(b"\0\x3c", b"\0\x3d"),
        b"\x02" + ack[1:],
        methods.BasicAck(delivery_tag=1).frame(9),
        HEAD.pack(8, 0, 0) + b"\xce",
        methods.ChannelClose().frame(channel) + methods.ChannelOpen().frame(channel),
        methods.TxSelect().frame(channel) + method + header() + body() + ack,
    ]


FORMS = 8


def unlike(random: Random, form: int) -> bytes:
    """Properties of one of some forms, with values of their own."""
    number = random.randrange(10**9)
    own = f"{number:09d}"
    mode = random.choice([2, 2, 2, 1])
    forms = [
        Properties(delivery_mode=mode, message_id=own, timestamp=number),
        Properties(delivery_mode=2, content_type="a/b", message_id=str(random.choice([number, number % 97]))),
        Properties(correlation_id=own, reply_to=random.choice([own, REPLY_TO[:-1] + own[-1]]), app_id=own),
        Properties(delivery_mode=mode, expiration=str(random.choice([number, 1, 20, 25, 3 * 10**11])), type=own),
        Properties(priority=random.choice([0, 1, 1, 1, 200]), content_encoding=own, cluster_id=own),
        Properties(delivery_mode=2, headers={"id": own, "n": number, "x": [number / 7, True, {"y": own.encode()}]}),
        Properties(headers={"at": Timestamp(number), "none": None, "n": Int8(number % 100), "d": Decimal(number)}),
        Properties(headers={"f": Float32(number), "s": {"own": own}}, message_id=own),
    ]
    rare = [
        Properties(correlation_id=own, reply_to=REPLY_TO, app_id=own),
        Properties(delivery_mode=mode, expiration=random.choice(["+5", "1o", "5 ", "315360000001", ""]), type=own),
        Properties(user_id="guest", message_id=own),
        Properties(headers={"CC": ["q0", own]}),
        Properties(headers={"CX": ["q0", own]}),
        Properties(delivery_mode=3, message_id=own, timestamp=number),
    ]
    return (random.choice(rare) if random.random() < 0.004 else forms[form]).encode()


class Traffic:
    """What clients might say, chosen by a seed."""

    def __init__(self, seed: int, pair: Pair) -> None:
        self.random = random = Random(seed)
        self.pair = pair
        self.unique = 0
        # A conversation has its favourites, or nothing would ever come twice.
        self.keys = random.choices(KEYS, k=2)
        self.exchanges = random.choices(EXCHANGES, k=2)
        self.sizes = random.choices(SIZES, k=2)
        self.kinds = random.choices(range(9), k=2)
        self.forms = random.choices(range(FORMS), k=2)

    def step(self) -> None:
        """One client says a few things, cut anywhere."""
        random, pair = self.random, self.pair
        index = random.randrange(len(pair.clients))
        client = pair.clients[index][0]
        if client.session.state != "running":
            pair.both(lambda world: world.advance(40_000))
            pair.clients.pop(index)
            pair.client(*random.choice([(131_072, (1,)), (4096, (1, 2))]))
            return
        alarmed = random.random() < 0.05
        pair.both(lambda world: (world.hub.set_alarm if alarmed else world.hub.clear_alarm)("memory"))
        data = self.reopened(client) + b"".join([self.something(client) for _ in range(random.randint(1, 6))])
        cuts = sorted(random.sample(range(len(data)), min(random.choice([0, 0, 1, 2, 5]), len(data))))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            pair.say(index, data[start:end])
            if random.random() < 0.5:
                pair.both(World.settle)
        pair.both(World.settle)

    def reopened(self, client: Client) -> bytes:
        """Close-ok and open again for channels that the broker closed, so that traffic goes on."""
        closing = [channel for channel in client.session.channels.values() if channel.closing]
        agreed = (methods.ChannelCloseOk(), methods.ChannelOpen(), methods.ConfirmSelect(nowait=True))
        return b"".join(method.frame(channel.number) for channel in closing for method in agreed)

    def something(self, client: Client) -> bytes:
        random = self.random
        channel = random.choice(CHANNELS)
        choices: list[tuple[int, Callable[[Client, int], bytes]]] = [
            (60, self.publishes),
            (30, self.acks),
            (4, self.topology),
            (5, self.consumer),
            (2, self.reject),
            (2, self.modes),
            (3, self.time),
            (2, self.odd),
        ]
        weights, makers = zip(*choices, strict=True)
        return random.choices(makers, weights)[0](client, channel)

    # ---- publishing

    def publishes(self, client: Client, channel: int) -> bytes:
        """The same again and again, or each time another."""
        if self.random.random() < 0.4:
            return self.unlike(client, channel)
        if self.random.random() < 0.6:
            return self.publication(client, channel) * self.random.choice([1, 2, 3, 10])
        return b"".join([self.publication(client, channel) for _ in range(self.random.randint(1, 3))])

    def publication(self, client: Client, channel: int) -> bytes:
        random = self.random
        usual = random.random() < 0.9
        method = methods.BasicPublish(
            ticket=0 if usual else 9,
            exchange="nosuch" if random.random() < 0.004 else random.choice(self.exchanges if usual else EXCHANGES),
            routing_key=random.choice(self.keys if usual else KEYS),
            mandatory=random.random() < 0.2,
        )
        size = random.choice(self.sizes if usual else SIZES)
        frame_max = client.session.frame_max if usual else random.choice([4096, 20 if size < 200 else 4096])
        body = random.choice([b"x", b"\xce", b"\x01"]) * size
        return method.frame(channel) + content_frames(channel, 60, self.properties(), body, max(frame_max, 700))

    def unlike(self, client: Client, channel: int) -> bytes:
        """Several in a row that are of one form, mostly, and each have something of their own."""
        random = self.random
        method = methods.BasicPublish(exchange=random.choice(self.exchanges), routing_key=random.choice(self.keys))
        usual = random.choice(self.forms)
        sizes = random.choice([[1], [100], [100], [0, 1], [1, 9, 100, 4000], [4088, 4089]])
        said: list[bytes] = []
        for _ in range(random.choice([1, 2, 3, 10, 20])):
            form = usual if random.random() < 0.9 else random.randrange(FORMS)
            raw = unlike(random, form)
            if random.random() < 0.004:  # which may leave it well-formed, or not
                at = random.randrange(len(raw))
                raw = raw[:at] + bytes((random.randrange(256),)) + raw[at + 1 :]
            body = b"x" * random.choice(sizes)
            said += [method.frame(channel), content_frames(channel, 60, raw, body, max(client.session.frame_max, 700))]
        return b"".join(said * random.choice([1, 1, 1, 2]))

    def properties(self) -> bytes:
        random = self.random
        self.unique += 1
        usual = [
            Properties(),
            Properties(delivery_mode=2),
            Properties(delivery_mode=1, priority=2),
            Properties(content_type="text/plain", headers={"a": 1, "b": [1, "x"]}),
            Properties(message_id=str(self.unique)),
            Properties(expiration="20", reply_to="somewhere"),
            Properties(user_id="guest"),
            Properties(headers={"CC": ["q0", "q3"], "BCC": ["q4"]}),
            Properties(app_id="x" * 250, type="y" * 250, message_id="z" * 50),
        ]
        rare = [
            Properties(expiration="soon"),
            Properties(user_id="joe"),
            Properties(delivery_mode=3),
            Properties(headers={"CC": 1}),
        ]
        if random.random() < 0.004:
            return random.choice(rare).encode()
        return usual[random.choice(self.kinds) if random.random() < 0.9 else random.randrange(len(usual))].encode()

    # ---- what was delivered

    def acks(self, client: Client, channel: int) -> bytes:
        known = client.session.channels.get(channel)
        tags = known.unacked.tags() if known is not None else []
        self.random.shuffle(tags)
        tags = tags[: self.random.randint(1, 4)]
        if self.random.random() < 0.01:
            tags.append(self.random.choice([0, 1, 1_000_000]))
        multiple = self.random.random() < 0.3
        frames = [
            methods.BasicAck(delivery_tag=tag, multiple=multiple).frame(channel) for tag in tags[: 1 if multiple else 4]
        ]
        if self.random.random() < 0.05:
            frames = [methods.BasicAck(delivery_tag=0, multiple=True).frame(channel)]
        return b"".join(frames)

    def reject(self, client: Client, channel: int) -> bytes:
        known = client.session.channels.get(channel)
        tags = known.unacked.tags() if known is not None else []
        if not tags:
            return b""
        tag, requeue = self.random.choice(tags), self.random.random() < 0.5
        if self.random.random() < 0.5:
            return methods.BasicReject(delivery_tag=tag, requeue=requeue).frame(channel)
        return methods.BasicNack(delivery_tag=tag, multiple=True, requeue=requeue).frame(channel)

    # ---- all the rest

    def topology(self, client: Client, channel: int) -> bytes:
        random = self.random
        name, key = random.choice(list(QUEUES)), random.choice(["q0", "a.b", "#", "a.*", ""])
        exchange = random.choice(["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "x"])
        arguments: Table = {"a": 1} if exchange == "amq.headers" else {}
        bind = methods.QueueBind(queue=name, exchange=exchange, routing_key=key, arguments=arguments, nowait=True)
        declare = declaration(name, nowait=random.random() < 0.5)
        alternate = methods.ExchangeDeclare(
            exchange="x", type="direct", arguments={"alternate-exchange": "amq.fanout"}, nowait=True
        )
        choices = [
            (6, [alternate, declare, bind]),
            (3, [declare]),
            (1, [declare, methods.QueuePurge(queue=name)]),
            (1, [methods.QueueDelete(queue=name, nowait=True), declare]),
            (
                1,
                [
                    alternate,
                    declare,
                    methods.QueueUnbind(queue=name, exchange=exchange, routing_key=key, arguments=arguments),
                ],
            ),
            (1, [methods.ExchangeDelete(exchange="x"), alternate]),
            (1, [alternate, methods.ExchangeBind(destination="x", source="amq.topic", routing_key=key, nowait=True)]),
        ]
        weights, said = zip(*choices, strict=True)
        return b"".join(method.frame(channel) for method in random.choices(said, weights)[0])

    def consumer(self, client: Client, channel: int) -> bytes:
        random = self.random
        self.unique += 1
        name = random.choice(list(QUEUES))
        declare = declaration(name)
        consume = methods.BasicConsume(queue=name, consumer_tag=f"t{self.unique}", no_ack=random.random() < 0.3)
        qos = methods.BasicQos(prefetch_count=random.choice([0, 1, 5]), global_=random.random() < 0.3)
        cancel = methods.BasicCancel(consumer_tag=f"t{random.randint(1, self.unique)}")
        said = random.choice([[declare, consume], [declare, consume], [qos], [cancel], [methods.BasicGet(queue="q0")]])
        return b"".join(method.frame(channel) for method in [declaration("q0"), *said])

    def modes(self, client: Client, channel: int) -> bytes:
        known = client.session.channels.get(channel)
        if known is None or known.confirms is not None:
            return methods.ConfirmSelect().frame(channel)
        if known.transaction is None:
            return self.random.choice([methods.TxSelect(), methods.ConfirmSelect(), methods.BasicQos()]).frame(channel)
        return self.random.choice([methods.TxCommit(), methods.TxRollback(), methods.ChannelClose()]).frame(channel)

    def time(self, client: Client, channel: int) -> bytes:
        if self.random.random() < 0.7 and self.pair.fast.vhost.recorder is not None:
            self.pair.both(World.synced)
        else:
            ms = self.random.choice([1, 10, 50])
            self.pair.both(lambda world: world.advance(ms))
        return b""

    def odd(self, client: Client, channel: int) -> bytes:
        good = publication("q0", b"abc", channel=channel)
        return good * self.random.randint(0, 2) + self.random.choice(oddities(channel))


def converse(monkeypatch: pytest.MonkeyPatch, seed: int, take_fast: Callable[[Session], None]) -> Pair:
    """One conversation through both worlds."""
    pair = Pair(monkeypatch, take_fast)
    traffic = Traffic(seed, pair)
    if seed % 2:
        pair.both(World.keep_journal)
    pair.client(131_072, (1,))
    pair.client(131_072, (2, 3))
    pair.client(4096, (1,))
    pair.say(0, b"".join(declaration(name).frame(1) for name in QUEUES))
    pair.say(
        0, methods.ExchangeDeclare(exchange="x", type="direct", arguments={"alternate-exchange": "amq.fanout"}).frame(1)
    )
    for exchange, queue in BINDINGS:
        pair.say(0, methods.QueueBind(queue=queue, exchange=exchange, routing_key=queue).frame(1))
    for _ in range(STEPS):
        traffic.step()
        pair.compare()
    pair.compare(bodies=True)
    return pair
