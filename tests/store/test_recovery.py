"""After a restart everything is there again that must be: conversations, a kill, and a comparison field by field."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish.store.record import SEGMENT_HEAD_BYTES, Type, decode_all
from rabbitish.store.scan import JournalDamaged
from rabbitish.values import Int64, Table, Timestamp
from rabbitish.wire import methods
from tests.session.client import Client, Said, publication
from tests.session.harness import START
from tests.thorough import part_of

from .driver import IN_MEMORY, WINDOW_BYTES, Durable, state_of
from .fake_disk import FakeDisk

PERSISTENT = 2


class Story:
    """A broker that may be killed and started again; its present life is `world`."""

    def __init__(self, segment_bytes: int = 1 << 20, window_bytes: int = WINDOW_BYTES) -> None:
        self.segment_bytes = segment_bytes
        self.window_bytes = window_bytes
        self.world = self.begin(FakeDisk(), START)
        self.client = self.world.client(1, 2)

    def begin(self, disk: FakeDisk, now: int) -> Durable:
        return Durable(disk, now=now, segment_bytes=self.segment_bytes, window_bytes=self.window_bytes)

    def crash(self) -> None:
        """Kill it and start it again, though clients hold what they have not acknowledged."""
        assert not self.world.exceptions and not self.world.failures
        self.world = self.begin(self.world.disk.killed(), self.world.now)
        self.client = self.world.client(1, 2)

    def restart(self, after_ms: int = 0) -> Durable:
        """Kill it and start it again, so much later; everything must be as it was, and once more after another kill."""
        old = self.world
        old.settle()
        for client in list(old.clients.values()):
            client.hang_up()
        expected = state_of(old.broker)
        now = old.now + after_ms
        self.world = self.begin(old.disk.killed(), now)
        self.same(expected)
        again = self.begin(old.disk.killed(), now)
        assert state_of(again.broker) == expected
        grandchild = self.begin(self._begun(again), now)
        assert state_of(grandchild.broker) == expected
        self.world.settle()
        assert not old.exceptions and not old.failures
        self.client = self.world.client(1, 2)
        return self.world

    def _begun(self, world: Durable) -> FakeDisk:
        """What a recovered journal leaves that had only just begun."""
        world.journal.write(world.journal.take())
        return world.disk.killed()

    def same(self, expected: object) -> None:
        assert state_of(self.world.broker) == expected

    def declare(self, name: str, **arguments: object) -> str:
        table = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        return self.client.declare(name, durable=True, arguments=table)  # type: ignore[arg-type]

    def exchange(self, name: str, kind: str = "direct", **how: object) -> None:
        method = methods.ExchangeDeclare(exchange=name, type=kind, durable=True, **how)  # type: ignore[arg-type]
        assert self.client.ask(method) == methods.ExchangeDeclareOk()

    def bind(self, queue: str, exchange: str, key: str = "", arguments: Table | None = None) -> None:
        method = methods.QueueBind(queue=queue, exchange=exchange, routing_key=key, arguments=arguments or {})
        assert self.client.ask(method) == methods.QueueBindOk()

    def publish(self, key: str, *bodies: bytes, **how: object) -> None:
        self.client.publish(key, *bodies, **{"delivery_mode": PERSISTENT, **how})  # type: ignore[arg-type]
        assert self.client.answers() == []

    def get(self, queue: str) -> Said:
        """Fetch a message without acknowledging it."""
        said = self.client.get(queue, no_ack=False)
        assert said is not None
        return said

    def tag(self, queue: str) -> int:
        method = self.get(queue).method
        assert isinstance(method, methods.BasicGetOk)
        return method.delivery_tag

    def settle(self, method: methods.Method) -> None:
        self.client.send(method)
        assert self.client.answers() == []


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture(
    params=[(1 << 20, WINDOW_BYTES), (300, WINDOW_BYTES), (1 << 20, IN_MEMORY)],
    ids=["one-segment", "many-segments", "in-memory"],
)
def any_story(request: pytest.FixtureRequest) -> Story:
    return Story(*request.param)


# ---- what is declared


def test_nothing(story: Story) -> None:
    world = story.restart()
    assert list(world.broker.vhosts) == ["/"]
    assert world.vhost.queues == {}


def test_exchanges(any_story: Story) -> None:
    for kind in ("direct", "fanout", "topic", "headers"):
        any_story.exchange(kind, kind)
    any_story.exchange("inner", internal=True)
    any_story.exchange("auto", auto_delete=True)
    any_story.exchange("alt", arguments={"alternate-exchange": "fanout", "x-any": [Int64(1), {"a": Timestamp(2)}]})
    any_story.client.ask(methods.ExchangeDeclare(exchange="transient", type="direct"))
    any_story.exchange("deleted")
    any_story.client.ask(methods.ExchangeDelete(exchange="deleted"))
    world = any_story.restart()
    found = {name for name in world.vhost.exchanges if not name.startswith("amq.")}
    assert found == {"", "direct", "fanout", "topic", "headers", "inner", "auto", "alt"}
    assert world.vhost.exchanges["alt"].alternate == "fanout"
    assert world.vhost.exchanges["inner"].internal


def test_queues(any_story: Story) -> None:
    arguments = {
        "max_length": 10,
        "max_priority": 5,
        "message_ttl": Int64(60_000),
    }
    any_story.declare("plain")
    any_story.declare("special", **arguments, overflow="reject-publish", dead_letter_exchange="x")
    any_story.client.declare("auto", durable=True, auto_delete=True)
    any_story.client.declare("transient")
    any_story.client.declare("exclusive", durable=True, exclusive=True)
    named = any_story.declare("")
    assert named.startswith("amq.gen-")
    any_story.declare("deleted")
    any_story.publish("deleted", b"with it")
    any_story.client.ask(methods.QueueDelete(queue="deleted"))
    world = any_story.restart()
    assert set(world.vhost.queues) == {"plain", "special", "auto", named}
    assert world.queue("special").options.max_priority == 5
    assert any_story.client.declare("special", passive=True) == "special"
    any_story.declare("special", **arguments, overflow="reject-publish", dead_letter_exchange="x")


def test_names_in_any_script(story: Story) -> None:
    name = "grüße 世界 \N{RABBIT FACE}"
    story.declare(name)
    story.exchange(name)
    story.bind(name, name, name)
    story.publish(name, b"m", exchange=name)
    assert list(story.restart().vhost.queues) == [name]
    assert story.client.drain(name) == [b"m"]


def test_bindings(any_story: Story) -> None:
    any_story.exchange("e", "topic")
    any_story.exchange("f", "headers")
    any_story.declare("q")
    any_story.client.declare("transient")
    any_story.client.ask(methods.ExchangeDeclare(exchange="passing", type="fanout"))
    for key in ("a.#", "b.*", "gone"):
        any_story.bind("q", "e", key)
    any_story.bind("q", "f", arguments={"x-match": "any", "n": Int64(1), "s": "1"})
    any_story.bind("q", "f", arguments={"x-match": "any", "n": 1, "s": "1"})
    any_story.bind("q", "amq.topic", "predeclared")
    any_story.bind("transient", "e", "a.#")
    any_story.bind("q", "passing")
    any_story.client.ask(methods.ExchangeBind(destination="f", source="e", routing_key="x"))
    any_story.client.ask(methods.QueueUnbind(queue="q", exchange="e", routing_key="gone"))
    any_story.restart()
    any_story.publish("a.1.2", b"1", exchange="e")
    any_story.publish("gone", b"2", exchange="e")
    any_story.publish("x", b"3", exchange="e", headers={"s": "1"})
    any_story.publish("predeclared", b"4", exchange="amq.topic")
    assert any_story.client.drain("q") == [b"1", b"3", b"4"]


def test_a_bindings_arguments_are_known_again(any_story: Story) -> None:
    """After a restart, and with arguments in another order, an unbind still finds what it undoes."""
    any_story.declare("q")
    any_story.bind("q", "amq.headers", arguments={"b": 1, "a": Timestamp(5)})
    any_story.restart()
    arguments: Table = {"a": Timestamp(5), "b": 1}
    any_story.client.ask(methods.QueueUnbind(queue="q", exchange="amq.headers", arguments=arguments))
    world = any_story.restart()
    assert world.vhost.exchanges["amq.headers"].bindings() == []


def test_what_goes_takes_its_bindings_along(any_story: Story) -> None:
    for name in ("e", "f"):
        any_story.exchange(name, "fanout")
    any_story.declare("q")
    any_story.bind("q", "e")
    any_story.bind("q", "f")
    any_story.client.ask(methods.ExchangeBind(destination="f", source="e"))
    any_story.client.ask(methods.QueueDelete(queue="q"))
    any_story.client.ask(methods.ExchangeDelete(exchange="f"))
    any_story.restart()
    any_story.exchange("f", "fanout")
    any_story.declare("q")
    world = any_story.restart()
    assert world.vhost.exchanges["e"].bindings() == world.vhost.exchanges["f"].bindings() == []


def test_an_auto_delete_exchange_goes_with_its_last_binding(any_story: Story) -> None:
    for name in ("unbound", "deleted", "above"):
        any_story.exchange(name, auto_delete=True)
    any_story.client.ask(methods.ExchangeBind(destination="deleted", source="above"))
    any_story.declare("q")
    any_story.bind("q", "unbound")
    any_story.bind("q", "deleted")
    any_story.client.ask(methods.QueueUnbind(queue="q", exchange="unbound"))
    any_story.client.ask(methods.QueueDelete(queue="q"))
    world = any_story.restart()
    assert {"unbound", "deleted", "above"}.isdisjoint(world.vhost.exchanges)


def test_a_segment_may_begin_at_any_record() -> None:
    """Snapshots that are taken in the middle of deleting something tell nothing of what has gone."""
    for segment_bytes in range(1, 700, 13):
        story = Story(segment_bytes)
        story.exchange("auto", "fanout", auto_delete=True)
        story.exchange("e", "fanout")
        story.exchange("f", "fanout")
        story.declare("q")
        for exchange in ("auto", "e", "f"):
            story.bind("q", exchange)
        story.publish("q", b"gone")
        story.client.ask(methods.ExchangeBind(destination="f", source="e"))
        story.client.ask(methods.QueueDelete(queue="q"))
        story.client.ask(methods.ExchangeDelete(exchange="f"))
        story.exchange("f", "fanout")
        story.declare("q")
        world = story.restart()
        assert world.vhost.exchanges["e"].bindings() == []
        assert story.client.drain("q") == []


# ---- messages


def test_messages_with_everything_on_them(any_story: Story) -> None:
    any_story.declare("q")
    any_story.exchange("e", "fanout")
    any_story.bind("q", "e")
    how = {
        "headers": {"n": Int64(1), "list": [1, "two", None], "CC": ["other", "third"]},
        "content_type": "text/plain",
        "correlation_id": "c",
        "timestamp": 12345,
        "priority": 3,
        "expiration": "5000000",
        "message_id": "id",
    }
    any_story.publish("key", b"with all", b"", b"x" * 300_000, exchange="e", **how)
    any_story.publish("q", b"plain")
    any_story.restart(1000)
    said = any_story.client.get("q")
    assert said is not None and said.body == b"with all"
    assert isinstance(said.method, methods.BasicGetOk)
    assert (said.method.exchange, said.method.routing_key, said.method.redelivered) == ("e", "key", False)
    props = said.props
    assert {name: getattr(props, name) for name in how} == how
    assert any_story.client.drain("q") == [b"", b"x" * 300_000, b"plain"]


def test_order_across_connections_and_lanes(any_story: Story) -> None:
    """The fast lane, the generic path and other channels: all in the order in which they came."""
    any_story.declare("q")
    other = any_story.world.client()
    expected: list[bytes] = []
    for number in range(30):
        body = b"%d" % number
        client, channel = [(any_story.client, 1), (any_story.client, 2), (other, 1)][number % 3]
        headers = {"CC": ["nowhere"]} if number % 5 == 0 else {"n": number % 2}
        client.raw(publication("q", body, channel=channel, headers=headers, delivery_mode=PERSISTENT))
        expected.append(body)
    any_story.restart()
    assert any_story.client.drain("q") == expected


def test_transient_messages_are_gone(any_story: Story) -> None:
    any_story.declare("q")
    any_story.client.declare("transient")
    any_story.exchange("e", "fanout")
    any_story.bind("q", "e")
    any_story.bind("transient", "e")
    any_story.client.publish("q", b"none", b"given")
    any_story.client.publish("q", b"mode 1", delivery_mode=1)
    any_story.publish("", b"kept", exchange="e")
    any_story.restart()
    assert any_story.client.drain("q") == [b"kept"]


def test_one_message_in_many_queues(any_story: Story) -> None:
    any_story.exchange("e", "fanout")
    for name in ("a", "b", "c"):
        any_story.declare(name)
        any_story.bind(name, "e")
    any_story.publish("", b"1", b"2", exchange="e")
    assert any_story.client.get("a") is not None
    any_story.client.ask(methods.QueueDelete(queue="c"))
    any_story.restart()
    assert any_story.client.drain("a") == [b"2"]
    assert any_story.client.drain("b") == [b"1", b"2"]


def test_a_body_is_written_once(story: Story) -> None:
    story.exchange("e", "fanout")
    for name in ("a", "b", "c"):
        story.declare(name)
        story.bind(name, "e")
    story.publish("", b"only once", exchange="e")
    assert sum(story.world.disk.read(name).count(b"only once") for name in story.world.disk.names()) == 1


def test_acks(any_story: Story) -> None:
    any_story.declare("q")
    any_story.publish("q", *[b"%d" % number for number in range(8)])
    tags = [any_story.tag("q") for _ in range(5)]
    any_story.settle(methods.BasicAck(delivery_tag=tags[0]))
    any_story.settle(methods.BasicAck(delivery_tag=tags[3], multiple=True))
    any_story.restart()
    assert any_story.client.drain("q") == [b"4", b"5", b"6", b"7"]


def test_consumers_and_no_ack(any_story: Story) -> None:
    any_story.declare("q")
    any_story.client.consume("q", no_ack=True)
    any_story.client.publish("q", b"1", b"2", delivery_mode=PERSISTENT)
    assert any_story.client.bodies() == [b"1", b"2"]
    any_story.client.ask(methods.BasicCancel(consumer_tag="t"))
    any_story.publish("q", b"3")
    any_story.restart()
    assert any_story.client.drain("q") == [b"3"]


def test_requeues_are_counted(any_story: Story) -> None:
    any_story.declare("q")
    any_story.declare("limited", delivery_limit=2)
    for queue in ("q", "limited"):
        any_story.publish(queue, b"1", b"2")
        any_story.settle(methods.BasicNack(delivery_tag=any_story.tag(queue), requeue=True))
    any_story.restart()
    said = any_story.get("limited")
    assert isinstance(said.method, methods.BasicGetOk) and said.method.redelivered
    assert (said.props.headers or {})["x-delivery-count"] == 1
    any_story.settle(methods.BasicNack(delivery_tag=said.method.delivery_tag, requeue=True))
    any_story.restart()
    said = any_story.get("limited")
    assert (said.body, (said.props.headers or {})["x-delivery-count"]) == (b"1", 2)
    assert isinstance(said.method, methods.BasicGetOk)
    any_story.settle(methods.BasicNack(delivery_tag=said.method.delivery_tag, requeue=True))  # over the limit
    any_story.restart()
    said = any_story.get("limited")
    assert isinstance(said.method, methods.BasicGetOk)
    assert (said.body, said.method.redelivered) == (b"2", False)
    said = any_story.get("q")
    assert isinstance(said.method, methods.BasicGetOk)
    assert (said.body, said.method.redelivered, said.props.headers) == (b"1", True, None)


def test_lost_consumers_give_back(any_story: Story) -> None:
    any_story.declare("q")
    any_story.publish("q", b"1", b"2", b"3")
    other = any_story.world.client()
    other.consume("q")
    assert other.bodies() == [b"1", b"2", b"3"]
    other.send(methods.BasicAck(delivery_tag=2))
    other.hang_up()
    any_story.restart()
    assert any_story.client.drain("q") == [b"1", b"3"]


def heard(story: Story, queue: str) -> list[tuple[bytes, bool]]:
    """Everything in a queue, and whether it was redelivered."""
    found = []
    while (said := story.client.get(queue, no_ack=False)) is not None:
        assert isinstance(said.method, methods.BasicGetOk)
        found.append((said.body, said.method.redelivered))
    return found


def test_what_was_handed_out_at_a_crash_is_redelivered(any_story: Story) -> None:
    any_story.declare("q")
    any_story.publish("q", *[b"%d" % number for number in range(8)])
    any_story.tag("q")
    any_story.client.consume("q", channel=2)
    assert any_story.client.bodies() == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]
    any_story.client.send(methods.BasicAck(delivery_tag=2), methods.BasicNack(delivery_tag=7), channel=2)
    assert any_story.client.bodies() == [b"7"]
    any_story.client.send(methods.BasicAck(delivery_tag=6), channel=2)
    any_story.client.answers()
    any_story.crash()
    assert heard(any_story, "q") == [(body, True) for body in (b"0", b"1", b"3", b"4", b"5", b"7")]
    any_story.publish("q", b"8")
    any_story.crash()
    assert heard(any_story, "q") == [*[(body, True) for body in (b"0", b"1", b"3", b"4", b"5", b"7")], (b"8", False)]


def test_what_was_not_handed_out_is_not_redelivered(any_story: Story) -> None:
    any_story.declare("q")
    any_story.publish("q", *[b"%d" % number for number in range(6)])
    any_story.client.send(methods.BasicQos(prefetch_count=2))
    any_story.client.answers()
    any_story.client.consume("q")
    assert any_story.client.bodies() == [b"0", b"1"]
    any_story.crash()
    assert heard(any_story, "q") == [(b"0", True), (b"1", True), *[(b"%d" % number, False) for number in range(2, 6)]]


def test_a_crash_counts_as_a_return(any_story: Story) -> None:
    any_story.declare("q", delivery_limit=5)
    any_story.publish("q", b"1", b"2")
    for returns in range(5):
        said = any_story.get("q")
        assert (said.body, (said.props.headers or {}).get("x-delivery-count", 0)) == (b"1", returns)
        assert isinstance(said.method, methods.BasicGetOk)
        if returns % 2:
            any_story.settle(methods.BasicNack(delivery_tag=said.method.delivery_tag, requeue=True))
            any_story.restart()
        else:
            any_story.crash()
    said = any_story.get("q")
    assert isinstance(said.method, methods.BasicGetOk)
    any_story.settle(methods.BasicNack(delivery_tag=said.method.delivery_tag, requeue=True))  # over the limit
    assert heard(any_story, "q") == [(b"2", False)]


def test_a_delivery_to_one_queue_is_none_to_another(any_story: Story) -> None:
    for name in ("q", "r"):
        any_story.declare(name)
        any_story.bind(name, "amq.fanout")
    any_story.publish("", b"1", b"2", exchange="amq.fanout")
    any_story.tag("q")
    any_story.crash()
    assert heard(any_story, "q") == [(b"1", True), (b"2", False)]
    assert heard(any_story, "r") == [(b"1", False), (b"2", False)]


def test_priorities_with_some_handed_out(any_story: Story) -> None:
    any_story.declare("q", max_priority=2)
    for number in range(12):
        any_story.publish("q", b"%d" % number, priority=number % 3)
    for _ in range(5):
        any_story.get("q")
    any_story.publish("q", b"12", priority=0)
    any_story.publish("q", b"13", priority=2)
    any_story.crash()
    assert heard(any_story, "q") == [
        *[(b"%d" % number, True) for number in (2, 5, 8, 11)],
        (b"13", False),
        (b"1", True),
        *[(b"%d" % number, False) for number in (4, 7, 10, 0, 3, 6, 9, 12)],
    ]


def test_deadlines_with_some_handed_out(any_story: Story) -> None:
    any_story.declare("q", message_ttl=1000)
    for number in range(6):
        any_story.publish("q", b"%d" % number, expiration=str(2000 - 300 * number))
        any_story.world.advance(10)
    for _ in range(2):
        any_story.get("q")
    any_story.crash()
    assert any_story.world.queue("q").ready == 6
    any_story.world.advance(500)  # of the last one
    assert any_story.world.queue("q").ready == 5
    any_story.world.advance(290)
    assert any_story.world.queue("q").ready == 4
    any_story.world.advance(1000)
    assert any_story.world.queue("q").ready == 0


@pytest.mark.parametrize("window_bytes", [WINDOW_BYTES, 100_000])
def test_a_long_queue(window_bytes: int) -> None:
    """Next to nothing of it is in memory, before and after; all comes in order, and none twice."""
    story = Story(20_000, window_bytes)
    story.declare("q")
    story.declare("short", message_ttl=5000)
    for part in range(10):
        bodies = [b"%5d" % (150 * part + number) for number in range(150)]
        story.publish("q", *bodies)
        story.publish("short", *bodies)
        story.world.advance(1)
    assert story.world.broker.usage.bytes < 2 * window_bytes + 2 * 1100 * 450
    first = [story.client.get("q") for _ in range(70)]
    assert [said.body for said in first if said is not None] == [b"%5d" % number for number in range(70)]
    world = story.restart()
    assert world.broker.usage.bytes < 2 * window_bytes + 2 * 1100 * 450
    assert {name: queue.ready for name, queue in world.vhost.queues.items()} == {"q": 1430, "short": 1500}
    story.client.consume("q", no_ack=True)
    assert story.client.bodies() == [b"%5d" % number for number in range(70, 1500)]
    world.advance(4989)
    assert world.queue("short").ready == 1500
    world.advance(9)
    assert world.queue("short").ready == 150
    assert story.client.drain("short") == [b"%5d" % number for number in range(1350, 1500)]
    assert list(story.restart().queue("q")) == []


def test_many_routes_and_sizes_in_one_queue(any_story: Story) -> None:
    """Each message is found again with what was its own, whatever its neighbours in a page are."""
    any_story.declare("q")
    any_story.exchange("e", "topic")
    any_story.bind("q", "e", "#")
    expected = []
    for number in range(60):
        key, body = f"key.{number % 7}", b"%d" % number * (number % 5)
        how = {"priority": number % 3, "headers": {"n": number % 2}, "message_id": str(number % 4)}
        any_story.publish(key, body, exchange="e", **how)
        expected.append((key, body, how))
    any_story.restart()
    for key, body, how in expected:
        said = any_story.client.get("q")
        assert said is not None and isinstance(said.method, methods.BasicGetOk)
        assert (said.method.routing_key, said.body) == (key, body)
        assert {name: getattr(said.props, name) for name in how} == how


def test_rejects_without_and_with_a_dead_letter_exchange(any_story: Story) -> None:
    any_story.declare("dead")
    any_story.declare("plain")
    any_story.declare("q", dead_letter_exchange="", dead_letter_routing_key="dead")
    for queue in ("plain", "q"):
        any_story.publish(queue, b"1", b"2")
        any_story.settle(methods.BasicReject(delivery_tag=any_story.tag(queue), requeue=False))
    any_story.restart()
    assert any_story.client.drain("plain") == any_story.client.drain("q") == [b"2"]
    said = any_story.get("dead")
    deaths = (said.props.headers or {})["x-death"]
    assert isinstance(deaths, list) and isinstance(deaths[0], dict)
    assert (said.body, deaths[0]["queue"], deaths[0]["reason"]) == (b"1", "q", "rejected")


def test_a_dead_letter_to_nowhere_is_gone(any_story: Story) -> None:
    any_story.declare("q", dead_letter_exchange="missing")
    any_story.publish("q", b"1", b"2")
    any_story.settle(methods.BasicReject(delivery_tag=any_story.tag("q"), requeue=False))
    any_story.restart()
    assert any_story.client.drain("q") == [b"2"]


def test_purges(any_story: Story) -> None:
    any_story.declare("q")
    any_story.publish("q", *[b"%d" % number for number in range(9000)])
    tag = any_story.tag("q")
    assert any_story.client.ask(methods.QueuePurge(queue="q")) == methods.QueuePurgeOk(message_count=8999)
    any_story.publish("q", b"after")
    any_story.settle(methods.BasicNack(delivery_tag=tag, requeue=True))
    any_story.restart()
    assert any_story.client.drain("q") == [b"0", b"after"]


def test_a_queue_deleted_and_declared_again_is_empty(any_story: Story) -> None:
    any_story.declare("q")
    any_story.publish("q", b"old")
    tag = any_story.tag("q")
    any_story.publish("q", b"older")
    any_story.client.ask(methods.QueueDelete(queue="q"))
    any_story.settle(methods.BasicAck(delivery_tag=tag))
    any_story.declare("q")
    any_story.publish("q", b"new")
    any_story.restart()
    assert any_story.client.drain("q") == [b"new"]


def test_numbers_of_queues_are_not_used_twice() -> None:
    """The power goes between a snapshot without a queue and the record of its end: its messages are no other's."""
    disk = FakeDisk()
    world = Durable(disk, segment_bytes=300)
    client = world.client()
    client.declare("kept", durable=True)
    client.declare("q", durable=True)
    client.publish("kept", b"this keeps the segment", delivery_mode=PERSISTENT)
    client.publish("q", b"old", delivery_mode=PERSISTENT, headers={"long": "-" * 200})  # the segment is full
    client.ask(methods.QueueDelete(queue="q"))
    name = world.segments()[-1]
    start = SEGMENT_HEAD_BYTES
    for record in decode_all(disk.read(name), start):
        if record.type is Type.QUEUE_GONE:
            disk.truncate(name, start)
        start = record.end
    for _ in range(2):
        world = Durable(disk.killed())
        assert "q" not in world.vhost.queues
        client = world.client()
        client.declare("other", durable=True)
        assert client.drain("other") == []
        disk = world.disk


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_refused_publishes(any_story: Story, overflow: str) -> None:
    any_story.declare("dead")
    any_story.declare("q", max_length=2, overflow=overflow, dead_letter_exchange="", dead_letter_routing_key="dead")
    any_story.publish("q", b"1", b"2", b"3")
    any_story.restart()
    assert any_story.client.drain("q") == [b"1", b"2"]
    assert any_story.client.drain("dead") == ([b"3"] if overflow.endswith("dlx") else [])


