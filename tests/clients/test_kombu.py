"""kombu over py-amqp: entities that declare themselves, producers, consumers, simple queues, mixins, mailboxes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import kombu
import pytest
from kombu import Connection, Consumer, Exchange, Message, Producer, Queue, binding
from kombu.common import Broadcast, collect_replies, send_reply
from kombu.exceptions import ChannelError
from kombu.mixins import ConsumerMixin, ConsumerProducerMixin
from kombu.pidbox import Mailbox
from kombu.pools import producers

from .support import DEADLINE, UNICODE, Broker, Proxy, large_body


@pytest.fixture
def connection(broker_url: str) -> Iterator[Connection]:
    with Connection(broker_url, heartbeat=60, connect_timeout=DEADLINE) as connection:
        yield connection


def drain_until(connection: Connection, happened: Callable[[], object]) -> None:
    """Dispatch what arrives until `happened`; TimeoutError past the deadline."""
    deadline = monotonic() + DEADLINE
    while not happened():
        connection.drain_events(timeout=max(0.01, deadline - monotonic()))


def test_producer_and_consumer_with_declared_entities(connection: Connection, name: str) -> None:
    exchange = Exchange(name, type="direct", durable=True)
    queue = Queue(name, exchange, routing_key="video", durable=True)
    got: list[tuple[Any, Message]] = []
    producer = connection.Producer(serializer="json")
    for number in range(3):
        producer.publish(
            {"name": UNICODE, "size": number}, exchange=exchange, routing_key="video", declare=[queue], retry=True
        )
    with connection.Consumer(queue, callbacks=[lambda body, message: got.append((body, message))], prefetch_count=3):
        drain_until(connection, lambda: len(got) == 3)
        assert [body for body, _ in got] == [{"name": UNICODE, "size": number} for number in range(3)]
        got[0][1].ack()
        got[1][1].requeue()
        got[2][1].reject()
        drain_until(connection, lambda: len(got) == 4)
        body, message = got[3]
        assert (body["size"], message.delivery_info["redelivered"], message.delivery_info["exchange"]) == (
            1,
            True,
            name,
        )
        message.ack()
    assert queue(connection.default_channel).get() is None


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_properties_serializers_compression(
    connection: Connection, name: str, serializer: str, compression: str | None
) -> None:
    with connection.SimpleQueue(name, serializer=serializer, compression=compression) as queue:
        queue.consumer.accept = {"application/json", "application/x-python-serialize"}
        queue.put(
            {"text": UNICODE},
            headers={"level": 3, UNICODE: [1, None, {"deep": True}]},
            priority=5,
            correlation_id="c1",
            reply_to="answers",
            message_id="m1",
            timestamp=1_700_000_000,
            type="kind",
            app_id="kombu tests",
            expiration=60,
        )
        message = queue.get(timeout=DEADLINE)
        message.ack()
    assert message.payload == {"text": UNICODE}
    assert (message.headers["level"], message.headers[UNICODE]) == (3, [1, None, {"deep": True}])
    assert message.headers.get("compression") == (compression and "application/x-gzip")
    wanted = {"priority": 5, "correlation_id": "c1", "reply_to": "answers", "message_id": "m1", "expiration": "60000"}
    assert wanted.items() <= message.properties.items()


def test_large_message(connection: Connection, name: str) -> None:
    body = large_body(1 << 20)
    with connection.SimpleQueue(name) as queue:
        queue.put(body, serializer="raw")
        message = queue.get(timeout=DEADLINE)
        message.ack()
    assert bytes(message.body) == body


def test_simple_queue_counts_and_empties(broker_url: str, name: str) -> None:
    options = {"confirm_publish": True}  # the count is asked on another channel than the messages are published on
    with Connection(broker_url, transport_options=options) as connection, connection.SimpleQueue(name) as queue:
        assert queue.qsize() == 0
        with pytest.raises(queue.Empty):
            queue.get(block=False)
        for number in range(3):
            queue.put(number)
        assert len(queue) == 3
        first = queue.get(block=False)
        assert (first.payload, queue.clear()) == (0, 2)
        first.ack()


def test_topic_with_several_bindings(connection: Connection, name: str) -> None:
    exchange = Exchange(name, type="topic", durable=False, delivery_mode="transient")
    queue = Queue(
        f"{name}.all",
        bindings=[binding(exchange, routing_key="logs.*.error"), binding(exchange, routing_key="audit.#")],
        exclusive=True,
    )
    queue(connection.default_channel).declare()
    producer = Producer(connection.default_channel, exchange)
    for key in ("logs.web.error", "logs.web.info", "audit", "audit.login.ok"):
        producer.publish({"key": key}, routing_key=key)
    got: list[str] = []
    with Consumer(connection.default_channel, [queue], no_ack=True) as consumer:
        consumer.register_callback(lambda body, message: got.append(body["key"]))
        drain_until(connection, lambda: len(got) == 3)
    assert got == ["logs.web.error", "audit", "audit.login.ok"]


def test_broadcast_reaches_every_consumer(connection: Connection, name: str) -> None:
    got: list[str] = []
    everywhere = [Broadcast(name, queue=f"{name}.{label}", durable=False) for label in "ab"]
    consumers = [
        Consumer(connection.channel(), queue, no_ack=True, callbacks=[lambda body, _: got.append(body)])
        for queue in everywhere
    ]
    for consumer in consumers:
        consumer.consume()
    connection.Producer().publish("hear", exchange=everywhere[0].exchange)
    drain_until(connection, lambda: len(got) == 2)
    for consumer in consumers:
        consumer.cancel()  # the last consumer of an auto-delete queue


def test_priorities_and_queue_arguments(connection: Connection, name: str) -> None:
    queue = Queue(name, max_priority=10, max_length=100, expires=60, message_ttl=30.5)
    bound = queue(connection.default_channel)
    bound.declare()
    producer = connection.Producer()
    for priority in (0, 9, 5, 9):
        producer.publish({"priority": priority}, routing_key=name, priority=priority)
    order = [bound.get(no_ack=True).payload["priority"] for _ in range(4)]
    assert order == [9, 9, 5, 0]
    other = Queue(name, max_priority=5, max_length=100, expires=60, message_ttl=30.5)
    with pytest.raises(ChannelError, match="inequivalent arg 'x-max-priority'"):
        other(connection.channel()).declare()


def test_expired_message_goes_to_the_dead_letter_exchange(connection: Connection, new_name: Callable[[], str]) -> None:
    dead = Queue(new_name(), Exchange(new_name(), type="fanout"))
    arguments = {"x-dead-letter-exchange": dead.exchange.name}
    waiting = Queue(new_name(), queue_arguments=arguments)
    dead(connection.default_channel).declare()
    waiting(connection.default_channel).declare()
    connection.Producer().publish("late", routing_key=waiting.name, expiration=0.02)
    got: list[Message] = []
    with connection.Consumer(dead, on_message=got.append, no_ack=True):
        drain_until(connection, lambda: got)
    [death] = got[0].headers["x-death"]
    assert (got[0].payload, death["reason"], death["queue"]) == ("late", "expired", waiting.name)


def test_confirmed_publish_raises_what_the_broker_says(broker_url: str, name: str) -> None:
    with Connection(broker_url, transport_options={"confirm_publish": True}) as connection:
        producer = connection.Producer()
        with pytest.raises(connection.channel_errors, match="NO_ROUTE"):
            producer.publish("lost", routing_key=name, mandatory=True)
        Queue(name)(connection.channel()).declare()
        producer = Producer(connection.channel())
        producer.publish("kept", routing_key=name, mandatory=True)
        with pytest.raises(connection.channel_errors, match=f"no exchange '{name}' in vhost '/'"):
            producer.publish("lost", exchange=name)


def test_return_handler(connection: Connection, name: str) -> None:
    returned: list[Any] = []
    producer = connection.Producer(on_return=lambda *returning: returned.append(returning))
    producer.publish("lost", routing_key=name, mandatory=True)
    drain_until(connection, lambda: returned)
    [(error, exchange, routing_key, _)] = returned
    assert (error.reply_code, exchange, routing_key) == (312, "", name)


def test_request_and_replies(connection: Connection, name: str) -> None:
    exchange = Exchange(name, type="direct", durable=False, auto_delete=True)
    replies = Queue(f"{name}.replies", exchange, routing_key="reply", exclusive=True)
    replies(connection.default_channel).declare()
    requests = Queue(name, durable=False)
    requests(connection.default_channel).declare()
    connection.Producer().publish({"n": 4}, routing_key=name, reply_to="reply", correlation_id="c1")
    request = requests(connection.default_channel).get()
    with producers[connection].acquire(block=True) as producer:
        send_reply(exchange, request, {"answer": request.payload["n"] ** 2}, producer=producer)
    request.ack()
    answers = collect_replies(connection, connection.channel(), replies, limit=1, timeout=DEADLINE)
    assert list(answers) == [{"answer": 16}]


def test_mailbox_calls_a_node(connection: Connection, name: str) -> None:
    """Celery's remote control: a fanout with a queue per node, and replies over an exclusive queue that expires."""
    mailbox = Mailbox(name, type="fanout", accept=["json"])(connection)
    node = mailbox.Node("node1", channel=connection.channel(), state=None)
    node.handlers["add"] = lambda state, x, y: x + y
    consumer = node.listen(callback=lambda body, message: node.handle_message(body, message))
    serving = threading.Thread(target=connection.drain_events, kwargs={"timeout": DEADLINE}, daemon=True)
    serving.start()
    with Connection(connection.as_uri(include_password=True)) as caller:
        answers = mailbox(caller).multi_call("add", {"x": 2, "y": 3}, timeout=DEADLINE, limit=1)
    serving.join(DEADLINE)
    consumer.cancel()
    for exchange in (mailbox.exchange, mailbox.reply_exchange):
        connection.default_channel.exchange_delete(exchange.name)
    assert answers == [{"node1": 5}]


