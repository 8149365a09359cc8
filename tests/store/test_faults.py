"""The disk fails at step 1, 2, 3 ... of a scripted life until it no longer fails; what was promised must be kept.

A `Book` keeps what clients were told: what was confirmed must come back, what was acknowledged and synced must not, and
what nobody published must not either; what was handed out comes back as redelivered, and nothing else does. Each fault
is followed by what a killed process leaves and by what several power losses leave, and the recovery from those may fail
at any step as well. Queues keep next to nothing in memory, and segments are written anew on the way.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from rabbitish.session.content import WireMessage
from rabbitish.store.record import Type, parse_segment_name
from rabbitish.wire import methods
from rabbitish.wire.method import Method
from tests.session.client import publication
from tests.thorough import THOROUGH, part_of

from .driver import Durable, State, state_of
from .fake_disk import CREATE, RENAME, SYNC, UNLINK, WRITE, FakeDisk
from .made import kinds

SEGMENT_BYTES = 700
POWER_LOSSES = int(os.environ.get("RABBITISH_POWER_LOSSES", "3"))
PERSISTENT = 2

GONE, MAYBE, THERE = "gone", "maybe", "there"


class Copy:
    """A message in a queue, as far as clients know."""

    def __init__(self, queue: str, body: bytes) -> None:
        self.places = {queue}
        self.body = body
        self.known = MAYBE
        self.taken_from = ""  # the queue that handed it out, and whether that is on disk
        self.surely_taken = False


class Book:
    """What clients were told, and what they told the broker."""

    def __init__(self) -> None:
        self.copies: list[Copy] = []
        self.declared: dict[tuple[str, ...], str] = {}
        self.later: list[tuple[int, Callable[[], None]]] = []  # once the journal is on disk that far

    def note_durable(self, lsn: int) -> None:
        for position, act in self.later:
            if position <= lsn:
                act()
        self.later = [(position, act) for position, act in self.later if position > lsn]

    def of(self, queue: str, *wanted: bytes) -> list[Copy]:
        """The copies in a queue, all or those of these bodies."""
        return [copy for copy in self.copies if queue in copy.places and (not wanted or copy.body in wanted)]

    def check(self, world: Durable) -> None:
        """Compare with what came back."""
        everything = state_of(world.broker)
        queues = everything.queues.items()
        found = {
            (queue, message.body): number
            for (_, queue), state in queues
            for number, message in enumerate(state.messages)
        }
        for copy in self.copies:
            places = [queue for queue in copy.places if (queue, copy.body) in found]
            if copy.known == THERE:
                assert places, f"{copy.body!r} of {copy.places} is lost"
            elif copy.known == GONE:
                assert not places, f"{copy.body!r} is back in {places}"
        known = {(queue, copy.body) for copy in self.copies for queue in copy.places}
        assert found.keys() <= known, "invented"
        assert len(found) == sum(len(state.messages) for _, state in queues), "doubled"
        for queue in {queue for queue, _ in found} - {"dead"}:  # which is in the order of deaths
            came = [copy.body for copy in self.of(queue) if (queue, copy.body) in found]
            back = [body for name, body in sorted(found, key=found.__getitem__) if name == queue]
            assert came == back, f"order in {queue}"
        self._check_redelivered(everything)
        self._check_declared(everything)

    def _check_redelivered(self, everything: State) -> None:
        for (_, queue), state in everything.queues.items():
            for message in state.messages:
                (copy,) = self.of(queue, message.body)
                was_taken = copy.taken_from == queue
                assert not message.returns or was_taken, f"{message.body!r} was never handed out"
                assert message.returns or not (was_taken and copy.surely_taken), f"{message.body!r} was handed out"

    def _check_declared(self, state: State) -> None:
        there: set[tuple[str, ...]] = {("queue", name) for _, name in state.queues} | {
            ("exchange", name) for _, name in state.exchanges
        }
        there |= {("binding", source, to, key) for _, source, to, _, key, _ in state.bindings}
        for what, known in self.declared.items():
            if known != MAYBE:
                assert (what in there) == (known == THERE), f"{what} should be {known}"
        assert {what for what in there if not what[1].startswith("amq.") and what[1]} <= self.declared.keys(), (
            "invented"
        )


class Life:
    """A client that keeps book."""

    def __init__(self, disk: FakeDisk, book: Book) -> None:
        self.book = book
        self.world = Durable(disk, segment_bytes=SEGMENT_BYTES)
        self.client = self.world.client(1, 2)
        self.client.ask(methods.ConfirmSelect())
        self.client.ask(methods.TxSelect(), channel=2)
        self.unconfirmed: dict[int, list[Copy]] = {}
        self.published = 0
        self.rewritten = 0  # how often segments were written anew

    # ---- what a client does; each step is all of: saying it, settling, hearing of it

    def ask(self, method: Method, known: str, *what: tuple[str, ...], channel: int = 1) -> None:
        """Have something made or deleted: it is certain only with the answer."""
        for thing in what:
            self.book.declared[thing] = MAYBE
        self.client.ask(method, channel)
        for thing in what:
            self.book.declared[thing] = known

    def declare(self, name: str, **arguments: object) -> None:
        table = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        method = methods.QueueDeclare(queue=name, durable=True, arguments=table)  # type: ignore[arg-type]
        self.ask(method, THERE, ("queue", name))

    def publish(
        self, *bodies: bytes, key: str = "", exchange: str = "", queues: tuple[str, ...], **how: object
    ) -> None:
        """Publish with confirms."""
        for body in bodies:
            self.published += 1
            copies = [Copy(queue, body) for queue in queues]
            self.unconfirmed[self.published] = copies
            self.book.copies += copies
        frames = [publication(key or queues[0], body, exchange=exchange, delivery_mode=PERSISTENT) for body in bodies]
        self.client.raw(b"".join(frames))
        self.listen()

    def listen(self) -> None:
        """Take confirms."""
        self.world.settle()
        self.hear()

    def hear(self) -> None:
        """Take the confirms that have come."""
        heard, self.client._inbox = self.client._inbox, []
        for said in heard:
            if isinstance(said.method, methods.BasicAck):
                self._confirmed(said.method.delivery_tag, said.method.multiple, THERE)
            elif isinstance(said.method, methods.BasicNack):
                self._confirmed(said.method.delivery_tag, said.method.multiple, MAYBE)
            else:
                raise AssertionError(said)

    def _confirmed(self, tag: int, multiple: bool, known: str) -> None:
        for number in [n for n in self.unconfirmed if n == tag or (multiple and n < tag)]:
            for copy in self.unconfirmed.pop(number):
                if copy.known == MAYBE and copy.places:
                    copy.known = known

    def get(self, queue: str) -> tuple[int, bytes]:
        first = next(iter(self.world.queue(queue)))
        assert isinstance(first, WireMessage)
        (copy,) = self.book.of(queue, self.world.whole(first).body())
        copy.taken_from = queue  # though the disk may fail before the client hears of it
        said = self.client.get(queue, no_ack=False)
        assert said is not None and isinstance(said.method, methods.BasicGetOk) and said.body == copy.body

        def surely() -> None:
            copy.surely_taken = True

        self.book.later.append((self.world.journal.last_lsn, surely))
        return said.method.delivery_tag, said.body

    def settle(self, method: Method) -> None:
        self.client.send(method)
        self.listen()

    def leave(self, copies: list[Copy]) -> None:
        """These are told to go; they may be there until that is on disk."""
        for copy in copies:
            copy.known = MAYBE

        def gone() -> None:
            for copy in copies:
                copy.known = GONE

        # settled in the same call, so its record is the last but for marks
        self.book.later.append((self.world.journal.last_lsn + 1, gone))

    def ack(self, queue: str) -> None:
        tag, body = self.get(queue)
        self.leave(self.book.of(queue, body))
        self.settle(methods.BasicAck(delivery_tag=tag))

    def die(self, copies: list[Copy]) -> None:
        """These become dead letters: in one place or the other, and from some time on only in the new one."""
        for copy in copies:
            old = set(copy.places)
            copy.places.add("dead")
            moved = lambda copy=copy, old=old: copy.places.difference_update(old)  # noqa: E731
            self.book.later.append((self.world.journal.last_lsn + 3, moved))  # mark, publish, remove

    def kill(self) -> None:
        for client in list(self.world.clients.values()):
            client.hang_up()


def first_steps(life: Life) -> None:
    """Everything there is a record for, in little space."""
    life.declare("dead")
    life.ask(methods.ExchangeDeclare(exchange="e", type="topic", durable=True), THERE, ("exchange", "e"))
    life.declare("q")
    life.declare("dying", dead_letter_exchange="", dead_letter_routing_key="dead", message_ttl=1000)
    life.ask(methods.QueueBind(queue="q", exchange="e", routing_key="#"), THERE, ("binding", "e", "q", "#"))
    life.ask(methods.QueueBind(queue="dying", exchange="e", routing_key="b"), THERE, ("binding", "e", "dying", "b"))
    life.publish(b"old", queues=("q",))  # stays, and so does all behind it
    life.publish(b"1", b"2", b"3", queues=("q",))
    life.publish(b"4", key="b", exchange="e", queues=("q", "dying"))


def take_and_return(life: Life) -> None:
    """RETURNED, REMOVE for acks, rejects and expiry."""
    tag, _ = life.get("q")
    life.settle(methods.BasicNack(delivery_tag=tag, requeue=True))
    tag, _ = life.get("q")
    life.ack("q")
    life.settle(methods.BasicReject(delivery_tag=tag, requeue=True))
    tag, body = life.get("dying")
    assert body == b"4"
    life.die([copy for copy in life.book.of("dying", body) if "q" not in copy.places])
    life.settle(methods.BasicReject(delivery_tag=tag, requeue=False))
    life.publish(b"5", b"6", queues=("dying",))
    life.die(life.book.of("dying", b"5", b"6"))
    life.world.now += 2000
    life.listen()


def transact(life: Life) -> None:
    """A transaction: there when it was answered."""
    copies = [Copy("q", b"tx%d" % number) for number in range(3)]
    life.book.copies += copies
    for copy in copies:
        life.client.publish("q", copy.body, channel=2, delivery_mode=PERSISTENT, headers={"long": "-" * 100})
    life.client.ask(methods.TxCommit(), channel=2)
    for copy in copies:
        copy.known = THERE


def refuse_and_purge(life: Life) -> None:
    """reject-publish, purge, and things deleted with what they held."""
    life.declare("small", max_length=1, overflow="reject-publish")
    life.publish(b"7", queues=("small",))
    life.publish(b"8", queues=("small",))
    refused = life.book.of("small", b"8")
    for copy in refused:
        copy.known = GONE  # a nack comes only when that is on disk as well
    purged = life.book.of("small")
    life.leave(purged)
    life.ask(methods.QueuePurge(queue="small"), THERE)
    for copy in purged:
        copy.known = GONE
    life.publish(b"9", queues=("small",))
    held = life.book.of("small", b"9")
    for copy in held:
        copy.known = MAYBE
    life.ask(methods.QueueDelete(queue="small"), GONE, ("queue", "small"))
    for copy in held:
        copy.known = GONE
    method = methods.ExchangeDeclare(exchange="auto", type="fanout", durable=True, auto_delete=True)
    life.ask(method, THERE, ("exchange", "auto"))
    binding = ("binding", "auto", "q", "")
    life.ask(methods.QueueBind(queue="q", exchange="auto"), THERE, binding)
    life.ask(methods.QueueUnbind(queue="q", exchange="auto"), GONE, binding, ("exchange", "auto"))
    life.ask(methods.QueueUnbind(queue="dying", exchange="e", routing_key="b"), GONE, ("binding", "e", "dying", "b"))


def overload(life: Life) -> None:
    """More messages than memory holds, of which no trace is left: in files of their own."""
    life.declare("t")
    bodies = [b"%d" % number * 300 for number in range(9)]
    life.client.publish("t", *bodies, channel=2)
    life.client.ask(methods.TxCommit(), channel=2)
    for expected in bodies:
        found = life.client.get("t")
        assert found is not None and found.body == expected
    life.ask(methods.QueueDelete(queue="t"), GONE, ("queue", "t"))


def rotate(life: Life) -> None:
    """Enough for several segments; the oldest go at the end."""
    for number in range(10, 16):
        life.publish(b"%d" % number + b"-" * 150, queues=("q",))
    for _ in range(8):
        life.ack("q")
    life.get("q")  # and keep it
    life.publish(b"16" + b"-" * 400, b"17" + b"-" * 401, queues=("q",))
    gone = [("exchange", "e"), ("binding", "e", "q", "#")]
    life.ask(methods.ExchangeDelete(exchange="e"), GONE, *gone)
    life.publish(b"last", queues=("q",))


def write_anew(life: Life) -> None:
    """What is dead between what lives is dropped, for as long as it takes; more comes meanwhile."""
    life.declare("r", dead_letter_exchange="", dead_letter_routing_key="dead")
    for number in range(20, 40):
        life.publish(b"%d" % number + b"-" * 150, queues=("r",))
    tags = [life.get("r") for _ in range(20)]
    for number, (tag, body) in enumerate(tags):
        if number % 7 == 1:
            life.die(life.book.of("r", body))
            life.client.send(methods.BasicReject(delivery_tag=tag, requeue=False))
        elif number % 7:
            life.leave(life.book.of("r", body))
            life.settle(methods.BasicAck(delivery_tag=tag))
    life.rewritten = life.world.compact()
    life.hear()
    life.publish(b"very last", queues=("r",))


SCRIPT = (first_steps, take_and_return, transact, refuse_and_purge, overload, rotate, write_anew)


def live(disk: FakeDisk, book: Book) -> Life | None:
    """Go through the script; None when the disk failed before there was a broker."""
    life = None
    try:
        life = Life(disk, book)
        for chapter in SCRIPT:
            chapter(life)
    except OSError:
        assert disk.failed
        if life is not None:  # what the client has heard but not yet looked at
            life.client._inbox = [
                said for said in life.client._inbox if isinstance(said.method, methods.BasicAck | methods.BasicNack)
            ]
            life.hear()
    if life is None:
        return None
    assert life.world.exceptions == life.world.failures == []
    book.note_durable(life.world.journal.durable_lsn)
    return life


def what_is_left(disk: FakeDisk, number: int, power_losses: int) -> Iterator[Callable[[int], FakeDisk]]:
    """Makers of what the next process may find, whose disk fails at the step they are given."""
    yield lambda fail_at: disk.killed(fail_at=fail_at)
    for seed in range(power_losses):
        yield lambda fail_at, seed=seed: disk.power_lost(1000 * number + seed, fail_at=fail_at)  # type: ignore[misc]


def steps() -> list[str]:
    """What the script does to a disk that does not fail."""
    disk = FakeDisk()
    live(disk, Book())
    return disk.steps


def faults(every: int, one_in: int) -> Iterator[tuple[int, FakeDisk, Book]]:
    """The script with a fault at every so many-th step, of each kind, or at some of those; and once without."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for number, step in enumerate(steps(), 1):
        kinds[step].append(number)
    for number in sorted(number for kind in kinds.values() for number in part_of(kind[::every], one_in)):
        disk, book = FakeDisk(fail_at=number, seed=number), Book()
        live(disk, book)
        assert number in kinds[disk.failed]
        yield number, disk, book
    disk, book = FakeDisk(), Book()
    live(disk, book)
    yield 0, disk, book