def test_dropped_heads(any_story: Story) -> None:
    any_story.declare("dead")
    any_story.declare("q", max_length=2, dead_letter_exchange="", dead_letter_routing_key="dead")
    any_story.declare("bytes", max_length_bytes=3)
    any_story.publish("q", b"1", b"2", b"3", b"4")
    any_story.publish("bytes", b"11", b"22", b"3")
    any_story.restart()
    assert any_story.client.drain("q") == [b"3", b"4"]
    assert any_story.client.drain("dead") == [b"1", b"2"]
    assert any_story.client.drain("bytes") == [b"22", b"3"]


def test_priorities(any_story: Story) -> None:
    any_story.declare("q", max_priority=5)
    for number, priority in enumerate((0, 5, 3, 9, 0, 3)):
        any_story.publish("q", b"%d" % number, priority=priority)
    any_story.settle(methods.BasicNack(delivery_tag=any_story.tag("q"), requeue=True))
    any_story.restart()
    assert any_story.client.drain("q") == [b"1", b"3", b"2", b"5", b"0", b"4"]


# ---- time


def test_time_counts_while_the_broker_is_down(any_story: Story) -> None:
    any_story.declare("q", message_ttl=1000, dead_letter_exchange="", dead_letter_routing_key="dead")
    any_story.declare("dead")
    any_story.publish("q", b"1")
    any_story.world.advance(400)
    any_story.publish("q", b"2")
    any_story.publish("q", b"3", expiration="300")
    any_story.publish("dead", b"0")
    world = any_story.restart(after_ms=500)
    assert any_story.client.drain("dead") == [b"0", b"3"]
    world.advance(99)
    assert any_story.client.drain("dead") == []
    world.advance(1)
    assert any_story.client.drain("dead") == [b"1"]
    any_story.restart(after_ms=10_000)
    assert any_story.client.drain("q") == []
    assert any_story.client.drain("dead") == [b"2"]


