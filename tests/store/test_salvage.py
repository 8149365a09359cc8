"""Salvaging a journal: what is whole is kept, in order; what is lost is told of; the new journal is sound and works.

The random tests compare with what was there before the damage. That is known here, unlike to whoever salvages.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from rabbitish.store.pieces import Pieces
from rabbitish.store.reader import PublishReader
from rabbitish.store.record import HEAD, SEGMENT_HEAD_BYTES, JournalDamaged, Type, encode, segment_name
from rabbitish.store.salvage import NothingToSalvage, Salvaged, salvage
from rabbitish.store.scan import scan
from rabbitish.store.verify import verify
from rabbitish.wire import methods
from tests.thorough import THOROUGH, seeds

from .wreck import (
    FRAMES,
    QUEUE_1,
    ROUTE,
    Declared,
    Found,
    Journaled,
    MemoryDisk,
    MemoryFile,
    State,
    bodies,
    codec,
    declared_of,
    flip_some,
    grown,
    hit,
    journal_of,
    name,
    publish,
    records,
    recovered,
    route,
    state_of,
    wreck,
)


def salvaged(disk: MemoryDisk) -> tuple[Salvaged, MemoryDisk]:
    """What came of it, and the new journal, which is sound; the old one is as it was."""
    before = disk.copy().files
    to = MemoryDisk()
    report = salvage(disk, to, codec())
    assert disk.files == before
    assert sorted(report.files) == sorted(to.names()) == to.segments()
    found = verify(to, codec())
    assert (found.damage, found.torn, found.notes) == ([], [], [])
    assert (found.queues, found.messages) == (report.queues, report.messages)
    return report, to


def whole(broker_disk: MemoryDisk) -> tuple[State, Declared]:
    """What a broker has that starts on a journal."""
    broker = Journaled(broker_disk.copy()).broker
    return state_of(broker), declared_of(broker)


def world_with_queue(*names: str) -> Journaled:
    """A journal in one segment with these queues."""
    world = Journaled(MemoryDisk(), segment_bytes=1 << 20)
    client = world.client()
    for queue in names or ("q",):
        client.declare(queue, durable=True)
    return world


# --- Nothing is damaged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", seeds(5, 10))
def test_a_sound_journal_comes_out_the_same(seed: int) -> None:
    disk = grown(seed)
    report, new = salvaged(disk)
    assert whole(new) == whole(disk)
    assert (report.lost, report.torn, report.again) == ([], [], {})
    assert (report.certain, report.made_up, report.unbound) == (True, [], [])
    state, declared = whole(disk)
    assert report.queues == len(declared.queues)
    assert report.messages == sum(map(len, state.values()))


@pytest.mark.parametrize("seed", seeds(5, 10))
def test_pieces_add_up_as_in_recovery(seed: int) -> None:
    disk = grown(seed)
    pieces = Pieces(codec(), PublishReader(codec()))
    scanned = scan(disk, pieces.visit)
    pieces.finish(scanned.segments)
    world = Journaled(disk.copy())
    assert pieces.weigh() == world.recovered.messages
    assert len(pieces.declared.queues) == world.recovered.queues
    assert pieces.certain
    assert (pieces.made_up, pieces.unbound) == ([], [])


def test_a_torn_tail_is_no_loss() -> None:
    disk = grown(0)
    last = disk.segments()[-1]
    disk.truncate(last, len(disk.files[last]) - 3)
    report, new = salvaged(disk)
    assert whole(new) == whole(disk)
    assert report.lost == []
    assert [(place.file, place.torn) for place in report.torn] == [(last, True)]
    assert report.certain


def test_salvaging_twice_changes_nothing() -> None:
    disk = grown(1)
    flip_some(disk, Random(1), 10)
    _, once = salvaged(disk)
    report, twice = salvaged(once)
    assert report.lost == []
    assert whole(twice) == whole(once)


def test_a_broker_lives_on_with_what_was_salvaged() -> None:
    disk = grown(2)
    flip_some(disk, Random(2), 10)
    _, new = salvaged(disk)
    world = Journaled(new)
    before = bodies(state_of(world.broker))
    client = world.client()
    client.publish("plain", b"a new one", delivery_mode=2)
    client.declare("another", durable=True)
    taken = client.get("levels")
    assert taken is not None
    for first in (0, 0):
        world.compact(first, first + 1)
        world.settle()
    after = bodies(recovered(new))
    assert after["/plain"] == before["/plain"] | {b"a new one"}
    assert after["/levels"] == before["/levels"] - {taken.body}
    assert after["/another"] == set()
    assert verify(new, codec()).damage == []


# --- At random --------------------------------------------------------------------------------------------------------


def losses_are_told(sound: MemoryDisk, report: Salvaged, new: MemoryDisk) -> None:
    """What is lost, and what is back, is within what is told."""
    (before, declared), (after, declared_after) = whole(sound), whole(new)
    if report.torn:
        return  # what nobody was promised is not counted
    lost = set().union(*bodies(before).values()) - set().union(*bodies(after).values())
    assert sum(loss.least for loss in report.lost) <= len(lost)
    assert None in [loss.most for loss in report.lost] or len(lost) <= sum(loss.most or 0 for loss in report.lost)
    if report.certain:
        assert declared_after == declared
    if report.made_up:
        return  # and nobody knows what they were like
    told = {f"/{report.names[queue]['name']}": count for queue, count in report.again.items()}
    for queue, there in bodies(after).items():
        assert len(there - bodies(before).get(queue, set())) <= told.get(queue, 0)
    for queue, messages in after.items():
        kept = [message for message in messages if message in before.get(queue, ())]
        assert kept == [message for message in before.get(queue, ()) if message in messages], "they are in order"


@pytest.mark.parametrize("seed", seeds(15, 40))
def test_of_flipped_bits_only_the_damaged_records_are_lost(seed: int) -> None:
    random = Random(seed)
    sound = grown(seed % 20, restarts=seed % 20 % 3)
    disk = sound.copy()
    flipped = flip_some(disk, random, random.choice((1, 1, 2, 5, 20)))
    report, new = salvaged(disk)
    damaged = [one for one in records(sound) if any(one.hit(*at) for at in flipped)]
    kept = Counter(one.raw for one in records(new))
    assert not Counter(one.raw for one in records(sound)) - kept - Counter(one.raw for one in damaged)
    lost = {one.record.lsn for one in damaged}
    holes = [loss.hole for loss in report.lost] if not report.torn else []
    assert all(any((hole.first or 0) <= lsn < (hole.next or 1 << 64) for hole in holes) for lsn in lost if holes)
    losses_are_told(sound, report, new)


@pytest.mark.parametrize("seed", seeds(20, 50))
def test_of_anything_that_may_happen_to_files_what_is_whole_is_kept(seed: int) -> None:
    random = Random(seed)
    sound = grown(seed % 20, restarts=seed % 20 % 3)
    disk = sound.copy()
    ways = [wreck(disk, random) for _ in range(random.choice((1, 1, 2, 3)))]
    report, new = salvaged(disk)
    kept = {one.raw for one in records(new)}
    for one in records(sound):
        if one.file in disk.files and one.raw in disk.files[one.file]:
            assert one.raw in kept, ways
    losses_are_told(sound, report, new)


# --- Records that are lost --------------------------------------------------------------------------------------------


def test_a_publish_that_is_damaged() -> None:
    world = world_with_queue("a", "b")
    client = world.client()
    client.ask(methods.QueueBind(queue="a", exchange="amq.fanout"))
    client.ask(methods.QueueBind(queue="b", exchange="amq.fanout"))
    for _ in range(2):  # the second time they are one record
        client.publish("", *[b"same size"] * 5, exchange="amq.fanout", delivery_mode=2)
        world.settle()
    client.publish("a", b"behind", delivery_mode=2)
    world.settle()
    several = max(records(world.disk, Type.PUBLISH), key=lambda one: one.record.span)
    hit(world.seal(), several)
    report, new = salvaged(world.disk)
    (loss,) = report.lost
    count = several.record.span
    assert count > 1
    assert (loss.explained, loss.least, loss.most, loss.left) == (True, count, count, 0)
    assert (loss.hole.first, loss.hole.next) == (several.record.lsn, several.record.lsn + count)
    assert loss.queues == [1, 2]
    assert not loss.removals
    assert report.again == {}
    assert report.certain
    assert len(recovered(new)["/a"]) == 11 - count


def test_messages_that_had_left_their_queue_are_no_loss() -> None:
    world = world_with_queue()
    client = world.client()
    client.publish("q", b"x", delivery_mode=2)
    client.get("q")
    hit(world.seal(), *records(world.disk, Type.PUBLISH))
    report, new = salvaged(world.disk)
    (loss,) = report.lost
    assert (loss.least, loss.most, loss.left) == (0, 1, 1)
    assert recovered(new)["/q"] == []


def test_messages_of_a_queue_that_is_gone_are_no_loss() -> None:
    world = world_with_queue()
    client = world.client()
    client.publish("q", b"x", delivery_mode=2)
    client.ask(methods.QueueDelete(queue="q"))
    hit(world.seal(), *records(world.disk, Type.PUBLISH))
    (loss,) = salvaged(world.disk)[0].lost
    assert (loss.least, loss.most, loss.queues) == (0, 1, [])


def test_a_removal_that_is_damaged_brings_messages_back() -> None:
    world = world_with_queue("q", "other")
    client = world.client()
    client.publish("q", b"1", b"2", b"3", delivery_mode=2)
    client.publish("other", b"4", delivery_mode=2)
    assert client.get("q")
    client.publish("q", b"5", delivery_mode=2)
    world.settle()
    hit(world.seal(), *records(world.disk, Type.REMOVE))
    report, new = salvaged(world.disk)
    assert [message.body for message in recovered(new)["/q"]] == [b"1", b"2", b"3", b"5"]
    (loss,) = report.lost
    assert (loss.most, loss.removals) == (0, True)
    assert loss.guesses[0].record.type is Type.REMOVE
    assert report.again == {1: 3, 2: 1}


def test_a_loss_is_certain_only_while_no_later_removal_may_be_lost() -> None:
    world = world_with_queue()
    client = world.client()
    client.publish("q", b"1", delivery_mode=2)
    client.get("q")
    client.publish("q", b"2", delivery_mode=2)
    world.settle()
    first, second = records(world.disk, Type.PUBLISH)
    hit(world.seal(), first, second, *records(world.disk, Type.REMOVE))
    report, _ = salvaged(world.disk)
    told = {loss.hole.first: (loss.least, loss.most) for loss in report.lost}
    assert told[first.record.lsn] == (0, 1)
    assert told[second.record.lsn] == (1, 1)


def test_how_often_a_message_came_back_is_kept() -> None:
    world = world_with_queue()
    client = world.client()
    client.publish("q", b"1", b"2", delivery_mode=2)
    for _ in range(2):
        taken = client.get("q", no_ack=False)
        assert taken is not None and isinstance(taken.method, methods.BasicGetOk)
        client.send(methods.BasicNack(delivery_tag=taken.method.delivery_tag, requeue=True))
        world.settle()
    hit(world.seal(), records(world.disk, Type.PUBLISH)[1])
    _, new = salvaged(world.disk)
    again = Journaled(new).client().get("q")
    assert again is not None and isinstance(again.method, methods.BasicGetOk)
    assert (again.body, again.method.redelivered) == (b"1", True)


def test_a_hole_that_nothing_explains_may_hold_anything() -> None:
    world = world_with_queue("a", "b")
    client = world.client()
    client.publish("a", b"1", delivery_mode=2)
    world.settle()
    (one,) = records(world.disk, Type.PUBLISH)
    client.publish("b", b"2", delivery_mode=2)
    client.declare("late", durable=True)
    world.seal().files[one.file][one.record.start : one.record.end] = bytes(len(one.raw))
    report, new = salvaged(world.disk)
    (loss,) = report.lost
    assert (loss.explained, loss.least, loss.most, loss.removals) == (False, 0, 1, True)
    assert loss.queues == [1, 2], "the third was declared later"
    assert not report.certain
    assert bodies(recovered(new)) == {"/a": set(), "/b": {b"2"}, "/late": set()}


def test_a_segment_that_is_missing() -> None:
    sound = grown(4, restarts=0)
    disk = sound.copy()
    gone = disk.segments()[1]
    disk.unlink(gone)
    report, new = salvaged(disk)
    (loss,) = report.lost
    assert [place.file for place in loss.hole.places] == [gone]
    missing = [one.record for one in records(sound) if one.file == gone]
    assert (loss.hole.first, loss.hole.next) == (missing[0].lsn, missing[-1].lsn + missing[-1].span)
    assert loss.most == loss.hole.next - loss.hole.first
    assert loss.left > 0
    losses_are_told(sound, report, new)


def test_at_the_ends_of_a_journal_nobody_can_tell_how_much_is_lost() -> None:
    sound = grown(4, restarts=0)
    disk = sound.copy()
    first = disk.segments()[0]
    disk.files[first][: SEGMENT_HEAD_BYTES + 100] = bytes(SEGMENT_HEAD_BYTES + 100)
    report, new = salvaged(disk)
    loss = report.lost[0]
    assert (loss.hole.first, loss.least, loss.most) == (None, 0, None)
    losses_are_told(sound, report, new)


# --- Declarations -----------------------------------------------------------------------------------------------------


def snapshots(disk: MemoryDisk) -> list[Found]:
    """The records in all snapshots."""
    found: list[Found] = []
    inside = False
    for one in records(disk):
        inside |= one.record.type is Type.SNAPSHOT
        if inside:
            found.append(one)
        inside &= one.record.type is not Type.SNAPSHOT_END
    return found


@pytest.mark.parametrize("kind", [Type.SNAPSHOT, Type.SNAPSHOT_END, Type.QUEUE_NEW, Type.BOUND, Type.EXCHANGE_NEW])
def test_a_snapshot_with_a_hole_takes_nothing_away(kind: Type) -> None:
    sound = grown(6, restarts=0)
    disk = sound.copy()
    last = disk.segments()[-1]
    hit(disk, *(one for one in snapshots(disk) if one.file == last and one.record.type is kind))
    report, new = salvaged(disk)
    assert whole(new) == whole(sound)
    assert not report.certain


def test_what_was_declared_in_a_hole_is_known_from_the_next_snapshot() -> None:
    sound = grown(6, restarts=0)
    disk = sound.copy()
    last = disk.segments()[-1]
    declared = [one for one in records(disk) if one.file != last and Type.VHOST_NEW <= one.record.type < Type.PUBLISH]
    hit(disk, *declared)
    report, new = salvaged(disk)
    assert whole(new) == whole(sound)
    assert report.certain
    assert report.made_up == []


def test_queues_without_any_declaration_are_made_up() -> None:
    world = world_with_queue("orders", "bills", "empty")
    client = world.client()
    client.ask(methods.QueueBind(queue="bills", exchange="amq.fanout"))
    client.publish("orders", b"1", delivery_mode=2)
    client.publish("", b"2", exchange="amq.fanout", delivery_mode=2)
    world.settle()
    hit(world.seal(), *records(world.disk, Type.QUEUE_NEW))
    report, new = salvaged(world.disk)
    assert bodies(recovered(new)) == {"/orders": {b"1"}, "/salvaged-2": {b"2"}}
    assert [(one.queue.number, one.queue.name, one.by_name) for one in report.made_up] == [
        (1, "orders", True),
        (2, "salvaged-2", False),
    ]
    assert [(bound.source, bound.destination) for bound in report.unbound] == [("amq.fanout", "bills")]
    assert not report.certain


def test_a_name_that_is_taken_is_not_given_to_a_queue_that_is_made_up() -> None:
    disk = journal_of(
        (Type.QUEUE_NEW, QUEUE_1 + name(b"/") + name(b"q") + bytes(4)),
        (Type.QUEUE_NEW, b"\0\0\0\2\0" + name(b"/") + name(b"salvaged-3") + bytes(4)),
        (Type.PUBLISH, publish(route(3), 1, FRAMES)),
    )
    report, new = salvaged(disk)
    (made_up,) = report.made_up
    assert (made_up.queue.name, made_up.by_name) == ("salvaged-3-again", False)
    assert report.messages == 1
    assert list(recovered(new)) == ["/q", "/salvaged-3", "/salvaged-3-again"]


def test_queues_are_made_up_in_the_one_vhost_that_there_is() -> None:
    disk = journal_of((Type.VHOST_NEW, name(b"own") + name(b"")), (Type.PUBLISH, publish(ROUTE, 1, FRAMES)))
    report, _ = salvaged(disk)
    assert (report.made_up[0].queue.vhost, report.made_up[0].queue.name) == ("own", "q")


def test_a_queue_that_was_deleted_in_a_hole_is_back() -> None:
    world = world_with_queue("q", "other")
    client = world.client()
    client.publish("q", b"1", delivery_mode=2)
    client.ask(methods.QueueDelete(queue="q"))
    world.settle()
    hit(world.seal(), *records(world.disk, Type.QUEUE_GONE))
    report, new = salvaged(world.disk)
    assert bodies(recovered(new)) == {"/q": {b"1"}, "/other": set()}
    assert report.again == {1: 1}
    assert not report.certain


def test_a_queue_that_was_deleted_in_a_hole_and_declared_again_is_not() -> None:
    world = world_with_queue()
    client = world.client()
    client.publish("q", b"1", delivery_mode=2)
    client.ask(methods.QueueDelete(queue="q"))
    client.declare("q", durable=True)
    client.publish("q", b"2", delivery_mode=2)
    world.settle()
    hit(world.seal(), *records(world.disk, Type.QUEUE_GONE))
    report, new = salvaged(world.disk)
    assert bodies(recovered(new)) == {"/q": {b"2"}}
    assert report.again == {}


def test_a_queue_that_was_declared_again_is_known_from_half_a_snapshot() -> None:
    world = world_with_queue("q", "last")
    client = world.client()
    client.publish("q", b"1", delivery_mode=2)
    client.publish("last", b"3", delivery_mode=2)
    world.settle()
    first = world.disk.segments()[0]
    behind = len(world.disk.files[first])
    client.ask(methods.QueueDelete(queue="q"))
    client.declare("q", durable=True)
    world = Journaled(world.disk, segment_bytes=1 << 20)
    client = world.client()
    client.publish("q", b"2", delivery_mode=2)
    world.settle()
    world.disk.truncate(first, behind)
    second = world.disk.segments()[1]
    hit(world.disk, *(one for one in records(world.disk, Type.SNAPSHOT_END) if one.file == second))
    _, new = salvaged(world.disk)
    assert bodies(recovered(new)) == {"/q": {b"2"}, "/last": {b"3"}}


def test_an_exchange_that_was_declared_again_has_none_of_its_bindings() -> None:
    world = world_with_queue()
    client = world.client()
    client.ask(methods.ExchangeDeclare(exchange="e", type="direct", durable=True))
    client.ask(methods.QueueBind(queue="q", exchange="e", routing_key="old"))
    client.ask(methods.ExchangeDelete(exchange="e"))
    client.ask(methods.ExchangeDeclare(exchange="e", type="fanout", durable=True))
    client.ask(methods.QueueBind(queue="q", exchange="e", routing_key="new"))
    hit(world.seal(), *records(world.disk, Type.EXCHANGE_GONE))
    _, new = salvaged(world.disk)
    declared = whole(new)[1]
    assert declared.exchanges["/e"] == "fanout"
    assert {binding for binding in declared.bindings if binding[0] == "e"} == {("e", "q", "new")}


def test_bindings_of_an_exchange_that_is_lost_are_left_out() -> None:
    world = world_with_queue()
    client = world.client()
    for exchange in ("lost", "kept"):
        client.ask(methods.ExchangeDeclare(exchange=exchange, type="fanout", durable=True))
        client.ask(methods.QueueBind(queue="q", exchange=exchange))
    client.ask(methods.ExchangeBind(destination="lost", source="kept"))
    client.ask(methods.ExchangeBind(destination="kept", source="amq.topic", routing_key="#"))
    hit(world.seal(), records(world.disk, Type.EXCHANGE_NEW)[0])
    report, new = salvaged(world.disk)
    assert {(bound.source, bound.destination) for bound in report.unbound} == {("lost", "q"), ("kept", "lost")}
    bindings = whole(new)[1].bindings
    assert {("kept", "q", ""), ("amq.topic", "kept", "#")} <= bindings
    assert not [binding for binding in bindings if "lost" in binding]


# --- What passes for a record -----------------------------------------------------------------------------------------


def carried(forged_lsn: int, forged_epoch: int) -> tuple[Journaled, Found]:
    """A journal with a message, one that looks like the end of its queue inside, and one behind; the second's record.

    The forged number counts from the second's.
    """
    world = world_with_queue()
    client = world.client()
    client.publish("q", b"before", delivery_mode=2)
    world.settle()
    due = records(world.disk)[-1].record.lsn + 2
    forged = b"".join(encode(due + forged_lsn, 1 + forged_epoch, Type.QUEUE_GONE, QUEUE_1[:4]))
    client.publish("q", b"-" * 20 + forged + b"-" * 20, delivery_mode=2)
    world.settle()
    carrier = records(world.disk)[-1]
    assert carrier.record.lsn == due
    assert forged in carrier.raw
    client.publish("q", b"behind", delivery_mode=2)
    return world, carrier


def test_a_record_that_a_client_sent_is_none() -> None:
    world, carrier = carried(1, 0)
    hit(world.seal(), carrier)
    report, new = salvaged(world.disk)
    assert bodies(recovered(new)) == {"/q": {b"before", b"behind"}}
    assert (report.lost[0].explained, report.lost[0].least) == (True, 1)


@pytest.mark.parametrize(("lsn", "epoch"), [(1, 1), (-5, 0), (1 << 40, 0)])
def test_nor_where_nobody_knows_how_long_the_damaged_record_was(lsn: int, epoch: int) -> None:
    world, carrier = carried(lsn, epoch)
    world.seal().flip(carrier.file, carrier.record.start)
    report, new = salvaged(world.disk)
    assert bodies(recovered(new)) == {"/q": {b"before", b"behind"}}
    (loss,) = report.lost
    assert [(place.start, place.end) for place in loss.hole.places] == [(carrier.record.start, carrier.record.end)]
    assert (loss.explained, loss.most) == (False, 1)


def test_nor_at_the_end_of_a_segment() -> None:
    world, carrier = carried(1, 0)
    world.disk.truncate(carrier.file, carrier.record.end)
    hit(world.disk, carrier)
    Journaled(world.disk.copy())  # it is a torn tail
    report, new = salvaged(world.disk)
    assert bodies(recovered(new)) == {"/q": {b"before"}}
    assert [(place.start, place.end) for place in report.torn] == [(carrier.record.start, carrier.record.end)]


def test_a_removal_that_reads_like_something_else_may_still_be_one() -> None:
    world = world_with_queue()
    client = world.client()
    client.publish("q", b"1", delivery_mode=2)
    client.get("q")
    (removed,) = records(world.seal(), Type.REMOVE)
    world.disk.flip(removed.file, removed.record.start + HEAD.size - 2, 1)
    report, new = salvaged(world.disk)
    assert report.lost[0].guesses[0].record.type is Type.DELIVERED
    assert report.again == {1: 1}
    assert bodies(recovered(new)) == {"/q": {b"1"}}


def test_a_publish_that_reads_like_the_end_of_a_snapshot_is_still_a_loss() -> None:
    world = world_with_queue()
    world.client().publish("q", b"1", delivery_mode=2)
    (published,) = records(world.seal(), Type.PUBLISH)
    world.disk.flip(published.file, published.record.start + HEAD.size - 2, 4)
    (loss,) = salvaged(world.disk)[0].lost
    assert loss.hole.places[0].likely is not None
    assert loss.hole.places[0].likely.type is Type.SNAPSHOT_END
    assert (loss.explained, loss.most) == (False, 1)


def test_what_was_written_to_the_wrong_place_hides_nothing() -> None:
    world = world_with_queue()
    client = world.client()
    for number in range(40):
        client.publish("q", b"%d" % number, delivery_mode=2)
        world.settle()
    published = records(world.disk, Type.PUBLISH)
    data = world.disk.files[published[0].file]
    to, start = published[10].record.start + 5, published[25].record.start
    piece = data[start : published[33].record.start]
    data[to : to + len(piece)] = piece
    overwritten = {
        number for number, one in enumerate(published) if one.record.start < to + len(piece) and one.record.end > to
    }
    assert 5 < len(overwritten) < 12
    _, new = salvaged(world.disk)
    assert bodies(recovered(new)) == {"/q": {b"%d" % number for number in range(40) if number not in overwritten}}
    assert [int(message.body) for message in recovered(new)["/q"]] == sorted(set(range(40)) - overwritten)


# --- When it does not work --------------------------------------------------------------------------------------------


def test_where_nothing_can_be_read_nothing_is_written() -> None:
    disk = MemoryDisk({segment_name(1): b"no journal at all" * 100})
    to = MemoryDisk()
    with pytest.raises(NothingToSalvage, match=r"journal-000000000001\.log: not a segment of a journal"):
        salvage(disk, to, codec())
    assert to.names() == []


def test_a_journal_of_another_format_is_not_salvaged() -> None:
    disk = world_with_queue().disk
    (file,) = disk.segments()
    disk.files[file][8:16] = b"\0\7another"[:8]
    with pytest.raises(NothingToSalvage, match="format version 7"):
        salvage(disk, MemoryDisk(), codec())


class FailingDisk(MemoryDisk):
    """Fails at a step, and at all that follow."""

    def __init__(self, fail_at: int) -> None:
        super().__init__()
        self.steps_left = fail_at

    def step(self) -> None:
        self.steps_left -= 1
        if self.steps_left <= 0:
            raise OSError(28, "No space left on device")

    def create(self, name: str) -> MemoryFile:
        self.step()
        file = super().create(name)
        return FailingFile(self, self.files[name]) if file else file

    def unlink(self, name: str) -> None:
        self.step()
        super().unlink(name)


class FailingFile(MemoryFile):
    def __init__(self, disk: FailingDisk, contents: bytearray) -> None:
        super().__init__(contents)
        self._disk = disk

    def write(self, *parts: bytes) -> None:
        self._disk.step()
        super().write(*parts)

    def sync(self) -> None:
        self._disk.step()


def test_no_broker_starts_on_half_of_what_was_salvaged() -> None:
    disk = grown(3)
    fail_at = refused = 0
    while True:
        fail_at += 1 if THOROUGH else 3
        to = FailingDisk(fail_at)
        try:
            salvage(disk, to, codec())
            break
        except OSError:
            if [file for file in to.files.values() if file]:
                refused += 1
                with pytest.raises(JournalDamaged):
                    scan(to, lambda head, data, record: None)
    assert refused > 10
    assert whole(MemoryDisk({name: bytes(data) for name, data in to.files.items()})) == whole(disk)


@pytest.mark.parametrize("text", [b"", b'{"storage_id": "x", "epoch": 70}'])
def test_the_epoch_goes_on(text: bytes) -> None:
    disk = grown(0)
    before = max(one.record.epoch for one in records(disk))
    disk.files["node.json"] = bytearray(text)
    _, new = salvaged(disk)
    world = Journaled(new)
    assert world.disk is new
    assert max(one.record.epoch for one in records(new)) == (71 if text else before + 1)
