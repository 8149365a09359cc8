"""Many clients at once, at random, from a seed: whatever they do, what must always hold holds, and all comes out again.

Every step is some calls that clients make, then what the server does after a batch of input. After each: nobody holds
a message that another holds or that is still in its queue, counters agree with counting, no consumer waits for a
message that is there for it, nothing is overdue, no limit is exceeded, and the books that a journal would keep agree.
At the end all clients go, what they held comes back in order, every queue can be emptied, and no memory stays in use.
The same seed with queues that keep next to nothing in memory must go the same way, delivery for delivery.

RABBITISH_SIMULATION_SEEDS says how many seeds are run (60 in an ordinary run, 200 in .ci/run),
RABBITISH_SIMULATION_FIRST which is the first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest

from rabbitish.core.broker import Broker
from rabbitish.core.changes import Reason
from rabbitish.core.exchange import Target
from rabbitish.core.holdings import MESSAGE_OVERHEAD_BYTES
from rabbitish.core.lane import Lane
from rabbitish.core.message import Address, Message
from rabbitish.core.paging import PAGE_OVERHEAD_BYTES
from rabbitish.core.queue import Queue
from rabbitish.core.vhost import Vhost
from rabbitish.errors import ChannelError
from rabbitish.values import Table
from tests.thorough import seeds

from .fakes import START, Held, ListConsumer, PlainMessage
from .ledger import Ledger
from .shelf import MemoryShelf

SEEDS = int(os.environ.get("RABBITISH_SIMULATION_SEEDS", len(seeds(60, 200))))
FIRST = int(os.environ.get("RABBITISH_SIMULATION_FIRST", "0"))
STEPS = 60
WINDOW_BYTES = 500  # a message's worth: whatever comes behind it may be put away
MOST_MESSAGES = 200  # above, a queue is purged, lest dead letters multiply without end
QUEUES = ("a", "b", "c", "d")
EXCHANGES = {"direct": "direct", "fanout": "fanout", "topic": "topic", "auto": "fanout"}
KEYS = (*QUEUES, "k.1")


class Client(ListConsumer):
    """A consumer that looks closely at what it is given."""

    def __init__(self, simulation: Simulation, vhost: Vhost, queue: Queue, **options: int) -> None:
        super().__init__(
            prefetch=options["prefetch"],
            no_ack=bool(options["no_ack"]),
            exclusive=bool(options["exclusive"]),
            priority=options["priority"],
        )
        self.simulation = simulation
        self.vhost = vhost
        self.queue: Queue = queue
        self.number = simulation.next_client()
        self.cancelled = False

    def deliver(self, lane: Lane, first: int, messages: Sequence[Message], returns: int, step: int = 1) -> int:
        """See Consumer."""
        queue, simulation = self.queue, self.simulation
        assert self in list(queue.consumers) and not queue.deleted
        consumers = queue.consumers
        if queue.options.single_active_consumer:
            assert consumers.active is self
        else:
            assert not any(other.priority > self.priority and other.room() > 0 for other in consumers)
        for index, message in enumerate(messages):
            held = Held(queue, lane, first + step * index, message, returns)
            simulation.handed_out(held, self, no_ack=self.no_ack)
            simulation.trace.append((self.number, queue.name, held.body, returns))
        return super().deliver(lane, first, messages, returns, step)

    def queue_gone(self) -> None:
        """See Consumer."""
        super().queue_gone()
        assert self.queue.deleted and not self.cancelled and self.told == 1
        self.simulation.seen["consumers told"] += 1
        self.cancelled = True


class Books(Ledger):
    """A ledger that also asks of each message that left, and that no client took, whether it went where it had to."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self.simulation = simulation
        # where a message went that died: by the queue it died in and its number there
        self.reborn: dict[tuple[str, int], list[Queue]] = {}
        self.doubtful: dict[tuple[Queue, int], str] = {}

    def published(self, queues: Sequence[Queue], messages: Sequence[Message], now: int, *, alike: bool = True) -> None:
        """See Recorder."""
        super().published(queues, messages, now, alike=alike)
        (message,) = messages
        assert isinstance(message, PlainMessage)
        if message.origin:
            self.reborn[str(message.headers()["x-last-death-queue"]), message.origin] = list(queues)

    def removed(self, queue: Queue, messages: Sequence[Message], reason: Reason) -> None:
        """See Recorder."""
        super().removed(queue, messages, reason)
        for message in messages:
            expected = self.simulation.graves(queue, message)
            found = self.reborn.pop((queue.name, message.lsn), [])
            if found != expected and queue.options.overflow != "reject-publish":  # which may never have let it in
                self.doubtful[queue, message.lsn] = f"{message} from {queue.name}: {found} for {expected}"