def test_expired_before_the_kill(any_story: Story) -> None:
    any_story.declare("q", message_ttl=1000)
    any_story.publish("q", b"1")
    any_story.world.advance(2000)
    any_story.publish("q", b"2")
    any_story.restart()
    assert any_story.client.drain("q") == [b"2"]


def test_a_returned_message_keeps_its_deadline(any_story: Story) -> None:
    any_story.declare("q", message_ttl=1000)
    any_story.publish("q", b"1")
    tag = any_story.tag("q")
    any_story.world.advance(600)
    any_story.settle(methods.BasicNack(delivery_tag=tag, requeue=True))
    world = any_story.restart()
    world.advance(399)
    assert world.queue("q").ready == 1
    world.advance(1)
    assert world.queue("q").ready == 0


def test_dead_letters_have_a_time_of_their_own(any_story: Story) -> None:
    any_story.declare("second", message_ttl=1000)
    any_story.declare("q", message_ttl=1000, dead_letter_exchange="", dead_letter_routing_key="second")
    any_story.publish("q", b"1")
    any_story.world.advance(1500)
    world = any_story.restart()
    world.advance(499)
    assert world.queue("second").ready == 1
    world.advance(1)
    assert world.queue("second").ready == 0


def test_an_idle_queue_goes_some_time_after_the_restart(any_story: Story) -> None:
    any_story.declare("q", expires=1000)
    any_story.declare("used", expires=1000)
    any_story.world.advance(900)
    any_story.client.declare("used", passive=True)
    any_story.world.advance(150)
    world = any_story.restart(5000)
    assert list(world.vhost.queues) == ["used"]
    world.advance(999)
    assert list(world.vhost.queues) == ["used"]
    world.advance(1)
    assert list(world.vhost.queues) == []
    assert list(any_story.restart().vhost.queues) == []