class Counting(ConsumerMixin):
    """Counts to what it is told, through whatever happens to its connection."""

    def __init__(self, connection: Connection, queue: Queue, until: int) -> None:
        self.connection, self.queue, self.until = connection, queue, until
        self.got: list[Any] = []
        self.ready = threading.Semaphore(0)

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803
        return [Consumer(self.queue, callbacks=[self.on_task], prefetch_count=1)]

    def on_consume_ready(self, connection: Any, channel: Any, consumers: Any, **_: Any) -> None:
        self.ready.release()

    def on_task(self, body: Any, message: Message) -> None:
        message.ack()
        self.got.append(body)
        self.should_stop = len(self.got) == self.until


def test_consumer_mixin_survives_a_cut(broker: Broker, connection: Connection, proxy: Proxy, name: str) -> None:
    counting = Counting(Connection(broker.at(proxy.port).url), Queue(name), until=2)
    thread = threading.Thread(target=counting.run, daemon=True)
    thread.start()
    assert counting.ready.acquire(timeout=DEADLINE)
    producer = connection.Producer()
    proxy.cut()
    assert counting.ready.acquire(timeout=DEADLINE)
    for number in range(2):
        producer.publish(number, routing_key=name)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert counting.got == [0, 1]


class Squares(ConsumerProducerMixin):
    def __init__(self, connection: Connection, queue: Queue) -> None:
        self.connection, self.queue = connection, queue
        self.ready = threading.Event()

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803
        return [Consumer(queues=[self.queue], on_message=self.on_request, accept={"json"}, prefetch_count=1)]

    def on_request(self, message: Message) -> None:
        self.producer.publish(
            message.payload["n"] ** 2,
            exchange="",
            routing_key=message.properties["reply_to"],
            correlation_id=message.properties["correlation_id"],
            serializer="json",
            retry=True,
        )
        message.ack()
        self.should_stop = True