class Simulation:
    """Clients of a broker, and what they know."""

    def __init__(self, seed: int, window_bytes: int = 0) -> None:
        self.random = Random(seed)
        self.seen: Counter[str] = Counter()
        tokens = iter(range(1 << 30))
        budget = self.random.choice((1, 3, 10, 1000))
        self.broker = Broker(token=lambda: f"{next(tokens):022}", settle_budget=budget)
        self.ledger = Books(self)
        self.broker.record(self.ledger)
        self.shelf = MemoryShelf()
        self.shelf_random = Random(seed)  # of its own, so that nothing else comes otherwise
        if window_bytes:
            self.broker.usage.shelf, self.broker.usage.window_bytes = self.shelf, window_bytes
        self.vhosts = [self.broker.add_vhost(name) for name in ("/", "other")]
        self.now = START
        self.published = 0
        self.clients: list[Client] = []
        self.fetched: list[tuple[Vhost, Held]] = []
        self.owners: list[object] = ["owner 1", "owner 2"]
        self.routed: list[tuple[Vhost, PlainMessage, list[Target]]] = []  # transactions that are not committed
        self.first_delivered: dict[Lane, dict[object, int]] = {}  # by who got it, the latest position
        self.taken: set[tuple[Queue, int]] = set()  # messages that left because clients took them
        self.trace: list[tuple[object, ...]] = []  # what clients saw, in order
        self.clients_so_far = 0
        self.rejecting: Message | None = None
        for vhost in self.vhosts:
            for name in EXCHANGES:
                self.declare_exchange(vhost, name)
            for name in QUEUES:
                self.declare(vhost, name)
            for _ in range(6):
                self.bind(vhost)

    def next_client(self) -> int:
        """Numbers clients."""
        self.clients_so_far += 1
        return self.clients_so_far

    # ---- the steps

    def run(self) -> None:
        """All of it."""
        for step in range(STEPS):
            self.shelf.room = self.shelf_random.choice((0, 1, 5, 1000))
            for _ in range(self.random.choice((1, 2, 3, 6))):
                self.act()
            self.settle()
            self.check()
            if step % 4 == 0:
                self.compare()
        self.drain()

    def act(self) -> None:
        """Something that a client does."""
        what, weight = zip(*self.ACTIONS, strict=True)
        (action,) = self.random.choices(what, weight)
        vhost = self.random.choice(self.vhosts)
        try:
            action(self, vhost)
        except ChannelError as error:
            self.seen[f"error {int(error.code)}"] += 1
            self.trace.append((str(error),))

    def settle(self) -> None:
        """What the server does after a batch of input."""
        for _ in range(10_000):
            due = self.broker.settle(self.now)
            if due is None or due > self.now:
                break
        else:
            raise AssertionError("it never comes to rest")
        self.due = due

    # ---- topology

    def any_queue(self, vhost: Vhost) -> Queue | None:
        """A queue, if there is any."""
        return self.random.choice(list(vhost.queues.values())) if vhost.queues else None

    def owner_of(self, queue: Queue) -> object:
        """Somebody who may use it, and sometimes somebody who may not."""
        return queue.owner if self.random.random() < 0.9 else "a stranger"

    def options(self) -> Table:
        """Arguments of a queue."""
        chance = self.random.random
        arguments: Table = {}
        for name, likely, values in (
            ("x-message-ttl", 0.25, (0, 5, 20, 100, 1000)),
            ("x-expires", 0.15, (1, 20, 300)),
            ("x-max-length", 0.25, (0, 1, 3, 8)),
            ("x-max-length-bytes", 0.1, (0, 20, 60)),
            ("x-max-priority", 0.25, (1, 3, 200)),
            ("x-delivery-limit", 0.3, (0, 0, 1, 2)),
            ("x-overflow", 0.4, ("drop-head", "reject-publish", "reject-publish-dlx")),
            ("x-single-active-consumer", 0.2, (True,)),
        ):
            if chance() < likely:
                arguments[name] = self.random.choice(values)
        if chance() < 0.6:
            arguments["x-dead-letter-exchange"] = self.random.choice(("", "", "direct", "topic", "auto", "nosuch"))
            if chance() < 0.8:
                arguments["x-dead-letter-routing-key"] = self.random.choice(KEYS)
        return arguments

    def declare(self, vhost: Vhost, name: str) -> None:
        """Declare a queue, which may be there as another."""
        exclusive = self.random.random() < 0.15
        queue = vhost.declare_queue(
            name,
            durable=self.random.random() < 0.8,
            exclusive=exclusive,
            auto_delete=self.random.random() < 0.15,
            arguments=self.options(),
            owner=self.random.choice(self.owners),
            now=self.now,
        )
        assert vhost.queues[name] is queue

    def redeclare(self, vhost: Vhost) -> None:
        """Declare a queue anew, passively or as it is; one that has gone, as something else."""
        queue = self.any_queue(vhost)
        missing = [name for name in QUEUES if name not in vhost.queues]
        if missing or self.random.random() < 0.1:
            self.declare(vhost, self.random.choice(missing or QUEUES))
        elif queue is not None:
            vhost.passive_queue(queue.name, self.owner_of(queue), self.now)

    def delete(self, vhost: Vhost) -> None:
        """Delete a queue."""
        queue = self.any_queue(vhost)
        if queue is not None:
            if_unused, if_empty = self.random.random() < 0.5, self.random.random() < 0.5
            vhost.delete_queue(queue.name, self.owner_of(queue), self.now, if_unused=if_unused, if_empty=if_empty)
            assert queue.deleted and not queue.ready

    def purge(self, vhost: Vhost) -> None:
        """Purge a queue."""
        queue = self.any_queue(vhost)
        if queue is not None:
            queue.settle(self.now)
            ready = len(list(queue))
            self.taken.update((queue, message.lsn) for message in queue)
            assert queue.purge() == ready

    def release_owner(self, vhost: Vhost) -> None:
        """A connection with exclusive queues goes."""
        owner = self.random.choice(self.owners)
        vhost.release_owner(owner)
        assert not any(queue.owner is owner for queue in vhost.queues.values())

    def declare_exchange(self, vhost: Vhost, name: str) -> None:
        """Declare an exchange."""
        vhost.declare_exchange(
            name, EXCHANGES[name], durable=True, auto_delete=name == "auto", internal=False, arguments={}
        )

    def bind(self, vhost: Vhost) -> None:
        """Bind a queue or an exchange."""
        source = self.random.choice(tuple(EXCHANGES))
        if self.random.random() < 0.2:
            vhost.bind(source, vhost.exchange(self.random.choice(tuple(EXCHANGES))), self.random.choice(KEYS), {})
        elif (queue := self.any_queue(vhost)) is not None and len(vhost.exchange(source).bindings()) < 4:
            vhost.bind(source, queue, self.random.choice((*KEYS, "k.*", "#")), {})

    def unbind(self, vhost: Vhost) -> None:
        """Undo some binding, or delete or declare an exchange."""
        name = self.random.choice(tuple(EXCHANGES))
        if name not in vhost.exchanges:
            self.declare_exchange(vhost, name)
        elif self.random.random() < 0.2:
            vhost.delete_exchange(name, if_unused=self.random.random() < 0.5)
        elif bindings := vhost.exchange(name).bindings():
            binding = self.random.choice(bindings)
            assert isinstance(binding.destination, Queue) or binding.destination.name in vhost.exchanges
            vhost.unbind(name, binding.destination, binding.routing_key, {})  # type: ignore[arg-type]

    # ---- messages in

    def publish(self, vhost: Vhost) -> None:
        """Publish some messages."""
        exchange = vhost.exchange(self.random.choice(("", "", "", "", *EXCHANGES)))
        key = self.random.choice(KEYS)
        for _ in range(self.random.choice((1, 1, 3, 8))):
            message = self.message(exchange.name, key)
            targets = vhost.route(exchange, message.address.routing_keys, message.headers())
            if self.random.random() < 0.05:
                self.routed.append((vhost, message, targets))
            else:
                self.hand_over(vhost, message, targets)

    def message(self, exchange: str, key: str) -> PlainMessage:
        """A message like no other."""
        self.published += 1
        copies = (self.random.choice(KEYS),) if self.random.random() < 0.1 else ()
        return PlainMessage(
            str(self.published),
            address=Address(exchange, key, copies),
            headers={"CC": list(copies)} if copies else {},
            priority=self.random.choice((0, 0, 1, 2, 3, 9)),
            expiration=self.random.choice((None, None, None, None, 0, 3, 30, 300)),
            size=self.random.randrange(20),
            persistent=self.random.random() < 0.9,
        )

    def hand_over(self, vhost: Vhost, message: PlainMessage, targets: list[Target]) -> None:
        """Put a routed message into its queues."""
        vhost.record_published(targets, message, self.now)
        for target in targets:
            assert isinstance(target, Queue)
            options = target.options
            if not target.enqueue(message, self.now):
                assert target.may_refuse
                self.seen["refused"] += 1
            elif target.may_refuse and not target.deleted:
                assert options.max_length is None or target.ready <= options.max_length
                assert options.max_length_bytes is None or target.ready_bytes <= options.max_length_bytes

    def commit(self, vhost: Vhost) -> None:
        """Commit what was published in a transaction, whatever has become of the queues."""
        routed, self.routed = self.routed, []
        for where, message, targets in routed:
            self.hand_over(where, message, targets)

    # ---- messages out

    def graves(self, queue: Queue, message: Message) -> list[Queue]:
        """Where a message that dies in a queue goes, as far as that is on record."""
        vhost = next(vhost for vhost in self.vhosts if vhost.queues.get(queue.name) is queue)
        exchange = vhost.exchanges.get(queue.options.dead_letter_exchange or "")
        if queue.options.dead_letter_exchange is None or exchange is None or not message.stamp.persistent:
            return []
        key = queue.options.dead_letter_routing_key
        found = vhost.route(exchange, message.address.routing_keys if key is None else (key,), message.headers())
        cut = set() if message is self.rejecting else {queue.name}
        before = message.headers().get("x-death", [])
        assert isinstance(before, list)
        for death in before if cut else ():
            assert isinstance(death, dict)
            if death["reason"] == "rejected":
                break
            cut.add(str(death["queue"]))
        return [target for target in found if isinstance(target, Queue) and target.durable and target.name not in cut]

    def handed_out(self, held: Held, to: object, *, no_ack: bool) -> None:
        """A message is given to a consumer, or (None) to whoever asked."""
        if no_ack:
            self.taken.add((held.queue, held.message.lsn))
        queue, lane, position = held.queue, held.lane, held.position
        assert not any(len(other) for level, other in queue.lanes.items() if level > self.level_of(queue, lane))
        deadline = held.message.deadline
        assert deadline is None or deadline > self.now or (deadline == self.now and to is not None)
        if not held.returns:
            # Consumers that take turns are dealt their shares one after the other, but each gets its own in order.
            latest = self.first_delivered.setdefault(lane, {})
            assert position > (max(latest.values(), default=-1) if to is None else latest.get(to, -1))
            assert position not in latest.values()
            latest[to] = position
        self.seen["redelivered" if held.returns else "delivered"] += 1
        reason = held.headers().get("x-last-death-reason")
        if reason is not None:
            self.seen[f"dead of {reason}"] += 1

    def level_of(self, queue: Queue, lane: Lane) -> int:
        """The priority that a lane is for."""
        return next(level for level, known in queue.lanes.items() if known is lane)

    def consume(self, vhost: Vhost) -> None:
        """Start a consumer."""
        queue = self.any_queue(vhost)
        if queue is None or len(self.clients) > 15:
            return
        client = Client(
            self,
            vhost,
            vhost.queue(queue.name, self.owner_of(queue)),
            prefetch=self.random.choice((0, 1, 1, 2, 5, 5, 1000)),
            no_ack=self.random.random() < 0.15,
            exclusive=self.random.random() < 0.1,
            priority=self.random.choice((0, 0, 0, 1, -1)),
        )
        vhost.consume(queue, client)
        self.clients.append(client)

    def some_client(self) -> Client | None:
        """A consumer that holds something, sooner than one that does not."""
        holding = [client for client in self.clients if client.held]
        return self.random.choice(holding or self.clients) if self.clients else None

    def settle_some(self, vhost: Vhost) -> None:
        """A client acknowledges, rejects or gives back some of what it has."""
        client = self.some_client()
        if client is None:
            return
        count = self.random.randint(0, len(client.held))
        chosen = client.held[:count] if self.random.random() < 0.5 else self.random.sample(client.held, count)
        client.held = [held for held in client.held if held not in chosen]
        self.finish(client.vhost, chosen, self.random.choice(("ack", "ack", "reject", "requeue", "requeue")))
        self.wake(client)

    def finish(self, vhost: Vhost, chosen: Sequence[Held], how: str) -> None:
        """Be done with some deliveries."""
        for held in chosen:
            if how == "ack":
                self.taken.add((held.queue, held.message.lsn))
                held.queue.acknowledge([held.message])
            elif how == "reject":
                self.rejecting = held.message
                held.queue.reject([held.message], self.now)
                self.rejecting = None
            else:
                self.give_back(held)

    def give_back(self, held: Held) -> None:
        """Requeue a delivery: it is at its old place then, unless it came back too often."""
        queue, lane = held.queue, held.lane
        queue.requeue(lane, held.position, [held.message], held.returns + 1, self.now)
        limit = queue.options.delivery_limit
        assert lane._holds(held.position) is not (queue.deleted or (limit is not None and held.returns >= limit))
        if lane._holds(held.position):
            message, returns = lane._back[held.position]
            assert (message.deadline, returns) == (held.message.deadline, held.returns + 1)

    def wake(self, client: Client) -> None:
        """Tell the queue that there may be room again."""
        client.queue.wake(client)

    def change_prefetch(self, vhost: Vhost) -> None:
        """A client takes more, or less."""
        client = self.some_client()
        if client is not None:
            client.prefetch = self.random.choice((0, 1, 5, 1000))
            self.wake(client)

    def cancel(self, vhost: Vhost) -> None:
        """A client stops consuming; what it has it may still acknowledge."""
        client = self.some_client()
        if client is not None:
            self.stop(client)

    def stop(self, client: Client) -> None:
        """Cancel a consumer that is not cancelled."""
        if not client.cancelled:
            client.cancelled = not client.queue.deleted  # else it is about to be told
            client.vhost.cancel(client.queue, client, self.now)

    def die(self, vhost: Vhost) -> None:
        """A client's channel goes, with everything on it."""
        client = self.some_client()
        if client is not None:
            self.kill(client)

    def kill(self, client: Client) -> None:
        """End a client."""
        self.stop(client)
        held, client.held = client.held, []
        self.finish(client.vhost, held, "requeue")
        self.clients.remove(client)

    def get(self, vhost: Vhost) -> None:
        """Fetch a message."""
        queue = self.any_queue(vhost)
        if queue is None:
            return
        vhost.queue(queue.name, self.owner_of(queue))
        no_ack = self.random.random() < 0.3
        taken = queue.take(self.now, no_ack=no_ack)
        queue.touch(self.now)
        if taken is not None:
            held = Held(queue, *taken)
            self.handed_out(held, None, no_ack=no_ack)
            self.trace.append(("get", queue.name, held.body, held.returns))
            if not no_ack:
                self.fetched.append((vhost, held))

    def settle_fetched(self, vhost: Vhost) -> None:
        """Be done with something that was fetched."""
        if self.fetched:
            where, held = self.fetched.pop(self.random.randrange(len(self.fetched)))
            self.finish(where, [held], self.random.choice(("ack", "reject", "requeue")))

    def pass_time(self, vhost: Vhost) -> None:
        """Time goes by: a little, up to the next deadline, or more than anybody waited for."""
        due = self.broker.deadlines.next_due()
        how = self.random.random()
        if how < 0.6 or due is None:
            self.now += self.random.choice((1, 1, 2, 5, 20))
        elif how < 0.9:
            self.now = max(self.now, due)
        else:
            self.now = max(self.now, due) + self.random.choice((1, 20, 2000))
        self.settle()

    ACTIONS: tuple[tuple[Callable[[Simulation, Vhost], None], int], ...] = (
        (publish, 30),
        (settle_some, 25),
        (consume, 12),
        (get, 8),
        (settle_fetched, 6),
        (pass_time, 10),
        (change_prefetch, 4),
        (cancel, 2),
        (die, 4),
        (redeclare, 8),
        (delete, 2),
        (purge, 1),
        (bind, 3),
        (unbind, 2),
        (release_owner, 1),
        (commit, 3),
    )

    # ---- what must hold

    def held(self) -> list[Held]:
        """All that somebody has and has not acknowledged."""
        return [
            *(held for _, held in self.fetched),
            *(held for client in self.clients for held in client.held),
        ]

    def check(self) -> None:
        """Everything, after a batch of input was settled."""
        self.broker.check()
        assert not self.broker.restless
        by_queue: dict[Queue, list[Held]] = {}
        for held in self.held():
            by_queue.setdefault(held.queue, []).append(held)
        usage = 0
        deadlines = []
        for vhost in self.vhosts:
            for queue in vhost.queues.values():
                usage += self.check_queue(queue, by_queue.get(queue, []))
                deadlines += [message.deadline for message in queue if message.deadline is not None]
                if queue.options.expires_ms is not None and not len(queue.consumers):
                    deadlines.append(queue.last_used + queue.options.expires_ms)
        assert self.broker.usage.bytes == usage
        if deadlines:
            assert self.due is not None and self.now < self.due <= min(deadlines)
        for client in self.clients:
            listed = client in list(client.queue.consumers)
            assert client.cancelled if client.queue.deleted else listed is not client.cancelled
        assert not {key: text for key, text in self.ledger.doubtful.items() if key not in self.taken}
        self.ledger.doubtful.clear()
        self.taken.clear()
        self.keep_small()

    def compare(self) -> None:
        """What a journal would hold with what there is."""
        for vhost in self.vhosts:
            self.ledger.compare(vhost, self.held())

    def check_queue(self, queue: Queue, unacked: list[Held]) -> int:
        """A queue's counters, limits and consumers; the memory it should be using."""
        ready = list(queue)
        options = queue.options
        copies = [*ready, *(held.message for held in unacked)]
        assert len(set(map(serial, copies))) == len(copies)
        assert not any(held.lane._holds(held.position) for held in unacked)
        assert (queue.ready, queue.unacked) == (len(ready), len(unacked))
        assert queue.ready_bytes == sum(message.size for message in ready)
        assert queue.unacked_bytes == sum(held.message.size for held in unacked)
        assert all(message.deadline is None or message.deadline > self.now for message in ready)
        if options.drops_head:
            assert options.max_length is None or queue.ready <= options.max_length
            assert options.max_length_bytes is None or queue.ready_bytes <= options.max_length_bytes
        consumers = list(queue.consumers)
        assert (queue.consumers.active is None) is (not consumers or not options.single_active_consumer)
        takers = consumers if not options.single_active_consumer else [queue.consumers.active]
        if ready:
            assert not any(consumer.room() > 0 for consumer in takers if consumer is not None)
        if queue.auto_delete and queue.had_consumer:
            assert consumers
        return self.memory_of(queue, copies)

    def memory_of(self, queue: Queue, copies: list[Message]) -> int:
        """What a queue takes by counting what is in memory."""
        pages = [page for lane in queue.lanes.values() for page in lane.pages]
        size = queue.bytes - sum(page.bytes for page in pages)
        count = len(copies) - sum(page.count for page in pages)
        return size + count * MESSAGE_OVERHEAD_BYTES + len(pages) * PAGE_OVERHEAD_BYTES

    def keep_small(self) -> None:
        """Purge the longest queue when dead letters have multiplied."""
        queues = [queue for vhost in self.vhosts for queue in vhost.queues.values()]
        if sum(queue.ready for queue in queues) > MOST_MESSAGES:
            longest = max(queues, key=lambda queue: queue.ready)
            self.taken.update((longest, message.lsn) for message in longest)
            longest.purge()
            self.settle()

    # ---- the end

    def drain(self) -> None:
        """Everybody goes; what they held comes back in order; every queue can be emptied."""
        self.commit(self.vhosts[0])
        self.settle()
        expected = {
            queue: self.contents(queue) for vhost in self.vhosts for queue in vhost.queues.values() if self.keeps(queue)
        }
        for client in list(self.clients):
            self.kill(client)
        for vhost, held in self.fetched:
            self.finish(vhost, [held], "requeue")
        self.fetched.clear()
        self.settle()
        self.check()
        self.compare()
        for queue, messages in expected.items():
            if not queue.deleted:  # which it may be, having lost its last consumer
                self.seen["drained"] += len(messages)
                mine = list(map(serial, messages))
                found = list(map(serial, queue))  # dead letters of other queues may have joined them
                assert [number for number in found if number in set(mine)] == mine
        for vhost in self.vhosts:
            for queue in list(vhost.queues.values()):
                self.empty(vhost, queue)
        for vhost in self.vhosts:
            assert all(queue.ready == queue.unacked == queue.bytes == 0 for queue in vhost.queues.values())
            for queue in list(vhost.queues.values()):
                vhost.drop_queue(queue)
        self.settle()
        assert self.broker.usage.bytes == 0
        assert self.broker.deadlines.next_due() is None
        assert (self.ledger.queues, self.ledger.contents, self.ledger.out) == ({}, {}, {})
        assert self.shelf.there == set()

    def keeps(self, queue: Queue) -> bool:
        """Whether all that a queue holds and has handed out will be there when it comes back."""
        options = queue.options
        return (
            options.delivery_limit is None
            and (options.max_length is options.max_length_bytes is None or not options.drops_head)
            and all(message.deadline is None for message in queue)
            and all(held.message.deadline is None for held in self.held() if held.queue is queue)
        )

    def contents(self, queue: Queue) -> list[Message]:
        """What a queue holds and has handed out, in the order in which it would all be delivered again."""
        places: list[tuple[int, int, Message]] = []
        for level, lane in queue.lanes.items():
            held = {held.position: held.message for held in self.held() if held.lane is lane}
            inside, back = list(lane), sorted(lane._back)
            at = [*back, *range(lane.head, lane.head + len(inside) - len(back))]
            assert held.keys().isdisjoint(at)
            places += ((-level, position, message) for position, message in held.items())
            places += ((-level, position, message) for position, message in zip(at, inside, strict=True))
        places.sort(key=lambda place: place[:2])
        return [message for _, _, message in places]

    def empty(self, vhost: Vhost, queue: Queue) -> None:
        """Consume a queue until nothing is left in it."""
        if queue.deleted:
            return
        client = Client(self, vhost, queue, prefetch=1000, no_ack=0, exclusive=0, priority=0)
        vhost.consume(queue, client)
        self.clients.append(client)
        self.settle()
        while client.held:
            held, client.held = client.held, []
            self.finish(vhost, held, "ack")
            self.wake(client)
            self.settle()
        assert queue.ready == 0
        self.kill(client)
        self.settle()
        self.check()