# ---- transactions


def in_transaction(story: Story) -> Client:
    assert story.client.ask(methods.TxSelect()) == methods.TxSelectOk()
    return story.client


def test_a_committed_transaction(any_story: Story) -> None:
    any_story.declare("q")
    any_story.declare("r")
    any_story.publish("q", b"1", b"2", b"3")
    client = in_transaction(any_story)
    tags = [any_story.tag("q") for _ in range(3)]
    any_story.publish("r", b"4")
    any_story.settle(methods.BasicAck(delivery_tag=tags[0]))
    any_story.settle(methods.BasicReject(delivery_tag=tags[1], requeue=False))
    any_story.settle(methods.BasicReject(delivery_tag=tags[2], requeue=True))
    assert client.ask(methods.TxCommit()) == methods.TxCommitOk()
    any_story.restart()
    assert any_story.client.drain("q") == [b"3"]
    assert any_story.client.drain("r") == [b"4"]


def test_transactions_that_were_not_committed(any_story: Story) -> None:
    any_story.declare("q")
    any_story.publish("q", b"1")
    client = in_transaction(any_story)
    any_story.publish("q", b"rolled back")
    client.ask(methods.TxRollback())
    any_story.settle(methods.BasicAck(delivery_tag=any_story.tag("q")))
    any_story.publish("q", b"never committed")
    any_story.restart()
    assert any_story.client.drain("q") == [b"1"]


