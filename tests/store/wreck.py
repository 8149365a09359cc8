"""Journals to look into and to damage: a disk in memory, and a broker that fills one with a bit of everything.

`Journaled` is the world of tests/session with a journal under it that is written and synced whenever the world settles.
`grow` drives it by a seed through publishes, deliveries, returns, declarations, restarts and compactions.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import NamedTuple

from rabbitish.core.broker import Broker
from rabbitish.core.message import Message
from rabbitish.session.content import PropertyCache, WireCodec, WireMessage
from rabbitish.store.compaction import Compaction
from rabbitish.store.coordinator import LocalCoordinator, read_node_file
from rabbitish.store.record import (
    SEGMENT_HEAD_BYTES,
    Damage,
    JournalDamaged,
    Record,
    SegmentHead,
    Type,
    decode_all,
    encode,
    encode_segment_head,
    segment_name,
)
from rabbitish.store.recovery import recover
from rabbitish.store.scan import scan, that_count
from rabbitish.values import Table
from rabbitish.wire import methods
from tests.session.client import Client
from tests.session.harness import World

BYTES = 8000  # of a segment, about


def codec() -> WireCodec:
    """What the tools look through."""
    return WireCodec(PropertyCache(1024))


# ---- the disk


class MemoryFile:
    """A file that is appended to."""

    def __init__(self, contents: bytearray) -> None:
        self._contents = contents

    def write(self, *parts: bytes) -> None:
        self._contents += b"".join(parts)

    def sync(self) -> None: ...
    def close(self) -> None: ...


class MemoryDisk:
    """A folder in memory, where everything that was written is safe. Bytes at offsets in `bad` cannot be read."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = {name: bytearray(data) for name, data in (files or {}).items()}
        self.bad: dict[str, int] = {}

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str) -> bytes:
        return self.read_at(name, 0, 1 << 40)

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        if offset <= self.bad.get(name, -1) < offset + size:
            raise OSError(5, "Input/output error")
        return bytes(self.files[name][offset : offset + size])

    def forget(self, name: str) -> None: ...

    def create(self, name: str) -> MemoryFile:
        assert name not in self.files
        self.files[name] = bytearray()
        return MemoryFile(self.files[name])

    def rename(self, old: str, new: str) -> None:
        self.files[new] = self.files.pop(old)

    def truncate(self, name: str, size: int) -> None:
        del self.files[name][size:]

    def unlink(self, name: str) -> None:
        del self.files[name]

    # ---- for tests

    def copy(self) -> MemoryDisk:
        return MemoryDisk({name: bytes(data) for name, data in self.files.items()})

    def segments(self) -> list[str]:
        """The files of the journal, oldest first."""
        return [segment_name(*name) for name in that_count(self.names())[0]]

    def flip(self, name: str, offset: int, bit: int = 0) -> None:
        """Turn one bit around."""
        self.files[name][offset] ^= 1 << bit


# ---- the broker


class Journaled(World):
    """A broker with a journal, and its clients."""

    def __init__(self, disk: MemoryDisk, *, segment_bytes: int = BYTES) -> None:
        super().__init__()
        self.disk = disk
        self.codec = WireCodec(self.hub.properties)
        self.recovered = recover(
            disk,
            self.broker,
            self.codec,
            LocalCoordinator(disk, lambda: "a disk in memory"),
            self.now,
            segment_bytes=segment_bytes,
            on_failure=_unexpected,
        )
        self.journal = self.recovered.journal
        self.save()

    def settle(self) -> None:
        """See World; and everything is on disk afterwards."""
        super().settle()
        while self.journal.waiting:
            self.save()
            for client in self.clients.values():
                client.collect()
            super().settle()

    def save(self) -> None:
        """Write and sync what waits."""
        batches = self.journal.take()
        if batches:
            self.journal.write(batches)
            self.journal.sync()
            lsn = batches[-1].last_lsn
            self.journal.written(lsn, sum(len(batch.data) for batch in batches))
            self.journal.delete(self.journal.synced(lsn))
            self.hub.now_durable(lsn)

    def seal(self) -> MemoryDisk:
        """Have it written that everything before was on disk, so that what is missing of it is no torn tail."""
        self.settle()
        for _ in range(2):
            self.journal.append(Type.EPOCH)
            self.save()
        return self.disk

    def compact(self, first: int, last: int) -> str:
        """Write these segments anew as one, by their places; the file's name. They stay on disk until the next save."""
        compaction = Compaction(self.journal, self.codec, self.journal.segments.all[first : last + 1])
        compaction.write()
        self.settle()
        compaction.install()
        compaction.finish()
        return compaction.head.name


def _unexpected(error: Exception) -> None:
    raise error


class MessageState(NamedTuple):
    """What must survive of a message."""

    body: bytes
    headers: Table
    exchange: str
    routing_key: str
    deadline: int | None


State = dict[str, list[MessageState]]


