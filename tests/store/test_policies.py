"""Policies over restarts: a message keeps the deadline that it was given, whatever its queue's policies are by then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.core.access.policies import read_policy
from rabbitish.core.access.roster import Roster
from rabbitish.store.checkpoint import NAME
from rabbitish.store.inspect import Entry, Wanted, inspect
from rabbitish.store.salvage import salvage
from rabbitish.wire import methods
from tests.thorough import seeds

from .fake_disk import Contents
from .lives import Life, MemoryDisk, queues_of
from .workload import QUEUES, Workload
from .wreck import MemoryDisk as Folder


def killed(life: Life, roster: Roster | None = None) -> Life:
    """The broker is killed when everybody has hung up, and started again."""
    for session in list(life.clients):
        session.receive_eof(life.now)
    life.settle()
    return Life(life.disk.copy(NAME), now=life.now, roster=roster or life.hub.access.roster)


def stopped(life: Life, roster: Roster | None = None) -> Life:
    """It is stopped, and started again from its checkpoint."""
    again = Life(life.stop(), now=life.now, roster=roster or life.hub.access.roster)
    assert again.recovered.checkpointed
    return again


def deadlines_of(life: Life) -> dict[tuple[str, str], dict[int, int | None]]:
    """Of all messages that are in the journal."""
    return {
        name: {message.lsn: message.deadline for lane in queue.lanes.values() for message in lane.messages}
        for name, queue in queues_of(life).items()
    }


Restart = Callable[..., Life]
RESTARTS = [killed, stopped]


def policy(life: Life, definition: dict[str, object], name: str = "p", pattern: str = "^q$") -> None:
    made = read_policy(name, {"pattern": pattern, "definition": definition})
    life.change(lambda roster: roster.set_policy("/", made))


def clear(life: Life, name: str = "p") -> None:
    life.change(lambda roster: roster.clear_policy("/", name))


def publish(life: Life, *bodies: bytes, queue: str = "q") -> None:
    client = life.client(1)
    client.publish(queue, *bodies, delivery_mode=2)
    life.settle()
    client.hang_up()


def with_queue(name: str = "q", **arguments: object) -> Life:
    life = Life(MemoryDisk())
    table = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    client = life.client(1)
    client.declare(name, durable=True, arguments=table)
    client.hang_up()
    return life


def left(life: Life, queue: str = "q") -> list[bytes]:
    """What is in the queue, taken out."""
    client = life.client(1)
    found = client.drain(queue)
    client.hang_up()
    return found


@pytest.mark.parametrize("restart", RESTARTS)
def test_what_came_before_the_policy_stays(restart: Restart) -> None:
    life = with_queue()
    publish(life, b"before")
    policy(life, {"message-ttl": 1000})
    publish(life, b"with")
    life = restart(life)
    publish(life, b"after the restart")
    life.advance(1000)
    assert left(life) == [b"before"]


@pytest.mark.parametrize("restart", RESTARTS)
def test_what_had_a_deadline_keeps_it_when_the_policy_is_gone(restart: Restart) -> None:
    life = with_queue()
    policy(life, {"message-ttl": 1000})
    publish(life, b"with")
    clear(life)
    publish(life, b"without")
    life = restart(life)
    assert life.queue("q").ready == 2
    life.advance(1000)
    assert left(life) == [b"without"]


@pytest.mark.parametrize("restart", RESTARTS)
def test_arguments_and_policies_in_turns(restart: Restart) -> None:
    life = with_queue(message_ttl=5000)
    for ttl in (None, 1000, 3000, None, 9000, 2000):
        if ttl is None:
            policy(life, {"max-length": 100})
        else:
            policy(life, {"message-ttl": ttl})
        publish(life, str(ttl).encode())
    expected = queues_of(life)
    life = restart(restart(life))
    assert queues_of(life) == expected
    for wait, kept in ((1000, 5), (1000, 4), (1000, 3), (1999, 3), (1, 0)):
        life.advance(wait)
        assert life.queue("q").ready == kept


@pytest.mark.parametrize("restart", RESTARTS)
def test_a_policy_that_changed_while_nothing_ran(restart: Restart) -> None:
    """As after a kill between the change of the file and of the queues, and when somebody edits the file."""
    life = with_queue()
    publish(life, b"old")
    roster = life.hub.access.roster.draft()
    roster.set_policy("/", read_policy("p", {"pattern": "q", "definition": {"message-ttl": 1000}}))
    life = restart(life, roster)
    publish(life, b"new")
    life = restart(life)
    life.advance(1000)
    assert left(life) == [b"old"]


@pytest.mark.parametrize("restart", RESTARTS)
def test_a_queue_declared_under_a_policy(restart: Restart) -> None:
    life = with_queue("other")
    policy(life, {"message-ttl": 1000, "max-length": 2})
    client = life.client(1)
    client.declare("q", durable=True)
    client.hang_up()
    publish(life, b"1", b"2", b"3")
    life = restart(life)
    assert life.queue("q").options.max_length == 2
    assert life.queue("q").ready == 2
    life.advance(1000)
    assert left(life) == []


def test_limits_hold_from_the_start() -> None:
    life = with_queue()
    publish(life, *[b"%d" % number for number in range(10)])
    life = killed(life)
    policy(life, {"max-length": 3})
    life = killed(life)
    assert left(life) == [b"7", b"8", b"9"]


@pytest.mark.parametrize("restart", RESTARTS)
def test_a_delivery_limit_of_a_policy(restart: Restart) -> None:
    life = with_queue(dead_letter_exchange="", dead_letter_routing_key="dead")
    client = life.client(1)
    client.declare("dead", durable=True)
    client.hang_up()
    publish(life, b"a")
    policy(life, {"delivery-limit": 1})
    for expected in ([b"a"], []):
        client = life.client(1)
        client.send(methods.BasicConsume(queue="q"))
        life.settle()
        assert client.session.channels[1].consumers
        life = restart(life)
        assert (life.queue("q").ready > 0) is bool(expected)
    assert left(life, "dead") == [b"a"]


def test_a_dead_letter_of_the_restart_has_the_time_that_its_queue_gives_by_then() -> None:
    """Though the queue's policy has changed since the last process."""
    life = with_queue(dead_letter_exchange="", dead_letter_routing_key="dead", delivery_limit=0)
    client = life.client(1)
    client.declare("dead", durable=True)
    client.hang_up()
    publish(life, b"a")
    client = life.client(1)
    client.ask(methods.BasicGet(queue="q"))
    life.settle()
    roster = life.hub.access.roster.draft()
    roster.set_policy("/", read_policy("p", {"pattern": "^dead$", "definition": {"message-ttl": 1000}}))
    life = Life(life.disk.copy(NAME), now=life.now, roster=roster)
    assert life.queue("dead").ready == 1
    life = killed(life)
    life.advance(1000)
    assert life.queue("dead").ready == 0