def test_a_transaction_to_a_queue_that_went_meanwhile(any_story: Story) -> None:
    any_story.declare("q")
    any_story.exchange("e", "fanout")
    any_story.declare("r")
    any_story.bind("q", "e")
    any_story.bind("r", "e")
    client = in_transaction(any_story)
    any_story.publish("", b"1", exchange="e")
    client.ask(methods.QueueDelete(queue="q"))
    assert client.ask(methods.TxCommit()) == methods.TxCommitOk()
    any_story.restart()
    assert any_story.client.drain("r") == [b"1"]
    assert "q" not in any_story.world.vhost.queues


# ---- many lives


def test_many_lives(any_story: Story) -> None:
    """Each life adds and takes; nothing is lost and nothing comes twice over ten of them."""
    any_story.declare("q")
    expected: list[bytes] = []
    for life in range(10):
        bodies = [b"%d-%d" % (life, number) for number in range(5)]
        any_story.publish("q", *bodies)
        expected += bodies
        taken = [any_story.client.get("q") for _ in range(2)]
        assert [said.body for said in taken if said is not None] == expected[:2]
        del expected[:2]
        any_story.restart(10)
    assert any_story.client.drain("q") == expected


def test_a_torn_snapshot_does_not_count() -> None:
    """The power goes while a new segment begins: what was declared before stays, though the snapshot is half there."""
    disk = FakeDisk()
    world = Durable(disk)
    client = world.client()
    for number in range(5):
        client.declare(f"q{number}", durable=True)
    client.publish("q4", b"kept", delivery_mode=PERSISTENT)
    client.answers()
    client.hang_up()
    expected = state_of(world.broker)
    begun = Durable(disk.killed(), lazy=True)
    (batch,) = begun.journal.take()
    begun.journal.write([batch])
    name = begun.segments()[-1]
    for size in part_of(range(len(batch.data)), 6):
        torn = begun.disk.killed()
        torn.truncate(name, size)
        revived = Durable(torn)
        assert state_of(revived.broker) == expected
        revived.settle()
        assert state_of(Durable(torn.killed()).broker) == expected