def test_rpc_with_consumer_producer_mixin(broker_url: str, connection: Connection, name: str) -> None:
    server = Squares(Connection(broker_url), Queue(name))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    callback_queue = Queue(kombu.uuid(), exclusive=True, auto_delete=True)
    answers: list[Message] = []
    with connection.Producer() as producer:
        producer.publish(
            {"n": 12},
            routing_key=name,
            declare=[Queue(name), callback_queue],
            reply_to=callback_queue.name,
            correlation_id="c1",
        )
    with connection.Consumer(on_message=answers.append, queues=[callback_queue], no_ack=True):
        drain_until(connection, lambda: answers)
    thread.join(DEADLINE)
    assert (answers[0].payload, answers[0].properties["correlation_id"]) == (144, "c1")


def test_ensure_publishes_again_after_a_cut(broker: Broker, connection: Connection, proxy: Proxy, name: str) -> None:
    with Connection(broker.at(proxy.port).url, transport_options={"confirm_publish": True}) as lost:
        producer = lost.Producer()
        producer.publish("first", routing_key=name, declare=[Queue(name)])
        proxy.cut()
        producer.publish("second", routing_key=name, retry=True, retry_policy={"interval_start": 0, "max_retries": 5})
    queue = Queue(name)(connection.default_channel)
    assert [queue.get(no_ack=True).payload for _ in range(2)] == ["first", "second"]


def test_qos_semantics_of_the_server(connection: Connection) -> None:
    """Celery applies prefetch changes to running consumers only if kombu takes the server for a RabbitMQ 3.3 to 3.x."""
    connection.connect()
    assert connection.qos_semantics_matches_spec is False
    assert connection.get_heartbeat_interval() == 60
    assert connection.connection.server_properties["product"] == "RabbitMQ"
