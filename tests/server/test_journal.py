"""The real thing: a broker process with a data directory, killed while clients are at work, and started again.

Rounds of killing: RABBITISH_KILLS (2 by default).
"""

from __future__ import annotations

import os
import random
import resource
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Queue

import pytest
import trio

from rabbitish.server import node
from rabbitish.server.syncer import Syncer
from rabbitish.store.files import File, RealDisk
from rabbitish.store.record import segment_name
from rabbitish.wire import methods
from tests.server.builder import Builder
from tests.server.crash import Ended, Peer, Process
from tests.server.support import broker, converse, until
from tests.store.fake_disk import CREATE, SYNC, WRITE, FakeDisk
from tests.store.made import SMALL, journal_on, publish, remove, write

PATIENCE_SECONDS = 20
KILLS = int(os.environ.get("RABBITISH_KILLS", "2"))
SMALL_SEGMENTS = ("--set", "journal_segment_bytes=65536")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


class Ledger:
    """What publishers and consumers know over all rounds. Bodies are numbers."""

    def __init__(self) -> None:
        self.sent = 0
        self.confirmed: set[int] = set()
        self.acked: set[int] = set()
        self.surely_acked: set[int] = set()
        self.rejected: set[int] = set()
        self.publishing = threading.Event()  # something was confirmed in this round
        self.consuming = threading.Event()  # something was settled

    def body(self, number: int) -> bytes:
        return b"%d " % number + b"." * (number % 700)

    def publish(self, peer: Peer) -> None:
        """Publish with confirms, some at a time, until the broker is gone."""
        try:
            peer.ask(methods.ConfirmSelect())
            first = self.sent + 1
            answered = 0
            while True:
                numbers = range(self.sent + 1, self.sent + 21)
                self.sent = numbers[-1]
                peer.publish("", *map(self.body, numbers), exchange="work")
                while answered < self.sent - first + 1 - 40:
                    ack = peer.hear().method
                    assert isinstance(ack, methods.BasicAck)
                    self.confirmed.update(range(first + answered, first + ack.delivery_tag))
                    answered = ack.delivery_tag
                    self.publishing.set()
        except Ended:
            pass
        finally:
            peer.close()

    def consume(self, peer: Peer) -> None:
        """Acknowledge, give back and reject until the broker is gone; now and then make sure of the acks."""
        try:
            peer.ask(methods.BasicQos(prefetch_count=20))
            peer.ask(methods.BasicConsume(queue="q"))
            count = 0
            asked: deque[set[int]] = (
                deque()
            )  # what was acknowledged when an answer was asked for that waits for the disk
            while True:
                heard = peer.hear()
                if isinstance(heard.method, methods.QueueBindOk | methods.QueueUnbindOk):
                    self.surely_acked |= asked.popleft()
                    continue
                assert isinstance(heard.method, methods.BasicDeliver)
                number, tag = int(heard.body.split()[0]), heard.method.delivery_tag
                count += 1
                if number % 3 == 0 and not heard.method.redelivered:
                    peer.send(methods.BasicNack(delivery_tag=tag, requeue=True))
                elif number % 5 == 0:
                    self.rejected.add(number)
                    peer.send(methods.BasicReject(delivery_tag=tag, requeue=False))
                else:
                    self.acked.add(number)
                    peer.send(methods.BasicAck(delivery_tag=tag))
                if count % 50 == 0:
                    self.consuming.set()
                    asked.append(set(self.acked))
                    # What changes nothing is answered before the acks are written.
                    change = methods.QueueBind if count % 100 else methods.QueueUnbind
                    peer.send(change(queue="q", exchange="work", routing_key="again"))
        except Ended:
            pass
        finally:
            peer.close()

    def check(self, queued: list[int], dead: list[int]) -> None:
        everywhere = set(queued) | set(dead)
        assert not self.confirmed - self.acked - everywhere, "lost"
        assert not (self.surely_acked - self.rejected) & everywhere, "back though acknowledged"
        assert everywhere <= set(range(1, self.sent + 1)), "invented"
        assert set(dead) <= self.rejected, "died of nothing"
        assert queued == sorted(set(queued)), "order"


