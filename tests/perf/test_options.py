"""What may be asked of a run, and how it is written."""

from __future__ import annotations

import pytest

from rabbitish.perf.options import Login, OptionError, Options, parse_pairs, parse_properties, parse_uri
from rabbitish.wire.properties import Properties


@pytest.mark.parametrize(
    ("uri", "login"),
    [
        ("amqp://", Login("localhost", 5672, "guest", "guest", "/")),
        ("amqp://broker", Login("broker")),
        ("amqp://broker:5673", Login("broker", 5673)),
        ("amqp://broker/", Login("broker")),
        ("amqp://broker/one", Login("broker", vhost="one")),
        ("amqp://broker/%2Fa%20b", Login("broker", vhost="/a b")),
        ("amqp://me@broker", Login("broker", user="me")),
        ("amqp://me:secret@broker:1/v", Login("broker", 1, "me", "secret", "v")),
        ("amqp://m%40e:s%3Ae@broker", Login("broker", user="m@e", password="s:e")),
        ("amqp://me:@broker", Login("broker", user="me", password="")),
        ("amqp://[::1]:5673/v", Login("::1", 5673, vhost="v")),
        ("amqp://broker?heartbeat=5", Login("broker")),
    ],
)
def test_uris(uri: str, login: Login) -> None:
    assert parse_uri(uri) == login


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("localhost", "'localhost' is not like amqp://user:password@host:port/vhost"),
        ("localhost:5672", "'localhost:5672' is not like amqp://"),
        ("http://localhost", "'http://localhost' is not like amqp://"),
        ("amqp:broker", "'amqp:broker' is not like amqp://"),
        ("amqp://broker:port", "'amqp://broker:port' is no URI: "),
        ("amqp://broker:65536", "'amqp://broker:65536' is no URI: "),
        ("amqp://[::1", "'amqp://[::1' is no URI: "),
        ("amqps://broker", "amqps is not supported"),
    ],
)
def test_what_is_no_uri(uri: str, complaint: str) -> None:
    with pytest.raises(OptionError) as raised:
        parse_uri(uri)
    assert str(raised.value).startswith(complaint)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(parse_uri("amqp://me:secret@broker"))


def test_an_address_as_messages_name_it() -> None:
    assert Login("broker", 1).address == "broker:1"
    assert Login("::1", 1).address == "[::1]:1"


def test_pairs() -> None:
    assert parse_pairs("a=b") == {"a": "b"}
    assert parse_pairs("a=1, b=-1 ,c=true,d=false,e=,f=x=y") == {
        "a": 1,
        "b": -1,
        "c": True,
        "d": False,
        "e": "",
        "f": "x=y",
    }


@pytest.mark.parametrize("text", ["", "a", "=1", "a=1,", "a=1,b"])
def test_what_are_no_pairs(text: str) -> None:
    with pytest.raises(OptionError, match="is not like key=value,key=value"):
        parse_pairs(text)


