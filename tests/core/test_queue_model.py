"""A queue against a list: whatever is published, fetched, returned, rejected or waited for, both tell the same.

The list knows every message by its place, priority and deadline, and is searched from end to end at each step. There
are no consumers here (they come first and would leave little to compare); the simulation is full of them. It is played
with queues in memory, and with queues that keep next to nothing there and are restored now and then.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rabbitish.core.message import Address
from rabbitish.values import Value

from .fakes import Held, PlainMessage, World

_few = st.integers(0, 4)


@dataclass
class Entry:
    """What the list knows of a message."""

    body: str
    place: tuple[int, int]  # the higher its priority the lower the first; the second counts up
    size: int
    deadline: int | None
    since: int
    priority: int
    expiration: int | None
    returns: int = 0


class QueueAgainstList(RuleBasedStateMachine):
    """One queue with options of all kinds, whose dead letters end in another."""

    window_bytes = 0

    @initialize(
        ttl=st.none() | st.integers(0, 30),
        max_length=st.none() | _few,
        max_bytes=st.none() | st.integers(0, 30),
        overflow=st.sampled_from(("drop-head", "reject-publish", "reject-publish-dlx")),
        max_priority=st.none() | _few,
        delivery_limit=st.none() | _few,
    )
    def start(
        self,
        ttl: int | None,
        max_length: int | None,
        max_bytes: int | None,
        overflow: str,
        max_priority: int | None,
        delivery_limit: int | None,
    ) -> None:
        self.ttl, self.max_length, self.max_bytes, self.overflow = ttl, max_length, max_bytes, overflow
        self.max_priority, self.delivery_limit = max_priority or 0, delivery_limit
        arguments: dict[str, Value] = {
            "message_ttl": ttl,
            "max_length": max_length,
            "max_length_bytes": max_bytes,
            "max_priority": max_priority,
            "delivery_limit": delivery_limit,
        }
        self.arguments = {key: value for key, value in arguments.items() if value is not None}
        self.begin()
        self.inside: list[Entry] = []
        self.outside: list[tuple[Entry, Held]] = []
        self.dead: list[tuple[str, str]] = []  # those of the last step, with what they died of
        self.count = 0

    def begin(self) -> None:
        self.world = World(window_bytes=self.window_bytes)
        self.world.queue("dead")
        self.queue = self.world.queue(
            dead_letter_exchange="", dead_letter_routing_key="dead", overflow=self.overflow, **self.arguments
        )

    # ---- what the list does

    def full_for(self, size: int) -> bool:
        if self.max_length is not None and len(self.inside) + 1 > self.max_length:
            return True
        return self.max_bytes is not None and sum(entry.size for entry in self.inside) + size > self.max_bytes

    def over(self) -> bool:
        if self.max_length is not None and len(self.inside) > self.max_length:
            return True
        return self.max_bytes is not None and sum(entry.size for entry in self.inside) > self.max_bytes

    def after(self) -> None:
        """Expire what is due, then drop from the head what is over the limit."""
        now = self.world.now
        due = [entry for entry in self.inside if entry.deadline is not None and entry.deadline <= now]
        for entry in sorted(due, key=lambda entry: (entry.deadline, entry.place)):
            self.inside.remove(entry)
            self.dead.append((entry.body, "expired"))
        while self.overflow == "drop-head" and self.over():
            self.dead.append((self.inside.pop(0).body, "maxlen"))

    # ---- what is done to both

    @rule(
        priority=st.integers(0, 5),
        expiration=st.none() | st.integers(0, 30),
        size=st.integers(0, 12),
        times=st.sampled_from((1, 1, 3)),
    )
    def publish(self, priority: int, expiration: int | None, size: int, times: int) -> None:
        for _ in range(times):
            self.count += 1
            body = f"{self.count} "
            accepted = self.world.publish(body, priority=priority, expiration=expiration, size=size)
            if self.overflow != "drop-head" and self.full_for(size):
                assert not accepted
                if self.overflow == "reject-publish-dlx":
                    self.dead.append((body, "maxlen"))
                continue
            assert accepted
            lives = [ttl for ttl in (self.ttl, expiration) if ttl is not None]
            deadline = self.world.now + min(lives) if lives else None
            place = (-min(priority, self.max_priority), self.count)
            self.inside.append(Entry(body, place, size, deadline, self.world.now, priority, expiration))
            self.inside.sort(key=lambda entry: entry.place)
            self.after()

    @rule(no_ack=st.booleans())
    def get(self, no_ack: bool) -> None:
        held = self.world.get(no_ack=no_ack)
        if not self.inside:
            assert held is None
            return
        entry = self.inside.pop(0)
        assert held is not None
        assert (held.body, held.returns) == (entry.body, entry.returns)
        counted = entry.returns if self.delivery_limit is not None and entry.returns else None
        assert held.headers().get("x-delivery-count") == counted
        if not no_ack:
            self.outside.append((entry, held))

    def one_outside(self, data: st.DataObject) -> tuple[Entry, Held]:
        return self.outside.pop(data.draw(st.integers(0, len(self.outside) - 1)))

    @precondition(lambda self: self.outside)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        self.world.ack(self.one_outside(data)[0].body)

    @precondition(lambda self: self.outside)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        entry, _ = self.one_outside(data)
        self.world.reject(entry.body)
        self.dead.append((entry.body, "rejected"))

    def give_back(self, entry: Entry) -> None:
        entry.returns += 1
        if self.delivery_limit is not None and entry.returns > self.delivery_limit:
            self.dead.append((entry.body, "delivery_limit"))
        else:
            self.inside.append(entry)
            self.inside.sort(key=lambda entry: entry.place)

    @precondition(lambda self: self.outside)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        entry, _ = self.one_outside(data)
        self.world.requeue(entry.body)
        self.give_back(entry)
        self.after()

    @precondition(lambda self: self.outside)
    @rule()
    def requeue_all(self) -> None:
        with self.world.batch():
            for entry, _ in self.outside:
                self.world.requeue(entry.body)
                self.give_back(entry)
        self.outside.clear()
        self.after()

    @rule(ms=st.integers(1, 15))
    def wait(self, ms: int) -> None:
        until = self.world.now + ms
        self.world.wait(ms)
        assert self.world.now == until
        self.after()

    @rule()
    def purge(self) -> None:
        assert self.queue.purge() == len(self.inside)
        self.world.settle()
        self.inside.clear()

    # ---- and what must be the same

    @invariant()
    def the_same(self) -> None:
        queue, inside = self.queue, self.inside
        assert self.world.ready() == "".join(entry.body for entry in inside)
        assert (queue.ready, queue.ready_bytes) == (len(inside), sum(entry.size for entry in inside))
        outside = [entry for entry, _ in self.outside]
        assert (queue.unacked, queue.unacked_bytes) == (len(outside), sum(entry.size for entry in outside))
        died = []
        while (held := self.world.get("dead", no_ack=True)) is not None:
            died.append((held.body, str(held.headers()["x-first-death-reason"])))
        if self.max_priority:  # levels are looked through one by one
            died.sort()
            self.dead.sort()
        assert died == self.dead
        self.dead.clear()


class PagedQueueAgainstList(QueueAgainstList):
    """The same with a queue that keeps about one message in memory, and is restored from what it held."""

    window_bytes = 500

    @rule(room=st.sampled_from((0, 1, 2, 5)) | st.just(1000))
    def change_room(self, room: int) -> None:
        self.world.shelf.room = room

    def message(self, entry: Entry) -> PlainMessage:
        message = PlainMessage(
            entry.body,
            address=Address("", "q"),
            priority=entry.priority,
            expiration=entry.expiration,
            size=entry.size,
            persistent=True,
        )
        self.world.ledger.published([self.queue], [message], entry.since)
        self.world.ledger.contents[self.queue][message.lsn] = entry.returns
        return message

    @rule()
    def restart(self) -> None:
        """What was out comes back and was redelivered; in each lane what was ever out comes first, then pages."""
        for entry, _ in self.outside:
            entry.returns += 1
            self.inside.append(entry)
        self.outside.clear()
        self.inside.sort(key=lambda entry: entry.place)
        now = self.world.now
        self.begin()
        self.world.now = now
        for level in sorted({entry.place[0] for entry in self.inside}):
            entries = [entry for entry in self.inside if entry.place[0] == level]
            last = max((number for number, entry in enumerate(entries, 1) if entry.returns), default=0)
            for entry in entries[:last]:
                self.queue.restore(self.message(entry), entry.since, entry.returns)
            messages = list(map(self.message, entries[last:]))
            for message, entry in zip(messages, entries[last:], strict=True):
                message.deadline = self.queue.deadline_of(message.stamp, entry.since)
                assert message.deadline == entry.deadline
            for page in self.world.shelf.put_away(messages):
                self.queue.restore_page(self.queue.lane_of(messages[0].stamp), page)
            self.queue.check()
        for _ in self.queue.bury_returned(now):
            pass
        if self.delivery_limit is not None:
            for entry in [entry for entry in self.inside if entry.returns > self.delivery_limit]:
                self.inside.remove(entry)
                self.dead.append((entry.body, "delivery_limit"))
        self.world.settle()
        self.after()

    @invariant()
    def no_page_is_forgotten(self) -> None:
        queues = self.world.vhost.queues.values()
        assert self.world.shelf.there == {
            page for queue in queues for lane in queue.lanes.values() for page in lane.pages
        }


TestQueueAgainstList = QueueAgainstList.TestCase
TestQueueAgainstList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPagedQueueAgainstList = PagedQueueAgainstList.TestCase
TestPagedQueueAgainstList.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