def test_kills_while_clients_are_at_work(data_dir: Path) -> None:
    ledger, builder = Ledger(), Builder()
    broker = Process(data_dir, *SMALL_SEGMENTS)
    peer = Peer(broker.port)
    peer.declare("dead")
    peer.declare("q", dead_letter_exchange="", dead_letter_routing_key="dead")
    peer.ask(methods.ExchangeDeclare(exchange="work", type="fanout", durable=True))
    peer.ask(methods.QueueBind(queue="q", exchange="work"))
    builder.begin(peer)
    peer.close()
    for round_ in range(KILLS):
        threads = [
            threading.Thread(target=target, args=(Peer(broker.port),), daemon=True)
            for target in (ledger.publish, ledger.consume, builder.work)
        ]
        for thread in threads:
            thread.start()
        for event in (ledger.publishing, ledger.consuming, builder.working):
            assert event.wait(20)
            event.clear()
        threads[0].join(random.Random(round_).uniform(0, 0.4))
        assert all(thread.is_alive() for thread in threads)
        broker.kill()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        broker = Process(data_dir, *SMALL_SEGMENTS)
        peer = Peer(broker.port)
        builder.check(peer)
        peer.close()
    assert builder.torn_down >= KILLS
    assert len(ledger.confirmed) >= 10 * KILLS and len(ledger.acked) >= 10 * KILLS
    peer = Peer(broker.port)
    queued = [int(body.split()[0]) for body in peer.drain("q")]
    dead = [int(body.split()[0]) for body in peer.drain("dead")]
    builder.check_letters(peer)
    peer.close()
    broker.stop(after_a_kill=True)
    ledger.check(queued, dead)


def test_a_clean_stop_keeps_everything(data_dir: Path) -> None:
    broker = Process(data_dir)
    assert broker.line.startswith("rabbitish ")
    peer = Peer(broker.port)
    peer.declare("q")
    peer.publish("q", b"1", b"2", b"3")
    assert peer.ask(methods.BasicGet(queue="q")).body == b"1"  # held by this connection when the broker stops
    broker.process.terminate()
    assert isinstance(peer.hear().method, methods.ConnectionClose)
    peer.send(methods.ConnectionCloseOk(), channel=0)
    assert broker.ended() == 0
    assert broker.said() == []
    peer.close()
    broker = Process(data_dir)
    peer = Peer(broker.port)
    got = peer.ask(methods.BasicGet(queue="q", no_ack=True))
    assert isinstance(got.method, methods.BasicGetOk)
    assert (got.body, got.method.redelivered) == (b"1", True)
    assert list(peer.drain("q")) == [b"2", b"3"]
    peer.close()
    broker.stop()


def test_a_second_broker_is_refused(data_dir: Path) -> None:
    first = Process(data_dir)
    before = first.errors.read_text()
    second = Process(data_dir)
    assert second.line == ""
    assert second.ended() == 1
    (line,) = second.said()
    assert line.startswith(f"rabbitish: {data_dir} is in use by another broker; ")
    first.errors.write_text(before)  # they share the file
    Peer(first.port).close()
    first.stop()