def test_damage_changes_nothing() -> None:
    disk = FakeDisk()
    for _ in range(2):
        world = Durable(disk)
        world.client().declare("q", durable=True)
        world.client().publish("q", b"1", delivery_mode=PERSISTENT)
        world.settle()
        disk = disk.killed()
    disk.flip(sorted(disk.names())[0], 60)
    before = {name: disk.read(name) for name in disk.names()}
    with pytest.raises(JournalDamaged):
        Durable(disk)
    assert {name: disk.read(name) for name in disk.names()} == before


def commit(client: Client) -> None:
    client.publish("q", b"1", channel=2, delivery_mode=PERSISTENT)
    client.send(methods.TxCommit(), channel=2)


ANSWERS: list[tuple[str, Callable[[Client], None]]] = [
    ("queue.declare", lambda client: client.send(methods.QueueDeclare(queue="new", durable=True))),
    ("queue.bind", lambda client: client.send(methods.QueueBind(queue="q", exchange="amq.fanout"))),
    ("queue.delete", lambda client: client.send(methods.QueueDelete(queue="q"))),
    ("queue.purge", lambda client: client.send(methods.QueuePurge(queue="q"))),
    (
        "exchange.declare",
        lambda client: client.send(methods.ExchangeDeclare(exchange="e", type="fanout", durable=True)),
    ),
    ("exchange.delete", lambda client: client.send(methods.ExchangeDelete(exchange="old"))),
    ("tx.commit", lambda client: commit(client)),
    ("confirm", lambda client: client.publish("q", b"1", delivery_mode=2)),
]


