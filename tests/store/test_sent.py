"""What carried sessions have sent is known again at the next start, wherever its records have gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.session.content import PropertyCache, WireCodec
from rabbitish.store.bodies import decode_sent, encode_sent
from rabbitish.store.condensing import condense
from rabbitish.store.declared import Declarations
from rabbitish.store.inspect import Entry, Wanted, inspect
from rabbitish.store.record import Type
from rabbitish.store.scan import NEW_SUFFIX
from rabbitish.tools.words import as_lines
from rabbitish.wire import methods
from tests.gateway.carried import MARK, Carried
from tests.session.client import publication

from .machine import SEGMENT_BYTES, Machine, MemoryDisk
from .made import kinds, records

BODIES = [b"%d" % number for number in range(1, 8)]


def publishing(machine: Machine) -> Carried:
    """A client that is carried, with a durable queue `q`."""
    client = Carried(machine)
    client.handshake()
    client.open(1)
    client.ask(methods.ConfirmSelect())
    client.ask(methods.QueueDeclare(queue="q", durable=True))
    return client


def say(client: Carried, *bodies: bytes, mode: int = 2) -> None:
    """Publish, all at once, while nothing is heard of confirms."""
    client.slow = True
    client.raw(b"".join(publication("q", body, delivery_mode=mode) for body in bodies))
    client.up(1 << 20)
    client.world.settle()


def known(machine: Machine) -> list[tuple[bytes, int, list[tuple[int, int]]]]:
    sendings = machine.recovered.recorder.sendings
    return [(session, channel, numbers.ranges) for session, channel, numbers in sendings.all()]


def segments(machine: Machine) -> list[str]:
    return [name for name in sorted(machine.disk.names()) if name.startswith("journal")]


def go_on(client: Carried, machine: Machine) -> None:
    client.lose_leader()
    client.slow = False
    client.go_on(machine)


def test_a_record() -> None:
    for ranges in ([], [(1, 1)], [(1, 7), (9, 1 << 40)]):
        assert decode_sent(encode_sent(MARK, 3, ranges)) == (MARK, 3, ranges)


def test_what_was_sent_before_a_kill_is_not_published_again() -> None:
    machine = Machine()
    client = publishing(machine)
    say(client, *BODIES[:3])
    say(client, b"transient", mode=1)
    say(client, BODIES[3])
    again = machine.again(lazy=True, settle=False)
    assert known(again) == [(MARK, 1, [(1, 3), (5, 5)])]
    go_on(client, again)
    assert client.answers() == []  # not before the journal is safe up to where it is now
    again.lazy = False
    client.expect(methods.BasicAck(delivery_tag=5, multiple=True))
    taker = again.client()
    assert taker.drain("q") == [*BODIES[:4], b"transient"]
    assert client.gateway.kept_bytes == 0
    again.healthy()


def test_it_stands_behind_what_it_tells_of() -> None:
    machine = Machine()
    client = publishing(machine)
    say(client, *BODIES[:3])
    (name,) = segments(machine)
    data = machine.disk.read(name)
    told = [record for record in records(data) if record.type in (Type.PUBLISH, Type.SENT)]
    assert [record.type for record in told] == [*[Type.PUBLISH] * (len(told) - 1), Type.SENT]
    left = machine.disk.killed()
    del left.synced[name][told[-1].start :]
    assert known(machine.again(left)) == []


def test_every_segment_begins_with_it_and_keeps_no_other() -> None:
    machine = Machine()
    client = publishing(machine)
    say(client, *BODIES)
    filler = machine.client()
    for _ in range(40):
        filler.publish("q", b"." * 500, delivery_mode=2)
        filler.drain("q")
        machine.settle()
    assert len(segments(machine)) <= 3
    last = segments(machine)[-1]
    assert kinds(machine.disk.read(last)).count(Type.SENT) == 1
    again = machine.again()
    assert known(again) == [(MARK, 1, [(1, 7)])]
    go_on(client, again)
    client.expect(methods.BasicAck(delivery_tag=7, multiple=True))
    assert again.queue("q").ready == 0


def spread(machine: Machine) -> Carried:
    """A client whose publishes stand in several segments."""
    client = publishing(machine)
    for body in BODIES:
        say(client, body)
        say(client, b"." * 3000)
    return client


def compacted(machine: Machine) -> Machine:
    assert len(segments(machine)) > 3
    machine.rewrite(0)
    assert len(segments(machine)) == 2
    return machine.again()


def condensed(machine: Machine) -> Machine:
    disk = machine.disk.killed()
    found = condense(disk, WireCodec(machine.hub.properties), machine.journal.last_lsn, SEGMENT_BYTES)
    assert found.rewritten
    for rewritten in found.rewritten:
        disk.rename(rewritten.head.name + NEW_SUFFIX, rewritten.head.name)
        for name in rewritten.olds:
            disk.unlink(name)
    return machine.again(disk)


def checkpointed(machine: Machine) -> Machine:
    again = machine.again(machine.stop(), checkpoints=True)
    assert again.recovered.checkpointed
    return again


@pytest.mark.parametrize("move", [compacted, condensed, checkpointed])
def test_wherever_the_records_are(move: Callable[[Machine], Machine]) -> None:
    machine = Machine()
    client = spread(machine)
    filler = machine.client()
    filler.declare("kept", durable=True)
    while len(segments(machine)) < 9:
        filler.publish("q", b"." * 900, delivery_mode=2)
        filler.publish("kept", b"", delivery_mode=2)
        machine.settle()
    filler.drain("q")
    before = known(machine)
    assert before == [(MARK, 1, [(1, 14)])]
    again = move(machine)
    assert known(again) == before
    ready = again.queue("q").ready
    go_on(client, again)
    client.answers()
    assert client.gateway.kept_bytes == 0 and again.queue("q").ready == ready
    again.healthy()


def test_it_is_forgotten_an_hour_after_the_session_was_lost() -> None:
    machine = Machine()
    say(publishing(machine), *BODIES)
    again = machine.again()
    again.advance(3_600_000)
    assert known(again)
    again.advance(2)
    assert not known(again)
    assert not known(again.again(again.stop(), checkpoints=True))


def test_it_is_forgotten_in_the_journal_too_when_the_client_closes_the_session() -> None:
    machine = Machine()
    client = publishing(machine)
    say(client, *BODIES[:3])
    other = machine.recovered.recorder
    other.sent(b"another of them.", 1, [(1, 5)])
    other.sent(b"another of them.", 2, [])  # says nothing, of that channel or of others
    client.slow = False
    client.send(methods.ConnectionClose(), channel=0)
    assert client.answers()[-1].method == methods.ConnectionCloseOk()
    again = machine.again()
    assert known(again) == [(b"another of them.", 1, [(1, 5)])]


def test_a_look_into_the_journal() -> None:
    machine = Machine()
    client = publishing(machine)
    say(client, b"1", b"2")
    say(client, b"-", mode=1)
    say(client, b"3")
    found = looked(machine.disk)
    assert [line.split("bytes", 1)[1].strip() for line in found] == [
        f"publishes 1-2 of channel 1 of session {MARK.hex()}",
        f"publishes 4 of channel 1 of session {MARK.hex()}",
    ]


def looked(disk: MemoryDisk) -> list[str]:
    entries = inspect(disk, WireCodec(PropertyCache(4)), Wanted(type=Type.SENT))
    return [line for entry in entries if isinstance(entry, Entry) for line in as_lines(entry)]


def test_of_channel_after_channel_those_are_known_that_were_told_of_last() -> None:
    declarations = Declarations(WireCodec(PropertyCache(1)))
    for channel in range(2, 1_000):
        declarations.take(Type.SENT, encode_sent(MARK, channel, [(1, 1)]))
        if channel % 100 == 0:
            declarations.take(Type.SENT, encode_sent(MARK, 1, [(channel, channel)]))
    channels = declarations.declared.sent[MARK]
    assert len(channels) == 256 and 999 in channels
    assert channels[1].ranges == [(number, number) for number in range(100, 1_000, 100)]