def serial(message: Message) -> int:
    """Which message this is."""
    assert isinstance(message, PlainMessage)
    return message.serial


def simulate(seed: int, window_bytes: int = 0) -> Simulation:
    """Run one simulation."""
    simulation = Simulation(seed, window_bytes)
    simulation.run()
    simulation.seen["put away"] += simulation.shelf.counts["put away"]
    simulation.seen.update(f"left: {reason}" for reason in simulation.ledger.left.elements())
    return simulation


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_simulation(seed: int) -> None:
    """In memory, and then with the middle of all queues elsewhere: nobody can tell."""
    plain = simulate(seed)
    assert plain.seen["delivered"]
    paged = simulate(seed, window_bytes=WINDOW_BYTES)
    assert paged.trace == plain.trace
    assert paged.ledger.left == plain.ledger.left
    assert not plain.shelf.counts


def test_a_seed_says_it_all() -> None:
    one, other = simulate(7), simulate(7)
    assert (one.seen, one.trace) == (other.seen, other.trace)


def test_the_simulation_comes_upon_everything() -> None:
    seen = sum((simulate(seed, WINDOW_BYTES).seen for seed in range(-25, 0)), Counter[str]())
    for what in (
        "delivered",
        "redelivered",
        "refused",
        "drained",
        "consumers told",
        "dead of expired",
        "dead of maxlen",
        "dead of rejected",
        "dead of delivery_limit",
        "error 403",
        "error 404",
        "error 405",
        "error 406",
        "put away",
        *(f"left: {reason}" for reason in Reason if reason is not Reason.COMMITTED),  # a session's are the transactions
    ):
        assert seen[what] > 1, (what, seen)