def test_the_script_touches_everything() -> None:
    disk, book = FakeDisk(), Book()
    seen: set[Type] = set()
    gone: set[str] = set()
    unlink = disk.unlink

    def read_and_unlink(name: str) -> None:
        if parse_segment_name(name):
            seen.update(kinds(disk.read(name)))
        gone.add(name)
        unlink(name)

    disk.unlink = read_and_unlink  # type: ignore[method-assign]
    life = live(disk, book)
    assert life is not None
    for name in life.world.segments():
        seen.update(kinds(disk.read(name)))
    # Which come with administration, and with other nodes, not with a client's traffic.
    assert seen == set(Type) - {Type.VHOST_GONE, Type.ACCESS, Type.SENT}
    assert set(disk.steps) == {CREATE, WRITE, SYNC, RENAME, UNLINK}
    assert len(disk.steps) > 200 and life.rewritten >= 2
    assert disk.reads and any(name.startswith("spill-") for name in gone)
    known = [copy.known for copy in book.copies]
    assert known.count(THERE) >= 5 and known.count(GONE) >= 10 and known.count(MAYBE) <= 3
    assert 0 < [copy.surely_taken for copy in book.copies].count(True) < len(book.copies) - 5
    assert {copy.body[:2] for copy in book.of("dead")} == {b"4", b"5", b"6", b"21", b"28", b"35"}