def test_a_directory_that_cannot_be_one(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("a file")
    broker = Process(path)
    assert broker.ended() == 1
    (line,) = broker.said()
    assert line.startswith(f"rabbitish: cannot use {path}: ")


def test_damage_stops_the_start(data_dir: Path) -> None:
    broker = Process(data_dir, *SMALL_SEGMENTS)
    peer = Peer(broker.port)
    peer.declare("q")
    peer.ask(methods.ConfirmSelect())
    for _ in range(8):
        peer.confirm("q", b"x" * 20_000)
    peer.close()
    broker.stop()
    oldest, *more = sorted(data_dir.glob("journal-*.log"))
    assert more
    data = bytearray(oldest.read_bytes())
    data[30_000] ^= 1
    oldest.write_bytes(data)
    broker = Process(data_dir)
    assert broker.line == ""
    assert broker.ended() == 1
    (line,) = broker.said()
    assert line.startswith(f"rabbitish: the journal is damaged: {oldest.name}: checksum does not match at offset ")
    assert 0 < int(line.rpartition(" ")[2]) <= 30_000
    data[30_000] ^= 1
    oldest.write_bytes(data)
    broker = Process(data_dir)
    peer = Peer(broker.port)
    assert len(list(peer.drain("q"))) == 8
    peer.close()
    broker.stop()


def test_a_torn_tail_is_cut_and_reported(data_dir: Path) -> None:
    broker = Process(data_dir)
    peer = Peer(broker.port)
    peer.declare("q")
    peer.ask(methods.ConfirmSelect())
    peer.confirm("q", b"1", b"2")
    broker.kill()
    peer.close()
    (last,) = data_dir.glob("journal-*.log")
    size = last.stat().st_size
    with last.open("ab") as file:
        file.write(b"\0\0\0\x20 half a record")
    broker = Process(data_dir)
    peer = Peer(broker.port)
    assert list(peer.drain("q")) == [b"1", b"2"]
    peer.close()
    (line,) = broker.said()
    assert "a torn tail was cut off" in line and last.name in line and f"{size}" in line
    broker.process.terminate()
    assert broker.ended() == 0


def test_a_full_disk_stops_the_broker_and_loses_nothing(data_dir: Path) -> None:
    broker = Process(data_dir)
    peer = Peer(broker.port)
    peer.declare("q")
    peer.ask(methods.ConfirmSelect())
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))  # no file may grow beyond that
    confirmed = sent = 0
    try:
        while True:
            sent += 1
            peer.confirm("q", b"%d " % sent + b"." * 3000)
            confirmed = sent
    except Ended:
        pass
    peer.close()
    assert broker.ended() == 1
    assert broker.said()[-1] == "rabbitish: the journal cannot be used: [Errno 27] File too large"
    assert "Traceback" not in broker.errors.read_text()
    assert 10 < confirmed < 40
    broker = Process(data_dir)
    peer = Peer(broker.port)
    found = [int(body.split()[0]) for body in peer.drain("q")]
    assert found in (list(range(1, confirmed + 1)), list(range(1, sent + 1)))
    peer.close()
    broker.process.terminate()
    assert broker.ended() == 0


# ---- in this very process, on a disk that we can hold up


class SlowFile:
    """A file whose syncs wait until they may, and are slow enough not to be done by the event loop itself."""

    def __init__(self, file: File, gate: threading.Event) -> None:
        self._file = file
        self._gate = gate
        self.write, self.close = file.write, file.close

    def sync(self) -> None:
        assert self._gate.wait(20)
        time.sleep(0.01)
        self._file.sync()


