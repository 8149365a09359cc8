"""What clients do to a broker at random, the same for the same seed: publishing and consuming in every way."""

from __future__ import annotations

from random import Random

from rabbitish.values import Table
from rabbitish.wire import methods
from tests.session.client import Client, publication

from .driver import Durable
from .lives import Life

QUEUES: dict[str, Table] = {
    "plain": {},
    "other": {},
    "ttl": {"x-message-ttl": 60_000},
    "levels": {"x-max-priority": 3},
    "dying": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "plain"},
    "counted": {"x-delivery-limit": 3, "x-dead-letter-exchange": "fan"},
    "short": {"x-max-length": 5, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "other"},
    "strict": {"x-max-length": 8, "x-overflow": "reject-publish"},
}


class Workload:
    """A client on a broker, and dice."""

    def __init__(self, life: Life | Durable, seed: int) -> None:
        self.life = life
        self.random = Random(seed)
        self.client: Client = life.client(1, 2)
        self.count = 0
        self.client.ask(methods.ExchangeDeclare(exchange="fan", type="fanout", durable=True))
        self.client.ask(methods.ExchangeDeclare(exchange="gone with it", type="direct", auto_delete=True))
        for name in QUEUES:
            self.declare(name)

    def declare(self, name: str) -> None:
        self.client.declare(name, durable=True, arguments=QUEUES[name])
        if name in ("plain", "other", "ttl"):
            self.client.ask(methods.QueueBind(queue=name, exchange="fan"))

    def run(self, steps: int) -> None:
        """Take that many steps."""
        kinds = (
            [self.publish] * 8
            + [self.publish_many] * 3
            + [self.get] * 4
            + [self.consume] * 4
            + [self.wait] * 2
            + [self.compact] * 2
            + [self.purge, self.delete]
        )
        for _ in range(steps):
            self.random.choice(kinds)()
            assert not self.client.hung_up and not self.life.exceptions

    @property
    def queue(self) -> str:
        return self.random.choice(list(QUEUES))

    def properties(self) -> dict[str, object]:
        random = self.random
        properties: dict[str, object] = {"delivery_mode": 2 if random.random() < 0.85 else 1}
        if random.random() < 0.3:
            properties["expiration"] = str(random.choice((5_000, 20_000, 100_000, 400_000)))
        if random.random() < 0.3:
            properties["priority"] = random.randrange(5)
        if random.random() < 0.2:
            properties["headers"] = {"n": random.randrange(3)}
        return properties

    def body(self) -> bytes:
        self.count += 1
        return b"%d " % self.count + b"." * self.random.choice((0, 20, 20, 300))

    def to(self) -> tuple[str, str]:
        """Exchange and routing key."""
        return ("fan", "any") if self.random.random() < 0.25 else ("", self.queue)

    def publish(self) -> None:
        exchange, key = self.to()
        self.client.publish(key, self.body(), exchange=exchange, **self.properties())
        self.client.answers()

    def publish_many(self) -> None:
        """In one batch of input, many of them alike."""
        data = b""
        for _ in range(self.random.randint(1, 3)):
            exchange, key = self.to()
            how = self.properties()
            count, size = self.random.randint(1, 30), self.random.choice((10, 100))
            unlike = self.random.random() < 0.5
            for _ in range(count):
                self.count += 1
                body = b"%6d" % self.count + b"." * size
                if unlike:
                    how["message_id"] = str(self.count)
                    body += b"." * self.random.choice((0, 0, 5, 300))
                    if "expiration" in how:
                        how["expiration"] = str(self.random.choice((5_000, 20_000, 100_000, 400_000)))
                data += publication(key, body, exchange=exchange, **how)  # type: ignore[arg-type]
        self.client.raw(data)
        self.client.answers()

    def get(self) -> None:
        said = self.client.get(self.queue, no_ack=self.random.random() < 0.2)
        if said is not None and isinstance(said.method, methods.BasicGetOk):
            self.finish(said.method.delivery_tag)

    def finish(self, tag: int) -> None:
        """Some stay unacknowledged until the channel ends."""
        dice = self.random.random()
        if dice < 0.5:
            self.client.send(methods.BasicAck(delivery_tag=tag))
        elif dice < 0.65:
            self.client.send(methods.BasicReject(delivery_tag=tag, requeue=False))
        elif dice < 0.85:
            self.client.send(methods.BasicReject(delivery_tag=tag, requeue=True))
        closed = [said for said in self.client.answers() if isinstance(said.method, methods.ChannelClose)]
        if closed:  # an unknown tag, where a get was not acknowledged by anybody
            self.client.send(methods.ChannelCloseOk())
            self.client.open()

    def consume(self) -> None:
        """Take some, settle most of them in any order, and let the rest return with the channel."""
        self.client.send(methods.BasicQos(prefetch_count=self.random.choice((1, 5, 40, 0))), channel=2)
        self.client.answers()
        self.client.send(methods.BasicConsume(queue=self.queue, consumer_tag="t", no_ack=False), channel=2)
        tags = [
            said.method.delivery_tag for said in self.client.answers() if isinstance(said.method, methods.BasicDeliver)
        ]
        self.client.ask(methods.BasicCancel(consumer_tag="t"), channel=2)
        self.random.shuffle(tags)
        for tag in tags:
            dice = self.random.random()
            if dice < 0.6:
                self.client.send(methods.BasicAck(delivery_tag=tag), channel=2)
            elif dice < 0.7:
                self.client.send(methods.BasicReject(delivery_tag=tag, requeue=False), channel=2)
            elif dice < 0.9:
                self.client.send(methods.BasicReject(delivery_tag=tag, requeue=True), channel=2)
        self.client.ask(methods.ChannelClose(200, "", 0, 0), channel=2)
        self.client.open(2)

    def wait(self) -> None:
        self.life.advance(self.random.choice((1_000, 5_000, 30_000)))

    def compact(self) -> None:
        self.life.compact()

    def purge(self) -> None:
        self.client.ask(methods.QueuePurge(queue=self.queue))

    def delete(self) -> None:
        name = self.queue
        self.client.ask(methods.QueueDelete(queue=name))
        self.declare(name)

    def drain(self) -> list[bytes]:
        """The bodies of all there is, in order; the queues are empty afterwards."""
        return [body for name in QUEUES for body in self.client.drain(name)]