def state_of(broker: Broker) -> State:
    """The persistent messages in durable queues, in order."""
    return {
        f"{vhost.name}{queue.name}": [_state(_whole(message, broker)) for message in queue if message.stamp.persistent]
        for vhost in broker.vhosts.values()
        for queue in vhost.queues.values()
        if queue.durable
    }


def _whole(message: Message, broker: Broker) -> WireMessage:
    if message.away:
        assert broker.usage.shelf is not None
        message = broker.usage.shelf.recall(message)
    assert isinstance(message, WireMessage)
    return message


def _state(message: WireMessage) -> MessageState:
    address = message.address
    return MessageState(message.body(), message.headers(), address.exchange, address.routing_key, message.deadline)


def recovered(disk: MemoryDisk) -> State:
    """The messages that a broker makes of a journal, which stays as it is."""
    return state_of(Journaled(disk.copy()).broker)


def is_refused(disk: MemoryDisk) -> bool:
    """Whether a broker would not start on this journal."""
    try:
        scan(disk, lambda head, data, record: None)
        read_node_file(disk)
    except JournalDamaged:
        return True
    return False


def bodies(state: State) -> dict[str, set[bytes]]:
    """The bodies in each queue."""
    return {name: {message.body for message in messages} for name, messages in state.items()}


class Declared(NamedTuple):
    """What must survive beside messages."""

    queues: dict[str, str]
    exchanges: dict[str, str]
    bindings: set[tuple[str, str, str]]


def declared_of(broker: Broker) -> Declared:
    """The durable queues and exchanges with their arguments, and the bindings between them."""
    declared = Declared({}, {}, set())
    for vhost in broker.vhosts.values():
        for queue in vhost.queues.values():
            if queue.durable:
                declared.queues[vhost.name + queue.name] = repr((queue.arguments, queue.auto_delete))
        for exchange in vhost.exchanges.values():
            if exchange.durable:
                declared.exchanges[vhost.name + exchange.name] = exchange.type
                declared.bindings.update(
                    (exchange.name, binding.destination.name, binding.routing_key)
                    for binding in exchange.bindings()
                    if binding.destination.durable
                )
    return declared


# ---- records


def journal_of(*bodies: tuple[Type, bytes]) -> MemoryDisk:
    """A journal with these records, whose checksums are right."""
    head = SegmentHead(1, 1, 0, 1, 0)
    data = [encode_segment_head(head)]
    for lsn, (kind, body) in enumerate(bodies, 1):
        data += encode(lsn, 1, kind, body)
    return MemoryDisk({head.name: b"".join(data)})


def name(text: bytes) -> bytes:
    """A name with its length."""
    return len(text).to_bytes(4, "big") + text


QUEUE_1 = (1).to_bytes(4, "big") + b"\0"


def route(queue: int) -> bytes:
    """To this queue, by way of the default exchange with the key q."""
    return b"\0\1\0\0\0\1\0\0\0\1" + queue.to_bytes(4, "big") + name(b"") + name(b"q")


ROUTE = route(1)
FRAMES = b"\2\0\1\0\0\0\x0e\0\x3c\0\0" + (2).to_bytes(8, "big") + b"\0\0\xce\3\0\1\0\0\0\2ab\xce"


def publish(route: bytes, count: int, contents: bytes, size: int | None = None) -> bytes:
    """The body of a PUBLISH."""
    numbers = len(route).to_bytes(4, "big") + bytes(8) + count.to_bytes(4, "big")
    return numbers + (len(contents) if size is None else size).to_bytes(4, "big") + route + contents * count


class Found(NamedTuple):
    """A record of a sound journal."""

    file: str
    record: Record
    raw: bytes

    def hit(self, file: str, offset: int) -> bool:
        """Whether that byte is in it."""
        return self.file == file and self.record.start <= offset < self.record.end


def records(disk: MemoryDisk, kind: Type | None = None) -> list[Found]:
    """All records, or those of a type."""
    found: list[Found] = []
    for file in disk.segments():
        data = bytes(disk.files[file])
        found += (
            Found(file, record, data[record.start : record.end]) for record in decode_all(data, SEGMENT_HEAD_BYTES)
        )
    return [one for one in found if kind in (None, one.record.type)]


def hit(disk: MemoryDisk, *found: Found) -> None:
    """Damage these records at the end of their bodies, or of their heads if they have none."""
    for one in found:
        disk.flip(one.file, one.record.end - 1 if one.record.end > one.record.body else one.record.start + 5)


def flip_some(disk: MemoryDisk, random: Random, count: int) -> set[tuple[str, int]]:
    """Flip bits anywhere in the journal; where."""
    flipped: set[tuple[str, int]] = set()
    while len(flipped) < count:
        file = random.choice(disk.segments())
        at = file, random.randrange(len(disk.files[file]))
        if at not in flipped:
            disk.flip(*at, random.randrange(8))
            flipped.add(at)
    return flipped


