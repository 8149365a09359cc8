"""Random lives of a broker with a journal beside one without: whatever clients do and whenever it ends, they agree.

Both get the same bytes. One has a journal with tiny segments, windows and pages, whose writer, compaction and crashes
come at random moments; the other keeps everything in memory, and at a crash is made anew from what must be left: what
the journal had written by then, as remembered from that moment, with everything in it that was handed out come back.
After each step all that was said to clients is compared, confirms apart, and what the queues hold.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import NamedTuple

from rabbitish.core.holdings import counted
from rabbitish.core.queue import Queue
from rabbitish.core.vhost import Vhost
from rabbitish.session.content import WireMessage
from rabbitish.store.compaction import Compaction
from rabbitish.values import Table
from rabbitish.wire import methods
from tests.session.client import Client, Said, publication
from tests.session.harness import START, World

from .machine import Machine, MemoryDisk, whole

LIMIT = 2
QUEUES: dict[str, Table] = {
    "plain": {},
    "dead": {},
    "ttl": {"x-message-ttl": 3000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
    "limit": {"x-delivery-limit": LIMIT, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
    "priority": {"x-max-priority": 2},
    "short": {"x-max-length": 30, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"},
    "refusing": {"x-max-length": 20, "x-overflow": "reject-publish"},
}
TRANSIENT = ("transient",)
SIZES = (1, 60, 60, 60, 400, 3500)
EXPIRATIONS = ("1000", "2500", "6000")
MOST_READY = 250  # above, a queue is purged, lest a life take for ever


class Kept(NamedTuple):
    """A message as it must be found again."""

    message: WireMessage
    returns: int

    @property
    def key(self) -> tuple[object, ...]:
        message = self.message
        return message.body(), message.raw_properties, message.address.routing_keys, message.deadline, self.returns


class Moment(NamedTuple):
    """What survives of a broker that ends now."""

    queues: dict[str, list[Kept]]
    bindings: list[tuple[str, str]]


class Memory(World):
    """The broker without a journal."""

    def __init__(self, now: int, moment: Moment | None = None) -> None:
        super().__init__()
        self.now = now
        if moment is None:
            return
        for name, kept in moment.queues.items():
            queue = self.vhost.add_queue(
                name, durable=True, auto_delete=False, arguments=QUEUES[name], owner=None, now=now
            )
            for message, returns in kept:
                queue.lane_of(message.stamp).restore(message, returns)
                queue._restored(1, message.size)
        for source, name in moment.bindings:
            self.vhost.bind(source, self.vhost.queues[name], "", {})
        for queue in list(self.vhost.queues.values()):
            for _ in queue.bury_returned(now):
                pass
        self.settle()


def moment_of(vhost: Vhost, clients: list[Client]) -> Moment:
    """What survives of it, with what clients hold come back once more."""
    held: dict[Queue, list[tuple[object, int, Kept]]] = {}
    for client in clients:
        for channel in client.session.channels.values():
            unacked = list(channel.unacked)
            if channel.transaction is not None:
                unacked += channel.transaction.settled()
            for run in unacked:
                queue = run.queue
                assert isinstance(queue, Queue)
                for index, message in enumerate(run.messages):
                    position = run.position + run.step * index
                    if message is not None and not queue.deleted:
                        assert isinstance(message, WireMessage)
                        held.setdefault(queue, []).append((run.lane, position, Kept(message, run.returns + 1)))
    moment = Moment({}, _bindings(vhost))
    for queue in vhost.queues.values():
        if not queue.durable:
            continue
        kept: list[Kept] = []
        for level in sorted(queue.lanes, reverse=True):
            lane = queue.lanes[level]
            places = {position: one for its, position, one in held.get(queue, ()) if its is lane}
            if queue.options.delivery_limit is not None:
                places = {at: Kept(_counted(one), one.returns) for at, one in places.items()}
            for position, (message, returns) in lane._back.items():
                places[position] = Kept(whole(queue, message), returns)
            assert not lane.pages
            for position, message in enumerate(lane.fresh, lane.head):
                if position not in lane._holes:
                    places[position] = Kept(whole(queue, message), 0)
            kept += [places[position] for position in sorted(places) if places[position].message.stamp.persistent]
        moment.queues[queue.name] = kept
    return moment


def _counted(kept: Kept) -> WireMessage:
    told = counted(kept.message, min(kept.returns, LIMIT))
    assert isinstance(told, WireMessage)
    return told


def contents(vhost: Vhost) -> dict[str, list[tuple[object, ...]]]:
    """What all queues hold, in order, and counts of what is out."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for queue in vhost.queues.values():
        rows: list[tuple[object, ...]] = [(queue.ready, queue.unacked, queue.bytes, queue.unacked_bytes)]
        for level in sorted(queue.lanes, reverse=True):
            lane = queue.lanes[level]
            returns = {id(message): count for message, count in lane._back.values()}
            rows += [Kept(whole(queue, message), returns.get(id(message), 0)).key for message in lane]
        found[queue.name] = rows
    return found


