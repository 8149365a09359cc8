"""Publishing: what is refused and how, properties and bodies that pass through, CC and BCC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from conformance.clients import Inbox, closes, drain, must_get, no_exchange, publish, ready, sync
from conformance.support import Broker, Names, eventually

Connect = Callable[..., pika.BlockingConnection]


@pytest.fixture
def queue(channel: BlockingChannel, name: Names) -> str:
    """An empty queue."""
    return str(channel.queue_declare(name()).method.queue)


# --- refused ---------------------------------------------------------------------------------------------------------


def test_missing_exchange(channel: BlockingChannel, name: Names) -> None:
    missing = name("x")
    with closes(channel, 404, no_exchange(missing)):
        channel.basic_publish(missing, "k", b"m")


def test_what_was_published_before_the_error_is_there(channel: BlockingChannel, queue: str, name: Names) -> None:
    missing = name("x")
    with closes(channel, 404, no_exchange(missing)):
        channel.basic_publish("", queue, b"before")
        channel.basic_publish(missing, queue, b"m")
        channel.basic_publish("", queue, b"after")
    again = channel.connection.channel()
    assert must_get(again, queue).body == b"before"
    assert ready(again, queue) == 0


def test_missing_queue_is_no_error(channel: BlockingChannel, name: Names) -> None:
    publish(channel, name(), "lost")
    sync(channel)


@pytest.mark.parametrize(
    ("expiration", "problem"),
    [
        ("abc", "no_integer"),
        ("", "no_integer"),
        (" 5", "no_integer"),
        ("-", "no_integer"),
        ("--5", "no_integer"),
        ("-1", "{value_negative,-1}"),
        ("5 ", '{leftover_string," "}'),
        ("1.5", '{leftover_string,".5"}'),
        ("1e3", '{leftover_string,"e3"}'),
        ("0x10", '{leftover_string,"x10"}'),
        ("5abc", '{leftover_string,"abc"}'),
        ("315360000001", "{value_too_large,315360000001}"),
    ],
)
def test_bad_expiration(channel: BlockingChannel, queue: str, expiration: str, problem: str) -> None:
    with closes(channel, 406, f"PRECONDITION_FAILED - invalid expiration '{expiration}': {problem}"):
        channel.basic_publish("", queue, b"m", BasicProperties(expiration=expiration))
    assert ready(channel.connection.channel(), queue) == 0


@pytest.mark.parametrize("expiration", ["60000", "+60000", "0060000", "315360000000"])
def test_good_expiration(channel: BlockingChannel, queue: str, expiration: str) -> None:
    publish(channel, queue, "m", expiration=expiration)
    assert must_get(channel, queue).properties.expiration == expiration


@pytest.mark.parametrize("where", ["no queue", "a queue"])
def test_expiration_is_checked_wherever_the_message_goes(
    channel: BlockingChannel, queue: str, name: Names, where: str
) -> None:
    with closes(channel, 406, "PRECONDITION_FAILED - invalid expiration 'x': no_integer"):
        channel.basic_publish("", queue if where == "a queue" else name(), b"m", BasicProperties(expiration="x"))


def test_user_id_of_somebody_else(channel: BlockingChannel, broker: Broker, queue: str) -> None:
    text = f"PRECONDITION_FAILED - user_id property set to 'joe' but authenticated user was '{broker.user}'"
    with closes(channel, 406, text):
        channel.basic_publish("", queue, b"m", BasicProperties(user_id="joe"))


def test_ones_own_user_id(channel: BlockingChannel, broker: Broker, queue: str) -> None:
    publish(channel, queue, "m", user_id=broker.user)
    assert must_get(channel, queue).properties.user_id == broker.user


@pytest.mark.parametrize("mode", [0, 3, 255])
def test_unknown_delivery_mode(channel: BlockingChannel, queue: str, mode: int) -> None:
    text = f"PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,{mode}}}"
    with closes(channel, 406, text):
        channel.basic_publish("", queue, b"m", BasicProperties(delivery_mode=mode))


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"CC": "k"}, '"CC",longstr'),
        ({"BCC": "k"}, '"BCC",longstr'),
        ({"CC": 1}, '"CC",signedint'),
        ({"CC": None}, '"CC",void'),
        ({"BCC": {}}, '"BCC",table'),
        ({"CC": b"k"}, '"CC",binary'),
        ({"BCC": 1, "CC": True}, '"CC",bool'),
    ],
)
def test_cc_and_bcc_must_be_arrays(channel: BlockingChannel, queue: str, headers: dict[str, Any], problem: str) -> None:
    text = f"PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,{problem}}}"
    with closes(channel, 406, text):
        channel.basic_publish("", queue, b"m", BasicProperties(headers=headers))


def test_the_exchange_is_looked_at_before_the_properties(channel: BlockingChannel, name: Names) -> None:
    missing = name("x")
    with closes(channel, 404, no_exchange(missing)):
        channel.basic_publish(missing, "k", b"m", BasicProperties(user_id="joe", expiration="x"))


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"user_id": "joe", "expiration": "x", "delivery_mode": 3}, "user_id property set to 'joe' but "),
        ({"expiration": "x", "delivery_mode": 3, "headers": {"CC": 1}}, "invalid expiration 'x': no_integer"),
        ({"delivery_mode": 3, "headers": {"CC": 1}}, 'invalid message: {unacceptable_type_in_header,"CC",signedint}'),
        ({"reply_to": "amq.rabbitmq.reply-to", "user_id": "joe"}, "fast reply consumer does not exist"),
    ],
)
def test_which_bad_property_is_named(
    channel: BlockingChannel, broker: Broker, queue: str, properties: dict[str, Any], text: str
) -> None:
    if text.startswith("user_id"):
        text += f"authenticated user was '{broker.user}'"
    with closes(channel, 406, f"PRECONDITION_FAILED - {text}"):
        channel.basic_publish("", queue, b"m", BasicProperties(**properties))


# --- passed through --------------------------------------------------------------------------------------------------


ALL_PROPERTIES: dict[str, Any] = {
    "content_type": "text/plain",
    "content_encoding": "gzip",
    "headers": {"a": 1},
    "delivery_mode": 2,
    "priority": 7,
    "correlation_id": "c ☃",
    "reply_to": "somewhere",
    "expiration": "60000",
    "message_id": "id",
    "timestamp": 1234567890,
    "type": "type",
    "user_id": None,
    "app_id": "app",
    "cluster_id": "cluster",
}


@pytest.mark.parametrize("only", [None, *ALL_PROPERTIES])
def test_properties_come_out_as_they_went_in(
    channel: BlockingChannel, broker: Broker, queue: str, only: str | None
) -> None:
    properties = ALL_PROPERTIES | {"user_id": broker.user}
    if only is not None:
        properties = {key: value if key == only else None for key, value in properties.items()}
    publish(channel, queue, "m", **properties)
    got = must_get(channel, queue).properties
    assert {key: getattr(got, key) for key in properties} == properties


@pytest.mark.parametrize("priority", [0, 1, 255])
@pytest.mark.parametrize("timestamp", [0, 2**63 - 1])
def test_extreme_properties(channel: BlockingChannel, queue: str, priority: int, timestamp: int) -> None:
    publish(channel, queue, "m", priority=priority, timestamp=timestamp, message_id="x" * 255, type="")
    got = must_get(channel, queue).properties
    assert (got.priority, got.timestamp, got.message_id, got.type) == (priority, timestamp, "x" * 255, "")


HEADERS: dict[str, Any] = {
    "text": "t",
    "snow": "☃",
    "empty": "",
    "bytes": b"\x00\xff",
    "true": True,
    "false": False,
    "int": -5,
    "long": 2**40,
    "void": None,
    "decimal": Decimal("1.25"),
    "time": datetime(2024, 2, 3, tzinfo=UTC),
    "array": [1, "two", [3], {"four": 4}, None, True],
    "table": {"a": {"b": {"c": []}}},
    "": "no name",
    "z" * 128: "long name",
}


def test_headers_come_out_as_they_went_in(channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, "m", headers=HEADERS)
    got = must_get(channel, queue).headers
    assert got == HEADERS
    assert list(got) == list(HEADERS)


def test_no_properties_at_all(channel: BlockingChannel, queue: str) -> None:
    channel.basic_publish("", queue, b"m")
    got = must_get(channel, queue)
    assert all(getattr(got.properties, key) is None for key in ALL_PROPERTIES)


@pytest.mark.parametrize("size", [0, 1, 4088, 131064, 131065, 262128, 1_000_000])
def test_bodies_of_any_size(channel: BlockingChannel, queue: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    inbox = Inbox(channel, queue, auto_ack=True)
    publish(channel, queue, body)
    assert inbox.take(1)[0].body == body
    channel.basic_cancel(inbox.tag)
    publish(channel, queue, body)
    assert must_get(channel, queue).body == body


def test_a_body_of_ten_megabytes(channel: BlockingChannel, queue: str) -> None:
    body = b"0123456789" * 1_000_000
    publish(channel, queue, body)
    assert must_get(channel, queue).body == body


def test_small_frames(connect: Connect, queue: str) -> None:
    small = connect(frame_max=4096).channel()
    body = b"0123456789" * 5_000
    publish(small, queue, body)
    assert must_get(small, queue).body == body


def test_big_headers(channel: BlockingChannel, queue: str) -> None:
    headers = {f"h{i}": "v" * 1000 for i in range(120)}
    publish(channel, queue, "m", headers=headers)
    assert must_get(channel, queue).headers == headers


# --- CC and BCC ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["CC", "BCC"])
@pytest.mark.parametrize("kind", ["default", "direct", "topic"])
def test_copies_by_more_keys(channel: BlockingChannel, name: Names, header: str, kind: str) -> None:
    to, one, two = name(), name(), name()
    exchange = "" if kind == "default" else name("x")
    if exchange:
        channel.exchange_declare(exchange, kind)
    for queue in (to, one, two):
        channel.queue_declare(queue)
        if exchange:
            channel.queue_bind(queue, exchange, queue)
    publish(channel, to, "m", exchange=exchange, headers={header: [one, two, "nowhere"], "h": 1})
    for queue in (to, one, two):
        got = must_get(channel, queue)
        assert (got.method.routing_key, got.method.exchange) == (to, exchange)
        assert got.headers == ({"CC": [one, two, "nowhere"], "h": 1} if header == "CC" else {"h": 1})


def test_cc_and_bcc_together_and_no_duplicates(channel: BlockingChannel, name: Names) -> None:
    queues = [name() for _ in range(3)]
    for queue in queues:
        channel.queue_declare(queue)
    to, cc, bcc = queues
    publish(channel, to, "m", headers={"CC": [cc, to, cc], "BCC": [bcc, cc]})
    for queue in queues:
        assert must_get(channel, queue).headers == {"CC": [cc, to, cc]}
        assert ready(channel, queue) == 0


def test_bcc_is_removed_even_when_it_is_empty(channel: BlockingChannel, queue: str) -> None:
    publish(channel, queue, "m", headers={"BCC": []})
    assert must_get(channel, queue).headers == {}


def test_other_types_in_the_array_are_passed_over(channel: BlockingChannel, name: Names) -> None:
    to, cc = name(), name()
    for queue in (to, cc):
        channel.queue_declare(queue)
    publish(channel, to, "m", headers={"CC": [1, None, b"x", cc, [cc]]})
    assert (drain(channel, to), drain(channel, cc)) == (["m"], ["m"])


@pytest.mark.parametrize("header", ["cc", "Cc", "bcc"])
def test_names_of_headers_are_case_sensitive(channel: BlockingChannel, name: Names, header: str) -> None:
    to, cc = name(), name()
    for queue in (to, cc):
        channel.queue_declare(queue)
    publish(channel, to, "m", headers={header: [cc]})
    assert must_get(channel, to).headers == {header: [cc]}
    assert ready(channel, cc) == 0


def test_cc_through_exchange_bindings(channel: BlockingChannel, name: Names, queue: str) -> None:
    source, destination = name("x"), name("x")
    channel.exchange_declare(source, "topic")
    channel.exchange_declare(destination, "direct")
    channel.exchange_bind(destination, source, "a.*")
    channel.queue_bind(queue, destination, "cc.key")
    publish(channel, "a.b", "m", exchange=source, headers={"CC": ["cc.key"]})
    assert drain(channel, queue) == ["m"]


def test_cc_alone_routes_a_mandatory_message(channel: BlockingChannel, queue: str, name: Names) -> None:
    channel.confirm_delivery()
    channel.basic_publish("", name(), b"m", BasicProperties(headers={"CC": [queue]}), mandatory=True)
    assert drain(channel, queue) == ["m"]


def test_error_leaves_other_channels_alone(channel: BlockingChannel, queue: str, name: Names) -> None:
    other = channel.connection.channel()
    missing = name("x")
    with closes(channel, 404, no_exchange(missing)):
        channel.basic_publish(missing, "k", b"m")
    publish(other, queue, "m")
    assert drain(other, queue) == ["m"]
    number = channel.channel_number
    assert channel.connection.channel(number).channel_number == number


def test_publishing_does_not_need_the_queue_to_be_idle(channel: BlockingChannel, queue: str) -> None:
    bodies = [str(i) for i in range(500)]
    for body in bodies:
        channel.basic_publish("", queue, body.encode())
    assert eventually(lambda: ready(channel, queue) == 500)
    assert drain(channel, queue) == bodies