@pytest.mark.parametrize("seed", seeds(2, 4))
def test_whatever_happened(seed: int) -> None:
    """Policies come and go among all that clients do, over restarts of both kinds."""
    life = Life(MemoryDisk())
    work = Workload(life, seed)
    for generation in range(3):
        for _ in range(8):
            work.run(6)
            for name in work.random.sample(sorted(QUEUES), 2):
                ttl = work.random.choice((None, 500, 3_000, 80_000))
                definition = {"queue-mode": "lazy"} if ttl is None else {"message-ttl": ttl}
                policy(life, definition, name, f"^{name}$")
        for session in list(life.clients):
            session.receive_eof(life.now)
        life.settle()
        expected = deadlines_of(life)
        life = work.random.choice(RESTARTS)(life)
        found = deadlines_of(life)
        assert found == expected and any(any(deadlines.values()) for deadlines in found.values())
        work = Workload(life, seed + generation)


def test_what_is_remembered_is_no_more_than_is_needed() -> None:
    life = with_queue()
    for number in range(200):
        policy(life, {"message-ttl": 1000 + number})
        publish(life, b"x" * 100)
        if number % 10 == 9:
            left(life)
            life.compact()
    assert len(life.queue("q").ttls) < 100
    life = killed(life)
    assert len(life.queue("q").ttls) < 100


def test_a_journal_with_them_can_be_looked_at_and_salvaged() -> None:
    life = with_queue()
    publish(life, b"before")
    policy(life, {"message-ttl": 1000})
    publish(life, b"with")
    roster, codec = life.hub.access.roster, life.codec
    to = Folder()
    disk = Folder({name: life.disk.read(name) for name in life.disk.names()})
    looked = list(inspect(disk, codec, Wanted()))
    assert all(isinstance(one, Entry) for one in looked) and any("ttls" in str(one) for one in looked)
    found = salvage(disk, to, codec)
    assert found.messages == 2 and not found.lost
    again = MemoryDisk()
    again.files = {name: Contents(to.read(name)) for name in to.names()}
    life = Life(again, now=life.now, roster=roster)
    life.advance(1000)
    assert left(life) == [b"before"]