def test_a_fault_at_every_step() -> None:
    failed: set[str] = set()
    for number, disk, book in faults(1, one_in=14):
        failed.add(disk.failed)
        for left in what_is_left(disk, number, POWER_LOSSES):
            book.check(Durable(left(0), segment_bytes=SEGMENT_BYTES))
    assert failed == {CREATE, WRITE, SYNC, RENAME, UNLINK, ""}


def test_a_fault_in_the_recovery_from_every_fault() -> None:
    """The broker that starts after a fault, begins its segment and deletes old ones, fails at each of its steps."""
    for number, disk, book in faults(6, one_in=12):
        for left in what_is_left(disk, number, POWER_LOSSES // 3):
            step = 0
            while True:
                step += 1 if THOROUGH else 1 + number % 3
                found = left(step)
                try:
                    Durable(found, segment_bytes=SEGMENT_BYTES).settle()
                except OSError:
                    assert found.failed
                book.check(Durable(found.power_lost(step), segment_bytes=SEGMENT_BYTES))
                if not found.failed:
                    break


@pytest.mark.parametrize("left", ["killed", "power_lost"])
def test_a_second_life_after_every_fault(left: str) -> None:
    """What a recovered broker promises it keeps as well, and it keeps what the one before it had promised."""
    for number, disk, book in faults(4, one_in=6):
        found = disk.killed() if left == "killed" else disk.power_lost(number)
        world = Durable(found, segment_bytes=SEGMENT_BYTES)
        book.check(world)
        client = world.client()
        client.declare("second", durable=True)
        book.declared["queue", "second"] = THERE
        client.ask(methods.ConfirmSelect())
        copies = [Copy("second", b"%d" % body) for body in range(5)]
        book.copies += copies
        client.publish("second", *[copy.body for copy in copies], delivery_mode=PERSISTENT, headers={"x": "-" * 200})
        client.expect(methods.BasicAck(delivery_tag=5, multiple=True))
        for copy in copies:
            copy.known = THERE
        taken = client.get("second")
        assert taken is not None and taken.body == b"0"
        copies[0].known = GONE
        world.sync()
        book.check(Durable(found.power_lost(number), segment_bytes=SEGMENT_BYTES))