def wreck(disk: MemoryDisk, random: Random) -> str:
    """Damage a journal in one of many ways; which. Not at its very ends, where nobody could tell."""
    files = disk.segments()
    file = random.choice(files)
    data = disk.files[file]
    at, size = random.randrange(len(data)), random.choice((1, 3, 50, 700, 3000))
    way = random.choice(("shorten", "delete", "cut out", "insert", "erase", "misplace", "head", "declarations"))
    if way == "shorten":
        del data[at:]
    elif way == "delete" and file not in (files[0], files[-1]):
        disk.unlink(file)
    elif way == "cut out":
        del data[at : at + size]
    elif way == "insert":
        data[at:at] = random.randbytes(size)
    elif way == "erase":
        data[at : at + size] = bytes(len(data[at : at + size]))
    elif way == "misplace":
        piece, to = data[at : at + size], random.randrange(len(data))
        data[to : to + len(piece)] = piece
    elif way == "head":
        disk.flip(file, random.randrange(min(SEGMENT_HEAD_BYTES, len(data))))
    elif way == "declarations":
        told = (Type.SNAPSHOT, Type.SNAPSHOT_END, Type.QUEUE_NEW, Type.EXCHANGE_NEW)
        try:
            hit(disk, *(one for one in records(disk) if one.record.type in told and random.random() < 0.8))
        except Damage:  # it is wrecked already
            return "nothing"
    return f"{way} {file} {at} {size}"


# ---- what happens on it

QUEUES: dict[str, Table] = {
    "plain": {},
    "short-lived": {"x-message-ttl": 3_600_000},
    "levels": {"x-max-priority": 5},
    "dead-lettering": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "plain", "x-max-length": 6},
}


def declare_all(client: Client) -> None:
    """Exchanges, queues and bindings of every kind."""
    for name, arguments in QUEUES.items():
        client.declare(name, durable=True, arguments=arguments)
    client.ask(methods.ExchangeDeclare(exchange="topics", type="topic", durable=True))
    client.ask(methods.ExchangeDeclare(exchange="all", type="fanout", durable=True))
    client.ask(methods.ExchangeBind(destination="topics", source="all", routing_key="a.b"))
    for name in ("plain", "levels", "short-lived"):
        client.ask(methods.QueueBind(queue=name, exchange="topics", routing_key="a.*"))


def grow(seed: int, *, steps: int = 120, segment_bytes: int = BYTES, restarts: int = 2) -> Journaled:
    """A world after a random life; nothing is unacknowledged, and everything is on disk."""
    random = Random(seed)
    disk = MemoryDisk()
    world = Journaled(disk, segment_bytes=segment_bytes)
    client = world.client()
    declare_all(client)
    number = 0
    for step in range(steps):
        what = random.random()
        if what < 0.55:
            count = random.choice((1, 1, 2, 5))
            texts = [b"message %d %s" % (number + i, b"x" * random.choice((0, 10, 300))) for i in range(count)]
            number += count
            exchange, key = random.choice([("", name) for name in QUEUES] + [("topics", "a.c"), ("all", "a.b")])
            how = {"priority": random.randint(0, 5), "headers": {"step": step}, "content_type": "text/plain"}
            client.publish(key, *texts, exchange=exchange, delivery_mode=2, **how)
        elif what < 0.85:
            _consume(world, client, random)
        elif what < 0.9:
            client.ask(methods.QueueDelete(queue="passing"))
            client.declare("passing", durable=True)
            client.ask(methods.QueueBind(queue="passing", exchange="topics", routing_key="a.*"))
        elif what < 0.93:
            client.ask(methods.QueuePurge(queue=random.choice(list(QUEUES))))
        else:
            world.advance(1000)
        world.settle()
        sealed = len(world.journal.segments.all) - 1
        if sealed > 3 and random.random() < 0.05:
            first = random.randrange(sealed - 1)
            world.compact(first, first + 1)
        if restarts and random.random() < restarts / steps:
            now = world.now + 5000
            world = Journaled(disk, segment_bytes=segment_bytes)
            world.now = now
            client = world.client()
    client.hang_up()
    world.settle()
    world.broker.check()
    return world


def grown(seed: int, **how: int) -> MemoryDisk:
    """What `grow` leaves, to be damaged at will; each life is lived once."""
    return _grown(seed, **how).copy()


@cache
def _grown(seed: int, **how: int) -> MemoryDisk:
    return grow(seed, **how).disk


def _consume(world: Journaled, client: Client, random: Random) -> None:
    """Take a few messages, and keep some of them."""
    queue = random.choice(list(QUEUES))
    taken = [client.get(queue, no_ack=False) for _ in range(random.randint(1, 4))]
    for said in taken:
        if said is None:
            continue
        assert isinstance(said.method, methods.BasicGetOk)
        tag, fate = said.method.delivery_tag, random.random()
        if fate < 0.6:
            client.send(methods.BasicAck(delivery_tag=tag))
        else:
            client.send(methods.BasicNack(delivery_tag=tag, requeue=fate < 0.85))
        world.settle()
