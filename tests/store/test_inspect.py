"""Looking into a journal: every record with what it says, queues by their names, and where reading stopped."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rabbitish.store.inspect import Entry, Wanted, inspect
from rabbitish.store.record import SEGMENT_HEAD_BYTES, Type
from rabbitish.store.resync import Place
from rabbitish.wire import methods
from tests.session.harness import START

from .wreck import FRAMES, ROUTE, Journaled, MemoryDisk, codec, grow, grown, hit, journal_of, publish, records

SEEDS = range(6)


def looked(disk: MemoryDisk, **wanted: object) -> list[Entry]:
    """The records that are told of; reading must not stop."""
    found = list(inspect(disk, codec(), Wanted(**wanted)))  # type: ignore[arg-type]
    assert not [one for one in found if isinstance(one, Place)]
    return [one for one in found if isinstance(one, Entry)]


def scripted() -> Journaled:
    """A journal with every type of record, in which what it says is known."""
    world = Journaled(MemoryDisk(), segment_bytes=1 << 20)
    world.broker.add_vhost("other")
    client = world.client()
    arguments = {"x-max-length": 5, "x-queue-mode": "lazy"}
    client.declare("orders", durable=True, auto_delete=True, arguments=arguments)
    client.declare("bills", durable=True)
    client.ask(methods.ExchangeDeclare(exchange="topics", type="topic", durable=True, internal=False))
    client.ask(methods.QueueBind(queue="orders", exchange="topics", routing_key="a.*", arguments={"k": b"\xff"}))
    client.ask(methods.QueueBind(queue="bills", exchange="topics", routing_key="a.#"))
    client.ask(methods.QueueUnbind(queue="bills", exchange="topics", routing_key="a.#"))
    client.ask(methods.QueueBind(queue="bills", exchange="topics", routing_key="#"))
    world.advance(1500)
    how = {"delivery_mode": 2, "headers": {"CC": ["a.c"]}, "message_id": "id", "priority": 3}
    client.publish("a.b", b"one", b"two", exchange="topics", **how)
    client.publish("orders", b"\xff\0", delivery_mode=2)
    world.settle()
    taken = [client.get("orders", no_ack=False) for _ in range(3)]
    first, second, third = [
        one.method.delivery_tag for one in taken if one and isinstance(one.method, methods.BasicGetOk)
    ]
    client.send(methods.BasicAck(delivery_tag=first), methods.BasicNack(delivery_tag=second, requeue=True))
    client.send(methods.BasicReject(delivery_tag=third, requeue=False))
    world.settle()
    client.ask(methods.QueuePurge(queue="bills"))
    client.ask(methods.QueueDelete(queue="bills"))
    client.ask(methods.ExchangeDelete(exchange="topics"))
    return world


ORDERS = {"number": 1, "vhost": "/", "name": "orders"}
BILLS = {"number": 2, "vhost": "/", "name": "bills"}


# --- What is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_every_record_is_told_of_in_order(seed: int) -> None:
    disk = grown(seed)
    told = [(one.file, one.offset, one.bytes, one.lsn, one.epoch, one.type) for one in looked(disk)]
    assert told == [
        (one.file, one.record.start, len(one.raw), one.record.lsn, one.record.epoch, one.record.type)
        for one in records(disk)
    ]


def test_declarations() -> None:
    disk = scripted().disk
    told = {kind: [one.about for one in looked(disk, type=kind)] for kind in Type}
    assert told[Type.VHOST_NEW][-1] == {"vhost": "other"}
    assert told[Type.QUEUE_NEW] == [
        {"queue": ORDERS, "auto_delete": True, "arguments": {"x-max-length": 5, "x-queue-mode": "lazy"}},
        {"queue": BILLS, "auto_delete": False, "arguments": {}},
    ]
    assert told[Type.QUEUE_GONE] == [{"queue": BILLS}]
    exchange = {"vhost": "/", "exchange": "topics"}
    assert told[Type.EXCHANGE_NEW] == [
        {**exchange, "kind": "topic", "auto_delete": False, "internal": False, "arguments": {}}
    ]
    assert told[Type.EXCHANGE_GONE] == [exchange]
    bound = {"vhost": "/", "source": "topics", "destination_type": "queue", "arguments": {}}
    assert told[Type.BOUND][0] == {**bound, "destination": "orders", "routing_key": "a.*", "arguments": {"k": b"\xff"}}
    assert told[Type.UNBOUND] == [{**bound, "destination": "bills", "routing_key": "a.#"}]
    for kind in (Type.SNAPSHOT, Type.SNAPSHOT_END, Type.EPOCH):
        assert told[kind] == [{}]
    marks = [about["durable_lsn"] for about in told[Type.MARK]]
    assert len(marks) > 5 and all(a <= b for a, b in pairwise(marks))  # type: ignore[operator]


def test_messages_and_what_became_of_them() -> None:
    disk = scripted().disk
    first, second, third = looked(disk, type=Type.PUBLISH)
    assert first.about == {
        "time_ms": START + 1500,
        "exchange": "topics",
        "routing_key": "a.b",
        "extra_routing_keys": ["a.c"],
        "queues": [ORDERS, BILLS],
        "messages": 1,
        "body_bytes": 3,
        "properties": {"delivery_mode": 2, "headers": {"CC": ["a.c"]}, "message_id": "id", "priority": 3},
    }
    assert second.about == first.about
    assert third.about["queues"] == [ORDERS]
    lsn = first.lsn
    one = {"queue": ORDERS, "messages": 1}
    assert [about.about for about in looked(disk, type=Type.REMOVE)] == [
        {**one, "reason": "rejected", "ranges": [[third.lsn, 1]]},
        {**one, "reason": "acknowledged", "ranges": [[lsn, 1]]},  # as of a batch of input all are
        {"queue": BILLS, "messages": 2, "reason": "purged", "ranges": [[lsn, 2]]},
    ]
    assert [about.about for about in looked(disk, type=Type.DELIVERED)] == [
        {**one, "ranges": [[number, 1]]} for number in (lsn, second.lsn, third.lsn)
    ]
    (returned,) = looked(disk, type=Type.RETURNED)
    assert returned.about == {"queue": ORDERS, "message": second.lsn, "returns": 1}


def test_messages_that_were_published_together() -> None:
    disk = MemoryDisk()
    world = Journaled(disk)
    client = world.client()
    client.declare("q", durable=True)
    client.publish("q", *(b"%d" % number for number in range(5)), delivery_mode=2)
    world.settle()
    *_, last = looked(disk, type=Type.PUBLISH, bodies=True)
    count = last.about["messages"]
    assert isinstance(count, int) and count > 1
    assert last.about["bodies"] == [b"%d" % number for number in range(5)][-count:]
    for number in range(count):
        assert looked(disk, type=Type.PUBLISH, first_lsn=last.lsn + number, bodies=True) == [last]
    assert looked(disk, type=Type.PUBLISH, first_lsn=last.lsn + count) == []


def test_bodies_are_told_when_they_are_asked_for() -> None:
    disk = scripted().disk
    assert all("bodies" not in one.about for one in looked(disk))
    bodies = [body for one in looked(disk, bodies=True) for body in one.about.get("bodies", [])]  # type: ignore[attr-defined]
    assert bodies == [b"one", b"two", b"\xff\0"]


# --- Names ------------------------------------------------------------------------------------------------------------


def test_queues_have_names_before_and_after_their_declarations_are_read() -> None:
    world = grow(1, restarts=0)
    world.compact(0, 1)
    world.settle()
    first = looked(world.disk, limit=1)[0].file
    assert first.count("-") == 3, "a segment without declarations"
    client = world.client()
    client.ask(methods.QueueDelete(queue="plain"))
    numbered = [
        one.about["queue"] for one in looked(world.disk) if one.type in (Type.REMOVE, Type.DELIVERED, Type.RETURNED)
    ]
    assert numbered
    assert all("name" in queue for queue in numbered)  # type: ignore[operator]


def test_a_snapshot_that_is_longer_than_what_is_read_at_once() -> None:
    disk = MemoryDisk()
    world = Journaled(disk, segment_bytes=1 << 20)
    client = world.client()
    for number in range(100):
        client.declare(f"queue {number}", durable=True, arguments={"note": "x" * 2000})
    client.publish("queue 99", b"x", delivery_mode=2)
    world.settle()
    world = Journaled(disk, segment_bytes=1 << 20)
    world.compact(0, 0)
    world.settle()
    assert disk.segments()[0].count("-") == 3
    (published,) = looked(disk, type=Type.PUBLISH)
    assert published.about["queues"] == [{"number": 100, "vhost": "/", "name": "queue 99"}]


def test_a_queue_whose_name_is_nowhere_has_its_number() -> None:
    (published,) = looked(journal_of((Type.PUBLISH, publish(ROUTE, 1, FRAMES))))
    assert published.about["queues"] == [{"number": 1}]


# --- What is wanted ---------------------------------------------------------------------------------------------------


def test_from_a_record_on_and_so_many() -> None:
    disk = grown(0)
    every = [one.lsn for one in looked(disk)]
    assert [one.lsn for one in looked(disk, first_lsn=every[50])] == every[50:]
    assert [one.lsn for one in looked(disk, first_lsn=every[50], limit=3)] == every[50:53]
    assert looked(disk, limit=0) == []


def test_of_a_queue() -> None:
    disk = scripted().disk
    told = looked(disk, queue="bills")
    assert [one.type for one in told if one.type not in (Type.PUBLISH, Type.MARK)] == [
        Type.QUEUE_NEW,
        Type.BOUND,
        Type.UNBOUND,
        Type.BOUND,
        Type.REMOVE,
        Type.QUEUE_GONE,
    ]
    assert [BILLS in one.about["queues"] for one in told if one.type is Type.PUBLISH] == [True, True]  # type: ignore[operator]
    assert looked(disk, queue="nobody") == []
    assert [one.type for one in looked(disk, queue="orders", type=Type.RETURNED)] == [Type.RETURNED]


# --- Damage -----------------------------------------------------------------------------------------------------------


def looked_until_damage(disk: MemoryDisk, **wanted: object) -> tuple[list[Entry], Place]:
    """The records up to the damage, and that."""
    *told, place = inspect(disk, codec(), Wanted(**wanted))  # type: ignore[arg-type]
    assert isinstance(place, Place)
    entries = [one for one in told if isinstance(one, Entry)]
    assert len(entries) == len(told)
    return entries, place


@pytest.mark.parametrize("seed", SEEDS)
def test_reading_stops_at_damage(seed: int) -> None:
    disk = grown(seed)
    every = records(disk)
    damaged = every[30 + seed]
    hit(disk, damaged, every[60])
    told, place = looked_until_damage(disk)
    assert [one.lsn for one in told] == [one.record.lsn for one in every[: 30 + seed]]
    assert (place.file, place.start, place.torn) == (damaged.file, damaged.record.start, False)


def test_a_torn_tail_is_called_so() -> None:
    disk = grown(0)
    last = disk.segments()[-1]
    disk.truncate(last, len(disk.files[last]) - 1)
    every, place = looked_until_damage(disk)
    assert place.torn
    assert len(every) == len(records(grown(0))) - 1


def test_a_file_that_is_deleted_meanwhile() -> None:
    disk = grown(0)
    found = inspect(disk, codec(), Wanted())
    next(found)
    gone = disk.segments()[1]
    disk.unlink(gone)
    *_, place = found
    assert isinstance(place, Place)
    assert (place.file, place.reason) == (gone, "the file was deleted while the journal was read")


def test_a_record_that_makes_no_sense_is_damage() -> None:
    disk = journal_of((Type.EPOCH, b""), (Type.QUEUE_NEW, b"?"), (Type.EPOCH, b""))
    told, place = looked_until_damage(disk)
    assert [one.lsn for one in told] == [1]
    assert "QUEUE_NEW record 2 cannot be decoded" in place.reason
    assert looked_until_damage(disk, type=Type.EPOCH)[0] == told


@pytest.mark.parametrize("bodies", [False, True])
def test_a_message_that_makes_no_sense_is_damage(bodies: bool) -> None:
    disk = journal_of((Type.PUBLISH, publish(ROUTE, 1, FRAMES[:-1] + b"x")))
    found = list(inspect(disk, codec(), Wanted(bodies=bodies)))
    assert [isinstance(one, Place) for one in found] == [bodies]


def test_heads_alone_are_no_records() -> None:
    disk = grown(0)
    for file in disk.segments():
        disk.truncate(file, SEGMENT_HEAD_BYTES)
    told, place = looked_until_damage(disk)
    assert told == []
    assert place.reason.startswith("the segment begins with record")