class SlowDisk(RealDisk):
    """A real disk that syncs only while its gate is open."""

    gate = threading.Event()

    def create(self, name: str) -> File:
        return SlowFile(super().create(name), self.gate)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is set the disk of the brokers to come syncs."""
    monkeypatch.setattr(node, "RealDisk", SlowDisk)
    SlowDisk.gate.set()
    return SlowDisk.gate


def test_answers_wait_for_the_disk(data_dir: Path, gate: threading.Event) -> None:
    async def conversation() -> None:
        async with broker(data_dir=str(data_dir)) as running:
            client, other = await running.connect(), await running.connect()
            await client.ask(methods.QueueDeclare(queue="first", durable=True), methods.QueueDeclareOk)
            gate.clear()
            try:
                await client.send(methods.QueueDeclare(queue="q", durable=True))
                await other.ask(methods.BasicQos(), methods.BasicQosOk)  # others go on
                with trio.move_on_after(0.2) as waited:
                    await client.expect(methods.QueueDeclareOk)
                assert waited.cancelled_caught
            finally:
                gate.set()
            await client.expect(methods.QueueDeclareOk)

    converse(conversation)


def test_answers_wait_behind_what_is_still_being_sent(data_dir: Path, gate: threading.Event) -> None:
    """The socket is full when the answer is made; the task that sends the rest must not send that along."""

    async def conversation() -> None:
        async with broker(data_dir=str(data_dir)) as running:
            client = await running.connect()
            await client.ask(methods.QueueDeclare(queue="first", durable=True), methods.QueueDeclareOk)
            await client.ask(methods.QueueDeclare(queue="t"), methods.QueueDeclareOk)
            await client.publish("t", b"x" * 2000, times=10_000)
            await client.send(methods.BasicConsume(queue="t", no_ack=True, consumer_tag="c"))
            (session,) = running.node.links
            await until(lambda: bool(running.node.links[session]._rest))
            gate.clear()
            try:
                await client.send(methods.QueueDeclare(queue="q", durable=True))
                await until(lambda: "q" in running.node.broker.vhosts["/"].queues)
                await client.expect(methods.BasicConsumeOk)
                kinds = []
                with trio.move_on_after(0.5):
                    while frame := await client.frame():
                        if frame[0] == 1:
                            kinds.append(type(methods.decode_method(frame[2])))
                assert methods.QueueDeclareOk not in kinds
            finally:
                gate.set()
            while methods.QueueDeclareOk not in kinds:
                frame = await client.frame()
                assert frame is not None
                if frame[0] == 1:
                    kinds.append(type(methods.decode_method(frame[2])))

    converse(conversation)


def test_expiry_goes_on_after_a_restart_without_anybody_saying_anything(data_dir: Path) -> None:
    async def conversation() -> None:
        async with broker(data_dir=str(data_dir)) as running:
            client = await running.connect()
            declare = methods.QueueDeclare(queue="q", durable=True, arguments={"x-expires": 5000})
            await client.ask(declare, methods.QueueDeclareOk)
        async with broker(data_dir=str(data_dir)) as running:
            queues = running.node.broker.vhosts["/"].queues
            assert list(queues) == ["q"]
            await trio.sleep(6)
            assert list(queues) == []

    converse(conversation, faster=50)


# ---- the thread by itself


def test_a_last_write_that_fails_is_told() -> None:
    journal = journal_on(FakeDisk(fail_at=5))
    failures: list[OSError] = []
    calls: Queue[Callable[[], None]] = Queue()
    syncer = Syncer(journal, lambda lsn: None, failures.append, calls.put)
    with pytest.raises(OSError, match="sync failed"):
        syncer.stop()
    calls.get(timeout=PATIENCE_SECONDS)()
    assert [str(failure) for failure in failures] == ["[Errno 5] sync failed, at step 5"]


def test_dead_segments_go_though_nothing_more_is_written() -> None:
    disk = FakeDisk()
    journal = journal_on(disk)
    write(journal)
    lsn = publish(journal, size=SMALL)
    remove(journal, lsn, size=SMALL)  # this begins the next segment
    calls: Queue[Callable[[], None]] = Queue()
    told: list[int] = []
    syncer = Syncer(journal, told.append, lambda error: None, calls.put)
    syncer.kick(journal.last_lsn)
    while disk.names() != [segment_name(2)]:
        calls.get(timeout=PATIENCE_SECONDS)()
    assert told == [journal.last_lsn]
    syncer.stop()


def test_what_nobody_waits_for_is_synced_in_a_moment() -> None:
    """And written at once, so that it outlives the process."""
    disk = FakeDisk()
    journal = journal_on(disk, segment_bytes=1 << 20)
    calls: Queue[Callable[[], None]] = Queue()
    told: list[int] = []
    syncer = Syncer(journal, told.append, lambda error: None, calls.put)
    assert not syncer.kick(0)
    calls.get(timeout=PATIENCE_SECONDS)()
    assert (journal.written_lsn, told, disk.steps) == (journal.last_lsn, [], [CREATE, WRITE, SYNC, WRITE])
    publish(journal)
    assert not syncer.kick(0)
    assert journal.written_lsn == journal.last_lsn
    while not told:
        calls.get(timeout=PATIENCE_SECONDS)()
    assert (told[-1], journal.durable_lsn) == (journal.last_lsn, journal.last_lsn)
    assert disk.steps[-1] == SYNC
    syncer.stop()