@pytest.mark.parametrize(("name", "act"), ANSWERS, ids=[name for name, _ in ANSWERS])
def test_answers_wait_for_the_disk(name: str, act: Callable[[Client], None]) -> None:
    world = Durable(FakeDisk())
    client = world.client(1, 2)
    client.declare("q", durable=True)
    client.ask(methods.ExchangeDeclare(exchange="old", type="fanout", durable=True))
    client.publish("q", b"0", delivery_mode=2)
    client.ask(methods.ConfirmSelect())
    client.ask(methods.TxSelect(), channel=2)
    world.lazy = True
    act(client)
    assert client.answers() == []
    world.sync()
    assert len(client.answers()) == 1


def test_transient_traffic_does_not_wait() -> None:
    world = Durable(FakeDisk())
    client = world.client()
    client.declare("q", durable=True)
    client.declare("t")
    client.ask(methods.ConfirmSelect())
    world.lazy = True
    client.publish("q", b"1")
    client.publish("t", b"2", delivery_mode=PERSISTENT)
    client.expect(methods.BasicAck(delivery_tag=1), methods.BasicAck(delivery_tag=2))


def test_confirms_come_in_order_and_refusals_with_them() -> None:
    world = Durable(FakeDisk())
    client = world.client()
    client.declare("q", durable=True, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    client.ask(methods.ConfirmSelect())
    world.lazy = True
    client.publish("q", b"1", b"2", b"3", delivery_mode=PERSISTENT)
    client.publish("nowhere", b"4")
    assert client.answers() == []
    world.sync()
    found = client.methods()
    assert found == [
        methods.BasicAck(delivery_tag=2, multiple=True),
        methods.BasicNack(delivery_tag=3, requeue=True),
        methods.BasicAck(delivery_tag=4),
    ]


def test_what_is_consumed_at_once_need_not_be_written() -> None:
    """And the publisher hears that it is safe, which is true of what is done with."""
    story = Story()
    client, body = story.client, b"." * 100_000
    client.declare("q", durable=True)
    client.ask(methods.ConfirmSelect())
    consumer = story.world.client(1)
    consumer.consume("q", no_ack=True)
    for _ in range(3):
        client.publish("q", b"small", body, b"small", delivery_mode=PERSISTENT)
    assert [len(body) for body in consumer.bodies()] == [5, 100_000, 5] * 3
    consumer.ask(methods.BasicCancel(consumer_tag="t"))
    client.publish("q", b"first", body, b"last", delivery_mode=PERSISTENT)
    acks = [method for method in client.methods() if isinstance(method, methods.BasicAck)]
    assert acks[-1] == methods.BasicAck(delivery_tag=12, multiple=True)
    assert 100_000 < sum(story.world.disk.size(name) for name in story.world.disk.names()) < 110_000
    story.restart()
    assert [len(body) for body in story.client.drain("q")] == [5, 100_000, 4]