class Quick(Machine):
    """A machine that checks itself when it is asked to."""

    def _settle(self) -> None:
        while True:
            self.broker.settle(self.now)
            touched, self.hub.touched = self.hub.touched, []
            for session in touched:
                session.listed = False
            for client in self.clients.values():
                client.collect()
            fed = [client for client in self.clients.values() if client.feed()]
            if not (fed or self.broker.restless or self.hub.touched):
                return


class Life:
    """One random life."""

    def __init__(self, seed: int, *, steps: int, segment_bytes: int, window_bytes: int) -> None:
        self.random = Random(seed)
        self.sizes = {"segment_bytes": segment_bytes, "window_bytes": window_bytes}
        self.steps = steps
        self.seen: Counter[str] = Counter()
        self.now = START
        self.ours: Quick = Quick(lazy=True, **self.sizes)
        self.theirs = Memory(self.now)
        self.clients: list[tuple[Client, Client]] = []
        self.tags: dict[tuple[int, int], list[int]] = {}  # by client and channel: what was delivered, by tag
        self.compaction: Compaction | None = None
        self.moments: dict[float, Moment] = {}  # by the journal's last number, and a half where more is to be told
        self.confirmed: set[bytes] = set()
        self.number = 0
        self.connect()
        for name in (*QUEUES, *TRANSIENT):
            self.declare(name)
        self.compare()
        self.remember()

    # ---- both

    def connect(self) -> None:
        while len(self.clients) < 3:
            self.clients.append((self._client(self.ours), self._client(self.theirs)))
        self.tags.clear()

    def _client(self, world: World) -> Client:
        """Channel 1 acknowledges, 2 confirms, 3 is transactional."""
        client = world.client(1, 2, 3)
        client.send(methods.ConfirmSelect(), channel=2)
        client.send(methods.TxSelect(), channel=3)
        self._flush()
        client.answers()
        return client

    def _flush(self) -> None:
        for _ in range(3):
            self.ours.step()
            self.ours.settle()

    def say(self, index: int, data: bytes) -> None:
        for client in self.clients[index]:
            client.raw(data)
        self.settle()

    def settle(self) -> None:
        for world in (self.ours, self.theirs):
            world.now = self.now
            world.settle()

    def declare(self, name: str) -> None:
        method = methods.QueueDeclare(
            queue=name, durable=name not in TRANSIENT, arguments=QUEUES.get(name, {}), nowait=True
        )
        self.say(0, method.frame(1))

    # ---- what clients do

    def step(self) -> None:
        random = self.random
        what = random.choices(
            [self.publish, self.get, self.consume, self.cancel, self.settle_some, self.transact, self.rare, self.wait],
            [30, 8, 5, 3, 22, 6, 3, 6],
        )[0]
        self.seen[what.__name__] += 1
        what()
        self.remember()
        self.writer()
        if random.random() < 0.3:
            self.compare()
        end = random.random()
        if end < 0.02:
            self.crash()
        elif end < 0.03:
            self.stop()

    def someone(self) -> int:
        return self.random.randrange(len(self.clients))

    def publish(self) -> None:
        self.say(self.someone(), self.some_publishes(self.random.choice((1, 1, 2))))

    def some_publishes(self, channel: int) -> bytes:
        random = self.random
        data = b""
        for _ in range(random.choice((1, 1, 3))):
            exchange, key = "", random.choice([*QUEUES, *TRANSIENT])
            if random.random() < 0.25:
                exchange, key = "amq.fanout", ""
            properties: dict[str, object] = {}
            if random.random() < 0.8:
                properties["delivery_mode"] = 2
            if random.random() < 0.3:
                properties["priority"] = random.randrange(4)
            if random.random() < 0.15:
                properties["expiration"] = random.choice(EXPIRATIONS)
            size = random.choice(SIZES)
            for _ in range(random.choice((1, 2, 12))):
                self.number += 1
                body = f"{self.number:06d}".encode() + b"." * size
                data += publication(key, body, exchange=exchange, channel=channel, **properties)
        return data

    def get(self) -> None:
        index, no_ack = self.someone(), self.random.random() < 0.4
        channel = self.random.choice((1, 1, 3))
        method = methods.BasicGet(queue=self.random.choice([*QUEUES, *TRANSIENT]), no_ack=no_ack)
        self.say(index, method.frame(channel) * self.random.choice((1, 5)))

    def consume(self) -> None:
        index = self.someone()
        tag = f"c{self.random.randrange(3)}"
        if tag in self.clients[index][1].session.channels[1].consumers:
            return
        name = self.random.choice([*QUEUES, *TRANSIENT])
        data = methods.BasicQos(prefetch_count=self.random.choice((0, 1, 10, 60))).frame(1)
        no_ack = self.random.random() < 0.15
        data += methods.BasicConsume(queue=name, consumer_tag=tag, no_ack=no_ack, nowait=True).frame(1)
        self.say(index, data)

    def cancel(self) -> None:
        self.say(self.someone(), methods.BasicCancel(consumer_tag=f"c{self.random.randrange(3)}", nowait=True).frame(1))

    def settle_some(self) -> None:
        index = self.someone()
        channel = self.random.choice((1, 1, 1, 3))
        data = self.settlement(index, channel)
        if data:
            self.say(index, data)

    def settlement(self, index: int, channel: int) -> bytes:
        random = self.random
        session = self.clients[index][1].session
        unacked = session.channels[channel].unacked.tags()
        assert unacked == self.clients[index][0].session.channels[channel].unacked.tags()
        if not unacked:
            return b""
        what = random.random()
        tag = random.choice(unacked)
        multiple = random.random() < 0.3
        if what < 0.6:
            return methods.BasicAck(delivery_tag=tag, multiple=multiple).frame(channel)
        if what < 0.95:
            requeue = random.random() < 0.7
            return methods.BasicNack(delivery_tag=tag, multiple=multiple, requeue=requeue).frame(channel)
        return methods.BasicRecover(requeue=True).frame(channel)

    def transact(self) -> None:
        index = self.someone()
        data = self.some_publishes(3) + self.settlement(index, 3)
        end = self.random.choice((methods.TxCommit(), methods.TxCommit(), methods.TxRollback()))
        before = len(self.ours.exceptions)
        self.say(index, data + end.frame(3))
        assert len(self.ours.exceptions) == before
        if self.clients[index][1].session.channels[3].closing:  # a queue refused a message
            self.say(index, methods.ChannelCloseOk().frame(3) + methods.ChannelOpen().frame(3))
            self.say(index, methods.TxSelect().frame(3))

    def rare(self) -> None:
        random = self.random
        what = random.randrange(5)
        name = random.choice([*QUEUES, *TRANSIENT])
        if what == 0:
            self.say(0, methods.QueuePurge(queue=name, nowait=True).frame(1))
        elif what == 1:
            self.say(0, methods.QueueDelete(queue=name, nowait=True).frame(1))
            self.declare(name)
        elif what == 2:
            self.say(0, methods.QueueBind(queue=name, exchange="amq.fanout", nowait=True).frame(1))
        elif what == 3:
            self.say(0, methods.QueueUnbind(queue=name, exchange="amq.fanout").frame(1))
        else:
            index = self.someone()
            self.compare()
            for client in self.clients.pop(index):
                client.hang_up()
                del client.world.clients[client.session]
            self.connect()

    def wait(self) -> None:
        until = self.now + self.random.choice((50, 400, 1500))
        while True:
            dues = [world.broker.deadlines.next_due() for world in (self.ours, self.theirs)]
            due = min([due for due in dues if due is not None], default=until)
            self.now = min(max(self.now, due), until)
            self.settle()
            if self.now == until:
                return

    def tame(self) -> None:
        """No queue becomes very long."""
        for name in list(self.theirs.vhost.queues):
            if self.theirs.vhost.queues[name].ready > MOST_READY:
                self.say(0, methods.QueuePurge(queue=name, nowait=True).frame(1))

    # ---- what the server does meanwhile

    def writer(self) -> None:
        """Some steps of the journal's thread and of compaction."""
        ours, random = self.ours, self.random
        for _ in range(random.choice((0, 1, 3))):
            what = random.choice("hwwsdc")
            if what == "h":
                if not ours.handed:  # as Syncer: not while it is busy
                    ours.hand()
            elif what == "w":
                ours.write(random.choice((1, None)))
            elif what == "s":
                ours.sync()
            elif what == "d":
                ours.delete()
            elif what == "c":
                self.compact()
            ours.settle()

    def compact(self) -> None:
        ours, compaction = self.ours, self.compaction
        if compaction is None:
            self.compaction = ours.plan()
            if self.compaction is None and self.random.random() < 0.3:
                sealed = [s for s in ours.journal.segments.all[:-1] if s.head.first_lsn <= ours.journal.written_lsn]
                sealed = sealed[:-1]
                if sealed:
                    first = self.random.randrange(len(sealed))
                    some = sealed[first : first + self.random.randint(1, 4)]
                    self.compaction = Compaction(ours.journal, ours.codec, some)
            if self.compaction is not None:
                self.seen["compactions planned"] += 1
                if self.random.random() < 0.5:
                    self.compaction.write()
                    self.written = True
                else:
                    self.written = False
        elif not self.written:
            compaction.write()
            self.written = True
        elif ours.journal.durable_lsn >= compaction.lsn:
            if self.random.random() < 0.1:  # the end comes between the two
                compaction.install()
                self.crash()
                return
            ours.install(compaction)
            self.seen["compactions"] += 1
            self.compaction = None

    # ---- the end of a process

    def remember(self) -> None:
        """What must be left if this is where the journal ends.

        While deliveries and acknowledgements gather that have no number yet, it ends a little before this.
        """
        journal = self.ours.journal
        now = journal.last_lsn + (0.5 if journal._gathering.count else 0)
        self.moments[now] = moment_of(self.theirs.vhost, [client for _, client in self.clients])

    def crash(self) -> None:
        ours, random = self.ours, self.random
        if random.random() < 0.5:
            ours.hand()
            ours.write()
        self.remember()
        powerless = random.random() < 0.4
        disk: MemoryDisk = ours.disk.power_lost(random) if powerless else ours.disk.killed()
        ours.healthy()
        again = self.start(disk)
        # The last number in the journal before what this start added.
        lsn = again.journal.durable_lsn
        assert lsn >= ours.hub.durable
        moment = self.moments.get(lsn)
        if moment is None:
            self.seen["crashes between moments"] += 1
            moment = self._between(again, lsn)
        else:
            self.seen["crashes"] += 1
        self.go_on(again, moment)

    def stop(self) -> None:
        """A clean end, and a start from its checkpoint."""
        if self.compaction is not None and not self.written:
            self.compaction.give_up()
        for _, client in self.clients:
            client.session.receive_eof(self.now)
        self.theirs.settle()
        self.ours.healthy()
        disk = self.ours.stop()
        assert not self.ours.failures
        again = self.start(disk)
        assert not again.recovered.doubt
        self.seen["stops"] += 1
        self.go_on(again, moment_of(self.theirs.vhost, []))

    def start(self, disk: MemoryDisk) -> Quick:
        checkpoints = self.random.random() < 0.7
        return Quick(disk, now=self.now, lazy=True, settle=False, checkpoints=checkpoints, **self.sizes)

    def go_on(self, again: Quick, moment: Moment) -> None:
        """The next process, beside one that has what must be there."""
        self.ours, self.clients, self.compaction = again, [], None
        self.theirs = Memory(self.now, moment)
        self.moments = {}
        self.settle()
        self.compare_contents()
        self.remember()
        self.connect()
        for name in (*QUEUES, *TRANSIENT):
            self.declare(name)
        self.compare()

    def _between(self, again: Quick, lsn: int) -> Moment:
        """The journal ends in the middle of a step: what was there before and after it is there, and nothing new."""
        before = max((at for at in self.moments if at < lsn), default=0.0)
        after = min((at for at in self.moments if at > lsn), default=0.0)
        assert before and after
        earlier, later = self.moments[before], self.moments[after]
        queues: dict[str, list[Kept]] = {}
        for queue in again.vhost.queues.values():
            if not queue.durable:
                continue
            rows: list[Kept] = []
            for level in sorted(queue.lanes, reverse=True):
                lane = queue.lanes[level]
                places = {at: Kept(whole(queue, message), returns) for at, (message, returns) in lane._back.items()}
                kept = [places[at] for at in sorted(places)]
                back = {id(message) for message, _ in lane._back.values()}
                kept += [Kept(whole(queue, message), 0) for message in lane if id(message) not in back]
                rows += kept
            queues[queue.name] = rows
            found = [row.message.body() for row in rows]
            first = _surviving(queue, earlier)
            second = _surviving(queue, later)
            assert all(int(body[:6]) <= self.number for body in found), "invented"
            lost = set(first) & set(second) - set(found)
            assert not lost or queue.name == "dead", f"{queue.name} lost {lost}"  # there may be several of one body
        return Moment(queues, _bindings(again.vhost))

    # ---- comparing

    def compare(self) -> None:
        self.tame()
        self._flush()
        self.settle()
        self._flush()
        for ours, theirs in self.clients:
            mine, other = self._said(ours), self._said(theirs)
            assert mine == other
        self.compare_contents()
        self.ours.healthy()
        self.theirs.broker.check()
        assert not self.theirs.exceptions

    def _said(self, client: Client) -> list[Said]:
        """All but confirms, which come when they may; those are summed up."""
        rest: list[Said] = []
        for said in client.answers():
            if said.channel == 2 and isinstance(said.method, methods.BasicAck | methods.BasicNack):
                continue
            rest.append(said)
        session = client.session
        if not session.ended and 2 in session.channels and session.channels[2].confirms is not None:
            confirms = session.channels[2].confirms
            assert confirms.answered == confirms.published, "all is on disk, and some was never confirmed"
        return rest

    def compare_contents(self) -> None:
        ours, theirs = contents(self.ours.vhost), contents(self.theirs.vhost)
        for name in ours.keys() | theirs.keys():
            mine, other = ours.get(name), theirs.get(name)
            assert mine == other, f"{name}: {_difference(mine or [], other or [])}"

    def live(self) -> Counter[str]:
        for _ in range(self.steps):
            self.step()
        self.compare()
        self.crash()
        return self.seen


def _surviving(queue: Queue, moment: Moment) -> list[bytes]:
    """The bodies that a restart leaves in a queue."""
    limit = queue.options.delivery_limit
    rows = moment.queues.get(queue.name, ())
    return [row.message.body() for row in rows if limit is None or row.returns <= limit]


def _difference(ours: list[tuple[object, ...]], theirs: list[tuple[object, ...]]) -> str:
    at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), -1)
    lines = [f"{len(ours)} and {len(theirs)}, at {at}"]
    for name, rows in (("ours", ours), ("theirs", theirs)):
        lines += [f"{name} {str(row)[:200]}" for row in rows[max(at, 0) : at + 3]]
    return "\n".join(lines)


def _bindings(vhost: Vhost) -> list[tuple[str, str]]:
    return [
        (exchange.name, binding.destination.name)
        for exchange in vhost.exchanges.values()
        if exchange.durable and exchange.name
        for binding in exchange.bindings()
        if binding.destination.durable
    ]