def test_properties() -> None:
    assert parse_properties("priority=5,contentType=text/plain,reply_to=q,Message-ID=7,expiration=1000") == Properties(
        priority=5, content_type="text/plain", reply_to="q", message_id="7", expiration="1000"
    )
    assert parse_properties("a=1,deliveryMode=2,b=x") == Properties(headers={"a": 1, "b": "x"}, delivery_mode=2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("priority=high", "priority must be a number, not 'high'"),
        ("deliveryMode=true", "deliveryMode must be a number, not True"),
        ("priority=256", "message properties: "),
        (f"type={'x' * 256}", "message properties: "),
    ],
)
def test_properties_that_cannot_be(text: str, complaint: str) -> None:
    with pytest.raises(OptionError) as raised:
        parse_properties(text)
    assert str(raised.value).startswith(complaint)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"producers": 0, "consumers": 0}, "neither producers nor consumers"),
        ({"producers": -1}, "producers must not be negative"),
        ({"size": -1}, "size must not be negative"),
        ({"rate": -0.1}, "rate must not be negative"),
        ({"multi_ack_every": -1}, "multi-ack-every must not be negative"),
        ({"cmessages": -1}, "cmessages must not be negative"),
        ({"qos": 65_536}, "qos must be from 0 to 65535"),
        ({"global_qos": 65_536}, "global-qos must be from 0 to 65535"),
        ({"priority": 256}, "priority must be from 0 to 255"),
        ({"size": 2**30 + 1}, "a body may have 1073741824 bytes at most"),
        ({"queue": "q" * 256}, "short string of 256 bytes; 255 are the most"),
        ({"queue_pattern": "q" * 254 + "%d", "queue_pattern_to": 10}, "short string of 256 bytes"),
        ({"exchange": "e" * 256}, "short string of 256 bytes"),
        ({"exchange_type": "e" * 256}, "short string of 256 bytes"),
        ({"routing_key": "e" * 256}, "short string of 256 bytes"),
        ({"login": Login(vhost="v" * 256)}, "short string of 256 bytes"),
        ({"queue_args": {"x": 2**70}}, "value does not fit its field type"),
        ({"queue_args": {"x" * 256: 1}}, "table key of 256 bytes"),
        ({"properties": Properties(headers={"x": "y" * 4000})}, "message properties of 4013 bytes; 4000 are the most"),
        ({"time": -1}, "times must be positive"),
        ({"interval": 0}, "times must be positive"),
        ({"autoack": True, "multi_ack_every": 2}, "--autoack acknowledges nothing"),
        ({"qos": 9, "multi_ack_every": 10}, "--multi-ack-every must not be over --qos"),
        ({"global_qos": 9, "multi_ack_every": 10}, "--multi-ack-every must not be over --global-qos"),
        ({"drain": True}, "--drain needs a number of messages (-C) or a time"),
        ({"drain": True, "pmessages": 1, "consumers": 0}, "--drain needs producers and consumers"),
        ({"drain": True, "pmessages": 1, "producers": 0}, "--drain needs producers and consumers"),
        ({"queue": "q", "queue_pattern": "q-%d", "queue_pattern_to": 1}, "--queue and --queue-pattern both"),
        ({"queue_pattern": "q", "queue_pattern_to": 1}, "a queue pattern is like 'perf-test-%d', not 'q'"),
        ({"queue_pattern": "%d-%d", "queue_pattern_to": 1}, "a queue pattern is like"),
        ({"queue_pattern": "%q", "queue_pattern_to": 1}, "a queue pattern is like"),
        ({"queue_pattern": "q-%d"}, "--queue-pattern needs --queue-pattern-from and --queue-pattern-to"),
        ({"predeclared": True}, "--predeclared needs the name of the queue"),
        ({"priority": 1, "properties": Properties(priority=0)}, "--priority already says"),
        ({"priority": 1, "queue_args": {"x-max-priority": 1}}, "--priority already says"),
    ],
)
def test_what_cannot_work(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(OptionError) as raised:
        Options(**options)  # type: ignore[arg-type]
    assert str(raised.value).startswith(complaint)


@pytest.mark.parametrize(
    "options",
    [
        {"producers": 0},
        {"consumers": 0},
        {"qos": 10, "multi_ack_every": 10},
        {"multi_ack_every": 10},
        {"drain": True, "time": 1},
        {"drain": True, "pmessages": 1},
        {"queue_pattern": "q-%03d", "queue_pattern_from": 0, "queue_pattern_to": 0},
        {"predeclared": True, "consumers": 0},
        {"predeclared": True, "queue": "q"},
        {"qos": 65_535, "global_qos": 65_535, "priority": 255, "size": 0},
    ],
)
def test_what_can(options: dict[str, object]) -> None:
    Options(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("persistent", "durable", "result"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_queues_are_as_durable_as_messages_unless_told(persistent: bool, durable: bool | None, result: bool) -> None:
    assert Options(persistent=persistent, durable=durable).queue_is_durable is result
